"""Ctrl-C and kill, at every party: what they end, and what they say last."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.processes import Process, Proxy, World, held_up

MIB = 1024 * 1024

# What is pushed, and how much of it passes before it is held up. The rest is more than all buffers on its way take.
TOTAL, HELD = 256 * MIB, 4 * MIB

# A frame of a traceback in glide; not those of Python on its way to the function `main`.
IN_GLIDE = re.compile(r"/glide/(?!(?:__init__|__main__)\.py\", line \d+, in <module>)")


@pytest.fixture
def proxy(w: World) -> Iterator[Proxy]:
    """Between the sender and the relay; lets pass :data:`HELD` bytes, and then no more until it is released."""
    with Proxy(w.address, limit=HELD) as made:
        yield made


def under_way(w: World, proxy: Proxy, *arguments: str, size: int = TOTAL) -> tuple[Process, Process]:
    """Receiver and sender of a transfer that cannot be over before the proxy is released."""
    receiver = w.receive("bob", "--accept", "all", "--no-fsync", *arguments)
    sender = w.push("alice", "bob", w.sparse("f", size), relay=proxy.address)
    held_up(w, proxy, sender)
    return receiver, sender


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sender_that_is_stopped_tells_the_receiver(w: World, proxy: Proxy, number: signal.Signals, code: int) -> None:
    receiver, sender = under_way(w, proxy)
    sender.signal(number)
    proxy.release()  # what it says last gets through; by then it has been told to stop
    assert sender.wait() == code, sender
    failed = receiver.event("failed")
    assert failed["status"] == "cancelled"
    assert "is kept" in failed["message"]
    assert w.landed("bob") == []
    assert len(w.stages("bob")) == 1


def test_a_receiver_that_is_stopped_tells_the_sender_and_keeps_what_arrived(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy)
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
    # Of the goodbye, or of a relay that had gone before the receiver, registered already, began to listen.
    said = receiver.result["message"]
    assert "shutting down" in said or "cannot be reached" in said


def test_a_relay_lets_transfers_finish(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy, "--once", size=4 * HELD)
    assert w.relay is not None
    w.relay.signal(signal.SIGTERM)
    w.relay.says("Finishing what is under way")
    late = w.run("carol", "who", "--relay", w.address)
    assert late.wait() in (6, 12)
    proxy.release()
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    assert w.relay.wait() == 0, w.relay


def test_a_second_signal_ends_the_relay_at_once(w: World, proxy: Proxy) -> None:
    receiver, sender = under_way(w, proxy)
    receiver.signal(signal.SIGSTOP)
    proxy.release()
    assert w.relay is not None
    w.relay.signal(signal.SIGTERM)
    w.relay.says("second signal")
    w.relay.signal(signal.SIGTERM)
    assert w.relay.wait(10) == 143
    receiver.signal(signal.SIGCONT)
    assert sender.wait() == 6


def test_the_grace_ends(alone: World) -> None:
    relay = alone.serve("--grace", "1s")
    with Proxy(alone.address, limit=HELD) as proxy:
        receiver, sender = under_way(alone, proxy)
        receiver.signal(signal.SIGSTOP)
        proxy.release()
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
        assert not IN_GLIDE.search(process.errors), process
    else:
        assert code in (0, 130, -signal.SIGINT), process  # done already, or before Python could know
