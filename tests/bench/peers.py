"""The peers, each with a relay of its own where it has one. All of them listen on 127.0.0.1 only.

A peer's ``run`` starts its processes and returns once its sender has ended, which with every one of them is
after the receiver has confirmed the whole file.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import glide
from tests.bench import processes
from tests.bench.processes import READY, Child, Failed, Missing, Stage, said_by, tool


class Peer(ABC):
    """One way to send a file. ``folder`` is its own for the whole bench; ``version`` raises Missing."""

    name: ClassVar[str]

    def __init__(self, folder: Path, kept: Path | None) -> None:
        self.title = self.name
        self.folder = folder
        self.kept = kept  # --peers
        folder.mkdir()

    @abstractmethod
    def version(self) -> str:
        """What is measured, asked once and first: it may have to be set up."""

    @abstractmethod
    def run(self, stage: Stage) -> tuple[Child, float | None]:
        """The sender, which has ended, and the seconds that the transfer alone took, if it tells."""


class Glide(Peer):
    """Homes are kept from run to run, so keys are made and pinned in the warm-up."""

    name = "glide"

    def version(self) -> str:
        return glide.__version__

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        command = (sys.executable, "-m", "glide")
        serve = (*command, "serve", "--host", "127.0.0.1", "--port", "0", "--json")
        relay = stage.start("relay", *serve, GLIDE_HOME=self.folder / "relay")
        heard = json.loads(stage.says(relay, r'(?m)^\{.*"event": ?"listening".*\}$')[0])
        address = f"127.0.0.1:{heard['port']}#{heard['key']}"
        receive = ("receive", "--as", "bob", "--into", stage.into, "--accept", "all", "--once", "--no-fsync", "--json")
        bob = stage.start("receiver", *command, *receive, "--relay", address, GLIDE_HOME=self.folder / "bob")
        stage.says(bob, r'"event": ?"registered"')
        push = ("push", "bob", stage.source, "--as", "alice", "--json")
        alice = stage.start("sender", *command, *push, "--relay", address, GLIDE_HOME=self.folder / "alice")
        stage.exits(alice)
        stage.exits(bob, READY)
        events = [json.loads(line) for line in alice.output().splitlines() if line.startswith("{")]
        times: dict[str, float] = {event["event"]: event["time"] for event in events}
        return alice, times["delivered"] - times["accepted"]


class Plain(Peer):
    """sendfile at one end, recv_into and write at the other, and nothing between."""

    name = "plain TCP, no relay"

    def version(self) -> str:
        return ""

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        (port,) = processes.free_ports(1)
        return self.copy(stage, port, port)

    def copy(self, stage: Stage, port: int, through: int) -> tuple[Child, float | None]:
        command = (sys.executable, processes.__file__)
        receiver = stage.start("receiver", *command, "receive", str(port), stage.into / stage.source.name)
        stage.listens(receiver, port)
        sender = stage.start("sender", *command, "send", str(through), stage.source)
        stage.exits(sender)
        stage.exits(receiver, READY)
        return sender, float(stage.says(sender, r"seconds (\S+)")[1])


class HAProxy(Plain):
    """The plain copy through HAProxy, which splices in the kernel: the floor for anything with a relay."""

    name = "plain TCP, HAProxy"
    CONFIG = """\
global
    maxconn 64
defaults
    mode tcp
    option splice-auto
    timeout connect 10s
    timeout client 10m
    timeout server 10m
listen relay
    bind 127.0.0.1:{port}
    server receiver 127.0.0.1:{behind}
"""

    def version(self) -> str:
        return said_by(tool("haproxy"), "-v").removeprefix("HAProxy version ").split()[0]

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        port, behind = processes.free_ports(2)
        config = stage.folder / "haproxy.cfg"
        config.write_text(self.CONFIG.format(port=port, behind=behind), "ascii")
        relay = stage.start("relay", tool("haproxy"), "-db", "-f", config)
        stage.listens(relay, port)
        return self.copy(stage, behind, port)


class Wormhole(Peer):
    """Mailbox and transit server together are the relay; neither end listens, so the bytes go through it."""

    name = "magic-wormhole"
    PACKAGES = ("magic-wormhole", "magic-wormhole-mailbox-server", "magic-wormhole-transit-relay")
    CODE = "1-bench-code"

    def version(self) -> str:
        if self.kept is None:
            raise Missing("give --peers DIR, where an environment for it is made")
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


class Scp(Peer):
    """scp to an sshd of its own, with throw-away keys; no relay. sshd is started for the one connection.

    The processes that these two start for themselves count in the CPU seconds, hardly in the memory.
    """

    name = "scp, no relay"
    SERVER = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
"""
    CLIENT = """\
Port {port}
IdentityFile {folder}/user
IdentitiesOnly yes
IdentityAgent none
BatchMode yes
UserKnownHostsFile {known}
StrictHostKeyChecking yes
"""

    def version(self) -> str:
        for name in ("scp", "ssh-keygen"):
            tool(name)
        for key in ("host", "user"):
            said_by(tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        (self.folder / "sshd_config").write_text(self.SERVER.format(folder=self.folder), "utf-8")
        said_by(tool("sshd"), "-t", "-f", self.folder / "sshd_config")
        return said_by(tool("ssh"), "-V").split(",")[0].split()[0]

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            host = (self.folder / "host.pub").read_text("ascii")
            (stage.folder / "known").write_text(f"[127.0.0.1]:{port} {host}", "ascii")
            config = stage.folder / "ssh_config"
            config.write_text(self.CLIENT.format(port=port, folder=self.folder, known=stage.folder / "known"), "utf-8")
            target = f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{stage.into}/"
            sender = stage.start("sender", tool("scp"), "-q", "-F", config, stage.source, target)
            server.settimeout(READY)
            try:
                peer, _ = server.accept()
            except TimeoutError as error:
                raise Failed("scp did not connect") from error
        with peer:
            sshd = (tool("sshd"), "-i", "-e", "-f", self.folder / "sshd_config")
            receiver = stage.start("receiver", *sshd, stdin=peer.fileno())
        stage.exits(sender)
        try:
            stage.exits(receiver, READY)
        except Failed:
            if receiver.popen.returncode != 255:  # what sshd ends with when the client has gone first
                raise
        return sender, None


PEERS: tuple[type[Peer], ...] = (Glide, Plain, HAProxy, Wormhole, Croc, Scp)
