"""push: files and folders to one person."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import trio

from glide import events
from glide.client import endtoend, ringing
from glide.client.link import Link
from glide.client.retry import Backoff
from glide.client.session import Session
from glide.errors import Declined, Engaged, GlideError, NobodyThere, NotVerified, Partly, RelayRefused
from glide.events import Raw
from glide.people.known import Trust
from glide.protocol.messages import Push, Ringing, Role
from glide.text import counted, duration
from glide.transfer import sending
from glide.transfer.gathering import Gathered
from glide.transfer.terms import Outcome, Terms


class Parcel(msgspec.Struct, frozen=True):
    """What goes to whom. ``gather`` finds it, again for each attempt: it blocks, and gets where to put warnings.

    ``wait`` seconds for them to come, if they take no files now; ``strict``: only if their key is verified.
    """

    to: str
    gather: Callable[[Callable[[str], None]], Gathered]
    message: str = ""
    wait: float = 0.0
    strict: bool = False


@dataclass(frozen=True)
class Receipt:
    """What the receiver confirmed: so many files and bytes, and one digest over them (docs/protocol.md).

    ``sender`` and ``to`` are the names at the relay, ``time`` is in seconds since 1970; keys are 32 bytes each.
    """

    transfer: Raw
    time: float
    relay_key: Raw
    sender: str
    sender_key: Raw
    to: str
    to_key: Raw
    items: int
    bytes: int
    digest: Raw


async def push(session: Session, parcel: Parcel, terms: Terms, report: events.Report) -> Receipt:
    """Send ``parcel``; returns once the receiver has confirmed all of it. Raises a :class:`GlideError`.

    What is sent is looked at before anybody is disturbed. A connection that is lost is made anew, and the transfer goes
    on where it was. Cancelled, the receiver is told, and keeps what has arrived to go on with it later. If some of it
    is not there the receipt for the rest is in the :class:`Partly` that is raised.
    """
    try:
        return await _Pushing(session, parcel, terms, report).run()
    except Declined as error:
        report(events.DeclinedEvent(parcel.to, error.what))
        raise


class _Pushing:
    """One push, with all its attempts."""

    def __init__(self, session: Session, parcel: Parcel, terms: Terms, report: events.Report) -> None:
        self._session = session
        self._me = session.me
        self._parcel = parcel
        self._terms = terms
        self._report = report
        self._id = secrets.token_bytes(16)  # of the first attempt: what all events are about
        self._attempts = 0
        self._until = trio.current_time() + parcel.wait  # for them to come
        self._queued = False
        self._accepted = False
        self._engaged: Engaged | None = None
        self._lost: GlideError | None = None  # why the last connection that there was is there no more
        self._there = 0  # bytes, the most that ever were at the receiver
        self._warned: set[str] = set()

    async def run(self) -> Receipt:
        backoff = Backoff(self._terms.retry)
        while True:
            gathered = await self._gather()
            try:
                with trio.CancelScope() as scope:
                    receipt, outcome, gathered = await self._attempt(gathered, backoff, scope)
            except GlideError as error:
                wait = self._after(error, backoff, again=not gathered.manifest.streams)
                reason = error.what
            else:
                return self._unless_partly(receipt, outcome, gathered)
            self._report(
                events.StalledEvent(
                    self._id, "network", round(wait), f"{reason} Trying again in {duration(max(wait, 1))}."
                )
            )
            await trio.sleep(wait)

    def _after(self, error: GlideError, backoff: Backoff, *, again: bool) -> float:
        """How many seconds to wait before the next attempt; raises ``error``, or what it came of, if there is none.

        ``again`` says that what is sent can be read again.
        """
        not_there = isinstance(error, (NobodyThere, RelayRefused))
        if isinstance(error, Engaged):
            self._engaged = error
        if isinstance(error, (NobodyThere, Engaged)) and self._waits:
            return backoff.pause()
        if not_there and (self._lost is None or (self._parcel.wait and not self._accepted)):
            raise error
        if not not_there:
            if not error.worth_a_retry or not self._session.was_there or not again:
                raise error
            self._lost = error
            if self._waits and not self._accepted and self._terms.retry:
                return backoff.pause()  # whoever waits for hours can wait for a relay too
        # Whoever was lost may be trying to come back too.
        assert self._lost is not None, "an error that is told before anything was lost is raised"
        return backoff.next(self._lost)

    @property
    def _waits(self) -> bool:
        """True while there is time left for them to come."""
        return trio.current_time() < self._until

    async def _gather(self) -> Gathered:
        """What is there to send now. Says what is left out, once."""
        warnings: list[str] = []
        gathered = await trio.to_thread.run_sync(self._parcel.gather, warnings.append)
        for text in warnings:
            if text not in self._warned:
                self._report(events.Notice(text))
        self._warned.update(warnings)
        return gathered

    async def _attempt(
        self, gathered: Gathered, backoff: Backoff, scope: trio.CancelScope
    ) -> tuple[Receipt, Outcome, Gathered]:
        """Within ``scope``, which is shielded once the delivery has been told: whoever is told has the receipt."""
        transfer = secrets.token_bytes(16) if self._attempts else self._id
        self._attempts += 1
        control = await self._session.link(Role.SEND)
        name = control.name
        assert name is not None, "whoever sends has a name"
        me, to = self._me, self._parcel.to
        if self._parcel.strict:
            await self._check_verified(control)  # before anybody is disturbed
        rung, gathered, stream, already = await self._reach(control, transfer, gathered)
        async with stream:
            self._report(events.Detail(f"Transfer {transfer.hex()}: the relay has joined the two ends."))
            binding = endtoend.Binding(transfer, control.relay_key, name, me.identity.public, to, rung.key)
            connection = await endtoend.as_sender(stream, already, binding, me)
            self._report(events.Detail(f"{to} has proved the key; making the offer."))
            if self._parcel.strict:
                await self._check_verified(control)
            # A push of one's own makes the other known (C1): the handshake has proved the key.
            await trio.to_thread.run_sync(me.known.remember, control.relay_key, to, rung.key, Trust.KNOWN)

            def report(event: events.Event) -> None:
                if isinstance(event, events.Progress) and event.bytes > self._there:
                    self._there = event.bytes
                    backoff.went_well()
                self._accepted = self._accepted or isinstance(event, events.Accepted)
                if isinstance(event, events.Delivered):
                    scope.shield = True
                self._report(event)

            with control.hint(transfer) as hint:
                outcome = await sending.send(
                    connection,
                    gathered,
                    transfer=self._id,
                    to=to,
                    message=self._parcel.message,
                    terms=self._terms,
                    hint=hint,
                    report=report,
                    again=self._accepted,
                )
            await connection.close()
        await trio.to_thread.run_sync(me.known.transferred, control.relay_key, to)
        who = control.relay_key, name, me.identity.public, to, rung.key
        return Receipt(self._id, time.time(), *who, outcome.items, outcome.bytes, outcome.digest), outcome, gathered

    async def _check_verified(self, control: Link) -> None:
        pin = await trio.to_thread.run_sync(self._me.known.find, control.relay_key, self._parcel.to)
        if pin is None or pin.trust is not Trust.VERIFIED:
            raise NotVerified(
                f"{self._parcel.to} is not verified, and --strict sends to nobody else.",
                "Nothing was sent, and nobody was disturbed.",
                f"Compare your keys: `glide verify {self._parcel.to}`, or `glide pair {self._parcel.to}`.",
            )

    async def _reach(
        self, control: Link, transfer: bytes, gathered: Gathered
    ) -> tuple[Ringing, Gathered, trio.SocketStream, bytes]:
        """Ring them while there is time, and be joined to them by the relay. What is sent is what is there then."""
        me, to = self._me, self._parcel.to
        push = Push(to=to, transfer=transfer, wait=self._waits)
        with control.answers(transfer) as answers:
            try:
                rung = None
                with trio.move_on_at(self._until if push.wait else float("inf")):
                    rung = await ringing.ring(control, answers, push, self._wait)
                if rung is None and self._engaged is not None:
                    raise self._engaged  # they were there, and never had time
                if rung is None:
                    raise NobodyThere(
                        f"{to} did not come within {duration(self._parcel.wait)}.",
                        "Nothing was sent." if not self._accepted else "What has arrived there is kept.",
                    )
                if self._parcel.strict:
                    await self._check_verified(control)  # and again: they may have been forgotten meanwhile
                trust = await trio.to_thread.run_sync(me.known.check, control.relay_key, to, rung.key)
                aliases = await trio.to_thread.run_sync(me.known.aliases, control.relay_key, to, rung.key)
                self._report(events.Ringing(self._id, to, rung.key, trust, aliases))
                if self._queued:
                    gathered = await self._gather()
                stream, already = await self._pipe(control, answers, rung, waited=push.wait)
            except BaseException:
                await ringing.withdraw(control, transfer)
                raise
        return rung, gathered, stream, already

    async def _pipe(
        self, control: Link, answers: ringing.Answers, rung: Ringing, *, waited: bool
    ) -> tuple[trio.SocketStream, bytes]:
        try:
            return await ringing.pipe(control, answers, self._me, rung, self._parcel.to)
        except RelayRefused as error:
            if waited:  # of a push that waits the relay says no more than that: they did not come, and may yet
                raise NobodyThere(f"{self._parcel.to} did not come to take it.", "Nothing was sent.") from error
            raise

    def _wait(self) -> None:
        if not self._queued:
            self._report(events.WaitingFor(self._id, self._parcel.to))
        self._queued = True

    # --- the end ---

    def _unless_partly(self, receipt: Receipt, outcome: Outcome, gathered: Gathered) -> Receipt:
        """The receipt; raises :class:`Partly`, which has it, if not all of it is there."""
        for problem in outcome.problems:
            self._report(events.Notice(f"Not sent: {problem}."))
        if outcome.missing or gathered.skipped:
            missing = outcome.missing + gathered.skipped
            raise Partly(
                f"Not delivered: {missing} of {counted(gathered.manifest.files + gathered.skipped, 'file')}.",
                f"The others stand at {self._parcel.to}.",
                "The lines above say why."
                if outcome.problems or gathered.skipped
                else f"The glide of {self._parcel.to} says why.",
                receipt=receipt,
            )
        return receipt
