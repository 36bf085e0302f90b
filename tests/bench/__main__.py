"""Measure glide beside real peers; print a table for each workload. ``make bench ARGS="--workload files --rounds 3"``.

file: one big file. bridge: the relay's bridge without cryptography, over loopback and between two network namespaces.
files: a folder of many small ones. small: one tiny file. link: a file over a long, thin link. resume: a transfer that
is cut at 40 %, and goes on. All is in /dev/shm where there is one, so that no disk takes part.
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
from pathlib import Path
from types import FrameType

from tests.bench.loads import GIB, MIB
from tests.bench.plots import draw
from tests.bench.processes import Missing, end_children
from tests.bench.rounds import Course, tell
from tests.bench.workloads import WORKLOADS, Outcome

SHM = Path("/dev/shm")
ROOT = Path(__file__).parent.parent.parent
OUT = ROOT / "build/bench"
PEERS = ROOT / ".venv-peers"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": MIB, "GIB": GIB}


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


def words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the bench as Ctrl-C does: by way of every clean-up, which takes seconds and is not interrupted."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = arguments.add_argument
    add("--workload", choices=[*WORKLOADS, "all"], action="append", help="what to do; may be repeated (default: all)")
    add("--only", type=words, default="", metavar="WORDS", help="only peers with one of these in their names")
    standard = ", ".join(f"{name} {each.rounds}" for name, each in WORKLOADS.items())
    add("--rounds", type=number(1000), help=f"measured, after a warm-up that resume goes without (default: {standard})")
    add("--size", type=size, default="1GiB", help="of the big file, as 64MiB (default: 1GiB)")
    add("--files", type=number(10**6), default=10_000, help="how many small ones (default: 10000)")
    add("--file-size", type=size, default="4KiB", help="of each of these (default: 4KiB)")
    add("--folders", type=number(10**4), default=100, help="that they are in (default: 100)")
    add("--small-size", type=size, default="1KiB", help="of the tiny one (default: 1KiB)")
    add("--link-size", type=size, default="200MB", help="of what goes over the link (default: 200MB)")
    add("--round-trip", type=float, default=0.1, metavar="SECONDS", help="of the link (default: 0.1)")
    add("--rate", type=size, default="25MB", help="of the link, a second (default: 25MB, which is 200 Mbit/s)")
    change = "the bridge once more, with these of the relay's limits changed, as chunk=65536; may be repeated"
    add("--bridge", action="append", default=[], metavar="LIMIT=NUMBER,...", help=change)
    add("--out", type=Path, default=OUT, metavar="DIR", help="for what comes out (default: build/bench)")
    add("--page", type=Path, metavar="FILE", help="put the tables into this page, too, where its comments say")
    add("--within", type=Path, metavar="DIR", help="where the files are (default: /dev/shm)")
    add("--peers", type=Path, default=PEERS, metavar="DIR", help="for those that pip installs (default: .venv-peers)")
    return arguments


def main() -> int:
    options = parser().parse_args()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    try:
        return 0 if bench(options) else 1
    except KeyboardInterrupt:
        tell("ended before its time")
        return 130
    finally:
        end_children()


def bench(options: argparse.Namespace) -> bool:
    """Whether glide did all that it was asked to."""
    parent = options.within or (SHM if os.access(SHM, os.W_OK) else Path(tempfile.gettempdir()))
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    machine = f"{os.cpu_count()} CPUs, {system}, files in {parent}"
    print(machine, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    asked = options.workload or ["all"]
    good = True
    for name, workload in WORKLOADS.items():
        if name not in asked and "all" not in asked:
            continue
        with tempfile.TemporaryDirectory(prefix="glide-bench-", dir=parent) as folder:
            course = Course(Path(folder), options.peers, options.rounds or workload.rounds, options.only)
            outcomes = workload.run(options, course)
        for outcome in outcomes:
            print(f"\n{outcome.title}\n\n{outcome.table}", flush=True)
            keep(outcome, machine, options)
            good = good and outcome.good
    print(f"\nTables, figures and plots are in {options.out}")
    return good


def keep(outcome: Outcome, machine: str, options: argparse.Namespace) -> None:
    """Write down what came out, in three ways, and a fourth if there is a page for it."""
    path = options.out / outcome.name
    text = f"{outcome.title}. {machine}.\n\n{outcome.table}\n"
    path.with_suffix(".md").write_text(text, "utf-8")
    asked = {name: str(value) for name, value in vars(options).items()}
    facts = {"title": outcome.title, "machine": machine, "options": asked, **outcome.facts}
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    if outcome.results and outcome.shape:
        try:
            draw(outcome.title, outcome.results, outcome.shape, path.with_suffix(".png"))
        except Missing as reason:
            tell(f"no plot: {reason}")
    if options.page:
        page = options.page.read_text("utf-8")
        options.page.write_text(filled(page, outcome.name, text), "utf-8")
        picture = options.page.with_name(f"{options.page.stem}-{outcome.name}.png")
        if f"({picture.name})" in page and path.with_suffix(".png").exists():
            shutil.copyfile(path.with_suffix(".png"), picture)


def filled(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the two comments that have this name; unchanged if it has none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}" if found and closed else page


if __name__ == "__main__":
    sys.exit(main())
