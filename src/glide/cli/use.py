"""glide use"""

from __future__ import annotations

from typing import Annotated

import typer

from glide.cli import options


def use(
    relay: Annotated[str, typer.Argument(metavar="HOST:PORT[#KEY]", help="The line that `glide serve` prints.")],
    json: options.Json = None,
    quiet: options.Quiet = None,
) -> None:
    """Remember the relay, and its key if it is given, so that --relay need not be typed."""
    from glide.cli.render import Renderer
    from glide.cli.run import ending
    from glide.client.link import Address
    from glide.people.known import Known

    renderer = Renderer(json=bool(json), quiet=bool(quiet))
    with ending(renderer):
        address = Address.parse(relay)
        chosen = options.settings(json=json, quiet=quiet)
        if address.key is not None:
            Known(chosen.home.known).remember_relay(str(address), address.key)
        chosen.save("relay", str(address))
        pinned = "its key is pinned" if address.key else "its key will be remembered at the first meeting"
        renderer.say(f"In use: {address}; {pinned}.")
