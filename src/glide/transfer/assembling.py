"""The receiver's files as they arrive: the bytes of what was wanted, put where they belong.

Everything here blocks, and is called in a thread, one call at a time; that is what makes small files cheap. Raises
:class:`FileError`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence

import blake3

from glide.errors import FileError
from glide.protocol.endtoend import ItemKind, Range
from glide.transfer.destination import OF_THE_NAME, disk_error
from glide.transfer.folders import write_at
from glide.transfer.journal import Journal
from glide.transfer.manifest import Manifest, Piece
from glide.transfer.staging import Stage
from glide.transfer.stock import State, Stock

_FAILED = State.FAILED


class Assembly:
    """Takes the bytes of ranges in their order, hashes the files that come whole, and keeps the books.

    This one puts them nowhere.
    """

    def __init__(self, manifest: Manifest, stock: Stock) -> None:
        self.stock = stock
        self.wanted = 0  # bytes, in all
        self.stored = 0
        self.streams = manifest.streams
        self._manifest = manifest
        self._ranges: deque[Range] = deque()
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        self._done = 0  # bytes of the piece
        self._hasher: blake3.blake3 | None = None
        self._settled: list[int] = []

    def begin(self, ranges: Sequence[Range]) -> None:
        """These come behind those that were announced before."""
        self._ranges += ranges
        self.wanted += sum(length for _, length in ranges)

    def store(self, views: Sequence[memoryview]) -> list[tuple[int, int]]:
        """Put these bytes where they belong; each file that they went into, and how many."""
        stored: list[tuple[int, int]] = []
        for view in views:
            at = 0
            while at < len(view):
                piece = self._current()
                part = view[at : at + piece.length - self._done]
                count = len(part)
                if count == piece.item.size:
                    self._put(piece, part)
                else:
                    self._add(piece, part)
                at += count
                self.stored += count
                stored.append((piece.number, count))
        self._flush()
        return stored

    def end_of_stream(self) -> None:
        """What nobody knew the size of has ended."""
        piece = self._current()
        if not self._done:
            self._begin(piece)
        self._end(piece)
        self.wanted = self.stored

    def _current(self) -> Piece:
        if self._piece is None:
            self._piece = next(self._pieces, None)
            while self._piece is None:
                self._pieces = self._manifest.pieces(*self._ranges.popleft())
                self._piece = next(self._pieces, None)
            self._done = 0
        return self._piece

    def _put(self, piece: Piece, content: memoryview) -> None:
        """A whole file at once, as nearly all small ones come."""
        self._add(piece, content)

    def _add(self, piece: Piece, part: memoryview) -> None:
        """The next bytes of a piece."""
        if not self._done:
            self._begin(piece)
        if self._hasher is not None:
            self._hasher.update(part)
        self._write(piece, part)
        self._done += len(part)
        if self._done == piece.length:
            self._end(piece)

    def _begin(self, piece: Piece) -> None:
        whole = piece.item.kind is ItemKind.STREAM or piece.length == piece.item.size
        self._hasher = blake3.blake3() if whole else None
        self._open(piece)

    def _end(self, piece: Piece) -> None:
        self._close(piece)
        if self._hasher is not None and self.stock.states[piece.number] != State.FAILED:
            self.stock.whole(piece.number, self._hasher.digest())
        self._piece = None

    def sync(self) -> None:
        """Make what was stored durable, and say so in the journal."""

    def vouched(self, number: int) -> None:
        """A file's digest has become known, or is not known any more; to be noted at the next sync."""

    def found_whole(self, number: int) -> None:
        """A file of which the beginning, or all, was here before is whole; to be completed at the next sync."""

    def abandon(self) -> None:
        """Let go of what is open."""

    def _open(self, piece: Piece) -> None:
        """The first bytes of a piece are to come."""

    def _write(self, piece: Piece, part: memoryview) -> None:
        """Its next bytes, which may wait until :meth:`_flush`."""

    def _flush(self) -> None:
        """Write what waits: its buffer is reused."""

    def _close(self, piece: Piece) -> None:
        """All its bytes have come."""


class StagedAssembly(Assembly):
    """Into the files of a stage."""

    def __init__(self, manifest: Manifest, stock: Stock, stage: Stage, journal: Journal, *, sync: bool) -> None:
        super().__init__(manifest, stock)
        self._stage = stage
        self._journal = journal
        self._sync = sync
        self._again = False  # the stage was there before
        self._file: int | None = None
        self._waiting: list[memoryview] = []  # to be written with one call
        self._at = 0  # where in the file
        self._unnoted: set[int] = set()  # pages with files that became whole since the last note
        self._failed: set[int] = set()
        # Files of before that turned out to be whole: whether they were synced, or given their mode, nobody knows.
        self._found_whole: list[int] = []

    def prepare(self, *, again: bool) -> None:
        """Make the folders and the empty files; ``again`` if some may be there."""
        self._again = again
        failed = ""
        folder, stream, states = ItemKind.FOLDER, ItemKind.STREAM, self.stock.states  # see ``manifest``
        for number, item in enumerate(self._manifest):
            if (item.size and not failed) or states[number] == State.FAILED:
                continue
            top = self._manifest.top_of(number)
            try:
                if failed and item.path.startswith(failed):
                    raise FileExistsError(errno.EEXIST, "the folder that it is in cannot be made there")
                if item.kind is folder:
                    self._stage.make(top, item.path, again=again)
                elif not item.size and item.kind is not stream and not states[number]:
                    self._stage.complete(self._create(top, item.path), item, sync=self._sync)
                    self._whole(number)
            except OSError as error:
                self._fail(number, error)
                failed = f"{item.path}/" if item.kind is folder else failed

    def _whole(self, number: int) -> None:
        self.stock.whole(number, blake3.blake3().digest())
        self._unnoted.add(self._manifest.page_of(number))

    def _create(self, top: int, path: str) -> int:
        try:
            return self._stage.create(top, path)
        except FileExistsError:
            # In a stage that was there before: bytes of a file that nobody vouches for.
            if not self._again or not self._stage.has(top, path):
                raise
            self._stage.remove(top, path)
            return self._stage.create(top, path)

    def _fail(self, number: int, error: OSError) -> None:
        """This item cannot be here; raises if it is the disk that cannot take any."""
        if error.errno not in OF_THE_NAME:
            raise disk_error(error) from None
        collides = error.errno == errno.EEXIST
        self.stock.fail(number, "its name is another's on that disk" if collides else str(error.strerror))
        self._failed.add(number)

    def _put(self, piece: Piece, content: memoryview) -> None:
        number, item = piece.number, piece.item
        if number in self.stock.begun or self.stock.states[number] == _FAILED:
            super()._put(piece, content)
            return
        self._at = 0
        try:
            self._file = self._create(self._manifest.top_of(number), item.path)
        except OSError as error:
            self._fail(number, error)
            self._piece = None
            return
        try:
            write_at(self._file, [content], 0)
            descriptor, self._file = self._file, None
            self._stage.complete(descriptor, item, sync=self._sync)
        except OSError as error:
            raise disk_error(error) from None
        self.stock.whole(number, blake3.blake3(content).digest())
        self._unnoted.add(self._manifest.page_of(number))
        self._piece = None

    def _open(self, piece: Piece) -> None:
        top, path = self._manifest.top_of(piece.number), piece.item.path
        self._at = piece.offset
        if self.stock.states[piece.number] == State.FAILED:
            return
        try:
            if piece.offset or piece.number in self.stock.begun:
                self._file = self._stage.reopen(top, path)
            else:
                self._file = self._create(top, path)
        except OSError as error:
            self._fail(piece.number, error)

    def _write(self, piece: Piece, part: memoryview) -> None:
        self._waiting.append(part)

    def _flush(self) -> None:
        pieces, self._waiting = self._waiting, []
        if self._file is not None and pieces:
            count = sum(map(len, pieces))
            try:
                write_at(self._file, pieces, self._at)
            except OSError as error:
                raise disk_error(error) from None
            self._at += count

    def _close(self, piece: Piece) -> None:
        self._flush()
        if self._file is None:
            return
        descriptor, self._file = self._file, None
        try:
            self._stage.complete(descriptor, piece.item, sync=self._sync)
        except OSError as error:
            raise disk_error(error) from None
        if self._hasher is None:
            begun = self.stock.begun
            begun[piece.number] = max(begun.get(piece.number, 0), piece.offset + piece.length)
        else:
            self._unnoted.add(self._manifest.page_of(piece.number))

    def found_whole(self, number: int) -> None:
        self._found_whole.append(number)
        self.vouched(number)

    def vouched(self, number: int) -> None:
        self._unnoted.add(self._manifest.page_of(number))

    def sync(self) -> None:
        if self._stage.doubtful:
            return
        begun = dict(self.stock.begun)
        if self._piece is not None and self._file is not None:
            number = self._piece.number
            begun[number] = max(begun.get(number, 0), self._at)
        # Taken over at once: checking goes on beside this thread, and may add more.
        unnoted, self._unnoted = self._unnoted, set()
        failed, self._failed = self._failed, set()
        found_whole, self._found_whole = self._found_whole, []
        try:
            for number in found_whole:
                item = self._manifest.item(number)
                try:
                    descriptor = self._stage.reopen(self._manifest.top_of(number), item.path)
                except FileNotFoundError:
                    if self.stock.states[number] not in (State.FAILED, State.MISSING):
                        raise
                    continue  # it was dropped since: its sender could not read all of it, or has another one now
                self._stage.complete(descriptor, item, sync=self._sync)
            if self._sync:
                self._stage.sync(self._file)
        except OSError as error:
            raise disk_error(error) from None
        self._journal.note({page: self._digests(page) for page in unnoted}, begun, failed)

    def _digests(self, page: int) -> bytes:
        numbers = self._manifest.numbers(page)
        return bytes(self.stock.digests[32 * numbers.start : 32 * numbers.stop])

    def abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class PipedAssembly(Assembly):
    """To standard output, as it comes. What was written is written: nothing is kept, and nothing comes twice."""

    def _write(self, piece: Piece, part: memoryview) -> None:
        try:
            while part:
                part = part[os.write(sys.stdout.fileno(), part) :]
        except (OSError, ValueError) as error:
            gone = isinstance(error, BrokenPipeError)
            reason = "whoever read it has gone" if gone else getattr(error, "strerror", None) or str(error)
            raise FileError(
                f"Standard output takes no more: {reason}.",
                "What was written before stands.",
                for_peer="whoever read it there has gone." if gone else "their standard output takes no more.",
            ) from None
