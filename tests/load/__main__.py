"""Load a relay and print what it takes: ``make load``, or ``make load ARGS="--clients 2000 --json FILE"``.

crowd: thousands of clients who are merely here, each with a TCP connection, a handshake and keepalives of its own; then
transfers through the relay, unthrottled, while somebody asks who is here; then goodbye to all.
fairness: fifty fast transfers, in turn with and without one whose receiver is slow.
The exit code says whether all were served, never how fast: 0 if so, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.tables import markdown
from tests.load.crowd import crowd
from tests.load.fairness import fairness

# A relay gives one address three quarters of its descriptors; a transfer has two connections for control, two for data.
_SPARE = 32


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError("a number from 1 to 100000")
    return int(text)


def needed(clients: int, transfers: int) -> int:
    """Descriptors of the relay's process."""
    return (clients + 4 * transfers + 1) * 4 // 3 + _SPARE + 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--clients", type=count, default=10_000, metavar="N", help="who are merely here")
    parser.add_argument("--transfers", type=count, default=200, metavar="N", help="under way beside them")
    parser.add_argument("--fast", type=count, default=50, metavar="N", help="fast transfers of the fairness run")
    parser.add_argument("--rounds", type=count, default=8, metavar="N", help="of it, with the slow one and without")
    parser.add_argument("--only", choices=["crowd", "fairness"], help="one of the two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.exit(2, "what a process takes is read from /proc, which only Linux has\n")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < (least := needed(options.clients, options.transfers)):
        parser.exit(2, f"too few descriptors for that: at most {hard}, and it takes `ulimit -n {least}`\n")
    cores = len(os.sched_getaffinity(0))
    system = f"Linux {platform.release()}, Python {platform.python_version()}, {cores} cores"
    runs: dict[str, Callable[[], tuple[list[list[str]], list[str], dict[str, Any]]]] = {
        "crowd": lambda: crowd(options.clients, options.transfers),
        "fairness": lambda: fairness(options.fast, options.rounds),
    }
    figures: dict[str, Any] = {"system": system}
    served = True
    print(system, flush=True)
    for name, run in runs.items():
        if options.only not in (None, name):
            continue
        rows, problems, figures[name] = run()
        figures[name]["problems"] = problems
        served = served and not problems
        print("", markdown([[name, ""], *rows]), *[f"Not served: {problem}" for problem in problems[:20]], sep="\n")
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0 if served else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
