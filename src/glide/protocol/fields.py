"""What the fields of messages may hold, each with its maximum, which is checked while decoding."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from glide.protocol import names
from glide.protocol.frames import Kind

Name = Annotated[str, Meta(pattern=names.PATTERN, max_length=names.LONGEST)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]  # X25519, RFC 7748
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]  # BLAKE3, its default length
TicketCode = Annotated[bytes, Meta(min_length=16, max_length=16)]  # 128 random bits
TransferId = Annotated[bytes, Meta(min_length=16, max_length=16)]  # 128 random bits, chosen by the sender
Text = Annotated[str, Meta(max_length=400)]  # for people; at most 1,600 bytes of UTF-8
Code = Annotated[str, Meta(max_length=32)]  # a word of glide.errors
Feature = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,16}\Z")]
Features = Annotated[tuple[Feature, ...], Meta(max_length=16)]
# Sizes stay below 2^63 so that they fit a signed 64-bit integer wherever a client is written.
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # nanoseconds since 1970


class Message(Struct, frozen=True, omit_defaults=True):
    """Base of all messages; ``kind`` is the type of the frame that carries one."""

    kind: ClassVar[Kind]
