"""glide known"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from glide.cli import completing, options

if TYPE_CHECKING:
    from glide.people.known import Pin, RelayPin

app = typer.Typer(help="Pinned keys: of people, and of relays.", invoke_without_command=True, no_args_is_help=False)


@app.callback()
def known(context: typer.Context, json: options.Json = None) -> None:
    """List the keys that are pinned, of people and of relays."""
    from glide.crypto.identity import fingerprint, key_text
    from glide.people.known import Known, Trust
    from glide.text import printable

    if context.invoked_subcommand is not None:
        return
    with options.verb(json=json) as (chosen, renderer):
        book = Known(chosen.home.known)
        people, relays = book.people(), book.relays()
        places = _places(people, relays)
        for pin in people:
            if renderer.json:
                renderer.line(
                    "pin",
                    name=pin.name,
                    key=key_text(pin.key),
                    fingerprint=fingerprint(pin.key),
                    trust=str(pin.trust),
                    since=pin.since,
                    met=pin.met,
                    relay=key_text(pin.relay),
                    verified=pin.trust is Trust.VERIFIED,
                    last=pin.last or None,
                )
            else:
                verified = _when("verified", pin.verified) if pin.trust is Trust.VERIFIED else "not verified"
                last = _when("last", pin.last) if pin.last else "no transfer yet"
                renderer.out(
                    f"{printable(pin.name):<32}  {pin.trust:<8}  {fingerprint(pin.key)}  {_when('since', pin.since)}  "
                    f"{verified:<19}  {last}{places.get((pin.relay, pin.name), '')}"
                )
        for relay in relays:
            if renderer.json:
                renderer.line("relay-pin", address=relay.address, key=key_text(relay.key))
            else:
                renderer.out(f"relay {printable(relay.address):<26}  pinned    {fingerprint(relay.key)}")
        if not people and not relays and not renderer.json:
            renderer.say("Nobody is known yet.")


def _when(what: str, seconds: int) -> str:
    """``what`` and the day, if it is known."""
    return f"{what} {time.strftime('%Y-%m-%d', time.localtime(seconds))}" if seconds else what


def _places(people: Iterable[Pin], relays: Iterable[RelayPin]) -> dict[tuple[bytes, str], str]:
    """Where a pin holds, for names that are pinned at several relays."""
    from glide.crypto.identity import fingerprint
    from glide.text import printable

    pins = list(people)
    several = {name for name, count in Counter(pin.name for pin in pins).items() if count > 1}
    addresses: dict[bytes, list[str]] = {}
    for relay in relays:
        addresses.setdefault(relay.key, []).append(printable(relay.address))
    found = {}
    for pin in pins:
        if pin.name in several:
            where = " and ".join(addresses.get(pin.relay, [])) or f"relay {fingerprint(pin.relay)}"
            found[pin.relay, pin.name] = f"  at {where}"
    return found


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Their name at the relay.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="What `glide id` shows them.")],
    relay: options.Relay = None,
    json: options.Json = None,
) -> None:
    """Pin a person's key that you got from them another way, at the relay in use."""
    from glide.client import profile
    from glide.crypto.identity import fingerprint, parse_key
    from glide.errors import UsageError
    from glide.people.known import Known, Trust
    from glide.protocol import names

    with options.verb(relay=relay, json=json) as (chosen, renderer):
        person = names.parse(name)
        try:
            pinned = parse_key(key)
        except ValueError as error:
            raise UsageError(f"That is no key: {error}.", next="Ask for what `glide id` shows.") from None
        book, address = Known(chosen.home.known), profile.address(chosen)
        relay_key = book.relay_key(str(address), address.key)
        if relay_key is None:
            raise UsageError(
                f"The relay {address} was never met, and a pin is of a name at a relay.",
                next="Give its key (`glide use HOST:PORT#KEY`), or run `glide who` once.",
            )
        book.remember(relay_key, person, pinned, Trust.KNOWN)
        renderer.say(f"{person} is known as {fingerprint(pinned)}.")


@app.command("forget")
def forget(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The person.", autocompletion=completing.pinned)
    ] = None,
    relay: Annotated[
        str | None, typer.Option("--relay", metavar="HOST:PORT", help="Forget the key of this relay.")
    ] = None,
    json: options.Json = None,
) -> None:
    """Drop the pin of a person, or of a relay."""
    from glide.client.address import Address
    from glide.errors import UsageError
    from glide.people.known import Known
    from glide.protocol import names

    with options.verb(json=json) as (chosen, renderer):
        book = Known(chosen.home.known)
        if (name is None) == (relay is None):
            raise UsageError("Say whom to forget: a NAME, or --relay HOST:PORT.")
        if name is not None:
            what = names.parse(name)
            count = book.forget(what)
        else:
            what = str(Address.parse(relay or ""))
            count = book.forget_relay(what)
        renderer.say(f"Forgotten: {what}." if count else f"Nothing is pinned for {what}.")
