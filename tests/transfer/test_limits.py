"""What a receiver's person allows holds where the bytes are: how many of one transfer, and how fast from one person."""

from __future__ import annotations

import itertools
import math
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from glide import events
from glide.errors import Declined, ProtocolError, Stopped
from glide.net.connection import FRAME, Connection
from glide.protocol.endtoend import Abort, Accept, Busy, Item, ItemKind, Offer, Page, Want
from glide.transfer import checking, intake, reading, receiving
from glide.transfer.gathering import Gathered, gather_pipe
from glide.transfer.intake import BATCH, Batch, take_in
from glide.transfer.manifest import Manifest
from glide.transfer.storage import Arrival, StandardOutput
from glide.transfer.terms import Hint, Terms, Watch
from glide.transfer.throttle import BURST, Throttle
from tests.transfer.halves import (
    ALICE,
    BRISK,
    CONTENT,
    RELAY,
    TRANSFER,
    Place,
    Side,
    answer_of,
    anything,
    files,
    gather,
    joined,
    offered,
    receive,
    send,
    socket_pair,
    transferred,
)

KIB, MIB = 1024, 1024 * 1024


@dataclass
class Limited(Place):
    """A place whose owner allows so much, and says yes without looking at what a manifest says."""

    most: int | None = None
    throttle: Throttle | None = None

    def arrival(self) -> Arrival:
        return replace(super().arrival(), most=self.most, throttle=self.throttle)


@pytest.fixture
def limited(place: Place) -> Limited:
    return Limited(place.into, place.journals)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Gathered]]:
    """Makes something what a program says on our standard input."""
    opened = []

    def pipe(content: bytes) -> Gathered:
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        opened.append(open(reading, encoding="utf-8"))  # noqa: SIM115  # closed below, once the test is over
        monkeypatch.setattr(sys, "stdin", opened[-1])
        return gather_pipe("stdin", warn=lambda _: None)

    yield pipe
    for each in opened:
        each.close()


# --- how many ----------------------------------------------------------------------------------------------------


async def test_R10_a_pipe_is_taken_up_to_the_limit(limited: Limited, piped: Callable[[bytes], Gathered]) -> None:
    limited.most = 5000
    alice, bob = await transferred(piped(CONTENT[:5000]), limited)
    assert (alice.error, bob.error) == (None, None)
    assert limited.into is not None
    assert files(limited.into) == {"stdin": CONTENT[:5000]}


async def test_R10_a_pipe_that_brings_one_byte_more_is_refused_and_both_sides_read_why(
    limited: Limited, piped: Callable[[bytes], Gathered]
) -> None:
    limited.most = 5000
    alice, bob = await transferred(piped(CONTENT[:5001]), limited)
    said = bob.failed_with(Declined)
    assert "alice sent more than the 4.9 KiB that you take from them in one transfer." in said
    assert "Nothing was kept" in said
    assert "bob stopped it: they take at most 4.9 KiB from you in one transfer." in alice.failed_with(Stopped)
    assert alice.error is not None
    assert bob.error is not None
    assert alice.error.exit == bob.error.exit == 4
    assert not alice.error.worth_a_retry
    assert limited.is_clean()


async def test_R10_a_pipe_without_end_is_refused_at_the_limit(limited: Limited) -> None:
    """By hand, and for as long as the receiver takes it."""
    limited.most, bob = MIB, Side()
    async with joined(streams=socket_pair) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: receive(far, bob, limited))
        await offered(near, Item("stdin", kind=ItemKind.STREAM))
        async with trio.open_nursery() as talking:

            async def talk() -> None:
                while True:
                    await near.send_data(memoryview(CONTENT)[:65536])

            talking.start_soon(talk)
            abort = await answer_of(near)
            talking.cancel_scope.cancel()
        assert isinstance(abort, Abort)
        assert abort.code == "declined"
        await near.aclose()
    bob.failed_with(Declined)
    assert limited.is_clean()


async def test_R10_a_pipe_writes_no_byte_beyond_the_limit_to_standard_output(
    limited: Limited, piped: Callable[[bytes], Gathered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited.into, limited.most = None, 30_000
    with (tmp_path / "out").open("w+b") as output:
        monkeypatch.setattr(sys, "stdout", output)
        _, bob = await transferred(piped(CONTENT[:50_000]), limited)
    written = (tmp_path / "out").read_bytes()
    assert "What was written to standard output before stands" in bob.failed_with(Declined)
    assert CONTENT.startswith(written)
    assert len(written) <= 30_000


@pytest.mark.parametrize("more", [0, 1])
async def test_R10_what_a_manifest_says_is_not_what_is_counted(path: Path, limited: Limited, more: int) -> None:
    """Nobody looked at it, and it is refused all the same, with what was taken kept to go on with."""
    limited.most = len(CONTENT) - more
    alice, bob = await transferred(gather(path), limited)
    if not more:
        assert (alice.error, bob.error) == (None, None)
        return
    assert "in one transfer" in bob.failed_with(Declined)
    assert "in one transfer" in alice.failed_with(Stopped)
    assert limited.final() == []
    (kept,) = limited.kept()
    assert 0 < kept.bytes <= limited.most


async def test_R10_a_sender_that_sends_more_than_it_offered_gets_no_further_than_that(limited: Limited) -> None:
    limited.most, bob = 100_000, Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        anything(near)
        nursery.start_soon(lambda: receive(far, bob, limited))
        await offered(near, Item("file.bin", size=1000))
        await near.send_data(memoryview(CONTENT)[:1000])
        await near.send_data(memoryview(CONTENT)[:200_000])
        assert isinstance(await answer_of(near), Abort)
        await near.aclose()
    assert "sent more than was asked for" in bob.failed_with(ProtocolError)
    assert limited.final() == []
    assert sum(kept.bytes for kept in limited.kept()) <= 1000


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some is durable early, and what is damaged is asked for in parts."""
    monkeypatch.setattr(reading, "BLOCK", 64 * KIB)
    monkeypatch.setattr(checking, "BLOCK", 64 * KIB)
    monkeypatch.setattr(intake, "BATCH", 64 * KIB)
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("more", [0, 1])
async def test_R10_what_was_kept_counts_too(path: Path, limited: Limited, sent: list[int], more: int) -> None:
    await transferred(gather(path), limited, cut=1.5 * FRAME)
    (before,) = limited.kept()
    assert before.bytes >= FRAME
    sent.clear()
    limited.most = len(CONTENT) - more
    alice, bob = await transferred(gather(path), limited)
    assert sum(sent) <= len(CONTENT) - before.bytes < limited.most
    if not more:
        assert (alice.error, bob.error) == (None, None)
        assert limited.final() == ["file.bin"]
        return
    assert "in one transfer" in bob.failed_with(Declined)
    (after,) = limited.kept()
    assert before.bytes < after.bytes <= limited.most
    # Allowed more, it goes on there.
    sent.clear()
    limited.most = len(CONTENT)
    alice, bob = await transferred(gather(path), limited)
    assert (alice.error, bob.error) == (None, None)
    assert sum(sent) == len(CONTENT) - after.bytes
    assert limited.final() == ["file.bin"]


@pytest.mark.usefixtures("small_blocks")
async def test_R10_when_more_is_kept_than_is_allowed_by_now_nothing_more_is_taken(path: Path, limited: Limited) -> None:
    await transferred(gather(path), limited, cut=1.5 * FRAME)
    (before,) = limited.kept()
    limited.most = before.bytes // 2
    _, bob = await transferred(gather(path), limited)
    bob.failed_with(Declined)
    assert [kept.bytes for kept in limited.kept()] == [before.bytes]


@pytest.mark.usefixtures("small_blocks")
async def test_what_is_asked_for_again_because_it_was_damaged_is_not_counted_twice(
    path: Path, limited: Limited, sent: list[int]
) -> None:
    await transferred(gather(path), limited, cut=1.5 * FRAME)
    (before,) = limited.kept()
    (stored,) = (each for each in limited.stage().rglob("*") if each.is_file())
    with stored.open("r+b") as file:
        file.write(bytes(10))
    sent.clear()
    limited.most = len(CONTENT)
    alice, bob = await transferred(gather(path), limited)
    assert (alice.error, bob.error) == (None, None)
    assert sum(sent) == len(CONTENT) - before.bytes + 64 * KIB
    assert limited.into is not None
    assert files(limited.into) == {"file.bin": CONTENT}


# --- how fast: the throttle alone --------------------------------------------------------------------------------


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(0, 2 * MIB), st.floats(0, 5)), min_size=1, max_size=30),
)
def test_R10_in_no_span_of_time_does_more_come_than_rate_and_burst_allow(
    rate: int, takes: list[tuple[int, float]]
) -> None:
    """Whoever takes waits as told, and then some."""

    async def run() -> list[tuple[float, int]]:
        throttle, took = Throttle(rate), []
        for count, pause in takes:
            took.append((trio.current_time(), count))
            await trio.sleep_until(throttle.take(count))
            await trio.sleep(pause)
        return took

    took = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    for first, last in itertools.combinations(range(len(took)), 2):
        span = took[last][0] - took[first][0]
        before_the_last = sum(count for _, count in took[first:last])  # that one is paid for afterwards
        assert before_the_last <= rate * (span + BURST) * (1 + 1e-9) + 1


async def test_who_was_quiet_may_send_a_seconds_worth_at_once_and_no_more(
    mock_clock: trio.testing.MockClock,
) -> None:
    throttle = Throttle(1000)
    for quiet in (0.0, 3600.0):
        mock_clock.jump(quiet + BURST)
        now = trio.current_time()
        assert throttle.take(1000) == pytest.approx(now)
        assert throttle.take(500) == pytest.approx(now + 0.5)
        assert throttle.take(0) == pytest.approx(now + 0.5)
        mock_clock.jump(0.5)


async def test_R10_a_throttle_is_idle_once_all_is_paid_for_and_the_burst_is_there_again(
    mock_clock: trio.testing.MockClock,
) -> None:
    throttle = Throttle(1000)
    assert throttle.idle
    throttle.take(0)
    assert throttle.idle
    for count in (1, 1000, 5000):
        throttle.take(count)
        mock_clock.jump(count / 1000 * 0.99)
        assert not throttle.idle
        mock_clock.jump(count / 1000 * 0.02)
        assert throttle.idle


@given(
    st.integers(1, 10**6),
    st.lists(st.tuples(st.integers(0, 2 * MIB), st.floats(0, 5)), min_size=1, max_size=30),
)
def test_R10_whoever_forgets_a_throttle_that_is_idle_forgives_nothing(
    rate: int, takes: list[tuple[int, float]]
) -> None:
    """One that is made anew whenever it may be says the same times as one that is kept for ever."""

    async def run() -> None:
        kept, anew = Throttle(rate), Throttle(rate)
        for count, pause in takes:
            if anew.idle:
                anew = Throttle(rate)
            assert anew.take(count) == kept.take(count)
            await trio.sleep(pause)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_rate_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="let nothing through"):
        Throttle(0)


# --- how fast: at the data path ----------------------------------------------------------------------------------


@dataclass
class Taken:
    """What a receiver took of one transfer, on a clock that jumps whenever all wait."""

    connection: Connection
    throttle: Throttle | None
    watch: Watch
    came: list[tuple[float, int]]
    side: Side
    begun: trio.Event = field(default_factory=trio.Event)

    @property
    def bytes(self) -> int:
        return sum(count for _, count in self.came)

    async def run(self, size: int) -> None:
        """Take in a file of that size; no disk is involved, and so no thread, whose time the clock knows nothing of."""
        manifest = Manifest()
        manifest.add(Item("file.bin", size=size))
        manifest.close()
        storage = StandardOutput(manifest)
        storage.assembly.begin([(0, size)])
        arrival = Arrival(TRANSFER, "alice", ALICE.public, RELAY, None, Path("none"), throttle=self.throttle)
        full_in, full_out = trio.open_memory_channel[Batch](2)
        with self.watch.deadline(""):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.watch.run)
                nursery.start_soon(self.connection.keep_alive)
                nursery.start_soon(take_in, self.connection, self.watch, arrival, storage, full_in)
                while self.bytes < size:
                    batch = await full_out.receive()
                    self.came.append((trio.current_time(), sum(map(len, batch.views))))
                    self.begun.set()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def taken(
    throttle: Throttle | None, size: int, terms: Terms | None = None
) -> AsyncIterator[tuple[Taken, Connection]]:
    """A receiver, and the connection of a sender that has already said all of a file of that size."""
    async with joined(patience=math.inf) as (near, far):
        await near.send(Page(items=(Item("file.bin", size=size),)), Offer())
        while not isinstance(await far.receive(), Offer):
            pass
        await far.send(Accept(), Want(ranges=((0, size),)))
        while not isinstance(await near.receive(), Want):
            pass
        for at in range(0, size, FRAME):
            await near.send_data(memoryview(bytes(min(FRAME, size - at))))
        await near.send()
        side = Side()
        watch = Watch(far, TRANSFER, "receiver", "alice", terms or Terms(), Hint(), side.report)
        yield Taken(far, throttle, watch, [], side), near


@pytest.mark.parametrize("rate", [KIB, 100 * KIB, MIB, 10 * MIB, 1000 * MIB])
async def test_R10_the_rate_is_kept(autojump_clock: trio.testing.MockClock, rate: int) -> None:
    size = 4 * MIB
    async with taken(Throttle(rate), size) as (bob, _):
        begun = trio.current_time()
        await bob.run(size)
    # What came last is paid for by whoever comes next: a record at least, a second's worth at most.
    last = max(min(rate, BATCH), 64 * KIB)
    spent = trio.current_time() - begun
    assert (size - last) / rate - BURST - 0.01 <= spent <= size / rate
    assert max(count for _, count in bob.came) <= min(BATCH, rate) + 64 * KIB
    for (at, count), (later, _) in itertools.pairwise(bob.came[1:]):
        assert later - at >= count / rate - BURST - 0.01


async def test_without_a_throttle_nothing_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with taken(None, 4 * MIB) as (bob, _):
        begun = trio.current_time()
        await bob.run(4 * MIB)
        assert trio.current_time() == begun


async def test_R10_the_transfers_of_one_person_share_their_throttle_and_take_turns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    throttle, size, rate = Throttle(MIB), 4 * MIB, MIB
    ends: list[float] = []
    async with taken(throttle, size) as (one, _), taken(throttle, size) as (two, _):
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for each in (one, two):

                async def run(each: Taken = each) -> None:
                    await each.run(size)
                    ends.append(trio.current_time())

                nursery.start_soon(run)
    first, last = (end - begun for end in ends)
    assert 2 * (size - BATCH) / rate - BURST - 0.1 <= last <= 2 * size / rate
    assert last - first <= 2.0, "one waited for all of the other"


async def test_R10_who_hangs_up_and_calls_again_owes_what_was_owed(autojump_clock: trio.testing.MockClock) -> None:
    throttle, rate = Throttle(100 * KIB), 100 * KIB
    begun = trio.current_time()
    for _ in range(5):
        async with taken(throttle, MIB) as (bob, near):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bob.run, MIB)
                await bob.begun.wait()
                nursery.cancel_scope.cancel()
            await near.aclose()
    spent = trio.current_time() - begun
    assert spent >= 4 * 100 * KIB / rate - BURST


async def test_whoever_is_cancelled_while_held_up_loses_nothing_and_holds_up_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    throttle, rate, size = Throttle(10 * KIB), 10 * KIB, MIB
    async with taken(throttle, size) as (one, _), taken(throttle, 64 * KIB) as (two, _):
        begun = trio.current_time()
        with trio.move_on_after(20) as cancelled:
            await one.run(size)
        assert cancelled.cancelled_caught
        assert trio.current_time() - begun == pytest.approx(20)
        assert 20 * rate <= one.bytes <= 20 * rate + 2 * 64 * KIB + rate * BURST
        # All that was taken has been handed on, and all that was handed on is owed: no more and no less.
        owed = throttle.take(0) - begun
        assert owed == pytest.approx(one.bytes / rate - BURST)
        await two.run(64 * KIB)
        assert two.came[0][0] - begun == pytest.approx(owed)


@pytest.mark.parametrize("terms", [Terms(idle=60, stalled=5), Terms(idle=1, stalled=0.25), Terms(idle=0, stalled=5)])
async def test_nothing_stalls_while_we_hold_the_sender_up(autojump_clock: trio.testing.MockClock, terms: Terms) -> None:
    """A record at this rate takes two minutes."""
    heard: list[float] = []
    async with taken(Throttle(500), 128 * KIB, terms) as (bob, near):
        alice = Side()
        watch = Watch(near, TRANSFER, "sender", "bob", terms, Hint(), alice.report)

        async def listen() -> None:
            with watch.deadline(""):
                async with trio.open_nursery() as watching:
                    watching.start_soon(watch.run)
                    while True:
                        message = await near.receive()
                        assert isinstance(message, Busy)
                        watch.peer_is_busy(message.seconds)
                        heard.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            begun = trio.current_time()
            nursery.start_soon(listen)
            await bob.run(128 * KIB)
            nursery.cancel_scope.cancel()
    spent = trio.current_time() - begun
    assert spent > 120
    assert alice.of(events.StalledEvent) == bob.side.of(events.StalledEvent) == []
    often = min(1.0, (terms.idle or math.inf) / 4)
    assert max(later - at for at, later in itertools.pairwise([begun, *heard, begun + spent])) <= 2 * often


async def test_a_throttled_transfer_with_short_deadlines_arrives(path: Path, limited: Limited) -> None:
    """Two whole ends, files and all, for longer than either would wait."""
    content = CONTENT[: 150 * KIB]
    path.write_bytes(content)
    limited.throttle = Throttle(50 * KIB)
    alice, bob, terms = Side(), Side(), Terms(idle=0.6, stalled=0.4)
    begun = trio.current_time()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path), terms)
        await receive(far, bob, limited, terms)
    assert trio.current_time() - begun >= (len(content) - 64 * KIB) / (50 * KIB) - BURST
    assert (alice.error, bob.error) == (None, None)
    assert alice.of(events.StalledEvent) == bob.of(events.StalledEvent) == []
    assert limited.into is not None
    assert files(limited.into) == {"file.bin": content}


async def test_what_came_before_a_throttled_transfer_was_stopped_is_kept(
    path: Path, limited: Limited, sent: list[int]
) -> None:
    content = random.Random(5).randbytes(512 * KIB)
    path.write_bytes(content)
    limited.throttle = Throttle(16 * KIB)
    alice, bob = Side(), Side()
    moving = trio.Event()
    bob.on_report = lambda event: moving.set() if isinstance(event, events.Progress) and event.bytes else None
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        with trio.CancelScope() as stopping:
            async with trio.open_nursery() as receiving_it:
                receiving_it.start_soon(lambda: receive(far, bob, limited))
                await moving.wait()
                await trio.testing.wait_all_tasks_blocked()  # it is held up, for seconds
                stopping.cancel()
        await far.close()
    alice.failed_with(Stopped)
    (kept,) = limited.kept()
    assert 0 < kept.bytes < len(content)
    limited.throttle = None
    sent.clear()
    alice, bob = await transferred(gather(path), limited)
    assert (alice.error, bob.error) == (None, None)
    assert sum(sent) == len(content) - kept.bytes
    assert limited.into is not None
    assert files(limited.into) == {"file.bin": content}
