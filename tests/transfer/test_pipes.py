"""What comes from a program, or goes to one: nobody knows how much it will be."""

from __future__ import annotations

import fcntl
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from glide import events
from glide.errors import ConnectionLost, Declined, FileError
from glide.net.connection import FRAME
from glide.protocol.endtoend import NO_DIGEST, Digests, Item, ItemKind
from glide.protocol.messages import Keepalive
from glide.transfer import sources
from glide.transfer.gathering import gather_pipe
from glide.transfer.sources import Pipe
from glide.transfer.terms import Outcome
from tests.transfer.halves import (
    CONTENT,
    SMALL,
    TRANSFER,
    Place,
    Side,
    answer_of,
    digest,
    files,
    gather,
    joined,
    offered,
    receive,
    send,
    transferred,
)


@dataclass
class Program:
    """What writes to our standard input, or reads our standard output."""

    end: int

    async def write(self, content: bytes) -> None:
        await trio.to_thread.run_sync(self._write, content)

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self.end, view) :]

    def close(self) -> None:
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """Writes to our standard input."""
    reading, writing = os.pipe()
    program = Program(writing)
    with open(reading, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield program
        program.close()


@dataclass
class Output:
    """What was written to our standard output."""

    _capture: pytest.CaptureFixture[bytes]
    _read: bytes = b""

    def read(self) -> bytes:
        """All of it so far; not to be called while it is written to."""
        self._read += self._capture.readouterr().out
        return self._read


@pytest.fixture
def output(capfdbinary: pytest.CaptureFixture[bytes]) -> Output:
    return Output(capfdbinary)


@pytest.fixture
def to_stdout(tmp_path: Path) -> Place:
    return Place(None, tmp_path / "journals")


# --- from a program -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, FRAME, 3 * FRAME + 12345])
@pytest.mark.parametrize("where", ["a folder", "standard output"])
async def test_C4_what_a_program_writes_arrives_whole(
    program: Program, place: Place, to_stdout: Place, output: Output, size: int, where: str
) -> None:
    content = random.Random(size).randbytes(size)
    alice, bob = Side(), Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather_pipe("dump.sql", lambda _: None))
        nursery.start_soon(receive, far, bob, place if where == "a folder" else to_stdout)
        await program.write(content)
        program.close()
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome == Outcome(1, size, digest(content))
    assert place.into is not None
    if where == "a folder":
        assert files(place.into) == {"dump.sql": content}
        saved = str(place.into.resolve() / "dump.sql")
        assert bob.of(events.Saved) == [events.Saved(TRANSFER, saved, size, digest(content))]
    else:
        assert output.read() == content
        assert bob.of(events.Saved) == []
    assert place.is_clean()
    assert {event.total for event in alice.reports if isinstance(event, events.Progress)} == {None}


async def test_what_a_program_writes_is_sent_at_once_and_not_when_a_block_is_full(
    program: Program, to_stdout: Place, output: Output
) -> None:
    alice, bob = Side(), Side()
    acknowledged = {count * len(SMALL): trio.Event() for count in (1, 2)}

    def on_report(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.bytes in acknowledged:
            acknowledged[event.bytes].set()

    alice.on_report = on_report
    to_stdout.sync = False
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather_pipe(None, lambda _: None))
        nursery.start_soon(receive, far, bob, to_stdout)
        for came in acknowledged.values():
            await program.write(SMALL)
            await came.wait()
        assert output.read() == 2 * SMALL
        program.close()
    assert alice.error is bob.error is None
    assert output.read() == 2 * SMALL


def test_what_a_program_wrote_in_pieces_is_read_at_once_and_its_end_is_told_once(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal has its end told once, and would wait for more."""
    pipe = Pipe()
    for _ in range(60):
        program._write(CONTENT[:1000])
    assert pipe.read() == 60 * CONTENT[:1000]
    program._write(CONTENT[:5])
    assert pipe.read() == CONTENT[:5]
    program._write(CONTENT[:7])
    program.close()
    assert pipe.read() == CONTENT[:7]
    monkeypatch.setattr(os, "readv", lambda *_: pytest.fail("it was told already"))
    assert not pipe.read()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a pipe is as large as it is")
def test_a_program_may_write_a_mebibyte_ahead(program: Program) -> None:
    pipe = Pipe()
    os.set_blocking(program.end, False)
    content = CONTENT[: 2 * 1024 * 1024]
    written = os.write(program.end, content)
    assert written >= 1024 * 1024
    assert pipe.read() == content[: 1024 * 1024]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a pipe is as large as it is")
def test_a_larger_pipe_stays_as_large(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PIPE", 4096)
    before = fcntl.fcntl(program.end, fcntl.F_GETPIPE_SZ)
    Pipe()
    assert fcntl.fcntl(program.end, fcntl.F_GETPIPE_SZ) == before > 4096


def test_what_a_program_goes_on_writing_is_not_gathered_for_long(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_GATHER", 0.0)
    pipe, real = Pipe(), os.readv
    monkeypatch.setattr(os, "readv", lambda descriptor, rooms: real(descriptor, [rooms[0][:10]]))
    program._write(CONTENT[:30])
    assert [bytes(pipe.read()) for _ in range(3)] == [CONTENT[:10], CONTENT[10:20], CONTENT[20:30]]


@pytest.mark.parametrize("after", [0, FRAME])
async def test_C4_standard_input_that_breaks_in_the_middle_gets_no_final_name(
    place: Place, monkeypatch: pytest.MonkeyPatch, program: Program, after: int
) -> None:
    alice, bob, broken = Side(), Side(), False
    real = os.readv

    def readv(descriptor: int, rooms: list[memoryview]) -> int:
        if broken and descriptor == sys.stdin.fileno():
            raise OSError(5, "Input/output error")
        return real(descriptor, rooms)

    monkeypatch.setattr(os, "readv", readv)
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather_pipe(None, lambda _: None))
        nursery.start_soon(receive, far, bob, place)
        await program.write(CONTENT[:after])
        broken = True
        await program.write(b"!")  # wakes the read that waits; the next one fails
    assert "Standard input cannot be read: Input/output error" in alice.failed_with(FileError)
    assert "what is sent cannot be read" in bob.failed_with(FileError)
    assert place.final() == []


async def test_C4_a_program_whose_sender_is_lost_gets_no_final_name_and_is_asked_for_from_the_beginning(
    place: Place,
) -> None:
    item, bob = Item("stdin", ItemKind.STREAM), Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, item)
        await near.send_data(memoryview(CONTENT))
        await near.send(Keepalive())
        await near.stream.send_eof()
    bob.failed_with(ConnectionLost)
    assert place.final() == []
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, Side(), place)
        assert [start for start, _ in await offered(near, item)] == [0]
        await near.aclose()
    assert [offer.before for offer in place.offers] == [False, False], "nobody knows what comes this time"


# --- to a program ---------------------------------------------------------------------------------------------


async def test_a_file_goes_to_standard_output_and_nothing_is_kept(path: Path, to_stdout: Place, output: Output) -> None:
    alice, bob = await transferred(gather(path), to_stdout)
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome == Outcome(1, len(CONTENT), digest(CONTENT))
    assert output.read() == CONTENT
    assert bob.of(events.Saved) == []
    assert bob.reports[-1] == events.Received(TRANSFER, "alice", 1, len(CONTENT))
    assert not to_stdout.journals.exists()


@pytest.mark.parametrize("what", ["a folder", "two files"])
async def test_standard_output_takes_one_file(
    path: Path, tmp_path: Path, to_stdout: Place, output: Output, sent: list[int], what: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "inside").write_bytes(SMALL)
    alice, bob = await transferred(gather(other) if what == "a folder" else gather(path, other / "inside"), to_stdout)
    assert "one file at a time" in alice.failed_with(Declined)
    assert "--stdout takes one" in bob.failed_with(Declined)
    assert sent == []
    assert output.read() == b""


async def test_whoever_reads_the_output_and_goes_is_told_to_both_sides(
    path: Path, to_stdout: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stdout = open(writing, "w", encoding="utf-8")  # noqa: SIM115  # closed below, though it is broken
    monkeypatch.setattr(sys, "stdout", stdout)
    alice, bob = await transferred(gather(path), to_stdout)
    monkeypatch.undo()
    stdout.close()
    assert "whoever read it there has gone" in alice.failed_with(FileError)
    assert "whoever read it has gone" in bob.failed_with(FileError)


async def test_C4_a_file_that_the_sender_could_not_read_is_an_error_where_its_bytes_were_passed_on(
    to_stdout: Place, output: Output
) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, to_stdout)
        await offered(near, Item("file.bin", size=len(SMALL)))
        await near.send_data(memoryview(SMALL))
        await near.send(Digests(page=0, digests=NO_DIGEST))
        await answer_of(near)
        await near.close()
    assert "could not be read to its end" in bob.failed_with(FileError)
    assert output.read() == SMALL, "it is told, since it cannot be taken back"


async def test_what_goes_to_standard_output_is_never_continued(path: Path, to_stdout: Place, output: Output) -> None:
    alice, _ = await transferred(gather(path), to_stdout, cut=1.5 * FRAME)
    assert alice.error is not None
    written = len(output.read())
    alice, bob = await transferred(gather(path), to_stdout)
    assert alice.error is bob.error is None
    assert output.read()[written:] == CONTENT
    assert [offer.before for offer in to_stdout.offers] == [False, False]
