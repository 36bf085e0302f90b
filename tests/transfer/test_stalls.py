"""What a transfer that does not move is said to wait for, and what ends it: silence, slow disks, and people."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from glide import events
from glide.errors import ConnectionLost, Declined, Stalled
from glide.net.connection import FRAME
from glide.net.deadlines import Deadlines
from glide.protocol.endtoend import Abort, Accept, Busy, Done, Item
from glide.protocol.messages import Keepalive
from glide.protocol.states import State
from glide.transfer import assembling, landing, sources
from glide.transfer.landing import Landing
from glide.transfer.terms import Hint, Terms, Watch
from tests.transfer.halves import (
    BRISK,
    CONTENT,
    SMALL,
    TRANSFER,
    Place,
    Side,
    all_of,
    answer_of,
    ended,
    files,
    gather,
    joined,
    offered,
    open_files,
    receive,
    send,
    socket_pair,
    take_offer,
    transferred,
    while_reading,
)

# Many times what anything else takes on a busy machine.
IMPATIENT, ENDLESS = Terms(idle=0.8), Terms(idle=0)
HOUR = 3600.0


# --- what is waited for, as far as it can be known -------------------------------------------------------------

# Who watches; what is known; who is waited for then, and the words. `heard`, `relay` and `busy` are seconds ago.
CAUSES: list[tuple[str, Mapping[str, object], str, str]] = [
    ("sender", {"disk": "your disk sleeps"}, "sender", "waiting for you: your disk sleeps"),
    ("receiver", {"disk": "the disk sleeps", "busy": 1.0}, "receiver", "waiting for you: the disk sleeps"),
    ("sender", {"busy": 1.0}, "receiver", "waiting for bob's disk"),
    ("sender", {"busy": 1.0, "sent_all": True, "side": "receiver"}, "receiver", "waiting for bob's disk"),
    ("receiver", {"busy": 59.0}, "sender", "waiting for bob's disk"),
    ("receiver", {"busy": 61.0}, "sender", "waiting for bob, who is there"),
    ("sender", {"sent_all": True}, "receiver", "waiting for bob to confirm it"),
    ("sender", {"sent_all": True, "side": "sender"}, "receiver", "waiting for bob to confirm it"),
    ("sender", {"side": "receiver"}, "network", "waiting for the network to bob"),
    (
        "sender",
        {"side": "receiver", "heard": 61.0},
        "receiver",
        "waiting for bob, who is silent, or the network to bob",
    ),
    ("sender", {"side": "sender"}, "network", "waiting for the network between you and the relay"),
    ("receiver", {"side": "receiver"}, "network", "waiting for the network between you and the relay"),
    ("receiver", {"side": "sender"}, "network", "waiting for the network to bob"),
    ("receiver", {"side": "sender", "heard": 61.0}, "sender", "waiting for bob, who is silent, or the network to bob"),
    ("sender", {"relay": 61.0}, "relay", "waiting for the relay, which is silent, or the network to it"),
    ("sender", {}, "receiver", "waiting for bob, who is there"),
    ("sender", {"heard": 61.0}, "receiver", "waiting for bob, who is silent"),
    ("receiver", {}, "sender", "waiting for bob, who is there"),
    ("receiver", {"heard": 61.0}, "sender", "waiting for bob, who is silent"),
    ("sender", {"sent_all": True, "side": "sender", "heard": 61.0}, "receiver", "waiting for bob, who is silent"),
]


@pytest.mark.parametrize(("me", "known", "who", "text"), CAUSES)
async def test_what_is_waited_for_is_named(
    mock_clock: trio.testing.MockClock, me: str, known: Mapping[str, object], who: str, text: str
) -> None:
    side = Side()
    async with watched(side, me, known) as watch:
        cause = watch.cause()
        assert (cause.who, cause.text) == (who, text)

        with pytest.raises(Stalled) as stalled, watch.deadline("What arrived is kept."):  # noqa: PT012  # the deadline is its end
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(7)
                await trio.testing.wait_all_tasks_blocked()
                assert side.reports == [events.StalledEvent(TRANSFER, watch.cause().who, 7, watch.cause().text)]
                mock_clock.jump(100)
    arrow = {"sender": "to", "receiver": "from"}[me]
    assert str(stalled.value).startswith(f"The transfer {arrow} bob stalled for 1m: {watch.cause().text}.")
    assert "What arrived is kept." in str(stalled.value)
    assert stalled.value.for_peer == "nothing had moved for 1m."
    at_hand = watch.cause().who == "relay" or "you and the relay" in watch.cause().text
    assert stalled.value.worth_a_retry is at_hand


@asynccontextmanager
async def watched(side: Side, me: str, known: Mapping[str, object]) -> AsyncIterator[Watch]:
    """A watch that knows just this, over a connection on which nothing is said."""
    ago: dict[str, float] = {"heard": 0.0, "relay": 0.0, "busy": HOUR}
    ago |= {key: value for key, value in known.items() if isinstance(value, float)}
    async with joined(patience=math.inf) as ends:
        connection, now = ends[0], trio.current_time()
        hint = Hint(str(known.get("side", "")), lambda: now - ago["relay"])
        watch = Watch(connection, TRANSFER, me, "bob", Terms(), hint, side.report)
        watch.disk = str(known.get("disk", ""))
        watch.sent_all = bool(known.get("sent_all"))
        watch._busy = now - ago["busy"]
        connection.last_heard = now - ago["heard"]
        yield watch


async def test_nothing_is_said_as_long_as_something_moves(mock_clock: trio.testing.MockClock) -> None:
    side = Side()
    async with watched(side, "sender", {}) as watch:
        with watch.deadline(""):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                for _ in range(50):
                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(4)
                    watch.moved()
                nursery.cancel_scope.cancel()
    assert side.reports == []


async def test_a_peer_that_gets_on_is_waited_for_and_one_whose_disk_sleeps_is_not(
    mock_clock: trio.testing.MockClock,
) -> None:
    for seconds in (0, 3):
        async with watched(Side(), "sender", {}) as watch:
            waited = trio.current_time()
            try:
                with watch.deadline(""):
                    for _ in range(20):
                        await trio.testing.wait_all_tasks_blocked()
                        mock_clock.jump(30)
                        watch.peer_is_busy(seconds)
                        await trio.lowlevel.checkpoint()
            except Stalled as error:
                assert seconds
                assert "bob's disk" in str(error)
                assert trio.current_time() - waited <= 90
            else:
                assert not seconds


async def test_a_program_may_be_as_slow_as_it_likes_as_long_as_its_side_says_so(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with watched(Side(), "receiver", {}) as watch:
        watch.endless = True
        with watch.deadline(""):
            for _ in range(20):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(30)
                watch.peer_is_busy(30)
                await trio.lowlevel.checkpoint()
        with pytest.raises(Stalled), watch.deadline(""):  # noqa: PT012  # the deadline is its end
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(61)
            await trio.sleep_forever()


# --- disks -------------------------------------------------------------------------------------------------------


def stop_the_disk(monkeypatch: pytest.MonkeyPatch, stuck: threading.Event) -> None:
    """Let the receiver's disk take nothing for a while; a thread in a system call cannot be left alone for ever."""
    monkeypatch.setattr(assembling, "write_at", lambda *_: stuck.wait(2.0))


async def test_a_senders_disk_that_stops_is_named(
    path: Path, place: Place, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = Side(), Side()
    while_reading(monkeypatch, "file.bin", stuck.wait)
    async with joined(BRISK) as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, gather(path), IMPATIENT)
            nursery.start_soon(receive, far, bob, place, Terms(idle=0, stalled=0.1))
        stuck.set()
    assert "stalled for 1s: waiting for you: your disk does not deliver" in alice.failed_with(Stalled)
    assert "alice" in bob.failed_with(Stalled)
    assert {event.who for event in alice.reports if isinstance(event, events.StalledEvent)} == {"sender"}
    told = [event.message for event in bob.reports if isinstance(event, events.StalledEvent)]
    assert "waiting for alice's disk" in told
    assert place.final() == []


async def test_a_receivers_disk_that_stops_is_named(
    path: Path, place: Place, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_disk(monkeypatch, stuck)
    alice, bob = Side(), Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path), Terms(idle=0, stalled=0.1))
        nursery.start_soon(receive, far, bob, place, IMPATIENT)
    assert "stalled for 1s: waiting for you: the disk does not take what arrived" in bob.failed_with(Stalled)
    assert str(place.into) in str(bob.error)
    assert "bob" in alice.failed_with(Stalled)
    told = [event.message for event in alice.reports if isinstance(event, events.StalledEvent)]
    assert "waiting for bob's disk" in told
    assert place.final() == []


async def test_what_the_receiver_is_told_speaks_of_no_path_of_the_sender_nor_of_your_disk(
    path: Path, place: Place, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = Side(), Side()
    while_reading(monkeypatch, "file.bin", stuck.wait)
    async with joined(BRISK) as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, gather(path), IMPATIENT)
            nursery.start_soon(receive, far, bob, place, ENDLESS)
        stuck.set()
    told = bob.failed_with(Stalled)
    assert str(path.parent) not in told
    assert "your disk" not in told


async def test_what_the_sender_is_told_speaks_of_no_path_of_the_receiver_nor_of_your_disk(
    path: Path, place: Place, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_disk(monkeypatch, stuck)
    alice, bob = Side(), Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path), ENDLESS)
        nursery.start_soon(receive, far, bob, place, IMPATIENT)
    told = alice.failed_with(Stalled)
    assert str(place.into) not in told
    assert "your disk" not in told


async def test_a_receiver_whose_disk_stops_is_given_up_by_the_sender_who_names_it(
    path: Path, place: Place, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_disk(monkeypatch, stuck)
    os.truncate(path, 32 * FRAME)  # far more than can be on its way
    alice, bob = Side(), Side()
    async with joined(BRISK, socket_pair) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path), Terms(idle=1.0, stalled=0.4))
        nursery.start_soon(receive, far, bob, place, Terms(idle=0, stalled=0.2))
    assert "stalled for 1s: waiting for bob's disk" in alice.failed_with(Stalled)
    assert isinstance(bob.error, (Stalled, ConnectionLost))  # the disk may have kept it from hearing why
    assert place.final() == []


async def test_a_sender_that_hashes_what_is_kept_for_longer_than_the_idle_time_does_not_stall(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All has arrived but the last bytes of the last file; the others are only hashed again."""
    tree = path.parent / "tree"
    tree.mkdir()
    for name in "abcdefgh":
        (tree / name).write_bytes(CONTENT[:FRAME])
    await transferred(gather(tree), place, cut=7.5 * FRAME)
    real = sources.OpenFile.read

    def read(file: sources.OpenFile, view: memoryview, offset: int) -> None:
        time.sleep(0.3)  # the disk is that slow
        real(file, view, offset)

    monkeypatch.setattr(sources.OpenFile, "read", read)
    alice, bob = Side(), Side()
    begun = trio.current_time()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(tree), Terms(idle=1.5))
        nursery.start_soon(receive, far, bob, place, Terms(idle=1.5))
    assert trio.current_time() - begun > 2.0
    assert alice.error is None, repr(alice.error)
    assert bob.error is None, repr(bob.error)
    assert place.into is not None
    assert files(place.into / "tree") == files(tree)


async def test_after_everything_was_sent_the_sender_waits_for_the_receiver_to_confirm_it(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the relay says of who is waited for, and even if it has hashed something last."""
    await transferred(gather(path), place, cut=1.5 * FRAME)
    real = Landing.run

    def run(self: Landing) -> landing.Landed:
        time.sleep(1.5)  # the disk is that slow
        return real(self)

    monkeypatch.setattr(Landing, "run", run)
    alice, bob = Side(), Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(near, alice, gather(path), Terms(stalled=0.4), "sender"))
        nursery.start_soon(receive, far, bob, place)
    assert alice.error is None
    said = {(event.who, event.message) for event in alice.reports if isinstance(event, events.StalledEvent)}
    assert said == {("receiver", "waiting for bob to confirm it")}


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="only Linux tells what is open")
async def test_what_a_sender_was_reading_is_closed_once_the_thread_is_done(
    path: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, reads = Side(), trio.Event()

    def read_slowly() -> None:
        trio.from_thread.run_sync(reads.set)
        stuck.wait()

    while_reading(monkeypatch, "file.bin", read_slowly)
    async with joined() as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, gather(path))
            await far.send(Accept(), all_of(await take_offer(far)))
            await reads.wait()
            await far.aclose()
        assert str(path) in open_files(), "it cannot be closed while a thread reads it"
        stuck.set()
    alice.failed_with(ConnectionLost)
    gc.collect()
    assert str(path) not in open_files()


# --- peers that fall silent ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("", "waiting for the relay"),
        ("receiver", "waiting for bob, who is silent, or the network to bob"),
        ("sender", "waiting for the network between you and the relay"),
    ],
)
async def test_a_receiver_that_falls_silent_is_named(path: Path, hint: str, words: str) -> None:
    alice = Side()
    async with joined(BRISK, trio.testing.lockstep_stream_pair) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path), Terms(idle=0.5, stalled=0.1), hint)
        await far.send(Accept(), all_of(await take_offer(far)))
    assert words in alice.failed_with(Stalled)


@pytest.mark.parametrize("speaks", ["", "keepalives", "empty frames", "that it waits for its disk"])
@pytest.mark.parametrize("hint", ["", "sender"])
async def test_a_sender_that_falls_silent_is_named(place: Place, speaks: str, hint: str) -> None:
    bob = Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:

        async def chatter() -> None:
            while near.machine.state is not State.CLOSED:
                if speaks == "empty frames":
                    await near.send_data(memoryview(b""))
                await near.send(Busy(seconds=1) if speaks == "that it waits for its disk" else Keepalive())
                await trio.sleep(0.05)

        nursery.start_soon(receive, far, bob, place, Terms(idle=1.5, stalled=0.4), hint)
        await offered(near, Item("file.bin", size=len(CONTENT)))
        await near.send_data(memoryview(CONTENT)[:FRAME])
        await near.send(Keepalive())
        async with trio.open_nursery() as talking:
            if speaks:
                talking.start_soon(chatter)
            assert isinstance(await answer_of(near), Abort)
            talking.cancel_scope.cancel()
        await near.close()
    if speaks == "that it waits for its disk":
        words = "waiting for alice's disk"
    elif hint:
        words = "the network to alice" if speaks else "waiting for alice, who is silent, or the network to alice"
    else:
        words = "waiting for the relay"  # which has never said anything here
    assert words in bob.failed_with(Stalled)
    assert place.final() == []
    assert [kept.bytes for kept in place.kept()] == [FRAME]


async def test_a_sender_that_makes_no_offer_is_not_waited_for(place: Place) -> None:
    bob = Side()
    async with (
        joined(Deadlines(handshake=0.3, keepalive=0.05, farewell=0.3)) as (near, far),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(near.keep_alive)
        await receive(far, bob, place)
        nursery.cancel_scope.cancel()
    assert "alice made no offer" in bob.failed_with(Stalled)


async def test_why_it_ends_is_told_although_a_keepalive_is_on_its_way(path: Path) -> None:
    alice = Side()
    deadlines = Deadlines(keepalive=0.05, farewell=5)
    async with joined(deadlines, trio.testing.lockstep_stream_pair) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(near, alice, gather(path), Terms(ask_timeout=0.3)))
        await take_offer(far)
        await trio.sleep(0.6)  # the keepalive is on its way, and the time to answer is over
        assert isinstance(await far.receive(), Abort)
        await far.aclose()
    assert "bob did not answer" in alice.failed_with(Declined)


async def test_a_slow_transfer_is_no_stalled_one(place: Place) -> None:
    bob = Side()
    begun = trio.current_time()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place, Terms(idle=1.0))
        await offered(near, Item("file.bin", size=len(SMALL)))
        for at in range(0, len(SMALL), 4):
            await near.send_data(memoryview(SMALL)[at : at + 4])
            await near.send(Keepalive())
            await trio.sleep(0.25)
        await ended(near, SMALL)
        await answer_of(near)
        await near.send(Done())
    assert trio.current_time() - begun > 1.2
    assert bob.error is None


@pytest.mark.parametrize("count", [1, 300])
async def test_a_receiver_that_takes_nothing_is_not_the_senders_own_disk(tmp_path: Path, count: int) -> None:
    """Nor is it when the deadline finds the sender about to read on."""
    for number in range(count):
        (tmp_path / f"{number:03}").write_bytes(bytes(6_000_000 // count))
    alice = Side()
    gathered = gather(*sorted(tmp_path.iterdir()))
    async with joined(Deadlines(farewell=0.2), socket_pair) as (near, far), trio.open_nursery() as nursery:
        over = trio.Event()

        async def sender() -> None:
            await send(near, alice, gathered, IMPATIENT)
            over.set()

        nursery.start_soon(sender)
        await far.send(Accept(), all_of(await take_offer(far)))
        with trio.fail_after(10.0):
            await over.wait()
    assert "disk" not in alice.failed_with(Stalled)
