"""How fast somebody may send: so many bytes a second, over all of their transfers together.

A bucket of a second's worth of bytes, kept as one moment of time: when all that was taken will have been paid for.
Bytes are taken first and paid for before the next are: they are here already, and what holds a sender back is that
nothing more is read. Who comes first pays first, so transfers that share a throttle take turns.
"""

from __future__ import annotations

import trio

# What a sender that was quiet may send at once, in seconds of its rate.
BURST = 1.0


class Throttle:
    """At most ``rate`` bytes a second, on trio's clock. Nothing here waits, so there is nothing to cancel."""

    def __init__(self, rate: int) -> None:
        if rate < 1:
            raise ValueError(f"{rate} bytes a second let nothing through")
        self.rate = rate
        self._paid = float("-inf")

    def __repr__(self) -> str:
        return f"<Throttle: {self.rate} bytes a second, paid for at {self._paid:.3f}>"

    @property
    def idle(self) -> bool:
        """True if nothing is owed: a new one would be just the same."""
        return self._paid <= trio.current_time() - BURST

    def take(self, count: int) -> float:
        """So many bytes have come; the time before which no more are to be taken. 0 only asks for that time."""
        self._paid = max(self._paid, trio.current_time() - BURST) + count / self.rate
        return self._paid
