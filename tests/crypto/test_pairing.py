"""Pairing: what a code proves, and what somebody in between can do with it, which is to guess once."""

from __future__ import annotations

import hmac
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glide.crypto.pairing import SHARE_LENGTH, TAG_LENGTH, Exchange
from glide.errors import IntegrityError

ALICE, BOB, MALLORY = b"a" * 32, b"b" * 32, b"m" * 32
TRANSCRIPT = bytes(range(32))
CODE, OTHER_CODE = "coral-window", "coral-winter"

PRIME = 2**255 - 19
# A point of order 8 (RFC 7748's curve has the same ones), the ones of order 1, 2 and 4, and their other spellings.
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
SMALL = [ORDER_8, *(y.to_bytes(32, "little") for y in (0, 1, PRIME - 1, PRIME, PRIME + 1, 2**255 - 1))]
SMALL += [bytes([*point[:31], point[31] | 0x80]) for point in SMALL]


class Pair(NamedTuple):
    initiator: Exchange
    responder: Exchange


def exchange(
    code: str = CODE,
    *,
    initiator: bool,
    keys: tuple[bytes, bytes] = (ALICE, BOB),
    transcript: bytes = TRANSCRIPT,
) -> Exchange:
    return Exchange(code, initiator=initiator, initiator_key=keys[0], responder_key=keys[1], transcript=transcript)


def both(code: str = CODE, other: str = CODE) -> Pair:
    return Pair(exchange(code, initiator=True), exchange(other, initiator=False))


def share(pair: Pair) -> None:
    """Both halves change sides."""
    pair.responder.take(pair.initiator.share)
    pair.initiator.take(pair.responder.share)


def attempt(side: Exchange, said: bytes, tag: bytes = bytes(TAG_LENGTH)) -> None:
    """All that a peer can say: a share, and a tag."""
    side.take(said)
    side.check(tag)


def test_C1_the_same_code_convinces_both() -> None:
    pair = both()
    share(pair)
    pair.responder.check(pair.initiator.tag)
    pair.initiator.check(pair.responder.tag)


def test_shares_and_tags_have_the_lengths_that_their_messages_allow() -> None:
    pair = both()
    assert [len(side.share) for side in pair] == [SHARE_LENGTH, SHARE_LENGTH]
    share(pair)
    assert len(pair.initiator.tag) == TAG_LENGTH


def test_C1_another_code_convinces_neither() -> None:
    pair = both(CODE, OTHER_CODE)
    share(pair)
    with pytest.raises(IntegrityError):
        pair.responder.check(pair.initiator.tag)
    with pytest.raises(IntegrityError):
        pair.initiator.check(hmac.digest(b"", b"glide pair responder" + TRANSCRIPT, "sha256"))


@pytest.mark.parametrize(
    "theirs",
    [
        {"keys": (MALLORY, BOB)},
        {"keys": (ALICE, MALLORY)},
        {"keys": (BOB, ALICE)},
        {"transcript": bytes(32)},
        {"code": OTHER_CODE},
    ],
    ids="-".join,
)
def test_C2_it_is_bound_to_both_keys_the_handshake_and_the_code(theirs: dict[str, object]) -> None:
    initiator = exchange(initiator=True)
    responder = exchange(initiator=False, **theirs)  # type: ignore[arg-type]  # each case is one argument
    responder.take(initiator.share)
    initiator.take(responder.share)
    with pytest.raises(IntegrityError):
        responder.check(initiator.tag)


def test_C2_who_is_in_between_gains_nothing_by_handing_all_of_it_on() -> None:
    # Alice has a handshake with Mallory, and Mallory one with Bob: other keys, and other hashes.
    alice = exchange(initiator=True, keys=(ALICE, MALLORY), transcript=b"1" * 32)
    bob = exchange(initiator=False, keys=(MALLORY, BOB), transcript=b"2" * 32)
    bob.take(alice.share)
    alice.take(bob.share)
    with pytest.raises(IntegrityError):
        bob.check(alice.tag)
    with pytest.raises(RuntimeError):
        _ = bob.tag  # there is nothing that could be handed on to Alice


def test_C2_a_relay_that_joins_somebody_to_themselves_convinces_nobody() -> None:
    alice = exchange(initiator=True, keys=(ALICE, ALICE))
    with pytest.raises(IntegrityError):
        alice.take(alice.share)


def test_C2_a_reflected_share_is_refused_whatever_side_it_claims() -> None:
    for initiator, other in ((True, b"B"), (False, b"A")):
        side = exchange(initiator=initiator)
        with pytest.raises(IntegrityError):
            side.take(other + side.share[1:])


def test_C2_a_reflected_tag_is_refused() -> None:
    pair = both()
    share(pair)
    with pytest.raises(IntegrityError):
        pair.initiator.check(pair.initiator.tag)


def test_C1_the_responder_has_no_tag_before_it_has_seen_a_right_one() -> None:
    pair = both()
    with pytest.raises(RuntimeError):
        _ = pair.responder.tag
    share(pair)
    with pytest.raises(RuntimeError):
        _ = pair.responder.tag
    pair.responder.check(pair.initiator.tag)
    pair.initiator.check(pair.responder.tag)


def test_C1_one_exchange_is_one_guess() -> None:
    # Mallory guesses wrong, and would like to try again with what she has heard.
    bob = exchange(initiator=False)
    wrong, right = exchange(OTHER_CODE, initiator=True), exchange(CODE, initiator=True)
    bob.take(wrong.share)
    wrong.take(bob.share)
    right.take(bob.share)
    with pytest.raises(IntegrityError):
        bob.check(wrong.tag)
    for attempt in (lambda: bob.take(right.share), lambda: bob.check(right.tag), lambda: bob.tag):
        with pytest.raises(RuntimeError):
            attempt()


def test_C1_a_malformed_share_is_an_attempt_too() -> None:
    bob = exchange(initiator=False)
    with pytest.raises(IntegrityError):
        bob.take(b"")
    with pytest.raises(RuntimeError):
        bob.take(exchange(initiator=True).share)


def test_C1_guesses_cannot_be_tried_on_what_was_heard() -> None:
    # With the right code, but another secret of its own, a tag that was heard cannot be made again.
    pair = both()
    share(pair)
    heard = pair.initiator.tag
    mallory = exchange(initiator=False)
    mallory.take(pair.initiator.share)
    with pytest.raises(IntegrityError):
        mallory.check(heard)


def test_C7_no_two_exchanges_say_the_same() -> None:
    shares = {exchange(initiator=True).share for _ in range(20)}
    assert len(shares) == 20


@settings(max_examples=150)
@given(st.binary(max_size=70), st.booleans())
@example(b"", True)
@example(b"A" + bytes(32), True)
def test_C1_any_bytes_at_all_are_no_share_or_an_attempt_that_fails(said: bytes, initiator: bool) -> None:
    side = exchange(initiator=initiator)
    with pytest.raises(IntegrityError):
        attempt(side, said)


@settings(max_examples=150)
@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_C1_any_point_or_none_of_the_right_side_fails_as_an_attempt(point: bytes, initiator: bool) -> None:
    side = exchange(initiator=initiator)
    with pytest.raises(IntegrityError):
        attempt(side, (b"B" if initiator else b"A") + point)


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("point", SMALL, ids=bytes.hex)
def test_C1_points_of_small_order_and_other_spellings_are_no_shares(point: bytes, initiator: bool) -> None:
    side = exchange(initiator=initiator)
    with pytest.raises(IntegrityError):
        side.take((b"B" if initiator else b"A") + point)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 1000])
def test_C1_a_tag_of_another_length_is_wrong(length: int) -> None:
    pair = both()
    share(pair)
    with pytest.raises(IntegrityError):
        pair.responder.check((pair.initiator.tag * 40)[:length])


@given(st.integers(min_value=0, max_value=8 * SHARE_LENGTH - 1))
@settings(max_examples=60)
def test_C1_a_changed_bit_in_a_share_is_found(bit: int) -> None:
    pair = both()
    changed = int.from_bytes(pair.initiator.share, "big") ^ (1 << bit)
    pair.initiator.take(pair.responder.share)
    with pytest.raises(IntegrityError):
        attempt(pair.responder, changed.to_bytes(SHARE_LENGTH, "big"), pair.initiator.tag)


@given(st.integers(min_value=0, max_value=8 * TAG_LENGTH - 1))
@settings(max_examples=40)
def test_C1_a_changed_bit_in_a_tag_is_found(bit: int) -> None:
    pair = both()
    share(pair)
    changed = int.from_bytes(pair.initiator.tag, "big") ^ (1 << bit)
    with pytest.raises(IntegrityError):
        pair.responder.check(changed.to_bytes(TAG_LENGTH, "big"))


def test_C5_neither_code_nor_key_is_in_what_an_exchange_shows_of_itself() -> None:
    pair = both()
    share(pair)
    shown = f"{pair.initiator!r} {pair.responder!r}"
    with pytest.raises(IntegrityError) as caught:
        pair.responder.check(bytes(TAG_LENGTH))
    shown += f"{caught.value} {caught.value.for_peer}"
    assert not [secret for secret in (*CODE.split("-"), pair.initiator.tag.hex()) if secret in shown]
