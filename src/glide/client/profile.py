"""Who somebody is at which relay, and on which terms: what the settings come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from glide.client.address import Address
from glide.client.me import Me
from glide.crypto.identity import key_text, load_or_create
from glide.people.known import Known
from glide.protocol import names
from glide.settings import Settings, login

if TYPE_CHECKING:
    from glide.net.deadlines import Deadlines
    from glide.transfer.terms import Terms


class Name(msgspec.Struct, frozen=True):
    """``by_default`` says that nobody chose it."""

    text: str
    by_default: bool


def address(chosen: Settings) -> Address:
    """The relay. Raises :class:`UsageError`."""
    return Address.parse(chosen["relay"])


def me(chosen: Settings) -> Me:
    """My keys and pins. Makes the identity on first use; raises :class:`FileError`. Blocks."""
    return Me(load_or_create(chosen.home.identity), Known(chosen.home.known), deadlines(chosen))


def deadlines(chosen: Settings) -> Deadlines:
    from glide.net.deadlines import Deadlines  # only verbs that talk to a relay need trio

    return Deadlines(handshake=chosen["handshake-timeout"], keepalive=chosen["keepalive"], lost=chosen["lost-after"])


def terms(chosen: Settings) -> Terms:
    from glide.transfer.terms import Terms

    return Terms(chosen["idle"], chosen["ask-timeout"], chosen["retry"], chosen["stall-after"])


def name(chosen: Settings, key: bytes) -> Name:
    """The name in the settings, or else one like the login name. Raises :class:`UsageError` for one that is none."""
    if chosen["as"] is not None:
        return Name(names.parse(chosen["as"]), by_default=False)
    return Name(names.default(login(), f"user-{key_text(key)[:4]}"), by_default=True)
