"""What the runs come to, as Markdown: medians, spreads and ratios, pure functions of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.loads import MIB
from tests.bench.peers import Peer
from tests.bench.rounds import ROLES, Result, Results


@dataclass(frozen=True)
class Shape:
    """Which columns a workload's table has.

    ``floors`` are the kinds that others are measured by, the first that ran counting. ``elsewhere`` stands in for the
    ratio of a peer that is missing, by its name: it was measured on another machine, and says so.
    """

    floors: Sequence[type[Peer]]
    whole: bool = True  # senders from their start to their exit
    alone: bool = False  # the transfers alone
    relaying: bool = False  # the relay's CPU seconds without its start, and their ratio
    digits: int = 2
    elsewhere: Mapping[str, float] = field(default_factory=dict)


def table(results: Results, shape: Shape) -> str:
    """A row for each peer, then what is to be said about it."""
    found = results.of(shape.floors)
    floor = found[1] if found else []
    roles = " / ".join(ROLES)
    times = [("whole sender, s", whole)] if shape.whole else []
    times += [("transfer alone, s", transfers)] if shape.alone else []
    head = ["peer", *(text for name, _ in times for text in (name, "ratio", "by round"))]
    head += [f"CPU s, {roles}", *(["relaying, CPU s", "ratio"] if shape.relaying else []), f"peak MiB, {roles}"]
    rows = [head]
    for peer in results.peers:
        runs = results.runs.get(peer)
        if runs is None:
            ratio = f"({shape.elsewhere[peer.name]:g})" if peer.name in shape.elsewhere else "-"
            said = "failed" if peer in results.failed else "missing"
            rows.append([peer.name, said, ratio, *["-"] * (len(head) - 3)])
            continue
        cpu = {role: median(run.cpu[role] for run in runs) for role in ROLES}
        peak = {role: max(run.resident[role] for run in runs) / MIB for role in ROLES}
        cells = [text for _, of in times for text in compared(of(runs), of(floor), shape.digits)]
        cpus = " / ".join(f"{cpu[role]:.2f}" if cpu[role] else "-" for role in ROLES)
        peaks = " / ".join(f"{peak[role]:.0f}" if peak[role] else "-" for role in ROLES)
        relays = [spread(relaying(runs), 2), times_as_much(relaying(runs), relaying(floor))] if shape.relaying else []
        rows.append([peer.title, *cells, cpus, *relays, peaks])
    return "\n".join([markdown(rows), "", *notes(results, shape, found[0] if found else None)])


def notes(results: Results, shape: Shape, floor: Peer | None) -> list[str]:
    """What the table means, and why it lacks what it lacks; each a paragraph's line."""
    to = f"Ratios of times are speeds, those of {floor.name} being 1" if floor else "There is nothing to take ratios to"
    lines = [f"Seconds are medians (minimum to maximum). {to}."]
    if shape.relaying:
        lines.append("The ratio of the relay's CPU seconds is what it takes to move the same bytes: less is better.")
    lines += [f"Failed: {peer.name}, {reason}" for peer, reason in results.failed.items()]
    for name, reason in results.missing.items():
        stands = f"; {shape.elsewhere[name]:g} was measured elsewhere and stands in" if name in shape.elsewhere else ""
        lines.append(f"Missing: {name}: {reason}{stands}.")
    return lines


def compared(values: list[float], floor: list[float], digits: int) -> list[str]:
    """Three cells: the times, the speed in the floor's, and the same taken round by round."""
    if not values or not floor:
        return [spread(values, digits), "-", "-"]
    rounds = [other / value for value, other in zip(values, floor, strict=True)]
    places = 2 if median(rounds) >= 0.1 else 3
    return [spread(values, digits), f"{median(floor) / median(values):.{places}f}", spread(rounds, places)]


def times_as_much(values: list[float], floor: list[float]) -> str:
    return f"{median(values) / median(floor):.2f}" if values and floor and median(floor) else "-"


def spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(rows: list[list[str]]) -> str:
    """A table, its columns aligned for those who read it as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def whole(runs: list[Result]) -> list[float]:
    return [run.seconds for run in runs]


def transfers(runs: list[Result]) -> list[float]:
    return [run.transfer for run in runs if run.transfer is not None]


def relaying(runs: list[Result]) -> list[float]:
    return [run.relaying for run in runs if run.relaying is not None]
