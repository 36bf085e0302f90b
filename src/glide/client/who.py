"""who: everybody at the relay who wants to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import trio

from glide.client.link import EVERYBODY, Link
from glide.errors import ProtocolError, Stalled
from glide.people.known import Known
from glide.protocol.fields import Message
from glide.protocol.messages import People, Person, Who

# More people than any relay holds: a list without end would fill the memory.
MOST = 200_000

# Seconds for all of it, however many pages the relay makes of it.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Somebody:
    """Who is connected. ``since`` in seconds since 1970; ``trust`` is the pin's state, or ``changed``."""

    name: str
    key: bytes
    receiving: bool
    since: int
    trust: str


async def who(control: Link, known: Known) -> list[Somebody]:
    """The people there in order of names. Raises a :class:`GlideError`."""
    people = await everybody(control)
    pins = await trio.to_thread.run_sync(known.trusts, control.relay_key)

    def trust(person: Person) -> str:
        pin = pins.get(person.name)
        return "new" if pin is None else str(pin.trust) if pin.key == person.key else "changed"

    return [Somebody(each.name, each.key, each.receiving, each.since, trust(each)) for each in people]


async def everybody(control: Link) -> list[Person]:
    """As the relay tells it. Raises a :class:`GlideError`."""
    found: list[Person] = []
    with trio.move_on_after(_PATIENCE):
        return await _listed(control, found)
    raise Stalled(f"The relay {control.address} did not tell who is there within {_PATIENCE:.0f} s.")


async def _listed(control: Link, found: list[Person]) -> list[Person]:
    async with control.listing:
        with control.answers(EVERYBODY) as answers:
            more = True
            while more:
                page = await _page(control, answers, found[-1].name if found else None)
                names = [person.name for person in (*found[-1:], *page.people)]
                if any(later <= earlier for earlier, later in pairwise(names)) or len(found) > MOST:
                    raise ProtocolError("The relay's list of people never ends.", next="Do not trust this relay.")
                found += page.people
                more = page.more and bool(page.people)
    return found


async def _page(control: Link, answers: trio.MemoryReceiveChannel[Message], after: str | None) -> People:
    seconds = control.connection.deadlines.handshake
    await control.ask(Who(after=after))
    with trio.move_on_after(seconds):
        while True:
            page = await control.answer(answers)
            if isinstance(page, People):
                return page
    raise Stalled(f"The relay {control.address} did not answer within {seconds:.0f} s.")
