"""A receiver's side of transfers without a network: real storages and journals, fed as a sender would feed them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import blake3
import trio

from glide.errors import one_error
from glide.protocol.endtoend import BLOCK, NO_DIGEST, Item, ItemKind, Range
from glide.transfer import ranges
from glide.transfer.checking import Checking
from glide.transfer.journal import Confirmed, Journal, Phase
from glide.transfer.keeping import Kept, kept
from glide.transfer.landing import Conflict
from glide.transfer.manifest import Checker, Manifest, whole
from glide.transfer.storage import Arrival
from glide.transfer.storing import Folders

ROOT = Path(__file__).parent.parent.parent
KEY = b"k" * 32

# When all that is sent was written to last: whole seconds, which every disk can hold.
THEN = 1_600_000_000 * 10**9

# What is sent: by path, the content of a file, or None for a folder. A file that is executable, too: see `manifest_of`.
Tree = Mapping[str, bytes | None]

# What stands somewhere: contents, "folder", or where a link points to.
Found = dict[str, object]

# A tree that changes.
Standing = dict[str, bytes | None]


def tree(top: Path) -> Found:
    """Everything under ``top``: its kind and what it holds."""
    found: Found = {}
    for path in sorted(top.rglob("*")):
        inside = str(path.relative_to(top))
        if path.is_symlink():
            found[inside] = ("link", os.readlink(path))
        else:
            found[inside] = "folder" if path.is_dir() else path.read_bytes()
    return found


def shown(top: Path) -> Found:
    """As :func:`tree`, without what is in stages."""
    return {path: what for path, what in tree(top).items() if not path.startswith(".glide-")}


def stages(top: Path) -> list[str]:
    return sorted(name for name in os.listdir(top) if name.startswith(".glide-"))


def as_found(sent: Tree) -> Found:
    return {path: "folder" if content is None else content for path, content in sorted(sent.items())}


def manifest_of(sent: Tree, *, executable: Sequence[str] = (), modified: Mapping[str, int] | None = None) -> Manifest:
    """What a sender offers of these."""
    manifest, checker = Manifest(), Checker()
    for path in sorted(sent, key=lambda path: path.split("/")):
        content = sent[path]
        kind = ItemKind.FOLDER if content is None else ItemKind.FILE
        kind = ItemKind.EXECUTABLE if path in executable else kind
        item = Item(path, kind, len(content or b""), (modified or {}).get(path, THEN))
        checker.check([item])
        manifest.add(item)
    manifest.close()
    return manifest


def digests_of(manifest: Manifest, sent: Tree) -> bytes:
    """What a sender tells: zeros for folders, and for what it could not read, which is not in ``sent``."""
    told = bytearray()
    for item in manifest:
        content = sent.get(item.path)
        told += NO_DIGEST if content is None else blake3.blake3(content).digest()
    return bytes(told)


def stream_of(manifest: Manifest, sent: Tree) -> bytes:
    return b"".join(sent.get(item.path) or bytes(item.size) for item in manifest if item.kind is not ItemKind.FOLDER)


def arrival(
    into: Path, journals: Path, conflict: Conflict = Conflict.RENAME, *, sync: bool = False, key: bytes = KEY
) -> Arrival:
    return Arrival(b"t" * 16, "alice", key, b"r" * 32, into, journals, conflict, sync)


class Receiving:
    """One connection's worth of a transfer. A context manager that closes what it opened, as the real one does."""

    def __init__(self, wishes: Arrival, sent: Tree, manifest: Manifest | None = None) -> None:
        assert wishes.into is not None
        self.sent = sent
        self.manifest = manifest_of(sent) if manifest is None else manifest
        self.stream = stream_of(self.manifest, sent)
        self.digests = digests_of(self.manifest, sent)
        journal = Journal.find(wishes.journals, wishes.key, wishes.into.resolve(), self.manifest, sync=wishes.sync)
        self.found = journal is not None
        self.storage = Folders.open(wishes, self.manifest, journal)
        self.checking = Checking(self.manifest, self.storage, self._want, lambda _: None)
        self.wants = self.storage.stock.wants() if self.storage.confirmed is None else []
        self.storage.assembly.begin(self.wants)
        self.wanted = sum(length for _, length in self.wants)
        self._pending = bytearray(b"".join(self.stream[start : start + length] for start, length in self.wants))
        self._stored: list[tuple[int, int]] = []
        self._checked = False
        self.asked_again: list[Range] = []

    def feed(self, count: int | None = None, *, sync: bool = True) -> None:
        """So many of the bytes that were asked for arrive; all of them if it is not said how many."""
        piece = bytes(self._pending[:count])
        del self._pending[: len(piece)]
        self._stored += self.storage.assembly.store([memoryview(piece)] if piece else [])
        if sync:
            self.storage.assembly.sync()

    async def _want(self, wanted: Sequence[Range]) -> None:
        self.asked_again += wanted
        self.storage.assembly.begin(wanted)
        for start, length in wanted:
            self._pending += self.stream[start : start + length]

    def check(self) -> None:
        """What came, and what was here before, is compared with the sender's digests; what differs is sent anew."""
        if not self._checked:
            self._checked = True
            with one_error():
                trio.run(self._check)

    async def _check(self) -> None:
        checking = self.checking
        for number, item, here in ranges.unsent(self.manifest, self.wants):
            content = self.sent.get(item.path)
            blocks = b""
            for start in range(0, here, BLOCK):
                blocks += blake3.blake3((content or bytes(here))[start : min(start + BLOCK, here)]).digest()
            if blocks:
                checking.told_blocks(number, 0, blocks)
        stored, self._stored = self._stored, []
        await checking.stored(stored)
        for page in range(self.manifest.pages):
            first = self.manifest.first(page)
            told = self.digests[32 * first : 32 * (first + len(self.manifest.page(page)))]
            await checking.told(page, told, "alice")
        checking.ended()
        with trio.fail_after(10):
            await self._until_all_is_settled()

    async def _until_all_is_settled(self) -> None:
        checking = self.checking
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checking.run, lambda: None, lambda: None)
            nursery.start_soon(self._feed_again)
            await checking.finished.wait()
            nursery.cancel_scope.cancel()

    async def _feed_again(self) -> None:
        while True:
            if self._pending:
                self.feed()
                stored, self._stored = self._stored, []
                await self.checking.stored(stored)
            await trio.sleep(0.001)

    def finish(self) -> Confirmed:
        """The rest arrives, is checked, and lands; the receipt is about to be sent."""
        if self._pending:
            self.feed()
        self.check()
        return self.storage.confirmed or self.storage.finish(whole(self.digests), lambda: None)

    def close(self) -> None:
        self.storage.close()

    def die(self) -> None:
        """What the system does for a process that was killed: locks and descriptors go, nothing else happens."""
        storage = self.storage
        storage.assembly.abandon()
        if storage._stage is not None:
            storage._stage.close()
        storage._destination.close()
        storage._journal.close()

    def __enter__(self) -> Receiving:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def land(
    into: Path, journals: Path, sent: Tree, conflict: Conflict = Conflict.RENAME, *, sync: bool = False
) -> Confirmed:
    """A whole transfer, to its end: the sender has the receipt."""
    with Receiving(arrival(into, journals, conflict, sync=sync), sent) as receiving:
        confirmed = receiving.finish()
        receiving.storage.known()
    return confirmed


def listed(journals: Path) -> list[Kept]:
    """What `glide partials` lists."""
    return [found for found, _ in kept(journals) if found.phase is not Phase.LANDED]
