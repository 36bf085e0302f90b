"""glide receive"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glide.cli import completing, options


def receive(
    as_: options.As = None,
    into: options.Into = None,
    accept: options.Accept = None,
    policy: options.PolicyRules = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="NAME",
            help="Only from NAME; may be repeated. [env: GLIDE_FROM]",
            autocompletion=completing.people,
        ),
    ] = None,
    once: Annotated[
        bool | None, typer.Option("--once", help="End after the first accepted transfer. [env: GLIDE_ONCE]")
    ] = None,
    conflict: options.Conflict = None,
    stdout: Annotated[
        bool | None,
        typer.Option("--stdout", help="Write one file to standard output, and end. [env: GLIDE_STDOUT]"),
    ] = None,
    allow_hidden: Annotated[
        bool | None,
        typer.Option("--allow-hidden", help="Take what has a name that begins with a dot. [env: GLIDE_ALLOW_HIDDEN]"),
    ] = None,
    no_fsync: Annotated[
        bool | None,
        typer.Option("--no-fsync", help="Do not wait until the disk has it for certain. [env: GLIDE_NO_FSYNC]"),
    ] = None,
    on_offer: Annotated[
        str | None,
        typer.Option(
            "--on-offer", metavar="CMD", help="Start this when somebody offers something. [env: GLIDE_ON_OFFER]"
        ),
    ] = None,
    on_received: Annotated[
        str | None,
        typer.Option(
            "--on-received", metavar="CMD", help="Start this when all of it is here. [env: GLIDE_ON_RECEIVED]"
        ),
    ] = None,
    on_failed: Annotated[
        str | None,
        typer.Option("--on-failed", metavar="CMD", help="Start this when nothing came of it. [env: GLIDE_ON_FAILED]"),
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
    """Wait for files under a name; asks before each, unless --accept or a policy says whose to take."""
    from glide import events
    from glide.cli import hooks, names
    from glide.cli.prompt import Prompt
    from glide.cli.run import run
    from glide.client.api import connect
    from glide.client.consent import Answer
    from glide.errors import FileError, UsageError
    from glide.people.known import Trust

    with options.verb(
        as_=as_, into=into, accept=accept, policy=policy, from_=from_, once=once, conflict=conflict, stdout=stdout,
        allow_hidden=allow_hidden, no_fsync=no_fsync, on_offer=on_offer, on_received=on_received, on_failed=on_failed,
        invisible=invisible, idle=idle, ask_timeout=ask_timeout, retry=retry, relay=relay, json=json, quiet=quiet,
        verbose=verbose,
    ) as (chosen, renderer):  # fmt: skip  # every flag of the verb, and nothing else
        if chosen["stdout"] and chosen["json"]:
            raise UsageError("--stdout and --json both want standard output.", next="Leave one of them out.")
        if chosen["stdout"] and sys.stdout is None:  # its number may be another file's by now
            raise FileError("There is no standard output to write to.", "Nothing is received.")
        commands = hooks.commands(chosen)
        asked = names.ask_once(chosen)
        prompt = Prompt(renderer) if options.on_terminal() and chosen.policy().asks else None

        async def ask(offer: events.OfferArrived) -> Answer | None:
            assert prompt is not None, "without a terminal nobody is asked"
            return Answer(Trust.KNOWN) if await prompt.consent(offer) else None

        async def verb() -> None:
            async with (
                hooks.running(commands, renderer.report) as report,
                connect(settings=chosen, role="receive", report=report) as me,
            ):
                names.save(chosen, asked, renderer.say)
                await me.receive(ask if prompt is not None else None)

        run(verb)
