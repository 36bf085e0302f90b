"""Connections that are lost while both run: they come back by themselves, and go on where it was (real processes)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, Proxy, World, held_up, until, world

KIB, MIB = 1024, 1024 * 1024
TOTAL, HELD = 20 * MIB, 8 * MIB
OVERHEAD = 256 * KIB


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, retry="1m") as made:
        made.serve()
        yield made


@pytest.fixture
def proxy(w: World) -> Iterator[Proxy]:
    """Between the sender and the relay; lets pass :data:`HELD` bytes, and then no more until it is released."""
    with Proxy(w.address, limit=HELD) as made:
        yield made


def under_way(w: World, proxy: Proxy, *arguments: str, **settings: str) -> tuple[Process, Process]:
    """Receiver and sender, held up at 40 %, with most of that on bob's disk."""
    receiver = w.receive("bob", "--accept", "all", *arguments, terminal=False, **settings)
    sender = w.push("alice", "bob", w.file("film", TOTAL), relay=proxy.address, **settings)
    held_up(w, proxy, sender, HELD - 3 * MIB)
    return receiver, sender


def came_back(w: World, proxy: Proxy, sender: Process) -> None:
    """The push has succeeded, having sent only the rest on its second connection."""
    assert sender.wait() == 0, sender
    kept = sender.event("resumed")["bytes"]
    assert kept > HELD - 4 * MIB
    assert proxy.count <= TOTAL - kept + OVERHEAD
    assert (w.into("bob") / "film").read_bytes() == (w.folder / "film").read_bytes()
    assert w.left("bob") == ["film"]
    assert len(sender.told("delivered")) == 1
    assert len({event["transfer"] for event in sender.events if "transfer" in event}) == 1


def restart(w: World) -> None:
    w.serve("--port", w.address.partition("#")[0].split(":")[1])


def test_R5_a_receiver_that_was_killed_and_started_again_is_gone_on_with(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy)
    receiver.popen.kill()
    receiver.wait()
    proxy.release()
    stalled = sender.event("stalled")
    assert stalled["who"] in ("sender", "receiver", "relay", "network")
    assert isinstance(stalled["seconds"], int)
    assert "Trying again in" in sender.event("stalled", who="network")["message"]
    again = w.receive("bob", "--accept", "all")
    proxy.release()
    came_back(w, proxy, sender)
    assert again.event("resumed")["bytes"] == sender.event("resumed")["bytes"]
    assert again.event("received")["bytes"] == TOTAL


def test_R5_both_come_back_after_the_relay_was_killed_and_started_again(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy)
    assert w.relay is not None
    w.relay.popen.kill()
    w.relay.wait()
    proxy.cut()
    assert sender.event("stalled", who="network")
    until(lambda: any("Trying again in" in event["message"] for event in receiver.told("notice")))
    proxy.release()
    restart(w)
    came_back(w, proxy, sender)
    assert len(receiver.told("registered")) == 2
    assert receiver.popen.poll() is None
    assert w.push("carol", "bob", w.file("next", 1)).wait() == 0


def test_R5_a_network_that_breaks_between_sender_and_relay_is_mended(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy, "--once")
    proxy.cut()
    proxy.release()
    came_back(w, proxy, sender)
    assert receiver.wait() == 0, receiver


def test_R5_once_waits_for_its_sender_to_come_again(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy, "--once")
    proxy.kill(sender)
    assert receiver.event("failed")["status"] == "lost"
    until(lambda: any("to go on" in event["message"] for event in receiver.told("notice")))
    stranger = w.push("carol", "bob", w.file("other", 1))
    assert stranger.wait() == 4, stranger
    proxy.release()
    again = w.push("alice", "bob", w.folder / "film", relay=proxy.address)
    came_back(w, proxy, again)
    assert receiver.wait() == 0, receiver
    assert receiver.result["status"] == "ok"


def test_R5_once_gives_up_after_its_patience_and_keeps_what_arrived(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy, "--once", retry="1s")
    proxy.kill(sender)
    assert receiver.wait() == 6, receiver
    assert receiver.result["status"] == "lost"
    assert w.landed("bob") == []
    assert len(w.stages("bob")) == 1


def test_R5_retry_of_nothing_fails_at_once(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy, "--once", retry="0s")
    proxy.cut()
    assert sender.wait() == 6, sender
    assert sender.result["status"] == "lost"
    assert "is kept" in sender.result["message"]
    assert not [event for event in sender.told("stalled") if "Trying again" in event["message"]]
    assert receiver.wait() == 6, receiver


def test_R5_a_push_gives_up_after_its_patience_and_says_how_long_it_tried(w: World, proxy: Proxy) -> None:
    _, sender = under_way(w, proxy, retry="2s")
    proxy.close()
    assert sender.wait() == 6, sender
    assert "tried again for 2s" in sender.result["message"]


def test_R5_what_is_no_relay_from_the_start_is_not_tried_for_minutes(w: World) -> None:
    assert w.relay is not None
    w.relay.end()
    sender = w.push("alice", "bob", w.file("f", 1))
    assert sender.wait() == 6, sender
    receiver = w.run("bob", "receive", "--as", "bob", "--relay", w.address, "--json")
    assert receiver.wait() == 6, receiver


def test_R5_a_push_to_somebody_who_is_not_there_is_not_tried_again(w: World) -> None:
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 3


def test_R5_ctrl_c_ends_a_push_that_is_waiting_to_try_again(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy)
    receiver.popen.kill()
    receiver.wait()
    proxy.release()
    sender.event("stalled", who="network")
    sender.signal(signal.SIGINT)
    assert sender.wait(10) == 130, sender
    assert "is kept" in sender.result["message"]


def test_R5_ctrl_c_ends_a_receiver_that_is_waiting_for_a_relay(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    assert w.relay is not None
    w.relay.popen.kill()
    until(lambda: any("Trying again in" in event["message"] for event in receiver.told("notice")))
    receiver.signal(signal.SIGINT)
    assert receiver.wait(10) == 130, receiver
