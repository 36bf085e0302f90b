"""receive: wait under a name, and take what may be taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from glide import events
from glide.client import endtoend, link
from glide.client.address import Address
from glide.client.link import Link, Me
from glide.errors import (
    Declined,
    GlideError,
    KeyChanged,
    NameTaken,
    one_error,
)
from glide.net.connection import Connection
from glide.people.known import Trust
from glide.people.policy import Policy, Verdict, judge
from glide.protocol.messages import Incoming, Offer, Reject, Role
from glide.text import duration
from glide.transfer import filenames, receiving
from glide.transfer.landing import Destination
from glide.transfer.receiving import Arrival
from glide.transfer.terms import Hint, Terms

# Offers that are handled at once, in all and of one key: one stranger must not take all the places.
MOST_AT_ONCE = 32
MOST_OF_ONE = 2

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
        self._active: Counter[bytes] = Counter()  # offers that are being handled, by the sender's key
        self._taken = False  # with `once`: a transfer has been accepted
        self._finished = False  # with `once`: and has ended

    async def run(self) -> None:
        """Handle offers until the session ends, and then what is under way; raise why it ended."""
        with one_error():
            async with trio.open_nursery() as nursery:
                async for message in self._control.inbox:
                    if not isinstance(message, Incoming):
                        continue
                    if self._active.total() < MOST_AT_ONCE and self._active[message.key] < MOST_OF_ONE:
                        self._active[message.key] += 1
                        nursery.start_soon(self._handle, message, nursery.cancel_scope)
                    else:
                        busy = "has other offers to look at; try again later"
                        await self._reject(message, Declined("", for_peer=busy))
        if not self._finished:
            assert self._control.why is not None, "the inbox ends with the connection"
            raise self._control.why

    async def _handle(self, incoming: Incoming, all_of_it: trio.CancelScope) -> None:
        """One offer. Whatever comes of it, the session goes on; with ``once`` an accepted one ends it."""
        try:
            accepted = await self._take(incoming)
        finally:
            self._active[incoming.key] -= 1
            if not self._active[incoming.key]:
                del self._active[incoming.key]
        if accepted and self._wishes.once:
            self._finished = True
            all_of_it.cancel()

    async def _take(self, incoming: Incoming) -> bool:
        """See one offer to its end; True if it was accepted. Raises only with ``once``, if what was accepted failed."""
        accepted = False

        def note_accepted() -> None:
            nonlocal accepted
            accepted = self._taken = True

        try:
            trust = self._me.known.check(self._control.relay_key, incoming.sender, incoming.key)
            if judge(self._wishes.policy, trust, incoming.sender, self._wishes.only) is Verdict.DENY:
                raise self._denied(incoming.sender)
            connection = await self._meet(incoming)
        except Declined as error:
            self._report(events.OfferDeclined(incoming.sender, str(error)))
            await self._reject(incoming, error)
            return False
        except KeyChanged as error:
            self._report(events.OfferDeclined(incoming.sender, str(error)))
            await self._reject(incoming, Declined("", for_peer="has another key on record for that name, and refused"))
            return False
        except GlideError as error:
            self._failed(incoming, error)
            await self._reject(incoming, Declined("", for_peer="could not come to take it"))
            return False
        try:
            async with connection:
                await self._receive(connection, incoming, note_accepted)
                await connection.close()
        except GlideError as error:
            self._failed(incoming, error)
            if accepted and self._wishes.once:
                raise
        except Exception as error:  # noqa: BLE001  # a fault in one transfer must not end a receiver that waits for others
            self._failed(incoming, GlideError(f"A fault of glide itself: {type(error).__name__}: {error}."))
        return accepted

    def _failed(self, incoming: Incoming, error: GlideError) -> None:
        self._report(events.Failed(incoming.transfer, incoming.sender, error.code, str(error)))

    async def _reject(self, incoming: Incoming, error: GlideError) -> None:
        try:
            await self._control.ask(Reject(transfer=incoming.transfer, code=error.code, message=error.for_peer))
        except GlideError:
            pass  # the session is over: the listening task knows

    async def _meet(self, incoming: Incoming) -> Connection:
        """The end-to-end connection to the sender."""
        relay_key, me = self._control.relay_key, self._me
        binding = endtoend.Binding(
            incoming.transfer, relay_key, incoming.sender, incoming.key, self._wishes.name, me.identity.public
        )
        stream, already = await link.open_data(self._address, relay_key, incoming.ticket, me)
        self._report(events.Detail(f"Transfer {incoming.transfer.hex()}: joined to {incoming.sender} by the relay."))
        try:
            return await endtoend.as_receiver(stream, already, binding, me)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _receive(self, connection: Connection, incoming: Incoming, note_accepted: Callable[[], None]) -> None:
        self._control.hints[incoming.transfer] = hint = Hint()
        try:
            await receiving.receive(
                connection,
                Arrival(incoming.transfer, incoming.sender, self._wishes.into, self._wishes.sync),
                lambda offer: self._decide(incoming, offer),
                note_accepted,
                terms=self._terms,
                hint=hint,
                report=self._report,
            )
        finally:
            self._control.hints.pop(incoming.transfer, None)

    async def _decide(self, incoming: Incoming, offer: Offer) -> None:
        """Return if it is taken, raise if not. The one place that consents."""
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
        self._one_at_most()
        for item in offer.items:
            filenames.check_usable(item.name, allow_hidden=wishes.allow_hidden)
        earned = await self._consent(arrived, trust)
        self._one_at_most()  # another one may have been accepted while this one was looked at
        await trio.to_thread.run_sync(known.remember, relay_key, incoming.sender, incoming.key, earned)

    def _one_at_most(self) -> None:
        if self._wishes.once and self._taken:
            raise Declined(
                "Another transfer has begun, and --once takes one.",
                for_peer="they take one transfer, and have begun it.",
            )

    def _denied(self, sender: str) -> Declined:
        if self._wishes.only and sender not in self._wishes.only:
            return Declined("Not among those you take files from (--from).", for_peer="takes nothing from you")
        return Declined(
            "Not known to you, and --accept known takes nothing from others.",
            next=f"`glide known add {sender} KEY` makes them known.",
            for_peer="takes files only from people they know, and you are not among them yet",
        )

    async def _consent(self, arrived: events.OfferArrived, trust: Trust) -> Trust:
        """How well the sender is known after a yes; raises :class:`Declined` for a no."""
        wishes = self._wishes
        match judge(wishes.policy, trust, arrived.sender, wishes.only):
            case Verdict.ACCEPT:
                return Trust.SEEN
            case Verdict.DENY:
                raise self._denied(arrived.sender)
        if wishes.ask is None:
            raise Declined(
                "There is no terminal to ask at, and no policy that says yes.",
                next="Decide beforehand with --accept known or --accept all.",
                for_peer="nobody can be asked there, and no policy says yes.",
            )
        answer = None
        with trio.move_on_after(self._terms.ask_timeout or float("inf")):
            answer = await wishes.ask(arrived)
        if answer is None:
            waited = duration(self._terms.ask_timeout)
            raise Declined(f"You did not answer within {waited}.", for_peer=f"nobody answered within {waited}.")
        if not answer:
            raise Declined("You declined.", for_peer="they said no.")
        return Trust.KNOWN
