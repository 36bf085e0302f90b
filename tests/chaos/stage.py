"""Who takes part in a run: a relay, a sender and a receiver with a proxy each, their processes and their folders."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.proxy import HERE, Proxy
from tests.chaos.schedule import Schedule, Victim
from tests.processes import Process, World

# As short as a busy machine allows, so that a run is: a fault that nobody announces is found by these.
SETTINGS = {
    "handshake_timeout": "2s",
    "keepalive": "300ms",
    "lost_after": "2s",
    "idle": "4s",
    "retry": "20s",
    "grace": "500ms",
    "ask_timeout": "10s",
}

# Below what Linux gives to connections, so that nobody takes the port while the relay is away.
PORTS = range(20_000, 32_000)


@dataclass
class Party:
    """One role: the process that has it now, if any, and when it gets the next one."""

    who: Victim
    start: Callable[[], Process]
    process: Process | None = None
    again: float = 0.0
    struck: frozenset[int] = frozenset()  # the exit codes that a signal of ours explains
    ended: list[Process] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.popen.poll() is None

    def said(self, event: str) -> bool:
        """True if any of its processes has reported that."""
        processes = [*self.ended, *([self.process] if self.process else [])]
        return any(each["event"] == event for process in processes for each in tuple(process.events))

    def progress(self) -> int:
        """The most bytes that its process has reported as durable."""
        events = tuple(self.process.events) if self.process else ()
        return max((event["bytes"] for event in events if event["event"] == "progress"), default=0)


class Stage(World):
    """alice pushes the tree in ``source`` to bob, each through a link that can fail."""

    def __init__(self, folder: Path, schedule: Schedule, links: ExitStack) -> None:
        super().__init__(folder, **SETTINGS)
        self.source = folder / "source"
        self.source.mkdir()
        schedule.tree.make(self.source)
        self.tops = schedule.tree.tops()
        self.port = free_port(schedule.seed)
        self.sender_link = links.enter_context(Proxy(self.port, schedule.rate))
        self.receiver_link = links.enter_context(Proxy(self.port))
        self.links = {Victim.SENDER_LINK: self.sender_link, Victim.RECEIVER_LINK: self.receiver_link}
        self.key = ""
        self.parties = {
            Victim.RELAY: Party(Victim.RELAY, self._serve),
            Victim.RECEIVER: Party(Victim.RECEIVER, self._receive),
            Victim.SENDER: Party(Victim.SENDER, self._push),
        }

    def open(self) -> None:
        """Start the relay and the receiver, and wait until a push would find them."""
        relay, receiver = self.parties[Victim.RELAY], self.parties[Victim.RECEIVER]
        relay.process = relay.start()
        self.key = relay.process.event("listening")["key"]
        receiver.process = receiver.start()
        receiver.process.event("registered")

    def partials(self) -> list[dict[str, object]]:
        """What `glide partials` lists for bob."""
        listing = self.run("bob", "partials", "--json")
        assert listing.wait() == 0, listing
        return [event for event in listing.events if event["event"] == "partial"]

    def final(self) -> list[Path]:
        """What stands under a final name."""
        return [self.into("bob") / name for name in self.landed("bob")]

    def strangers(self) -> set[str]:
        """Names beside the destination that nobody but glide can have put there."""
        mine = {"source", "relay", "alice", "bob", self.into("bob").name}
        return {path.name for path in self.folder.iterdir()} - mine

    def _serve(self) -> Process:
        return self.run("relay", "serve", "--port", str(self.port), "--json")

    def _receive(self) -> Process:
        into = ("--into", str(self.into("bob")), "--accept", "all")
        return self.run("bob", "receive", "--as", "bob", *into, *self._over(self.receiver_link))

    def _push(self) -> Process:
        paths = [str(self.source / top) for top in self.tops]
        return self.run("alice", "push", "bob", *paths, "--as", "alice", *self._over(self.sender_link))

    def _over(self, link: Proxy) -> tuple[str, ...]:
        return "--relay", f"{HERE}:{link.port}#{self.key}", "--json"


def free_port(seed: int) -> int:
    """One that nobody listens on; another for another seed, as far as there are enough."""
    for number in range(len(PORTS)):
        port = PORTS[(seed * 7 + number) % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HERE, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@contextmanager
def stage(folder: Path, schedule: Schedule) -> Iterator[Stage]:
    """A :class:`Stage`; its processes and links have ended when the block has."""
    with ExitStack() as links:
        made = Stage(folder, schedule, links)
        try:
            yield made
        finally:
            for process in made.started:
                if process.popen.poll() is None:
                    process.popen.kill()  # all at once: nothing is left to finish, and none waits for another
            for process in made.started:
                process.end()
