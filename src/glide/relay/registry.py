"""Who is here: the mapping of names to sessions, behind an interface that a shared registry can implement too.

A name belongs to the key that holds it. The holder may have several *sending* sessions under it; a newer *receiving*
session replaces the older one, which is told so. Any other key is refused while one session of the holder is left.
A session may be invisible: it is not among the people, and is found only by whoever knows its name.

Who waits here is woken, and never looks around: for somebody to take files under a name (:class:`Arrivals`), or for
somebody to ask to meet who is asked for by them too (:class:`Seeking`).

The lock guards taking a name, and two people's meeting: reading what is there, deciding, writing, noting whom to tell.
A shared registry will have to ask another machine in the middle of that; here nothing waits. The lock is never held
over a client's socket: whoever is to be told something has it put into its outbox, and its own task sends it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable
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


class Arrivals(ABC, Generic[S]):
    """One name, watched for somebody who takes files under it."""

    @abstractmethod
    def receiver(self) -> S | None:
        """Who takes files under the name now. What has happened before this is no news any more."""

    @abstractmethod
    async def news(self) -> None:
        """Wait until a receiver has registered that :meth:`receiver` has not had a chance to find."""


class Seeking(Generic[S]):
    """One session that wants to meet a certain other. ``found`` is their session, if they had asked before."""

    def __init__(self, session: S) -> None:
        self.session = session
        self.found: S | None = None
        self._over = trio.Event()
        self._met = False

    def __repr__(self) -> str:
        return f"<Seeking: {'met' if self._met else 'replaced' if self._over.is_set() else 'waiting'}>"

    def end(self, *, met: bool) -> None:
        """They have found us; or, not ``met``, a newer session of ours asks in our place."""
        self._met = met
        self._over.set()

    @property
    def waits(self) -> bool:
        """True if neither has happened yet, and we have found nobody."""
        return self.found is None and not self._over.is_set()

    async def over(self) -> bool:
        """Wait for that; True if they have found us, who are used up by it."""
        await self._over.wait()
        return self._met


class Registry(ABC, Generic[S]):
    """Names at one relay, or at several that share them."""

    @abstractmethod
    def register(
        self, name: str, session: S, *, receiving: bool, visible: bool = True
    ) -> AbstractAsyncContextManager[None]:
        """Hold ``name`` for ``session`` as long as the block runs.

        Raises :class:`NameTaken` or :class:`RelayRefused`. However the block ends, exactly what this session holds
        is released, at once: the next to come finds the name free.
        """

    @abstractmethod
    def receiver(self, name: str) -> S | None:
        """Who takes files as ``name``."""

    @abstractmethod
    def arrivals(self, name: str) -> AbstractAsyncContextManager[Arrivals[S]]:
        """Watch ``name`` as long as the block runs."""

    @abstractmethod
    def seeking(
        self, name: str, other: str, session: S, *, again: bool = False
    ) -> AbstractAsyncContextManager[Seeking[S]]:
        """Be ``name`` who wants to meet ``other``, as long as the block runs.

        ``session`` must be registered as ``name`` all the while. If ``other`` waits for ``name``, they are found, and
        wait no more. Else we wait in turn, in place of an older session of ours that does; if we ask ``again``, that
        one is the newer.
        """

    @abstractmethod
    def people(self, after: str | None = None, most: int | None = None) -> list[Person]:
        """Everybody here who has a visible session, in order of names: at most so many, those behind a name."""

    @abstractmethod
    def person(self, name: str) -> Person | None:
        """Who has ``name``, if a visible session does."""

    @abstractmethod
    def near(self, name: str, most: int) -> list[str]:
        """The names of at most so many others who visibly take files, those next to ``name`` in the order of names."""


@dataclass(slots=True)
class _Holder(Generic[S]):
    """Who has a name. ``since`` is when the first of the visible sessions came."""

    key: bytes
    receiver: S | None = None
    senders: list[S] = field(default_factory=list)
    visible: list[S] = field(default_factory=list)
    since: int = 0

    @property
    def empty(self) -> bool:
        return self.receiver is None and not self.senders


class _Watched:
    """A name that somebody watches: how many do, and how many receivers have come meanwhile."""

    def __init__(self) -> None:
        self.watchers = 0
        self.arrived = 0
        self.news = trio.Event()

    def somebody_came(self) -> None:
        self.arrived += 1
        self.news.set()
        self.news = trio.Event()


class _LocalArrivals(Arrivals[S]):
    def __init__(self, watched: _Watched, receiver: Callable[[], S | None]) -> None:
        self._watched = watched
        self._receiver = receiver
        self._seen = watched.arrived

    def receiver(self) -> S | None:
        self._seen = self._watched.arrived
        return self._receiver()

    async def news(self) -> None:
        while self._seen == self._watched.arrived:
            await self._watched.news.wait()


class _Registration(Generic[S]):
    """A name that is held while the block runs. Each idle client has one: a generator would cost 400 bytes."""

    __slots__ = ("_holder", "_name", "_receiving", "_registry", "_session", "_visible")

    def __init__(self, registry: LocalRegistry[S], name: str, session: S, receiving: bool, visible: bool) -> None:
        self._registry = registry
        self._name = name
        self._session = session
        self._receiving = receiving
        self._visible = visible
        self._holder: _Holder[S]

    async def __aenter__(self) -> None:
        self._holder = await self._registry.take(self._name, self._session, self._receiving, self._visible)

    async def __aexit__(self, *_: object) -> None:
        # Without the lock, which could not be waited for when this task is being cancelled: there is no checkpoint in
        # here, so nobody sees it half done.
        self._registry.release(self._name, self._holder, self._session)


class LocalRegistry(Registry[S]):
    """The names of one process.

    ``_order`` has the visible ones sorted: to put one in moves at most 8 bytes for each behind it (10,000 names: 3 us),
    where to sort them for each page of a list would take milliseconds.
    """

    def __init__(self, sessions_per_name: int) -> None:
        self._lock = trio.Lock()
        self._holders: dict[str, _Holder[S]] = {}
        self._order: list[str] = []
        self._watched: dict[str, _Watched] = {}
        self._seekers: dict[tuple[str, str], Seeking[S]] = {}  # by who seeks whom; never both ways round
        self._most = sessions_per_name

    def __repr__(self) -> str:
        return f"<LocalRegistry of {len(self._holders)} names>"

    def register(
        self, name: str, session: S, *, receiving: bool, visible: bool = True
    ) -> AbstractAsyncContextManager[None]:
        return _Registration(self, name, session, receiving, visible)

    async def take(self, name: str, session: S, receiving: bool, visible: bool) -> _Holder[S]:
        """The beginning of a registration. Raises what :meth:`register` does."""
        async with self._lock:
            holder = self._holders.get(name)
            if holder is None:
                holder = self._holders[name] = _Holder(session.key)
            elif holder.key != session.key:
                raise NameTaken("Username already taken")
            if not receiving and len(holder.senders) >= self._most:
                raise RelayRefused(f"{self._most} connections send as {name} already")
            if visible:
                self._show(name, holder, session)
            if receiving:
                if holder.receiver is not None:
                    holder.receiver.replace()
                    self._hide(name, holder, holder.receiver)
                holder.receiver = session
                if name in self._watched:
                    self._watched[name].somebody_came()
            else:
                holder.senders.append(session)
        return holder

    def release(self, name: str, holder: _Holder[S], session: S) -> None:
        """The end of a registration."""
        # By identity: a session that was replaced must not take its successor's place away.
        if holder.receiver is session:
            holder.receiver = None
        holder.senders = [other for other in holder.senders if other is not session]
        self._hide(name, holder, session)
        if holder.empty and self._holders.get(name) is holder:
            del self._holders[name]

    def _show(self, name: str, holder: _Holder[S], session: S) -> None:
        if not holder.visible:
            holder.since = int(time.time())
            insort(self._order, name)
        holder.visible.append(session)

    def _hide(self, name: str, holder: _Holder[S], session: S) -> None:
        if session in holder.visible:
            holder.visible.remove(session)
            if not holder.visible:
                del self._order[bisect_left(self._order, name)]

    def receiver(self, name: str) -> S | None:
        holder = self._holders.get(name)
        return holder.receiver if holder else None

    @asynccontextmanager
    async def arrivals(self, name: str) -> AsyncIterator[Arrivals[S]]:
        watched = self._watched.setdefault(name, _Watched())
        watched.watchers += 1
        try:
            yield _LocalArrivals(watched, lambda: self.receiver(name))
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[name]

    @asynccontextmanager
    async def seeking(self, name: str, other: str, session: S, *, again: bool = False) -> AsyncIterator[Seeking[S]]:
        mine = Seeking(session)
        async with self._lock:
            theirs = self._seekers.pop((other, name), None)
            ours = self._seekers.get((name, other))
            if theirs is not None:
                theirs.end(met=True)
                mine.found = theirs.session
            elif ours is not None and again:
                mine.end(met=False)
            else:
                if ours is not None:
                    ours.end(met=False)
                self._seekers[name, other] = mine
        try:
            yield mine
        finally:
            # By identity, and without the lock, as with names.
            if self._seekers.get((name, other)) is mine:
                del self._seekers[name, other]

    def people(self, after: str | None = None, most: int | None = None) -> list[Person]:
        first = 0 if after is None else bisect_right(self._order, after)
        return [self._person(name) for name in self._order[first : None if most is None else first + most]]

    def person(self, name: str) -> Person | None:
        holder = self._holders.get(name)
        return self._person(name) if holder and holder.visible else None

    def near(self, name: str, most: int) -> list[str]:
        here = bisect_left(self._order, name)
        first = max(0, min(here - most // 2, len(self._order) - most))
        return [
            other
            for other in self._order[first : first + most]
            if other != name and self._holders[other].receiver in self._holders[other].visible
        ]

    def _person(self, name: str) -> Person:
        holder = self._holders[name]
        return Person(name=name, key=holder.key, receiving=holder.receiver in holder.visible, since=holder.since)
