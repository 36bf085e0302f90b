"""Frames: how messages and file bytes are cut out of the decrypted stream.

A frame is a header of five bytes, one for the type and four (big-endian) for the length of what follows,
and then that many bytes. The length is checked against the limit of its type before anything else happens,
so nobody can make the other side allocate more than :data:`LIMITS` allows, whatever they send.

Frames know nothing of records: a record may end in the middle of a header. The bytes of a DATA frame are
handed on as they come, without waiting for the frame to be whole, and so are never copied together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from glide.errors import ProtocolError

HEADER = struct.Struct(">BI")


class Kind(IntEnum):
    """The type byte. Numbers are never reused; an unknown one is skipped if its length is allowed."""

    # control connections
    HELLO = 0x01
    WELCOME = 0x02
    REFUSED = 0x03
    PUSH = 0x04
    RINGING = 0x05
    FAILED = 0x06
    INCOMING = 0x07
    REJECT = 0x08
    WHO = 0x09
    PEOPLE = 0x0A
    GOODBYE = 0x0B
    WAITING = 0x0C
    QUEUED = 0x0D
    WITHDRAW = 0x0E
    # data connections, before they are joined
    TICKET = 0x20
    JOINED = 0x21
    # end to end
    CAPABILITIES = 0x40
    OFFER = 0x41
    ACCEPT = 0x42
    DECLINE = 0x43
    DATA = 0x44
    DIGESTS = 0x45
    END = 0x46
    ACK = 0x47
    RECEIPT = 0x48
    DONE = 0x49
    ABORT = 0x4A
    MANIFEST = 0x4B
    WANT = 0x4C
    BLOCKS = 0x4D
    BUSY = 0x4E
    # two people who pair, in place of a transfer
    SHARE = 0x60
    CONFIRM = 0x61
    # anywhere
    KEEPALIVE = 0x7F


KIB = 1024

# The most bytes that a frame of each type may announce, header excluded. Most messages are a few short
# strings; where a limit is larger, the reason stands beside it.
SMALL = 2 * KIB
LIMITS: dict[Kind, int] = {
    Kind.HELLO: SMALL,
    Kind.WELCOME: SMALL,
    Kind.REFUSED: SMALL,
    Kind.PUSH: SMALL,
    Kind.RINGING: SMALL,
    Kind.FAILED: SMALL,
    Kind.INCOMING: SMALL,
    Kind.REJECT: SMALL,
    Kind.WHO: SMALL,
    Kind.PEOPLE: 32 * KIB,  # one page of at most 100 people at under 200 bytes each
    Kind.GOODBYE: SMALL,
    Kind.WAITING: SMALL,
    Kind.QUEUED: SMALL,
    Kind.WITHDRAW: SMALL,
    Kind.TICKET: SMALL,
    Kind.JOINED: SMALL,
    Kind.CAPABILITIES: SMALL,
    Kind.OFFER: 4 * KIB,  # padded to just that, as every page of the manifest and of the digests is
    Kind.ACCEPT: SMALL,
    Kind.DECLINE: SMALL,
    Kind.DATA: 16 * KIB * KIB,  # passed on as it comes, never gathered; bounds only the wait for a message
    Kind.DIGESTS: 4 * KIB,  # 32 bytes an item of one page
    Kind.END: SMALL,
    Kind.ACK: SMALL,
    Kind.RECEIPT: SMALL,
    Kind.DONE: SMALL,
    Kind.ABORT: SMALL,
    Kind.MANIFEST: 4 * KIB,
    Kind.WANT: 32 * KIB,  # at most 1,000 ranges of at most 19 bytes
    Kind.BLOCKS: 32 * KIB,  # at most 1,000 digests of 32 bytes
    Kind.BUSY: SMALL,
    Kind.SHARE: SMALL,
    Kind.CONFIRM: SMALL,
    Kind.KEEPALIVE: 0,
}

# A type that this version does not know is skipped up to this length: room for a newer peer to say more.
UNKNOWN_LIMIT = SMALL


class Frame(msgspec.Struct, frozen=True):
    """A whole frame of any type but DATA."""

    kind: int
    payload: bytes


class Data(msgspec.Struct, frozen=True):
    """Some bytes of a DATA frame, in order: a view into the record they came in."""

    view: memoryview


def header(kind: Kind, length: int) -> bytes:
    """The five bytes before a payload of ``length`` bytes. ValueError if that is over the limit."""
    if length > LIMITS[kind]:
        raise ValueError(f"a {kind.name} frame of {length} bytes is over its limit of {LIMITS[kind]}")
    return HEADER.pack(kind, length)


def encode(kind: Kind, payload: bytes) -> bytes:
    """A whole frame. ValueError if the payload is over the limit of its type."""
    return header(kind, len(payload)) + payload


class Decoder:
    """Cuts a stream into frames, in whatever pieces it comes.

    >>> decoder = Decoder()
    >>> list(decoder.feed(encode(Kind.KEEPALIVE, b"")))
    [Frame(kind=127, payload=b'')]

    What it holds is at most one header and one payload within its limit.
    """

    def __init__(self) -> None:
        self._partial = bytearray()
        self._data_left = 0

    def __repr__(self) -> str:
        return f"<Decoder holding {len(self._partial)} bytes, {self._data_left} of DATA to come>"

    @property
    def in_data(self) -> bool:
        """True if more of a DATA frame is to come."""
        return self._data_left > 0

    def feed(self, piece: bytes | memoryview) -> Iterator[Frame | Data]:
        """The frames, and pieces of DATA, that ``piece`` completes, in order.

        Raises :class:`ProtocolError` at a header that announces more than its type may have; the
        decoder is of no use after that. Draw the iterator to its end before the next call.
        """
        view = memoryview(piece)
        at = 0
        while at < len(view):
            if self._data_left:
                take = min(self._data_left, len(view) - at)
                self._data_left -= take
                yield Data(view[at : at + take])
                at += take
                continue
            wanted = self._wanted()
            take = min(wanted, len(view) - at)
            self._partial += view[at : at + take]
            at += take
            if take == wanted and (frame := self._complete()) is not None:
                yield frame

    def _wanted(self) -> int:
        """How many bytes the frame in hand still lacks; the header first."""
        if len(self._partial) < HEADER.size:
            return HEADER.size - len(self._partial)
        _, length = HEADER.unpack_from(self._partial)
        return HEADER.size + int(length) - len(self._partial)

    def _complete(self) -> Frame | Data | None:
        """Called when what was wanted is there: check a header, or hand out a frame."""
        kind, length = HEADER.unpack_from(self._partial)
        if len(self._partial) == HEADER.size:
            limit = LIMITS[Kind(kind)] if kind in _KNOWN else UNKNOWN_LIMIT
            if length > limit:
                raise ProtocolError(
                    f"The peer announced a frame of type {kind} with {length} bytes; {limit} is the most."
                )
            if kind == Kind.DATA:
                self._partial.clear()
                self._data_left = length
                # An empty one is handed on too: the state tables have to see it.
                return None if length else Data(memoryview(b""))
            if length:
                return None
        frame = Frame(kind, bytes(self._partial[HEADER.size :]))
        self._partial.clear()
        return frame


_KNOWN = frozenset(int(kind) for kind in Kind)
