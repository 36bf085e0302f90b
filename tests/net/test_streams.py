"""Much at once through real sockets: every byte, in order, and nothing said of it that is not so."""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from glide.net import streams

Pair: TypeAlias = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
SOCKETS = pytest.mark.skipif(os.name != "posix", reason="only there a socket is a file descriptor")
MIB = 1 << 20


def tcp() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (near, far))
    return left, right


@asynccontextmanager
async def pair(make: Callable[[], Pair] = tcp) -> AsyncIterator[Any]:
    left, right = make()
    try:
        with trio.fail_after(20):
            yield left, right
    finally:
        await trio.aclose_forcefully(left)
        await trio.aclose_forcefully(right)


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 3 * MIB), max_size=4),
    st.integers(50_000, 2 * MIB),
    st.sampled_from([tcp, memory_stream_pair]),
)
def test_bytes_pass_unchanged(sizes: list[int], room: int, make: Callable[[], Pair]) -> None:
    said = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]

    async def run() -> None:
        async with pair(make) as (left, right), trio.open_nursery() as nursery:

            async def speak() -> None:
                for piece in said:
                    await streams.send_all(left, piece)
                await left.send_eof()

            nursery.start_soon(speak)
            heard, buffer = bytearray(), memoryview(bytearray(room))
            while count := await streams.receive_into(right, buffer):
                assert count <= room
                heard += buffer[:count]
            assert heard == b"".join(said)
            assert await streams.receive_into(right, buffer) == 0

    trio.run(run)


async def test_a_read_takes_all_that_is_there_and_the_next_one_waits() -> None:
    async with pair() as (left, right):
        await left.send_all(b"one ")
        await left.send_all(b"two")
        room = memoryview(bytearray(100))
        heard = 0
        while heard < 7:
            heard += await streams.receive_into(right, room[heard:])
        assert bytes(room[:7]) == b"one two"
        with trio.move_on_after(0.05) as waiting:
            await streams.receive_into(right, room)
        assert waiting.cancelled_caught
        await left.send_all(b"three")
        assert await streams.receive_into(right, room) > 0, "to be cancelled lost nothing"


async def test_whoever_is_cancelled_before_the_first_byte_has_sent_nothing() -> None:
    async with pair() as (left, right):
        with trio.CancelScope() as scope:
            scope.cancel()
            await streams.send_all(left, b"not this")
        assert scope.cancelled_caught
        await streams.send_all(left, b"but this")
        await left.send_eof()
        room = memoryview(bytearray(100))
        count = await streams.receive_into(right, room)
        assert bytes(room[:count]) == b"but this"


async def test_whoever_has_sent_all_is_not_told_that_it_was_cancelled() -> None:
    """Or a connection would count as ruined that is not."""
    async with pair() as (left, right), trio.open_nursery() as nursery:
        sent = []

        async def speak() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)  # runs as soon as others do
                await streams.send_all(left, b"all of it")
                sent.append(True)

        async def cancel(scope: trio.CancelScope) -> None:
            scope.cancel()

        nursery.start_soon(speak)
        assert await right.receive_some() == b"all of it"
        await wait_all_tasks_blocked()
        assert sent == [True]


@SOCKETS
async def test_a_socket_that_was_closed_or_reset_says_so() -> None:
    room = memoryview(bytearray(100))
    async with pair() as (left, right):
        await left.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await streams.send_all(left, b"x")
        with pytest.raises(trio.ClosedResourceError):
            await streams.receive_into(left, room)
        assert await streams.receive_into(right, room) == 0
    async with pair() as (left, right):
        right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(right)
        with pytest.raises(trio.BrokenResourceError):
            await streams.receive_into(left, room)
        with pytest.raises(trio.BrokenResourceError):
            await streams.send_all(left, bytes(MIB))


@SOCKETS
async def test_closing_it_wakes_whoever_waits_for_it() -> None:
    async with pair() as (left, _), trio.open_nursery() as nursery:
        woken = []

        async def wait(what: Callable[[], Any]) -> None:
            try:
                while True:
                    await what()
            except trio.ClosedResourceError:
                woken.append(what)

        nursery.start_soon(wait, lambda: streams.send_all(left, bytes(MIB)))
        nursery.start_soon(wait, lambda: streams.receive_into(left, memoryview(bytearray(10))))
        await wait_all_tasks_blocked()
        await left.aclose()
        await wait_all_tasks_blocked()
        assert len(woken) == 2


@SOCKETS
async def test_a_large_block_goes_round_the_event_loop_only_where_the_socket_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is what it is for: trio's own goes round for each piece that the socket takes."""
    full, real = 0, os.write

    def write(number: int, data: memoryview) -> int:
        nonlocal full
        try:
            return real(number, data)
        except BlockingIOError:
            full += 1
            raise

    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task is sender

    sender = trio.lowlevel.current_task()
    async with pair() as (left, right), trio.open_nursery() as nursery:

        async def take() -> None:
            room = memoryview(bytearray(MIB))
            while await streams.receive_into(right, room):
                pass

        nursery.start_soon(take)
        monkeypatch.setattr(os, "write", write)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for _ in range(8):
            await streams.send_all(left, bytes(MIB))
        trio.lowlevel.remove_instrument(steps)
        await left.send_eof()
    assert steps.count <= full + 8


# --- much is worth waiting for -----------------------------------------------------------------------------

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked to wait for much")
HOUR = 3600.0


def mark(stream: trio.SocketStream) -> int:
    return stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def trickle(stream: trio.abc.SendStream, size: int) -> None:
    for at in range(0, size, 64 * 1024):
        await stream.send_all(bytes(min(64 * 1024, size - at)))
        await trio.sleep(0.001)


@LINUX
async def test_a_little_is_taken_after_a_moment_and_the_socket_is_as_it_was() -> None:
    async with pair() as (left, right):
        await left.send_all(b"a little")
        room = memoryview(bytearray(MIB))
        assert await streams.receive_into(right, room, much=True) == 8, "what is there already is not waited for"
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + 0.05
            await streams.receive_into(right, room, much=True)
        assert scope.cancelled_caught
        assert mark(right) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, b"and a little more")
            assert await streams.receive_into(right, room, much=True) == 17
        assert mark(right) == 1


@LINUX
async def test_until_there_is_much_nobody_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MOMENT", HOUR)
    room = memoryview(bytearray(2 * MIB))
    async with pair() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(trickle, left, 3 * streams.MUCH)
        came, wakes = 0, 0
        while came < streams.MUCH // 2:
            came += await streams.receive_into(right, room, much=True)
            wakes += 1
        assert wakes <= 4, "or each of 8 pieces would wake it"
        nursery.cancel_scope.cancel()


@LINUX
@pytest.mark.parametrize("ending", ["end", "reset", "full"])
async def test_where_no_more_can_come_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.setattr(streams, "_MOMENT", HOUR)
    room = memoryview(bytearray(2 * MIB))
    async with pair() as (left, right), trio.open_nursery() as nursery:
        if ending == "full":
            right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            nursery.start_soon(left.send_all, bytes(MIB))
            assert 0 < await streams.receive_into(right, room, much=True) < MIB
            nursery.cancel_scope.cancel()
            return

        async def end() -> None:
            await wait_all_tasks_blocked()
            if ending == "reset":
                left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await left.aclose()

        nursery.start_soon(end)
        if ending == "end":
            assert await streams.receive_into(right, room, much=True) == 0
        else:
            with pytest.raises(trio.BrokenResourceError):
                await streams.receive_into(right, room, much=True)


@LINUX
async def test_closing_it_wakes_whoever_waits_for_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MOMENT", HOUR)
    async with pair() as (_, right), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await streams.receive_into(right, memoryview(bytearray(10)), much=True)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await right.aclose()


@LINUX
@pytest.mark.parametrize(("size", "unsent"), [(MIB, 16 * 1024), (4 * MIB, 2 * MIB)])
async def test_only_where_much_is_sent_together_may_much_wait_in_the_socket(size: int, unsent: int) -> None:
    """What is said next is heard behind it: on a slow link, after seconds."""

    async def send(stream: trio.SocketStream) -> None:
        while True:
            await streams.send_all(stream, bytes(size))

    async with pair() as (left, _), trio.open_nursery() as nursery:
        # As if it had been the other way before.
        left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * MIB + 16 * 1024 - unsent)
        nursery.start_soon(send, left)
        await wait_all_tasks_blocked()  # nobody takes it
        assert left.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == unsent
        nursery.cancel_scope.cancel()
