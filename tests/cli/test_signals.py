"""Ctrl-C and kill, at every party: what they end, and what they say last."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes import World

MIB = 1024 * 1024


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sender_that_is_stopped_tells_the_receiver(w: World, number: signal.Signals, code: int) -> None:
    receiver = w.receive("bob", "--accept", "all", "--no-fsync")
    sender = w.push("alice", "bob", w.file("f", 300 * MIB))
    sender.progress(1)
    sender.signal(number)
    assert sender.wait() == code, sender
    failed = receiver.event("failed")
    assert failed["status"] == "cancelled"
    assert "is kept" in failed["message"]
    assert w.landed("bob") == []
    assert len(w.stages("bob")) == 1


def test_a_receiver_that_is_stopped_tells_the_sender_and_keeps_what_arrived(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", "--no-fsync")
    sender = w.push("alice", "bob", w.file("f", 300 * MIB))
    sender.progress(1)
    receiver.signal(signal.SIGINT)
    assert receiver.wait() == 130
    assert sender.wait() == 4, sender
    assert sender.result["status"] == "cancelled"
    assert "is kept" in receiver.result["message"]
    assert w.landed("bob") == []
    assert len(w.stages("bob")) == 1


def test_a_relay_without_transfers_ends_at_once(w: World) -> None:
    receiver = w.receive("bob")
    assert w.relay is not None
    begun = time.monotonic()
    w.relay.signal(signal.SIGTERM)
    assert w.relay.wait(10) == 0, w.relay
    assert time.monotonic() - begun < 8  # far below the grace of thirty seconds
    assert receiver.wait() == 6
    assert "shutting down" in receiver.result["message"]


def test_a_relay_lets_transfers_finish(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", "--no-fsync", "--once")
    sender = w.push("alice", "bob", w.file("f", 200 * MIB))
    sender.progress(1)
    assert w.relay is not None
    w.relay.signal(signal.SIGTERM)
    late = w.run("carol", "who", "--relay", w.address)
    assert late.wait() in (6, 12)
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    assert w.relay.wait() == 0, w.relay


def test_a_second_signal_ends_the_relay_at_once(w: World) -> None:
    w.receive("bob", "--accept", "all", "--no-fsync").signal(signal.SIGSTOP)
    receiver = w.started[-1]
    receiver.signal(signal.SIGCONT)
    sender = w.push("alice", "bob", w.file("f", 300 * MIB))
    sender.progress(1)
    receiver.signal(signal.SIGSTOP)
    assert w.relay is not None
    w.relay.signal(signal.SIGTERM)
    w.relay.says("second signal")
    w.relay.signal(signal.SIGTERM)
    assert w.relay.wait(10) == 143
    receiver.signal(signal.SIGCONT)
    assert sender.wait() == 6


def test_the_grace_ends(alone: World) -> None:
    relay = alone.serve("--grace", "1s")
    receiver = alone.receive("bob", "--accept", "all", "--no-fsync")
    sender = alone.push("alice", "bob", alone.file("f", 300 * MIB))
    sender.progress(1)
    receiver.signal(signal.SIGSTOP)
    relay.signal(signal.SIGTERM)
    assert relay.wait(15) == 1
    assert "were cut: 1" in relay.result["message"]
    receiver.signal(signal.SIGCONT)
    assert sender.wait() == 6


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_signal_while_it_starts_shows_no_traceback(w: World, delay: float) -> None:
    process = w.run("alice", "who", "--relay", w.address)
    time.sleep(delay)  # not for luck: any moment will do, and each is another one
    process.signal(signal.SIGINT)
    code = process.wait()
    if "Traceback" in process.errors:  # it hit the interpreter's own start, before there was anything of glide
        assert "/glide/" not in process.errors, process
    else:
        assert code in (0, 130, -signal.SIGINT), process  # done already, or before Python could know
