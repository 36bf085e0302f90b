"""The end-to-end part of a data connection: what both clients must agree on, and the handshake over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from glide.client.me import Me
from glide.crypto.identity import fingerprint
from glide.errors import KeyChanged
from glide.net.connection import Connection
from glide.net.opening import initiate, respond
from glide.protocol.endtoend import Capabilities
from glide.protocol.preface import Purpose

# None yet. Peers use the features that both name.
FEATURES = Capabilities()


class Binding(msgspec.Struct, frozen=True):
    """What a transfer, or a pairing, is bound to (C2): two clients that do not mean exactly this cannot shake hands."""

    transfer: bytes
    relay_key: bytes
    sender: str
    sender_key: bytes
    receiver: str
    receiver_key: bytes
    purpose: Purpose = Purpose.END_TO_END

    @property
    def prologue(self) -> tuple[bytes, ...]:
        return (
            b"glide " + self.purpose.encode(),
            self.transfer,
            self.relay_key,
            self.sender.encode(),
            self.sender_key,
            self.receiver.encode(),
            self.receiver_key,
        )


async def as_sender(stream: trio.abc.HalfCloseableStream, already: bytes, binding: Binding, me: Me) -> Connection:
    """The connection to the receiver. Raises :class:`KeyChanged` if somebody else answers, before saying who I am.

    Whatever is raised, the stream is closed.
    """
    async with _closed_on_failure(stream):
        connection, _ = await initiate(
            stream,
            binding.purpose,
            me.identity,
            peer=binding.receiver,
            deadlines=me.deadlines,
            check=lambda key: _expect(key, binding.receiver_key, binding.receiver),
            parts=binding.prologue,
            mine=FEATURES,
            already=already,
        )
    return connection


async def as_receiver(stream: trio.abc.HalfCloseableStream, already: bytes, binding: Binding, me: Me) -> Connection:
    """The connection to the sender; raises and closes likewise, :class:`KeyChanged` if it is somebody else."""
    async with _closed_on_failure(stream):
        connection, _, _ = await respond(
            stream,
            frozenset({binding.purpose}),
            me.identity,
            peer=binding.sender,
            deadlines=me.deadlines,
            check=lambda key: _expect(key, binding.sender_key, binding.sender),
            parts=binding.prologue,
            mine=FEATURES,
            already=already,
        )
    return connection


@asynccontextmanager
async def _closed_on_failure(stream: trio.abc.HalfCloseableStream) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


def _expect(key: bytes, expected: bytes, name: str) -> None:
    if key != expected:
        raise KeyChanged(
            f"Whoever answered for {name} has another key than {name}: {fingerprint(key)}, not "
            f"{fingerprint(expected)}.",
            "Nothing was transferred. The relay joined you to somebody else.",
            "Do not use this relay until whoever runs it has looked into it.",
        )
