"""One offer at a receiver, from being rung to the end of what was accepted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from glide import events
from glide.client import dialling, endtoend, partials
from glide.client.claims import Claims
from glide.client.consent import Answer, Consent
from glide.client.link import Link
from glide.client.once import Once
from glide.client.session import Session
from glide.errors import Declined, GlideError, KeyChanged, NobodyThere, Partly, Stopped
from glide.events import Raw
from glide.net.connection import Connection
from glide.people.policy import Judgement
from glide.protocol.messages import Incoming, Reject
from glide.text import counted, printable
from glide.transfer import receiving
from glide.transfer.destination import Destination
from glide.transfer.landing import Conflict
from glide.transfer.storage import Arrival
from glide.transfer.taking import Offered, Room
from glide.transfer.terms import Outcome, Terms
from glide.transfer.throttle import Throttle


@dataclass(frozen=True)
class Wishes:
    """How to receive. ``into`` is None for standard output; ``journals`` is the folder of what is kept."""

    into: Path | None
    journals: Path
    consent: Consent
    conflict: Conflict = Conflict.RENAME
    once: bool = False
    sync: bool = True
    keep: float = partials.KEEP


@dataclass(frozen=True)
class Received:
    """What arrived: so many files and bytes, one digest over them; ``paths`` of what has a name of its own."""

    transfer: Raw
    sender: str
    sender_key: Raw
    items: int
    bytes: int
    digest: Raw
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """What all offers at one receiver have in common. ``opened`` are the folders that were named beforehand."""

    session: Session
    wishes: Wishes
    terms: Terms
    report: events.Report
    opened: dict[Path, Destination]
    once: Once
    room: Room = field(default_factory=Room)
    claims: Claims = field(default_factory=Claims)
    # By the sender's key: one for all that comes from the same person, as long as they owe something; and by the rate,
    # which may be another one for the same key under another name.
    throttles: dict[tuple[bytes, int], Throttle] = field(default_factory=dict)


class Arriving:
    """One offer."""

    def __init__(self, shared: Shared, control: Link, incoming: Incoming) -> None:
        self._shared = shared
        self._me = shared.session.me
        self._wishes = shared.wishes
        self._control = control
        self._incoming = incoming
        self._scope = trio.CancelScope()
        self._accepted = False
        self._answer = Answer()
        self._paths: list[str] = []

    async def run(self) -> Received | GlideError | None:
        """See the offer to its end, and report that: what arrived, or why it did not; None if it was not accepted."""
        met = await self._met()
        if met is None:
            return None
        result: Received | GlideError = Stopped("You stopped it.", "What has arrived is kept.")
        try:
            with self._scope:
                result = await self._result(*met)
            if isinstance(result, GlideError):
                self._failed(result)
        finally:
            self._answer.ended(result)
        return result if self._accepted else None

    async def _result(self, connection: Connection, judgement: Judgement) -> Received | GlideError:
        try:
            async with connection:
                outcome = await self._receive(connection, judgement)
                await connection.close()
            return await self._received(outcome)
        except GlideError as error:
            return error
        except Exception as error:  # noqa: BLE001  # a fault in one transfer must not end a receiver that waits for others
            return GlideError(f"A fault of glide itself: {type(error).__name__}: {printable(str(error))}.")

    def _failed(self, error: GlideError) -> None:
        incoming = self._incoming
        self._shared.report(events.Failed(incoming.transfer, incoming.sender, error.code, str(error)))

    async def _received(self, outcome: Outcome) -> Received:
        incoming, relay_key = self._incoming, self._control.relay_key
        await trio.to_thread.run_sync(self._me.known.transferred, relay_key, incoming.sender)
        if outcome.missing:
            shown = "; ".join(printable(problem, 120) for problem in outcome.problems[:3])
            much = f"{outcome.missing} of {counted(outcome.items + outcome.missing, 'file')}"
            raise Partly(
                f"Not here: {much} from {incoming.sender} ({shown}).",
                "The others stand under their names.",
            )
        who = incoming.transfer, incoming.sender, incoming.key
        return Received(*who, outcome.items, outcome.bytes, outcome.digest, tuple(self._paths))

    # --- meeting the sender ---

    async def _met(self) -> tuple[Connection, Judgement] | None:
        """The end-to-end connection to the sender; None if there is none, which has been reported then."""
        incoming, known, report = self._incoming, self._me.known, self._shared.report
        try:
            judge = self._wishes.consent.judge
            judgement = await trio.to_thread.run_sync(judge, known, self._control.relay_key, incoming)
            return await self._meet(), judgement
        except Declined as error:
            report(events.OfferDeclined(incoming.sender, str(error)))
            await reject(self._control, incoming, error)
        except KeyChanged as error:
            report(events.OfferDeclined(incoming.sender, str(error)))
            refusal = "has another key on record for that name, and refused"
            await reject(self._control, incoming, Declined("", for_peer=refusal))
        except GlideError as error:
            self._failed(error)
            await reject(self._control, incoming, NobodyThere("", for_peer="could not come to take it"))
        return None

    async def _meet(self) -> Connection:
        control, incoming, me = self._control, self._incoming, self._me
        assert control.name is not None, "whoever receives has a name"
        binding = endtoend.Binding(
            incoming.transfer, control.relay_key, incoming.sender, incoming.key, control.name, me.identity.public
        )
        stream, already = await dialling.open_data(control.address, control.relay_key, incoming.ticket, me)
        self._shared.report(
            events.Detail(f"Transfer {incoming.transfer.hex()}: joined to {incoming.sender} by the relay.")
        )
        return await endtoend.as_receiver(stream, already, binding, me)

    # --- the transfer ---

    async def _receive(self, connection: Connection, judgement: Judgement) -> Outcome:
        incoming, wishes, shared = self._incoming, self._wishes, self._shared
        into = self._into(judgement)
        arrival = Arrival(
            transfer=incoming.transfer,
            sender=incoming.sender,
            key=incoming.key,
            relay=self._control.relay_key,
            into=into,
            journals=wishes.journals,
            conflict=wishes.conflict,
            sync=wishes.sync,
            opened=self._opened(into),
        )
        with self._control.hint(incoming.transfer) as hint:
            return await receiving.receive(
                connection,
                arrival,
                shared.room,
                lambda offered: self._decide(arrival, offered),
                lambda manifest: shared.claims.claim(incoming.key, manifest, shared.once.expect_again),
                self._note_accepted,
                terms=shared.terms,
                hint=hint,
                report=self._report,
            )

    def _into(self, judgement: Judgement) -> Path | None:
        """Where it goes: standard output, if that was said; else the policy's folder, or the usual one."""
        into = self._wishes.into
        return judgement.into if judgement.into is not None and into is not None else into

    def _opened(self, into: Path | None) -> Destination | None:
        return self._shared.opened.get(into) if into is not None else None

    def _throttle(self, rate: int | None) -> Throttle | None:
        """One for all that comes from the same person."""
        if rate is None:
            return None
        key = self._incoming.key
        throttles = self._shared.throttles
        for other in [other for other, throttle in throttles.items() if throttle.idle]:
            del throttles[other]
        return throttles.setdefault((key, rate), Throttle(rate))

    def _report(self, event: events.Event) -> None:
        if isinstance(event, events.SavedFolder) or (isinstance(event, events.Saved) and not event.inside):
            self._paths.append(event.path)
        self._shared.report(event)

    def _note_accepted(self) -> None:
        self._accepted = True
        self._shared.once.accepted(self._incoming.key)

    async def _decide(self, arrival: Arrival, offered: Offered) -> Arrival:
        """Where it goes, if it is taken; raises if not. The one place that consents."""
        incoming, relay_key, known = self._incoming, self._control.relay_key, self._me.known
        once = self._shared.once
        once.check(incoming.key)
        consent = self._wishes.consent
        judgement, answer = await consent.decide(known, relay_key, incoming, offered, self._shared.report)
        self._answer = answer
        answer.begun(self._scope)
        once.check(incoming.key)  # another one may have been accepted while this one was looked at
        await trio.to_thread.run_sync(known.remember, relay_key, incoming.sender, incoming.key, answer.trust)
        into = self._into(judgement)
        return replace(
            arrival,
            into=into if answer.into is None else answer.into,
            opened=self._opened(into) if answer.into is None else None,
            conflict=answer.conflict or arrival.conflict,
            most=judgement.most,
            throttle=self._throttle(judgement.rate),
        )


async def reject(control: Link, incoming: Incoming, error: GlideError) -> None:
    """Tell the relay, and through it the sender, that nobody is coming for it, and why."""
    try:
        await control.ask(Reject(transfer=incoming.transfer, code=error.code, message=error.for_peer))
    except GlideError:
        pass  # the session is over: whoever needs it knows
