"""Records: a stream is sealed into full records and opened again; nobody changes it on the way unnoticed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from glide.crypto import records
from glide.crypto.handshake import PROTOCOL, Handshake
from glide.crypto.identity import Identity
from glide.crypto.records import FULL, LENGTH, LONGEST, SEALED_FULL, TAG, Opener, Sealer
from glide.errors import IntegrityError
from tests.strategies import blobs, chunkings

KEY = bytes(range(32))


def library_and_key() -> tuple[Any, bytes]:
    """The library's side of a finished handshake with ours, and the key that it says it sends with."""
    library = NoiseConnection.from_name(PROTOCOL)
    library.set_keypair_from_private_bytes(Keypair.STATIC, Identity.generate().private)
    library.set_prologue(b"a prologue")
    library.set_as_initiator()
    library.start_handshake()
    ours = Handshake(Identity.generate(), b"a prologue", initiator=False)
    ours.read(bytes(library.write_message()))
    library.read_message(ours.write())
    ours.read(bytes(library.write_message()))
    return library, ours.finish().receive


def sealed(plain: bytes, key: bytes = KEY) -> bytes:
    sealer = Sealer(key)
    return sealer.seal_all(plain)


def record_list(flights: list[bytes], key: bytes = KEY) -> list[bytes]:
    """The records of ``flights``, each of which ends with a flush."""
    sealer = Sealer(key)
    return [record for flight in flights for record in cut(sealer.seal_all(flight))]


def cut(stream: bytes) -> list[bytes]:
    """The records that ``stream`` consists of."""
    found = []
    while stream:
        end = LENGTH + int.from_bytes(stream[:LENGTH], "big")
        assert end <= len(stream)
        found.append(stream[:end])
        stream = stream[end:]
    return found


def opened(pieces: list[bytes], key: bytes = KEY) -> tuple[bytes, bool]:
    """What opens, up to the first record that does not; and whether one did not."""
    opener = Opener(key)
    plain = bytearray()
    try:
        for piece in pieces:
            opener.feed(piece)
            while (record := opener.next()) is not None:
                plain += record
    except IntegrityError:
        return bytes(plain), True
    return bytes(plain), False


# --- the framework's own bytes ---------------------------------------------------------------------------


@given(st.lists(blobs(200).filter(bool), max_size=12), st.integers(1, 5))
@settings(max_examples=50)
def test_C8_records_are_what_the_library_encrypts_with_the_same_key_renewed_at_the_same_points(
    plains: list[bytes], every: int
) -> None:
    library, key = library_and_key()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "REKEY_EVERY", every)
        sealer, opener = Sealer(key), Opener(key)
        for number, plain in enumerate(plains):
            if number and number % every == 0:
                library.rekey_outbound_cipher()
            theirs = library.encrypt(plain)
            sealer.seal(plain)
            ours = bytes(sealer.flush())
            assert ours == len(theirs).to_bytes(2, "big") + theirs
            opener.feed(ours)
            assert bytes(opener.next() or b"") == plain


def test_C8_a_full_record_is_what_the_library_encrypts() -> None:
    library, key = library_and_key()
    plain = bytes(FULL)
    theirs = library.encrypt(plain)
    assert len(theirs) == LONGEST == 65535
    assert Sealer(key).seal(plain) == b"\xff\xff" + theirs


# --- there and back --------------------------------------------------------------------------------------


def test_who_waits_holds_keys_and_nothing_that_is_made_of_them_again() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for said in (b"hello", b"again"):
        sealer.seal(said)
        assert sealer._cipher._aead is None, "nothing was sealed yet"
        opener.feed(sealer.flush())
        opened = opener.next()
        assert opened is not None
        assert bytes(opened) == said
        assert opener._cipher._aead is not None, "there may be more"
        assert opener.next() is None
        assert sealer._cipher._aead is opener._cipher._aead is None


@given(st.data(), st.lists(blobs(3 * FULL), max_size=4))
@settings(max_examples=60)
def test_any_cut_of_the_stream_opens_to_what_was_sealed(data: st.DataObject, flights: list[bytes]) -> None:
    stream = b"".join(record_list(flights))
    assert opened(data.draw(chunkings(stream))) == (b"".join(flights), False)


@given(st.data(), blobs(2000))
@settings(max_examples=40)
def test_key_renewals_change_nothing_for_the_two_ends(data: st.DataObject, plain: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "REKEY_EVERY", 3)
        patch.setattr(records, "FULL", 50)
        patch.setattr(records, "SEALED_FULL", LENGTH + 50 + TAG)
        assert opened(data.draw(chunkings(sealed(plain)))) == (plain, False)


@given(st.data(), blobs(3 * FULL))
@settings(max_examples=60)
def test_the_records_do_not_show_in_which_pieces_the_plaintext_came(data: st.DataObject, plain: bytes) -> None:
    sealer = Sealer(KEY)
    one_by_one = b"".join(bytes(sealer.seal(piece)) for piece in data.draw(chunkings(plain)))
    assert one_by_one + sealer.flush() == sealed(plain)
    at_once = Sealer(KEY)
    assert at_once.seal_all(*[memoryview(piece) for piece in data.draw(chunkings(plain))]) == sealed(plain)


@given(st.integers(0, 4 * FULL) | st.sampled_from([FULL - 1, FULL, FULL + 1, 2 * FULL]))
@settings(max_examples=60)
def test_the_lengths_of_records_depend_on_the_length_of_the_plaintext_alone(total: int) -> None:
    full, rest = divmod(total, FULL)
    lengths = [SEALED_FULL] * full + ([LENGTH + rest + TAG] if rest else [])
    assert [len(record) for record in cut(sealed(bytes(total)))] == lengths


@given(st.lists(blobs(2 * FULL), max_size=5))
@settings(max_examples=60)
def test_records_are_full_until_the_flush(pieces: list[bytes]) -> None:
    sealer = Sealer(KEY)
    before = 0
    for piece in pieces:
        total = before + len(piece)
        assert len(sealer.seal(piece)) == total // FULL * SEALED_FULL
        before = total % FULL
    assert len(sealer.flush()) == (LENGTH + before + TAG if before else 0)
    assert sealer.flush() == b""


@given(st.data(), st.lists(blobs(300).filter(bool), min_size=1, max_size=5))
def test_nothing_is_left_exactly_at_the_borders_of_records(data: st.DataObject, flights: list[bytes]) -> None:
    sent = record_list(flights)
    stream = b"".join(sent)
    borders = {len(b"".join(sent[:count])) for count in range(len(sent) + 1)}
    at = data.draw(st.integers(0, len(stream)) | st.sampled_from(sorted(borders)))
    opener = Opener(KEY)
    opener.feed(stream[:at])
    while opener.next() is not None:
        pass
    assert (opener.rest() == b"") == (at in borders)


@given(st.data(), st.lists(blobs(300).filter(bool), min_size=1, max_size=5), st.binary(max_size=300))
def test_the_rest_is_every_byte_behind_the_last_record(data: st.DataObject, flights: list[bytes], other: bytes) -> None:
    sent = record_list(flights)
    stream = b"".join(sent) + other
    end = len(stream) - len(other)
    at = data.draw(st.integers(0, end))
    opener = Opener(KEY)
    opener.feed(stream[:at])
    count = 0
    while opener.next() is not None:
        count += 1
    opener.feed(stream[at:])
    for _ in sent[count:]:
        assert opener.next() is not None
    assert opener.rest() == other
    assert opener.rest() == b""


# --- somebody in between ---------------------------------------------------------------------------------


@st.composite
def harmed_streams(draw: st.DrawFn, sent: list[bytes]) -> bytes:
    """The records with one of them dropped, repeated, swapped, changed, cut or with another put in."""
    one = draw(st.integers(0, len(sent) - 1))
    other = draw(st.integers(0, len(sent) - 1))
    stream = b"".join(sent)
    at = draw(st.integers(0, len(stream) - 1))
    match draw(st.sampled_from(["drop", "repeat", "swap", "flip", "truncate", "insert", "forge"])):
        case "drop":
            return b"".join(sent[:one] + sent[one + 1 :])
        case "repeat":
            return b"".join([*sent[:other], sent[one], *sent[other:]])
        case "swap":
            changed = list(sent)
            changed[one], changed[other] = sent[other], sent[one]
            return b"".join(changed)
        case "flip":
            return stream[:at] + bytes([stream[at] ^ (1 << draw(st.integers(0, 7)))]) + stream[at + 1 :]
        case "truncate":
            return stream[:at]
        case "insert":
            return stream[:at] + draw(st.binary(min_size=1, max_size=70)) + stream[at:]
        case _:
            forged = record_list([draw(st.binary(min_size=1, max_size=70))], bytes(32))
            return b"".join(sent[:one] + forged + sent[one:])


@given(st.data(), st.lists(blobs(100).filter(bool), min_size=1, max_size=6))
@settings(max_examples=400)
def test_whatever_is_done_to_the_records_only_a_prefix_opens_or_it_is_noticed(
    data: st.DataObject, flights: list[bytes]
) -> None:
    sent = record_list(flights)
    stream, plain = b"".join(sent), b"".join(flights)
    arrived = data.draw(harmed_streams(sent))
    found, noticed = opened(data.draw(chunkings(arrived)))
    assert plain.startswith(found)
    if found == plain and not noticed:
        # All came out and nothing was wrong: then what was put in is still waiting to be a record.
        assert arrived.startswith(stream)
        assert len(arrived) - len(stream) < LENGTH + LONGEST


def test_a_record_that_is_dropped_repeated_swapped_or_changed_is_noticed_at_once() -> None:
    one, two, three = record_list([b"one", b"two", b"three"])
    changed = two[:-1] + bytes([two[-1] ^ 1])
    assert opened([one, three]) == (b"one", True)
    assert opened([one, one, two]) == (b"one", True)
    assert opened([two, one]) == (b"", True)
    assert opened([one, changed, three]) == (b"one", True)
    assert opened([one, two[:-5]]) == (b"one", False)  # what ends early is for the protocol to notice


def test_records_that_came_together_open_together_up_to_the_first_that_does_not() -> None:
    plains = [b"one", b"", b"three", b"four"]
    records = record_list([plain or b"-" for plain in plains])
    opener = Opener(KEY)
    opener.feed(b"".join(records))
    assert bytes(opener.next(3) or b"") == b"one-three"
    assert bytes(opener.next(3) or b"") == b"four"
    assert opener.next(3) is None
    opener = Opener(KEY)
    opener.feed(records[0] + records[1] + records[3] + records[2])
    assert bytes(opener.next(9) or b"") == b"one-"
    for _ in range(2):
        with pytest.raises(IntegrityError):
            opener.next(9)


def test_a_buffer_is_used_again_once_nobody_looks_at_it_and_not_before() -> None:
    size = 4 * FULL
    plains = [bytes([number]) * size for number in range(20)]
    sealer, opener = Sealer(KEY), Opener(KEY)
    seen: set[int] = set()
    held: list[memoryview] = []
    for number, plain in enumerate(plains):
        sealed = sealer.seal(plain)
        seen.add(id(sealed.obj))
        opener.feed(sealed)
        opened = opener.next(4)
        assert opened is not None
        held.append(opened[number : size - number])  # a view of a view keeps it, too
        held = held[-3:]
        for behind, view in enumerate(reversed(held)):
            then = number - behind
            assert view == plains[then][then : size - then], "what somebody looks at does not change"
        del opened, sealed
        assert opener.next(4) is None
    assert len(seen) == 1, "a sealer has sent the last block before the next"
    assert len(opener._buffers) <= 5, "three are held, one is filled, one is let go"


def test_after_a_record_that_did_not_open_none_ever_does() -> None:
    one, two = record_list([b"one", b"two"])
    opener = Opener(KEY)
    opener.feed(one[:-1] + bytes([one[-1] ^ 1]) + two)
    with pytest.raises(IntegrityError):
        opener.next()
    with pytest.raises(IntegrityError):
        opener.next()


@given(st.data(), st.binary(max_size=500) | blobs(2 * SEALED_FULL))
@settings(max_examples=100)
def test_R1_any_bytes_open_to_nothing_and_at_most_one_record_of_them_is_held(data: st.DataObject, noise: bytes) -> None:
    opener = Opener(KEY)
    for piece in data.draw(chunkings(noise)):
        opener.feed(piece)
        try:
            assert opener.next() is None
        except IntegrityError:
            return
        assert len(opener._partial) < LENGTH + LONGEST


@pytest.mark.parametrize("length", range(TAG))
def test_a_record_too_short_for_its_tag_is_refused(length: int) -> None:
    opener = Opener(KEY)
    opener.feed(length.to_bytes(2, "big") + bytes(length))
    with pytest.raises(IntegrityError):
        opener.next()


# --- nonces ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3 * 50), min_size=1, max_size=20), st.integers(1, 7))
@settings(max_examples=60)
def test_C7_a_nonce_never_repeats_under_a_key(lengths: list[int], every: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "REKEY_EVERY", every)
        patch.setattr(records, "FULL", 50)
        patch.setattr(records, "SEALED_FULL", LENGTH + 50 + TAG)
        sent = record_list([bytes(length) for length in lengths])
    # Computed here from the framework's text alone: which key and which nonce each record must have.
    key, used = KEY, set()
    for number, record in enumerate(sent):
        if number and number % every == 0:
            key = AESGCM(key).encrypt(b"\0\0\0\0" + b"\xff" * 8, bytes(32), b"")[:32]
        nonce = b"\0\0\0\0" + number.to_bytes(8, "big")
        assert set(AESGCM(key).decrypt(nonce, record[LENGTH:], None)) == {0}
        used.add((key, nonce))
    assert len(used) == len(sent)


def test_C7_the_key_is_renewed_before_record_two_to_the_twenty_and_not_earlier() -> None:
    sealer = Sealer(KEY)
    sealer._cipher.count = 2**20 - 1
    for plain in (b"the last of its key", b"the first of the next"):
        sealer.seal(plain)
        record = bytes(sealer.flush())[LENGTH:]
        nonce = b"\0\0\0\0" + (sealer._cipher.count - 1).to_bytes(8, "big")
        if plain.startswith(b"the last"):
            assert AESGCM(KEY).decrypt(nonce, record, None) == plain
        else:
            with pytest.raises(InvalidTag):
                AESGCM(KEY).decrypt(nonce, record, None)


def test_C7_the_same_plaintext_is_never_the_same_record_twice() -> None:
    sent = record_list([b"again"] * 1000)
    assert len(set(sent)) == 1000


def test_C7_a_record_that_does_not_open_does_not_turn_the_counter_back() -> None:
    counts = []
    opener = Opener(KEY)
    for _ in range(5):
        counts.append(opener._cipher.count)
        opener.feed(b"\0\x20" + bytes(32))
        with pytest.raises(IntegrityError):
            opener.next()
    assert all(earlier <= later for earlier, later in pairwise(counts))


def test_C7_a_used_up_counter_ends_the_connection_and_never_begins_again() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    sealer._cipher.count = opener._cipher.count = 2**64 - 2
    sealer.seal(b"the last record there can be")
    opener.feed(sealer.flush())
    assert bytes(opener.next() or b"") == b"the last record there can be"
    for _ in range(3):
        sealer.seal(b"one more")
        with pytest.raises(IntegrityError):
            sealer.flush()
        opener.feed(b"\0\x20" + bytes(32))
        with pytest.raises(IntegrityError):
            opener.next()
    assert sealer._cipher.count == opener._cipher.count == 2**64 - 1
