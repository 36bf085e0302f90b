"""glide receive"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glide.cli import options


def receive(
    as_: options.As = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="DIR", help="Where files land; default: here. [env: GLIDE_INTO]")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="ask|known|all", help="Whose files to take. [env: GLIDE_ACCEPT]"),
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME", help="Only from NAME; may be repeated. [env: GLIDE_FROM]"),
    ] = None,
    once: Annotated[
        bool | None, typer.Option("--once", help="End after the first accepted transfer. [env: GLIDE_ONCE]")
    ] = None,
    conflict: Annotated[
        str | None,
        typer.Option(
            "--conflict",
            metavar="rename|skip|overwrite|refuse",
            help="What to do when a name is taken; default: rename. [env: GLIDE_CONFLICT]",
        ),
    ] = None,
    stdout: Annotated[
        bool | None,
        typer.Option("--stdout", help="Write one file to standard output, and end. [env: GLIDE_STDOUT]"),
    ] = None,
    allow_hidden: Annotated[
        bool | None,
        typer.Option("--allow-hidden", help="Take files whose name begins with a dot. [env: GLIDE_ALLOW_HIDDEN]"),
    ] = None,
    no_fsync: Annotated[
        bool | None,
        typer.Option("--no-fsync", help="Do not wait until the disk has it for certain. [env: GLIDE_NO_FSYNC]"),
    ] = None,
    idle: options.Idle = None,
    ask_timeout: options.AskTimeout = None,
    retry: options.Retry = None,
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Wait for files under a name; asks before each, unless --accept says whose to take."""
    from pathlib import Path

    from glide.cli import names
    from glide.cli.prompt import Prompt
    from glide.cli.run import run
    from glide.client import receive as client
    from glide.client.consent import Consent
    from glide.errors import FileError, UsageError
    from glide.people.policy import Policy
    from glide.protocol.names import parse
    from glide.transfer.landing import Conflict

    with options.verb(
        as_=as_, into=into, accept=accept, from_=from_, once=once, conflict=conflict, stdout=stdout,
        allow_hidden=allow_hidden, no_fsync=no_fsync, idle=idle, ask_timeout=ask_timeout, retry=retry, relay=relay,
        json=json, quiet=quiet, verbose=verbose,
    ) as (chosen, renderer):  # fmt: skip  # every flag of the verb, and nothing else
        if chosen["stdout"] and chosen["json"]:
            raise UsageError("--stdout and --json both want standard output.", next="Leave one of them out.")
        if chosen["stdout"] and sys.stdout is None:  # its number may be another file's by now
            raise FileError("There is no standard output to write to.", "Nothing is received.")
        me, policy = options.me(chosen), Policy(chosen["accept"])
        can_ask = policy is Policy.ASK and options.on_terminal()
        terms = options.terms(chosen)
        wishes = client.Wishes(
            name=names.mine(chosen, me.identity.public, ask=True).name,
            into=None if chosen["stdout"] else Path(chosen["into"]).expanduser(),
            journals=chosen.home.partials,
            consent=Consent(
                policy,
                frozenset(parse(name) for name in chosen["from"]),
                chosen["allow-hidden"],
                Prompt(renderer).consent if can_ask else None,
                terms.ask_timeout,
            ),
            conflict=Conflict(chosen["conflict"]),
            once=chosen["once"] or chosen["stdout"],
            sync=not chosen["no-fsync"],
            keep=chosen["keep-partials"],
        )
        address = options.address(chosen)
        run(lambda: client.receive(address, me, wishes, terms, renderer.report))
