"""Where the shell's lines come from and go to; and the plain one: lines in, lines out.

The plain one serves scripts, and terminals that can do no more than that. It has no prompt, no colour, no progress, and
nobody who could be asked (D3). The other one is in ``terminal``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

import trio

from glide.cli.commands import Completion
from glide.errors import UsageError

# Bytes of one line: paths may be long, and there may be many.
LONGEST = 1 << 20


class Said(Enum):
    """What is said without a line."""

    INTERRUPT = auto()  # Ctrl-C, with nothing typed
    END = auto()  # Ctrl-D with nothing typed, or the end of the input
    GONE = auto()  # nobody is there any more


class Console(Protocol):
    """``interactive``: a person sits there, sees what is shown, and can be asked.

    ``begun`` is when the last line was begun to be typed (seconds of the monotonic clock): what came later was not
    known to whoever typed it.
    """

    interactive: bool
    begun: float

    async def line(self) -> str | Said:
        """The next line, without its end. Cancelled, nothing is lost.

        Raises :class:`UsageError` for one that is longer than any command: what follows would be a part of it.
        """
        ...

    async def ask(self, question: str) -> bool:
        """True for a yes that was given after the question was shown."""
        ...

    def say(self, text: str) -> None:
        """Lines that stay."""
        ...

    def show(self, lines: list[str]) -> None:
        """What goes on, in place of what was shown before."""
        ...


@asynccontextmanager
async def opened(
    history: Path, completions: Callable[[str], Iterable[Completion]], out: Callable[[str], None]
) -> AsyncIterator[Console]:
    """The console for whoever is there, while the block runs: a person's terminal, or plain lines that go to ``out``.

    The first two are the terminal's: see there.
    """
    if not _can_edit():
        yield Plain(out)
        return
    from glide.cli import terminal

    async with terminal.opened(history, completions) as console:
        yield console


def _can_edit() -> bool:
    """True if a person sits at a terminal that knows more than plain lines."""
    streams = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    return streams and os.environ.get("TERM", "") not in ("dumb", "unknown")


class Plain:
    """Lines from standard input, as they come; what is said goes to ``out``, a line at a time."""

    interactive = False

    def __init__(self, out: Callable[[str], None]) -> None:
        self._out = out
        self.begun = 0.0
        self._read = b""
        self._ended = sys.stdin is None

    async def line(self) -> str | Said:
        while b"\n" not in self._read and not self._ended:
            piece = await _piece(sys.stdin.fileno())
            self._ended = not piece
            self._read += piece
            if len(self._read) > LONGEST and b"\n" not in self._read:
                raise UsageError(f"A line of more than {LONGEST >> 20} MiB is no command.")
        self.begun = time.monotonic()
        line, newline, self._read = self._read.partition(b"\n")
        return os.fsdecode(line) if line or newline else Said.END

    async def ask(self, question: str) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    def say(self, text: str) -> None:
        self._out(text)

    def show(self, lines: list[str]) -> None:
        pass


async def _piece(descriptor: int) -> bytes:
    """What can be read now; nothing at the end of the input."""
    if sys.platform == "win32":  # pipes and consoles cannot be waited for there
        return await trio.to_thread.run_sync(os.read, descriptor, 65536, abandon_on_cancel=True)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    except OSError:
        await trio.lowlevel.checkpoint()  # a file: it never makes anybody wait
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""  # a terminal whose other side has gone
