"""Send one file with every peer, in turn, round after round; print one table. ``make bench ARGS="--rounds 3"``.

The file and everything else are in /dev/shm where there is one, so that no disk takes part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import FrameType

from tests.bench.peers import PEERS, Glide, HAProxy, Peer, Plain
from tests.bench.processes import Failed, Missing, Stage

MIB = 1 << 20
ROLES = ("sender", "relay", "receiver")
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": MIB, "GIB": 1 << 30}


@dataclass(frozen=True)
class Result:
    """One run. CPU seconds and peak memory are of whole processes, start-up included, and by role.

    Where a role has several processes, both are their sums.
    """

    seconds: float
    transfer: float | None
    cpu: dict[str, float]
    resident: dict[str, int]


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?([KMG]?i?B?)", text.strip(), re.IGNORECASE)
    unit = found[2].upper() if found else "?"
    if found is None or unit not in UNITS or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 1GiB, 64MiB or a number of bytes")
    return int(found[1]) * UNITS[unit]


def rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("1 to 100 rounds")
    return int(text)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_random(path: Path, count: int) -> None:
    with path.open("wb") as file:
        while count > 0:
            count -= file.write(os.urandom(min(count, MIB)))


def measure(peer: Peer, folder: Path, source: Path, expected: str) -> Result:
    """One run of one peer, verified; nothing of it is left."""
    stage = Stage(folder, source, limit=60 + source.stat().st_size / (20 * MIB))
    try:
        try:
            sender, transfer = peer.run(stage)
        finally:
            stage.close()
        found = [path.name for path in stage.into.iterdir()]
        if found != [source.name] or digest(stage.into / source.name) != expected:
            raise Failed(f"what arrived is not what was sent: {found}")
        return Result(
            sender.ended - sender.begun,
            transfer,
            {role: sum(child.cpu for child in stage.children if child.role == role) for role in ROLES},
            {role: sum(child.resident for child in stage.children if child.role == role) for role in ROLES},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bench(folder: Path, count: int, turns: int, kept: Path | None) -> tuple[dict[Peer, list[Result]], dict[str, str]]:
    """The results of every peer that can run here, and the reasons why the others do not."""
    source = folder / "file.bin"
    write_random(source, count)
    expected = digest(source)
    results: dict[Peer, list[Result]] = {}
    missing: dict[str, str] = {}
    for number, kind in enumerate(PEERS):
        peer = kind(folder / f"peer-{number}", kept)
        try:
            peer.title = f"{peer.name} {peer.version()}".strip()
            results[peer] = []
        except Missing as reason:
            missing[peer.name] = str(reason)
    for turn in range(turns + 1):
        for peer in list(results):
            try:
                result = measure(peer, folder / "run", source, expected)
            except Failed as reason:
                missing[peer.name] = f"failed in {f'round {turn}' if turn else 'the warm-up'}: {reason}"
                del results[peer]
                tell(f"{peer.name}: {missing[peer.name]}")
                continue
            tell(f"{f'round {turn} of {turns}' if turn else 'warm-up'}: {peer.name}: {result.seconds:.2f} s")
            if turn:
                results[peer].append(result)
    return results, missing


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def ratio(values: list[float], floor: list[float]) -> str:
    return f"{median(values) / median(floor):.1f}" if values and floor else "-"


def whole(runs: list[Result]) -> list[float]:
    return [run.seconds for run in runs]


def alone(runs: list[Result]) -> list[float]:
    return [run.transfer for run in runs if run.transfer is not None]


def table(results: dict[Peer, list[Result]]) -> str:
    """As Markdown, its columns aligned for those who read it as it is."""
    floors = [(runs, peer.name) for kind in (HAProxy, Plain) for peer, runs in results.items() if type(peer) is kind]
    floor, floor_name = floors[0] if floors else ([], "nothing")
    roles = " / ".join(ROLES)
    rows = [["peer", "whole sender, s", "ratio", "transfer alone, s", "ratio", f"CPU s, {roles}", f"peak MiB, {roles}"]]
    for peer, runs in results.items():
        has = [role for role in ROLES if any(run.resident[role] for run in runs)]
        cpu = {role: f"{median(run.cpu[role] for run in runs):.2f}" for role in has}
        peak = {role: f"{max(run.resident[role] for run in runs) / MIB:.0f}" for role in has}
        times = [text for of in (whole, alone) for text in (spread(of(runs)), ratio(of(runs), of(floor)))]
        rows.append([peer.title, *times, *(" / ".join(one.get(role, "-") for role in ROLES) for one in (cpu, peak))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([*lines, "", f"Seconds are medians (minimum to maximum); ratios are to {floor_name}."])


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the bench as Ctrl-C does: by way of every clean-up."""
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--size", type=size, default="1GiB", help="of the file, as 1GiB or 64MiB (default: 1GiB)")
    parser.add_argument("--rounds", type=rounds, default=5, help="measured, after one warm-up (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures there")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where peers are installed that pip can install")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="glide-bench-", dir=shm if os.access(shm, os.W_OK) else None) as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 2 * options.size + 64 * MIB:
            parser.error(f"{folder.parent} has no room for two files of this size")
        try:
            results, missing = bench(folder, options.size, options.rounds, options.peers)
        except KeyboardInterrupt:
            tell("ended before its time")
            return 130
    print(f"{options.size / MIB:g} MiB, rounds: {options.rounds}, in {folder.parent}; {os.cpu_count()} CPUs,", end=" ")
    print(f"{platform.system()} {platform.release()}, Python {platform.python_version()}\n")
    print(table(results))
    for peer, reason in missing.items():
        print(f"Missing: {peer}: {reason}")
    if options.json:
        runs = {peer.title: [asdict(run) for run in done] for peer, done in results.items()}
        facts = {"size": options.size, "runs": runs, "missing": missing}
        options.json.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    return 0 if any(type(peer) is Glide for peer in results) else 1


if __name__ == "__main__":
    sys.exit(main())
