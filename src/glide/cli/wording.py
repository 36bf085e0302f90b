"""What happened, in words for a person: one line an event, wherever it is shown.

Nothing here decides or writes anything. All text of other people passes through ``printable`` here (D1), and none of
it can make a line longer than a screen (D2).
"""

from __future__ import annotations

import time

from glide import events
from glide.crypto.identity import fingerprint
from glide.text import counted, duration, printable, size

_TRUST = {
    "new": "nobody you know yet",
    "seen": "seen before, never confirmed by you",
    "known": "known to you",
    "verified": "verified",
}


def told(event: events.Event) -> str | None:
    """The line for an event that is told in words alone; None for one that is not (results, progress)."""
    match event:
        case events.Failed():
            return f"From {printable(event.sender)}: {printable(event.message, 1000)}"
        case events.OfferDeclined():
            return f"Refused an offer from {printable(event.sender)}: {printable(event.reason, 1000)}"
        case events.Undelivered():
            return f"To {printable(event.to)}: {printable(event.message, 1000)}"
        case events.Notice():
            return event.message
        case events.Detail():
            return f"{clock()} {event.message}"
        case events.Registered():
            greeting = f"{printable(event.greeting)}\n" if event.greeting else ""
            return f"{greeting}You receive as {printable(event.name)}, fingerprint {fingerprint(event.key)}."
        case events.OfferArrived():
            return offer_text(event)
        case events.Ringing():
            new = ": a first meeting, remembered from now on" if event.trust == "new" else f" ({event.trust})"
            return f"Ringing {printable(event.to)}, fingerprint {fingerprint(event.key)}{new}{_also(event.aliases)}."
        case events.WaitingFor():
            return f"{printable(event.to)} takes no files now; it rings when they do."
        case events.Accepted():
            return f"{printable(event.to)} takes it."
        case events.StalledEvent():
            return stalled(event)
        case events.Resumed() if event.bytes:
            return f"{size(event.bytes)} are there already; it goes on from there."
        case events.Delivered():
            digest = f", blake3:{event.digest.hex()}" if event.items else ""  # of no files there is none
            return f"Delivered to {printable(event.to)}: {much(event.items, event.bytes)}{digest}"
        case events.Connected():
            return f"{clock()} {printable(event.name)} connected from {printable(event.peer)}"
        case events.Disconnected():
            return f"{clock()} {printable(event.name)} disconnected from {printable(event.peer)}"
    return None


def welcome(event: events.Registered) -> str:
    """What the shell says first."""
    greeting = f"{printable(event.greeting)}\n" if event.greeting else ""
    who = f"You are {printable(event.name)}, fingerprint {fingerprint(event.key)}."
    return f"{greeting}{who} help lists the commands, exit leaves."


def much(items: int, count: int) -> str:
    """So many files, and so many bytes."""
    return f"{counted(items, 'file')}, {size(count)}"


def stalled(event: events.StalledEvent) -> str:
    """What a transfer waits for. A message that is a sentence tells something else: that it is tried again."""
    message = printable(event.message)
    if message.endswith("."):
        return message
    return f"Nothing has moved for {event.seconds} s: {message}."


def offer_text(offer: events.OfferArrived) -> str:
    """Who offers what, in a line or two that cannot grow beyond a screen (D2)."""
    message = f"\n  They say: {printable(offer.message, 300)}" if offer.message else ""
    fingerprints = f"fingerprint {fingerprint(offer.key)}{_also(offer.aliases)}"
    who = f"{printable(offer.sender)} ({_TRUST[offer.trust]}, {fingerprints})"
    return f"{who} offers {offered(offer)}{message}"


def offered(offer: events.OfferArrived) -> str:
    """What an offer holds: how many files, how much, and the first names."""
    much_of_it = "of unknown size" if offer.bytes is None else size(offer.bytes)
    return f"{counted(offer.items, 'file')}, {much_of_it}: {named(offer.names)}"


def waiting_offer(offer: events.OfferArrived, age: float) -> str:
    """One line of a list of offers that are open; ``age`` in seconds."""
    message = f" ({printable(offer.message, 60)})" if offer.message else ""
    who = f"{printable(offer.sender)} ({_TRUST[offer.trust]})"
    return f"{who}, {duration(max(1, round(age)))} ago: {offered(offer)}{message}"


def named(names: tuple[str, ...] | list[str]) -> str:
    """The first three of some names of files."""
    return ", ".join(printable(name, 80) for name in names[:3]) + (", and more" if len(names) > 3 else "")


def clock() -> str:
    return time.strftime("%H:%M:%S")


def _also(aliases: tuple[str, ...]) -> str:
    return f", a key that you know as {' and '.join(map(printable, aliases[:3]))}" if aliases else ""
