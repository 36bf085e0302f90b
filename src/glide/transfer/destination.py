"""The folder that files land in: open, with room, and with a stage in it. ``landing`` has the rules.

Nothing here is asynchronous: what writes or syncs is called in a thread.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from pathlib import Path

from glide.errors import FileError
from glide.text import printable, size
from glide.transfer.folders import Folder
from glide.transfer.staging import Stage

_STAGE = ".glide-", ".part"
_IS_STAGE = re.compile(r"\.glide-[0-9a-f]{24}\.part")


class Destination:
    """An open folder that files land in. A context manager."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.path = folder.path

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
            folder = Folder.open(path)
            if not _writable(folder):
                folder.close()
                raise PermissionError(errno.EACCES, "no permission to write there")
        except OSError as error:
            raise FileError(
                f"Files cannot be received into {shown}: {error.strerror}.",
                "Nothing was written.",
                "Choose another folder with --into.",
                for_peer="their folder cannot be written to.",
            ) from None
        return cls(folder)

    def again(self) -> Destination:
        """The same folder, to be closed by itself."""
        return Destination(self.folder.below([]))

    def check_room(self, wanted: int) -> None:
        """Raise :class:`FileError` if the disk is known to have less than ``wanted`` bytes free."""
        free = _free(self.folder)
        if free is not None and free < wanted:
            raise FileError(
                f"The disk is too full for {size(wanted)}: {size(free)} are free in {printable(str(self.path))}.",
                "Nothing was written.",
                "Make room, or choose another folder with --into.",
                for_peer=f"their disk is too full for {size(wanted)}.",
            )

    def look(self, path: str) -> os.stat_result | None:
        """What stands under an item's path, no symlink followed; None if nothing does, or it cannot be reached."""
        *parents, name = path.split("/")
        try:
            with self.folder.below(parents) as parent:
                return parent.look(name)
        except OSError:
            return None

    def stage(self, name: str) -> Stage:
        """The stage of that name, made if it is not there. Raises :class:`FileError`."""
        if not _IS_STAGE.fullmatch(name):
            raise FileError(f"{printable(name, 60)!r} is not called like what glide makes, and is not used.")
        try:
            if self.folder.look(name) is None:
                self.folder.make(name, 0o700)
            return Stage(self.folder.child(name))
        except OSError as error:
            raise disk_error(error) from None

    def discard(self, name: str) -> None:
        """Remove the stage of that name with all that is in it, if it is there (rule 7)."""
        where = printable(str(self.path / name))
        if not _IS_STAGE.fullmatch(name):
            raise FileError(f"{where} is not called like what glide makes, and is not removed.")
        try:
            shutil.rmtree(self.folder.at(name), ignore_errors=False, dir_fd=self.folder.descriptor)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise FileError(
                f"{where} cannot be removed: {error.strerror or error}.", next="Remove it by hand."
            ) from None

    def close(self) -> None:
        self.folder.close()

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def new_stage() -> str:
    """A name for a stage: 96 random bits."""
    return secrets.token_hex(12).join(_STAGE)


# What is wrong with a name, or with its being two items' on this disk: that item fails, and no other.
OF_THE_NAME = frozenset({errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.ENOTDIR})


def disk_error(error: OSError) -> FileError:
    """What a failed write means, here and for the sender."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = {errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file is larger than allowed there"}
        return FileError(
            f"The disk is full ({reason.get(error.errno, 'no space left')}).",
            KEPT,
            "Make room, and let it be sent again.",
            for_peer="their disk is full.",
        )
    return FileError(
        f"The folder cannot be written to: {error.strerror}.",
        KEPT,
        "Check its permissions, or choose another folder with --into.",
        for_peer=f"their folder cannot be written to ({error.strerror}).",
    )


KEPT = "What arrived is kept, under no final name; see `glide partials`."


def _writable(folder: Folder) -> bool:
    """True if a file can be created in it, as far as the system says beforehand."""
    if folder.descriptor is None:
        return os.access(folder.path, os.W_OK)  # pragma: no cover - only Windows comes here
    effective = os.access in os.supports_effective_ids
    return os.access(".", os.W_OK | os.X_OK, dir_fd=folder.descriptor, effective_ids=effective)


def _free(folder: Folder) -> int | None:
    """Bytes that an ordinary user may still write; None where the system does not say."""
    if not hasattr(os, "statvfs"):
        return None  # pragma: no cover - only Windows comes here
    try:
        found = os.statvfs(folder.descriptor if folder.descriptor is not None else folder.path)
    except OSError:
        return None
    # File systems without blocks of their own (some of FUSE) report zero for everything.
    return found.f_bavail * found.f_frsize if found.f_blocks else None
