"""Open folders: everything is done relative to one, and no component of a path is ever followed through a symlink.

Where the system has no such calls (Windows), paths have to do. Nothing here is asynchronous.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

RELATIVE = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
_REOPEN = _NOFOLLOW | _BINARY | getattr(os, "O_NONBLOCK", 0)

# What one writev takes: IOV_MAX of Linux and macOS; POSIX promises 16.
_MOST_PIECES = 1024

_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCL = 4  # sys/stdio.h of macOS


class Folder:
    """A folder that stays the same one, whatever happens to its path. A context manager.

    All methods raise OSError; ``path`` is only for people, and for systems without open folders.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Folder:
        """The folder at ``path``, which may be reached through symlinks: a person named it."""
        if not RELATIVE:  # pragma: no cover - only Windows comes here
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return cls(path, None)
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def at(self, name: str) -> str:
        return name if self.descriptor is not None else str(self.path / name)

    # --- folders in it ---

    def child(self, name: str) -> Folder:
        """An existing folder in this one; what only points to a folder is none."""
        if self.descriptor is None:  # pragma: no cover - only Windows comes here
            if not stat.S_ISDIR(os.lstat(self.at(name)).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return Folder(self.path / name, None)
        flags = os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW
        return Folder(self.path / name, os.open(name, flags, dir_fd=self.descriptor))

    def below(self, components: Sequence[str]) -> Folder:
        """The folder that many levels down."""
        folder = Folder(self.path, os.dup(self.descriptor) if self.descriptor is not None else None)
        for component in components:
            with folder:
                folder = folder.child(component)
        return folder

    def make(self, name: str, mode: int = 0o777) -> None:
        """A new folder in this one; ``mode`` passes the umask."""
        os.mkdir(self.at(name), mode, dir_fd=self.descriptor)

    # --- files in it ---

    def create(self, name: str) -> int:
        """A descriptor of a new file, mode 0600."""
        return os.open(self.at(name), _CREATE, 0o600, dir_fd=self.descriptor)

    def reopen(self, name: str, *, writing: bool = True) -> int:
        """A descriptor of a regular file that is there; anything else is an error, and waits for nobody."""
        return self.reopen_looking(name, writing=writing)[0]

    def reopen_looking(self, name: str, *, writing: bool = True) -> tuple[int, os.stat_result]:
        """As :meth:`reopen`, and what the system says of that file."""
        flags = (os.O_RDWR if writing else os.O_RDONLY) | _REOPEN
        descriptor = os.open(self.at(name), flags, dir_fd=self.descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no regular file")
        return descriptor, found

    def look(self, name: str) -> os.stat_result | None:
        """What stands under ``name``, itself and not what it points to; None if nothing does."""
        try:
            return os.stat(self.at(name), dir_fd=self.descriptor, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def lists(self, name: str) -> bool:
        """True if just this name is there: disks may find a file under several, and list one."""
        return name in os.listdir(self.descriptor if self.descriptor is not None else self.path)

    def unlink(self, name: str) -> None:
        os.unlink(self.at(name), dir_fd=self.descriptor)

    # --- moving ---

    def move_new(self, name: str, to: Folder, final: str) -> None:
        """Move a file or folder to a name that is free. FileExistsError if it is not; nothing is ever replaced."""
        if os.name == "nt":  # pragma: no cover - only Windows comes here: its rename refuses by itself
            os.rename(self.at(name), to.at(final))
            return
        try:
            _rename_new(self, name, to, final)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise
            self._move_new_otherwise(name, to, final)

    def _move_new_otherwise(self, name: str, to: Folder, final: str) -> None:
        """Where the file system has no rename that replaces nothing: NFS, some of FUSE."""
        found = self.look(name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            # A folder may replace an empty one, and only that.
            to.make(final)
            self.replace(name, to, final)
        else:
            os.link(name, final, src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor, follow_symlinks=False)
            self.unlink(name)

    def replace(self, name: str, to: Folder, final: str) -> None:
        """Move a file to a name, in the place of the file that may stand there."""
        os.replace(self.at(name), to.at(final), src_dir_fd=self.descriptor, dst_dir_fd=to.descriptor)

    # --- durability ---

    def sync(self) -> None:
        """Make the names in this folder durable. Windows and some network file systems cannot; they need not."""
        if self.descriptor is not None:
            try:
                os.fsync(self.descriptor)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise

    @property
    def can_sync_file_system(self) -> bool:
        """True where making all of the folder's file system durable is one call: on Linux."""
        return sys.platform == "linux" and _function("syncfs") is not None

    def sync_file_system(self) -> None:
        """Make all of the folder's file system durable (syncfs(2); it reports errors from Linux 5.8 on)."""
        _checked(_function("syncfs")(self.descriptor))

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_at(descriptor: int, pieces: list[memoryview], offset: int) -> None:
    """Write all of ``pieces`` from ``offset`` on."""
    if len(pieces) == 1 and hasattr(os, "pwrite") and os.pwrite(descriptor, pieces[0], offset) == len(pieces[0]):
        return  # a small file
    while pieces:
        if hasattr(os, "pwritev"):
            count = os.pwritev(descriptor, pieces[:_MOST_PIECES], offset)
        else:  # pragma: no cover - only Windows comes here
            os.lseek(descriptor, offset, os.SEEK_SET)
            count = os.write(descriptor, pieces[0])
        offset += count
        while pieces and count >= len(pieces[0]):
            count -= len(pieces.pop(0))
        if count:
            pieces[0] = pieces[0][count:]


def read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill ``view`` from ``offset`` on; how many bytes there were before the file's end."""
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            count = os.preadv(descriptor, [view[done:]], offset + done)
        else:  # pragma: no cover - only Windows comes here
            os.lseek(descriptor, offset + done, os.SEEK_SET)
            piece = os.read(descriptor, len(view) - done)
            count = len(piece)
            view[done : done + count] = piece
        if not count:
            break
        done += count
    return done


def _rename_new(source: Folder, name: str, to: Folder, final: str) -> None:
    """The systems' own renames that replace nothing, which the standard library does not have."""
    linux, macos = _function("renameat2"), _function("renameatx_np")
    function, flag = (linux, _RENAME_NOREPLACE) if linux is not None else (macos, _RENAME_EXCL)
    if function is None:
        raise OSError(errno.ENOTSUP, "this system cannot rename without replacing")
    _checked(function(source.descriptor, os.fsencode(name), to.descriptor, os.fsencode(final), flag))


@cache
def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
