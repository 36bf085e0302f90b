"""A relay that runs in the test's own process, and clients that say to it whatever the test wants."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

import trio

from glide.crypto.handshake import Handshake, prologue
from glide.crypto.identity import Identity
from glide.crypto.records import Sealer
from glide.events import Connected, Disconnected, Event
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate
from glide.protocol import preface
from glide.protocol.fields import Message
from glide.protocol.messages import (
    Hello,
    Incoming,
    Joined,
    People,
    Push,
    Queued,
    Ringing,
    Role,
    Ticket,
    Welcome,
    Who,
)
from glide.protocol.preface import Purpose
from glide.relay.registry import LocalRegistry
from glide.relay.server import Relay

# How long a test waits for what must come. Far more than it takes; it only bounds a failure.
SOON = 10.0

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class Watched(Generic[T]):
    """A list that can be waited on."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._grown = trio.Event()

    def add(self, item: T) -> None:
        self.items.append(item)
        self._grown.set()

    async def until(self, wanted: Callable[[T], bool], count: int = 1) -> list[T]:
        """Wait until ``count`` items are as wanted; they."""
        with trio.fail_after(SOON):
            while len(found := [item for item in self.items if wanted(item)]) < count:
                self._grown = trio.Event()
                await self._grown.wait()
        return found


class Log(logging.Handler):
    """What the relay logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Watched[logging.LogRecord] = Watched()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.add(record)

    async def about(self, address: str) -> list[str]:
        """The lines that speak of this client, of which there must be one at least."""
        return [line.getMessage() for line in await self.lines.until(lambda line: address in line.getMessage())]


@dataclass
class Running:
    """A relay that serves."""

    relay: Relay
    identity: Identity
    events: Watched[Event]
    log: Log
    port: int = 0
    ended: trio.Event = field(default_factory=trio.Event)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            _, self.port = await nursery.start(self.relay.serve)
            task_status.started()
        self.ended.set()

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def connect(self, identity: Identity, purpose: Purpose = Purpose.CONTROL) -> Connection:
        connection, _ = await initiate(
            await self.dial(), purpose, identity, peer="the relay", deadlines=Deadlines(), check=self.is_the_relay
        )
        return connection

    def is_the_relay(self, key: bytes) -> None:
        assert key == self.identity.public

    @asynccontextmanager
    async def client(
        self, name: str, identity: Identity | None = None, role: Role = Role.RECEIVE, *, invisible: bool = False
    ) -> AsyncIterator[Client]:
        """A registered client, closed when the block ends."""
        me = identity or Identity.generate()
        async with await self.connect(me) as connection:
            client = Client(self, me, name, connection)
            await connection.send(Hello(role=role, name=name, invisible=invisible))
            await client.hears(Welcome)
            yield client

    async def gone(self, name: str, times: int = 1) -> None:
        """Wait until ``name`` has gone so many times, all told."""
        await self.events.until(lambda event: isinstance(event, Disconnected) and event.name == name, times)

    def here(self) -> list[str]:
        """Who has connected and not disconnected."""
        names: list[str] = []
        for event in self.events.items:
            if isinstance(event, Connected):
                names.append(event.name)
            elif isinstance(event, Disconnected):
                names.remove(event.name)
        return names


@dataclass
class Client:
    """A control connection of the tests."""

    home: Running
    identity: Identity
    name: str
    connection: Connection

    async def hears(self, kind: type[M]) -> M:
        """The next message, which must be of this type."""
        with trio.fail_after(SOON):
            message = await self.connection.receive()
        assert isinstance(message, kind), message
        return message

    async def says(self, message: Message) -> None:
        with trio.fail_after(SOON):
            await self.connection.send(message)

    async def rings(self, receiver: Client, transfer: bytes) -> tuple[Ringing, Incoming]:
        """Push to somebody who is there: what both are told."""
        await self.says(Push(to=receiver.name, transfer=transfer))
        return await self.hears(Ringing), await receiver.hears(Incoming)

    async def waits(self, to: str, transfer: bytes, *, pair: bool = False) -> None:
        """Push to somebody who is not there, and be told that it waits."""
        await self.says(Push(to=to, transfer=transfer, wait=not pair, pair=pair))
        assert await self.hears(Queued) == Queued(transfer=transfer)

    async def heard_ringing(self, receiver: Client) -> tuple[Ringing, Incoming]:
        """A push of ours that waited rings at both."""
        ringing, incoming = await self.hears(Ringing), await receiver.hears(Incoming)
        assert ringing.transfer == incoming.transfer
        return ringing, incoming

    async def heard_all(self) -> None:
        """There was nothing more to hear of what has happened so far; what this client has said has been read."""
        await self.says(Who())
        await self.hears(People)

    async def redeem(self, ticket: bytes) -> Connection:
        """A data connection on which the ticket has been shown."""
        connection = await self.home.connect(self.identity, Purpose.DATA)
        await connection.send(Ticket(ticket=ticket))
        return connection


@dataclass(eq=False)
class Absent:
    """Somebody who is registered and has no connection."""

    key: bytes

    def replace(self) -> None:
        pass


@asynccontextmanager
async def crowd(home: Running, count: int) -> AsyncIterator[list[str]]:
    """So many people at once; their names."""
    names = [f"person-{number:04}" for number in range(count)]
    registry = cast("LocalRegistry[Absent]", home.relay.registry)
    async with AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(registry.register(name, Absent(name.encode().ljust(32)), receiving=False))
        yield names


async def joined(data: Connection) -> trio.SocketStream:
    """The bare stream of a data connection, once its partner is there."""
    with trio.fail_after(SOON):
        assert await data.receive() == Joined()
    stream, rest = data.detach()
    assert rest == b""
    assert isinstance(stream, trio.SocketStream)
    return stream


@asynccontextmanager
async def met(
    sender: Client, receiver: Client, ringing: Ringing, incoming: Incoming
) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Both come with their tickets: the sender's and the receiver's bare stream."""
    one, other = await sender.redeem(ringing.ticket), await receiver.redeem(incoming.ticket)
    async with await joined(one) as left, await joined(other) as right:
        yield left, right


@asynccontextmanager
async def transfer(
    sender: Client, receiver: Client, id: bytes = bytes(16)
) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A transfer under way: the sender's and the receiver's bare stream."""
    ringing, incoming = await sender.rings(receiver, id)
    async with met(sender, receiver, ringing, incoming) as streams:
        yield streams


async def exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """So many bytes."""
    got = bytearray()
    with trio.fail_after(SOON):
        while len(got) < count:
            piece = await stream.receive_some(count - len(got))
            assert piece, f"the stream ended after {len(got)} of {count} bytes"
            got += piece
    return bytes(got)


async def rest_of(stream: trio.abc.ReceiveStream) -> bytes:
    """All that comes until the end, be it orderly or a reset."""
    got = bytearray()
    with trio.fail_after(SOON):
        try:
            async for piece in stream:
                got += piece
        except trio.BrokenResourceError:
            pass
    return bytes(got)


async def shaken(stream: trio.SocketStream, purpose: Purpose, identity: Identity) -> Sealer:
    """Do the handshake by hand: what then seals any bytes as records, whether they are messages or not."""
    handshake = Handshake(identity, prologue(preface.opening(purpose)), initiator=True)
    first = handshake.write()
    await stream.send_all(preface.opening(purpose) + len(first).to_bytes(2, "big") + first)
    assert await exactly(stream, len(preface.ok())) == preface.ok()
    length = int.from_bytes(await exactly(stream, 2), "big")
    handshake.read(await exactly(stream, length))
    third = handshake.write()
    await stream.send_all(len(third).to_bytes(2, "big") + third)
    return Sealer(handshake.finish().send)
