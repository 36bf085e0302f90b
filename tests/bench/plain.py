"""The plain TCP copy, a program: ``send HOST PORT FILE``, and ``receive HOST PORT FILE``.

sendfile at one end, recv_into and write at the other. The receiver answers with one byte once it has written
everything, so that the sender's end means the same here as with the others: it has arrived.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import IO

READY = 30.0  # seconds for the other side to connect
PIECE = 1 << 20


def send(host: str, port: int, file: IO[bytes]) -> None:
    begun = time.monotonic()
    with socket.create_connection((host, port), timeout=READY) as peer:
        peer.settimeout(None)
        while os.sendfile(peer.fileno(), file.fileno(), None, 1 << 30):
            pass
        peer.shutdown(socket.SHUT_WR)
        if peer.recv(1) != b"\x06":
            sys.exit("the receiver did not confirm")
    print(f"seconds {time.monotonic() - begun}")


def receive(host: str, port: int, file: IO[bytes]) -> None:
    with socket.create_server((host, port)) as server:
        server.settimeout(READY)
        peer, _ = server.accept()
    with peer:
        peer.settimeout(None)
        piece = memoryview(bytearray(PIECE))
        while count := peer.recv_into(piece):
            file.write(piece[:count])
        peer.sendall(b"\x06")


if __name__ == "__main__":
    _, verb, host, port, path = sys.argv
    if verb == "send":
        with open(path, "rb", buffering=0) as file:
            send(host, int(port), file)
    else:
        with open(path, "wb", buffering=0) as file:
            receive(host, int(port), file)
