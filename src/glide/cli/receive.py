"""glide receive"""

from __future__ import annotations

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
    from glide.people.policy import Policy
    from glide.protocol.names import parse
    from glide.transfer.terms import Terms

    with options.verb(
        as_=as_, into=into, accept=accept, from_=from_, once=once, allow_hidden=allow_hidden, no_fsync=no_fsync,
        idle=idle, ask_timeout=ask_timeout, relay=relay, json=json, quiet=quiet, verbose=verbose,
    ) as (chosen, renderer):  # fmt: skip  # every flag of the verb, and nothing else
        me, policy = options.me(chosen), Policy(chosen["accept"])
        can_ask = policy is Policy.ASK and options.on_terminal()
        wishes = client.Wishes(
            name=names.mine(chosen, me.identity.public, ask=True).name,
            into=Path(chosen["into"]).expanduser(),
            policy=policy,
            only=frozenset(parse(name) for name in chosen["from"]),
            once=chosen["once"],
            allow_hidden=chosen["allow-hidden"],
            sync=not chosen["no-fsync"],
            ask=Prompt(renderer).consent if can_ask else None,
        )
        address, terms = options.address(chosen), Terms(chosen["idle"], chosen["ask-timeout"])
        run(lambda: client.receive(address, me, wishes, terms, renderer.report))
