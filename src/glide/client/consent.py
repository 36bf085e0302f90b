"""Whether an offer is taken: by policy, by what was said before, or by asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import trio

from glide import events
from glide.errors import Declined
from glide.people.known import Known, Trust
from glide.people.policy import Policy, Verdict, judge
from glide.protocol.endtoend import ItemKind
from glide.protocol.messages import Incoming
from glide.text import duration
from glide.transfer import filenames
from glide.transfer.manifest import Manifest
from glide.transfer.taking import Offered

# Asks the person: True for yes. Cancelled if the sender goes away or the time is over.
Ask = Callable[[events.OfferArrived], Awaitable[bool]]

# Top-level names that an offer is announced with; all of them can be asked for.
_NAMES = 4


@dataclass(frozen=True)
class Consent:
    """The receiver's policy. ``ask`` is None where no terminal can answer: then what would be asked is refused (D3)."""

    policy: Policy = Policy.ASK
    only: frozenset[str] = frozenset()
    allow_hidden: bool = False
    ask: Ask | None = None
    ask_timeout: float = 300.0

    def check_sender(self, known: Known, relay_key: bytes, incoming: Incoming) -> None:
        """Raise :class:`Declined` if nothing at all is taken from them, or :class:`KeyChanged`."""
        trust = known.check(relay_key, incoming.sender, incoming.key)
        if judge(self.policy, trust, incoming.sender, self.only) is Verdict.DENY:
            raise self._denied(incoming.sender)

    async def decide(
        self, known: Known, relay_key: bytes, incoming: Incoming, offered: Offered, report: events.Report
    ) -> Trust:
        """How well the sender is known after a yes; raises :class:`Declined` for a no."""
        manifest = offered.manifest
        trust = known.check(relay_key, incoming.sender, incoming.key)
        aliases = known.aliases(relay_key, incoming.sender, incoming.key)
        size = None if manifest.streams else manifest.bytes
        arrived = events.OfferArrived(
            incoming.transfer,
            incoming.sender,
            incoming.key,
            manifest.files,
            size,
            offered.message,
            trust,
            tuple(islice(_names(manifest), _NAMES)),
            lambda: _paths(manifest),
            aliases,
        )
        report(arrived)
        self._check_names(manifest)
        match judge(self.policy, trust, incoming.sender, self.only):
            case Verdict.ACCEPT:
                return Trust.SEEN
            case Verdict.DENY:
                raise self._denied(incoming.sender)
        if offered.before:
            return Trust.SEEN  # a person has said yes to all of this
        return await self._ask(arrived)

    def _check_names(self, manifest: Manifest) -> None:
        if not self.allow_hidden:
            for _, item in manifest.tops():
                filenames.check_hidden(item.path)
        if manifest.items == 1:
            filenames.check_usable(manifest.item(0).path)

    async def _ask(self, arrived: events.OfferArrived) -> Trust:
        if self.ask is None:
            raise Declined(
                "There is no terminal to ask at, and no policy that says yes.",
                next="Decide beforehand with --accept known or --accept all.",
                for_peer="nobody can be asked there, and no policy says yes.",
            )
        answer = None
        with trio.move_on_after(self.ask_timeout or float("inf")):
            answer = await self.ask(arrived)
        if answer is None:
            waited = duration(self.ask_timeout)
            raise Declined(f"You did not answer within {waited}.", for_peer=f"nobody answered within {waited}.")
        if not answer:
            raise Declined("You declined.", for_peer="they said no.")
        return Trust.KNOWN

    def _denied(self, sender: str) -> Declined:
        if self.only and sender not in self.only:
            return Declined("Not among those you take files from (--from).", for_peer="takes nothing from you")
        return Declined(
            "Not known to you, and --accept known takes nothing from others.",
            next=f"`glide known add {sender} KEY` makes them known.",
            for_peer="takes files only from people they know, and you are not among them yet",
        )


def _names(manifest: Manifest) -> Iterator[str]:
    for _, item in manifest.tops():
        yield f"{item.path}/" if item.kind is ItemKind.FOLDER else item.path


def _paths(manifest: Manifest) -> Iterator[str]:
    for item in manifest:
        yield f"{item.path}/" if item.kind is ItemKind.FOLDER else item.path
