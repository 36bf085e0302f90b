"""A workload as a picture: speeds in the floor's, round by round, and where the CPU seconds went."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tests.bench.processes import Missing
from tests.bench.rounds import ROLES, Results
from tests.bench.tables import Shape, whole
from tests.bench.tables import transfers as alone

OURS, OTHERS = "#1f6feb", "#9aa4b2"
SHADES = {"sender": "#1f6feb", "relay": "#e8912d", "receiver": "#3fa45b"}


def draw(title: str, results: Results, shape: Shape, path: Path) -> None:
    """Write a PNG. Raises :class:`Missing` without matplotlib, or if there is nothing to draw."""
    try:
        # Not pyplot: there is no window, and nothing global to clean up.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Missing(f"matplotlib cannot be imported ({error}); it is in glide's extra `bench`") from error
    found = results.of(shape.floors)
    if found is None:
        raise Missing("what speeds are compared with did not run")
    floor_peer, floor = found
    ran = list(results.runs.items())
    names = [peer.title for peer, _ in ran]
    speeds = [[other / own for own, other in zip(whole(runs), whole(floor), strict=True)] for _, runs in ran]
    middles = [median(each) for each in speeds]
    figure = Figure(figsize=(11, 1.6 + 0.45 * len(ran)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(names, middles, color=[OURS if peer.ours else OTHERS for peer, _ in ran])
    below = [middle - min(each) for middle, each in zip(middles, speeds, strict=True)]
    above = [max(each) - middle for middle, each in zip(middles, speeds, strict=True)]
    left.errorbar(middles, names, xerr=[below, above], fmt="none", ecolor="black", capsize=3, linewidth=1)
    if shape.alone:
        marks = [(peer.title, median(alone(floor)) / median(alone(runs))) for peer, runs in ran if alone(runs)]
        left.plot([at for _, at in marks], [name for name, _ in marks], "D", color="black", markersize=4)
    left.axvline(1, color="black", linewidth=0.8, linestyle=":")
    diamonds = "; diamonds: the transfers alone" if shape.alone else ""
    left.set_xlabel(f"speed by round, {floor_peer.name} being 1{diamonds}", fontsize=8)
    left.invert_yaxis()
    starts = [0.0] * len(ran)
    for role in ROLES:
        widths = [median(run.cpu[role] for run in runs) for _, runs in ran]
        right.barh(names, widths, left=starts, color=SHADES[role], label=role)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    right.set_xlabel("CPU seconds, medians", fontsize=8)
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=120)
