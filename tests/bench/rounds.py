"""The same load with every peer, in turn, round after round."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.loads import Load
from tests.bench.peers import Peer
from tests.bench.processes import Failed, Missing, Stage

ROLES = ("sender", "relay", "receiver")


@dataclass(frozen=True)
class Result:
    """One run. CPU seconds and peak memory are of whole processes, start-up included, and by role.

    Where a role has several processes, both are their sums. ``relaying`` is the relay's CPU seconds without what it
    had used before it listened, where that is known.
    """

    seconds: float
    transfer: float | None
    cpu: dict[str, float]
    resident: dict[str, int]
    relaying: float | None


@dataclass
class Results:
    """Of every peer that could run, in their order, each with as many runs; and why the others did not, by name."""

    peers: Sequence[Peer]
    runs: dict[Peer, list[Result]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[Peer, str] = field(default_factory=dict)

    def of(self, kinds: Sequence[type[Peer]]) -> tuple[Peer, list[Result]] | None:
        """The first of these kinds that ran."""
        ran = ((peer, runs) for kind in kinds for peer, runs in self.runs.items() if type(peer) is kind)
        return next(ran, None)

    @property
    def good(self) -> bool:
        """glide itself did all that it was asked to."""
        return not any(peer.ours for peer in self.failed)


@dataclass(frozen=True)
class Course:
    """How each load is run: the folder that all takes place in, and what the command line says."""

    folder: Path
    kept: Path  # --peers
    turns: int
    only: tuple[str, ...] = ()  # words: peers with none of them in their names are left out
    link: tuple[str | Path, ...] = ()  # see Stage

    def compare(self, load: Load, peers: Sequence[Peer]) -> Results:
        """A warm-up that is not counted, then so many rounds, every second one backwards."""
        wanted = [peer for peer in peers if not self.only or any(word in peer.name.lower() for word in self.only)]
        results = Results(wanted)
        for number, peer in enumerate(wanted):
            try:
                peer.prepare(self.folder / f"peer-{number}", self.kept)
                results.runs[peer] = []
            except Missing as reason:
                results.missing[peer.name] = str(reason)
                tell(f"missing: {peer.name}: {reason}")
        for turn in range(self.turns + 1):
            for peer in list(results.runs)[:: -1 if turn % 2 else 1]:
                self._take(turn, peer, load, results)
        return results

    def _take(self, turn: int, peer: Peer, load: Load, results: Results) -> None:
        """One run of one peer. One that fails is not run again, and what it has done before is dropped."""
        try:
            result = measure(peer, Stage(self.folder / "run", load.source, load.limit, self.link), load)
        except Failed as reason:
            results.failed[peer] = f"in {f'round {turn}' if turn else 'the warm-up'}: {reason}"
            del results.runs[peer]
            tell(f"failed: {peer.name}, {results.failed[peer]}")
            return
        tell(f"{f'round {turn} of {self.turns}' if turn else 'warm-up'}: {peer.name}: {result.seconds:.3f} s")
        if turn:
            results.runs[peer].append(result)


def measure(peer: Peer, stage: Stage, load: Load) -> Result:
    """One run of one peer, verified; nothing of it is left."""
    try:
        try:
            sender, transfer = peer.run(stage)
        finally:
            stage.close()
        if peer.delivers:
            load.check(stage.into)
        relays = [child for child in stage.children if child.role == "relay"]
        relaying = [child.cpu - child.idle for child in relays if child.idle is not None]
        return Result(
            sender.ended - sender.begun,
            transfer,
            {role: sum(child.cpu for child in stage.children if child.role == role) for role in ROLES},
            {role: sum(child.resident for child in stage.children if child.role == role) for role in ROLES},
            sum(relaying) if relaying else None,
        )
    finally:
        shutil.rmtree(stage.folder, ignore_errors=True)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
