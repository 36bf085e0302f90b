"""Promise C8: the page docs/protocol.md suffices to write another client.

`second_client.py` was written from that page alone. Here it sends to, and receives from, the real commands through a
real relay, each a process of its own.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import random
import re
import subprocess
import sys
import threading
from base64 import b32encode
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECOND_CLIENT = Path(__file__).with_name("second_client.py")
PATIENCE = 20  # seconds for each thing that is waited for
BRIM = 65_519  # plaintext bytes in a full record
SIZE = 3 * 1024 * 1024 + 12_345

pytestmark = pytest.mark.timeout(120)


class Program:
    """A process that says what it does in lines of JSON."""

    def __init__(self, home: Path, *args: str | Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.seen: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        with (home / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "GLIDE_HOME": str(home)},
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _next(self) -> dict[str, Any] | None:
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"nothing within {PATIENCE} seconds; {self.story()}") from None
        if line is None:
            return None
        said: dict[str, Any] = json.loads(line)
        self.seen.append(said)
        return said

    def until(self, event: str, **fields: str) -> dict[str, Any]:
        """The next event of this kind with these fields."""
        while (said := self._next()) is not None:
            if said.get("event") == event and all(said.get(name) == value for name, value in fields.items()):
                return said
        raise AssertionError(f"ended without {event}; {self.story()}")

    def result(self) -> dict[str, Any]:
        """The last line of a program that ends well, and by itself."""
        while self._next() is not None:
            pass
        assert self.process.wait(PATIENCE) == 0, self.story()
        return self.seen[-1]

    def story(self) -> str:
        """What it has said so far."""
        return f"said {self.seen}, and to stderr: {(self.home / 'stderr').read_text()}"

    def end(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


class World:
    """A relay, and the people around it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.relay = self._start("relay", "-m", "glide", "serve", "--host", "127.0.0.1", "--port", "0", "--json")
        listening = self.relay.until("listening")
        self.address = f"{listening['host']}:{listening['port']}"
        self.relay_key = listening["key"]

    def _start(self, who: str, *args: str | Path) -> Program:
        program = Program(self.folder / who, *args)
        self._stack.callback(program.end)
        return program

    def real(self, who: str, *args: str | Path) -> Program:
        """One of the real commands."""
        return self._start(who, "-m", "glide", *args, "--as", who, "--json", "--relay", self.address)

    def second(self, who: str, command: str, *args: str | Path) -> Program:
        """The second client."""
        key_file = self.folder / f"{who}.key"
        return self._start(
            who, SECOND_CLIENT, command, "--relay", self.address, "--key-file", key_file, "--as", who, *args
        )

    def into(self, who: str) -> Path:
        """Where files for somebody land."""
        folder = self.folder / f"for-{who}"
        folder.mkdir(exist_ok=True)
        return folder

    def file(self, size: int) -> Path:
        """A file to send."""
        path = self.folder / "a file.bin"
        path.write_bytes(random.Random(size).randbytes(size))
        return path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A relay that listens, and ends with the test together with all that was started around it."""
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def as_text(key: str) -> str:
    """A key as section 9 writes it, from hexadecimal digits."""
    return b32encode(bytes.fromhex(key)).decode().lower().rstrip("=")


@pytest.mark.parametrize("size", [SIZE, 0])
def test_C8_the_second_client_sends_to_the_real_one(world: World, size: int) -> None:
    path = world.file(size)
    bob = world.real("bob", "receive", "--into", world.into("bob"), "--accept", "all", "--once")
    bob.until("registered")

    said = world.second("alice", "push", "--to", "bob", path).result()

    saved = bob.until("saved")
    bob.result()
    assert [child.name for child in world.into("bob").iterdir()] == [path.name]
    assert (world.into("bob") / path.name).read_bytes() == path.read_bytes()
    assert saved["digest"] == f"blake3:{said['digest']}"
    assert (said["status"], said["bytes"], as_text(said["relay_key"])) == ("ok", size, world.relay_key)
    # the offer and DONE wait for an answer, each in a record of its own; all between is full but for the last
    assert said["records"] == 2 + -(-(size + 200) // BRIM)


@pytest.mark.parametrize("size", [SIZE, 0])
def test_C8_the_second_client_receives_from_the_real_one(world: World, size: int) -> None:
    path = world.file(size)
    carol = world.second("carol", "receive", "--into", world.into("carol"))
    world.relay.until("connected", name="carol")

    alice = world.real("alice", "push", "carol", path)

    delivered = alice.until("delivered")
    alice.result()
    said = carol.result()
    assert [child.name for child in world.into("carol").iterdir()] == [path.name]
    assert (world.into("carol") / path.name).read_bytes() == path.read_bytes()
    assert delivered["digest"] == f"blake3:{said['digest']}"
    assert (said["status"], said["bytes"], as_text(said["relay_key"])) == ("ok", size, world.relay_key)


def test_C8_two_second_clients_understand_each_other(world: World) -> None:
    path = world.file(SIZE)
    carol = world.second("carol", "receive", "--into", world.into("carol"))
    world.relay.until("connected", name="carol")

    alice = world.second("alice", "push", "--to", "carol", path)

    assert alice.result()["digest"] == carol.result()["digest"]
    assert (world.into("carol") / path.name).read_bytes() == path.read_bytes()


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
