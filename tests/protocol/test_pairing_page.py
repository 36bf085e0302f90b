"""What the protocol page writes out about SHARE and CONFIRM, done by hand, agrees with what glide says."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

import pytest

from glide.crypto.pairing import Exchange
from glide.errors import IntegrityError

# Ed25519 (RFC 8032, 5.1), in the plainest way there is.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)

CODE = "hidden-lamp"
ALICE, BOB, TRANSCRIPT = b"a" * 32, b"b" * 32, b"h" * 32


@dataclass(frozen=True)
class Point:
    x: int
    y: int

    def __add__(self, other: Point) -> Point:
        xx, yy = self.x * other.x, self.y * other.y
        bend = D * xx % P * yy % P
        return Point(
            (self.x * other.y + other.x * self.y) * pow(1 + bend, -1, P) % P,
            (yy + xx) * pow(1 - bend, -1, P) % P,
        )

    def times(self, number: int) -> Point:
        total, power = Point(0, 1), self
        while number:
            if number & 1:
                total = total + power
            power = power + power
            number >>= 1
        return total

    def minus(self, other: Point) -> Point:
        return self + Point(-other.x % P, other.y)

    @property
    def encoded(self) -> bytes:
        return (self.y | (self.x & 1) << 255).to_bytes(32, "little")


def with_y(y: int, odd: bool) -> Point | None:
    """The point with this y, and an odd or an even x."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P:
        return None
    return Point(P - x if bool(x & 1) != odd else x, y)


def decoded(share: bytes) -> Point:
    number = int.from_bytes(share, "little")
    point = with_y(number & (2**255 - 1), bool(number >> 255))
    assert point is not None
    return point


def hkdf(secret: bytes, info: bytes) -> int:
    """48 bytes of HKDF-SHA256 without a salt, as a number."""
    key = hmac.digest(bytes(32), secret, "sha256")
    first = hmac.digest(key, info + b"\1", "sha256")
    return int.from_bytes((first + hmac.digest(key, first + info + b"\2", "sha256"))[:48], "big")


def of_seed(seed: bytes) -> Point:
    y = hkdf(seed, b"SPAKE2 arbitrary element") % P
    while True:
        point = with_y(y, odd=False)
        if point is not None and (eightfold := point.times(8)) != Point(0, 1):
            return eightfold
        y = (y + 1) % P


BASE = decoded((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
M, N = of_seed(b"M"), of_seed(b"N")


def sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


@pytest.mark.parametrize("theirs", [CODE, "hidden-lamb"])
@pytest.mark.parametrize("initiator", [True, False])
def test_C8_a_pairing_can_be_written_from_the_page(initiator: bool, theirs: str) -> None:
    # glide takes the other part.
    glide = Exchange(theirs, initiator=not initiator, initiator_key=ALICE, responder_key=BOB, transcript=TRANSCRIPT)
    mine, others = (M, N) if initiator else (N, M)
    w = hkdf(CODE.encode(), b"SPAKE2 pw") % L
    secret = secrets.randbelow(L - 1) + 1
    share = (BASE.times(secret) + mine.times(w)).encoded
    assert glide.share[:1] == (b"B" if initiator else b"A")
    z = decoded(glide.share[1:]).minus(others.times(w)).times(secret).encoded
    x, y = (share, glide.share[1:]) if initiator else (glide.share[1:], share)
    k = sha256(sha256(CODE.encode()) + sha256(ALICE) + sha256(BOB) + x + y + z)
    tags = [hmac.digest(k, b"glide pair " + side + TRANSCRIPT, "sha256") for side in (b"initiator", b"responder")]

    glide.take((b"A" if initiator else b"B") + share)
    if theirs == CODE:
        assert initiator or glide.tag == tags[0]
        glide.check(tags[0] if initiator else tags[1])
        assert not initiator or glide.tag == tags[1]
    else:
        with pytest.raises(IntegrityError):
            glide.check(tags[0] if initiator else tags[1])
