"""The identity of a person or a relay: one X25519 key, kept in a file; and how keys are written for people."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from glide.errors import FileError

KEY_LENGTH = 32  # bytes; RFC 7748


@dataclass(frozen=True)
class Identity:
    """A key pair. The private half never appears in a ``repr``, a log or an argument."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def from_private(cls, private: bytes) -> Identity:
        return cls(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Identity:
        return cls.from_private(X25519PrivateKey.generate().private_bytes_raw())


def key_text(key: bytes) -> str:
    """A public key as people pass it on: 52 characters of base32 (RFC 4648) in lower case, unpadded."""
    return base64.b32encode(key).decode().rstrip("=").lower()


def parse_key(text: str) -> bytes:
    """The key that :func:`key_text` wrote. ValueError if ``text`` is none, or not in its one spelling."""
    try:
        key = base64.b32decode(text.strip().upper() + "====")
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_LENGTH or key_text(key) != text.strip().lower():
        raise ValueError("a key is 52 characters of a-z and 2-7")
    return key


def fingerprint(key: bytes) -> str:
    """100 bits of the SHA-256 of ``glide key `` and the key, in five groups to read aloud."""
    text = base64.b32encode(hashlib.sha256(b"glide key " + key).digest()).decode().lower()[:20]
    return "-".join(text[i : i + 4] for i in range(0, 20, 4))


def load_or_create(path: Path) -> Identity:
    """The identity in ``path``, made on first use: 32 private bytes as base32, mode 0600.

    Two processes that start at once agree on one key: whoever links its file first wins. Raises
    :class:`FileError` for a file that cannot be read or holds no key; an existing file is never replaced.
    """
    try:
        try:
            return _load(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(key_text(Identity.generate().private) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.link(fresh, path)
            except FileExistsError:
                pass  # somebody else was first
            finally:
                fresh.unlink()
            return _load(path)
    except OSError as error:
        raise FileError(
            f"The identity {path} cannot be read or made: {error.strerror or error}.",
            "Nothing was sent or received.",
            "Check the folder's permissions, or set GLIDE_HOME to a folder of your own.",
        ) from None


def _load(path: Path) -> Identity:
    mode = path.stat().st_mode
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        path.chmod(0o600)  # copied or restored carelessly: a secret is nobody else's to read
    text = path.read_text(encoding="ascii", errors="replace")
    try:
        return Identity.from_private(parse_key(text))
    except ValueError:
        raise FileError(
            f"The identity {path} holds no key.",
            "It was left as it is; nothing was sent or received.",
            "Restore it from a backup. Without one, move it away: a new key is made, and people who know you "
            "by the old one will be warned.",
        ) from None
