"""Measure glide beside real peers; print a table for each workload. ``make bench ARGS="--workload files --rounds 3"``.

file: one big file. files: a folder of many small ones. resume: a transfer that is cut at 40 %, and goes on.
All is in /dev/shm where there is one, so that no disk takes part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench import resume, rounds
from tests.bench.loads import GIB, MIB, many_files, one_file
from tests.bench.peers import Croc, Glide, HAProxy, Peer, Plain, Wormhole
from tests.bench.rounds import tell
from tests.bench.ssh import Rsync, Scp

WITH_A_FILE: tuple[type[Peer], ...] = (Glide, Plain, HAProxy, Wormhole, Croc, Scp)
WITH_A_FOLDER: tuple[type[Peer], ...] = (Glide, Rsync, Scp, Wormhole, Croc)
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": MIB, "GIB": GIB}

# What a workload comes to: did glide do it, the table, and the figures for --json.
Came = tuple[bool, str, dict[str, Any]]


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?([KMG]?i?B?)", text.strip(), re.IGNORECASE)
    unit = found[2].upper() if found else "?"
    if found is None or unit not in UNITS or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 1GiB, 64MiB or a number of bytes")
    return int(found[1]) * UNITS[unit]


def number(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a number from 1 to {most}")
        return int(text)

    return parse


def file(options: argparse.Namespace, folder: Path) -> Came:
    """One file of --size."""
    need(folder, 2 * options.size)
    turns = options.rounds or 5
    load = one_file(made(folder / "load"), options.size)
    results = rounds.compare(load, WITH_A_FILE, turns, folder, options.peers)
    title = f"file: {options.size / MIB:g} MiB, rounds: {turns}"
    return compared(title, results, rounds.table(results, (HAProxy, Plain), alone=True))


def files(options: argparse.Namespace, folder: Path) -> Came:
    """--files of --file-size in --folders."""
    need(folder, 3 * options.files * max(options.file_size, 4096))  # magic-wormhole keeps a copy
    turns = options.rounds or 5
    load = many_files(made(folder / "load"), options.files, options.file_size, options.folders)
    results = rounds.compare(load, WITH_A_FOLDER, turns, folder, options.peers)
    what = f"{options.files} files of {options.file_size / 1024:g} KiB in {options.folders} folders"
    return compared(f"files: {what}, rounds: {turns}", results, rounds.table(results, (Rsync,), alone=False))


def cut(options: argparse.Namespace, folder: Path) -> Came:
    """One file of --size, cut."""
    need(folder, 2 * options.size)
    turns = options.rounds or 1
    load = one_file(made(folder / "load"), options.size)
    found = resume.cuts(load, turns, folder)
    title = f"resume: {options.size / MIB:g} MiB, cut at {resume.CUT:.0%}, rounds: {turns}"
    return not found.missing, f"{title}\n\n{resume.table(found, options.size)}", asdict(found)


WORKLOADS = {"file": file, "files": files, "resume": cut}


def compared(title: str, results: rounds.Results, table: str) -> Came:
    runs = {peer.title: [asdict(run) for run in done] for peer, done in results.runs.items()}
    return results.of(Glide) is not None, f"{title}\n\n{table}", {"runs": runs, "missing": results.missing}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def need(folder: Path, count: int) -> None:
    if shutil.disk_usage(folder).free < count + 64 * MIB:
        raise SystemExit(f"{folder.parent} has no room for what is sent and what arrives")


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the bench as Ctrl-C does: by way of every clean-up."""
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], default="all", help="what to do (default: all)")
    parser.add_argument("--size", type=size, default="1GiB", help="of the one file, as 64MiB (default: 1GiB)")
    parser.add_argument("--files", type=number(10**6), default=10_000, help="how many small ones (default: 10000)")
    parser.add_argument("--file-size", type=size, default="4KiB", help="of each of these (default: 4KiB)")
    parser.add_argument("--folders", type=number(10**4), default=100, help="that they are in (default: 100)")
    parser.add_argument(
        "--rounds",
        type=number(100),
        help="measured, after one warm-up (default: 5); of resume (default: 1, no warm-up)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures there")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where peers are installed that pip can install")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    shm = Path("/dev/shm")
    parent = shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())
    print(f"In {parent}; {os.cpu_count()} CPUs,", end=" ")
    print(f"{platform.system()} {platform.release()}, Python {platform.python_version()}", flush=True)
    good, facts = True, {"options": {name: str(value) for name, value in vars(options).items()}}
    for name in WORKLOADS if options.workload == "all" else [options.workload]:
        with tempfile.TemporaryDirectory(prefix="glide-bench-", dir=parent) as folder:
            try:
                done, text, facts[name] = WORKLOADS[name](options, Path(folder))
            except KeyboardInterrupt:
                tell("ended before its time")
                return 130
        good = good and done
        print(f"\n{text}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
