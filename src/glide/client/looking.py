"""Being at a relay without leaving a trace here: no key is made, and none is pinned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from glide import events
from glide.client import dialling, profile
from glide.client.link import Link
from glide.client.me import Me
from glide.crypto.identity import Identity, parse_key
from glide.errors import FileError
from glide.people.known import Known
from glide.protocol.messages import Role
from glide.settings import Settings
from glide.text import printable


class Pins(Known):
    """Pins to compare with, and not to add to."""

    def remember_relay(self, address: str, key: bytes) -> None:
        pass


def identity(path: Path) -> Identity:
    """As it stands in the file, whose mode is left as it is. Raises :class:`FileError`, and OSError. Blocks."""
    try:
        return Identity.from_private(parse_key(path.read_text(encoding="ascii", errors="replace")))
    except ValueError:
        raise FileError(
            f"The identity {printable(str(path), 400)} holds no key.",
            next="Restore it from a backup. Without one, move it away: a new key is made, and people who know you by "
            "the old one will be warned.",
        ) from None


@asynccontextmanager
async def connect(chosen: Settings, mine: Identity, report: events.Report) -> AsyncIterator[Link]:
    """A connection to the relay in the settings, under no name. Raises as :func:`glide.client.dialling.connect`.

    Only details are reported: the notice of a first meeting would say that the relay's key is remembered.
    """

    def details(event: events.Event) -> None:
        if isinstance(event, events.Detail):
            report(event)

    me = Me(mine, Pins(chosen.home.known), profile.deadlines(chosen))
    async with dialling.connect(profile.address(chosen), me, role=Role.ASK, name=None, report=details) as link:
        yield link
