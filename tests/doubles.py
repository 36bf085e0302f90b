"""Stand-ins that tests share: a relay that does whatever it likes, and a proxy that listens in.

:class:`MaliciousRelay` speaks the relay's side of the protocol on a real socket. What it does wrong is its
``behaviour``; one attack is one small class below, and :class:`Behaviour` itself is honest. Everything that it got to
see is kept, for tests that search in it.

Joined bytes are carried piece by piece: the plain line of each side, then whatever has two bytes of length before it,
handshake messages first and records after them. A :class:`Place` names a piece by who said it and which one it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

import msgspec
import trio

from glide.client import endtoend
from glide.client.address import Address
from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, Declined, GlideError, NobodyThere, RelayRefused
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate, respond
from glide.net.streams import close_gently
from glide.protocol.fields import Message
from glide.protocol.frames import Data
from glide.protocol.messages import (
    Failed,
    Hello,
    Incoming,
    Joined,
    People,
    Push,
    Queued,
    Refused,
    Reject,
    Ringing,
    Role,
    Ticket,
    Welcome,
    Who,
    Withdraw,
)
from glide.protocol.preface import Purpose

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_PURPOSES = frozenset({Purpose.CONTROL, Purpose.DATA})
_DEADLINES = Deadlines(handshake=10.0, farewell=2.0)
_LENGTH = 2


class Part(StrEnum):
    """The two clients of a transfer."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def other(self) -> Part:
        return Part.RECEIVER if self is Part.SENDER else Part.SENDER


# Pieces before the first record: the plain line, and two or one handshake messages.
_BEFORE_RECORDS = {Part.SENDER: 3, Part.RECEIVER: 2}


@dataclass(frozen=True)
class Place:
    """A piece of one direction of a pipe: who says it, and which one of theirs it is, the plain line being 0."""

    source: Part
    index: int

    @classmethod
    def line(cls, source: Part) -> Place:
        return cls(source, 0)

    @classmethod
    def handshake(cls, source: Part, number: int = 0) -> Place:
        assert number < _BEFORE_RECORDS[source] - 1, "the sender says two handshake messages, the receiver one"
        return cls(source, 1 + number)

    @classmethod
    def record(cls, source: Part, number: int) -> Place:
        return cls(source, _BEFORE_RECORDS[source] + number)

    def __str__(self) -> str:
        number = self.index - _BEFORE_RECORDS[self.source]
        what = "line" if not self.index else f"record{number}" if number >= 0 else f"handshake{self.index - 1}"
        return f"{self.source}-{what}"

    @property
    def next(self) -> Place:
        return Place(self.source, self.index + 1)


@dataclass(frozen=True)
class Piece:
    """What was said at a place, as it stood on the wire; ``transfer`` counts the pushes of this relay from 0."""

    transfer: int
    place: Place
    raw: bytes


class Step(Enum):
    """Moments at which a relay may hang up."""

    ACCEPTED = auto()  # a TCP connection
    SHAKEN = auto()  # the handshake with the relay is done
    HELLO = auto()  # Hello was read, Welcome not said
    WELCOMED = auto()
    PUSHED = auto()  # Push was read, nobody rung
    RUNG = auto()  # Ringing and Incoming were said
    TICKET = auto()  # the ticket was read, Joined not said
    JOINED = auto()


class HangUp(Exception):
    """Raised by a behaviour: end this connection, or this pipe, here."""


class Tapped(trio.abc.HalfCloseableStream):
    """A client's connection to the relay, and all bytes that came in over it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.received = bytearray()
        self.purpose: Purpose | None = None  # once the handshake has said so
        self.key: bytes | None = None  # once the handshake has proved it
        self.part: Part | None = None  # once it is known

    def __repr__(self) -> str:
        return f"<Tapped {self.purpose or 'new'} connection, {len(self.received)} bytes received>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        piece = bytes(await self._stream.receive_some(max_bytes))
        self.received += piece
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def send(self, data: bytes) -> None:
        """Send to a client that may be gone."""
        try:
            await self._stream.send_all(data)
        except _BROKEN:
            pass

    async def end(self) -> None:
        """Say that nothing follows, to a client that may be gone."""
        try:
            await self._stream.send_eof()
        except _BROKEN:
            pass

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass(eq=False)
class Session:
    """A registered client."""

    name: str
    connection: Connection

    @property
    def key(self) -> bytes:
        return self.connection.peer_key


@dataclass(eq=False)
class Ring:
    """One push, and how the relay behaved at that time."""

    number: int
    id: bytes
    sender: Session
    receiver: Session
    relay_key: bytes
    behaviour: Behaviour
    called_off: trio.Event = field(default_factory=trio.Event)

    async def call_off(self, code: str, message: str) -> None:
        """One of them is not coming: the other is told why."""
        self.called_off.set()
        try:
            await self.sender.connection.send(Failed(transfer=self.id, code=code, message=message))
        except ConnectionLost:
            pass  # the sender has gone already


@dataclass(eq=False)
class Seat:
    """One side of a ring: what a ticket stands for."""

    ring: Ring
    part: Part


@dataclass(eq=False)
class Leg:
    """A joined client: its stream, and what had been read from it before."""

    seat: Seat
    stream: Tapped
    rest: bytes
    note: Callable[[Piece], None]
    _held: bytearray | None = None
    _index: int = 0

    async def next(self) -> Piece | None:
        """What this client says next; at the end of the stream what is left, whole or not, and then None."""
        if self._held is None:
            self._held = bytearray(self.rest)
        while (length := _piece(self._held, self._index)) is None:
            try:
                more = await self.stream.receive_some(65536)
            except _BROKEN:
                more = b""
            if not more:
                length = len(self._held)
                break
            self._held += more
        if not length:
            return None
        piece = Piece(self.seat.ring.number, Place(self.seat.part, self._index), bytes(self._held[:length]))
        del self._held[:length]
        self._index += 1
        self.note(piece)
        return piece


def _piece(held: bytearray, index: int) -> int | None:
    """How many bytes the first piece in ``held`` has; None if it is not whole."""
    if index == 0:
        return held.index(b"\n") + 1 if b"\n" in held else None
    length = _LENGTH + int.from_bytes(held[:_LENGTH], "big")
    return length if _LENGTH <= len(held) >= length else None


@dataclass(eq=False)
class Pipe:
    """Two clients that the relay has joined; in an honest relay, those of one transfer."""

    sender: Leg
    receiver: Leg


class Behaviour:
    """What a relay decides. This one is honest; an attack overrides what it does otherwise."""

    def __repr__(self) -> str:
        return type(self).__name__

    def at(self, step: Step, client: Tapped) -> None:
        """Raise :class:`HangUp` to end that client's connection now."""

    def rings(self, sender: Session, receiver: Session | None) -> Session | None:
        """Whom a push goes to."""
        return receiver

    def ringing(self, honest: Ringing) -> Ringing:
        """What the sender is told."""
        return honest

    def incoming(self, honest: Incoming) -> Incoming:
        """What the receiver is told."""
        return honest

    def meeting(self, seat: Seat) -> Hashable:
        """The two that come to the same meeting are joined."""
        return seat.ring.number

    def forward(self, piece: Piece) -> Iterable[bytes]:
        """What is sent on in place of a piece. May raise :class:`HangUp` to end the pipe after what it gave."""
        yield piece.raw

    async def carry(self, pipe: Pipe) -> None:
        """Move bytes between the two until both have ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, pipe.sender, pipe.receiver.stream)
            nursery.start_soon(self._pass_on, pipe.receiver, pipe.sender.stream)

    async def _pass_on(self, source: Leg, sink: Tapped) -> None:
        while (piece := await source.next()) is not None:
            for raw in self.forward(piece):
                await sink.send(raw)
        await sink.end()


class MaliciousRelay:
    """A relay on 127.0.0.1 whose ``behaviour`` can be changed at any time; a transfer keeps the one it began with."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.behaviour = Behaviour()
        self.port = 0
        self.connections: list[Tapped] = []
        self.messages: list[Message] = []  # all that clients said to the relay, decrypted
        self.pieces: list[Piece] = []  # all that it carried from one client to another
        self.tickets: list[bytes] = []
        self._receivers: dict[str, Session] = {}
        self._waiting: list[tuple[Session, Push]] = []  # for a receiver, or for a counterpart
        self._seats: dict[bytes, Seat] = {}
        self._tables: dict[Hashable, _Table] = {}
        self._rings = 0

    def __repr__(self) -> str:
        return f"<MaliciousRelay {self.behaviour!r}: {len(self.connections)} connections, {self._rings} pushes>"

    @property
    def address(self) -> Address:
        """Where it is; nothing is said of its key."""
        return Address("127.0.0.1", self.port)

    @property
    def key(self) -> bytes:
        return self.identity.public

    @property
    def received(self) -> list[bytes]:
        """All bytes that came in, a connection each."""
        return [bytes(each.received) for each in self.connections]

    def said(self, transfer: int, source: Part) -> list[bytes]:
        """What one client of a transfer said to the other: line, handshake messages, records."""
        return [each.raw for each in self.pieces if (each.transfer, each.place.source) == (transfer, source)]

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._client, listeners)

    async def _client(self, stream: trio.SocketStream) -> None:
        client = Tapped(stream)
        self.connections.append(client)
        try:
            self.behaviour.at(Step.ACCEPTED, client)
            connection, client.purpose, _ = await respond(
                client, _PURPOSES, self.identity, peer="a client", deadlines=_DEADLINES, check=_anybody
            )
            client.key = connection.peer_key
            self.behaviour.at(Step.SHAKEN, client)
            if client.purpose is Purpose.CONTROL:
                await self._control(client, connection)
            else:
                await self._data(client, connection)
        except* (GlideError, HangUp, *_BROKEN):
            pass

    async def _hear(self, connection: Connection) -> Message:
        message = await connection.receive()
        assert not isinstance(message, Data), "no file bytes are said to a relay"
        self.messages.append(message)
        return message

    # --- control connections ---

    async def _control(self, client: Tapped, connection: Connection) -> None:
        hello = await self._hear(connection)
        assert isinstance(hello, Hello), "the tables allow nothing else first"
        client.part = {Role.SEND: Part.SENDER, Role.RECEIVE: Part.RECEIVER}.get(hello.role)
        session = Session(hello.name or "", connection)
        if hello.role == Role.RECEIVE:
            self._receivers[session.name] = session
        try:
            self.behaviour.at(Step.HELLO, client)
            await connection.send(Welcome(greeting="Welcome to the server!"))
            self.behaviour.at(Step.WELCOMED, client)
            while hello.role == Role.RECEIVE and (waiting := self._waiting_for(session.name)) is not None:
                self._waiting.remove(waiting)
                await self._ring(*waiting)
            while True:
                match await self._hear(connection):
                    case Push() as push:
                        self.behaviour.at(Step.PUSHED, client)
                        await self._ring(session, push)
                        self.behaviour.at(Step.RUNG, client)
                    case Reject(transfer=id, code=code, message=message):
                        for ring in {seat.ring for seat in self._seats.values() if seat.ring.id == id}:
                            await ring.call_off(code, message)
                    case Withdraw(transfer=id):
                        self._forget(session, id)
                    case Who():
                        await connection.send(People())
        finally:
            self._forget(session)
            if self._receivers.get(session.name) is session:
                del self._receivers[session.name]

    async def _ring(self, sender: Session, push: Push) -> None:
        receiver = self.behaviour.rings(sender, self._whom(sender, push))
        if receiver is None and (push.wait or push.pair):
            self._waiting.append((sender, push))
            await sender.connection.send(Queued(transfer=push.transfer))
            return
        if receiver is None:
            await sender.connection.send(
                Failed(transfer=push.transfer, code=NobodyThere.code, message="is not connected")
            )
            return
        ring = Ring(self._rings, push.transfer, sender, receiver, self.key, self.behaviour)
        self._rings += 1
        tickets = {part: secrets.token_bytes(16) for part in Part}
        self.tickets += tickets.values()
        self._seats.update({ticket: Seat(ring, part) for part, ticket in tickets.items()})
        incoming = Incoming(
            sender=sender.name,
            key=sender.key,
            transfer=push.transfer,
            ticket=tickets[Part.RECEIVER],
            pair=push.pair,
        )
        ringing = Ringing(transfer=push.transfer, ticket=tickets[Part.SENDER], key=receiver.key)
        await receiver.connection.send(ring.behaviour.incoming(incoming))
        await sender.connection.send(ring.behaviour.ringing(ringing))

    def _waiting_for(self, name: str) -> tuple[Session, Push] | None:
        return next((each for each in self._waiting if each[1].to == name and not each[1].pair), None)

    def _forget(self, session: Session, id: bytes | None = None) -> None:
        """What waits of a session, or the one of that id, waits no longer."""
        self._waiting = [
            (sender, push)
            for sender, push in self._waiting
            if sender is not session or (id is not None and push.transfer != id)
        ]

    def _whom(self, sender: Session, push: Push) -> Session | None:
        """Who takes files as ``to``, or asked to pair with the sender, and waits for that no longer."""
        if not push.pair:
            return self._receivers.get(push.to)
        for waiting, theirs in self._waiting:
            if theirs.pair and (waiting.name, theirs.to) == (push.to, sender.name):
                self._waiting.remove((waiting, theirs))
                return waiting
        return None

    # --- data connections ---

    async def _data(self, client: Tapped, connection: Connection) -> None:
        ticket = await self._hear(connection)
        assert isinstance(ticket, Ticket), "the tables allow nothing else first"
        seat = self._seats[ticket.ticket]
        client.part = seat.part
        try:
            seat.ring.behaviour.at(Step.TICKET, client)
        except HangUp:
            await seat.ring.call_off(Declined.code, "did not come to take it")
            raise
        key = seat.ring.behaviour.meeting(seat)
        table = self._tables.setdefault(key, _Table())
        table.arrived[seat.part] = (seat, client, connection)
        if len(table.arrived) == 2:
            table.full.set()
            try:
                await self._join(table, seat.ring.behaviour)
            finally:
                table.over.set()
                await _close_both(*(arrived[1] for arrived in table.arrived.values()))
        elif await _first_of(table.full, seat.ring.called_off):
            await table.over.wait()
        else:
            await connection.send(Refused(code=RelayRefused.code, message="The other side did not come."))
            await connection.close()

    async def _join(self, table: _Table, behaviour: Behaviour) -> None:
        legs = {}
        for part, (seat, client, connection) in table.arrived.items():
            await connection.send(Joined())
            _, rest = connection.detach()
            legs[part] = Leg(seat, client, rest, self.pieces.append)
        for leg in legs.values():
            behaviour.at(Step.JOINED, leg.stream)
        await behaviour.carry(Pipe(legs[Part.SENDER], legs[Part.RECEIVER]))


@dataclass(eq=False)
class _Table:
    """Where two clients meet."""

    arrived: dict[Part, tuple[Seat, Tapped, Connection]] = field(default_factory=dict)
    full: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)


async def _first_of(wanted: trio.Event, other: trio.Event) -> bool:
    """Wait for either; True if it was the first one."""
    async with trio.open_nursery() as nursery:

        async def until(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until, wanted)
        nursery.start_soon(until, other)
    return wanted.is_set()


async def _close_both(*streams: Tapped) -> None:
    """So that both can read all that was sent to them."""
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(close_gently, stream, _DEADLINES.farewell)


def _anybody(key: bytes) -> None:
    """A relay takes any key."""


# --- attacks on what is carried ---------------------------------------------------------------------------


@dataclass
class AtPlace(Behaviour):
    """Base of the attacks on one piece; all others pass."""

    place: Place

    def __repr__(self) -> str:
        return f"{type(self).__name__}-{self.place}"

    def forward(self, piece: Piece) -> Iterator[bytes]:
        if piece.place == self.place:
            yield from self.attack(piece.raw)
        else:
            yield piece.raw

    def attack(self, raw: bytes) -> Iterator[bytes]:
        """What is sent on in place of the piece."""
        yield raw


class Drop(AtPlace):
    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield from ()


class Repeat(AtPlace):
    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield raw
        yield raw


@dataclass(repr=False)
class Flip(AtPlace):
    """Change one bit: of byte ``at`` (from the end if negative) the one in ``bit``."""

    at_byte: int = -1
    bit: int = 0x01

    def attack(self, raw: bytes) -> Iterator[bytes]:
        changed = bytearray(raw)
        changed[self.at_byte] ^= self.bit
        yield bytes(changed)


class Shorten(AtPlace):
    """Take the last byte away, and say so in the length."""

    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield (len(raw) - _LENGTH - 1).to_bytes(_LENGTH, "big") + raw[_LENGTH:-1]


class Empty(AtPlace):
    """A piece of no bytes at all."""

    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield bytes(_LENGTH)


class Insert(AtPlace):
    """A piece of the relay's own before this one."""

    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield (100).to_bytes(_LENGTH, "big") + bytes(100)
        yield raw


class Truncate(AtPlace):
    """Half of the piece, and then the end."""

    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield raw[: len(raw) // 2]
        raise HangUp


class EndBefore(AtPlace):
    """The end, as clean as an end can be, instead of the piece."""

    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield from ()
        raise HangUp


@dataclass(repr=False)
class Replace(AtPlace):
    """Other bytes instead: a changed opening line, or a piece out of another transfer."""

    instead: bytes

    def attack(self, raw: bytes) -> Iterator[bytes]:
        yield self.instead


class StripPayload(AtPlace):
    """A handshake message (the receiver's, or the sender's second one) without the features it carries."""

    def attack(self, raw: bytes) -> Iterator[bytes]:
        body = raw[_LENGTH:]
        keys = 32 + 48 if self.place.source is Part.RECEIVER else 48
        stripped = body[:keys] + body[-16:]
        yield len(stripped).to_bytes(_LENGTH, "big") + stripped


@dataclass(repr=False)
class Meanwhile(AtPlace):
    """Call something just before the piece is passed on, unchanged."""

    do: Callable[[], object]

    def attack(self, raw: bytes) -> Iterator[bytes]:
        self.do()
        yield raw


@dataclass(repr=False)
class Swap(AtPlace):
    """The piece after its successor."""

    _held: bytes = b""

    def forward(self, piece: Piece) -> Iterator[bytes]:
        if piece.place == self.place:
            self._held = piece.raw
        elif piece.place == self.place.next:
            yield piece.raw
            yield self._held
        else:
            yield piece.raw


@dataclass
class Replay(Behaviour):
    """In place of everything that ``source`` says, what was said before in another transfer."""

    source: Part
    before: list[bytes]

    def forward(self, piece: Piece) -> Iterator[bytes]:
        if piece.place.source is not self.source:
            yield piece.raw
        elif piece.place.index < len(self.before):
            yield self.before[piece.place.index]


@dataclass
class Reflect(Behaviour):
    """Everything that a client says goes back to itself, from ``start`` pieces on; before that all is honest."""

    start: int = 0

    async def carry(self, pipe: Pipe) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reflect, pipe.sender, pipe.receiver.stream)
            nursery.start_soon(self._reflect, pipe.receiver, pipe.sender.stream)

    async def _reflect(self, source: Leg, sink: Tapped) -> None:
        start = self.start and _BEFORE_RECORDS[source.seat.part] + self.start - 1
        while (piece := await source.next()) is not None:
            if piece.place.index < start:
                await sink.send(piece.raw)
            elif piece.place == Place.line(Part.SENDER):
                await source.stream.send(b"glide/1 ok\n")  # what it waits for
            else:
                await source.stream.send(piece.raw)
        await source.stream.end()
        await sink.end()


class CrossJoin(Behaviour):
    """Of two transfers, the sender of each with the receiver of the other."""

    def meeting(self, seat: Seat) -> Hashable:
        number = seat.ring.number
        return "crossed", number if seat.part is Part.SENDER else number ^ 1


class JoinToItself(Behaviour):
    """Whoever pushes is rung themselves."""

    def __init__(self, relay: MaliciousRelay) -> None:
        self._relay = relay

    def rings(self, sender: Session, receiver: Session | None) -> Session | None:
        return self._relay._receivers.get(sender.name)


# --- attacks on what is said -------------------------------------------------------------------------------


@dataclass
class Lie(Behaviour):
    """Other fields in Ringing and in Incoming."""

    ringing_key: bytes | None = None
    incoming_key: bytes | None = None
    sender_name: str | None = None
    transfer: bytes | None = None  # in Incoming

    def ringing(self, honest: Ringing) -> Ringing:
        return msgspec.structs.replace(honest, key=self.ringing_key or honest.key)

    def incoming(self, honest: Incoming) -> Incoming:
        return msgspec.structs.replace(
            honest,
            key=self.incoming_key or honest.key,
            sender=self.sender_name or honest.sender,
            transfer=self.transfer or honest.transfer,
        )


@dataclass
class CloseAt(Behaviour):
    """Hang up on one client at one moment."""

    step: Step
    part: Part | None = None
    purpose: Purpose | None = None

    def __repr__(self) -> str:
        return "-".join(["close", self.step.name.lower(), *filter(None, (self.part, self.purpose))])

    def at(self, step: Step, client: Tapped) -> None:
        if (
            step is self.step
            and self.part in (None, client.part)
            and (self.purpose is None or self.purpose is client.purpose)
        ):
            raise HangUp


@dataclass
class NewKeyForData(Behaviour):
    """The relay has another key when the data connections come."""

    relay: MaliciousRelay

    def ringing(self, honest: Ringing) -> Ringing:
        self.relay.identity = Identity.generate()
        return honest


@dataclass
class ManInTheMiddle(Behaviour):
    """To each client the relay is the other one, with keys of its own; it reads everything, and passes it on."""

    to_sender: Identity = field(default_factory=Identity.generate)
    to_receiver: Identity = field(default_factory=Identity.generate)
    lie_to: frozenset[Part] = frozenset(Part)
    heard: list[Message] = field(default_factory=list)
    stolen: bytearray = field(default_factory=bytearray)

    def ringing(self, honest: Ringing) -> Ringing:
        return msgspec.structs.replace(honest, key=self.to_sender.public) if Part.SENDER in self.lie_to else honest

    def incoming(self, honest: Incoming) -> Incoming:
        return msgspec.structs.replace(honest, key=self.to_receiver.public) if Part.RECEIVER in self.lie_to else honest

    async def carry(self, pipe: Pipe) -> None:
        ring = pipe.sender.seat.ring

        def parts(sender_key: bytes, receiver_key: bytes) -> tuple[bytes, ...]:
            return endtoend.Binding(
                ring.id, ring.relay_key, ring.sender.name, sender_key, ring.receiver.name, receiver_key
            ).prologue

        left, _, features = await respond(
            pipe.sender.stream,
            frozenset({Purpose.END_TO_END}),
            self.to_sender,
            peer="the sender",
            deadlines=_DEADLINES,
            check=_anybody,
            parts=parts(ring.sender.key, self.to_sender.public),
            mine=endtoend.FEATURES,
            already=pipe.sender.rest,
        )
        right, _ = await initiate(
            pipe.receiver.stream,
            Purpose.END_TO_END,
            self.to_receiver,
            peer="the receiver",
            deadlines=_DEADLINES,
            check=_anybody,
            parts=parts(self.to_receiver.public, ring.receiver.key),
            mine=features,
            already=pipe.receiver.rest,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retell, left, right)
            nursery.start_soon(self._retell, right, left)

    async def _retell(self, source: Connection, sink: Connection) -> None:
        try:
            while True:
                match await source.receive():
                    case Data(view=view):
                        self.stolen += view
                        await sink.send_data(view)
                    case message:
                        assert isinstance(message, Message), "file bytes or a message"
                        self.heard.append(message)
                        await sink.send(message)
        except ConnectionLost:
            pass
        finally:
            assert isinstance(sink.stream, Tapped), "it was made of one"
            await sink.stream.end()


@dataclass
class Impersonate(Behaviour):
    """Tell both the truth, and then answer one of them in the other's place, with a key of the relay's own."""

    victim: Part
    identity: Identity = field(default_factory=Identity.generate)

    async def carry(self, pipe: Pipe) -> None:
        ring = pipe.sender.seat.ring
        parts = endtoend.Binding(
            ring.id, ring.relay_key, ring.sender.name, ring.sender.key, ring.receiver.name, ring.receiver.key
        ).prologue
        if self.victim is Part.SENDER:
            connection, _, _ = await respond(
                pipe.sender.stream,
                frozenset({Purpose.END_TO_END}),
                self.identity,
                peer="the sender",
                deadlines=_DEADLINES,
                check=_anybody,
                parts=parts,
                mine=endtoend.FEATURES,
                already=pipe.sender.rest,
            )
        else:
            connection, _ = await initiate(
                pipe.receiver.stream,
                Purpose.END_TO_END,
                self.identity,
                peer="the receiver",
                deadlines=_DEADLINES,
                check=_anybody,
                parts=parts,
                mine=endtoend.FEATURES,
                already=pipe.receiver.rest,
            )
        await connection.receive()


# --- a proxy -----------------------------------------------------------------------------------------------


class RecordingProxy:
    """Stands before a relay and keeps every byte that goes to it and comes from it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port = 0
        self.to_relay: list[bytearray] = []
        self.from_relay: list[bytearray] = []

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, listeners)

    async def _carry(self, client: trio.SocketStream) -> None:
        relay = await trio.open_tcp_stream(*self._target)
        forth, back = bytearray(), bytearray()
        self.to_relay.append(forth)
        self.from_relay.append(back)
        async with relay, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, client, relay, forth)
            nursery.start_soon(self._copy, relay, client, back)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, record: bytearray) -> None:
        try:
            async for chunk in source:
                record += chunk
                await sink.send_all(chunk)
            await sink.send_eof()
        except _BROKEN:
            pass
