"""idle_deadline: a block ends once nothing has been touched for so long, and whoever is to blame is named."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from glide.errors import Declined, Stalled
from glide.net.deadlines import idle_deadline


async def test_a_block_without_a_touch_ends_at_the_deadline(autojump_clock: MockClock) -> None:
    with pytest.raises(Stalled, match="bob"), idle_deadline(60, lambda: Stalled("bob")):
        await trio.sleep_forever()
    assert trio.current_time() == 60


async def test_every_touch_starts_the_time_again(autojump_clock: MockClock) -> None:
    async def busy_for_a_while() -> None:
        with idle_deadline(60, lambda: Stalled("bob")) as idle:
            for _ in range(10):
                await trio.sleep(59)
                idle.touch()
            await trio.sleep_forever()

    with pytest.raises(Stalled):
        await busy_for_a_while()
    assert trio.current_time() == 10 * 59 + 60


async def test_a_block_that_is_done_in_time_raises_nothing(autojump_clock: MockClock) -> None:
    with idle_deadline(60, lambda: Stalled("bob")):
        await trio.sleep(59.9)


@pytest.mark.parametrize("touched", [False, True])
async def test_zero_is_no_deadline(autojump_clock: MockClock, touched: bool) -> None:
    with idle_deadline(0, lambda: Stalled("bob")) as idle:
        if touched:
            idle.touch()
        await trio.sleep(10 * 365 * 86400)


async def test_whom_to_blame_is_asked_only_after_the_block_has_ended(autojump_clock: MockClock) -> None:
    seen = "sender"

    async def see_later() -> None:
        nonlocal seen
        with idle_deadline(60, lambda: Stalled(seen)):
            try:
                await trio.sleep_forever()
            finally:
                seen = "receiver"

    with pytest.raises(Stalled, match="receiver"):
        await see_later()


async def test_what_the_block_itself_raises_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.raises(Declined), idle_deadline(60, lambda: Stalled("bob")):
        raise Declined("no")


async def test_a_cancellation_from_outside_is_not_blamed_on_anybody(autojump_clock: MockClock) -> None:
    with trio.move_on_after(5) as outside, idle_deadline(60, lambda: Stalled("bob")):
        await trio.sleep_forever()
    assert outside.cancelled_caught
