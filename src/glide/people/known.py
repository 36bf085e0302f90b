"""Pins: which key a person's name, or a relay's address, stands for.

A pin of a person is (relay key, name) -> key: the same name at another relay is another person. It is *seen* after
an accepted offer, *known* after a person's yes (at a terminal, by pushing to them, or by ``known add``), *verified*
after the keys were compared. A pin is never replaced by itself: only ``known forget`` removes one.

The file is JSON, mode 0600, replaced whole under a lock, so that a daemon and a command may write it side by side.
Everything here blocks: asynchronous code calls what writes in a thread.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from glide import files
from glide.crypto.identity import fingerprint
from glide.errors import FileError, KeyChanged

try:
    import fcntl
except ImportError:  # pragma: no cover - only Windows comes here
    fcntl = None  # type: ignore[assignment]  # the one platform without it writes unlocked

# So many people that were only seen are remembered; beyond it the ones not met for longest are forgotten, so that
# strangers cannot make the file grow for ever.
MOST_SEEN = 2000

LOCK_SECONDS = 5.0


class Trust(StrEnum):
    """How well a key is known, from nothing to compared."""

    NEW = "new"
    SEEN = "seen"
    KNOWN = "known"
    VERIFIED = "verified"

    @property
    def rank(self) -> int:
        return list(Trust).index(self)


class Pin(msgspec.Struct, frozen=True):
    """A person. Times are seconds since 1970; 0 means never, or before this was noted.

    ``verified`` is when the keys were last compared, ``last`` when something was last sent to them or got from them.
    """

    relay: bytes
    name: str
    key: bytes
    trust: Trust
    since: int
    met: int
    verified: int = 0
    last: int = 0


class RelayPin(msgspec.Struct, frozen=True):
    address: str
    key: bytes
    since: int


class _Book(msgspec.Struct, frozen=True):
    version: int = 1
    people: tuple[Pin, ...] = ()
    relays: tuple[RelayPin, ...] = ()


class Known:
    """The pins in one file. Every call reads it anew, so that what another process wrote is seen."""

    def __init__(self, path: Path) -> None:
        self._path = path

    # --- people ---

    def people(self) -> list[Pin]:
        """All pins, in order of names."""
        return sorted(self._read().people, key=lambda pin: (pin.name, pin.relay))

    def find(self, relay: bytes, name: str) -> Pin | None:
        return next((pin for pin in self._read().people if (pin.relay, pin.name) == (relay, name)), None)

    def check(self, relay: bytes, name: str, key: bytes) -> Trust:
        """How well ``key`` is known as ``name``. Raises :class:`KeyChanged` if the pin is of another key."""
        pin = self.find(relay, name)
        if pin is None:
            return Trust.NEW
        if pin.key != key:
            raise KeyChanged(
                f"The key of {name} is not the one on record: {fingerprint(key)} where {fingerprint(pin.key)} was "
                f"{pin.trust} since {time.strftime('%Y-%m-%d', time.localtime(pin.since))}.",
                "Nothing was transferred. Somebody else may be using the name, or the relay may be lying; or they "
                "have a new machine.",
                f"Ask {name} for their fingerprint (`glide id`) another way. If it is the new one: "
                f"`glide known forget {name}`, then try again.",
            )
        return pin.trust

    def trusts(self, relay: bytes) -> dict[str, Pin]:
        """All pins at one relay, by name: for judging many people at once."""
        return {pin.name: pin for pin in self._read().people if pin.relay == relay}

    def aliases(self, relay: bytes, name: str, key: bytes) -> tuple[str, ...]:
        """Other names at this relay under which ``key`` is pinned."""
        return tuple(pin.name for pin in self.people() if pin.relay == relay and pin.key == key and pin.name != name)

    def remember(self, relay: bytes, name: str, key: bytes, trust: Trust) -> None:
        """Pin, or raise the trust of a pin; never lower it. Raises :class:`KeyChanged` as :meth:`check`.

        With VERIFIED it is noted that the keys were compared just now. Where there is nothing to raise nothing is
        written: who sends or takes something waits for the disk, and :meth:`transferred` notes when.
        """
        now = int(time.time())
        with self._changing() as book:
            self.check(relay, name, key)
            old = next((pin for pin in book.people if (pin.relay, pin.name) == (relay, name)), None)
            if old is not None and trust is not Trust.VERIFIED and trust.rank <= old.trust.rank:
                return
            before = old or Pin(relay, name, key, trust, now, now)
            verified = now if trust is Trust.VERIFIED else before.verified
            trust = max(before.trust, trust, key=lambda each: each.rank)
            fresh = msgspec.structs.replace(before, trust=trust, met=now, verified=verified)
            others = [pin for pin in book.people if pin is not old]
            seen = sorted((pin for pin in others if pin.trust is Trust.SEEN), key=lambda pin: pin.met)
            dropped = seen[: max(0, len(seen) + (trust is Trust.SEEN) - MOST_SEEN)]
            self._write(msgspec.structs.replace(book, people=(*(p for p in others if p not in dropped), fresh)))

    def transferred(self, relay: bytes, name: str) -> None:
        """Note that something was sent to them, or got from them, just now; nothing if they are not pinned."""
        with self._changing() as book:
            old = next((pin for pin in book.people if (pin.relay, pin.name) == (relay, name)), None)
            if old is not None:
                now = int(time.time())
                fresh = msgspec.structs.replace(old, last=now, met=now)
                people = tuple(fresh if pin is old else pin for pin in book.people)
                self._write(msgspec.structs.replace(book, people=people))

    def forget(self, name: str) -> int:
        """Drop the pins of ``name`` at every relay; how many there were."""
        with self._changing() as book:
            kept = tuple(pin for pin in book.people if pin.name != name)
            self._write(msgspec.structs.replace(book, people=kept))
            return len(book.people) - len(kept)

    # --- relays ---

    def relay(self, address: str) -> RelayPin | None:
        return next((pin for pin in self._read().relays if pin.address == address), None)

    def relay_key(self, address: str, given: bytes | None) -> bytes | None:
        """The key of the relay there: the one that was ``given``, or else the one on record, if it was ever met."""
        pin = self.relay(address)
        return given or (pin.key if pin is not None else None)

    def check_relay(self, address: str, key: bytes) -> Trust:
        """As :meth:`check`, for the relay at ``address`` (HOST:PORT)."""
        return check_relay(self.relay(address), address, key)

    def remember_relay(self, address: str, key: bytes) -> None:
        with self._changing() as book:
            if self.check_relay(address, key) is Trust.NEW:
                fresh = RelayPin(address, key, int(time.time()))
                self._write(msgspec.structs.replace(book, relays=(*book.relays, fresh)))

    def relays(self) -> list[RelayPin]:
        return sorted(self._read().relays, key=lambda pin: pin.address)

    def forget_relay(self, address: str) -> int:
        """Drop the pin of the relay at ``address``, not those of the people met there; how many there were."""
        with self._changing() as book:
            kept = tuple(pin for pin in book.relays if pin.address != address)
            self._write(msgspec.structs.replace(book, relays=kept))
            return len(book.relays) - len(kept)

    # --- the file ---

    def _read(self) -> _Book:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Book)
        except FileNotFoundError:
            return _Book()
        except (OSError, ValueError, RecursionError) as error:
            raise FileError(
                f"The list of known keys, {self._path}, cannot be read ({getattr(error, 'strerror', None) or error}).",
                "It was left as it is, and nothing was transferred: without it a changed key would go unnoticed.",
                "Repair it, restore it from a backup, or move it away to start with nobody known.",
            ) from None

    def _write(self, book: _Book) -> None:
        files.replace(self._path, msgspec.json.format(msgspec.json.encode(book), indent=1) + b"\n")

    @contextmanager
    def _changing(self) -> Iterator[_Book]:
        """The book, while no other process changes it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(lock)
                yield self._read()
            finally:
                os.close(lock)
        except OSError as error:
            raise FileError(
                f"The list of known keys, {self._path}, cannot be written: {error.strerror}.",
                "It was left as it is.",
                "Check the folder's permissions, or set GLIDE_HOME to a folder of your own.",
            ) from None


def check_relay(pin: RelayPin | None, address: str, key: bytes) -> Trust:
    """How well ``key`` is known as the relay's there, of which ``pin`` is on record. Raises :class:`KeyChanged`."""
    if pin is None:
        return Trust.NEW
    if pin.key != key:
        raise KeyChanged(
            f"The key of the relay {address} is not the one on record: {fingerprint(key)} where "
            f"{fingerprint(pin.key)} was pinned.",
            "Nothing was transferred. Another machine may be answering in its place; or it was set up anew.",
            f"Ask whoever runs it. If the new key is right: `glide known forget --relay {address}`, then try again.",
        )
    return Trust.KNOWN


def _lock(descriptor: int) -> None:
    """Wait for the lock, but not for ever: whoever holds it writes one small file. Raises OSError."""
    if fcntl is None:
        return  # pragma: no cover - only Windows comes here
    patience = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps it locked") from None
            time.sleep(0.02)
        else:
            return
