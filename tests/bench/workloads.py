"""What is measured: a load, the peers that it is given to, and the shape of the table."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import link, resume
from tests.bench.loads import MIB, Load, many_files, one_file
from tests.bench.namespaces import namespaces
from tests.bench.peers import Croc, Glide, Nothing, Peer, Wormhole
from tests.bench.processes import Missing
from tests.bench.relays import LOOPBACK, Bridge, HAProxy, Place, Plain, Socat
from tests.bench.rounds import Course, Results, tell
from tests.bench.ssh import Rsync, Scp
from tests.bench.tables import Shape, table

# croc 11.2.5 with its relay, a file of 1 GiB: of HAProxy's speed on a machine that had both.
ELSEWHERE = {"croc": 0.345}
# The bridge without kernel pipes, as it is where the system has none or gives no more.
BLOCKS = "pipe_budget=0"


@dataclass(frozen=True)
class Outcome:
    """What a workload comes to. ``results`` are there to be drawn; ``facts`` are for JSON."""

    name: str
    title: str
    table: str
    good: bool
    facts: dict[str, Any]
    results: Results | None = None
    shape: Shape | None = None


def file(options: argparse.Namespace, course: Course) -> list[Outcome]:
    """One big file through a relay."""
    load = one(course, options.size)
    peers = (HAProxy(), Glide(), Plain(), Socat(), Wormhole(), Croc(), Scp())
    shape = Shape((HAProxy, Plain), alone=True, elsewhere=ELSEWHERE)
    return [outcome("file", f"{options.size / MIB:g} MiB", load, peers, course, shape)]


def bridge(options: argparse.Namespace, course: Course) -> list[Outcome]:
    """The same without any cryptography: what relays cost that are handed bare bytes, over loopback and a veth pair."""
    load = one(course, options.size)
    shape = Shape((HAProxy, Plain), whole=False, alone=True, relaying=True)

    def through(place: Place) -> list[Peer]:
        bridges = [Bridge(place, tuple(each.split(","))) for each in [BLOCKS, *options.bridge]]
        return [HAProxy(place), Bridge(place), *bridges, Plain(place), Socat(place)]

    title = f"{options.size / MIB:g} MiB through relays of bare bytes"
    found = [outcome("bridge", f"{title}, loopback", load, through(LOOPBACK), course, shape)]
    try:
        with namespaces() as place:
            again = replace(course, folder=made(course.folder / "veth"))
            found.append(outcome("veth", f"{title}, a veth pair between them", load, through(place), again, shape))
    except Missing as reason:
        tell(f"missing: veth: {reason}")
        found.append(Outcome("veth", f"veth: {title}", f"Missing: {reason}.", True, {"missing": str(reason)}))
    return found


def files(options: argparse.Namespace, course: Course) -> list[Outcome]:
    """A folder of many small files."""
    need(course.folder, 3 * options.files * max(options.file_size, 4096))  # magic-wormhole keeps a copy
    load = many_files(made(course.folder / "load"), options.files, options.file_size, options.folders)
    what = f"{options.files} files of {options.file_size / 1024:g} KiB in {options.folders} folders"
    peers = (Rsync(), Glide(), Scp(), Wormhole(), Croc())
    return [outcome("files", what, load, peers, course, Shape((Rsync,)))]


def small(options: argparse.Namespace, course: Course) -> list[Outcome]:
    """A file so small that only beginning and ending take time, to somebody who waits for it."""
    load = one(course, options.small_size)
    what = f"{options.small_size / 1024:g} KiB to a waiting receiver, from the sender's start to its exit"
    peers = (Nothing(), Glide(), Wormhole(), Croc())
    return [outcome("small", what, load, peers, course, Shape((Nothing,), digits=3))]


def thin(options: argparse.Namespace, course: Course) -> list[Outcome]:
    """A file over a long, thin link between the sender and the relay."""
    load = one(course, options.link_size)
    load = replace(load, limit=load.limit + 2 * options.link_size / options.rate)
    command = (sys.executable, link.__file__, str(options.round_trip), str(options.rate))
    what = f"{options.link_size / 1e6:g} MB over {options.round_trip * 1000:g} ms and {options.rate * 8 / 1e6:g} Mbit/s"
    shape = Shape((HAProxy, Plain), alone=True)
    return [outcome("link", what, load, (HAProxy(), Glide(), Plain()), replace(course, link=command), shape)]


def cut(options: argparse.Namespace, course: Course) -> list[Outcome]:
    """A transfer that is cut in the middle, and goes on."""
    load = one(course, options.size)
    found = resume.cuts(load, course.turns, course.folder)
    title = f"resume: {options.size / MIB:g} MiB, cut at {resume.CUT:.0%}, rounds: {course.turns}"
    return [Outcome("resume", title, resume.table(found, options.size), not found.missing, asdict(found))]


@dataclass(frozen=True)
class Workload:
    """What does it, and how many rounds are enough; ``names`` are those of what comes out."""

    run: Callable[[argparse.Namespace, Course], list[Outcome]]
    rounds: int


WORKLOADS = {
    "file": Workload(file, 5),
    "bridge": Workload(bridge, 5),
    "files": Workload(files, 5),
    "small": Workload(small, 20),
    "link": Workload(thin, 5),
    "resume": Workload(cut, 1),
}


def outcome(name: str, what: str, load: Load, peers: Sequence[Peer], course: Course, shape: Shape) -> Outcome:
    """Run them all, and put what comes out into words."""
    results = course.compare(load, peers)
    facts = {
        "runs": {peer.title: [asdict(run) for run in runs] for peer, runs in results.runs.items()},
        "missing": results.missing,
        "failed": {peer.name: reason for peer, reason in results.failed.items()},
    }
    title = f"{name}: {what}, rounds: {course.turns}"
    return Outcome(name, title, table(results, shape), results.good, facts, results, shape)


def one(course: Course, size: int) -> Load:
    need(course.folder, 2 * size)
    return one_file(made(course.folder / "load"), size)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def need(folder: Path, count: int) -> None:
    if shutil.disk_usage(folder).free < count + 64 * MIB:
        raise SystemExit(f"{folder.parent} has no room for what is sent and what arrives")
