"""The same load with every peer, in turn, round after round, and a table of it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.loads import MIB, Load
from tests.bench.peers import Peer
from tests.bench.processes import Failed, Missing, Stage

ROLES = ("sender", "relay", "receiver")


@dataclass(frozen=True)
class Result:
    """One run. CPU seconds and peak memory are of whole processes, start-up included, and by role.

    Where a role has several processes, both are their sums.
    """

    seconds: float
    transfer: float | None
    cpu: dict[str, float]
    resident: dict[str, int]


@dataclass
class Results:
    """Of every peer that could run, in the order of ``peers``; and why the others could not, by name."""

    peers: tuple[type[Peer], ...]
    runs: dict[Peer, list[Result]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, kind: type[Peer]) -> tuple[Peer, list[Result]] | None:
        return next(((peer, runs) for peer, runs in self.runs.items() if type(peer) is kind), None)


def compare(load: Load, peers: tuple[type[Peer], ...], turns: int, folder: Path, kept: Path | None) -> Results:
    """A warm-up that is not counted, then so many rounds."""
    results = Results(peers)
    for number, kind in enumerate(peers):
        peer = kind(folder / f"peer-{number}", kept)
        try:
            peer.title = f"{peer.name} {peer.version()}".strip()
            results.runs[peer] = []
        except Missing as reason:
            results.missing[peer.name] = str(reason)
    for turn in range(turns + 1):
        for peer in list(results.runs):
            try:
                result = measure(peer, folder / "run", load)
            except Failed as reason:
                results.missing[peer.name] = f"failed in {f'round {turn}' if turn else 'the warm-up'}: {reason}"
                del results.runs[peer]
                tell(f"{peer.name}: {results.missing[peer.name]}")
                continue
            tell(f"{f'round {turn} of {turns}' if turn else 'warm-up'}: {peer.name}: {result.seconds:.2f} s")
            if turn:
                results.runs[peer].append(result)
    return results


def measure(peer: Peer, folder: Path, load: Load) -> Result:
    """One run of one peer, verified; nothing of it is left."""
    stage = Stage(folder, load.source, load.limit)
    try:
        try:
            sender, transfer = peer.run(stage)
        finally:
            stage.close()
        load.check(stage.into)
        return Result(
            sender.ended - sender.begun,
            transfer,
            {role: sum(child.cpu for child in stage.children if child.role == role) for role in ROLES},
            {role: sum(child.resident for child in stage.children if child.role == role) for role in ROLES},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(results: Results, floors: tuple[type[Peer], ...], *, alone: bool) -> str:
    """As Markdown. Ratios are to the first of ``floors`` that ran; ``alone``: also of the transfers alone."""
    found = next((one for kind in floors if (one := results.of(kind))), None)
    floor = found[1] if found else []
    roles = " / ".join(ROLES)
    times = [("whole sender, s", whole), ("transfer alone, s", transfers)][: 2 if alone else 1]
    rows = [["peer", *(text for name, _ in times for text in (name, "ratio")), f"CPU s, {roles}", f"peak MiB, {roles}"]]
    for kind in results.peers:
        if (ran := results.of(kind)) is None:
            rows.append([kind.name, "missing", *["-"] * (len(rows[0]) - 2)])
            continue
        peer, runs = ran
        has = [role for role in ROLES if any(run.resident[role] for run in runs)]
        cpu = {role: f"{median(run.cpu[role] for run in runs):.2f}" for role in has}
        peak = {role: f"{max(run.resident[role] for run in runs) / MIB:.0f}" for role in has}
        cells = [text for _, of in times for text in (spread(of(runs)), ratio(of(runs), of(floor)))]
        rows.append([peer.title, *cells, *(" / ".join(one.get(role, "-") for role in ROLES) for one in (cpu, peak))])
    to = f"ratios are to {found[0].name}" if found else "there are no ratios: what they would be to is missing"
    reasons = [f"Missing: {name}: {reason}" for name, reason in results.missing.items()]
    return "\n".join([markdown(rows), "", f"Seconds are medians (minimum to maximum); {to}.", *reasons])


def markdown(rows: list[list[str]]) -> str:
    """A table, its columns aligned for those who read it as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def ratio(values: list[float], floor: list[float]) -> str:
    return f"{median(values) / median(floor):.1f}" if values and floor else "-"


def whole(runs: list[Result]) -> list[float]:
    return [run.seconds for run in runs]


def transfers(runs: list[Result]) -> list[float]:
    return [run.transfer for run in runs if run.transfer is not None]
