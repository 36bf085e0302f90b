"""Whether an offer is taken: by policy, by what was said before, or by asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import trio

from glide import events
from glide.crypto.identity import fingerprint
from glide.errors import Declined
from glide.people.known import Known, Trust
from glide.people.policy import Judgement, Policy, Verdict
from glide.protocol.endtoend import ItemKind
from glide.protocol.messages import Incoming
from glide.text import duration, size
from glide.transfer import filenames
from glide.transfer.landing import Conflict
from glide.transfer.manifest import Manifest
from glide.transfer.taking import Offered

# Top-level names that an offer is announced with; all of them can be asked for.
_NAMES = 4


@dataclass(frozen=True)
class Answer:
    """A yes. ``into`` and ``conflict`` are None for what holds anyway; ``begun`` is told how to stop what follows.

    ``trust`` is what the sender has earned by it: *known* takes the yes of a person at a terminal (C1).
    """

    trust: Trust = Trust.SEEN
    into: Path | None = None
    conflict: Conflict | None = None
    begun: Callable[[trio.CancelScope], None] = lambda _: None
    ended: Callable[[object], None] = lambda _: None


# Asks the person: None for no. Cancelled if the sender goes away or the time is over.
Ask = Callable[[events.OfferArrived], Awaitable[Answer | None]]


@dataclass(frozen=True)
class Consent:
    """The receiver's policy. ``ask`` is None where no terminal can answer: then what would be asked is refused (D3)."""

    policy: Policy
    only: frozenset[str] = frozenset()
    allow_hidden: bool = False
    ask: Ask | None = None
    ask_timeout: float = 300.0

    def judge(self, known: Known, relay_key: bytes, incoming: Incoming) -> Judgement:
        """What is taken from them. Raises :class:`Declined` if nothing at all is, or :class:`KeyChanged`. Blocks."""
        trust = known.check(relay_key, incoming.sender, incoming.key)
        if self.only and incoming.sender not in self.only:
            raise Declined("Not among those you take files from (--from).", for_peer="takes nothing from you")
        judgement = self.policy.judge(trust, incoming.sender)
        if judgement.do is Verdict.DENY:
            raise _denied(incoming, judgement)
        return judgement

    async def decide(
        self, known: Known, relay_key: bytes, incoming: Incoming, offered: Offered, report: events.Report
    ) -> tuple[Judgement, Answer]:
        """What is taken of them now, and what was said; raises :class:`Declined` for a no."""

        def look() -> tuple[Judgement, Trust, tuple[str, ...]]:
            # Anew: what was pinned, or forgotten, since they rang counts.
            who = relay_key, incoming.sender, incoming.key
            return self.judge(known, relay_key, incoming), known.check(*who), known.aliases(*who)

        judgement, trust, aliases = await trio.to_thread.run_sync(look)
        taken = judgement.do is Verdict.ACCEPT or offered.before  # a person has said yes to all of this before
        arrived = _arrived(incoming, offered, trust, aliases, asked=not taken and self.ask is not None)
        report(arrived)
        self._check(offered.manifest, judgement, incoming.sender)
        if taken:
            return judgement, Answer()
        return judgement, await self._asked(arrived)

    def _check(self, manifest: Manifest, judgement: Judgement, sender: str) -> None:
        if not self.allow_hidden:
            for _, item in manifest.tops():
                filenames.check_hidden(item.path)
        if manifest.items == 1:
            filenames.check_usable(manifest.item(0).path)
        if judgement.most is not None and manifest.bytes > judgement.most:
            raise Declined(
                f"{size(manifest.bytes)} are more than you take from {sender} in one transfer: {size(judgement.most)}.",
                for_peer=f"that is more than they take from you in one transfer: {size(judgement.most)}.",
            )

    async def _asked(self, arrived: events.OfferArrived) -> Answer:
        if self.ask is None:
            raise Declined(
                "There is no terminal to ask at, and no policy that says yes.",
                next="Decide beforehand with --accept known or --accept all, or a policy in config.toml.",
                for_peer="nobody can be asked there, and no policy says yes.",
            )
        answer = None
        with trio.move_on_after(self.ask_timeout or float("inf")) as patience:
            answer = await self.ask(arrived)
        if patience.cancelled_caught:
            waited = duration(self.ask_timeout)
            raise Declined(f"You did not answer within {waited}.", for_peer=f"nobody answered within {waited}.")
        if answer is None:
            raise Declined("You declined.", for_peer="they said no.")
        return answer


def _denied(incoming: Incoming, judgement: Judgement) -> Declined:
    sender = incoming.sender
    if judgement.because == sender:
        return Declined(f"You take nothing from {sender}, as your policy says.", for_peer="takes nothing from you")
    return Declined(
        f"You take nothing from {judgement.because if judgement.because != 'everybody' else 'strangers'}, "
        "as --accept or your policy says.",
        next=f"Their fingerprint is {fingerprint(incoming.key)}; `glide verify {sender}` or `glide pair {sender}` "
        "makes them known.",
        for_peer="takes files only from people they know, and you are not among them yet (`glide pair` would do)",
    )


def _arrived(
    incoming: Incoming, offered: Offered, trust: Trust, aliases: tuple[str, ...], *, asked: bool
) -> events.OfferArrived:
    manifest = offered.manifest
    return events.OfferArrived(
        incoming.transfer,
        incoming.sender,
        incoming.key,
        manifest.files,
        None if manifest.streams else manifest.bytes,
        offered.message,
        trust,
        tuple(islice(_names(manifest), _NAMES)),
        lambda: _paths(manifest),
        aliases,
        asked,
    )


def _names(manifest: Manifest) -> Iterator[str]:
    for _, item in manifest.tops():
        yield f"{item.path}/" if item.kind is ItemKind.FOLDER else item.path


def _paths(manifest: Manifest) -> Iterator[str]:
    for item in manifest:
        yield f"{item.path}/" if item.kind is ItemKind.FOLDER else item.path
