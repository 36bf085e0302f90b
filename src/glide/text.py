"""Text that came from somebody else, made fit to be shown; and the words for sizes and times.

A name, a file name, a message, an error or a greeting of a peer may hold escape sequences, line breaks,
right-to-left overrides or ten thousand letters. Nothing of that reaches a terminal or a log: every such
string passes :func:`printable` on its way there.
"""

from __future__ import annotations

import re
import unicodedata

# Cc: C0, DEL, C1. Cf: bidi controls, zero-width characters, tags. Cs: lone surrogates. Co, Cn: private and
# unassigned, which a terminal may draw as anything. Zl, Zp: line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that are drawn as nothing: Hangul fillers, the empty braille pattern, the grapheme joiner.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
# Marks on one letter beyond this would cover the lines around it.
_MOST_MARKS = 4

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?(?:([kmgtpe])(i?b)?|b)?")
_LARGEST = 2**63 - 1  # as on the wire
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_LONGEST = 366 * 86400.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def printable(text: str, limit: int = 200) -> str:
    """``text`` on one line, with everything invisible or directional written as an escape.

    At most ``limit`` characters come back; a longer text keeps its beginning and its end (a file's
    extension stands there) around an ellipsis.
    """
    # Cut first: ten megabytes must not be escaped character by character to be thrown away.
    if len(text) > 2 * limit:
        text = text[:limit] + "…" + text[-limit:]
    marks, pieces = 0, []
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        pieces.append(_escaped(character, hide=marks > _MOST_MARKS))
    shown = "".join(pieces)
    if len(shown) > limit:
        tail = limit // 3
        shown = shown[: limit - tail - 1] + "…" + shown[len(shown) - tail :]
    return shown


def _escaped(character: str, *, hide: bool) -> str:
    if not hide and character not in _BLANK and unicodedata.category(character) not in _HIDDEN:
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def counted(count: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: float) -> str:
    """A number of bytes for people, in binary units: ``1.4 GiB``."""
    for unit in _UNITS:
        if count < 1023.95 or unit == _UNITS[-1]:  # so that rounding never shows 1024.0
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes any number")  # pragma: no cover - the loop always returns


def duration(seconds: float) -> str:
    """A time span for people: ``45s``, ``2m``, ``1h30m``."""
    whole = round(seconds)
    if whole < 1 and seconds > 0:
        return f"{round(seconds * 1000)}ms"
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{secs}s" if secs else ""]
    return "".join(parts) or "0s"


def parse_duration(text: str) -> float:
    """Seconds from ``90s``, ``5m``, ``1h30m``, ``250ms``; a bare number is seconds. ValueError otherwise."""
    text = text.strip().lower()
    total, at = 0.0, 0
    for match in _DURATION.finditer(text):
        number, unit = match.groups()
        if match.start() != at or (unit is None and match.span() != (0, len(text))):
            break
        total += float(number) * _SECONDS[unit or "s"]
        at = match.end()
    if not text or at != len(text) or total > _LONGEST:
        raise ValueError(f"{text!r} is no duration; write it like 90s, 5m or 2h, up to a year")
    return total


def parse_size(text: str) -> int:
    """Bytes from ``1GiB``, ``2.5MB``, ``500k`` or ``100``; less than a byte is dropped. ValueError otherwise.

    KiB, MiB, GiB, TiB, PiB and EiB are powers of 1024, as :func:`size` tells them, and so are the bare letters k, M,
    G, T, P and E, which other tools take for that. kB, MB, GB, TB, PB and EB are powers of 1000. Upper and lower case
    mean the same: there are no bits here.
    """
    from decimal import Decimal  # few commands read a size, and start-up is short

    match = _SIZE.fullmatch(text.strip().lower())
    if match is not None:
        number, letter, ending = match.groups()
        base = 1000 if ending == "b" else 1024
        count = int(Decimal(number) * base ** ("kmgtpe".index(letter) + 1 if letter else 0))
        if count <= _LARGEST:
            return count
    raise ValueError(f"{text!r} is no size; write it like 500k, 2.5MB or 1GiB, less than 8EiB")
