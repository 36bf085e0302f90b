"""Two ends of a transfer over a connection of their own, and words for peers that are driven by hand."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import blake3
import pytest
import trio
import trio.testing

from glide import events
from glide.crypto.identity import Identity
from glide.errors import GlideError
from glide.net.connection import FRAME, Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate, respond
from glide.protocol.endtoend import Accept, Ack, Busy, Digests, End, Item, Offer, Page, Want
from glide.protocol.fields import Message
from glide.protocol.frames import Data, Kind
from glide.protocol.preface import Purpose
from glide.protocol.states import Machine
from glide.transfer import gathering, receiving, sending
from glide.transfer.gathering import Gathered
from glide.transfer.keeping import Kept, kept
from glide.transfer.landing import Conflict
from glide.transfer.manifest import whole
from glide.transfer.sources import OpenFile
from glide.transfer.storage import Arrival
from glide.transfer.taking import Claim, Offered, Room
from glide.transfer.terms import Hint, Outcome, Terms

ALICE, BOB = Identity.from_private(b"a" * 32), Identity.from_private(b"b" * 32)
TRANSFER, RELAY = bytes(range(16)), b"r" * 32
PATIENT = Deadlines(handshake=10, keepalive=30, lost=90, farewell=0.3)  # peers by hand do not close
# No multiple of the keepalive is near the idle deadline.
BRISK = Deadlines(handshake=5, keepalive=0.07, lost=90, farewell=0.3)
CONTENT = random.Random(2).randbytes(3 * FRAME + 12345)
SMALL = b"what the sender offered"
PATIENCE = 30.0  # for anything in here; the machine may be busy
ABANDONED = 5.0  # for a thread that waits for a disk

Streams = Callable[[], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]]


def digest(content: bytes) -> bytes:
    return blake3.blake3(content).digest()


# --- one end -----------------------------------------------------------------------------------------------


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

    def notices(self) -> str:
        return "\n".join(event.message for event in self.reports if isinstance(event, events.Notice))

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


@dataclass
class Place:
    """Where a receiver takes things, and whom it takes them from; says yes to everything unless told otherwise."""

    into: Path | None
    journals: Path
    conflict: Conflict = Conflict.RENAME
    sync: bool = True
    key: bytes = ALICE.public
    offers: list[Offered] = field(default_factory=list)

    async def yes(self, offered: Offered) -> None:
        await trio.lowlevel.checkpoint()
        self.offers.append(offered)

    def arrival(self) -> Arrival:
        return Arrival(TRANSFER, "alice", self.key, RELAY, self.into, self.journals, self.conflict, self.sync)

    def names(self) -> list[str]:
        """All that stands in the folder, hidden or not."""
        assert self.into is not None, "a folder"
        return sorted(os.listdir(self.into))

    def final(self) -> list[str]:
        """What stands there under a final name."""
        return [name for name in self.names() if not _is_stage(name)]

    def stage(self) -> Path:
        """The only stage there."""
        assert self.into is not None, "a folder"
        (stage,) = [self.into / name for name in self.names() if _is_stage(name)]
        return stage

    def kept(self) -> list[Kept]:
        """What the journals speak of."""
        return [found for found, _ in kept(self.journals)]

    def is_clean(self) -> bool:
        """True if nothing is left of any transfer but what has landed."""
        return self.names() == self.final() and not list(self.journals.glob("*"))


def _is_stage(name: str) -> bool:
    return name.startswith(".glide-") and name.endswith(".part")


async def never(_: Offered) -> NoReturn:
    raise AssertionError("nobody may be asked about this offer")


def gather(*paths: Path) -> Gathered:
    return gathering.gather(paths, warn=lambda _: None)


async def send(
    connection: Connection,
    side: Side,
    gathered: Gathered,
    terms: Terms | None = None,
    hint: str = "",
    message: str = "",
    again: bool = False,
) -> None:
    await side.run(
        lambda: sending.send(
            connection,
            gathered,
            transfer=TRANSFER,
            to="bob",
            message=message,
            terms=terms or Terms(),
            hint=Hint(side=hint),
            report=side.report,
            again=again,
        )
    )


async def receive(
    connection: Connection,
    side: Side,
    place: Place,
    terms: Terms | None = None,
    hint: str = "",
    decide: Callable[[Offered], Awaitable[None]] | None = None,
    claim: Claim | None = None,
) -> None:
    arrival = place.arrival()

    async def where(offered: Offered) -> Arrival:
        await (decide or place.yes)(offered)
        return arrival

    await side.run(
        lambda: receiving.receive(
            connection,
            arrival,
            Room(),
            where,
            claim or (lambda _: nullcontext()),
            lambda: None,
            terms=terms or Terms(),
            hint=Hint(side=hint),
            report=side.report,
        )
    )


# --- both ends ---------------------------------------------------------------------------------------------


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends with the buffers that a system has."""
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


class Cut(trio.abc.HalfCloseableStream):
    """A stream that ends once so many bytes were sent on it: the other side reads these, and then that it is over."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, after: float) -> None:
        self._stream = stream
        self.left = after

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) >= self.left:
            await self._stream.send_all(bytes(data)[: int(self.left)])
            await self._stream.send_eof()
            await trio.sleep_forever()  # until the other side has gone
        self.left -= len(data)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def joined(
    deadlines: Deadlines = PATIENT,
    streams: Streams = trio.testing.memory_stream_pair,
    patience: float = PATIENCE,
) -> AsyncIterator[tuple[Connection, Connection]]:
    """The sender's and the receiver's connection after a real handshake; nothing is left running or open afterwards."""
    running = trio.lowlevel.current_statistics().tasks_living
    near, far = streams()
    already_open = _receivers_files()
    made: dict[str, Connection] = {}

    async def call() -> None:
        made["sender"], _ = await initiate(
            near, Purpose.END_TO_END, ALICE, peer="bob", deadlines=deadlines, check=lambda _: None
        )

    async def answer() -> None:
        made["receiver"], _, _ = await respond(
            far, frozenset({Purpose.END_TO_END}), BOB, peer="alice", deadlines=deadlines, check=lambda _: None
        )

    with trio.fail_after(patience):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(answer)
        async with made["sender"], made["receiver"]:
            yield made["sender"], made["receiver"]
        assert trio.lowlevel.current_statistics().tasks_living == running, "a task was left behind"
        # A thread that was abandoned ends by itself, and tells nobody.
        with trio.fail_after(ABANDONED):
            while trio.to_thread.current_default_thread_limiter().borrowed_tokens:  # noqa: ASYNC110  # there is no event for it
                await trio.sleep(0.005)
    assert _receivers_files() <= already_open, "a file was left open"


def open_files() -> list[str]:
    """The files and folders that are open in this process, as far as the system tells."""
    found = []
    for descriptor in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue  # that of the listing itself
    return [path for path in found if path.startswith("/")]


def _receivers_files() -> int:
    """How many of them only a receiver opens."""
    return sum("journals/" in path or "/in" in path for path in open_files())


async def transferred(
    gathered: Gathered,
    place: Place,
    streams: Streams = trio.testing.memory_stream_pair,
    cut: float | None = None,
    decide: Callable[[Offered], Awaitable[None]] | None = None,
    again: bool = False,
) -> tuple[Side, Side]:
    """One transfer from beginning to end; ``cut`` ends the connection once the sender has said so many bytes more."""
    alice, bob = Side(), Side()
    async with joined(streams=streams) as (near, far), trio.open_nursery() as nursery:
        if cut is not None:
            near.stream = Cut(near.stream, cut)
        nursery.start_soon(lambda: send(near, alice, gathered, again=again))
        await receive(far, bob, place, decide=decide)
        if cut is not None:
            await far.close()
    return alice, bob


def files(top: Path) -> dict[str, bytes | None]:
    """Everything under ``top``; None for a folder."""
    return {
        str(path.relative_to(top)): None if path.is_dir() else path.read_bytes()
        for path in sorted(top.rglob("*"))
        if not any(map(_is_stage, path.relative_to(top).parts))
    }


# --- peers by hand -----------------------------------------------------------------------------------------


class Anything(Machine):
    """Lets a peer say what it may not."""

    def sent(self, kind: Kind) -> None:
        pass

    def received(self, kind: int) -> None:
        pass


def anything(connection: Connection) -> None:
    connection.machine = Anything(Purpose.END_TO_END, connection.machine.me)


async def offered(connection: Connection, *items: Item) -> list[tuple[int, int]]:
    """Offer these, as a sender does; the ranges that the receiver wants then."""
    await connection.send(Page(items=items), Offer())
    assert isinstance(await connection.receive(), Accept)
    return await wanted(connection)


async def wanted(connection: Connection) -> list[tuple[int, int]]:
    """The next list of ranges that a receiver wants."""
    found: list[tuple[int, int]] = []
    while True:
        want = await answer_of(connection)
        assert isinstance(want, Want)
        found += want.ranges
        if not want.more:
            return found


async def ended(connection: Connection, *contents: bytes) -> bytes:
    """Tell the digests of these and the end, as a sender does; the digest of all."""
    told = b"".join(map(digest, contents))
    end = End(bytes=sum(map(len, contents)), digest=whole(told))
    await connection.send(Digests(page=0, digests=told), end)
    return whole(told)


async def answer_of(connection: Connection) -> Message | Data:
    """What comes that is no acknowledgement, and no sign of being there."""
    while True:
        message = await connection.receive()
        if not isinstance(message, (Ack, Busy)):
            return message


async def take_offer(connection: Connection) -> tuple[Item, ...]:
    """The items that a sender offers, as a receiver hears them."""
    items: tuple[Item, ...] = ()
    while isinstance(message := await connection.receive(), Page):
        items += message.items
    assert isinstance(message, Offer)
    return items


def all_of(items: tuple[Item, ...]) -> Want:
    size = sum(item.size for item in items)
    return Want(ranges=((0, size),) if size else ())


async def until_end(connection: Connection) -> End:
    """Take in a transfer; the sender's last word."""
    while True:
        message = await connection.receive()
        if isinstance(message, End):
            return message


def spied(sizes: list[int]) -> Callable[[Connection, memoryview], Awaitable[None]]:
    """``Connection.send_data`` that also notes how many bytes there were."""
    real = Connection.send_data

    async def send_data(connection: Connection, data: memoryview) -> None:
        sizes.append(len(data))
        await real(connection, data)

    return send_data


# --- disks -------------------------------------------------------------------------------------------------


def while_reading(monkeypatch: pytest.MonkeyPatch, name: str, hook: Callable[[], object], at: int = FRAME) -> None:
    """Call ``hook`` before each piece of a file of that name that the sender reads from ``at`` on."""
    real = OpenFile.read

    def read(self: OpenFile, view: memoryview, offset: int) -> None:
        if self._item.path == name and offset >= at:
            hook()
        real(self, view, offset)

    monkeypatch.setattr(OpenFile, "read", read)
    monkeypatch.setattr(OpenFile, "read_cached", lambda *_: 0)  # it is a disk's file, and was not read before
