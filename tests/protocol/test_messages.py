"""Messages: each is one frame and back again, and whatever else a payload holds ends as one ProtocolError."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect

from glide.errors import ProtocolError
from glide.protocol import endtoend
from glide.protocol.endtoend import (
    LONGEST_PATH,
    PAGE_ITEMS,
    Abort,
    Ack,
    Blocks,
    Busy,
    Confirm,
    Digests,
    End,
    Item,
    ItemKind,
    Offer,
    Page,
    Share,
    Want,
)
from glide.protocol.fields import Message
from glide.protocol.frames import HEADER, LIMITS, UNKNOWN_LIMIT, Decoder, Frame, Kind
from glide.protocol.messages import (
    PAGE,
    TYPES,
    Failed,
    Hello,
    Incoming,
    Keepalive,
    People,
    Person,
    Push,
    Queued,
    Refused,
    Ringing,
    Role,
    Ticket,
    Waiting,
    Welcome,
    Withdraw,
    from_frame,
    to_bytes,
)
from glide.text import printable
from tests.strategies import UNKNOWN_KINDS, blobs, chunkings, messages, messages_of

KEY = bytes(range(32))
ID = bytes(range(16))

# What is a page: always of the same length, whatever it holds.
PADDED = {Kind.MANIFEST, Kind.OFFER, Kind.DIGESTS}
PADDED_TYPES = [TYPES[kind] for kind in sorted(PADDED)]

every_type = pytest.mark.parametrize("message", TYPES.values(), ids=lambda message: message.__name__)


def frame_of(message: Message) -> Frame:
    """The frame that carries ``message``, with the header taken off."""
    encoded = to_bytes(message)
    kind, length = HEADER.unpack_from(encoded)
    assert length == len(encoded) - HEADER.size
    return Frame(kind, encoded[HEADER.size :])


def framed(kind: int, fields: object) -> Frame:
    """A frame whose payload holds ``fields`` as they are, whether they fit the message or not."""
    payload = msgspec.msgpack.encode(fields)
    return Frame(kind, padded(payload) if kind in PADDED else payload)


def padded(body: bytes) -> bytes:
    """``body`` in the form of a page: its length in four bytes, itself, zeros up to 4 KiB."""
    return (len(body).to_bytes(4, "big") + body).ljust(4096, b"\0")


def fits(frame: Frame) -> bool:
    return len(frame.payload) <= LIMITS[Kind(frame.kind)]


def fields_of(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def refused(frame: Frame) -> str:
    """The text of the error that ``frame`` must end in."""
    with pytest.raises(ProtocolError) as caught:
        from_frame(frame)
    return str(caught.value)


# --- there and back --------------------------------------------------------------------------------------


@every_type
@given(st.data())
@settings(max_examples=40)  # of each type
def test_a_message_is_the_same_after_its_bytes_and_they_are_the_same_after_it(
    message: type[Message], data: st.DataObject
) -> None:
    said = data.draw(messages_of(message))
    encoded = to_bytes(said)
    heard = from_frame(Frame(encoded[0], encoded[HEADER.size :]))
    assert heard == said
    assert type(heard) is message
    assert to_bytes(heard) == encoded


@given(st.data(), st.lists(messages(), max_size=5))
def test_messages_survive_every_cut_of_the_stream(data: st.DataObject, said: list[Message]) -> None:
    decoder = Decoder()
    heard: list[Message | None] = []
    for piece in data.draw(chunkings(b"".join(map(to_bytes, said)))):
        for frame in decoder.feed(piece):
            assert isinstance(frame, Frame)
            heard.append(from_frame(frame))
    assert heard == said
    assert repr(decoder) == "<Decoder holding 0 bytes, 0 of DATA to come>"


@every_type
@given(st.data())
@settings(max_examples=40)  # of each type
def test_fields_that_hold_their_default_are_left_out(message: type[Message], data: st.DataObject) -> None:
    said = data.draw(messages_of(message))
    spelled_out = framed(said.kind, fields_of(said))
    if message is not Keepalive and fits(spelled_out):
        assert from_frame(spelled_out) == said
        assert len(frame_of(said).payload) <= len(spelled_out.payload)


def test_every_kind_but_data_is_a_message() -> None:
    assert set(TYPES) == set(Kind) - {Kind.DATA}
    assert all(message.kind == kind for kind, message in TYPES.items())


def test_a_keepalive_is_an_empty_frame() -> None:
    assert to_bytes(Keepalive()) == bytes([0x7F, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("said", "older"),
    [
        (Hello(Role.SEND, "alice"), {"role": "send", "name": "alice"}),
        (Welcome("hello"), {"greeting": "hello"}),
        (Push("bob", ID), {"to": "bob", "transfer": ID}),
        (
            Incoming("alice", KEY, ID, ID),
            {"sender": "alice", "key": KEY, "transfer": ID, "ticket": ID},
        ),
    ],
    ids=lambda said: type(said).__name__,
)
def test_what_was_added_later_does_not_show_where_it_is_not_used(said: Message, older: dict[str, Any]) -> None:
    assert msgspec.msgpack.decode(frame_of(said).payload) == older
    assert from_frame(framed(said.kind, older)) == said


# --- newer versions --------------------------------------------------------------------------------------


@given(
    st.data(),
    messages().filter(lambda message: message.kind != Kind.KEEPALIVE),
    st.text(min_size=1, max_size=20).map("new ".__add__),
)
def test_fields_that_only_newer_versions_know_are_ignored(data: st.DataObject, said: Message, unknown: str) -> None:
    value = data.draw(anything())
    assume(fits(framed(said.kind, {unknown: value, **fields_of(said)})))
    assert from_frame(framed(said.kind, {unknown: value, **fields_of(said)})) == said
    assert from_frame(framed(said.kind, {**fields_of(said), unknown: value})) == said


@given(st.sampled_from(UNKNOWN_KINDS), blobs(UNKNOWN_LIMIT))
def test_types_that_only_newer_versions_know_are_ignored_whatever_they_carry(kind: int, payload: bytes) -> None:
    assert from_frame(Frame(kind, payload)) is None


# --- whatever arrives ------------------------------------------------------------------------------------


def anything() -> SearchStrategy[Any]:
    """Any value that MessagePack can hold."""
    leaf = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=50)
        | st.binary(max_size=50)
        | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127).filter(lambda code: code != -1), st.binary(max_size=9))
    )
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=10,
    )


FIELD_NAMES = sorted({name for message in TYPES.values() for name in message.__struct_fields__})


def hostile_payloads() -> SearchStrategy[bytes]:
    """Noise; maps with our field names and anything in them; messages with some bytes changed."""
    confused = st.dictionaries(st.sampled_from(FIELD_NAMES), anything(), max_size=6).map(msgspec.msgpack.encode)
    damaged = st.builds(
        lambda said, at, removed, put: (
            (payload := frame_of(said).payload)[: at % (len(payload) + 1)]
            + put
            + payload[at % (len(payload) + 1) + removed :]
        ),
        messages(),
        st.integers(0, 2**16),
        st.integers(0, 3),
        st.binary(max_size=3),
    )
    return st.binary(max_size=300) | confused | confused.map(padded) | damaged


@given(st.integers(0, 255), hostile_payloads())
def test_R1_any_payload_is_a_message_or_unknown_or_one_protocol_error(kind: int, payload: bytes) -> None:
    try:
        heard = from_frame(Frame(kind, payload))
    except ProtocolError as error:
        text = str(error)
        assert printable(text, len(text)) == text, "D1: the text is fit to be shown"
        return
    if heard is not None:
        # Whatever was taken respects all limits: it survives its own, canonical bytes.
        assert from_frame(frame_of(heard)) == heard
    else:
        assert kind not in TYPES


@every_type
@given(st.data())
@settings(max_examples=40)  # of each type
def test_a_message_that_lacks_a_field_is_refused(message: type[Message], data: st.DataObject) -> None:
    said = data.draw(messages_of(message))
    for required in (field.name for field in msgspec.structs.fields(message) if field.required):
        fields = fields_of(said)
        del fields[required]
        assert required in refused(framed(said.kind, fields))


@given(messages().filter(lambda said: said.kind != Kind.KEEPALIVE), st.binary(min_size=1, max_size=20))
def test_a_message_with_bytes_behind_it_is_refused(said: Message, tail: bytes) -> None:
    body = msgspec.msgpack.encode(said) + tail
    refused(Frame(said.kind, padded(body) if said.kind in PADDED else body))


@pytest.mark.parametrize(
    "said",
    [
        Hello(cast(Role, "listen")),
        Hello(cast(Role, "send\n")),
        Hello(Role.SEND, name=""),
        Hello(Role.SEND, name="Alice"),
        Hello(Role.SEND, name="a..b"),
        Hello(Role.SEND, name="alice\n"),
        Hello(Role.SEND, name="a" * 33),
        Hello(Role.SEND, features=("f",) * 33),
        Hello(Role.SEND, features=("f" * 33,)),
        Hello(Role.SEND, invisible=cast(Any, 1)),
        Welcome("x" * 401),
        Welcome(time=-1),
        Welcome(time=2**63),
        Refused("c" * 33),
        Push("../etc", ID),
        Push("bob", ID[:15]),
        Push("bob", ID + b"!"),
        Push("bob", ID, wait=cast(Any, "yes")),
        Push("bob", ID, pair=cast(Any, 1)),
        Queued(ID[:15]),
        Withdraw(ID + b"!"),
        Incoming("bob", KEY, ID, ID, pair=cast(Any, None)),
        Ringing(ID, ID, KEY[:31]),
        Ringing(ID, ID, KEY + b"!"),
        Failed(ID, "nobody", closest=("a", "b", "c", "d")),
        People(tuple(Person("a", KEY) for _ in range(PAGE + 1))),
        People((Person("A", KEY),)),
        People((Person("a", KEY, since=-1),)),
        Waiting(ID, "everybody", 1),
        Ticket(b""),
        Offer("x" * 401),
        Page(()),
        Page((Item("a"),) * (PAGE_ITEMS + 1)),
        Page((Item("a" * (LONGEST_PATH + 1)),)),
        Page((Item("a", cast(ItemKind, 4)),)),
        Page((Item("a", size=-1),)),
        Page((Item("a", size=2**63),)),
        Page((Item("a", modified=2**63),)),
        Want(((0, 1),) * 1001),
        Want(((0, -1),)),
        Want(((2**63, 1),)),
        Want(cast(Any, ((0,),))),
        Want(cast(Any, ((0, 1, 2),))),
        Blocks(-1, 0, KEY),
        Blocks(0, 0, bytes(32_001)),
        Digests(-1, KEY),
        Digests(0, bytes(32 * PAGE_ITEMS + 1)),
        Busy(-1),
        Busy(2**63),
        End(-1, KEY),
        Ack(2**63),
        Ack(2**64 - 1),
        Abort("cancelled", "x" * 401),
        Share(b""),
        Share(bytes(65)),
        Confirm(KEY[:31]),
        Confirm(KEY + b"!"),
    ],
    ids=lambda said: str(said)[:40].encode("unicode_escape").decode(),
)
def test_R1_a_string_list_or_number_beyond_its_limit_is_refused(said: Message) -> None:
    refused(frame_of(said))


@pytest.mark.parametrize(
    "fields",
    [
        {"bytes": "1"},
        {"bytes": 1.0},
        {"bytes": True},
        {"bytes": None},
        {"bytes": [1]},
        {"bytes": msgspec.msgpack.Ext(1, b"\1")},
        [1],
        1,
        None,
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_not_converted(fields: object) -> None:
    refused(framed(Kind.ACK, fields))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x81\xa1x" + b"\x91" * 2000, id="lists in lists"),
        pytest.param(b"\x81\xa1x" + b"\x81\xa1y" * 600, id="maps in maps"),
        pytest.param(b"\x81" * 2000, id="maps as keys"),
        pytest.param(b"\x81\xa4name\xa2\xff\xfe", id="text that is no UTF-8"),
        pytest.param(b"\x81\xa4name\xa3\xed\xa0\x80", id="a surrogate in UTF-8"),
        pytest.param(b"\xc1", id="the byte that MessagePack never uses"),
        pytest.param(b"\x82\xa4role\xa4send", id="a map that ends early"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_R1_a_payload_made_to_trip_a_decoder_is_refused(payload: bytes) -> None:
    refused(Frame(Kind.HELLO, payload))
    refused(Frame(Kind.MANIFEST, padded(payload)))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.DIGESTS, padded(b"\x82\xa4page\x00\xa7digests\xc6\xff\xff\xff\xff")),
        (Kind.BLOCKS, b"\x83\xa6number\x00\xa5first\x00\xa7digests\xc6\xff\xff\xff\xff"),
        (Kind.WANT, b"\x81\xa6ranges\xdd\xff\xff\xff\xff"),
        (Kind.WANT, b"\x81\xa6ranges\x91\xdd\xff\xff\xff\xff"),
        (Kind.PEOPLE, b"\x81\xa6people\xdd\xff\xff\xff\xff"),
        (Kind.HELLO, b"\x81\xa8features\xdd\xff\xff\xff\xff"),
        (Kind.HELLO, b"\x81\xa7unknown\xdd\xff\xff\xff\xff"),
        (Kind.HELLO, b"\x81\xa4name\xdb\xff\xff\xff\xff"),
        (Kind.HELLO, b"\xdf\xff\xff\xff\xff"),
        (Kind.TICKET, b"\x81\xa6ticket\xc6\xff\xff\xff\xff"),
        (Kind.MANIFEST, padded(b"\x81\xa5items\xdd\xff\xff\xff\xff")),
        (Kind.MANIFEST, padded(b"\x81\xa5items\x91\xdd\xff\xff\xff\xff")),
        (Kind.MANIFEST, padded(b"\x81\xa5items\x91\x91\xdb\xff\xff\xff\xff")),
        (Kind.MANIFEST, b"\xff\xff\xff\xff".ljust(4096, b"\0")),
        (Kind.OFFER, b"\xff\xff\xff\xff".ljust(4096, b"\0")),
    ],
)
def test_R1_an_announced_length_allocates_nothing_before_the_bytes_are_there(kind: Kind, payload: bytes) -> None:
    tracemalloc.start()
    try:
        refused(Frame(kind, payload))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


# --- limits of types and of frames agree -----------------------------------------------------------------


def longest(form: inspect.Type) -> Any:
    """The value of this form that takes the most bytes."""
    match form:
        case inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: longest(field.type) for field in fields})
        case inspect.EnumType(cls=choices):
            return max(choices, key=lambda choice: len(str(choice)))
        case inspect.StrType(pattern=None, max_length=int(most)):
            return "\U0001f40c" * most  # four bytes each, as many as UTF-8 ever takes
        case inspect.StrType(pattern=str(pattern)):
            if "{1,16}" in pattern:
                return "a" * 16
            return "a" * 32 if "{0,30}" in pattern else max(pattern[2:-3].split("|"), key=len)
        case inspect.BytesType(max_length=int(most)):
            return b"\xff" * most
        case inspect.IntType(le=int(most)):
            return most
        case inspect.BoolType():
            return True
        case inspect.UnionType(types=types):
            return longest(next(each for each in types if not isinstance(each, inspect.NoneType)))
        case inspect.TupleType(item_types=items):
            return tuple(map(longest, items))
        case inspect.VarTupleType(item_type=item, max_length=int(most)):
            return (longest(item),) * most
    raise TypeError(f"no limit is known for {form}")


# A page of the manifest is made to fit (test_pages): its items are limited by their sum, not each for itself.
@pytest.mark.parametrize("message", set(TYPES.values()) - {Page}, ids=lambda message: message.__name__)
def test_R1_the_longest_message_of_each_type_fits_its_frame(message: type[Message]) -> None:
    said = longest(inspect.type_info(message))
    assert from_frame(frame_of(said)) == said


def test_a_message_that_does_not_fit_its_frame_is_not_sent() -> None:
    with pytest.raises(ValueError, match="WELCOME"):
        to_bytes(Welcome("x" * LIMITS[Kind.WELCOME]))


def test_a_page_that_does_not_fit_its_frame_is_not_sent() -> None:
    with pytest.raises(ValueError, match="MANIFEST"):
        to_bytes(Page((Item("a" * 3000), Item("b" * 3000))))


# --- items -----------------------------------------------------------------------------------------------


@given(st.lists(anything(), max_size=3))
def test_an_item_of_a_newer_version_may_be_longer(more: list[Any]) -> None:
    frame = framed(Kind.MANIFEST, {"items": [["a/b", 1, 7, -5, *more]]})
    assume(fits(frame))
    assert from_frame(frame) == Page((Item("a/b", ItemKind.EXECUTABLE, 7, -5),))


@pytest.mark.parametrize("elements", [1, 2, 3])
def test_elements_at_an_items_end_that_hold_their_default_may_be_left_out(elements: int) -> None:
    assert from_frame(framed(Kind.MANIFEST, {"items": [["a", 0, 0, 0][:elements]]})) == Page((Item("a"),))


@pytest.mark.parametrize(
    "item", [[], ["a", 4], ["a", "file"], ["a", 0, 1.5], ["a", 0, None], [b"a"], {"path": "a"}, "a"], ids=str
)
def test_R1_what_is_no_item_is_refused(item: object) -> None:
    refused(framed(Kind.MANIFEST, {"items": [item]}))


@pytest.mark.parametrize("path", [b"\xff\xfe", b"\xed\xa0\x80", b"a\xc0\xaf"], ids=str)
def test_R1_a_path_that_is_no_utf8_is_refused(path: bytes) -> None:
    item = b"\x91" + bytes([0xA0 + len(path)]) + path  # a list of one string, by hand
    refused(Frame(Kind.MANIFEST, padded(b"\x81\xa5items\x91" + item)))


def test_the_numbers_of_the_kinds_of_items_never_change() -> None:
    assert {kind.name: int(kind) for kind in ItemKind} == {"FILE": 0, "EXECUTABLE": 1, "FOLDER": 2, "STREAM": 3}


# --- the padding of pages --------------------------------------------------------------------------------


@pytest.mark.parametrize("message", PADDED_TYPES)
@given(st.data())
@settings(max_examples=40)  # of each type
def test_C3_a_page_is_exactly_four_kibibytes_and_padded_with_zeros(message: type[Message], data: st.DataObject) -> None:
    payload = frame_of(data.draw(messages_of(message))).payload
    length = int.from_bytes(payload[:4], "big")
    assert len(payload) == endtoend.PAGE == 4096
    assert set(payload[4 + length :]) <= {0}


def test_no_other_message_is_padded() -> None:
    assert len(frame_of(Ack(0)).payload) < 20
    assert {LIMITS[kind] for kind in PADDED} == {4096}


BODY = msgspec.msgpack.encode(Page((Item("photo.jpg", size=3),)))

# A page that its items fill to the last byte, so that it needs no padding at all.
SPARE = 4096 - 4 - len(msgspec.msgpack.encode(Page((Item("a" * 3000), Item("b" * 300, size=3)))))
FULL = Page((Item("a" * 3000), Item("b" * (300 + SPARE), size=3)))
EXACT = msgspec.msgpack.encode(FULL)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(BODY, id="no length"),
        pytest.param(len(BODY).to_bytes(4, "big") + BODY, id="no padding"),
        pytest.param(padded(BODY)[:-1], id="a byte too little"),
        pytest.param(padded(BODY) + b"\0", id="a byte too much"),
        pytest.param(padded(BODY) + bytes(4096), id="a whole page too much"),
        pytest.param(padded(EXACT) + bytes(4096), id="a whole page where no padding is needed"),
        pytest.param(padded(BODY)[:-1] + b"!", id="something in the padding"),
        pytest.param((len(BODY) + 1).to_bytes(4, "big") + padded(BODY)[4:], id="a length that takes in the padding"),
        pytest.param((len(BODY) - 1).to_bytes(4, "big") + padded(BODY)[4:], id="a length that leaves something out"),
        pytest.param((2**32 - 1).to_bytes(4, "big") + padded(BODY)[4:], id="a length beyond the end"),
        pytest.param((4093).to_bytes(4, "big") + padded(BODY)[4:], id="a length a byte beyond the end"),
        pytest.param(bytes(4096), id="a length of nothing"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0", id="half a length"),
    ],
)
def test_a_page_with_any_other_padding_is_refused(payload: bytes) -> None:
    assert from_frame(Frame(Kind.MANIFEST, padded(BODY))) == Page((Item("photo.jpg", size=3),))
    refused(Frame(Kind.MANIFEST, payload))


@pytest.mark.parametrize("said", [Offer("Look!"), Digests(0, KEY)])
def test_pages_of_every_kind_are_padded_by_the_same_rule(said: Message) -> None:
    body = msgspec.msgpack.encode(said)
    assert frame_of(said).payload == padded(body)
    for payload in (body, padded(body)[:-1], padded(body) + b"\0", padded(body)[:-1] + b"!", bytes(4096)):
        refused(Frame(said.kind, payload))


def test_a_page_that_is_full_needs_no_padding() -> None:
    assert len(padded(EXACT)) == 4 + len(EXACT) == 4096
    assert to_bytes(FULL)[HEADER.size :] == padded(EXACT)
    assert from_frame(Frame(Kind.MANIFEST, padded(EXACT))) == FULL
