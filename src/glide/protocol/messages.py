"""Every message that either side may say, as typed structs, and their bytes.

A message is one frame whose payload is a MessagePack map of the struct's fields. Fields that hold their default
are left out; fields that a version does not know are ignored. So a newer version may add fields, never change
what one means. Every string and list has a maximum, checked while decoding, below the frame's own limit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, TypeAlias, get_args

import msgspec
from msgspec import Meta, Struct

from glide.errors import ProtocolError
from glide.protocol import names
from glide.protocol.frames import Frame, Kind, encode

Name = Annotated[str, Meta(pattern=names.PATTERN, max_length=names.LONGEST)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]  # X25519, RFC 7748
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]  # BLAKE3, its default length
TicketCode = Annotated[bytes, Meta(min_length=16, max_length=16)]  # 128 random bits
TransferId = Annotated[bytes, Meta(min_length=16, max_length=16)]  # 128 random bits, chosen by the sender
Text = Annotated[str, Meta(max_length=400)]  # for people; at most 1,600 bytes of UTF-8
Code = Annotated[str, Meta(max_length=32)]  # a word of glide.errors
Feature = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,16}\Z")]
Features = Annotated[tuple[Feature, ...], Meta(max_length=16)]
# Sizes stay below 2^63 so that they fit a signed 64-bit integer wherever a client is written.
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]

# One page of a `who` answer; see LIMITS[Kind.PEOPLE].
PAGE = 100

# The manifest is padded to multiples of this, so that its length tells little about names.
PADDING = 4096


class Message(Struct, frozen=True, omit_defaults=True):
    """Base of all messages; ``kind`` is the type of the frame that carries one."""

    kind: ClassVar[Kind]


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
    features: Features = ()


class Welcome(Message, frozen=True):
    """Relay to client: you are registered. ``greeting`` is for a person to read."""

    kind = Kind.WELCOME
    greeting: Text = ""
    features: Features = ()


class Refused(Message, frozen=True):
    """Relay to client: you are not registered, and why. The connection ends."""

    kind = Kind.REFUSED
    code: Code
    message: Text = ""


class Push(Message, frozen=True):
    """Client to relay: ring ``to``. The sender chooses the transfer's id."""

    kind = Kind.PUSH
    to: Name
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
    """Relay to receiver: somebody wants to send; come with this ticket."""

    kind = Kind.INCOMING
    sender: Name
    key: Key
    transfer: TransferId
    ticket: TicketCode


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


# --- end to end ------------------------------------------------------------------------------------------


class Capabilities(Message, frozen=True):
    """What the second and third end-to-end handshake messages carry: the features of each side."""

    kind = Kind.CAPABILITIES
    features: Features = ()


class Item(Struct, frozen=True, omit_defaults=True):
    """One file of the manifest. ``name`` is not to be trusted: see glide.transfer.landing."""

    name: Annotated[str, Meta(max_length=4096)]
    size: Size


class Offer(Message, frozen=True):
    """Sender to receiver: the manifest. ``message`` is for a person to read."""

    kind = Kind.OFFER
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=1)]
    message: Text = ""


class Accept(Message, frozen=True):
    """Receiver to sender: send it."""

    kind = Kind.ACCEPT


class Decline(Message, frozen=True):
    """Receiver to sender: no, and why."""

    kind = Kind.DECLINE
    code: Code
    message: Text = ""


class Digests(Message, frozen=True):
    """Sender to receiver: BLAKE3 of the next items, in manifest order, after their bytes."""

    kind = Kind.DIGESTS
    digests: Annotated[tuple[Digest, ...], Meta(max_length=512)]


class End(Message, frozen=True):
    """Sender to receiver: that was all. ``digest`` as :func:`glide.transfer.manifest.whole` says."""

    kind = Kind.END
    bytes: Size
    digest: Digest


class Ack(Message, frozen=True):
    """Receiver to sender: so many bytes, in manifest order, are durable here."""

    kind = Kind.ACK
    bytes: Size


class Receipt(Message, frozen=True):
    """Receiver to sender: all items stand under their final names."""

    kind = Kind.RECEIPT
    items: Size
    bytes: Size
    digest: Digest


class Done(Message, frozen=True):
    """Sender to receiver: I have the receipt."""

    kind = Kind.DONE


class Abort(Message, frozen=True):
    """Either side to the other: this transfer ends here, and why."""

    kind = Kind.ABORT
    code: Code
    message: Text = ""


class Keepalive(Message, frozen=True):
    """Anywhere: I am still here. Its frame is empty."""

    kind = Kind.KEEPALIVE


AnyMessage: TypeAlias = (
    Hello | Welcome | Refused | Push | Ringing | Failed | Incoming | Reject | Who | People | Goodbye | Waiting
    | Ticket | Joined
    | Capabilities | Offer | Accept | Decline | Digests | End | Ack | Receipt | Done | Abort
    | Keepalive
)  # fmt: skip  # in the order of the sections above

TYPES: dict[int, type[Message]] = {message.kind: message for message in get_args(AnyMessage)}

_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(message, strict=True) for kind, message in TYPES.items()}
_LENGTH = 4  # bytes before an offer's map, saying where the padding begins


def to_bytes(message: Message) -> bytes:
    """The frame that carries ``message``. ValueError if it is longer than its type may be."""
    if isinstance(message, Keepalive):
        return encode(Kind.KEEPALIVE, b"")
    payload = _encoder.encode(message)
    if isinstance(message, Offer):
        padded = -(_LENGTH + len(payload)) % PADDING
        payload = len(payload).to_bytes(_LENGTH, "big") + payload + bytes(padded)
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
    payload = _unpadded(frame.payload) if kind == Kind.OFFER else frame.payload
    try:
        return _decoders[kind].decode(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        # RecursionError: a deeply nested value in a field that is unknown. ValueError: text that is no UTF-8.
        raise ProtocolError(
            f"The peer sent a {Kind(kind).name} message that does not fit its form ({error})."
        ) from None


def _unpadded(payload: bytes) -> bytes:
    length = int.from_bytes(payload[:_LENGTH], "big")
    body = payload[_LENGTH : _LENGTH + length]
    if len(body) != length or len(payload) % PADDING or payload[_LENGTH + length :].strip(b"\0"):
        raise ProtocolError("The peer sent an OFFER message whose padding does not fit its form.")
    if len(payload) - _LENGTH - length >= PADDING:
        raise ProtocolError("The peer sent an OFFER message with more padding than it needs.")
    return body
