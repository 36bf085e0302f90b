"""The sender's half of a transfer, over a connection that has been set up end to end.

    sender                             receiver
    Offer (manifest)          ->
                              <-       Accept | Decline
    DATA DATA DATA ...        ->
                              <-       Ack (bytes durable there)
    Digests, End              ->
                              <-       Receipt
    Done                      ->

Three tasks: one reads and hashes the file in a thread, one sends, one listens. A channel of one block lies between
the disk and the network, so that both work at once and neither runs ahead of the other.
"""

from __future__ import annotations

import blake3
import trio

from glide import events
from glide.crypto.records import FULL
from glide.errors import (
    ConnectionLost,
    Declined,
    FileError,
    GlideError,
    NameUnusable,
    ProtocolError,
    Stalled,
    from_code,
    one_error,
)
from glide.net.connection import Connection, explained
from glide.net.deadlines import IdleDeadline, idle_deadline
from glide.protocol.frames import HEADER
from glide.protocol.messages import Abort, Accept, Ack, Decline, Digests, Done, End, Offer, Receipt
from glide.text import duration, printable
from glide.transfer.manifest import NOT_THERE, Source, whole
from glide.transfer.terms import Hint, Outcome, Terms, aborted

# A block and its header fill sixteen records exactly: about 1 MiB, where a thread call costs nothing to speak of.
BLOCK = 16 * FULL - HEADER.size
_BUFFERS = 3  # one being read, one waiting, one being sent


async def send(
    connection: Connection,
    source: Source,
    *,
    transfer: bytes,
    to: str,
    message: str,
    terms: Terms,
    hint: Hint,
    report: events.Report,
) -> Outcome:
    """Offer ``source`` and, if it is accepted, send it; returns once the receiver has confirmed all of it.

    Raises a :class:`GlideError`, after the receiver was told why if it could be. Cancelled, it tells the
    receiver within the connection's ``farewell`` and leaves the connection unusable.
    """
    async with explained(connection, NOT_THERE):
        await _offer(connection, Offer(items=(source.item,), message=message), to, terms)
        report(events.Accepted(transfer, to))
        connection.leave_to(terms.idle)
        return await _Sending(connection, source, transfer, to, terms, hint, report).run()
    raise AssertionError("unreachable")  # pragma: no cover - the block returns or raises


async def _offer(connection: Connection, offer: Offer, to: str, terms: Terms) -> None:
    """Make the offer and wait for a yes. Raises :class:`Declined` or what the receiver said instead."""
    await connection.send(offer)
    with trio.move_on_after(terms.ask_timeout or float("inf")) as waiting:
        answer = await connection.receive()
    if waiting.cancelled_caught:
        raise Declined(
            f"{to} did not answer within {duration(terms.ask_timeout)}.",
            "Nothing was sent.",
            "Try again when they are there, or give them longer with --ask-timeout.",
            for_peer=f"nobody answered within {duration(terms.ask_timeout)}.",
        )
    match answer:
        case Accept():
            return
        case Decline(code=code, message=said):
            detail = f": {printable(said, 400)}" if said else "."
            raise from_code(code, Declined, FileError, NameUnusable)(f"{to} declined{detail}", "Nothing was sent.")
        case Abort() as abort:
            raise aborted(abort, to, "Nothing was sent.")


class _Sending:
    """One accepted transfer at its sender."""

    def __init__(
        self,
        connection: Connection,
        source: Source,
        transfer: bytes,
        to: str,
        terms: Terms,
        hint: Hint,
        report: events.Report,
    ) -> None:
        self._connection = connection
        self._source = source
        self._transfer = transfer
        self._to = to
        self._terms = terms
        self._hint = hint
        self._report = report
        self._size = source.item.size
        self._reading = False
        self._acknowledged = 0
        self._sent = 0
        self._ended: End | None = None
        # The sending task is shielded, so that a record is not cut in two when the peer could still be told why;
        # _listen, which is not, sets its deadline.
        self._pumping = trio.CancelScope(shield=True)
        self._stop = False

    async def run(self) -> Outcome:
        filled_in, filled_out = trio.open_memory_channel[tuple[bytearray, int] | GlideError](1)
        empty_in, empty_out = trio.open_memory_channel[bytearray](_BUFFERS)
        for _ in range(_BUFFERS if self._size > BLOCK else 1):
            empty_in.send_nowait(bytearray(min(BLOCK, self._size)))
        self._report(events.Progress(self._transfer, 0, self._size))
        self._hint.counts = True
        with idle_deadline(self._terms.idle, self._blame) as idle, one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, empty_out, filled_in)
                nursery.start_soon(self._pump, filled_out, empty_in)
                try:
                    receipt = await self._listen(idle)
                except GlideError:
                    self._pumping.cancel()  # the receiver is gone, or has said its last word
                    raise
                except BaseException:
                    self._stop = True
                    self._pumping.deadline = trio.current_time() + self._connection.deadlines.farewell
                    raise
        try:
            await self._connection.send(Done())
        except ConnectionLost:
            pass  # they have it all, and have said so
        return Outcome(receipt.items, receipt.bytes, receipt.digest)

    async def _read(
        self,
        empty: trio.MemoryReceiveChannel[bytearray],
        filled: trio.MemorySendChannel[tuple[bytearray, int] | GlideError],
    ) -> None:
        """Read and hash the file, a block at a time, each in one thread call. An error goes the way of the blocks."""
        hasher = blake3.blake3()

        def fill(buffer: bytearray, offset: int) -> int:
            with memoryview(buffer) as view:
                count = self._source.read_into(view, offset)
                hasher.update(view[:count])
            return count

        offset = 0
        async with filled:
            try:
                while offset < self._size:
                    buffer = await empty.receive()
                    self._reading = True
                    # Abandoned when cancelled: a dead network disk must not keep the process from ending.
                    count = await trio.to_thread.run_sync(fill, buffer, offset, abandon_on_cancel=True)
                    self._reading = False
                    offset += count
                    await filled.send((buffer, count))
                await trio.to_thread.run_sync(self._source.check_unchanged)
                digests = [hasher.digest()]
                self._ended = End(bytes=offset, digest=whole(digests))
            except GlideError as error:
                await filled.send(error)

    async def _pump(
        self,
        filled: trio.MemoryReceiveChannel[tuple[bytearray, int] | GlideError],
        empty: trio.MemorySendChannel[bytearray],
    ) -> None:
        """Send what was read; then the digests and the end."""
        with self._pumping:
            async for block in filled:
                if self._stop:
                    return
                if isinstance(block, GlideError):
                    raise block
                buffer, count = block
                self._sent += count
                with memoryview(buffer) as view, view[:count] as data:
                    await self._connection.send_data(data)
                empty.send_nowait(buffer)
            if self._ended is not None and not self._stop:
                await self._connection.send(Digests(digests=(self._ended.digest,)), self._ended)
                self._hint.counts = False  # from here on the relay waits for us because there is nothing left to send

    async def _listen(self, idle: IdleDeadline) -> Receipt:
        """Take in acknowledgements until the receipt."""
        while True:
            match await self._connection.receive():
                case Ack(bytes=count):
                    if not self._acknowledged <= count <= self._sent:
                        raise ProtocolError(f"{self._to} acknowledged bytes that were never sent.")
                    if count > self._acknowledged:
                        idle.touch()
                    self._acknowledged = count
                    self._report(events.Progress(self._transfer, count, self._size))
                case Receipt() as receipt:
                    expected = self._ended
                    confirmed = (receipt.items, receipt.bytes, receipt.digest)
                    if expected is None or confirmed != (1, expected.bytes, expected.digest):
                        raise ProtocolError(f"{self._to} confirmed something else than was sent.")
                    self._report(events.Progress(self._transfer, self._size, self._size))
                    return receipt
                case Abort() as abort:
                    raise aborted(abort, self._to, NOT_THERE)
                case other:
                    raise _unexpected(other)

    def _blame(self) -> Stalled:
        for_how_long = duration(self._terms.idle)
        heard = trio.current_time() - self._connection.last_heard
        if self._reading:
            why = f"your disk did not deliver {printable(str(self._source.path))}"
        elif self._hint.counts and self._hint.side == "sender":
            why = "the relay waited for this side: the network between you and the relay is stuck"
        elif self._hint.counts and self._hint.side == "receiver":
            why = f"the receiver ({self._to}) takes nothing from the relay"
        elif heard < self._terms.idle:
            why = f"the receiver ({self._to}) is there but writes nothing to its disk"
        elif not self._hint.counts:
            why = f"all was sent, but the receiver ({self._to}) does not confirm it"
        else:
            why = f"nothing came from the receiver ({self._to}), and the relay did not say why"
        return Stalled(
            f"The transfer stalled for {for_how_long}: {why}.",
            NOT_THERE,
            "Send it again, or allow longer pauses with --idle.",
            for_peer=f"nothing had moved for {for_how_long}.",
        )


def _unexpected(message: object) -> GlideError:
    return ProtocolError(f"The peer said {type(message).__name__} where it makes no sense.")
