"""However what a peer says is cut, so much of it is taken in a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from glide.crypto.records import LENGTH, TAG, Sealer
from glide.protocol.messages import Who, to_bytes
from glide.protocol.preface import Purpose
from tests.net.pairs import heard, pair, registered

ASKED = [Who(after=f"n{number}") for number in range(100)]


def whole(sealer: Sealer, plain: bytes) -> bytes:
    return sealer.seal_all(plain)


def cut_up(sealer: Sealer, plain: bytes) -> bytes:
    return b"".join(sealer.seal_all(plain[at : at + 1]) for at in range(len(plain)))


def behind_records_of_nothing(sealer: Sealer, plain: bytes) -> bytes:
    room = bytearray(LENGTH + TAG)
    nothing = []
    for _ in range(150):
        sealer._seal_one(bytearray(), memoryview(room), 0)
        nothing.append(bytes(room))
    return b"".join(nothing) + sealer.seal_all(plain)


@pytest.mark.parametrize(("say", "seconds"), [(whole, 1), (cut_up, 9), (behind_records_of_nothing, 3)])
async def test_R2_frames_and_records_are_taken_in_at_a_pace(
    autojump_clock: MockClock, say: Callable[[Sealer, bytes], bytes], seconds: int
) -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    relay.limiter.most = 50
    await client.stream.send_all(say(client._sealer, b"".join(map(to_bytes, ASKED))))
    begun = trio.current_time()
    for asked in ASKED:
        assert await heard(relay) == asked
    assert seconds <= trio.current_time() - begun < 60
