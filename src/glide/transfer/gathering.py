"""Which files and folders a push sends: what a person named, and what is found in it.

The walk goes from one open folder to the next, down by name and up by "..", and holds one at a time: neither a path's
length nor the limit of open files bounds how deep it gets, and a folder that somebody swaps for a symlink meanwhile is
not entered.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from glide.errors import FileError, UsageError
from glide.protocol.endtoend import LONGEST_PATH, Item, ItemKind
from glide.text import printable
from glide.transfer import ignoring
from glide.transfer.filenames import BadName, check_name
from glide.transfer.folders import Folder
from glide.transfer.ignoring import Rule
from glide.transfer.manifest import DEEPEST, Manifest

# What is asked of every item is looked up once: see ``manifest``.
_FILE, _EXECUTABLE = ItemKind.FILE, ItemKind.EXECUTABLE

# So many are warned about one by one.
MOST_WARNINGS = 20

_UNDISTURBED = "Nobody was disturbed."
_NO_ITEM = "a device, pipe or socket"
_ENTER = os.R_OK | os.X_OK
_EFFECTIVE = os.access in os.supports_effective_ids


class Gathered(msgspec.Struct, frozen=True):
    """What is to be sent. ``skipped`` counts what was named or found and cannot be sent; not what nobody would send."""

    manifest: Manifest
    roots: dict[str, Path]
    skipped: int

    def path(self, item_path: str) -> Path:
        """Where an item is here, for people."""
        top, _, rest = item_path.partition("/")
        return self.roots[top] / rest

    def folder(self, above: str) -> Folder:
        """The folder of that path, open; nothing below the one that was named is reached through a symlink."""
        top, *rest = above.split("/")
        with Folder.open(self.roots[top]) as root:
            return root.below(rest)


def gather(
    paths: Sequence[Path],
    *,
    filename: str | None = None,
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    warn: Callable[[str], None],
) -> Gathered:
    """The files and folders at ``paths``, and all that is in the folders. Blocks; never waits for a device or a pipe.

    ``filename`` names the only one. ``exclude`` are patterns as in a ``.gitignore`` of each of the folders. With
    ``gitignore`` the ``.gitignore`` files that are found count too, though less, and ``.git`` stays here. ``warn`` gets
    one line for each thing that is skipped, up to :data:`MOST_WARNINGS`, and then how many more there were.

    Raises :class:`FileError` for a path that cannot be sent, and :class:`UsageError` for arguments that contradict.
    """
    if filename is not None and len(paths) > 1:
        raise UsageError("--filename is one name, and there are several to send.", next="Send them one by one.")
    walk = _Walk(ignoring.given(exclude), gitignore, warn)
    tops: dict[str, tuple[Path, os.stat_result]] = {}
    for path in paths:
        name, found = _look_at(path, filename)
        try:
            _check_path(name, name)
        except BadName as error:
            if len(paths) > 1:
                walk.skip(str(path), str(error))
                continue
            raise FileError(
                f"{printable(str(path))} cannot be offered as '{printable(name)}': {error}.",
                _UNDISTURBED,
                "Give it another name with --filename.",
            ) from None
        if name in tops:
            both = f"{printable(str(tops[name][0]))} and {printable(str(path))}"
            raise UsageError(
                f"{both} would both arrive as {printable(name)!r}.",
                next="Send them separately; --filename gives one of them another name.",
            )
        tops[name] = path, found
    for name, (path, found) in sorted(tops.items()):
        if stat.S_ISDIR(found.st_mode):
            walk.folder(name, path)
        else:
            walk.file(name, found)
    walk.manifest.close()
    walk.summarize()
    if not walk.manifest.items:
        raise FileError("There is nothing to send.", _UNDISTURBED)
    return Gathered(walk.manifest, {name: path for name, (path, _) in tops.items()}, walk.skipped)


def gather_pipe(filename: str | None, warn: Callable[[str], None]) -> Gathered:  # as gather, less its paths
    """Standard input, as the one thing to be sent; nobody knows how much it will be. Raises :class:`FileError`."""
    name = "stdin" if filename is None else filename
    if sys.stdin is None:  # its number may be another file's by now
        raise FileError("There is no standard input to send.", _UNDISTURBED)
    try:
        _check_path(name, name)
    except BadName as error:
        raise FileError(f"--filename {printable(name)!r}: {error}.", _UNDISTURBED, "Choose another.") from None
    manifest = Manifest()
    manifest.add(Item(name, ItemKind.STREAM))
    manifest.close()
    return Gathered(manifest, {}, 0)


def modified(found: os.stat_result) -> int:
    """When a file was last written to, as an item tells it; years before 1678 and after 2262 do not fit 64 bits."""
    time = found.st_mtime_ns
    return time if -(2**63) <= time < 2**63 else min(max(time, -(2**63)), 2**63 - 1)


def _look_at(path: Path, filename: str | None) -> tuple[str, os.stat_result]:
    """What is at a path that a person named, and its name; a symlink is what it points to."""
    shown = printable(str(path))
    try:
        found = path.stat()
        name = path.name if path.name not in ("", "..") else path.resolve().name
    except OSError as error:
        raise _unreadable(shown, error) from None
    except ValueError as error:
        raise FileError(f"{shown} is no path: {error}.", _UNDISTURBED) from None
    folder = stat.S_ISDIR(found.st_mode)
    if not folder and not stat.S_ISREG(found.st_mode):
        what = f"{shown} is {_NO_ITEM}; only files and folders are sent."
        raise FileError(what, _UNDISTURBED, "Copy what it holds into a file and send that.")
    if not _may_read(path, folder=folder):
        raise _unreadable(shown, OSError(errno.EACCES, os.strerror(errno.EACCES)))
    if filename is None and not name:
        raise FileError(f"{shown} has no name to send it under.", _UNDISTURBED, "Give it one with --filename.")
    return name if filename is None else filename, found


def _may_read(path: str | Path, *, folder: bool, within: int | None = None) -> bool:
    return os.access(path, _ENTER if folder else os.R_OK, dir_fd=within, effective_ids=_EFFECTIVE)


def _unreadable(shown: str, error: OSError) -> FileError:
    return FileError(f"{shown} cannot be read: {error.strerror}.", _UNDISTURBED, "Check the path.")


def _check_path(name: str, path: str) -> None:
    """Raise :class:`BadName` unless a receiver takes that path, the last of whose names is ``name``."""
    check_name(name)
    if path.count("/") >= DEEPEST:
        raise BadName(f"it lies in more than {DEEPEST} folders")
    if (len(path) if path.isascii() else len(path.encode())) > LONGEST_PATH:
        raise BadName(f"the path is longer than {LONGEST_PATH} bytes")


# --- what is in a folder ---------------------------------------------------------------------------------


class _Level(msgspec.Struct, frozen=True):
    """A folder that the walk is in."""

    path: str  # with a slash behind it
    names: list[str]  # of what has not been looked at yet, the next one last
    identity: tuple[int, int]
    ignores: tuple[tuple[int, list[Rule]], ...]  # its .gitignore and those above; each with where its paths begin


class _Walk:
    """Adds items to a manifest, in its order."""

    def __init__(self, exclude: list[Rule], gitignore: bool, warn: Callable[[str], None]) -> None:
        self.manifest = Manifest()
        self.skipped = 0
        self._exclude = exclude
        self._gitignore = gitignore
        self._warn = warn
        self._warnings = 0
        self._start = 0  # where paths below the named folder begin

    def file(self, path: str, found: os.stat_result) -> None:
        executable = os.name == "posix" and found.st_mode & 0o111
        kind = _EXECUTABLE if executable else _FILE
        self.manifest.add(Item(path, kind, found.st_size, modified(found)))

    def folder(self, name: str, path: Path) -> None:
        """Add the folder at ``path``, under the name that it is sent under, and what is in it."""
        self._start = len(name) + 1
        try:
            here = Folder.open(path)
        except OSError as error:
            raise _unreadable(printable(str(path)), error) from None
        try:
            try:
                levels = [self._enter(here, name, ())]
            except OSError as error:
                raise _unreadable(printable(str(path)), error) from None
            while levels:
                if levels[-1].names:
                    inner, level = self._next(here, levels[-1])
                    if level is not None:
                        levels.append(level)
                else:
                    levels.pop()
                    inner = _up(here, levels[-1]) if levels else here
                if inner is not here:
                    here.close()
                    here = inner
        finally:
            here.close()

    def _next(self, here: Folder, level: _Level) -> tuple[Folder, _Level | None]:
        """Look at one more thing in a folder; the folder to go on in, which is that thing if it is a folder."""
        name = level.names.pop()
        path, at = level.path + name, here.at(name)
        try:
            found = os.stat(at, dir_fd=here.descriptor, follow_symlinks=False)
        except OSError as error:
            if not self._excluded(level, name, path, folder=False):
                self.skip(path, _why(error))
            return here, None
        folder = stat.S_ISDIR(found.st_mode)
        if self._excluded(level, name, path, folder=folder):
            return here, None
        if not folder and not stat.S_ISREG(found.st_mode):
            self.skip(path, "it is " + ("a symlink" if stat.S_ISLNK(found.st_mode) else _NO_ITEM), counts=False)
            return here, None
        try:
            _check_path(name, path)
            if not _may_read(at, folder=folder, within=here.descriptor):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if folder:
                inner = here.child(name)
                try:
                    return inner, self._enter(inner, path, level.ignores)
                except BaseException:
                    inner.close()
                    raise
            self.file(path, found)
        except BadName as error:
            self.skip(path, str(error))
        except OSError as error:
            self.skip(path, _why(error))
        return here, None

    def _enter(self, folder: Folder, path: str, ignores: tuple[tuple[int, list[Rule]], ...]) -> _Level:
        """Add a folder, and say what is in it."""
        found = os.stat(_open(folder))
        names = os.listdir(_open(folder))
        if self._gitignore and ".gitignore" in names:
            ignores = ((len(path) + 1, self._rules(folder, path)), *ignores)
        names.sort(reverse=True)
        self.manifest.add(Item(path, ItemKind.FOLDER, 0, modified(found)))
        return _Level(path + "/", names, (found.st_dev, found.st_ino), ignores)

    def skip(self, path: str, why: str, *, counts: bool = True) -> None:
        self.skipped += counts
        self._tell(printable(path), why)

    def _tell(self, what: str, why: str) -> None:
        self._warnings += 1
        if self._warnings <= MOST_WARNINGS:
            self._warn(f"{what} is skipped: {why}.")

    def summarize(self) -> None:
        if self._warnings > MOST_WARNINGS:
            self._warn(f"... and {self._warnings - MOST_WARNINGS} more were skipped")

    # --- what is excluded ---

    def _excluded(self, level: _Level, name: str, path: str, *, folder: bool) -> bool:
        if not self._exclude and not self._gitignore:
            return False
        if self._gitignore and name == ".git":
            return True
        for start, rules in ((self._start, self._exclude), *level.ignores):
            if rules and (verdict := ignoring.verdict(rules, name, path[start:], folder=folder)) is not None:
                return verdict
        return False

    def _rules(self, folder: Folder, path: str) -> list[Rule]:
        """The rules of a folder's ``.gitignore``."""
        try:
            with open(folder.reopen(".gitignore", writing=False), "rb") as file:
                rules, odd = ignoring.read(file.read())
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENOENT):
                return []  # a symlink or no file: git does not read it either
            # To go on would be to send what it keeps back.
            raise _unreadable(printable(f"{path}/.gitignore"), error) from None
        for line in odd:
            self._tell(f"the pattern {printable(line, 60)!r} of {printable(path)}/.gitignore", "it is not understood")
        return rules


def _open(folder: Folder) -> int | Path:
    return folder.path if folder.descriptor is None else folder.descriptor


def _up(here: Folder, level: _Level) -> Folder:
    """The folder that ``here`` is in, which was that of ``level`` on the way down."""
    try:
        above = here.child("..")
        found = os.stat(_open(above))
        if (found.st_dev, found.st_ino) == level.identity:
            above.path = here.path.parent
            return above
        above.close()
    except OSError:
        pass
    what = f"A folder in {printable(level.path)} was moved while it was being looked at."
    raise FileError(what, _UNDISTURBED, "Send it once nothing changes it.")


def _why(error: OSError) -> str:
    return "it vanished meanwhile" if error.errno == errno.ENOENT else f"it cannot be read: {error.strerror}"
