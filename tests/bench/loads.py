"""What is sent: random bytes, in one file or in many."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Failed

MIB = 1 << 20
GIB = 1 << 30

# What any machine does in a second, to know when to give up.
SLOWEST_BYTES = 20 * MIB
SLOWEST_FILES = 100


@dataclass(frozen=True)
class Load:
    """A file, or a folder. ``content`` is what is then in the folder that it is sent into."""

    source: Path
    content: dict[str, str]
    limit: float  # seconds

    def check(self, into: Path) -> None:
        """Raise :class:`Failed` unless just that is in the folder."""
        found = content(into)
        if found != self.content:
            names = sorted(name for name, _ in found.items() ^ self.content.items())
            raise Failed(f"what arrived is not what was sent: {len(names)} differ, as {', '.join(names[:3])}")


def one_file(folder: Path, size: int) -> Load:
    source = folder / "file.bin"
    write_random(source, size)
    return Load(source, content(folder), 60 + size / SLOWEST_BYTES)


def many_files(folder: Path, files: int, size: int, folders: int) -> Load:
    source = folder / "files"
    for number in range(files):
        inner = source / f"{number % folders:04}"
        inner.mkdir(parents=True, exist_ok=True)
        write_random(inner / f"{number:06}.bin", size)
    return Load(source, content(folder), 60 + files * size / SLOWEST_BYTES + files / SLOWEST_FILES)


def content(folder: Path) -> dict[str, str]:
    """Everything in a folder: relative path to digest, or to nothing for a folder."""
    return {str(path.relative_to(folder)): "" if path.is_dir() else digest(path) for path in folder.rglob("*")}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_random(path: Path, count: int) -> None:
    with path.open("wb") as file:
        while count > 0:
            count -= file.write(os.urandom(min(count, MIB)))
