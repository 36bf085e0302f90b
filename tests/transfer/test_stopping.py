"""What becomes of a transfer that somebody stops, or that its sender offers anew."""

from __future__ import annotations

import threading
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from glide import events
from glide.client.claims import Claims, Superseded
from glide.errors import ConnectionLost, IntegrityError, Stopped
from glide.net.connection import FRAME, Connection
from glide.protocol.endtoend import Item
from glide.protocol.messages import Keepalive
from glide.transfer import feeding, intake, receiving, storing, taking
from glide.transfer.journal import Journal
from glide.transfer.landing import Landed, Landing
from glide.transfer.manifest import Manifest
from glide.transfer.storage import Arrival
from glide.transfer.taking import Offered, Room
from glide.transfer.terms import Outcome
from tests.transfer.halves import (
    ALICE,
    BRISK,
    CONTENT,
    Place,
    Side,
    Streams,
    digest,
    gather,
    joined,
    offered,
    open_files,
    receive,
    send,
    socket_pair,
    transferred,
    while_reading,
)


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, socket_pair])
async def test_a_transfer_that_is_stopped_on_one_side_is_cancelled_on_the_other_and_what_arrived_is_kept(
    path: Path, place: Place, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch, who: str, streams: Streams
) -> None:
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)
    begun = trio.Event()
    alice, bob = Side(), Side()
    alice.on_report = lambda event: begun.set() if isinstance(event, events.Progress) and event.bytes else None
    monkeypatch.setattr(feeding, "BLOCK", FRAME)
    while_reading(monkeypatch, "file.bin", stuck.wait, at=2 * FRAME)  # so that it cannot end before it is stopped
    async with joined(BRISK, streams) as (near, far):
        async with trio.open_nursery() as nursery:
            scopes = {"sender": trio.CancelScope(), "receiver": trio.CancelScope()}

            async def sender() -> None:
                with scopes["sender"]:
                    await send(near, alice, gather(path))

            async def receiver() -> None:
                with scopes["receiver"]:
                    await receive(far, bob, place)

            nursery.start_soon(sender)
            nursery.start_soon(receiver)
            await begun.wait()
            scopes[who].cancel()
        stuck.set()
    assert scopes[who].cancelled_caught
    stopped, other = (alice, bob) if who == "sender" else (bob, alice)
    assert stopped.error is None
    assert stopped.outcome is None
    assert "stopped it" in other.failed_with(Stopped)
    assert place.final() == []
    assert [kept.bytes >= FRAME for kept in place.kept()] == [True]


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_an_offer_that_is_stopped_on_one_side_is_cancelled_on_the_other(
    path: Path, place: Place, who: str
) -> None:
    asked = trio.Event()

    async def decide(_: Offered) -> NoReturn:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    alice, bob = Side(), Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        scopes = {"sender": trio.CancelScope(), "receiver": trio.CancelScope()}

        async def sender() -> None:
            with scopes["sender"]:
                await send(near, alice, gather(path))

        async def receiver() -> None:
            with scopes["receiver"]:
                await receive(far, bob, place, decide=decide)

        nursery.start_soon(sender)
        nursery.start_soon(receiver)
        await asked.wait()
        scopes[who].cancel()
    stopped, other = (alice, bob) if who == "sender" else (bob, alice)
    assert stopped.error is None
    assert stopped.outcome is None
    assert "stopped it" in other.failed_with(Stopped)
    assert place.is_clean()


@pytest.mark.parametrize("how", ["hangs up", "is cancelled", "sends rubbish"])
async def test_a_sender_that_goes_away_withdraws_the_question(path: Path, place: Place, how: str) -> None:
    asked, withdrawn = trio.Event(), trio.Event()

    async def decide(_: Offered) -> NoReturn:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            withdrawn.set()

    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: receive(far, bob, place, decide=decide))
        async with trio.open_nursery() as sender:
            sender.start_soon(send, near, Side(), gather(path))
            await asked.wait()
            if how == "hangs up":
                await near.aclose()
            elif how == "sends rubbish":
                await near.stream.send_all(bytes(100))
            else:
                sender.cancel_scope.cancel()
    assert withdrawn.is_set()
    kind = {"hangs up": ConnectionLost, "is cancelled": Stopped, "sends rubbish": IntegrityError}[how]
    said = bob.failed_with(kind)
    assert "alice" in said or how == "sends rubbish"
    assert bob.reports == []
    assert place.is_clean()


async def test_a_receiver_that_is_stopped_while_its_files_land_has_them_and_says_so(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Landing.run
    scope = trio.CancelScope()

    def run(self: Landing) -> Landed:
        trio.from_thread.run_sync(scope.cancel)
        return real(self)

    monkeypatch.setattr(Landing, "run", run)
    alice, bob = Side(), Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:

        async def receiver() -> None:
            with scope:
                await receive(far, bob, place)

        nursery.start_soon(send, near, alice, gather(path))
        nursery.start_soon(receiver)
    assert alice.error is None
    assert alice.outcome == Outcome(1, len(CONTENT), digest(CONTENT))
    assert place.into is not None
    assert (place.into / "file.bin").read_bytes() == CONTENT
    assert len(bob.of(events.Saved)) == 1
    assert place.is_clean()


async def test_the_same_things_offered_anew_end_the_older_transfer_and_go_on_with_what_it_has(
    path: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender has lost that connection long before we can know it."""
    monkeypatch.setattr(intake, "BATCH_SECONDS", 0.0)
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)
    claims, superseded = Claims(), trio.Event()

    def claim(manifest: Manifest) -> AbstractAsyncContextManager[None]:
        return claims.claim(ALICE.public, manifest, superseded.set)

    first, second, other, over = Side(), Side(), Side(), trio.Event()
    item = Item("file.bin", size=len(CONTENT))

    async def older(connection: Connection) -> None:
        await receive(connection, first, place, claim=claim)
        over.set()

    async with (
        joined() as (near, far),
        joined() as (near_too, far_too),
        joined() as (another, far_another),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(older, far)
        await offered(near, item)
        await near.send_data(memoryview(CONTENT)[:FRAME])
        await near.send(Keepalive())
        while not [event for event in first.reports if isinstance(event, events.Progress) and event.bytes == FRAME]:
            await near.receive()
        # Other things from the same person disturb nobody.
        nursery.start_soon(lambda: receive(far_another, other, place, claim=claim))
        await offered(another, Item("other.bin", size=3))
        assert not over.is_set()
        nursery.start_soon(lambda: receive(far_too, second, place, claim=claim))
        assert await offered(near_too, item) == [(FRAME, len(CONTENT) - FRAME)]
        await over.wait()
        assert superseded.is_set()
        assert other.error is second.error is None
        nursery.cancel_scope.cancel()
    assert "Its sender has begun anew" in first.failed_with(Superseded)
    assert first.error is not None
    assert first.error.worth_a_retry


async def test_a_receiver_that_is_stopped_while_it_looks_into_the_chosen_folder_leaves_nothing_open(
    path: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next transfer would wait for the lock of a journal that nobody has."""
    chosen = replace(place, into=tmp_path / "chosen")
    (tmp_path / "chosen").mkdir()
    await transferred(gather(path), chosen, cut=2.5 * FRAME)
    real = storing.agreed

    def agreed(journal: Journal, manifest: Manifest, arrival: Arrival) -> bool:
        trio.from_thread.run_sync(scope.cancel)
        return real(journal, manifest, arrival)

    async def decide(_: Offered) -> Arrival:
        return chosen.arrival()

    alice = Side()
    monkeypatch.setattr(taking, "agreed", agreed)
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        with Room().place(b"k" * 32) as room:
            manifest, offer = await taking.take(far, "alice", room)
        with trio.CancelScope() as scope:
            await taking.decided(far, place.arrival(), manifest, offer, decide)
        assert scope.cancelled_caught
        assert not [path for path in open_files() if path.startswith(str(place.journals))]
        await far.aclose()
    monkeypatch.undo()
    _, bob = await transferred(gather(path), chosen)
    assert bob.of(events.Resumed)
