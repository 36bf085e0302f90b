"""No hang is possible: each party is killed, and stopped, at each step; the others end within their deadlines.

The steps, as a transfer goes through them:

    connecting   the sender has dialled; the relay has not answered
    ringing      the relay has rung; the receiver has not come
    asking       the offer is made; the receiver's person thinks
    streaming    the bytes flow

What comes after the last byte takes no time that a signal could be aimed at; those steps are taken one by one, over
memory streams, in tests/transfer.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, Proxy, World, held_up, world

# Short, so that the tests are; each deadline is a setting.
SETTINGS = {"handshake_timeout": "2s", "keepalive": "500ms", "lost_after": "3s", "idle": "3s", "ask_timeout": "20s"}

# What a deadline of three seconds may take on a busy machine, goodbyes included.
SOON = 15.0

MIB = 1024 * 1024
# What streams, and how much of it passes before it is held up. The rest is more than all buffers on its way take.
BIG, HELD = 256 * MIB, 4 * MIB


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, **SETTINGS) as made:
        made.serve()
        yield made


@pytest.fixture
def proxy(w: World) -> Iterator[Proxy]:
    """Between the sender and the relay; lets pass :data:`HELD` bytes, and then no more until it is released."""
    with Proxy(w.address, limit=HELD) as made:
        yield made


def reached(w: World, proxy: Proxy, step: str) -> tuple[Process, Process, Process]:
    """Relay, receiver and sender, with the transfer at that step; what streams goes on once the proxy is released."""
    relay = w.relay
    assert relay is not None
    if step == "asking":
        receiver = w.receive("bob", terminal=True)
        sender = w.push("alice", "bob", w.file("f", 1000))
        receiver.says("Take it from alice?")
        return relay, receiver, sender
    receiver = w.receive("bob", "--accept", "all", "--no-fsync")
    if step == "connecting":
        relay.signal(signal.SIGSTOP)
        proxy.limit = 0
    elif step == "ringing":
        receiver.signal(signal.SIGSTOP)
    file = w.sparse("f", BIG if step == "streaming" else 1000)
    sender = w.push("alice", "bob", file, relay=proxy.address)
    if step == "connecting":
        assert proxy.reached.wait(SOON), sender  # its first byte
        proxy.release()
    elif step == "ringing":
        sender.event("ringing")
    else:
        held_up(w, proxy, sender)
    return relay, receiver, sender


def sender_ends(sender: Process, exits: set[int], *words: str) -> None:
    code = sender.wait(SOON)
    assert code in exits, sender
    result = sender.result
    assert result["exit"] == code
    assert any(word in result["message"] for word in words), result


def receiver_goes_on(w: World, receiver: Process) -> None:
    """It takes the next transfer, and nothing of the one before bears a final name."""
    if receiver.terminal >= 0:
        again = w.push("carol", "bob", w.file("next", 1000))
        receiver.says("Take it from carol?")
        receiver.types("y\n")
    else:
        again = w.push("carol", "bob", w.file("next", 1000))
    assert again.wait() == 0, (again, receiver)
    assert w.landed("bob") == ["next"]


KILLED = [
    # step, victim, the sender's exit codes, words of its message, the receiver's exit code (None: it goes on)
    ("connecting", "relay", {6}, ["the relay"], 6),
    ("connecting", "receiver", {3, 4}, ["bob"], None),
    ("ringing", "relay", {6}, ["the relay"], 6),
    ("ringing", "receiver", {3, 4, 6}, ["bob"], None),
    ("ringing", "sender", set(), [], None),
    ("asking", "relay", {6}, ["bob"], 6),
    ("asking", "receiver", {6}, ["bob"], None),
    ("asking", "sender", set(), [], None),
    ("streaming", "relay", {6}, ["bob"], 6),
    ("streaming", "receiver", {6}, ["bob"], None),
    ("streaming", "sender", set(), [], None),
]


@pytest.mark.parametrize(("step", "victim", "exits", "words", "receiver_exit"), KILLED)
def test_a_party_is_killed(
    w: World, proxy: Proxy, step: str, victim: str, exits: set[int], words: list[str], receiver_exit: int | None
) -> None:
    relay, receiver, sender = reached(w, proxy, step)
    dead = {"relay": relay, "receiver": receiver, "sender": sender}[victim]
    dead.popen.kill()
    dead.wait()
    for process in (relay, receiver):
        if process is not dead:
            process.signal(signal.SIGCONT)
    proxy.release()
    if victim != "sender":
        sender_ends(sender, exits, *words)
    if victim == "relay":
        assert receiver.wait(SOON) == receiver_exit
        assert "the relay" in receiver.result["message"]
        assert w.landed("bob") == []
    elif victim == "sender":
        receiver_goes_on(w, receiver)
    else:
        # What a kill leaves is kept to go on with, and never under the final name.
        assert w.landed("bob") == []
        assert len(w.stages("bob")) == (step == "streaming")
        assert w.run("dora", "who", "--relay", w.address, "--json").wait() == 0


STOPPED = [
    ("connecting", "relay", {6}, ["the relay"]),
    ("ringing", "relay", {6}, ["the relay", "bob"]),
    ("ringing", "receiver", {3, 4, 6}, ["bob"]),
    ("asking", "relay", {6}, ["bob"]),
    ("asking", "receiver", {6}, ["bob"]),
    ("streaming", "relay", {6}, ["stalled", "silent"]),
    ("streaming", "receiver", {6}, ["stalled", "silent"]),
    ("asking", "sender", set(), []),
    ("streaming", "sender", set(), []),
]


@pytest.mark.parametrize(("step", "victim", "exits", "words"), STOPPED)
def test_a_party_stops_without_a_word(
    w: World, proxy: Proxy, step: str, victim: str, exits: set[int], words: list[str]
) -> None:
    relay, receiver, sender = reached(w, proxy, step)
    stopped = {"relay": relay, "receiver": receiver, "sender": sender}[victim]
    stopped.signal(signal.SIGSTOP)
    proxy.release()
    if victim == "sender":
        # What the receiver can see is silence; it says whose, keeps what it had, and takes the next.
        failed = receiver.event("failed", SOON)
        assert "alice" in failed["message"]
        assert failed["status"] in ("lost", "stalled")
        receiver_goes_on(w, receiver)
    else:
        sender_ends(sender, exits, *words)


def test_the_idle_deadline_names_the_side_that_the_relay_waits_for(tmp_path: Path) -> None:
    # The relay says whom it waits for 5 to 10 s after the last byte; who has said nothing for twice 2 s is silent.
    with world(tmp_path, **{**SETTINGS, "idle": "14s", "stall_after": "2s", "lost_after": "40s"}) as w:
        w.serve()
        with Proxy(w.address, limit=HELD) as proxy:
            _, receiver, sender = reached(w, proxy, "streaming")
            receiver.signal(signal.SIGSTOP)
            proxy.release()
            assert sender.event("stalled", SOON)["who"] == "receiver"
            assert sender.wait(SOON + 14) == 6
        assert sender.result["status"] == "stalled"
        assert "waiting for bob, who is silent, or the network to bob" in sender.result["message"]
