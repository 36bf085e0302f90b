"""glide serve"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from glide.cli import options


def serve(
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0: everywhere. [env: GLIDE_HOST]"),
    ] = None,
    port: Annotated[
        str | None, typer.Option("--port", metavar="PORT", help="0 takes a free one. [env: GLIDE_PORT]")
    ] = None,
    greeting: Annotated[
        str | None, typer.Option("--greeting", metavar="TEXT", help="What clients read. [env: GLIDE_GREETING]")
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace", metavar="DURATION", help="How long transfers may take to finish at the end. [env: GLIDE_GRACE]"
        ),
    ] = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Run a relay: a registry of who is here, and a pipe between two of them."""
    import trio

    from glide import events
    from glide.cli.render import Renderer
    from glide.cli.run import SIGNALS, ending
    from glide.crypto.identity import key_text, load_or_create
    from glide.errors import GlideError, UsageError, one_error
    from glide.relay.server import Config, Relay

    renderer = Renderer(json=bool(json), quiet=bool(quiet))
    with ending(renderer):
        chosen = options.settings(
            host=host, port=port, greeting=greeting, grace=grace, json=json, quiet=quiet, verbose=verbose
        )
        renderer.json, renderer.quiet, renderer.verbose = chosen["json"], chosen["quiet"], chosen["verbose"]
        logging.basicConfig(
            format="%(asctime)s %(message)s",
            datefmt="%H:%M:%S",
            level=logging.ERROR if chosen["quiet"] else logging.DEBUG if chosen["verbose"] else logging.INFO,
        )
        if len(chosen["greeting"]) > 400:
            raise UsageError("--greeting: 400 characters at most.")
        config = Config(chosen["host"], chosen["port"], chosen["greeting"], chosen["grace"], options.deadlines(chosen))

        def report(event: events.Event) -> None:
            if isinstance(event, events.Listening) and not renderer.json:
                for line in invitation(event.host, event.port, key_text(event.key)):
                    renderer.say(line)
            else:
                renderer.report(event)

        relay = Relay(load_or_create(chosen.home.relay_identity), config, report)

        async def main() -> None:
            with trio.open_signal_receiver(*SIGNALS) as signals, one_error():
                async with trio.open_nursery() as nursery:

                    async def watch() -> None:
                        count = 0
                        async for _ in signals:
                            count += 1
                            if count > 1:
                                raise GlideError("Ended at once by a second signal.", "Transfers under way were cut.")
                            renderer.say("Finishing what is under way; a second signal ends at once.")
                            relay.drain()

                    nursery.start_soon(watch)
                    await relay.serve()
                    nursery.cancel_scope.cancel()

        trio.run(main)
        if relay.cut:
            raise GlideError(f"{relay.cut} transfers were cut when the grace was over.")


def invitation(host: str, port: int, key: str) -> list[str]:
    """What `serve` says first: how others reach it."""
    import ipaddress
    import socket

    try:
        address = ipaddress.ip_address(host)
        local, everywhere = address.is_loopback, address.is_unspecified
    except ValueError:
        local, everywhere = host == "localhost", False
    reachable = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    lines = [
        f"glide relay on {host}, port {port}. On the other machines type:",
        "",
        f"    glide use {reachable}:{port}#{key}",
        "",
    ]
    if local:
        lines.append("Only this machine can reach it: --host 0.0.0.0 lets others in.")
    elif everywhere:
        lines.append("If they cannot reach this machine by that name, any of its addresses will do.")
    return lines
