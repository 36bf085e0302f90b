"""Where a relay is, as people write it."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from glide.crypto.identity import parse_key
from glide.errors import UsageError
from glide.text import printable

DEFAULT_PORT = 8080

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Address(msgspec.Struct, frozen=True):
    """Where a relay is, and which key it must have, if that was said."""

    host: str
    port: int
    key: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST[:PORT][#KEY]``; an IPv6 address stands in brackets. Raises :class:`UsageError`."""
        place, hash_sign, key_part = text.strip().partition("#")
        try:
            key = parse_key(key_part) if hash_sign else None
        except ValueError as error:
            raise UsageError(
                f"{printable(text)!r} is no relay: what follows # is no key ({error}).",
                next="`glide serve` prints the line to type.",
            ) from None
        host, port = place, str(DEFAULT_PORT)
        if place.startswith("[") and "]" in place:
            host, _, after = place[1:].partition("]")
            port = after.removeprefix(":") if after else port
        elif place.count(":") == 1:
            host, port = place.split(":")
        if not _is_host(host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(
                f"{printable(text)!r} is no relay.", next="Write it as HOST:PORT, or as HOST:PORT#KEY with its key."
            )
        return cls(host.lower(), int(port), key)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_host(text: str) -> bool:
    if ":" not in text:
        return _HOST_NAME.fullmatch(text) is not None
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
