"""How much a sender sends together."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from glide.errors import FileError
from glide.net.connection import FRAME
from glide.transfer import feeding
from glide.transfer.feeding import Block
from glide.transfer.terms import Hint, Terms, Watch
from tests.transfer.halves import TRANSFER, gather, joined

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


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["read", "check"])
async def test_an_error_waits_for_what_is_being_sent_so_that_the_receiver_can_be_told_why(
    tmp_path: Path, which: str
) -> None:
    """A record that is cut in two would be the last that they understand."""
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    gathered = gather(path)
    path.write_bytes(bytes(99))
    sending, failed = trio.Lock(), trio.Event()
    wanted_in, wanted = trio.open_memory_channel[list[tuple[int, int]]](1)
    wanted_in.send_nowait([(0, 100)])

    async def give(_: Block) -> None:
        async with sending:
            pass

    async def fails(watch: Watch) -> None:
        kept = iter([(0, gathered.manifest.item(0), 50)])
        with pytest.raises(FileError, match="it shrank from 100 bytes to 99"):
            await (
                feeding.read(gathered, watch, wanted, give)
                if which == "read"
                else feeding.check(gathered, watch, kept, give)
            )
        failed.set()

    async with joined() as (near, _), trio.open_nursery() as nursery:
        async with sending:
            nursery.start_soon(fails, Watch(near, TRANSFER, "sender", "bob", Terms(), Hint(), lambda _: None))
            await wait_all_tasks_blocked(0.5)
            assert sending.statistics().tasks_waiting == 1
            assert not failed.is_set()
        with trio.fail_after(5):
            await failed.wait()
