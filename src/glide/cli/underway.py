"""The transfers that are under way in a shell, as lines that change: what was told of each last."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from glide import events
from glide.errors import UsageError
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
    """One transfer. ``bytes`` are written at the receiver; ``begun`` is when they were first told, and how many.

    ``stop`` is the scope of whoever works on it, None if that is not the shell: policy has taken it. ``hidden``: it is
    over, and has no line any more, but words about it are still to be said.
    """

    number: int
    label: str
    note: str = ""
    bytes: int = 0
    total: int | None = None
    begun: tuple[float, int] | None = None
    stop: trio.CancelScope | None = None
    hidden: bool = False
    over: trio.Event = field(default_factory=trio.Event)

    def line(self, now: float) -> str:
        label = f"[{self.number}] {printable(self.label, 36):<36}"
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
    """Rows of transfers, by what events say of them. ``clock`` counts seconds; each row has one of ``numbers``."""

    def __init__(self, numbers: Iterator[int] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._clock = clock
        self._rows: list[Row] = []
        self._by_transfer: dict[bytes, Row] = {}  # of what is received
        self._offers: dict[bytes, str] = {}  # what each is, and from whom
        self._saved: dict[bytes, list[str]] = {}
        self._drawn = 0.0

    def __len__(self) -> int:
        return len(self._seen)

    async def until_none(self) -> None:
        """Wait until nothing is under way, and all is said about it."""
        while self._rows:
            await self._rows[0].over.wait()

    # --- rows ---

    def push(self, label: str) -> Row:
        """One more, until :meth:`end`."""
        return self._add(Row(next(self._numbers), label, "looks at what there is", stop=trio.CancelScope()))

    def accept(self, number: int, transfer: bytes) -> Row:
        """What was offered under ``number`` is being received, until :meth:`end`."""
        row = self._add(Row(number, self._offers.get(transfer, ""), "taken", stop=trio.CancelScope()))
        self._by_transfer[transfer] = row
        return row

    def end(self, row: Row) -> None:
        """It is over. Nothing happens if it was before."""
        self._rows = [each for each in self._rows if each is not row]
        self._by_transfer = {key: each for key, each in self._by_transfer.items() if each is not row}
        row.over.set()

    def stop(self, number: int) -> None:
        """Stop the transfer of that number. Raises :class:`UsageError` if there is none, or it is not ours to stop."""
        row = next((each for each in self._seen if each.number == number), None)
        if row is None:
            raise UsageError(f"No transfer {number} is under way.")
        if row.stop is None:
            raise UsageError(f"Transfer {number} was taken by a policy, and is stopped with all others by exit.")
        row.stop.cancel()

    def _add(self, row: Row) -> Row:
        self._rows.append(row)
        return row

    # --- what happens ---

    def take(self, event: events.Event) -> bool:
        """Note what ``event`` says of what is received; True if the lines are worth drawing anew."""
        match event:
            case events.OfferArrived():
                names = ", ".join(printable(name, 30) for name in event.names[:1])
                self._offers[event.transfer] = f"from {printable(event.sender)}: {names}"
                if len(self._offers) > _MOST_REMEMBERED:
                    del self._offers[next(iter(self._offers))]
            case events.Saved(transfer=transfer, path=path, inside=False) | events.SavedFolder(transfer, path):
                self._saved.setdefault(transfer, []).append(path)
            case events.Failed() | events.Received():
                return self._finished(event)
            case events.Progress() | events.Accepted() | events.StalledEvent():
                row = self._by_transfer.get(event.transfer)
                if row is None and isinstance(event, events.Progress):  # policy has taken it, or it goes on by itself
                    label = self._offers.get(event.transfer, "")
                    row = self._by_transfer[event.transfer] = self._add(Row(next(self._numbers), label))
                return row is not None and self.note(row, event)
        return False

    def note(self, row: Row, event: events.Event) -> bool:
        """Note what ``event`` says of that transfer; True if the lines are worth drawing anew."""
        match event:
            case events.Progress():
                return self._progress(row, event)
            case events.WaitingFor():
                row.note = "waits for them to take files"
            case events.Ringing():
                row.note = "rings"
            case events.Accepted():
                row.note = "taken"
            case events.StalledEvent():
                row.note = event.message
            case _:
                return False
        return True

    def _finished(self, event: events.Failed | events.Received) -> bool:
        self._offers.pop(event.transfer, None)
        if isinstance(event, events.Failed):
            self._saved.pop(event.transfer, None)
        row = self._by_transfer.pop(event.transfer, None)
        if row is None:
            return False
        row.hidden = True
        if row.stop is None:
            self.end(row)
        return True

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

    # --- what is shown ---

    @property
    def _seen(self) -> list[Row]:
        return [row for row in self._rows if not row.hidden]

    def saved(self, transfer: bytes) -> str:
        """Where what was received of it stands, the first paths; told once."""
        paths = self._saved.pop(transfer, [])
        more = f", and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
        return ", ".join(printable(path, 1000) for path in paths[:_MOST_PATHS]) + more

    def lines(self) -> list[str]:
        """The rows as they are to be shown now; the first few."""
        now, rows = self._clock(), self._seen
        shown = [row.line(now) for row in rows[:_MOST_SHOWN]]
        return [*shown, *([f"and {len(rows) - _MOST_SHOWN} more"] if len(rows) > _MOST_SHOWN else [])]
