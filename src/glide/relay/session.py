"""One control connection's life: Hello, the name, and then messages both ways until either side ends it.

Two tasks: one reads what the client says and acts on it, the other sends what is in the outbox, and a keepalive when
there is nothing to say. Others reach the client only through the outbox, which never makes them wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
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
    one_error,
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
from glide.relay.registry import Registry
from glide.relay.ringing import Exchange, Outgoing, Party
from glide.relay.transfer import Transfer


@dataclass(frozen=True)
class Shared:
    """What the sessions of one relay have in common. ``on_registered`` is entered while a session is registered."""

    exchange: Exchange
    greeting: str
    on_registered: Callable[[ClientSession], AbstractContextManager[None]]


class ClientSession:
    """A registered client, as the registry and other sessions see it."""

    def __init__(self, connection: Connection, name: str | None, shared: Shared) -> None:
        self.connection = connection
        self.key = connection.peer_key
        self.name = name
        self._exchange = shared.exchange
        self._outbox_in, self._outbox = trio.open_memory_channel[Message](shared.exchange.limits.outbox)
        self._ending: Goodbye | None = None
        self._leaving = False
        self._ringing: dict[bytes, Transfer] = {}  # as receiver, by id
        self._under_way: list[Transfer] = []  # ringing or running, on either side
        self._pushes: dict[bytes, Outgoing] = {}  # as sender, waiting ones too, by id

    def __repr__(self) -> str:
        return f"<ClientSession {self.name or 'without a name'}, {len(self._under_way)} transfers>"

    def tell(self, message: Message) -> bool:
        """Put a message into the outbox; False if the client is too far behind, or leaving. Never waits."""
        if self._ending is not None:
            return False
        try:
            self._outbox_in.send_nowait(message)
        except trio.WouldBlock:
            return False
        return True

    async def answer(self, message: Message | None) -> None:
        """The same, waiting until the client has read enough; nothing happens if it is leaving."""
        if message is not None and self._ending is None:
            try:
                await self._outbox_in.send(message)
            except trio.ClosedResourceError:
                pass  # the session was ended while this waited

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
        if self._ending is None:
            self._ending = goodbye
            self._outbox_in.close()  # what is in the outbox is still sent, then the goodbye
            for push in self._pushes.values():
                push.stop()

    # --- the two tasks ---

    async def serve(self) -> None:
        """Run both until one of them ends, and with them whatever waits."""
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, nursery)
                await self._send()
                nursery.cancel_scope.cancel()

    def call_off(self) -> None:
        """Whoever waits for this client to join a transfer, or for room at it, waits no longer."""
        for transfer in self._under_way:
            transfer.call_off(NobodyThere.code, "has gone")
        self._exchange.seats.wake_all(self.key)

    async def _send(self) -> None:
        """Send the outbox until it is closed, then the goodbye."""
        deadlines = self.connection.deadlines
        while True:
            message: Message = Keepalive()
            with trio.move_on_after(deadlines.keepalive):
                try:
                    message = await self._outbox.receive()
                except trio.EndOfChannel:
                    assert self._ending is not None, "only _end closes the outbox"
                    await self.connection.send(self._ending)
                    return
            await self.connection.send(message)

    async def _listen(self, nursery: trio.Nursery) -> None:
        """Act on what the client says, until it is gone. Whoever does not read the answers is not read from."""
        while True:
            match await self.connection.receive():
                case Push() as push:
                    await self.answer(self._push(push, nursery))
                case Withdraw(transfer=id) if id in self._pushes:
                    self._pushes[id].withdraw()
                case Reject() as reject:
                    transfer = self._ringing.get(reject.transfer)
                    if transfer is not None:
                        # Nobody chooses what the sender's command exits with but for these.
                        code = from_code(reject.code, Declined, NobodyThere, Engaged).code
                        transfer.call_off(code, reject.message)
                case Who(after=after):
                    everybody = self._exchange.registry.people()
                    people = [person for person in everybody if after is None or person.name > after]
                    await self.answer(People(people=tuple(people[:PAGE]), more=len(people) > PAGE))

    def _push(self, push: Push, nursery: trio.Nursery) -> Failed | None:
        """Decide what a push comes to: a ringing transfer, a task that waits until it may ring, or a refusal."""
        exchange = self._exchange
        seats = exchange.seats
        patient = push.wait or push.pair
        if self._ending is not None:
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
    everybody = registry.people()
    here = any(person.name == push.to for person in everybody)
    closest = () if here else names.closest(push.to, (person.name for person in everybody if person.receiving))
    return Failed(
        transfer=push.transfer,
        code=NobodyThere.code,
        message="is connected, but takes no files now" if here else "is not connected",
        closest=tuple(closest),
    )


async def run(connection: Connection, hello: Hello, shared: Shared) -> None:
    """Serve one control connection to its end. Raises a :class:`GlideError` for what the client did wrong."""
    session = ClientSession(connection, hello.name if hello.role is not Role.ASK else None, shared)
    exchange = shared.exchange
    async with AsyncExitStack() as stack:
        try:
            if exchange.draining.is_set():
                raise RelayRefused("The relay is shutting down.")
            if hello.role is not Role.ASK and hello.name is None:
                raise RelayRefused("Say under which name.")
            if session.name is not None:
                registration = exchange.registry.register(
                    session.name, session, receiving=hello.role is Role.RECEIVE, visible=not hello.invisible
                )
                await stack.enter_async_context(registration)
        except (NameTaken, RelayRefused) as error:
            await refuse(connection, error)
            return
        stack.callback(session.call_off)
        await connection.send(Welcome(greeting=shared.greeting, time=int(time.time())))
        connection.patience = connection.deadlines.lost
        with shared.on_registered(session):
            await session.serve()
    await connection.close()


async def refuse(connection: Connection, error: GlideError) -> None:
    """Say no, and why, and close so that it can be read."""
    await connection.send(Refused(code=error.code, message=error.what))
    await connection.close()
