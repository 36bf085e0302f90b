"""Every message that either side may say, as typed structs, and their bytes.

A message is one frame whose payload is a MessagePack map of the struct's fields. Fields that hold their default
are left out; fields that a version does not know are ignored. So a newer version may add fields, never change
what one means. Every string and list has a maximum, checked while decoding, below the frame's own limit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias, get_args

import msgspec
from msgspec import Meta, Struct

from glide.errors import ProtocolError
from glide.protocol import endtoend
from glide.protocol.fields import Code, Features, Key, Message, Name, Size, Text, TicketCode, TransferId
from glide.protocol.frames import Frame, Kind, encode

# One page of a `who` answer; see LIMITS[Kind.PEOPLE].
PAGE = 100


# --- control connections ---------------------------------------------------------------------------------


class Role(StrEnum):
    """What a control connection is for."""

    RECEIVE = "receive"  # takes files under the name
    SEND = "send"  # pushes under the name; several at once may share it
    ASK = "ask"  # registers no name


class Hello(Message, frozen=True):
    """Client to relay, first: who I want to be here."""

    kind = Kind.HELLO
    role: Role
    name: Name | None = None
    invisible: bool = False  # not to be listed; whoever knows the name may still push to it
    features: Features = ()


class Welcome(Message, frozen=True):
    """Relay to client: you are registered. ``greeting`` is for a person to read."""

    kind = Kind.WELCOME
    greeting: Text = ""
    features: Features = ()
    time: Size = 0  # the relay's clock, seconds since 1970; 0: not told


class Refused(Message, frozen=True):
    """Relay to client: you are not registered, and why. The connection ends."""

    kind = Kind.REFUSED
    code: Code
    message: Text = ""


class Push(Message, frozen=True):
    """Client to relay: ring ``to``. The sender chooses the transfer's id.

    ``wait`` says to ring as soon as they take files, if they do not now. ``pair`` says to ring them when they ask to
    pair with me, or at once if they have asked before; it waits in any case.
    """

    kind = Kind.PUSH
    to: Name
    transfer: TransferId
    wait: bool = False
    pair: bool = False


class Queued(Message, frozen=True):
    """Relay to sender: they are not there yet; this push rings when they are. It is gone when this session is."""

    kind = Kind.QUEUED
    transfer: TransferId


class Withdraw(Message, frozen=True):
    """Client to relay: that push of mine is not to ring any more."""

    kind = Kind.WITHDRAW
    transfer: TransferId


class Ringing(Message, frozen=True):
    """Relay to sender: the receiver is being told; come with this ticket. ``key`` is who the relay says it is."""

    kind = Kind.RINGING
    transfer: TransferId
    ticket: TicketCode
    key: Key


class Failed(Message, frozen=True):
    """Relay to sender: this push comes to nothing. ``closest`` are names that may have been meant."""

    kind = Kind.FAILED
    transfer: TransferId
    code: Code
    message: Text = ""
    closest: Annotated[tuple[Name, ...], Meta(max_length=3)] = ()


class Incoming(Message, frozen=True):
    """Relay to receiver: somebody wants to send, or to pair; come with this ticket."""

    kind = Kind.INCOMING
    sender: Name
    key: Key
    transfer: TransferId
    ticket: TicketCode
    pair: bool = False


class Reject(Message, frozen=True):
    """Receiver to relay: I am not coming for that transfer. The sender is told."""

    kind = Kind.REJECT
    transfer: TransferId
    code: Code
    message: Text = ""


class Who(Message, frozen=True):
    """Client to relay: who is here? ``after`` continues a list behind that name."""

    kind = Kind.WHO
    after: Name | None = None


class Person(Struct, frozen=True, omit_defaults=True):
    name: Name
    key: Key
    receiving: bool = False
    since: Size = 0  # seconds since 1970


class People(Message, frozen=True):
    """Relay to client: one page of the people here, in order of their names."""

    kind = Kind.PEOPLE
    people: Annotated[tuple[Person, ...], Meta(max_length=PAGE)] = ()
    more: bool = False


class Goodbye(Message, frozen=True):
    """Relay to client: this session ends, and why. Transfers under way go on."""

    kind = Kind.GOODBYE
    code: Code
    message: Text = ""


class Waiting(Message, frozen=True):
    """Relay to both clients: for ``seconds`` no byte has moved, and ``side`` is whom I wait for."""

    kind = Kind.WAITING
    transfer: TransferId
    side: Annotated[str, Meta(pattern=r"^(sender|receiver|nobody)\Z")]
    seconds: Size


# --- data connections ------------------------------------------------------------------------------------


class Ticket(Message, frozen=True):
    """Client to relay, first: join me to the holder of the other ticket."""

    kind = Kind.TICKET
    ticket: TicketCode


class Joined(Message, frozen=True):
    """Relay to client: your partner is there. Every byte after this record is the partner's."""

    kind = Kind.JOINED


# --- anywhere ---------------------------------------------------------------------------------------------


class Keepalive(Message, frozen=True):
    """Anywhere: I am still here. Its frame is empty."""

    kind = Kind.KEEPALIVE


AnyMessage: TypeAlias = (
    Hello | Welcome | Refused | Push | Queued | Withdraw | Ringing | Failed | Incoming | Reject | Who | People
    | Goodbye | Waiting
    | Ticket | Joined
    | endtoend.Capabilities | endtoend.Page | endtoend.Offer | endtoend.Accept | endtoend.Decline | endtoend.Want
    | endtoend.Blocks | endtoend.Digests | endtoend.End | endtoend.Ack | endtoend.Receipt | endtoend.Done
    | endtoend.Busy | endtoend.Abort
    | endtoend.Share | endtoend.Confirm
    | Keepalive
)  # fmt: skip  # in the order in which they may be said

TYPES: dict[int, type[Message]] = {message.kind: message for message in get_args(AnyMessage)}

_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(message, strict=True) for kind, message in TYPES.items()}
_LENGTH = 4  # bytes before a padded map, saying where the padding begins
_PADDED = frozenset({Kind.OFFER, Kind.MANIFEST, Kind.DIGESTS})


def to_bytes(message: Message) -> bytes:
    """The frame that carries ``message``. ValueError if it is longer than its type may be."""
    if isinstance(message, Keepalive):
        return encode(Kind.KEEPALIVE, b"")
    payload = _encoder.encode(message)
    if message.kind in _PADDED:
        payload = (len(payload).to_bytes(_LENGTH, "big") + payload).ljust(endtoend.PAGE, b"\0")
    return encode(message.kind, payload)


def from_frame(frame: Frame) -> Message | None:
    """The message in ``frame``; None if its type is one that only newer versions know.

    Raises :class:`ProtocolError` if the payload is not what its type says, and nothing else.
    """
    kind = frame.kind
    if kind not in TYPES:
        return None
    if kind == Kind.KEEPALIVE:
        return Keepalive()
    payload = _unpadded(Kind(kind), frame.payload) if kind in _PADDED else frame.payload
    try:
        return _decoders[kind].decode(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        # RecursionError: a deeply nested value in a field that is unknown. ValueError: text that is no UTF-8.
        raise ProtocolError(
            f"The peer sent a {Kind(kind).name} message that does not fit its form ({error})."
        ) from None


def _unpadded(kind: Kind, payload: bytes) -> bytes:
    length = int.from_bytes(payload[:_LENGTH], "big")
    body = payload[_LENGTH : _LENGTH + length]
    if len(payload) != endtoend.PAGE or len(body) != length or payload[_LENGTH + length :].strip(b"\0"):
        raise ProtocolError(f"The peer sent a {kind.name} message whose padding does not fit its form.")
    return body
