"""The program: ``glide VERB``. Verbs import what they need when they run, so that starting costs little."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from glide import __version__
from glide.cli import id, known, partials, push, receive, serve, use, who
from glide.cli.render import Renderer
from glide.errors import Exit

app = typer.Typer(
    name="glide",
    help="Send files to a person, by name, through a relay that you run and need not trust.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"glide {__version__}")
        raise typer.Exit


@app.callback()
def _glide(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    pass


app.command("serve")(serve.serve)
app.command("use")(use.use)
app.command("receive")(receive.receive)
app.command("push")(push.push)
app.command("who")(who.who)
app.command("list", help="The same as who.")(who.who)
app.command("id")(id.id)
app.add_typer(known.app, name="known")
app.add_typer(partials.app, name="partials")


def run() -> NoReturn:
    """Run the verb on the command line; exits with its code."""
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        # The parser ends wrong usage by itself, before there is a verb that could say so in JSON.
        if ended.code == Exit.USAGE and "--json" in sys.argv and not Renderer.said_result:
            Renderer(json=True).result("usage", Exit.USAGE, "Wrong usage; see stderr.")
        raise
    sys.exit(0)
