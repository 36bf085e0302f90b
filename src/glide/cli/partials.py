"""glide partials: what is kept of interrupted transfers."""

from __future__ import annotations

import typer

from glide.cli import options
from glide.text import counted

app = typer.Typer(help="What is kept of interrupted transfers, to go on with them.", invoke_without_command=True)


@app.callback()
def partials(
    context: typer.Context, json: options.Json = None, quiet: options.Quiet = None, verbose: options.Verbose = None
) -> None:
    """What is kept of interrupted transfers: from whom, how much, how old, and where. Kept for seven days."""
    if context.invoked_subcommand is not None:
        return
    from glide.client import partials as client

    with options.verb(json=json, quiet=quiet, verbose=verbose) as (chosen, renderer):
        if not client.listed(chosen.home.partials, renderer.report):
            renderer.say("Nothing is kept of interrupted transfers.")


@app.command()
def clear(json: options.Json = None, quiet: options.Quiet = None, verbose: options.Verbose = None) -> None:
    """Remove all of it; what is being received right now stays."""
    from glide.client import partials as client

    with options.verb(json=json, quiet=quiet, verbose=verbose) as (chosen, renderer):
        count = client.clear(chosen.home.partials, renderer.report)
        renderer.say("Nothing was kept." if not count else f"Removed what was kept of {counted(count, 'transfer')}.")
