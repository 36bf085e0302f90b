"""What both halves of a transfer share: what the user set, what the relay hints at, what came out."""

from __future__ import annotations

from dataclasses import dataclass

from glide.errors import FileError, IntegrityError, ProtocolError, Stalled, Stopped, from_code
from glide.protocol.messages import Abort, Digest
from glide.text import printable

# Codes that a person's glide may end a transfer with; whatever else it says counts as having stopped it.
_ABORTS = (FileError, IntegrityError, ProtocolError, Stalled)


@dataclass(frozen=True)
class Terms:
    """What the user set for a transfer. Seconds; 0 means no deadline."""

    idle: float = 60.0
    ask_timeout: float = 300.0


@dataclass
class Hint:
    """Whom the relay said last that it waits for. It counts only while bytes should be flowing."""

    side: str = ""
    counts: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the receiver has confirmed: counts, and the digest over all as ``manifest.whole`` says."""

    items: int
    bytes: int
    digest: Digest


def aborted(abort: Abort, who: str, means: str) -> Stopped | FileError | IntegrityError | ProtocolError | Stalled:
    """The error that the other side's Abort comes to here. ``who`` said it; ``means`` what that means for the files."""
    said = f": {printable(abort.message, 400)}" if abort.message else "."
    error = from_code(abort.code, Stopped, *_ABORTS)(f"{who} stopped it{said}", means)
    assert isinstance(error, (Stopped, *_ABORTS))
    return error
