"""What ``--once`` means: one transfer, to its end, even if its sender is lost in between and comes again."""

from __future__ import annotations

import trio

from glide.errors import Declined


class Once:
    """How far the one transfer is; without ``wanted`` there may be any number."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._taken: bytes | None = None  # the key of whose transfer has been accepted
        self._came_again: trio.Event | None = None  # set when a sender that was lost has come again

    def check(self, key: bytes) -> None:
        """Raise :class:`Declined` if an offer of that key is one too many."""
        awaited = self._came_again is not None and not self._came_again.is_set() and key == self._taken
        if self.wanted and self._taken is not None and not awaited:
            raise Declined(
                "Another transfer has begun, and --once takes one.",
                for_peer="they take one transfer, and have begun it.",
            )

    def accepted(self, key: bytes) -> None:
        self._taken = key
        if self._came_again is not None:
            self._came_again.set()

    def expect_again(self) -> trio.Event:
        """The sender of the transfer that was accepted may come again: set when it does."""
        if self._came_again is None or self._came_again.is_set():
            self._came_again = trio.Event()
        return self._came_again
