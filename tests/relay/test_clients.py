"""What is said to everybody: each in turn, and never to so many at once that others have to wait."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from trio.testing import MockClock

from glide.relay.clients import BREATH, Clients

MANY = 10 * BREATH + 1
EVERY = 30.0


@dataclass(eq=False)
class Counting:
    """A client that notes when it is spoken to."""

    log: list[Counting]
    alive: int = 0
    left: int = 0

    def keep_alive(self) -> None:
        self.alive += 1
        self.log.append(self)

    def leave_when_idle(self) -> None:
        self.left += 1
        self.log.append(self)


def crowd(clients: Clients) -> list[Counting]:
    """So many, all come at once."""
    log: list[Counting] = []
    found = [Counting(log) for _ in range(MANY)]
    for client in found:
        clients.came(client)
    return found


async def watch(log: list[Counting], most: list[int]) -> None:
    """Somebody else, who wants a turn all the time: to how many was spoken between two of them."""
    while True:
        before = len(log)
        await trio.lowlevel.checkpoint()
        most.append(len(log) - before)


async def test_each_hears_of_us_once_in_the_time_however_many_they_are(autojump_clock: MockClock) -> None:
    clients = Clients(EVERY)
    found = crowd(clients)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.keep_alive)
        await trio.sleep(EVERY - 1)
        assert {client.alive for client in found} == {0}
        for turn in (1, 2, 3):
            await trio.sleep(EVERY)
            assert {client.alive for client in found} == {turn}
        nursery.cancel_scope.cancel()


async def test_who_comes_later_has_a_turn_later_and_who_has_left_none(autojump_clock: MockClock) -> None:
    clients = Clients(EVERY)
    log: list[Counting] = []
    early, late, gone = Counting(log), Counting(log), Counting(log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.keep_alive)
        await trio.sleep(100)  # nobody is here
        clients.came(early)
        clients.came(gone)
        await trio.sleep(20)
        clients.came(late)
        assert clients.left(gone)
        assert not clients.left(gone)
        await trio.sleep(15)
        assert [early.alive, late.alive] == [1, 0]
        await trio.sleep(20)
        assert [early.alive, late.alive] == [1, 1]
        nursery.cancel_scope.cancel()
    assert log == [early, late]


async def test_keepalives_that_are_due_at_once_let_others_run_in_between() -> None:
    clients = Clients(0.0)
    found = crowd(clients)
    log, most = found[0].log, list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.keep_alive)
        nursery.start_soon(watch, log, most)
        while min(client.alive for client in found) < 3:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert 0 < max(most) <= 2 * BREATH  # the order of two tasks in two turns is trio's to choose
    assert max(client.alive for client in found) <= min(client.alive for client in found) + 1, "nobody is starved"


async def test_goodbye_to_all_lets_others_run_in_between() -> None:
    clients = Clients(EVERY)
    found = crowd(clients)
    log, most = found[0].log, list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, log, most)
        await clients.dismiss()
        nursery.cancel_scope.cancel()
    assert [client.left for client in found] == [1] * MANY
    assert 0 < max(most) <= 2 * BREATH
