"""What a receiver has of each transfer that is under way, interrupted, or confirmed lately: on disk, one file each.

A journal says what is *durable*: it is written after the bytes that it speaks of were synced, and synced itself before
they are acknowledged. So after a crash it may know less than there is, never more. It is a small SQLite database,
since that is what survives being killed in the middle of a write; while it is open nobody else can open it.

Its file is named after what it is about (who sends what to where), so that an offer finds it again, and nobody
else's offer does: the sender's key is part of that name (F10).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import blake3
import msgspec

from glide.errors import FileError
from glide.protocol.endtoend import Item
from glide.protocol.fields import Digest, Key
from glide.text import printable
from glide.transfer.folders import Folder
from glide.transfer.manifest import Manifest

# How many transfers of the same things from the same person to the same place may be under way at once.
_MOST_ALIKE = 8
# Seconds.
_PATIENCE = 2.0

Raw = bytes  # a field called `bytes` hides the type of that name inside a class

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE pages (page INTEGER PRIMARY KEY, items BLOB, digests BLOB);
CREATE TABLE begun (number INTEGER PRIMARY KEY, kept INTEGER);
CREATE TABLE failed (number INTEGER PRIMARY KEY);
CREATE TABLE finals (top INTEGER PRIMARY KEY, name TEXT);
"""


class Phase(StrEnum):
    RECEIVING = "receiving"
    LANDING = "landing"  # all is whole and checked; names are being given
    LANDED = "landed"  # all names stand; the sender has not said that it knows


class About(msgspec.Struct, frozen=True):
    """Who sends, and where it goes. ``stage`` is the name of the folder in ``into`` that holds what is not whole."""

    relay: Key
    sender: str
    key: Key
    into: Raw  # the folder, as the system writes it
    stage: str
    names: tuple[str, ...]  # the first of the top-level items
    items: int
    bytes: int
    began: float  # seconds since 1970
    boot: str  # which run of the machine that was
    conflict: str
    synced: bool = True  # what it speaks of; without, it is only worth as much as the machine's memory


class Confirmed(msgspec.Struct, frozen=True):
    """What the receipt says."""

    items: int
    bytes: int
    digest: Digest


class Journal:
    """One transfer's. All methods block, and raise :class:`FileError`. A context manager that closes it."""

    def __init__(self, file: Path, database: sqlite3.Connection) -> None:
        self.file = file
        self.open = True
        self._database = database

    def __repr__(self) -> str:
        return f"<Journal {self.file.name}>"

    @classmethod
    def create(cls, folder: Path, key: bytes, into: Path, manifest: Manifest, *, sync: bool) -> Journal:
        """A journal that says nothing yet; call :meth:`begin`."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for number in range(_MOST_ALIKE):
                journal = cls._open(_file(folder, key, into, manifest, number), sync=sync)
                if journal is not None:
                    if sync:
                        _sync_folder(folder)
                    return journal
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(folder, error) from None
        raise FileError(
            f"{_MOST_ALIKE} transfers of the same files from the same person are under way already.",
            "Nothing of this one was written.",
            for_peer="the same files are being received already.",
        )

    @classmethod
    def find(cls, folder: Path, key: bytes, into: Path, manifest: Manifest, *, sync: bool) -> Journal | None:
        """The journal of an earlier offer of the same top-level names by the same key to the same folder, if any."""
        for number in range(_MOST_ALIKE):
            file = _file(folder, key, into, manifest, number)
            if not file.exists():
                continue
            try:
                # Somebody may be looking at it for a moment.
                journal = cls._open(file, sync=sync, timeout=_PATIENCE)
                if journal is not None and journal.makes_sense() and journal.about.key == key:
                    return journal
                if journal is not None:
                    journal.delete()  # a crash came between making it and writing it, or another version wrote it
            except (OSError, sqlite3.Error):
                # Not readable any more: what it spoke of has to be sent again.
                _delete(file)
        return None

    @classmethod
    def open_there(cls, file: Path) -> Journal | None:
        """One that is there; None if somebody else has it open, or it says nothing that can be read."""
        try:
            journal = cls._open(file)
        except (OSError, sqlite3.Error):
            return None
        if journal is None or journal.makes_sense():
            return journal
        journal.close()  # Python might do that much later, and it would be locked until then
        return None

    @classmethod
    def _open(cls, file: Path, *, sync: bool = True, timeout: float = 0) -> Journal | None:
        """Open or create; None if somebody else has it open."""
        if file.is_symlink():
            file.unlink()  # not ours
        database = sqlite3.connect(file, timeout=timeout, isolation_level=None, check_same_thread=False)
        try:
            file.chmod(0o600)
            database.execute(f"PRAGMA synchronous = {'FULL' if sync else 'OFF'}")
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            database.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return None
            raise
        except BaseException:
            database.close()
            raise
        return cls(file, database)

    # --- what it says ---

    @property
    def speaks(self) -> bool:
        """True once :meth:`begin` was called."""
        return self._get("about") is not None

    def makes_sense(self) -> bool:
        """True if it speaks, and all that it says can be read."""
        try:
            if not self.speaks:
                return False
            _ = self.about, self.phase, self.phase is Phase.RECEIVING or self.confirmed
            for _ in self.items():
                pass
        except _NONSENSE:
            return False
        return True

    @property
    def about(self) -> About:
        return msgspec.msgpack.decode(self._get("about"), type=About)

    @property
    def phase(self) -> Phase:
        return Phase(self._get("phase"))

    @property
    def touched(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return float(self._get("touched"))

    @property
    def confirmed(self) -> Confirmed:
        return msgspec.msgpack.decode(self._get("confirmed"), type=Confirmed)

    def items(self) -> Iterator[tuple[int, Item, bytes]]:
        """Each item's number, the item, and its digest: 32 zeros as long as it is not whole."""
        number = 0
        for items, digests in self._database.execute("SELECT items, digests FROM pages ORDER BY page"):
            for at, item in enumerate(msgspec.msgpack.decode(items, type=tuple[Item, ...])):
                yield number, item, digests[32 * at : 32 * at + 32]
                number += 1

    def begun(self) -> dict[int, int]:
        """Files that are not known to be whole: number to durable bytes."""
        return dict(self._database.execute("SELECT number, kept FROM begun"))

    def failed(self) -> set[int]:
        return {number for (number,) in self._database.execute("SELECT number FROM failed")}

    def finals(self) -> dict[int, str]:
        """The names that top-level items were about to be given."""
        return dict(self._database.execute("SELECT top, name FROM finals"))

    # --- writing ---

    def begin(self, about: About, manifest: Manifest, digests: bytes | bytearray, begun: Mapping[int, int]) -> None:
        """Speak of this manifest from now on, of which so much is here: see :meth:`note`."""
        with self._transaction():
            for table in ("about", "pages", "begun", "failed", "finals"):
                self._database.execute(f"DELETE FROM {table}")  # noqa: S608  # the names stand in the line above
            self._put("about", msgspec.msgpack.encode(about))
            self._put("phase", Phase.RECEIVING)
            self._put("touched", time.time())
            for page in range(manifest.pages):
                items, first = manifest.page(page), manifest.first(page)
                row = (page, msgspec.msgpack.encode(items), bytes(digests[32 * first : 32 * (first + len(items))]))
                self._database.execute("INSERT INTO pages VALUES (?, ?, ?)", row)
            self._database.executemany("INSERT INTO begun VALUES (?, ?)", begun.items())

    def note(self, pages: Mapping[int, bytes], begun: Mapping[int, int], failed: Iterable[int] = ()) -> None:
        """The digests of these pages, all files that are begun and not whole, and what failed; durable on return."""
        with self._transaction():
            self._database.executemany(
                "UPDATE pages SET digests = ? WHERE page = ?", [(digests, page) for page, digests in pages.items()]
            )
            self._database.execute("DELETE FROM begun")
            self._database.executemany("INSERT INTO begun VALUES (?, ?)", begun.items())
            self._database.executemany("INSERT OR IGNORE INTO failed VALUES (?)", [(number,) for number in failed])
            self._put("touched", time.time())

    def note_finals(self, finals: Mapping[int, str]) -> None:
        """These names are about to be given."""
        with self._transaction():
            self._put("phase", Phase.LANDING)
            self._database.executemany("INSERT OR REPLACE INTO finals VALUES (?, ?)", finals.items())

    def note_whole(self, confirmed: Confirmed, failed: Iterable[int] = ()) -> None:
        """All is there and checked; this is what will be confirmed, and that is what could not land."""
        with self._transaction():
            self._database.executemany("INSERT OR IGNORE INTO failed VALUES (?)", [(number,) for number in failed])
            self._put("confirmed", msgspec.msgpack.encode(confirmed))

    def note_landed(self, confirmed: Confirmed) -> None:
        with self._transaction():
            self._put("phase", Phase.LANDED)
            self._put("confirmed", msgspec.msgpack.encode(confirmed))
            self._put("touched", time.time())

    def delete(self) -> None:
        """Close it and forget it."""
        self.close()
        _delete(self.file)

    def close(self) -> None:
        self._database.close()
        self.open = False

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, name: str) -> Any:
        row = self._database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _put(self, name: str, value: bytes | str | float) -> None:
        self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unwritable(self.file.parent, error) from None


SUFFIX = ".journal"

# What comes of reading what another version of glide wrote, or nobody.
_NONSENSE = msgspec.MsgspecError, sqlite3.Error, ValueError, TypeError


def _file(folder: Path, key: bytes, into: Path, manifest: Manifest, number: int) -> Path:
    name = blake3.blake3(key + manifest.identity() + os.fsencode(into)).hexdigest(length=16)
    return folder / f"{name}-{number}{SUFFIX}"


def _delete(file: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with Folder.open(folder) as opened:
        opened.sync()


def _unwritable(folder: Path, error: Exception) -> FileError:
    reason = (error.strerror if isinstance(error, OSError) else str(error)) or "no reason given"
    return FileError(
        f"What is received cannot be recorded in {printable(str(folder))}: {printable(reason)}.",
        "Nothing more was taken.",
        "Make room there, or choose another place with GLIDE_HOME.",
        for_peer="their disk cannot record what arrives.",
    )
