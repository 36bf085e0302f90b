"""Who holds which name: one key at a time, and nothing but its holder's own end gives it back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from glide.errors import GlideError, NameTaken, RelayRefused
from glide.relay.registry import LocalRegistry

ALICE, MALLORY = b"a" * 32, b"m" * 32
MOST = 3


@dataclass(eq=False)
class FakeSession:
    """What the registry needs to know of one."""

    key: bytes = ALICE
    replaced: int = 0

    def replace(self) -> None:
        self.replaced += 1


@pytest.fixture
def registry() -> LocalRegistry[FakeSession]:
    return LocalRegistry(MOST)


def names(registry: LocalRegistry[FakeSession]) -> list[str]:
    return [person.name for person in registry.people()]


async def test_whoever_registers_is_here_until_the_block_ends(registry: LocalRegistry[FakeSession]) -> None:
    session = FakeSession()
    async with registry.register("alice", session, receiving=True):
        assert registry.receiver("alice") is session
        [person] = registry.people()
        assert (person.name, person.key, person.receiving) == ("alice", ALICE, True)
    assert registry.receiver("alice") is None
    assert registry.people() == []


async def test_a_sending_session_is_here_but_takes_nothing(registry: LocalRegistry[FakeSession]) -> None:
    async with registry.register("alice", FakeSession(), receiving=False):
        assert registry.receiver("alice") is None
        [person] = registry.people()
        assert not person.receiving


async def test_people_come_in_order_of_names(registry: LocalRegistry[FakeSession]) -> None:
    async with AsyncExitStack() as stack:
        for name in ("carol", "alice", "bob", "0", "b-b"):
            await stack.enter_async_context(registry.register(name, FakeSession(), receiving=True))
        assert names(registry) == ["0", "alice", "b-b", "bob", "carol"]


@pytest.mark.parametrize("holds_as_receiver", [False, True])
@pytest.mark.parametrize("comes_as_receiver", [False, True])
async def test_R9_another_key_is_refused_while_one_session_is_left(
    registry: LocalRegistry[FakeSession], holds_as_receiver: bool, comes_as_receiver: bool
) -> None:
    holder = FakeSession()
    async with registry.register("alice", holder, receiving=holds_as_receiver):
        with pytest.raises(NameTaken, match=r"^Username already taken$"):
            async with registry.register("alice", FakeSession(MALLORY), receiving=comes_as_receiver):
                pass
        assert holder.replaced == 0
        assert [person.key for person in registry.people()] == [ALICE]
    async with registry.register("alice", FakeSession(MALLORY), receiving=comes_as_receiver):
        assert [person.key for person in registry.people()] == [MALLORY]


async def test_R9_a_newer_receiving_session_of_the_key_takes_over_and_stays(
    registry: LocalRegistry[FakeSession],
) -> None:
    old, new = FakeSession(), FakeSession()
    async with AsyncExitStack() as later:
        async with AsyncExitStack() as earlier:
            await earlier.enter_async_context(registry.register("alice", old, receiving=True))
            await later.enter_async_context(registry.register("alice", new, receiving=True))
            assert (old.replaced, new.replaced) == (1, 0)
            assert registry.receiver("alice") is new
        # The replaced session has gone: its successor is still here, and still guards the name.
        assert registry.receiver("alice") is new
        with pytest.raises(NameTaken):
            async with registry.register("alice", FakeSession(MALLORY), receiving=True):
                pass
    assert registry.people() == []


async def test_sending_sessions_of_one_key_share_the_name(registry: LocalRegistry[FakeSession]) -> None:
    receiver, senders = FakeSession(), [FakeSession() for _ in range(MOST)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(registry.register("alice", receiver, receiving=True))
        for sender in senders:
            await stack.enter_async_context(registry.register("alice", sender, receiving=False))
        assert registry.receiver("alice") is receiver
        assert names(registry) == ["alice"]
        assert [session.replaced for session in (receiver, *senders)] == [0] * (MOST + 1)


async def test_R2_the_sending_sessions_under_one_name_are_limited(registry: LocalRegistry[FakeSession]) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(registry.register("alice", FakeSession(), receiving=False))
        with pytest.raises(RelayRefused, match="3 connections send as alice"):
            async with registry.register("alice", FakeSession(), receiving=False):
                pass
        async with registry.register("alice", FakeSession(), receiving=True):
            pass  # the limit is no reason not to receive
    assert registry.people() == []


async def ends_by_return(block: AbstractAsyncContextManager[None]) -> None:
    async with block:
        return


async def ends_by_an_error(block: AbstractAsyncContextManager[None]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with block:
            raise ZeroDivisionError


async def ends_by_an_error_of_a_task(block: AbstractAsyncContextManager[None]) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        async with block, trio.open_nursery() as nursery:
            nursery.start_soon(fail)


async def ends_by_cancellation(block: AbstractAsyncContextManager[None]) -> None:
    with trio.CancelScope() as scope:
        async with block:
            scope.cancel()
            await trio.sleep_forever()


@pytest.mark.parametrize("receiving", [False, True])
@pytest.mark.parametrize("way", [ends_by_return, ends_by_an_error, ends_by_an_error_of_a_task, ends_by_cancellation])
async def test_R9_however_the_block_ends_the_name_is_free_at_once(
    registry: LocalRegistry[FakeSession], way: Callable[..., object], receiving: bool
) -> None:
    await way(registry.register("alice", FakeSession(), receiving=receiving))  # type: ignore[misc]  # each is async
    assert registry.people() == []
    async with registry.register("alice", FakeSession(MALLORY), receiving=True):
        assert registry.receiver("alice") is not None


# --- the lock --------------------------------------------------------------------------------------------


async def test_taking_a_name_waits_for_whoever_is_taking_one(
    registry: LocalRegistry[FakeSession], autojump_clock: MockClock
) -> None:
    async def enter() -> None:
        async with registry.register("alice", FakeSession(), receiving=True):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with registry._lock:
            nursery.start_soon(enter)
            await wait_all_tasks_blocked()
            assert registry.people() == []
        await wait_all_tasks_blocked()
        assert names(registry) == ["alice"]
        nursery.cancel_scope.cancel()


async def test_giving_a_name_back_does_not_wait(registry: LocalRegistry[FakeSession]) -> None:
    block = registry.register("alice", FakeSession(), receiving=True)
    await block.__aenter__()
    async with registry._lock:
        await block.__aexit__(None, None, None)
        assert registry.people() == []


async def test_whoever_is_cancelled_while_waiting_for_a_name_holds_nothing(
    registry: LocalRegistry[FakeSession], autojump_clock: MockClock
) -> None:
    async def give_up() -> None:
        with trio.move_on_after(1) as scope:
            async with registry.register("alice", FakeSession(), receiving=True):
                pass
        assert scope.cancelled_caught

    async with trio.open_nursery() as nursery, registry._lock:
        nursery.start_soon(give_up)
        await trio.sleep(2)
    assert registry.people() == []


# --- who is seen -----------------------------------------------------------------------------------------


async def test_an_invisible_session_is_found_and_not_listed(registry: LocalRegistry[FakeSession]) -> None:
    session = FakeSession()
    async with registry.register("alice", session, receiving=True, visible=False):
        assert registry.receiver("alice") is session
        assert registry.people() == []


async def test_since_when_somebody_is_here_tells_nothing_of_invisible_sessions(
    registry: LocalRegistry[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000
    monkeypatch.setattr(time, "time", lambda: now)
    async with registry.register("alice", FakeSession(), receiving=True, visible=False):
        now = 2000
        async with registry.register("alice", FakeSession(), receiving=False):
            now = 3000
            async with registry.register("alice", FakeSession(), receiving=False):
                [person] = registry.people()
                assert (person.since, person.receiving) == (2000, False)
        now = 4000
        async with registry.register("alice", FakeSession(), receiving=True):
            [person] = registry.people()
            assert (person.since, person.receiving) == (4000, True)


async def test_taking_over_does_not_change_since_when_somebody_is_here(
    registry: LocalRegistry[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000
    monkeypatch.setattr(time, "time", lambda: now)
    async with registry.register("alice", FakeSession(), receiving=True):
        now = 2000
        async with registry.register("alice", FakeSession(), receiving=True):
            assert [person.since for person in registry.people()] == [1000]


# --- who waits -------------------------------------------------------------------------------------------


async def test_all_who_watch_a_name_hear_of_each_receiver_that_comes(registry: LocalRegistry[FakeSession]) -> None:
    heard: list[FakeSession | None] = []

    async def watch() -> None:
        async with registry.arrivals("alice") as arrivals:
            assert arrivals.receiver() is None
            for _ in range(2):
                await arrivals.news()
                heard.append(arrivals.receiver())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(watch)
        await wait_all_tasks_blocked()
        async with (
            registry.register("alice", FakeSession(), receiving=False),
            registry.register("bob", FakeSession(), receiving=True),
        ):
            await wait_all_tasks_blocked()
            assert heard == []
        first, second = FakeSession(), FakeSession()
        async with registry.register("alice", first, receiving=True):
            await wait_all_tasks_blocked()
            assert heard == [first] * 3
            async with registry.register("alice", second, receiving=True):
                await wait_all_tasks_blocked()
        assert heard == [first] * 3 + [second] * 3
    assert registry._watched == {}, "nothing is kept of a name that nobody watches"


async def test_a_receiver_that_has_been_found_is_no_news(registry: LocalRegistry[FakeSession]) -> None:
    async with AsyncExitStack() as stack:
        arrivals = await stack.enter_async_context(registry.arrivals("alice"))
        for _ in range(3):
            session = FakeSession()
            await stack.enter_async_context(registry.register("alice", session, receiving=True))
            assert arrivals.receiver() is session
        with trio.move_on_after(0) as waiting:
            await arrivals.news()
        assert waiting.cancelled_caught


async def test_a_receiver_that_came_between_is_news_even_when_it_has_gone(registry: LocalRegistry[FakeSession]) -> None:
    async with registry.arrivals("alice") as arrivals:
        async with registry.register("alice", FakeSession(), receiving=True):
            pass
        with trio.fail_after(1):
            await arrivals.news()
        assert arrivals.receiver() is None


async def test_of_two_who_seek_each_other_the_later_one_finds_the_earlier(registry: LocalRegistry[FakeSession]) -> None:
    alice, bob = FakeSession(), FakeSession(MALLORY)
    async with registry.seeking("alice", "bob", alice) as first:
        assert first.found is None
        assert first.waits
        async with registry.seeking("bob", "alice", bob) as second:
            assert second.found is alice
            assert not first.waits
            assert await first.over()
            # Both are used up.
            async with registry.seeking("alice", "bob", alice) as third:
                assert third.found is None
    assert registry._seekers == {}


async def test_who_seeks_somebody_else_is_not_found(registry: LocalRegistry[FakeSession]) -> None:
    async with (
        registry.seeking("alice", "bob", FakeSession()),
        registry.seeking("bob", "carol", FakeSession()) as bob,
        registry.seeking("carol", "alice", FakeSession()) as carol,
    ):
        assert bob.found is carol.found is None


async def test_the_newest_seeks_in_place_of_the_older_ones(registry: LocalRegistry[FakeSession]) -> None:
    old, new, late = FakeSession(), FakeSession(), FakeSession()
    async with registry.seeking("alice", "bob", old) as first, registry.seeking("alice", "bob", new) as second:
        assert not await first.over()
        async with registry.seeking("alice", "bob", late, again=True) as third:
            assert not await third.over()
            assert second.waits
        async with registry.seeking("bob", "alice", FakeSession()) as bob:
            assert bob.found is new
        assert await second.over()
    assert registry._seekers == {}


async def test_who_was_replaced_does_not_take_the_newest_s_place_away(registry: LocalRegistry[FakeSession]) -> None:
    new = FakeSession()
    async with AsyncExitStack() as later:
        async with registry.seeking("alice", "bob", FakeSession()):
            await later.enter_async_context(registry.seeking("alice", "bob", new))
        async with registry.seeking("bob", "alice", FakeSession()) as bob:
            assert bob.found is new


async def test_who_seeks_again_waits_if_nobody_does(registry: LocalRegistry[FakeSession]) -> None:
    me = FakeSession()
    async with (
        registry.seeking("alice", "bob", me, again=True) as alice,
        registry.seeking("bob", "alice", FakeSession(), again=True) as bob,
    ):
        assert bob.found is me
        assert await alice.over()


# --- any order of comings and goings ---------------------------------------------------------------------


@dataclass
class Model:
    """The rules in their simplest form: a list of who is in, oldest first."""

    inside: list[tuple[str, FakeSession, bool]] = field(default_factory=list)
    hidden: set[FakeSession] = field(default_factory=set)
    current: dict[str, FakeSession] = field(default_factory=dict)  # the newest receiver, until it leaves

    def may(self, name: str, session: FakeSession, receiving: bool) -> type[GlideError] | None:
        # Somebody holds the name who can be reached under it, or sends: a replaced receiver counts for nothing.
        holding = [
            one for where, one, as_receiver in self.inside if where == name and self.counts(name, one, as_receiver)
        ]
        if holding and holding[0].key != session.key:
            return NameTaken
        sending = [one for where, one, as_receiver in self.inside if where == name and not as_receiver]
        if not receiving and len(sending) >= MOST:
            return RelayRefused
        return None

    def counts(self, name: str, session: FakeSession, receiving: bool) -> bool:
        return not receiving or self.current.get(name) is session


# Enter or leave; the name, the key, as a receiver, visible; which one leaves.
Step: TypeAlias = tuple[str, str, bytes, bool, bool, int]

step = st.tuples(
    st.sampled_from(["enter", "enter", "leave"]),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from([ALICE, MALLORY]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 100),
)


@settings(max_examples=150)
@given(st.lists(step, max_size=40))
def test_R9_any_order_of_comings_and_goings_keeps_the_rules(
    steps: list[tuple[str, str, bytes, bool, bool, int]],
) -> None:
    async def run() -> None:
        registry: LocalRegistry[FakeSession] = LocalRegistry(MOST)
        model = Model()
        blocks: dict[FakeSession, AbstractAsyncContextManager[None]] = {}
        told: dict[FakeSession, int] = {}
        for what, name, key, receiving, visible, which in steps:
            if what == "enter":
                session = FakeSession(key)
                block = registry.register(name, session, receiving=receiving, visible=visible)
                refusal = model.may(name, session, receiving)
                if refusal is not None:
                    with pytest.raises(refusal):
                        await block.__aenter__()
                else:
                    await block.__aenter__()
                    if receiving:
                        if name in model.current:
                            told[model.current[name]] = 1
                        model.current[name] = session
                    model.inside.append((name, session, receiving))
                    model.hidden |= set() if visible else {session}
                    blocks[session] = block
            elif model.inside:
                gone_from, session, _ = model.inside.pop(which % len(model.inside))
                if model.current.get(gone_from) is session:
                    del model.current[gone_from]
                await blocks.pop(session).__aexit__(None, None, None)
            for each in ("alice", "bob"):
                assert registry.receiver(each) is model.current.get(each)
            assert {(person.name, person.key, person.receiving) for person in registry.people()} == {
                (where, one.key, where in model.current and model.current[where] not in model.hidden)
                for where, one, as_receiver in model.inside
                if model.counts(where, one, as_receiver) and one not in model.hidden
            }
            assert all(one.replaced == told.get(one, 0) for _, one, _ in model.inside)
        for left in blocks.values():
            await left.__aexit__(None, None, None)
        assert registry.people() == []

    trio.run(run)
