"""The bench's own arithmetic, its slow link, and that it cleans up; what it measures is for nobody to assert."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import tables
from tests.bench.__main__ import filled, number, size, words
from tests.bench.link import PIECE, Way, Wire
from tests.bench.peers import Croc, Glide
from tests.bench.processes import cpu_so_far
from tests.bench.relays import HAProxy
from tests.bench.rounds import ROLES, Result, Results
from tests.bench.tables import Shape
from tests.bench.workloads import ELSEWHERE, WORKLOADS
from tests.pages import ROOT, page

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("64MiB", 64 << 20), ("4 kib", 4096), ("25MB", 25 * 10**6), ("1G", None), ("0", None)]
)
def test_a_size_is_a_number_and_a_unit(text: str, count: int | None) -> None:
    if count is None:
        with pytest.raises(argparse.ArgumentTypeError):
            size(text)
    else:
        assert size(text) == count


@pytest.mark.parametrize("text", ["0", "101", "-1", "1.5", ""])
def test_a_number_is_within_bounds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        number(100)(text)
    assert number(100)("100") == 100


def test_words_are_told_apart() -> None:
    assert words("Glide, socat,,") == ("glide", "socat")


def test_a_ratio_is_a_speed_and_is_taken_round_by_round() -> None:
    # Twice as slow in one round, four times in the next, and the machine was twice as busy then.
    assert tables.compared([2.0, 8.0], [1.0, 2.0], 1) == ["5.0 (2.0 to 8.0)", "0.30", "0.38 (0.25 to 0.50)"]
    assert tables.compared([20.0], [1.0], 2)[1:] == ["0.050", "0.050 (0.050 to 0.050)"]
    assert tables.compared([1.0], [], 2) == ["1.00 (1.00 to 1.00)", "-", "-"]


def result(seconds: float, cpu: float) -> Result:
    return Result(seconds, seconds / 2, dict.fromkeys(ROLES, cpu), dict.fromkeys(ROLES, 3 * MIB), cpu)


def test_the_table_has_everybody_and_says_who_is_missing() -> None:
    floor, ours, croc = HAProxy(), Glide(), Croc()
    floor.title, ours.title = "HAProxy (2)", "glide (0)"
    results = Results([floor, ours, croc])
    results.runs = {floor: [result(1.0, 0.5), result(2.0, 0.5)], ours: [result(2.0, 1.0), result(4.0, 1.0)]}
    results.missing = {"croc": "it is nowhere"}
    text = tables.table(results, Shape((HAProxy,), alone=True, relaying=True, elsewhere=ELSEWHERE))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {11}
    by_name = {row[0]: row for row in rows}
    assert by_name["HAProxy (2)"][1:3] == ["1.50 (1.00 to 2.00)", "1.00"]
    assert by_name["glide (0)"][2:4] == ["0.50", "0.50 (0.50 to 0.50)"]
    assert by_name["glide (0)"][7:] == ["1.00 / 1.00 / 1.00", "1.00 (1.00 to 1.00)", "2.00", "3 / 3 / 3"]
    assert by_name["croc"][1:4] == ["missing", "(0.345)", "-"]
    assert "Missing: croc: it is nowhere; 0.345 was measured elsewhere and stands in." in text


def test_only_what_glide_itself_fails_at_is_a_failure() -> None:
    results = Results([HAProxy(), Glide()])
    results.failed[results.peers[0]] = "in round 1: it broke"
    assert results.good
    results.failed[results.peers[1]] = "in round 2: it broke"
    assert not results.good


def test_a_table_finds_its_place_in_a_page() -> None:
    before = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    once = filled(before, "x", "new\n")
    assert once == "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n"
    assert filled(once, "x", "new\n") == once
    assert filled(before, "y", "new\n") == before


def test_the_page_about_performance_has_a_place_for_every_table() -> None:
    text = page("docs/performance.md")
    for name in (*WORKLOADS, "veth"):
        assert filled(text, name, f"the table of {name}\n") != text, name


Arrivals = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1 << 20)), min_size=1)


@given(Arrivals)
def test_no_byte_leaves_a_link_early_and_no_two_at_once(arrivals: list[tuple[float, int]]) -> None:
    wire = Wire(delay=0.05, rate=1000.0)
    last = 0.0
    for now, count in sorted(arrivals):
        leaves = wire.leaves(now, count)
        # The float's own error, of a sum of a hundred or so.
        assert leaves >= max(now + wire.delay, last) + count / wire.rate - 1e-6
        last = leaves


def test_a_link_that_is_never_idle_is_exactly_as_fast_as_it_says() -> None:
    wire = Wire(delay=0.5, rate=1000.0)
    assert [wire.leaves(10.0, 500) for _ in range(4)] == [11.0, 11.5, 12.0, 12.5]


class Source(socket.socket):
    """One that always has more, up to a number of pieces, and keeps a list of how many are on the way at each."""

    def __init__(self, pieces: int, sink: Sink) -> None:
        super().__init__()
        self._left = pieces
        self._sink = sink
        self.taken = 0
        self.on_the_way: list[int] = []

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.on_the_way.append(self.taken - len(self._sink.arrived))
        if not self._left:
            return b""
        self._left -= 1
        piece = self._left.to_bytes(2, "big") * (size // 2)
        self.taken += len(piece)
        if self.taken >= ROOM:
            self._sink.full.set()
        return piece


class Sink(socket.socket):
    """One that takes nothing before the link is full."""

    def __init__(self) -> None:
        super().__init__()
        self.full = threading.Event()
        self.arrived = bytearray()
        self.ended = False

    def sendall(self, data: Any, flags: int = 0) -> None:
        assert self.full.wait(30), "it never took as much as it has room for"
        self.arrived += data

    def shutdown(self, how: int) -> None:
        self.ended = True


ROOM = 4 * PIECE


def test_a_link_carries_everything_and_holds_no_more_than_it_has_room_for() -> None:
    with Sink() as sink, Source(40, sink) as source:
        way = Way(Wire(0.0, 1e12), threading.Lock(), ROOM)
        filling = threading.Thread(target=way.fill, args=(source,))
        filling.start()
        way.drain(sink)
        filling.join(30)
    assert sink.ended
    assert bytes(sink.arrived) == b"".join(n.to_bytes(2, "big") * (PIECE // 2) for n in reversed(range(40)))
    assert max(source.on_the_way) < ROOM


def bench(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left(within: Path) -> list[str]:
    """What still runs with anything from that folder in its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(within) in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text("utf-8", "replace").replace("\0", " "))
        except OSError:
            pass  # somebody else's, or gone
    return found


def can_measure() -> bool:
    """True if the system has what the bench measures with, and lets it be used: some containers do not."""
    try:
        os.close(os.pidfd_open(os.getpid()))
        cpu_so_far(os.getpid())
    except (AttributeError, OSError):
        return False
    return Path("/proc/self/environ").exists()


needs_proc = pytest.mark.skipif(not can_measure(), reason="the bench measures by way of /proc and pidfd_open(2)")


@needs_proc
def test_it_measures_writes_down_and_leaves_nothing(tmp_path: Path) -> None:
    within, out = tmp_path / "within", tmp_path / "out"
    within.mkdir()
    run = bench("--workload", "small", "--rounds", "1", "--only", "glide,python", "--within", within, "--out", out)
    said, told = run.communicate(timeout=50)
    assert run.returncode == 0, told
    figures = json.loads((out / "small.json").read_text("utf-8"))
    assert [len(runs) for runs in figures["runs"].values()] == [1, 1]
    assert figures["missing"] == figures["failed"] == {}
    table = (out / "small.md").read_text("utf-8")
    assert table.rstrip().rpartition("\n\n")[0].rpartition("\n\n")[2] in said
    assert "| glide (" in table
    assert not list(within.iterdir())
    assert not left(within)


@needs_proc
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_nothing_when_it_is_stopped(by: signal.Signals, tmp_path: Path) -> None:
    within = tmp_path / "within"
    within.mkdir()
    stopped = ("--only", "glide", "--rounds", "100", "--within", within, "--out", tmp_path / "out")
    run = bench("--workload", "small", *stopped)
    assert run.stderr is not None
    assert run.stderr.readline().startswith("warm-up: glide"), "from here on it goes on for minutes"
    run.send_signal(by)
    run.communicate(timeout=50)
    assert run.returncode == 130
    assert not list(within.iterdir())
    assert not left(within)
