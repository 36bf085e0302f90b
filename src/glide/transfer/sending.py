"""The sender's half of a transfer, over a connection that has been set up end to end.

    sender                             receiver
    pages of the manifest, Offer  ->
                                  <-   Accept | Decline
                                  <-   Want (ranges of the stream)
    DATA DATA DATA ...            ->
    Digests of each page          ->
    Blocks, of what was kept      ->
                                  <-   Ack (bytes durable there)
    End                           ->
                                  <-   Want, if something kept did not match; DATA again
                                  <-   Receipt
    Done                          ->

Three tasks: one reads and hashes what is wanted and sends it, one hashes in a thread what the receiver has already and
sends those digests in between, one listens.
"""

from __future__ import annotations

import trio

from glide import events
from glide.errors import (
    ConnectionLost,
    GlideError,
    ProtocolError,
    one_error,
)
from glide.net.connection import Connection, explained
from glide.protocol.endtoend import BLOCK as KEPT_BLOCK
from glide.protocol.endtoend import (
    Abort,
    Ack,
    Blocks,
    Busy,
    Digests,
    Done,
    End,
    Range,
    Receipt,
    Want,
)
from glide.protocol.fields import Message
from glide.protocol.states import State
from glide.transfer import feeding, offering, ranges, reading
from glide.transfer.digests import Digest, DigestTable, Sent
from glide.transfer.feeding import Block
from glide.transfer.gathering import Gathered
from glide.transfer.manifest import whole
from glide.transfer.terms import Hint, Outcome, Terms, Watch, aborted

# Ranges that a receiver may ask for at once: two for each item, one for each block of what was kept, and some more.
_SPARE_RANGES = 1000
# All of it may be wanted so many times: once, and once more if it was kept and does not match, and one to spare.
_TIMES = 3
# Lists of ranges that may wait to be read: one for each page of digests that did not match, and some more.
_SPARE_LISTS = 1000


async def send(
    connection: Connection,
    gathered: Gathered,
    *,
    transfer: bytes,
    to: str,
    message: str,
    terms: Terms,
    hint: Hint,
    report: events.Report,
    again: bool = False,
) -> Outcome:
    """Offer what was gathered and, if it is accepted, send it; returns once the receiver has confirmed it.

    ``again`` says that it was begun on an earlier connection. Raises a :class:`GlideError`, after the receiver was
    told why if it could be. Cancelled, it tells the receiver within the connection's ``farewell`` and leaves the
    connection unusable.
    """
    async with explained(connection, lambda: _means(gathered)):
        lacking: list[Digest] = []
        looked = trio.Event()

        async def look() -> None:
            lacking.extend(await trio.to_thread.run_sync(reading.check_empty, gathered, abandon_on_cancel=True))
            looked.set()

        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await offering.make(connection, gathered, message, to, terms)
                while not looked.is_set():  # where there are very many, on a slow disk
                    with trio.move_on_after(terms.often):
                        await looked.wait()
                    connection.mention(Busy(seconds=0))
        report(events.Accepted(transfer, to))
        connection.leave_to(terms.idle)
        table = DigestTable(gathered.manifest, lacking)
        return await _Sending(connection, gathered, table, transfer, to, terms, hint, report).run(again=again)
    raise AssertionError("unreachable")  # pragma: no cover - the block returns or raises


class _Sending:
    """One accepted transfer at its sender."""

    def __init__(
        self,
        connection: Connection,
        gathered: Gathered,
        table: DigestTable,
        transfer: bytes,
        to: str,
        terms: Terms,
        hint: Hint,
        report: events.Report,
    ) -> None:
        self._connection = connection
        self._gathered = gathered
        self._manifest = gathered.manifest
        self._means = _means(gathered)
        self._transfer = transfer
        self._to = to
        self._report = report
        self._watch = Watch(connection, transfer, "sender", to, terms, hint, report, endless=self._manifest.streams)
        self._table = table
        self._wanted = 0  # bytes, in all that the receiver asked for
        self._ranges = 0
        self._most_ranges = 2 * self._manifest.items + self._manifest.bytes // KEPT_BLOCK + _SPARE_RANGES  # in a list
        self._sent = 0
        self._acknowledged = 0
        self._pace = feeding.Pace()
        self._first_sent = False  # all that was wanted at first
        self._ended: End | None = None
        self._giving = trio.Lock()  # a block at a time
        self._given = trio.CancelScope()  # the one that is being sent right now
        self._stop = False

    async def run(self, *, again: bool) -> Outcome:
        wanted_in, wanted_out = trio.open_memory_channel[list[Range]](self._manifest.pages + _SPARE_LISTS)
        with self._watch.deadline(self._means), one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch.run)
                wanted = await self._wants(await self._connection.receive())
                self._begin(again=again)
                wanted_in.send_nowait(wanted)
                if self._manifest.streams:
                    nursery.start_soon(feeding.read_pipe, self._watch, self._give)
                else:
                    nursery.start_soon(feeding.read, self._gathered, self._watch, wanted_out, self._give)
                kept = ranges.unsent(self._manifest, wanted)
                nursery.start_soon(feeding.check, self._gathered, self._watch, kept, self._give)
                try:
                    receipt = await self._listen(wanted_in)
                    async with self._connection.silence():
                        nursery.cancel_scope.cancel()
                except BaseException as error:
                    self._stop = True
                    closed = self._connection.machine.state is State.CLOSED or isinstance(error, ConnectionLost)
                    patience = 0 if closed else self._connection.deadlines.farewell
                    self._given.deadline = trio.current_time() + patience
                    raise
        # Before Done, after which they forget what they confirmed: killed in between, it would be sent a second time.
        self._report(events.Delivered(self._transfer, self._to, receipt.items, receipt.bytes, receipt.digest))
        try:
            with trio.move_on_after(self._connection.deadlines.farewell):
                await self._connection.send(Done())
        except ConnectionLost:
            pass  # they have it all, and have said so
        missing = self._manifest.files - receipt.items
        return Outcome(receipt.items, receipt.bytes, receipt.digest, missing, tuple(self._table.problems))

    # --- what is wanted ---

    async def _wants(self, message: object) -> list[Range]:
        """All ranges of a list that begins with this message."""
        found: list[Range] = []
        while True:
            match message:
                case Want(ranges=some, more=more):
                    found += some
                    if len(found) > self._most_ranges:
                        raise ProtocolError(f"{self._to} wants more ranges than there can be.")
                    if not more:
                        self._wanted += ranges.check(found, self._manifest, self._to)
                        self._ranges += len(found)
                        too_many = self._ranges > _TIMES * self._most_ranges
                        if too_many or (self._wanted > _TIMES * self._manifest.bytes and not self._manifest.streams):
                            raise ProtocolError(f"{self._to} wants the same again and again.")
                        return found
                case Busy(seconds=seconds):
                    self._watch.peer_is_busy(seconds)
                case Abort() as abort:
                    raise aborted(abort, self._to, self._means)
                case other:
                    raise _unexpected(other)
            message = await self._connection.receive()

    def _begin(self, *, again: bool) -> None:
        kept = max(self._manifest.bytes - self._wanted, 0)
        if kept or again:
            self._report(events.Resumed(self._transfer, kept))
        self._progress()

    def _progress(self) -> None:
        if self._manifest.streams:
            self._report(events.Progress(self._transfer, self._acknowledged, None))
        else:
            there = self._manifest.bytes - (self._wanted - self._acknowledged)
            self._report(events.Progress(self._transfer, max(there, 0), self._manifest.bytes))

    # --- the tasks ---

    async def _give(self, block: Block) -> None:
        """Send what was read and found; at last the end. Nobody else says anything but keepalives and Busy."""
        # Shielded, so that a record is not cut in two when the peer could still be told why; run, which is not, sets a
        # deadline.
        async with self._giving:
            await trio.lowlevel.checkpoint_if_cancelled()  # whoever was here before may have failed
            with trio.CancelScope(shield=True) as self._given:
                await self._send(block.data)
                if not self._stop:
                    self._first_sent = self._first_sent or block.last
                    await self._tell(block)
            # Cut short, we are cancelled: to go on to a disk would make that the cause of it all.
            await trio.lowlevel.checkpoint_if_cancelled()

    async def _send(self, data: memoryview) -> None:
        at = 0
        while at < len(data) and not self._stop:
            part = data[at : at + self._pace.size]
            at += len(part)
            self._sent += len(part)
            await self._connection.send_data(part)

    async def _tell(self, block: Block) -> None:
        """Say which digests are known now, and that all are."""
        said: list[Message] = []
        for each in block.found:
            if isinstance(each, Digest):
                self._table.add(each)
            elif isinstance(each, Sent):
                self._table.read_to_the_end(each.number)
            elif self._ended is None:  # else that file changed, and is not sent
                said.append(Blocks(number=each.number, first=each.block, digests=each.digest))
        while self._table.ready:
            page = self._table.ready.popleft()
            said.append(Digests(page=page, digests=self._table.page(page)))
        if self._first_sent and self._table.complete and self._ended is None:
            size = self._sent if self._manifest.streams else self._manifest.bytes
            self._wanted = size if self._manifest.streams else self._wanted
            self._ended = End(bytes=size, digest=whole(self._table.digests))
            said.append(self._ended)
            self._watch.sent_all = True
        # What is said while bytes still flow goes with them; after that it must not wait.
        flush = block.flush or block.last or (self._first_sent and bool(said))
        for message in said:
            await self._connection.send(message, flush=False)
        if flush:
            await self._connection.send()

    async def _listen(self, wanted: trio.MemorySendChannel[list[Range]]) -> Receipt:
        """Take in acknowledgements, and further wishes, until the receipt."""
        while True:
            match await self._connection.receive():
                case Ack(bytes=count):
                    if not self._acknowledged <= count <= self._sent:
                        raise ProtocolError(f"{self._to} acknowledged bytes that were never sent.")
                    if count > self._acknowledged:
                        self._watch.moved()
                        self._pace.arrived(count - self._acknowledged)
                        self._acknowledged = count
                        self._progress()
                case Want() as want:
                    self._watch.sent_all = False
                    try:
                        wanted.send_nowait(await self._wants(want))
                    except trio.WouldBlock:
                        raise ProtocolError(f"{self._to} wants more and more.") from None
                case Busy(seconds=seconds):
                    self._watch.peer_is_busy(seconds)
                case Receipt() as receipt:
                    return self._confirmed(receipt)
                case Abort() as abort:
                    raise aborted(abort, self._to, self._means)
                case other:
                    raise _unexpected(other)

    def _confirmed(self, receipt: Receipt) -> Receipt:
        """Raise :class:`ProtocolError` if this cannot be what became of what was sent."""
        ended = self._ended
        most = self._manifest.files - self._table.failed
        if (
            ended is None
            or receipt.digest != ended.digest
            or receipt.items > most
            or receipt.bytes > ended.bytes
            or (receipt.items == self._manifest.files and receipt.bytes != ended.bytes)
        ):
            raise ProtocolError(f"{self._to} confirmed something else than was sent.")
        if self._sent < self._wanted:
            raise ProtocolError(f"{self._to} confirmed what it has not got.")
        self._acknowledged = self._wanted
        self._progress()
        return receipt


def _means(gathered: Gathered) -> str:
    """What it means for the files, here at the sender, if it ends before its end."""
    if gathered.manifest.streams:
        return "It has to be sent from the beginning: what was read from standard input cannot be read again."
    return "What has arrived is kept there if it can be, under no final name: sent again, it goes on where it was."


def _unexpected(message: object) -> GlideError:
    return ProtocolError(f"The peer said {type(message).__name__} where it makes no sense.")
