"""glide who"""

from __future__ import annotations

import time

from glide.cli import options


def who(
    relay: options.Relay = None,
    json: options.Json = None,
    quiet: options.Quiet = None,
    verbose: options.Verbose = None,
) -> None:
    """Who is connected, whether they take files, and how well you know their key."""
    from glide.cli.run import run
    from glide.client import who as client
    from glide.crypto.identity import fingerprint, key_text

    with options.verb(relay=relay, json=json, quiet=quiet, verbose=verbose) as (chosen, renderer):
        me, address = options.me(chosen), options.address(chosen)

        async def verb() -> None:
            relay_key, people = await client.who(address, me, renderer.report)
            pins = me.known.trusts(relay_key)
            for person in people:
                pin = pins.get(person.name)
                trust = "new" if pin is None else str(pin.trust) if pin.key == person.key else "changed"
                if renderer.json:
                    renderer.line(
                        {
                            "event": "person",
                            "time": time.time(),
                            "name": person.name,
                            "key": key_text(person.key),
                            "receiving": person.receiving,
                            "since": person.since,
                            "trust": trust,
                        }
                    )
                else:
                    takes = "takes files" if person.receiving else "sends only"
                    renderer.out(f"{person.name:<32}  {takes:<11}  {trust:<8}  {fingerprint(person.key)}")
            if not people and not renderer.json:
                renderer.say("Nobody is connected.")

        run(verb)
