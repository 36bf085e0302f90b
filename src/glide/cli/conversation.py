"""A shell's conversation: what is typed is done, what happens is said, and transfers go on meanwhile."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from glide import events
from glide.cli import commands, console, groups, receipts, wording
from glide.cli.commands import Answer, Command, Completion, Help, Leave, List, Push, Stop
from glide.cli.console import Console, Said
from glide.cli.requests import OpenOffers, Request, Several
from glide.cli.underway import Row, UnderWay
from glide.client.api import Client
from glide.client.offers import Offer
from glide.client.push import Receipt
from glide.crypto.identity import fingerprint
from glide.errors import GlideError, Stopped
from glide.settings import Settings
from glide.text import counted, printable

# People that are listed; a relay may hold many more.
_MOST_LISTED = 200


class Told(GlideError):
    """What a script learns from the exit code: the words stood where the command failed."""

    def __init__(self, first: GlideError) -> None:
        super().__init__("")
        self.code, self.exit = first.code, first.exit


class Conversation:
    """One shell. ``failure`` is what a script is to end with: the first command that failed.

    Making one raises :class:`UsageError` and :class:`FileError` for settings that no command could follow.
    """

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self._verbose = chosen["verbose"]
        self._groups = chosen.groups()
        receipts.wanted(chosen["receipt"])
        # A number is one offer or one transfer, and an offer that was taken keeps its own.
        numbers = itertools.count(1)
        self._offers = OpenOffers(numbers)
        self._under_way = UnderWay(numbers)
        self._registered = False
        self._refused: set[bytes] = set()  # offers that were declined here: that needs no more words
        self._accepted: set[bytes] = set()  # and that were accepted, until it was told what came of them
        self._lost: GlideError | None = None  # why there is no relay any more
        # Whom a name may mean: who is pinned, and who was there when it was last asked.
        self._pinned: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()
        self._console: Console
        self.failure: Told | None = None

    @asynccontextmanager
    async def console(self, history: Path, out: Callable[[str], None]) -> AsyncIterator[Console]:
        """Where it takes place, while the block runs: a person's terminal, or plain lines that go to ``out``."""
        async with console.opened(history, self._completions, out) as self._console:
            yield self._console

    async def run(self, me: Client) -> None:
        """Do what is typed until the person leaves. Raises why the relay is lost for good, once transfers are over."""
        self._pinned = frozenset(pin.name for pin in await trio.to_thread.run_sync(me.known.people))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_offers, me)
            await self._obey_all(me, nursery)
            nursery.cancel_scope.cancel()
        if self._lost is not None:
            raise self._lost

    # --- what is typed ---

    async def _obey_all(self, me: Client, nursery: trio.Nursery) -> None:
        before: str | Said = ""
        while True:
            said = await self._console.line()
            match said:
                case Said.GONE:
                    raise GlideError("The terminal is gone.", "Transfers that were under way were stopped.")
                case Said.INTERRUPT if before is not Said.INTERRUPT:
                    self._say("To leave: exit, Ctrl-D, or Ctrl-C again.")
                case Said.END | Said.INTERRUPT:
                    if await self._may_leave():
                        return
                    said = ""
                case str():
                    try:
                        command = commands.parse(said)
                        if isinstance(command, Leave) and await self._may_leave():
                            return
                        await self._obey(command, me, nursery)
                    except GlideError as error:
                        self._fail(str(error), error)
            before = said

    async def _obey(self, command: Command | None, me: Client, nursery: trio.Nursery) -> None:
        match command:
            case List():
                await self._list(me)
            case Push():
                what = wording.named([Path(path).name or path for path in command.paths])
                people = self._groups.get(command.to, (command.to,))
                rows = {person: self._under_way.push(f"to {person}: {what}") for person in people}
                self._draw()
                nursery.start_soon(self._push, command, what, rows, me)
            case commands.Requests():
                self._list_offers(self._offers.open())
            case commands.Show():
                self._show(self._offers.find(command.number).offer)
            case Answer():
                self._answer(command, nursery)
            case Stop():
                self._under_way.stop(command.number)
            case Help():
                self._say(commands.HELP)

    async def _may_leave(self) -> bool:
        """A person is asked if that stops something; a script has meant that all of it is to be done first."""
        if self._console.interactive:
            count = len(self._under_way)
            them = "it" if count == 1 else "them"
            question = f"{counted(count, 'transfer')} under way; leave and stop {them}? [y/N] "
            if count and not await self._console.ask(question):
                return False
            if count:
                self._say("Stopping what is under way.")
            return True
        await self._under_way.until_none()
        return True

    def _show(self, offer: Offer) -> None:
        paths = offer.paths()
        for path in itertools.islice(paths, _MOST_LISTED):
            self._say(f"  {printable(path, 1000)}")
        if next(paths, None) is not None:
            self._say(f"  and more: {counted(offer.items, 'file')} in all.")

    async def _list(self, me: Client) -> None:
        people = await me.who()
        self._listed = frozenset(person.name for person in people)
        wide = max((len(person.name) for person in people[:_MOST_LISTED]), default=0)
        for person in people[:_MOST_LISTED]:
            takes = "takes files" if person.receiving else "sends only"
            mine = "you" if person.key == me.key else person.trust
            self._say(f"{printable(person.name):<{wide}}  {takes:<11}  {mine:<8}  {fingerprint(person.key)}")
        if len(people) > _MOST_LISTED:
            self._say(f"and {len(people) - _MOST_LISTED} more; `glide who` lists them all.")
        if not people:
            self._say("Nobody is connected.")

    async def _push(self, command: Push, what: str, rows: dict[str, Row], me: Client) -> None:
        """Push to a person, or to each of a group; ``rows`` are theirs, by name."""
        chosen, to = self._chosen, command.to

        async def one(person: str) -> Receipt:
            return await self._push_to(person, command, what, rows[person], me)

        try:
            record = receipts.wanted(chosen["receipt"], command.paths)
            if to in self._groups:
                patient = bool(chosen["wait"] if command.wait is None else command.wait)
                await groups.to_each(to, self._groups[to], one, self._tell, record, patient=patient)
            else:
                await groups.to_one(to, one, record)
        except GlideError as error:
            self._fail(f"To {to}: {what}: {error}", error)
        for row in rows.values():
            self._under_way.end(row)
        self._draw()

    async def _push_to(self, person: str, command: Push, what: str, row: Row, me: Client) -> Receipt:
        def report(event: events.Event) -> None:
            self._tell(event)
            if self._under_way.note(row, event):
                self._draw()

        assert row.stop is not None, "it is the shell that pushes"
        with row.stop:
            try:
                receipt = await me.push(
                    person,
                    command.paths,
                    report=report,
                    message=command.message,
                    wait=command.wait,
                    strict=command.strict,
                )
            finally:
                row.hidden = True
                self._draw()
            self._say(f"Delivered to {person}: {what} ({wording.much(receipt.items, receipt.bytes)}).")
            return receipt
        raise Stopped("You stopped it.")

    # --- offers ---

    async def _take_offers(self, me: Client) -> None:
        try:
            async for offer in me.offers():
                number = self._offers.add(offer, time.monotonic()).number
                self._say(f"[{number}] {wording.offer_text(offer.arrived)}")
                self._say(f"  ok {number} takes it, no {number} declines it.")
        except GlideError as error:
            self._lost = error
            # Transfers have connections of their own: let them come to their ends.
            if len(self._under_way):
                self._say(f"{error.what} It ends when what is under way is over.")
            await self._under_way.until_none()
            raise

    def _list_offers(self, found: list[Request]) -> None:
        now = time.monotonic()
        for each in found:
            self._say(f"[{each.number}] {wording.waiting_offer(each.offer.arrived, now - each.since)}")
        if not found:
            self._say("Nothing waits for an answer.")

    def _answer(self, answer: Answer, nursery: trio.Nursery) -> None:
        try:
            request = self._offers.take(answer, self._console.begun)
        except Several as error:
            self._list_offers(error.found)
            raise
        offer = request.offer
        if answer.yes:
            self._accepted.add(offer.transfer)
            row = self._under_way.accept(request.number, offer.transfer)
            self._draw()
            nursery.start_soon(self._accept, request, row)
        else:
            self._refused.add(offer.transfer)
            offer.decline()
            self._say(f"Declined what {printable(offer.sender)} offers.")

    async def _accept(self, request: Request, row: Row) -> None:
        offer = request.offer
        assert row.stop is not None, "it is the shell that accepts"
        with row.stop:
            try:
                await offer.accept(known=self._console.interactive)
            except GlideError as error:
                if offer.transfer in self._accepted:
                    self._say(f"From {printable(offer.sender)}: {printable(str(error), 1000)}")
                self._remember(error)
        self._accepted.discard(offer.transfer)
        self._under_way.end(row)
        self._draw()

    # --- what happens ---

    def report(self, event: events.Event) -> None:
        """Say what a person wants to know of it, or draw it. What happens to a push is told to its own row."""
        changed = self._under_way.take(event)
        match event:
            case events.Registered():
                self._say("Connected again." if self._registered else wording.welcome(event))
                self._registered = True
            case events.Failed():
                if event.transfer not in self._refused:
                    self._say(wording.told(event))
                self._refused.discard(event.transfer)
                self._accepted.discard(event.transfer)
            case events.Received():
                saved = self._under_way.saved(event.transfer)
                self._say(f"From {printable(event.sender)}: {wording.much(event.items, event.bytes)}: {saved}")
            case _:
                self._tell(event)
        if changed:
            self._draw()

    def _tell(self, event: events.Event) -> None:
        match event:
            case events.Ringing(trust="new") | events.Notice() | events.OfferDeclined() | events.Undelivered():
                self._say(wording.told(event))
            case events.Detail() if self._verbose:
                self._say(wording.told(event))

    def _say(self, text: str | None) -> None:
        if text:
            self._console.say(text)

    def _fail(self, text: str, error: GlideError) -> None:
        self._say(printable(text, 2000))
        self._remember(error)

    def _remember(self, error: GlideError) -> None:
        if self.failure is None and not self._console.interactive:
            self.failure = Told(error)

    def _draw(self) -> None:
        self._console.show(self._under_way.lines())

    # --- completing ---

    def _completions(self, line: str) -> list[Completion]:
        """Called in the terminal's thread; what it reads is only ever replaced."""
        return commands.complete(line, self._pinned | self._listed | self._groups.keys(), self._offers.senders())
