"""Questions to a person at a terminal, one at a time."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable

import trio

from glide import events
from glide.cli import tty
from glide.cli.render import Renderer
from glide.cli.wording import offer_text
from glide.text import printable


class Prompt:
    """Asks on stderr, reads from the terminal that stdin is."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._one_at_a_time = trio.Lock()

    async def consent(self, offer: events.OfferArrived) -> bool:
        """True if the person says yes to ``offer``. Cancelled, the question is withdrawn."""
        async with self._one_at_a_time:
            with self._renderer.question():
                _say(offer_text(offer) + "\n")
                if offer.items != 1:
                    _say("  Answer l to see all of it.\n")
                tty.forget_typed_ahead()
                while True:
                    answer = await self._line(f"Take it from {printable(offer.sender)}? [y/N] ")
                    match answer.strip().lower():
                        case "y" | "yes":
                            return True
                        case "" | "n" | "no":
                            return False
                        case "l" | "list":
                            await _page(printable(path, 1000) for path in offer.paths())
                        case _:
                            _say("Please answer y or n, or l to see all that is offered.\n")

    async def _line(self, question: str) -> str:
        """What the person types; an empty string at the end of input."""
        _say(question)
        try:
            answer = await _read_line()
        except trio.Cancelled:
            _say("(no longer asked)\n")
            raise
        if not answer.endswith("\n"):
            _say("\n")
        return answer


async def _page(lines: Iterable[str]) -> None:
    """Show lines in the person's pager; without one, as they are."""
    text = "".join(f"{line}\n" for line in lines)
    pager = shlex.split(os.environ.get("PAGER", "less"))
    if not pager or shutil.which(pager[0]) is None:
        _say(text)
        return
    # What less may do besides showing (edit, run, write) has no place in front of a stranger's names.
    environment = {**os.environ, "LESSSECURE": "1", "LESS": os.environ.get("LESS", "-FX")}
    await trio.run_process(pager, stdin=text.encode(), stdout=sys.stderr, check=False, env=environment)


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


async def _read_line() -> str:
    # The terminal hands over whole lines; waiting for it this way can be cancelled, reading in a thread cannot.
    if sys.platform == "win32":  # pragma: no cover - consoles cannot be waited for there
        return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    await trio.lowlevel.wait_readable(sys.stdin.fileno())
    return os.read(sys.stdin.fileno(), 4096).decode("utf-8", "replace")
