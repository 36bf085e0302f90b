"""Turns: however many transfers have something to move, others run after a few of them; and each comes to its own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from glide.relay.turns import Turns

MOST = 4


async def moves(turns: Turns, log: list[int], number: int) -> None:
    """A task of a transfer that always has a chunk to move."""
    with turns.shared(tasks=1):
        while True:
            await turns.take()
            log.append(number)
            await trio.lowlevel.checkpoint()


async def share(turns: Turns) -> None:
    """More tasks than there are turns, none of which has anything to move."""
    with turns.shared(tasks=MOST + 1):
        await trio.sleep_forever()


@pytest.mark.parametrize("tasks", [1, MOST, MOST + 1, 10 * MOST])
async def test_so_many_take_turns_before_others_run_and_all_get_as_many(tasks: int) -> None:
    turns = Turns(MOST)
    log: list[int] = []
    most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        for number in range(tasks):
            nursery.start_soon(moves, turns, log, number)
        while len(log) < 100 * tasks:
            before = len(log)
            await trio.lowlevel.checkpoint()
            most = max(most, len(log) - before)
        nursery.cancel_scope.cancel()
    # Trio shuffles each pass: between two turns of this task there may be two passes, and what was left of a third.
    assert 0 < most <= 3 * MOST
    each = [log.count(number) for number in range(tasks)]
    assert min(each) > 0
    if tasks > 2 * MOST:  # who waits is served in order, so that nobody is ahead of another by more than a round or two
        assert max(each) - min(each) <= 4


async def test_who_is_cancelled_while_waiting_takes_nothing() -> None:
    turns = Turns(1)
    with turns.shared(tasks=2):
        await turns.take()
        with trio.move_on_after(0) as scope:
            await turns.take()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.run)
            with trio.fail_after(10):
                for _ in range(5):
                    await turns.take()
            nursery.cancel_scope.cancel()


async def test_while_nothing_is_moved_nothing_runs() -> None:
    turns = Turns(MOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        nursery.start_soon(share, turns)
        await wait_all_tasks_blocked()
        for _ in range(2):
            for _ in range(MOST):
                await turns.take()
            await wait_all_tasks_blocked()  # it has given out new ones, and sleeps again
            assert repr(turns) == f"<Turns: {MOST} of {MOST} left, 0 waiting>"
        nursery.cancel_scope.cancel()


async def test_as_long_as_there_are_turns_for_all_they_are_not_counted() -> None:
    turns = Turns(MOST)
    with turns.shared(tasks=MOST):
        for _ in range(10 * MOST):
            await turns.take()  # nobody gives out new ones
        assert repr(turns) == f"<Turns: {MOST} of {MOST} left, 0 waiting>"
        with turns.shared(tasks=1):
            for _ in range(MOST):
                await turns.take()
            with trio.move_on_after(0) as scope:
                await turns.take()
            assert scope.cancelled_caught
