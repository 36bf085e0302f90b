"""glide serve"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from glide.cli import options


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Default 127.0.0.1; 0.0.0.0: everywhere. [env: GLIDE_HOST]",
        ),
    ] = None,
    port: Annotated[
        str | None, typer.Option("--port", metavar="PORT", help="Default 8080; 0 takes a free one. [env: GLIDE_PORT]")
    ] = None,
    greeting: Annotated[
        str | None, typer.Option("--greeting", metavar="TEXT", help="What clients read. [env: GLIDE_GREETING]")
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            help="For transfers to finish at the end; default 30s. [env: GLIDE_GRACE]",
        ),
    ] = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Run a relay: a registry of who is here, and a pipe between two of them."""
    import os

    import trio

    from glide import events
    from glide.cli.run import SIGNALS
    from glide.client.profile import deadlines
    from glide.crypto.identity import fingerprint, key_text, load_or_create
    from glide.errors import GlideError, UsageError, one_error
    from glide.relay.server import GREETING, Config, Relay

    with options.verb(
        host=host, port=port, greeting=greeting, grace=grace, json=json, quiet=quiet, verbose=verbose
    ) as (chosen, renderer):
        logging.basicConfig(
            format="%(asctime)s %(message)s",
            datefmt="%H:%M:%S",
            level=logging.ERROR if chosen["quiet"] else logging.DEBUG if chosen["verbose"] else logging.INFO,
        )
        logging.raiseExceptions = False  # a log that nobody takes any more is no reason to stop
        text = GREETING if chosen["greeting"] is None else chosen["greeting"]
        if len(text) > 400:
            raise UsageError("--greeting: 400 characters at most.")
        config = Config(chosen["host"], chosen["port"], text, chosen["grace"], deadlines(chosen))

        def report(event: events.Event) -> None:
            if isinstance(event, events.Listening) and not renderer.json:
                for line in invitation(event.host, event.port, key_text(event.key)):
                    renderer.say(line)
                renderer.say(f"Who comes without that key is shown a fingerprint to compare: {fingerprint(event.key)}")
            else:
                renderer.report(event)

        relay = Relay(load_or_create(chosen.home.relay_identity), config, report)

        async def main() -> None:
            with trio.open_signal_receiver(*SIGNALS) as signals, one_error():
                async with trio.open_nursery() as nursery:

                    async def watch() -> None:
                        async for number in signals:
                            if relay.draining:
                                renderer.result("terminated", 128 + number, "Ended at once by a second signal.")
                                os._exit(128 + number)
                            renderer.say("Finishing what is under way; a second signal ends at once.")
                            relay.drain()

                    nursery.start_soon(watch)
                    await relay.serve()
                    nursery.cancel_scope.cancel()

        trio.run(main)
        if relay.cut:
            raise GlideError(f"The grace was over; transfers that were cut: {relay.cut}.")


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
        f"glide relay on {host}, port {port}. {'Others on this machine' if local else 'On the other machines'} type:",
        "",
        f"    glide use {reachable}:{port}#{key}",
        "",
    ]
    if local:
        lines.append("Only this machine can reach it; --host 0.0.0.0 lets other machines in.")
    elif everywhere:
        lines.append("If they cannot reach this machine by that name, any of its addresses will do.")
    return lines
