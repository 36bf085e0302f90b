"""What waits and rings, without sockets: two things that happen in the same step of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from glide.protocol.fields import Message
from glide.protocol.messages import Incoming, Push, Queued, Ringing
from glide.relay import waiting
from glide.relay.limits import Limits
from glide.relay.registry import LocalRegistry
from glide.relay.ringing import Exchange, Outgoing, Party
from glide.relay.seats import Seats
from glide.relay.server import Config
from glide.relay.splicing import Budget
from glide.relay.transfer import Tickets, Transfer
from glide.relay.turns import Turns
from tests.relay.conftest import Start

FIRST, SECOND = b"1" * 16, b"2" * 16


@dataclass(eq=False)
class Somebody:
    """A session as others see it, without a connection."""

    name: str | None
    told: list[Message] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.key = (self.name or "").encode().ljust(32)

    def tell(self, message: Message) -> bool:
        self.told.append(message)
        return True

    async def answer(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.tell(message)

    def is_rung(self, transfer: bytes) -> bool:
        return False

    def begin(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        self.transfers.append(transfer)

    def finish(self, transfer: Transfer, incoming: bytes | None = None) -> None:
        self.transfers.remove(transfer)

    def replace(self) -> None:
        raise AssertionError("nobody takes a name over here")

    def heard(self, kind: type[Message]) -> int:
        return len([message for message in self.told if isinstance(message, kind)])


@pytest.fixture
def exchange(nursery: trio.Nursery) -> Exchange:
    registry, limits = LocalRegistry[Party](64), Limits()
    return Exchange(
        registry, Seats(1), Tickets(), nursery.start_soon, trio.Event(), limits, Budget(limits), Turns(limits.turns)
    )


async def test_the_place_of_whoever_withdraws_when_it_is_their_turn_is_the_next_one_s(
    exchange: Exchange, nursery: trio.Nursery
) -> None:
    alice, bob, carol = Somebody("alice"), Somebody("bob"), Somebody("carol")
    async with exchange.registry.register("bob", bob, receiving=True):
        exchange.seats.take(bob.key)
        pushes = []
        for sender, id in ((alice, FIRST), (carol, SECOND)):
            push = Outgoing(Push(to="bob", transfer=id, wait=True), sender, exchange, on_over=lambda: None)
            nursery.start_soon(waiting.wait, push, exchange)
            await wait_all_tasks_blocked()
            assert sender.heard(Queued) == 1
            pushes.append(push)
        exchange.seats.give_back(bob.key)
        pushes[0].withdraw()
        await wait_all_tasks_blocked()
        assert (alice.heard(Ringing), carol.heard(Ringing), bob.heard(Incoming)) == (0, 1, 1)
        assert exchange.seats.may_push(alice.key)
    nursery.cancel_scope.cancel()


async def test_what_waits_for_a_session_that_is_being_replaced_does_not_ring(start: Start) -> None:
    home = await start(Config(port=0))
    bob = Somebody("bob")
    async with home.client("alice") as alice:
        await alice.waits("bob", FIRST)
        session = home.relay.registry.receiver("alice")
        assert session is not None
        session.replace()
        async with home.relay.registry.register("bob", bob, receiving=True):
            await home.gone("alice")
            assert bob.told == []
