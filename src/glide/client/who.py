"""who: everybody at the relay, without registering a name."""

from __future__ import annotations

import trio

from glide import events
from glide.client import link
from glide.client.link import Address, Me
from glide.errors import ProtocolError, Stalled
from glide.protocol.messages import People, Person, Role, Who

# More people than any relay holds: a list without end would fill the memory.
MOST = 200_000


async def who(address: Address, me: Me, report: events.Report) -> tuple[bytes, list[Person]]:
    """The relay's key, and the people there in order of names. Raises a :class:`GlideError`."""
    found: list[Person] = []
    async with link.connect(address, me, role=Role.ASK, name=None, report=report) as control:
        while True:
            await control.ask(Who(after=found[-1].name if found else None))
            with trio.move_on_after(control.connection.deadlines.handshake):
                page = await control.answer()
                if not isinstance(page, People):
                    continue
                if page.people and found and page.people[0].name <= found[-1].name:
                    raise ProtocolError("The relay repeats itself.", next="Do not trust this relay.")
                found += page.people
                if len(found) > MOST:
                    raise ProtocolError(f"The relay lists more than {MOST} people.", next="Do not trust this relay.")
                if page.more and page.people:
                    continue
                return control.relay_key, found
            raise Stalled(f"The relay {address} did not answer within {control.connection.deadlines.handshake:.0f} s.")
    raise AssertionError("unreachable")  # pragma: no cover - the loop returns or raises
