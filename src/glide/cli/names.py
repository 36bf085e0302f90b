"""Asking a person under which name they go, once."""

from __future__ import annotations

import sys
from collections.abc import Callable

from glide.cli import options
from glide.client import profile
from glide.crypto.identity import load_or_create
from glide.errors import UsageError
from glide.protocol import names
from glide.settings import Settings
from glide.text import printable


def ask_once(chosen: Settings) -> str | None:
    """Let a person at a terminal who has chosen no name say one, for this run; to be saved once it has proved free.

    Raises :class:`UsageError`.
    """
    suggested = profile.name(chosen, load_or_create(chosen.home.identity).public)
    if not suggested.by_default or not options.on_terminal():
        return None
    while True:
        print(f"Under which name do you want to receive? [{suggested.text}] ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline()
        if not typed:
            print(file=sys.stderr)
            raise UsageError("No name was given.", "Nothing is received.", "Give one with --as NAME.")
        try:
            name = names.parse(typed.strip() or suggested.text)
        except UsageError as error:
            print(error, file=sys.stderr)
            continue
        chosen.use("as", name)
        return name


def save(chosen: Settings, name: str | None, say: Callable[[str], None]) -> None:
    """Save what was asked for, if it was, now that the relay has given it."""
    if name is not None:
        chosen.save("as", name)
        say(f"Saved in {printable(str(chosen.home.config_file), 400)}; --as NAME changes it for once.")
