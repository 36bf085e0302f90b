"""What glide's `nursery.start` targets hand out is a TaskStatus, in the eyes of trio-typing too."""

from __future__ import annotations

from typing import Any

import trio
import trio_typing

from glide.crypto.identity import Identity
from glide.relay.server import Config, Relay


async def test_serve_reports_through_a_task_status() -> None:
    relay = Relay(Identity.generate(), Config(port=0), report=lambda event: None)
    seen: list[Any] = []

    async def observed(*, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        seen.append(task_status)
        await relay.serve(task_status=task_status)

    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(observed)
        assert (host, port > 0) == ("127.0.0.1", True)
        relay.drain()
    assert [isinstance(status, trio_typing.TaskStatus) for status in seen] == [True]
