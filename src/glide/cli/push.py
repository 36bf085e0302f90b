"""glide push"""

from __future__ import annotations

from typing import Annotated

import typer

from glide.cli import completing, options


def push(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Who gets it; or one of your groups.", autocompletion=completing.names)
    ],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files and folders; - is standard input.", show_default=False)
    ],
    as_: options.As = None,
    wait: Annotated[
        str | None,
        typer.Option("--wait", metavar="DURATION", help="Wait so long for them to appear. [env: GLIDE_WAIT]"),
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Send to nobody who is not verified. [env: GLIDE_STRICT]")
    ] = None,
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
    invisible: options.Invisible = None,
    idle: options.Idle = None,
    ask_timeout: options.AskTimeout = None,
    retry: options.Retry = None,
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Send files and folders to a person who is receiving; succeeds only when they have confirmed all of it."""
    from glide.cli import next, receipts
    from glide.cli.groups import to_each, to_one
    from glide.cli.run import run
    from glide.client.api import PIPE, connect
    from glide.client.push import Receipt
    from glide.errors import UsageError
    from glide.protocol.names import parse

    with options.verb(
        as_=as_, wait=wait, strict=strict, message=message, filename=filename, exclude=exclude, gitignore=gitignore,
        receipt=receipt, invisible=invisible, idle=idle, ask_timeout=ask_timeout, retry=retry, relay=relay, json=json,
        quiet=quiet, verbose=verbose,
    ) as (chosen, renderer):  # fmt: skip  # every flag of the verb, and nothing else
        mistake = next.push_mistake(name, paths)
        if mistake is not None:
            raise UsageError("The person comes first.", "Nobody was disturbed.", f"Did you mean: {mistake}")
        to = parse(name)
        group = chosen.groups().get(to)
        if group is not None and PIPE in paths:
            raise UsageError(f"{to} is a group, and standard input can be read only once.", "Nobody was disturbed.")
        record = receipts.wanted(chosen["receipt"], paths)

        async def verb() -> None:
            async with connect(settings=chosen, at_once=False, report=renderer.report) as me:

                async def one(person: str) -> Receipt:
                    return await me.push(person, paths)

                if group is not None:
                    await to_each(to, group, one, renderer.report, record, patient=bool(chosen["wait"]))
                else:
                    await to_one(to, one, record)

        run(verb)
