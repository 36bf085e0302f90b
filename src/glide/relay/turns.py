"""Turns: so many chunks are moved, then everybody else who is ready runs, then so many more.

Trio runs all tasks that are ready before it looks at the sockets again. With hundreds of transfers that go as fast as
they can, such a pass moves hundreds of chunks of a quarter of a millisecond each, and whoever asks the relay something
waits for several passes. So a task takes a turn for each chunk, and whoever finds none left waits for the next pass.
Whoever then has to wait for its socket moves its chunk as soon as that is ready: idle flows are not held back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Turns:
    """For the tasks of all transfers, first come, first served. Where ``most`` is a limit, :meth:`run` must run.

    A task moves one chunk in a pass, so turns are counted only while there are more tasks than that.
    """

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._left = most
        self._tasks = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._unused = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Turns: {self._left} of {self._most} left, {len(self._waiting)} waiting>"

    @contextmanager
    def shared(self, tasks: int) -> Iterator[None]:
        """So many tasks more may take turns while the block runs."""
        self._tasks += tasks
        try:
            yield
        finally:
            self._tasks -= tasks

    async def take(self) -> None:
        """Wait for a turn. No checkpoint if one is left: moving a chunk is followed by one."""
        if self._tasks <= self._most:
            return
        if self._left:
            self._left -= 1
            self._unused.unpark()
        else:
            await self._waiting.park()

    async def run(self) -> None:
        """Give out turns, once in each pass, until cancelled."""
        while True:
            if self._left == self._most:
                await self._unused.park()
            await trio.lowlevel.checkpoint()
            self._left = self._most - len(self._waiting.unpark(count=self._most))
