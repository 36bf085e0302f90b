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
    from glide.client.address import Address
    from glide.crypto.identity import fingerprint
    from glide.errors import UsageError
    from glide.people.known import Known

    with options.verb(json=json, quiet=quiet) as (chosen, renderer):
        address, known = Address.parse(relay), Known(chosen.home.known)
        if address.key is not None:
            known.remember_relay(str(address), address.key)
        chosen.save("relay", str(address))
        pin = known.relay(str(address))
        how = f"its key {fingerprint(pin.key)} is pinned" if pin else "its key will be remembered at the first meeting"
        try:
            in_use = str(Address.parse(chosen["relay"])) == str(address)
        except UsageError:
            in_use = False
        if in_use:
            renderer.say(f"In use: {address}; {how}.")
        else:
            renderer.say(f"Remembered: {address}; {how}. GLIDE_RELAY in the environment goes before it.")
