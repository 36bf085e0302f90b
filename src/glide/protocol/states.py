"""Who may say what when: tables, and the small machine that walks them.

Whatever affects the order of messages lives here. A state maps each kind of frame that may be said in it to the
state that follows; what is not listed is an error of whoever said it. KEEPALIVE may be said anywhere once a
connection is encrypted and changes nothing. A connection has two sides; each direction's frames are walked through
the same table, so both peers, and the tests, agree on where they are.
"""

from __future__ import annotations

from enum import Enum, auto

from glide.errors import ProtocolError
from glide.protocol.frames import Kind


class Side(Enum):
    """Who speaks: the one that opened the connection (or, end to end, sends the file), or the other."""

    INITIATOR = auto()
    RESPONDER = auto()

    @property
    def other(self) -> Side:
        return Side.RESPONDER if self is Side.INITIATOR else Side.INITIATOR


class State(Enum):
    # control: the client is the initiator, the relay the responder
    GREETING = auto()  # Hello is awaited
    ADMISSION = auto()  # Welcome or Refused is awaited
    REGISTERED = auto()
    # data: the client is the initiator
    TICKET = auto()
    JOINING = auto()
    JOINED = auto()  # the relay's part is over
    # end to end: the sender is the initiator
    OFFERING = auto()  # pages of the manifest, then the offer
    ASKING = auto()
    STREAMING = auto()  # the receiver says what it wants, and the sender sends it
    ENDED = auto()  # End was said: all digests are told; what did not match may be wanted again
    CONFIRMED = auto()  # the receipt was said; Done is awaited
    # two people who pair: the one who types the code is the initiator
    PAIRING = auto()
    SHARED = auto()  # the initiator's half of the key exchange was said
    CONFIRMING = auto()  # both halves were
    ACKNOWLEDGING = auto()  # the initiator has shown that it knows the code
    # anywhere
    CLOSED = auto()


_I, _R = Side.INITIATOR, Side.RESPONDER

TABLE: dict[State, dict[tuple[Side, Kind], State]] = {
    State.GREETING: {(_I, Kind.HELLO): State.ADMISSION, (_R, Kind.REFUSED): State.CLOSED},
    State.ADMISSION: {(_R, Kind.WELCOME): State.REGISTERED, (_R, Kind.REFUSED): State.CLOSED},
    State.REGISTERED: {
        (_I, Kind.PUSH): State.REGISTERED,
        (_I, Kind.REJECT): State.REGISTERED,
        (_I, Kind.WHO): State.REGISTERED,
        (_I, Kind.WITHDRAW): State.REGISTERED,
        (_R, Kind.RINGING): State.REGISTERED,
        (_R, Kind.QUEUED): State.REGISTERED,
        (_R, Kind.FAILED): State.REGISTERED,
        (_R, Kind.INCOMING): State.REGISTERED,
        (_R, Kind.PEOPLE): State.REGISTERED,
        (_R, Kind.WAITING): State.REGISTERED,
        (_R, Kind.GOODBYE): State.CLOSED,
    },
    State.TICKET: {(_I, Kind.TICKET): State.JOINING, (_R, Kind.REFUSED): State.CLOSED},
    State.JOINING: {(_R, Kind.JOINED): State.JOINED, (_R, Kind.REFUSED): State.CLOSED},
    State.JOINED: {},
    State.OFFERING: {
        (_I, Kind.MANIFEST): State.OFFERING,
        (_I, Kind.OFFER): State.ASKING,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.ASKING: {
        (_R, Kind.ACCEPT): State.STREAMING,
        (_R, Kind.DECLINE): State.CLOSED,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.STREAMING: {
        (_I, Kind.DATA): State.STREAMING,
        (_I, Kind.BLOCKS): State.STREAMING,
        (_I, Kind.DIGESTS): State.STREAMING,
        (_I, Kind.END): State.ENDED,
        (_I, Kind.BUSY): State.STREAMING,
        (_R, Kind.WANT): State.STREAMING,
        (_R, Kind.ACK): State.STREAMING,
        (_R, Kind.BUSY): State.STREAMING,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.ENDED: {
        (_I, Kind.DATA): State.ENDED,
        (_I, Kind.BUSY): State.ENDED,
        (_R, Kind.WANT): State.ENDED,
        (_R, Kind.ACK): State.ENDED,
        (_R, Kind.BUSY): State.ENDED,
        (_R, Kind.RECEIPT): State.CONFIRMED,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    # An Abort or Busy here has crossed the receipt on its way: too late to matter.
    State.CONFIRMED: {
        (_I, Kind.BUSY): State.CONFIRMED,
        (_I, Kind.DONE): State.CLOSED,
        (_I, Kind.ABORT): State.CLOSED,
    },
    State.PAIRING: {
        (_I, Kind.SHARE): State.SHARED,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.SHARED: {
        (_R, Kind.SHARE): State.CONFIRMING,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.CONFIRMING: {
        (_I, Kind.CONFIRM): State.ACKNOWLEDGING,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.ACKNOWLEDGING: {
        (_R, Kind.CONFIRM): State.CLOSED,
        (_I, Kind.ABORT): State.CLOSED,
        (_R, Kind.ABORT): State.CLOSED,
    },
    State.CLOSED: {},
}

START = {"control": State.GREETING, "data": State.TICKET, "e2e": State.OFFERING, "pair": State.PAIRING}

# In CLOSED nothing can be said, a keepalive neither; in JOINED the connection is no longer ours.
_SILENT = frozenset({State.CLOSED, State.JOINED})


class Machine:
    """Where one connection is in the tables.

    Messages of both sides cross on the wire: a receiver may still be sent data after it said Abort. So whoever has said
    its last word stops reading messages, and drops what still comes. Nothing here waits or sends.
    """

    def __init__(self, purpose: str, me: Side) -> None:
        self.state = START[purpose]
        self.me = me

    def __repr__(self) -> str:
        return f"<Machine {self.state.name} as {self.me.name.lower()}>"

    def may_say(self, kind: Kind) -> bool:
        """True if we may say this now."""
        return self._next(self.me, kind) is not None

    def sent(self, kind: Kind) -> None:
        """We are about to say this. RuntimeError if we may not: a bug of ours, never a peer's doing."""
        following = self._next(self.me, kind)
        if following is None:
            raise RuntimeError(f"may not say {kind.name} in {self.state.name}")
        self.state = following

    def received(self, kind: int) -> None:
        """The peer said this. Raises :class:`ProtocolError` if it may not."""
        following = self._next(self.me.other, kind)
        if following is None:
            name = Kind(kind).name if kind in _KINDS else f"type {kind}"
            raise ProtocolError(f"The peer said {name} where it may not (in {self.state.name}).")
        self.state = following

    def _next(self, side: Side, kind: int) -> State | None:
        if kind == Kind.KEEPALIVE and self.state not in _SILENT:
            return self.state
        return TABLE[self.state].get((side, Kind(kind))) if kind in _KINDS else None


_KINDS = frozenset(int(kind) for kind in Kind)
