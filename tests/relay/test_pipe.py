"""The bridge: bytes pass unchanged, a side that stops stops the other, and neither outlives the other for long."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from glide.relay.limits import Limits
from glide.relay.pipe import Pipe
from glide.relay.splicing import Budget
from tests.net.pairs import MemoryStream
from tests.relay.bridges import LIMITS, Bridge, read_all


def memory_bridge(nursery: trio.Nursery, limits: Limits = LIMITS) -> tuple[Bridge, MemoryStream, MemoryStream]:
    """The bridge, and the sender's and the receiver's stream."""
    bridge = Bridge(nursery, limits)
    (sender, one), (receiver, other) = memory_stream_pair(), memory_stream_pair()
    bridge.join(one, other)
    return bridge, sender, receiver


# --- bytes -----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 30_000), max_size=6),
    st.lists(st.integers(1, 30_000), max_size=6),
    st.integers(100, 50_000),
    st.integers(0, 2**32),
)
def test_bytes_pass_unchanged_both_ways(forth: list[int], back: list[int], chunk: int, seed: int) -> None:
    pieces = random.Random(seed)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            bridge, sender, receiver = memory_bridge(nursery, Limits(chunk=chunk))
            results: dict[str, bytes] = {}

            async def one_side(name: str, stream: MemoryStream, sizes: list[int]) -> None:
                said = bytearray()

                async def speak() -> None:
                    for size in sizes:
                        piece = pieces.randbytes(size)
                        said.extend(piece)
                        await stream.send_all(piece)
                    await stream.send_eof()

                async with trio.open_nursery() as both:
                    both.start_soon(speak)
                    results[name + " heard"] = await read_all(stream)
                results[name + " said"] = bytes(said)

            async with trio.open_nursery() as sides:
                sides.start_soon(one_side, "sender", sender, forth)
                sides.start_soon(one_side, "receiver", receiver, back)
            assert results["receiver heard"] == results["sender said"]
            assert results["sender heard"] == results["receiver said"]
        assert (bridge.pipe.forth.bytes, bridge.pipe.back.bytes) == (sum(forth), sum(back))
        assert sorted(bridge.ended) == ["receiver", "sender"]

    trio.run(run, clock=MockClock(autojump_threshold=0))


async def test_bytes_that_were_read_before_come_first(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        pipe = Pipe(LIMITS, Budget(LIMITS))
        (sender, one), (receiver, other) = memory_stream_pair(), memory_stream_pair()
        nursery.start_soon(pipe.sender.run, one, b"first, ")
        nursery.start_soon(pipe.receiver.run, other, b"also first, ")
        await sender.send_all(b"second")
        await receiver.send_all(b"also second")
        await sender.send_eof()
        await receiver.send_eof()
        assert await read_all(receiver) == b"first, second"
        assert await read_all(sender) == b"also first, also second"


# --- backpressure ----------------------------------------------------------------------------------------

# In user memory: the chunk being read, those waiting, the chunk being written.
MOST_HELD = (LIMITS.chunks_waiting + 2) * LIMITS.chunk


@pytest.mark.parametrize("direction", ["forth", "back"])
async def test_R3_a_side_that_stops_reading_stops_the_other(autojump_clock: MockClock, direction: str) -> None:
    taken = 0
    async with trio.open_nursery() as nursery:
        bridge = Bridge(nursery)
        (sender, one), (receiver, other) = lockstep_stream_pair(), lockstep_stream_pair()
        bridge.join(one, other)
        source, sink = (sender, receiver) if direction == "forth" else (receiver, sender)
        chunk = bytes(LIMITS.chunk)

        async def flood() -> None:
            nonlocal taken
            while True:
                await source.send_all(chunk)
                taken += len(chunk)

        nursery.start_soon(flood)
        await trio.sleep(600)
        assert 0 < taken <= MOST_HELD <= 1 << 20
        assert bridge.ended == []
        # And it goes on as soon as the other reads.
        before, read = taken, 0
        while read < 10 * LIMITS.chunk:
            read += len(await sink.receive_some())
        await wait_all_tasks_blocked()
        assert taken >= before + 9 * LIMITS.chunk
        assert taken - read <= MOST_HELD
        nursery.cancel_scope.cancel()


async def test_R3_the_other_direction_goes_on_meanwhile(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bridge = Bridge(nursery)
        (sender, one), (receiver, other) = lockstep_stream_pair(), lockstep_stream_pair()
        bridge.join(one, other)

        async def flood() -> None:
            while True:
                await sender.send_all(bytes(LIMITS.chunk))

        nursery.start_soon(flood)
        await wait_all_tasks_blocked()
        for number in range(20):
            nursery.start_soon(receiver.send_all, b"%02d" % number)
            assert await sender.receive_some() == b"%02d" % number
        nursery.cancel_scope.cancel()


# --- whom it waits for -----------------------------------------------------------------------------------


async def test_the_pipe_knows_whom_it_waits_for(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bridge = Bridge(nursery)
        (sender, one), (receiver, other) = lockstep_stream_pair(), lockstep_stream_pair()
        assert bridge.pipe.waits_for() == "nobody"
        bridge.join(one, other)
        await wait_all_tasks_blocked()
        assert bridge.pipe.waits_for() == "sender"
        await sender.send_all(b"hello")
        await wait_all_tasks_blocked()
        assert bridge.pipe.waits_for() == "receiver"
        assert await receiver.receive_some() == b"hello"
        await wait_all_tasks_blocked()
        assert bridge.pipe.waits_for() == "sender"
        nursery.cancel_scope.cancel()
    assert bridge.pipe.waits_for() == "nobody"


async def test_both_are_told_whom_a_standstill_waits_for(autojump_clock: MockClock) -> None:
    told: list[tuple[float, str, int]] = []
    async with trio.open_nursery() as nursery:
        bridge, sender, _ = memory_bridge(nursery)
        nursery.start_soon(bridge.pipe.watch, lambda side, seconds: told.append((trio.current_time(), side, seconds)))
        for _ in range(100):  # something moves all the time
            await sender.send_all(b"x")
            await trio.sleep(1)
        assert told == []
        moved = trio.current_time() - 1
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert {side for _, side, _ in told} == {"sender"}
    assert told[0][0] - moved <= 2 * LIMITS.hint_after
    for when, _, seconds in told:
        assert 0 < seconds <= round(when - moved)
    assert len(told) >= 4


async def test_a_pipe_in_which_nothing_moves_for_far_too_long_is_ended(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bridge, sender, receiver = memory_bridge(nursery, Limits(pipe_idle=600))
        nursery.start_soon(bridge.pipe.watch, lambda side, seconds: None)
        for _ in range(10):
            await trio.sleep(500)
            await sender.send_all(b"x")
        assert bridge.ended == []
        begun = trio.current_time()
        assert await read_all(sender) == b""
        assert 600 <= trio.current_time() - begun <= 600 + 2 * LIMITS.hint_after
        assert await read_all(receiver) == b"x" * 10
        nursery.cancel_scope.cancel()
    assert sorted(bridge.ended) == ["receiver", "sender"]


# --- the end of one side ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "gone"])
async def test_what_is_in_the_pipe_is_delivered_before_the_end(autojump_clock: MockClock, how: str) -> None:
    async with trio.open_nursery() as nursery:
        _, sender, receiver = memory_bridge(nursery)
        payload = random.Random(1).randbytes(3 * LIMITS.chunk)
        await sender.send_all(payload)
        if how == "end":
            await sender.send_eof()
        else:
            await trio.aclose_forcefully(sender)
        await trio.sleep(20)  # a slow reader loses nothing
        assert await read_all(receiver) == payload


async def test_after_one_side_has_ended_the_other_has_five_seconds(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bridge, sender, receiver = memory_bridge(nursery)
        await sender.send_eof()
        assert await receiver.receive_some() == b""
        begun = trio.current_time()
        await trio.sleep(4)
        await receiver.send_all(b"receipt")
        assert await read_all(sender) == b"receipt"
        assert trio.current_time() - begun == LIMITS.linger == 5
    assert sorted(bridge.ended) == ["receiver", "sender"]


async def test_two_sides_that_have_said_all_end_at_once(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bridge, sender, receiver = memory_bridge(nursery)
        await sender.send_eof()
        await receiver.send_eof()
    assert sorted(bridge.ended) == ["receiver", "sender"]
    assert trio.current_time() < 1


async def test_a_reader_that_takes_what_is_left_has_time_and_one_that_does_not_has_thirty_seconds(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        bridge = Bridge(nursery)
        (sender, one), (receiver, other) = lockstep_stream_pair(), lockstep_stream_pair()
        bridge.join(one, other)
        for _ in range(3):
            await sender.send_all(bytes(LIMITS.chunk))
        await trio.aclose_forcefully(sender)
        for _ in range(2):  # a chunk every 25 seconds is slow, but it moves
            await trio.sleep(25)
            got = 0
            while got < LIMITS.chunk:
                got += len(await receiver.receive_some())
        begun = trio.current_time()
        await bridge.pipe.over.wait()
        assert LIMITS.drain <= trio.current_time() - begun <= LIMITS.drain + LIMITS.linger + 1


async def test_a_side_that_is_reset_ends_the_other(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        bridge = Bridge(nursery)
        (sender, one), (receiver, other) = memory_stream_pair(), memory_stream_pair()

        async def reset() -> None:
            raise trio.BrokenResourceError

        one.receive_stream.receive_some_hook = reset
        bridge.join(one, other)
        assert await read_all(receiver) == b""
        assert await read_all(sender) == b""
    assert sorted(bridge.ended) == ["receiver", "sender"]
    assert trio.current_time() <= LIMITS.linger


async def test_a_side_that_never_came_ends_the_one_that_did(autojump_clock: MockClock) -> None:
    pipe = Pipe(LIMITS, Budget(LIMITS))
    client, stream = memory_stream_pair()
    pipe.leave(pipe.receiver)
    await client.send_all(b"anybody there?")
    with trio.fail_after(LIMITS.drain + LIMITS.linger):
        await pipe.sender.run(stream)
    assert await read_all(client) == b""


# --- cancellation ----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 100), st.sampled_from(["bridge", "sender", "receiver"]), st.booleans())
def test_cancelled_at_any_time_nothing_is_left_behind(steps: int, which: str, stuck: bool) -> None:
    async def run() -> None:
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as nursery:
                bridge = Bridge(nursery, Limits(chunk=100))
                (sender, one), (receiver, other) = lockstep_stream_pair(), lockstep_stream_pair()
                bridge.join(one, other)

                async def speak(stream: trio.abc.SendStream) -> None:
                    try:
                        while True:
                            await stream.send_all(bytes(150))
                            await trio.sleep(0.01)  # or the clock, which jumps when all wait, would stand still
                    except trio.BrokenResourceError:
                        pass

                clients.start_soon(speak, sender)
                clients.start_soon(speak, receiver)
                clients.start_soon(read_all, sender)
                if not stuck:
                    clients.start_soon(read_all, receiver)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                if which == "bridge":
                    nursery.cancel_scope.cancel()
                else:
                    (bridge.pipe.sender if which == "sender" else bridge.pipe.receiver).cancel()
            assert sorted(bridge.ended) == ["receiver", "sender"]
            assert trio.current_time() <= LIMITS.drain + 2 * LIMITS.linger
            assert bridge.pipe.waits_for() == "nobody"
            # The clients find their streams ended, and every channel of the pipe is closed.
            await wait_all_tasks_blocked()
            for lane in (bridge.pipe.forth, bridge.pipe.back):
                with pytest.raises(trio.ClosedResourceError):
                    lane.full_in.send_nowait(b"")
                with pytest.raises(trio.ClosedResourceError):
                    lane.full.receive_nowait()

    trio.run(run, clock=MockClock(autojump_threshold=0))
