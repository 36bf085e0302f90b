"""The plain TCP copy, alone and through relays that are handed bare bytes: glide's own bridge among them.

All of these have the same sender and the same receiver (:mod:`tests.bench.plain`), so that what differs is the relay.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import glide
from tests.bench import bridge, plain, processes
from tests.bench.peers import Peer
from tests.bench.processes import READY, Child, Stage, said_by, tool


@dataclass(frozen=True)
class Place:
    """Where the two ends are, and where the relay is: their addresses, and how a process is started there."""

    ends: str = "127.0.0.1"
    relay: str = "127.0.0.1"
    at_ends: tuple[str, ...] = ()
    at_relay: tuple[str, ...] = ()


LOOPBACK = Place()


class Plain(Peer):
    """Nothing between the two ends."""

    name = "plain TCP, no relay"

    def __init__(self, place: Place = LOOPBACK) -> None:
        self.place = place

    def version(self) -> str:
        return "sendfile"

    def run(self, stage: Stage) -> tuple[Child, float | None]:
        behind, port = processes.free_ports(2)
        program = (sys.executable, plain.__file__)
        arrived = stage.into / stage.source.name
        receive = (*program, "receive", self.place.ends, str(behind), arrived)
        receiver = stage.start("receiver", *receive, inside=self.place.at_ends)
        stage.listens(receiver, behind)
        if command := self.relay(stage.folder, port, behind):
            relay = stage.start("relay", *command, inside=self.place.at_relay)
            stage.listens(relay, port)
            host, port = self.place.relay, stage.reach(port)
        else:
            host, port = self.place.ends, stage.reach(behind)
        send = (*program, "send", host, str(port), stage.source)
        sender = stage.start("sender", *send, inside=self.place.at_ends)
        stage.exits(sender)
        stage.exits(receiver, READY)
        return sender, float(stage.says(sender, r"seconds (\S+)")[1])

    def relay(self, folder: Path, port: int, behind: int) -> tuple[str | Path, ...]:
        """The command of a relay that listens on ``port`` and leads to the receiver at ``behind``; none, if none is."""
        return ()


class HAProxy(Plain):
    """A plain relay, which splices in the kernel: the floor for anything with a relay.

    As fast as it can be made: with ``splice-auto`` it copies instead, which costs three times the CPU, and with
    pipes of 64 KiB, its default, twice.
    """

    name = "HAProxy"
    CONFIG = """\
global
    maxconn 64
    tune.pipesize 1048576
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 10s
    timeout client 10m
    timeout server 10m
listen relay
    bind {here}:{port}
    server receiver {there}:{behind}
"""

    def version(self) -> str:
        return said_by(tool("haproxy"), "-v").removeprefix("HAProxy version ").split()[0]

    def relay(self, folder: Path, port: int, behind: int) -> tuple[str | Path, ...]:
        config = folder / "haproxy.cfg"
        text = self.CONFIG.format(here=self.place.relay, port=port, there=self.place.ends, behind=behind)
        config.write_text(text, "ascii")
        return tool("haproxy"), "-db", "-f", config


class Socat(Plain):
    """A plain relay that reads and writes, 256 KiB at a time."""

    name = "socat"

    def version(self) -> str:
        said = said_by(tool("socat"), "-V", line="socat version")
        return said.removeprefix("socat version ").split()[0]

    def relay(self, folder: Path, port: int, behind: int) -> tuple[str | Path, ...]:
        listen = f"TCP4-LISTEN:{port},bind={self.place.relay},reuseaddr"
        return tool("socat"), "-b", "262144", listen, f"TCP4:{self.place.ends}:{behind}"


class Bridge(Plain):
    """glide's bridge, without anything around it. ``limits`` are changes of the relay's, as ``chunk=65536``."""

    ours = True

    def __init__(self, place: Place = LOOPBACK, limits: tuple[str, ...] = ()) -> None:
        super().__init__(place)
        self.name = ", ".join(["glide's bridge", *limits])
        self.limits = limits

    def version(self) -> str:
        return glide.__version__

    def relay(self, folder: Path, port: int, behind: int) -> tuple[str | Path, ...]:
        where = (self.place.relay, str(port), self.place.ends, str(behind))
        return sys.executable, bridge.__file__, *where, *self.limits
