"""A second client, from docs/protocol.md alone: nothing of glide in it. It pins no keys, and answers with JSON."""

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


class Item(msgspec.Struct, array_like=True):
    path: str
    kind: int = FILE
    size: int = 0
    mtime: int = 0


def sized(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


class Channel:
    """A connection after its handshake: records, and frames in them."""

    def __init__(self, sock: socket.socket, me: bytes, *parts: bytes, responds: bool = False, key: bytes = b"") -> None:
        self.sock, self.unsent, self.inbox, self.sent, self.got = sock, bytearray(), bytearray(), 0, 0
        self.wanted: list[tuple[int, int]] = []  # what WANT said: positions and lengths
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
                raise ValueError(f"the other side said {said!r}")
            self.noise.read_message(self.record(2_176))
            if turn:  # the initiator comes here before it writes the third message
                self.peer: bytes = state.rs.public_bytes
                if key not in (b"", self.peer):
                    raise ValueError("not the key that was named")
        self.said = self.heard = monotonic()

    def record(self, limit: int = 65_535) -> bytes:
        length = int.from_bytes(self.stream.read(2))
        if not 0 < length <= limit or len(data := self.stream.read(length)) < length:
            raise ValueError("the stream just ended, or is not one of records")
        return data

    def say(self, kind: int, payload: bytes | None = None, **fields: Any) -> None:
        body = msgspec.msgpack.encode(fields) if payload is None else payload
        self.unsent += bytes([kind]) + sized(sized(body, 4).ljust(PAGE, b"\0") if kind in PAGES else body, 4)
        self.flush(BRIM)  # the rest goes when this side waits, or closes

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
            kind, length = (self.inbox[0], int.from_bytes(self.inbox[1:5])) if len(self.inbox) >= 5 else (0, 0)
            if length > LIMITS.get(kind, 2_048) or (kind in MEANT and kind not in (*kinds, *LAST_WORDS)):
                raise ValueError(f"a frame of type {kind:#x} and {length} bytes has no place here")
            if len(self.inbox) >= 5 + length:
                body: Any = bytes(self.inbox[5 : 5 + length])
                del self.inbox[: 5 + length]
                if kind in MEANT:
                    body = body[4 : 4 + int.from_bytes(body[:4])] if kind in PAGES else body
                    message = body if kind == DATA else msgspec.msgpack.decode(body)
                    if kind in LAST_WORDS:
                        raise ValueError(message)
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
                raise ValueError("nothing came in time")
            else:
                self.say(KEEPALIVE, b"")

    def close(self) -> None:
        with suppress(OSError):
            self.flush()
            self.sock.shutdown(socket.SHUT_WR)  # now wait for the other side's, or TCP may drop what was said
            self.sock.settimeout(3)
            while self.sock.recv(65_536):
                pass


def parts(ranges: list[tuple[int, int]], items: list[Item]) -> list[tuple[int, int, int]]:
    """Ranges of the stream as parts of files: numbers of items, beginnings and ends in them."""
    spans = list(enumerate(pairwise(accumulate((item.size for item in items), initial=0))))
    cut = [(n, max(at, start) - start, min(at + size, end) - start) for at, size in ranges for n, (start, end) in spans]
    return [(n, begin, end) for n, begin, end in cut if begin < end]


def send(channel: Channel, top: Path) -> tuple[int, bytes, int]:
    paths = sorted(p for p in (top, *top.rglob("*")) if p.is_dir() or (p.is_file() and not p.is_symlink()))
    items, pages, digests, digest, sent, heard, receipt = list[Item](), [0], list[bytes](), b"", 0, 0, dict[str, Any]()
    for path in paths:
        stat, kind = path.stat(), FOLDER if path.is_dir() else EXECUTABLE if os.access(path, os.X_OK) else FILE
        name, size = path.relative_to(top.parent).as_posix(), 0 if kind == FOLDER else stat.st_size
        items.append(Item(name, kind, size, stat.st_mtime_ns))
    while (first := pages[-1]) < len(items):
        fit = range(first + 1, min(first + 120, len(items)) + 1)
        pages += [max(end for end in fit if len(msgspec.msgpack.encode({"items": items[first:end]})) <= PAGE - 4)]
        channel.say(MANIFEST, items=items[first : pages[-1]])
    channel.say(OFFER)
    channel.hear(ACCEPT)
    while channel.hear(WANT)[1].get("more"):
        pass
    while heard != RECEIPT:
        now, channel.wanted = parts(channel.wanted, items), []
        for n, begin, end in now:
            with paths[n].open("rb") as file:
                file.seek(begin)
                for at in range(begin, end, CHUNK):
                    channel.say(DATA, file.read(min(CHUNK, end - at)))
                    while channel.hear(ACK, WANT, wait=False)[0]:
                        pass
            sent += end - begin
        if not digests:  # so END was not said, and this was the first list
            begins, ends = {n: begin for n, begin, _ in reversed(now)}, {n: end for n, _, end in now}
            for n, (path, item) in enumerate(zip(paths, items, strict=True)):
                digests.append(NO_DIGEST if item.kind == FOLDER else blake3().update_mmap(path).digest())
                channel.say(BUSY, seconds=0)
                for at in range(0, begins[n] if ends.get(n) == item.size else 0, BLOCK):
                    with path.open("rb") as file:
                        file.seek(at)
                        block = blake3(file.read(min(BLOCK, begins[n] - at))).digest()
                    channel.say(BLOCKS, number=n, first=at // BLOCK, digests=block)
                if path.stat().st_mtime_ns != item.mtime:
                    raise ValueError(f"{path} has changed meanwhile")
            for page, (first, end) in enumerate(pairwise(pages)):
                channel.say(DIGESTS, page=page, digests=b"".join(digests[first:end]))
            digest = digests[0] if len(items) == 1 else blake3(b"".join(digests)).digest()
            channel.say(END, bytes=sum(item.size for item in items), digest=digest)
        if not channel.wanted:
            heard, receipt = channel.hear(ACK, WANT, RECEIPT)
    channel.say(DONE)
    if (receipt["items"], receipt["digest"]) != (sum(item.kind != FOLDER for item in items), digest):
        raise ValueError(f"the receipt is for something else: {receipt}")
    return receipt["bytes"], digest, sent


def take(channel: Channel, folder: Path) -> tuple[int, bytes, int]:
    items, told, heard, message, got, folders = list[Item](), dict[int, bytes](), 0, None, 0, {""}
    while heard != OFFER:
        heard, message = channel.hear(MANIFEST, OFFER)
        items += msgspec.convert(message.get("items", []), list[Item])
    for before, item in pairwise([Item("", FOLDER), *items]):
        folders |= {item.path} if item.kind == FOLDER and item.size == 0 else set()
        bad = NO_PATH.search(item.path) or item.path.rpartition("/")[0] not in folders or (folder / item.path).exists()
        odd = item.path.split("/") <= before.path.split("/") or (item.kind > EXECUTABLE and item.path not in folders)
        if bad or odd:
            channel.say(DECLINE, code="declined", message=f"{item.path!r} cannot be, or is there already")
            raise ValueError("the offer was not taken")
    channel.say(ACCEPT)
    channel.say(WANT, ranges=[(0, total)] if (total := sum(item.size for item in items)) else [])
    with TemporaryDirectory(dir=folder, prefix=".second-client-") as made:
        paths = [Path(made, item.path) for item in items]
        for path, item in zip(paths, items, strict=True):
            (path.mkdir if item.kind == FOLDER else path.touch)(0o777 if item.kind else 0o666)
        while heard != END:
            heard, message = channel.hear(DATA, DIGESTS, END)
            if heard == DIGESTS:
                told[message["page"]] = message["digests"]
            for n, begin, end in parts([(got, len(message))], items) if heard == DATA else []:
                with paths[n].open("ab", 0) as file:
                    count = file.write(message[: end - begin])
                    os.fsync(file.fileno())
                message, got = message[count:], got + count
                channel.say(ACK, bytes=got)
        digests = [blake3().update_mmap(path).digest() if path.is_file() else NO_DIGEST for path in paths]
        digest = digests[0] if len(items) == 1 else blake3(b"".join(digests)).digest()
        theirs = b"".join(told[page] for page in sorted(told))
        if (message, got, theirs) != ({"bytes": total, "digest": digest}, total, b"".join(digests)):
            channel.say(ABORT, code="integrity", message="what arrived is not what was sent")
            raise ValueError("what arrived is not what was sent")
        for path, item in reversed([*zip(paths, items, strict=True)]):  # a folder's time after what is in it
            os.utime(path, ns=(item.mtime, item.mtime))
        for path in Path(made).iterdir():
            path.rename(folder / path.name)
    channel.say(RECEIPT, items=sum(item.kind != FOLDER for item in items), bytes=total, digest=digest)
    return total, digest, got


# push --relay HOST:PORT --key-file FILE --as NAME --to NAME PATH; or receive --relay ... --as NAME --into FOLDER
sys.excepthook = lambda _, e, __: os.write(1, msgspec.json.encode({"status": "error", "message": repr(e)}) + b"\n")
command, *rest = sys.argv[1:]
pushes, options = command == "push", dict(zip(rest[::2], rest[1::2], strict=False))
(host, port), key_file = options["--relay"].rsplit(":", 1), Path(options["--key-file"])
key_file.touch(0o600)
key_file.write_bytes(secret := key_file.read_bytes() or os.urandom(32))
control = Channel(socket.create_connection((host.strip("[]"), port), IDLE), secret, b"glide/1 control\n")
control.say(HELLO, role="send" if pushes else "receive", name=options["--as"])
control.hear(WELCOME)
if pushes:
    control.say(PUSH, to=options["--to"], transfer=os.urandom(16))
call = control.hear(RINGING if pushes else INCOMING)[1]
data = Channel(socket.create_connection((host.strip("[]"), port), IDLE), secret, b"glide/1 data\n", key=control.peer)
data.say(TICKET, ticket=call["ticket"])
data.hear(JOINED)
ends = [options["--as"].encode(), control.me, (options["--to"] if pushes else call["sender"]).encode(), call["key"]]
layers = [b"glide/1 e2e\n", b"glide e2e", call["transfer"], control.peer, *(ends if pushes else ends[2:] + ends[:2])]
e2e = Channel(data.sock, secret, *layers, responds=not pushes, key=call["key"])
try:
    size, digest, moved = (send if pushes else take)(e2e, Path(options.get("--into", rest[-1])).resolve())
finally:
    e2e.close()
said = {"status": "ok", "bytes": size, "digest": digest.hex(), "data": moved, "records": e2e.sent}
os.write(1, msgspec.json.encode({**said, "relay_key": control.peer.hex()}) + b"\n")
