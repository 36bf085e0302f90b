"""Pipes at both ends: `cmd | glide push NAME -`, and `glide receive --stdout | cmd`."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Process, World, until

MIB = 1024 * 1024
GIB = 1024 * MIB


def into_a_pipe(w: World, output: Path) -> Process:
    """Bob, who writes what he gets to standard output."""
    command = ["receive", "--as", "bob", "--relay", w.address, "--accept", "all", "--stdout"]
    receiver = w.run("bob", *command, output=output)
    receiver.says("You receive as bob")
    return receiver


@contextmanager
def shell(w: World, person: str, command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A line of shell in which ``glide`` is glide, as ``person``; all that it started is gone behind the block."""
    own = {**w.settings, **settings, "home": str(w.folder / person), "relay": w.address, "as": person}
    environment = {**os.environ, **{f"GLIDE_{name.upper()}": value for name, value in own.items()}}
    line = f'glide() {{ {sys.executable} -m glide "$@"; }}; {command}'
    with subprocess.Popen(
        ["bash", "-c", line], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip  # what it is started with
        try:
            yield process
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # all of it has ended


# --- standard input ---


@pytest.mark.parametrize(
    ("flag", "name"), [((), "stdin"), (("--filename", "dump.sql"), "dump.sql")], ids=["default", "named"]
)
def test_F9_standard_input_is_sent_under_a_name(w: World, flag: tuple[str, ...], name: str) -> None:
    receiver = w.receive("bob", "--accept", "all", "--once")
    data = os.urandom(3 * MIB + 17)
    sender = w.push("alice", "bob", "-", *flag)
    sender.feed(data)
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    assert (w.into("bob") / name).read_bytes() == data
    assert w.left("bob") == [name]
    (offer,) = receiver.told("offer")
    assert (offer["items"], offer["bytes"], offer["names"]) == (1, None, [name])
    assert sender.event("delivered")["bytes"] == receiver.event("received")["bytes"] == len(data)
    assert sender.event("delivered")["digest"] == receiver.event("saved")["digest"]
    assert {event["total"] for event in sender.told("progress") + receiver.told("progress")} == {None}


def test_F9_a_program_that_says_nothing_is_an_empty_file(w: World) -> None:
    w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", "-")
    sender.feed(b"")
    assert sender.wait() == 0, sender
    assert (w.into("bob") / "stdin").read_bytes() == b""


def test_F9_what_a_program_has_said_arrives_before_it_ends(w: World) -> None:
    output = w.folder / "out"
    receiver = into_a_pipe(w, output)
    sender = w.push("alice", "bob", "-")
    for count in (1, 2, 3):
        sender.feed(b"tick\n", end=False)
        until(lambda: output.read_bytes() == b"tick\n" * count)  # noqa: B023  # it is over before the next turn
    sender.feed(b"")
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    assert output.read_bytes() == b"tick\n" * 3


def test_F9_a_trickle_is_acknowledged_within_seconds(w: World) -> None:
    w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", "-")
    for count in (1, 2):
        sender.feed(b"tick\n", end=False)
        sender.progress(5 * count)
    sender.feed(b"")
    assert sender.wait() == 0, sender


def test_F9_a_program_may_be_slow(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", idle="2s", stall_after="500ms")
    sender = w.push("alice", "bob", "-", idle="2s", stall_after="500ms")
    sender.feed(b"first", end=False)
    stalled = sender.event("stalled", who="sender")
    assert "the program" in stalled["message"]
    receiver.event("stalled", who="sender")
    # Well beyond the idle deadline: whoever is there and waits for their program is not gone.
    for each in (sender, receiver):
        until(lambda: each.told("stalled")[-1]["seconds"] >= 4)  # noqa: B023  # it is over before the next turn
    sender.feed(b" and last")
    assert sender.wait() == 0, sender
    assert (w.into("bob") / "stdin").read_bytes() == b"first and last"


def test_F9_the_only_dash_is_standard_input(w: World) -> None:
    several = w.push("alice", "bob", "-", w.file("f", 1))
    assert several.wait() == 2, several
    assert "./-" in several.result["message"]


def test_F9_a_pipe_that_was_cut_is_not_tried_again_and_nothing_bears_its_name(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", retry="1m")
    sender = w.push("alice", "bob", "-", retry="1m")
    sender.feed(b"half", end=False)
    until(lambda: any((stage / "0").is_file() and (stage / "0").read_bytes() for stage in w.stages("bob")))
    receiver.popen.kill()
    assert sender.wait() == 6, sender
    assert w.landed("bob") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_C4_a_sender_that_ends_before_its_pipe_does_is_no_end_of_the_file(w: World, number: signal.Signals) -> None:
    output = w.folder / "out"
    receiver = into_a_pipe(w, output)
    sender = w.push("alice", "bob", "-")
    sender.feed(b"half of it", end=False)
    until(lambda: output.read_bytes() == b"half of it")
    sender.signal(number)
    sender.wait()
    if number is signal.SIGINT:
        assert "has to be sent from the beginning" in sender.result["message"]
    assert receiver.wait() == (4 if number is signal.SIGINT else 6), receiver
    assert output.read_bytes() == b"half of it"


def test_F9_standard_input_that_somebody_has_told_not_to_wait_is_waited_for(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    unblock = f"{sys.executable} -c 'import os; os.set_blocking(0, False)'"
    with shell(w, "alice", f"(sleep 3; echo -n later) | ({unblock}; glide push bob -)") as sender:
        _, errors = sender.communicate(timeout=30)
    assert sender.returncode == 0, errors
    receiver.event("received")
    assert (w.into("bob") / "stdin").read_bytes() == b"later"


@pytest.mark.parametrize("how", ["0<&-", "0>/dev/null"], ids=["closed", "write-only"])
def test_F9_standard_input_that_cannot_be_read_is_an_error_and_no_empty_file(w: World, how: str) -> None:
    receiver = w.receive("bob", "--accept", "all")
    with shell(w, "alice", f"glide push bob - {how}") as sender:
        _, errors = sender.communicate(timeout=30)
    assert sender.returncode == 8, errors
    assert b"standard input" in errors.lower()
    assert b"fault" not in errors
    assert w.left("bob") == []
    assert not receiver.told("received")


@pytest.mark.parametrize("how", [">&-", ">/dev/full"], ids=["closed", "full"])
def test_F9_standard_output_that_takes_nothing_is_an_error(w: World, how: str) -> None:
    relay = w.relay
    assert relay is not None
    with shell(w, "bob", f"glide receive --accept all --stdout {how}") as receiver:
        # It may be found out before anybody can push, or by what is pushed.
        until(lambda: receiver.poll() is not None or bool(relay.told("connected")))
        sender = w.push("alice", "bob", w.file("f", MIB))
        assert sender.wait() in (3, 8), sender
        _, errors = receiver.communicate(timeout=30)
    assert receiver.returncode == 8, errors
    assert b"standard output" in errors.lower()
    assert b"fault" not in errors


# --- standard output ---


def test_F9_one_file_goes_to_standard_output_and_nothing_else_does(w: World) -> None:
    output = w.folder / "out"
    receiver = into_a_pipe(w, output)
    file = w.file("film", 5 * MIB)
    sender = w.push("alice", "bob", file)
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    assert output.read_bytes() == file.read_bytes()
    assert w.left("bob") == []
    assert not (w.folder / "bob" / "partials").exists()


def test_F9_stdout_takes_one_transfer_and_ends_with_its_end(w: World) -> None:
    output = w.folder / "out"
    receiver = into_a_pipe(w, output)
    sender = w.push("alice", "bob", "-")
    sender.feed(b"one", end=False)
    until(lambda: output.read_bytes() == b"one")
    second = w.push("carol", "bob", w.file("f", 1))
    assert second.wait() == 4, second
    sender.feed(b"")
    assert (sender.wait(), receiver.wait()) == (0, 0)
    assert output.read_bytes() == b"one"


def test_F9_a_folder_or_several_files_are_declined_and_bob_waits_on(w: World) -> None:
    output = w.folder / "out"
    receiver = into_a_pipe(w, output)
    folder = w.file("d/f", 5).parent
    for what in ((folder,), (w.file("a", 1), w.file("b", 1))):
        sender = w.push("alice", "bob", *what)
        assert sender.wait() == 4, sender
        assert "one file at a time" in sender.result["message"]
    assert receiver.popen.poll() is None
    assert w.push("alice", "bob", w.folder / "a").wait() == 0
    assert receiver.wait() == 0, receiver
    assert output.read_bytes() == (w.folder / "a").read_bytes()


def test_F9_stdout_and_json_contradict(w: World) -> None:
    process = w.run("bob", "receive", "--as", "bob", "--relay", w.address, "--stdout", "--json")
    assert process.wait() == 2, process
    assert process.result["status"] == "usage"


def test_F9_a_reader_that_goes_away_ends_it_quietly_and_the_sender_is_told(w: World) -> None:
    assert w.relay is not None
    with shell(w, "bob", "glide receive --accept all --stdout | head -c 10; exit ${PIPESTATUS[0]}") as receiver:
        w.relay.event("connected", name="bob")
        file = w.file("film", 20 * MIB)
        sender = w.push("alice", "bob", file)
        assert sender.wait() == 8, sender
        assert "whoever read it there has gone" in sender.result["message"]
        out, errors = receiver.communicate(timeout=30)
    assert receiver.returncode == 8
    assert out == file.read_bytes()[:10]
    assert b"Traceback" not in errors
    assert b"whoever read it has gone" in errors


def test_F9_a_reader_that_is_slow_is_waited_for(w: World) -> None:
    assert w.relay is not None
    patience = {"idle": "2s", "stall_after": "500ms"}
    with shell(w, "bob", "glide receive --accept all --stdout", **patience) as receiver:
        w.relay.event("connected", name="bob")
        sender = w.push("alice", "bob", "-", **patience)
        data = os.urandom(8 * MIB)
        sender.feed(data[:MIB], end=False)
        # Nobody reads yet, for longer than the idle deadline.
        until(lambda: bool(sender.told("stalled")) and sender.told("stalled")[-1]["seconds"] >= 4)
        assert sender.popen.poll() is None
        writing = threading.Thread(target=sender.feed, args=(data[MIB:],))
        writing.start()
        out, errors = receiver.communicate(timeout=30)
        writing.join()
    assert out == data
    assert (sender.wait(), receiver.returncode) == (0, 0), (sender, errors)


def test_from_pipe_to_pipe_it_is_a_pipe(w: World) -> None:
    output = w.folder / "out"
    receiver = into_a_pipe(w, output)
    sender = w.push("alice", "bob", "-")
    data = os.urandom(2 * MIB)
    sender.feed(data)
    assert (sender.wait(), receiver.wait()) == (0, 0)
    assert output.read_bytes() == data


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_R3_a_gibibyte_goes_from_pipe_to_pipe_in_flat_memory(w: World) -> None:
    output = w.folder / "out"
    os.mkfifo(output)
    reader = subprocess.Popen(["sha256sum", str(output)], stdout=subprocess.PIPE, text=True)
    receiver = into_a_pipe(w, output)
    sender = w.push("alice", "bob", "-")
    assert w.relay is not None
    digest, block = hashlib.sha256(), os.urandom(MIB)
    for _ in range(GIB // MIB):
        digest.update(block)
        sender.feed(block, end=False)
    peaks = {"sender": sender.resident, "receiver": receiver.resident, "relay": w.relay.resident}
    sender.feed(b"")
    assert (sender.wait(120), receiver.wait(120)) == (0, 0)
    out, _ = reader.communicate(timeout=30)
    assert out.split()[0] == digest.hexdigest()
    assert max(peaks.values()) < 100 * MIB, peaks
