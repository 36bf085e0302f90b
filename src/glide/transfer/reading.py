"""The sender's files as bytes and digests. Everything here but :meth:`Reader.fill_cached` blocks, and is called in a
thread, one call at a time.

A file that has changed since the offer, or cannot be read any more, is not sent: where its bytes would lie in the
stream there are zeros, and no digest vouches for them. A file that is sent all alone is an error instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import TypeVar

import blake3

from glide.protocol.endtoend import BLOCK, NO_DIGEST, Item, ItemKind, Range
from glide.transfer.digests import BlockDigest, Digest, Sent
from glide.transfer.gathering import Gathered
from glide.transfer.manifest import Piece
from glide.transfer.sources import Changed, Opener, OpenFile, failed

# Bytes that are read at once.
_READ = 1024 * 1024
# Seconds after which a buffer that is not full is sent all the same.
_PATIENCE = 0.5


class Reader:
    """The bytes of what was wanted, and the digests of what was wanted whole."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._opener = Opener(gathered)
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        self._file: OpenFile | None = None
        self._done = 0  # bytes of the piece
        self._hasher: blake3.blake3 | None = None
        self._failure: Digest | None = None  # told once all that was promised of the file has been sent
        self._found: list[Digest | Sent] = []

    def begin(self, ranges: Iterable[Range]) -> None:
        """Read these from now on; those before must have been read to their end."""
        manifest = self._gathered.manifest
        self._pieces = chain.from_iterable(manifest.pieces(start, length) for start, length in ranges)

    def fill(self, buffer: memoryview) -> tuple[int, list[Digest | Sent], bool]:
        """Fill the buffer, or as much of it as a slow disk fills in a while: how many bytes, the digests of the files
        that this completed, and whether that was the last of what is wanted.

        Raises :class:`FileError` if the only file of the transfer cannot be sent.
        """
        filled, size = 0, len(buffer)
        until = time.monotonic() + _PATIENCE
        self._found = []
        while filled < size and (not filled or time.monotonic() < until):
            piece = self._piece or next(self._pieces, None)
            if piece is None:
                return filled, self._found, True
            take = min(piece.length - self._done, size - filled, _READ)
            view = buffer[filled : filled + take]
            if take == piece.item.size:
                self._read_whole(piece, view)
            else:
                self._read_part(piece, view)
            filled += take
        return filled, self._found, False

    def fill_cached(self, buffer: memoryview) -> int:
        """Fill the buffer as far as that waits for no disk, from a file that is open and goes on behind it: how far."""
        piece = self._piece
        if piece is None or self._file is None or not self._done < piece.length - len(buffer):
            return 0
        count = self._file.read_cached(buffer, piece.offset + self._done)
        self._took(buffer[:count])
        return count

    def _read_whole(self, piece: Piece, view: memoryview) -> None:
        """A whole file at once, as nearly all small ones are read."""
        try:
            file = self._opener.open(piece.item)
            try:
                file.read(view, 0)
                file.check()
            finally:
                file.close()
        except Changed as error:
            view[:] = bytes(len(view))
            self._found.append(failed(self._gathered, piece.number, piece.item, error))
        else:
            self._found.append(Digest(piece.number, blake3.blake3(view).digest()))

    def _read_part(self, piece: Piece, view: memoryview) -> None:
        if not self._done:
            self._begin(piece)
        self._read(piece, view)
        self._took(view)
        if self._done == piece.length:
            self._end(piece)

    def _took(self, view: memoryview) -> None:
        """These are the next bytes of the piece."""
        if self._hasher is not None:
            self._hasher.update(view)
        self._done += len(view)

    def _begin(self, piece: Piece) -> None:
        self._piece = piece
        self._hasher = blake3.blake3() if piece.length == piece.item.size else None
        try:
            self._file = self._opener.open(piece.item)
        except Changed as error:
            self._fail(piece, error)

    def _read(self, piece: Piece, view: memoryview) -> None:
        if self._file is not None:
            try:
                self._file.read(view, piece.offset + self._done)
            except Changed as error:
                self._fail(piece, error)
        if self._file is None:
            view[:] = bytes(len(view))

    def _end(self, piece: Piece) -> None:
        if self._file is not None:
            try:
                self._file.check()
            except Changed as error:
                self._fail(piece, error)
            else:
                if self._hasher is not None:
                    self._found.append(Digest(piece.number, self._hasher.digest()))
                elif piece.to_the_end:
                    self._found.append(Sent(piece.number))
                self._let_go()
        if self._failure is not None:
            self._found.append(self._failure)
            self._failure = None
        self._piece, self._done = None, 0

    def _fail(self, piece: Piece, error: Changed) -> None:
        self._let_go()
        self._failure = failed(self._gathered, piece.number, piece.item, error)

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self._let_go()
        self._opener.close()


Result = TypeVar("Result")


class Borrowed:
    """Something that threads work on, one at a time. It may be closed meanwhile: then as soon as they are done."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._closing = False
        self._in_use = threading.Lock()

    def use(self, work: Callable[[], Result]) -> Result:
        try:
            with self._in_use:
                return work()
        finally:
            if self._closing:
                self.close()

    def close(self) -> None:
        self._closing = True
        if self._in_use.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._in_use.release()


def some_of(found: Iterator[Result | None], seconds: float = 0.05) -> list[Result] | None:
    """What an iterator has to give in about that time, for one thread call; None once it has ended."""
    until = time.monotonic() + seconds
    some: list[Result] = []
    for each in found:
        if each is not None:
            some.append(each)
        if time.monotonic() >= until:
            return some
    return some or None


def check_rest(
    gathered: Gathered, kept: Iterable[tuple[int, Item, int]]
) -> Generator[Digest | BlockDigest | None, None, None]:
    """Hash files that are not read from beginning to end for sending; of each also the blocks of its first bytes.

    ``kept`` yields numbers, items, and how many bytes at the beginning the receiver has. Yields None after each read.
    """
    opener = Opener(gathered)
    try:
        for number, item, here in kept:
            try:
                yield from _check(opener, number, item, here)
            except Changed as error:
                yield failed(gathered, number, item, error)
    finally:
        opener.close()


def _check(opener: Opener, number: int, item: Item, here: int) -> Generator[Digest | BlockDigest | None, None, None]:
    file = opener.open(item)
    try:
        hasher, block, offset = blake3.blake3(), blake3.blake3(), 0
        buffer = memoryview(bytearray(min(_READ, item.size)))
        while offset < item.size:
            # No read crosses the end of a block, or of what is here.
            border = min((offset // BLOCK + 1) * BLOCK, here) if offset < here else item.size
            view = buffer[: border - offset]
            file.read(view, offset)
            hasher.update(view)
            offset += len(view)
            if offset <= here:
                block.update(view)
                if offset % BLOCK == 0 or offset == here:
                    yield BlockDigest(number, (offset - 1) // BLOCK, block.digest())
                    block = blake3.blake3()
            yield None
        file.check()
        yield Digest(number, hasher.digest(), in_part=here > 0)
    finally:
        file.close()


def check_empty(gathered: Gathered) -> list[Digest]:
    """Of files without a byte, of which nothing will be read, those that have some now, or are no such files.

    What /proc and its like hold has no size. Raises :class:`FileError` if it is the only one.
    """
    none = (ItemKind.FOLDER, ItemKind.STREAM)
    empty = ((n, item, 0) for n, item in enumerate(gathered.manifest) if not item.size and item.kind not in none)
    return [each for each in check_rest(gathered, empty) if isinstance(each, Digest) and each.digest == NO_DIGEST]
