"""What each key has under way at this relay, whatever sessions it belongs to: transfers and pushes that wait.

A push takes a seat of its sender's from when it is said until it comes to nothing or its transfer is over, and a seat
of its receiver's from when it rings. While it waits, its sender's seat counts against pushing more, but does not keep
others from ringing them.
"""

from __future__ import annotations

from collections import Counter

import trio


class Seats:
    """So many for each key. Nothing here checks a limit when a seat is taken: who takes it has asked before."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: Counter[bytes] = Counter()
        self._waiting: Counter[bytes] = Counter()
        self._queues: dict[bytes, trio.lowlevel.ParkingLot] = {}

    def __repr__(self) -> str:
        return f"<Seats: {self._taken.total()} taken, {self._waiting.total()} of them waiting>"

    def may_push(self, key: bytes) -> bool:
        return self._taken[key] < self.most

    def may_be_rung(self, key: bytes) -> bool:
        return self._taken[key] - self._waiting[key] < self.most

    def take(self, key: bytes) -> None:
        self._taken[key] += 1

    def give_back(self, key: bytes) -> None:
        _less(self._taken, key)
        self.wake(key)

    def begin_waiting(self, key: bytes) -> None:
        """A seat that ``key`` has is from now on that of a push that waits."""
        self._waiting[key] += 1
        self.wake(key)

    def end_waiting(self, key: bytes) -> None:
        _less(self._waiting, key)

    async def room(self, key: bytes) -> None:
        """Wait until ``key`` may be rung, or has left; first come, first served.

        Whoever was woken and does not ring calls :meth:`wake`, so that the next one may.
        """
        queue = self._queues.setdefault(key, trio.lowlevel.ParkingLot())
        try:
            await queue.park()
        finally:
            if not queue and self._queues.get(key) is queue:
                del self._queues[key]

    def wake(self, key: bytes) -> None:
        """Wake the first who waits for room, if there is any."""
        queue = self._queues.get(key)
        if queue is not None and self.may_be_rung(key):
            queue.unpark()

    def wake_all(self, key: bytes) -> None:
        """Wake all who wait for room: a session of ``key`` has ended, and there may be nothing to wait for."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.unpark_all()


def _less(counter: Counter[bytes], key: bytes) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
