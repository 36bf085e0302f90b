"""Kernel pipes: chunks of a transfer that never come into this process. Linux alone has them.

A pipe is filled from one socket and drained into the other with splice(2), which moves references to pages instead of
bytes. It belongs to one transfer and dies with it: what is left in one would be bytes of that transfer in another.
Pages in pipes are in nobody's resident memory, so all pipes of a relay share a :class:`Budget`.
"""

from __future__ import annotations

import logging
import math
import os
import socket

import trio

from glide.net.streams import MUCH, descriptor, readable, writable
from glide.relay.limits import Limits

try:
    import fcntl
except ImportError:
    pass  # Windows has none, and no splice either

log = logging.getLogger("glide.relay")


def _can_splice() -> bool:
    """True if the system has splice(2) and does it for us: a sandbox may refuse it, or do without it for sockets."""
    if not hasattr(os, "splice"):
        return False
    near, far = socket.socketpair()
    with near, far:
        near.send(b"x")
        read, write = os.pipe()
        try:
            return os.splice(far.fileno(), write, 1) == os.splice(read, far.fileno(), 1) == 1
        except OSError:
            return False
        finally:
            os.close(read)
            os.close(write)


CAN_SPLICE = _can_splice()
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if CAN_SPLICE else 0
# So much is waited for, for a moment. The socket's buffer grows with it, and is full where a receiver stops: more would
# cost the kernel several times that for each.
_LOW_WATER = 256 * 1024
_SMALL = 4096  # a pipe that is empty takes so much at once, whatever its size


class KernelPipe:
    """Up to ``size`` bytes on their way from one socket to another; its length is how many they are."""

    __slots__ = ("_count", "_read", "_write", "size")

    def __init__(self, size: int) -> None:
        """Raises OSError if the system gives none of that size.

        A plain user's pipes beyond 64 MiB in all get two pages and cannot be enlarged (pipe(7)).
        """
        self._count = 0
        self._read, self._write = os.pipe()
        try:
            self.size = fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<KernelPipe with {self._count} of {self.size} bytes>"

    def __len__(self) -> int:
        return self._count

    async def fill(self, stream: trio.SocketStream, patience: float = math.inf) -> bool:
        """Take what the socket has; nothing at the end of the stream. Cancelled, nothing was taken.

        False if nothing came for ``patience`` seconds.
        """
        assert not self._count, "what is in it belongs to somebody already"
        taken = _splice(descriptor(stream), self._write, self.size)
        if taken is None:  # the pipe is empty: it is the socket that is dry
            await readable(stream, _LOW_WATER)
            taken = _splice(descriptor(stream), self._write, self.size)
        if taken is None:
            with trio.move_on_after(patience) as waiting:
                await readable(stream)
            if waiting.cancelled_caught:
                return False
            taken = _splice(descriptor(stream), self._write, self.size)
        if taken is None:  # splice(2) stops at urgent data for ever, and calls that dry; recv(2) gets past it
            taken = os.write(self._write, await stream.receive_some(_SMALL))
        self._count = taken
        return True

    async def drain_some(self, stream: trio.SocketStream) -> int:
        """Give the socket as much of it as it takes, which is returned. Cancelled, all of it is still in here."""
        while not (given := _splice(self._read, descriptor(stream), self._count)):
            await writable(stream, MUCH)
        self._count -= given
        return given

    def close(self) -> None:
        """With all that is in it. Not again."""
        os.close(self._read)
        os.close(self._write)


def _splice(source: int, sink: int, size: int) -> int | None:
    """How many bytes were moved; None if that would have to wait. Raises BrokenResourceError."""
    try:
        return os.splice(source, sink, size, flags=_FLAGS)
    except BlockingIOError:
        return None
    except OSError as error:
        raise trio.BrokenResourceError from error


class Budget:
    """What a relay's pipes may hold together, in bytes. A transfer that gets none has its bytes copied instead."""

    def __init__(self, limits: Limits) -> None:
        self._left = limits.pipe_budget if CAN_SPLICE else 0
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Budget: {self._left} of {self._limits.pipe_budget} bytes left>"

    def take(self) -> list[KernelPipe]:
        """The pipes of one direction of one transfer; none if the budget is used up, or the system gives too few.

        One alone would be of no use: while it is drained, it could not be filled.
        """
        pipes: list[KernelPipe] = []
        why = "all kernel pipes are in use" if CAN_SPLICE else "there are no kernel pipes here"
        try:
            if self._left >= self._limits.pipes * self._limits.pipe_size:
                for _ in range(self._limits.pipes):
                    pipes.append(KernelPipe(self._limits.pipe_size))
                    self._left -= pipes[-1].size
        except OSError as error:
            why = f"no kernel pipe: {error}"
            self.give_back(pipes)
        log.debug("a transfer goes through %s", f"{len(pipes)} kernel pipes" if pipes else f"blocks of bytes: {why}")
        return pipes

    def give_back(self, pipes: list[KernelPipe]) -> None:
        """Nobody fills or drains these any more: they are closed."""
        while pipes:
            pipe = pipes.pop()
            self._left += pipe.size
            pipe.close()
