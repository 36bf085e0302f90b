"""Send files and folders to a person, and say what they have confirmed.

    python send.py bob holiday.jpg notes/

Your name, your key and the relay are those of the command line: `glide use` and config.toml have them.
"""

from __future__ import annotations

import sys

import trio

import glide


async def main(to: str, paths: list[str]) -> None:
    async with glide.connect() as me:
        receipt = await me.push(to, paths)
    print(f"{to} has {receipt.items} files of {receipt.bytes} bytes, blake3:{receipt.digest.hex()}")


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1], sys.argv[2:])
    except glide.GlideError as error:
        sys.exit(str(error))
