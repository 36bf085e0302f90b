"""glide push"""

from __future__ import annotations

from typing import Annotated

import typer

from glide.cli import options


def push(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who gets it.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files and folders; - is standard input.", show_default=False)
    ],
    as_: options.As = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="A line for the receiver. [env: GLIDE_MESSAGE]")
    ] = None,
    filename: Annotated[
        str | None,
        typer.Option("--filename", metavar="NAME", help="Send it under another name. [env: GLIDE_FILENAME]"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave out what matches, by the rules of .gitignore; may be repeated. [env: GLIDE_EXCLUDE]",
        ),
    ] = None,
    gitignore: Annotated[
        bool | None,
        typer.Option("--gitignore", help="Leave out what the folders' own .gitignore says. [env: GLIDE_GITIGNORE]"),
    ] = None,
    receipt: Annotated[
        str | None,
        typer.Option("--receipt", metavar="FILE", help="Write what they confirmed as JSON. [env: GLIDE_RECEIPT]"),
    ] = None,
    idle: options.Idle = None,
    ask_timeout: options.AskTimeout = None,
    retry: options.Retry = None,
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Send files and folders to a person who is receiving; succeeds only when they have confirmed all of it."""
    from functools import partial
    from pathlib import Path

    from glide.cli import names
    from glide.cli.run import run
    from glide.client import push as client
    from glide.errors import UsageError
    from glide.protocol.names import parse
    from glide.transfer.gathering import gather, gather_pipe

    with options.verb(
        as_=as_, message=message, filename=filename, exclude=exclude, gitignore=gitignore, receipt=receipt, idle=idle,
        ask_timeout=ask_timeout, retry=retry, relay=relay, json=json, quiet=quiet, verbose=verbose,
    ) as (chosen, renderer):  # fmt: skip  # every flag of the verb, and nothing else
        to = parse(name)
        if len(chosen["message"]) > 400 or any("\ud800" <= c <= "\udfff" for c in chosen["message"]):
            raise UsageError("--message: 400 characters of UTF-8 at most.")
        if "" in paths:
            raise UsageError("A PATH is empty.", "Nobody was disturbed.", "A dot (.) is the folder that you are in.")
        if "-" in paths and len(paths) > 1:
            raise UsageError("- is standard input, which is sent alone.", next="To send a file of that name: ./-")
        if chosen["receipt"] is not None and chosen["receipt"] in ("", "-", *paths):
            raise UsageError("--receipt wants a file of its own to write to.", "Nobody was disturbed.")
        me, address = options.me(chosen), options.address(chosen)
        mine = names.mine(chosen, me.identity.public, ask=False)
        parcel = client.Parcel(
            to,
            partial(gather_pipe, chosen["filename"])
            if paths == ["-"]
            else lambda warn: gather(
                [Path(path) for path in paths],
                filename=chosen["filename"],
                exclude=chosen["exclude"],
                gitignore=chosen["gitignore"],
                warn=warn,
            ),
            mine.name,
            mine.by_default,
            chosen["message"],
            Path(chosen["receipt"]).expanduser() if chosen["receipt"] else None,
        )
        terms = options.terms(chosen)
        run(lambda: client.push(address, me, parcel, terms, renderer.report))
