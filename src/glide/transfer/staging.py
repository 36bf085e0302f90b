"""What has arrived of one transfer and is not whole yet: a hidden folder in the destination. ``landing`` has the rules.

Nothing here is asynchronous. Methods raise OSError; ``destination.disk_error`` says what that means.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from glide.protocol.endtoend import Item, ItemKind
from glide.transfer.folders import Folder

# Files that are whole and not synced yet are held open up to this number; of more, all of the disk is synced at once.
_MOST_UNSYNCED = 64

# The umask can only be read by setting it: once, before there are threads that create files.
UMASK = os.umask(0o077)
os.umask(UMASK)
_PLAIN, _EXECUTABLE = 0o666 & ~UMASK, 0o777 & ~UMASK

# Looked up once: see ``manifest``.
_IS_STREAM, _IS_EXECUTABLE = ItemKind.STREAM, ItemKind.EXECUTABLE

_HAS_MODES = hasattr(os, "fchmod")
_HAS_TIMES = os.utime in os.supports_fd


class Stage:
    """A context manager that closes it; what is in it stays. An item goes by its top-level item's number and its path.

    Top-level items are called by their numbers in here: what is not whole bears no final name.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._above = ""  # the folder that the last item was in: its path,
        self._parent = folder  # itself,
        self._components: tuple[str, ...] = ()  # and its path in here
        self._unsynced: list[int] = []  # descriptors of files that are whole
        self._changed: set[tuple[str, ...]] = set()  # folders with names that are not synced yet
        self._sync_all = False  # too much is unsynced to do it file by file
        # A disk that fails to write what it was given says so once, and forgets it: what is durable, nobody knows.
        self.doubtful = False

    def at(self, top: int, path: str) -> tuple[Folder, str]:
        """The folder in the stage that an item is in, and its name there. The next call may close that folder."""
        above, _, name = path.rpartition("/")
        if not above:
            self._enter("", ())
            return self.folder, str(top)
        if self._above != above:
            self._enter(above, (str(top), *above.split("/")[1:]))
        return self._parent, name

    def _enter(self, above: str, components: tuple[str, ...]) -> None:
        parent = self.folder.below(components) if components else self.folder
        if self._parent is not self.folder:
            self._parent.close()
        self._above, self._components, self._parent = above, components, parent

    # --- filling it ---

    def make(self, top: int, path: str, *, again: bool) -> None:
        """A folder; ``again`` if it may be there from before."""
        parent, name = self.at(top, path)
        try:
            parent.make(name)
        except FileExistsError:
            # What is the same name to the disk, but not to us, is another item's.
            if not again or not parent.lists(name):
                raise
        self._changed.add(self._components)

    def create(self, top: int, path: str) -> int:
        """A descriptor of a new file."""
        parent, name = self.at(top, path)
        descriptor = parent.create(name)
        self._changed.add(self._components)
        return descriptor

    def reopen(self, top: int, path: str, *, writing: bool = True) -> int:
        """A descriptor of a file that is there. (May be called while another thread fills the stage.)"""
        with self._apart(top, path) as parent:
            return parent.reopen(_name(top, path), writing=writing)

    def _apart(self, top: int, path: str) -> Folder:
        """The folder that an item is in, for this call alone."""
        above = path.split("/")[1:-1]
        return self.folder.below([str(top), *above] if "/" in path else [])

    def has(self, top: int, path: str) -> bool:
        """True if something of exactly this name is there, not of one that is only the same to the disk."""
        parent, name = self.at(top, path)
        return parent.lists(name)

    def size(self, top: int, path: str) -> int | None:
        """How long a file is that is there; None if there is none."""
        try:
            parent, name = self.at(top, path)
        except OSError:
            return None
        found = parent.look(name)
        return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None

    def remove(self, top: int, path: str) -> None:
        """Remove what is there of an item, a folder with all that is in it. (May be called meanwhile, as reopen.)"""
        name = _name(top, path)
        try:
            with self._apart(top, path) as parent:
                found = parent.look(name)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    shutil.rmtree(parent.at(name), dir_fd=parent.descriptor)
                elif found is not None:
                    parent.unlink(name)
        except FileNotFoundError:
            pass  # the folder that it was in has gone

    def complete(self, descriptor: int, item: Item, *, sync: bool) -> None:
        """A file is whole: give it its time and its mode. Takes the descriptor over."""
        try:
            if item.kind is not _IS_STREAM:
                set_times(descriptor, item.modified)
            if _HAS_MODES:
                os.fchmod(descriptor, _EXECUTABLE if item.kind is _IS_EXECUTABLE else _PLAIN)
        except BaseException:
            os.close(descriptor)
            raise
        if not sync or self._sync_all:
            os.close(descriptor)
            return
        self._unsynced.append(descriptor)
        if len(self._unsynced) == _MOST_UNSYNCED:
            self._sync_all = self.folder.can_sync_file_system
            with self._doubting():
                self._let_go(sync=not self._sync_all)

    def complete_folder(self, top: int, item: Item, *, sync: bool) -> None:
        """All that belongs into a folder is in it."""
        parent, name = self.at(top, item.path)
        with parent.child(name) as folder:
            if folder.descriptor is not None:
                set_times(folder.descriptor, item.modified)
            if sync:
                folder.sync()

    # --- durability ---

    def sync(self, open_file: int | None) -> None:
        """Make all that was written durable: whole files, the one that is open, and their names."""
        with self._doubting():
            if self._sync_all:
                self.folder.sync_file_system()
                self._sync_all = False
                self._changed.clear()
                return
            if open_file is not None:
                os.fsync(open_file)
            self._let_go(sync=True)
            for components in self._changed:
                with self.folder.below(components) as folder:
                    folder.sync()
            self._changed.clear()

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.doubtful = True
            raise

    def _let_go(self, *, sync: bool) -> None:
        while self._unsynced:
            descriptor = self._unsynced.pop()
            try:
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        self._let_go(sync=False)
        self._enter("", ())
        self.folder.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name(top: int, path: str) -> str:
    """What an item is called in its folder in the stage."""
    above, _, name = path.rpartition("/")
    return name if above else str(top)


def set_times(descriptor: int, modified: int) -> None:
    """Give a file its time of modification, in nanoseconds since 1970, as far as the disk can hold it."""
    if _HAS_TIMES:
        try:
            os.utime(descriptor, ns=(modified, modified))
        except (OSError, OverflowError):
            pass  # a time that this disk cannot hold is no reason to lose the file
