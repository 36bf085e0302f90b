"""Offers as values, for whoever decides about them in a program or at a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import trio

from glide import events
from glide.client.arriving import Received
from glide.client.consent import Answer
from glide.errors import Declined, GlideError, UsageError
from glide.people.known import Trust
from glide.text import printable
from glide.transfer.landing import Conflict

# For telling the sender that a transfer is stopped, and syncing what has arrived.
_FAREWELL = 10.0


class Offer:
    """Something that somebody wants to send, to be answered once by :meth:`accept` or :meth:`decline`.

    ``items`` are files; ``bytes`` is None if nobody knows how much it will be; ``names`` are the first of its
    top-level names. All text is as the sender wrote it: see :func:`glide.text.printable` before showing it.
    """

    def __init__(self, arrived: events.OfferArrived) -> None:
        self.arrived = arrived
        self.transfer = arrived.transfer
        self.sender = arrived.sender
        self.key = arrived.key
        self.trust = Trust(arrived.trust)
        self.items = arrived.items
        self.bytes = arrived.bytes
        self.message = arrived.message
        self.names = arrived.names
        self.aliases = arrived.aliases
        self.open = True
        self._answered = trio.Event()
        self._answer: Answer | None = None
        self._over = trio.Event()
        self._result: object = Declined("The offer was withdrawn, or nobody answered in time.")
        self._scope: trio.CancelScope | None = None
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Offer of {self.items} files from {self.sender}, {'open' if self.open else 'over'}>"

    def paths(self) -> Iterator[str]:
        """Every path in it, a folder's with a slash at its end."""
        return iter(self.arrived.paths())

    def decline(self) -> None:
        """Say no. Nothing happens if it is not open any more."""
        self.open = False
        self._answered.set()

    async def accept(
        self, into: str | Path | None = None, *, conflict: Conflict | str | None = None, known: bool = False
    ) -> Received:
        """Say yes; returns when all of it has its final names in ``into`` (by default where offers go anyway).

        ``conflict`` says what to do when a name is taken: ``rename``, ``skip``, ``overwrite`` or ``refuse``. ``known``
        says that a person has said yes, who has seen whose key it is: the sender is known by that, only seen otherwise.

        Raises a :class:`GlideError`: :class:`Declined` if the offer is not open any more, :class:`UsageError` for an
        unknown ``conflict``, which leaves it open. Cancelled, the sender is told, and what has arrived is kept to go on
        with it later.
        """
        if not self.open:
            raise Declined("The offer is not open any more: it was withdrawn, answered, or nobody did in time.")
        where = Path(into) if into is not None else None
        how = _conflict(conflict) if conflict is not None else None
        trust = Trust.KNOWN if known else Trust.SEEN
        self._answer = Answer(trust, where, how, self._begun, self._ended)
        self.open = False
        self._answered.set()
        try:
            await self._over.wait()
        except trio.Cancelled:
            self._stopped = True
            if self._scope is not None:
                self._scope.cancel()
            with trio.move_on_after(_FAREWELL, shield=True):
                await self._over.wait()
            raise
        if isinstance(self._result, Received):
            return self._result
        assert isinstance(self._result, GlideError), "a transfer ends well, or for a reason"
        raise self._result

    async def answer(self) -> Answer | None:
        """Wait for :meth:`accept` or :meth:`decline`: what was said, None for no. Cancelled, it is closed."""
        try:
            await self._answered.wait()
        except BaseException:
            self.open = False
            self._over.set()  # a yes that came in the same moment comes too late
            raise
        if self._answer is None:
            self._over.set()
        return self._answer

    def _begun(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        if self._stopped:
            scope.cancel()

    def _ended(self, result: object) -> None:
        self._result = result
        self._over.set()


def _conflict(word: str) -> Conflict:
    """Raises :class:`UsageError`."""
    try:
        return Conflict(word)
    except ValueError:
        raise UsageError(f"conflict is none of {', '.join(Conflict)}: {printable(word, 40)!r}.") from None
