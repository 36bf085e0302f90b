"""A client that is patient: pushes that wait for somebody to come, and connections that are made anew."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import glide
from glide import events
from glide.client.address import Address
from glide.client.api import Client
from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, Exit, KeyChanged, NobodyThere, NotVerified, Unreachable
from glide.people.known import Trust
from glide.relay.server import Config, Relay
from tests.client.doing import SOON, Doing, begin
from tests.client.people import Person, content, taking_all
from tests.processes import tree

HELLO = b"hello"
LONG = 600.0


def waiting(
    nursery: trio.Nursery, client: Client, to: str, path: Path, *, wait: float = LONG, strict: bool = False
) -> Doing[glide.Receipt]:
    return begin(nursery, partial(client.push, to, [path], wait=wait, strict=strict))


# --- a push that waits -----------------------------------------------------------------------------------


async def test_a_push_rings_when_they_come(honest: Address, alice: Person, bob: Person, nursery: trio.Nursery) -> None:
    async with alice.client(honest) as me:
        push = waiting(nursery, me, "bob", alice.file(HELLO))
        waits = await alice.hears(events.WaitingFor)
        assert isinstance(waits, events.WaitingFor)
        assert (waits.to, alice.told(events.Ringing)) == ("bob", [])
        async with taking_all(bob, honest):
            receipt = await push.result()
    assert waits.transfer == receipt.transfer
    assert bob.inbox == {"holiday.jpg": HELLO}
    order = [type(event) for event in alice.events if isinstance(event, (events.WaitingFor, events.Ringing))]
    assert order == [events.WaitingFor, events.Ringing]


async def test_a_push_to_somebody_who_is_there_does_not_wait(honest: Address, alice: Person, bob: Person) -> None:
    async with alice.client(honest) as me, taking_all(bob, honest):
        await me.push("bob", [alice.file(HELLO)], wait=LONG)
    assert not alice.told(events.WaitingFor)


async def test_a_push_waits_for_somebody_who_only_sends_to_take_files(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, accept="all") as him:
        push = waiting(nursery, me, "bob", alice.file(HELLO))
        await alice.hears(events.WaitingFor)
        assert [each.receiving for each in await me.who() if each.name == "bob"] == [False]
        taking = begin(nursery, him.receive)
        await push.result()
        await taking.cancel()
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_a_push_that_has_waited_long_enough_says_so(honest: Address, alice: Person, bob: Person) -> None:
    async with alice.client(honest) as me:
        with pytest.raises(NobodyThere) as caught:
            await me.push("bob", [alice.file(HELLO)], wait=0.3)
        assert caught.value.exit is Exit.NOBODY
        assert "did not come within" in str(caught.value)
        # It is withdrawn: whoever comes later is not rung.
        async with taking_all(bob, honest) as him:
            assert len(await him.who()) == 2
            await me.push("bob", [alice.file(HELLO, "next")])
    assert [offer.names for offer in bob.told(events.OfferArrived)] == [("next",)]
    assert not bob.told(events.Failed)


async def test_a_push_that_is_cancelled_while_it_waits_rings_nobody(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me:
        push = waiting(nursery, me, "bob", alice.file(HELLO))
        await alice.hears(events.WaitingFor)
        await push.cancel()
        async with taking_all(bob, honest):
            await me.push("bob", [alice.file(HELLO, "next")])
    assert [offer.names for offer in bob.told(events.OfferArrived)] == [("next",)]
    assert not bob.told(events.Failed)


async def test_a_client_that_ends_takes_what_waits_with_it(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, trio.open_nursery() as inner:
        waiting(inner, me, "bob", alice.file(HELLO))
        await alice.hears(events.WaitingFor)
        inner.cancel_scope.cancel()
    async with taking_all(bob, honest), alice.client(honest) as again:
        await again.push("bob", [alice.file(HELLO, "next")])
    assert [offer.names for offer in bob.told(events.OfferArrived)] == [("next",)]


async def test_two_pushes_may_wait_for_one_person(
    honest: Address, alice: Person, bob: Person, tmp_path: Path, nursery: trio.Nursery
) -> None:
    carol = Person("carol", tmp_path / "carol")
    async with alice.client(honest) as one, carol.client(honest) as other:
        pushes = [
            waiting(nursery, one, "bob", alice.file(HELLO, "from-alice")),
            waiting(nursery, one, "bob", alice.file(HELLO, "another")),
            waiting(nursery, other, "bob", carol.file(HELLO, "from-carol")),
        ]
        await alice.hears(events.WaitingFor, times=2)
        await carol.hears(events.WaitingFor)
        async with taking_all(bob, honest):
            for push in pushes:
                await push.result()
    assert set(bob.inbox) == {"from-alice", "another", "from-carol"}


async def test_C1_a_push_that_has_waited_stops_at_a_key_that_differs_from_its_pin(
    honest: Address, key: bytes, alice: Person, bob: Person, tmp_path: Path, nursery: trio.Nursery
) -> None:
    alice.pin(key, bob, Trust.KNOWN)
    other = Person("bob", tmp_path / "other")
    async with alice.client(honest) as me:
        push = waiting(nursery, me, "bob", alice.file(HELLO))
        await alice.hears(events.WaitingFor)
        async with taking_all(other, honest):
            error = await push.error()
    assert isinstance(error, KeyChanged)
    assert error.exit is Exit.KEY
    assert other.inbox == {}
    assert not other.told(events.OfferArrived)


async def test_C1_a_strict_push_waits_only_for_somebody_who_is_verified(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me:
        alice.pin(key, bob, Trust.KNOWN)
        with pytest.raises(NotVerified):
            await me.push("bob", [alice.file(HELLO)], wait=LONG, strict=True)
        assert not alice.told(events.WaitingFor)
        alice.pin(key, bob, Trust.VERIFIED)
        push = waiting(nursery, me, "bob", alice.file(HELLO), strict=True)
        await alice.hears(events.WaitingFor)
        async with taking_all(bob, honest):
            await push.result()


async def test_somebody_who_comes_and_goes_before_they_take_it_is_waited_for_again(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me:
        push = waiting(nursery, me, "bob", alice.file(HELLO))
        await alice.hears(events.WaitingFor)
        async with bob.client(honest, role="receive"):  # and looks at no offer
            await alice.hears(events.Ringing)
        assert not push.over
        async with taking_all(bob, honest):
            await push.result()
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_what_is_sent_is_looked_at_again_when_they_have_come(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    path = alice.file(HELLO)
    async with alice.client(honest) as me:
        push = waiting(nursery, me, "bob", path)
        await alice.hears(events.WaitingFor)
        path.write_bytes(b"hello again, and more of it")
        async with taking_all(bob, honest):
            await push.result()
    assert bob.inbox == {"holiday.jpg": b"hello again, and more of it"}


async def test_a_push_that_waits_stores_nothing_anywhere(honest: Address, alice: Person, nursery: trio.Nursery) -> None:
    path = alice.file(HELLO)
    async with alice.client(honest) as me:
        before = tree(alice.home)
        push = waiting(nursery, me, "bob", path)
        await alice.hears(events.WaitingFor)
        assert tree(alice.home) == before
        await push.cancel()
    assert tree(alice.home) == before


# --- a relay that is restarted ---------------------------------------------------------------------------


class Restarted:
    """A relay that can be ended, as by a power cut, and started again at the same place with the same key."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._identity = Identity.generate()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._port = 0

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._port)

    async def start(self) -> None:
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        _, self._port = await self._nursery.start(self._serve)

    async def _serve(self, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        relay = Relay(self._identity, Config(port=self._port), lambda _: None)
        try:
            with self._scope:
                await relay.serve(task_status=task_status)
        finally:
            self._ended.set()

    async def end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()


@pytest.fixture
async def relay(nursery: trio.Nursery) -> Restarted:
    made = Restarted(nursery)
    await made.start()
    return made


async def test_R5_offers_go_on_after_the_relay_was_restarted(
    relay: Restarted, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with bob.client(relay.address, role="receive", retry="1m") as him:
        offers = him.offers()
        looking = begin(nursery, offers.__anext__)
        await wait_all_tasks_blocked(0.01)  # it listens
        await relay.end()
        await relay.start()
        await bob.hears(events.Registered, times=2)
        async with alice.client(relay.address) as me:
            push = begin(nursery, partial(me.push, "bob", [alice.file(HELLO)]))
            await (await looking.result()).accept()
            await push.result()
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_R5_a_client_whose_relay_was_restarted_pushes_and_asks_as_before(
    relay: Restarted, alice: Person, bob: Person
) -> None:
    async with alice.client(relay.address, retry="1m") as me:
        assert [each.name for each in await me.who()] == ["alice"]
        await relay.end()
        await relay.start()
        async with taking_all(bob, relay.address):
            await me.push("bob", [alice.file(HELLO)])
            assert {each.name for each in await me.who()} == {"alice", "bob"}
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_R5_a_push_under_way_goes_on_after_the_relay_was_restarted(
    relay: Restarted, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    film = alice.file(content(6 * 1024 * 1024))
    async with (
        alice.client(relay.address, retry="1m") as me,
        bob.client(relay.address, role="receive", retry="1m", policy=["everybody:do=accept,rate=2MiB"]) as him,
    ):
        taking = begin(nursery, him.receive)
        push = begin(nursery, partial(me.push, "bob", [film]))
        await bob.hears(events.Progress, times=2)
        await relay.end()
        await alice.hears(events.StalledEvent)
        await relay.start()
        with trio.fail_after(2 * SOON):
            await push.result()
        await taking.cancel()
    assert bob.inbox == {"holiday.jpg": film.read_bytes()}
    assert alice.told(events.Resumed)
    assert len({event.transfer for event in alice.told(events.Progress)}) == 1


async def test_R5_a_push_that_waits_still_rings_after_the_relay_was_restarted(
    relay: Restarted, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(relay.address, retry="1m") as me:
        push = waiting(nursery, me, "bob", alice.file(HELLO))
        await alice.hears(events.WaitingFor)
        await relay.end()
        await alice.hears(events.StalledEvent)
        await relay.start()
        async with taking_all(bob, relay.address):
            await push.result()
    assert bob.inbox == {"holiday.jpg": HELLO}
    assert len(alice.told(events.WaitingFor)) == 1, "said once, however often it is begun anew"


async def test_R5_what_is_lost_stays_lost_where_nothing_is_to_be_tried_again(
    relay: Restarted, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(relay.address) as me, bob.client(relay.address, role="receive") as him:
        looking = begin(nursery, him.offers().__anext__)
        await bob.hears(events.Registered)
        await relay.end()
        error = await looking.error()
        assert isinstance(error, (ConnectionLost, Unreachable))
        with pytest.raises(Unreachable):
            await me.push("bob", [alice.file(HELLO)])
        await relay.start()
        assert [each.name for each in await me.who()] == []  # the next call makes a connection anew
