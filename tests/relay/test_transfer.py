"""One transfer at the relay: it takes place for all, or for nobody."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from glide.errors import RelayRefused
from glide.protocol.messages import Joined, Ticket
from glide.protocol.preface import Purpose
from glide.relay.limits import Limits
from glide.relay.splicing import Budget
from glide.relay.transfer import Tickets, Transfer
from glide.relay.turns import Turns
from tests.net.pairs import pair


@pytest.mark.parametrize("_", range(30))  # trio runs what is due at the same time in random order
async def test_whoever_comes_just_as_the_time_is_over_joins_both_or_nobody(autojump_clock: MockClock, _: int) -> None:
    """What the sender is told, and whether anybody watches the pipe, hangs on what the owner says."""
    limits = Limits(ticket_life=1.0, linger=0.1)
    tickets, transfer = Tickets(), Transfer(b"a" * 32, b"b" * 32, limits, Budget(limits), Turns())
    issued: list[bytes] = []
    took_place: list[bool] = []
    clients, ours = zip(*(pair(Purpose.DATA) for _ in range(2)), strict=True)

    def announce(given: list[bytes]) -> bool:
        issued.extend(given)
        return True

    async def own() -> None:
        took_place.append(await transfer.own(tickets, announce, lambda *_: None))

    async def come(after: float, number: int) -> None:
        await trio.sleep(after)
        try:
            seat = tickets.redeem(issued[number], b"ab"[number : number + 1] * 32)
        except RelayRefused:
            pass  # too late, and told so
        else:
            nursery.start_soon(seat.take, ours[number])  # a task of its own, as in the relay

    async with trio.open_nursery() as nursery:
        nursery.start_soon(own)
        await wait_all_tasks_blocked()
        for number, (client, relays) in enumerate(zip(clients, ours, strict=True)):
            await client.send(Ticket(ticket=issued[number]))
            await relays.receive()
        nursery.start_soon(come, 0.0, 0)
        nursery.start_soon(come, 1.0, 1)
        await trio.sleep(1.5)
        heard = await clients[0].receive()
        await clients[0].aclose()
        await clients[1].aclose()
    assert took_place == [isinstance(heard, Joined)]
