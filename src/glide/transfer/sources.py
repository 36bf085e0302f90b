"""The sender's files, opened in the order of the manifest, and standard input. All of it blocks but
:meth:`OpenFile.read_cached`.

What is sent is what was there when the offer was made: a file that has changed since is not that file any more.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from pathlib import Path

import blake3

from glide.errors import FileError
from glide.protocol.endtoend import NO_DIGEST, Item
from glide.text import printable
from glide.transfer.digests import Digest
from glide.transfer.folders import Folder, read_at
from glide.transfer.gathering import Gathered, modified

try:
    import fcntl
except ImportError:
    pass  # Windows has none

NOT_THERE = "Nothing of it appears under its name at the receiver."

# What is read of a pipe at once if it is there, and what Linux, which has 64 KiB otherwise, lets one hold: pipe(7).
_PIPE = 1024 * 1024
# Seconds for which what a program goes on writing is gathered.
_GATHER = 0.04

_NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux alone has it
_MEMORY = ("tmpfs", "ramfs")


class Changed(Exception):
    """A file is not what was offered; the text says how."""


class Unreadable(Changed):
    """It never was what it seemed to be, or does not let itself be read."""


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
            raise _not_read(error) from None

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
        self._flags = _NOWAIT  # of a read that must not wait; None if there is no such thing
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
            raise _not_read(error) from None
        if done < len(view):
            size = os.fstat(self.descriptor).st_size
            if size == self._item.size:  # as it is said of files of /sys
                raise Unreadable("it holds less than its size says")
            raise Changed(f"it shrank from {self._item.size} bytes to {size}")

    def read_cached(self, view: memoryview, offset: int) -> int:
        """As much of ``view`` as the system has in memory, without waiting for a disk; 0 too where nobody can tell."""
        if self._flags is None:
            return 0
        try:
            return os.preadv(self.descriptor, [view], offset, self._flags)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                # The file systems that are memory do not know the flag, since they never wait.
                self._flags = 0 if self._flags and _is_memory(self._there.st_dev) else None
                return self.read_cached(view, offset)
            return 0  # it would have to wait; or whoever does will hear what is wrong

    def check(self) -> None:
        """Raise :class:`Changed` if the file is not what it was when it was offered."""
        try:
            now = os.stat(self._name) if self._folder is None else self._folder.look(str(self._name))
        except FileNotFoundError:
            now = None
        except OSError as error:
            raise _not_read(error) from None
        if now is None:
            raise Changed("it was removed")
        if (now.st_dev, now.st_ino) != (self._there.st_dev, self._there.st_ino):
            raise Changed("it was replaced by another file")
        self._compare(now)
        if not self._item.size:  # as it is said of files of /proc and its like
            try:
                more = read_at(self.descriptor, memoryview(bytearray(1)), 0)
            except OSError as error:
                raise _not_read(error) from None
            if more:
                raise Unreadable("it holds more than its size says")

    def _compare(self, now: os.stat_result) -> None:
        size = self._item.size
        if now.st_size != size:
            raise Changed(f"it {'grew' if now.st_size > size else 'shrank'} from {size} bytes to {now.st_size}")
        if modified(now) != self._item.modified:
            raise Changed("it was written to")

    def close(self) -> None:
        os.close(self.descriptor)


def failed(gathered: Gathered, number: int, item: Item, error: Changed) -> Digest:
    """What stands for the digest of a file that cannot be sent. Raises :class:`FileError` if it is the only one."""
    shown = printable(str(gathered.path(item.path)))
    if gathered.manifest.items > 1:
        return Digest(number, NO_DIGEST, f"{shown}: {error}")
    if isinstance(error, Unreadable):
        what, next = "cannot be sent", "What another program can read can be piped: glide push NAME -"
    else:
        what, next = "changed while it was being sent", "Send it once nothing writes to it."
    raise FileError(f"{shown} {what}: {error}.", NOT_THERE, next, for_peer=f"the file {what}: {error}.")


class Pipe:
    """Standard input, of which nobody knows how long it is."""

    def __init__(self) -> None:
        self._hasher = blake3.blake3()
        self._room = memoryview(bytearray(_PIPE))
        self._ended = False
        try:
            if fcntl.fcntl(sys.stdin.fileno(), fcntl.F_GETPIPE_SZ) < _PIPE:
                fcntl.fcntl(sys.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        except (NameError, AttributeError, OSError, ValueError):
            pass  # it is no pipe, or not Linux's, or this user has no more

    def read(self) -> memoryview:
        """What there is, at least one byte; empty at the end. Raises :class:`FileError`. The next call reuses it."""
        count, until = 0, 0.0
        try:
            while not self._ended and count < _PIPE and (not count or _more(sys.stdin.fileno(), until)):
                came = _read(sys.stdin.fileno(), self._room[count:])
                self._ended = not came
                count += came
                until = until or time.monotonic() + _GATHER
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise FileError(
                f"Standard input cannot be read: {reason}.", NOT_THERE, for_peer="what is sent cannot be read."
            ) from None
        self._hasher.update(self._room[:count])
        return self._room[:count]

    def digest(self) -> Digest:
        return Digest(0, self._hasher.digest())


def _read(descriptor: int, room: memoryview) -> int:
    """As much as there is, but something; 0 at the end."""
    if hasattr(os, "readv"):
        while True:
            try:
                return os.readv(descriptor, [room])
            except BlockingIOError:  # somebody who has it too does not want to wait for it
                select.select([descriptor], [], [])
    piece = os.read(descriptor, len(room))  # Windows
    room[: len(piece)] = piece
    return len(piece)


def _more(descriptor: int, until: float) -> bool:
    """True if there is more to be read, or the end, right now, and it is not that late."""
    if not hasattr(select, "poll") or time.monotonic() >= until:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _not_read(error: OSError) -> Changed:
    gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return (Changed if gone else Unreadable)(f"it cannot be read ({error.strerror})")


def _is_memory(device: int) -> bool:
    """True if a device number is that of a file system without a disk: proc_pid_mountinfo(5)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        for fields in map(str.split, mounts.splitlines()):
            if fields[2] == wanted:
                return fields[fields.index("-") + 1] in _MEMORY
    except (OSError, ValueError, IndexError):
        pass
    return False
