"""The transfers that are under way in a shell, as lines that change: what was told of each last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from glide import events
from glide.text import printable, size

# Seconds between two drawings of lines in which only numbers changed.
_DRAW_EVERY = 0.2

# Lines that are shown at once: what is typed stands below them.
_MOST_SHOWN = 5

# Offers whose first words are kept for the line about their transfer; a receiver looks at 32 at once.
_MOST_REMEMBERED = 128

# Paths of one transfer that are told.
_MOST_PATHS = 10

_BAR = 20


@dataclass(eq=False)
class Row:
    """One transfer. ``bytes`` are written at the receiver; ``begun`` is when they were first told, and how many."""

    label: str
    note: str = ""
    bytes: int = 0
    total: int | None = None
    begun: tuple[float, int] | None = None

    def line(self, now: float) -> str:
        label = f"{printable(self.label, 36):<36}"
        if self.note or self.begun is None:
            return f"{label}  {printable(self.note)}"
        since, before = self.begun
        speed = f", {size((self.bytes - before) / (now - since))}/s" if now - since > 1 else ""
        if self.total is None:
            return f"{label}  {size(self.bytes)}{speed}"
        part = self.bytes / self.total if self.total else 1.0
        bar = "#" * int(part * _BAR)
        return f"{label}  [{bar:-<{_BAR}}] {int(part * 100):3}%  {size(self.bytes)} of {size(self.total)}{speed}"


class UnderWay:
    """Rows of transfers, by what events say of them. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: list[Row] = []
        self._by_transfer: dict[bytes, Row] = {}
        self._offers: dict[bytes, str] = {}  # what each is, and from whom
        self._saved: dict[bytes, list[str]] = {}
        # Whose events these are: a push tells its transfer's id by its events alone, and they come from its task.
        self._mine: ContextVar[Row | None] = ContextVar("row", default=None)
        self._drawn = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def push(self, label: str) -> Row:
        """One more, until :meth:`mine` has ended."""
        return self._add(label, "looks at what there is")

    @contextmanager
    def mine(self, row: Row) -> Iterator[None]:
        """Events that come from this task while the block runs are about ``row``; with the block it ends."""
        token = self._mine.set(row)
        try:
            yield
        finally:
            self._mine.reset(token)
            self._remove(row)

    def begin(self, transfer: bytes) -> None:
        """What was offered is being received from now on; it ends with Received or Failed."""
        if transfer not in self._by_transfer:
            self._by_transfer[transfer] = self._add(self._offers.get(transfer, ""), "taken")

    def end(self, transfer: bytes) -> None:
        """It is over, if it was not before."""
        if (row := self._by_transfer.get(transfer)) is not None:
            self._remove(row)

    def take(self, event: events.Event) -> bool:
        """Note what ``event`` says; True if the lines are worth drawing anew."""
        match event:
            case events.OfferArrived():
                names = ", ".join(printable(name, 30) for name in event.names[:1])
                self._offers[event.transfer] = f"from {printable(event.sender)}: {names}"
                if len(self._offers) > _MOST_REMEMBERED:
                    del self._offers[next(iter(self._offers))]
            case events.Saved(transfer=transfer, path=path, inside=False) | events.SavedFolder(transfer, path):
                self._saved.setdefault(transfer, []).append(path)
            case events.Failed() | events.Received():
                self._offers.pop(event.transfer, None)
                if isinstance(event, events.Failed):
                    self._saved.pop(event.transfer, None)
                if (row := self._by_transfer.get(event.transfer)) is not None:
                    self._remove(row)
                    return True
            case events.Progress():
                if (found := self._row(event.transfer)) is None:
                    self.begin(event.transfer)  # policy has taken it, or it goes on by itself
                return self._progress(found or self._by_transfer[event.transfer], event)
            case events.Ringing() | events.WaitingFor() | events.Accepted() | events.StalledEvent():
                if (found := self._row(event.transfer)) is not None:
                    found.note = _note(event)
                    return True
        return False

    def saved(self, transfer: bytes) -> str:
        """Where what was received of it stands, the first paths; told once."""
        paths = self._saved.pop(transfer, [])
        more = f", and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
        return ", ".join(printable(path, 1000) for path in paths[:_MOST_PATHS]) + more

    def lines(self) -> list[str]:
        """The rows as they are to be shown now; the first few."""
        now = self._clock()
        shown = [row.line(now) for row in self._rows[:_MOST_SHOWN]]
        more = len(self._rows) - len(shown)
        return [*shown, *([f"and {more} more"] if more else [])]

    def _row(self, transfer: bytes) -> Row | None:
        mine = self._mine.get()
        if transfer not in self._by_transfer and mine is not None and mine in self._rows:
            self._by_transfer[transfer] = mine
        return self._by_transfer.get(transfer)

    def _add(self, label: str, note: str) -> Row:
        row = Row(label, note)
        self._rows.append(row)
        return row

    def _remove(self, row: Row) -> None:
        self._rows = [each for each in self._rows if each is not row]
        self._by_transfer = {key: each for key, each in self._by_transfer.items() if each is not row}

    def _progress(self, row: Row, event: events.Progress) -> bool:
        now = self._clock()
        if event.bytes != row.bytes or row.begun is None:
            row.note = ""  # what it waited for, if it did, is over
        row.bytes, row.total = event.bytes, event.total
        if row.begun is None:
            row.begun = now, event.bytes
        if now - self._drawn < _DRAW_EVERY and event.bytes != event.total:
            return False
        self._drawn = now
        return True


def _note(event: events.Ringing | events.WaitingFor | events.Accepted | events.StalledEvent) -> str:
    match event:
        case events.WaitingFor():
            return "waits for them to take files"
        case events.Ringing():
            return "rings"
        case events.Accepted():
            return "taken"
    return event.message
