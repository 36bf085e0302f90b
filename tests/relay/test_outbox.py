"""An outbox: in order, bounded, with a task that is there only while there is something to say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from glide.net.connection import Connection
from glide.protocol.fields import Message
from glide.protocol.messages import Goodbye, Queued
from glide.protocol.preface import Purpose
from glide.relay.outbox import Outbox
from tests.net.pairs import heard, pair, registered

MOST = 3
BYE = Goodbye(code="unreachable", message="Good night.")


def message(number: int) -> Queued:
    return Queued(transfer=bytes([number]) * 16)


@dataclass
class Served:
    """An outbox whose client reads only when the test does, and the nursery that its task is in."""

    client: Connection
    outbox: Outbox
    nursery: trio.Nursery
    got: list[Message] = field(default_factory=list)

    async def hears(self, count: int) -> list[Message]:
        return [await heard(self.client) for _ in range(count)]

    async def speaks_to_deaf_ears(self) -> None:
        """One message is being sent, and the client does not read it: from now on what is said must wait."""
        assert self.outbox.put(message(0))
        await wait_all_tasks_blocked()
        assert len(self.nursery.child_tasks) == 1


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    """Its end is that of the block, or what the outbox makes it."""
    client, relay = pair(Purpose.CONTROL, lockstep_stream_pair())
    async with trio.open_nursery() as greeting:
        greeting.start_soon(registered, client, relay)
    outbox = Outbox(relay, MOST)
    async with trio.open_nursery() as nursery:
        outbox.begin(nursery)
        try:
            yield Served(client, outbox, nursery)
        finally:
            outbox.close()
        nursery.cancel_scope.cancel()


async def test_a_task_is_there_only_while_something_is_said() -> None:
    async with served() as one:
        for number in (1, 2):
            assert not one.nursery.child_tasks
            assert not one.outbox.speaks
            assert one.outbox.put(message(number))
            assert one.outbox.speaks
            assert await one.hears(1) == [message(number)]
            await wait_all_tasks_blocked()


async def test_all_is_said_in_order_by_one_task() -> None:
    async with served() as one:
        await one.speaks_to_deaf_ears()
        assert [one.outbox.put(message(number)) for number in (1, 2, 3)] == [True] * 3
        assert len(one.nursery.child_tasks) == 1
        assert await one.hears(4) == [message(number) for number in range(4)]


async def test_R1_no_more_waits_than_there_is_room_for() -> None:
    async with served() as one:
        await one.speaks_to_deaf_ears()
        assert [one.outbox.put(message(number)) for number in range(1, 6)] == [True] * MOST + [False] * 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.outbox.put_in_turn, message(9))
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1, "it waits for room"
            assert await one.hears(MOST + 2) == [message(number) for number in (0, 1, 2, 3, 9)]


async def test_what_is_put_in_before_it_is_sent_waits_for_the_nursery() -> None:
    client, relay = pair(Purpose.CONTROL)
    await registered(client, relay)
    outbox = Outbox(relay, MOST)
    assert outbox.put(message(1))
    outbox.put_last(BYE)
    async with trio.open_nursery() as nursery:
        outbox.begin(nursery)
        assert [await heard(client), await heard(client)] == [message(1), BYE]


@pytest.mark.parametrize("waiting", [0, 1, MOST])
async def test_the_last_word_comes_after_all_that_waits_and_ends_the_nursery(waiting: int) -> None:
    async with served() as one:
        if waiting:
            await one.speaks_to_deaf_ears()
        said = [message(number) for number in range(1, waiting + 1)]
        assert [one.outbox.put(each) for each in said] == [True] * waiting
        one.outbox.put_last(BYE)
        one.outbox.put_last(BYE)  # once is enough
        assert one.outbox.over
        assert not one.outbox.put(message(8))
        await one.outbox.put_in_turn(message(9))
        with trio.CancelScope(shield=True):
            assert await one.hears(waiting + bool(waiting) + 1) == [*[message(0)][:waiting], *said, BYE]
        await trio.sleep_forever()  # the nursery is cancelled


async def test_who_waits_for_room_goes_on_when_the_last_word_is_said() -> None:
    async with served() as one:
        await one.speaks_to_deaf_ears()
        for number in range(MOST):
            assert one.outbox.put(message(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.outbox.put_in_turn, message(9))
            await wait_all_tasks_blocked()
            one.outbox.put_last(BYE)
            await wait_all_tasks_blocked()
            assert not nursery.child_tasks
        one.nursery.cancel_scope.cancel()


async def test_a_client_that_is_gone_ends_the_nursery_and_raises_nothing() -> None:
    async with served() as one:
        await one.client.aclose()
        assert one.outbox.put(message(1))
        await trio.sleep_forever()


async def test_whoever_speaks_to_a_client_that_is_gone_before_its_session_ends_finds_that_it_is_over() -> None:
    async with served() as one:
        await one.speaks_to_deaf_ears()
        for number in range(MOST):
            assert one.outbox.put(message(number))
        # The session's own task, which would end it, is held up: others run first.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.outbox.put_in_turn, message(9))
                await wait_all_tasks_blocked()
                await one.client.aclose()
                await wait_all_tasks_blocked()
                assert not nursery.child_tasks
            assert one.nursery.cancel_scope.cancel_called
            assert one.outbox.over
            assert not one.outbox.put(message(8))
            await one.outbox.put_in_turn(message(9))
            one.outbox.put_last(BYE)
        await trio.sleep_forever()  # the nursery is cancelled


async def test_nothing_is_taken_after_the_end() -> None:
    async with served() as one:
        pass
    assert one.outbox.over
    assert not one.outbox.put(message(1))
    await one.outbox.put_in_turn(message(2))
    one.outbox.put_last(BYE)
    assert not one.outbox.speaks
