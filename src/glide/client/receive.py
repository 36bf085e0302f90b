"""receive: wait under a name, and take what may be taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from glide import events
from glide.client import endtoend, link, partials
from glide.client.address import Address
from glide.client.consent import Consent
from glide.client.link import Link, Me
from glide.client.retry import Backoff
from glide.errors import Declined, GlideError, KeyChanged, NameTaken, NobodyThere, Partly, Stopped, one_error
from glide.net.connection import Connection
from glide.protocol.messages import Incoming, Reject, Role
from glide.text import duration, printable
from glide.transfer import receiving
from glide.transfer.destination import Destination
from glide.transfer.landing import Conflict
from glide.transfer.manifest import Manifest
from glide.transfer.storage import Arrival
from glide.transfer.taking import Offered, Room
from glide.transfer.terms import Outcome, Terms

# Offers that are handled at once, in all and of one key: one stranger must not take all the places.
MOST_AT_ONCE = 32
MOST_OF_ONE = 2


@dataclass(frozen=True)
class Wishes:
    """How to receive. ``into`` is None for standard output; ``journals`` is the folder of what is kept."""

    name: str
    into: Path | None
    journals: Path
    consent: Consent
    conflict: Conflict = Conflict.RENAME
    once: bool = False
    sync: bool = True
    keep: float = partials.KEEP


async def receive(address: Address, me: Me, wishes: Wishes, terms: Terms, report: events.Report) -> None:
    """Receive until cancelled, or with ``once`` until the first accepted transfer has ended.

    A session that is lost is made anew. Raises a :class:`GlideError`: why it could not begin, why the session ended for
    good, or with ``once`` how that transfer failed. The session's end does not end transfers that are under way.
    Cancelled, their senders are told; what has arrived is kept.
    """
    with ExitStack() as stack:
        # Opened once and at once: what stands at its path later is not asked.
        opened = stack.enter_context(Destination.open(wishes.into)) if wishes.into is not None else None
        await _Receiver(address, me, wishes, terms, report, opened).run()


@dataclass
class _UnderWay:
    """One transfer that has been looked at: to be cancelled when the same is offered anew."""

    scope: trio.CancelScope
    over: trio.Event


class _Receiver:
    """A name that receives, through all its sessions, and the transfers that it takes."""

    def __init__(
        self,
        address: Address,
        me: Me,
        wishes: Wishes,
        terms: Terms,
        report: events.Report,
        opened: Destination | None,
    ) -> None:
        self._opened = opened
        self._address = address
        self._me = me
        self._wishes = wishes
        self._terms = terms
        self._report = report
        self._room = Room()
        self._active: list[bytes] = []  # offers that are being handled, by the sender's key
        self._under_way: dict[tuple[bytes, bytes], _UnderWay] = {}  # by the sender's key, and what it is
        self._taken: bytes | None = None  # with `once`: whose transfer has been accepted, by the key
        self._came_again: trio.Event | None = None  # with `once`: set when a sender that was lost has come again
        self._finished = False  # with `once`: and has ended

    async def run(self) -> None:
        """Be there until there is a reason not to be, and raise it; with ``once`` return after a transfer."""
        backoff, registered = Backoff(self._terms.retry), False
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partials.sweep, self._wishes.journals, self._wishes.keep, self._report)
                while True:
                    try:
                        async with self._session() as control:
                            registered = True
                            backoff.went_well()
                            await self._take_offers(control, nursery)
                    except NameTaken as error:
                        raise link.name_taken(error, self._wishes.name, "Nothing is received.") from None
                    except GlideError as error:
                        if not registered or not error.worth_a_retry:
                            await self._until_idle()
                            raise
                        wait = backoff.next(error)
                        self._report(events.Notice(f"{error.what} Trying again in {duration(wait)}."))
                        await trio.sleep(wait)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Link]:
        name = self._wishes.name
        async with link.connect(self._address, self._me, role=Role.RECEIVE, name=name, report=self._report) as control:
            self._report(events.Registered(name, self._me.identity.public, control.greeting))
            yield control

    async def _until_idle(self) -> None:
        """Transfers have connections of their own: let them come to their ends."""
        while self._under_way:
            await next(iter(self._under_way.values())).over.wait()

    async def _take_offers(self, control: Link, nursery: trio.Nursery) -> None:
        """Handle offers until the session ends; raises why."""
        async for message in control.inbox:
            if not isinstance(message, Incoming):
                continue
            if len(self._active) < MOST_AT_ONCE and self._active.count(message.key) < MOST_OF_ONE:
                self._active.append(message.key)
                nursery.start_soon(self._handle, control, message, nursery.cancel_scope)
            else:
                busy = "has other offers to look at; try again later"
                await _reject(control, message, Declined("", for_peer=busy))
        assert control.why is not None, "the inbox ends with the connection"
        raise control.why

    # --- one offer ---

    async def _handle(self, control: Link, incoming: Incoming, all_of_it: trio.CancelScope) -> None:
        """One offer. Whatever comes of it, receiving goes on; with ``once`` an accepted one ends it."""
        try:
            lost = await self._take(control, incoming)
        finally:
            self._active.remove(incoming.key)
        if lost is not None:
            await self._give_up(lost, self._expect_again())
        if self._finished:
            all_of_it.cancel()

    async def _take(self, control: Link, incoming: Incoming) -> GlideError | None:
        """See one offer to its end.

        With ``once``, if what was accepted failed, raises that; or returns it, if its sender may come again.
        """
        accepted = False

        def note_accepted() -> None:
            nonlocal accepted
            accepted = True
            self._taken = incoming.key
            if self._came_again is not None:
                self._came_again.set()

        connection = await self._met(control, incoming)
        if connection is None:
            return None
        try:
            async with connection:
                outcome = await self._receive(control, connection, incoming, note_accepted)
                await connection.close()
                self._finished = self._wishes.once
                _all_there(outcome, incoming.sender)
        except GlideError as error:
            self._report(events.Failed(incoming.transfer, incoming.sender, error.code, str(error)))
            if accepted and self._wishes.once:
                if self._wishes.into is None or not error.worth_a_retry or not self._terms.retry:
                    raise
                return error
        except Exception as error:  # noqa: BLE001  # a fault in one transfer must not end a receiver that waits for others
            fault = f"A fault of glide itself: {type(error).__name__}: {error}."
            self._report(events.Failed(incoming.transfer, incoming.sender, GlideError.code, fault))
        return None

    async def _met(self, control: Link, incoming: Incoming) -> Connection | None:
        """The end-to-end connection to the sender; None if there is none, which has been reported then."""
        try:
            self._wishes.consent.check_sender(self._me.known, control.relay_key, incoming)
            return await self._meet(control, incoming)
        except Declined as error:
            self._report(events.OfferDeclined(incoming.sender, str(error)))
            await _reject(control, incoming, error)
        except KeyChanged as error:
            self._report(events.OfferDeclined(incoming.sender, str(error)))
            refusal = "has another key on record for that name, and refused"
            await _reject(control, incoming, Declined("", for_peer=refusal))
        except GlideError as error:
            self._report(events.Failed(incoming.transfer, incoming.sender, error.code, str(error)))
            await _reject(control, incoming, NobodyThere("", for_peer="could not come to take it"))
        return None

    async def _give_up(self, error: GlideError, came_again: trio.Event) -> None:
        """With ``once``: a transfer that was accepted has been lost. Wait for its sender, but not for ever."""
        self._report(events.Notice(f"Waiting {duration(self._terms.retry)} for it to go on."))
        with trio.move_on_after(self._terms.retry):
            await came_again.wait()
            return
        raise error

    async def _meet(self, control: Link, incoming: Incoming) -> Connection:
        """The end-to-end connection to the sender."""
        relay_key, me = control.relay_key, self._me
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

    async def _receive(
        self, control: Link, connection: Connection, incoming: Incoming, note_accepted: Callable[[], None]
    ) -> Outcome:
        wishes = self._wishes
        arrival = Arrival(
            incoming.transfer,
            incoming.sender,
            incoming.key,
            control.relay_key,
            wishes.into,
            wishes.journals,
            wishes.conflict,
            wishes.sync,
            self._opened,
        )
        with control.hint(incoming.transfer) as hint:
            return await receiving.receive(
                connection,
                arrival,
                self._room,
                lambda offered: self._decide(control, incoming, offered),
                lambda manifest: self._claim(incoming.key, manifest),
                note_accepted,
                terms=self._terms,
                hint=hint,
                report=self._report,
            )

    @asynccontextmanager
    async def _claim(self, key: bytes, manifest: Manifest) -> AsyncIterator[None]:
        """Let what is under way of exactly the same from the same person end first: its sender has come anew."""
        identity = key, manifest.fingerprint()
        while (older := self._under_way.get(identity)) is not None:
            older.scope.cancel()
            await older.over.wait()
        mine = self._under_way[identity] = _UnderWay(trio.CancelScope(), trio.Event())
        try:
            with mine.scope:
                yield
        finally:
            if mine.scope.cancelled_caught:
                self._expect_again()
            del self._under_way[identity]
            mine.over.set()
        if mine.scope.cancelled_caught:
            raise _Superseded(
                "Its sender has begun anew.",
                "It goes on there.",
                for_peer="the same files were offered anew.",
            )

    def _expect_again(self) -> trio.Event:
        """With ``once``: the sender of the transfer that was accepted may come again."""
        if self._came_again is None or self._came_again.is_set():
            self._came_again = trio.Event()
        return self._came_again

    async def _decide(self, control: Link, incoming: Incoming, offered: Offered) -> None:
        """Return if it is taken, raise if not. The one place that consents."""
        self._one_at_most(incoming.key)
        earned = await self._wishes.consent.decide(self._me.known, control.relay_key, incoming, offered, self._report)
        self._one_at_most(incoming.key)  # another one may have been accepted while this one was looked at
        await trio.to_thread.run_sync(self._me.known.remember, control.relay_key, incoming.sender, incoming.key, earned)

    def _one_at_most(self, key: bytes) -> None:
        awaited = self._came_again is not None and not self._came_again.is_set() and key == self._taken
        if self._wishes.once and self._taken is not None and not awaited:
            raise Declined(
                "Another transfer has begun, and --once takes one.",
                for_peer="they take one transfer, and have begun it.",
            )


class _Superseded(Stopped):
    """The same is under way on a newer connection."""

    worth_a_retry = True


async def _reject(control: Link, incoming: Incoming, error: GlideError) -> None:
    try:
        await control.ask(Reject(transfer=incoming.transfer, code=error.code, message=error.for_peer))
    except GlideError:
        pass  # the session is over: the listening task knows


def _all_there(outcome: Outcome, sender: str) -> None:
    """Raise :class:`Partly` if some of what was accepted is not there."""
    if outcome.missing:
        shown = "; ".join(printable(problem, 120) for problem in outcome.problems[:3])
        raise Partly(
            f"{outcome.missing} of {outcome.items + outcome.missing} files from {sender} are not here ({shown}).",
            "The others stand under their names.",
        )
