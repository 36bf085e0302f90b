"""A second client, from docs/protocol.md alone: nothing of glide in it. It pins no keys, and answers with JSON."""

import argparse
import contextlib
import json
import os
import select
import socket
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseInvalidMessage, NoiseValueError

HELLO, WELCOME, REFUSED, PUSH, RINGING, FAILED, INCOMING, REJECT, WHO, PEOPLE, GOODBYE, WAITING = range(0x01, 0x0D)
TICKET, JOINED, KEEPALIVE, BRIM, REKEY_EVERY, CHUNK = 0x20, 0x21, 0x7F, 65_519, 1 << 20, 1 << 20
CAPABILITIES, OFFER, ACCEPT, DECLINE, DATA, DIGESTS, END, ACK, RECEIPT, DONE, ABORT = range(0x40, 0x4B)
MEANT = {*range(0x01, WAITING), TICKET, JOINED, *range(0x40, 0x4B)}  # all types but hints and unknown ones
LAST_WORDS = {REFUSED, FAILED, GOODBYE, DECLINE, ABORT}
LIMITS = {PEOPLE: 32_768, OFFER: 65_536, DATA: 1 << 24, DIGESTS: 32_768, KEEPALIVE: 0}  # of all others: 2,048
STEP, TICKET_LIFE, THINKING, SPEAK_EVERY, SILENCE = 10.0, 25.0, 60.0, 30.0, 90.0  # seconds


class Failed(Exception):
    """A code and a message: this side cannot go on."""


class Told(Failed):
    """The same, from the other side or after it has gone: nothing is left to say."""


FAILURES = (Failed, OSError, InvalidTag, NoiseInvalidMessage, NoiseValueError, msgspec.MsgspecError, ValueError)


def sized(data: bytes, width: int = 2) -> bytes:
    return len(data).to_bytes(width, "big") + data


def encoded(kind: int, message: dict[str, Any] | bytes) -> bytes:
    return bytes([kind]) + sized(message if isinstance(message, bytes) else msgspec.msgpack.encode(message), 4)


def decoded(payload: bytes, **fields: type) -> list[Any]:
    message = msgspec.msgpack.decode(payload, type=dict[str, Any])
    if not all(type(message.get(name)) is kind for name, kind in fields.items()):
        raise Failed("protocol", f"not a message with {', '.join(fields)}")
    return [message[name] for name in fields]


class Channel:
    """A connection after its handshake: records, and frames in them."""

    def __init__(self, sock: socket.socket, me: bytes, *parts: bytes, responds: bool = False, key: bytes = b"") -> None:
        self.sock, self.unsent, self.inbox, self.sent, self.got = sock, bytearray(), bytearray(), 0, 0
        payload = encoded(CAPABILITIES, {}) if len(parts) > 1 else b""
        self.noise = NoiseConnection.from_name(b"Noise_XX_25519_AESGCM_SHA256")
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, me)
        self.noise.set_prologue(b"".join(map(sized, parts)))
        _ = self.noise.set_as_responder() if responds else self.noise.set_as_initiator()
        self.noise.start_handshake()
        state = self.noise.noise_protocol.handshake_state  # the library drops it with the last message
        self.me: bytes = state.s.public_bytes
        lines = (parts[0], b"glide/1 ok\n", b"")
        for turn in range(3):
            if (turn == 1) is responds:
                sock.sendall(lines[turn] + sized(self.noise.write_message(payload if turn else b"")))
                continue
            line = b""
            while line[-1:] != lines[turn][-1:] and len(line) < 256:
                line += self._bytes(1)
            if line != lines[turn]:
                sock.sendall(b"glide/1 refused not a version or purpose of mine\n" if responds else b"")
                raise Failed("not-glide", f"the other side said {line!r}")
            if (length := int.from_bytes(self._bytes(2), "big")) > 2_176:
                raise Failed("protocol", "a handshake message that is too long")
            theirs = bytes(self.noise.read_message(self._bytes(length)))
            if turn:  # the initiator comes here before it writes the third message
                self.peer: bytes = state.rs.public_bytes
                if key not in (b"", self.peer):
                    raise Failed("key-changed", "not the key that was named")
                if payload and (theirs != encoded(CAPABILITIES, theirs[5:]) or decoded(theirs[5:])):
                    raise Failed("protocol", "no CAPABILITIES in the handshake")
        self.said = self.heard = monotonic()

    def _bytes(self, count: int) -> bytes:
        """So many and not one more: what follows may belong to another layer."""
        data, deadline = b"", monotonic() + STEP
        while len(data) < count:
            self.sock.settimeout(max(0.001, deadline - monotonic()))
            if not (some := self.sock.recv(count - len(data))):
                raise Told("lost", "the stream just ended")
            data += some
        return data

    def say(self, kind: int, message: dict[str, Any] | bytes, more: bool = False) -> None:
        """Queue a frame. Records go out full; the last one is cut short only if there is no `more` to come."""
        self.unsent += encoded(kind, message)
        while len(self.unsent) >= BRIM or (self.unsent and not more):
            if self.sent and self.sent % REKEY_EVERY == 0:
                self.noise.rekey_outbound_cipher()
            self.sock.settimeout(STEP)
            self.sock.sendall(sized(self.noise.encrypt(bytes(self.unsent[:BRIM]))))
            del self.unsent[:BRIM]
            self.sent, self.said = self.sent + 1, monotonic()

    def hear(self, *kinds: int, wait: float = STEP) -> tuple[int, bytes]:
        """The next frame, which must be one of these; or (0, b""), if it is not to be waited for and not here."""
        deadline = monotonic() + wait
        while True:
            kind, length = (self.inbox[0], int.from_bytes(self.inbox[1:5], "big")) if len(self.inbox) >= 5 else (0, 0)
            if length > LIMITS.get(kind, 2_048) or (kind in MEANT and kind not in {*kinds, *LAST_WORDS}):
                raise Failed("protocol", f"a frame of type {kind:#x} and {length} bytes has no place here")
            if len(self.inbox) >= 5 + length:
                payload = bytes(self.inbox[5 : 5 + length])
                del self.inbox[: 5 + length]
                if kind in kinds:
                    return kind, payload
                if kind in LAST_WORDS:
                    raise Told(*decoded(payload, code=str), str(msgspec.msgpack.decode(payload).get("message", "")))
                continue
            until = max(deadline, self.heard + STEP) if self.inbox else deadline  # a frame may be arriving in pieces
            due = min(until, self.said + SPEAK_EVERY, self.heard + SILENCE)
            if select.select([self.sock], [], [], max(0, due - monotonic()))[0]:
                if self.got and self.got % REKEY_EVERY == 0:
                    self.noise.rekey_inbound_cipher()
                self.inbox += self.noise.decrypt(self._bytes(int.from_bytes(self._bytes(2), "big")))
                self.got, self.heard = self.got + 1, monotonic()
            elif wait == 0:
                return 0, b""
            elif due == self.said + SPEAK_EVERY < until:
                self.say(KEEPALIVE, b"")
            else:
                raise Failed("stalled", "nothing came in time")

    def close(self, abort: dict[str, Any] | None = None) -> None:
        """After the last word: wait until the other side has closed too, or TCP may drop what was said."""
        with contextlib.suppress(OSError), self.sock:
            if abort:
                self.say(ABORT, abort)
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(3)
            while self.sock.recv(65_536):
                pass


def send(channel: Channel, path: Path) -> tuple[int, str]:
    hasher = blake3()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offer = sized(msgspec.msgpack.encode({"items": [{"name": path.name, "size": size}]}), 4)
        channel.say(OFFER, offer + bytes(-len(offer) % 4_096))
        channel.hear(ACCEPT, wait=THINKING)
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            channel.say(DATA, chunk, more=True)
            while channel.hear(ACK, wait=0)[0]:
                pass
        if (total := file.tell()) != size:
            raise Failed("file", "the file changed while it was read")
    channel.say(DIGESTS, {"digests": [hasher.digest()]}, more=True)
    channel.say(END, {"bytes": total, "digest": hasher.digest()})
    while (frame := channel.hear(ACK, RECEIPT))[0] == ACK:
        pass
    if decoded(frame[1], items=int, bytes=int, digest=bytes) != [1, total, hasher.digest()]:
        raise Told("integrity", "the receipt is for something else")
    channel.say(DONE, {})
    return total, hasher.hexdigest()


def take(channel: Channel, folder: Path) -> tuple[int, str]:
    offer = channel.hear(OFFER)[1]
    items = decoded(offer[4 : 4 + int.from_bytes(offer[:4], "big")], items=list)[0]
    name, size = decoded(msgspec.msgpack.encode(items[0] if len(items) == 1 else {}), name=str, size=int)
    if name in ("", ".", "..") or any(c in "/\\" or ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
        channel.say(DECLINE, {"code": "name-unusable", "message": "that is no file name"})
        raise Told("name-unusable", repr(name))
    channel.say(ACCEPT, {})
    total, hasher, durable = 0, blake3(), 0
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".second-client-") as file:
        while (frame := channel.hear(DATA, DIGESTS))[0] == DATA:
            if (total := total + file.write(frame[1])) > size:
                raise Failed("integrity", "more bytes than were offered")
            hasher.update(frame[1])
            if total >= durable + CHUNK or total == size > durable:
                file.flush()
                os.fsync(file.fileno())
                channel.say(ACK, {"bytes": (durable := total)})
        end = decoded(channel.hear(END)[1], bytes=int, digest=bytes)
        if decoded(frame[1], digests=list) != [[hasher.digest()]] or end != [total, hasher.digest()] or total != size:
            raise Failed("integrity", "what arrived is not what was sent")
        os.link(file.name, folder / name)  # fails if something stands there
    channel.say(RECEIPT, {"items": 1, "bytes": total, "digest": hasher.digest()})
    with contextlib.suppress(*FAILURES):
        channel.hear(DONE)
    return total, hasher.hexdigest()


def run(args: argparse.Namespace) -> dict[str, Any]:
    host, _, port = args.relay.rpartition(":")
    address, pushes, key_file = (host.strip("[]"), int(port)), args.command == "push", Path(args.key_file)
    if not key_file.exists():
        key_file.touch(0o600)
        key_file.write_bytes(os.urandom(32))
    secret = key_file.read_bytes()
    control = Channel(socket.create_connection(address, STEP), secret, b"glide/1 control\n")
    control.say(HELLO, {"role": "send" if pushes else "receive", "name": args.me})
    control.hear(WELCOME)
    if pushes:
        control.say(PUSH, {"to": args.to, "transfer": os.urandom(16)})
    call = control.hear(RINGING if pushes else INCOMING, wait=STEP if pushes else float("inf"))[1]
    transfer, ticket, key = decoded(call, transfer=bytes, ticket=bytes, key=bytes)
    other = args.to if pushes else decoded(call, sender=str)[0]
    data = Channel(socket.create_connection(address, STEP), secret, b"glide/1 data\n", key=control.peer)
    data.say(TICKET, {"ticket": ticket})
    data.hear(JOINED, wait=TICKET_LIFE)
    if data.inbox:
        raise Failed("protocol", "something behind JOINED in its record")
    ends = [args.me.encode(), control.me, other.encode(), key]
    parts = [b"glide e2e", transfer, control.peer, *(ends if pushes else ends[2:] + ends[:2])]
    channel = Channel(data.sock, secret, b"glide/1 e2e\n", *parts, responds=not pushes, key=key)
    try:
        total, digest = send(channel, Path(args.path)) if pushes else take(channel, Path(args.into))
    except FAILURES as error:
        unnamed = ("file" if isinstance(error, OSError) else "integrity", str(error))
        code, message = error.args if isinstance(error, Failed) else unnamed
        channel.close(None if isinstance(error, Told) else {"code": code, "message": message[:400]})
        raise
    channel.close()
    return {"status": "ok", "bytes": total, "digest": digest, "records": channel.sent, "relay_key": control.peer.hex()}


if __name__ == "__main__":
    commands = (parser := argparse.ArgumentParser()).add_subparsers(dest="command", required=True)
    for command, last in (("push", "--to"), ("receive", "--into")):
        subparser = commands.add_parser(command)
        for option, name in (("--relay", "relay"), ("--key-file", "key_file"), ("--as", "me"), (last, last[2:])):
            subparser.add_argument(option, dest=name, required=True)
    commands.choices["push"].add_argument("path")
    try:
        result = run(parser.parse_args())
    except FAILURES as error:
        result = {"status": "error", "message": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(result["status"] != "ok")
