"""Whether what a receiver has is what the sender means: by comparing digests, its own with those that it is told.

The sender tells digests; ours go nowhere (C9). What arrives whole on this connection is hashed while it is written, and
has to match. What was here before is checked meanwhile: a file that is whole by its digest in the journal; one of which
the end was missing block by block, and as a whole once the end is there; one that stands in the destination by reading
it. What does not match is asked for again, once.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing

import blake3
import trio

from glide.errors import IntegrityError, ProtocolError
from glide.protocol.endtoend import BLOCK, NO_DIGEST, ItemKind, Range
from glide.text import printable
from glide.transfer.destination import disk_error
from glide.transfer.folders import read_at
from glide.transfer.manifest import Manifest, whole
from glide.transfer.reading import some_of
from glide.transfer.stock import State
from glide.transfer.storage import Storage

# Bytes that are read and hashed in one thread call, and at once.
_STEP = 32 * 1024 * 1024
_READ = 4 * 1024 * 1024

# Put in for what cannot be read here: then it is no digest that anybody tells, and the file is asked for again.
_UNREADABLE = blake3.blake3(b"not to be read here").digest()

Want = Callable[[Sequence[Range]], Awaitable[None]]


class Checking:
    """Of one transfer. ``finished`` is set when all files are settled and the sender has told all that it had to."""

    def __init__(self, manifest: Manifest, storage: Storage, want: Want, notice: Callable[[str], None]) -> None:
        self.finished = trio.Event()
        self._manifest = manifest
        self._storage = storage
        self._stock = stock = storage.stock
        self._want = want
        self._notice = notice
        self._theirs = bytearray(32 * manifest.items)
        self._told = bytearray(manifest.pages)
        self._settled = bytearray(manifest.items)
        self._unsettled = manifest.files
        self._ended = False
        self._blocks: dict[tuple[int, int], bytes] = {}
        self._news = trio.Event()
        self._judging = trio.Lock()
        self._to_read: list[int] = []  # files that are read again as a whole
        # Bytes that are still awaited of files of which the beginning was here.
        self._awaited: dict[int, int] = {}
        read_again = storage.confirmed is None and (State.BEGUN in stock.states or State.EXISTS in stock.states)
        for number in range(manifest.items if read_again else 0):
            match stock.states[number]:
                case State.BEGUN if rest := manifest.item(number).size - stock.begun[number]:
                    self._awaited[number] = rest
                case State.BEGUN:
                    self._to_read.append(number)
                case State.EXISTS if manifest.item(number).size:
                    self._to_read.append(number)
        self._begun = dict(stock.begun)
        self._blocks_to_come = {number: set(range(-(-self._begun[number] // BLOCK))) for number in self._awaited}
        self._again: dict[int, int] = {}  # bytes that are still awaited of files that were asked for again

    # --- what is told, and what has come ---

    async def told(self, page: int, digests: bytes, sender: str) -> None:
        """The sender's digests of one page."""
        if page >= self._manifest.pages or self._told[page] or len(digests) != 32 * len(self._manifest.page(page)):
            raise ProtocolError(f"{sender} told digests of what is not there.")
        first = self._manifest.first(page)
        self._theirs[32 * first : 32 * first + len(digests)] = digests
        self._told[page] = 1
        folder = ItemKind.FOLDER
        files = [number for number, item in enumerate(self._manifest.page(page), first) if item.kind is not folder]
        if self._stock.has(first, digests, len(files)):
            self._settle(files)
        else:
            await self._judge(files)
        self._wake()

    def told_blocks(self, number: int, first: int, digests: bytes) -> None:
        """The sender's digests of blocks of a file."""
        end = first + len(digests) // 32
        if number not in self._awaited or len(digests) % 32 or (end - 1) * BLOCK >= self._begun[number]:
            raise ProtocolError("The sender told digests of blocks that are not here.")
        for at in range(len(digests) // 32):
            self._blocks[number, first + at] = digests[32 * at : 32 * at + 32]
            self._blocks_to_come[number].discard(first + at)
        self._wake()

    async def stored(self, files: Sequence[tuple[int, int]]) -> None:
        """So many bytes of these files have been written."""
        arrived: list[int] = []
        first, last = (self._manifest.page_of(files[at][0]) if files else 0 for at in (0, -1))
        # Nearly always bytes come before their digests, and of files of which nothing was here: then this is too early.
        early = not self._again and not self._awaited and not any(self._told[first : last + 1])
        for number, count in () if early else files:
            if number in self._again:
                self._again[number] -= count
                if not self._again[number]:
                    arrived.append(number)
            elif number in self._awaited:
                self._awaited[number] -= count
                self._wake()
            elif self._stock.states[number] == State.WHOLE and self._told[self._manifest.page_of(number)]:
                arrived.append(number)
        if arrived:
            await self._judge(arrived)
        self._settle(())

    @property
    def told_any(self) -> bool:
        return any(self._told)

    def whole(self) -> bytes:
        """The digest over all that the sender told."""
        return whole(self._theirs)

    def ended(self) -> None:
        """The sender has told everything."""
        if not all(self._told):
            raise ProtocolError("The sender ended before it told all digests.")
        for number, blocks in self._blocks_to_come.items():
            if blocks and self._of(self._theirs, number) != NO_DIGEST:
                raise ProtocolError("The sender ended before it told all digests of blocks.")
        self._ended = True
        self._settle(())

    # --- judging ---

    async def _judge(self, numbers: Iterable[int]) -> None:
        """Settle those of these files of which both digests are known; ask again for those that differ."""
        # One at a time: what was told and what was read again of one file may come together.
        async with self._judging:
            await self._judge_each(numbers)

    async def _judge_each(self, numbers: Iterable[int]) -> None:
        again: list[Range] = []
        for number in numbers:
            if self._settled[number]:
                continue
            theirs, ours = self._of(self._theirs, number), self._stock.digest(number)
            state = State(self._stock.states[number])
            if theirs == NO_DIGEST and state != State.FAILED:
                self._stock.fail(number, "the sender could not read all of it")
                await self._drop(number)
                state = State.FAILED
            if state == State.FAILED or (ours == theirs and state in (State.WHOLE, State.KEPT, State.EXISTS)):
                self._settle((number,))
            elif state == State.WHOLE or self._storage.confirmed is not None:
                raise self._different(number)
            elif state == State.KEPT or (state == State.EXISTS and ours != bytes(32)):
                again.append(await self._ask_again(number, state))
        if again:
            if self._stock.changed:
                self._notice("What was kept of some files is not what is sent now; they are sent anew.")
            await self._want(sorted(again))

    def _of(self, digests: bytearray, number: int) -> bytes:
        return bytes(digests[32 * number : 32 * number + 32])

    async def _drop(self, number: int) -> None:
        await trio.to_thread.run_sync(self._storage.drop, number, self._manifest.item(number))

    async def _ask_again(self, number: int, state: State) -> Range:
        item = self._manifest.item(number)
        self._stock.forget(number)
        if state == State.KEPT:
            self._stock.changed += 1
            await self._drop(number)
        self._again[number] = item.size
        self._storage.assembly.vouched(number)
        return self._manifest.start(number), item.size

    def _settle(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._settled[number] = 1
            self._unsettled -= 1
        assembly = self._storage.assembly
        if self._ended and not self._unsettled and assembly.stored == assembly.wanted:
            self.finished.set()

    def _different(self, number: int) -> IntegrityError:
        if self._storage.confirmed is not None:
            self._storage.known()  # the next try begins anew
        shown = printable(self._manifest.item(number).path, 60)
        return different(f"as {shown!r}")

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- reading again what was here ---

    async def run(self, moved: Callable[[], None], get_on: Callable[[], None]) -> None:
        """Read what has to be read again. ``moved`` and ``get_on`` are called as long as there is progress."""

        def step() -> None:
            moved()
            get_on()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_whole, step)
            for number in self._awaited:
                await self._read_begun(number, step)

    async def _read_whole(self, step: Callable[[], None]) -> None:
        """Files that are here as a whole: many small ones in one thread call."""
        hashing = self._hash_whole()

        with closing(hashing):
            while (found := await trio.to_thread.run_sync(some_of, hashing)) is not None:
                step()
                await self._enter(found)

    def _hash_whole(self) -> Generator[tuple[int, bytes] | None, None, None]:
        """Numbers and digests; of a file that cannot be read, a digest that nothing has. None after each read."""
        for number in self._to_read:
            item, hasher = self._manifest.item(number), blake3.blake3()
            try:
                descriptor = self._storage.file(number, item)
            except OSError:
                yield number, _UNREADABLE
                continue
            try:
                for _ in _hash(descriptor, hasher, 0, item.size):
                    yield None
            except OSError:
                hasher = blake3.blake3(_UNREADABLE)
            finally:
                os.close(descriptor)
            yield number, hasher.digest()

    async def _enter(self, found: Iterable[tuple[int, bytes]]) -> None:
        """Files have been read again, and these are their digests."""
        told = []
        for number, digest in found:
            state = State(self._stock.states[number])
            if state == State.BEGUN:
                self._stock.whole(number, digest, State.KEPT)
                self._storage.assembly.found_whole(number)
            elif state == State.EXISTS:
                self._stock.whole(number, digest, State.EXISTS)
            if self._told[self._manifest.page_of(number)]:
                told.append(number)
        await self._judge(told)

    async def _read_begun(self, number: int, step: Callable[[], None]) -> None:
        """A file of which the end was missing: its beginning block by block, then, once the end is there, the whole."""
        item, kept = self._manifest.item(number), self._begun[number]
        try:
            descriptor = await trio.to_thread.run_sync(self._storage.file, number, item)
        except OSError as error:
            if self._stock.states[number] == State.FAILED:
                return  # it was dropped meanwhile
            raise disk_error(error) from None
        try:
            hasher, bad = blake3.blake3(), await self._compare_blocks(number, descriptor, kept, step)
            if self._stock.states[number] == State.FAILED:
                return
            if bad:
                self._notice("What was kept of a file is not what is sent now; those parts are sent anew.")
                self._awaited[number] += sum(length for _, length in bad)
                await self._want(bad)
            while self._awaited[number]:
                await self._news.wait()
            for start in range(0, item.size, _STEP):
                await trio.to_thread.run_sync(_hash_all, descriptor, hasher, start, min(start + _STEP, item.size))
                step()
        finally:
            os.close(descriptor)
        await self._enter([(number, hasher.digest())])

    async def _compare_blocks(self, number: int, descriptor: int, kept: int, step: Callable[[], None]) -> list[Range]:
        """Which blocks of the beginning are not what the sender has."""
        bad: list[Range] = []
        position = self._manifest.start(number)
        for block, start in enumerate(range(0, kept, BLOCK)):
            hasher, end = blake3.blake3(), min(start + BLOCK, kept)
            await trio.to_thread.run_sync(_hash_all, descriptor, hasher, start, end)
            step()
            while (number, block) not in self._blocks and self._stock.states[number] != State.FAILED:
                await self._news.wait()
            if self._blocks.pop((number, block), None) != hasher.digest():
                if bad and sum(bad[-1]) == position + start:
                    bad[-1] = (bad[-1][0], bad[-1][1] + end - start)
                else:
                    bad.append((position + start, end - start))
        return bad


def different(what: str) -> IntegrityError:
    """What arrived, ``from`` somebody or ``as`` something, does not match."""
    return IntegrityError(
        f"What arrived {what} is not what was sent: the digests differ.",
        "It appears under no final name.",
        "Ask for it again.",
        for_peer="the digests differ: what arrived is not what was sent.",
    )


def _hash(descriptor: int, hasher: blake3.blake3, start: int, end: int) -> Iterator[int]:
    """Hash a part of a file, yielding counts of bytes. Raises OSError if it ends too early."""
    buffer = memoryview(bytearray(min(_READ, max(end - start, 1))))
    while start < end:
        view = buffer[: end - start]
        if read_at(descriptor, view, start) < len(view):
            raise OSError("it is shorter than it was")
        hasher.update(view)
        start += len(view)
        yield len(view)


def _hash_all(descriptor: int, hasher: blake3.blake3, start: int, end: int) -> None:
    try:
        for _ in _hash(descriptor, hasher, start, end):
            pass
    except OSError:
        hasher.update(_UNREADABLE)
