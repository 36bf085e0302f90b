"""The bridge over TCP, whichever kind of chunk it moves: blocks of bytes, kernel pipes, or one after the other."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from glide.relay.limits import Limits
from glide.relay.splicing import CAN_SPLICE
from tests.relay.bridges import Tap, Tcp, descriptors, in_pipes, over_tcp, read_all, reset, stands_still
from tests.relay.raw import exactly, rest_of

# What the buffers of four sockets hold, and four pipes, is a fraction of it.
PAYLOAD = random.Random(1).randbytes(8 << 20)

BLOCKS = Limits(pipe_budget=0)
PIPES = Limits(splice_after=0)
BOTH = Limits(splice_after=10_000)

LINUX = pytest.mark.skipif(not CAN_SPLICE, reason="Linux alone has splice(2)")
every_kind = pytest.mark.parametrize(
    "limits",
    [
        pytest.param(BLOCKS, id="blocks"),
        pytest.param(PIPES, id="pipes", marks=LINUX),
        pytest.param(BOTH, id="both", marks=LINUX),
    ],
)


# --- bytes -----------------------------------------------------------------------------------------------


@every_kind
@settings(max_examples=12)
@given(
    st.lists(st.integers(1, 300_000), max_size=4),
    st.lists(st.integers(1, 300_000), max_size=4),
    st.integers(0, 2**32),
)
def test_bytes_pass_unchanged_both_ways(limits: Limits, forth: list[int], back: list[int], seed: int) -> None:
    pieces = random.Random(seed)
    said = [[pieces.randbytes(size) for size in sizes] for sizes in (forth, back)]
    expected = [b"".join(each) for each in said]

    async def run() -> None:
        async with over_tcp(limits) as tcp:

            async def speak(stream: trio.SocketStream, pieces: list[bytes]) -> None:
                for piece in pieces:
                    await stream.send_all(piece)

            async def hear(stream: trio.SocketStream, whole: bytes) -> None:
                assert await exactly(stream, len(whole)) == whole

            async with trio.open_nursery() as sides:
                sides.start_soon(speak, tcp.sender, said[0])
                sides.start_soon(speak, tcp.receiver, said[1])
                sides.start_soon(hear, tcp.receiver, expected[0])
                sides.start_soon(hear, tcp.sender, expected[1])
            await wait_all_tasks_blocked()  # both directions look for more: they know by now how they would move it
            for lane, whole in ((tcp.forth, expected[0]), (tcp.back, expected[1])):
                assert lane.bytes == lane.delivered == len(whole)
                assert bool(lane.pipes) == (limits is not BLOCKS and len(whole) >= limits.splice_after)
            await tcp.sender.send_eof()
            await tcp.receiver.send_eof()
            assert await read_all(tcp.receiver) == await read_all(tcp.sender) == b""
            await tcp.bridge.pipe.over.wait()

    trio.run(run)


# --- backpressure ----------------------------------------------------------------------------------------


async def poured(tcp: Tcp, nursery: trio.Nursery, *, forth: bool = True) -> Tap:
    """Send to a side that does not read, until nothing moves any more: the filling task is blocked on its channel."""
    tap = Tap(tcp.sender if forth else tcp.receiver, PAYLOAD)
    nursery.start_soon(tap.run)
    await stands_still(tcp.forth if forth else tcp.back)
    return tap


@every_kind
@pytest.mark.parametrize("forth", [True, False], ids=["forth", "back"])
async def test_R3_a_side_that_stops_reading_stops_the_other(limits: Limits, forth: bool) -> None:
    before = in_pipes()
    async with over_tcp(limits, buffers=256 * 1024) as tcp, trio.open_nursery() as nursery:
        tap = await poured(tcp, nursery, forth=forth)
        lane, sink = (tcp.forth, tcp.receiver) if forth else (tcp.back, tcp.sender)
        waiting = lane.full_in.statistics().tasks_waiting_send, lane.empty.statistics().tasks_waiting_receive
        assert lane.draining
        assert not lane.filling
        # What relay/limits.py says that a direction holds: blocks in this process, and its kernel pipes.
        most = (limits.chunks_waiting + 2) * limits.chunk
        assert most <= 1 << 20
        if limits is BLOCKS:
            assert waiting == (1, 0)
            assert in_pipes() <= before
        else:
            assert lane.pipes
            most += sum(pipe.size for pipe in lane.pipes)
            assert most <= 3 << 20
            assert in_pipes() - before <= 4 << 20  # both directions
            if limits is PIPES:
                assert waiting == (0, 1)
        assert lane.bytes - lane.delivered <= most
        # All the rest is still at the other side; once this one reads, all of it comes.
        assert tap.sent < len(PAYLOAD)
        assert await exactly(sink, len(PAYLOAD)) == PAYLOAD


@every_kind
async def test_R3_the_other_direction_goes_on_meanwhile(limits: Limits) -> None:
    async with over_tcp(limits) as tcp, trio.open_nursery() as nursery:
        tap = await poured(tcp, nursery)
        for number in range(20):
            await tcp.receiver.send_all(b"%02d" % number)
            assert await exactly(tcp.sender, 2) == b"%02d" % number
        await tap.turn_off()


# --- the end of one side ---------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("how", ["end", "gone"])
async def test_what_is_on_its_way_is_delivered_before_the_end(limits: Limits, how: str, mock_clock: MockClock) -> None:
    async with over_tcp(limits) as tcp, trio.open_nursery() as nursery:
        sent = await (await poured(tcp, nursery)).turn_off()
        if how == "end":
            await tcp.sender.send_eof()
        else:
            await trio.aclose_forcefully(tcp.sender)
        mock_clock.jump(20)  # a slow reader loses nothing
        assert await read_all(tcp.receiver) == sent


@every_kind
async def test_a_receipt_comes_back_after_the_end_but_not_for_ever(limits: Limits, mock_clock: MockClock) -> None:
    async with over_tcp(limits) as tcp:
        await tcp.sender.send_all(b"all")
        await tcp.sender.send_eof()
        assert await read_all(tcp.receiver) == b"all"
        mock_clock.jump(limits.linger - 1)
        await tcp.receiver.send_all(b"receipt")
        assert await exactly(tcp.sender, 7) == b"receipt"
        await wait_all_tasks_blocked()
        assert tcp.bridge.ended == []
        mock_clock.jump(2)
        await tcp.bridge.pipe.over.wait()
        assert await read_all(tcp.sender) == b""


@every_kind
async def test_a_sender_that_is_reset_ends_the_receiver(limits: Limits) -> None:
    async with over_tcp(replace(limits, linger=0.1)) as tcp:
        await tcp.sender.send_all(b"some")
        assert await exactly(tcp.receiver, 4) == b"some"
        reset(tcp.sender)
        assert await read_all(tcp.receiver) == b""
        await tcp.bridge.pipe.over.wait()


@every_kind
async def test_a_receiver_that_is_reset_ends_the_sender(limits: Limits) -> None:
    # In the middle: chunks are on their way, and one task waits for room in the socket, the other in the channel.
    async with over_tcp(replace(limits, linger=0.1)) as tcp, trio.open_nursery() as nursery:
        tap = await poured(tcp, nursery)
        await tap.turn_off()
        reset(tcp.receiver)
        assert await rest_of(tcp.sender) == b""
        await tcp.bridge.pipe.over.wait()
        assert tcp.bridge.pipe.waits_for() == "nobody"


@every_kind
async def test_what_is_sent_to_a_side_that_is_gone_is_dropped_and_what_that_side_has_said_is_delivered(
    limits: Limits, mock_clock: MockClock
) -> None:
    # A relay that closed with the sender's bytes unread would reset what is on its way to the sender.
    async with over_tcp(limits) as tcp, trio.open_nursery() as nursery:
        back = await poured(tcp, nursery, forth=False)
        await back.turn_off()
        forth = await poured(tcp, nursery)
        taken = tcp.back.bytes
        assert taken > tcp.back.delivered
        reset(tcp.receiver)
        await forth.off.wait()
        assert forth.sent == len(PAYLOAD)  # all of which nobody got
        await tcp.sender.send_eof()
        got = await read_all(tcp.sender)
        assert len(got) >= taken
        assert got == PAYLOAD[: len(got)]
        await tcp.bridge.pipe.over.wait()


# --- what is left ----------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("way", ["bridge", "ends", "sender", "receiver"])
async def test_cancelled_with_chunks_on_their_way_nothing_stays_open(limits: Limits, way: str) -> None:
    before = descriptors()
    async with over_tcp(replace(limits, linger=0.1, drain=0.1)) as tcp, trio.open_nursery() as nursery:
        tap = await poured(tcp, nursery)
        await tap.turn_off()
        assert tcp.forth.bytes > tcp.forth.delivered
        ends = {"ends": "sender receiver", "bridge": ""}.get(way, way)
        for end in ends.split():
            getattr(tcp.bridge.pipe, end).cancel()
        if way == "bridge":
            tcp.bridge.nursery.cancel_scope.cancel()
        else:
            await tcp.bridge.pipe.over.wait()
    assert sorted(tcp.bridge.ended) == ["receiver", "sender"]
    assert not descriptors() - before


@pytest.mark.parametrize("limits", [BLOCKS, pytest.param(PIPES, marks=LINUX)], ids=["blocks", "pipes"])
@settings(max_examples=40)
@given(steps=st.integers(0, 60), reads=st.booleans())
def test_cancelled_at_any_step_nothing_stays_open(limits: Limits, steps: int, reads: bool) -> None:
    async def run() -> None:
        before = descriptors()
        async with over_tcp(limits) as tcp, trio.open_nursery() as nursery:
            for stream in (tcp.sender, tcp.receiver):
                nursery.start_soon(Tap(stream, PAYLOAD).run)
                if reads:
                    nursery.start_soon(read_all, stream)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert sorted(tcp.bridge.ended) == ["receiver", "sender"]
        assert not descriptors() - before

    trio.run(run)


# --- the log ---------------------------------------------------------------------------------------------


@every_kind
async def test_the_log_says_which_kind_it_is(limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "glide.relay")
    async with over_tcp(replace(limits, splice_after=1)) as tcp:
        await tcp.sender.send_all(b"some")
        assert await exactly(tcp.receiver, 4) == b"some"
        await wait_all_tasks_blocked()
    [line] = [record.getMessage() for record in caplog.records if "goes through" in record.getMessage()]
    assert ("blocks of bytes" if limits is BLOCKS else "kernel pipes") in line
