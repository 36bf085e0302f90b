"""What happens, as values: the verbs report these, and one renderer makes text or JSON of them.

The names and fields are a contract with scripts; see docs/cli.md. Times are added by the renderer. Keys and
transfer ids are bytes here, text of peers is as it came: the renderer writes them for people or machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

# Several events have a field called `bytes`, which hides the type of that name inside the class.
Raw: TypeAlias = bytes


@dataclass(frozen=True)
class Event:
    """Base of all events; ``event`` is its name in JSON."""

    event: ClassVar[str]


@dataclass(frozen=True)
class Listening(Event):
    event = "listening"
    host: str
    port: int
    key: Raw


@dataclass(frozen=True)
class Connected(Event):
    event = "connected"
    name: str
    peer: str


@dataclass(frozen=True)
class Disconnected(Event):
    event = "disconnected"
    name: str
    peer: str


@dataclass(frozen=True)
class Notice(Event):
    """A line for people, with nothing in it for scripts but the text."""

    event = "notice"
    message: str


@dataclass(frozen=True)
class Detail(Event):
    """A step on the way, for those who asked for more."""

    event = "detail"
    message: str


@dataclass(frozen=True)
class Registered(Event):
    event = "registered"
    name: str
    key: Raw
    greeting: str = ""


@dataclass(frozen=True)
class OfferArrived(Event):
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


@dataclass(frozen=True)
class Ringing(Event):
    event = "ringing"
    transfer: Raw
    to: str
    key: Raw
    trust: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class WaitingFor(Event):
    """They are not there yet: it rings when they are."""

    event = "waiting"
    transfer: Raw
    to: str


@dataclass(frozen=True)
class Accepted(Event):
    event = "accepted"
    transfer: Raw
    to: str


@dataclass(frozen=True)
class DeclinedEvent(Event):
    event = "declined"
    to: str
    reason: str


@dataclass(frozen=True)
class OfferDeclined(Event):
    """At the receiver: an offer was refused, and why."""

    event = "refused"
    sender: str
    reason: str


@dataclass(frozen=True)
class Progress(Event):
    """``bytes`` are acknowledged as written at the receiver; ``total`` is None if nobody knows it yet."""

    event = "progress"
    transfer: Raw
    bytes: int
    total: int | None


@dataclass(frozen=True)
class StalledEvent(Event):
    """Nothing moves: ``who`` is waited for (sender, receiver, relay or network), ``message`` says it for people."""

    event = "stalled"
    transfer: Raw
    who: str
    seconds: int
    message: str


@dataclass(frozen=True)
class Resumed(Event):
    """A transfer goes on where it was: ``bytes`` were kept and need not be sent again."""

    event = "resumed"
    transfer: Raw
    bytes: int


@dataclass(frozen=True)
class Saved(Event):
    """A file stands there. ``inside`` a folder that was sent, or not."""

    event = "saved"
    transfer: Raw
    path: str
    bytes: int
    digest: Raw
    inside: bool = False


@dataclass(frozen=True)
class SavedFolder(Event):
    """A folder that was sent stands there, with all that was in it."""

    event = "folder"
    transfer: Raw
    path: str


@dataclass(frozen=True)
class Delivered(Event):
    event = "delivered"
    transfer: Raw
    to: str
    items: int
    bytes: int
    digest: Raw


@dataclass(frozen=True)
class Received(Event):
    event = "received"
    transfer: Raw
    sender: str
    items: int
    bytes: int


@dataclass(frozen=True)
class Partial(Event):
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


@dataclass(frozen=True)
class Failed(Event):
    """At a receiver that goes on: one transfer came to nothing."""

    event = "failed"
    transfer: Raw
    sender: str
    status: str
    message: str


@dataclass(frozen=True)
class Undelivered(Event):
    """One of several people did not get all of it: ``status`` is the name of the error."""

    event = "undelivered"
    to: str
    status: str
    message: str


Report = Callable[[Event], None]
