"""push: one file to one person."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import trio

from glide import events
from glide.client import endtoend, link
from glide.client.address import Address
from glide.client.link import Link, Me
from glide.crypto.identity import key_text
from glide.errors import Declined, GlideError, NameTaken, NobodyThere, RelayRefused, Stalled
from glide.people.known import Trust
from glide.protocol.messages import Failed, Push, Ringing, Role
from glide.text import printable
from glide.transfer import sending
from glide.transfer.manifest import Source
from glide.transfer.terms import Hint, Outcome, Terms


@dataclass(frozen=True)
class Parcel:
    """What goes to whom. ``name`` is mine; ``default_name`` says that I did not choose it."""

    to: str
    path: Path
    name: str
    default_name: bool = False
    filename: str | None = None
    message: str = ""


async def push(address: Address, me: Me, parcel: Parcel, terms: Terms, report: events.Report) -> Outcome:
    """Send ``parcel``; returns once the receiver has confirmed all of it. Raises a :class:`GlideError`.

    The file is checked before anybody is disturbed. Cancelled, the receiver is told and keeps nothing.
    """
    source = await trio.to_thread.run_sync(Source.open, parcel.path, parcel.filename)
    with source:
        try:
            return await _push_under_a_name(address, me, parcel, source, terms, report)
        except Declined as error:
            report(events.DeclinedEvent(parcel.to, error.what))
            raise


async def _push_under_a_name(
    address: Address, me: Me, parcel: Parcel, source: Source, terms: Terms, report: events.Report
) -> Outcome:
    """Push as whom the parcel says; where that name was only a default and is taken, as somebody like it."""
    try:
        return await _push_as(parcel.name, address, me, parcel, source, terms, report)
    except NameTaken as error:
        if not parcel.default_name:
            raise NameTaken(
                f"{error.what}: somebody else is {parcel.name} at this relay.",
                "Nothing was sent.",
                f"Choose another name with --as, {parcel.name[:25]}-laptop for instance.",
            ) from None
    fallback = f"{parcel.name[:27]}-{key_text(me.identity.public)[:4]}"
    report(events.Notice(f"The name {parcel.name} is taken here; you send as {fallback}."))
    return await _push_as(fallback, address, me, parcel, source, terms, report)


async def _push_as(
    name: str, address: Address, me: Me, parcel: Parcel, source: Source, terms: Terms, report: events.Report
) -> Outcome:
    transfer = secrets.token_bytes(16)
    async with link.connect(address, me, role=Role.SEND, name=name, report=report) as control:
        ringing = await _ring(control, me, parcel.to, transfer, report)
        binding = endtoend.Binding(transfer, control.relay_key, name, me.identity.public, parcel.to, ringing.key)
        stream, already = await _join(control, me, ringing, parcel.to)
        async with stream:
            report(events.Detail(f"Transfer {transfer.hex()}: the relay has joined the two ends."))
            connection = await endtoend.as_sender(stream, already, binding, me)
            report(events.Detail(f"{parcel.to} has proved the key; making the offer."))
            # A push of one's own makes the other known (C1): the handshake has proved the key.
            await trio.to_thread.run_sync(
                me.known.remember, control.relay_key, parcel.to, connection.peer_key, Trust.KNOWN
            )
            control.hints[transfer] = hint = Hint()
            outcome = await sending.send(
                connection,
                source,
                transfer=transfer,
                to=parcel.to,
                message=parcel.message,
                terms=terms,
                hint=hint,
                report=report,
            )
            await connection.close()
    report(events.Delivered(transfer, parcel.to, outcome.items, outcome.bytes, outcome.digest))
    return outcome


async def _ring(control: Link, me: Me, to: str, transfer: bytes, report: events.Report) -> Ringing:
    """Ask the relay for ``to``. Raises :class:`NobodyThere`, :class:`Declined`, :class:`KeyChanged` and others."""
    await control.ask(Push(to=to, transfer=transfer))
    with trio.move_on_after(control.connection.deadlines.handshake):
        while True:
            match await control.answer():
                case Ringing() as ringing if ringing.transfer == transfer:
                    trust = me.known.check(control.relay_key, to, ringing.key)
                    aliases = me.known.aliases(control.relay_key, to, ringing.key)
                    report(events.Ringing(transfer, to, ringing.key, trust, aliases))
                    return ringing
                case Failed() as failed if failed.transfer == transfer:
                    raise failure(failed, to)
    raise Stalled(
        f"The relay {control.address} did not answer within {control.connection.deadlines.handshake:.0f} s.",
        "Nothing was sent.",
    )


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
