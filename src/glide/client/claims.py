"""Who works on what: the same things from the same person are received once at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from glide.errors import Stopped
from glide.transfer.manifest import Manifest


class Superseded(Stopped):
    """The same is under way on a newer connection."""

    worth_a_retry = True


@dataclass
class _UnderWay:
    """One transfer that has been looked at: to be cancelled when the same is offered anew."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)


class Claims:
    """Of all transfers at one receiver, by the sender's key, and what they are."""

    def __init__(self) -> None:
        self._held: dict[tuple[bytes, bytes], _UnderWay] = {}

    @asynccontextmanager
    async def claim(self, key: bytes, manifest: Manifest, on_superseded: Callable[[], object]) -> AsyncIterator[None]:
        """Let what is under way of exactly the same from the same person end first: its sender has come anew.

        If that happens to this block, ``on_superseded`` is called before the newer one goes on, and
        :class:`Superseded` is raised.
        """
        identity = key, manifest.fingerprint()
        while (older := self._held.get(identity)) is not None:
            older.scope.cancel()
            await older.over.wait()
        mine = self._held[identity] = _UnderWay()
        try:
            with mine.scope:
                yield
        finally:
            if mine.scope.cancelled_caught:
                on_superseded()
            del self._held[identity]
            mine.over.set()
        if mine.scope.cancelled_caught:
            raise Superseded(
                "Its sender has begun anew.",
                "It goes on there.",
                for_peer="the same files were offered anew.",
            )
