"""A second client, from docs/protocol.md alone: nothing of glide in it. It pins no keys, and answers with JSON."""

import json
import os
import re
import select
import socket
import sys
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import msgspec
from blake3 import blake3
from noise.connection import Keypair, NoiseConnection

HELLO, WELCOME, REFUSED, PUSH, RINGING, FAILED, INCOMING, _, _, _, GOODBYE, WAITING = range(0x01, 0x0D)
TICKET, JOINED, KEEPALIVE, BRIM, REKEY_EVERY, CHUNK, BLOCK = 0x20, 0x21, 0x7F, 65_519, 1 << 20, 1 << 20, 1 << 26
CAPABILITIES, OFFER, ACCEPT, DECLINE, DATA, DIGESTS, END, ACK, RECEIPT, DONE, ABORT = range(0x40, 0x4B)
MANIFEST, WANT, BLOCKS, BUSY, FILE, EXECUTABLE, FOLDER = *range(0x4B, 0x4F), *range(3)
MEANT = {*range(0x01, WAITING), TICKET, JOINED, *range(0x40, BUSY)}  # all types but hints and unknown ones
PAGE, PAGES, LAST_WORDS = 4_096, (MANIFEST, OFFER, DIGESTS), (REFUSED, FAILED, GOODBYE, DECLINE, ABORT)
LIMITS = {**dict.fromkeys(PAGES, PAGE), WANT: 32_768, BLOCKS: 32_768, DATA: 1 << 24, KEEPALIVE: 0}  # others: 2,048
IDLE, SPEAK_EVERY, SILENCE, NO_DIGEST = 60.0, 30.0, 90.0, bytes(32)  # seconds
NO_PATH = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f-\x9f]")
Item, Range = tuple[str, int, int, int], tuple[int, int]  # path, kind, size, time of modification; position, length


class Failed(Exception):
    """A code, a message, and True if the other side said so or has gone: then nothing is left to say."""


def sized(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


class Channel:
    """A connection after its handshake: records, and frames in them."""

    def __init__(self, sock: socket.socket, me: bytes, *parts: bytes, responds: bool = False, key: bytes = b"") -> None:
        self.sock, self.unsent, self.inbox, self.sent, self.got = sock, bytearray(), bytearray(), 0, 0
        self.wanted: list[Range] = []  # what WANT said
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
                raise Failed("not-glide", f"the other side said {said!r}", True)
            self.noise.read_message(self.record(2_176))
            if turn:  # the initiator comes here before it writes the third message
                self.peer: bytes = state.rs.public_bytes
                if key not in (b"", self.peer):
                    raise Failed("key-changed", "not the key that was named", True)
        self.said = self.heard = monotonic()

    def record(self, limit: int = 65_535) -> bytes:
        length = int.from_bytes(self.stream.read(2), "big")
        if not 0 < length <= limit or len(data := self.stream.read(length)) < length:
            raise Failed("lost", "the stream just ended, or is not one of records", True)
        return data

    def say(self, kind: int, payload: bytes | None = None, **fields: Any) -> None:
        """Send a frame, as far as it fills records. The rest goes when this side waits, or closes."""
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

    def hear(self, *kinds: int, wait: bool = True) -> tuple[int, Any]:
        """The next message, which must be one of these; or (0, {}), if it is not to be waited for and not here."""
        while True:
            kind, length = (self.inbox[0], int.from_bytes(self.inbox[1:5], "big")) if len(self.inbox) >= 5 else (0, 0)
            if length > LIMITS.get(kind, 2_048) or (kind in MEANT and kind not in (*kinds, *LAST_WORDS)):
                raise Failed("protocol", f"a frame of type {kind:#x} and {length} bytes has no place here")
            if len(self.inbox) >= 5 + length:
                body = bytes(self.inbox[5 : 5 + length])
                del self.inbox[: 5 + length]
                if kind in MEANT:
                    body = body[4 : 4 + int.from_bytes(body[:4], "big")] if kind in PAGES else body
                    message = body if kind == DATA else msgspec.msgpack.decode(body, type=dict[str, Any])
                    if kind in LAST_WORDS:
                        raise Failed(message["code"], message.get("message", ""), True)
                    self.wanted += message.get("ranges", []) if kind == WANT else []
                    return kind, message
                continue
            self.flush(1 if wait else BRIM)
            due = min(self.said + SPEAK_EVERY, self.heard + SILENCE) if wait else 0
            if select.select([self.sock], [], [], max(0, due - monotonic()))[0]:
                if self.got and self.got % REKEY_EVERY == 0:
                    self.noise.rekey_inbound_cipher()
                self.inbox += self.noise.decrypt(self.record())
                self.got, self.heard = self.got + 1, monotonic()
            elif not wait:
                return 0, {}
            elif monotonic() >= self.heard + SILENCE:
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


def parts(ranges: list[Range], items: list[Item]) -> list[tuple[int, int, int]]:
    """Ranges of the stream as parts of files: numbers of items, beginnings and ends in them."""
    spans = list(enumerate(pairwise(accumulate((size for _, _, size, _ in items), initial=0))))
    cut = (
        (n, max(at, start) - start, min(at + count, end) - start) for at, count in ranges for n, (start, end) in spans
    )
    return [(n, begin, end) for n, begin, end in cut if begin < end]


def read(path: Path, at: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(count)


def send(channel: Channel, top: Path) -> tuple[int, bytes, int]:
    paths = sorted(p for p in (top, *top.rglob("*")) if p.is_dir() or (p.is_file() and not p.is_symlink()))
    items, pages, digests, sent = list[Item](), [0], list[bytes](), 0
    for path in paths:
        stat, kind = path.stat(), FOLDER if path.is_dir() else EXECUTABLE if os.access(path, os.X_OK) else FILE
        name, size = path.relative_to(top.parent).as_posix(), 0 if kind == FOLDER else stat.st_size
        items.append((name, kind, size, stat.st_mtime_ns))
    while (first := pages[-1]) < len(items):
        ends = range(first + 1, min(first + 120, len(items)) + 1)
        pages += [max(end for end in ends if len(msgspec.msgpack.encode({"items": items[first:end]})) <= PAGE - 4)]
        channel.say(MANIFEST, items=items[first : pages[-1]])
    channel.say(OFFER)
    heard, total = channel.hear(ACCEPT)[0], sum(size for _, _, size, _ in items)
    while channel.hear(WANT)[1].get("more"):
        pass
    while heard != RECEIPT:
        now, channel.wanted = parts(channel.wanted, items), []
        for number, begin, end in now:
            for at in range(begin, end, CHUNK):
                channel.say(DATA, data := read(paths[number], at, min(CHUNK, end - at)))
                sent += len(data)
                while channel.hear(ACK, WANT, wait=False)[0]:
                    pass
        if not digests:  # so END was not said: that was the first list
            skipped = {n: begin for n, begin, _ in reversed(now) if (n, items[n][2]) in {(n, end) for n, _, end in now}}
            for number, (path, (_, kind, size, mtime)) in enumerate(zip(paths, items, strict=True)):
                hasher = blake3()
                for at in range(0, size, BLOCK):
                    hasher.update(data := read(path, at, BLOCK))
                    channel.say(BUSY, seconds=0)
                    if (left := skipped.get(number, 0) - at) > 0:
                        channel.say(BLOCKS, number=number, first=at // BLOCK, digests=blake3(data[:left]).digest())
                if path.stat().st_mtime_ns != mtime:
                    raise Failed("file", f"{path} changed meanwhile")
                digests.append(NO_DIGEST if kind == FOLDER else hasher.digest())
            for page, (first, end) in enumerate(pairwise(pages)):
                channel.say(DIGESTS, page=page, digests=b"".join(digests[first:end]))
            digest = digests[0] if len(items) == 1 else blake3(b"".join(digests)).digest()
            channel.say(END, bytes=total, digest=digest)
        if not channel.wanted:
            heard, answer = channel.hear(ACK, WANT, RECEIPT)
    channel.say(DONE)
    if answer != {"items": sum(kind != FOLDER for _, kind, _, _ in items), "bytes": total, "digest": digest}:
        raise Failed("partly", f"the receipt is for something else: {answer}", True)
    return total, digest, sent


def take(channel: Channel, folder: Path) -> tuple[int, bytes, int]:
    items, told, heard, got = list[Item](), dict[int, bytes](), MANIFEST, 0
    while heard != OFFER:
        heard, message = channel.hear(MANIFEST, OFFER)
        items += msgspec.convert([(*item, 0, 0, 0)[:4] for item in message.get("items", [])], list[Item])
    folders = {"", *(path for path, kind, size, _ in items if kind == FOLDER and not size)}
    good = all(a.split("/") < b.split("/") for (a, *_), (b, *_) in pairwise(items)) and not any(
        NO_PATH.search(path) or path.rpartition("/")[0] not in folders or (kind > EXECUTABLE and path not in folders)
        for path, kind, _, _ in items
    )
    if not good or any(os.path.lexists(folder / path) for path, *_ in items):
        channel.say(DECLINE, code="declined", message="these names cannot be, or are there already")
        raise Failed("declined", "the offer was not taken", True)
    total = sum(size for _, _, size, _ in items)
    channel.say(ACCEPT)
    channel.say(WANT, ranges=[(0, total)] if total else [])
    with TemporaryDirectory(dir=folder, prefix=".second-client-") as made:
        paths, hashers = [Path(made, path) for path, *_ in items], [blake3() for _ in items]
        for path, (_, kind, _, _) in zip(paths, items, strict=True):
            path.mkdir() if kind == FOLDER else path.touch(0o777 if kind == EXECUTABLE else 0o666)
        while heard != END:
            heard, message = channel.hear(DATA, DIGESTS, END)
            if heard == DIGESTS:
                told[message["page"]] = message["digests"]
            for number, begin, end in parts([(got, len(message))], items) if heard == DATA else []:
                data, message, got = message[: end - begin], message[end - begin :], got + end - begin
                hashers[number].update(data)
                with paths[number].open("ab", 0) as file:
                    file.write(data)
                    os.fsync(file.fileno())
                channel.say(ACK, bytes=got)
        digests = [
            NO_DIGEST if kind == FOLDER else h.digest() for h, (_, kind, _, _) in zip(hashers, items, strict=True)
        ]
        digest = digests[0] if len(items) == 1 else blake3(b"".join(digests)).digest()
        theirs = b"".join(told[page] for page in sorted(told))
        if (message["bytes"], message["digest"], got, theirs) != (total, digest, total, b"".join(digests)):
            raise Failed("integrity", "what arrived is not what was sent")
        for path, (*_, mtime) in reversed([*zip(paths, items, strict=True)]):
            os.utime(path, ns=(mtime, mtime))
        for path in Path(made).iterdir():
            path.rename(folder / path.name)
    channel.say(RECEIPT, items=sum(kind != FOLDER for _, kind, _, _ in items), bytes=total, digest=digest)
    return total, digest, got


if __name__ == "__main__":  # push --relay HOST:PORT --key-file FILE --as NAME --to NAME PATH, receive ... --into FOLDER
    sys.excepthook = lambda _, error, __: print(json.dumps({"status": "error", "message": repr(error)}))
    options, pushes = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False)), sys.argv[1] == "push"
    (host, _, port), me, key_file = options["--relay"].rpartition(":"), options["--as"], Path(options["--key-file"])
    key_file.touch(0o600)
    key_file.write_bytes(secret := key_file.read_bytes() or os.urandom(32))
    control = Channel(socket.create_connection((host, int(port)), IDLE), secret, b"glide/1 control\n")
    control.say(HELLO, role="send" if pushes else "receive", name=me)
    control.hear(WELCOME)
    if pushes:
        control.say(PUSH, to=options["--to"], transfer=os.urandom(16))
    call = control.hear(RINGING if pushes else INCOMING)[1]
    data = Channel(socket.create_connection((host, int(port)), IDLE), secret, b"glide/1 data\n", key=control.peer)
    data.say(TICKET, ticket=call["ticket"])
    data.hear(JOINED)
    mine, theirs = (me.encode(), control.me), (call.get("sender", options.get("--to")).encode(), call["key"])
    opening = (
        b"glide/1 e2e\n",
        b"glide e2e",
        call["transfer"],
        control.peer,
        *(mine + theirs if pushes else theirs + mine),
    )
    e2e = Channel(data.sock, secret, *opening, responds=not pushes, key=call["key"])
    try:
        total, digest, moved = (send if pushes else take)(e2e, Path(options.get("--into", sys.argv[-1])).resolve())
    except Exception as error:
        code, message, *told = error.args if isinstance(error, Failed) else ("protocol", str(error))
        e2e.close(**{} if told else {"code": code, "message": message[:400]})
        raise
    e2e.close()
    result = {"status": "ok", "bytes": total, "digest": digest.hex(), "data": moved, "records": e2e.sent}
    sys.stdout.write(json.dumps({**result, "relay_key": control.peer.hex()}) + "\n")
