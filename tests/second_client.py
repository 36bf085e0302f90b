"""A second client, from docs/protocol.md alone: nothing of glide in it. It pins no keys, and answers with JSON."""

import argparse
import json
import os
import re
import select
import socket
import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseInvalidMessage, NoiseValueError

HELLO, WELCOME, REFUSED, PUSH, RINGING, FAILED, INCOMING, _, _, _, GOODBYE, WAITING = range(0x01, 0x0D)
TICKET, JOINED, KEEPALIVE, BRIM, REKEY_EVERY, CHUNK, BLOCK = 0x20, 0x21, 0x7F, 65_519, 1 << 20, 1 << 20, 1 << 26
CAPABILITIES, OFFER, ACCEPT, DECLINE, DATA, DIGESTS, END, ACK, RECEIPT, DONE, ABORT = range(0x40, 0x4B)
MANIFEST, WANT, BLOCKS, BUSY, FILE, EXECUTABLE, FOLDER = *range(0x4B, 0x4F), *range(3)
MEANT = {*range(0x01, WAITING), TICKET, JOINED, *range(0x40, BUSY)}  # all types but hints and unknown ones
PAGE, PAGES, LAST_WORDS = 4_096, (MANIFEST, OFFER, DIGESTS), (REFUSED, FAILED, GOODBYE, DECLINE, ABORT)
LIMITS = {**dict.fromkeys(PAGES, PAGE), WANT: 32_768, BLOCKS: 32_768, DATA: 1 << 24, KEEPALIVE: 0}  # others: 2,048
IDLE, SPEAK_EVERY, SILENCE, NONE = 60.0, 30.0, 90.0, bytes(32)
NO_PATH = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f-\x9f]")
Item, Range = tuple[str, int, int, int], tuple[int, int]  # path, kind, size, time of modification; position, length


class Failed(Exception):
    """A code, a message, and True if the other side said so or has gone: then nothing is left to say."""


FAILURES = (Failed, OSError, InvalidTag, NoiseInvalidMessage, NoiseValueError, msgspec.MsgspecError, ValueError)


def sized(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


def decoded(payload: bytes, **fields: Any) -> tuple[Any, ...]:
    """The fields of a message, each given by its type, or by its type and its default."""
    named = [(name, *(kind if isinstance(kind, tuple) else (kind,))) for name, kind in fields.items()]
    return msgspec.structs.astuple(msgspec.msgpack.decode(payload, type=msgspec.defstruct("Message", named)))


class Channel:
    """A connection after its handshake: records, and frames in them."""

    def __init__(self, sock: socket.socket, me: bytes, *parts: bytes, responds: bool = False, key: bytes = b"") -> None:
        self.sock, self.unsent, self.inbox, self.sent, self.got = sock, bytearray(), bytearray(), 0, 0
        self.stream = sock.makefile("rb", 1)  # reads not one byte more than asked for: that is another layer's
        self.noise = NoiseConnection.from_name(b"Noise_XX_25519_AESGCM_SHA256")
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, me)
        self.noise.set_prologue(b"".join(map(sized, parts)))
        _ = self.noise.set_as_responder() if responds else self.noise.set_as_initiator()
        self.noise.start_handshake()
        state = self.noise.noise_protocol.handshake_state  # the library drops it with the last message
        self.me: bytes = state.s.public_bytes
        for turn, line in enumerate((parts[0], b"glide/1 ok\n", b"")):
            if (turn == 1) is responds:
                payload = bytes([CAPABILITIES]) + sized(b"\x80", 4) if turn and parts[1:] else b""
                sock.sendall(line + sized(self.noise.write_message(payload)))
                continue
            if line and (said := self.stream.readline(256)) != line:
                sock.sendall(b"glide/1 refused not a version or purpose of mine\n" if responds else b"")
                raise Failed("not-glide", f"the other side said {said!r}")
            self.noise.read_message(self.record(2_176))
            if turn:  # the initiator comes here before it writes the third message
                self.peer: bytes = state.rs.public_bytes
                if key not in (b"", self.peer):
                    raise Failed("key-changed", "not the key that was named")
        self.said = self.heard = monotonic()

    def record(self, limit: int = 65_535) -> bytes:
        length = int.from_bytes(self.stream.read(2), "big")
        if not 0 < length <= limit or len(data := self.stream.read(length)) < length:
            raise Failed("lost", "the stream just ended, or is not one of records", True)
        return data

    def say(self, kind: int, payload: bytes | None = None, **fields: Any) -> None:
        """Send a frame, as far as it fills records. The rest waits for `flush`."""
        body = msgspec.msgpack.encode(fields) if payload is None else payload
        self.unsent += bytes([kind]) + sized(sized(body, 4).ljust(PAGE, b"\0") if kind in PAGES else body, 4)
        self.flush(BRIM)

    def flush(self, least: int = 1) -> None:
        while len(self.unsent) >= least:
            if self.sent and self.sent % REKEY_EVERY == 0:
                self.noise.rekey_outbound_cipher()
            self.sock.sendall(sized(self.noise.encrypt(bytes(self.unsent[:BRIM]))))
            del self.unsent[:BRIM]
            self.sent, self.said = self.sent + 1, monotonic()

    def hear(self, *kinds: int, wait: bool = True) -> tuple[int, bytes]:
        """The next frame, which must be one of these; or (0, b""), if it is not to be waited for and not here."""
        while True:
            kind, length = (self.inbox[0], int.from_bytes(self.inbox[1:5], "big")) if len(self.inbox) >= 5 else (0, 0)
            if length > LIMITS.get(kind, 2_048) or (kind in MEANT and kind not in (*kinds, *LAST_WORDS)):
                raise Failed("protocol", f"a frame of type {kind:#x} and {length} bytes has no place here")
            if len(self.inbox) >= 5 + length:
                body = bytes(self.inbox[5 : 5 + length])
                del self.inbox[: 5 + length]
                if kind in kinds:
                    return kind, body[4 : 4 + int.from_bytes(body[:4], "big")] if kind in PAGES else body
                if kind in LAST_WORDS:
                    raise Failed(*decoded(body, code=str, message=(str, "")), True)
                continue
            if wait:
                self.flush()
            due = min(self.said + SPEAK_EVERY, self.heard + SILENCE) if wait else 0
            if select.select([self.sock], [], [], max(0, due - monotonic()))[0]:
                if self.got and self.got % REKEY_EVERY == 0:
                    self.noise.rekey_inbound_cipher()
                self.inbox += self.noise.decrypt(self.record())
                self.got, self.heard = self.got + 1, monotonic()
            elif not wait:
                return 0, b""
            elif monotonic() > self.heard + SILENCE:
                raise Failed("stalled", "nothing came in time")
            else:
                self.say(KEEPALIVE, b"")

    def close(self, **abort: str) -> None:
        """After the last word: wait until the other side has closed too, or TCP may drop what was said."""
        with suppress(OSError):
            if abort:
                self.say(ABORT, **abort)
            self.flush()
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(3)
            while self.sock.recv(65_536):
                pass


def described(path: Path, root: Path) -> Item:
    stat, name, kind = path.stat(), path.relative_to(root).as_posix(), EXECUTABLE if os.access(path, os.X_OK) else FILE
    return (name, FOLDER, 0, stat.st_mtime_ns) if path.is_dir() else (name, kind, stat.st_size, stat.st_mtime_ns)


def pieces(ranges: list[Range], starts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Ranges of the stream, cut at the borders of files: the number of an item, a place in it, a length."""
    for at, length in ranges:
        if not 0 <= at < at + length <= starts[-1]:
            raise Failed("protocol", "a range that is not in the stream")
        while length:
            number = bisect_right(starts, at) - 1
            count = min(length, CHUNK, starts[number + 1] - at)
            yield number, at - starts[number], count
            at, length = at + count, length - count


def send(channel: Channel, top: Path) -> tuple[int, bytes, int]:
    paths = sorted(p for p in (top, *top.rglob("*")) if p.is_dir() or (p.is_file() and not p.is_symlink()))
    items, pages = [described(path, top.parent) for path in paths], [range(0)]
    starts = list(accumulate((size for _, _, size, _ in items), initial=0))
    for n in range(len(items)):
        page = range(pages[-1].start, n + 1)
        fits = len(page) <= 120 and len(msgspec.msgpack.encode({"items": items[page.start : n + 1]})) <= PAGE - 4
        pages[-1:] = [page] if fits else [pages[-1], range(n, n + 1)]
    for page in pages:
        channel.say(MANIFEST, items=items[page.start : page.stop])
    channel.say(OFFER)
    channel.hear(ACCEPT)
    wanted, sent = list[Range](), 0

    def listen(wait: bool = True) -> tuple[int, bytes, bool]:
        kind, body = channel.hear(ACK, WANT, RECEIPT, wait=wait)
        ranges, more = decoded(body, ranges=(list[Range], []), more=(bool, False)) if kind == WANT else ([], False)
        wanted.extend(ranges)
        return kind, body, more

    def read(number: int, at: int, count: int) -> bytes:
        with suppress(OSError), paths[number].open("rb") as file:
            file.seek(at)
            return file.read(count).ljust(count, b"\0")  # zeros for what is not to be had
        return bytes(count)

    def deliver() -> list[tuple[int, int, int]]:
        parts, wanted[:] = list(pieces(wanted, starts)), []
        for part in parts:
            channel.say(DATA, read(*part))
            while listen(wait=False)[0]:
                pass
        return parts

    def hashed(number: int) -> bytes:
        """The digest of an item, which takes a while: the other side hears of each block."""
        hasher, size = blake3(), items[number][2]
        for at in range(0, size, BLOCK):
            hasher.update(read(number, at, min(BLOCK, size - at)))
            channel.say(BUSY, seconds=0)
        with suppress(OSError):
            if described(paths[number], top.parent) == items[number] and os.access(paths[number], os.R_OK):
                return NONE if items[number][1] == FOLDER else hasher.digest()
        return NONE

    while listen()[2]:
        pass
    parts = deliver()
