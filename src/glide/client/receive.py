"""receive: wait under a name, and take what may be taken."""

from __future__ import annotations

from collections.abc import Set
from contextlib import ExitStack
from pathlib import Path

import trio

from glide import events
from glide.client import partials
from glide.client.arriving import Arriving, Shared, Wishes, reject
from glide.client.link import Link
from glide.client.once import Once
from glide.client.retry import Backoff
from glide.client.session import Session
from glide.errors import Declined, Engaged, GlideError, one_error
from glide.people.known import Trust
from glide.protocol.messages import Incoming, Role
from glide.text import duration
from glide.transfer.destination import Destination
from glide.transfer.terms import Terms

# Offers that are handled at once: in all, of one person whom we know, of all strangers, and of one stranger's key.
# Strangers can hold their places for as long as a question lasts, and must not keep out those whom we know.
MOST_AT_ONCE = 32
MOST_OF_KNOWN = 16
MOST_OF_STRANGERS = 8
MOST_OF_ONE = 2


async def receive(session: Session, wishes: Wishes, terms: Terms, report: events.Report) -> None:
    """Receive until cancelled, or with ``once`` until the first accepted transfer has ended.

    A session that is lost is made anew. Raises a :class:`GlideError`: why it could not begin, why the session ended for
    good, or with ``once`` how that transfer failed. The session's end does not end transfers that are under way.
    Cancelled, their senders are told; what has arrived is kept.
    """
    with ExitStack() as stack:
        # Opened once and at once: what stands at their paths later is not asked.
        opened = {into: stack.enter_context(Destination.open(into)) for into in _folders(wishes)}
        once = Once(wanted=wishes.once)
        await _Receiver(Shared(session, wishes, terms, report, opened, once)).run()


def check(wishes: Wishes) -> None:
    """Raise :class:`FileError` if a folder that was named cannot be received into. Blocks."""
    for into in _folders(wishes):
        Destination.open(into).close()


def _folders(wishes: Wishes) -> Set[Path]:
    return {wishes.into, *wishes.consent.policy.folders} if wishes.into is not None else frozenset()


class _Receiver:
    """A name that receives, through all its sessions, and the transfers that it takes."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._once = shared.once
        self._terms = shared.terms
        self._report = shared.report
        # Offers that are being handled, by their ids: the sender's key, and whether we know it.
        self._active: dict[bytes, tuple[bytes, bool]] = {}
        self._fewer = trio.Event()

    async def run(self) -> None:
        """Be there until there is a reason not to be, and raise it; with ``once`` return after a transfer."""
        backoff = Backoff(self._terms.retry)
        wishes = self._shared.wishes
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partials.sweep, wishes.journals, wishes.keep, self._report)
                while True:
                    try:
                        control = await self._shared.session.link(Role.RECEIVE)
                        backoff.went_well()
                        await self._take_offers(control, nursery)
                    except GlideError as error:
                        wait = await self._after(error, backoff)
                        self._report(events.Notice(f"{error.what} Trying again in {duration(max(wait, 1))}."))
                        await trio.sleep(wait)

    async def _after(self, error: GlideError, backoff: Backoff) -> float:
        """How many seconds to wait before being there again; raises ``error`` if that is of no use."""
        try:
            if self._shared.session.was_there and error.worth_a_retry:
                return backoff.next(error)
            raise error
        except GlideError:
            # Transfers have connections of their own: let them come to their ends.
            while self._active:
                await self._fewer.wait()
            await trio.lowlevel.checkpoint_if_cancelled()  # with `once` one of them may have been what was waited for
            raise

    async def _take_offers(self, control: Link, nursery: trio.Nursery) -> None:
        """Handle offers until the session ends; raises why."""
        while (incoming := await _next(control)) is not None:
            known = await self._knows(control, incoming)
            mine = incoming.key == self._shared.session.me.identity.public  # who sends to oneself has it at both ends
            if (control.knows(incoming.transfer) and not mine) or incoming.transfer in self._active:
                problem: GlideError = Declined("", for_peer="has a transfer of that id under way")
            elif self._has_room_for(incoming.key, known=known):
                self._active[incoming.transfer] = incoming.key, known
                nursery.start_soon(self._handle, control, incoming, nursery.cancel_scope)
                continue
            else:
                problem = Engaged("", for_peer="has other offers to look at; try again later")
            await reject(control, incoming, problem)
        assert control.why is not None, "the inbox ends with the connection"
        raise control.why

    async def _knows(self, control: Link, incoming: Incoming) -> bool:
        known = self._shared.session.me.known
        pin = await trio.to_thread.run_sync(known.find, control.relay_key, incoming.sender)
        return pin is not None and pin.key == incoming.key and pin.trust.rank >= Trust.KNOWN.rank

    def _has_room_for(self, key: bytes, *, known: bool) -> bool:
        active = [*self._active.values()]
        of_this_key = sum(each == key for each, _ in active)
        if known:
            return len(active) < MOST_AT_ONCE and of_this_key < MOST_OF_KNOWN
        return of_this_key < MOST_OF_ONE and sum(not each for _, each in active) < MOST_OF_STRANGERS

    async def _handle(self, control: Link, incoming: Incoming, all_of_it: trio.CancelScope) -> None:
        """One offer. Whatever comes of it, receiving goes on; with ``once`` an accepted one ends it."""
        try:
            result = await Arriving(self._shared, control, incoming).run()
        finally:
            del self._active[incoming.transfer]
            self._fewer.set()
            self._fewer = trio.Event()
        if result is None or not self._once.wanted:
            return
        if isinstance(result, GlideError):
            if self._shared.wishes.into is None or not result.worth_a_retry or not self._terms.retry:
                raise result
            await self._give_up(result, self._once.expect_again())
        else:
            all_of_it.cancel()

    async def _give_up(self, error: GlideError, came_again: trio.Event) -> None:
        """With ``once``: a transfer that was accepted has been lost. Wait for its sender, but not for ever."""
        self._report(events.Notice(f"Waiting {duration(self._terms.retry)} for it to go on."))
        with trio.move_on_after(self._terms.retry):
            await came_again.wait()
            return
        raise error


async def _next(control: Link) -> Incoming | None:
    """The next offer; None once the session is over."""
    try:
        return await control.inbox.receive()
    except (trio.EndOfChannel, trio.ClosedResourceError):
        return None
