"""A shell's conversation: what is typed is done, what happens is said, and transfers go on meanwhile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from glide import events
from glide.cli import commands, wording
from glide.cli.commands import Answer, Command, Completion, Help, Leave, List, Push, Requests
from glide.cli.console import Console, Plain, Said
from glide.cli.underway import Row, UnderWay
from glide.client.api import Client
from glide.client.offers import Offer
from glide.crypto.identity import fingerprint
from glide.errors import GlideError, UsageError
from glide.text import counted, printable, size

# People that are listed; a relay may hold many more.
_MOST_LISTED = 200


class Told(GlideError):
    """What a script learns from the exit code: the words stood where the command failed."""

    def __init__(self, first: GlideError) -> None:
        super().__init__("")
        self.code, self.exit = first.code, first.exit


@dataclass(frozen=True)
class _Open:
    """An offer that was shown, and when (seconds of the monotonic clock)."""

    offer: Offer
    since: float


class Conversation:
    """One shell. ``failure`` is what a script is to end with: the first command that failed."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._under_way = UnderWay()
        self._offers: dict[int, _Open] = {}
        self._count = 0
        self._registered = False
        self._refused: set[bytes] = set()  # offers that were declined here: that needs no more words
        self._accepted: set[bytes] = set()  # and that were accepted, until it was told what came of them
        self._something_ended = trio.Event()
        # Whom a name may mean: who is pinned, and who was there when it was last asked.
        self._pinned: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()
        self._console: Console
        self.failure: Told | None = None

    @asynccontextmanager
    async def console(self, history: Path, out: Callable[[str], None]) -> AsyncIterator[None]:
        """Where it takes place, while the block runs: a person's terminal, or plain lines that go to ``out``."""
        if not _can_edit():
            self._console = Plain(out)
            yield
            return
        from glide.cli import terminal

        async with terminal.opened(history, self._completions) as console:
            self._console = console
            yield

    async def run(self, me: Client) -> None:
        """Do what is typed until the person leaves. Raises why the relay is lost for good, once transfers are over."""
        self._pinned = frozenset(pin.name for pin in await trio.to_thread.run_sync(me.known.people))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_offers, me)
            await self._obey_all(me, nursery)
            nursery.cancel_scope.cancel()

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
                row = self._under_way.push(f"to {command.to}: {what}")
                self._draw()
                nursery.start_soon(self._push, command, what, row, me)
            case Requests():
                self._list_offers()
            case Answer():
                self._answer(command, nursery)
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
        await self._finish()
        return True

    async def _finish(self) -> None:
        """Wait until nothing is under way."""
        while len(self._under_way):
            self._something_ended = trio.Event()
            await self._something_ended.wait()

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

    async def _push(self, command: Push, what: str, row: Row, me: Client) -> None:
        with self._under_way.mine(row):
            try:
                receipt = await me.push(command.to, command.paths, message=command.message)
            except GlideError as error:
                self._fail(f"To {command.to}: {what}: {error}", error)
            else:
                self._say(f"Delivered to {command.to}: {what} ({_much(receipt.items, receipt.bytes)}).")
        self._ended()

    # --- offers ---

    async def _take_offers(self, me: Client) -> None:
        try:
            async for offer in me.offers():
                self._count += 1
                self._open_offers()  # what is open no more is not kept
                self._offers[self._count] = _Open(offer, time.monotonic())
                self._say(f"[{self._count}] {wording.offer_text(offer.arrived)}")
                self._say(f"  ok {self._count} takes it, no {self._count} declines it.")
        except GlideError as error:
            # Transfers have connections of their own: let them come to their ends.
            if len(self._under_way):
                self._say(f"{error.what} It ends when what is under way is over.")
            await self._finish()
            raise

    def _open_offers(self, sender: str | None = None) -> dict[int, _Open]:
        self._offers = {number: each for number, each in self._offers.items() if each.offer.open}
        return {number: each for number, each in self._offers.items() if sender in (None, each.offer.sender)}

    def _list_offers(self, sender: str | None = None) -> None:
        now = time.monotonic()
        found = self._open_offers(sender)
        for number, each in found.items():
            self._say(f"[{number}] {wording.waiting_offer(each.offer.arrived, now - each.since)}")
        if not found:
            self._say("Nothing waits for an answer.")

    def _answer(self, answer: Answer, nursery: trio.Nursery) -> None:
        offer = self._offers.pop(self._meant(answer)).offer
        if answer.yes:
            self._accepted.add(offer.transfer)
            self._under_way.begin(offer.transfer)
            self._draw()
            nursery.start_soon(self._accept, offer)
        else:
            self._refused.add(offer.transfer)
            offer.decline()
            self._say(f"Declined what {printable(offer.sender)} offers.")

    def _meant(self, answer: Answer) -> int:
        """The number of the open offer that is meant. Raises :class:`UsageError` if there is none, or not one alone."""
        found = self._open_offers(answer.sender)
        word = "ok" if answer.yes else "no"
        if answer.number is not None:
            if answer.number in found:
                return answer.number
            whose = f" from {answer.sender}" if answer.sender is not None else ""
            raise UsageError(f"No offer {answer.number}{whose} waits for an answer.", next="reqs lists those that do.")
        if not found:
            raise UsageError(f"No offer from {answer.sender} waits for an answer.", next="reqs lists those that do.")
        if len(found) > 1:
            self._list_offers(answer.sender)
            ways = " or ".join(f"{word} {number}" for number in found)
            raise UsageError(f"{answer.sender} has offered several things; which one? {ways}")
        ((number, only),) = found.items()
        if answer.yes and only.since > self._console.begun:
            # Who typed the name may have meant what was there before, and is gone.
            raise UsageError(f"Offer {number} came while you were typing.", next=f"ok {number} takes it.")
        return number

    async def _accept(self, offer: Offer) -> None:
        try:
            await offer.accept()
        except GlideError as error:
            if offer.transfer in self._accepted:
                self._say(f"From {printable(offer.sender)}: {printable(str(error), 1000)}")
            self._remember(error)
        self._accepted.discard(offer.transfer)
        self._under_way.end(offer.transfer)
        self._ended()

    # --- what happens ---

    def report(self, event: events.Event) -> None:
        """Say what a person wants to know of it, or draw it."""
        changed = self._under_way.take(event)
        match event:
            case events.Registered():
                self._say(_greeting(event) if not self._registered else "Connected again.")
                self._registered = True
            case events.Failed():
                if event.transfer not in self._refused:
                    self._say(wording.told(event))
                self._refused.discard(event.transfer)
                self._accepted.discard(event.transfer)
            case events.Received():
                saved = self._under_way.saved(event.transfer)
                self._say(f"From {printable(event.sender)}: {_much(event.items, event.bytes)}: {saved}")
            case events.Ringing(trust="new") | events.Notice() | events.OfferDeclined():
                self._say(wording.told(event))
            case events.Detail() if self._verbose:
                self._say(wording.told(event))
        if changed:
            self._draw()
            self._ended()

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

    def _ended(self) -> None:
        self._draw()
        self._something_ended.set()

    # --- completing ---

    def _completions(self, line: str) -> list[Completion]:
        """Called in the terminal's thread; what it reads is only ever replaced."""
        asking = [each.offer.sender for each in list(self._offers.values()) if each.offer.open]
        return commands.complete(line, self._pinned | self._listed, asking)


def _much(items: int, count: int) -> str:
    return f"{counted(items, 'file')}, {size(count)}"


def _greeting(event: events.Registered) -> str:
    greeting = f"{printable(event.greeting)}\n" if event.greeting else ""
    who = f"You are {printable(event.name)}, fingerprint {fingerprint(event.key)}."
    return f"{greeting}{who} help lists the commands, exit leaves."


def _can_edit() -> bool:
    """True if a person sits at a terminal that knows more than plain lines."""
    streams = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    return streams and os.environ.get("TERM", "") not in ("dumb", "unknown")
