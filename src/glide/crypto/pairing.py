"""Pairing: two people who share a short code show each other that nobody is between them.

    A (types the code)                B (shows it)
    share of SPAKE2           ->
                              <-      share of SPAKE2
    tag of the initiator      ->
                              <-      tag of the responder, only if A's is right

SPAKE2 (the steps are `spake2`'s, over Ed25519; RFC 9382 is its standard, with other encodings) makes a key out of a
code that could be guessed, in such a way that whoever takes part learns whether one guess was right, and whoever only
listens learns nothing. The key depends on both people's own keys, and each tag on the hash of the Noise handshake
before it. So somebody in the middle, who has a handshake with each of the two, gains nothing by handing on what they
say.
"""

from __future__ import annotations

import hmac
from enum import Enum

from glide.errors import IntegrityError

# Bytes of a share: one that names the side, and a point of Ed25519.
SHARE_LENGTH = 33
# Bytes of a tag: HMAC-SHA256.
TAG_LENGTH = 32

# The field of Ed25519, and the bits of an encoded point that are its y (RFC 8032, 5.1.2).
_PRIME = 2**255 - 19
_Y = 2**255 - 1


class _Step(Enum):
    BEGUN = "begun"
    SHARED = "shared"
    PROVEN = "proven"
    FAILED = "failed"


class Exchange:
    """One side of one exchange, good for one attempt: :meth:`take` what they shared, then :meth:`check` their tag.

    ``transcript`` is the hash of the handshake. Whatever the peer sends, nothing but :class:`IntegrityError` is
    raised; to call something twice, or too early, is a fault of ours and a RuntimeError.
    """

    def __init__(
        self, code: str, *, initiator: bool, initiator_key: bytes, responder_key: bytes, transcript: bytes
    ) -> None:
        from spake2 import SPAKE2_A, SPAKE2_B  # slow to load, and few commands pair

        self._initiator = initiator
        self._transcript = transcript
        side = SPAKE2_A if initiator else SPAKE2_B
        self._spake2 = side(code.encode(), idA=initiator_key, idB=responder_key)
        self._key = b""
        self._step = _Step.BEGUN
        # Our half of the exchange.
        self.share = bytes(self._spake2.start())

    def __repr__(self) -> str:
        return f"<Exchange as {'initiator' if self._initiator else 'responder'}: {self._step.value}>"

    def take(self, share: bytes) -> None:
        """Their half of the exchange. Raises :class:`IntegrityError` if it is none; the code is burnt then."""
        from spake2 import SPAKEError
        from spake2.ed25519_basic import NotOnCurve

        self._be(_Step.BEGUN)
        self._step = _Step.FAILED
        # The library would take other spellings of a point too, and in them the neutral element.
        y = int.from_bytes(share[1:], "little") & _Y
        if len(share) != SHARE_LENGTH or not 1 < y < _PRIME:
            raise _wrong()
        try:
            self._key = bytes(self._spake2.finish(bytes(share)))
        except (SPAKEError, NotOnCurve, ValueError):  # of our own side, our own share, off the curve, of a small group
            raise _wrong() from None
        self._step = _Step.SHARED

    @property
    def tag(self) -> bytes:
        """What shows them that we know the code. The responder has none before :meth:`check`."""
        if self._initiator and self._step is _Step.SHARED:
            return self._tag(initiator=True)
        self._be(_Step.PROVEN)
        return self._tag(initiator=self._initiator)

    def check(self, tag: bytes) -> None:
        """Raise :class:`IntegrityError` unless they know the code and mean this handshake, and both our keys."""
        self._be(_Step.SHARED)
        right = hmac.compare_digest(tag, self._tag(initiator=not self._initiator))
        self._step = _Step.PROVEN if right else _Step.FAILED
        if not right:
            raise _wrong()

    def _tag(self, *, initiator: bool) -> bytes:
        side = b"glide pair initiator" if initiator else b"glide pair responder"
        return hmac.digest(self._key, side + self._transcript, "sha256")

    def _be(self, step: _Step) -> None:
        if self._step is not step:
            raise RuntimeError(f"too early, or a second attempt: {self!r}")


def _wrong() -> IntegrityError:
    return IntegrityError(
        "The code was wrong, or somebody is in between.",
        "This code is burnt, and nothing was pinned.",
        "Run it again on both sides, with the new code.",
        for_peer="the code was wrong, or somebody is in between.",
    )
