"""A relay that swaps keys where people meet for the first time: what gives it away, and what it cannot get.

At a first contact nobody can know whose key it is but by comparing it another way. ``verify`` gives them words to
compare; ``pair`` compares by itself. A pin makes every later swap an error.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from glide.client import endtoend
from glide.client.api import Client
from glide.client.pairing import Paired
from glide.crypto.identity import Identity, key_text
from glide.errors import ConnectionLost, Declined, Exit, GlideError, IntegrityError, KeyChanged
from glide.net.connection import Connection
from glide.net.opening import initiate, respond
from glide.people.known import Trust
from glide.people.words import new_code, words
from glide.protocol.endtoend import Confirm, Share
from glide.protocol.fields import Message
from glide.protocol.frames import Data
from glide.protocol.messages import (
    Hello,
    Incoming,
    Joined,
    People,
    Push,
    Queued,
    Ringing,
    Role,
    Ticket,
    Welcome,
    Who,
    Withdraw,
)
from glide.protocol.messages import Person as Listed
from glide.protocol.preface import Purpose
from tests.client.doing import Doing, begin
from tests.client.people import PATIENT, Person
from tests.doubles import MaliciousRelay, ManInTheMiddle, Session, Tapped
from tests.processes import Process, World


@dataclass
class Meeting:
    """Two who pair: the one who waits, the one who asks later, and a ticket for each."""

    transfer: bytes
    waiter: Session
    asker: Session
    tickets: dict[bytes, bytes] = field(default_factory=dict)  # to whose key it was given
    joined: dict[bytes, tuple[Tapped, Connection]] = field(default_factory=dict)
    full: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)


class Between(MaliciousRelay):
    """Brings two people together who pair, and tells each a key of its own in place of the other's.

    ``swaps`` says whether; without it this is an honest relay. ``heard`` is what the two said to each other.
    """

    def __init__(self, *, swaps: bool = True) -> None:
        super().__init__()
        self.swaps = swaps
        self.keys: dict[str, Identity] = {}  # by the name of whom it poses as
        self.heard: list[Message] = []
        self.meetings: list[Meeting] = []
        self._here: dict[str, Session] = {}
        self._seeking: dict[str, Session] = {}

    def key_of(self, name: str, honest: bytes) -> bytes:
        """What others are told of a person's key."""
        return self.keys.setdefault(name, Identity.generate()).public if self.swaps else honest

    async def _control(self, client: Tapped, connection: Connection) -> None:
        hello = await self._hear(connection)
        assert isinstance(hello, Hello)
        session = Session(hello.name or "", connection)
        if hello.role is not Role.ASK:
            self._here[session.name] = session
        try:
            await connection.send(Welcome())
            while True:
                match await self._hear(connection):
                    case Push(pair=True) as push:
                        await self._meet(session, push)
                    case Withdraw():
                        self._seeking.pop(session.name, None)
                    case Who():
                        people = [Listed(each.name, self._told(session, each)) for each in self._here.values()]
                        await connection.send(People(people=tuple(sorted(people, key=lambda each: each.name))))
        finally:
            for there in (self._here, self._seeking):
                if there.get(session.name) is session:
                    del there[session.name]

    def _told(self, asker: Session, person: Session) -> bytes:
        return person.key if asker.key == person.key else self.key_of(person.name, person.key)

    async def _meet(self, asker: Session, push: Push) -> None:
        waiter = self._seeking.pop(push.to, None)
        if waiter is None:
            self._seeking[asker.name] = asker
            await asker.connection.send(Queued(transfer=push.transfer))
            return
        meeting = Meeting(push.transfer, waiter, asker)
        meeting.tickets = {each.key: secrets.token_bytes(16) for each in (waiter, asker)}
        self.meetings.append(meeting)
        await waiter.connection.send(
            Incoming(
                sender=asker.name,
                key=self.key_of(asker.name, asker.key),
                transfer=push.transfer,
                ticket=meeting.tickets[waiter.key],
                pair=True,
            )
        )
        await asker.connection.send(
            Ringing(transfer=push.transfer, ticket=meeting.tickets[asker.key], key=self.key_of(waiter.name, waiter.key))
        )

    async def _data(self, client: Tapped, connection: Connection) -> None:
        ticket = await self._hear(connection)
        assert isinstance(ticket, Ticket)
        key = connection.peer_key
        (meeting,) = [each for each in self.meetings if each.tickets.get(key) == ticket.ticket]
        meeting.joined[key] = client, connection
        if len(meeting.joined) < 2:
            await meeting.over.wait()
            return
        try:
            await self._bring_together(meeting)
        finally:
            meeting.over.set()

    async def _bring_together(self, meeting: Meeting) -> None:
        left, right = meeting.joined[meeting.asker.key], meeting.joined[meeting.waiter.key]
        rests = []
        for _, connection in (left, right):
            await connection.send(Joined())
            rests.append(connection.detach()[1])
        asker, waiter = meeting.asker, meeting.waiter
        posing_as_waiter = self.keys.get(waiter.name)
        posing_as_asker = self.keys.get(asker.name)
        if posing_as_waiter is None or posing_as_asker is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, left[0], right[0], rests[0])
                nursery.start_soon(self._carry, right[0], left[0], rests[1])
            return
        to_asker, _, _ = await respond(
            left[0], frozenset({Purpose.PAIR}), posing_as_waiter, peer="the asker", deadlines=PATIENT,
            check=lambda _: None, mine=endtoend.FEATURES, already=rests[0],
            parts=endtoend.Binding(
                meeting.transfer, self.key, asker.name, asker.key, waiter.name, posing_as_waiter.public, Purpose.PAIR
            ).prologue,
        )  # fmt: skip  # the two sides beside each other
        to_waiter, _ = await initiate(
            right[0], Purpose.PAIR, posing_as_asker, peer="the waiter", deadlines=PATIENT,
            check=lambda _: None, mine=endtoend.FEATURES, already=rests[1],
            parts=endtoend.Binding(
                meeting.transfer, self.key, asker.name, posing_as_asker.public, waiter.name, waiter.key, Purpose.PAIR
            ).prologue,
        )  # fmt: skip  # the two sides beside each other
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retell, to_asker, to_waiter)
            nursery.start_soon(self._retell, to_waiter, to_asker)

    async def _carry(self, source: Tapped, sink: Tapped, first: bytes) -> None:
        piece = first or await source.receive_some()
        while piece:
            await sink.send(piece)
            piece = await source.receive_some()
        await sink.end()

    async def _retell(self, source: Connection, sink: Connection) -> None:
        try:
            while True:
                message = await source.receive()
                assert not isinstance(message, Data)
                self.heard.append(message)
                await sink.send(message)
        except ConnectionLost:
            pass
        finally:
            assert isinstance(sink.stream, Tapped)
            await sink.stream.end()


@pytest.fixture
async def between(nursery: trio.Nursery) -> Between:
    relay = Between()
    await nursery.start(relay.serve)
    return relay


class Codes:
    """A code that is shown to one, and typed by the other."""

    def __init__(self, typed: str = "") -> None:
        self.shown: list[str] = []
        self.asked = 0
        self._typed = typed
        self._there = trio.Event()

    def show(self, code: str) -> None:
        self.shown.append(code)
        self._there.set()

    async def ask(self) -> str:
        self.asked += 1
        await self._there.wait()
        return self._typed or self.shown[-1]

    async def there(self) -> None:
        await self._there.wait()


async def pairing(nursery: trio.Nursery, shows: Client, types: Client, codes: Codes) -> list[Doing[Paired]]:
    """One waits with a code before the other asks."""
    first = begin(nursery, partial(shows.pair, types.name, show=codes.show, ask=codes.ask))
    await codes.there()
    return [first, begin(nursery, partial(types.pair, shows.name, show=codes.show, ask=codes.ask))]


# --- pair ------------------------------------------------------------------------------------------------


async def test_the_double_brings_two_people_together_unless_it_swaps_keys(
    between: Between, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    between.swaps = False
    async with alice.client(between.address) as me, bob.client(between.address) as him:
        his, mine = await pairing(nursery, him, me, Codes())
        assert await mine.result() == Paired("bob", bob.key)
        assert await his.result() == Paired("alice", alice.key)
    assert alice.trusts(between.key, bob) is bob.trusts(between.key, alice) is Trust.VERIFIED


async def test_C1_C2_a_relay_that_swaps_keys_at_a_first_contact_is_found_by_pairing_at_both(
    between: Between, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(between.address) as me, bob.client(between.address) as him:
        for side in await pairing(nursery, him, me, Codes()):
            error = await side.error()
            assert isinstance(error, IntegrityError)
            assert "somebody is" in error.what
            assert error.exit is Exit.INTEGRITY
    assert alice.known.people() == bob.known.people() == []
    # It was in between, with the right code on both sides, and came no further than one proof.
    assert [type(message) for message in between.heard[:3]] == [Share, Share, Confirm]
    assert len([message for message in between.heard if isinstance(message, Confirm)]) == 1


async def test_C1_a_code_is_good_for_one_attempt_however_often_they_try(
    between: Between, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    codes = Codes()
    async with alice.client(between.address) as me, bob.client(between.address) as him:
        for attempt in range(1, 4):
            tries = Codes()
            for side in await pairing(nursery, him, me, tries):
                assert isinstance(await side.error(), IntegrityError)
            codes.shown += tries.shown
            assert (len(tries.shown), tries.asked) == (1, 1)
            assert len([message for message in between.heard if isinstance(message, Share)]) == 2 * attempt
    assert len(set(codes.shown)) == 3, "a code was shown again"
    assert alice.known.people() == bob.known.people() == []


async def test_C1_a_guess_at_a_code_is_seen_by_the_one_who_shows_it(
    between: Between, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    """Whoever takes a free name may guess once; then there is another code, and both know."""
    between.swaps = False
    mallory = Person("alice", alice.home.parent / "mallory")
    async with bob.client(between.address) as him:
        async with mallory.client(between.address) as guesser:
            codes = Codes(typed=new_code())
            his, guess = await pairing(nursery, him, guesser, codes)
            assert isinstance(await guess.error(), IntegrityError)
            error = await his.error()
            assert isinstance(error, IntegrityError)
            assert "burnt" in error.means
        # The next attempt is another code, whatever was learned of the first.
        async with alice.client(between.address) as me:
            again = Codes()
            his, mine = await pairing(nursery, him, me, again)
            await mine.result()
            await his.result()
        assert again.shown != codes.shown
    (pin,) = bob.known.people()
    assert pin.key == alice.key


@pytest.mark.parametrize("who", ["asker", "waiter"])
async def test_C1_a_pin_refuses_before_any_code_is_tried(
    between: Between, alice: Person, bob: Person, nursery: trio.Nursery, who: str
) -> None:
    if who == "asker":
        alice.pin(between.key, bob, Trust.SEEN)
    else:
        bob.pin(between.key, alice, Trust.SEEN)
    async with alice.client(between.address) as me, bob.client(between.address, ask_timeout="2s") as him:
        his, mine = await pairing(nursery, him, me, Codes())
        pinned, other = (mine, his) if who == "asker" else (his, mine)
        error = await pinned.error()
        assert isinstance(error, KeyChanged)
        assert error.exit is Exit.KEY
        other.scope.cancel()  # whoever waits for them now would wait until the time is over
    assert not [message for message in between.heard if isinstance(message, (Share, Confirm))]
    for person, friend in ((alice, bob), (bob, alice)):
        assert person.trusts(between.key, friend) in (Trust.NEW, Trust.SEEN)


# --- verify ----------------------------------------------------------------------------------------------


def verifies(w: World, relay: Between, person: str, other: str) -> Process:
    return w.run(person, "verify", other, "--as", person, "--relay", str(relay.address), "--json")


@pytest.mark.parametrize("swaps", [False, True], ids=["honest", "swapping"])
async def test_C1_the_words_differ_between_the_two_if_the_relay_swaps_keys(
    between: Between, tmp_path: Path, swaps: bool
) -> None:
    between.swaps = swaps
    w = World(tmp_path)
    people = {}
    for name in ("alice", "bob"):
        people[name] = Person(name, tmp_path / name)
    try:
        async with (
            people["alice"].client(between.address),
            people["bob"].client(between.address),
        ):
            processes = [verifies(w, between, "alice", "bob"), verifies(w, between, "bob", "alice")]
            for process in processes:
                assert await trio.to_thread.run_sync(process.wait) == 0, process
    finally:
        for process in w.started:
            await trio.to_thread.run_sync(process.end)
    shown = [[(row["key"], row["words"]) for row in process.event("words")["rows"]] for process in processes]
    assert (shown[0] == shown[1]) is not swaps
    mine = [(key_text(person.key), list(words(person.key))) for person in people.values()]
    assert [mine[0] in shown[0], mine[1] in shown[1]] == [True, True]
    assert [mine[1] in shown[0], mine[0] in shown[1]] == [not swaps, not swaps]
    if swaps:
        said = {tuple(row) for rows in shown for _, row in rows}
        assert len(said) == 4, "any two of the keys have the same words"


async def test_C1_what_is_pinned_is_shown_to_differ_instead_of_words(
    between: Between, tmp_path: Path, alice: Person, bob: Person
) -> None:
    alice.pin(between.key, bob, Trust.KNOWN)
    w = World(tmp_path)
    try:
        async with alice.client(between.address), bob.client(between.address):
            process = verifies(w, between, "alice", "bob")
            assert await trio.to_thread.run_sync(process.wait) == 5, process
            assert process.told("words") == []
    finally:
        for process in w.started:
            await trio.to_thread.run_sync(process.end)


# --- pushes ----------------------------------------------------------------------------------------------


async def test_C2_a_swapped_key_at_a_first_contact_is_not_noticed_by_a_push_and_is_by_a_strict_one(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    evil.behaviour = ManInTheMiddle()
    await bob.waits(nursery, evil.address)
    async with alice.client(evil.address) as me:
        with pytest.raises(GlideError) as caught:
            await me.push("bob", [alice.file(b"secret")], strict=True)
        assert caught.value.exit is Exit.KEY
        assert bytes(evil.behaviour.stolen) == b""
        await me.push("bob", [alice.file(b"secret")])
    assert bytes(evil.behaviour.stolen) == b"secret", "as docs/security.md says"


async def test_C1_C2_whoever_was_verified_cannot_be_stood_in_for(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(evil.key, bob, Trust.VERIFIED)
    bob.pin(evil.key, alice, Trust.VERIFIED)
    await bob.waits(nursery, evil.address)
    evil.behaviour = middle = ManInTheMiddle()
    async with alice.client(evil.address) as me:
        for strict in (False, True):
            with pytest.raises((KeyChanged, Declined)) as caught:
                await me.push("bob", [alice.file(b"secret")], strict=strict)
            assert caught.value.exit is Exit.KEY
    assert bytes(middle.stolen) == b""
    assert bob.inbox == {}
    assert {pin.key for person in (alice, bob) for pin in person.known.people()} == {alice.key, bob.key}
