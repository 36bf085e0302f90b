"""The bridge: two data connections, piped in both directions through bounded memory channels.

    sender's socket -> [sender's task] => channel => [receiver's task] -> receiver's socket
    sender's socket <- [sender's task] <= channel <= [receiver's task] <- receiver's socket

Each connection has a task of its own, which owns its socket and runs two loops: one fills the channel to the other
side from the socket, one drains the channel from the other side into it. A receiver that stops reading stops its
drain, that fills the channel, that stops the sender's fill, and TCP stops the sender. What a transfer may hold is
therefore a constant: see :class:`glide.relay.limits.Limits`.

What goes through a channel is a block of bytes or, once a direction turns out to be the one with the files in it and
where there are any, a kernel pipe (:mod:`glide.relay.splicing`). Emptied pipes return through a second channel.

When a side's stream ends, what is in the channel is still delivered, then the other side is told (end of stream) and
has ``linger`` seconds to finish: a receipt may be on its way back. Meanwhile what it still sends to the side that is
gone is read and dropped, since closing a socket with unread bytes would reset it under the bytes it has yet to read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import trio

from glide.net.streams import BROKEN
from glide.relay.limits import Limits
from glide.relay.splicing import Budget, KernelPipe
from glide.relay.turns import Turns

Chunk: TypeAlias = bytes | KernelPipe


class Lane:
    """One direction: its channels, what moved through it, and where it is stuck: on its source, its sink, or nowhere.

    Full chunks go one way, emptied pipes the other.
    """

    def __init__(self, limits: Limits, budget: Budget) -> None:
        self.full_in, self.full = trio.open_memory_channel[Chunk](limits.chunks_waiting)
        self.empty_in, self.empty = trio.open_memory_channel[KernelPipe](limits.pipes)
        self.bytes = 0  # taken from the source
        self.delivered = 0  # to the sink
        self.filling = False
        self.draining = False
        self.pipes: list[KernelPipe] | None = None  # None until it is known whether there are any
        self._budget = budget

    def splice(self) -> None:
        """From now on in kernel pipes, if they can be had."""
        self.pipes = self._budget.take()
        for pipe in self.pipes:
            self.empty_in.send_nowait(pipe)

    async def empty_pipe(self) -> KernelPipe:
        """The next that is empty. No checkpoint if there is one: when it is full, it is sent, which is."""
        try:
            return self.empty.receive_nowait()
        except trio.WouldBlock:
            return await self.empty.receive()

    def rest(self) -> bool:
        """Nothing comes: if all kernel pipes are empty, let others have them until something does."""
        assert self.pipes, "one of them is waiting"
        if self.empty.statistics().current_buffer_used < len(self.pipes) - 1:
            return False
        while self.empty.statistics().current_buffer_used:
            self.empty.receive_nowait()
        self.close()
        self.pipes = None
        return True

    def close(self) -> None:
        """Nobody fills or drains the kernel pipes any more: give them back."""
        if self.pipes:
            self._budget.give_back(self.pipes)


class End:
    """One side of a pipe: where its task finds the lanes, and how it learns that the other side has ended."""

    def __init__(self, forth: Lane, back: Lane, limits: Limits, turns: Turns) -> None:
        self._turns = turns
        self._forth = forth
        self._back = back
        self._limits = limits
        self._scope = trio.CancelScope()
        self._drain_scope = trio.CancelScope()
        self._splices = False  # this side is a socket, and here
        self.other: End | None = None

    async def run(self, stream: trio.abc.HalfCloseableStream, rest: bytes = b"") -> None:
        """Carry bytes until both directions have ended. ``rest`` was read from the stream before.

        Never raises for what the peer does. Cancelled, it ends at once; the stream is the caller's to close.
        """
        self._splices = isinstance(stream, trio.SocketStream)
        with self._scope, self._turns.shared(tasks=2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fill, stream, rest)
                nursery.start_soon(self._drain, stream)

    def cancel(self) -> None:
        """End this side at once."""
        self._scope.cancel()

    def abandon(self) -> None:
        """Close this side's ends of the channels, as it does itself where it came."""
        self._forth.full_in.close()
        self._forth.empty.close()
        self._back.full.close()
        self._back.empty_in.close()

    async def _fill(self, stream: trio.abc.HalfCloseableStream, rest: bytes) -> None:
        """Socket to channel, until the stream ends."""
        lane = self._forth
        chunk: Chunk = rest
        try:
            with lane.full_in, lane.empty:
                while True:
                    if chunk:
                        lane.bytes += len(chunk)
                        await lane.full_in.send(chunk)
                    chunk = await self._next(stream)
                    if not chunk:
                        break
        except (*BROKEN, trio.EndOfChannel):
            await _discard(stream, self._limits.chunk)
        finally:
            lane.filling = False
            if self.other is not None:
                self.other.hurry()

    async def _next(self, stream: trio.abc.HalfCloseableStream) -> Chunk:
        """What comes next from the socket; empty at the end of the stream."""
        lane = self._forth
        sockets = self._splices and self.other is not None and self.other._splices
        if sockets and lane.pipes is None and lane.bytes >= self._limits.splice_after:
            lane.splice()
        pipe = await lane.empty_pipe() if lane.pipes else None
        lane.filling = True
        await self._turns.take()
        if pipe is not None:
            assert isinstance(stream, trio.SocketStream), "only sockets are spliced"
            while pipe is not None and not await pipe.fill(stream, self._limits.pipe_rest):
                if lane.rest():
                    pipe = None
        chunk: Chunk = bytes(await stream.receive_some(self._limits.chunk)) if pipe is None else pipe
        lane.filling = False
        return chunk

    async def _drain(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Channel to socket, until the other side's task has closed the channel and it is empty."""
        lane = self._back
        try:
            with self._drain_scope:
                with lane.full, lane.empty_in:
                    async for chunk in lane.full:
                        lane.draining = True
                        if isinstance(chunk, KernelPipe):
                            await self._empty(chunk, stream)
                        else:
                            await self._turns.take()
                            await stream.send_all(chunk)
                            self._delivered(len(chunk))
                        lane.draining = False
                await stream.send_eof()
        except BROKEN:
            pass
        finally:
            lane.draining = False
            self._scope.deadline = trio.current_time() + self._limits.linger

    async def _empty(self, pipe: KernelPipe, stream: trio.abc.SendStream) -> None:
        """Deliver all that is in a pipe, and return it."""
        assert isinstance(stream, trio.SocketStream), "only sockets are spliced"
        while pipe:
            await self._turns.take()
            self._delivered(await pipe.drain_some(stream))
        try:
            self._back.empty_in.send_nowait(pipe)
        except trio.BrokenResourceError:
            pass  # whoever filled it has ended

    def _delivered(self, count: int) -> None:
        """So many bytes were: if this is in a hurry, there is as much time again."""
        self._back.delivered += count
        if self._drain_scope.deadline != math.inf:
            self.hurry()

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

    def __init__(self, limits: Limits, budget: Budget, turns: Turns | None = None) -> None:
        turns = turns or Turns()  # a bridge that has a process for itself
        self.forth, self.back = Lane(limits, budget), Lane(limits, budget)
        self.sender = End(self.forth, self.back, limits, turns)
        self.receiver = End(self.back, self.forth, limits, turns)
        self.sender.other, self.receiver.other = self.receiver, self.sender
        self.over = trio.Event()  # both sides have left
        self._left = 0
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Pipe: {self.forth.bytes} bytes forth, {self.back.bytes} back, waits for {self.waits_for()}>"

    def leave(self, end: End) -> None:
        """This side has ended, or never came. With the second one the kernel pipes go back."""
        end.abandon()
        self._left += 1
        if self._left == 2:
            self.forth.close()
            self.back.close()
            self.over.set()

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
            lanes, now = (self.forth, self.back), trio.current_time()
            total = sum(lane.bytes + lane.delivered for lane in lanes)
            if total != moved:
                moved, since = total, now
            elif now - since >= self._limits.pipe_idle:
                self.sender.cancel()
                self.receiver.cancel()
            else:
                tell(self.waits_for(), round(now - since))
