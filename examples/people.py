"""Who is connected, takes files, and is somebody whose key I have compared?

    python people.py

It asks without a name of its own, so that nobody sees it.
"""

from __future__ import annotations

import sys

import trio

import glide


async def main() -> None:
    async with glide.connect(role="ask") as me:
        for person in await me.who():
            if person.receiving:
                print(person.name, "(verified)" if person.trust == "verified" else "")


if __name__ == "__main__":
    try:
        trio.run(main)
    except glide.GlideError as error:
        sys.exit(str(error))
