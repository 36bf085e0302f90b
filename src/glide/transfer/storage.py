"""Where a transfer goes: what the receiver needs of it, and the simpler of the two, standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glide.errors import Declined, FileError
from glide.events import Saved, SavedFolder
from glide.protocol.endtoend import Item
from glide.transfer.assembling import Assembly, PipedAssembly
from glide.transfer.destination import Destination
from glide.transfer.journal import Confirmed
from glide.transfer.landing import Conflict
from glide.transfer.manifest import Manifest
from glide.transfer.stock import Stock
from glide.transfer.throttle import Throttle


@dataclass(frozen=True)
class Arrival:
    """Who sends, under which transfer, and where it goes: ``into`` is None for standard output.

    ``opened`` is that folder, open since receiving began: what stands at its path by now is not asked. Without it the
    path is opened. ``most`` is how many bytes of it are taken at most, and ``throttle`` how fast; None for no limit.
    """

    transfer: bytes
    sender: str
    key: bytes
    relay: bytes
    into: Path | None
    journals: Path
    conflict: Conflict = Conflict.RENAME
    sync: bool = True
    opened: Destination | None = None
    most: int | None = None
    throttle: Throttle | None = None


class Storage(Protocol):
    """What :mod:`glide.transfer.receiving` puts bytes into."""

    stock: Stock
    assembly: Assembly
    confirmed: Confirmed | None  # all of it was confirmed before, and the sender does not know
    kept: str  # what it means for the files if it ends here, for people

    def file(self, number: int, item: Item) -> int:
        """A descriptor to read again what is here of a file. Raises OSError."""

    def finish(self, digest: bytes, on_step: Callable[[], None]) -> Confirmed:
        """Give final names to all that is whole; what there is to confirm."""

    def saved(self) -> Iterator[Saved | SavedFolder]:
        """What arrived and stands: each file, and each folder that is in no other."""

    def drop(self, number: int, item: Item) -> None:
        """A file is not to be kept."""

    def known(self) -> None:
        """The sender knows what was confirmed."""

    def empty(self) -> bool:
        """True if there is nothing to go on with later."""

    def close(self) -> None:
        """What is here stays, to go on with it later."""


class StandardOutput:
    """To whatever reads our standard output."""

    def __init__(self, manifest: Manifest) -> None:
        if manifest.items != 1 or manifest.files != 1:
            raise Declined(
                "More than one file was offered, and --stdout takes one.",
                "Nothing was written.",
                for_peer="they take one file at a time.",
            )
        self.stock = Stock(manifest)
        self.assembly: Assembly = PipedAssembly(manifest, self.stock)
        self.confirmed: Confirmed | None = None
        self.kept = "What was written to standard output before stands, and is not all of it."

    def file(self, number: int, item: Item) -> int:
        raise AssertionError("what was written to a pipe is not read again")

    def drop(self, number: int, item: Item) -> None:
        raise FileError("What was sent could not be read to its end.", "What was written before stands.")

    def finish(self, digest: bytes, on_step: Callable[[], None]) -> Confirmed:
        return Confirmed(1, self.assembly.stored, digest)

    def saved(self) -> Iterator[Saved | SavedFolder]:
        return iter(())

    def known(self) -> None:
        pass

    def empty(self) -> bool:
        return not self.assembly.stored

    def close(self) -> None:
        pass
