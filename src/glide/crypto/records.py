"""Records: the transport phase of Noise, many at a call.

A record is two bytes of length (big-endian) and that many bytes of AES-256-GCM ciphertext, tag included: at most
65,535. The nonce is a counter for each direction that only rises; the key is renewed (Noise REKEY) before every
record whose number is a multiple of 2^20, except the first. So a record that is dropped, repeated, moved or changed
does not open.

The plaintext is one stream of frames that is cut into full records whatever the frames' borders. A record is
cut short only at :meth:`Sealer.flush`, where the sender would wait for an answer: the lengths of records say
nothing of what is in them.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from glide.errors import IntegrityError

TAG = 16
LENGTH = 2
LONGEST = 65535  # of the ciphertext with its tag; Noise's own maximum
FULL = LONGEST - TAG  # plaintext in a full record
SEALED_FULL = LENGTH + LONGEST
REKEY_EVERY = 1 << 20

_LAST_NONCE = 2**64 - 1  # reserved for REKEY
_NONCE = struct.Struct(">4xQ")  # Noise's for AESGCM: four zero bytes and the counter
_NOTHING = memoryview(b"")  # one for all who wait

# Of opened records: what is on its way to the disk, in a few batches, and what comes meanwhile.
_ROOMS = 8


class _Rooms:
    """Buffers for many records at once, used again when nobody looks at them any more.

    Memory that the system has just given away costs more than what is then done with it.
    """

    _buffers: tuple[bytearray, ...] = ()

    def _room(self, size: int) -> memoryview:
        """Room for so many bytes. It is nobody else's until all views of it have gone."""
        if size <= SEALED_FULL:
            return memoryview(bytearray(size))
        for buffer in self._buffers:
            if len(buffer) >= size and _unused(buffer):
                return memoryview(buffer)[:size]
        fresh = bytearray(size)
        self._buffers = (fresh, *self._buffers[: _ROOMS - 1])
        return memoryview(fresh)


def _unused(buffer: bytearray) -> bool:
    try:
        buffer.append(0)  # Python lets nobody change the size of what somebody has a view of
    except BufferError:
        return False
    buffer.pop()
    return True


class _Cipher:
    """A key and its counter. What is made of the key, in 2 us, has 2.4 KiB: a connection that waits does without."""

    __slots__ = ("_aead", "_key", "count")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._aead: AESGCM | None = None
        self.count = 0

    def next(self) -> tuple[AESGCM, bytes]:
        """What the next record is sealed or opened with, and its nonce; counts, and renews the key when due (C7)."""
        count = self.count
        if count and count % REKEY_EVERY == 0:
            self._key = self.aead.encrypt(_NONCE.pack(_LAST_NONCE), bytes(32), b"")[:32]
            self._aead = None
        if count == _LAST_NONCE:
            raise IntegrityError("A connection used up its counter.")
        self.count = count + 1
        return self.aead, _NONCE.pack(count)

    @property
    def aead(self) -> AESGCM:
        if self._aead is None:
            self._aead = AESGCM(self._key)
        return self._aead

    def rest(self) -> None:
        """Nothing is sealed or opened for a while."""
        self._aead = None


class Sealer(_Rooms):
    """Plaintext in, records out."""

    def __init__(self, key: bytes) -> None:
        self._cipher = _Cipher(key)
        self._pending = bytearray()

    def seal(self, *pieces: bytes | bytearray | memoryview) -> memoryview:
        """The full records that ``pieces`` complete; what is left over waits. May be empty."""
        total = len(self._pending) + sum(map(len, pieces))
        room = self._room(total // FULL * SEALED_FULL)
        at = 0
        for piece in pieces:
            view = memoryview(piece)
            if self._pending:
                take = min(FULL - len(self._pending), len(view))
                self._pending += view[:take]
                view = view[take:]
                if len(self._pending) < FULL:
                    continue
                at = self._seal_one(self._pending, room, at)
                self._pending.clear()
            full = len(view) - len(view) % FULL
            for begin in range(0, full, FULL):
                at = self._seal_one(view[begin : begin + FULL], room, at)
            self._pending += view[full:]
        return room

    def seal_all(self, *pieces: bytes | bytearray | memoryview) -> bytes:
        """The same, and what is left over as a short record."""
        return b"".join((self.seal(*pieces), self.flush()))

    def flush(self) -> bytes:
        """What waits, as a short record; empty if nothing does."""
        if not self._pending:
            return b""
        out = bytearray(LENGTH + len(self._pending) + TAG)
        self._seal_one(self._pending, memoryview(out), 0)
        self._pending.clear()
        self._cipher.rest()
        return bytes(out)

    def _seal_one(self, plain: bytearray | memoryview, room: memoryview, at: int) -> int:
        begin = at + LENGTH
        end = begin + len(plain) + TAG
        room[at:begin] = (end - begin).to_bytes(LENGTH, "big")
        aead, nonce = self._cipher.next()
        aead.encrypt_into(nonce, plain, None, room[begin:end])
        return end


class Opener(_Rooms):
    """Records in, plaintext out, in whatever pieces they come.

    Feed a piece, then call :meth:`next` until it returns None. Holds the last piece and at most one record that
    is not whole.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = _Cipher(key)
        self._partial = bytearray()
        self._view = _NOTHING
        self._spoilt = False  # a record did not open: no later one does

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream. The piece must not change until :meth:`next` has returned None."""
        assert not self._view, "the last piece is not used up"
        self._view = memoryview(piece)

    def next(self, most: int = 1) -> memoryview | None:
        """The plaintext of the next record, or of up to so many that are whole; None if more bytes are needed.

        Raises :class:`IntegrityError` for a record that does not open; nothing of it is handed out.
        """
        if self._spoilt:
            self._view = _NOTHING
            raise _changed()
        sealed: list[memoryview] = []
        if self._partial:
            if not self._top_up():
                return None
            sealed.append(memoryview(self._partial)[LENGTH:])
            self._partial = bytearray()
        view, at = self._view, 0
        while len(sealed) < most and at + LENGTH <= len(view):
            end = at + LENGTH + int.from_bytes(view[at : at + LENGTH], "big")
            if end > len(view):
                break
            sealed.append(view[at + LENGTH : end])
            at = end
        self._view = view[at:]
        if not sealed:
            self._partial += self._view
            self._view = _NOTHING
            if not self._partial:
                self._cipher.rest()
            return None
        return self._open(sealed)

    def rest(self) -> bytes:
        """The bytes behind the last record that was handed out, taken: for a stream that stops being records."""
        rest = bytes(self._partial) + bytes(self._view)
        self._partial.clear()
        self._view = _NOTHING
        return rest

    def _top_up(self) -> bool:
        """Complete the record in hand from the current piece; False if the piece is too short."""
        return self._take(LENGTH) and self._take(LENGTH + int.from_bytes(self._partial[:LENGTH], "big"))

    def _take(self, wanted: int) -> bool:
        """Bring the record in hand to ``wanted`` bytes."""
        take = max(0, min(wanted - len(self._partial), len(self._view)))
        self._partial += self._view[:take]
        self._view = self._view[take:]
        return len(self._partial) >= wanted

    def _open(self, sealed: list[memoryview]) -> memoryview:
        """All of these, or those before the first that does not open."""
        plain = self._room(sum(max(len(record) - TAG, 0) for record in sealed))
        at = 0
        for number, record in enumerate(sealed):
            end = at + len(record) - TAG
            try:
                if end < at:
                    raise InvalidTag
                aead, nonce = self._cipher.next()
                aead.decrypt_into(nonce, record, None, plain[at:end])
            except InvalidTag:
                self._spoilt = True
                if not number:
                    raise _changed() from None
                return plain[:at]
            at = end
        return plain


def _changed() -> IntegrityError:
    return IntegrityError(
        "What arrived is not what was sent: a record was changed, dropped, repeated or moved on its way.",
        "Nothing that did not check out was kept under a final name.",
        "Send it again; if it happens again, do not trust this relay or network.",
    )
