"""receive: wait under a name, and take what may be taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from glide import events
from glide.client import endtoend, link
from glide.client.link import Address, Link, Me
from glide.errors import (
    Declined,
    FileError,
    GlideError,
    KeyChanged,
    NameTaken,
    one_error,
)
from glide.people.known import Trust
from glide.people.policy import Policy, Verdict, judge
from glide.protocol.messages import Incoming, Offer, Reject, Role
from glide.text import duration, printable
from glide.transfer import landing, receiving
from glide.transfer.landing import Destination
from glide.transfer.receiving import Arrival
from glide.transfer.sending import Terms

# Offers that are handled at once; the relay rings for more than a person can look at.
MOST_AT_ONCE = 8

# Asks the person: True for yes. Cancelled if the sender goes away or the time is over.
Ask = Callable[[events.OfferArrived], Awaitable[bool]]


@dataclass(frozen=True)
class Wishes:
    """How to receive. ``ask`` is None where no terminal can answer: then what would be asked is refused (D3)."""

    name: str
    into: Path
    policy: Policy = Policy.ASK
    only: frozenset[str] = frozenset()
    once: bool = False
    allow_hidden: bool = False
    sync: bool = True
    ask: Ask | None = None


async def receive(address: Address, me: Me, wishes: Wishes, terms: Terms, report: events.Report) -> None:
    """Receive until cancelled, or with ``once`` until the first accepted transfer has ended.

    Raises a :class:`GlideError`: why it could not begin, why the session ended, or with ``once`` how that transfer
    failed. The session's end does not end transfers that are under way. Cancelled, their senders are told.
    """
    # At once rather than at the first offer.
    Destination.open(wishes.into).close()
    try:
        async with link.connect(address, me, role=Role.RECEIVE, name=wishes.name, report=report) as control:
            report(events.Registered(wishes.name, me.identity.public, control.greeting))
            await _Receiver(address, me, wishes, terms, report, control).run()
    except NameTaken as error:
        raise NameTaken(
            f"{error.what}: somebody else is {wishes.name} at this relay.",
            "Nothing is received.",
            f"Choose another name with --as, {wishes.name[:25]}-laptop for instance: each machine has its own key.",
        ) from None


class _Receiver:
    """One registered session and the transfers that it takes."""

    def __init__(
        self, address: Address, me: Me, wishes: Wishes, terms: Terms, report: events.Report, control: Link
    ) -> None:
        self._address = address
        self._me = me
        self._wishes = wishes
        self._terms = terms
        self._report = report
        self._control = control
        self._active = 0
        self._taken = False  # with `once`: a transfer has been accepted
        self._finished = False  # with `once`: and has ended

    async def run(self) -> None:
        """Handle offers until the session ends, and then what is under way; raise why it ended."""
        with one_error():
            async with trio.open_nursery() as nursery:
                async for message in self._control.inbox:
                    if not isinstance(message, Incoming):
                        continue
                    if self._active < MOST_AT_ONCE:
                        self._active += 1
                        nursery.start_soon(self._handle, message, nursery.cancel_scope)
                    else:
                        await self._reject(message, Declined(f"has {MOST_AT_ONCE} other offers to look at"))
        if not self._finished:
            assert self._control.why is not None, "the inbox ends with the connection"
            raise self._control.why

    async def _handle(self, incoming: Incoming, all_of_it: trio.CancelScope) -> None:
        """One offer. Whatever comes of it, the session goes on; with ``once`` an accepted one ends it."""
        accepted = False

        def note_accepted() -> None:
            nonlocal accepted
            accepted = self._taken = True

        try:
            self._me.known.check(self._control.relay_key, incoming.sender, incoming.key)
            await self._transfer(incoming, note_accepted)
        except KeyChanged as error:
            self._report(events.OfferDeclined(incoming.sender, str(error)))
            await self._reject(incoming, Declined("has another key on record for that name, and refused"))
        except GlideError as error:
            self._report(events.Failed(incoming.transfer, incoming.sender, error.code, str(error)))
            if accepted and self._wishes.once:
                raise
        finally:
            self._active -= 1
        if accepted and self._wishes.once:
            self._finished = True
            all_of_it.cancel()

    async def _reject(self, incoming: Incoming, error: GlideError) -> None:
        try:
            await self._control.ask(Reject(transfer=incoming.transfer, code=error.code, message=error.what))
        except GlideError:
            pass  # the session is over: the listening task knows

    async def _transfer(self, incoming: Incoming, note_accepted: Callable[[], None]) -> None:
        relay_key, transfer, me = self._control.relay_key, incoming.transfer, self._me
        binding = endtoend.Terms(
            transfer, relay_key, incoming.sender, incoming.key, self._wishes.name, me.identity.public
        )
        stream, already = await link.open_data(self._address, relay_key, incoming.ticket, me)
        async with stream:
            connection = await endtoend.as_receiver(stream, already, binding, me)
            self._control.hints[transfer] = ""

            async def decide(offer: Offer) -> Destination:
                destination = await self._decide(incoming, offer)
                note_accepted()
                return destination

            try:
                await receiving.receive(
                    connection,
                    Arrival(transfer, incoming.sender),
                    decide,
                    sync=self._wishes.sync,
                    terms=self._terms,
                    hint=lambda: self._control.hints.get(transfer, ""),
                    report=self._report,
                )
            finally:
                self._control.hints.pop(transfer, None)
            await connection.close()

    async def _decide(self, incoming: Incoming, offer: Offer) -> Destination:
        """Where to put the files; raises if they are not taken. The one place that consents."""
        wishes, known, relay_key = self._wishes, self._me.known, self._control.relay_key
        trust = known.check(relay_key, incoming.sender, incoming.key)
        arrived = events.OfferArrived(
            incoming.transfer,
            incoming.sender,
            incoming.key,
            len(offer.items),
            sum(item.size for item in offer.items),
            offer.message,
            trust,
            tuple(item.name for item in offer.items),
            known.aliases(relay_key, incoming.sender, incoming.key),
        )
        self._report(arrived)
        if wishes.once and self._taken:
            raise Declined("The receiver takes one transfer, and has begun it.")
        for item in offer.items:
            landing.check_usable(item.name, allow_hidden=wishes.allow_hidden)
        earned = await self._consent(arrived, Trust(trust))
        if wishes.once and self._taken:  # another one was accepted while this one was looked at
            raise Declined("The receiver takes one transfer, and has begun it.")
        # Only now: what room and which rights there are is nobody's business before a yes (C9).
        destination = _destination(wishes.into)
        try:
            destination.check_room(arrived.bytes)
            known.remember(relay_key, incoming.sender, incoming.key, earned)
        except BaseException:
            destination.close()
            raise
        return destination

    async def _consent(self, arrived: events.OfferArrived, trust: Trust) -> Trust:
        """How well the sender is known after a yes; raises :class:`Declined` for a no."""
        wishes = self._wishes
        match judge(wishes.policy, trust, arrived.sender, wishes.only):
            case Verdict.ACCEPT:
                return Trust.SEEN
            case Verdict.DENY:
                raise Declined("The receiver takes nothing from you." if wishes.only else _UNKNOWN)
        if wishes.ask is None:
            raise Declined("Nobody can be asked there, and no policy says yes.")
        answer = None
        with trio.move_on_after(self._terms.ask_timeout or float("inf")):
            answer = await wishes.ask(arrived)
        if answer is None:
            raise Declined(f"Nobody answered within {duration(self._terms.ask_timeout)}.")
        if not answer:
            raise Declined("The receiver said no.")
        return Trust.KNOWN


_UNKNOWN = "The receiver takes files only from people they know, and you are not among them yet."


def _destination(into: Path) -> Destination:
    try:
        return Destination.open(into)
    except FileError as error:
        # The sender is told, but not our paths.
        raise FileError(
            f"The receiver's folder cannot be written to ({printable(error.what.rpartition(': ')[2], 80)})",
            "Nothing was written.",
            "They can choose another one with --into.",
        ) from None
