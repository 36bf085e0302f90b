"""Which file names an offer may hold, and which of them this destination can; names for when one is taken.

The rules in their order: what no honest sender offers refuses the whole offer (:func:`check_name`); what this receiver
does not want or its disk cannot hold fails (:func:`check_usable`). This one place decides it, for every way in.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator

from glide.errors import Declined, NameUnusable
from glide.text import printable

# NAME_MAX of every file system in common use, in bytes (on Windows and macOS in UTF-16 units, which is laxer).
LONGEST_NAME = 255

# How many of "name (1)", "name (2)", ... are tried before giving up.
_MOST_RENAMES = 10_000

# Names that Windows takes for devices whatever extension follows.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³"}
)

# What follows the last dot counts as an extension up to this many bytes.
_LONGEST_EXTENSION = 32


class BadName(ValueError):
    """A name that no honest sender offers; the text says why."""


def check_name(name: str) -> None:
    """Raise :class:`BadName` unless ``name`` is one path component that names a file."""
    if not name:
        raise BadName("the name is empty")
    if name in (".", ".."):
        raise BadName("the name is a folder's own or its parent's")
    if "/" in name or (os.sep != "/" and os.sep in name):
        raise BadName("the name holds a path separator")
    if name.isascii() and name.isprintable():
        return  # nearly all of them, and there may be a million
    categories = {unicodedata.category(character) for character in name}
    if "Cs" in categories:
        raise BadName("the name is not UTF-8")
    if "Cc" in categories:
        raise BadName("the name holds a control character")


def check_hidden(name: str) -> None:
    """Raise :class:`Declined` for a name that is hidden. (``--into ~`` must not be a way into ``.ssh``.)"""
    if name.startswith("."):
        raise Declined(
            f"{printable(name, 60)!r} is hidden, and nothing hidden is taken.",
            "Nothing was written.",
            "--allow-hidden takes it.",
            for_peer="it is hidden (its name begins with a dot), and they take nothing hidden.",
        )


def check_usable(name: str, *, platform: str = sys.platform) -> None:
    """Raise :class:`NameUnusable` if this destination cannot hold that name."""
    if platform != "win32" and len(name) <= LONGEST_NAME and name.isascii():
        return  # nearly all of them, and there may be a million
    shown = printable(name, 60)
    problem = None
    if not _encodable(name):
        problem = "not one that this system's encoding has"
    elif len(os.fsencode(name)) > LONGEST_NAME:
        problem = f"longer than {LONGEST_NAME} bytes"
    elif platform == "win32":
        stem = name.split(".", maxsplit=1)[0].rstrip(" ").lower()
        if any(character in '<>:"|?*\\' for character in name):
            problem = "not allowed on Windows"
        elif stem in _DEVICES:
            problem = "a device on Windows"
        elif name.endswith((".", " ")):
            problem = "ending in a dot or space, which Windows drops"
    if problem:
        raise NameUnusable(
            f"The name {shown!r} is {problem}; this disk cannot hold it.",
            "Nothing was written.",
            "The sender can give it another name with --filename.",
            for_peer=f"their disk cannot hold that name ({problem}); give it another with --filename.",
        )


def candidates(name: str) -> Iterator[str]:
    """``name`` and the names to try if it is taken, each short enough for the disk."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(os.fsencode(extension)) > _LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    yield name
    for number in range(1, _MOST_RENAMES):
        suffix = f" ({number}){dot}{extension}"
        kept = stem
        while len(os.fsencode(kept + suffix)) > LONGEST_NAME and kept:
            kept = kept[:-1]
        yield kept + suffix


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
