"""The sender's files as bytes and digests. Everything here blocks, and is called in a thread, one call at a time.

What is sent is what was there when the offer was made. A file that has changed since, or cannot be read any more, is
not sent: where its bytes would lie in the stream there are zeros, and no digest vouches for them. A file that is sent
all alone is an error instead.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import blake3

from glide.errors import FileError
from glide.protocol.endtoend import BLOCK, NO_DIGEST, Item, Range
from glide.text import printable
from glide.transfer.digests import BlockDigest, Digest, Sent
from glide.transfer.folders import Folder, read_at
from glide.transfer.gathering import Gathered, modified
from glide.transfer.manifest import Piece

NOT_THERE = "Nothing of it appears under its name at the receiver."

# Bytes that the checker reads at once.
_READ = 4 * 1024 * 1024

# What is asked of a pipe at once. Linux's pipes hold 64 KiB unless told otherwise.
_PIPE_READ = 256 * 1024


class Changed(Exception):
    """A file is not what was offered; the text says how."""


class Opener:
    """Opens files that were offered, in the manifest's order: most lie in the folder of the one before."""

    def __init__(self, gathered: Gathered) -> None:
        self._gathered = gathered
        self._above = ""
        self._folder: Folder | None = None

    def open(self, item: Item) -> OpenFile:
        """Raises :class:`Changed` if it is not there any more as it was."""
        above, _, name = item.path.rpartition("/")
        try:
            if not above:
                return OpenFile(item, self._gathered.roots[item.path])
            if self._folder is None or self._above != above:
                self.close()
                self._above, self._folder = above, self._gathered.folder(above)
            return OpenFile(item, name, self._folder)
        except OSError as error:
            raise Changed(_why_not(error)) from None

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None


class OpenFile:
    """A file that was offered, open: by its path, if a person named it, else by its name in an open folder.

    Raises OSError, and :class:`Changed` if it is not that file any more.
    """

    def __init__(self, item: Item, name: str | Path, folder: Folder | None = None) -> None:
        self._item = item
        self._name = name
        self._folder = folder
        if folder is None:
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            self.descriptor = os.open(name, flags)
            self._there = os.fstat(self.descriptor)
        else:
            self.descriptor, self._there = folder.reopen_looking(str(name), writing=False)
        try:
            self._compare(self._there)
        except BaseException:
            self.close()
            raise

    def read(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset`` on."""
        try:
            done = read_at(self.descriptor, view, offset)
        except OSError as error:
            raise Changed(_why_not(error)) from None
        if done < len(view):
            raise Changed(f"it shrank from {self._item.size} bytes to {offset + done}")

    def check(self) -> None:
        """Raise :class:`Changed` if the file is not what it was when it was offered."""
        try:
            now = os.stat(self._name) if self._folder is None else self._folder.look(str(self._name))
        except FileNotFoundError:
            now = None
        except OSError as error:
            raise Changed(_why_not(error)) from None
        if now is None:
            raise Changed("it was removed")
        if (now.st_dev, now.st_ino) != (self._there.st_dev, self._there.st_ino):
            raise Changed("it was replaced by another file")
        self._compare(now)
        if not self._item.size and read_at(self.descriptor, memoryview(bytearray(1)), 0):  # /proc and its like
            raise Changed("it holds more than its size says")

    def _compare(self, now: os.stat_result) -> None:
        if now.st_size != self._item.size:
            grew = "grew" if now.st_size > self._item.size else "shrank"
            raise Changed(f"it {grew} from {self._item.size} bytes to {now.st_size}")
        if modified(now) != self._item.modified:
            raise Changed("it was written to")

    def close(self) -> None:
        os.close(self.descriptor)


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
        self._found: list[Digest | Sent] = []

    def begin(self, ranges: Iterable[Range]) -> None:
        """Read these from now on; those before must have been read to their end."""
        manifest = self._gathered.manifest
        self._pieces = chain.from_iterable(manifest.pieces(start, length) for start, length in ranges)

    def fill(self, buffer: memoryview) -> tuple[int, list[Digest | Sent]]:
        """Fill the buffer; fewer bytes come only at the end. Also the digests of the files that this completed.

        Raises :class:`FileError` if the only file of the transfer cannot be sent.
        """
        filled = 0
        self._found = []
        while filled < len(buffer):
            if self._piece is None and not self._next():
                break
            piece = self._piece
            assert piece is not None
            take = min(piece.length - self._done, len(buffer) - filled)
            view = buffer[filled : filled + take]
            self._read(piece, view)
            if self._hasher is not None:
                self._hasher.update(view)
            self._done += take
            filled += take
            if self._done == piece.length:
                self._end(piece)
        return filled, self._found

    def _next(self) -> bool:
        self._piece = next(self._pieces, None)
        if self._piece is None:
            return False
        item = self._piece.item
        self._done = 0
        self._hasher = blake3.blake3() if self._piece.length == item.size else None
        try:
            self._file = self._opener.open(item)
        except Changed as error:
            self._fail(self._piece, error)
        return True

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
        self._piece = None

    def _fail(self, piece: Piece, error: Changed) -> None:
        self._let_go()
        self._found.append(failed(self._gathered, piece.number, piece.item, error))

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


def failed(gathered: Gathered, number: int, item: Item, error: Changed) -> Digest:
    """What stands for the digest of a file that cannot be sent. Raises :class:`FileError` if it is the only one."""
    shown = printable(str(gathered.path(item.path)))
    if gathered.manifest.items > 1:
        return Digest(number, NO_DIGEST, f"{shown}: {error}")
    raise FileError(
        f"{shown} changed while it was being sent: {error}.",
        NOT_THERE,
        "Send it once nothing writes to it.",
        for_peer=f"the file changed while it was being sent: {error}.",
    )


class Pipe:
    """Standard input, of which nobody knows how long it is."""

    def __init__(self) -> None:
        self._hasher = blake3.blake3()
        self.bytes = 0

    def read(self) -> bytes:
        """What there is, at least one byte; empty at the end. Raises :class:`FileError`."""
        try:
            piece = os.read(sys.stdin.fileno(), _PIPE_READ)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise FileError(
                f"Standard input cannot be read: {reason}.", NOT_THERE, for_peer="what is sent cannot be read."
            ) from None
        self._hasher.update(piece)
        self.bytes += len(piece)
        return piece

    def digest(self) -> Digest:
        return Digest(0, self._hasher.digest())


def check_empty(gathered: Gathered) -> None:
    """Raise :class:`FileError` if the only file, of no bytes as its size says, has some: of /proc and its like."""
    manifest = gathered.manifest
    if manifest.items == 1 and not manifest.bytes and manifest.files and not manifest.streams:
        item = manifest.item(0)
        try:
            file = Opener(gathered).open(item)
            try:
                file.check()
            finally:
                file.close()
        except Changed as error:
            failed(gathered, 0, item, error)


def _why_not(error: OSError) -> str:
    return f"it cannot be read ({error.strerror})"
