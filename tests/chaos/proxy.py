"""A TCP proxy on loopback that a test can slow down, make deaf, and cut: the network between a party and the relay."""

from __future__ import annotations

import math
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from enum import Enum, auto
from types import TracebackType

import trio

HERE = "127.0.0.1"

# Bytes in one step of a direction: also what a cut may lose of what the proxy itself holds.
PIECE = 32 * 1024
# Small, so that what a party has sent and what has passed differ by little; the kernel doubles it.
BUFFER = 128 * 1024
# What a rate-limited direction may pass at once after a pause, in seconds of its rate.
BURST = 0.02
# How long what still comes of a connection that was closed with FIN is thrown away.
LINGER = 1.0

# With SO_LINGER on and zero seconds, close() sends RST.
_ABORT = struct.pack("ii", 1, 0)


class Direction(Enum):
    UP = auto()  # from the party to the relay
    DOWN = auto()  # from the relay to the party


BOTH = frozenset(Direction)


class Cut(Enum):
    RST = auto()  # "connection reset by peer", on both sides
    FIN = auto()  # the end of the stream, on both sides, in the middle of whatever it was


class Proxy:
    """Forwards 127.0.0.1:``port`` to another port there. A context manager; trio runs in a thread of its own.

    ``rate``, in bytes a second, holds for the direction up, all connections together.
    """

    def __init__(self, target: int, rate: float = math.inf) -> None:
        self.target = target
        self.passed = {Direction.UP: 0, Direction.DOWN: 0}  # bytes, over all connections
        self.uploads: list[int] = []  # bytes up, of each connection there was
        self.port = 0
        self._rate = rate
        self._next = 0.0  # when the next byte may go up
        self._links: set[_Link] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10), "the proxy does not start"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._scope.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the proxy does not end"

    def live_uploads(self) -> dict[int, int]:
        """The connections that there are, by their place in ``uploads``, and what has passed up in each."""
        found: dict[int, int] = {}
        self._do(lambda: found.update({link.number: self.uploads[link.number] for link in self._links}))
        return found

    # --- faults, from any thread; done when the call returns ---

    def cut(self, how: Cut) -> None:
        """End every connection that there is. New ones may come."""

        def act() -> None:
            for link in self._links:
                link.cut(how)

        self._do(act)

    def hole(self, directions: Iterable[Direction] = BOTH) -> None:
        """Forward nothing any more, neither bytes nor an end, and close nothing; new connections hang likewise."""
        wanted = frozenset(directions)

        def close() -> None:
            for direction in wanted:
                if self._open[direction].is_set():
                    self._open[direction] = trio.Event()

        self._do(close)

    def restore(self) -> None:
        """What was held back goes on."""

        def open_all() -> None:
            for gate in self._open.values():
                gate.set()

        self._do(open_all)

    def _do(self, act: Callable[[], object]) -> None:
        trio.from_thread.run_sync(act, trio_token=self._token)

    # --- in the thread ---

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._open = {direction: trio.Event() for direction in Direction}
        for gate in self._open.values():
            gate.set()
        with trio.socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # inherited by what is accepted
            await listener.bind((HERE, 0))
            listener.listen(64)
            self.port = int(listener.getsockname()[1])
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self._ready.set()
                while True:
                    accepted, _ = await listener.accept()
                    nursery.start_soon(self._serve, accepted)

    async def _serve(self, party: trio.socket.SocketType) -> None:
        link = _Link(len(self.uploads))
        self._links.add(link)
        self.uploads.append(0)
        relay = trio.socket.socket()
        ends = (party, relay)
        try:
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            relay.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            with link.scope:
                try:
                    await self._gates(BOTH)
                    await relay.connect((HERE, self.target))
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, party, relay, Direction.UP, link.number)
                        nursery.start_soon(self._pump, relay, party, Direction.DOWN, link.number)
                    link.end = None
                except* OSError:
                    pass  # one side was reset, or there is no relay: the other side is told in the same way
        finally:
            self._links.discard(link)
            if link.end is Cut.FIN:
                await _finish(ends)
            for end in ends:
                if link.end is Cut.RST:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                end.close()

    async def _pump(
        self, source: trio.socket.SocketType, sink: trio.socket.SocketType, direction: Direction, number: int
    ) -> None:
        while data := await source.recv(PIECE):
            if direction is Direction.UP:
                now = trio.current_time()
                self._next = max(self._next, now - BURST) + len(data) / self._rate
                await trio.sleep_until(self._next)
            view = memoryview(data)
            while view:
                await self._gates({direction})
                count = await sink.send(view)
                view = view[count:]
                self.passed[direction] += count
                if direction is Direction.UP:
                    self.uploads[number] += count
        await self._gates({direction})
        sink.shutdown(socket.SHUT_WR)

    async def _gates(self, directions: Iterable[Direction]) -> None:
        for direction in directions:
            while not self._open[direction].is_set():
                await self._open[direction].wait()


class _Link:
    """One connection; ``end`` is how it will be closed, None for one that both sides have ended themselves."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.scope = trio.CancelScope()
        self.end: Cut | None = Cut.RST

    def cut(self, how: Cut) -> None:
        self.end = how
        self.scope.cancel()


async def _finish(ends: tuple[trio.socket.SocketType, ...]) -> None:
    """Send FIN both ways, and throw away what comes: closing with bytes unread would send RST instead."""

    async def drain(end: trio.socket.SocketType) -> None:
        try:
            end.shutdown(socket.SHUT_WR)
            while await end.recv(PIECE):
                pass
        except OSError:
            pass  # never connected, or reset by the other side meanwhile

    with trio.move_on_after(LINGER):
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(drain, end)
