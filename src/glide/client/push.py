"""push: files and folders to one person."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from glide import events, files
from glide.client import endtoend, link
from glide.client.address import Address
from glide.client.link import Link, Me
from glide.client.retry import Backoff
from glide.crypto.identity import key_text
from glide.errors import (
    Declined,
    FileError,
    GlideError,
    NameTaken,
    NobodyThere,
    Partly,
    RelayRefused,
    Stalled,
)
from glide.people.known import Trust
from glide.protocol.messages import Failed, Push, Ringing, Role
from glide.text import duration, printable
from glide.transfer import sending
from glide.transfer.gathering import Gathered
from glide.transfer.terms import Outcome, Terms


@dataclass(frozen=True)
class Parcel:
    """What goes to whom. ``gather`` finds it, again for each attempt: it blocks, and gets where to put warnings.

    ``name`` is mine; ``default_name`` says that I did not choose it. ``receipt`` is a file to write.
    """

    to: str
    gather: Callable[[Callable[[str], None]], Gathered]
    name: str
    default_name: bool = False
    message: str = ""
    receipt: Path | None = None


async def push(address: Address, me: Me, parcel: Parcel, terms: Terms, report: events.Report) -> None:
    """Send ``parcel``; returns once the receiver has confirmed all of it. Raises a :class:`GlideError`.

    What is sent is looked at before anybody is disturbed. A connection that is lost is made anew, and the transfer goes
    on where it was. Cancelled, the receiver is told, and keeps what has arrived to go on with it later.
    """
    if parcel.receipt is not None and not parcel.receipt.resolve().parent.is_dir():
        raise FileError(
            f"The receipt cannot be written: there is no folder {printable(str(parcel.receipt.parent))}.",
            "Nobody was disturbed.",
        )
    try:
        await _Pushing(address, me, parcel, terms, report).run()
    except Declined as error:
        report(events.DeclinedEvent(parcel.to, error.what))
        raise


class _Pushing:
    """One push, with all its attempts."""

    def __init__(self, address: Address, me: Me, parcel: Parcel, terms: Terms, report: events.Report) -> None:
        self._address = address
        self._me = me
        self._parcel = parcel
        self._terms = terms
        self._report = report
        self._name = parcel.name
        self._id = secrets.token_bytes(16)  # of the first attempt: what all events are about
        self._registered = False
        self._accepted = False
        self._there = 0  # bytes, the most that ever were at the receiver
        self._warned: set[str] = set()

    async def run(self) -> None:
        gathered = await self._gather()
        backoff = Backoff(self._terms.retry)
        lost: GlideError | None = None
        while True:
            try:
                outcome, relay_key, key = await self._attempt(gathered, backoff)
            except (NobodyThere, RelayRefused) as error:
                # They may be trying to come back too.
                if lost is None:
                    raise
                problem: GlideError = lost
                reason = error.what
            except GlideError as error:
                if not error.worth_a_retry or not self._registered or gathered.manifest.streams:
                    raise
                problem = lost = error
                reason = error.what
            else:
                self._delivered(outcome, relay_key, key, gathered)
                return
            wait = backoff.next(problem)
            self._report(
                events.StalledEvent(self._id, "network", round(wait), f"{reason} Trying again in {duration(wait)}.")
            )
            await trio.sleep(wait)
            gathered = await self._gather()

    async def _gather(self) -> Gathered:
        """What is there to send now. Says what is left out, once."""
        warnings: list[str] = []
        gathered = await trio.to_thread.run_sync(self._parcel.gather, warnings.append)
        for text in warnings:
            if text not in self._warned:
                self._report(events.Notice(text))
        self._warned.update(warnings)
        return gathered

    async def _attempt(self, gathered: Gathered, backoff: Backoff) -> tuple[Outcome, bytes, bytes]:
        """Push as whom the parcel says; where that name was only a default and is taken, as somebody like it."""
        try:
            return await self._push_as(self._name, gathered, backoff)
        except NameTaken as error:
            if not self._parcel.default_name or self._name != self._parcel.name:
                raise link.name_taken(error, self._name, "Nothing was sent.") from None
        self._name = f"{self._parcel.name[:27]}-{key_text(self._me.identity.public)[:4]}"
        self._report(events.Notice(f"The name {self._parcel.name} is taken here; you send as {self._name}."))
        return await self._push_as(self._name, gathered, backoff)

    async def _push_as(self, name: str, gathered: Gathered, backoff: Backoff) -> tuple[Outcome, bytes, bytes]:
        """One attempt: what was confirmed, and the keys of the relay and of the receiver."""
        me, to = self._me, self._parcel.to
        transfer = self._id if not self._registered else secrets.token_bytes(16)
        async with link.connect(self._address, me, role=Role.SEND, name=name, report=self._report) as control:
            self._registered = True
            ringing = await self._ring(control, transfer)
            binding = endtoend.Binding(transfer, control.relay_key, name, me.identity.public, to, ringing.key)
            stream, already = await _join(control, me, ringing, to)
            async with stream:
                self._report(events.Detail(f"Transfer {transfer.hex()}: the relay has joined the two ends."))
                connection = await endtoend.as_sender(stream, already, binding, me)
                self._report(events.Detail(f"{to} has proved the key; making the offer."))
                # A push of one's own makes the other known (C1): the handshake has proved the key.
                await trio.to_thread.run_sync(
                    me.known.remember, control.relay_key, to, connection.peer_key, Trust.KNOWN
                )

                def report(event: events.Event) -> None:
                    if isinstance(event, events.Progress) and event.bytes > self._there:
                        self._there = event.bytes
                        backoff.went_well()
                    self._accepted = self._accepted or isinstance(event, events.Accepted)
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
        return outcome, control.relay_key, ringing.key

    async def _ring(self, control: Link, transfer: bytes) -> Ringing:
        """Ask the relay for them. Raises :class:`NobodyThere`, :class:`Declined`, :class:`KeyChanged` and others."""
        me, to = self._me, self._parcel.to
        await control.ask(Push(to=to, transfer=transfer))
        with trio.move_on_after(control.connection.deadlines.handshake):
            while True:
                match await control.answer():
                    case Ringing() as ringing if ringing.transfer == transfer:
                        trust = me.known.check(control.relay_key, to, ringing.key)
                        aliases = me.known.aliases(control.relay_key, to, ringing.key)
                        self._report(events.Ringing(self._id, to, ringing.key, trust, aliases))
                        return ringing
                    case Failed() as failed if failed.transfer == transfer:
                        raise failure(failed, to)
        error = Stalled(
            f"The relay {control.address} did not answer within {control.connection.deadlines.handshake:.0f} s.",
            "Nothing was sent.",
        )
        error.worth_a_retry = True
        raise error

    # --- the end ---

    def _delivered(self, outcome: Outcome, relay_key: bytes, key: bytes, gathered: Gathered) -> None:
        parcel = self._parcel
        self._report(events.Delivered(self._id, parcel.to, outcome.items, outcome.bytes, outcome.digest))
        if parcel.receipt is not None:
            self._write_receipt(parcel.receipt, outcome, relay_key, key)
        for problem in outcome.problems:
            self._report(events.Notice(f"Not sent: {problem}."))
        if outcome.missing or gathered.skipped:
            missing = outcome.missing + gathered.skipped
            raise Partly(
                f"{missing} of {gathered.manifest.files + gathered.skipped} files were not delivered.",
                f"The others stand at {parcel.to}.",
                "The lines above say why."
                if outcome.problems or gathered.skipped
                else f"The glide of {parcel.to} says why.",
            )

    def _write_receipt(self, path: Path, outcome: Outcome, relay_key: bytes, key: bytes) -> None:
        record = {
            "transfer": self._id.hex(),
            "time": time.time(),
            "relay": key_text(relay_key),
            "from": self._name,
            "from_key": key_text(self._me.identity.public),
            "to": self._parcel.to,
            "to_key": key_text(key),
            "items": outcome.items,
            "bytes": outcome.bytes,
            "digest": f"blake3:{outcome.digest.hex()}",
        }
        content = (json.dumps(record, indent=2) + "\n").encode()
        try:
            if path.exists() and not path.is_file():
                path.write_bytes(content)  # a pipe or device: not to be replaced
            else:
                files.replace(path, content)
        except OSError as error:
            raise FileError(
                f"The receipt cannot be written to {printable(str(path))}: {error.strerror}.",
                f"All was delivered to {self._parcel.to}; only the receipt is missing.",
            ) from None


async def _join(control: Link, me: Me, ringing: Ringing, to: str) -> tuple[trio.SocketStream, bytes]:
    """The pipe to the receiver. If it does not come about, the relay knows why, and says so on the control side."""
    try:
        return await link.open_data(control.address, control.relay_key, ringing.ticket, me)
    except RelayRefused:
        with trio.move_on_after(me.deadlines.reason):
            while True:
                match await control.answer():
                    case Failed() as failed if failed.transfer == ringing.transfer:
                        raise failure(failed, to) from None
        raise


def failure(failed: Failed, to: str) -> GlideError:
    """What a push that the relay could not ring comes to."""
    said = printable(failed.message, 400)
    if failed.code == NobodyThere.code:
        hint = f"Did you mean {' or '.join(failed.closest)}?" if failed.closest else "`glide who` lists who is there."
        return NobodyThere(f"{to} {said}.", "Nothing was sent.", hint)
    if failed.code == RelayRefused.code:
        return RelayRefused(f"The relay refused: {said}", "Nothing was sent.", "Try again later.")
    # Words of the receiver, as the relay passes them on: whatever they are, the person was not reached.
    return Declined(f"{to} {said.rstrip('.')}.", "Nothing was sent.")
