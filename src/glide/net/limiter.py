"""How fast what a peer says is taken in."""

from __future__ import annotations

import math

import trio

# So many frames, or records, of one read are taken in before others run.
_BREATH = 64


class FrameLimiter:
    """Counts frames, and records, which may be cut so that no frame is whole: each has to be opened all the same.

    What comes faster than ``most`` a second, of either, waits; and with it, through TCP, the peer.
    """

    __slots__ = ("_frames", "_records", "_second", "_turns", "most")

    def __init__(self) -> None:
        self.most = math.inf
        self._turns = self._frames = self._records = 0
        self._second = trio.current_time()

    def frame(self) -> None:
        """One was taken in."""
        self._frames += 1

    def record(self) -> None:
        """One was opened."""
        self._records += 1

    async def wait(self) -> None:
        """Before anything is taken in: wait until it is due, and let others run now and then."""
        self._turns += 1
        if self._turns % _BREATH == 0:
            await trio.lowlevel.checkpoint()
        if self.most < math.inf:
            if trio.current_time() - self._second >= 1:
                self._frames, self._records, self._second = 0, 0, trio.current_time()
            if max(self._frames, self._records) >= self.most:
                await trio.sleep_until(self._second + 1)
