"""Events and results, for people (on stderr, with bars on a terminal) or machines (one JSON object a line on stdout).

Nothing here decides anything. All text of other people passes through ``printable`` on its way to a terminal, and
JSON is written in plain ASCII, so that no control or bidirectional character reaches either.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from glide import events
from glide.cli import wording
from glide.cli.records import dated, record
from glide.errors import GlideError, leaves
from glide.text import duration, printable, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# JSON progress: often enough to draw a bar, seldom enough to read.
_PROGRESS_EVERY = 0.5

# Lines that are told after a question; of more, the last ones.
_MOST_HELD = 20


class Renderer:
    """Writes what one command has to say.

    What is said never decides what happens: output that nobody takes any more, or that a full disk refuses, is
    dropped, and the transfer goes on.
    """

    # Whether the last line of this process has been written.
    said_result: ClassVar[bool] = False

    def __init__(self, *, json: bool, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        # A question that is open is not to be written into: what comes meanwhile is held, and told after it.
        self._held: list[str] | None = None
        self._results: list[str] = []  # the same, for stdout where that is the terminal too
        # Transfers of which something has been sent, and that are not over: whether they go on if pushed again.
        self.under_way: dict[bytes, bool] = {}
        self._registered = False
        self._bars: Progress | None = None
        self._tasks: dict[bytes, TaskID] = {}
        self._last_progress: dict[bytes, float] = {}
        self._peers: dict[bytes, str] = {}
        # What was said last of a transfer that failed: if the verb ends because of it, it is not said twice.
        self._told = ""

    # --- events ---

    def report(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.Accepted(transfer=transfer):
                self.under_way[transfer] = True
            case events.Progress(transfer=transfer, total=total):
                self.under_way[transfer] = total is not None
            case events.Delivered(transfer=transfer) | events.Received(transfer=transfer):
                self._is_over(transfer)
            case events.Failed(transfer=transfer):
                self._is_over(transfer)
        if self.json:
            self._report_json(event)
        else:
            self._report_text(event)

    def _is_over(self, transfer: bytes) -> None:
        self.under_way.pop(transfer, None)
        self._last_progress.pop(transfer, None)
        if transfer not in self._tasks:
            self._peers.pop(transfer, None)

    def _report_json(self, event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.bytes != event.total:
            now = time.monotonic()
            if now - self._last_progress.get(event.transfer, 0.0) < _PROGRESS_EVERY:
                return
            self._last_progress[event.transfer] = now
        if isinstance(event, events.Detail) and not self.verbose:
            return
        self._line(record(event))

    def line(self, event: str, /, **fields: Any) -> None:
        """A result as a JSON line on stdout, at once: the name of an event, and its fields."""
        self._line(dated(event, fields))

    def _line(self, record: dict[str, Any]) -> None:
        import json

        self.out(json.dumps(record, ensure_ascii=True))

    def out(self, text: str) -> None:
        """A line of results on stdout, at once."""
        _write(sys.stdout, text)

    def _report_text(self, event: events.Event) -> None:
        match event:
            case events.Saved():
                self.stop_bar(event.transfer)
                if not event.inside:
                    self._path(event.path)
            case events.SavedFolder():
                self.stop_bar(event.transfer)
                self._path(event.path)
            case events.Partial():
                what = ", ".join(printable(name, 60) for name in event.names)
                self.out(
                    f"{what} from {printable(event.sender)}: {size(event.bytes)} of {size(event.total)}, "
                    f"{duration(event.age)} old, in {printable(event.path, 4096)}"
                )
            case events.Failed():
                self.stop_bar(event.transfer)
                self._told = event.message
                self._tell(event, always=True)
            case events.OfferDeclined() | events.Undelivered():
                self._tell(event, always=True)
            case _ if not self.quiet:
                self._report_news(event)

    def _report_news(self, event: events.Event) -> None:
        match event:
            case events.Progress():
                self._bar(event)
            case events.StalledEvent():
                self._stalled(event)
            case events.Registered() if self._registered:
                self.say(f"Connected again as {printable(event.name)}.")
            case events.Registered():
                self._registered = True
                self.say(f"{wording.told(event)} Ctrl-C ends.")
            case events.WaitingFor():
                self.say(f"{wording.told(event)} Ctrl-C withdraws it.")
            case events.OfferArrived():
                self._peers[event.transfer] = f"from {printable(event.sender)}"
                if not event.asked:  # else the question about it shows it
                    self._tell(event)
            case events.Ringing():
                self._peers[event.transfer] = f"to {printable(event.to)}"
                self._tell(event)
            case events.Delivered():
                self.stop_bar(event.transfer)
                self._tell(event)
            case events.Detail() if not self.verbose:
                pass
            case _:
                self._tell(event)

    def _tell(self, event: events.Event, *, always: bool = False) -> None:
        text = wording.told(event)
        if text is not None:
            self.say(text, always=always)

    def _path(self, path: str) -> None:
        """A result: where something was saved."""
        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        if on_terminal and self._held is not None:
            self._results.append(path)
        else:
            self.out(printable(path, 4096) if on_terminal else path)

    # --- progress bars ---

    def _bar(self, event: events.Progress) -> None:
        if sys.stderr is None or not sys.stderr.isatty() or self._held is not None:
            return
        if self._bars is None:
            self._bars = _progress()
            self._bars.start()
        task = self._tasks.get(event.transfer)
        label = self._peers.get(event.transfer, "")
        if task is None:
            task = self._tasks[event.transfer] = self._bars.add_task(label, total=event.total)
        moved = self._bars.tasks[self._bars.task_ids.index(task)].completed != event.bytes
        # What it waited for, if it did, is over.
        self._bars.update(task, completed=event.bytes, description=label if moved else None)

    def _stalled(self, event: events.StalledEvent) -> None:
        """In the progress line, if there is one."""
        task = self._tasks.get(event.transfer)
        if self._bars is not None and task is not None:
            peer = self._peers.get(event.transfer, "")
            self._bars.update(task, description=f"{peer}: {printable(event.message)}")
        else:
            self.say(wording.stalled(event))

    def stop_bar(self, transfer: bytes) -> None:
        """Take one transfer's bar away; the last takes the display with it."""
        task = self._tasks.pop(transfer, None)
        if transfer not in self.under_way:
            self._peers.pop(transfer, None)
        if task is not None and self._bars is not None:
            self._bars.remove_task(task)
            if not self._tasks:
                self.stop_bars()

    def stop_bars(self) -> None:
        """Take all bars away, for a question or for the end; the next progress brings them back."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    # --- text ---

    def say(self, text: str, *, always: bool = False) -> None:
        """A line for people."""
        if self.quiet and not always:
            return
        if self._held is not None:
            self._held = [*self._held, text][-_MOST_HELD:]
        elif self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            _write(sys.stderr, text)

    @contextmanager
    def question(self) -> Iterator[None]:
        """Nothing else is written while the block runs; what was said meanwhile comes after it."""
        self.stop_bars()
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            results, self._results = self._results, []
            for text in held:
                self.say(text, always=True)
            for path in results:
                self._path(path)

    def result(self, status: str, exit: int, message: str) -> None:
        """The last line of every command."""
        self.stop_bars()
        Renderer.said_result = True
        if self.json:
            self.line("result", status=status, exit=int(exit), message=message)
        elif message and message != self._told:
            _write(sys.stderr, f"glide: {message}" if exit else message)

    def fault(self, error: Exception) -> None:
        """A bug of ours: told in a line, in full only to those who asked for more."""
        cause: BaseException = error
        if isinstance(error, BaseExceptionGroup):
            found = list(leaves(error))
            cause = next((each for each in found if not isinstance(each, GlideError)), found[0])
        self.result(
            "fault",
            1,
            f"A fault of glide itself: {type(cause).__name__}: {printable(str(cause))}. Please report it; --verbose "
            "shows where.",
        )
        if self.verbose and sys.stderr is not None:
            traceback.print_exception(error)


def _write(stream: TextIO | None, text: str) -> None:
    """A line, at once. A stream that was closed from the start is None; one that fails later is replaced."""
    if stream is None:
        return
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:  # a name that this output's encoding has not
            print(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding), file=stream, flush=True)
    except (OSError, ValueError):
        # The reader has gone, or the disk is full. Python would complain again when it flushes at the end.
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError):
            pass  # not even a descriptor is left


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, no_color="NO_COLOR" in os.environ or None),
        transient=True,
    )
