"""The beginning of a transfer at its receiver: the offer, and the yes or no to it. At the sender it is ``offering``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import trio

from glide.errors import Declined, GlideError, ProtocolError, Stalled, one_error
from glide.net.connection import Connection
from glide.protocol.endtoend import Abort, Decline, Item, Offer, Page
from glide.transfer.filenames import BadName
from glide.transfer.journal import Journal
from glide.transfer.manifest import Checker, Manifest
from glide.transfer.storage import Arrival, Storage
from glide.transfer.storing import agreed, open_storage
from glide.transfer.terms import aborted

# A manifest may have so many pages of 4 KiB: a million items with names of usual length. All that are looked at or
# received at once may have twice as many, but for the first of each: whoever waits for a yes must not fill the memory,
# nor keep out those who offer less.
MOST_PAGES = 20_000
MOST_PAGES_AT_ONCE = 40_000
_FREE_PAGES = 64

# Seconds for a whole offer: some, and some more for each page.
_OFFER_SECONDS = 60.0
_PAGE_SECONDS = 0.01


@dataclass(frozen=True)
class Offered:
    """An offer, its names checked. ``before`` says that a yes to all of it was given on an earlier connection."""

    manifest: Manifest
    message: str
    before: bool


# Says where it goes, or no by raising; may ask a person.
Decide = Callable[[Offered], Awaitable[Arrival]]
# Entered before an offer is looked at: whatever else is under way of the same things from the same sender is over then.
Claim = Callable[[Manifest], AbstractAsyncContextManager[None]]


class Room:
    """For the manifests of all offers at one receiver."""

    def __init__(self) -> None:
        self._pages: Counter[bytes] = Counter()  # beyond the free ones, by the sender's key

    @contextmanager
    def place(self, key: bytes) -> Iterator[Place]:
        """A place for one manifest while the block runs."""
        place = Place(self._pages, key)
        try:
            yield place
        finally:
            place.leave()


class Place:
    """For one manifest."""

    def __init__(self, pages: Counter[bytes], key: bytes) -> None:
        self._pages = pages
        self._key = key
        self._mine = 0

    def take(self) -> None:
        """Room for one more page. Raises :class:`Declined`."""
        if self._mine >= _FREE_PAGES:
            full = self._pages[self._key] >= MOST_PAGES or self._pages.total() >= MOST_PAGES_AT_ONCE
            if full or self._mine >= MOST_PAGES:
                raise Declined(
                    "An offer had more items than there is room for.",
                    NOTHING,
                    for_peer="that many items cannot be looked at now; send fewer, or later.",
                )
            self._pages[self._key] += 1
        self._mine += 1

    def leave(self) -> None:
        """The manifest is gone."""
        self._pages[self._key] -= max(self._mine - _FREE_PAGES, 0)
        self._pages += Counter()  # drops what is zero
        self._mine = 0


async def take(connection: Connection, sender: str, place: Place) -> tuple[Manifest, Offer]:
    """The sender's offer, its names checked (F1, F4): a bad one is refused whole, before anybody is asked."""
    manifest, checker, refusal, heard = Manifest(), Checker(), None, 0
    begun = trio.current_time()
    with trio.move_on_after(connection.deadlines.handshake) as waiting:
        while True:
            match await connection.receive():
                case Page(items=items) if heard < 2 * MOST_PAGES:
                    heard += 1
                    # To be said where an answer is due: whoever still sends pages does not listen.
                    refusal = refusal or _refusal(checker, items, sender, place)
                    if refusal is None:
                        manifest.add_page(items)
                    elif manifest.items:
                        manifest = Manifest()
                        place.leave()
                    waiting.deadline = min(
                        trio.current_time() + connection.deadlines.handshake,
                        begun + _OFFER_SECONDS + heard * _PAGE_SECONDS,
                    )
                case Offer() if refusal is not None:
                    await _decline(connection, refusal)
                    raise refusal
                case Offer() as offer if manifest.items:
                    return manifest, offer
                case Abort() as abort:
                    raise aborted(abort, sender, NOTHING)
                case _:
                    raise ProtocolError(f"{sender} made an offer that is none, or too long.", NOTHING)
    raise Stalled(f"{sender} made no offer within {connection.deadlines.handshake:.0f} s.", NOTHING)


def _refusal(checker: Checker, items: Sequence[Item], sender: str, place: Place) -> Declined | None:
    """Why an offer with these items is refused whole, if it is."""
    try:
        place.take()
        checker.check(items)
    except Declined as error:
        return error
    except BadName as error:
        return Declined(
            f"{sender} offered something that no honest sender offers: {error}.",
            NOTHING,
            for_peer=f"the offer was refused whole: {error}.",
        )
    return None


async def decided(
    connection: Connection, arrival: Arrival, manifest: Manifest, offer: Offer, decide: Decide
) -> tuple[Arrival, Storage]:
    """Return where it goes, if it is taken; if not, the sender is told.

    ``arrival`` is where it goes if ``decide`` chooses nothing else.
    """

    def find(arrival: Arrival) -> tuple[Journal | None, bool]:
        if arrival.into is None:
            return None, False
        into = arrival.opened.path if arrival.opened is not None else arrival.into.resolve()
        journal = Journal.find(arrival.journals, arrival.key, into, manifest, sync=arrival.sync)
        if journal is None:
            return None, False
        closing.callback(journal.close)
        try:
            return journal, agreed(journal, manifest, arrival)
        except GlideError:
            return journal, False  # what is wrong with the destination is told after a yes

    def open_it(arrival: Arrival, journal: Journal | None) -> Storage:
        closing.pop_all()  # from here on the journal is the storage's
        return open_storage(arrival, manifest, journal)

    closing = ExitStack()
    try:
        journal, before = await trio.to_thread.run_sync(find, arrival)
        chosen = await _decided(connection, arrival.sender, decide, Offered(manifest, offer.message, before))
        if chosen.into != arrival.into:
            closing.close()
            journal, _ = await trio.to_thread.run_sync(find, chosen)
        try:
            # Only now: what room and which rights there are is nobody's business before a yes (C9).
            return chosen, await trio.to_thread.run_sync(open_it, chosen, journal)
        except GlideError as error:
            await _decline(connection, error)
            raise
    finally:
        closing.close()


async def _decided(connection: Connection, sender: str, decide: Decide, offered: Offered) -> Arrival:
    """What ``decide`` says, unless the sender goes away meanwhile. A no is passed on."""
    with one_error():
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                match await connection.receive():
                    case Abort() as abort:
                        raise aborted(abort, sender, NOTHING)

            nursery.start_soon(watch)
            try:
                chosen = await decide(offered)
            except GlideError as error:
                await _decline(connection, error)
                raise
            nursery.cancel_scope.cancel()
    return chosen


async def _decline(connection: Connection, error: GlideError) -> None:
    await connection.send(Decline(code=error.code, message=error.for_peer[:400]))


NOTHING = "Nothing was kept."
