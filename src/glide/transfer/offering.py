"""The beginning of a transfer at its sender: the offer, and the answer to it. At the receiver it is ``taking``."""

from __future__ import annotations

import trio

from glide.errors import Declined, FileError, NameUnusable, from_code
from glide.net.connection import Connection
from glide.protocol.endtoend import Abort, Accept, Decline, Offer, Page
from glide.text import duration, printable
from glide.transfer.gathering import Gathered
from glide.transfer.terms import Terms, aborted


async def make(connection: Connection, gathered: Gathered, message: str, to: str, terms: Terms) -> None:
    """Make the offer and wait for a yes. Raises :class:`Declined` or what the receiver said instead."""
    manifest = gathered.manifest
    for page in range(manifest.pages):
        await connection.send(Page(items=manifest.page(page)), flush=False)
    await connection.send(Offer(message=message))
    with trio.move_on_after(terms.ask_timeout or float("inf")) as waiting:
        answer = await connection.receive()
    if waiting.cancelled_caught:
        raise Declined(
            f"{to} did not answer within {duration(terms.ask_timeout)}.",
            "Nothing was sent.",
            "Try again when they are there, or give them longer with --ask-timeout.",
            for_peer=f"nobody answered within {duration(terms.ask_timeout)}.",
        )
    match answer:
        case Accept():
            return
        case Decline(code=code, message=said):
            detail = f": {printable(said, 400)}" if said else "."
            raise from_code(code, Declined, FileError, NameUnusable)(f"{to} declined{detail}", "Nothing was sent.")
        case Abort() as abort:
            raise aborted(abort, to, "Nothing was sent.")
