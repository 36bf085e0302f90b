"""How a connection begins: the plain opening line, the handshake, and then a :class:`Connection`."""

from __future__ import annotations

from collections.abc import Callable

import trio

from glide.crypto.handshake import LONGEST_MESSAGE, Handshake, prologue
from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, IntegrityError, NotGlide, Stalled
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.streams import BROKEN, close_gently
from glide.protocol import frames, preface
from glide.protocol.endtoend import Capabilities
from glide.protocol.frames import Kind
from glide.protocol.messages import from_frame, to_bytes
from glide.protocol.preface import Purpose
from glide.protocol.states import Side

# Small, since whoever it is has proved nothing yet.
_READ_SIZE = 4096

# Judges the key that a handshake has proved; raises if the peer should not be who that is.
KeyCheck = Callable[[bytes], None]


class _Buffered:
    """Exact reads from a stream, each within the handshake's deadline."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, peer: str, deadlines: Deadlines, already: bytes) -> None:
        self.stream = stream
        self.held = bytearray(already)
        self._peer = peer
        self._seconds = deadlines.handshake

    async def line(self) -> bytes:
        """One line of at most the preface's length, without its newline; what is there if there is no newline."""
        await self._until(lambda: b"\n" in self.held or len(self.held) >= preface.LONGEST_LINE, eof_ends=True)
        line, newline, _ = self.held[: preface.LONGEST_LINE].partition(b"\n")
        del self.held[: len(line) + len(newline)]
        return bytes(line)

    async def message(self) -> bytes:
        """One handshake message: two bytes of length, and that many bytes."""
        await self._until(lambda: len(self.held) >= 2 and len(self.held) >= 2 + self._length())
        length = self._length()
        message = bytes(self.held[2 : 2 + length])
        del self.held[: 2 + length]
        return message

    def _length(self) -> int:
        length = int.from_bytes(self.held[:2], "big")
        if length > LONGEST_MESSAGE:
            raise IntegrityError(
                f"{self._peer} sent a handshake message of {length} bytes; {LONGEST_MESSAGE} is the most."
            )
        return length

    async def write(self, *parts: bytes) -> None:
        try:
            with trio.fail_after(self._seconds):
                await self.stream.send_all(b"".join(parts))
        except trio.TooSlowError:
            raise self._slow() from None
        except BROKEN:
            raise self._gone() from None

    async def _until(self, enough: Callable[[], bool], *, eof_ends: bool = False) -> None:
        if enough():
            return
        try:
            with trio.fail_after(self._seconds):
                while not enough():
                    piece = await self.stream.receive_some(_READ_SIZE)
                    if not piece:
                        if eof_ends and self.held:
                            return
                        raise self._gone()
                    self.held += piece
        except trio.TooSlowError:
            raise self._slow() from None
        except BROKEN:
            raise self._gone() from None

    def _slow(self) -> Stalled:
        return Stalled(f"{self._peer} did not answer within {self._seconds:.0f} s.", "Nothing was transferred.")

    def _gone(self) -> ConnectionLost:
        return ConnectionLost(f"{self._peer} closed the connection before it was set up.", "Nothing was transferred.")


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


async def initiate(
    stream: trio.abc.HalfCloseableStream,
    purpose: Purpose,
    identity: Identity,
    *,
    peer: str,
    deadlines: Deadlines,
    check: KeyCheck,
    parts: tuple[bytes, ...] = (),
    mine: Capabilities | None = None,
    already: bytes = b"",
) -> tuple[Connection, Capabilities]:
    """Open a connection over ``stream`` as its initiator; ``check`` is asked before our own key is given.

    ``parts`` is what both sides must agree on besides the opening line; ``mine`` goes to the peer encrypted;
    ``already`` are bytes of the peer that were read from the stream before.
    Raises :class:`NotGlide`, :class:`RelayRefused`, :class:`IntegrityError`, :class:`ConnectionLost`,
    :class:`Stalled`, or what ``check`` raises. The stream stays the caller's to close.
    """
    opening = preface.opening(purpose)
    handshake = Handshake(identity, prologue(opening, *parts), initiator=True)
    buffered = _Buffered(stream, peer, deadlines, already)
    await buffered.write(opening, _framed(handshake.write()))
    preface.check_answer(await buffered.line(), peer)
    theirs = _capabilities(handshake.read(await buffered.message()))
    key = handshake.peer
    assert key is not None, "the second message of XX carries the responder's key"
    check(key)
    await buffered.write(_framed(handshake.write(to_bytes(mine) if mine else b"")))
    connection = Connection(
        stream, handshake.finish(), purpose, Side.INITIATOR, peer=peer, deadlines=deadlines, rest=bytes(buffered.held)
    )
    return connection, theirs


async def respond(
    stream: trio.abc.HalfCloseableStream,
    allowed: frozenset[Purpose],
    identity: Identity,
    *,
    peer: str,
    deadlines: Deadlines,
    check: KeyCheck,
    parts: tuple[bytes, ...] = (),
    mine: Capabilities | None = None,
    already: bytes = b"",
) -> tuple[Connection, Purpose, Capabilities]:
    """Answer a connection that the other side opens; otherwise as :func:`initiate`.

    A peer that does not speak the protocol is told so in plain text, and :class:`NotGlide` raised.
    """
    buffered = _Buffered(stream, peer, deadlines, already)
    line = await buffered.line()
    try:
        purpose = preface.parse_opening(line)
        if purpose not in allowed:
            raise NotGlide(f"no {purpose} connection is taken here")
    except NotGlide as error:
        await turn_away(stream, preface.refusal(error.what), deadlines)
        raise
    opening = line + b"\n"
    handshake = Handshake(identity, prologue(opening, *parts), initiator=False)
    handshake.read(await buffered.message())
    await buffered.write(preface.ok(), _framed(handshake.write(to_bytes(mine) if mine else b"")))
    theirs = _capabilities(handshake.read(await buffered.message()))
    secrets = handshake.finish()
    check(secrets.peer)
    connection = Connection(
        stream, secrets, purpose, Side.RESPONDER, peer=peer, deadlines=deadlines, rest=bytes(buffered.held)
    )
    return connection, purpose, theirs


async def turn_away(stream: trio.abc.HalfCloseableStream, line: bytes, deadlines: Deadlines) -> None:
    """Send one plain line and close, so that it can still be read."""
    try:
        with trio.move_on_after(deadlines.farewell):
            await stream.send_all(line)
        await close_gently(stream, deadlines.farewell)
    except BROKEN:
        pass
    finally:
        await trio.aclose_forcefully(stream)


def _capabilities(payload: bytes) -> Capabilities:
    """What the peer can do, from a handshake payload; nothing if it said nothing."""
    for event in frames.Decoder().feed(payload):
        if isinstance(event, frames.Frame) and event.kind == Kind.CAPABILITIES:
            message = from_frame(event)
            if isinstance(message, Capabilities):
                return message
    return Capabilities()
