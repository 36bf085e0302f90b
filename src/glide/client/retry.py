"""When to try again."""

from __future__ import annotations

from random import SystemRandom

import trio

from glide.errors import GlideError
from glide.text import duration

# Seconds: the first wait, and the longest; doubled in between, as everybody does. A relay that was restarted must not
# be met by all its clients at once: each wait is anywhere between half of it and all.
_FIRST = 0.25
_LONGEST = 15.0
_DICE = SystemRandom()


class Backoff:
    """Waits between attempts, for at most ``limit`` seconds after the last thing that went well."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._wait = _FIRST
        self._since = trio.current_time()

    def went_well(self) -> None:
        """Begin anew, from now on."""
        self._wait = _FIRST
        self._since = trio.current_time()

    def next(self, error: GlideError) -> float:
        """How long to wait before the next attempt. Raises ``error``, saying how long was tried, if it is over."""
        left = self._since + self._limit - trio.current_time()
        if left <= 0:
            if self._limit and not error.next.startswith("It was tried again"):
                tried = f"It was tried again for {duration(self._limit)} (--retry)."
                error.next = f"{tried} {error.next}".strip()
            raise error
        return min(self.pause(), left)

    def pause(self) -> float:
        """The same where there is no limit."""
        wait = self._wait * _DICE.uniform(0.5, 1.0)
        self._wait = min(2 * self._wait, _LONGEST)
        return wait
