"""Who is here: the mapping of names to sessions, behind an interface that a shared registry can implement too.

A name belongs to the key that holds it. The holder may have several *sending* sessions under it; a newer *receiving*
session replaces the older one, which is told so. Any other key is refused while one session of the holder is left.

The lock guards taking a name: reading who holds it, deciding, writing, noting whom to tell. A shared registry will
have to ask another machine in the middle of that; here nothing waits. The lock is never held over a client's socket:
whoever is to be told something has it put into its outbox, and its own task sends it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import trio

from glide.errors import NameTaken, RelayRefused
from glide.protocol.messages import Person


class Session(Protocol):
    """What the registry knows of a session."""

    key: bytes

    def replace(self) -> None:
        """End: a newer session of the same key has the name."""


S = TypeVar("S", bound=Session)


class Registry(ABC, Generic[S]):
    """Names at one relay, or at several that share them."""

    @abstractmethod
    def register(self, name: str, session: S, *, receiving: bool) -> AbstractAsyncContextManager[None]:
        """Hold ``name`` for ``session`` as long as the block runs.

        Raises :class:`NameTaken` or :class:`RelayRefused`. However the block ends, exactly what this session holds
        is released, at once: the next to come finds the name free.
        """

    @abstractmethod
    def receiver(self, name: str) -> S | None:
        """Who takes files as ``name``."""

    @abstractmethod
    def people(self) -> list[Person]:
        """Everybody here, in order of names."""


@dataclass
class _Holder(Generic[S]):
    key: bytes
    since: int
    receiver: S | None = None
    senders: list[S] = field(default_factory=list)


class LocalRegistry(Registry[S]):
    """The names of one process."""

    def __init__(self, sessions_per_name: int) -> None:
        self._lock = trio.Lock()
        self._holders: dict[str, _Holder[S]] = {}
        self._most = sessions_per_name

    def __repr__(self) -> str:
        return f"<LocalRegistry of {len(self._holders)} names>"

    @asynccontextmanager
    async def register(self, name: str, session: S, *, receiving: bool) -> AsyncIterator[None]:
        async with self._lock:
            holder = self._holders.get(name)
            if holder is None:
                holder = self._holders[name] = _Holder(session.key, int(time.time()))
            elif holder.key != session.key:
                raise NameTaken("Username already taken")
            if receiving:
                if holder.receiver is not None:
                    holder.receiver.replace()
                holder.receiver = session
            elif len(holder.senders) < self._most:
                holder.senders.append(session)
            else:
                raise RelayRefused(f"{self._most} connections send as {name} already")
        try:
            yield
        finally:
            # Without the lock, which could not be waited for when this task is being cancelled: there is no
            # checkpoint in here, so nobody sees it half done.
            self._release(name, holder, session)

    def _release(self, name: str, holder: _Holder[S], session: S) -> None:
        # By identity: a session that was replaced must not take its successor's place away.
        if holder.receiver is session:
            holder.receiver = None
        holder.senders = [other for other in holder.senders if other is not session]
        if holder.receiver is None and not holder.senders and self._holders.get(name) is holder:
            del self._holders[name]

    def receiver(self, name: str) -> S | None:
        holder = self._holders.get(name)
        return holder.receiver if holder else None

    def people(self) -> list[Person]:
        return [
            Person(name=name, key=holder.key, receiving=holder.receiver is not None, since=holder.since)
            for name, holder in sorted(self._holders.items())
        ]
