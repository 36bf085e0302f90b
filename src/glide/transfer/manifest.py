"""What is being sent: the source file at the sender, and the digest over a whole transfer."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import blake3

from glide.errors import FileError
from glide.protocol.messages import Item
from glide.text import printable
from glide.transfer import filenames


def whole(digests: Sequence[bytes]) -> bytes:
    """The digest over a whole transfer: of one item its own; of several the BLAKE3 of theirs, in manifest order."""
    return digests[0] if len(digests) == 1 else blake3.blake3(b"".join(digests)).digest()


class Source:
    """A file that is being sent, open from the moment that it was checked. A context manager.

    What is sent is what was there then: a file that grows, shrinks, changes or vanishes meanwhile is an error.
    """

    def __init__(self, path: Path, name: str, file: io.FileIO) -> None:
        self.path = path
        self._file = file
        self._before = os.fstat(file.fileno())
        self.item = Item(name=name, size=self._before.st_size)

    @classmethod
    def open(cls, path: Path, name: str | None = None) -> Source:
        """Open ``path``, to be offered under ``name`` (default: its own).

        Raises :class:`FileError` for what is missing, unreadable, no regular file, or has a name that no
        receiver takes. Never waits for a device or a pipe.
        """
        shown = printable(str(path))
        try:
            # O_NONBLOCK: opening a named pipe would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except OSError as error:
            # The kinds that cannot be opened at all (a socket) are named below as well.
            raise _unusable(shown, path, error) from None
        except ValueError as error:
            raise FileError(f"{shown} is no path: {error}.", "Nobody was disturbed.") from None
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise _not_a_file(shown, mode)
            offered = name if name is not None else path.name or path.resolve().name
            try:
                filenames.check_name(offered)
            except filenames.BadName as error:
                raise FileError(
                    f"{shown} cannot be offered as {printable(offered)!r}: {error}.",
                    "Nobody was disturbed.",
                    "Give it another name with --filename.",
                ) from None
            return cls(path, offered, io.FileIO(descriptor, "r"))
        except BaseException:
            os.close(descriptor)
            raise

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` with the file's bytes from ``offset`` on; how many there were. Blocks.

        Fewer than asked for come only at the end of the file. Raises :class:`FileError` if the end comes
        before the size that was offered, or the disk fails.
        """
        wanted = min(len(buffer), self.item.size - offset)
        done = 0
        try:
            self._file.seek(offset)
            while done < wanted:
                count = self._file.readinto(buffer[done:wanted])
                if not count:
                    raise self._changed(f"it shrank from {self.item.size} bytes to {offset + done}")
                done += count
        except OSError as error:
            raise self._unreadable(error) from None
        return done

    def check_unchanged(self) -> None:
        """Raise :class:`FileError` if the file is not what it was when it was opened. Blocks."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            raise self._changed("it was removed") from None
        except OSError as error:
            raise self._changed(error.strerror or "it cannot be looked at any more") from None
        before = self._before
        if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
            raise self._changed("it was replaced by another file")
        if now.st_size != before.st_size:
            grew = "grew" if now.st_size > before.st_size else "shrank"
            raise self._changed(f"it {grew} from {before.st_size} bytes to {now.st_size}")
        if now.st_mtime_ns != before.st_mtime_ns:
            raise self._changed("it was written to")

        try:
            self._file.seek(before.st_size)
            more = self._file.read(1)
        except OSError as error:
            raise self._unreadable(error) from None
        if more:  # /proc and its like: a size of 0, and yet there is something to read
            raise self._changed("it holds more than its size says")

    def _unreadable(self, error: OSError) -> FileError:
        return FileError(
            f"{printable(str(self.path))} cannot be read: {error.strerror}.",
            NOT_THERE,
            for_peer=f"the file cannot be read ({error.strerror}).",
        )

    def _changed(self, how: str) -> FileError:
        return FileError(
            f"{printable(str(self.path))} changed while it was being sent: {how}.",
            NOT_THERE,
            "Send it once nothing writes to it.",
            for_peer=f"the file changed while it was being sent: {how}.",
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


NOT_THERE = "Nothing of it appears under its name at the receiver."


def _unusable(shown: str, path: Path, error: OSError) -> FileError:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        return _not_a_file(shown, mode)
    return FileError(f"{shown} cannot be read: {error.strerror}.", "Nobody was disturbed.", "Check the path.")


def _not_a_file(shown: str, mode: int) -> FileError:
    if stat.S_ISDIR(mode):
        kind, hint = "a folder", "Pack it into one file first: tar -cf folder.tar folder"
    else:
        kind, hint = "a device, pipe or socket", "Copy what it holds into a file and send that."
    return FileError(f"{shown} is {kind}; only regular files are sent.", "Nobody was disturbed.", hint)
