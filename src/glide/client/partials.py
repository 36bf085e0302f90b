"""partials: what is kept of interrupted transfers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from glide import events
from glide.errors import FileError
from glide.transfer.destination import Destination
from glide.transfer.journal import Journal, Phase
from glide.transfer.keeping import Kept, kept

# After so many seconds, unless the settings say otherwise, it is removed: a week.
KEEP = 7 * 86400.0
_SWEEP_EVERY = 3600.0


def listed(journals: Path, report: events.Report) -> int:
    """Report what is kept of transfers that are not under way right now; how many there are. Blocks."""
    count = 0
    for found, _ in kept(journals):
        # Without its stage, which may not have been made yet when it was interrupted, nothing is kept of it.
        if found.phase is not Phase.LANDED and os.path.isdir(_stage(found)):
            report(_event(found))
            count += 1
    return count


def clear(journals: Path, report: events.Report, *, older_than: float = 0.0, landed: bool = True) -> int:
    """Remove what is kept, of transfers that are not under way; how many there were. Blocks. Raises :class:`FileError`.

    ``older_than`` seconds; ``landed`` says whether to forget confirmed transfers too.
    """
    count = 0
    problem: FileError | None = None
    for found, journal in kept(journals):
        if (older_than and time.time() - found.touched < older_than) or (found.phase is Phase.LANDED and not landed):
            continue
        try:
            _remove(found, journal)
        except FileError as error:
            problem = error
            continue
        if found.phase is not Phase.LANDED:
            report(_event(found))
            count += 1
    if problem is not None:
        raise problem
    return count


async def sweep(journals: Path, keep: float, report: events.Report) -> None:
    """Now and then, remove what has been kept for ``keep`` seconds; until cancelled."""
    import trio

    while True:
        try:
            await trio.to_thread.run_sync(lambda: clear(journals, lambda _: None, older_than=keep))
        except FileError as error:
            report(events.Detail(f"What was kept for long enough could not be removed: {error}"))
        await trio.sleep(_SWEEP_EVERY)


def _remove(found: Kept, journal: Journal) -> None:
    into = Path(os.fsdecode(found.about.into))
    if into.is_dir():
        with Destination.open(into) as destination:
            destination.discard(found.about.stage)
    journal.delete()


def _stage(found: Kept) -> str:
    return os.path.join(os.fsdecode(found.about.into), found.about.stage)


def _event(found: Kept) -> events.Partial:
    about = found.about
    age = max(0, round(time.time() - found.touched))
    return events.Partial(
        _stage(found), about.sender, about.key, about.names, about.items, found.bytes, about.bytes, age
    )
