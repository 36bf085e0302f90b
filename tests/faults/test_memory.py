"""Flat memory: whatever the size of the file, and whoever stops reading."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.processes import Process, Proxy, World, held_up, world

MIB = 1024 * 1024
GIB = 1024 * MIB

# What each process may have resident. Nearly all of it is Python and its libraries.
MOST = 100 * MIB
# What a relay may grow by for one transfer: its stated 4 MiB, and something for the allocator.
MOST_GROWTH = 8 * MIB


def sparse(folder: Path, size: int) -> Path:
    """A file of that size that takes no room: its first and last bytes are not zero."""
    path = folder / "big"
    with path.open("wb") as file:
        file.write(b"first")
        file.seek(size - 4)
        file.write(b"last")
    return path


def finished(w: World, receiver: Process, sender: Process, size: int, seconds: float) -> None:
    code = sender.wait(seconds)
    assert code == 0, sender
    received = w.into("bob") / "big"
    assert received.stat().st_size == size
    with received.open("rb") as file:
        assert file.read(5) == b"first"
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"last"


def run(tmp_path: Path, size: int, seconds: float) -> None:
    with world(tmp_path) as w:
        relay = w.serve()
        receiver = w.receive("bob", "--accept", "all", "--no-fsync")
        with Proxy(w.address, limit=size // 2) as proxy:  # so that there is a moment to look at the sender
            sender = w.push("alice", "bob", sparse(tmp_path, size), relay=proxy.address)
            assert proxy.reached.wait(seconds), sender
            peaks = {"sender": sender.resident}
            proxy.release()
            finished(w, receiver, sender, size, seconds)
        peaks |= {"relay": relay.resident, "receiver": receiver.resident}
        assert max(peaks.values()) < MOST, peaks


def test_R3_memory_stays_flat(tmp_path: Path) -> None:
    run(tmp_path, 512 * MIB, 50)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_R3_five_gibibytes_pass_in_flat_memory(tmp_path: Path) -> None:
    run(tmp_path, 5 * GIB, 500)


def stopped(tmp_path: Path, seconds: float) -> None:
    # The rest, when it is stopped, is far more than all buffers on its way take.
    size, before_it_stops = 256 * MIB, 32 * MIB
    with world(tmp_path) as w:
        relay = w.serve()
        receiver = w.receive("bob", "--accept", "all", "--no-fsync", "--idle", "5m")
        with Proxy(w.address, limit=before_it_stops) as proxy:
            sender = w.push("alice", "bob", sparse(tmp_path, size), "--idle", "5m", relay=proxy.address)
            held_up(w, proxy, sender)
            receiver.signal(signal.SIGSTOP)
            before = relay.resident
            proxy.release()
            # Not for luck: how long it is stopped is what is being tested.
            time.sleep(seconds)
            assert relay.resident - before < MOST_GROWTH
            assert sender.popen.poll() is None
            receiver.signal(signal.SIGCONT)
            finished(w, receiver, sender, size, 200)


def test_R3_a_receiver_that_stops_reading_costs_the_relay_nothing(tmp_path: Path) -> None:
    stopped(tmp_path, 7)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_R3_a_receiver_that_stops_reading_for_a_minute_goes_on_afterwards(tmp_path: Path) -> None:
    stopped(tmp_path, 60)
