"""A TCP proxy that counts what passes, and can be slow for a while."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from tests.bench.processes import END, READY

PIECE = 1 << 18


@dataclass
class Count:
    """Bytes that passed on the connections of one time: what TCP carried, without its headers."""

    there: int = 0
    back: int = 0

    @property
    def both(self) -> int:
        return self.there + self.back


class Proxy:
    """Listens on 127.0.0.1, and passes every connection on to ``target``, a port there.

    Once ``brake_after`` bytes have gone there, no more than ``rate`` bytes a second do, until ``release``.
    """

    def __init__(self, target: int, brake_after: int, rate: float) -> None:
        self._target = target
        self._brake_after = brake_after
        self._rate = rate
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._count = Count()
        self._open: set[socket.socket] = set()
        self._closing = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._listen)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Cut every connection; its threads have ended then."""
        with self._lock:
            self._closing = True
            for one in (self._server, *self._open):
                cut(one)
        self._released.set()
        while self._threads:
            self._threads.pop().join(END)
        self._server.close()

    def count(self) -> Count:
        """The count for the connections that are made from now on; those that are open stay with the one before."""
        with self._lock:
            self._count = Count()
            return self._count

    def release(self) -> None:
        """From now on as fast as it goes."""
        self._released.set()

    def _start(self, do: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=do, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        """One connection, from its beginning to its end."""
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target), READY) as target:
            target.settimeout(None)
            ends = {client, target}
            with self._lock:
                if self._closing:
                    return
                count = self._count
                self._open |= ends
            try:
                back = self._start(self._pass, target, client, count, False)
                self._pass(client, target, count, True)
                back.join()
            finally:
                with self._lock:
                    self._open -= ends

    def _pass(self, source: socket.socket, target: socket.socket, count: Count, there: bool) -> None:
        """One direction, from its beginning to its end."""
        try:
            while piece := source.recv(PIECE):
                with self._lock:
                    if there:
                        count.there += len(piece)
                    else:
                        count.back += len(piece)
                target.sendall(piece)
                if there and count.there > self._brake_after:
                    self._released.wait(len(piece) / self._rate)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            cut(source)
            cut(target)


def cut(one: socket.socket) -> None:
    """End it, whoever waits at it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
