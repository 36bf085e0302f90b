"""The program: ``glide VERB``."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

from glide import __version__
from glide.cli.verbs import Verbs, unchecked


class _Glide(TyperGroup):
    """All verbs; one that is called otherwise elsewhere is suggested by what was meant, not by its spelling alone."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        verbs: Any = Verbs()
        self.commands = verbs

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:  # which is completing
            from glide.cli.next import MEANT

            if args[0] in MEANT:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {MEANT[args[0]]!r}?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Glide,
    name="glide",
    help="Send files to a person, by name, through a relay that you run and need not trust.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"glide {__version__}")
        raise typer.Exit


@app.callback()
def _glide(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    if context.invoked_subcommand is None:
        from glide.cli import options
        from glide.cli.next import steps

        with options.verb() as (chosen, renderer):
            renderer.out(steps(chosen))


def run() -> NoReturn:
    """Run the verb on the command line; exits with its code."""
    try:
        # The name under which completion is installed, however it was started.
        unchecked(typer.main.get_command(app))(prog_name="glide", standalone_mode=True)
    except SystemExit as ended:
        if ended.code and "--json" in sys.argv:
            from glide.cli.render import Renderer
            from glide.errors import Exit

            # The parser ends wrong usage by itself, before there is a verb that could say so in JSON.
            if ended.code == Exit.USAGE and not Renderer.said_result:
                Renderer(json=True).result("usage", Exit.USAGE, "Wrong usage; see stderr.")
        raise
    sys.exit(0)
