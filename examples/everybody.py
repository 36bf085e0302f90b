"""Send the same to several people at once, waiting up to an hour for those who are not there yet.

    python everybody.py report.pdf bob carol dave

It ends with 0 if all of them have it.
"""

from __future__ import annotations

import sys

import trio

import glide

HOUR = 3600.0


async def main(path: str, people: list[str]) -> bool:
    """True if all of them have it."""
    failed = []

    async def send(me: glide.Client, person: str) -> None:
        try:
            await me.push(person, [path], wait=HOUR)
        except glide.GlideError as error:
            failed.append(person)
            print(f"{person}: {error}", flush=True)
        else:
            print(f"{person} has it.", flush=True)

    async with glide.connect() as me, trio.open_nursery() as nursery:
        for person in people:
            nursery.start_soon(send, me, person)
    return not failed


if __name__ == "__main__":
    sys.exit(0 if trio.run(main, sys.argv[1], sys.argv[2:]) else 1)
