"""The offers that a shell has shown, by their numbers: which are open, and which one is meant. Nothing here waits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from glide.cli.commands import Answer
from glide.client.offers import Offer
from glide.errors import UsageError

_HINT = "reqs lists those that do."


@dataclass(frozen=True)
class Request:
    """An offer that was shown under ``number``, and when (seconds of the monotonic clock)."""

    number: int
    offer: Offer
    since: float


class Several(UsageError):
    """A name does not say which: ``found`` are the offers that it may mean."""

    def __init__(self, answer: Answer, found: list[Request]) -> None:
        word = "ok" if answer.yes else "no"
        ways = " or ".join(f"{word} {request.number}" for request in found)
        super().__init__(f"{answer.sender} has offered several things; which one? {ways}")
        self.found = found


class OpenOffers:
    """Those that wait for an answer. Numbers come from ``numbers``, and no other offer ever has the same."""

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self._numbers = itertools.count(1) if numbers is None else numbers
        # Another thread looks at it, for completions: it is only ever replaced.
        self._shown: tuple[Request, ...] = ()

    def add(self, offer: Offer, now: float) -> Request:
        """Give it a number. What is open no more is forgotten."""
        request = Request(next(self._numbers), offer, now)
        self._shown = (*(each for each in self._shown if each.offer.open), request)
        return request

    def open(self, sender: str | None = None) -> list[Request]:
        """All that are open, or those of ``sender``, the oldest first."""
        return [each for each in self._shown if each.offer.open and sender in (None, each.offer.sender)]

    def find(self, number: int) -> Request:
        """The one of that number. Raises :class:`UsageError`."""
        for request in self.open():
            if request.number == number:
                return request
        raise UsageError(f"No offer {number} waits for an answer.", next=_HINT)

    def senders(self) -> list[str]:
        """Who waits for an answer."""
        return [each.offer.sender for each in self.open()]

    def take(self, answer: Answer, begun: float) -> Request:
        """The one that is meant, which is open here no more. ``begun`` is when the answer was begun to be typed.

        Raises :class:`UsageError` if there is none, and :class:`Several` if there is more than one.
        """
        meant = self._meant(answer, begun)
        self._shown = tuple(each for each in self._shown if each is not meant)
        return meant

    def _meant(self, answer: Answer, begun: float) -> Request:
        found = self.open(answer.sender)
        if answer.number is not None:
            for request in found:
                if request.number == answer.number:
                    return request
            whose = f" from {answer.sender}" if answer.sender is not None else ""
            raise UsageError(f"No offer {answer.number}{whose} waits for an answer.", next=_HINT)
        if not found:
            raise UsageError(f"No offer from {answer.sender} waits for an answer.", next=_HINT)
        if len(found) > 1:
            raise Several(answer, found)
        (only,) = found
        if answer.yes and only.since > begun:
            # Who typed the name may have meant what was there before, and is gone.
            raise UsageError(f"Offer {only.number} came while you were typing.", next=f"ok {only.number} takes it.")
        return only
