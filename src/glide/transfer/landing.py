"""Where received bytes become files: the one place that decides it, for every way in.

The rules, in the order in which they apply:

1. A name is one component: not empty, not ``.`` or ``..``, no separator, NUL or control character. An offer
   that breaks this is refused whole, before anybody is asked and before any write; see ``filenames``.
2. A name that begins with a dot needs ``--allow-hidden``. ``--into /`` is refused.
3. Everything happens relative to the open destination folder; no name is ever resolved again, so that swapping
   a parent for a symlink changes nothing.
4. Bytes go to a new file of an unpredictable name, mode 0600, in the destination itself.
5. The final name appears by one link or rename that cannot replace anything, once the content is whole and
   synced. If the name is taken, ``name (1).ext`` is tried, and so on.
6. Whatever was not landed is removed again, and nothing else is.

Nothing here is asynchronous: what writes or syncs is called in a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from pathlib import Path

from glide.errors import FileError
from glide.text import printable, size
from glide.transfer.filenames import candidates

# What one writev takes: IOV_MAX of Linux and macOS; POSIX promises 16.
_MOST_PIECES = 1024

_RENAME_NOREPLACE = 1  # linux/fs.h


class Destination:
    """An open folder that files land in. A context manager."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, into: Path) -> Destination:
        """Raises :class:`FileError` if ``into`` is no folder, is the root, or nothing can be created in it."""
        shown = printable(str(into))
        try:
            path = into.resolve(strict=True)
            if path == Path(path.anchor):
                raise FileError(
                    f"{shown} is the root of a file system; files are not received there.",
                    "Nothing was written.",
                    "Choose a folder with --into.",
                )
            descriptor = _open_folder(path)
        except OSError as error:
            raise FileError(
                f"Files cannot be received into {shown}: {error.strerror}.",
                "Nothing was written.",
                "Choose another folder with --into.",
                for_peer="their folder cannot be written to.",
            ) from None
        return cls(path, descriptor)

    def check_room(self, wanted: int) -> None:
        """Raise :class:`FileError` if the disk is known to have less than ``wanted`` bytes free."""
        free = _free(self.descriptor if self.descriptor is not None else self.path)
        if free is not None and free < wanted:
            raise FileError(
                f"The disk is too full for {size(wanted)}: {size(free)} are free in {printable(str(self.path))}.",
                "Nothing was written.",
                "Make room, or choose another folder with --into.",
                for_peer=f"their disk is too full for {size(wanted)}.",
            )

    def create(self) -> Partial:
        """A new file for an item's bytes (rule 4). Raises :class:`FileError`."""
        name = f".glide-{secrets.token_hex(12)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            return Partial(self, name, os.open(self._at(name), flags, 0o600, dir_fd=self.descriptor))
        except OSError as error:
            raise disk_error(error) from None

    def sync(self, name: str) -> None:
        """Make a new ``name`` in the folder durable. Windows and some network file systems cannot; they need not."""
        if self.descriptor is not None:
            try:
                os.fsync(self.descriptor)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise FileError(
                        f"The disk did not confirm the name of {printable(name, 60)!r}: {error.strerror}.",
                        "The file is whole and stands there, but a crash now might lose its name.",
                        for_peer="their disk did not confirm the file's name; it may be there all the same.",
                    ) from None

    def _at(self, name: str) -> str:
        # Without an open folder (Windows) the path has to do.
        return name if self.descriptor is not None else str(self.path / name)

    def link(self, temporary: str, final: str) -> bool:
        """Give ``temporary`` its final name; False if that name is taken (rule 5)."""
        fd = self.descriptor
        try:
            if fd is None:
                os.rename(self._at(temporary), self._at(final))  # Windows: fails if the name exists
                return True
            try:
                os.link(temporary, final, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise
                _rename_noreplace(fd, temporary, final)  # a file system without hard links: FAT, some of FUSE
            else:
                os.unlink(temporary, dir_fd=fd)
        except FileExistsError:
            return False
        return True

    def unlink(self, name: str) -> None:
        os.unlink(self._at(name), dir_fd=self.descriptor)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Partial:
    """A file that is not whole yet. A context manager: what was not landed is gone when it ends."""

    def __init__(self, destination: Destination, name: str, descriptor: int) -> None:
        self.name = name
        self._destination = destination
        self._descriptor = descriptor
        self._landed = False

    def write(self, pieces: list[memoryview]) -> None:
        """Append ``pieces``. Raises :class:`FileError` when the disk does not take them."""
        try:
            while pieces:
                if hasattr(os, "writev"):
                    count = os.writev(self._descriptor, pieces[:_MOST_PIECES])
                else:
                    count = os.write(self._descriptor, pieces[0])
                while pieces and count >= len(pieces[0]):
                    count -= len(pieces.pop(0))
                if count:
                    pieces[0] = pieces[0][count:]
        except OSError as error:
            raise disk_error(error) from None

    def sync(self) -> None:
        """Make what was written durable. Raises :class:`FileError`."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise disk_error(error) from None

    def land(self, name: str, *, sync: bool) -> Path:
        """Give the file its final name, or ``name (1)`` and so on; where it stands. Raises :class:`FileError`."""
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(self._descriptor, 0o666 & ~UMASK)
            if sync:
                self.sync()
            if self._destination.descriptor is None:  # pragma: no cover - Windows cannot rename an open file
                os.close(self._descriptor)
                self._descriptor = -1
            for final in candidates(name):
                if self._destination.link(self.name, final):
                    self._landed = True
                    if sync:
                        self._destination.sync(final)
                    return self._destination.path / final
        except OSError as error:
            raise disk_error(error) from None
        raise FileError(f"No free name like {printable(name, 60)!r} was found.", "Nothing was kept.")

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if not self._landed:
            try:
                self._destination.unlink(self.name)
            except OSError:
                pass  # somebody else removed it, or the disk is gone: there is nothing left to undo


def disk_error(error: OSError) -> FileError:
    """What a failed write means, here and for the sender."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = {errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file is larger than allowed there"}
        return FileError(
            f"The disk is full ({reason.get(error.errno, 'no space left')}).",
            "Nothing was kept.",
            "Make room, or choose another folder with --into.",
            for_peer="their disk is full.",
        )
    return FileError(
        f"The folder cannot be written to: {error.strerror}.",
        "Nothing was kept.",
        "Check its permissions, or choose another folder with --into.",
        for_peer=f"their folder cannot be written to ({error.strerror}).",
    )


def _open_folder(path: Path) -> int | None:
    """A descriptor of a folder in which a file can be created; None where folders cannot be opened."""
    if not hasattr(os, "O_DIRECTORY") or os.open not in os.supports_dir_fd:
        if not path.is_dir():  # pragma: no cover - only Windows comes here
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return None  # pragma: no cover - only Windows comes here
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=os.access in os.supports_effective_ids):
        os.close(descriptor)
        raise PermissionError(errno.EACCES, "no permission to write there")
    return descriptor


def _free(where: int | Path) -> int | None:
    """Bytes that an ordinary user may still write; None where the system does not say."""
    if not hasattr(os, "statvfs"):
        return None  # pragma: no cover - only Windows comes here
    try:
        found = os.statvfs(where)
    except OSError:
        return None
    # File systems without blocks of their own (some of FUSE) report zero for everything.
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def _rename_noreplace(folder: int, temporary: str, final: str) -> None:
    """Linux's renameat2 with RENAME_NOREPLACE, which the standard library does not have."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOTSUP, "this file system has no hard links")
    result = libc.renameat2(folder, os.fsencode(temporary), folder, os.fsencode(final), _RENAME_NOREPLACE)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# Read once, at import, before any other thread runs: there is no way to ask without setting it.
UMASK = _umask()
