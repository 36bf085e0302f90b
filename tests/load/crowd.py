"""Thousands of clients at one relay, then transfers beside them, then goodbye to all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

from tests.load.generator import Generator
from tests.load.parts import ASKING
from tests.load.relay import RelayProcess

_GENERATORS = 3
_IDLE = 30.0  # seconds for which the crowd is only looked at: a keepalive each way of everybody's
_ASKED_EVERY = 0.05
_GRACE = 60.0
KIB, MIB = 1024, 1024 * 1024

Figures = dict[str, Any]


class Crowded:
    """One relay, its crowd, and what was found wrong so far."""

    def __init__(self, clients: int, transfers: int, stack: ExitStack) -> None:
        self.clients = clients
        self.transfers = transfers
        self.problems: list[str] = []
        self.figures: Figures = {"clients": clients, "transfers": transfers}
        self._stack = stack
        self._relay = RelayProcess()
        stack.callback(self._relay.close)
        self._empty = self._relay.resident
        self._crowd: list[Generator] = []

    def started(self, part: str, numbers: range, pause: float = 0.0) -> Generator:
        generator = Generator(part, self._relay.port, self._relay.key, numbers, pause)
        self._stack.callback(generator.close)
        return generator

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """How long the block takes, and the relay's CPU meanwhile."""
        begun, cpu = time.monotonic(), self._relay.cpu
        yield
        self.figures[name] = {"seconds": time.monotonic() - begun, "cpu": self._relay.cpu - cpu}

    def check(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.problems.append(f"{what}: {found}, not {wanted}")

    def register(self) -> None:
        """All clients come, and the relay is looked at while they are here."""
        starts = [self.clients * part // _GENERATORS for part in range(_GENERATORS + 1)]
        with self.measured("registering"):
            self._crowd = [self.started("crowd", range(first, last)) for first, last in pairwise(starts)]
            for generator in self._crowd:
                generator.ready()
        self.figures["resident"] = self._relay.resident - self._empty
        with self.measured("idle"):
            time.sleep(_IDLE)

    def ask(self) -> None:
        """Who is here, while nothing else goes on; and then while transfers are under way."""
        self._prober = self.started("prober", range(1), _ASKED_EVERY)
        self._prober.ready()
        self.figures["who"] = self._prober.ask("page")["times"]
        self._everybody()

    def _everybody(self) -> None:
        with self.measured("everybody"):
            self.check("names in a whole list", self._prober.ask("everybody")["names"], self.clients)

    def transfer(self) -> None:
        """All transfers at once, as fast as they go."""
        numbers = range(self.transfers)
        receivers = self.started("receivers", numbers)
        receivers.ready()
        senders = self.started("senders", numbers)
        senders.ready()
        resident = self._relay.resident
        self.check("transfers under way", senders.ask("start")["under_way"], self.transfers)
        before = receivers.ask("count")
        with self.measured("under_way"):
            self._prober.say("page")
            deadline = time.monotonic() + ASKING
            most_resident = most_pipes = 0
            while time.monotonic() < deadline:
                most_resident = max(most_resident, self._relay.resident)
                most_pipes = max(most_pipes, self._relay.pipes)
                time.sleep(0.5)
            self.figures["who_under_way"] = self._prober.heard()["times"]
        after = receivers.ask("count")
        self.figures["moved"] = sum(after["bytes"]) - sum(before["bytes"])
        self.figures["transfer_resident"] = most_resident - resident
        self.figures["transfer_pipes"] = most_pipes
        still = [now - then for now, then in zip(after["bytes"], before["bytes"], strict=True)]
        self.check("transfers that did not move", still.count(0), 0)
        senders.ask("finish")
        self.check("transfers that ended well", receivers.ask("ended")["ended"], self.transfers)
        sent, received = senders.ask("count"), receivers.ask("count")
        self.check("bytes that arrived", received["bytes"], sent["bytes"])
        self.problems += sent["problems"] + received["problems"]
        for generator in (senders, receivers, self._prober):
            generator.close()

    def dismiss(self) -> None:
        """The relay ends: each client must hear goodbye."""
        lost = sum(generator.ask("state")["lost"] for generator in self._crowd)
        self.check("clients that were lost", lost, 0)
        with self.measured("goodbye"):
            begun = self._relay.drain()
            for generator in self._crowd:
                generator.say("dismissed")
            answers = [generator.heard() for generator in self._crowd]
        self.figures["last_goodbye"] = max(answer["last"] for answer in answers) - begun
        self.check("clients that heard goodbye", sum(answer["dismissed"] for answer in answers), self.clients)
        self.check("the relay's exit", self._relay.ended(_GRACE), 0)
        for answer in answers:
            self.problems += answer["problems"]


def crowd(clients: int, transfers: int) -> tuple[list[list[str]], list[str], Figures]:
    """The table, what was not served, and all figures."""
    with ExitStack() as stack:
        load = Crowded(clients, transfers, stack)
        load.register()
        load.ask()
        load.transfer()
        load.dismiss()
    return table(load.figures), load.problems, load.figures


def table(of: Figures) -> list[list[str]]:
    clients, transfers = of["clients"], of["transfers"]
    registering, idle, under_way = of["registering"], of["idle"], of["under_way"]
    return [
        [f"registering {clients} clients, relay CPU each", f"{registering['cpu'] / clients * 1000:.2f} ms"],
        ["in all, with the generators on the same machine", f"{registering['seconds']:.0f} s"],
        ["memory of the relay for each", f"{of['resident'] / clients / KIB:.1f} KiB"],
        ["CPU of the relay while they only keep alive", f"{idle['cpu'] / idle['seconds'] * 100:.1f} % of a core"],
        ["who, one page of 100, p50 / p99", milliseconds(of["who"])],
        ["the same while transfers are under way", milliseconds(of["who_under_way"])],
        ["who, everybody", f"{of['everybody']['seconds']:.1f} s, of which relay CPU {of['everybody']['cpu']:.2f} s"],
        [f"{transfers} transfers, in all", f"{of['moved'] / under_way['seconds'] / MIB:.0f} MiB/s"],
        ["relay CPU for a GiB", f"{under_way['cpu'] / max(of['moved'], 1) * 1024 * MIB:.2f} s"],
        ["memory of the relay for each transfer", f"{of['transfer_resident'] / transfers / KIB:.0f} KiB"],
        ["kernel pipes, all transfers", f"{of['transfer_pipes'] / MIB:.0f} MiB"],
        ["goodbye to all, until the last one heard it", f"{of['last_goodbye']:.1f} s"],
    ]


def milliseconds(times: list[float]) -> str:
    return f"{median(times) * 1000:.0f} / {quantiles(times, n=100, method='inclusive')[98] * 1000:.0f} ms"
