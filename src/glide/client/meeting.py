"""Two people who pair: how they find each other at the relay. What they then say to each other is in ``pairing``."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import trio

from glide.client import dialling, endtoend, ringing
from glide.client.endtoend import Binding
from glide.client.link import Link
from glide.client.me import Me
from glide.client.pairing import Paired, show, type_in
from glide.client.ringing import Answers
from glide.client.session import Session
from glide.errors import NobodyThere, Stalled, UsageError
from glide.net.connection import Connection
from glide.people.known import Trust
from glide.people.words import new_code
from glide.protocol.messages import Failed, Incoming, Push, Queued, Ringing, Role
from glide.protocol.preface import Purpose
from glide.text import duration

# Shows a code to the person; asks the person for one.
Show = Callable[[str], None]
Ask = Callable[[], Awaitable[str]]


async def pair(session: Session, to: str, show_code: Show, ask_code: Ask, patience: float) -> Paired:
    """Pin each other's keys as verified, once both have asked for that. Raises a :class:`GlideError`.

    Whoever asks first shows a code, and the other types it. The code goes to nobody, the relay neither, and is good
    for one attempt. ``patience`` in seconds, 0 for ever. Cancelled, nothing is pinned.
    """
    control = await session.link(Role.SEND)
    if to == control.name:
        raise UsageError("To pair with yourself proves nothing.", next="Give the other person's name.")
    transfer = secrets.token_bytes(16)
    try:
        with control.answers(transfer, to) as answers:
            connection, code = await _meet(session, control, answers, transfer, to, show_code, patience)
            async with connection:
                me_key = session.me.identity.public
                if code is None:
                    paired = await type_in(connection, ask_code, me_key, patience=patience)
                else:
                    paired = await show(connection, code, me_key, patience=patience)
    except BaseException:
        await ringing.withdraw(control, transfer)
        raise
    await trio.to_thread.run_sync(session.me.known.remember, control.relay_key, to, paired.key, Trust.VERIFIED)
    return paired


async def _meet(
    session: Session, control: Link, answers: Answers, transfer: bytes, to: str, show_code: Show, patience: float
) -> tuple[Connection, str | None]:
    """The other one, whose key nobody vouches for yet; and the code, if we are the one who has shown it."""
    me = session.me
    await control.ask(Push(to=to, transfer=transfer, pair=True))
    met, code = await _found(control, answers, to, show_code, patience)
    await trio.to_thread.run_sync(me.known.check, control.relay_key, to, met.key)
    binding = _binding(control, me, to, met, typing=code is None)
    if isinstance(met, Ringing):
        stream, already = await ringing.pipe(control, answers, me, met, to)
        return await endtoend.as_sender(stream, already, binding, me), code
    stream, already = await dialling.open_data(control.address, control.relay_key, met.ticket, me)
    return await endtoend.as_receiver(stream, already, binding, me), code


async def _found(
    control: Link, answers: Answers, to: str, show_code: Show, patience: float
) -> tuple[Ringing | Incoming, str | None]:
    """How the two met at the relay, and the code that was shown meanwhile, if we are the one who waits."""
    code, seconds = None, control.connection.deadlines.handshake
    with trio.move_on_after(seconds) as waiting:
        while True:
            match await control.answer(answers):
                case Queued() if code is None:
                    code = new_code()
                    show_code(code)
                    waiting.deadline = trio.current_time() + (patience or float("inf"))
                case Ringing() as rung if code is None:
                    return rung, None
                case Incoming() as incoming if code is not None:
                    return incoming, code
                case Failed() as failed:
                    raise ringing.failure(failed, to)
    if code is None:
        raise Stalled(f"The relay {control.address} did not answer within {seconds:.0f} s.", "Nothing was pinned.")
    raise NobodyThere(
        f"{to} did not come to pair within {duration(patience)}.",
        "Nothing was pinned.",
        f"Run `glide pair {to}` again while they run `glide pair {control.name}`.",
    )


def _binding(control: Link, me: Me, to: str, met: Ringing | Incoming, *, typing: bool) -> Binding:
    """What the two are bound to. Whoever types the code is the initiator, and chose the id."""
    assert control.name is not None, "whoever pairs has a name"
    mine, theirs = (control.name, me.identity.public), (to, met.key)
    first, second = (mine, theirs) if typing else (theirs, mine)
    return Binding(met.transfer, control.relay_key, *first, *second, Purpose.PAIR)
