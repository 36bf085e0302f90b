"""How long anything may take. Every wait of glide is under one of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import trio

from glide.errors import GlideError


class Deadlines(msgspec.Struct, frozen=True):
    """In seconds. The defaults suit people and the internet; tests run with shorter ones."""

    handshake: float = 10.0  # for each step of a connection's beginning: a round trip around the world takes 0.4
    keepalive: float = 30.0  # a NAT forgets a quiet connection after minutes; the strictest known after one
    lost: float = 90.0  # three keepalives missed
    join: float = 30.0  # for the partner to come to a data connection: longer than a ticket lives
    reason: float = 2.0  # for a reason that is already on its way on another connection
    farewell: float = 2.0  # for saying why, when the connection is about to be closed anyway


class IdleDeadline:
    """Ends a block in which nothing has been touched for a while; made by :func:`idle_deadline`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.scope = trio.CancelScope()

    def touch(self) -> None:
        """Something moved: start again."""
        self.scope.deadline = trio.current_time() + self.seconds


@contextmanager
def idle_deadline(seconds: float, blame: Callable[[], GlideError]) -> Iterator[IdleDeadline]:
    """Cancel the block, and raise what ``blame`` returns, once ``seconds`` pass without a touch.

    0 means no deadline. ``blame`` is asked after the block has ended: it should speak of what it saw last.
    """
    idle = IdleDeadline(seconds or math.inf)
    idle.touch()
    with idle.scope:
        yield idle
    if idle.scope.cancelled_caught:
        raise blame()
