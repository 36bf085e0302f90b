"""``glide.connect``: what a program can do with it, what it is told, and what is left when it stops in the middle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import glide
from glide import events
from glide.client.address import Address
from glide.client.api import Client
from glide.client.offers import Offer
from glide.crypto.identity import Identity, key_text
from glide.errors import (
    Declined,
    Exit,
    FileError,
    GlideError,
    KeyChanged,
    NameTaken,
    NobodyThere,
    NotVerified,
    Partly,
    Stopped,
    Unreachable,
    UsageError,
)
from glide.people.known import Trust
from tests.client.doing import SOON, Doing, begin
from tests.client.people import Person, content, taking_all

HELLO = b"hello"
KIB, MIB = 1024, 1024 * 1024
# So slow that a file of some megabytes is certainly still on its way when the first of it is there.
SLOWLY = "everybody:do=ask,rate=2MiB"
FILM = 12 * MIB


async def next_offer(offers: AsyncIterator[Offer]) -> Offer:
    with trio.fail_after(SOON):
        return await anext(offers)


def pushing(nursery: trio.Nursery, client: Client, to: str, *paths: Path) -> Doing[glide.Receipt]:
    return begin(nursery, partial(client.push, to, list(paths)))


# --- the module ------------------------------------------------------------------------------------------


def test_importing_glide_loads_nothing_heavy_and_asking_for_a_name_loads_it() -> None:
    code = (
        "import sys, glide; before = set(sys.modules); "
        "heavy = {'trio', 'typer', 'rich', 'cryptography', 'noise', 'msgspec', 'blake3', 'prompt_toolkit', "
        "'glide.client', 'glide.client.api', 'glide.errors'}; "
        "assert not heavy & before, heavy & before; "
        "glide.connect; assert 'trio' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(glide, name) is not None for name in glide.__all__)
    with pytest.raises(AttributeError, match="no attribute 'push'"):
        _ = getattr(glide, "push")  # noqa: B009  # mypy knows that it is not there


# --- being connected -------------------------------------------------------------------------------------


async def test_a_push_and_an_offer_by_way_of_the_api(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        push = begin(nursery, partial(me.push, "@Bob", [str(alice.file(HELLO, "a.txt"))], message="for you"))
        offer = await next_offer(offers)
        assert (offer.sender, offer.key, offer.trust) == ("alice", alice.key, Trust.NEW)
        assert (offer.items, offer.bytes, offer.message, offer.names) == (1, 5, "for you", ("a.txt",))
        assert list(offer.paths()) == ["a.txt"]
        received = await offer.accept()
        receipt = await push.result()
    assert bob.inbox == {"a.txt": HELLO}
    assert received.paths == (str(bob.into / "a.txt"),)
    assert (received.sender, received.sender_key, received.items, received.bytes) == ("alice", alice.key, 1, 5)
    assert received.digest == receipt.digest
    assert (receipt.sender, receipt.sender_key, receipt.to, receipt.to_key) == ("alice", alice.key, "bob", bob.key)
    assert (receipt.relay_key, receipt.items, receipt.bytes) == (key, 1, 5)
    assert alice.trusts(key, bob) is Trust.KNOWN
    assert bob.trusts(key, alice) is Trust.SEEN, "no person has said yes"


async def test_C1_known_takes_the_word_of_a_person(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        push = begin(nursery, partial(me.push, "bob", alice.file(HELLO)))
        await (await next_offer(him.offers())).accept(known=True)
        await push.result()
    assert bob.trusts(key, alice) is Trust.KNOWN


async def test_who_i_am_is_known_to_the_client(honest: Address, alice: Person) -> None:
    async with alice.client(honest) as me:
        assert (me.name, me.key) == ("alice", alice.key)
        assert me.known.relay(str(honest)) is not None
        assert "alice" in repr(me)


async def test_home_is_where_keys_and_settings_are(honest: Address, tmp_path: Path) -> None:
    home = tmp_path / "somebody"
    home.mkdir()
    (home / "config.toml").write_text(f'relay = "{honest}"\nas = "somebody"\n')
    async with glide.connect(home=home) as first:
        assert first.name == "somebody"
    async with glide.connect(home=home) as again:
        assert again.key == first.key
    async with glide.connect(name="else", home=tmp_path / "else", relay=str(honest)) as other:
        assert other.key != first.key
    assert {path.name for path in home.iterdir()} >= {"identity", "known.json"}


@pytest.mark.parametrize("flags", [{"idel": "5s"}, {"accepts": "all"}, {"from": "bob", "nothing": 1}])
async def test_a_flag_that_does_not_exist_is_an_error(honest: Address, alice: Person, flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        async with alice.client(honest, **flags):
            pytest.fail("it began")
    unknown = next(name for name in flags if name != "from")
    assert unknown in str(caught.value)
    assert not (alice.home / "known.json").exists(), "it went to the relay all the same"


@pytest.mark.parametrize("flags", [{"idle": "soon"}, {"accept": "most"}, {"conflict": "fight"}, {"policy": ["x"]}])
async def test_a_flag_with_a_value_that_it_cannot_have_is_an_error(
    honest: Address, alice: Person, flags: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as caught:
        async with alice.client(honest, role="receive", **flags) as me:
            await next_offer(me.offers())
    assert next(iter(flags)) in str(caught.value)


async def test_a_role_that_does_not_exist_is_an_error(honest: Address, alice: Person) -> None:
    with pytest.raises(UsageError):
        async with alice.client(honest, role="listen"):
            pytest.fail("it began")


@pytest.mark.parametrize("name", ["", "a b", "..", "x" * 33, "bob\x1b[2J"])
async def test_what_is_no_name_is_an_error(honest: Address, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        async with glide.connect(str(honest), name, home=tmp_path / "home"):
            pytest.fail("it began")
    assert str(caught.value).isprintable()


async def test_a_relay_that_is_not_there_is_unreachable(alice: Person) -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))  # and never listens
        with pytest.raises(Unreachable):
            async with alice.client(Address("127.0.0.1", taken.getsockname()[1])):
                pytest.fail("it began")


@pytest.mark.parametrize("said", [True, False], ids=["given", "pinned"])
async def test_C6_a_relay_with_another_key_is_not_connected_to(honest: Address, alice: Person, said: bool) -> None:
    other = Identity.generate().public
    if said:
        relay = f"{honest}#{key_text(other)}"
    else:
        alice.known.remember_relay(str(honest), other)
        relay = str(honest)
    with pytest.raises(KeyChanged) as caught:
        async with glide.connect(relay, "alice", home=alice.home):
            pytest.fail("it began")
    assert caught.value.exit is Exit.KEY


@pytest.mark.parametrize("role", ["send", "receive"])
async def test_R9_a_name_that_somebody_else_holds_is_taken(
    honest: Address, alice: Person, tmp_path: Path, role: str
) -> None:
    other = Person("alice", tmp_path / "other")
    async with alice.client(honest):
        with pytest.raises(NameTaken) as caught:
            async with other.client(honest, role=role):
                pytest.fail("it began")
        assert caught.value.exit is Exit.NAME


async def test_a_name_that_nobody_chose_gives_way_when_it_is_taken(
    honest: Address, alice: Person, bob: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    other = Person("alice", tmp_path / "other")
    async with alice.client(honest), taking_all(bob, honest), other.client(honest, name=None) as me:
        assert me.name == f"alice-{key_text(other.key)[:4]}"
        receipt = await me.push("bob", [other.file(HELLO)])
    assert receipt.sender == me.name
    assert [offer.sender for offer in bob.told(events.OfferArrived)] == [me.name]
    assert any(me.name in notice.message for notice in other.told(events.Notice))


async def test_a_name_that_nobody_chose_does_not_give_way_to_receive(
    honest: Address, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    other = Person("alice", tmp_path / "other")
    async with alice.client(honest):
        with pytest.raises(NameTaken):
            async with other.client(honest, name=None, role="receive"):
                pytest.fail("it began")


async def test_a_connection_that_is_cancelled_while_it_is_made_leaves_nobody_at_the_relay(
    honest: Address, alice: Person, bob: Person, relay_events: list[events.Event]
) -> None:
    # At every checkpoint on the way, one after the other.
    async with bob.client(honest, role="ask") as him:
        for checkpoints in range(60):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def later(checkpoints: int, scope: trio.CancelScope) -> None:
                        for _ in range(checkpoints):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(later, checkpoints, scope)
                    async with alice.client(honest):
                        await trio.sleep_forever()
            assert scope.cancelled_caught
        with trio.fail_after(SOON):
            while await him.who():
                pass  # an answer takes its time
    connected = [event for event in relay_events if isinstance(event, events.Connected)]
    gone = [event for event in relay_events if isinstance(event, events.Disconnected)]
    assert len(connected) == len(gone)


async def test_an_error_in_the_block_comes_out_as_it_is(honest: Address, alice: Person) -> None:
    error = Declined("no")
    with pytest.raises(Declined) as caught:
        async with alice.client(honest):
            raise error
    assert caught.value is error


# --- who -------------------------------------------------------------------------------------------------


async def test_who_lists_everybody_who_wants_to_be_seen(
    honest: Address, key: bytes, alice: Person, bob: Person, carol: Person, tmp_path: Path
) -> None:
    alice.pin(key, bob, Trust.VERIFIED)
    alice.known.remember(key, "carol", bob.key, Trust.SEEN)
    dave = Person("dave", tmp_path / "dave")
    async with (
        bob.client(honest, role="receive"),
        carol.client(honest),
        dave.client(honest, invisible=True),
        alice.client(honest) as me,
    ):
        found = {somebody.name: somebody for somebody in await me.who()}
    assert list(found) == ["alice", "bob", "carol"]
    assert (found["bob"].key, found["bob"].receiving, found["bob"].trust) == (bob.key, True, "verified")
    assert (found["carol"].key, found["carol"].receiving, found["carol"].trust) == (carol.key, False, "changed")
    assert (found["alice"].key, found["alice"].trust) == (alice.key, "new")


async def test_who_only_asks_has_no_name_there(honest: Address, alice: Person, bob: Person) -> None:
    async with alice.client(honest, role="ask") as me, bob.client(honest, role="ask") as him:
        assert await him.who() == []
        assert await me.who() == []


async def test_many_may_ask_at_once_who_is_there(honest: Address, alice: Person) -> None:
    found: list[list[glide.Somebody]] = []
    async with alice.client(honest) as me, trio.open_nursery() as nursery:

        async def ask() -> None:
            found.append(await me.who())

        for _ in range(8):
            nursery.start_soon(ask)
    assert [[each.name for each in answer] for answer in found] == [["alice"]] * 8


# --- pushes that come to nothing -------------------------------------------------------------------------


async def test_a_push_to_nobody_says_so_and_the_client_goes_on(honest: Address, alice: Person, bob: Person) -> None:
    async with alice.client(honest) as me:
        with pytest.raises(NobodyThere):
            await me.push("bob", [alice.file(HELLO)])
        async with taking_all(bob, honest):
            await me.push("bob", [alice.file(HELLO)])
    assert bob.inbox == {"holiday.jpg": HELLO}


@pytest.mark.parametrize(
    ("to", "paths", "more"),
    [
        ("a b", ["f"], {}),
        ("bob", [], {}),
        ("bob", [""], {}),
        ("bob", ["-", "f"], {}),
        ("bob", ["f"], {"message": "x" * 401}),
        ("bob", ["f"], {"message": "\ud800"}),
    ],
)
async def test_what_cannot_be_pushed_is_wrong_usage(
    honest: Address, alice: Person, to: str, paths: list[str], more: dict[str, str]
) -> None:
    async with alice.client(honest) as me:
        with pytest.raises(UsageError):
            await me.push(to, paths, message=more.get("message", ""))


async def test_what_is_not_there_is_found_out_before_anybody_is_disturbed(
    honest: Address, alice: Person, bob: Person
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive"):
        with pytest.raises(FileError):
            await me.push("bob", [alice.files / "nowhere"])
        assert not alice.told(events.Ringing)


async def test_C1_a_strict_push_goes_to_nobody_who_is_not_verified(
    honest: Address, key: bytes, alice: Person, bob: Person
) -> None:
    async with alice.client(honest) as me, taking_all(bob, honest):
        for trust in (Trust.NEW, Trust.SEEN, Trust.KNOWN):
            if trust is not Trust.NEW:
                alice.pin(key, bob, trust)
            with pytest.raises(NotVerified) as caught:
                await me.push("bob", [alice.file(HELLO)], strict=True)
            assert caught.value.exit is Exit.KEY
        assert not alice.told(events.Ringing)
        alice.pin(key, bob, Trust.VERIFIED)
        await me.push("bob", [alice.file(HELLO)], strict=True)
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_what_was_confirmed_of_a_push_that_is_not_whole_is_in_the_error(
    honest: Address, alice: Person, bob: Person
) -> None:
    alice.file(HELLO, "folder/good")
    alice.file(HELLO, "folder/bad\nname")
    async with alice.client(honest) as me, taking_all(bob, honest):
        with pytest.raises(Partly) as caught:
            await me.push("bob", [alice.files / "folder"])
    assert isinstance(caught.value.receipt, glide.Receipt)
    assert (caught.value.receipt.items, caught.value.receipt.bytes) == (1, 5)
    assert bob.inbox == {"folder/good": HELLO}


# --- offers ----------------------------------------------------------------------------------------------


async def test_offers_go_where_the_answer_says(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_bytes(b"older")
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        for conflict in (None, "overwrite"):
            push = pushing(nursery, me, "bob", alice.file(HELLO, "a.txt"))
            offer = await next_offer(offers)
            await offer.accept(tmp_path / "elsewhere", conflict=conflict)
            await push.result()
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == {
        "a.txt": HELLO,
        "a (1).txt": HELLO,
    }
    assert bob.inbox == {}


async def test_what_the_policy_decides_is_never_asked_about(
    honest: Address, alice: Person, bob: Person, carol: Person, key: bytes, nursery: trio.Nursery
) -> None:
    bob.pin(key, carol, Trust.VERIFIED)
    policy = ["everybody:do=deny", "verified:do=accept", "@alice:do=ask"]
    mallory = Person("mallory", bob.home.parent / "mallory")
    async with (
        alice.client(honest) as a,
        carol.client(honest) as c,
        mallory.client(honest) as m,
        bob.client(honest, role="receive", policy=policy) as him,
    ):
        offers = him.offers()
        pushes = [
            pushing(nursery, who, "bob", person.file(HELLO, person.name))
            for who, person in ((c, carol), (m, mallory), (a, alice))
        ]
        offer = await next_offer(offers)
        assert offer.sender == "alice"
        offer.decline()
        await pushes[0].result()
        assert isinstance(await pushes[1].error(), Declined)
        assert isinstance(await pushes[2].error(), Declined)
    assert bob.inbox == {"carol": HELLO}


async def test_whoever_is_declined_is_told_and_nothing_is_left(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        offer = await next_offer(offers)
        offer.decline()
        offer.decline()
        error = await push.error()
        assert isinstance(error, Declined)
        assert "said no" in str(error)
        with pytest.raises(Declined):
            await offer.accept()
    assert list(bob.into.iterdir()) == []
    assert bob.known.people() == []


async def test_an_offer_is_answered_once(honest: Address, alice: Person, bob: Person, nursery: trio.Nursery) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive", policy=[SLOWLY]) as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(content(FILM)))
        offer = await next_offer(offers)
        first = begin(nursery, offer.accept)
        await bob.hears(events.Progress)
        assert not offer.open
        with pytest.raises(Declined):
            await offer.accept()
        offer.decline()
        assert not push.over
        await first.cancel()
        await push.error()


async def test_an_offer_that_its_sender_withdraws_cannot_be_accepted_any_more(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        offer = await next_offer(offers)
        await push.cancel()
        await bob.hears(events.Failed)
        assert not offer.open
        with pytest.raises(Declined):
            await offer.accept()
        assert bob.inbox == {}
        again = pushing(nursery, me, "bob", alice.file(HELLO))
        await (await next_offer(offers)).accept()
        await again.result()


async def test_an_offer_that_was_withdrawn_before_it_was_looked_at_is_not_given_out(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        first = pushing(nursery, me, "bob", alice.file(HELLO, "first"))
        seen = begin(nursery, offers.__anext__)
        assert (await seen.result()).names == ("first",)
        second = pushing(nursery, me, "bob", alice.file(HELLO, "second"))
        await bob.hears(events.OfferArrived, times=2)
        await second.cancel()
        await bob.hears(events.Failed)
        third = pushing(nursery, me, "bob", alice.file(HELLO, "third"))
        with trio.fail_after(SOON):
            offer = await anext(offers)
        assert offer.names == ("third",)
        await offer.accept()
        await third.result()
        await first.cancel()


async def test_an_offer_that_nobody_answers_in_time_is_refused(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive", ask_timeout="300ms") as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        offer = await next_offer(offers)
        error = await push.error()
        assert isinstance(error, Declined)
        assert "answered within" in str(error)
        assert not offer.open
        with pytest.raises(Declined):
            await offer.accept()
    assert bob.inbox == {}


async def test_offers_without_anybody_who_iterates_are_refused_in_time(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, ask_timeout="300ms") as him:
        with trio.move_on_after(SOON) as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(anext, him.offers())
                await bob.hears(events.Registered)
                scope.cancel()
        assert scope.cancelled_caught
        # Receiving goes on without it.
        assert isinstance(await pushing(nursery, me, "bob", alice.file(HELLO)).error(), Declined)
        await bob.hears(events.Failed)


async def test_offers_may_be_looked_at_again_after_a_break(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        for name in ("first", "second", "third"):
            push = pushing(nursery, me, "bob", alice.file(HELLO, name))
            with trio.fail_after(SOON):
                async for offer in him.offers():
                    await offer.accept()
                    break
            await push.result()
    assert set(bob.inbox) == {"first", "second", "third"}


async def test_receiving_begins_with_the_first_look_at_the_offers(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest) as him:
        offers = him.offers()
        with pytest.raises(NobodyThere) as caught:
            await me.push("bob", [alice.file(HELLO)])
        assert "takes no files now" in str(caught.value)
        looking = begin(nursery, lambda: next_offer(offers))
        await bob.hears(events.Registered)
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        await (await looking.result()).accept()
        await push.result()


# --- side by side ----------------------------------------------------------------------------------------


async def test_one_client_pushes_and_receives_at_once(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with (
        alice.client(honest, role="receive", policy=["everybody:do=ask,rate=2MiB"]) as one,
        bob.client(honest, role="receive", policy=["everybody:do=ask,rate=2MiB"]) as other,
    ):
        forth = pushing(nursery, one, "bob", alice.file(content(MIB), "forth"))
        back = pushing(nursery, other, "alice", bob.file(content(MIB, 2), "back"))
        to_alice, to_bob = await next_offer(one.offers()), await next_offer(other.offers())
        here, there = begin(nursery, to_alice.accept), begin(nursery, to_bob.accept)
        # Each has begun before any has ended.
        await alice.hears(events.Progress)
        await bob.hears(events.Progress)
        await forth.result()
        await back.result()
        assert (await here.result()).paths == (str(alice.into / "back"),)
        assert (await there.result()).paths == (str(bob.into / "forth"),)
    assert (alice.inbox["back"], bob.inbox["forth"]) == (content(MIB, 2), content(MIB))


async def test_several_pushes_to_several_people_go_side_by_side(
    honest: Address, alice: Person, tmp_path: Path, nursery: trio.Nursery
) -> None:
    people = [Person(f"person{number}", tmp_path / f"person{number}") for number in range(4)]
    async with alice.client(honest) as me, trio.open_nursery() as receiving:
        for person in people:

            async def stays(person: Person = person) -> None:
                async with person.client(honest, role="receive", accept="all") as him:
                    await him.receive()

            receiving.start_soon(stays)
            await person.hears(events.Registered)
        pushes = [
            pushing(nursery, me, person.name, alice.file(content(100_000, seed), f"{person.name}/{seed}"))
            for person in people
            for seed in (1, 2)
        ]
        receipts = [await push.result() for push in pushes]
        receiving.cancel_scope.cancel()
    assert len({receipt.transfer for receipt in receipts}) == 8
    for person in people:
        assert person.inbox == {"1": content(100_000, 1), "2": content(100_000, 2)}


async def test_one_push_that_fails_does_not_touch_the_others(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        offer = await next_offer(offers)
        with pytest.raises(NobodyThere):
            await me.push("nobody", [alice.files])
        with pytest.raises(FileError):
            await me.push("bob", [alice.files / "nowhere"])
        await offer.accept()
        await push.result()


# --- stopping in the middle ------------------------------------------------------------------------------


async def test_a_push_that_is_cancelled_before_it_is_made_disturbs_nobody(
    honest: Address, alice: Person, bob: Person
) -> None:
    async with alice.client(honest) as me, taking_all(bob, honest):
        with trio.CancelScope() as scope:
            scope.cancel()
            await me.push("bob", [alice.file(HELLO)])
        assert scope.cancelled_caught
        await me.push("bob", [alice.file(HELLO, "next")])
    assert [offer.names for offer in bob.told(events.OfferArrived)] == [("next",)]
    assert not bob.told(events.Failed)


async def test_a_push_that_is_cancelled_while_it_rings_is_given_up_by_the_receiver_soon(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(HELLO, "never"))
        await alice.hears(events.Ringing)  # bob has been rung, and does not look yet
        await push.cancel()
        looking = begin(nursery, lambda: next_offer(offers))
        await bob.hears(events.Failed, events.OfferDeclined)
        again = pushing(nursery, me, "bob", alice.file(HELLO, "then"))
        offer = await looking.result()
        assert offer.names == ("then",)
        await offer.accept()
        await again.result()
    assert bob.inbox == {"then": HELLO}


async def test_a_push_that_is_cancelled_in_the_middle_is_kept_and_goes_on_there(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    film = alice.file(content(FILM))
    async with alice.client(honest) as me, bob.client(honest, role="receive", policy=[SLOWLY]) as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", film)
        taken = begin(nursery, (await next_offer(offers)).accept)
        await arrived(bob)
        await push.cancel()
        error = await taken.error()
        assert isinstance(error, Stopped)
        assert "alice" in error.what
        assert error.exit is Exit.DECLINED
    assert bob.inbox == {}
    await goes_on(honest, alice, bob, film)


async def test_an_accept_that_is_cancelled_in_the_middle_is_kept_and_goes_on_there(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    film = alice.file(content(FILM))
    async with alice.client(honest) as me, bob.client(honest, role="receive", policy=[SLOWLY]) as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", film)
        taken = begin(nursery, (await next_offer(offers)).accept)
        await arrived(bob)
        await taken.cancel()
        error = await push.error()
        assert isinstance(error, Stopped)
        assert "bob" in error.what
        assert error.exit is Exit.DECLINED
        # It was one transfer that was stopped, not receiving.
        another = pushing(nursery, me, "bob", alice.file(HELLO, "another"))
        await (await next_offer(offers)).accept()
        await another.result()
    assert bob.inbox == {"another": HELLO}
    await goes_on(honest, alice, bob, film)


async def test_an_accept_that_is_cancelled_at_once_takes_nothing(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async with alice.client(honest) as me, bob.client(honest, role="receive") as him:
        offers = him.offers()
        push = pushing(nursery, me, "bob", alice.file(HELLO))
        offer = await next_offer(offers)
        with trio.CancelScope() as scope:
            scope.cancel()
            await offer.accept()
        assert scope.cancelled_caught
        error = await push.error()
        assert error.exit is Exit.DECLINED
    assert bob.inbox == {}


async def test_a_client_that_ends_in_the_middle_of_receiving_tells_the_sender_and_keeps_what_is_there(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    film = alice.file(content(FILM))
    async with alice.client(honest) as me:
        async with bob.client(honest, role="receive", policy=[SLOWLY]) as him:
            offers = him.offers()
            push = pushing(nursery, me, "bob", film)
            taken = begin(nursery, (await next_offer(offers)).accept)
            await arrived(bob)
        error = await push.error()
        assert isinstance(error, Stopped)
        assert isinstance(await taken.error(), GlideError), "whoever waits for it is not left waiting"
    await goes_on(honest, alice, bob, film)


async def test_a_client_that_ends_in_the_middle_of_sending_tells_the_receiver(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    film = alice.file(content(FILM))
    async with bob.client(honest, role="receive", policy=[SLOWLY]) as him:
        offers = him.offers()
        with trio.CancelScope() as scope:
            async with alice.client(honest) as me:

                async def stop_when_some_is_there() -> None:
                    offer = await next_offer(offers)
                    nursery.start_soon(refuses_in_the_end, offer)
                    await arrived(bob)
                    scope.cancel()

                nursery.start_soon(stop_when_some_is_there)
                await me.push("bob", [film])
        failed = await bob.hears(events.Failed)
        assert isinstance(failed, events.Failed)
        assert failed.status == "cancelled"
    await goes_on(honest, alice, bob, film)


async def test_offers_end_with_the_reason_when_a_newer_session_takes_the_name(
    honest: Address, bob: Person, nursery: trio.Nursery
) -> None:
    async with bob.client(honest, role="receive") as him:
        offers = him.offers()
        looking = begin(nursery, lambda: next_offer(offers))
        await wait_all_tasks_blocked(0.05)
        async with bob.client(honest, role="receive"):
            error = await looking.error()
            assert error.exit is Exit.NAME
            with pytest.raises(GlideError):
                await next_offer(offers)


async def refuses_in_the_end(offer: Offer) -> None:
    with pytest.raises(GlideError):
        await offer.accept()


async def arrived(person: Person) -> None:
    """Wait until some of a transfer is on their disk, and told so."""
    with trio.fail_after(SOON):
        while not any(progress.bytes > 0 for progress in person.told(events.Progress)):
            await person.hears(events.Progress, times=len(person.told(events.Progress)) + 1)


async def goes_on(relay: Address, sender: Person, receiver: Person, film: Path) -> None:
    """The same push again ends with the whole file, of which some had been kept; nobody is asked about it again."""
    sender.events.clear()
    async with (
        sender.client(relay) as me,
        receiver.client(relay, role="receive") as him,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(him.receive)
        with trio.fail_after(SOON):
            await me.push(receiver.name, [film])
        nursery.cancel_scope.cancel()
    (resumed,) = sender.told(events.Resumed)
    assert resumed.bytes > 0
    assert receiver.inbox[film.name] == film.read_bytes()
    assert receiver.stages == []


async def test_a_push_that_is_stopped_when_it_has_told_of_the_delivery_still_has_its_receipt(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = alice.report

    def report(event: events.Event) -> None:
        real(event)
        if isinstance(event, events.Delivered):
            push.scope.cancel()

    monkeypatch.setattr(alice, "report", report)
    async with alice.client(honest) as me, taking_all(bob, honest):
        push = begin(nursery, partial(me.push, "bob", [alice.file(HELLO)]))
        receipt = await push.result()
    assert (receipt.to, receipt.bytes) == ("bob", len(HELLO))
    assert push.scope.cancel_called
    assert bob.inbox == {"holiday.jpg": HELLO}
