"""glide verify"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from glide.cli import completing, options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glide.cli.render import Renderer
    from glide.client.address import Address
    from glide.client.me import Me
    from glide.people.known import Pin


def verify(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Whom you have on the phone, or before you.", autocompletion=completing.people
        ),
    ],
    as_: options.As = None,
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Show the words that two people compare by voice, to be sure of each other's keys."""
    from glide import events
    from glide.client import profile
    from glide.crypto.identity import fingerprint
    from glide.errors import UsageError
    from glide.people.known import Trust
    from glide.protocol.names import parse

    with options.verb(as_=as_, relay=relay, json=json, quiet=quiet, verbose=verbose) as (chosen, renderer):
        person = parse(name)
        me, address = profile.me(chosen), profile.address(chosen)
        mine = profile.name(chosen, me.identity.public).text
        found = _find(address, me, person, renderer)
        if found.key == me.identity.public:
            raise UsageError(f"The key of {person} is your own.", "Nothing was marked.", "Give the other's name.")
        # The same order on both sides.
        rows = sorted([_Row(person, found.key), _Row(mine, me.identity.public, you=True)], key=lambda row: row.key)
        _show(rows, renderer)
        if not options.on_terminal():
            said = "Nothing is marked: only a person at a terminal can say that the words are the same."
            renderer.report(events.Notice(said))
            return
        _ask(person)
        me.known.remember(found.relay, person, found.key, Trust.VERIFIED)
        renderer.report(events.Notice(f"{person} is verified: {fingerprint(found.key)}."))


@dataclass(frozen=True)
class _Found:
    """Whose key is meant: a name at a relay, of which this is the key."""

    relay: bytes
    key: bytes


@dataclass(frozen=True)
class _Asked:
    """What the relay answered: its own key, and the person's if they are there."""

    relay: bytes
    key: bytes | None


@dataclass(frozen=True)
class _Row:
    name: str
    key: bytes
    you: bool = False


def _find(address: Address, me: Me, person: str, renderer: Renderer) -> _Found:
    """The key that is on record, or else the one that the relay names. Raises :class:`KeyChanged` if they differ."""
    from glide import events
    from glide.cli.run import run
    from glide.client.dialling import connect
    from glide.client.who import everybody
    from glide.errors import ConnectionLost, NobodyThere, Stalled, Unreachable
    from glide.protocol.messages import Role

    asked: list[_Asked] = []

    async def ask() -> None:
        async with connect(address, me, role=Role.ASK, name=None, report=renderer.report) as control:
            people = await everybody(control)
            asked.append(_Asked(control.relay_key, next((each.key for each in people if each.name == person), None)))

    try:
        run(ask)
    except (Unreachable, ConnectionLost, Stalled) as error:
        # Who was met before can be verified without the relay.
        pin = _offline(address, me, person)
        if pin is None:
            raise
        renderer.report(events.Notice(f"{error.what} The key of {person} is the one on record."))
        return _Found(pin.relay, pin.key)
    (there,) = asked
    if there.key is not None:
        me.known.check(there.relay, person, there.key)
    pin = me.known.find(there.relay, person)
    key = pin.key if pin is not None else there.key
    if key is None:
        raise NobodyThere(
            f"Nobody called {person} is connected, and no key of theirs is on record.",
            "Nothing was marked.",
            f"Try again while they are connected, or `glide known add {person} KEY` with what `glide id` shows them.",
        )
    if pin is None:
        renderer.report(events.Notice(f"{person} is not pinned yet: the key is the one that the relay names."))
    return _Found(there.relay, key)


def _offline(address: Address, me: Me, person: str) -> Pin | None:
    """The pin of ``person`` at the relay in use, if that was ever met. Raises :class:`KeyChanged`."""
    if address.key is not None:
        me.known.check_relay(str(address), address.key)
    relay_key = me.known.relay_key(str(address), address.key)
    return me.known.find(relay_key, person) if relay_key else None


def _show(rows: Sequence[_Row], renderer: Renderer) -> None:
    from glide.crypto.identity import key_text
    from glide.people.words import words
    from glide.text import printable

    if renderer.json:
        shown = [{"name": row.name, "key": key_text(row.key), "words": list(words(row.key))} for row in rows]
        renderer.line("words", rows=shown)
        return
    labels = [printable(row.name) + (" (you)" if row.you else "") for row in rows]
    for label, row in zip(labels, rows, strict=True):
        renderer.out(f"{label:<{max(map(len, labels))}}  {' '.join(words(row.key))}")


def _ask(person: str) -> None:
    """Return if the person at the terminal says that the words are the same. Raises :class:`Declined` otherwise."""
    from glide.cli import tty
    from glide.errors import Declined

    tty.forget_typed_ahead()
    print(f"Do both rows read the same at {person}'s? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined(
            "Nothing was marked.",
            "",
            f"If the words differ, somebody may be between you and {person}, or one of you has a new key: send "
            "nothing that matters until you know.",
        )
