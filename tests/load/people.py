"""A small client of the relay: what it takes to be registered, to ring and to be joined, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from glide.crypto.identity import Identity
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate
from glide.protocol.messages import Hello, Incoming, Joined, Push, Ringing, Role, Ticket, Waiting, Welcome
from glide.protocol.preface import Purpose

# Longer than the defaults: a loaded machine is what this is about, and who waits says so in the figures.
DEADLINES = Deadlines(handshake=60.0)


class Unserved(Exception):
    """The relay, or the other side, did not do what it should have."""


@dataclass(frozen=True)
class Home:
    """A relay on this machine, and the key that it must prove."""

    port: int
    key: bytes

    async def connect(self, identity: Identity, purpose: Purpose) -> Connection:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            connection, _ = await initiate(
                stream, purpose, identity, peer="the relay", deadlines=DEADLINES, check=self._check
            )
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return connection

    def _check(self, key: bytes) -> None:
        if key != self.key:
            raise Unserved("something else answers on the relay's port")

    @asynccontextmanager
    async def client(self, name: str | None, identity: Identity, role: Role) -> AsyncIterator[Connection]:
        """Registered, and kept alive, while the block runs, whose own part is to listen."""
        async with await self.connect(identity, Purpose.CONTROL) as connection:
            await connection.send(Hello(role=role, name=name))
            answer = await connection.receive()
            if not isinstance(answer, Welcome):
                raise Unserved(f"{name} heard {answer!r}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.keep_alive)
                yield connection
                nursery.cancel_scope.cancel()

    async def join(self, identity: Identity, ticket: bytes) -> tuple[trio.SocketStream, bytes]:
        """The bare stream to whoever has the other ticket, and their first bytes if any."""
        connection = await self.connect(identity, Purpose.DATA)
        await connection.send(Ticket(ticket=ticket))
        answer = await connection.receive()
        stream, rest = connection.detach()
        if not isinstance(answer, Joined) or not isinstance(stream, trio.SocketStream):
            raise Unserved(f"a data connection heard {answer!r}")
        return stream, rest

    async def ring(self, connection: Connection, identity: Identity, to: str) -> trio.SocketStream:
        """Push to somebody who is there."""
        await connection.send(Push(to=to, transfer=os.urandom(16)))
        while not isinstance(answer := await connection.receive(), Ringing):
            if not isinstance(answer, Waiting):
                raise Unserved(f"a push to {to} heard {answer!r}")
        stream, _ = await self.join(identity, answer.ticket)  # a receiver says nothing here
        return stream

    async def rung(self, connection: Connection, identity: Identity) -> tuple[trio.SocketStream, bytes]:
        """Wait for a push, and come."""
        while not isinstance(incoming := await connection.receive(), Incoming):
            pass  # the relay's hints
        return await self.join(identity, incoming.ticket)
