"""Under which name this person goes."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from glide.cli import options
from glide.crypto.identity import key_text
from glide.errors import UsageError
from glide.protocol import names
from glide.settings import Settings, login
from glide.text import printable


@dataclass(frozen=True)
class Chosen:
    name: str
    by_default: bool


def mine(chosen: Settings, public_key: bytes, *, ask: bool) -> Chosen:
    """The name from the settings, or else the login name; ``ask`` lets a person at a terminal confirm it once.

    Raises :class:`UsageError` for a name that is none.
    """
    if chosen["as"] is not None:
        return Chosen(names.parse(chosen["as"]), by_default=False)
    suggested = names.default(login(), f"user-{key_text(public_key)[:4]}")
    if not ask or not options.on_terminal():
        return Chosen(suggested, by_default=True)
    while True:
        print(f"Under which name do you want to receive? [{suggested}] ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline()
        if not typed:
            print(file=sys.stderr)
            raise UsageError("No name was given.", "Nothing is received.", "Give one with --as NAME.")
        try:
            name = names.parse(typed.strip() or suggested)
        except UsageError as error:
            print(error, file=sys.stderr)
            continue
        chosen.save("as", name)
        where = printable(str(chosen.home.config_file), 400)
        print(f"Saved in {where}; --as NAME changes it for once.", file=sys.stderr)
        return Chosen(name, by_default=False)
