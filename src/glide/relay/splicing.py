"""Kernel pipes: chunks of a transfer that never come into this process. Linux alone has them.

A pipe is filled from one socket and drained into the other with splice(2), which moves references to pages instead of
bytes. It belongs to one transfer and dies with it: what is left in one would be bytes of that transfer in another.
Pages in pipes are in nobody's resident memory, so all pipes of a relay share a :class:`Budget`.
"""

from __future__ import annotations

import logging
import os

import trio

from glide.relay.limits import Limits

try:
    import fcntl
except ImportError:
    pass  # Windows has none, and no splice either

log = logging.getLogger("glide.relay")

CAN_SPLICE = hasattr(os, "splice")
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if CAN_SPLICE else 0
# A plain user's pipes beyond 64 MiB in all get two pages and cannot be enlarged (pipe(7)): such a one is of no use.
SMALLEST = 256 * 1024


class KernelPipe:
    """Up to ``size`` bytes on their way from one socket to another; its length is how many they are."""

    __slots__ = ("_count", "_read", "_write", "size")

    def __init__(self, size: int) -> None:
        """Raises OSError if the system gives none of that size, or at least of :data:`SMALLEST` bytes."""
        self._count = 0
        self._read, self._write = os.pipe()
        try:
            try:
                self.size = fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, size)
            except PermissionError:
                self.size = fcntl.fcntl(self._write, fcntl.F_GETPIPE_SZ)
            if self.size < SMALLEST:
                raise PermissionError(f"a pipe of {self.size} bytes")
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<KernelPipe with {self._count} of {self.size} bytes>"

    def __len__(self) -> int:
        return self._count

    async def fill(self, stream: trio.SocketStream) -> None:
        """Take what the socket has; nothing at the end of the stream. Cancelled, nothing was taken."""
        assert not self._count, "what is in it belongs to somebody already"
        while True:
            try:
                self._count = os.splice(_descriptor(stream), self._write, self.size, flags=_FLAGS)
                return
            except BlockingIOError:  # the pipe is empty: it is the socket that is dry
                await trio.lowlevel.wait_readable(stream.socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def drain_some(self, stream: trio.SocketStream) -> None:
        """Give the socket as much of it as it takes. Cancelled while it waits, all of it is still in here."""
        while True:
            try:
                self._count -= os.splice(self._read, _descriptor(stream), self._count, flags=_FLAGS)
                return
            except BlockingIOError:
                await trio.lowlevel.wait_writable(stream.socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    def close(self) -> None:
        """With all that is in it. Not again."""
        os.close(self._read)
        os.close(self._write)


def _descriptor(stream: trio.SocketStream) -> int:
    """Asked before each call: once the socket is closed, its number may be another client's."""
    number = stream.socket.fileno()
    if number < 0:
        raise trio.ClosedResourceError
    return number


class Budget:
    """What a relay's pipes may hold together, in bytes. A transfer that gets none has its bytes copied instead."""

    def __init__(self, limits: Limits) -> None:
        self._left = limits.pipe_budget if CAN_SPLICE else 0
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Budget: {self._left} of {self._limits.pipe_budget} bytes left>"

    def take(self) -> list[KernelPipe]:
        """The pipes of one direction of one transfer; none if the budget is used up, or the system gives none."""
        pipes: list[KernelPipe] = []
        try:
            while len(pipes) < self._limits.pipes and self._left >= self._limits.pipe_size:
                pipes.append(KernelPipe(self._limits.pipe_size))
                self._left -= pipes[-1].size
        except OSError as error:
            log.debug("no more kernel pipes: %s", error)
        if len(pipes) < self._limits.pipes:  # the next may still be filled while the last is drained, or it is no use
            self.give_back(pipes)
            pipes = []
        log.debug("a transfer goes through %s", f"kernel pipes: {pipes}" if pipes else "blocks of bytes")
        return pipes

    def give_back(self, pipes: list[KernelPipe]) -> None:
        """Nobody fills or drains these any more: they are closed."""
        while pipes:
            pipe = pipes.pop()
            self._left += pipe.size
            pipe.close()
