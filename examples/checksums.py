"""Answer every file with a list of checksums: receive and push over one client.

    python checksums.py

Whoever sends something gets `SHA256SUMS` back, if they take files themselves within a minute.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import trio

import glide


def checksums(folder: Path, into: Path) -> Path:
    """Write the lines of `sha256sum` for everything in ``folder``; where they stand."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    sums = into / "SHA256SUMS"
    sums.write_text("".join(lines), encoding="utf-8")
    return sums


async def answer(me: glide.Client, offer: glide.Offer) -> None:
    with tempfile.TemporaryDirectory() as taken, tempfile.TemporaryDirectory() as given:
        try:
            await offer.accept(into=taken)
            sums = await trio.to_thread.run_sync(checksums, Path(taken), Path(given))
            await me.push(offer.sender, [sums], wait=60.0)
        except glide.GlideError as error:
            print(f"{offer.sender}: {error}", file=sys.stderr, flush=True)


async def main() -> None:
    async with glide.connect(role="receive") as me, trio.open_nursery() as nursery:
        async for offer in me.offers():
            nursery.start_soon(answer, me, offer)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* glide.GlideError as errors:
        sys.exit(str(errors.exceptions[0]))
