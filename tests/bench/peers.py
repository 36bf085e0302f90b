"""The peers, each with a relay of its own where it has one. All of them listen on 127.0.0.1 only.

A peer's ``run`` starts its processes and returns once its sender has ended, which with every one of them is
after the receiver has confirmed everything.
"""

from __future__ import annotations

import json
import platform
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import glide
from tests.bench import processes
from tests.bench.processes import READY, Child, Stage, said_by, tool


class Peer(ABC):
    """One way to send a file or a folder."""

    name: str
    ours: ClassVar[bool] = False  # its failure is the bench's
    delivers: ClassVar[bool] = True  # what was sent is to be found where it was sent to

    title: str
    folder: Path  # its own for a whole workload
    kept: Path  # --peers

    def prepare(self, folder: Path, kept: Path) -> None:
        """Set up what has to be, and find out its version. Raises :class:`Missing`."""
        self.folder, self.kept = folder, kept
        folder.mkdir()
        self.title = f"{self.name} ({self.version()})"

    @abstractmethod
    def version(self) -> str:
        """What is measured, asked once and first: it may have to be set up."""

    @abstractmethod
    def run(self, stage: Stage) -> tuple[Child, float | None]:
        """The sender, which has ended, and the seconds that the transfer alone took, if it tells."""


class Glide(Peer):
    """Homes are kept from run to run, so keys are made and pinned in the warm-up."""

    name = "glide"
    ours = True
    COMMAND = (sys.executable, "-m", "glide")

    def version(self) -> str:
        return glide.__version__

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        _, port, key = self.serve(stage)
        bob = self.receive(stage, port, key)
        alice = self.push(stage, stage.reach(port), key)
        stage.exits(alice)
        stage.exits(bob, READY)
        times: dict[str, float] = {event["event"]: event["time"] for event in self.events(alice)}
        return alice, times["delivered"] - times["accepted"]

    def serve(self, stage: Stage, port: int = 0) -> tuple[Child, int, str]:
        """A relay that listens, its port and its key."""
        serve = ("serve", "--host", "127.0.0.1", "--port", str(port), "--json")
        relay = stage.start("relay", *self.COMMAND, *serve, GLIDE_HOME=self.folder / "relay")
        heard = json.loads(stage.says(relay, r'(?m)^\{.*"event": ?"listening".*\}$')[0])
        return relay, int(heard["port"]), str(heard["key"])

    def receive(self, stage: Stage, port: int, key: str) -> Child:
        """A receiver that can be pushed to."""
        receive = ("receive", "--as", "bob", "--into", stage.into, "--accept", "all", "--once", "--no-fsync")
        home = self.folder / "bob"
        relay = ("--relay", f"127.0.0.1:{port}#{key}")
        bob = stage.start("receiver", *self.COMMAND, *receive, *relay, GLIDE_HOME=home)
        stage.says(bob, "You receive as bob")
        return bob

    def push(self, stage: Stage, port: int, key: str) -> Child:
        """A sender that has been started."""
        push = ("push", "bob", stage.source, "--as", "alice", "--json", "--relay", f"127.0.0.1:{port}#{key}")
        return stage.start("sender", *self.COMMAND, *push, GLIDE_HOME=self.folder / "alice")

    @staticmethod
    def events(child: Child) -> list[dict[str, Any]]:
        """What a process started with --json has told so far."""
        return [json.loads(line) for line in child.output().splitlines(keepends=True) if line.endswith("}\n")]


class Nothing(Peer):
    """What no program written in Python can do without: Python, started and ended."""

    name = "python -c pass"
    delivers = False

    def version(self) -> str:
        return platform.python_version()

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        python = stage.start("sender", sys.executable, "-c", "pass")
        stage.exits(python)
        return python, None


class Wormhole(Peer):
    """Mailbox and transit server together are the relay; neither end listens, so the bytes go through it."""

    name = "magic-wormhole"
    PACKAGES = ("magic-wormhole", "magic-wormhole-mailbox-server", "magic-wormhole-transit-relay")
    CODE = "1-bench-code"

    def version(self) -> str:
        environment = self.kept.resolve() / "wormhole"
        self.bin = environment / "bin"
        if not (environment / "installed").exists():
            print(f"installing magic-wormhole and its servers into {environment}", file=sys.stderr, flush=True)
            environment.parent.mkdir(parents=True, exist_ok=True)
            said_by(sys.executable, "-m", "venv", "--clear", environment, seconds=120)
            pip = (self.bin / "python", "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet")
            said_by(*pip, "install", *self.PACKAGES, seconds=600)
            (environment / "installed").touch()
        return said_by(self.bin / "wormhole", "--version").removeprefix("magic-wormhole ")

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        anywhere = "tcp:0:interface=127.0.0.1"
        twist = (self.bin / "twist", "--log-format", "text")
        mailbox = stage.start("relay", *twist, "wormhole-mailbox", "--port", anywhere, "--channel-db", ":memory:")
        transit = stage.start("relay", *twist, "transitrelay", "--port", anywhere)
        ports = [stage.says(server, r"starting on (\d+)")[1] for server in (mailbox, transit)]
        servers = ("--relay-url", f"ws://127.0.0.1:{ports[0]}/v1", "--transit-helper", f"tcp:127.0.0.1:{ports[1]}")
        command = (self.bin / "wormhole", *servers)
        options = ("--hide-progress", "--no-listen")
        receive = ("receive", *options, "--accept-file", "-o", stage.into, self.CODE)
        receiver = stage.start("receiver", *command, *receive)
        stage.says(receiver, "Waiting for sender")
        sender = stage.start("sender", *command, "send", *options, "--no-qr", "--code", self.CODE, stage.source)
        stage.exits(sender)
        stage.exits(receiver, READY)
        return sender, None


class Croc(Peer):
    """croc 9.6.7 or newer, which takes the code from the environment. Without compression: the bytes are random."""

    name = "croc"
    CODE = "7391-bench-code-words"

    def version(self) -> str:
        return said_by(tool("croc"), "--version").removeprefix("croc version ")

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        ports = processes.free_ports(5)
        here = f"127.0.0.1:{ports[0]}"
        relay = stage.start("relay", tool("croc"), "relay", "--host", "127.0.0.1", "--ports", ",".join(map(str, ports)))
        stage.listens(relay, *ports)
        command = (tool("croc"), "--ignore-stdin", "--no-compress", "--yes")
        send = ("--relay", here, "send", "--no-local", stage.source)
        sender = stage.start("sender", *command, *send, CROC_SECRET=self.CODE)
        # The one that sends makes the room. With --ip the receiver asks that address and does not look around
        # for others; --relay alone would have it call into the local network first.
        stage.says(sender, "(?i)code is")
        receive = ("--overwrite", "--ip", here, "--out", stage.into)
        receiver = stage.start("receiver", *command, *receive, CROC_SECRET=self.CODE)
        stage.exits(sender)
        stage.exits(receiver, READY)
        return sender, None
