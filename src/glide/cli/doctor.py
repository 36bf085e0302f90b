"""glide doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glide.cli import options

if TYPE_CHECKING:
    from glide.cli.render import Renderer
    from glide.client.doctor import Check


def doctor(
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """What is wrong, if something is: with your key, settings, pins, disk, the relay, your name there, the clock.

    Looks only, and changes nothing. The exit code is that of the first check that failed.
    """
    from glide.cli.render import Renderer
    from glide.cli.run import ending, run
    from glide.client import doctor as checks
    from glide.errors import GlideError
    from glide.settings import Home

    renderer = Renderer(json=bool(json), quiet=bool(quiet), verbose=bool(verbose))
    # Not `options.verb`: settings that cannot be read are the first thing to be told here, and not the last.
    with ending(renderer):
        flags = {"relay": relay, "json": json, "quiet": quiet, "verbose": verbose}
        done: list[Check] = []

        def told(check: Check) -> None:
            done.append(check)
            _tell(renderer, check)

        chosen, first = checks.settings(flags, Home.find())
        for name in ("json", "quiet", "verbose"):
            try:
                setattr(renderer, name, chosen[name])
            except GlideError:
                pass  # told by the first check
        told(first)
        for check in checks.local(chosen):
            told(check)

        async def verb() -> None:
            for check in await checks.relay(chosen, renderer.report):
                told(check)

        run(verb)
        failed = {check.name: check.error for check in done if check.error is not None}
        if failed:
            error = next(iter(failed.values()))
            raise type(error)(f"{len(failed)} of {len(done)} checks failed: {', '.join(failed)}.")


def _tell(renderer: Renderer, check: Check) -> None:
    well = check.error is None
    if renderer.json:
        renderer.line("check", name=check.name, ok=well, message=check.message)
    else:
        renderer.out(f"{'ok' if well else 'wrong':<5}  {check.name:<8}  {check.message}")
