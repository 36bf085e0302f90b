"""One push: its sender is told that it rings, its receiver that somebody comes, and each gets a ticket.

    said -> ringing -> under way -> over
              |  ^
              v  |
             waiting        (only one that is to wait, or to pair: see glide.relay.waiting)

The transfer has a task of its own, in the nursery that outlives control connections; what waits for its receiver is a
task of the sender's session, and ends with it. Between the two is an :class:`Outgoing`, which knows the sender's seat.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from glide.errors import NobodyThere, RelayRefused
from glide.protocol.fields import Message
from glide.protocol.messages import Failed, Incoming, Push, Queued, Ringing, Waiting
from glide.relay.limits import Limits
from glide.relay.registry import Registry
from glide.relay.seats import Seats
from glide.relay.splicing import Budget
from glide.relay.transfer import Tickets, Transfer
from glide.relay.turns import Turns

# Starts a transfer's own task, in the nursery that outlives control connections.
Spawn = Callable[[Callable[[], Awaitable[None]]], None]


class Party(Protocol):
    """What a push knows of the sessions at its two ends."""

    key: bytes
    name: str | None

    def tell(self, message: Message) -> bool:
        """Put a message into the outbox; False if the client is too far behind, or leaving. Never waits."""

    async def answer(self, message: Message) -> None:
        """The same, waiting until the client has read enough; nothing happens if it is leaving."""

    def is_rung(self, transfer: bytes) -> bool:
        """True if a transfer of this id rings here, or is being received."""

    def begin(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        """Take part in a transfer, which has this id if it is ``incoming``."""

    def finish(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        """Take part in it no more."""

    def replace(self) -> None:
        """End: a newer session of the same key has the name."""


@dataclass(frozen=True)
class Exchange:
    """What it takes to ring at one relay."""

    registry: Registry[Party]
    seats: Seats
    tickets: Tickets
    spawn: Spawn
    draining: trio.Event
    limits: Limits
    budget: Budget
    turns: Turns


class Outgoing:
    """One push, from when it was said until it comes to nothing or its transfer is over: so long it has a seat."""

    def __init__(self, push: Push, sender: Party, exchange: Exchange, on_over: Callable[[], object]) -> None:
        self.id = push.transfer
        self.to = push.to
        self.pair = push.pair
        self.sender = sender
        self._exchange = exchange
        self._on_over = on_over
        self._transfer: Transfer | None = None
        self._waiting = trio.CancelScope()
        self._patient = False  # a task waits with it
        self._settled = trio.Event()
        self._queued = False
        self._withdrawn = False
        self._over = False
        exchange.seats.take(sender.key)

    def __repr__(self) -> str:
        state = "over" if self._over else "waiting" if self._transfer is None else repr(self._transfer)
        return f"<Outgoing to {self.to}: {state}>"

    # --- waiting ---

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the block runs, nobody's being there does not end this push; a block that is left early ends it."""
        self._patient = True
        self._exchange.seats.begin_waiting(self.sender.key)
        try:
            with self._waiting:
                yield
        finally:
            self._patient = False
            if self._transfer is None and not self._over:
                self._exchange.seats.end_waiting(self.sender.key)
                self._end()

    def stopped(self) -> bool:
        """True if it must not ring: it was withdrawn, its session ends, or the relay does."""
        return self._waiting.cancel_called or self._exchange.draining.is_set()

    async def queue(self) -> None:
        """Tell the sender, once, that this waits."""
        if not self._queued:
            self._queued = True
            await self.sender.answer(Queued(transfer=self.id))

    async def fail(self, code: str, message: str) -> None:
        """Come to nothing, while nothing rings."""
        await self.sender.answer(Failed(transfer=self.id, code=code, message=message))

    def withdraw(self) -> None:
        """Ring no more, and say nothing of it. A transfer that has come together goes on."""
        self._withdrawn = True
        self.stop()
        if self._transfer is not None:
            self._transfer.call_off("withdrawn", "")

    def stop(self) -> None:
        """Wait no more: the session ends."""
        self._waiting.cancel()

    # --- ringing ---

    async def rings(self, receiver: Party) -> bool:
        """Ring ``receiver``; True when it is over, False if nobody came and this waits on."""
        self._settled = trio.Event()
        self.ring(receiver)
        if self._transfer is not None and self.stopped():
            # While we were finding them. They are told all the same: their own push is used up.
            self._transfer.call_off(NobodyThere.code, "has gone")
        await self._settled.wait()
        return self._over

    def ring(self, receiver: Party) -> None:
        """Ring ``receiver``, by a task of its own. Whoever calls this has seen to the limits."""
        seats = self._exchange.seats
        if self._patient:
            seats.end_waiting(self.sender.key)
        if receiver.is_rung(self.id):
            self._settle((RelayRefused.code, "That transfer is under way already."))
            seats.wake(receiver.key)
            return
        transfer = self._transfer = Transfer(
            self.sender.key, receiver.key, self._exchange.limits, self._exchange.budget, self._exchange.turns
        )
        # Counted from now on, not from when the task first runs: a drain must not miss it.
        seats.take(receiver.key)
        self.sender.begin(transfer)
        receiver.begin(transfer, self.id)
        self._exchange.spawn(partial(self._own, receiver, transfer))

    async def _own(self, receiver: Party, transfer: Transfer) -> None:
        problem: tuple[str, str] | None = None
        try:
            announce = partial(self._announce, receiver, transfer)
            if not await transfer.own(self._exchange.tickets, announce, partial(self._tell_waiting, receiver)):
                problem = transfer.problem
        finally:
            self._transfer = None
            self._exchange.seats.give_back(receiver.key)
            self._settle(problem)
            self.sender.finish(transfer)
            receiver.finish(transfer, self.id)

    def _announce(self, receiver: Party, transfer: Transfer, issued: list[bytes]) -> bool:
        for_sender, for_receiver = issued
        sender = self.sender
        assert sender.name is not None, "only a named session pushes"
        incoming = Incoming(sender=sender.name, key=sender.key, transfer=self.id, ticket=for_receiver, pair=self.pair)
        if not receiver.tell(incoming):
            transfer.problem = (NobodyThere.code, "does not listen to the relay")
            return False
        return sender.tell(Ringing(transfer=self.id, ticket=for_sender, key=receiver.key))

    def _tell_waiting(self, receiver: Party, side: str, seconds: int) -> None:
        for session in (self.sender, receiver):
            session.tell(Waiting(transfer=self.id, side=side, seconds=seconds))

    # --- the end ---

    def _settle(self, problem: tuple[str, str] | None) -> None:
        """Ringing has come to this; without a problem, the transfer took place and is over."""
        if problem is not None and problem[0] == NobodyThere.code and self._patient:
            self._exchange.seats.begin_waiting(self.sender.key)
        else:
            if problem is not None and not self._withdrawn:
                code, message = problem
                self.sender.tell(Failed(transfer=self.id, code=code, message=message))
            self._end()
        self._settled.set()

    def _end(self) -> None:
        self._over = True
        self._exchange.seats.give_back(self.sender.key)
        self._on_over()
