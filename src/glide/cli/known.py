"""glide known"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from glide.cli import options

app = typer.Typer(help="Pinned keys: of people, and of relays.", invoke_without_command=True, no_args_is_help=False)


@app.callback()
def known(context: typer.Context, json: options.Json = None) -> None:
    """List the keys that are pinned, of people and of relays."""
    from glide.cli.render import Renderer
    from glide.cli.run import ending
    from glide.crypto.identity import fingerprint, key_text
    from glide.people.known import Known

    if context.invoked_subcommand is not None:
        return
    renderer = Renderer(json=bool(json))
    with ending(renderer):
        chosen = options.settings(json=json)
        renderer.json = chosen["json"]
        book = Known(chosen.home.known)
        for pin in book.people():
            if renderer.json:
                renderer.line(
                    {
                        "event": "person",
                        "time": time.time(),
                        "name": pin.name,
                        "key": key_text(pin.key),
                        "fingerprint": fingerprint(pin.key),
                        "trust": str(pin.trust),
                        "since": pin.since,
                        "met": pin.met,
                        "relay": key_text(pin.relay),
                    }
                )
            else:
                since = time.strftime("%Y-%m-%d", time.localtime(pin.since))
                print(f"{pin.name:<32}  {pin.trust:<8}  {fingerprint(pin.key)}  since {since}")
        for relay in book.relays():
            if renderer.json:
                renderer.line(
                    {"event": "relay", "time": time.time(), "address": relay.address, "key": key_text(relay.key)}
                )
            else:
                print(f"relay {relay.address:<26}  pinned    {fingerprint(relay.key)}")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="What `glide id` shows them.")],
    relay: options.Relay = None,
) -> None:
    """Pin a person's key that you got from them another way, at the relay in use."""
    from glide.cli.render import Renderer
    from glide.cli.run import ending
    from glide.crypto.identity import fingerprint, parse_key
    from glide.errors import UsageError
    from glide.people.known import Known, Trust
    from glide.protocol import names

    renderer = Renderer(json=False)
    with ending(renderer):
        chosen = options.settings(relay=relay)
        person = names.parse(name)
        try:
            pinned = parse_key(key)
        except ValueError as error:
            raise UsageError(f"That is no key: {error}.", next="Ask for what `glide id` shows.") from None
        book, address = Known(chosen.home.known), options.address(chosen)
        met = book.relay(str(address))
        relay_key = address.key or (met.key if met else None)
        if relay_key is None:
            raise UsageError(
                f"The relay {address} was never met, and a pin is of a name at a relay.",
                next="Give its key (`glide use HOST:PORT#KEY`), or run `glide who` once.",
            )
        book.remember(relay_key, person, pinned, Trust.KNOWN)
        renderer.say(f"{person} is known as {fingerprint(pinned)}.")


@app.command("forget")
def forget(
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    relay: Annotated[
        str | None, typer.Option("--relay", metavar="HOST:PORT", help="Forget the key of this relay.")
    ] = None,
) -> None:
    """Drop the pin of a person, or of a relay."""
    from glide.cli.render import Renderer
    from glide.cli.run import ending
    from glide.client.link import Address
    from glide.errors import UsageError
    from glide.people.known import Known
    from glide.protocol import names

    renderer = Renderer(json=False)
    with ending(renderer):
        book = Known(options.settings().home.known)
        if (name is None) == (relay is None):
            raise UsageError("Say whom to forget: a NAME, or --relay HOST:PORT.")
        if name is not None:
            what, count = names.parse(name), book.forget(names.parse(name))
        else:
            what = str(Address.parse(relay or ""))
            count = book.forget_relay(what)
        renderer.say(f"Forgotten: {what}." if count else f"Nothing is pinned for {what}.")
