"""A push that is cut in the middle: what the second run moves."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loads import GIB, Load
from tests.bench.peers import Glide
from tests.bench.processes import READY, Failed, Stage
from tests.bench.proxy import Proxy
from tests.bench.rounds import ROLES, tell
from tests.bench.tables import markdown

CUT = 0.4  # of the file, acknowledged
MOST = 0.61  # of the file, in the second run
# Before the cut comes near, the sender is slowed down: it tells twice a second how much is acknowledged.
BRAKE = 0.375  # of the file
SLOW = 1 / 64  # of the file, a second


@dataclass(frozen=True)
class Cut:
    """One transfer with one kill, in bytes. ``seconds`` are from the kill to the end of the sender.

    ``second`` is what passed between sender and relay, both ways, on the connections made after the kill.
    """

    size: int
    acknowledged: int
    first: int
    second: int
    seconds: float


@dataclass(frozen=True)
class Cuts:
    """By the role that was killed; and why the others came to nothing."""

    runs: dict[str, list[Cut]]
    missing: dict[str, str]


def cuts(load: Load, turns: int, folder: Path) -> Cuts:
    """Each role is killed once a round, with -9."""
    found = Cuts({role: [] for role in ROLES}, {})
    glide = Glide()
    glide.prepare(folder / "peer", folder)
    for turn in range(1, turns + 1):
        for role in ROLES:
            try:
                run = cut(glide, role, folder / "run", load)
            except Failed as reason:
                found.missing[role] = f"round {turn}: {reason}"
                tell(f"killed {role}: {found.missing[role]}")
                continue
            tell(f"round {turn} of {turns}: killed {role}: {run.second / GIB:.4f} GiB in the second run")
            found.runs[role].append(run)
    return found


def cut(glide: Glide, victim: str, folder: Path, load: Load) -> Cut:
    """Kill ``victim`` and start it again; the others find their way back by themselves. Nothing of it is left."""
    size = load.source.stat().st_size
    stage = Stage(folder, load.source, load.limit + (CUT - BRAKE + 0.1) / SLOW)
    try:
        relay, port, key = glide.serve(stage)
        with Proxy(port, int(BRAKE * size), SLOW * size) as proxy:
            first = proxy.count()
            bob = glide.receive(stage, port, key)
            alice = glide.push(stage, proxy.port, key)

            def acknowledged() -> int | None:
                told = [event["bytes"] for event in glide.events(alice) if event["event"] == "progress"]
                return told[-1] if told and told[-1] >= CUT * size else None

            kept = stage.until(alice, acknowledged, f"did not get to {CUT:.0%}", stage.limit)
            second = proxy.count()
            stage.kill({"sender": alice, "relay": relay, "receiver": bob}[victim])
            killed = time.monotonic()
            proxy.release()
            match victim:
                case "sender":
                    alice = glide.push(stage, proxy.port, key)
                case "relay":
                    glide.serve(stage, port)
                case "receiver":
                    bob = glide.receive(stage, port, key)
            stage.exits(alice)
            stage.exits(bob, READY)
            load.check(stage.into)
        return Cut(size, kept, first.both, second.both, alice.ended - killed)
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def table(found: Cuts, size: int) -> str:
    """As Markdown, a row for each kill."""
    most = MOST * size / GIB
    second = "second run moved, GiB"
    rows = [["killed", "acknowledged then, GiB", second, f"under {most:.4g}", "both runs, GiB", "from kill to end, s"]]
    for role in ROLES:
        for run in found.runs[role]:
            moved = (run.acknowledged, run.second, run.first + run.second)
            there, again, both = (f"{count / GIB:.4f}" for count in moved)
            under = "yes" if run.second / GIB < most else "no"
            rows.append([role, there, again, under, both, f"{run.seconds:.1f}"])
        if role in found.missing:
            rows.append([role, "failed", *["-"] * 4])
    counted = "Counted between sender and relay, both ways, without TCP's headers. What was killed was started again."
    return "\n".join([markdown(rows), "", counted, *(f"Failed: {role}: {why}" for role, why in found.missing.items())])
