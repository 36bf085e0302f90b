"""The plain line that opens every connection, and the line that answers it.

    glide/1 control\\n      ->      glide/1 ok\\n
    glide/1 data\\n         <-      glide/1 refused speaks 1 to 1: this relay is older than your glide\\n
    glide/1 e2e\\n
    glide/1 pair\\n

The opening line comes in one piece with the first handshake message, so it costs no round trip. It is the one
thing that is said in clear, so that a wrong peer (a browser, an older glide) fails at once with an answer
that a person can read, in any later version too: the form ``glide/NUMBER refused TEXT`` never changes. The
opening line is part of the handshake's prologue: whoever changes it on the way breaks the handshake.
"""

from __future__ import annotations

import re
from enum import StrEnum

from glide.errors import NotGlide, RelayRefused
from glide.text import printable

VERSION = 1
OLDEST = 1

# The longest line either side sends. Enough for a sentence; small enough to read before anything is proved.
LONGEST_LINE = 256

_OPENING = re.compile(rb"glide/(\d{1,5}) ([a-z0-9]{1,16})\Z")
_ANSWER = re.compile(rb"glide/(\d{1,5}) (ok|refused|busy)(?: ([^\n]*))?\Z")


class Purpose(StrEnum):
    """What a connection is for."""

    CONTROL = "control"
    DATA = "data"
    END_TO_END = "e2e"
    PAIR = "pair"


def opening(purpose: Purpose) -> bytes:
    """The initiator's line, newline included."""
    return b"glide/%d %s\n" % (VERSION, purpose.encode())


def ok() -> bytes:
    return b"glide/%d ok\n" % VERSION


def busy(why: str) -> bytes:
    """The answer of a side that speaks the protocol but takes nobody now."""
    return _line(b"busy", why)


def refusal(why: str) -> bytes:
    """The answer of a side that cannot talk to what called. ``why`` must be plain ASCII."""
    return _line(b"refused", f"speaks {OLDEST} to {VERSION}: {why}")


def _line(word: bytes, why: str) -> bytes:
    text = why.replace("\n", " ").encode("ascii", "replace")
    return (b"glide/%d %s %s" % (VERSION, word, text))[: LONGEST_LINE - 1] + b"\n"


def parse_opening(line: bytes) -> Purpose:
    """What the initiator wants. ``line`` is without its newline.

    Raises :class:`NotGlide`, whose ``what`` is fit to be sent back in :func:`refusal`.
    """
    match = _OPENING.match(line)
    if match is None:
        raise NotGlide("this is a glide relay, and that was not glide")
    version = int(match[1])
    if not OLDEST <= version <= VERSION:
        older = "yours is older than this one" if version < OLDEST else "this one is older than yours"
        raise NotGlide(f"you speak {version}, {older}; update the older of the two")
    try:
        return Purpose(match[2].decode())
    except ValueError:
        raise NotGlide("no connection of that kind is known here") from None


def check_answer(line: bytes, peer: str) -> None:
    """Return if the responder said yes. ``line`` is without its newline; ``peer`` names it for people.

    Raises :class:`NotGlide` for a refusal or for anything that is not glide, :class:`RelayRefused` for a
    peer that is busy.
    """
    match = _ANSWER.match(line)
    if match is None:
        shown = printable(line.decode("utf-8", "replace"), 60)
        relay = peer.startswith("the relay")
        raise NotGlide(
            f"{peer[0].upper()}{peer[1:]} is not {'a glide relay' if relay else 'glide'}: it answered {shown!r}.",
            "Nothing was sent.",
            "Check the host and port; `glide serve` prints them."
            if relay
            else "The relay joined you to something else.",
        )
    said = printable((match[3] or b"").decode("ascii", "replace"), LONGEST_LINE)
    if match[2] == b"refused" or (match[2] == b"ok" and int(match[1]) != VERSION):
        raise NotGlide(
            f"{peer} cannot talk to this glide (it speaks version {match[1].decode()} of the protocol, "
            f"this one {VERSION}): {said}.",
            "Nothing was sent.",
        )
    if match[2] == b"busy":
        raise RelayRefused(f"{peer} takes no more connections now: {said}.", "Nothing was sent.", "Try again later.")
