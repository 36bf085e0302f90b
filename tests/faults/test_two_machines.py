"""Two machines, as two network namespaces joined by a veth pair: the relay on one of them, bound with --host."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import World, world

MIB = 1024 * 1024

# Addresses for documentation (RFC 5737): nothing real is reached even if the namespaces leaked.
HERE, THERE = "192.0.2.1", "192.0.2.2"

needs_namespaces = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need root, Linux and iproute2",
)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """The names of two namespaces that can reach each other."""
    one, two = f"glide-{os.getpid()}-1", f"glide-{os.getpid()}-2"
    made = []
    try:
        for name in (one, two):
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "eth", "netns", one, "type", "veth", "peer", "name", "eth", "netns", two)
        for name, address in ((one, HERE), (two, THERE)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth")
            ip("-n", name, "link", "set", "eth", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield one, two
    finally:
        for name in made:
            ip("netns", "del", name)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def transfer(w: World, machines: tuple[str, str], size: int) -> None:
    one, two = machines
    for person, machine in (("relay", one), ("bob", one), ("alice", two)):
        w.prefixes[person] = ("ip", "netns", "exec", machine)
    w.serve("--host", HERE)
    assert w.address.startswith(HERE)
    receiver = w.receive("bob", "--accept", "all", "--once", "--no-fsync")
    sent = w.file("film", size)
    sender = w.push("alice", "bob", sent)
    assert sender.wait(240) == 0, sender
    assert receiver.wait(60) == 0, receiver
    assert digest(w.into("bob") / "film") == digest(sent)
    assert w.relay is not None
    assert any(event["event"] == "connected" and THERE in event["peer"] for event in w.relay.events)


@needs_namespaces
def test_a_file_crosses_from_one_machine_to_another(tmp_path: Path, machines: tuple[str, str]) -> None:
    with world(tmp_path) as w:
        transfer(w, machines, 48 * MIB)


@needs_namespaces
@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_gibibyte_crosses_from_one_machine_to_another(tmp_path: Path, machines: tuple[str, str]) -> None:
    with world(tmp_path) as w:
        transfer(w, machines, 1024 * MIB)
