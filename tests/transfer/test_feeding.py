"""How large the frames are that a sender cuts its files into."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from glide.crypto.records import FULL
from glide.protocol.frames import HEADER, LIMITS, Kind
from glide.transfer import feeding

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("rate", "records"),
    [(0, 4), (100_000, 4), (3 * MIB, 4), (10 * MIB, 16), (25 * MIB, 40), (50 * MIB, 64), (10_000 * MIB, 64)],
)
async def test_a_frame_takes_a_tenth_of_a_second_within_bounds(
    autojump_clock: MockClock, rate: int, records: int
) -> None:
    frames = feeding.Frames()
    assert frames.size + HEADER.size == 16 * FULL, "nothing is known yet"
    for _ in range(2):  # what was before is forgotten
        await trio.sleep(2)
        frames.arrived(2 * rate)
        assert frames.size + HEADER.size == records * FULL
    assert frames.size <= min(feeding.BLOCK, LIMITS[Kind.DATA])


async def test_what_arrives_at_once_makes_them_as_large_as_they_get(autojump_clock: MockClock) -> None:
    frames = feeding.Frames()
    frames.arrived(32 * MIB)
    assert frames.size == feeding.BLOCK
