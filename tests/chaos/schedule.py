"""What goes wrong, and when: derived from one number, so that it can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from tests.chaos.trees import Tree

MIB = 1024 * 1024


class Victim(Enum):
    SENDER = "sender"
    RECEIVER = "receiver"
    RELAY = "relay"
    SENDER_LINK = "sender-link"
    RECEIVER_LINK = "receiver-link"

    def __repr__(self) -> str:
        return self.value


class Kind(Enum):
    KILL = "kill -9"  # and started again after some seconds
    STOP = "stop"  # SIGSTOP, and SIGCONT after some seconds
    INTERRUPT = "SIGINT"
    TERMINATE = "SIGTERM"
    RST = "reset"
    FIN = "end"
    HOLE = "black hole"  # nothing passes for some seconds, and nothing is closed
    MUTE = "mute"  # what that party says does not pass for some seconds, then the link is reset: lost receipts

    def __repr__(self) -> str:
        return self.value


KINDS: dict[Victim, tuple[Kind, ...]] = {
    Victim.SENDER: (Kind.KILL, Kind.KILL, Kind.STOP, Kind.INTERRUPT, Kind.TERMINATE),
    Victim.RECEIVER: (Kind.KILL, Kind.KILL, Kind.STOP, Kind.TERMINATE),
    Victim.RELAY: (Kind.KILL, Kind.KILL, Kind.STOP, Kind.TERMINATE),
    Victim.SENDER_LINK: (Kind.RST, Kind.FIN, Kind.HOLE, Kind.MUTE),
    Victim.RECEIVER_LINK: (Kind.RST, Kind.FIN, Kind.HOLE, Kind.MUTE),
}


@dataclass(frozen=True)
class Passed:
    """So much of the tree has gone from the sender into the relay, repeated bytes included."""

    fraction: float


@dataclass(frozen=True)
class Acknowledged:
    """So much of the tree is durable at the receiver, as the sender knows it."""

    fraction: float


@dataclass(frozen=True)
class Later:
    """So many seconds after the fault before it began, or after the first push."""

    seconds: float


@dataclass(frozen=True)
class Said:
    """That event has been reported; the ones that everybody waits for are hit rarely by the other moments."""

    who: Victim
    event: str


Moment: TypeAlias = Passed | Acknowledged | Later | Said


@dataclass(frozen=True)
class Fault:
    at: Moment
    victim: Victim
    kind: Kind
    seconds: float = 0.0  # until it is over


@dataclass(frozen=True)
class Schedule:
    """One run. ``rate`` is what the sender's way to the relay passes, in bytes a second."""

    seed: int
    brief: bool
    tree: Tree
    rate: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}{' (brief)' if self.brief else ''}: {self.tree}, {self.rate / MIB:.1f} MiB/s"]
        return "\n".join([*lines, *(f"    {number}. {fault}" for number, fault in enumerate(self.faults, 1))])


EARLY = (Said(Victim.SENDER, "ringing"), Said(Victim.RECEIVER, "offer"), Said(Victim.SENDER, "accepted"))
LATE = (Said(Victim.RECEIVER, "saved"), Said(Victim.RECEIVER, "received"))


def schedule(seed: int, *, brief: bool = False) -> Schedule:
    """The schedule of that seed. A brief one has a small tree, few faults, and they are soon over."""
    choose = random.Random(f"schedule {seed} {brief}")
    if brief:
        tree = Tree(seed, choose.randint(2, 6) * MIB, 30)
        faults = choose.choice((1, 1, 2))
    else:
        # Seldom more items than one page of a manifest has.
        tree = Tree(seed, int(choose.uniform(1, 5) ** 2 * MIB), choose.choice((3, 30, 60, 60, 400)))
        faults = choose.choice((1, 2, 2, 3, 3, 4))
    # Long enough to be hit, and for acknowledgements on the way.
    seconds = choose.uniform(0.8, 1.5) if brief else choose.uniform(0.8, 2.8)
    moments = sorted((_moment(choose) for _ in range(faults)), key=_order)
    return Schedule(
        seed, brief, tree, int(tree.size / seconds) + 1, tuple(_fault(choose, at, brief=brief) for at in moments)
    )


def _moment(choose: random.Random) -> Moment:
    kind = choose.random()
    if kind < 0.12:
        return choose.choice(EARLY)
    if kind < 0.55:
        return Passed(round(choose.uniform(0.02, 0.98), 2))
    if kind < 0.65:
        return Passed(1.0)  # all has been sent: the end, the digests, the landing, the receipt
    if kind < 0.78:
        return Acknowledged(round(choose.uniform(0.05, 0.95), 2))
    if kind < 0.9:
        return Later(round(choose.uniform(0.0, 1.5), 2))
    return choose.choice(LATE)


def _order(moment: Moment) -> float:
    match moment:
        case Said():
            return -1.0 if moment in EARLY else 2.0
        case Passed(fraction) | Acknowledged(fraction):
            return fraction
        case Later(seconds):
            return seconds / 1.5


def _fault(choose: random.Random, at: Moment, *, brief: bool) -> Fault:
    victim = choose.choice(list(Victim))
    kind = choose.choice(KINDS[victim])
    if kind in (Kind.RST, Kind.FIN):
        return Fault(at, victim, kind)
    # Sometimes as long as it takes the others to notice, sometimes not. What is killed stays away shortly: starting
    # it again takes long enough.
    longest = 1.0 if brief or kind not in (Kind.STOP, Kind.HOLE, Kind.MUTE) else choose.choice((1.0, 1.0, 3.0))
    return Fault(at, victim, kind, round(choose.uniform(0.05, longest), 2))
