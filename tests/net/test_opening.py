"""How a connection begins: who is at the other end is proved or the attempt ends, in a sentence and in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, memory_stream_pump

from glide.crypto.handshake import LONGEST_MESSAGE, Handshake, prologue
from glide.crypto.identity import Identity
from glide.errors import (
    ConnectionLost,
    GlideError,
    IntegrityError,
    KeyChanged,
    NotGlide,
    ProtocolError,
    RelayRefused,
    Stalled,
)
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate, respond
from glide.protocol import preface
from glide.protocol.endtoend import Capabilities
from glide.protocol.messages import Hello, Role, to_bytes
from glide.protocol.preface import LONGEST_LINE, Purpose
from tests.net.pairs import MemoryStream, heard

ALICE, RELAY = Identity.generate(), Identity.generate()
ALL = frozenset(Purpose)
ALICE_CAN, RELAY_CAN = Capabilities(features=("resume",)), Capabilities(features=("directory",))


def anybody(key: bytes) -> None:
    """Any key will do."""


@dataclass
class Outcome:
    """How one side's attempt ended, and when."""

    connection: Connection | None = None
    capabilities: Capabilities | None = None
    error: GlideError | None = None
    at: float = field(default=-1.0)


async def as_alice(
    stream: trio.abc.HalfCloseableStream,
    outcome: Outcome,
    *,
    check: Callable[[bytes], None] = anybody,
    purpose: Purpose = Purpose.CONTROL,
    parts: tuple[bytes, ...] = (),
) -> None:
    """Initiate. Like every caller, close what came to nothing."""
    try:
        outcome.connection, outcome.capabilities = await initiate(
            stream,
            purpose,
            ALICE,
            peer="relay.example",
            deadlines=Deadlines(),
            check=check,
            parts=parts,
            mine=ALICE_CAN,
        )
    except GlideError as error:
        outcome.error, outcome.at = error, trio.current_time()
        await trio.aclose_forcefully(stream)


async def as_relay(
    stream: trio.abc.HalfCloseableStream,
    outcome: Outcome,
    *,
    check: Callable[[bytes], None] = anybody,
    allowed: frozenset[Purpose] = ALL,
    parts: tuple[bytes, ...] = (),
) -> None:
    """Respond. Like every caller, close what came to nothing."""
    try:
        outcome.connection, _, outcome.capabilities = await respond(
            stream, allowed, RELAY, peer="1.2.3.4:5", deadlines=Deadlines(), check=check, parts=parts, mine=RELAY_CAN
        )
    except GlideError as error:
        outcome.error, outcome.at = error, trio.current_time()
        await trio.aclose_forcefully(stream)


def virtual_run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an async function on a clock of its own, which jumps."""
    trio.run(test, clock=MockClock(autojump_threshold=0))


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    """All that comes until the end of the stream; then the stream is closed, as a browser would."""
    got = bytearray()
    async for piece in stream:
        got += piece
    await stream.aclose()
    return bytes(got)


# --- a handshake that comes out --------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", Purpose)
async def test_both_learn_the_others_key_and_abilities(purpose: Purpose) -> None:
    left, right = memory_stream_pair()
    alice, relay = Outcome(), Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: as_alice(left, alice, purpose=purpose, parts=(b"x", b"")))
        nursery.start_soon(lambda: as_relay(right, relay, parts=(b"x", b"")))
    assert alice.connection is not None
    assert relay.connection is not None
    assert alice.connection.peer_key == RELAY.public
    assert relay.connection.peer_key == ALICE.public
    assert (alice.capabilities, relay.capabilities) == (RELAY_CAN, ALICE_CAN)


@pytest.mark.parametrize(("hers", "its"), [((b"a",), (b"b",)), ((b"ab", b"c"), (b"a", b"bc")), ((), (b"",))])
async def test_sides_that_do_not_mean_the_same_cannot_shake_hands(
    autojump_clock: MockClock, hers: tuple[bytes, ...], its: tuple[bytes, ...]
) -> None:
    left, right = memory_stream_pair()
    alice, relay = Outcome(), Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: as_alice(left, alice, parts=hers))
        nursery.start_soon(lambda: as_relay(right, relay, parts=its))
    assert isinstance(alice.error, IntegrityError)
    assert isinstance(relay.error, ConnectionLost)


async def test_a_wrong_key_is_found_before_our_own_is_given(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    alice, relay = Outcome(), Outcome()
    sent = bytearray()

    async def record() -> None:
        data = left.send_stream.get_data_nowait()
        sent.extend(data)
        right.receive_stream.put_data(data)

    left.send_stream.send_all_hook = record

    def expect_another(key: bytes) -> None:
        assert key == RELAY.public
        raise KeyChanged("that is somebody else")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: as_alice(left, alice, check=expect_another))
        nursery.start_soon(lambda: as_relay(right, relay))
    assert isinstance(alice.error, KeyChanged)
    assert isinstance(relay.error, ConnectionLost)
    assert len(sent) == len(preface.opening(Purpose.CONTROL)) + 2 + 32  # the line and an ephemeral key


async def test_the_responder_judges_the_key_that_was_proved(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    alice, relay = Outcome(), Outcome()

    def nobody(key: bytes) -> None:
        assert key == ALICE.public
        raise KeyChanged("that is somebody else")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: as_alice(left, alice))
        nursery.start_soon(lambda: as_relay(right, relay, check=nobody))
    assert isinstance(relay.error, KeyChanged)


async def test_a_message_that_comes_in_one_piece_with_the_handshake_is_not_lost() -> None:
    left, right = memory_stream_pair()
    alice, relay = Outcome(), Outcome()
    written = 0

    async def hold_the_last() -> None:
        nonlocal written
        written += 1
        if written != 2:  # the third message waits in the buffer for what is said next
            memory_stream_pump(left.send_stream, right.receive_stream)

    left.send_stream.send_all_hook = hold_the_last

    async def talk() -> None:
        await as_alice(left, alice)
        assert alice.connection is not None
        await alice.connection.send(Hello(role=Role.ASK))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        nursery.start_soon(lambda: as_relay(right, relay))
    assert relay.connection is not None
    assert await heard(relay.connection) == Hello(role=Role.ASK)


# --- deadlines -------------------------------------------------------------------------------------------


def only_first(count: int, source: MemoryStream, target: MemoryStream, *, then_end: bool) -> None:
    """Let ``count`` bytes through from source to target; then the end of the stream, or nothing for ever."""
    left = count

    async def pump() -> None:
        nonlocal left
        data = source.send_stream.get_data_nowait()
        if data[:left]:
            target.receive_stream.put_data(data[:left])
        left -= len(data[:left])
        if not left and then_end:
            target.receive_stream.put_eof()

    source.send_stream.send_all_hook = pump
    source.send_stream.close_hook = None
    if not count and then_end:
        target.receive_stream.put_eof()


async def conversation_cut_at(count: int, *, by_alice: bool, then_end: bool) -> tuple[Outcome, Outcome]:
    left, right = memory_stream_pair()
    only_first(count, *((left, right) if by_alice else (right, left)), then_end=then_end)
    alice, relay = Outcome(), Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(as_alice, left, alice)
        nursery.start_soon(as_relay, right, relay)
    return alice, relay


ALICE_SAYS = len(preface.opening(Purpose.CONTROL)) + 2 + 32 + 2 + 48 + 16 + len(to_bytes(ALICE_CAN))
RELAY_SAYS = len(preface.ok()) + 2 + 96 + len(to_bytes(RELAY_CAN))


@pytest.mark.parametrize("then_end", [False, True], ids=["silent", "gone"])
def test_R2_an_initiator_that_stops_anywhere_is_given_up_within_ten_seconds(then_end: bool) -> None:
    async def run() -> None:
        for count in range(ALICE_SAYS):
            before = trio.current_time()
            _, relay = await conversation_cut_at(count, by_alice=True, then_end=then_end)
            expected = (ConnectionLost, NotGlide) if then_end else (Stalled,)  # a line without its end is no glide
            assert isinstance(relay.error, expected), count
            if not then_end:
                assert relay.at - before == 10, count
        alice, relay = await conversation_cut_at(ALICE_SAYS, by_alice=True, then_end=then_end)
        assert (alice.error, relay.error) == (None, None)

    virtual_run(run)


@pytest.mark.parametrize("then_end", [False, True], ids=["silent", "gone"])
def test_a_responder_that_stops_anywhere_is_given_up_within_ten_seconds(then_end: bool) -> None:
    async def run() -> None:
        for count in range(RELAY_SAYS):
            before = trio.current_time()
            alice, _ = await conversation_cut_at(count, by_alice=False, then_end=then_end)
            expected = (ConnectionLost, NotGlide) if then_end else (Stalled,)
            assert isinstance(alice.error, expected), count
            assert alice.at - before == (0 if then_end else 10), count
        alice, relay = await conversation_cut_at(RELAY_SAYS, by_alice=False, then_end=then_end)
        assert (alice.error, relay.error) == (None, None)

    virtual_run(run)


@pytest.mark.parametrize("line", [b"", preface.opening(Purpose.CONTROL)], ids=["line", "message"])
async def test_R2_a_byte_now_and_then_does_not_hold_a_step_open(autojump_clock: MockClock, line: bytes) -> None:
    left, right = memory_stream_pair()
    relay = Outcome()

    async def trickle() -> None:
        await left.send_all(line)
        while True:
            await trio.sleep(1)
            try:
                await left.send_all(b"\1")
            except trio.BrokenResourceError:
                return  # given up, as it should be

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        await as_relay(right, relay)
        nursery.cancel_scope.cancel()
    assert isinstance(relay.error, Stalled)
    assert relay.at == 10


async def test_an_initiator_whose_words_are_not_taken_gives_up(autojump_clock: MockClock) -> None:
    left, _ = lockstep_stream_pair()
    alice = Outcome()
    await as_alice(left, alice)
    assert isinstance(alice.error, Stalled)
    assert alice.at == 10


async def test_R2_a_responder_whose_words_are_not_taken_gives_up(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    relay = Outcome()
    shake = Handshake(ALICE, prologue(preface.opening(Purpose.CONTROL)), initiator=True)
    first = shake.write()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(as_relay, right, relay)
        await left.send_all(preface.opening(Purpose.CONTROL) + len(first).to_bytes(2, "big") + first)
    assert isinstance(relay.error, Stalled)
    assert relay.at == 10


@pytest.mark.parametrize("opening", [b"glide/9 control\n", b"nonsense\n"])
async def test_R2_whoever_does_not_take_the_refusal_is_dropped(autojump_clock: MockClock, opening: bytes) -> None:
    left, right = lockstep_stream_pair()
    relay = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(as_relay, right, relay)
        await left.send_all(opening)
    assert isinstance(relay.error, NotGlide)
    assert relay.at <= 4


# --- strangers -------------------------------------------------------------------------------------------


async def answer_to(said: bytes, allowed: frozenset[Purpose] = ALL) -> tuple[Outcome, bytes]:
    """What the responder makes of bytes, and what it answers."""
    left, right = memory_stream_pair()
    relay, answers = Outcome(), []

    async def read() -> None:
        answers.append(await everything(left))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: as_relay(right, relay, allowed=allowed))
        await left.send_all(said)
        nursery.start_soon(read)
    return relay, answers[0]


async def reaction_to(said: bytes, *, then_end: bool = False) -> Outcome:
    """What the initiator makes of bytes."""
    left, right = memory_stream_pair()
    alice = Outcome()
    await right.send_all(said)
    if then_end:
        await right.send_eof()
    await as_alice(left, alice)
    return alice


@pytest.mark.parametrize(
    ("version", "words"), [(b"2", "this one is older than yours"), (b"0", "yours is older than this one")]
)
async def test_another_version_is_refused_in_words_for_both_sides(
    autojump_clock: MockClock, version: bytes, words: str
) -> None:
    relay, answer = await answer_to(b"glide/" + version + b" control\n" + bytes(34))
    assert isinstance(relay.error, NotGlide)
    assert words in relay.error.what
    assert answer.endswith(b"\n")
    with pytest.raises(NotGlide, match=words):
        preface.check_answer(answer[:-1], "relay.example")
    assert answer.startswith(b"glide/1 refused speaks 1 to 1: ")


async def test_a_relay_of_another_version_is_told_apart_in_words(autojump_clock: MockClock) -> None:
    alice = await reaction_to(b"glide/7 refused speaks 5 to 7: you speak 1, yours is older\n")
    assert isinstance(alice.error, NotGlide)
    for part in ("relay.example", "version 7", "this one 1", "speaks 5 to 7: you speak 1, yours is older"):
        assert part in alice.error.what


async def test_a_browser_gets_an_answer_that_a_person_can_read(autojump_clock: MockClock) -> None:
    relay, answer = await answer_to(b"GET / HTTP/1.1\r\nHost: relay.example\r\nUser-Agent: Mozilla\r\n\r\n" * 10)
    assert isinstance(relay.error, NotGlide)
    assert b"this is a glide relay" in answer
    assert answer.count(b"\n") == 1
    assert answer.isascii()


async def test_a_web_server_is_told_apart_and_quoted(autojump_clock: MockClock) -> None:
    alice = await reaction_to(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(alice.error, NotGlide)
    assert "is not glide: it answered" in alice.error.what
    assert "HTTP/1.1 400 Bad Request" in alice.error.what
    assert alice.error.next


async def test_escapes_in_an_answer_do_not_reach_the_terminal(autojump_clock: MockClock) -> None:
    alice = await reaction_to(b"\x1b]0;owned\x07\x1b[2J\n")
    assert alice.error is not None
    assert str(alice.error).isprintable()


async def test_a_busy_relay_says_so(autojump_clock: MockClock) -> None:
    alice = await reaction_to(preface.busy("too many connections"))
    assert isinstance(alice.error, RelayRefused)
    assert "too many connections" in alice.error.what


async def test_a_purpose_that_is_not_taken_here_is_refused(autojump_clock: MockClock) -> None:
    relay, answer = await answer_to(
        preface.opening(Purpose.END_TO_END) + bytes(34), allowed=frozenset({Purpose.CONTROL})
    )
    assert isinstance(relay.error, NotGlide)
    assert b"no e2e connection is taken here" in answer


async def test_R1_a_line_that_does_not_end_is_refused_at_its_limit(autojump_clock: MockClock) -> None:
    relay, answer = await answer_to(b"x" * LONGEST_LINE)
    assert isinstance(relay.error, NotGlide)
    assert relay.at < 10
    assert answer.startswith(b"glide/1 refused ")
    alice = await reaction_to(b"x" * LONGEST_LINE)
    assert isinstance(alice.error, NotGlide)
    assert alice.at < 10 + relay.at


async def test_R1_an_oversized_handshake_message_is_refused_at_its_length(autojump_clock: MockClock) -> None:
    length = (LONGEST_MESSAGE + 1).to_bytes(2, "big")
    relay, _ = await answer_to(preface.opening(Purpose.CONTROL) + length)
    alice = await reaction_to(preface.ok() + length)
    for outcome in (relay, alice):
        assert isinstance(outcome.error, IntegrityError)
        assert f"{LONGEST_MESSAGE} is the most" in outcome.error.what
        assert outcome.at == 0


# --- any bytes at all ------------------------------------------------------------------------------------


def beginnings(*lines: bytes) -> SearchStrategy[bytes]:
    """Bytes that look right for a while: a line, a length, as many bytes, and noise."""
    message = st.binary(max_size=200).map(lambda body: len(body).to_bytes(2, "big") + body)
    line = st.sampled_from(lines) | st.from_regex(rb"glide/[0-9]{1,6} [a-z0-9]{0,17}\n", fullmatch=True)
    return st.binary(max_size=600) | st.lists(line | message | st.binary(max_size=40), max_size=5).map(b"".join)


@settings(max_examples=150)
@given(beginnings(*map(preface.opening, Purpose)), st.booleans())
@example(said=preface.opening(Purpose.DATA) + b"\0\x20" + bytes(32), cut=False)  # a point of low order
@example(said=preface.opening(Purpose.DATA) + b"\0\x00", cut=False)
def test_R1_any_opening_ends_with_one_of_our_errors(said: bytes, cut: bool) -> None:
    async def run() -> None:
        left, right = memory_stream_pair()
        relay = Outcome()
        if said:
            await left.send_all(said)
        if cut:
            await left.send_eof()
        await as_relay(right, relay)
        assert relay.error is not None
        assert relay.at <= 3 * 10 + 4

    virtual_run(run)


@settings(max_examples=150)
@given(beginnings(preface.ok(), preface.busy("later"), preface.refusal("no")), st.booleans())
@example(said=preface.ok() + b"\0\x60" + bytes(96), then_end=False)
def test_R1_any_answer_ends_with_one_of_our_errors(said: bytes, then_end: bool) -> None:
    async def run() -> None:
        alice = await reaction_to(said, then_end=then_end)
        assert alice.error is not None
        assert alice.at <= 2 * 10

    virtual_run(run)


@settings(max_examples=80)
@given(st.binary(max_size=2048) | beginnings(to_bytes(ALICE_CAN), to_bytes(Hello(role=Role.ASK))))
@example(b"\x40\xff\xff\xff\xff")
@example(b"\x40\x00\x00\x00\x02\xc1\xc1")
def test_R1_any_payload_of_a_proved_key_gives_a_connection_or_one_of_our_errors(payload: bytes) -> None:
    async def run() -> None:
        left, right = memory_stream_pair()
        relay = Outcome()

        async def shake() -> None:
            handshake = Handshake(ALICE, prologue(preface.opening(Purpose.CONTROL)), initiator=True)
            first = handshake.write()
            await left.send_all(preface.opening(Purpose.CONTROL) + len(first).to_bytes(2, "big") + first)
            answer = bytearray()
            while len(answer) < RELAY_SAYS:
                answer += await left.receive_some()
            handshake.read(bytes(answer[len(preface.ok()) + 2 :]))
            third = handshake.write(payload)
            await left.send_all(len(third).to_bytes(2, "big") + third)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake)
            await as_relay(right, relay)
        if relay.error is None:
            assert isinstance(relay.capabilities, Capabilities)
        else:
            assert isinstance(relay.error, ProtocolError)

    virtual_run(run)
