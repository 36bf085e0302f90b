"""One control connection's life: Hello, the name, and then messages both ways until either side ends it.

Two tasks: one reads what the client says and acts on it, the other sends what is in the outbox, and a keepalive when
there is nothing to say. Others reach the client only through the outbox, which never makes them wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field

import trio

from glide.errors import Declined, GlideError, NameTaken, NobodyThere, RelayRefused, Replaced, Unreachable, one_error
from glide.net.connection import Connection
from glide.protocol import names
from glide.protocol.fields import Message
from glide.protocol.messages import (
    PAGE,
    Failed,
    Goodbye,
    Hello,
    Incoming,
    Keepalive,
    People,
    Push,
    Refused,
    Reject,
    Ringing,
    Role,
    Waiting,
    Welcome,
    Who,
)
from glide.relay.limits import Limits
from glide.relay.registry import Registry
from glide.relay.transfer import Tickets, Transfer

# Starts a transfer's own task, in the nursery that outlives control connections.
Spawn = Callable[[Callable[[], Awaitable[None]]], None]


@dataclass(frozen=True)
class Shared:
    """What the sessions of one relay have in common. ``on_registered`` is entered while a session is registered."""

    registry: Registry[ClientSession]
    tickets: Tickets
    spawn: Spawn
    draining: trio.Event
    limits: Limits
    greeting: str
    on_registered: Callable[[ClientSession], AbstractContextManager[None]]
    # Transfers, ringing or running, of each key, whatever sessions they belong to.
    under_way: Counter[bytes] = field(default_factory=Counter)


class ClientSession:
    """A registered client, as the registry and other sessions see it."""

    def __init__(self, connection: Connection, name: str | None, shared: Shared) -> None:
        self.connection = connection
        self.key = connection.peer_key
        self.name = name
        self._shared = shared
        self._outbox_in, self._outbox = trio.open_memory_channel[Message](shared.limits.outbox)
        self._ending: Goodbye | None = None
        self._leaving = False
        self._ringing: dict[bytes, Transfer] = {}  # as receiver, by id
        self._under_way: list[Transfer] = []  # ringing or running, on either side

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

    # --- the two tasks ---

    async def serve(self) -> None:
        """Run both until one of them ends."""
        try:
            with one_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._listen)
                    await self._send()
                    nursery.cancel_scope.cancel()
        finally:
            # Whoever waits for this client to join a transfer waits no longer.
            for transfer in self._under_way:
                transfer.call_off(NobodyThere.code, "has gone")

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

    async def _listen(self) -> None:
        """Act on what the client says, until it is gone. Whoever does not read the answers is not read from."""
        while True:
            match await self.connection.receive():
                case Push() as push:
                    await self._answer(self._push(push))
                case Reject() as reject:
                    transfer = self._ringing.get(reject.transfer)
                    if transfer is not None:
                        # Nobody chooses what the sender's command exits with but for these two.
                        code = NobodyThere.code if reject.code == NobodyThere.code else Declined.code
                        transfer.call_off(code, reject.message)
                case Who(after=after):
                    everybody = self._shared.registry.people()
                    people = [person for person in everybody if after is None or person.name > after]
                    await self._answer(People(people=tuple(people[:PAGE]), more=len(people) > PAGE))

    async def _answer(self, message: Message | None) -> None:
        if message is not None and self._ending is None:
            try:
                await self._outbox_in.send(message)
            except trio.ClosedResourceError:
                pass  # the session was ended while this waited

    def _push(self, push: Push) -> Failed | None:
        """Decide what a push comes to: a ringing transfer with a task of its own, or a refusal."""
        shared = self._shared
        most = shared.limits.transfers_per_client
        found = shared.registry.receiver(push.to)
        if self.name is None:
            problem = "Register a name before you push."
        elif shared.draining.is_set():
            problem = "The relay is shutting down."
        elif found is None:
            return _nobody(push, shared.registry)
        elif shared.under_way[self.key] >= most:
            problem = f"You have {most} transfers under way, which is the most that this relay allows."
        elif shared.under_way[found.key] >= most:
            problem = f"{push.to} has {most} transfers under way, which is the most that this relay allows."
        elif push.transfer in found._ringing:
            problem = "That transfer is under way already."
        else:
            transfer = Transfer(self.key, found.key, shared.limits)
            shared.spawn(_Ring(self, found, push.transfer, transfer, shared.tickets).run)
            return None
        return Failed(transfer=push.transfer, code=RelayRefused.code, message=problem)

    # --- transfers of this client ---

    def begin(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        self._shared.under_way[self.key] += 1
        self._under_way.append(transfer)
        if incoming is not None:
            self._ringing[incoming] = transfer

    def finish(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        self._shared.under_way[self.key] -= 1
        if not self._shared.under_way[self.key]:
            del self._shared.under_way[self.key]
        self._under_way.remove(transfer)
        if incoming is not None:
            self._ringing.pop(incoming, None)
        if self._leaving:
            self.leave_when_idle()


def _nobody(push: Push, registry: Registry[ClientSession]) -> Failed:
    everybody = registry.people()
    here = any(person.name == push.to for person in everybody)
    closest = () if here else names.closest(push.to, (person.name for person in everybody if person.receiving))
    return Failed(
        transfer=push.transfer,
        code=NobodyThere.code,
        message="is connected, but takes no files now" if here else "is not connected",
        closest=tuple(closest),
    )


class _Ring:
    """A push that found somebody: the task that the transfer belongs to."""

    def __init__(
        self, sender: ClientSession, receiver: ClientSession, id: bytes, transfer: Transfer, tickets: Tickets
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._id = id
        self._transfer = transfer
        self._tickets = tickets
        # Counted from now on, not from when the task first runs: a drain must not miss it.
        sender.begin(transfer)
        receiver.begin(transfer, id)

    async def run(self) -> None:
        try:
            if not await self._transfer.own(self._tickets, self._announce, self._tell_waiting):
                code, message = self._transfer.problem
                self._sender.tell(Failed(transfer=self._id, code=code, message=message))
        finally:
            self._sender.finish(self._transfer)
            self._receiver.finish(self._transfer, self._id)

    def _announce(self, issued: list[bytes]) -> bool:
        for_sender, for_receiver = issued
        assert self._sender.name is not None, "only a named session pushes"
        incoming = Incoming(sender=self._sender.name, key=self._sender.key, transfer=self._id, ticket=for_receiver)
        if not self._receiver.tell(incoming):
            self._transfer.problem = ("nobody", "does not listen to the relay")
            return False
        return self._sender.tell(Ringing(transfer=self._id, ticket=for_sender, key=self._receiver.key))

    def _tell_waiting(self, side: str, seconds: int) -> None:
        for session in (self._sender, self._receiver):
            session.tell(Waiting(transfer=self._id, side=side, seconds=seconds))


async def run(connection: Connection, hello: Hello, shared: Shared) -> None:
    """Serve one control connection to its end. Raises a :class:`GlideError` for what the client did wrong."""
    session = ClientSession(connection, hello.name if hello.role is not Role.ASK else None, shared)
    async with AsyncExitStack() as stack:
        try:
            if shared.draining.is_set():
                raise RelayRefused("The relay is shutting down.")
            if hello.role is not Role.ASK and hello.name is None:
                raise RelayRefused("Say under which name.")
            if session.name is not None:
                receiving = hello.role is Role.RECEIVE
                await stack.enter_async_context(shared.registry.register(session.name, session, receiving=receiving))
        except (NameTaken, RelayRefused) as error:
            await refuse(connection, error)
            return
        await connection.send(Welcome(greeting=shared.greeting))
        connection.patience = connection.deadlines.lost
        with shared.on_registered(session):
            await session.serve()
    await connection.close()


async def refuse(connection: Connection, error: GlideError) -> None:
    """Say no, and why, and close so that it can be read."""
    await connection.send(Refused(code=error.code, message=error.what))
    await connection.close()
