"""A push to one person, or to several side by side, each for itself; and its receipts."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from glide import events
from glide.cli import receipts
from glide.client.push import Receipt
from glide.errors import GlideError, Partly, RelayRefused

# Pushes at once that look at files and send them. Those that may wait for a person are no work, and not counted.
_AT_ONCE = 16

# Seconds that the relay may take to notice that a push of ours is over.
_NOTICED = 1.0

Push = Callable[[str], Awaitable[Receipt]]


async def to_one(person: str, push: Push, record: Path | None) -> None:
    """Push to one person, and write the receipt, of some of it too. Raises what ``push`` raises."""
    try:
        receipt = await push(person)
    except Partly as error:
        if isinstance(error.receipt, Receipt):
            receipts.write(record, error.receipt)
        raise
    receipts.write(record, receipt)


async def to_each(
    group: str, members: Sequence[str], push: Push, report: events.Report, record: Path | None, *, patient: bool
) -> None:
    """Push to every member; what fails for one is reported, and stops no other. Writes one list of receipts.

    ``patient``: a push waits for whoever is not there. Raises :class:`Partly` if only some have it. If nobody has, the
    error they have in common, or one for all of them. Cancelled, what was confirmed until then is written.
    """
    report(events.Notice(f"{group} is your group of {', '.join(members)}."))
    confirmed: list[Receipt] = []
    failed: dict[str, GlideError] = {}
    limit = trio.CapacityLimiter(math.inf if patient else _AT_ONCE)
    line = _Line()

    async def one(person: str) -> None:
        async def confirm() -> None:
            confirmed.append(await push(person))

        async with limit:
            try:
                await line.tried(confirm)
            except GlideError as error:
                if isinstance(error, Partly) and isinstance(error.receipt, Receipt):
                    confirmed.append(error.receipt)
                failed[person] = error
                report(events.Undelivered(person, error.code, str(error)))

    try:
        async with trio.open_nursery() as nursery:
            for person in members:
                nursery.start_soon(one, person)
    finally:
        receipts.write(record, confirmed)
    if failed:
        raise _summary(group, members, failed, nobody=not confirmed)


class _Line:
    """Where pushes stand that the relay refuses: it allows a client only so many under way, waiting ones too."""

    def __init__(self) -> None:
        self._trying = 0  # those in line too
        self._waiting = trio.lowlevel.ParkingLot()

    async def tried(self, push: Callable[[], Awaitable[None]]) -> None:
        """See ``push`` through; refused, it is tried again when another one is over, as long as there are others."""
        self._trying += 1
        seated = True
        try:
            while True:
                try:
                    return await push()
                except RelayRefused:
                    if self._trying == len(self._waiting) + 1:
                        seated = False
                        raise
                    await self._waiting.park()
        finally:
            if seated and self._waiting:
                await trio.sleep(_NOTICED)
            self._trying -= 1
            self._waiting.unpark()


def _summary(group: str, members: Sequence[str], failed: dict[str, GlideError], *, nobody: bool) -> GlideError:
    """What it came to for all of them, if not all have it."""
    if not nobody:
        return Partly(
            f"{len(failed)} of {len(members)} in {group} did not get all of it: {', '.join(sorted(failed))}.",
            f"The others have it: {', '.join(sorted({*members} - {*failed})) or 'nobody'}.",
            "The lines above say why.",
        )
    errors = list(failed.values())
    if len({type(error) for error in errors}) == 1:
        return type(errors[0])(f"Nobody in {group} got anything: {errors[0].what}", errors[0].means, errors[0].next)
    return GlideError(f"Nobody in {group} got anything.", "", "The lines above say why.")
