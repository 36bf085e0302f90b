"""Kernel pipes: who gets them, what they cost, what becomes of what is in them."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import socket
import stat
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from glide.relay.limits import Limits
from glide.relay.splicing import CAN_SPLICE, Budget, KernelPipe
from tests.processes import world
from tests.relay.bridges import (
    LIMITS,
    Tap,
    Tcp,
    descriptors,
    in_pipes,
    over_tcp,
    read_all,
    reset,
    stands_still,
    tcp_pair,
    until,
)
from tests.relay.raw import exactly

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
PAYLOAD = random.Random(1).randbytes(8 * MIB)
TCP_CLOSE = 7  # <netinet/tcp.h>
PIPES = Limits(splice_after=0)
# Enough for whoever sends; the direction in which nothing comes asks for none.
ONE_DIRECTION = Limits(splice_after=1, pipe_budget=LIMITS.pipes * LIMITS.pipe_size)

pytestmark = pytest.mark.skipif(not CAN_SPLICE, reason="Linux alone has splice(2)")


class Splices:
    """Stands before os.splice and counts: what was moved into pipes and out of them, and what found nothing to do."""

    def __init__(self) -> None:
        self._real = os.splice
        self.filled: list[int] = []
        self.drained: list[int] = []
        self.dry = 0
        self.moved = 0

    def __call__(self, source: int, sink: int, count: int, *, flags: int) -> int:
        try:
            moved = self._real(source, sink, count, flags=flags)
        except BlockingIOError:
            self.dry += 1
            raise
        self.moved += moved
        (self.filled if stat.S_ISFIFO(os.fstat(sink).st_mode) else self.drained).append(moved)
        return moved


@pytest.fixture
def splices(monkeypatch: pytest.MonkeyPatch) -> Splices:
    counting = Splices()
    monkeypatch.setattr(os, "splice", counting)
    return counting


@pytest.fixture
def pipe() -> Iterator[KernelPipe]:
    made = KernelPipe(MIB)
    yield made
    made.close()


def unread(stream: trio.SocketStream) -> int:
    """Bytes that have arrived at a socket and wait there."""
    return int.from_bytes(fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def is_broken(stream: trio.SocketStream) -> bool:
    """True if the other end was reset, and that has arrived."""
    return stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


async def drain(pipe: KernelPipe, stream: trio.SocketStream) -> int:
    """Drain all of it; how much that was."""
    given = 0
    while pipe:
        given += await pipe.drain_some(stream)
    return given


async def loaded(tcp: Tcp, payload: bytes) -> None:
    """Have all of it at the relay's socket, and the end of the stream too, before the bridge begins."""
    await tcp.sender.send_all(payload)
    await until(lambda: unread(tcp.senders) == len(payload))
    await tcp.sender.send_eof()


# --- one pipe --------------------------------------------------------------------------------------------


async def test_a_pipe_takes_what_is_there_and_gives_it_on(pipe: KernelPipe) -> None:
    (sender, one), (other, receiver) = tcp_pair(), tcp_pair()
    async with sender, one, other, receiver:
        for said in (b"hello", PAYLOAD[:50_000]):
            assert not pipe
            await sender.send_all(said)
            taken = given = 0
            while taken < len(said):
                await pipe.fill(one)
                taken += len(pipe)
                given += await drain(pipe, other)
            assert given == taken == len(said)
            assert await exactly(receiver, len(said)) == said
        await sender.send_eof()
        await pipe.fill(one)
        assert not pipe


async def test_a_cancelled_fill_has_taken_nothing(pipe: KernelPipe) -> None:
    sender, one = tcp_pair()
    async with sender, one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.fill, one)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await sender.send_all(b"hello")
        assert not pipe
        assert await exactly(one, 5) == b"hello"


async def test_the_number_of_a_closed_socket_is_not_used_again(pipe: KernelPipe) -> None:
    # Whoever is accepted next has that number: what they say is not for this transfer, nor the other way round.
    (sender, one), (stranger, theirs) = tcp_pair(), tcp_pair()
    async with sender, stranger, theirs:
        await sender.send_all(b"mine")
        await pipe.fill(one)
        number = one.socket.fileno()
        await one.aclose()
        os.dup2(theirs.socket.fileno(), number)
        try:
            await stranger.send_all(b"theirs")
            await until(lambda: unread(theirs) == 6)
            with pytest.raises(trio.ClosedResourceError):
                await pipe.drain_some(one)
            second = KernelPipe(MIB)
            with pytest.raises(trio.ClosedResourceError):
                await second.fill(one)
            second.close()
            assert await exactly(theirs, 6) == b"theirs"
            assert unread(stranger) == 0
        finally:
            os.close(number)


async def test_a_socket_that_is_closed_meanwhile_ends_the_wait(pipe: KernelPipe) -> None:
    (sender, one), (other, receiver) = tcp_pair(), tcp_pair(4096)
    async with sender, one, other, receiver, trio.open_nursery() as nursery:

        async def fills() -> None:
            second = KernelPipe(MIB)
            with pytest.raises(trio.ClosedResourceError):
                await second.fill(other)
            second.close()

        async def drains() -> None:  # far more than goes into the buffers of a receiver that does not read
            with pytest.raises(trio.ClosedResourceError):
                await drain(pipe, other)

        await sender.send_all(PAYLOAD[:50_000])
        await until(lambda: unread(one) == 50_000)
        await pipe.fill(one)
        nursery.start_soon(fills)
        nursery.start_soon(drains)
        await wait_all_tasks_blocked()
        await other.aclose()
    assert 0 < len(pipe) <= 50_000


async def test_a_socket_that_is_broken_is_told_like_that_of_any_stream(pipe: KernelPipe) -> None:
    (sender, one), (other, receiver) = tcp_pair(), tcp_pair()
    async with sender, one, other, receiver:
        await sender.send_all(b"hello")
        await pipe.fill(one)
        reset(receiver)
        await until(lambda: is_broken(other))
        with pytest.raises(trio.BrokenResourceError):
            await pipe.drain_some(other)
        second = KernelPipe(MIB)
        try:
            reset(sender)
            await until(lambda: is_broken(one))
            with pytest.raises(trio.BrokenResourceError):
                await second.fill(one)
        finally:
            second.close()


async def test_urgent_data_is_no_busy_loop(splices: Splices) -> None:
    # splice(2) stops before an urgent byte and says that it would have to wait, for what has arrived already.
    async with over_tcp(PIPES) as tcp:
        await tcp.sender.send_all(b"be")
        assert await exactly(tcp.receiver, 2) == b"be"
        assert await tcp.sender.socket.send(b"fore!", socket.MSG_OOB) == 5
        await tcp.sender.send_all(b"behind")
        assert await exactly(tcp.receiver, 10) == b"forebehind"  # as recv(2) has it: the urgent byte is not in line
        await wait_all_tasks_blocked()
        assert splices.dry <= len(splices.filled) + len(splices.drained) + 4
        await tcp.sender.send_all(b"; and on")
        assert await exactly(tcp.receiver, 8) == b"; and on"


# --- what it costs ---------------------------------------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Counts the steps of the bridge's tasks, and how much was moved within one of them."""

    def __init__(self, splices: Splices) -> None:
        self._splices = splices
        self._before = 0
        self.of: Counter[str] = Counter()
        self.most = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = self._splices.moved

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name.rpartition(".")[2]] += 1
        self.most = max(self.most, self._splices.moved - self._before)


async def test_what_is_there_already_is_moved_at_once(splices: Splices) -> None:
    payload = PAYLOAD[:50_000]
    async with over_tcp(PIPES, buffers=256 * 1024, joined=False) as tcp:
        await loaded(tcp, payload)
        tcp.join()
        assert await exactly(tcp.receiver, len(payload)) == payload
        await wait_all_tasks_blocked()
        assert sum(splices.filled) == sum(splices.drained) == len(payload)
        assert len(splices.filled) <= 4  # and the end, of which one is told once


async def test_each_call_moves_something_or_is_followed_by_a_wait_and_each_step_moves_a_pipe_at_most(
    splices: Splices, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(PIPES, pipe_size=64 * 1024)  # less than a socket may have
    async with over_tcp(limits, buffers=256 * 1024, joined=False) as tcp:
        for stream in (tcp.senders, tcp.receivers):
            for name in ("receive_some", "send_all"):  # no byte of a file comes into this process
                monkeypatch.setattr(stream, name, None)
        steps = Steps(splices)
        trio.lowlevel.add_instrument(steps)
        try:
            async with trio.open_nursery() as nursery:
                tcp.join()
                nursery.start_soon(Tap(tcp.sender, PAYLOAD).run)
                assert await exactly(tcp.receiver, len(PAYLOAD)) == PAYLOAD
                await wait_all_tasks_blocked()
        finally:
            trio.lowlevel.remove_instrument(steps)
    moves = len(splices.filled) + len(splices.drained)
    assert sum(splices.filled) == sum(splices.drained) == len(PAYLOAD)
    assert splices.dry <= moves + 4
    # Filling a pipe is getting it, perhaps waiting for the socket, and handing it over; draining is the same again.
    assert steps.of["_fill"] <= 3 * len(splices.filled) + 10
    assert steps.of["_drain"] <= len(splices.filled) + len(splices.drained) + 10
    assert 0 < steps.most <= limits.pipe_size


# --- slow readers ----------------------------------------------------------------------------------------


async def sips(tcp: Tcp) -> bytes:
    """Read until the relay could deliver something more."""
    before, got = tcp.forth.delivered, bytearray()
    while tcp.forth.delivered == before:
        await until(lambda: tcp.forth.delivered != before or unread(tcp.receiver) > 0)
        if unread(tcp.receiver):
            got += await tcp.receiver.receive_some(1000)
    return bytes(got)


async def test_a_reader_that_takes_little_of_the_last_pipe_has_time_and_one_that_takes_nothing_has_thirty_seconds(
    mock_clock: MockClock,
) -> None:
    payload = PAYLOAD[:50_000]
    async with over_tcp(PIPES, buffers=256 * 1024, receivers_buffers=2048, joined=False) as tcp:
        await loaded(tcp, payload)
        tcp.join()
        await until(lambda: tcp.forth.bytes == len(payload))
        await wait_all_tasks_blocked()
        got = b""
        for _ in range(3):
            mock_clock.jump(LIMITS.drain - 5)
            got += await sips(tcp)
        assert tcp.forth.delivered < len(payload)
        assert got == payload[: len(got)]
        mock_clock.jump(LIMITS.drain + 1)
        await until(lambda: not tcp.forth.draining)
        mock_clock.jump(LIMITS.linger + 1)
        await tcp.bridge.pipe.over.wait()
        got += await read_all(tcp.receiver)
        assert len(got) < len(payload)
        assert got == payload[: len(got)]


async def test_a_reader_that_takes_little_of_a_pipe_is_not_said_to_be_waited_for(mock_clock: MockClock) -> None:
    told: list[str] = []
    payload = PAYLOAD[:50_000]
    async with over_tcp(PIPES, buffers=256 * 1024, receivers_buffers=2048, joined=False) as tcp:
        tcp.bridge.nursery.start_soon(tcp.bridge.pipe.watch, lambda side, seconds: told.append(side))
        await loaded(tcp, payload)
        tcp.join()
        await until(lambda: tcp.forth.delivered > 0)
        for _ in range(4):
            mock_clock.jump(LIMITS.hint_after)
            await wait_all_tasks_blocked()
            await sips(tcp)
        assert told == []
        while not told:
            mock_clock.jump(LIMITS.hint_after)
            await wait_all_tasks_blocked(0.05)
        assert told == ["receiver"]


# --- who gets them ---------------------------------------------------------------------------------------


async def says(tcp: Tcp, said: bytes) -> bool:
    """Send and receive; True if that direction has pipes now."""
    await tcp.sender.send_all(said)
    assert await exactly(tcp.receiver, len(said)) == said
    await wait_all_tasks_blocked()
    return bool(tcp.forth.pipes)


async def test_whoever_comes_when_all_pipes_are_in_use_has_blocks_and_pipes_that_are_over_are_for_the_next() -> None:
    budget = Budget(ONE_DIRECTION)
    async with over_tcp(ONE_DIRECTION, budget=budget) as second:
        async with over_tcp(ONE_DIRECTION, budget=budget) as first:
            assert await says(first, b"first")
            assert not await says(second, b"second")
            assert await says(first, PAYLOAD[:100_000])
            assert not await says(second, PAYLOAD[:100_000])
            for stream in (first.sender, first.receiver):
                await stream.send_eof()
            await first.bridge.pipe.over.wait()
        async with over_tcp(ONE_DIRECTION, budget=budget) as third:
            assert await says(third, b"third")
            assert not await says(second, b"still")


async def test_a_direction_through_which_nothing_comes_leaves_its_pipes_to_others_until_something_does(
    mock_clock: MockClock,
) -> None:
    budget = Budget(ONE_DIRECTION)
    async with over_tcp(ONE_DIRECTION, budget=budget) as first, over_tcp(ONE_DIRECTION, budget=budget) as second:
        for one, other in ((first, second), (second, first)) * 2:
            assert await says(one, b"wakes it")
            assert other.forth.pipes is None
            await one.sender.send_all(b"through a pipe")
            while unread(one.senders) != 14:
                await wait_all_tasks_blocked(0.001)
            mock_clock.jump(1.0)  # the moment for which much is waited for
            assert await exactly(one.receiver, 14) == b"through a pipe"
            for _ in range(2):  # and again, and then the time after which it rests
                assert one.forth.pipes
                mock_clock.jump(ONE_DIRECTION.pipe_rest)
                await wait_all_tasks_blocked(0.01)
            assert one.forth.pipes is None
            assert repr(budget) == repr(Budget(ONE_DIRECTION))


@pytest.mark.parametrize("count", [100_000, 200_000])  # here: in one pipe, while the other one waits, and in both
async def test_pipes_with_something_in_them_stay_where_they_are_until_it_was_taken(
    mock_clock: MockClock, count: int
) -> None:
    async with over_tcp(ONE_DIRECTION) as tcp:
        tcp.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        tcp.receivers.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert await says(tcp, b"wakes it")
        await tcp.sender.send_all(PAYLOAD[:count])
        await until(lambda: tcp.forth.bytes + unread(tcp.senders) == count + 8)
        for _ in range(4):  # two moments for which much is waited for, and the time after which it would rest, twice
            mock_clock.jump(ONE_DIRECTION.pipe_rest)
            await wait_all_tasks_blocked(0.01)
        assert any(tcp.forth.pipes or ())
        assert await exactly(tcp.receiver, count) == PAYLOAD[:count]
        await until(lambda: not any(tcp.forth.pipes or ()))
        for _ in range(4):
            mock_clock.jump(ONE_DIRECTION.pipe_rest)
            await wait_all_tasks_blocked(0.01)
        assert tcp.forth.pipes is None
        assert await says(tcp, b"and goes on")


@pytest.mark.parametrize("way", ["cancelled", "reset"])
async def test_no_byte_of_a_transfer_that_was_cut_is_in_the_pipes_of_the_next(way: str) -> None:
    before, budget = descriptors(), Budget(ONE_DIRECTION)
    async with over_tcp(ONE_DIRECTION, budget=budget) as first:
        tap = Tap(first.sender, b"secret" * MIB)
        first.bridge.nursery.start_soon(tap.run)
        await stands_still(first.forth)
        assert all(first.forth.pipes or [0])  # both are full of secrets
        if way == "reset":
            reset(first.receiver)
            await until(lambda: not first.forth.draining)
        first.bridge.nursery.cancel_scope.cancel()
    assert not descriptors() - before
    async with over_tcp(ONE_DIRECTION, budget=budget) as second:
        assert await says(second, bytes(1000))
        assert await says(second, bytes(300_000))
    assert not descriptors() - before


def test_pipes_of_which_the_system_gives_too_few_are_given_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "glide.relay")
    budget, before = Budget(PIPES), descriptors()
    whole = repr(budget)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0) for _ in range(100)]
    try:
        # Nothing is free below the last three: room for one pipe, and half of another.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
        for _ in range(3):
            os.close(taken.pop())
        assert budget.take() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)
    assert "blocks of bytes" in caplog.messages[-1]
    assert "Too many open files" in caplog.messages[-1]
    assert repr(budget) == whole
    assert not descriptors() - before


def test_a_pipe_whose_size_the_system_refuses_is_closed() -> None:
    before = descriptors()
    with pytest.raises(OSError, match="Invalid argument"):
        KernelPipe(-1)
    assert not descriptors() - before


def test_pipes_are_counted_as_the_kernel_counts_them() -> None:
    # Of the size that every pipe has at first: what this user's other processes have in pipes could leave too little
    # for many larger ones.
    limits = replace(LIMITS, pipe_size=LIMITS.pipe_size // 16, pipe_budget=LIMITS.pipe_budget // 16)
    before, budget = in_pipes(), Budget(limits)
    taken = []
    while pipes := budget.take():
        taken += pipes
    assert len(taken) == limits.pipe_budget // limits.pipe_size
    assert in_pipes() - before == limits.pipe_budget
    budget.give_back(taken)
    assert in_pipes() == before


def test_past_what_a_plain_user_may_have_in_pipes_a_transfer_has_blocks() -> None:
    program = subprocess.run(
        [sys.executable, "-m", "tests.relay.beyond"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert program.returncode == 0, program.stderr
    said = json.loads(program.stdout)
    if "skip" in said:
        pytest.skip(said["skip"])
    assert said["user"] != 0
    assert said["before"] == said["after"] == {"arrived": True, "pipes": LIMITS.pipes}
    assert said["beyond"] == {"arrived": True, "pipes": 0}
    assert any("blocks of bytes" in line and "Operation not permitted" in line for line in said["log"])


LACKING = {
    "it is not there": """
for name in [name for name in dir(os) if "splice" in name.lower()]:
    delattr(os, name)
sys.modules["fcntl"] = None
""",
    "a sandbox refuses it": """
def splice(*_, **__):
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
os.splice = splice
""",
}
WITHOUT = """
from glide.relay.limits import Limits
from glide.relay.pipe import Pipe
from glide.relay.splicing import Budget
payload = os.urandom(2 << 20)

async def main():
    limits = Limits(splice_after=0)
    pipe = Pipe(limits, Budget(limits))
    (sender, one), (receiver, other) = [map(trio.SocketStream, trio.socket.socketpair()) for _ in "ab"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.sender.run, one)
        nursery.start_soon(pipe.receiver.run, other)
        nursery.start_soon(sender.send_all, payload)
        got = b""
        while len(got) < len(payload):
            got += await receiver.receive_some()
        assert got == payload
        assert pipe.forth.pipes == []
        nursery.cancel_scope.cancel()

trio.run(main)
"""


@pytest.mark.parametrize("lacking", LACKING)
def test_where_there_is_no_splice_a_transfer_has_blocks(lacking: str) -> None:
    script = f"import errno, os, sys, trio\n{LACKING[lacking]}\n{WITHOUT}"
    program = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert program.returncode == 0, program.stderr


def test_a_relay_with_verbose_says_which_kind_a_transfer_has(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        relay = w.serve("--verbose")
        receiver = w.receive("bob", "--accept", "all", "--once")
        assert w.push("alice", "bob", w.file("f", 2 * MIB)).wait() == 0
        assert receiver.wait() == 0
        relay.says("kernel pipes")
