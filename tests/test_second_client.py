"""Promise C8: the page docs/protocol.md suffices to write another client.

`second_client.py` was written from that page alone. Here it sends to, and receives from, the real commands through a
real relay, each a process of its own.
"""

from __future__ import annotations

import ast
import re
import sys
from base64 import b32encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Event, Process, World, world

SECOND_CLIENT = Path(__file__).with_name("second_client.py")
BRIM = 65_519  # plaintext bytes in a full record
SIZE = 3 * 1024 * 1024 + 12_345


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.serve()
        yield made


def second(w: World, person: str, command: str, *arguments: str) -> Process:
    """The second client, started."""
    address, _, _ = w.address.partition("#")
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
    assert said["records"] == 2 + -(-(size + 200) // BRIM)


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
