"""Where received bytes become files: the one place that decides it, for every way in.

The rules, in the order in which they apply:

1. A name is one component: not empty, not ``.`` or ``..``, no separator, NUL or control character; no two items share
   a path, and none lies in what is no folder. An offer that breaks this is refused whole, before anybody is asked and
   before any write; see ``filenames`` and ``manifest.Checker``.
2. A top-level name that begins with a dot needs ``--allow-hidden``. ``--into /`` is refused.
3. Everything happens relative to the open destination folder, and no component is followed through a symlink; see
   ``folders``. Swapping a parent for a symlink changes nothing.
4. All of a transfer is gathered in one folder of an unpredictable name, mode 0700, in the destination itself: its
   *stage*. Each file in it is created exclusively, mode 0600, so that two names that are one on this disk are found.
5. Final names appear once the whole transfer is there, checked and synced: each top-level item by one rename (where
   there is no such rename, a link) that cannot replace anything. If the name is taken, the person's choice applies
   (:class:`Conflict`).
6. Permissions are those of any new file here, with the executable bit as the sender had it: nothing else of a mode
   is ever applied.
7. What is removed is the stage, and what is in it; nothing else ever is.

Nothing here is asynchronous: what writes or syncs is called in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from glide.errors import FileError
from glide.protocol.endtoend import Item, ItemKind
from glide.text import printable
from glide.transfer.destination import OF_THE_NAME, Destination
from glide.transfer.filenames import candidates
from glide.transfer.folders import Folder
from glide.transfer.manifest import Manifest
from glide.transfer.staging import Stage

# Names that are chosen, and written down, before any of them is given.
_NAMES_AT_ONCE = 1000


class Conflict(StrEnum):
    """``--conflict``: what becomes of an item whose name is taken."""

    RENAME = "rename"  # it becomes `name (1).ext`
    SKIP = "skip"  # the same content: nothing; a folder is filled up; else as RENAME
    OVERWRITE = "overwrite"  # it replaces the file, at once and whole; a folder is filled up
    REFUSE = "refuse"  # the offer is declined

    @property
    def merges(self) -> bool:
        return self in (Conflict.SKIP, Conflict.OVERWRITE)


@dataclass
class Landed:
    """What became of the items. What is in none of these stands under its own name."""

    finals: dict[int, str] = field(default_factory=dict)  # top-level items that got another name
    renamed: dict[int, str] = field(default_factory=dict)  # files in folders that did
    failed: dict[int, str] = field(default_factory=dict)  # items, with what is in them, and why

    def with_inside(self, manifest: Manifest) -> dict[int, str]:
        """What failed, with what is in it."""
        found: dict[int, str] = {}
        for number, problem in self.failed.items():
            inside = f"{manifest.item(number).path}/"
            found[number] = problem
            for each in range(number + 1, manifest.items):
                if not manifest.item(each).path.startswith(inside):
                    break
                found[each] = problem
        return found

    def where(self, destination: Destination, top: int, name: str) -> str:
        """Where a top-level item of that name stands."""
        return f"{destination.path}{os.sep}{self.finals.get(top, name)}"

    def inside(self, number: int, path: str) -> str:
        """Where an item stands in its top-level folder, in which its path was this."""
        if number not in self.renamed:
            return path
        above, slash, _ = path.rpartition("/")
        return above + slash + self.renamed[number]


class Landing:
    """Gives the items of a stage their final names (rule 5). Called again after a crash, it goes on where it was.

    ``intend`` is told names before they are given, so that a crash in between can tell whose a name is; ``intended`` is
    what it was told before a crash. ``on_step`` is called as long as there is progress.
    """

    def __init__(
        self,
        destination: Destination,
        stage: Stage,
        manifest: Manifest,
        conflict: Conflict,
        intend: Callable[[Mapping[int, str]], None],
        intended: Mapping[int, str],
        *,
        sync: bool,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._destination = destination
        self._folder = destination.folder
        self._stage = stage.folder
        self._manifest = manifest
        self._conflict = conflict
        self._intend = intend
        self._intended = intended
        self._sync = sync
        self._on_step = on_step
        self._changed: set[tuple[str, ...]] = set()  # folders in which names have changed
        self.landed = Landed()

    def run(self) -> Landed:
        """Land everything that is in the stage. Raises OSError, and :class:`FileError`."""
        waiting: dict[int, str] = {}
        self._intend({})
        for top, item in self._manifest.tops():
            here, intended = self._stage.look(str(top)), self._intended.get(top, item.path)
            if here is not None and _same(here, self._folder.look(intended)):
                self._stage.unlink(str(top))  # a crash came between its getting a name and its losing the other
                here = None
            if here is None:
                # Landed before a crash, or nothing of it was needed.
                self._note(top, item.path, intended)
            elif self._conflict.merges and self._folder.look(item.path) is not None:
                self._into_existing(top, item)
            else:
                waiting[top] = item.path
                if len(waiting) == _NAMES_AT_ONCE:
                    self._give_names(waiting)
        self._give_names(waiting)
        if self._sync:
            for there in self._changed | {()}:
                with self._folder.below(there) as folder:
                    folder.sync()
                self._on_step()
        return self.landed

    def _note(self, top: int, name: str, final: str) -> None:
        if final != name:
            self.landed.finals[top] = final

    def _give_names(self, waiting: dict[int, str]) -> None:
        """Move these to names that are free; somebody else may be faster, then to others. Empties ``waiting``."""
        while waiting:
            chosen = {top: self._free(name) for top, name in waiting.items()}
            self._intend(chosen)
            for top, final in chosen.items():
                try:
                    self._stage.move_new(str(top), self._folder, final)
                except FileExistsError:
                    if self._conflict is not Conflict.REFUSE:
                        continue
                    self.landed.failed[self._manifest.number(top)] = "something of that name has appeared"
                except OSError as error:
                    if error.errno not in OF_THE_NAME:
                        raise
                    self.landed.failed[self._manifest.number(top)] = error.strerror or "that disk refuses the name"
                else:
                    self._note(top, waiting[top], final)
                del waiting[top]
                self._on_step()

    def _free(self, name: str) -> str:
        if self._conflict is Conflict.REFUSE:
            return name
        for final in candidates(name):
            if self._folder.look(final) is None:
                return final
        raise FileError(f"No free name like {printable(name, 60)!r} was found.", "What arrived is kept.")

    def _into_existing(self, top: int, item: Item) -> None:
        """Something stands under a top-level item's name: put what was sent into it, or beside it, or in its place."""
        done = ""  # what is in this folder is settled
        for number, each in self._manifest.inside(top):
            if done and each.path.startswith(done):
                continue
            above, _, name = each.path.rpartition("/")
            source, there = [str(top), *above.split("/")[1:]] if above else [], above.split("/") if above else []
            try:
                with self._stage.below(source) as staged, self._folder.below(there) as folder:
                    settled = self._put(staged, name if above else str(top), folder, name, number, each)
                if settled:
                    self._changed.add(tuple(there))
                self._on_step()
            except FileNotFoundError:
                continue  # landed before a crash, with the folder that it is in
            except OSError as error:
                self.landed.failed[number] = error.strerror or "it cannot be put there"
                settled = True
            done = f"{each.path}/" if settled else done

    def _put(self, staged: Folder, entry: str, folder: Folder, name: str, number: int, item: Item) -> bool:
        """One item of a merge; False if what is in it is still to be put."""
        here, there = staged.look(entry), folder.look(name)
        if here is None:
            return False
        is_folder = item.kind is ItemKind.FOLDER
        if _same(here, there):
            staged.unlink(entry)
        elif there is None:
            staged.move_new(entry, folder, name)
        elif is_folder and stat.S_ISDIR(there.st_mode):
            return False
        elif self._conflict is Conflict.SKIP and (not is_folder or "/" not in item.path):
            self._beside(staged, entry, folder, name, number, item)
        elif is_folder or stat.S_ISDIR(there.st_mode):
            self.landed.failed[number] = "a file and a folder of that name are in each other's way"
        else:
            staged.replace(entry, folder, name)
        return True

    def _beside(self, staged: Folder, entry: str, folder: Folder, name: str, number: int, item: Item) -> None:
        inside = "/" in item.path
        for final in candidates(name):
            if folder.look(final) is not None:
                continue
            if not inside:
                self._intend({self._manifest.top_of(number): final})
            try:
                staged.move_new(entry, folder, final)
            except FileExistsError:
                continue
            if inside:
                self.landed.renamed[number] = final
            else:
                self.landed.finals[self._manifest.top_of(number)] = final
            return


def _same(here: os.stat_result, there: os.stat_result | None) -> bool:
    """True if that is the same file under two names."""
    if there is None or stat.S_ISDIR(here.st_mode):
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
