"""A push to several people: side by side, each for itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from glide import events
from glide.cli import receipts
from glide.client.push import Receipt
from glide.errors import GlideError, Partly

# Transfers at once: a relay allows a client 32.
_AT_ONCE = 16


async def to_each(
    group: str,
    members: Sequence[str],
    push: Callable[[str], Awaitable[Receipt]],
    report: events.Report,
    record: Path | None,
) -> None:
    """Push to every member; what fails for one is reported, and stops no other. Writes one list of receipts.

    Raises :class:`Partly` if only some have it. If nobody has, the error they have in common, or one for all of them.
    """
    report(events.Notice(f"{group} is your group of {', '.join(members)}."))
    confirmed: list[Receipt] = []
    failed: dict[str, GlideError] = {}
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def one(person: str) -> None:
        async with limit:
            try:
                confirmed.append(await push(person))
            except GlideError as error:
                if isinstance(error, Partly) and isinstance(error.receipt, Receipt):
                    confirmed.append(error.receipt)
                failed[person] = error
                report(events.Undelivered(person, error.code, str(error)))

    async with trio.open_nursery() as nursery:
        for person in members:
            nursery.start_soon(one, person)
    receipts.write(record, confirmed)
    if not failed:
        return
    if confirmed:
        raise Partly(
            f"{len(failed)} of {len(members)} in {group} did not get all of it: {', '.join(sorted(failed))}.",
            f"The others have it: {', '.join(sorted({*members} - {*failed})) or 'nobody'}.",
            "The lines above say why.",
        )
    errors = list(failed.values())
    if len({type(error) for error in errors}) == 1:
        raise type(errors[0])(f"Nobody in {group} got anything: {errors[0].what}", errors[0].means, errors[0].next)
    raise GlideError(f"Nobody in {group} got anything.", "", "The lines above say why.")
