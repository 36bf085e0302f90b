"""Two ends of a connection in one process, with and without their handshake."""

from __future__ import annotations

from typing import TypeAlias

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from glide.crypto.handshake import Secrets
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.protocol.endtoend import Accept, Item, Offer, Page
from glide.protocol.fields import Message
from glide.protocol.messages import Hello, Role, Welcome
from glide.protocol.preface import Purpose
from glide.protocol.states import Side

MemoryStream: TypeAlias = trio.StapledStream[MemorySendStream, MemoryReceiveStream]

FORTH, BACK = bytes(range(32)), bytes(range(32, 64))
INITIATORS_KEY, RESPONDERS_KEY = b"i" * 32, b"r" * 32

PAGE = Page(items=(Item(path="letter.txt", size=5),))
OFFER = Offer()


def connection(
    stream: trio.abc.HalfCloseableStream, purpose: Purpose, side: Side, deadlines: Deadlines | None = None
) -> Connection:
    """One end, as it is after a handshake."""
    send, receive, peer = (FORTH, BACK, RESPONDERS_KEY) if side is Side.INITIATOR else (BACK, FORTH, INITIATORS_KEY)
    return Connection(
        stream,
        Secrets(send, receive, peer, b"h" * 32),
        purpose,
        side,
        peer="bob" if side is Side.INITIATOR else "alice",
        deadlines=deadlines or Deadlines(),
    )


def pair(
    purpose: Purpose = Purpose.END_TO_END,
    streams: tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream] | None = None,
    deadlines: Deadlines | None = None,
) -> tuple[Connection, Connection]:
    """The initiator's and the responder's end."""
    left, right = streams or memory_stream_pair()
    return connection(left, purpose, Side.INITIATOR, deadlines), connection(right, purpose, Side.RESPONDER, deadlines)


async def heard(listener: Connection) -> Message:
    """The next message, which must not be file bytes."""
    message = await listener.receive()
    assert isinstance(message, Message)
    return message


async def registered(client: Connection, relay: Connection) -> None:
    """Bring a control connection to where both may say most."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, Hello(role=Role.RECEIVE, name="alice"))
        await heard(relay)
        nursery.start_soon(relay.send, Welcome())
        await heard(client)


async def streaming(sender: Connection, receiver: Connection) -> None:
    """Bring an end-to-end connection to where file bytes flow."""
    await sender.send(PAGE, OFFER)
    assert [await heard(receiver), await heard(receiver)] == [PAGE, OFFER]
    await receiver.send(Accept())
    await heard(sender)
