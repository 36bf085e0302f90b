"""One run of a schedule, and what must hold in it whatever goes wrong.

A   what stands under a final name is what was sent, at any moment
B   nothing is put anywhere but into the destination, and nothing stays there but partials that are listed
C   nobody hangs, and nobody gives up before its time
D   once the faults are over the transfer completes, and has landed once: contents, mtimes, executable bits
E   what is durable at the receiver is never lost, and never sent again
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.proxy import BOTH, Cut, Direction
from tests.chaos.schedule import Acknowledged, Fault, Kind, Later, Passed, Said, Schedule, Victim
from tests.chaos.stage import Party, Stage, stage
from tests.chaos.trees import Node, sizes, snapshot
from tests.processes import Process

TICK = 0.01
# Without any sign of life: longer than every deadline of every party (see stage.SETTINGS).
HANG = 30.0
# For what ends by itself or at a signal.
SOON = 10.0
# What an item of a manifest takes besides its path, at most.
ITEM = 32
# Between the end of a process that gave up and the next attempt of the person in front of it.
BREATH = 0.3

EXITS = {
    (Victim.SENDER, Kind.INTERRUPT): {130, 0},
    (Victim.SENDER, Kind.TERMINATE): {143, 0},
    (Victim.RECEIVER, Kind.TERMINATE): {143},
    (Victim.RELAY, Kind.TERMINATE): {0, 1},  # 1: the grace was over
}
SIGNALS = {Kind.KILL: signal.SIGKILL, Kind.INTERRUPT: signal.SIGINT, Kind.TERMINATE: signal.SIGTERM}


def run(schedule: Schedule, folder: Path) -> Run:
    """Play it; AssertionError, with the schedule and what happened as notes, if something does not hold."""
    with stage(folder, schedule) as made:
        playing = Run(schedule, made)
        try:
            playing.play()
            playing.check_end()
        except Exception as error:
            error.add_note(f"\n{schedule}\n{repeat(schedule)}\n")
            error.add_note("\n".join(playing.log))
            error.add_note("\n".join(told(process) for process in made.started))
            raise
    return playing


def repeat(schedule: Schedule) -> str:
    """How to run it again."""
    if schedule.brief:
        return f"repeat it with: make pytest ARGS='tests/chaos -k brief-{schedule.seed}'"
    return f"repeat it with: make chaos SEED={schedule.seed}"


def told(process: Process) -> str:
    """The end of what a process has said."""
    said = [line for line in process.output if '"event": "progress"' not in line and '"event": "saved"' not in line]
    last = "\n    ".join([*said[-12:], *process.errors.splitlines()[-12:]])
    return f"{process.popen.args!r}: {process.popen.poll()}\n    {last}"


class Run:
    def __init__(self, schedule: Schedule, made: Stage) -> None:
        self.log: list[str] = []
        self.begun: list[Fault] = []
        self._schedule = schedule
        self._stage = made
        self._source: dict[str, dict[str, Node]] = {top: snapshot(made.source / top) for top in made.tops}
        self._sizes = {top: sizes(made.source / top) for top in made.tops}
        nodes = {path: node for tree in self._source.values() for path, node in tree.items()}
        manifest = sum(len(path.encode()) + ITEM for path in nodes)
        self.ledger = Ledger(sum(node.size for node in nodes.values()), manifest)
        self._pending = list(schedule.faults)
        self._ongoing: list[tuple[float, Callable[[], None]]] = []
        self._delivered: Process | None = None
        self._started = self._previous = self._alive = time.monotonic()
        self._vital: tuple[int, ...] = ()

    @property
    def _parties(self) -> dict[Victim, Party]:
        return self._stage.parties

    def _note(self, text: str) -> None:
        self._alive = time.monotonic()
        passed = self._stage.sender_link.passed[Direction.UP]
        self.log.append(
            f"{self._alive - self._started:6.2f} s, {passed:>9} passed, {self.ledger.durable:>9} durable: {text}"
        )

    # --- the course of events ---

    def play(self) -> None:
        """Until the push has succeeded, all faults that were begun are over, and everybody is back."""
        self._stage.open()
        self._started = self._previous = time.monotonic()
        while not (self._delivered and not self._ongoing and all(party.running for party in self._daemons())):
            self._watch()
            if self._pending and not self._delivered and self._reached(self._pending[0]):
                self._begin(self._pending.pop(0))
            for due in [due for due in self._ongoing if due[0] <= time.monotonic()]:
                self._ongoing.remove(due)
                due[1]()
            for party in self._parties.values():
                self._look_after(party)
            time.sleep(TICK)

    def _daemons(self) -> list[Party]:
        return [party for party in self._parties.values() if party.who is not Victim.SENDER]

    def _watch(self) -> None:
        """Take in what was said, look at the destination, and see that something moves."""
        self.ledger.see(len(self._stage.sender_link.uploads))
        for who in (Victim.SENDER, Victim.RECEIVER):
            self.ledger.keep(self._parties[who].progress())
        for path in self._stage.final():
            assert path.name in self._sizes, f"A: {path.name!r} was never sent"
            assert sizes(path) == self._sizes[path.name], f"A: {path.name!r} stands there and is not whole"
        vital = (self._stage.sender_link.passed[Direction.UP] // 100_000, self.ledger.durable)
        if vital != self._vital:
            self._vital, self._alive = vital, time.monotonic()
        assert time.monotonic() - self._alive < HANG, "C: nothing moves any more"

    def _look_after(self, party: Party) -> None:
        """Start its next process, or judge how the last one ended."""
        process = party.process
        if process is None:
            if time.monotonic() >= party.again and not (party.who is Victim.SENDER and self._delivered):
                self._note(f"{party.who.value} starts")
                party.process, party.struck = party.start(), frozenset()
        elif process.popen.poll() is not None:
            code = process.wait(SOON)
            self._note(f"{party.who.value} has ended with {code}")
            self.ledger.see(len(self._stage.sender_link.uploads))
            self.ledger.keep(party.progress())
            self._judge(party, process, code)
            party.ended.append(process)
            party.process = None
            party.again = max(party.again, time.monotonic() + (0.0 if party.struck else BREATH))
            if party.who is Victim.RECEIVER:
                self._check_kept()
            if party.who is Victim.SENDER and not self._delivered:
                self.ledger.doom(self._stage.sender_link.live_uploads())

    def _judge(self, party: Party, process: Process, code: int) -> None:
        assert "Traceback" not in process.errors, f"C: {party.who.value} broke: {process!r}"
        delivered = any(event["event"] == "delivered" for event in process.events)
        # A signal that comes when everything is over may still hit the interpreter's own end.
        struck = delivered and party.struck and code in party.struck | {-signal.SIGINT, -signal.SIGTERM}
        if party.who is Victim.SENDER and (code == 0 or struck):
            assert delivered, f"C: the push ended with 0 without a word: {process!r}"
            self._delivered = process
        elif code in party.struck:
            pass
        elif party.who is Victim.SENDER:
            accepted = any(event["event"] == "accepted" for event in process.events)
            # Their Ctrl-C is their word: whether it ends a push is the program's choice.
            ended = any(fault.victim is Victim.RECEIVER and fault.kind is Kind.TERMINATE for fault in self.begun)
            excused = {3, 6} if not accepted else set()
            assert code in excused | ({3, 4, 6} if ended else set()), f"C: the push gave up: {process!r}"
        else:
            early = party.who is Victim.RECEIVER and not any(each["event"] == "registered" for each in process.events)
            assert (early, code) == (True, 6), f"C: the {party.who.value} gave up: {process!r}"

    # --- faults ---

    def _reached(self, fault: Fault) -> bool:
        victim = self._parties.get(fault.victim)
        if victim is not None and not (victim.running and victim.process and victim.process.events):
            return False  # nobody to hit, or an interpreter that is still starting
        match fault.at:
            case Passed(fraction):
                return self._stage.sender_link.passed[Direction.UP] >= fraction * self.ledger.total
            case Acknowledged(fraction):
                return self.ledger.durable >= fraction * self.ledger.total
            case Later(seconds):
                return time.monotonic() >= self._previous + seconds
            case Said(who, event):
                return self._parties[who].said(event)

    def _begin(self, fault: Fault) -> None:
        self._check_landed()
        self._note(repr(fault))
        self.begun.append(fault)
        self.ledger.fault()
        self._previous = time.monotonic()
        over = self._hit_link(fault) if fault.victim in self._stage.links else self._hit_process(fault)
        if over is None:
            self.ledger.lose(self._stage.sender_link.passed[Direction.UP])
        else:
            self._ongoing.append((self._previous + fault.seconds, lambda: self._end(fault, over)))

    def _end(self, fault: Fault, over: Callable[[], None]) -> None:
        self.ledger.lose(self._stage.sender_link.passed[Direction.UP])
        over()
        self._note(f"over: {fault.victim!r} {fault.kind!r}")
        self._check_landed()

    def _hit_link(self, fault: Fault) -> Callable[[], None] | None:
        """Do it; returns what ends it, if it lasts."""
        link = self._stage.links[fault.victim]
        if fault.kind in (Kind.RST, Kind.FIN):
            link.cut(Cut.RST if fault.kind is Kind.RST else Cut.FIN)
            return None
        link.hole(BOTH if fault.kind is Kind.HOLE else {Direction.UP})

        def over() -> None:
            if fault.kind is Kind.MUTE:
                link.cut(Cut.RST)
            link.restore()

        return over

    def _hit_process(self, fault: Fault) -> Callable[[], None] | None:
        party = self._parties[fault.victim]
        process = party.process
        assert process is not None
        if fault.kind is Kind.STOP:
            process.signal(signal.SIGSTOP)
            return lambda: process.signal(signal.SIGCONT)
        process.signal(SIGNALS[fault.kind])
        process.signal(signal.SIGCONT)  # it may have been stopped before
        party.struck = frozenset(EXITS.get((fault.victim, fault.kind), {-signal.SIGKILL}))
        party.again = self._previous + fault.seconds
        process.popen.wait(SOON)
        return None

    # --- what must hold ---

    def _check_landed(self) -> None:
        for path in self._stage.final():
            assert path.name in self._source, f"A: {path.name!r} was never sent"
            assert snapshot(path) == self._source[path.name], f"A: {path.name!r} is not what was sent"
        assert not self._stage.strangers(), f"B: {self._stage.strangers()} was put beside the destination"

    def _stages(self) -> set[Path]:
        return set(self._stage.stages("bob"))

    def _check_kept(self) -> None:
        """While no receiver runs: what is kept is listed, and is at least what was said to be durable."""
        partials = self._stage.partials()
        paths = {Path(str(partial["path"])) for partial in partials}
        assert self._stages() == paths, f"B: {self._stages()} is there, {paths} is listed"
        if not self._stage.final() and self.ledger.durable:
            assert len(partials) == 1, f"E: {partials} is listed"
            kept = int(str(partials[0]["bytes"]))
            assert kept >= self.ledger.durable, f"E: {self.ledger.durable} bytes were durable, {kept} are kept"
            self.ledger.keep(kept)

    def check_end(self) -> None:
        """After :meth:`play`."""
        self._check_landed()
        names = {path.name for path in self._stage.final()}
        assert names == set(self._stage.tops), f"D: {names} has landed, {self._stage.tops} was sent"
        deadline = time.monotonic() + SOON
        while self._stages() and time.monotonic() < deadline:
            time.sleep(TICK)
        partials = self._stage.partials()
        assert not self._stages(), f"B: {self._stages()} is left, {partials} is listed"
        assert not partials, f"B: {partials} is listed"
        for who, ready, code in ((Victim.RECEIVER, "registered", 143), (Victim.RELAY, "listening", 0)):
            process = self._parties[who].process
            assert process is not None
            process.event(ready)
            process.signal(signal.SIGTERM)
            assert process.wait(SOON) == code, f"C: {process!r}"
        for process in self._stage.started:
            assert "Traceback" not in process.errors, f"C: {process!r}"
        self._check_landed()
        again = {top: snapshot(self._stage.source / top) for top in self._stage.tops}
        assert again == self._source, "B: the source has changed"
        self.ledger.check(self._stage.sender_link.uploads)
