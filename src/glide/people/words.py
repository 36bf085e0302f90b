"""Keys and codes in words that people say to each other: the 2,048 English words of BIP-39, 11 bits each.

No two of them begin with the same four letters.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from difflib import get_close_matches
from functools import cache

from glide.errors import UsageError
from glide.text import printable

_BITS = 11
# Six words hold 66 bits. To pass for somebody, another key with the same words would have to be found beforehand, 2^66
# tries for each person to be fooled; the fingerprint, with 100 bits, is there for whom that is not enough.
_WORDS = 6
_PREFIX = b"glide words "

# Two words hold 22 bits. That is enough, since nobody can try codes by themselves: who is in between has one guess with
# each of the two people, in four million, and both see it fail. The code is burnt then.
_CODE_WORDS = 2
_BETWEEN = re.compile(r"[\s\u2010-\u2015_.,-]+")


@cache
def _all() -> tuple[str, ...]:
    from mnemonic import Mnemonic  # reads its list from a file

    return tuple(Mnemonic("english").wordlist)


def words(key: bytes) -> tuple[str, ...]:
    """Six words for a public key: the first 66 bits of the SHA-256 of ``glide words `` and the key."""
    digest = hashlib.sha256(_PREFIX + key).digest()
    number = int.from_bytes(digest, "big") >> (len(digest) * 8 - _WORDS * _BITS)
    return tuple(_all()[(number >> at) & (2**_BITS - 1)] for at in range((_WORDS - 1) * _BITS, -1, -_BITS))


def new_code() -> str:
    """A code for one pairing: two random words with a dash between them."""
    return "-".join(secrets.choice(_all()) for _ in range(_CODE_WORDS))


def parse_code(text: str) -> str:
    """The code that a person typed, as :func:`new_code` writes it; case, spaces and dashes do not matter.

    Raises :class:`UsageError` for what cannot be a code. Nothing is tried then, and no code is burnt.
    """
    typed = [word for word in _BETWEEN.split(text.casefold()) if word]
    if len(typed) != _CODE_WORDS:
        raise UsageError(
            f"A code is two words with a dash between them; this is {len(typed) or 'none'}.",
            "Nothing was tried with it.",
        )
    for word in typed:
        if word not in _all():
            close = get_close_matches(word[:40], _all(), n=1)
            raise UsageError(
                f"{printable(word, 40)!r} is no word of a code.",
                "Nothing was tried with it.",
                f"Did you mean {close[0]!r}?" if close else "",
            )
    return "-".join(typed)
