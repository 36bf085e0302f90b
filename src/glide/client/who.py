"""who: everybody at the relay, without registering a name."""

from __future__ import annotations

from itertools import pairwise

import trio

from glide import events
from glide.client import link
from glide.client.address import Address
from glide.client.link import Link, Me
from glide.errors import ProtocolError, Stalled
from glide.protocol.messages import People, Person, Role, Who

# More people than any relay holds: a list without end would fill the memory.
MOST = 200_000


async def who(address: Address, me: Me, report: events.Report) -> tuple[bytes, list[Person]]:
    """The relay's key, and the people there in order of names. Raises a :class:`GlideError`."""
    found: list[Person] = []
    async with link.connect(address, me, role=Role.ASK, name=None, report=report) as control:
        more = True
        while more:
            page = await _page(control, found[-1].name if found else None)
            names = [person.name for person in (*found[-1:], *page.people)]
            if any(later <= earlier for earlier, later in pairwise(names)) or len(found) > MOST:
                raise ProtocolError("The relay's list of people never ends.", next="Do not trust this relay.")
            found += page.people
            more = page.more and bool(page.people)
    return control.relay_key, found


async def _page(control: Link, after: str | None) -> People:
    seconds = control.connection.deadlines.handshake
    await control.ask(Who(after=after))
    with trio.move_on_after(seconds):
        while True:
            page = await control.answer()
            if isinstance(page, People):
                return page
    raise Stalled(f"The relay {control.address} did not answer within {seconds:.0f} s.")
