"""Flags that several verbs share, and what every verb begins with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glide.cli import completing
from glide.settings import Home, Settings, setting, variable

if TYPE_CHECKING:
    from glide.cli.render import Renderer


def _env(name: str) -> str:
    return f"[env: {variable(name)}]"


# Typer would read the environment itself, but a flag, the environment and the file are read in one place: settings.
Relay = Annotated[
    str | None,
    typer.Option("--relay", metavar="HOST[:PORT][#KEY]", help=f"The relay, if not the one in use. {_env('relay')}"),
]
As = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help=f"Your name there; default: saved, or the login name. {_env('as')}"),
]
Json = Annotated[bool | None, typer.Option("--json", help=f"One JSON object a line, for scripts. {_env('json')}")]
Quiet = Annotated[bool | None, typer.Option("--quiet", "-q", help=f"Say nothing but errors. {_env('quiet')}")]
Verbose = Annotated[
    bool | None, typer.Option("--verbose", "-v", help=f"Say each step, and where a fault was. {_env('verbose')}")
]
Idle = Annotated[
    str | None,
    typer.Option(
        "--idle",
        metavar="DURATION",
        help=f"Give up when nothing moves for so long; default 60s, 0s: never. {_env('idle')}",
    ),
]
Retry = Annotated[
    str | None,
    typer.Option(
        "--retry",
        metavar="DURATION",
        help=f"Make a lost connection anew for so long; default 10m, 0s: not at all. {_env('retry')}",
    ),
]
Into = Annotated[
    str | None, typer.Option("--into", metavar="DIR", help=f"Where files land; default: here. {_env('into')}")
]
Accept = Annotated[
    str | None,
    typer.Option(
        "--accept",
        metavar="ask|known|all",
        help=f"Whose files to take. {_env('accept')}",
        autocompletion=completing.accept,
    ),
]
PolicyRules = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="WHO:KEY=VALUE,...",
        help="What to take from whom: everybody, known, verified or @NAME; do, into, size, rate; may be repeated. "
        f"{_env('policy')}",
    ),
]
Conflict = Annotated[
    str | None,
    typer.Option(
        "--conflict",
        metavar="rename|skip|overwrite|refuse",
        help=f"What to do when a name is taken; default: rename. {_env('conflict')}",
        autocompletion=completing.conflict,
    ),
]
Invisible = Annotated[
    bool | None,
    typer.Option("--invisible", help=f"Not to be listed by `who` of others. {_env('invisible')}"),
]
AskTimeout = Annotated[
    str | None,
    typer.Option(
        "--ask-timeout", metavar="DURATION", help=f"How long a person may think; default 5m. {_env('ask-timeout')}"
    ),
]


@contextmanager
def verb(**flags: Any) -> Iterator[tuple[Settings, Renderer]]:
    """What every verb runs in: its settings, and a renderer; whatever happens, it exits with the right code.

    ``flags`` are those of the command line, with underscores for dashes, and ``as_`` and ``from_`` for the words.
    """
    from glide.cli.render import Renderer
    from glide.cli.run import ending

    renderer = Renderer(json=bool(flags.get("json")), quiet=bool(flags.get("quiet")))
    with ending(renderer):
        chosen = Settings({setting(name): value for name, value in flags.items()}, Home.find())
        renderer.json, renderer.quiet, renderer.verbose = chosen["json"], chosen["quiet"], chosen["verbose"]
        yield chosen, renderer


def on_terminal() -> bool:
    """True if a person can be asked: they see the question, and what answers is a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
