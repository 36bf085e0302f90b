"""The handshake: Noise ``XX_25519_AESGCM_SHA256``, to the relay and again between two clients.

    -> e                     with the opening line, which is part of the prologue
    <- e, ee, s, es          the responder's key, encrypted
    -> s, se                 the initiator's key, encrypted

Noise Protocol Framework, revision 34 (noiseprotocol.org/noise.html). The second and third message may carry a
payload for the other side, encrypted. After the third both know each other's key as proven, and have two keys for
the records. The steps are `noiseprotocol`'s; this module adds the checks and keeps the peer's key, which the library
drops with its handshake state inside the last ``read_message``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from noise.backends.default.keypairs import KeyPair25519
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage, NoiseValueError

from glide.crypto.identity import Identity
from glide.errors import IntegrityError

PROTOCOL = b"Noise_XX_25519_AESGCM_SHA256"

# e, ee, s, es and an empty payload: 32 + 48 + 16; with a payload of at most two kilobytes.
LONGEST_MESSAGE = 2048 + 128


@dataclass(frozen=True)
class Secrets:
    """What a finished handshake leaves: a key for each direction, the peer's key, and the transcript's hash."""

    send: bytes
    receive: bytes
    peer: bytes
    hash: bytes

    def __repr__(self) -> str:
        return "<Secrets>"


@lru_cache(maxsize=1)
def _static(private: bytes) -> KeyPair25519:
    """Our own key pair, which a relay would otherwise compute anew for each connection."""
    return KeyPair25519.from_private_bytes(private)


class Handshake:
    """One side of one handshake. Call ``write`` and ``read`` in turn; ``finish`` when ``finished``.

    ``ephemeral`` is for test vectors only; without it the library draws a fresh one, as it must be (C7).
    """

    def __init__(self, identity: Identity, prologue: bytes, *, initiator: bool, ephemeral: bytes | None = None) -> None:
        self._noise = NoiseConnection.from_name(PROTOCOL)
        self._noise.noise_protocol.keypairs["s"] = _static(identity.private)
        if ephemeral is not None:
            self._noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        self._noise.set_prologue(prologue)
        if initiator:
            self._noise.set_as_initiator()
        else:
            self._noise.set_as_responder()
        self._noise.start_handshake()
        self._state = self._noise.noise_protocol.handshake_state

    @property
    def finished(self) -> bool:
        return bool(self._noise.handshake_finished)

    @property
    def peer(self) -> bytes | None:
        """The peer's key once it is known: to the initiator after the second message."""
        key = getattr(self._state.rs, "public_bytes", None)
        return bytes(key) if key is not None else None

    def write(self, payload: bytes = b"") -> bytes:
        """Our next handshake message. Raises :class:`IntegrityError` if the peer's last one held a useless key."""
        try:
            return bytes(self._noise.write_message(payload))
        except ValueError:
            raise _failed() from None

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message. Raises :class:`IntegrityError` for anything that is not it."""
        try:
            return bytes(self._noise.read_message(bytes(message)))
        except (InvalidTag, NoiseHandshakeError, NoiseInvalidMessage, NoiseValueError, ValueError):
            # ValueError: too short, or a point of low order, which makes the shared secret all zeros.
            raise _failed() from None

    def finish(self) -> Secrets:
        """The secrets. The handshake object is of no use after this."""
        peer = self.peer
        assert self.finished and peer is not None, "the handshake is not finished"
        protocol = self._noise.noise_protocol
        send, receive = protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k
        # The library's object refers to a method of its own. Cut, it is freed now, and our ephemeral key with it: some
        # 10 KiB that would otherwise wait for the garbage collector.
        self._noise._next_fn = None
        return Secrets(bytes(send), bytes(receive), peer, bytes(self._noise.get_handshake_hash()))


def _failed() -> IntegrityError:
    return IntegrityError(
        "The handshake did not come out: somebody between the two ends changed it, or they do not mean the same "
        "transfer.",
        "Nothing was transferred.",
    )


def prologue(opening: bytes, *parts: bytes) -> bytes:
    """The prologue of a connection: its opening line and ``parts``, each with its length (two bytes) before it."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in (opening, *parts))
