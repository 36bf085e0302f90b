"""Files and folders to send, made from a seed, and what a tree on disk holds, for comparison."""

from __future__ import annotations

import os
import random
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import blake3

KIB = 1024

# What Linux takes and somebody once had: each must arrive under exactly this name.
ODD_NAMES = (
    "café.txt",  # precomposed,
    unicodedata.normalize("NFD", "café.txt"),  # and the same to the eye, decomposed
    "🎉 party 👩‍👩‍👧.jpg",
    "日本語のファイル",
    "שלום.txt",
    " leading and trailing ",
    "-rf",
    "--relay",
    'it\'s "quoted"',
    "back\\slash",
    "aux.c",
    "a:b",
    "con",
    "trailing dots...",
    "*?[glob]",
    "$(echo no)",
    "name (1)",
    "x" * 251 + ".bin",
    "é" * 127,
    "~",
    "%41",
    "Makefile",
    "makefile",
)
# Only inside a folder: at the top each needs a flag of its own.
HIDDEN_NAMES = (".hidden", ".glide-0123456789abcdef.part", "..three", ".DS_Store")

# Moments, in nanoseconds since 1970: odd ones, and one before and one after what 32 bits of seconds hold.
MOMENTS = (0, 1, -1_500_000_000_000_000_001, 1_234_567_890_123_456_789, 4_600_000_000_999_999_999)


@dataclass(frozen=True)
class Entry:
    """One file or folder of a tree that is to be made; ``size`` is None for a folder."""

    path: str
    size: int | None
    mtime: int
    executable: bool = False


@dataclass(frozen=True)
class Tree:
    """What to make: about ``size`` bytes in up to ``items`` files and folders, the same for the same ``seed``."""

    seed: int
    size: int
    items: int

    def entries(self) -> tuple[Entry, ...]:
        """All that it has, each folder before what is in it."""
        return _Growing(self).grown()

    def tops(self) -> tuple[str, ...]:
        """The names that are in no folder."""
        return tuple(entry.path for entry in self.entries() if "/" not in entry.path)

    def make(self, root: Path) -> None:
        """Create it in the empty folder ``root``."""
        entries = self.entries()
        for entry in entries:
            path = root / entry.path
            if entry.size is None:
                path.mkdir()
                continue
            content = random.Random(f"{self.seed} {entry.path}")
            with path.open("wb") as file:
                for start in range(0, entry.size, KIB * KIB):
                    file.write(content.randbytes(min(KIB * KIB, entry.size - start)))
            path.chmod(0o755 if entry.executable else 0o644)
        for entry in reversed(entries):  # a folder's own after what changes it
            os.utime(root / entry.path, ns=(entry.mtime, entry.mtime))


class _Growing:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._random = random.Random(f"tree {tree.seed}")
        self._entries: dict[str, Entry] = {}
        self._folders: list[str] = []

    def grown(self) -> tuple[Entry, ...]:
        choose = self._random
        large = choose.randint(1, min(3, self._tree.items))
        if choose.random() < 0.2:  # no folder at all
            for size in self._shares(large):
                self._file("", size)
            return self._sorted()
        tops = choose.randint(1, 3)
        count = choose.randint(min(self._tree.items, 6), self._tree.items) - large
        if choose.random() < 0.3:
            self._chain(min(count, choose.randint(8, 24)))
        while len(self._entries) < count:
            if not self._folders or choose.random() < 0.2:
                self._folder(self._parent(tops))
            else:
                self._file(self._parent(tops), self._small())
        for size in self._shares(large):
            self._file(self._parent(tops), size)
        return self._sorted()

    def _sorted(self) -> tuple[Entry, ...]:
        return tuple(sorted(self._entries.values(), key=lambda entry: entry.path.split("/")))

    def _parent(self, tops: int) -> str:
        """A folder, or nothing while there may be more names at the top."""
        room = sum("/" not in path for path in self._entries) < tops
        if not self._folders or (room and self._random.random() < 0.3):
            return ""
        return self._random.choice(self._folders)

    def _chain(self, depth: int) -> None:
        parent = ""
        for _ in range(depth):
            parent = self._folder(parent)

    def _folder(self, parent: str) -> str:
        path = self._name(parent)
        self._entries[path] = Entry(path, None, self._mtime())
        self._folders.append(path)
        return path

    def _file(self, parent: str, size: int) -> None:
        path = self._name(parent)
        self._entries[path] = Entry(path, size, self._mtime(), self._random.random() < 0.2)

    def _name(self, parent: str) -> str:
        """A new path in ``parent``, far enough below PATH_MAX that every destination holds it."""
        before = f"{parent}/" if parent else ""
        while True:
            names = ODD_NAMES + HIDDEN_NAMES if parent else ODD_NAMES
            name = self._random.choice(names) if self._random.random() < 0.4 else f"f{self._random.randrange(10**6)}"
            path = before + name
            if path not in self._entries and (len(name) < 20 or len(path.encode()) < 1500):
                return path

    def _small(self) -> int:
        kind = self._random.random()
        if kind < 0.25:
            return 0
        return self._random.randint(1, 1000) if kind < 0.75 else self._random.randint(1000, 100 * KIB)

    def _shares(self, count: int) -> list[int]:
        """What the small files leave of the tree's size, in ``count`` parts."""
        left = max(0, self._tree.size - sum(entry.size or 0 for entry in self._entries.values()))
        borders = sorted(self._random.randint(0, left) for _ in range(count - 1))
        return [end - start for start, end in zip([0, *borders], [*borders, left], strict=True)]

    def _mtime(self) -> int:
        if self._random.random() < 0.1:
            return self._random.choice(MOMENTS)
        return self._random.randint(10**18, 17 * 10**17)


@dataclass(frozen=True)
class Node:
    """What is at one path. Of a folder only that it is one: its mtime is the receiver's affair."""

    kind: str
    size: int = 0
    digest: str = ""
    mtime: int = 0
    executable: bool = False


def snapshot(path: Path) -> dict[str, Node]:
    """``path`` and everything in it, by the path from its parent on."""
    found = {}
    for each in sorted([path, *path.rglob("*")]):
        about = each.lstat()
        if stat.S_ISREG(about.st_mode):
            with each.open("rb") as file:
                digest = blake3.blake3(file.read()).hexdigest()
            executable = bool(about.st_mode & stat.S_IXUSR)
            node = Node("file", about.st_size, digest, about.st_mtime_ns, executable)
        else:
            node = Node("folder" if stat.S_ISDIR(about.st_mode) else "other")
        found[str(each.relative_to(path.parent))] = node
    return found


def sizes(path: Path) -> dict[str, int]:
    """As :func:`snapshot`, but only the sizes of files, and -1 for all else: cheap enough to look all the time."""
    found = {}
    for each in [path, *path.rglob("*")]:
        about = each.lstat()
        found[str(each.relative_to(path.parent))] = about.st_size if stat.S_ISREG(about.st_mode) else -1
    return found
