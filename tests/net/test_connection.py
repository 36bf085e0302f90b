"""Connections: what one side says the other hears, nothing waits for ever, and an end is told if it can be."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from glide.crypto.records import FULL, LENGTH, TAG, Opener, Sealer
from glide.errors import (
    ConnectionLost,
    Declined,
    GlideError,
    IntegrityError,
    ProtocolError,
    Stalled,
)
from glide.net.connection import FRAME, Connection, explained
from glide.net.streams import close_gently
from glide.protocol import frames
from glide.protocol.endtoend import Abort, Blocks, Busy, Digests, Done, End, Item, Offer, Page, Receipt, Want
from glide.protocol.fields import Message
from glide.protocol.frames import HEADER, Data, Kind
from glide.protocol.messages import Goodbye, Keepalive, People, Person, Who, to_bytes
from glide.protocol.preface import Purpose
from glide.protocol.states import Side, State
from tests.net.pairs import FORTH, OFFER, MemoryStream, connection, heard, pair, registered, streaming

DIGESTS = Digests(page=0, digests=b"d" * 32)

EXAMPLES = settings(max_examples=40)


def virtual_run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an async function on a clock of its own, which jumps."""
    trio.run(test, clock=MockClock(autojump_threshold=0))


async def all_of(listener: Connection) -> None:
    """Receive until it raises."""
    while True:
        await listener.receive()


def asked(number: int) -> Who:
    return Who(after=f"n{number}")


# --- messages and file bytes -----------------------------------------------------------------------------


async def test_messages_go_both_ways_in_order() -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    answers = [People(people=(Person(name=f"n{number}", key=b"k" * 32),)) for number in range(20)]
    for number in range(20):
        await client.send(asked(number))
        await relay.send(answers[number])
    assert [await heard(relay) for _ in range(20)] == [asked(number) for number in range(20)]
    assert [await heard(client) for _ in range(20)] == answers


async def test_messages_that_are_sent_together_arrive_one_by_one() -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    await client.send(*(asked(number) for number in range(500)))
    assert [await heard(relay) for _ in range(500)] == [asked(number) for number in range(500)]


async def test_tasks_that_send_at_once_do_not_mix_their_records() -> None:
    client, relay = pair(Purpose.CONTROL, lockstep_stream_pair())
    sent = {asked(number) for number in range(20)}
    await registered(client, relay)
    async with trio.open_nursery() as nursery:
        for message in sent:
            nursery.start_soon(client.send, message)
        assert {await heard(relay) for _ in sent} == sent


@EXAMPLES
@given(st.lists(st.integers(0, 200_000), max_size=6), st.integers(0, 2**32))
@example(sizes=[65519, 65514, 1, 0, 65535, 131038], seed=0)
def test_file_bytes_arrive_unchanged_in_views_that_stay_valid(sizes: list[int], seed: int) -> None:
    async def run() -> None:
        sender, receiver = pair()
        await streaming(sender, receiver)
        buffer = bytearray(200_000)
        sent = bytearray()
        for size in sizes:
            buffer[:size] = random.Random(seed + size).randbytes(size)
            sent += buffer[:size]
            await sender.send_data(memoryview(buffer)[:size])
            buffer[:] = bytes(len(buffer))  # the caller's again as soon as the call has returned
        await sender.send(DIGESTS)
        views: list[memoryview] = []
        while isinstance(event := await receiver.receive(), Data):
            views.append(event.view)
        assert event == DIGESTS
        assert b"".join(views) == sent

    virtual_run(run)


async def test_file_bytes_wait_for_a_full_record_or_the_next_message(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    await streaming(sender, receiver)
    await sender.send_data(memoryview(b"hello"))
    with trio.move_on_after(10) as waited:
        await receiver.receive()
    assert waited.cancelled_caught
    await sender.send(Keepalive())
    event = await receiver.receive()
    assert isinstance(event, Data)
    assert bytes(event.view) == b"hello"


# --- full records ----------------------------------------------------------------------------------------


def sealed_by(left: MemoryStream) -> list[int]:
    """Collects, from now on, the lengths of the plaintexts of all records that are sent; nobody gets them."""
    lengths: list[int] = []

    async def collect() -> None:
        try:
            sealed = left.send_stream.get_data_nowait()
        except trio.WouldBlock:
            return  # nothing was sent
        while sealed:
            length = int.from_bytes(sealed[:LENGTH], "big")
            assert len(sealed) >= LENGTH + length, "whole records at a time"
            lengths.append(length - TAG)
            sealed = sealed[LENGTH + length :]

    left.send_stream.send_all_hook = collect
    return lengths


async def test_what_is_sent_without_a_flush_waits_until_something_is_flushed(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    pages = [Page(items=(Item(f"{number}"),)) for number in range(3)]
    for page in pages:
        await sender.send(page, flush=False)
    with trio.move_on_after(10) as waited:
        await receiver.receive()
    assert waited.cancelled_caught
    await sender.send()
    assert [await heard(receiver) for _ in pages] == pages


async def test_C3_unflushed_messages_go_out_in_full_records_alone() -> None:
    left, right = memory_stream_pair()
    sender, _ = pair(streams=(left, right))
    lengths = sealed_by(left)
    page = Page(items=(Item("a"),))
    for _ in range(100):
        await sender.send(page, flush=False)
    said = 100 * len(to_bytes(page))
    assert lengths == [FULL] * (said // FULL)
    await sender.send(Offer())
    assert lengths == [FULL] * ((said + len(to_bytes(Offer()))) // FULL) + [(said + len(to_bytes(Offer()))) % FULL]


@EXAMPLES
@given(
    st.lists(
        st.integers(1, 150_000) | st.sampled_from([FRAME, FRAME + 1, 3 * FRAME + 77, "pages", "blocks", "flush"]),
        max_size=20,
    )
)
@example([FULL - HEADER.size])
@example([FULL - HEADER.size - len(to_bytes(DIGESTS)), "pages"])
def test_C3_all_records_between_two_flushes_are_full_whatever_is_in_them(steps: list[int | str]) -> None:
    async def run() -> None:
        left, right = memory_stream_pair()
        sender, receiver = pair(streams=(left, right))
        await streaming(sender, receiver)
        lengths = sealed_by(left)
        expected: list[int] = []
        waiting = 0
        for step in [*steps, "flush"]:
            match step:
                case int(size):
                    await sender.send_data(memoryview(bytes(size)))
                    waiting += HEADER.size * math.ceil(size / FRAME) + size
                case "pages":
                    await sender.send(DIGESTS, DIGESTS, flush=False)
                    waiting += 2 * len(to_bytes(DIGESTS))
                case "blocks":
                    blocks = Blocks(number=0, first=0, digests=b"b" * 32)
                    await sender.send(blocks, flush=False)
                    waiting += len(to_bytes(blocks))
                case _:
                    await sender.send()
                    expected += [FULL] * (waiting // FULL) + ([waiting % FULL] if waiting % FULL else [])
                    waiting = 0
            assert lengths == expected + [FULL] * (waiting // FULL)

    virtual_run(run)


async def test_a_flush_of_nothing_sends_nothing() -> None:
    left, right = memory_stream_pair()
    sender, _ = pair(streams=(left, right))
    lengths = sealed_by(left)
    await sender.send()
    await sender.send(flush=False)
    assert lengths == []


@pytest.mark.parametrize("what", ["a message", "file bytes"])
async def test_what_waits_for_a_full_record_is_no_sign_of_life(autojump_clock: MockClock, what: str) -> None:
    sender, receiver = pair()
    await streaming(sender, receiver)
    begun = trio.current_time()
    await trio.sleep(20)
    if what == "a message":
        await sender.send(DIGESTS, flush=False)
    else:
        await sender.send_data(memoryview(b"hello"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.keep_alive)
        await receiver.receive()
        nursery.cancel_scope.cancel()
    # Not 30 s after what nobody has seen, but after the last thing that went out.
    assert trio.current_time() - begun == 30


async def test_a_message_that_may_not_be_said_is_our_own_fault_and_leaves_the_connection_as_it_was() -> None:
    sender, receiver = pair()
    with pytest.raises(RuntimeError, match="DIGESTS in OFFERING"):
        await sender.send(DIGESTS, flush=False)
    await sender.send(OFFER)
    assert await heard(receiver) == OFFER


async def test_messages_of_a_newer_version_are_passed_over() -> None:
    left, right = memory_stream_pair()
    receiver = connection(right, Purpose.END_TO_END, Side.RESPONDER)
    sealer = Sealer(FORTH)
    await left.send_all(sealer.seal_all(HEADER.pack(0x7E, 4) + b"what", to_bytes(OFFER)))
    assert await heard(receiver) == OFFER


async def test_the_bytes_behind_the_last_record_go_with_the_bare_stream() -> None:
    left, right = memory_stream_pair()
    client = connection(right, Purpose.END_TO_END, Side.RESPONDER)
    sealer = Sealer(FORTH)
    await left.send_all(sealer.seal_all(to_bytes(OFFER)) + b"not ours")
    assert await heard(client) == OFFER
    assert client.detach() == (right, b"not ours")


# --- what a peer may not say -----------------------------------------------------------------------------


async def test_what_the_tables_do_not_allow_is_an_error_of_the_peer() -> None:
    left, right = memory_stream_pair()
    receiver = connection(right, Purpose.END_TO_END, Side.RESPONDER)
    sealer = Sealer(FORTH)
    await left.send_all(sealer.seal_all(to_bytes(Done())))
    with pytest.raises(ProtocolError, match="DONE"):
        await receiver.receive()


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.DATA, Kind.KEEPALIVE, 0x7E])
async def test_R1_a_frame_over_its_limit_is_refused_at_its_header(kind: int) -> None:
    left, right = memory_stream_pair()
    receiver = connection(right, Purpose.END_TO_END, Side.RESPONDER)
    sealer = Sealer(FORTH)
    limit = frames.LIMITS[Kind(kind)] if kind in set(Kind) else frames.UNKNOWN_LIMIT
    await left.send_all(sealer.seal_all(HEADER.pack(kind, limit + 1)))
    with pytest.raises(ProtocolError, match="is the most"):
        await receiver.receive()


@EXAMPLES
@given(st.binary(max_size=2000), st.booleans())
def test_R1_any_bytes_for_records_end_the_connection_with_one_of_our_errors(noise: bytes, cut: bool) -> None:
    async def run() -> None:
        left, right = memory_stream_pair()
        receiver = connection(right, Purpose.END_TO_END, Side.RESPONDER)
        if noise:
            await left.send_all(noise)
        if cut:
            await left.send_eof()
        with pytest.raises((IntegrityError, ConnectionLost)):
            await receiver.receive()

    virtual_run(run)


@EXAMPLES
@given(st.binary(max_size=2000))
def test_R1_any_bytes_in_a_record_end_the_connection_with_one_of_our_errors(noise: bytes) -> None:
    async def run() -> None:
        left, right = memory_stream_pair()
        receiver = connection(right, Purpose.END_TO_END, Side.RESPONDER)
        sealer = Sealer(FORTH)
        await left.send_all(sealer.seal_all(noise) or b"\0")
        await left.send_eof()
        with pytest.raises((ProtocolError, ConnectionLost)):
            await all_of(receiver)

    virtual_run(run)


# --- silence ---------------------------------------------------------------------------------------------


async def test_after_thirty_seconds_of_nothing_a_keepalive_is_sent(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    client = connection(left, Purpose.CONTROL, Side.INITIATOR)
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.keep_alive)
        opener = Opener(FORTH)
        while len(times) < 3:
            opener.feed(await right.receive_some())
            while (plain := opener.next()) is not None:
                assert plain == to_bytes(Keepalive())
                times.append(trio.current_time())
        nursery.cancel_scope.cancel()
    assert times == [30, 60, 90]


async def test_whatever_is_said_puts_the_keepalive_off(autojump_clock: MockClock) -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)

    async def chatter() -> None:
        for number in range(5):
            await client.send(asked(number))
            await trio.sleep(29)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.keep_alive)
        nursery.start_soon(chatter)
        for number in range(5):
            assert await heard(relay) == asked(number)
            assert relay.last_heard == number * 29
        with trio.move_on_after(31):
            await relay.receive()
        assert relay.last_heard == 4 * 29 + 30
        nursery.cancel_scope.cancel()


async def test_while_a_send_waits_for_the_peer_no_keepalive_queues_behind_it(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    sender, receiver = pair(streams=(left, right))
    sender.leave_to(1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.keep_alive)
        nursery.start_soon(sender.send, OFFER)
        await trio.sleep(500)
        assert await heard(receiver) == OFFER
        heard_at = trio.current_time()
        with trio.move_on_after(29):
            await receiver.receive()
        assert receiver.last_heard <= heard_at + 30
        nursery.cancel_scope.cancel()


async def test_what_is_mentioned_is_said_at_once_without_anybody_waiting(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    await streaming(sender, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.keep_alive)
        for seconds in (0, 3):
            await trio.sleep(5)
            said_at = trio.current_time()
            sender.mention(Busy(seconds=seconds))
            assert await heard(receiver) == Busy(seconds=seconds)
            assert trio.current_time() == said_at
        nursery.cancel_scope.cancel()


async def test_of_what_is_mentioned_at_once_only_the_last_is_said(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    await streaming(sender, receiver)
    async with trio.open_nursery() as nursery:
        for seconds in range(1, 6):
            sender.mention(Busy(seconds=seconds))
        nursery.start_soon(sender.keep_alive)
        assert await heard(receiver) == Busy(seconds=5)
        with trio.move_on_after(20) as quiet:
            await receiver.receive()
        assert quiet.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_what_may_not_be_said_any_more_is_not_mentioned(autojump_clock: MockClock) -> None:
    sender, receiver = pair()  # where a Busy has no place yet
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.keep_alive)
        await trio.sleep(1)
        sender.mention(Busy(seconds=1))
        await trio.sleep(1)
        await sender.send(OFFER)
        assert await heard(receiver) == OFFER
        nursery.cancel_scope.cancel()


async def test_a_mention_is_dropped_while_a_send_waits_for_the_peer(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    sender, receiver = pair(streams=(left, right))
    await streaming(sender, receiver)
    deliver, taken = left.send_stream.send_all_hook, trio.Event()
    assert deliver is not None

    async def slowly() -> None:
        await taken.wait()
        await deliver()

    left.send_stream.send_all_hook = slowly
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.keep_alive)
        nursery.start_soon(sender.send, DIGESTS)
        await trio.sleep(1)
        sender.mention(Busy(seconds=1))
        await trio.sleep(1)
        taken.set()
        assert await heard(receiver) == DIGESTS
        with trio.move_on_after(20) as quiet:
            await receiver.receive()
        assert quiet.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_while_somebody_holds_the_silence_nothing_is_cut_in_two(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    await streaming(sender, receiver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, DIGESTS)
        nursery.start_soon(sender.send, DIGESTS)
        await trio.testing.wait_all_tasks_blocked()
        async with sender.silence():
            nursery.start_soon(sender.send, DIGESTS)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    await sender.send(End(bytes=5, digest=b"w" * 32))
    assert [await heard(receiver) for _ in range(3)] == [DIGESTS, DIGESTS, End(bytes=5, digest=b"w" * 32)]


async def test_a_peer_that_is_silent_for_ninety_seconds_is_lost(autojump_clock: MockClock) -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    await trio.sleep(50)
    begun = trio.current_time()
    with pytest.raises(ConnectionLost, match="silent for 90 s"):
        await client.receive()
    assert trio.current_time() - begun == 90


async def test_a_peer_that_keeps_alive_is_never_lost(autojump_clock: MockClock) -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.keep_alive)
        nursery.start_soon(relay.keep_alive)
        with trio.move_on_after(3600) as hour:
            async with trio.open_nursery() as both:
                both.start_soon(client.receive)
                both.start_soon(relay.receive)
        assert hour.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_keep_alive_may_run_on_after_the_peer_has_said_its_last_word(autojump_clock: MockClock) -> None:
    # As a receiver does that was told goodbye and finishes the transfers that are under way.
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    await relay.send(Goodbye(code="replaced"))
    assert await heard(client) == Goodbye(code="replaced")
    with trio.move_on_after(1000):
        try:
            await client.keep_alive()
        except ConnectionLost:
            pass


async def test_a_peer_that_does_not_take_what_is_sent_is_lost(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    sender, _ = pair(streams=(left, right))
    with pytest.raises(ConnectionLost):
        await sender.send(OFFER)
    assert trio.current_time() == 90
    with pytest.raises(ConnectionLost):
        await sender.send(Keepalive())
    with pytest.raises(trio.BrokenResourceError):
        await right.send_all(b"too late")


async def test_a_longer_deadline_that_is_watched_elsewhere_makes_patient(autojump_clock: MockClock) -> None:
    sender, _ = pair()
    sender.leave_to(10)
    assert sender.patience == 90
    sender.leave_to(300)
    with pytest.raises(ConnectionLost):
        await sender.receive()
    assert trio.current_time() > 300  # the one that knows whom to blame comes first


async def test_a_deadline_of_zero_makes_patient_for_ever(autojump_clock: MockClock) -> None:
    sender, _ = pair()
    sender.leave_to(0)
    assert sender.patience == math.inf
    with trio.move_on_after(10 * 365 * 86400) as decade:
        await sender.receive()
    assert decade.cancelled_caught


# --- cancellation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 2, 100])
async def test_a_cancelled_send_ruins_the_stream(autojump_clock: MockClock, taken: int) -> None:
    left, right = lockstep_stream_pair()
    sender, receiver = pair(streams=(left, right))
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send, OFFER)
            if taken:
                receiver._opener.feed(await right.receive_some(taken))
    assert scope.cancelled_caught
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await sender.send(Keepalive())
    with pytest.raises(ConnectionLost):
        await sender.receive()
    with pytest.raises(ConnectionLost):
        await all_of(receiver)
    assert trio.current_time() == 1


async def test_cancelled_file_bytes_ruin_the_stream_as_well(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    sender, receiver = pair(streams=(left, right))
    await streaming(sender, receiver)
    left.send_stream.send_all_hook = trio.sleep_forever
    with trio.move_on_after(1):
        await sender.send_data(memoryview(bytes(100_000)))
    with pytest.raises(ConnectionLost):
        await sender.send_data(memoryview(b"more"))
    with pytest.raises(ConnectionLost):
        await sender.send(Keepalive())


async def test_a_send_that_is_cancelled_before_its_turn_ruins_nothing(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    client, relay = pair(Purpose.CONTROL, (left, right))
    await registered(client, relay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, asked(1))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1) as gave_up:
            await client.send(asked(2))
        assert gave_up.cancelled_caught
        nursery.start_soon(client.send, asked(3))
        assert [await heard(relay), await heard(relay)] == [asked(1), asked(3)]


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), max_size=60),
    st.integers(0, 2**32),
)
def test_a_receive_loses_nothing_wherever_it_is_cancelled(sizes: list[int], cancels: list[int], seed: int) -> None:
    said: list[Message] = [Who(after=f"n{size}") for size in sizes]

    async def run() -> None:
        left, right = memory_stream_pair()
        client, relay = pair(Purpose.CONTROL, (left, right))
        await registered(client, relay)
        sealed = bytearray()

        async def collect() -> None:
            sealed.extend(left.send_stream.get_data_nowait())

        left.send_stream.send_all_hook = collect
        for message in said:
            await client.send(Keepalive(), message)
        cuts = sorted(random.Random(seed).choices(range(len(sealed)), k=len(said) * 2))

        async def trickle() -> None:
            for start, end in pairwise([0, *cuts, len(sealed)]):
                if start < end:
                    right.receive_stream.put_data(sealed[start:end])
                for _ in range(3):
                    await trio.lowlevel.checkpoint()

        got: list[Message] = []

        async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            for steps in cancels:
                if len(got) == len(said):
                    break
                async with trio.open_nursery() as attempt:
                    with trio.CancelScope() as scope:
                        attempt.start_soon(cancel_after, steps, scope)
                        got.append(await heard(relay))
            while len(got) < len(said):
                got.append(await heard(relay))
        assert got == said

    virtual_run(run)


# --- the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
async def test_the_end_of_the_stream_is_a_lost_connection(half: bool) -> None:
    left, right = memory_stream_pair()
    receiver = connection(right, Purpose.END_TO_END, Side.RESPONDER)
    if half:
        sealer = Sealer(FORTH)
        await left.send_all((sealer.seal_all(to_bytes(OFFER)))[:-1])
    await left.send_eof()
    with pytest.raises(ConnectionLost, match="alice is gone"):
        await receiver.receive()


async def test_a_stream_that_breaks_is_a_lost_connection() -> None:
    left, right = memory_stream_pair()
    sender, receiver = pair(streams=(left, right))

    async def broken() -> None:
        raise trio.BrokenResourceError

    right.receive_stream.receive_some_hook = broken
    with pytest.raises(ConnectionLost):
        await receiver.receive()
    left.send_stream.send_all_hook = broken
    with pytest.raises(ConnectionLost):
        await sender.send(OFFER)


async def test_a_connection_that_we_closed_is_lost_too() -> None:
    sender, _ = pair()
    await sender.aclose()
    with pytest.raises(ConnectionLost):
        await sender.send(OFFER)
    with pytest.raises(ConnectionLost):
        await sender.receive()


async def why(listener: Connection) -> Abort:
    """The peer's reason, behind which the stream must end."""
    message = await heard(listener)
    assert isinstance(message, Abort)
    with pytest.raises(ConnectionLost):
        await listener.receive()
    await listener.aclose()
    return message


@pytest.mark.parametrize("text", ["The disk is full.", "…" * 5000])
async def test_why_a_connection_ends_is_delivered(autojump_clock: MockClock, text: str) -> None:
    sender, receiver = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.say_why, Declined("for us alone", "and ours", for_peer=text))
        assert await why(sender) == Abort(code="declined", message=text[:400])
    assert trio.current_time() < 2


async def test_words_that_are_not_for_the_peer_stay_here(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.say_why, Declined("/home/bob/secret is full.", "It was kept.", "Clean up."))
        assert await why(sender) == Abort(code="declined")


async def test_a_lost_connection_is_not_told_so(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    await receiver.say_why(ConnectionLost("gone"))
    with trio.move_on_after(1) as scope:
        await sender.receive()
    assert scope.cancelled_caught


async def test_where_no_reason_may_be_said_the_stream_is_just_closed(autojump_clock: MockClock) -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.say_why, Stalled("too slow"))
        with pytest.raises(ConnectionLost):
            await client.receive()
        await client.aclose()


async def test_saying_why_takes_four_seconds_at_most_and_closes(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    sender, _ = pair(streams=(left, right))
    await sender.say_why(Declined("no"))
    assert trio.current_time() <= 4
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")


async def test_saying_why_works_in_a_scope_that_is_cancelled(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(why, sender)
        with trio.CancelScope() as scope:
            scope.cancel()
            await receiver.say_why(Declined("no"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Declined("ours", for_peer="no"), "declined"),
        (ExceptionGroup("both", [ConnectionLost("gone"), Declined("ours", for_peer="no")]), "declined"),
    ],
)
async def test_explained_tells_the_peer_and_lets_one_error_out(
    autojump_clock: MockClock, error: Exception, told: str
) -> None:
    sender, receiver = pair()

    async def fail() -> None:
        with pytest.raises(GlideError) as caught:
            async with explained(receiver, lambda: "Nothing was saved."):
                raise error
        assert caught.value.code == told

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        assert await why(sender) == Abort(code=told, message="no")


async def test_explained_tells_the_peer_of_a_cancellation(autojump_clock: MockClock) -> None:
    sender, receiver = pair()

    async def interrupted() -> None:
        with trio.move_on_after(5) as scope:
            async with explained(receiver, lambda: "Nothing was saved."):
                await trio.sleep_forever()
        assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupted)
        assert (await why(sender)).code == "cancelled"


async def test_explained_says_what_a_lost_connection_means(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    await sender.aclose()
    with pytest.raises(ConnectionLost) as caught:
        async with explained(receiver, lambda: "Nothing was saved."):
            await receiver.receive()
    assert caught.value.means == "Nothing was saved."


async def test_explained_leaves_errors_that_are_not_ours_alone(autojump_clock: MockClock) -> None:
    _, receiver = pair()
    with pytest.RaisesGroup(ZeroDivisionError):
        async with explained(receiver, lambda: "Nothing was saved."):
            raise ZeroDivisionError


async def test_closing_gently_lets_the_peer_read_all_that_was_sent() -> None:
    # Over TCP, and with bytes of the peer that nobody reads: closed at once, they would reset the connection.
    ours = trio.Event()
    payload = random.Random(0).randbytes(1_000_000)

    async def serve(stream: trio.SocketStream) -> None:
        await ours.wait()
        await stream.send_all(payload)
        await close_gently(stream, 20)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        await client.send_all(bytes(100_000))
        ours.set()
        got = bytearray()
        with trio.fail_after(10):
            async for piece in client:
                got += piece
                await client.send_all(b"still talking")
        await client.aclose()
        assert got == payload
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("talks", [False, True])
async def test_closing_gently_is_not_for_ever(autojump_clock: MockClock, talks: bool) -> None:
    left, right = memory_stream_pair()

    async def talk() -> None:
        while True:
            await right.send_all(b"bla")
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        if talks:
            nursery.start_soon(talk)
        await close_gently(left, 2)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 2
    with pytest.raises(trio.ClosedResourceError):
        await left.receive_some()


async def test_closing_gently_works_in_a_scope_that_is_cancelled(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_gently(left, 2)
    assert await right.receive_some() == b""
    assert trio.current_time() == 2


async def test_a_whole_conversation_ends_as_it_should() -> None:
    sender, receiver = pair()
    await streaming(sender, receiver)
    await sender.send_data(memoryview(b"hello"))
    await sender.send(DIGESTS, End(bytes=5, digest=b"w" * 32))
    assert isinstance(await receiver.receive(), Data)
    assert [await heard(receiver), await heard(receiver)] == [
        DIGESTS,
        End(bytes=5, digest=b"w" * 32),
    ]
    again = Want(ranges=((0, 5),))
    await receiver.send(again)
    assert await heard(sender) == again
    await sender.send_data(memoryview(b"HELLO"))
    await sender.send()
    assert isinstance(await receiver.receive(), Data)
    receipt = Receipt(items=1, bytes=5, digest=b"w" * 32)
    await receiver.send(receipt)
    assert await heard(sender) == receipt
    await sender.send(Done())
    assert await heard(receiver) == Done()
    async with trio.open_nursery() as nursery, sender, receiver:
        nursery.start_soon(sender.close)
        nursery.start_soon(receiver.close)


async def test_whoever_waits_to_send_when_the_last_word_comes_is_told_so() -> None:
    """A receiver may confirm while a task of the sender waits for its turn."""
    sender, receiver = pair()
    await streaming(sender, receiver)
    sender.machine.state = State.CONFIRMED
    with pytest.raises(ConnectionLost, match="last word"):
        await sender.send_data(memoryview(b"late"))
    with pytest.raises(ConnectionLost, match="last word"):
        await sender.send(DIGESTS)
    await sender.send(Done())
