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
    """Who is connected, whether they take files, since when, and how well you know their key."""
    from glide.cli.run import run
    from glide.client.api import connect
    from glide.client.who import Somebody
    from glide.crypto.identity import fingerprint, key_text
    from glide.protocol.messages import Role
    from glide.text import printable

    def row(person: Somebody, now: float) -> tuple[str, ...]:
        takes = "takes files" if person.receiving else "sends only"
        return printable(person.name), takes, _ago(now - person.since), person.trust, fingerprint(person.key)

    with options.verb(relay=relay, json=json, quiet=quiet, verbose=verbose) as (chosen, renderer):

        async def verb() -> None:
            async with connect(settings=chosen, role=Role.ASK, report=renderer.report) as me:
                people = await me.who()
            now = time.time()
            if renderer.json:
                for person in people:
                    renderer.line(
                        "person",
                        name=person.name,
                        key=key_text(person.key),
                        receiving=person.receiving,
                        since=person.since,
                        trust=person.trust,
                    )
                return
            # No line of titles: each line is a person, for whoever counts or cuts them.
            rows = [row(person, now) for person in people]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            for each in rows:
                renderer.out("  ".join(f"{cell:<{width}}" for cell, width in zip(each, widths, strict=True)).rstrip())
            if not people:
                renderer.say("Nobody is connected.")

        run(verb)


def _ago(seconds: float) -> str:
    """How long ago, in its largest unit: ``45s``, ``5m``, ``2h``, ``3d``."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
