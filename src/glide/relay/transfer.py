"""One transfer at the relay: two tickets, two data connections that come with them, one pipe.

A ticket is 128 random bits, for one side of one transfer and one key, used once, and gone when its time is over. The
table of tickets is the only thing that a data connection can find its transfer by.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from glide.errors import ConnectionLost, NobodyThere, RelayRefused
from glide.net.connection import Connection
from glide.net.streams import close_gently
from glide.protocol.messages import Joined, Refused
from glide.relay.limits import Limits
from glide.relay.pipe import End, Pipe
from glide.relay.splicing import Budget
from glide.relay.turns import Turns


@dataclass(frozen=True)
class Seat:
    """What a ticket stands for."""

    transfer: Transfer
    end: End
    key: bytes

    async def take(self, connection: Connection) -> None:
        """Be one side of the transfer to its end, and close so that the client can read all of it."""
        await self.transfer.take_part(self.end, connection)
        await close_gently(connection.stream, self.transfer.linger)


class Tickets:
    """The tickets that have been given out and not yet been used."""

    def __init__(self) -> None:
        self._seats: dict[bytes, Seat] = {}
        self._fewer = trio.Event()

    def __len__(self) -> int:
        return len(self._seats)

    async def used_up(self) -> None:
        """Wait until none is left."""
        while self._seats:
            await self._fewer.wait()

    def _take(self, ticket: bytes) -> None:
        if self._seats.pop(ticket, None) is not None:
            self._fewer.set()
            self._fewer = trio.Event()

    @contextmanager
    def issue(self, *seats: Seat) -> Iterator[list[bytes]]:
        """A ticket for each seat, good while the block runs."""
        tickets = [secrets.token_bytes(16) for _ in seats]
        self._seats.update(zip(tickets, seats, strict=True))
        try:
            yield tickets
        finally:
            for ticket in tickets:
                self._take(ticket)

    def redeem(self, ticket: bytes, key: bytes) -> Seat:
        """The seat of ``ticket``, which is used up by that. Raises :class:`RelayRefused` (R9)."""
        seat = self._seats.get(ticket)
        if seat is None or seat.key != key:
            raise RelayRefused("That ticket is not valid: it was used, has expired, or was given to another key.")
        self._take(ticket)
        return seat


class Transfer:
    """From the push until both data connections have ended."""

    def __init__(self, sender: bytes, receiver: bytes, limits: Limits, budget: Budget, turns: Turns) -> None:
        self.pipe = Pipe(limits, budget, turns)
        self.seats = (Seat(self, self.pipe.sender, sender), Seat(self, self.pipe.receiver, receiver))
        self.linger = limits.linger
        self._limits = limits
        self._arrived = 0
        self._both_here = trio.Event()
        self._called_off = trio.Event()
        # What the sender is told if it does not take place: a code of glide.errors, and words.
        self.problem = (NobodyThere.code, "did not come to take it")

    def __repr__(self) -> str:
        return f"<Transfer: {self._arrived} arrived, {self.pipe!r}>"

    def call_off(self, code: str, message: str) -> None:
        """Somebody is not coming, and why."""
        if not self._both_here.is_set():
            self.problem = (code, message)
            self._called_off.set()

    async def own(
        self, tickets: Tickets, announce: Callable[[list[bytes]], bool], tell: Callable[[str, int], None]
    ) -> bool:
        """Be the task that this transfer belongs to; True if it took place.

        Gives out the tickets through ``announce``, waits for both sides, watches the pipe, and returns when both have
        ended. What is left of a transfer that never came together is undone here.
        """
        with tickets.issue(*self.seats) as issued:
            if announce(issued):
                with trio.move_on_after(self._limits.ticket_life):
                    await self._joined_or_not()
        if not self._both_here.is_set():
            self._called_off.set()
            return False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pipe.watch, tell)
            await self.pipe.over.wait()
            nursery.cancel_scope.cancel()
        return True

    async def _joined_or_not(self) -> None:
        """Wait until both sides are here, or it is known that they will not be."""
        async with trio.open_nursery() as nursery:

            async def until(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, self._both_here)
            nursery.start_soon(until, self._called_off)

    async def take_part(self, end: End, connection: Connection) -> None:
        """Be one side: wait for the other, then carry bytes until the end."""
        self._arrived += 1
        if self._arrived == 2 and not self._called_off.is_set():
            self._both_here.set()
        try:
            await self._joined_or_not()
            if self._both_here.is_set():
                await connection.send(Joined())
                stream, rest = connection.detach()
                await end.run(stream, rest)
            else:
                refusal = "The other side of this transfer did not come."
                await connection.send(Refused(code=RelayRefused.code, message=refusal))
        except ConnectionLost:
            pass
        finally:
            self.pipe.leave(end)
