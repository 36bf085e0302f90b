"""What the shell may complete. Whatever goes wrong, it is silent: somebody is typing.

Nothing is changed by it: no identity is made, no relay is pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from glide.settings import Settings

# Seconds that the relay may take; starting takes some too, and a person waits for both.
_PATIENCE = 0.7

# A word, and what it is: some shells show it.
Word = tuple[str, str]


def names(context: typer.Context, incomplete: str) -> list[Word]:
    """People who are connected to the relay in use or known there, and groups; with an ``@`` if one was typed."""
    found: dict[str, str] = {}
    chosen = _settings(context)
    if chosen is not None:
        with suppress(Exception):
            found |= dict.fromkeys(chosen.groups(), "a group")
        with suppress(Exception):
            found |= dict.fromkeys(_pinned(chosen, here=True), "known")
        with suppress(Exception):
            found |= dict.fromkeys(_connected(chosen), "connected")
    return _matching(found, incomplete)


def people(context: typer.Context, incomplete: str) -> list[Word]:
    """Names as :func:`names`, without groups: for what is done with one person."""
    return [word for word in names(context, incomplete) if word[1] != "a group"]


def pinned(context: typer.Context, incomplete: str) -> list[Word]:
    """Names of people whose key is pinned, at whatever relay."""
    found: dict[str, str] = {}
    chosen = _settings(context)
    if chosen is not None:
        with suppress(Exception):
            found |= dict.fromkeys(_pinned(chosen, here=False), "known")
    return _matching(found, incomplete)


def accept(incomplete: str) -> list[Word]:
    """The values of ``--accept``."""
    return _matching({"ask": "ask before each", "known": "take from people you know", "all": "take all"}, incomplete)


def conflict(incomplete: str) -> list[Word]:
    """The values of ``--conflict``."""
    words = {
        "rename": "the new one becomes name (1)",
        "skip": "leave out what is there already",
        "overwrite": "replace files",
        "refuse": "decline the offer",
    }
    return _matching(words, incomplete)


def _matching(found: dict[str, str], incomplete: str) -> list[Word]:
    at = "@" if incomplete.startswith("@") else ""
    return [(at + name, what) for name, what in sorted(found.items()) if (at + name).startswith(incomplete)]


def _settings(context: typer.Context) -> Settings | None:
    """With the relay that was typed, if one was."""
    from glide.settings import Home, Settings

    with suppress(Exception):
        return Settings({"relay": context.params.get("relay")}, Home.find())
    return None


def _pinned(chosen: Settings, *, here: bool) -> Iterator[str]:
    """Names that are pinned; ``here`` leaves out those of other relays than the one in use, if that was ever met."""
    from glide.client import profile
    from glide.people.known import Known

    known, relay = Known(chosen.home.known), None
    if here:
        address = profile.address(chosen)
        relay = known.relay_key(str(address), address.key)
    for pin in known.people():
        if relay is None or pin.relay == relay:
            yield pin.name


def _connected(chosen: Settings) -> list[str]:
    """Names of those who are connected, if the relay says it at once. Raises, among others, FileError and OSError."""
    import trio

    from glide.client import looking
    from glide.client.who import everybody

    mine = looking.identity(chosen.home.identity)  # without one the relay has never been asked anything
    found: list[str] = []

    async def ask() -> None:
        with trio.move_on_after(_PATIENCE):
            async with looking.connect(chosen, mine, lambda _: None) as link:
                found.extend(person.name for person in await everybody(link))

    trio.run(ask)
    return found
