"""glide push"""

from __future__ import annotations

from typing import Annotated

import typer

from glide.cli import options


def push(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who gets it.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file.")],
    as_: options.As = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="A line for the receiver. [env: GLIDE_MESSAGE]")
    ] = None,
    filename: Annotated[
        str | None,
        typer.Option("--filename", metavar="NAME", help="Send it under another file name. [env: GLIDE_FILENAME]"),
    ] = None,
    idle: options.Idle = None,
    ask_timeout: options.AskTimeout = None,
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Send a file to a person who is receiving; succeeds only when they have confirmed all of it."""
    from pathlib import Path

    from glide.cli import names
    from glide.cli.run import run
    from glide.client import push as client
    from glide.errors import UsageError
    from glide.protocol.names import parse
    from glide.transfer.terms import Terms

    with options.verb(
        as_=as_, message=message, filename=filename, idle=idle, ask_timeout=ask_timeout, relay=relay, json=json,
        quiet=quiet, verbose=verbose,
    ) as (chosen, renderer):  # fmt: skip  # every flag of the verb, and nothing else
        to = parse(name)
        if len(chosen["message"]) > 400 or any("\ud800" <= c <= "\udfff" for c in chosen["message"]):
            raise UsageError("--message: 400 characters of UTF-8 at most.")
        me, address = options.me(chosen), options.address(chosen)
        mine = names.mine(chosen, me.identity.public, ask=False)
        parcel = client.Parcel(to, Path(path), mine.name, mine.by_default, chosen["filename"], chosen["message"])
        terms = Terms(chosen["idle"], chosen["ask-timeout"])

        async def verb() -> None:
            await client.push(address, me, parcel, terms, renderer.report)

        run(verb)
