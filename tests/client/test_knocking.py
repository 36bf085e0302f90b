"""Offers that come at a bad time, too many of them, or under ids and names that are not theirs to use."""

from __future__ import annotations

import gc
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

import glide
from glide import events
from glide.client import dialling, retry, ringing, who
from glide.client.address import Address
from glide.client.api import Client
from glide.client.offers import Offer
from glide.client.receive import MOST_OF_ONE, MOST_OF_STRANGERS
from glide.errors import Declined, Engaged, Exit, GlideError, KeyChanged, NotVerified, Stalled, Stopped, UsageError
from glide.net.connection import Connection
from glide.people.known import Trust
from glide.people.policy import UNLIMITED, Policy, Rule, Verdict
from glide.protocol.fields import Message
from glide.protocol.messages import People, Push, Reject, Role, Who
from glide.protocol.messages import Person as Listed
from glide.transfer import sending
from glide.transfer.gathering import gather
from glide.transfer.terms import Hint
from tests.client.doing import SOON, Doing, begin
from tests.client.people import TERMS, Person, content, taking_all
from tests.doubles import Behaviour, Lie, MaliciousRelay

M = TypeVar("M", bound=Message)

HELLO = b"hello"
KB, KIB = 1000, 1024
LONG = 600.0
ASK = Policy.accepting("ask")


@pytest.fixture
def mallory(tmp_path: Path) -> Person:
    return Person("mallory", tmp_path / "mallory")


@pytest.fixture
def somebody(tmp_path: Path) -> Callable[[str], Person]:
    """Makes another person of that name, with a key of their own."""
    return lambda name: Person(name, tmp_path / f"another-{name}-{secrets.token_hex(4)}")


def pushing(nursery: trio.Nursery, client: Client, to: str, path: Path, wait: float = 0.0) -> Doing[glide.Receipt]:
    return begin(nursery, partial(client.push, to, [path], wait=wait))


async def next_offer(offers: AsyncIterator[Offer]) -> Offer:
    with trio.fail_after(SOON):
        return await anext(offers)


async def offers_itself(connection: Connection, to: str, path: Path) -> None:
    """Send a file over a connection that was there before the offer."""
    gathered = gather([path], warn=lambda _: None)
    await sending.send(
        connection,
        gathered,
        transfer=bytes(16),
        to=to,
        message="",
        terms=TERMS,
        hint=Hint(),
        report=lambda _: None,
    )
    await connection.close()


async def knocks(person: Person, relay: Address, to: str, transfer: bytes) -> None:
    """Ring them under that id, and go away again as soon as they have come. Raises as a push."""
    async with dialling.connect(relay, person.me, role=Role.SEND, name=person.name, report=person.report) as control:
        with control.answers(transfer) as answers:
            rung = await ringing.ring(control, answers, Push(to=to, transfer=transfer), lambda: None)
            stream, _ = await ringing.pipe(control, answers, person.me, rung, to)
            await trio.aclose_forcefully(stream)


class Listener(MaliciousRelay):
    """An honest relay that tells what is said to it."""

    def __init__(self) -> None:
        super().__init__()
        self._news = trio.Event()

    async def hears(self, kind: type[M]) -> M:
        """The first message of that kind, said already or still to come."""
        with trio.fail_after(SOON):
            while not (found := [each for each in self.messages if isinstance(each, kind)]):
                await self._news.wait()
        return found[0]

    async def _hear(self, connection: Connection) -> Message:
        message = await super()._hear(connection)
        self._news.set()
        self._news = trio.Event()
        return message


async def asked_for_ever(_: events.OfferArrived) -> bool:
    await trio.sleep_forever()
    raise AssertionError("it sleeps for ever")


# --- ids that are taken ----------------------------------------------------------------------------------


async def test_R4_an_offer_under_the_id_of_my_own_push_is_refused_and_the_push_ends_well(
    honest: Address, alice: Person, carol: Person, mallory: Person, nursery: trio.Nursery
) -> None:
    """Whoever I push to knows the id, and may push it back before they answer."""
    carol_may = trio.Event()
    refused: list[GlideError] = []

    async def late(_: events.OfferArrived) -> bool:
        await carol_may.wait()
        return True

    async def pushes_it_back(offer: events.OfferArrived) -> bool:
        try:
            await knocks(mallory, honest, "alice", offer.transfer)
        except GlideError as error:
            refused.append(error)
        return True

    await carol.waits(nursery, honest, ASK, late)
    await mallory.waits(nursery, honest, ASK, pushes_it_back)
    async with taking_all(alice, honest) as me:
        third = pushing(nursery, me, "carol", alice.file(HELLO, "for-carol"))
        with trio.fail_after(SOON):
            await carol.hears(events.OfferArrived)
        await pushing(nursery, me, "mallory", alice.file(HELLO, "for-mallory")).result()
        carol_may.set()
        await third.result()
        # And alice goes on to receive.
        await mallory.push(honest, "alice", mallory.file(HELLO, "from-mallory"))
    (error,) = refused
    assert isinstance(error, Declined)
    assert "has a transfer of that id under way" in str(error)
    assert (mallory.inbox, carol.inbox) == ({"for-mallory": HELLO}, {"for-carol": HELLO})
    assert alice.inbox == {"from-mallory": HELLO}


async def test_R4_a_relay_that_rings_under_the_id_of_a_push_that_waits_is_refused(
    alice: Person, bob: Person, mallory: Person, nursery: trio.Nursery
) -> None:
    evil = Listener()
    await nursery.start(evil.serve)
    async with taking_all(alice, evil.address) as me:
        push = pushing(nursery, me, "bob", alice.file(HELLO), wait=LONG)
        with trio.fail_after(SOON):
            await alice.hears(events.WaitingFor)
        mine = (await evil.hears(Push)).transfer
        evil.behaviour = Lie(transfer=mine)
        ringing = begin(nursery, partial(mallory.push, evil.address, "alice", mallory.file(HELLO, "lies")))
        rejected = await evil.hears(Reject)
        await ringing.cancel()
        evil.behaviour = Behaviour()
        async with taking_all(bob, evil.address):
            await push.result()
    assert (rejected.transfer, rejected.code) == (mine, "declined")
    assert (alice.inbox, bob.inbox) == ({}, {"holiday.jpg": HELLO})


async def test_R4_a_relay_that_rings_under_the_id_of_an_offer_that_is_looked_at_is_refused(
    alice: Person, bob: Person, carol: Person, nursery: trio.Nursery
) -> None:
    may = trio.Event()

    async def late(_: events.OfferArrived) -> bool:
        await may.wait()
        return True

    evil = Listener()
    await nursery.start(evil.serve)
    await bob.waits(nursery, evil.address, ASK, late)
    push = begin(nursery, partial(alice.push, evil.address, "bob", alice.file(HELLO)))
    with trio.fail_after(SOON):
        offer = await bob.hears(events.OfferArrived)
    assert isinstance(offer, events.OfferArrived)
    evil.behaviour = Lie(transfer=offer.transfer)
    ringing = begin(nursery, partial(carol.push, evil.address, "bob", carol.file(HELLO, "lies")))
    rejected = await evil.hears(Reject)
    await ringing.cancel()
    may.set()
    await push.result()
    assert (rejected.transfer, rejected.code) == (offer.transfer, "declined")
    assert bob.inbox == {"holiday.jpg": HELLO}


# --- whom a strict push goes to --------------------------------------------------------------------------


async def test_C1_a_strict_push_that_has_waited_goes_to_nobody_who_was_forgotten_meanwhile(
    honest: Address, key: bytes, alice: Person, bob: Person, somebody: Callable[[str], Person], nursery: trio.Nursery
) -> None:
    other = somebody("bob")
    alice.pin(key, bob, Trust.VERIFIED)
    async with alice.client(honest) as me:
        push = begin(nursery, partial(me.push, "bob", [alice.file(HELLO)], wait=LONG, strict=True))
        with trio.fail_after(SOON):
            await alice.hears(events.WaitingFor)
        assert alice.known.forget("bob") == 1
        await other.waits(nursery, honest)
        error = await push.error()
    assert isinstance(error, NotVerified)
    assert (other.inbox, other.told(events.OfferArrived)) == ({}, [])
    assert alice.known.find(key, "bob") is None


# --- a rate, over transfers that follow each other -------------------------------------------------------


async def test_R10_a_rate_holds_over_transfers_one_after_the_other_and_offers_that_come_to_nothing(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    """Each of them alone would be a burst, and free."""
    rate, size, times = 100 * KB, 50 * KB, 6
    file = alice.file(content(size))
    await bob.waits(nursery, honest, Policy.parse(f"everybody:do=accept,rate={rate}"))
    begun = trio.current_time()
    for _ in range(times):
        await alice.push(honest, "bob", file)
        for _ in range(2):
            async with alice.reaches(honest, "bob", secrets.token_bytes(16)):
                pass  # and no offer is made
        gc.collect()
    # A second's worth may come at once, and what came last is paid for by whoever comes next.
    assert trio.current_time() - begun >= (times - 1) * size / rate - 1.0
    assert len(bob.inbox) == times


# --- what counts is what holds when the offer is made ----------------------------------------------------


@pytest.fixture
def special(bob: Person) -> Path:
    """A folder of bob's for people whom he knows."""
    folder = bob.home / "special"
    folder.mkdir()
    return folder


@pytest.fixture
def favours(special: Path) -> Policy:
    """People whom he knows send into that folder, as much as they like and as fast."""
    everybody = Rule(Verdict.ACCEPT, None, 300 * KIB, 64 * KIB)
    return Policy(everybody, Rule(Verdict.ACCEPT, special, UNLIMITED, UNLIMITED))


async def test_R10_the_folder_and_the_size_are_those_of_the_moment_of_the_offer(
    honest: Address, key: bytes, alice: Person, bob: Person, special: Path, favours: Policy, nursery: trio.Nursery
) -> None:
    bob.pin(key, alice)
    await bob.waits(nursery, honest, favours)
    for name, size in (("small", KIB), ("large", 400 * KIB)):
        bob.pin(key, alice)
        async with alice.reaches(honest, "bob", secrets.token_bytes(16)) as connection:
            assert bob.known.forget("alice") == 1
            if name == "small":
                await offers_itself(connection, "bob", alice.file(content(size), name))
            else:
                with pytest.raises(Declined, match="more than they take from you"):
                    await offers_itself(connection, "bob", alice.file(content(size), name))
            assert list(special.iterdir()) == []
            assert bob.trusts(key, alice) is (Trust.SEEN if name == "small" else Trust.NEW)
            bob.known.forget("alice")
    assert bob.inbox == {"small": content(KIB)}


async def test_R10_the_rate_is_that_of_the_moment_of_the_offer(
    honest: Address, key: bytes, alice: Person, bob: Person, favours: Policy, nursery: trio.Nursery
) -> None:
    size = 256 * KIB
    bob.pin(key, alice)
    await bob.waits(nursery, honest, favours)
    async with alice.reaches(honest, "bob", secrets.token_bytes(16)) as connection:
        bob.known.forget("alice")
        begun = trio.current_time()
        await offers_itself(connection, "bob", alice.file(content(size)))
    # What came last, a record at most, is not paid for.
    assert trio.current_time() - begun >= (size - 64 * KIB) / (64 * KIB) - 1.0


async def test_who_is_known_only_since_they_rang_is_known_when_they_offer(
    honest: Address, key: bytes, alice: Person, bob: Person, special: Path, favours: Policy, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest, favours)
    async with alice.reaches(honest, "bob", secrets.token_bytes(16)) as connection:
        bob.pin(key, alice)
        await offers_itself(connection, "bob", alice.file(content(400 * KIB), "large"))
    assert [path.name for path in special.iterdir()] == ["large"]
    assert bob.inbox == {}


async def test_R10_whoever_is_taken_from_no_more_when_they_offer_is_refused(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.pin(key, alice)
    await bob.waits(nursery, honest, Policy.accepting("known"))
    async with alice.reaches(honest, "bob", secrets.token_bytes(16)) as connection:
        bob.known.forget("alice")
        with pytest.raises(Declined, match="only from people they know"):
            await offers_itself(connection, "bob", alice.file(HELLO))
    assert bob.inbox == {}
    assert bob.known.find(key, "alice") is None


async def test_C1_a_key_that_is_not_the_one_on_record_any_more_when_they_offer_is_refused(
    honest: Address, key: bytes, alice: Person, bob: Person, somebody: Callable[[str], Person], nursery: trio.Nursery
) -> None:
    bob.pin(key, alice)
    await bob.waits(nursery, honest)
    async with alice.reaches(honest, "bob", secrets.token_bytes(16)) as connection:
        bob.known.forget("alice")
        bob.pin(key, somebody("alice"), Trust.VERIFIED)
        with pytest.raises(GlideError) as caught:
            await offers_itself(connection, "bob", alice.file(HELLO))
    assert isinstance(caught.value, (KeyChanged, Declined, Stopped))
    with trio.fail_after(SOON):
        failed = await bob.hears(events.Failed)
    assert isinstance(failed, events.Failed)
    assert failed.status == KeyChanged.code
    assert bob.inbox == {}


# --- many of them ----------------------------------------------------------------------------------------


async def test_R4_strangers_with_questions_do_not_take_the_places_of_people_whom_we_know(
    honest: Address, key: bytes, bob: Person, carol: Person, somebody: Callable[[str], Person], nursery: trio.Nursery
) -> None:
    bob.pin(key, carol, Trust.VERIFIED)
    await bob.waits(nursery, honest, Policy.parse("verified:do=accept").over(ASK), asked_for_ever)
    tell, ends = trio.open_memory_channel[GlideError](100)

    async def knock(stranger: Person, name: str) -> None:
        try:
            await stranger.push(honest, "bob", stranger.file(HELLO, name))
        except GlideError as error:
            await tell.send(error)

    strangers = [somebody(f"stranger-{number}") for number in range(16)]
    for stranger in strangers:
        for name in ("one", "two"):
            nursery.start_soon(knock, stranger, name)
    with trio.fail_after(SOON):
        errors = [await ends.receive() for _ in range(2 * len(strangers) - MOST_OF_STRANGERS)]
        await bob.hears(events.OfferArrived, times=MOST_OF_STRANGERS)
        # None of them has an answer, and none gives way.
        for name in ("first", "second", "third"):
            await carol.push(honest, "bob", carol.file(HELLO, name))
    assert {(type(error), error.exit) for error in errors} == {(Engaged, Exit.DECLINED)}
    assert set(bob.inbox) == {"first", "second", "third"}
    assert len(bob.told(events.OfferArrived)) == MOST_OF_STRANGERS + 3


async def test_who_was_only_seen_is_a_stranger_still(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    """A push that was accepted once must not buy places for ever."""
    bob.pin(key, alice, Trust.SEEN)
    await bob.waits(nursery, honest, ASK, asked_for_ever)
    for number in range(MOST_OF_ONE):
        nursery.start_soon(alice.push, honest, "bob", alice.file(HELLO, str(number)))
    with trio.fail_after(SOON):
        await bob.hears(events.OfferArrived, times=MOST_OF_ONE)
        with pytest.raises(Engaged) as caught:
            await alice.push(honest, "bob", alice.file(HELLO, "third"))
    assert caught.value.exit is Exit.DECLINED
    assert "has other offers to look at; try again later" in str(caught.value)
    assert len(bob.told(events.OfferArrived)) == MOST_OF_ONE


async def test_many_pushes_that_wait_for_somebody_who_does_not_know_me_all_arrive(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    names = [f"file-{number}" for number in range(6)]
    async with alice.client(honest) as me:
        pushes = [pushing(nursery, me, "bob", alice.file(content(100 * KIB), name), LONG) for name in names]
        with trio.fail_after(SOON):
            await alice.hears(events.WaitingFor, times=len(names))
        async with taking_all(bob, honest):
            for push in pushes:
                await push.result()
    assert set(bob.inbox) == set(names)
    assert not alice.told(events.DeclinedEvent)


async def test_a_push_with_time_waits_for_a_place_among_the_offers(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        first = [pushing(nursery, me, "bob", alice.file(HELLO, str(number))) for number in range(MOST_OF_ONE)]
        held = [await next_offer(offers) for _ in range(MOST_OF_ONE)]
        third = pushing(nursery, me, "bob", alice.file(HELLO, "third"), LONG)
        with trio.fail_after(SOON):
            stalled = await alice.hears(events.StalledEvent)
        assert isinstance(stalled, events.StalledEvent)
        assert "other offers to look at" in stalled.message
        assert (third.over, len(bob.told(events.OfferArrived))) == (False, MOST_OF_ONE)
        held[0].decline()
        assert isinstance(await first[int(held[0].names[0])].error(), Declined)
        offer = await next_offer(offers)
        assert offer.names == ("third",)
        await offer.accept()
        await third.result()
    assert bob.inbox == {"third": HELLO}


async def test_a_push_whose_time_is_over_with_no_place_is_told_why(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST", 3.0)  # the second attempt comes when the time is over
    await bob.waits(nursery, honest, ASK, asked_for_ever)
    async with alice.client(honest) as me:
        for number in range(MOST_OF_ONE):
            pushing(nursery, me, "bob", alice.file(HELLO, str(number)))
        with trio.fail_after(SOON):
            await bob.hears(events.OfferArrived, times=MOST_OF_ONE)
        error = await pushing(nursery, me, "bob", alice.file(HELLO, "third"), 1.5).error()
    assert (type(error), error.exit) == (Engaged, Exit.DECLINED)
    assert len(alice.told(events.StalledEvent)) == 1
    assert [event.to for event in alice.told(events.DeclinedEvent)] == ["bob"]


# --- answers ---------------------------------------------------------------------------------------------


def an_offer() -> Offer:
    who = bytes(16), "mallory", bytes(32)
    return Offer(events.OfferArrived(*who, 1, 5, "", "new", ("file",), lambda: iter(()), ()))


async def test_a_yes_in_the_moment_in_which_an_offer_ends_raises_and_returns_soon(autojump_clock: MockClock) -> None:
    """Which of two tasks that are due together runs first is chance: both orders come up in so many rounds."""
    late = 0
    for _ in range(50):
        offer, at = an_offer(), trio.current_time() + 1

        async def question(offer: Offer = offer, at: float = at) -> None:
            with trio.move_on_at(at):
                await offer.answer()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(question)
            await trio.sleep_until(at)
            late += offer.open
            with trio.fail_after(1), pytest.raises(Declined):
                await offer.accept()
        assert not offer.open
    assert late, "never in the same moment"


async def test_a_yes_with_an_unknown_conflict_is_wrong_usage_and_leaves_the_offer_open(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        offer = await next_offer(him.offers())
        with pytest.raises(UsageError, match="none of rename, skip, overwrite, refuse: 'bogus'"):
            await offer.accept(conflict="bogus")
        assert (offer.open, push.over) == (True, False)
        await offer.accept(conflict="skip")
        await push.result()
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_C1_a_yes_of_a_program_earns_no_more_than_seen_however_often(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        for name in ("one", "two"):
            push = pushing(nursery, me, "bob", alice.file(HELLO, name))
            await (await next_offer(offers)).accept()
            await push.result()
            assert bob.trusts(key, alice) is Trust.SEEN
        push = pushing(nursery, me, "bob", alice.file(HELLO, "three"))
        await (await next_offer(offers)).accept(known=True)
        await push.result()
    assert bob.trusts(key, alice) is Trust.KNOWN


# --- a list without end ----------------------------------------------------------------------------------


class Dripping(Listener):
    """Its list of people has always one more page, which comes in time."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0
        self.drips = True

    async def _hear(self, connection: Connection) -> Message:
        while True:
            message = await super()._hear(connection)
            if not isinstance(message, Who) or not self.drips:
                return message
            await trio.sleep(0.05)
            self.pages += 1
            somebody = Listed(name=f"person-{self.pages:06}", key=bytes(32))
            await connection.send(People(people=(somebody,), more=True))


async def test_a_relay_whose_list_drips_is_given_up_in_time(
    alice: Person, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(who, "_PATIENCE", 1.0)
    relay = Dripping()
    await nursery.start(relay.serve)
    async with alice.client(relay.address) as me:
        # Together: one of them waits for the other, which is no reason to wait longer.
        asking = [begin(nursery, me.who) for _ in range(2)]
        for each in asking:
            error = await each.error()
            assert isinstance(error, Stalled)
            assert "did not tell who is there" in error.what
        assert relay.pages > 1
        relay.drips = False
        with trio.fail_after(SOON):
            await me.who()  # the connection is as good as before


# --- names that are not theirs ---------------------------------------------------------------------------


async def test_C1_a_rule_for_a_name_opens_nothing_to_whoever_comes_first_under_it(
    honest: Address, key: bytes, bob: Person, carol: Person, somebody: Callable[[str], Person], nursery: trio.Nursery
) -> None:
    folder = bob.home / "for-carol"
    folder.mkdir()
    rule = Policy.parse(f"@carol:do=accept,into={folder},size=unlimited")
    await bob.waits(nursery, honest, rule.over(Policy.parse("everybody:do=accept,size=1000")))
    other = somebody("carol")
    with pytest.raises(Declined, match="more than they take from you"):
        await other.push(honest, "bob", other.file(content(50 * KB), "large"))
    await other.push(honest, "bob", other.file(HELLO, "small"))
    assert (bob.inbox, list(folder.iterdir())) == ({"small": HELLO}, [])
    # The one who was meant.
    bob.known.forget("carol")
    bob.pin(key, carol)
    await carol.push(honest, "bob", carol.file(content(50 * KB), "large"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"large": content(50 * KB)}


async def test_D3_a_yes_for_a_name_is_none_for_whoever_comes_first_under_it(
    honest: Address, key: bytes, bob: Person, carol: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest, Policy.parse("@carol:do=accept").over(Policy.accepting("known")))
    with pytest.raises(Declined, match="only from people they know"):
        await carol.push(honest, "bob", carol.file(HELLO))
    assert (bob.inbox, bob.known.find(key, "carol")) == ({}, None)
