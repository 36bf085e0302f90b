"""Bridges between two clients of the tests: over streams of any kind, and over real TCP connections."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import wait_all_tasks_blocked

from glide.relay.limits import Limits
from glide.relay.pipe import End, Lane, Pipe
from glide.relay.splicing import Budget

LIMITS = Limits()


@dataclass
class Bridge:
    """A pipe between two streams, and the streams' far ends, which are the clients'."""

    nursery: trio.Nursery
    limits: Limits = LIMITS
    budget: Budget | None = None
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pipe = Pipe(self.limits, self.budget or Budget(self.limits))

    def join(self, sender: trio.abc.HalfCloseableStream, receiver: trio.abc.HalfCloseableStream) -> None:
        self.nursery.start_soon(self._run, "sender", self.pipe.sender, sender)
        self.nursery.start_soon(self._run, "receiver", self.pipe.receiver, receiver)

    async def _run(self, name: str, end: End, stream: trio.abc.HalfCloseableStream) -> None:
        try:
            await end.run(stream)
        finally:
            self.pipe.leave(end)
            self.ended.append(name)
            await trio.aclose_forcefully(stream)


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    got = bytearray()
    async for piece in stream:
        got += piece
    return bytes(got)


def tcp_pair(buffers: int = 0) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two real TCP sockets over loopback: unlike local ones they can be reset. ``buffers`` bounds what each holds."""
    with socket.socket() as listener, socket.socket() as near:
        for each in (listener, near) if buffers else ():  # a connection has those of its listener
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        return stream_of(near.dup()), stream_of(far)


def stream_of(connected: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(connected))


def reset(stream: trio.SocketStream) -> None:
    """Close it so that the other end finds it broken."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@dataclass
class Tcp:
    """A bridge over TCP: the streams of the two clients, and the relay's ends of them."""

    bridge: Bridge
    sender: trio.SocketStream
    senders: trio.SocketStream
    receiver: trio.SocketStream
    receivers: trio.SocketStream

    @property
    def forth(self) -> Lane:
        return self.bridge.pipe.forth

    @property
    def back(self) -> Lane:
        return self.bridge.pipe.back

    def join(self) -> None:
        self.bridge.join(self.senders, self.receivers)


@asynccontextmanager
async def over_tcp(
    limits: Limits,
    *,
    buffers: int = 64 * 1024,
    receivers_buffers: int = 0,
    budget: Budget | None = None,
    joined: bool = True,
) -> AsyncIterator[Tcp]:
    """A bridge over TCP with small buffers; whatever is left of it is cut when the block ends."""
    (sender, senders), (receiver, receivers) = tcp_pair(buffers), tcp_pair(receivers_buffers or buffers)
    try:
        async with trio.open_nursery() as nursery:
            made = Tcp(Bridge(nursery, limits, budget), sender, senders, receiver, receivers)
            if joined:
                made.join()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        for stream in (sender, senders, receiver, receivers):
            stream.socket.close()


@dataclass
class Tap:
    """Sends a payload and knows how much of it the system took, so that it can be turned off at any byte."""

    stream: trio.SocketStream
    payload: bytes
    sent: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    off: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        with self.scope:
            while self.sent < len(self.payload):
                self.sent += await self.stream.socket.send(memoryview(self.payload)[self.sent :][:100_000])
        self.off.set()

    async def turn_off(self) -> bytes:
        """What was sent."""
        self.scope.cancel()
        await self.off.wait()
        return self.payload[: self.sent]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what tasks, or the network below them, are about to bring about, whatever clock the test has."""
    while not condition():
        await wait_all_tasks_blocked()
        time.sleep(0.001)  # noqa: ASYNC251  # nobody else has anything to do; a mock clock would never end trio's


async def stands_still(lane: Lane) -> None:
    """Wait until the task that fills the lane is blocked on a channel of its, and nothing moves any more."""
    moved = -1
    while not (blocked(lane) and lane.bytes + lane.delivered == moved):
        moved = lane.bytes + lane.delivered
        await wait_all_tasks_blocked(0.05)


def blocked(lane: Lane) -> bool:
    """True if the task that fills the lane waits for room in its channel, or for an empty pipe."""
    return lane.full_in.statistics().tasks_waiting_send + lane.empty.statistics().tasks_waiting_receive == 1


def descriptors() -> set[str]:
    """The sockets and pipes that this process has open: numbers, and what they are."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            pass  # the one that lists them
    return {each for each in found if " socket:" in each or " pipe:" in each}


def in_pipes() -> int:
    """Bytes that the kernel pipes of this process may hold, as the kernel counts them."""
    numbers = {what: int(number) for number, what in (each.split(" ", 1) for each in descriptors())}
    return sum(fcntl.fcntl(numbers[what], fcntl.F_GETPIPE_SZ) for what in numbers if what.startswith("pipe:"))
