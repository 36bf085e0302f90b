"""Reaching another person through the relay: they are rung, and then there is a pipe to them."""

from __future__ import annotations

from collections.abc import Callable

import trio

from glide.client import dialling
from glide.client.link import Link
from glide.client.me import Me
from glide.errors import Declined, Engaged, GlideError, NobodyThere, RelayRefused, Replaced, Stalled, from_code
from glide.protocol.fields import Message
from glide.protocol.messages import Failed, Push, Queued, Ringing, Withdraw
from glide.text import printable

Answers = trio.MemoryReceiveChannel[Message]


async def ring(control: Link, answers: Answers, push: Push, on_queued: Callable[[], None]) -> Ringing:
    """Have the relay ring them; if ``push`` says to wait, that may last: ``on_queued`` is called when it does.

    Raises :class:`NobodyThere`, :class:`Declined`, :class:`RelayRefused`, :class:`Stalled` if the relay is silent, or
    why the connection to it ended. Cancelled, it may still ring: see :func:`withdraw`.
    """
    await control.ask(push)
    seconds = control.connection.deadlines.handshake
    with trio.move_on_after(seconds) as patience:
        while True:
            match await control.answer(answers):
                case Ringing() as ringing:
                    return ringing
                case Failed() as failed:
                    raise failure(failed, push.to)
                case Queued() if push.wait:
                    patience.deadline = float("inf")
                    on_queued()
    error = Stalled(f"The relay {control.address} did not answer within {seconds:.0f} s.", "Nothing was sent.")
    error.worth_a_retry = True
    raise error


async def withdraw(control: Link, transfer: bytes) -> None:
    """Have the relay ring for it no more. Takes at most ``farewell`` seconds, cancelled or not."""
    try:
        await control.ask(Withdraw(transfer=transfer), within=control.connection.deadlines.farewell)
    except GlideError:
        pass  # with the session it is gone anyway


async def pipe(control: Link, answers: Answers, me: Me, ringing: Ringing, to: str) -> tuple[trio.SocketStream, bytes]:
    """The pipe to them, and what of theirs came already; raises as :func:`ring`.

    If it does not come about the relay knows why, and says so on the control side.
    """
    try:
        return await dialling.open_data(control.address, control.relay_key, ringing.ticket, me)
    except RelayRefused:
        with trio.move_on_after(me.deadlines.reason):
            while True:
                match await control.answer(answers):
                    case Failed() as failed:
                        raise failure(failed, to) from None
        raise


def failure(failed: Failed, to: str) -> GlideError:
    """What a push that the relay could not ring comes to."""
    said = printable(failed.message, 400)
    if failed.code == NobodyThere.code:
        hint = (
            f"Did you mean {' or '.join(failed.closest)}?"
            if failed.closest
            else "`glide who` lists who is there; with --wait 2h it is sent when they come."
        )
        return NobodyThere(f"{to} {said}.", "Nothing was sent.", hint)
    if failed.code == RelayRefused.code:
        return RelayRefused(f"The relay refused: {said}", "Nothing was sent.", "Try again later.")
    if failed.code == Replaced.code:
        return Replaced(f"It goes on elsewhere: {said}", "Nothing was pinned here.")
    # Words of the receiver, as the relay passes them on: whatever they are, the person was not reached.
    return from_code(failed.code, Declined, Engaged)(f"{to} {said.rstrip('.')}.", "Nothing was sent.")
