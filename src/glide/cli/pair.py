"""glide pair"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from glide.cli import completing, options

if TYPE_CHECKING:
    from glide.cli.render import Renderer

# A person may mistype so often what cannot be a code; a code that could be one is tried, and only once.
_TRIES = 3
# Bytes of a line that comes from no terminal. A code has at most 17.
_LONGEST_LINE = 200


def pair(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Whom you have on the phone, or before you.", autocompletion=completing.people
        ),
    ],
    as_: options.As = None,
    ask_timeout: options.AskTimeout = None,
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Pin each other as verified: one is shown a code of two words, and the other types it. Both run this.

    The code is typed at the question, or comes as a line on standard input; it is never an argument.
    """
    from glide.cli.run import run
    from glide.client.api import connect
    from glide.crypto.identity import fingerprint, key_text
    from glide.protocol.names import parse

    with options.verb(as_=as_, ask_timeout=ask_timeout, relay=relay, json=json, quiet=quiet, verbose=verbose) as (
        chosen,
        renderer,
    ):
        person = parse(name)

        async def verb() -> None:
            async with connect(settings=chosen, report=renderer.report) as me:
                paired = await me.pair(
                    person, show=lambda code: _show(code, person, me.name, renderer), ask=lambda: _ask(person, renderer)
                )
            if renderer.json:
                renderer.line("paired", name=person, key=key_text(paired.key))
            else:
                renderer.say(f"{person} is verified: {fingerprint(paired.key)}.")

        run(verb)


def _show(code: str, person: str, mine: str, renderer: Renderer) -> None:
    renderer.say(
        f"Tell {person} this code by voice, and nobody else; `glide pair {mine}` asks them for it. It is good for one "
        f"attempt. Waiting for {person}; Ctrl-C gives up."
    )
    if renderer.json:
        renderer.line("code", code=code)
    else:
        renderer.out(code)


async def _ask(person: str, renderer: Renderer) -> str:
    """The code that ``person`` was shown. Raises :class:`UsageError` if there is none. Cancelled, it asks no longer."""
    import trio

    from glide import events
    from glide.errors import UsageError
    from glide.people.words import parse_code

    if not options.on_terminal():
        renderer.report(events.Notice(f"The code that {person} was shown is awaited on standard input."))
        return parse_code(await _line())
    tries = _TRIES
    with renderer.question():
        while True:
            _say(f"The code that {person} was shown: ")
            try:
                typed = await _line()
            except trio.Cancelled:
                _say("(no longer asked)\n")
                raise
            if not typed:
                _say("\n")
                raise UsageError("No code was typed.", "Nothing was pinned.")
            try:
                return parse_code(typed)
            except UsageError as error:
                tries -= 1
                if not tries:
                    raise
                _say(f"{error}\n")


async def _line() -> str:
    """The next line of standard input, at most 200 bytes of it; an empty string at its end."""
    import trio

    if sys.stdin is None:
        return ""
    number = sys.stdin.fileno()

    def read() -> bytes:
        # A byte at a time: what follows the line is not ours.
        line = b""
        while len(line) < _LONGEST_LINE and (byte := os.read(number, 1)):
            line += byte
            if byte == b"\n":
                break
        return line

    # It may be a file, which cannot be waited for, or nothing may ever come: then the thread ends with the process.
    return (await trio.to_thread.run_sync(read, abandon_on_cancel=True)).decode("utf-8", "replace")


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
