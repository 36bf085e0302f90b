"""What a receiver has of an offer already: by the journal of an earlier connection, or standing in the destination."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

from glide.errors import NameUnusable
from glide.protocol.endtoend import Item, ItemKind, Range
from glide.transfer.destination import Destination
from glide.transfer.digests import EMPTY
from glide.transfer.filenames import check_usable
from glide.transfer.journal import Journal
from glide.transfer.landing import Conflict
from glide.transfer.manifest import ENDLESS, Manifest
from glide.transfer.staging import Stage


class State(IntEnum):
    """Of a file."""

    MISSING = 0
    WHOLE = 1  # arrived on this connection; its digest is known
    KEPT = 2  # arrived before; its digest is in the journal
    BEGUN = 3  # some of it arrived before; what did has to be checked
    EXISTS = 4  # a file of its size stands in the destination; whether it is the same has to be checked
    FAILED = 5  # it will not land


class Stock:
    """33 bytes an item, and a little more for each file that is begun or has failed."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.states = bytearray(manifest.items)
        self.digests = bytearray(32 * manifest.items)  # ours, of files that are whole
        self.begun: dict[int, int] = {}  # bytes at the beginning of a file that is not known to be whole
        self.problems: dict[int, str] = {}  # why files failed
        self.changed = 0  # files of which something was here, and which are not the same any more

    def digest(self, number: int) -> bytes:
        return bytes(self.digests[32 * number : 32 * number + 32])

    def whole(self, number: int, digest: bytes, state: State = State.WHOLE) -> None:
        """A file is here, and this is its digest."""
        self.states[number] = state
        self.digests[32 * number : 32 * number + 32] = digest
        self.begun.pop(number, None)

    def has(self, first: int, digests: bytes, files: int) -> bool:
        """True if the items from number ``first`` on, so many files among them, are here and have these digests."""
        end = first + len(digests) // 32
        states = self.states[first:end]
        return (
            states.count(State.WHOLE) + states.count(State.KEPT) == files
            and self.digests[32 * first : 32 * end] == digests
        )

    def forget(self, number: int) -> None:
        """What was here of a file is no good."""
        self.whole(number, bytes(32), State.MISSING)

    def fail(self, number: int, problem: str) -> None:
        self.whole(number, bytes(32), State.FAILED)
        self.problems[number] = problem

    def removed(self, stage: Stage, on_step: Callable[[], None]) -> Item | None:
        """A top-level item that should be in the stage, and is not there any more; None if all are."""
        for top, item in self.manifest.tops():
            elsewhere = self.states[self.manifest.number(top)] in (State.FAILED, State.EXISTS)
            if not elsewhere and stage.folder.look(str(top)) is None:
                return item
            on_step()
        return None

    def wants(self) -> list[Range]:
        """The ranges of the stream that are not here."""
        if self.manifest.streams:
            return [(0, ENDLESS)]
        if not any(self.states):
            return [(0, self.manifest.bytes)] if self.manifest.bytes else []
        starts, ends = array("Q"), array("Q")
        folder, lacking = ItemKind.FOLDER, (State.MISSING, State.BEGUN)  # see ``manifest``
        for number, position, item in self.manifest.numbered():
            if item.kind is folder or self.states[number] not in lacking:
                continue
            start, end = position + self.begun.get(number, 0), position + item.size
            if start == end:
                continue
            if ends and ends[-1] == start:
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
        return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


def take_stock(
    manifest: Manifest,
    journal: Journal | None,
    stage: Stage | None,
    destination: Destination | None,
    conflict: Conflict,
    *,
    same_boot: bool,
) -> Stock:
    """What is here of ``manifest``. Removes from the stage what an earlier offer had and this one has not.

    ``same_boot`` says that the machine has not crashed since the journal was written: then what stands in the stage is
    what was written there, though it was not synced yet. It is checked like all that is begun. Blocks; raises OSError.
    """
    stock = Stock(manifest)
    _leave_out_unusable(stock)
    if journal is not None and stage is not None:
        _compare(stock, journal, stage, same_boot=same_boot)
    if conflict is Conflict.SKIP and destination is not None:
        for number, _, item in manifest.numbered():
            if item.kind is not ItemKind.FOLDER and stock.states[number] == State.MISSING:
                _look(stock, destination, number, item)
    return stock


def covered(manifest: Manifest, journal: Journal) -> bool:
    """True if a person who said yes to what the journal speaks of has thereby said yes to this too: no path is new."""
    about = journal.about
    if manifest.streams or manifest.bytes > about.bytes or manifest.files > about.items:
        return False
    old = (_key(item) for _, item, _ in journal.items())
    return all(any(each == _key(item) for each in old) for item in manifest)


def _key(item: Item) -> str:
    """Paths in the order of a manifest: NUL, which no path holds, comes before all else."""
    return item.path.replace("/", "\0")


def _leave_out_unusable(stock: Stock) -> None:
    """Fail what this disk cannot hold, and what is in it."""
    inside = ""
    for number, item in enumerate(stock.manifest):
        if inside and item.path.startswith(inside):
            stock.fail(number, "the folder that it is in cannot be made there")
            continue
        try:
            check_usable(item.path.rpartition("/")[2])
        except NameUnusable as error:
            stock.fail(number, error.for_peer)
            inside = f"{item.path}/" if item.kind is ItemKind.FOLDER else inside


def _compare(stock: Stock, journal: Journal, stage: Stage, *, same_boot: bool) -> None:
    """Go through the old manifest and the new one side by side: both are in the same order."""
    begun = journal.begun()
    # Without syncing a digest in the journal may have outlived the bytes.
    vouched = same_boot or journal.about.synced
    old = _Peekable(journal.items())
    for number, item in enumerate(stock.manifest):
        top = stock.manifest.top_of(number)
        while old.head is not None and _key(old.head[1]) < _key(item):
            _remove(stage, old)
        if old.head is None or old.head[1].path != item.path:
            continue
        was_number, was, digest = old.head
        same = (was.size, was.modified, was.kind) == (item.size, item.modified, item.kind)
        if not same and ItemKind.FOLDER in (was.kind, item.kind) and was.kind is not item.kind:
            stage.remove(top, item.path)
        elif item.kind is not ItemKind.FOLDER and stock.states[number] != State.FAILED:
            there = stage.size(top, item.path)
            if not same or (there is not None and there > item.size):
                stock.changed += there is not None and there > 0
                stage.remove(top, item.path)
            elif there == item.size and any(digest) and (vouched or not item.size):
                stock.whole(number, digest, State.KEPT)
            elif there and (kept := there if same_boot or any(digest) else min(there, begun.get(was_number, 0))):
                stock.states[number] = State.BEGUN
                stock.begun[number] = kept
        old.advance()
    while old.head is not None:
        _remove(stage, old)


def _remove(stage: Stage, old: _Peekable) -> None:
    """Something was offered before, and is not any more."""
    assert old.head is not None, "there is one"
    stage.remove(old.top, old.head[1].path)
    old.advance()


class _Peekable:
    """The items of a journal, one at a time."""

    def __init__(self, items: Iterator[tuple[int, Item, bytes]]) -> None:
        self._items = items
        self.head: tuple[int, Item, bytes] | None = None
        self.top = -1
        self.advance()

    def advance(self) -> None:
        self.head = next(self._items, None)
        if self.head is not None and "/" not in self.head[1].path:
            self.top += 1


def _look(stock: Stock, destination: Destination, number: int, item: Item) -> None:
    """See whether a file of that size stands there already."""
    found = destination.look(item.path)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != item.size:
        return
    stock.whole(number, bytes(32) if item.size else EMPTY, State.EXISTS)


def boot() -> str:
    """What identifies the time since this machine was started; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
