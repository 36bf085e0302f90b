"""What happens, as values: the verbs report these, and one renderer makes text or JSON of them.

The names and fields are a contract with scripts; see docs/cli.md. Times are added by the renderer. Keys and
transfer ids are bytes here, text of peers is as it came: the renderer writes them for people or machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, TypeAlias

import msgspec

# Several events have a field called `bytes`, which hides the type of that name inside the class.
Raw: TypeAlias = bytes


class Event(msgspec.Struct, frozen=True):
    """Base of all events; ``event`` is its name in JSON."""

    event: ClassVar[str]


class Listening(Event, frozen=True):
    event = "listening"
    host: str
    port: int
    key: Raw


class Connected(Event, frozen=True):
    event = "connected"
    name: str
    peer: str


class Disconnected(Event, frozen=True):
    event = "disconnected"
    name: str
    peer: str


class Notice(Event, frozen=True):
    """A line for people, with nothing in it for scripts but the text."""

    event = "notice"
    message: str


class Detail(Event, frozen=True):
    """A step on the way, for those who asked for more."""

    event = "detail"
    message: str


class Registered(Event, frozen=True):
    event = "registered"
    name: str
    key: Raw
    greeting: str = ""


class OfferArrived(Event, frozen=True):
    """``trust`` is the pin's state: new, seen, known or verified. ``items`` are files; ``bytes`` None if nobody knows.

    ``names`` are the first top-level names, a folder's with a slash; ``paths`` yields all there is. ``asked`` says that
    a person is asked about it.
    """

    event = "offer"
    transfer: Raw
    sender: str
    key: Raw
    items: int
    bytes: int | None
    message: str
    trust: str
    names: tuple[str, ...]
    paths: Callable[[], Iterable[str]]
    aliases: tuple[str, ...] = ()
    asked: bool = False


class Ringing(Event, frozen=True):
    event = "ringing"
    transfer: Raw
    to: str
    key: Raw
    trust: str
    aliases: tuple[str, ...] = ()


class WaitingFor(Event, frozen=True):
    """They are not there yet: it rings when they are."""

    event = "waiting"
    transfer: Raw
    to: str


class Accepted(Event, frozen=True):
    event = "accepted"
    transfer: Raw
    to: str


class DeclinedEvent(Event, frozen=True):
    event = "declined"
    to: str
    reason: str


class OfferDeclined(Event, frozen=True):
    """At the receiver: an offer was refused, and why."""

    event = "refused"
    sender: str
    reason: str


class Progress(Event, frozen=True):
    """``bytes`` are acknowledged as written at the receiver; ``total`` is None if nobody knows it yet."""

    event = "progress"
    transfer: Raw
    bytes: int
    total: int | None


class StalledEvent(Event, frozen=True):
    """Nothing moves: ``who`` is waited for (sender, receiver, relay or network), ``message`` says it for people."""

    event = "stalled"
    transfer: Raw
    who: str
    seconds: int
    message: str


class Resumed(Event, frozen=True):
    """A transfer goes on where it was: ``bytes`` were kept and need not be sent again."""

    event = "resumed"
    transfer: Raw
    bytes: int


class Saved(Event, frozen=True):
    """A file stands there. ``inside`` a folder that was sent, or not."""

    event = "saved"
    transfer: Raw
    path: str
    bytes: int
    digest: Raw
    inside: bool = False


class SavedFolder(Event, frozen=True):
    """A folder that was sent stands there, with all that was in it."""

    event = "folder"
    transfer: Raw
    path: str


class Delivered(Event, frozen=True):
    event = "delivered"
    transfer: Raw
    to: str
    items: int
    bytes: int
    digest: Raw


class Received(Event, frozen=True):
    event = "received"
    transfer: Raw
    sender: str
    items: int
    bytes: int


class Partial(Event, frozen=True):
    """What is kept of an interrupted transfer, in the folder ``path``; ``age`` in seconds since something was added."""

    event = "partial"
    path: str
    sender: str
    key: Raw
    names: tuple[str, ...]
    items: int
    bytes: int
    total: int
    age: int


class Failed(Event, frozen=True):
    """At a receiver that goes on: one transfer came to nothing."""

    event = "failed"
    transfer: Raw
    sender: str
    status: str
    message: str


class Undelivered(Event, frozen=True):
    """One of several people did not get all of it: ``status`` is the name of the error."""

    event = "undelivered"
    to: str
    status: str
    message: str


Report = Callable[[Event], None]
