"""What to do next: for whoever types just ``glide``, and for whoever mixed something up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glide.errors import UsageError
from glide.protocol import names
from glide.text import printable

if TYPE_CHECKING:
    from glide.settings import Settings

# Characters of a command that is suggested; with more paths it names the first and leaves the others to the reader.
_LONGEST = 400

# What people call our verbs elsewhere, where the spelling alone would not lead them here.
MEANT = {
    "send": "push",
    "upload": "push",
    "put": "push",
    "recv": "receive",
    "get": "receive",
    "wait": "receive",
    "listen": "receive",
    "download": "receive",
    "ls": "who",
    "users": "who",
    "people": "who",
    "server": "serve",
    "relay": "serve",
    "connect": "use",
    "login": "use",
    "whoami": "id",
    "key": "id",
    "fingerprint": "id",
    "check": "doctor",
    "status": "doctor",
    "resume": "push",
}


def push_mistake(name: str, paths: Sequence[str]) -> str | None:
    """The command that was meant, if the person of a ``push`` stands last and not first; else None.

    So it looks if the first word is a file and the last is none, but could be somebody's name. It is quoted for a
    shell, and looks into the current folder.
    """
    *others, last = paths
    if not _is_name(last) or _is_path(last):
        return None
    if not _is_path(name) and (not last.startswith("@") or _is_name(name)):
        return None
    words = ["glide", "push", last]
    found = [name, *others]
    if any(path.startswith("-") and path != "-" for path in found):
        words.append("--")
    import shlex

    meant = shlex.join([*words, *found])
    return printable(meant if len(meant) <= _LONGEST else f"{shlex.join([*words, name])} ...", _LONGEST)


def _is_path(text: str) -> bool:
    return text == "-" or os.path.lexists(text)


def _is_name(text: str) -> bool:
    try:
        names.parse(text)
    except UsageError:
        return False
    return True


def steps(chosen: Settings) -> str:
    """What somebody here may want to type next, in a few lines. Looks at settings and files only."""
    from glide.client import profile
    from glide.settings import SETTINGS

    relay, in_use = profile.address(chosen), chosen["relay"] != SETTINGS["relay"].default
    if not in_use and not _exists(chosen.home.known):
        return _lines(
            f"No relay is in use yet; without one, {relay} is tried.",
            ("glide serve", "run a relay, where all of you can reach it; it prints the line for the others"),
            ("glide use HOST:PORT#KEY", "that line: once on each machine"),
            ("glide --help", "all that there is"),
        )
    if not _exists(chosen.home.identity):
        return _lines(
            f"The relay is {relay}. Your key will be made when you first need it.",
            ("glide receive", "wait for files, under a name that you choose"),
            ("glide push NAME PATH...", "send files to somebody who waits"),
            ("glide --help", "all that there is"),
        )
    me = f"You are {names.parse(chosen['as'])}" if chosen["as"] is not None else "You have chosen no name yet"
    return _lines(
        f"{me}; the relay is {relay}.",
        ("glide who", "who is there"),
        ("glide receive", "wait for files"),
        ("glide push NAME PATH...", "send files to somebody who waits"),
        ("glide doctor", "what is wrong, if something is"),
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # whatever is there, it is of no use


def _lines(first: str, *commands: tuple[str, str]) -> str:
    width = max(len(command) for command, _ in commands)
    return "\n".join([first, *(f"  {command:<{width}}  {what}" for command, what in commands)])
