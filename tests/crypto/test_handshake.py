"""The handshake: published bytes, each side's key proven to the other, and nobody in between unnoticed."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.backends.default.keypairs import KeyPair25519
from noise.connection import Keypair, NoiseConnection

from glide.crypto.handshake import LONGEST_MESSAGE, PROTOCOL, Handshake, Secrets, prologue
from glide.crypto.identity import Identity
from glide.crypto.records import Opener, Sealer
from glide.errors import IntegrityError
from glide.protocol.frames import LIMITS, Kind, encode
from glide.protocol.preface import Purpose, opening

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "noise_xx.json").read_text())["vectors"]

ALICE, BOB = Identity.generate(), Identity.generate()
CONTROL = prologue(opening(Purpose.CONTROL))

# Points of low order on Curve25519 (cr.yp.to/ecdh.html): with any private key the shared secret is all zeros.
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]
low_order = pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])


@dataclass
class Pair:
    """Both sides of one handshake, which take turns."""

    alice: Handshake
    bob: Handshake

    @classmethod
    def new(cls, hers: bytes = CONTROL, his: bytes = CONTROL) -> Pair:
        return cls(Handshake(ALICE, hers, initiator=True), Handshake(BOB, his, initiator=False))

    def turn(self, number: int) -> tuple[Handshake, Handshake]:
        """Who writes and who reads message ``number``, counted from zero."""
        return (self.bob, self.alice) if number % 2 else (self.alice, self.bob)

    def run(self) -> tuple[Secrets, Secrets]:
        for number in range(3):
            writer, reader = self.turn(number)
            reader.read(writer.write())
        return self.alice.finish(), self.bob.finish()


# --- the framework's own bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["origin"])
def test_C8_with_the_keys_of_published_vectors_our_bytes_are_theirs(vector: dict[str, Any]) -> None:
    raw = {name: bytes.fromhex(vector[name]) for name in vector if name not in ("origin", "messages")}

    def side(who: str) -> Handshake:
        with pytest.warns(UserWarning, match="ephemeral keypairs is already set"):
            return Handshake(
                Identity.from_private(raw[f"{who}_static"]),
                raw["prologue"],
                initiator=who == "init",
                ephemeral=raw[f"{who}_ephemeral"],
            )

    pair = Pair(side("init"), side("resp"))
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        writer, reader = pair.turn(number)
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
    secrets = {True: pair.bob.finish(), False: pair.alice.finish()}
    sealers = {responder: Sealer(secrets[responder].send) for responder in secrets}
    openers = {responder: Opener(secrets[not responder].receive) for responder in secrets}
    # After the handshake both take turns, and the fourth message is the responder's.
    for number, (payload, ciphertext) in enumerate(messages[3:], start=3):
        responder = number % 2 == 1
        assert not sealers[responder].seal(payload)
        record = sealers[responder].flush()
        assert record[2:] == ciphertext
        openers[responder].feed(record)
        assert bytes(openers[responder].next() or b"") == payload


def test_C8_there_are_vectors_of_two_origins_with_transport_messages() -> None:
    assert {vector["origin"] for vector in VECTORS} == {"cacophony", "snow"}
    assert all(len(vector["messages"]) > 4 for vector in VECTORS)


# --- what a handshake leaves -----------------------------------------------------------------------------


def test_both_sides_end_with_each_others_key_and_with_matching_secrets() -> None:
    alice, bob = Pair.new().run()
    assert (alice.peer, bob.peer) == (BOB.public, ALICE.public)
    assert (alice.send, alice.receive) == (bob.receive, bob.send)
    assert alice.hash == bob.hash


def test_C7_no_two_handshakes_of_the_same_people_have_a_key_in_common() -> None:
    finished = [Pair.new().run()[0] for _ in range(50)]
    keys = [secrets.send for secrets in finished] + [secrets.receive for secrets in finished]
    assert len(set(keys)) == 100


def test_the_initiator_knows_the_peers_key_after_message_two_and_before_its_own_is_sent() -> None:
    pair = Pair.new()
    assert pair.alice.peer is None
    pair.bob.read(pair.alice.write())
    assert pair.alice.peer is None
    pair.alice.read(pair.bob.write())
    assert pair.alice.peer == BOB.public
    assert not pair.alice.finished


def test_the_responder_knows_the_peers_key_with_message_three_and_not_before() -> None:
    pair = Pair.new()
    pair.bob.read(pair.alice.write())
    pair.alice.read(pair.bob.write())
    assert pair.bob.peer is None
    pair.bob.read(pair.alice.write())
    assert pair.bob.peer == ALICE.public
    assert pair.bob.finished


@given(st.lists(st.binary(max_size=2048), min_size=3, max_size=3))
def test_payloads_arrive_and_those_of_message_two_and_three_are_not_in_clear(payloads: list[bytes]) -> None:
    pair = Pair.new()
    for number, payload in enumerate(payloads):
        writer, reader = pair.turn(number)
        message = writer.write(payload)
        assert reader.read(message) == payload
        if number and len(payload) > 8:
            assert payload not in message


def test_the_longest_capabilities_fit_the_longest_message() -> None:
    pair = Pair.new()
    payload = encode(Kind.CAPABILITIES, bytes(LIMITS[Kind.CAPABILITIES]))
    pair.bob.read(pair.alice.write())
    second = pair.bob.write(payload)
    assert pair.alice.read(second) == payload
    third = pair.alice.write(payload)
    assert pair.bob.read(third) == payload
    assert max(len(second), len(third)) <= LONGEST_MESSAGE


def test_C5_secrets_and_handshakes_do_not_show_their_keys() -> None:
    pair = Pair.new()
    alice, _ = pair.run()
    for shown in (repr(alice), str(alice), f"{alice}", repr(pair.alice)):
        for key in (alice.send, alice.receive, ALICE.private):
            assert key.hex() not in shown
            assert repr(key)[2:-1] not in shown


def test_a_finished_handshake_is_freed_at_once_and_with_it_the_ephemeral_key() -> None:
    gc.collect()
    gc.disable()
    try:
        pair = Pair.new()
        held = [weakref.ref(side._noise) for side in (pair.alice, pair.bob)]
        assert all(ref() is not None for ref in held)
        pair.run()
        del pair
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


# --- somebody in between ---------------------------------------------------------------------------------


@st.composite
def harms(draw: st.DrawFn, message: bytes) -> bytes:
    """``message`` with one byte changed, or bytes cut off or put in."""
    at = draw(st.integers(0, len(message) - 1))
    match draw(st.sampled_from(["change", "cut", "remove", "insert", "append"])):
        case "change":
            return message[:at] + bytes([message[at] ^ draw(st.integers(1, 255))]) + message[at + 1 :]
        case "cut":
            return message[:at]
        case "remove":
            return message[:at] + message[at + 1 :]
        case "insert":
            return message[:at] + draw(st.binary(min_size=1, max_size=3)) + message[at:]
        case _:
            return message + draw(st.binary(min_size=1, max_size=3))


@given(st.data(), st.integers(0, 2), st.binary(max_size=40))
@settings(max_examples=300)
def test_a_handshake_of_which_anything_was_changed_does_not_come_out(
    data: st.DataObject, harmed: int, payload: bytes
) -> None:
    pair = Pair.new()
    for number in range(3):
        writer, reader = pair.turn(number)
        message = writer.write(payload)
        changed = data.draw(harms(message)) if number == harmed else message
        if changed == message and number == harmed:  # bytes put in that are those which were there
            return
        # Message one is in clear: that it was changed shows when the answer to it is read.
        if number == max(harmed, 1) or len(changed) < 32:
            with pytest.raises(IntegrityError):
                reader.read(changed)
            assert not reader.finished
            return
        reader.read(changed)


@given(st.integers(0, 2), st.binary(max_size=200))
def test_R1_any_bytes_in_place_of_a_message_end_as_one_integrity_error(replaced: int, noise: bytes) -> None:
    pair = Pair.new()
    for number in range(replaced):
        writer, reader = pair.turn(number)
        reader.read(writer.write())
    _, reader = pair.turn(replaced)
    try:
        reader.read(noise)
    except IntegrityError as error:
        assert "Nothing was transferred" in error.means
    else:
        assert replaced == 0
        assert len(noise) >= 32
    assert not reader.finished


def test_C7_a_message_of_another_handshake_is_of_no_use() -> None:
    recorded, pair = Pair.new(), Pair.new()
    recorded.bob.read(recorded.alice.write())
    pair.alice.write()
    with pytest.raises(IntegrityError):
        pair.alice.read(recorded.bob.write())


def test_a_message_out_of_turn_is_refused() -> None:
    pair = Pair.new()
    first = pair.alice.write()
    pair.bob.read(first)
    with pytest.raises(IntegrityError):
        pair.bob.read(first)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_sides_with_different_prologues_do_not_come_together(hers: bytes, his: bytes) -> None:
    pair = Pair.new(hers, his)
    pair.bob.read(pair.alice.write())
    answer = pair.bob.write()
    if hers == his:
        pair.alice.read(answer)
    else:
        with pytest.raises(IntegrityError):
            pair.alice.read(answer)


@pytest.mark.parametrize("said", Purpose)
@pytest.mark.parametrize("heard", Purpose)
def test_a_changed_opening_line_breaks_the_handshake(said: Purpose, heard: Purpose) -> None:
    pair = Pair.new(prologue(opening(said)), prologue(opening(heard)))
    pair.bob.read(pair.alice.write())
    answer = pair.bob.write()
    if said is heard:
        pair.alice.read(answer)
    else:
        with pytest.raises(IntegrityError):
            pair.alice.read(answer)


parts = st.lists(st.binary(max_size=5), min_size=1, max_size=4)


@given(parts, parts)
def test_prologues_of_different_parts_differ(one: list[bytes], other: list[bytes]) -> None:
    assert (prologue(*one) == prologue(*other)) == (one == other)


# --- keys that are none ----------------------------------------------------------------------------------


@low_order
def test_R1_a_responder_refuses_a_first_message_with_a_key_of_low_order(point: bytes) -> None:
    responder = Handshake(BOB, CONTROL, initiator=False)

    def answer() -> None:
        responder.read(point)  # in clear, and not yet used
        responder.write()

    with pytest.raises(IntegrityError):
        answer()


@low_order
def test_an_initiator_refuses_an_answer_with_a_key_of_low_order(point: bytes) -> None:
    pair = Pair.new()
    pair.bob.read(pair.alice.write())
    answer = pair.bob.write()
    with pytest.raises(IntegrityError):
        pair.alice.read(point + answer[32:])


@low_order
def test_a_responder_refuses_a_peer_whose_identity_is_a_key_of_low_order(point: bytes) -> None:
    # All is as the framework wants it, so that the key is reached and refused for what it is.
    mallory = NoiseConnection.from_name(PROTOCOL)
    mallory.set_keypair_from_private_bytes(Keypair.STATIC, ALICE.private)
    pair = mallory.noise_protocol.keypairs["s"]
    mallory.noise_protocol.keypairs["s"] = KeyPair25519(pair.private, pair.public, point)
    mallory.set_prologue(CONTROL)
    mallory.set_as_initiator()
    mallory.start_handshake()
    bob = Handshake(BOB, CONTROL, initiator=False)
    bob.read(bytes(mallory.write_message()))
    mallory.read_message(bob.write())
    with pytest.raises(IntegrityError):
        bob.read(bytes(mallory.write_message()))
    assert not bob.finished
