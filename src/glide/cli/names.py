"""Asking a person under which name they go, once."""

from __future__ import annotations

import sys

from glide.cli import options
from glide.client import profile
from glide.crypto.identity import load_or_create
from glide.errors import UsageError
from glide.protocol import names
from glide.settings import Settings
from glide.text import printable


def ask_once(chosen: Settings) -> None:
    """Let a person at a terminal who has chosen no name say one, and save it. Raises :class:`UsageError`."""
    suggested = profile.name(chosen, load_or_create(chosen.home.identity).public)
    if not suggested.by_default or not options.on_terminal():
        return
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
        chosen.save("as", name)
        where = printable(str(chosen.home.config_file), 400)
        print(f"Saved in {where}; --as NAME changes it for once.", file=sys.stderr)
        return
