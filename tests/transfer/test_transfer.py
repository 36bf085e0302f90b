"""Both halves of a transfer against each other, and each against a peer that lies, falls silent or goes away."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import blake3
import pytest
import trio
import trio.testing

from glide import events
from glide.crypto.identity import Identity
from glide.errors import (
    ConnectionLost,
    Declined,
    FileError,
    GlideError,
    IntegrityError,
    NameUnusable,
    ProtocolError,
    Stalled,
    Stopped,
)
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate, respond
from glide.protocol.frames import Data, Kind
from glide.protocol.messages import (
    Abort,
    Accept,
    Ack,
    Decline,
    Digests,
    Done,
    End,
    Item,
    Keepalive,
    Message,
    Offer,
    Receipt,
)
from glide.protocol.preface import Purpose
from glide.protocol.states import Machine, State
from glide.transfer import landing, receiving, sending
from glide.transfer.landing import Destination, Partial
from glide.transfer.manifest import Source
from glide.transfer.receiving import Arrival
from glide.transfer.sending import BLOCK
from glide.transfer.terms import Hint, Outcome, Terms
from tests.transfer import apart

ALICE, BOB = Identity.from_private(b"a" * 32), Identity.from_private(b"b" * 32)
TRANSFER = bytes(range(16))
PATIENT = Deadlines(handshake=10, keepalive=30, lost=90, farewell=0.3)  # peers by hand do not close
CONTENT = random.Random(2).randbytes(3 * BLOCK + 12345)
PATIENCE = 20.0  # for anything in here; the machine may be busy


@dataclass
class Side:
    """What became of one end of a transfer."""

    reports: list[events.Event] = field(default_factory=list)
    outcome: Outcome | None = None
    error: GlideError | None = None
    on_report: Callable[[events.Event], None] = lambda _: None

    def report(self, event: events.Event) -> None:
        self.reports.append(event)
        self.on_report(event)

    def of(self, kind: type[events.Event]) -> list[events.Event]:
        return [event for event in self.reports if isinstance(event, kind)]

    async def run(self, half: Callable[[], Awaitable[Outcome]]) -> None:
        try:
            self.outcome = await half()
        except GlideError as error:
            self.error = error

    def failed_with(self, kind: type[GlideError]) -> str:
        """What a person at this end reads; checks that it is of this kind, and one error only."""
        assert type(self.error) is kind, repr(self.error)
        assert self.outcome is None
        return str(self.error)


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends with the buffers that a system has."""
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


Streams = Callable[[], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]]


@asynccontextmanager
async def joined(
    deadlines: Deadlines = PATIENT, streams: Streams = trio.testing.memory_stream_pair
) -> AsyncIterator[tuple[Connection, Connection]]:
    """The sender's and the receiver's connection after a real handshake; nothing is left running afterwards."""
    running = trio.lowlevel.current_statistics().tasks_living
    near, far = streams()
    made: dict[str, Connection] = {}

    async def call() -> None:
        made["sender"], _ = await initiate(
            near, Purpose.END_TO_END, ALICE, peer="bob", deadlines=deadlines, check=lambda _: None
        )

    async def answer() -> None:
        made["receiver"], _, _ = await respond(
            far, frozenset({Purpose.END_TO_END}), BOB, peer="alice", deadlines=deadlines, check=lambda _: None
        )

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(answer)
        async with made["sender"], made["receiver"]:
            yield made["sender"], made["receiver"]
        assert trio.lowlevel.current_statistics().tasks_living == running, "a task was left behind"
        # A thread that was abandoned ends by itself, and tells nobody.
        while trio.to_thread.current_default_thread_limiter().borrowed_tokens:  # noqa: ASYNC110  # there is no event for it
            await trio.sleep(0.005)


async def send(
    connection: Connection, side: Side, source: Source, terms: Terms | None = None, hint: str = "", message: str = ""
) -> None:
    await side.run(
        lambda: sending.send(
            connection,
            source,
            transfer=TRANSFER,
            to="bob",
            message=message,
            terms=terms or Terms(),
            hint=Hint(side=hint),
            report=side.report,
        )
    )


async def receive(
    connection: Connection,
    side: Side,
    decide: receiving.Decide,
    terms: Terms | None = None,
    hint: str = "",
    sync: bool = True,
) -> None:
    await side.run(
        lambda: receiving.receive(
            connection,
            Arrival(TRANSFER, "alice", getattr(decide, "folder", Path("nowhere")), sync),
            decide,
            lambda: None,
            terms=terms or Terms(),
            hint=Hint(side=hint),
            report=side.report,
        )
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    an_hour_ago = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


class Yes:
    """Says yes to everything, and where it goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.offers: list[Offer] = []

    async def __call__(self, offer: Offer) -> None:
        await trio.lowlevel.checkpoint()
        self.offers.append(offer)


into = Yes


async def never(_: Offer) -> NoReturn:
    raise AssertionError("nobody may be asked about this offer")


async def transferred(path: Path, folder: Path, streams: Streams, sync: bool = True) -> tuple[Side, Side]:
    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined(streams=streams) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(lambda: receive(far, bob, into(folder), sync=sync))
    return alice, bob


# --- what should happen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 5 * 1024 * 1024 + 3])
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair, socket_pair])
async def test_C4_a_file_arrives_whole_and_both_sides_have_its_digest(
    tmp_path: Path, folder: Path, size: int, streams: Streams
) -> None:
    content = random.Random(size).randbytes(size)
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    alice, bob = await transferred(path, folder, streams)
    digest = blake3.blake3(content).digest()
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome == Outcome(1, size, digest)
    assert os.listdir(folder) == ["file.bin"]
    assert (folder / "file.bin").read_bytes() == content

    assert alice.of(events.Accepted) == [events.Accepted(TRANSFER, "bob")]
    where = str(folder.resolve() / "file.bin")
    assert bob.of(events.Saved) == [events.Saved(TRANSFER, where, size, digest)]
    assert bob.reports[-1] == events.Received(TRANSFER, "alice", 1, size)
    for side in (alice, bob):
        progress = [(event.bytes, event.total) for event in side.reports if isinstance(event, events.Progress)]
        assert progress == sorted(progress)
        assert progress[0] == (0, size)
        assert {total for _, total in progress} == {size}
    assert bob.of(events.Progress)[-1] == events.Progress(TRANSFER, size, size)


async def test_a_file_arrives_without_syncing_too(path: Path, folder: Path) -> None:
    alice, bob = await transferred(path, folder, trio.testing.memory_stream_pair, sync=False)
    assert alice.outcome == bob.outcome == Outcome(1, len(CONTENT), blake3.blake3(CONTENT).digest())
    assert (folder / "file.bin").read_bytes() == CONTENT


async def test_what_the_sender_is_told_was_written_is_written(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)  # acknowledge every batch
    alice, bob = Side(), Side()
    there: list[tuple[int, int]] = []

    def look(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            there.append((event.bytes, sum(each.stat().st_size for each in folder.iterdir())))

    alice.on_report = look
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(receive, far, bob, into(folder))
    assert len(there) >= 3
    assert all(acknowledged <= written for acknowledged, written in there)


async def test_F6_a_second_file_of_the_name_gets_a_number(path: Path, folder: Path) -> None:
    await transferred(path, folder, trio.testing.memory_stream_pair)
    alice, bob = await transferred(path, folder, trio.testing.memory_stream_pair)
    assert alice.outcome == bob.outcome == Outcome(1, len(CONTENT), RIGHT.digest)
    assert sorted(os.listdir(folder)) == ["file (1).bin", "file.bin"]
    assert bob.of(events.Saved)[0] == events.Saved(
        TRANSFER, str(folder.resolve() / "file (1).bin"), len(CONTENT), blake3.blake3(CONTENT).digest()
    )


async def test_the_offer_says_what_the_person_said(path: Path, folder: Path) -> None:
    decide = into(folder)
    with Source.open(path, "other name.bin") as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(near, Side(), source, message="as promised"))
            nursery.start_soon(receive, far, Side(), decide)
    assert decide.offers == [Offer(items=(Item("other name.bin", len(CONTENT)),), message="as promised")]
    assert os.listdir(folder) == ["other name.bin"]


# --- no ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Declined, FileError, NameUnusable])
async def test_a_no_reaches_the_sender_with_its_reason_and_nothing_is_sent(
    path: Path, folder: Path, kind: type[GlideError]
) -> None:
    async def decide(_: Offer) -> NoReturn:
        raise kind("You said no, in your own words.", "Nothing was written.", for_peer="Not on a Sunday.")

    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(receive, far, bob, decide)
    assert "bob declined: Not on a Sunday." in alice.failed_with(kind)
    assert "in your own words" in bob.failed_with(kind)
    assert alice.reports == bob.reports == []
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../file", "/etc/passwd", "a/b", "a\0b", "a\nb", "\x1b[2J"])
async def test_F1_an_offer_with_such_a_name_is_refused_before_anybody_is_asked(folder: Path, name: str) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, never)
        await near.send(Offer(items=(Item(name, 3),)))
        answer = await near.receive()
    assert isinstance(answer, Decline)
    assert "refused whole" in answer.message
    assert "\x1b" not in bob.failed_with(Declined)
    assert bob.reports == []
    assert list(folder.parent.iterdir()) == [folder]


async def test_who_does_not_answer_in_time_has_declined_and_is_told(path: Path) -> None:
    asked, withdrawn = trio.Event(), trio.Event()

    async def decide(_: Offer) -> NoReturn:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            withdrawn.set()

    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(near, alice, source, Terms(ask_timeout=0.3)))
            nursery.start_soon(receive, far, bob, decide)
    assert asked.is_set()
    assert withdrawn.is_set()
    assert "bob did not answer within 300ms" in alice.failed_with(Declined)
    assert "nobody answered within 300ms" in bob.failed_with(Stopped)
    assert alice.reports == bob.reports == []


@pytest.mark.parametrize("how", ["hangs up", "is cancelled", "sends rubbish"])
async def test_a_sender_that_goes_away_withdraws_the_question(path: Path, how: str) -> None:
    asked, withdrawn = trio.Event(), trio.Event()

    async def decide(_: Offer) -> NoReturn:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            withdrawn.set()

    bob = Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(receive, far, bob, decide)
            async with trio.open_nursery() as sender:
                sender.start_soon(send, near, Side(), source)
                await asked.wait()
                if how == "hangs up":
                    await near.aclose()
                elif how == "sends rubbish":
                    await near.stream.send_all(bytes(100))
                else:
                    sender.cancel_scope.cancel()
    assert withdrawn.is_set()
    kind = {"hangs up": ConnectionLost, "is cancelled": Stopped, "sends rubbish": IntegrityError}[how]
    said = bob.failed_with(kind)
    assert "alice" in said or how == "sends rubbish"
    assert bob.reports == []


async def test_a_sender_that_makes_no_offer_is_not_waited_for(folder: Path) -> None:
    bob = Side()
    async with (
        joined(Deadlines(handshake=0.3, keepalive=0.05, farewell=0.3)) as (near, far),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(near.keep_alive)
        await receive(far, bob, never)
        nursery.cancel_scope.cancel()
    assert "alice made no offer" in bob.failed_with(Stalled)


# --- files and disks ---------------------------------------------------------------------------------------


class Hooked(Source):
    """Does something to itself when it is read from ``at`` on."""

    at = BLOCK
    hook: Callable[[], object] = staticmethod(lambda: None)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        if offset >= self.at:
            self.hook()
        return super().read_into(buffer, offset)


@pytest.mark.parametrize("how", ["grows", "shrinks", "is removed", "is replaced", "is written to"])
async def test_a_file_that_changes_on_the_way_fails_on_both_sides_and_says_how(
    path: Path, folder: Path, how: str
) -> None:
    def change() -> None:
        match how:
            case "grows":
                with path.open("ab") as file:
                    file.write(b"more")
            case "shrinks":
                os.truncate(path, BLOCK + 1)
            case "is removed":
                path.unlink(missing_ok=True)
            case "is replaced":
                fresh = path.with_name("fresh")
                fresh.write_bytes(CONTENT)
                fresh.replace(path)
            case "is written to":
                path.write_bytes(CONTENT)

    words = {
        "grows": "it grew",
        "shrinks": "it shrank",
        "is removed": "it was removed",
        "is replaced": "it was replaced",
        "is written to": "it was written to",
    }[how]
    alice, bob = Side(), Side()
    with Hooked.open(path) as source:
        assert isinstance(source, Hooked)
        source.hook = change
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(receive, far, bob, into(folder))
    assert words in alice.failed_with(FileError)
    assert words in bob.failed_with(FileError)
    assert "alice" in str(bob.error)
    assert os.listdir(folder) == []
    assert bob.of(events.Saved) == []


@apart.root
async def test_F11_a_disk_that_fills_up_is_told_on_both_sides_and_nothing_is_left(path: Path, tmp_path: Path) -> None:
    alice, bob = Side(), Side()
    with (
        apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "none") as small,
        Source.open(path) as source,
    ):
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(receive, far, bob, into(small))
        assert os.listdir(small) == []
    assert "their disk is too full" in alice.failed_with(FileError)
    assert "The disk is too full" in bob.failed_with(FileError)
    assert str(small) not in str(alice.error)


@pytest.mark.parametrize("moment", ["create", "write", "land"])
async def test_F11_an_error_of_the_disk_is_told_on_both_sides_and_nothing_is_left(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def failing(*_: object, **__: object) -> NoReturn:
        raise landing.disk_error(OSError(5, "Input/output error"))

    monkeypatch.setattr(Destination if moment == "create" else Partial, moment, failing)
    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(receive, far, bob, into(folder))
    for side in (alice, bob):
        assert "cannot be written to" in side.failed_with(FileError)
    assert os.listdir(folder) == []


async def test_a_sender_may_put_its_bytes_into_small_frames(folder: Path) -> None:
    content = CONTENT[:20_000]
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, into(folder))
        await offered(near, len(content))
        for at in range(0, len(content), 4):
            await near.send_data(memoryview(content)[at : at + 4])
        await ended(near, content)
        assert isinstance(await answer_of(near), Receipt)
        await near.send(Done())
    assert bob.error is None
    assert (folder / "file.bin").read_bytes() == content


# --- a sender that lies ------------------------------------------------------------------------------------


class Anything(Machine):
    """Lets a peer say what it may not."""

    def sent(self, kind: Kind) -> None:
        pass

    def received(self, kind: int) -> None:
        pass


async def offered(connection: Connection, size: int, name: str = "file.bin") -> None:
    await connection.send(Offer(items=(Item(name, size),)))
    assert isinstance(await connection.receive(), Accept)


async def ended(connection: Connection, content: bytes) -> None:
    digest = blake3.blake3(content).digest()
    await connection.send(Digests((digest,)), End(len(content), digest))


async def answer_of(connection: Connection) -> Message | Data:
    """What comes that is no acknowledgement."""
    while True:
        message = await connection.receive()
        if not isinstance(message, Ack):
            return message


SMALL = b"what the sender offered"
DIGEST = blake3.blake3(SMALL).digest()
WRONG = blake3.blake3(b"something else").digest()
Said = tuple[Message | bytes, ...]

LIES: dict[str, tuple[Said, type[GlideError]]] = {
    "a wrong digest": ((SMALL, Digests((WRONG,)), End(len(SMALL), WRONG)), IntegrityError),
    "a wrong digest of the item": ((SMALL, Digests((WRONG,)), End(len(SMALL), DIGEST)), IntegrityError),
    "a wrong digest of all": ((SMALL, Digests((DIGEST,)), End(len(SMALL), WRONG)), IntegrityError),
    "a wrong total": ((SMALL, Digests((DIGEST,)), End(len(SMALL) - 1, DIGEST)), IntegrityError),
    "a huge total": ((SMALL, Digests((DIGEST,)), End(2**63 - 1, DIGEST)), IntegrityError),
    "other bytes": ((SMALL[::-1], Digests((DIGEST,)), End(len(SMALL), DIGEST)), IntegrityError),
    "too few bytes": ((SMALL[:-1], Digests((DIGEST,)), End(len(SMALL), DIGEST)), ProtocolError),
    "too few bytes, honestly": (
        (SMALL[:-1], Digests((blake3.blake3(SMALL[:-1]).digest(),)), End(len(SMALL) - 1, WRONG)),
        ProtocolError,
    ),
    "no bytes": ((Digests((DIGEST,)), End(len(SMALL), DIGEST)), ProtocolError),
    "too many bytes": ((SMALL + b"!", Digests((DIGEST,)), End(len(SMALL), DIGEST)), ProtocolError),
    "too many bytes, later": ((SMALL, b"!", Digests((DIGEST,)), End(len(SMALL), DIGEST)), ProtocolError),
    "far too many bytes": ((SMALL, bytes(3 * BLOCK)), ProtocolError),
    "bytes after the digests": ((SMALL, Digests((DIGEST,)), b"!", End(len(SMALL), DIGEST)), ProtocolError),
    "no digest": ((SMALL, Digests(()), End(len(SMALL), DIGEST)), ProtocolError),
    "two digests": ((SMALL, Digests((DIGEST, DIGEST)), End(len(SMALL), DIGEST)), ProtocolError),
    "digests twice": ((SMALL, Digests((DIGEST,)), Digests((DIGEST,)), End(len(SMALL), DIGEST)), ProtocolError),
    "no digests at all": ((SMALL, End(len(SMALL), DIGEST)), ProtocolError),
    "an end at once": ((End(0, blake3.blake3().digest()),), ProtocolError),
    "another offer": ((SMALL, Offer(items=(Item("other", 3),))), ProtocolError),
    "its own receipt": ((SMALL, Digests((DIGEST,)), Receipt(1, len(SMALL), DIGEST)), ProtocolError),
    "done at once": ((SMALL, Digests((DIGEST,)), Done()), ProtocolError),
    "acknowledgements": ((Ack(3),), ProtocolError),
}


@pytest.mark.parametrize("lie", LIES)
async def test_C4_what_does_not_check_out_is_kept_under_no_name(folder: Path, lie: str) -> None:
    said, kind = LIES[lie]
    bob = Side()
    answer: Message | Data | None = None
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, into(folder))
        await offered(near, len(SMALL))
        near.machine = Anything(Purpose.END_TO_END, near.machine.me)
        try:
            for each in said:
                if isinstance(each, bytes):
                    await near.send_data(memoryview(each))
                else:
                    await near.send(each)
            await near.send(Keepalive())  # so that bytes alone do not wait for more
            answer = await answer_of(near)
        except ConnectionLost:
            assert lie == "far too many bytes", "otherwise there was time to say why"
    bob.failed_with(kind)
    if answer is not None:
        assert isinstance(answer, Abort)
        assert answer.code == kind.code
    assert os.listdir(folder) == []
    assert bob.of(events.Saved) == bob.of(events.Received) == []


@pytest.mark.parametrize("after", ["the accept", "some bytes", "all bytes", "the digests"])
async def test_C4_a_stream_that_ends_is_not_a_transfer_that_ended(folder: Path, after: str) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, into(folder))
        await offered(near, len(SMALL))
        if after != "the accept":
            await near.send_data(memoryview(SMALL[:5]))
            await near.send(Keepalive())
        if after in ("all bytes", "the digests"):
            await near.send_data(memoryview(SMALL[5:]))
            await near.send(Keepalive())
        if after == "the digests":
            await near.send(Digests((DIGEST,)))
        await near.stream.send_eof()
    assert "alice is gone" in bob.failed_with(ConnectionLost)
    assert "Nothing was kept" in str(bob.error)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("after", ["done", "hangs up", "is silent", "aborts", "sends more", "sends rubbish"])
async def test_C4_what_the_sender_does_after_the_end_changes_nothing_at_the_receiver(folder: Path, after: str) -> None:
    bob = Side()
    async with joined(Deadlines(handshake=0.5, farewell=0.2)) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, into(folder))
        await offered(near, len(SMALL))
        await near.send_data(memoryview(SMALL))
        await ended(near, SMALL)
        assert await answer_of(near) == Receipt(1, len(SMALL), DIGEST)
        near.machine = Anything(Purpose.END_TO_END, near.machine.me)
        match after:
            case "done":
                await near.send(Done())
            case "hangs up":
                await near.aclose()
            case "aborts":  # it crossed the receipt
                await near.send(Abort("cancelled"))
            case "sends more":
                await near.send(Digests((WRONG,)))
            case "sends rubbish":
                await near.stream.send_all(bytes(100))
    assert bob.error is None, "the file is there: to say that nothing was kept would be wrong"
    assert bob.outcome == Outcome(1, len(SMALL), DIGEST)
    assert (folder / "file.bin").read_bytes() == SMALL
    assert bob.reports[-1] == events.Received(TRANSFER, "alice", 1, len(SMALL))


async def test_D1_what_a_sender_says_when_it_stops_is_made_printable(folder: Path) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, into(folder))
        await offered(near, len(SMALL))
        await near.send(Abort("cancelled", "\x1b]52;c;cm0=\x07\u202e\r"))
    said = bob.failed_with(Stopped)
    assert not set("\x1b\x07\r\u202e") & set(said)
    assert "alice" in said


# --- a receiver that lies ----------------------------------------------------------------------------------


async def until_end(connection: Connection) -> End:
    """Take in a transfer; the sender's last word."""
    while True:
        message = await connection.receive()
        if isinstance(message, End):
            return message


RIGHT = Receipt(1, len(CONTENT), blake3.blake3(CONTENT).digest())
WRONG_ANSWERS: dict[str, tuple[Said, Said]] = {
    # said together with the yes, said after the end
    "more bytes than were offered": ((), (Ack(len(CONTENT) + 1),)),
    "bytes before any were sent": ((Ack(len(CONTENT)),), ()),
    "fewer bytes than before": ((), (Ack(BLOCK), Ack(BLOCK - 1))),
    "a receipt before the end": ((RIGHT,), ()),
    "a receipt with another digest": ((), (Receipt(1, len(CONTENT), WRONG),)),
    "a receipt with fewer bytes": ((), (Receipt(1, len(CONTENT) - 1, RIGHT.digest),)),
    "a receipt with more items": ((), (Receipt(2, len(CONTENT), RIGHT.digest),)),
    "a receipt with no items": ((), (Receipt(0, len(CONTENT), RIGHT.digest),)),
    "a no after the yes": ((Decline("declined"),), ()),
    "yes twice": ((Accept(),), ()),
    "an offer of its own": ((Offer(items=(Item("other", 3),)),), ()),
    "that it is done": ((), (Done(),)),
    "bytes": ((b"bytes",), ()),
}


@pytest.mark.parametrize("what", WRONG_ANSWERS)
async def test_C4_a_receiver_that_says_what_cannot_be_is_not_believed(path: Path, what: str) -> None:
    with_the_yes, after_the_end = WRONG_ANSWERS[what]
    alice = Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            assert isinstance(await far.receive(), Offer)
            far.machine = Anything(Purpose.END_TO_END, far.machine.me)
            for each in with_the_yes:
                # One record with the yes, so that it is there before anything was sent.
                if isinstance(each, bytes):
                    await far.send(Accept())
                    await far.send_data(memoryview(each))
                    await far.send(Keepalive())
                else:
                    await far.send(Accept(), each)
            if not with_the_yes:
                await far.send(Accept())
            heard: Message | Data | None = None
            try:
                while not isinstance(heard, (End, Abort)):
                    heard = await far.receive()
                if isinstance(heard, End):  # what was said with the yes, if anything, went through
                    for each in after_the_end or (RIGHT,):
                        assert not isinstance(each, bytes)
                        await far.send(each)
                    await far.receive()
            except ConnectionLost:
                pass
            await far.close()
    alice.failed_with(ProtocolError)


@pytest.mark.parametrize("after", ["the offer", "the accept", "some bytes", "the end"])
async def test_C4_without_a_receipt_nothing_was_delivered(path: Path, after: str) -> None:
    alice = Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            assert isinstance(await far.receive(), Offer)
            if after != "the offer":
                await far.send(Accept())
            if after == "some bytes":
                await far.receive()
            if after == "the end":
                await until_end(far)
                await far.send(Ack(len(CONTENT)))
            await far.aclose()
    assert "bob is gone" in alice.failed_with(ConnectionLost)


async def test_C4_with_the_receipt_it_was_delivered_whatever_becomes_of_the_receiver(path: Path) -> None:
    alice = Side()
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            assert isinstance(await far.receive(), Offer)
            await far.send(Accept())
            await until_end(far)
            await far.send(RIGHT)
            await far.aclose()  # nobody is there to be told that we have it
    assert alice.error is None
    assert alice.outcome == Outcome(1, RIGHT.bytes, RIGHT.digest)


@pytest.mark.parametrize("when", ["declines", "stops it"])
async def test_D1_what_a_receiver_says_is_made_printable(path: Path, when: str) -> None:
    alice = Side()
    hostile = "\x1b]52;c;cm0=\x07\u202e\r" + "x" * 370
    with Source.open(path) as source:
        async with joined() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source)
            assert isinstance(await far.receive(), Offer)
            if when == "declines":
                await far.send(Decline("declined", hostile))
            else:
                await far.send(Accept(), Abort("no such word", hostile))
            await far.close()
    said = alice.failed_with(Declined if when == "declines" else Stopped)
    assert not set("\x1b\x07\r\u202e") & set(said)
    assert said.startswith("bob ")


# --- silence -------------------------------------------------------------------------------------------------

# No multiple of the keepalive is near the idle deadline.
BRISK = Deadlines(handshake=5, keepalive=0.07, lost=90, farewell=0.3)
IMPATIENT, ENDLESS = Terms(idle=0.3), Terms(idle=0)


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """A disk that does not answer until this is set."""
    event = threading.Event()
    yield event
    event.set()


def stop_the_disk(monkeypatch: pytest.MonkeyPatch, stuck: threading.Event) -> None:
    """Let the receiver's disk take nothing for a while; a thread in a system call cannot be left alone for ever."""
    monkeypatch.setattr(Partial, "write", lambda *_: stuck.wait(1.5))


async def test_a_senders_disk_that_stops_is_named(path: Path, folder: Path, stuck: threading.Event) -> None:
    alice, bob = Side(), Side()
    with Hooked.open(path) as source:
        assert isinstance(source, Hooked)
        source.hook = stuck.wait
        async with joined(BRISK) as (near, far):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, near, alice, source, IMPATIENT)
                nursery.start_soon(receive, far, bob, into(folder), ENDLESS)
            stuck.set()
    assert "stalled for 300ms: your disk did not deliver" in alice.failed_with(Stalled)
    assert str(path) in str(alice.error)
    assert "alice" in bob.failed_with(Stalled)
    assert os.listdir(folder) == []


async def test_a_receivers_disk_that_stops_is_named(
    path: Path, folder: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_disk(monkeypatch, stuck)
    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source, ENDLESS)
            nursery.start_soon(receive, far, bob, into(folder), IMPATIENT)
    assert "stalled for 300ms: your disk did not take what arrived" in bob.failed_with(Stalled)
    assert str(folder) in str(bob.error)
    assert "bob" in alice.failed_with(Stalled)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("why", ["stalled", "changed"])
async def test_what_the_receiver_is_told_speaks_of_no_path_of_the_sender_nor_of_your_disk(
    path: Path, folder: Path, stuck: threading.Event, why: str
) -> None:
    alice, bob = Side(), Side()
    with Hooked.open(path) as source:
        assert isinstance(source, Hooked)
        source.hook = stuck.wait if why == "stalled" else lambda: os.truncate(path, BLOCK)
        async with joined(BRISK) as (near, far):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, near, alice, source, IMPATIENT)
                nursery.start_soon(receive, far, bob, into(folder), ENDLESS)
            stuck.set()
    told = bob.failed_with(Stalled if why == "stalled" else FileError)
    assert str(path.parent) not in told
    assert "your disk" not in told


async def test_what_the_sender_is_told_speaks_of_no_path_of_the_receiver_nor_of_your_disk(
    path: Path, folder: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_disk(monkeypatch, stuck)
    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source, ENDLESS)
            nursery.start_soon(receive, far, bob, into(folder), IMPATIENT)
    told = alice.failed_with(Stalled)
    assert str(folder) not in told
    assert "your disk" not in told


async def test_a_receiver_that_is_there_but_writes_nothing_is_named(
    path: Path, folder: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_the_disk(monkeypatch, stuck)
    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source, IMPATIENT)
            nursery.start_soon(receive, far, bob, into(folder), ENDLESS)
    assert "the receiver (bob) is there but writes nothing to its disk" in alice.failed_with(Stalled)
    assert isinstance(bob.error, (Stalled, ConnectionLost))  # the disk may have kept it from hearing why
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("", "nothing came from the receiver (bob), and the relay did not say why"),
        ("receiver", "the receiver (bob) takes nothing from the relay"),
        ("sender", "the network between you and the relay is stuck"),
    ],
)
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair])
async def test_a_receiver_that_falls_silent_is_named(path: Path, hint: str, words: str, streams: Streams) -> None:
    if streams is trio.testing.memory_stream_pair:  # it takes all there is, and then no hint counts any more
        words = "all was sent, but the receiver (bob) does not confirm it"
    alice = Side()
    with Source.open(path) as source:
        async with joined(BRISK, streams) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(send, near, alice, source, IMPATIENT, hint)
            assert isinstance(await far.receive(), Offer)
            await far.send(Accept())
    assert words in alice.failed_with(Stalled)


@pytest.mark.parametrize(
    ("hint", "speaks", "words"),
    [
        ("", "", "nothing came from the sender (alice), and the relay did not say why"),
        ("sender", "", "nothing came from the sender (alice) to the relay"),
        ("receiver", "", "the network between the relay and you is stuck"),
        ("", "keepalives", "the sender (alice) is there but sends nothing"),
        ("", "empty frames", "the sender (alice) is there but sends nothing"),
    ],
)
async def test_a_sender_that_falls_silent_is_named(folder: Path, hint: str, speaks: str, words: str) -> None:
    bob = Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:

        async def chatter() -> None:
            while near.machine.state is not State.CLOSED:
                if speaks == "empty frames":
                    await near.send_data(memoryview(b""))
                await near.send(Keepalive())
                await trio.sleep(0.05)

        await trio.lowlevel.checkpoint()
        nursery.start_soon(receive, far, bob, into(folder), IMPATIENT, hint)
        await offered(near, len(CONTENT))
        await near.send_data(memoryview(CONTENT)[:BLOCK])
        await near.send(Keepalive())
        async with trio.open_nursery() as talking:
            if speaks:
                talking.start_soon(chatter)
            assert isinstance(await answer_of(near), Abort)
            talking.cancel_scope.cancel()
    assert words in bob.failed_with(Stalled)
    assert os.listdir(folder) == []


async def test_why_it_ends_is_told_although_a_keepalive_is_on_its_way(path: Path) -> None:
    alice = Side()
    deadlines = Deadlines(keepalive=0.05, farewell=5)
    with Source.open(path) as source:
        async with joined(deadlines, trio.testing.lockstep_stream_pair) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(near, alice, source, Terms(ask_timeout=0.3)))
            assert isinstance(await far.receive(), Offer)
            await trio.sleep(0.6)  # the keepalive is on its way, and the time to answer is over
            assert isinstance(await far.receive(), Abort)
            await far.aclose()
    assert "bob did not answer" in alice.failed_with(Declined)


async def test_a_slow_transfer_is_no_stalled_one(folder: Path) -> None:
    bob = Side()
    begun = trio.current_time()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, into(folder), Terms(idle=1.0))
        await offered(near, len(SMALL))
        for at in range(0, len(SMALL), 4):
            await near.send_data(memoryview(SMALL)[at : at + 4])
            await near.send(Keepalive())
            await trio.sleep(0.25)
        await ended(near, SMALL)
        await answer_of(near)
        await near.send(Done())
    assert trio.current_time() - begun > 1.2
    assert bob.error is None


# --- cancelled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, socket_pair])
async def test_a_transfer_that_is_stopped_on_one_side_is_cancelled_on_the_other_and_nothing_is_left(
    path: Path, folder: Path, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch, who: str, streams: Streams
) -> None:
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(receiving, "BATCH_SECONDS", 0.0)  # a batch for every piece
    begun = trio.Event()
    alice, bob = Side(), Side()
    alice.on_report = lambda event: begun.set() if isinstance(event, events.Progress) and event.bytes else None
    with Hooked.open(path) as source:
        assert isinstance(source, Hooked)
        source.at = 2 * BLOCK
        source.hook = stuck.wait  # so that it cannot end before it is stopped
        async with joined(BRISK, streams) as (near, far):
            async with trio.open_nursery() as nursery:
                scopes = {"sender": trio.CancelScope(), "receiver": trio.CancelScope()}

                async def sender() -> None:
                    with scopes["sender"]:
                        await send(near, alice, source)

                async def receiver() -> None:
                    with scopes["receiver"]:
                        await receive(far, bob, into(folder))

                nursery.start_soon(sender)
                nursery.start_soon(receiver)
                await begun.wait()
                scopes[who].cancel()
            stuck.set()
    assert scopes[who].cancelled_caught
    stopped, other = (alice, bob) if who == "sender" else (bob, alice)
    assert stopped.error is None
    assert stopped.outcome is None
    assert "stopped it" in other.failed_with(Stopped)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_an_offer_that_is_stopped_on_one_side_is_cancelled_on_the_other(
    path: Path, folder: Path, who: str
) -> None:
    asked = trio.Event()

    async def decide(_: Offer) -> NoReturn:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
            scopes = {"sender": trio.CancelScope(), "receiver": trio.CancelScope()}

            async def sender() -> None:
                with scopes["sender"]:
                    await send(near, alice, source)

            async def receiver() -> None:
                with scopes["receiver"]:
                    await receive(far, bob, decide)

            nursery.start_soon(sender)
            nursery.start_soon(receiver)
            await asked.wait()
            scopes[who].cancel()
    stopped, other = (alice, bob) if who == "sender" else (bob, alice)
    assert stopped.error is None
    assert stopped.outcome is None
    assert "stopped it" in other.failed_with(Stopped)
    assert os.listdir(folder) == []


async def test_a_receiver_that_is_stopped_while_its_file_lands_has_it_and_says_so(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Partial.land
    scope = trio.CancelScope()

    def land(partial: Partial, name: str, *, sync: bool) -> Path:
        trio.from_thread.run_sync(scope.cancel)
        return real(partial, name, sync=sync)

    monkeypatch.setattr(Partial, "land", land)
    alice, bob = Side(), Side()
    with Source.open(path) as source:
        async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:

            async def receiver() -> None:
                with scope:
                    await receive(far, bob, into(folder))

            nursery.start_soon(send, near, alice, source)
            nursery.start_soon(receiver)
    assert alice.error is None
    assert alice.outcome == Outcome(1, len(CONTENT), RIGHT.digest)
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert len(bob.of(events.Saved)) == 1
