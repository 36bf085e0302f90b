"""Take pictures from anybody, into a folder for each sender, and nothing else.

    python pictures.py bob pictures/

Several offers are looked after at once: a slow one holds up no other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

import glide

PICTURES = (".gif", ".heic", ".jpeg", ".jpg", ".png")


def wanted(offer: glide.Offer) -> bool:
    """True if there is nothing in it but pictures, and not too much."""
    small = offer.bytes is not None and offer.bytes < 100_000_000
    return small and all(path.lower().endswith(PICTURES) for path in offer.paths())


async def take(offer: glide.Offer, folder: Path) -> None:
    # A name at a relay is fit to be a file's name; what glide saves there never replaces anything.
    folder.joinpath(offer.sender).mkdir(exist_ok=True)
    try:
        received = await offer.accept(into=folder / offer.sender)
    except glide.GlideError as error:
        print(f"{offer.sender}: {error}", file=sys.stderr, flush=True)
    else:
        print(*map(ascii, received.paths), sep="\n", flush=True)


async def main(name: str, folder: Path) -> None:
    async with glide.connect(name=name, role="receive") as me, trio.open_nursery() as nursery:
        async for offer in me.offers():
            if wanted(offer):
                nursery.start_soon(take, offer, folder)
            else:
                offer.decline()


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1], Path(sys.argv[2]))
    except* glide.GlideError as errors:
        sys.exit(str(errors.exceptions[0]))
