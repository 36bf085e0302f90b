"""How much a sender sends together."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from glide.net.connection import FRAME
from glide.transfer import feeding

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("rate", "count"), [(0, 1), (MIB, 1), (19 * MIB, 1), (21 * MIB, 2), (35 * MIB, 3), (5000 * MIB, 4)]
)
async def test_as_many_frames_as_arrive_in_a_tenth_of_a_second_go_out_together(
    autojump_clock: MockClock, rate: int, count: int
) -> None:
    pace = feeding.Pace()
    assert pace.size == FRAME, "nothing is known yet"
    for _ in range(2):  # what was before is forgotten
        await trio.sleep(2)
        pace.arrived(2 * rate)
        assert pace.size == count * FRAME
    assert pace.size <= feeding.BLOCK


async def test_what_arrives_at_once_lets_out_as_much_as_there_ever_is(autojump_clock: MockClock) -> None:
    pace = feeding.Pace()
    pace.arrived(32 * MIB)
    assert pace.size == feeding.BLOCK


async def test_acknowledgements_that_were_held_up_and_come_together_do_not_look_like_a_fast_link(
    autojump_clock: MockClock,
) -> None:
    pace = feeding.Pace()
    await trio.sleep(2)
    for _ in range(2):
        pace.arrived(300_000)
        assert pace.size == FRAME
        await trio.sleep(0.001)
