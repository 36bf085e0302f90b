"""One control connection's life: Hello, the name, and then messages both ways until either side ends it.

The session's task reads what the client says and acts on it. What is said to the client goes into its outbox, which
has a task of its own while there is something to say. Others reach the client only through it, and never wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import trio

from glide.errors import (
    Declined,
    Engaged,
    GlideError,
    NameTaken,
    NobodyThere,
    RelayRefused,
    Replaced,
    Unreachable,
    from_code,
)
from glide.net.connection import Connection
from glide.protocol import names
from glide.protocol.fields import Message
from glide.protocol.messages import (
    PAGE,
    Failed,
    Goodbye,
    Hello,
    Keepalive,
    People,
    Push,
    Refused,
    Reject,
    Role,
    Welcome,
    Who,
    Withdraw,
)
from glide.relay import waiting
from glide.relay.clients import Clients
from glide.relay.outbox import Outbox
from glide.relay.registry import Registry
from glide.relay.ringing import Exchange, Outgoing, Party
from glide.relay.transfer import Transfer

# Where a push finds nobody, so many names next to the one it named are looked at for one that was meant.
_NEAR = 500


@dataclass(frozen=True)
class Shared:
    """What the sessions of one relay have in common, and whom they tell that they are welcome, and that they end."""

    exchange: Exchange
    clients: Clients
    greeting: str
    came: Callable[[ClientSession], None]
    left: Callable[[ClientSession], None]


class ClientSession:
    """A registered client, as the registry and other sessions see it."""

    __slots__ = ("_leaving", "_outbox", "_pushes", "_ringing", "_shared", "_under_way", "connection", "key", "name")

    def __init__(self, connection: Connection, name: str | None, shared: Shared) -> None:
        self.connection = connection
        self.key = connection.peer_key
        self.name = name
        self._shared = shared
        self._outbox = Outbox(connection, shared.exchange.limits.outbox)
        self._leaving = False
        self._ringing: dict[bytes, Transfer] = {}  # as receiver, by id
        self._under_way: list[Transfer] = []  # ringing or running, on either side
        self._pushes: dict[bytes, Outgoing] = {}  # as sender, waiting ones too, by id

    def __repr__(self) -> str:
        return f"<ClientSession {self.name or 'without a name'}, {len(self._under_way)} transfers>"

    def tell(self, message: Message) -> bool:
        """Put a message into the outbox; False if the client is too far behind, or leaving. Never waits."""
        return self._outbox.put(message)

    async def answer(self, message: Message) -> None:
        """The same, waiting until the client has read enough; nothing happens if it is leaving."""
        await self._outbox.put_in_turn(message)

    def keep_alive(self) -> None:
        if not self._outbox.speaks:  # else the client hears from us anyway, or does not read
            self._outbox.put(Keepalive())

    def is_rung(self, transfer: bytes) -> bool:
        return transfer in self._ringing

    def replace(self) -> None:
        self._end(Goodbye(code=Replaced.code, message="A newer session of yours has taken the name over."))

    def leave_when_idle(self) -> None:
        """The relay is closing: end as soon as no transfer of this client is under way."""
        self._leaving = True
        if not self._under_way:
            self._end(Goodbye(code=Unreachable.code, message="The relay is shutting down."))

    def _end(self, goodbye: Goodbye) -> None:
        if not self._outbox.over:
            self._outbox.put_last(goodbye)
            for push in self._pushes.values():
                push.stop()

    async def serve(self) -> None:
        """Listen until either side ends it, and with it whatever is being said or waits."""
        lost: GlideError | None = None
        async with trio.open_nursery() as nursery:
            self._outbox.begin(nursery)
            try:
                await self._listen(nursery)
            except GlideError as error:
                lost = error  # raised below: from in here it would come out in a group
            finally:
                self._outbox.close()
            nursery.cancel_scope.cancel()
        try:
            if lost is not None:
                raise lost
        finally:
            del lost  # it knows this frame: neither would be freed before the garbage collector comes

    def call_off(self) -> None:
        """Whoever waits for this client to join a transfer, or for room at it, waits no longer."""
        for transfer in self._under_way:
            transfer.call_off(NobodyThere.code, "has gone")
        self._shared.exchange.seats.wake_all(self.key)

    async def _listen(self, nursery: trio.Nursery) -> None:
        """Act on what the client says, until it is gone. Whoever does not read the answers is not read from."""
        while True:
            match await self.connection.receive():
                case Push() as push:
                    if (failed := self._push(push, nursery)) is not None:
                        await self.answer(failed)
                case Withdraw(transfer=id) if id in self._pushes:
                    self._pushes[id].withdraw()
                case Reject() as reject:
                    transfer = self._ringing.get(reject.transfer)
                    if transfer is not None:
                        # Nobody chooses what the sender's command exits with but for these.
                        code = from_code(reject.code, Declined, NobodyThere, Engaged).code
                        transfer.call_off(code, reject.message)
                case Who(after=after):
                    people = self._shared.exchange.registry.people(after, PAGE + 1)
                    await self.answer(People(people=tuple(people[:PAGE]), more=len(people) > PAGE))

    def _push(self, push: Push, nursery: trio.Nursery) -> Failed | None:
        """Decide what a push comes to: a ringing transfer, a task that waits until it may ring, or a refusal."""
        exchange = self._shared.exchange
        seats = exchange.seats
        patient = push.wait or push.pair
        if self._outbox.over:
            return None
        found = exchange.registry.receiver(push.to)
        if self.name is None:
            problem = "Register a name before you push."
        elif exchange.draining.is_set():
            problem = "The relay is shutting down."
        elif found is None and not patient:
            return _nobody(push, exchange.registry)
        elif not seats.may_push(self.key):
            problem = f"You have {seats.most} transfers under way, which is the most that this relay allows."
        elif push.transfer in self._pushes or (found is not None and not patient and found.is_rung(push.transfer)):
            problem = "That transfer is under way already."
        elif push.pair and push.to == self.name:
            problem = "You cannot pair with yourself."
        elif found is not None and not patient and not seats.may_be_rung(found.key):
            problem = f"{push.to} has {seats.most} transfers under way, which is the most that this relay allows."
        else:
            outgoing = Outgoing(push, self, exchange, on_over=partial(self._pushes.pop, push.transfer))
            self._pushes[push.transfer] = outgoing
            if patient:
                nursery.start_soon(waiting.wait, outgoing, exchange)
            elif found is not None:
                outgoing.ring(found)
            return None
        return Failed(transfer=push.transfer, code=RelayRefused.code, message=problem)

    # --- transfers of this client ---

    def begin(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        self._under_way.append(transfer)
        if incoming is not None:
            self._ringing[incoming] = transfer

    def finish(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        self._under_way.remove(transfer)
        if incoming is not None:
            self._ringing.pop(incoming, None)
        if self._leaving:
            self.leave_when_idle()


def _nobody(push: Push, registry: Registry[Party]) -> Failed:
    here = registry.person(push.to) is not None
    return Failed(
        transfer=push.transfer,
        code=NobodyThere.code,
        message="is connected, but takes no files now" if here else "is not connected",
        closest=() if here else tuple(names.closest(push.to, registry.near(push.to, _NEAR))),
    )


async def run(connection: Connection, hello: Hello, shared: Shared) -> None:
    """Serve one control connection to its end. Raises a :class:`GlideError` for what the client did wrong."""
    session = ClientSession(connection, hello.name if hello.role is not Role.ASK else None, shared)
    exchange = shared.exchange
    try:
        if exchange.draining.is_set():
            raise RelayRefused("The relay is shutting down.")
        if hello.role is not Role.ASK and hello.name is None:
            raise RelayRefused("Say under which name.")
        registration = (
            nullcontext()
            if session.name is None
            else exchange.registry.register(
                session.name, session, receiving=hello.role is Role.RECEIVE, visible=not hello.invisible
            )
        )
        async with registration:
            try:
                await connection.send(Welcome(greeting=shared.greeting, time=int(time.time())))
                shared.came(session)
                await session.serve()
            finally:
                shared.left(session)
                session.call_off()
    except (NameTaken, RelayRefused) as error:  # which nothing raises any more once it is welcome
        await refuse(connection, error)
    else:
        await connection.close()


async def refuse(connection: Connection, error: GlideError) -> None:
    """Say no, and why, and close so that it can be read."""
    await connection.send(Refused(code=error.code, message=error.what))
    await connection.close()
