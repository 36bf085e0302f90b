"""What is kept of transfers that are not under way, for those who list and remove it. Blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glide.transfer.journal import SUFFIX, About, Journal, Phase


@dataclass(frozen=True)
class Kept:
    """What is durable of a transfer: for `glide partials`."""

    file: Path
    about: About
    phase: Phase
    bytes: int
    touched: float  # seconds since 1970


def kept(folder: Path) -> Iterator[tuple[Kept, Journal]]:
    """What is kept of transfers that nobody is receiving right now, each with its journal, open while it is looked at.

    A journal that cannot be read any more is passed over.
    """
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        journal = Journal.open_there(file)
        if journal is not None:
            with journal:
                begun = journal.begun()
                whole = (item.size for number, item, digest in journal.items() if any(digest) and number not in begun)
                found = Kept(file, journal.about, journal.phase, sum(whole) + sum(begun.values()), journal.touched)
                yield found, journal
