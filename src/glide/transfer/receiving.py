"""The receiver's half of a transfer; the sender's, and the order of messages, stand in ``sending``.

Two tasks: one takes records from the network and opens them, one hashes and writes in a thread, and acknowledges.
A channel of two batches lies between them: a disk that stops stops the network, and with it the sender.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import blake3
import trio

from glide import events
from glide.errors import Declined, GlideError, IntegrityError, ProtocolError, Stalled, one_error
from glide.net.connection import Connection, explained
from glide.net.deadlines import IdleDeadline, idle_deadline
from glide.protocol.frames import Data
from glide.protocol.messages import Abort, Accept, Ack, Decline, Digests, End, Item, Offer, Receipt
from glide.text import duration, printable
from glide.transfer.filenames import BadName, check_name
from glide.transfer.landing import Destination, Partial
from glide.transfer.manifest import whole
from glide.transfer.terms import Hint, Outcome, Terms, aborted

# Bytes that go to the disk in one thread call; fewer where the network takes longer than this to bring them.
BATCH = 1024 * 1024
BATCH_SECONDS = 0.5
# A sender may cut its data into frames of a byte each; what we hold for each piece is more than that.
BATCH_PIECES = 512
SMALL_PIECE = 16 * 1024

# Bytes are synced, and then acknowledged, at the latest after so many bytes or seconds: often enough for a true
# progress bar, seldom enough that a disk's flush costs little.
SYNC_BYTES = 32 * BATCH
SYNC_SECONDS = 1.0

# Says no by raising; may ask a person.
Decide = Callable[[Offer], Awaitable[None]]


@dataclass(frozen=True)
class Arrival:
    """Who sends, under which transfer; where it goes, and whether it waits for the disk."""

    transfer: bytes
    sender: str
    into: Path
    sync: bool = True


async def receive(
    connection: Connection,
    arrival: Arrival,
    decide: Decide,
    on_accept: Callable[[], None],
    *,
    terms: Terms,
    hint: Hint,
    report: events.Report,
) -> Outcome:
    """Take the offer, ask ``decide``, and receive what was accepted; returns once it stands under its name.

    ``on_accept`` is called when the sender is told yes. Raises a :class:`GlideError`, after the sender was told why if
    it could be; nothing is left under a final name or a temporary one. Cancelled, it does the same.
    """
    async with explained(connection, _NOTHING):
        offer = await _offer(connection, arrival.sender)
        await _decided(connection, arrival.sender, decide, offer)
        # Only now: what room and which rights there are is nobody's business before a yes (C9).
        with await _opened(connection, arrival.into, offer) as destination:
            await connection.send(Accept())
            on_accept()
            connection.leave_to(terms.idle)
            receiving = _Receiving(connection, arrival, offer.items[0], destination, terms, hint, report)
            return await receiving.run()
    raise AssertionError("unreachable")  # pragma: no cover - the block returns or raises


async def _offer(connection: Connection, sender: str) -> Offer:
    """The sender's offer, its names checked (F1): a bad one is refused whole, before anybody is asked."""
    with trio.move_on_after(connection.deadlines.handshake):
        match await connection.receive():
            case Offer() as offer:
                try:
                    for item in offer.items:
                        check_name(item.name)
                except BadName as error:
                    refusal = Declined(
                        f"{sender} offered a file whose name no honest sender offers: {error}.",
                        _NOTHING,
                        for_peer=f"the offer was refused whole: {error}.",
                    )
                    await _decline(connection, refusal)
                    raise refusal from None
                return offer
            case Abort() as abort:
                raise aborted(abort, sender, _NOTHING)
    raise Stalled(f"{sender} made no offer within {connection.deadlines.handshake:.0f} s.", _NOTHING)


async def _decided(connection: Connection, sender: str, decide: Decide, offer: Offer) -> None:
    """Return if ``decide`` says yes, unless the sender goes away meanwhile. A no is passed on."""
    with one_error():
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                match await connection.receive():
                    case Abort() as abort:
                        raise aborted(abort, sender, _NOTHING)

            nursery.start_soon(watch)
            try:
                await decide(offer)
            except GlideError as error:
                await _decline(connection, error)
                raise
            nursery.cancel_scope.cancel()


async def _opened(connection: Connection, into: Path, offer: Offer) -> Destination:
    """The destination, with room for the offer as far as that can be known; if not, the sender is told (F11)."""
    try:
        destination = Destination.open(into)
        try:
            destination.check_room(sum(item.size for item in offer.items))
        except BaseException:
            destination.close()
            raise
    except GlideError as error:
        await _decline(connection, error)
        raise
    return destination


async def _decline(connection: Connection, error: GlideError) -> None:
    await connection.send(Decline(code=error.code, message=error.for_peer[:400]))


class _Receiving:
    """One accepted transfer at its receiver."""

    def __init__(
        self,
        connection: Connection,
        arrival: Arrival,
        item: Item,
        destination: Destination,
        terms: Terms,
        hint: Hint,
        report: events.Report,
    ) -> None:
        self._connection = connection
        self._arrival = arrival
        self._item = item
        self._destination = destination
        self._sync = arrival.sync
        self._terms = terms
        self._hint = hint
        self._report = report
        self._hasher = blake3.blake3()
        self._written = 0
        self._acknowledged = 0
        self._writing = False

    async def run(self) -> Outcome:
        self._progress()
        self._hint.counts = True
        with (
            idle_deadline(self._terms.idle, self._blame) as idle,
            self._destination.create() as partial,
            one_error(),
        ):
            full_in, full_out = trio.open_memory_channel[list[memoryview]](2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, partial, full_out, idle)
                digest = await self._take_in(full_in, idle)
            return await self._finish(partial, digest)

    async def _take_in(self, full: trio.MemorySendChannel[list[memoryview]], idle: IdleDeadline) -> bytes:
        """Gather what arrives into batches until the digests come; the item's digest."""
        batch: list[memoryview] = []
        gathered = total = 0
        begun = trio.current_time()
        async with full:
            while True:
                match await self._connection.receive():
                    case Data(view=view):
                        if not view:
                            continue
                        idle.touch()
                        # A small piece is copied: the view would keep a whole record in memory.
                        batch.append(view if len(view) >= SMALL_PIECE else memoryview(bytes(view)))
                        gathered += len(view)
                        total += len(view)
                        if total > self._item.size:
                            raise ProtocolError(f"{self._arrival.sender} sent more than the offer said.", _NOTHING)
                        full_enough = gathered >= BATCH or len(batch) >= BATCH_PIECES
                        if full_enough or trio.current_time() - begun >= BATCH_SECONDS:
                            await full.send(batch)
                            batch, gathered, begun = [], 0, trio.current_time()
                    case Digests(digests=(digest,)) if total == self._item.size:
                        self._hint.counts = False  # there is nothing more to wait for
                        if batch:
                            await full.send(batch)
                        return digest
                    case Abort() as abort:
                        raise aborted(abort, self._arrival.sender, _NOTHING)
                    case other:
                        raise ProtocolError(
                            f"{self._arrival.sender} said {type(other).__name__} after {total} of "
                            f"{self._item.size} bytes.",
                            _NOTHING,
                        )

    async def _write(
        self, partial: Partial, full: trio.MemoryReceiveChannel[list[memoryview]], idle: IdleDeadline
    ) -> None:
        """Hash, write and sync, each batch in one thread call; acknowledge what is durable."""

        def store(batch: list[memoryview], sync: bool) -> None:
            for piece in batch:
                self._hasher.update(piece)
            partial.write(batch)
            if sync:
                partial.sync()

        synced_at = trio.current_time()
        async for batch in full:
            count = sum(map(len, batch))
            waiting = self._written + count - self._acknowledged
            due = waiting >= SYNC_BYTES or trio.current_time() - synced_at >= SYNC_SECONDS
            self._writing = True
            await trio.to_thread.run_sync(store, batch, due and self._sync)
            # A deadline that passed while the disk was at it is the disk's: see _blame.
            self._writing = idle.scope.cancel_called
            self._written += count
            idle.touch()
            if due:
                synced_at = trio.current_time()
                await self._acknowledge()

    async def _acknowledge(self) -> None:
        self._acknowledged = self._written
        self._progress()
        await self._connection.send(Ack(bytes=self._written))

    def _progress(self) -> None:
        self._report(events.Progress(self._arrival.transfer, self._acknowledged, self._item.size))

    async def _finish(self, partial: Partial, announced: bytes) -> Outcome:
        """Check the digests, give the file its name, confirm."""
        digest = self._hasher.digest()
        match await self._connection.receive():
            case End() as end:
                pass
            case Abort() as abort:
                raise aborted(abort, self._arrival.sender, _NOTHING)
            case other:
                raise ProtocolError(f"{self._arrival.sender} said {type(other).__name__} for End.", _NOTHING)
        if announced != digest or (end.bytes, end.digest) != (self._written, whole([digest])):
            raise IntegrityError(
                f"What arrived from {self._arrival.sender} is not what was sent: the digests differ.",
                _NOTHING,
                "Ask for it again.",
                for_peer="the digests differ: what arrived is not what was sent.",
            )
        # Not to be interrupted: once the name is there, the receipt says so. What waits in here has a deadline; a
        # thread that syncs cannot be cancelled anyway.
        with trio.CancelScope(shield=True):
            path = await trio.to_thread.run_sync(lambda: partial.land(self._item.name, sync=self._sync))
            transfer, size = self._arrival.transfer, self._item.size
            try:
                with trio.move_on_after(self._connection.deadlines.handshake):
                    await self._connection.send(Receipt(items=1, bytes=size, digest=end.digest))
                    await self._connection.receive()  # Done, or an Abort that crossed the receipt
            except GlideError:
                pass  # the file is here, whatever the sender knows of it
        # After the receipt: whoever reads what we report must not come between the file and it.
        self._acknowledged = self._written
        self._progress()
        self._report(events.Saved(transfer, str(path), size, digest))
        self._report(events.Received(transfer, self._arrival.sender, 1, size))
        return Outcome(1, size, end.digest)

    def _blame(self) -> Stalled:
        sender, heard = self._arrival.sender, trio.current_time() - self._connection.last_heard
        if self._writing:
            why = f"your disk did not take what arrived (into {printable(str(self._destination.path))})"
        elif self._hint.counts and self._hint.side == "receiver":
            why = "the relay could not pass on what it has: the network between the relay and you is stuck"
        elif self._hint.counts and self._hint.side == "sender":
            why = f"nothing came from the sender ({sender}) to the relay"
        elif heard < self._terms.idle:
            why = f"the sender ({sender}) is there but sends nothing"
        else:
            why = f"nothing came from the sender ({sender}), and the relay did not say why"
        seconds = duration(self._terms.idle)
        return Stalled(
            f"The transfer from {sender} stalled for {seconds}: {why}.",
            _NOTHING,
            "It can be sent again; allow longer pauses with --idle.",
            for_peer=f"nothing had moved for {seconds}.",
        )


_NOTHING = "Nothing was kept."
