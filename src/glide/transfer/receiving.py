"""The receiver's half of a transfer; the sender's, and the order of messages, stand in ``sending``.

Three tasks: one takes records from the network and opens them; one hashes and writes in a thread, and acknowledges;
one checks, meanwhile, what was here before (``checking``). A channel of one batch lies between the first two: a disk
that stops stops the network, and with it the sender.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from glide import events
from glide.errors import ConnectionLost, FileError, GlideError, one_error
from glide.net.connection import Connection, explained
from glide.protocol.endtoend import Accept, Ack, Blocks, Busy, Digests, Done, End, Range, Receipt, Want
from glide.protocol.fields import Message
from glide.text import counted
from glide.transfer import taking
from glide.transfer.checking import Checking, different
from glide.transfer.intake import Batch, take_in
from glide.transfer.journal import Confirmed
from glide.transfer.manifest import Manifest
from glide.transfer.storage import Arrival, Storage
from glide.transfer.taking import NOTHING, Claim, Decide, Room
from glide.transfer.terms import Hint, Outcome, Terms, Watch

# Bytes are synced, and then acknowledged, at the latest after so many bytes or seconds: often enough for a true
# progress bar, seldom enough that a disk's flush costs little.
SYNC_BYTES = 32 * 1024 * 1024
SYNC_SECONDS = 1.0

# Ranges of one WANT message.
_RANGES = 1000


async def receive(
    connection: Connection,
    arrival: Arrival,
    room: Room,
    decide: Decide,
    claim: Claim,
    on_accept: Callable[[], None],
    *,
    terms: Terms,
    hint: Hint,
    report: events.Report,
) -> Outcome:
    """Take the offer, ask ``decide``, and receive what was accepted; returns once it stands under its name.

    ``room`` is shared by all that is received at once; ``on_accept`` is called when the sender is told yes. Raises a
    :class:`GlideError`, after the sender was told why if it could be; what arrived stays in its stage, to go on with
    it later. Cancelled, it does the same.
    """
    means = NOTHING
    async with explained(connection, lambda: means):
        with room.place(arrival.key) as place:
            manifest, offer = await taking.take(connection, arrival.sender, place)
            async with claim(manifest):
                arrival, storage = await taking.decided(connection, arrival, manifest, offer, decide)
                means = storage.kept
                try:
                    await connection.send(Accept())
                    on_accept()
                    connection.leave_to(terms.idle)
                    return await _Receiving(connection, arrival, manifest, storage, terms, hint, report).run()
                except GlideError as error:
                    with trio.CancelScope(shield=True):
                        empty = await trio.to_thread.run_sync(storage.empty)
                    if empty and not manifest.streams:
                        if error.means == means:
                            error.means = NOTHING
                        means = NOTHING
                    raise
                finally:
                    # Not to be put off: somebody may wait for the journal. Only the disk can make it last.
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(storage.close)
    raise AssertionError("unreachable")  # pragma: no cover - the block returns or raises


class _Receiving:
    """One accepted transfer at its receiver."""

    def __init__(
        self,
        connection: Connection,
        arrival: Arrival,
        manifest: Manifest,
        storage: Storage,
        terms: Terms,
        hint: Hint,
        report: events.Report,
    ) -> None:
        self._connection = connection
        self._arrival = arrival
        self._manifest = manifest
        self._storage = storage
        self._stock = storage.stock
        self._assembly = storage.assembly
        self._report = report
        self._watch = Watch(
            connection,
            arrival.transfer,
            "receiver",
            arrival.sender,
            terms,
            hint,
            report,
            endless=manifest.streams or arrival.into is None,
        )
        self._checking = Checking(manifest, storage, self._want, self._report_notice)
        self._acknowledged = 0
        self._end: End | None = None

    async def run(self) -> Outcome:
        full_in, full_out = trio.open_memory_channel[Batch](1)
        with self._watch.deadline(self._storage.kept), one_error():
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch.run)
                    await self._first_wants()
                    nursery.start_soon(take_in, self._connection, self._watch, self._arrival, self._storage, full_in)
                    nursery.start_soon(self._write, full_out)
                    nursery.start_soon(self._checking.run, self._watch.moved, self._watch.get_on)
                    await self._checking.finished.wait()
                    async with self._connection.silence():
                        nursery.cancel_scope.cancel()
            except BaseException:
                await self._keep()
                raise
            return await self._finish()

    # --- what is wanted ---

    async def _first_wants(self) -> None:
        wants = self._stock.wants() if self._storage.confirmed is None else []
        await self._want(wants)
        kept = self._manifest.bytes - self._assembly.wanted
        if kept > 0:
            self._report(events.Resumed(self._arrival.transfer, kept))
        if self._stock.changed:
            self._report_notice(f"Changed since, and sent anew: {counted(self._stock.changed, 'file')}.")
        self._progress()

    async def _want(self, ranges: Sequence[Range]) -> None:
        """Ask for these, behind what was asked for before."""
        self._assembly.begin(ranges)
        parts = [tuple(ranges[at : at + _RANGES]) for at in range(0, len(ranges), _RANGES)] or [()]
        await self._say(*(Want(ranges=part, more=part is not parts[-1]) for part in parts))

    async def _say(self, *said: Message) -> None:
        """Say something while the transfer runs. If the sender has gone, it is what came before that tells why."""
        try:
            await self._connection.send(*said)
        except ConnectionLost:
            pass

    def _report_notice(self, text: str) -> None:
        self._report(events.Notice(f"From {self._arrival.sender}: {text}"))

    # --- the tasks ---

    async def _write(self, full: trio.MemoryReceiveChannel[Batch]) -> None:
        """Hash, write and sync, each batch in one thread call; acknowledge what is durable; take in what is said."""
        synced_at = trio.current_time()
        while True:
            batch: Batch | None = None
            behind = self._assembly.stored > self._acknowledged
            with trio.CancelScope(deadline=synced_at + SYNC_SECONDS if behind else math.inf):
                batch = await full.receive()
            if batch is None:  # the sender pauses: what it has sent is made durable all the same
                await self._store([], sync=True)
                synced_at = trio.current_time()
                await self._acknowledge()
                continue
            if isinstance(batch.said, GlideError):
                await self._store(batch.views, sync=False)  # it is synced on the way out
                raise batch.said
            if batch.views:
                waiting = self._assembly.stored + sum(map(len, batch.views)) - self._acknowledged
                due = (
                    waiting >= SYNC_BYTES
                    or trio.current_time() - synced_at >= SYNC_SECONDS
                    or waiting + self._acknowledged == self._assembly.wanted
                )
                stored = await self._store(batch.views, sync=due)
                await self._checking.stored(stored)
                self._watch.moved()
                if due:
                    synced_at = trio.current_time()
                    await self._acknowledge()
            match batch.said:
                case Digests(page=page, digests=digests):
                    if self._manifest.streams and not self._checking.told_any:
                        self._assembly.end_of_stream()
                    await self._checking.told(page, digests, self._arrival.sender)
                case Blocks(number=number, first=first, digests=digests):
                    self._checking.told_blocks(number, first, digests)
                case End() as end:
                    self._take_end(end)

    async def _store(self, views: list[memoryview], *, sync: bool) -> list[tuple[int, int]]:
        def store() -> list[tuple[int, int]]:
            stored = self._assembly.store(views)
            if sync:
                self._assembly.sync()
            return stored

        self._watch.disk = self._what_takes_it()
        try:
            # Whoever reads our output may never come back; a disk is waited for.
            stored = await trio.to_thread.run_sync(store, abandon_on_cancel=self._arrival.into is None)
        except FileError as error:
            error.means = self._storage.kept
            raise
        self._watch.disk_is_free()
        return stored

    def _what_takes_it(self) -> str:
        if self._arrival.into is None:
            return "whoever reads the output does not take it"
        return f"the disk does not take what arrived (into {self._arrival.into})"

    def _take_end(self, end: End) -> None:
        self._checking.ended()
        expected = self._assembly.stored if self._manifest.streams else self._manifest.bytes
        if end.bytes != expected or end.digest != self._checking.whole():
            raise different(f"from {self._arrival.sender}")
        if self._storage.confirmed is not None and self._storage.confirmed.digest != end.digest:
            self._storage.known()  # the next try begins anew
            raise different(f"from {self._arrival.sender}")
        self._end = end
        self._watch.sent_all = True

    async def _acknowledge(self) -> None:
        self._acknowledged = self._assembly.stored
        self._progress()
        await self._say(Ack(bytes=self._acknowledged))

    def _progress(self) -> None:
        total = None if self._manifest.streams else self._manifest.bytes
        there = self._acknowledged if total is None else max(total - (self._assembly.wanted - self._acknowledged), 0)
        self._report(events.Progress(self._arrival.transfer, there, total))

    # --- the end ---

    async def _keep(self) -> None:
        """Before it is left for now: make durable what has arrived. Shielded; the disk decides how long it takes."""
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._assembly.sync)
            except GlideError:
                pass  # the disk is full, or gone: what it had confirmed before stands in the journal

    async def _finish(self) -> Outcome:
        """All is there and checked: give the final names, confirm."""
        assert self._end is not None, "checked"
        # Not to be interrupted: once the names are there, the receipt says so. What waits in here has a deadline; a
        # thread that syncs cannot be cancelled anyway.
        with trio.CancelScope(shield=True):
            confirmed = self._storage.confirmed or await self._land(self._end)
            digest = confirmed.digest
            try:
                with trio.move_on_after(self._connection.deadlines.handshake):
                    await self._connection.send(Receipt(items=confirmed.items, bytes=confirmed.bytes, digest=digest))
                    while isinstance(said := await self._connection.receive(), Busy):
                        pass
                    if isinstance(said, Done):
                        await trio.to_thread.run_sync(self._storage.known)
            except GlideError:
                pass  # the files are here, whatever the sender knows of it
            # After the receipt: whoever reads what we report must not come between the files and it.
            return await self._told(confirmed)
        raise AssertionError("unreachable")  # pragma: no cover - the block returns

    async def _land(self, end: End) -> Confirmed:
        """Land in a thread, telling the sender meanwhile that we get on, as long as we do."""
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        async def tell() -> None:
            told = -1
            while True:
                await trio.sleep(1.0)
                if steps != told:
                    told = steps
                    self._watch.get_on()

        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell)
                confirmed = await trio.to_thread.run_sync(self._storage.finish, end.digest, step)
                nursery.cancel_scope.cancel()
        return confirmed

    async def _told(self, confirmed: Confirmed) -> Outcome:
        transfer, sender = self._arrival.transfer, self._arrival.sender
        self._acknowledged = self._assembly.wanted
        self._progress()
        for count, saved in enumerate(self._storage.saved()):
            if count % _BREATH == 0:
                await trio.lowlevel.checkpoint()
            self._report(saved)
        self._report(events.Received(transfer, sender, confirmed.items, confirmed.bytes))
        problems = tuple(
            f"{self._manifest.item(number).path}: {problem}"
            for number, problem in list(self._stock.problems.items())[:_MOST_PROBLEMS]
        )
        missing = self._manifest.files - confirmed.items
        return Outcome(confirmed.items, confirmed.bytes, confirmed.digest, missing, problems)


_MOST_PROBLEMS = 20
# So many files are reported without letting others run.
_BREATH = 64
