"""Seats: how many transfers and pushes a key may have, and who is woken when there is room."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from glide.relay.seats import Seats

ALICE, BOB = b"a" * 32, b"b" * 32


async def in_line(seats: Seats, key: bytes, served: list[int], number: int) -> None:
    await seats.room(key)
    served.append(number)


def test_R2_so_many_for_each_key() -> None:
    seats = Seats(2)
    for _ in range(2):
        assert seats.may_push(ALICE)
        seats.take(ALICE)
    assert not seats.may_push(ALICE)
    assert not seats.may_be_rung(ALICE)
    assert seats.may_push(BOB)
    seats.give_back(ALICE)
    assert seats.may_push(ALICE)


def test_what_waits_keeps_nobody_from_ringing_its_sender() -> None:
    seats = Seats(1)
    seats.take(ALICE)
    seats.begin_waiting(ALICE)
    assert (seats.may_push(ALICE), seats.may_be_rung(ALICE)) == (False, True)
    seats.end_waiting(ALICE)
    assert (seats.may_push(ALICE), seats.may_be_rung(ALICE)) == (False, False)


async def test_a_seat_that_is_given_back_wakes_one_the_first_in_line() -> None:
    seats, served = Seats(1), list[int]()
    seats.take(BOB)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(in_line, seats, BOB, served, number)
            await wait_all_tasks_blocked()
        for number in range(3):
            seats.give_back(BOB)
            seats.take(BOB)  # by whoever is woken, who does it in the same step
            await wait_all_tasks_blocked()
            assert served == list(range(number + 1))
    assert seats._queues == {}, "nothing is kept of a key that nobody waits for"


async def test_nobody_is_woken_where_there_is_no_room() -> None:
    seats, served = Seats(1), list[int]()
    seats.take(BOB)
    seats.take(BOB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_line, seats, BOB, served, 0)
        await wait_all_tasks_blocked()
        seats.wake(BOB)
        seats.give_back(BOB)
        await wait_all_tasks_blocked()
        assert served == []
        seats.begin_waiting(BOB)  # what waits makes room, too
        await wait_all_tasks_blocked()
        assert served == [0]


async def test_whoever_leaves_the_line_keeps_nobody_behind_them() -> None:
    seats, served = Seats(1), list[int]()
    seats.take(BOB)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as impatient:
                impatient.start_soon(in_line, seats, BOB, served, 0)
                await wait_all_tasks_blocked()
                nursery.start_soon(in_line, seats, BOB, served, 1)
                await wait_all_tasks_blocked()
                first.cancel()
        seats.give_back(BOB)
        await wait_all_tasks_blocked()
        assert served == [1]


async def test_all_in_line_are_woken_when_there_is_nothing_to_wait_for() -> None:
    seats, served = Seats(1), list[int]()
    seats.take(BOB)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(in_line, seats, BOB, served, number)
        await wait_all_tasks_blocked()
        seats.wake_all(ALICE)
        await wait_all_tasks_blocked()
        assert served == []
        seats.wake_all(BOB)
    assert sorted(served) == [0, 1, 2]
