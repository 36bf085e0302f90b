"""Frames: any cut of a stream gives the same frames, and nothing is held beyond the limit of its type."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from glide.errors import ProtocolError
from glide.protocol.frames import HEADER, LIMITS, UNKNOWN_LIMIT, Data, Decoder, Frame, Kind, encode, header
from tests.strategies import UNKNOWN_KINDS, chunkings, frames

LIMIT_OF = {kind: LIMITS[Kind(kind)] if kind in set(Kind) else UNKNOWN_LIMIT for kind in range(256)}
# What a decoder that holds nothing says.
BETWEEN_FRAMES = "<Decoder holding 0 bytes, 0 of DATA to come>"


def stream_of(sent: list[Frame]) -> bytes:
    return b"".join(HEADER.pack(frame.kind, len(frame.payload)) + frame.payload for frame in sent)


def joined(items: list[Frame | Data]) -> list[Frame | bytes]:
    """The frames, and between them the bytes of DATA, whose frames leave no border behind."""
    result: list[Frame | bytes] = []
    for item in items:
        match item:
            case Frame():
                result.append(item)
            case Data(view=view) if result and isinstance(result[-1], bytes):
                result[-1] += bytes(view)
            case Data(view=view):
                result.append(bytes(view))
    return result


def decoded(pieces: list[bytes]) -> tuple[list[Frame | bytes], str | None]:
    """What comes of the pieces: frames and file bytes, and the error that ended them, if any."""
    decoder = Decoder()
    items: list[Frame | Data] = []
    try:
        for piece in pieces:
            items.extend(decoder.feed(piece))
    except ProtocolError as error:
        return joined(items), error.what
    return joined(items), None


def hostile_streams() -> SearchStrategy[bytes]:
    """Bytes that look like frames for a while: valid frames, headers with any length, and noise."""
    any_header = st.builds(HEADER.pack, st.integers(0, 255), st.integers(0, 2**32 - 1))
    near_limit = st.integers(0, 255).flatmap(
        lambda kind: st.integers(-1, 1).map(lambda off: HEADER.pack(kind, max(0, LIMIT_OF[kind] + off)))
    )
    whole = frames().map(lambda frame: stream_of([frame]))
    return st.lists(whole | any_header | near_limit | st.binary(max_size=300), max_size=6).map(b"".join)


@given(st.data(), st.lists(frames(), max_size=8))
def test_every_cut_of_a_stream_gives_the_frames_that_went_in(data: st.DataObject, sent: list[Frame]) -> None:
    pieces = data.draw(chunkings(stream_of(sent)))
    expected: list[Frame | Data] = [
        Data(memoryview(frame.payload)) if frame.kind == Kind.DATA else frame for frame in sent
    ]
    assert decoded(pieces) == (joined(expected), None)


@given(st.data(), hostile_streams())
def test_R1_any_bytes_give_frames_or_one_protocol_error_however_they_are_cut(
    data: st.DataObject, stream: bytes
) -> None:
    assert decoded(data.draw(chunkings(stream))) == decoded([stream])


@given(st.data(), hostile_streams())
def test_R1_what_is_held_never_exceeds_one_header_and_one_payload_within_its_limit(
    data: st.DataObject, stream: bytes
) -> None:
    decoder = Decoder()
    for piece in data.draw(chunkings(stream)):
        try:
            for _ in decoder.feed(piece):
                pass
        except ProtocolError:
            assert len(decoder._partial) == HEADER.size
            return
        held = decoder._partial
        assert len(held) < HEADER.size + (LIMIT_OF[held[0]] if held else 1)
        if held and held[0] == Kind.DATA:
            assert len(held) < HEADER.size


@pytest.mark.parametrize("kind", [*Kind, UNKNOWN_KINDS[0], UNKNOWN_KINDS[-1]])
@given(st.integers(1, 2**32 - 1))
@settings(max_examples=10)
def test_R1_a_frame_over_the_limit_of_its_type_is_refused_at_its_header(kind: int, over: int) -> None:
    for length in (LIMIT_OF[kind] + 1, min(LIMIT_OF[kind] + over, 2**32 - 1)):
        with pytest.raises(ProtocolError, match=f"type {kind} with {length} bytes; {LIMIT_OF[kind]} is the most"):
            list(Decoder().feed(HEADER.pack(kind, length)))


@pytest.mark.parametrize("kind", [*(set(Kind) - {Kind.DATA}), UNKNOWN_KINDS[0], UNKNOWN_KINDS[-1]])
def test_a_frame_of_exactly_the_limit_of_its_type_is_taken(kind: int) -> None:
    frame = Frame(kind, bytes(LIMIT_OF[kind]))
    assert list(Decoder().feed(stream_of([frame]))) == [frame]


def test_R1_every_kind_has_a_limit() -> None:
    assert set(LIMITS) == set(Kind)


@given(st.sampled_from(Kind), st.integers(1, 2**40))
def test_R1_we_announce_no_frame_over_its_limit_either(kind: Kind, over: int) -> None:
    assert header(kind, LIMITS[kind]) == HEADER.pack(kind, LIMITS[kind])
    with pytest.raises(ValueError, match=kind.name):
        header(kind, LIMITS[kind] + over)


@given(frames().filter(lambda frame: frame.kind not in UNKNOWN_KINDS))
def test_a_frame_is_its_type_its_length_in_big_endian_and_its_payload(frame: Frame) -> None:
    length = len(frame.payload)
    assert encode(Kind(frame.kind), frame.payload) == bytes([frame.kind]) + length.to_bytes(4, "big") + frame.payload


def test_data_of_the_greatest_length_is_handed_on_piece_by_piece_without_being_gathered() -> None:
    decoder = Decoder()
    assert list(decoder.feed(header(Kind.DATA, LIMITS[Kind.DATA]))) == []
    pieces = [bytes([number]) * 65536 for number in range(256)]
    for piece in pieces:
        (item,) = decoder.feed(piece)
        assert isinstance(item, Data)
        assert item.view.obj is piece  # a view, not a copy
        assert len(item.view) == len(piece)
        assert not decoder._partial
    assert repr(decoder) == BETWEEN_FRAMES


def test_data_is_a_view_into_the_record_it_came_in_though_other_frames_stand_around_it() -> None:
    record = encode(Kind.DONE, b"\x80") + encode(Kind.DATA, b"file bytes") + encode(Kind.END, b"\x80")
    before, data, after = Decoder().feed(record)
    assert isinstance(data, Data)
    assert data.view.obj is record
    assert (before, bytes(data.view), after) == (
        Frame(Kind.DONE, b"\x80"),
        b"file bytes",
        Frame(Kind.END, b"\x80"),
    )


@given(st.lists(frames(), min_size=1, max_size=4), st.data())
def test_nothing_is_held_exactly_at_the_borders_of_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = stream_of(sent)
    borders = {len(stream_of(sent[:count])) for count in range(len(sent) + 1)}
    at = data.draw(st.integers(0, len(stream)) | st.sampled_from(sorted(borders)))
    decoder = Decoder()
    list(decoder.feed(stream[:at]))
    assert (repr(decoder) == BETWEEN_FRAMES) == (at in borders)


def test_the_repr_tells_what_is_held_and_what_is_to_come() -> None:
    decoder = Decoder()
    list(decoder.feed(header(Kind.DATA, 100) + b"x" * 30))
    assert "0 bytes" in repr(decoder)
    assert "70 of DATA" in repr(decoder)


def test_the_numbers_of_the_types_never_change() -> None:
    assert {kind.name: int(kind) for kind in Kind} == {
        "HELLO": 0x01,
        "WELCOME": 0x02,
        "REFUSED": 0x03,
        "PUSH": 0x04,
        "RINGING": 0x05,
        "FAILED": 0x06,
        "INCOMING": 0x07,
        "REJECT": 0x08,
        "WHO": 0x09,
        "PEOPLE": 0x0A,
        "GOODBYE": 0x0B,
        "WAITING": 0x0C,
        "QUEUED": 0x0D,
        "WITHDRAW": 0x0E,
        "TICKET": 0x20,
        "JOINED": 0x21,
        "CAPABILITIES": 0x40,
        "OFFER": 0x41,
        "ACCEPT": 0x42,
        "DECLINE": 0x43,
        "DATA": 0x44,
        "DIGESTS": 0x45,
        "END": 0x46,
        "ACK": 0x47,
        "RECEIPT": 0x48,
        "DONE": 0x49,
        "ABORT": 0x4A,
        "MANIFEST": 0x4B,
        "WANT": 0x4C,
        "BLOCKS": 0x4D,
        "BUSY": 0x4E,
        "SHARE": 0x60,
        "CONFIRM": 0x61,
        "KEEPALIVE": 0x7F,
    }
