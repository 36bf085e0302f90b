"""The bridge: two data connections, piped in both directions through bounded memory channels.

    sender's socket -> [sender's task] => channel => [receiver's task] -> receiver's socket
    sender's socket <- [sender's task] <= channel <= [receiver's task] <- receiver's socket

Each connection has a task of its own, which owns its socket and runs two loops: one fills the channel to the other
side from the socket, one drains the channel from the other side into it. A receiver that stops reading stops its
drain, that fills the channel, that stops the sender's fill, and TCP stops the sender. What a transfer may hold is
therefore a constant: see :class:`glide.relay.limits.Limits`.

When a side's stream ends, what is in the channel is still delivered, then the other side is told (end of stream) and
has ``linger`` seconds to finish: a receipt may be on its way back. Meanwhile what it still sends to the side that is
gone is read and dropped, since closing a socket with unread bytes would reset it under the bytes it has yet to read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import trio

from glide.net.connection import BROKEN
from glide.relay.limits import Limits


@dataclass
class Meter:
    """What moved through one direction, and where it is stuck: on its source, on its sink, or nowhere."""

    bytes: int = 0
    filling: bool = False
    draining: bool = False


class End:
    """One side of a pipe: where its task finds the channels, and how it learns that the other side has ended."""

    def __init__(
        self,
        to_other: trio.MemorySendChannel[bytes],
        from_other: trio.MemoryReceiveChannel[bytes],
        sent: Meter,
        received: Meter,
        limits: Limits,
    ) -> None:
        self._to_other = to_other
        self._from_other = from_other
        self._sent = sent
        self._received = received
        self._limits = limits
        self._scope = trio.CancelScope()
        self._drain_scope = trio.CancelScope()
        self.other: End | None = None

    async def run(self, stream: trio.abc.HalfCloseableStream, rest: bytes = b"") -> None:
        """Carry bytes until both directions have ended. ``rest`` was read from the stream before.

        Never raises for what the peer does. Cancelled, it ends at once; the stream is the caller's to close.
        """
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fill, stream, rest)
                nursery.start_soon(self._drain, stream)

    def cancel(self) -> None:
        """End this side at once."""
        self._scope.cancel()

    def abandon(self) -> None:
        """Stand in for a side that never came: close its ends of the channels."""
        self._to_other.close()
        self._from_other.close()

    async def _fill(self, stream: trio.abc.HalfCloseableStream, rest: bytes) -> None:
        """Socket to channel, until the stream ends."""
        meter, chunk = self._sent, rest
        try:
            async with self._to_other:
                while True:
                    if chunk:
                        meter.bytes += len(chunk)
                        await self._to_other.send(chunk)
                    meter.filling = True
                    chunk = bytes(await stream.receive_some(self._limits.chunk))
                    meter.filling = False
                    if not chunk:
                        break
        except BROKEN:
            await _discard(stream, self._limits.chunk)
        finally:
            meter.filling = False
            if self.other is not None:
                self.other.hurry()

    async def _drain(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Channel to socket, until the other side's task has closed the channel and it is empty."""
        meter = self._received
        try:
            with self._drain_scope:
                async with self._from_other:
                    async for chunk in self._from_other:
                        meter.draining = True
                        await stream.send_all(chunk)
                        meter.draining = False
                        if self._drain_scope.deadline != math.inf:
                            self.hurry()
                await stream.send_eof()
        except BROKEN:
            pass
        finally:
            meter.draining = False
            self._scope.deadline = trio.current_time() + self._limits.linger

    def hurry(self) -> None:
        """The other side has ended: what is in the channel is delivered, but not for ever."""
        self._drain_scope.deadline = trio.current_time() + self._limits.drain


async def _discard(stream: trio.abc.ReceiveStream, size: int) -> None:
    """Read what nobody will get, until the stream ends or the linger deadline of :class:`End` cuts it."""
    try:
        while await stream.receive_some(size):
            pass
    except BROKEN:
        pass


class Pipe:
    """Both directions of one transfer."""

    def __init__(self, limits: Limits) -> None:
        self.forth, self.back = Meter(), Meter()
        forth_in, forth_out = trio.open_memory_channel[bytes](limits.chunks_waiting)
        back_in, back_out = trio.open_memory_channel[bytes](limits.chunks_waiting)
        self.sender = End(forth_in, back_out, self.forth, self.back, limits)
        self.receiver = End(back_in, forth_out, self.back, self.forth, limits)
        self.sender.other, self.receiver.other = self.receiver, self.sender
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Pipe: {self.forth.bytes} bytes forth, {self.back.bytes} back, waits for {self.waits_for()}>"

    def waits_for(self) -> str:
        """Whom the transfer waits for right now: ``sender``, ``receiver`` or ``nobody``."""
        if self.forth.draining:
            return "receiver"
        return "sender" if self.forth.filling else "nobody"

    async def watch(self, tell: Callable[[str, int], None]) -> None:
        """Tell whom the pipe waits for whenever nothing moves; end it when that has gone on far too long.

        Runs until cancelled. ``tell`` gets the side and the seconds so far.
        """
        moved, since = -1, trio.current_time()
        while True:
            await trio.sleep(self._limits.hint_after)
            total, now = self.forth.bytes + self.back.bytes, trio.current_time()
            if total != moved:
                moved, since = total, now
            elif now - since >= self._limits.pipe_idle:
                self.sender.cancel()
                self.receiver.cancel()
            else:
                tell(self.waits_for(), round(now - since))
