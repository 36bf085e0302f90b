"""A long, thin link, a program: ``ROUND-TRIP RATE PORT``, in seconds, bytes a second, and the port it leads to.

It is a TCP proxy on 127.0.0.1 that says ``port N`` and passes on every connection made to N. A byte leaves half a
round trip after it came, whichever way it goes, and no more than ``RATE`` bytes a second leave either way, those of
all connections together. What is on the way is held here, in a bounded buffer; when that is full nothing more is
read, so that the sender's TCP feels it. A connection itself is made at once.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

PIECE = 1 << 16
# What a direction holds, in round trips at its full rate: half of one is on the way, the rest waits as in a router.
ROOM = 2.0


@dataclass
class Wire:
    """One direction, without a clock of its own: when do bytes that come ``now`` leave at the other end?"""

    delay: float  # seconds
    rate: float  # bytes a second
    free: float = 0.0  # when the last byte so far has been put on it

    def leaves(self, now: float, count: int) -> float:
        """One after the other, each for as long as it takes at this rate; then all of them are as long on the way."""
        self.free = max(self.free, now) + count / self.rate
        return self.free + self.delay


class Way:
    """One direction of one connection: pieces that have come, and when each leaves. Empty is the end of the stream."""

    def __init__(self, wire: Wire, lock: threading.Lock, most: int) -> None:
        self._wire = wire
        self._lock = lock  # of the wire, which other connections use too
        self._most = most
        self._held = 0
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._changed = threading.Condition()

    def fill(self, source: socket.socket) -> None:
        """Take what comes, while there is room, until the stream ends."""
        piece = b"more"
        while piece:
            with self._changed:
                self._changed.wait_for(lambda: self._held < self._most)
            try:
                piece = source.recv(PIECE)
            except OSError:
                piece = b""
            with self._lock:
                leaves = self._wire.leaves(time.monotonic(), len(piece))
            with self._changed:
                self._held += len(piece)
                self._pieces.append((leaves, piece))
                self._changed.notify_all()

    def drain(self, sink: socket.socket) -> None:
        """Pass each piece on when it is due, until the stream has ended or nobody wants more of it."""
        wanted = True
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces)
                leaves, piece = self._pieces.popleft()
            time.sleep(max(leaves - time.monotonic(), 0))
            with suppress(OSError):
                if not piece:
                    sink.shutdown(socket.SHUT_WR)
            if not piece:
                return
            try:
                if wanted:
                    sink.sendall(piece)
            except OSError:
                wanted = False  # the rest is read and dropped: the source may have to say why it ends
            with self._changed:
                self._held -= len(piece)
                self._changed.notify_all()


class Link:
    """Both directions, for every connection to ``target``, a port of 127.0.0.1."""

    def __init__(self, round_trip: float, rate: float, target: int) -> None:
        self._wires = [(Wire(round_trip / 2, rate), threading.Lock()) for _ in range(2)]
        self._most = int(ROOM * round_trip * rate) + PIECE
        self._target = target

    def join(self, client: socket.socket) -> None:
        """One connection, from its beginning to its end."""
        with client, socket.create_connection(("127.0.0.1", self._target)) as target:
            threads = []
            for (wire, lock), source, sink in zip(self._wires, (client, target), (target, client), strict=True):
                for one in (source, sink):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                way = Way(wire, lock, self._most)
                threads += [
                    threading.Thread(target=way.fill, args=(source,), daemon=True),
                    threading.Thread(target=way.drain, args=(sink,), daemon=True),
                ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def main(round_trip: float, rate: float, target: int) -> None:
    """Until it is ended from outside."""
    link = Link(round_trip, rate, target)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"port {server.getsockname()[1]}", flush=True)
        while True:
            client, _ = server.accept()
            threading.Thread(target=link.join, args=(client,), daemon=True).start()


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
