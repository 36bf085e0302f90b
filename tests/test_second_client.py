"""Promise C8: the page docs/protocol.md suffices to write another client.

`second_client.py` was written from that page alone. Here it sends to, and receives from, the real commands through a
real relay, each a process of its own.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
from base64 import b32encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Event, Process, Proxy, World, world

SECOND_CLIENT = Path(__file__).with_name("second_client.py")
BRIM = 65_519  # plaintext bytes in a full record
SIZE = 3 * 1024 * 1024 + 12_345
LARGE = 128 * 1024 * 1024 + 12_345  # two blocks of 64 MiB, and a rest
PAGE = 4_101  # bytes of a page's frame


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.serve()
        yield made


def second(w: World, person: str, command: str, *arguments: str, relay: str = "") -> Process:
    """The second client, started; at ``relay``, if it is not ours by its own address."""
    address, _, _ = (relay or w.address).partition("#")
    key_file = str(w.folder / f"{person}.key")
    flags = [command, "--relay", address, "--key-file", key_file, "--as", person]
    return w.run(person, *flags, *arguments, program=(str(SECOND_CLIENT),))


def said_by(process: Process) -> Event:
    """The last line of a second client that ends well, and by itself."""
    assert process.wait() == 0, process
    return process.events[-1]


def relay_key(w: World) -> str:
    return w.address.partition("#")[2]


def registered(w: World, person: str) -> None:
    assert w.relay is not None
    w.relay.event("connected", name=person)


def as_text(key: str) -> str:
    """A key as section 9 writes it, from hexadecimal digits."""
    return b32encode(bytes.fromhex(key)).decode().lower().rstrip("=")


@pytest.mark.parametrize("size", [SIZE, 0])
def test_C8_the_second_client_sends_to_the_real_one(w: World, size: int) -> None:
    path = w.file("a file.bin", size)
    bob = w.receive("bob", "--accept", "all", "--once")

    said = said_by(second(w, "alice", "push", "--to", "bob", str(path)))

    assert bob.wait() == 0, bob
    assert w.left("bob") == [path.name]
    assert (w.into("bob") / path.name).read_bytes() == path.read_bytes()
    assert bob.event("saved")["digest"] == f"blake3:{said['digest']}"
    assert (said["status"], said["bytes"], as_text(said["relay_key"])) == ("ok", size, relay_key(w))
    # the offer and DONE wait for an answer, each in a record of its own; all between is full but for the last
    assert said["records"] == 2 + -(-(size + PAGE + 200) // BRIM)
    assert said["data"] == size


@pytest.mark.parametrize("size", [SIZE, 0])
def test_C8_the_second_client_receives_from_the_real_one(w: World, size: int) -> None:
    path = w.file("a file.bin", size)
    carol = second(w, "carol", "receive", "--into", str(w.into("carol")))
    registered(w, "carol")

    alice = w.push("alice", "carol", path)

    assert alice.wait() == 0, alice
    said = said_by(carol)
    assert w.left("carol") == [path.name]
    assert (w.into("carol") / path.name).read_bytes() == path.read_bytes()
    assert alice.event("delivered")["digest"] == f"blake3:{said['digest']}"
    assert (said["status"], said["bytes"], as_text(said["relay_key"])) == ("ok", size, relay_key(w))


def test_C8_two_second_clients_understand_each_other(w: World) -> None:
    path = w.file("a file.bin", SIZE)
    carol = second(w, "carol", "receive", "--into", str(w.into("carol")))
    registered(w, "carol")

    alice = second(w, "alice", "push", "--to", "carol", str(path))

    assert said_by(alice)["digest"] == said_by(carol)["digest"]
    assert (w.into("carol") / path.name).read_bytes() == path.read_bytes()


def a_tree(w: World) -> Path:
    """Folders and files of several kinds, more than a page of the manifest holds."""
    top = w.folder / "a tree"
    for folder in ("", "a", "a/deep", "a-b", "empty", "många", "many"):
        (top / folder).mkdir()
    for number in range(130):
        (top / "many" / f"{number:03}").write_bytes(os.urandom(number))
    (top / "a" / "deep" / "large").write_bytes(os.urandom(SIZE))
    (top / "a" / "run").write_bytes(b"#!/bin/sh\n")
    (top / "a" / "run").chmod(0o755)
    (top / "a.txt").write_bytes(b"between a and a-b in other orders")
    (top / "a-b" / "nothing").touch()
    (top / "många" / "ö").write_bytes(b"not only ASCII")
    for number, path in enumerate(sorted([top, *top.rglob("*")], reverse=True)):  # a folder after what is in it
        os.utime(path, ns=(0, 1_500_000_000_123_456_000 + number * 1_000_000_000))
    return top


def found(top: Path) -> dict[str, tuple[bytes | None, bool, int]]:
    """All that is in a folder: contents, None for a folder; whether it is an executable file; the time."""
    return {
        str(path.relative_to(top)): (
            path.read_bytes() if path.is_file() else None,
            path.is_file() and path.stat().st_mode & 0o100 != 0,
            path.stat().st_mtime_ns,
        )
        for path in (top, *top.rglob("*"))
    }


def test_C8_the_second_client_sends_a_folder_to_the_real_one(w: World) -> None:
    top = a_tree(w)
    bob = w.receive("bob", "--accept", "all", "--once")

    said = said_by(second(w, "alice", "push", "--to", "bob", str(top)))

    assert bob.wait() == 0, bob
    assert w.left("bob") == [top.name]
    assert found(w.into("bob") / top.name) == found(top)
    assert said["data"] == said["bytes"]


def test_C8_the_second_client_receives_a_folder_from_the_real_one(w: World) -> None:
    top = a_tree(w)
    carol = second(w, "carol", "receive", "--into", str(w.into("carol")))
    registered(w, "carol")

    alice = w.push("alice", "carol", top)

    assert alice.wait() == 0, alice
    said = said_by(carol)
    assert w.left("carol") == [top.name]
    assert found(w.into("carol") / top.name) == found(top)
    assert alice.event("delivered")["digest"] == f"blake3:{said['digest']}"


def test_C8_two_second_clients_hand_over_an_empty_folder(w: World) -> None:
    top = w.folder / "nothing in it"
    top.mkdir()
    carol = second(w, "carol", "receive", "--into", str(w.into("carol")))
    registered(w, "carol")

    alice = second(w, "alice", "push", "--to", "carol", str(top))

    assert said_by(alice)["digest"] == said_by(carol)["digest"] == "00" * 32
    assert found(w.into("carol") / top.name) == found(top)


@pytest.mark.parametrize("killed", ["receiver", "sender"])
def test_C8_the_second_client_sends_only_the_rest_to_a_real_one_that_has_the_beginning(w: World, killed: str) -> None:
    path = w.file("large.bin", LARGE)
    bob = w.receive("bob", "--accept", "all", "--retry", "0s")
    with Proxy(w.address, limit=LARGE * 3 // 5) as proxy:  # however fast the machine is, it cannot be over before
        alice = second(w, "alice", "push", "--to", "bob", str(path), relay=proxy.address)
        durable = bob.progress(LARGE * 2 // 5)["bytes"]
        (bob if killed == "receiver" else alice).signal(signal.SIGKILL)
        if killed == "receiver":
            bob.wait()
        proxy.release()
        assert alice.wait() != 0
    if killed == "receiver":
        bob = w.receive("bob", "--accept", "all", "--once")
    else:
        bob.event("failed")

    said = said_by(second(w, "alice", "push", "--to", "bob", str(path)))

    if killed == "receiver":
        assert bob.wait() == 0, bob
    assert w.left("bob") == [path.name]
    assert (w.into("bob") / path.name).read_bytes() == path.read_bytes()
    assert said["bytes"] == LARGE
    assert 0 < said["data"] <= LARGE - durable


def test_C8_the_second_client_is_asked_only_for_what_is_not_there(w: World) -> None:
    top = a_tree(w)
    w.receive("bob", "--accept", "all", "--conflict", "skip")
    said_by(second(w, "alice", "push", "--to", "bob", str(top)))
    there = w.into("bob") / top.name
    (there / "many" / "129").unlink()

    said = said_by(second(w, "alice", "push", "--to", "bob", str(top)))

    assert said["data"] == 129
    assert found(there)["many/129"] == found(top)["many/129"]

    # what seems to be the same is not: that shows in the digests, and is asked for after END
    time = (there / "a" / "deep" / "large").stat().st_mtime_ns
    (there / "a" / "deep" / "large").write_bytes(bytes(SIZE))
    os.utime(there / "a" / "deep" / "large", ns=(time, time))

    said = said_by(second(w, "alice", "push", "--to", "bob", str(top)))

    assert said["data"] == SIZE
    assert (there / "a" / "deep" / "large (1)").read_bytes() == (top / "a" / "deep" / "large").read_bytes()


def test_C8_the_second_client_is_short_and_has_nothing_of_glide() -> None:
    source = SECOND_CLIENT.read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])

    assert len(source.splitlines()) <= 250
    assert imported - sys.stdlib_module_names <= {"noise", "msgspec", "blake3", "cryptography"}
    assert not re.search(r"__import__|importlib|exec\(|eval\(", source)
