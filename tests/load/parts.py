"""What a generator does: hold a crowd of clients, send, receive, or ask who is here again and again.

Each part is told what to do by words, and answers each with a few figures: see :mod:`tests.load.generator`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import trio

from glide.crypto.identity import Identity
from glide.errors import GlideError
from glide.net.connection import Connection
from glide.net.streams import BROKEN
from glide.protocol.messages import Goodbye, People, Role, Who
from tests.load.people import Home, Unserved

AT_ONCE = 16  # handshakes of one generator: three together stay below what a relay grants one address
BLOCK = 256 * 1024
ASKING = 10.0  # seconds
PATIENCE = 60.0  # seconds for whatever must come

Figures = dict[str, Any]


class Part(ABC):
    """One generator's work. ``numbers`` are those of its clients."""

    def __init__(self, home: Home, numbers: range, pause: float) -> None:
        self.home = home
        self.numbers = numbers
        self.pause = pause
        self.problems: list[str] = []

    @abstractmethod
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Be there until cancelled; started when all clients are registered."""

    @abstractmethod
    async def does(self, word: str) -> Figures:
        """What one word comes to."""


class Crowd(Part):
    """Clients who are merely here, and hear goodbye."""

    def __init__(self, home: Home, numbers: range, pause: float) -> None:
        super().__init__(home, numbers, pause)
        self._here = 0
        self._all_here = trio.Event()
        self._dismissed: list[float] = []
        self._lost = 0
        self._nobody_left = trio.Event()
        self._limit = trio.CapacityLimiter(AT_ONCE)

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            for number in self.numbers:
                nursery.start_soon(self._client, f"load-{number:05}")
            await self._all_here.wait()
            task_status.started()

    async def _client(self, name: str) -> None:
        """From registering to the goodbye."""
        try:
            await self._limit.acquire()
            registering = True
            try:
                async with self.home.client(name, Identity.generate(), Role.RECEIVE) as connection:
                    self._here += 1
                    self._limit.release()
                    registering = False
                    if self._here == len(self.numbers):
                        self._all_here.set()
                    while not isinstance(await connection.receive(), Goodbye):
                        pass
                    self._dismissed.append(time.monotonic())
            finally:
                if registering:
                    self._limit.release()
        except* (GlideError, Unserved, OSError) as errors:
            self._lost += 1
            self.problems += [f"{name}: {error}" for error in errors.exceptions]
            if self._here + self._lost == len(self.numbers):
                self._all_here.set()
        if len(self._dismissed) + self._lost == len(self.numbers):
            self._nobody_left.set()

    async def does(self, word: str) -> Figures:
        if word == "dismissed":
            with trio.move_on_after(PATIENCE):
                await self._nobody_left.wait()
        last = max(self._dismissed, default=0.0)
        return {"here": self._here, "lost": self._lost, "dismissed": len(self._dismissed), "last": last}


class Receivers(Part):
    """Take what comes, one transfer after the other, and count it; ``drop`` cuts those that are under way.

    With a ``pause`` only 64 KiB are taken between two of them.
    """

    def __init__(self, home: Home, numbers: range, pause: float) -> None:
        super().__init__(home, numbers, pause)
        self._bytes = dict.fromkeys(numbers, 0)
        self._ended = 0
        self._all_ended = trio.Event()
        self._scopes: dict[int, trio.CancelScope] = {}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            for number in self.numbers:
                await nursery.start(self._receive, number)
            task_status.started()

    async def _receive(self, number: int, task_status: trio.TaskStatus[None]) -> None:
        me = Identity.generate()
        try:
            async with self.home.client(f"receiver-{number}", me, Role.RECEIVE) as connection:
                task_status.started()
                while True:
                    stream, first = await self.home.rung(connection, me)
                    self._bytes[number] += len(first)
                    async with stream:
                        await self._take(number, stream)
                    self._ended += 1
                    if self._ended == len(self.numbers):
                        self._all_ended.set()
        except* (GlideError, Unserved, OSError) as errors:
            self.problems += [f"receiver-{number}: {error}" for error in errors.exceptions]

    async def _take(self, number: int, stream: trio.SocketStream) -> None:
        try:
            with trio.CancelScope() as self._scopes[number]:
                while piece := await stream.receive_some(BLOCK // 4 if self.pause else BLOCK):
                    self._bytes[number] += len(piece)
                    if self.pause:
                        await trio.sleep(self.pause)
        except BROKEN:
            pass  # its sender was told to drop it

    async def does(self, word: str) -> Figures:
        if word == "drop":
            for scope in self._scopes.values():
                scope.cancel()
        if word == "ended":
            with trio.move_on_after(PATIENCE):
                await self._all_ended.wait()
        return {"bytes": list(self._bytes.values()), "ended": self._ended, "at": time.monotonic()}


class Senders(Part):
    """Each pushes to the receiver of its number: from ``start`` to ``finish``, or to ``drop``, which cuts it."""

    def __init__(self, home: Home, numbers: range, pause: float) -> None:
        super().__init__(home, numbers, pause)
        self._bytes = dict.fromkeys(numbers, 0)
        self._sending: dict[int, trio.SocketStream] = {}
        self._scope = trio.CancelScope()
        self._finish = False
        self._clients: dict[int, tuple[Connection, Identity]] = {}
        self._nursery: trio.Nursery

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._nursery:
            for number in self.numbers:
                await self._nursery.start(self._register, number)
            task_status.started()
            await trio.sleep_forever()

    async def _register(self, number: int, task_status: trio.TaskStatus[None]) -> None:
        me = Identity.generate()
        try:
            async with self.home.client(f"sender-{number}", me, Role.SEND) as connection:
                self._clients[number] = connection, me
                task_status.started()
                await trio.sleep_forever()
        except* (GlideError, Unserved, OSError) as errors:
            self.problems += [f"sender-{number}: {error}" for error in errors.exceptions]

    async def does(self, word: str) -> Figures:
        if word == "start":
            self._scope, self._finish = trio.CancelScope(), False
            await self._ring_all()
            self._nursery.start_soon(self._send_all)
        elif word == "finish":
            self._finish = True
        elif word == "drop":
            self._scope.cancel()
        return {"bytes": list(self._bytes.values()), "under_way": len(self._sending)}

    async def _ring_all(self) -> None:
        for number, (connection, me) in self._clients.items():
            try:
                self._sending[number] = await self.home.ring(connection, me, f"receiver-{number}")
            except (GlideError, Unserved, OSError) as error:
                self.problems.append(f"sender-{number}: {error}")

    async def _send_all(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                for number in self._sending:
                    nursery.start_soon(self._send, number)

    async def _send(self, number: int) -> None:
        block = bytes(BLOCK)
        stream = self._sending[number]
        try:
            async with stream:
                while not self._finish:
                    await stream.send_all(block)
                    self._bytes[number] += len(block)
                await stream.send_eof()
                while await stream.receive_some(1):
                    pass
        except BROKEN as error:
            self.problems.append(f"sender-{number}: {error!r}")
        finally:
            del self._sending[number]


class Prober(Part):
    """Asks who is here: ``page`` for one page again and again for ten seconds, ``everybody`` once for all of them."""

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with self.home.client(None, Identity.generate(), Role.ASK) as self._connection:
            task_status.started()
            await trio.sleep_forever()

    async def does(self, word: str) -> Figures:
        begun = time.monotonic()
        if word == "everybody":
            names = 0
            page = await self._page(None)
            while names := names + len(page.people):
                if not page.more:
                    break
                page = await self._page(page.people[-1].name)
            return {"names": names, "seconds": time.monotonic() - begun}
        times: list[float] = []
        while time.monotonic() - begun < ASKING:
            asked = time.monotonic()
            await self._page("load-05")
            times.append(time.monotonic() - asked)
            await trio.sleep(self.pause)
        return {"times": times}

    async def _page(self, after: str | None) -> People:
        await self._connection.send(Who(after=after))
        with trio.fail_after(PATIENCE):
            while not isinstance(page := await self._connection.receive(), People):
                pass
        return page


PARTS: dict[str, type[Part]] = {"crowd": Crowd, "receivers": Receivers, "senders": Senders, "prober": Prober}
