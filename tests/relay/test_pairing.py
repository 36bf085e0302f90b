"""Two people who want to pair: they are brought together when each has asked for the other, and nobody else is rung."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from glide.crypto.identity import Identity
from glide.protocol.messages import (
    Failed,
    Goodbye,
    Hello,
    Incoming,
    Push,
    Queued,
    Refused,
    Reject,
    Ringing,
    Role,
    Withdraw,
)
from glide.relay.limits import Limits
from glide.relay.registry import Seeking
from glide.relay.ringing import Party
from glide.relay.server import Config
from tests.relay.conftest import Start
from tests.relay.raw import SOON, Client, Running, exactly, met, transfer

ID, OTHER, THIRD = bytes(range(16)), bytes(range(1, 17)), bytes(range(2, 18))


@pytest.fixture
async def home(start: Start) -> Running:
    """A relay as it comes."""
    return await start(Config(port=0))


async def pairs(later: Client, earlier: Client, id: bytes) -> tuple[Ringing, Incoming]:
    """``later`` asks for whom waits for them: both are rung."""
    await later.says(Push(to=earlier.name, transfer=id, pair=True))
    ringing, incoming = await later.hears(Ringing), await earlier.hears(Incoming)
    assert ringing == Ringing(transfer=id, ticket=ringing.ticket, key=earlier.identity.public)
    assert incoming == Incoming(
        sender=later.name, key=later.identity.public, transfer=id, ticket=incoming.ticket, pair=True
    )
    return ringing, incoming


@pytest.mark.parametrize("role", [Role.SEND, Role.RECEIVE])
async def test_two_who_ask_for_each_other_meet_the_later_one_as_the_sender(home: Running, role: Role) -> None:
    async with home.client("alice", role=role) as alice, home.client("bob", role=role) as bob:
        await bob.waits("alice", OTHER, pair=True)
        async with met(alice, bob, *await pairs(alice, bob, ID)) as (one, other):
            await other.send_all(b"hello")
            assert await exactly(one, 5) == b"hello"
        await alice.heard_all()
        await bob.heard_all()


async def test_who_has_not_asked_to_pair_is_never_rung(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", me) as daemon:
        await alice.waits("bob", ID, pair=True)
        await daemon.heard_all()
        async with home.client("bob", me, Role.SEND) as bob:
            await bob.heard_all()
            await pairs(bob, alice, OTHER)
            await daemon.heard_all()


async def test_who_receives_under_the_same_name_goes_on_undisturbed(home: Running) -> None:
    me = Identity.generate()
    async with home.client("carol") as carol, home.client("bob", me) as daemon, transfer(carol, daemon) as (one, other):
        async with home.client("alice", role=Role.SEND) as alice, home.client("bob", me, Role.SEND) as bob:
            await bob.waits("alice", OTHER, pair=True)
            await pairs(alice, bob, ID)
        await one.send_all(b"undisturbed")
        assert await exactly(other, 11) == b"undisturbed"
        await daemon.heard_all()


async def test_files_do_not_go_to_who_waits_to_pair(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", role=Role.SEND) as bob:
        await bob.waits("alice", OTHER, pair=True)
        await alice.says(Push(to="bob", transfer=ID))
        assert (await alice.hears(Failed)).message == "is connected, but takes no files now"
        await alice.waits("bob", ID)
        await bob.heard_all()
        await pairs(alice, bob, THIRD)


async def test_who_asks_for_somebody_else_is_not_met(home: Running) -> None:
    async with (
        home.client("alice", role=Role.SEND) as alice,
        home.client("bob", role=Role.SEND) as bob,
        home.client("mallory", role=Role.SEND) as mallory,
    ):
        await bob.waits("alice", ID, pair=True)
        await alice.waits("carol", OTHER, pair=True)
        await mallory.waits("bob", ID, pair=True)
        for client in (alice, bob, mallory):
            await client.heard_all()


async def test_the_newest_of_one_person_s_sessions_waits_in_place_of_the_older_ones(home: Running) -> None:
    me = Identity.generate()
    async with (
        home.client("alice", role=Role.SEND) as alice,
        home.client("bob", me, Role.SEND) as old,
        home.client("bob", me, Role.SEND) as new,
    ):
        await old.waits("alice", ID, pair=True)
        await new.waits("alice", ID, pair=True)
        failed = await old.hears(Failed)
        assert (failed.transfer, failed.code) == (ID, "replaced")
        await new.says(Push(to="alice", transfer=OTHER, pair=True))  # of one session, it is no different
        with trio.fail_after(SOON):
            said = [await new.connection.receive(), await new.connection.receive()]
        assert Queued(transfer=OTHER) in said
        assert [(one.transfer, one.code) for one in said if isinstance(one, Failed)] == [(ID, "replaced")]
        await pairs(alice, new, THIRD)
        await old.heard_all()


async def test_nobody_pairs_with_themselves(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice", me) as alice, home.client("alice", me, Role.SEND) as too:
        for client in (alice, too):
            await client.says(Push(to="alice", transfer=ID, pair=True))
            failed = await client.hears(Failed)
            assert (failed.code, failed.message) == ("refused", "You cannot pair with yourself.")


async def test_R9_another_key_cannot_ask_under_a_name_that_is_held(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", role=Role.SEND) as bob:
        await alice.waits("bob", ID, pair=True)
        async with await home.connect(Identity.generate()) as mallory:
            await mallory.send(Hello(role=Role.SEND, name="bob"))
            refused = await mallory.receive()
            assert isinstance(refused, Refused)
            assert refused.code == "name-taken"
        async with home.client("mallory", role=Role.SEND) as mallory:
            await mallory.waits("alice", ID, pair=True)
        await alice.heard_all()
        await pairs(bob, alice, OTHER)


async def test_R9_who_takes_a_name_that_was_given_up_does_not_find_its_holder_s_pairing(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        async with home.client("bob", role=Role.SEND) as bob:
            await bob.waits("alice", ID, pair=True)
        await home.gone("bob")
        async with home.client("bob", role=Role.SEND) as mallory:
            await alice.waits("bob", OTHER, pair=True)
            await mallory.heard_all()
            # If mallory asks, alice is told mallory's key: whether that is bob's is for her client to know.
            _, incoming = await pairs(mallory, alice, THIRD)
            assert incoming.key == mallory.identity.public != bob.identity.public


async def test_R9_a_session_that_was_replaced_is_met_no_more(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", me) as old:
        await old.waits("alice", ID, pair=True)
        async with home.client("bob", me) as new:
            await old.hears(Goodbye)
            await alice.waits("bob", OTHER, pair=True)
            await pairs(new, alice, THIRD)


async def test_who_has_been_met_waits_no_more(home: Running) -> None:
    me = Identity.generate()
    async with (
        home.client("alice", me, Role.SEND) as alice,
        home.client("alice", me, Role.SEND) as again,
        home.client("bob", role=Role.SEND) as bob,
    ):
        await bob.waits("alice", ID, pair=True)
        ringing, incoming = await pairs(alice, bob, ID)
        await bob.says(Withdraw(transfer=ID))  # too late: it has been used up, and the transfer is another's
        await again.waits("bob", OTHER, pair=True)
        await bob.heard_all()
        async with met(alice, bob, ringing, incoming):
            pass


async def test_who_finds_them_gone_waits_for_them_to_ask_again(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        async with home.client("bob", role=Role.SEND) as bob:
            await bob.waits("alice", OTHER, pair=True)
            await pairs(alice, bob, ID)
        assert await alice.hears(Queued) == Queued(transfer=ID)
        async with home.client("bob", role=Role.SEND) as bob, met(bob, alice, *await pairs(bob, alice, THIRD)):
            await alice.heard_all()


async def test_who_finds_them_gone_does_not_replace_a_newer_session_of_their_own(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice", me, Role.SEND) as old, home.client("alice", me, Role.SEND) as new:
        async with home.client("bob", role=Role.SEND) as bob:
            await bob.waits("alice", OTHER, pair=True)
            await pairs(old, bob, ID)
            await new.waits("bob", ID, pair=True)
        failed = await old.hears(Failed)
        assert (failed.transfer, failed.code) == (ID, "replaced")
        async with home.client("bob", role=Role.SEND) as bob:
            await pairs(bob, new, OTHER)


async def test_a_no_ends_it(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", role=Role.SEND) as bob:
        await bob.waits("alice", OTHER, pair=True)
        await pairs(alice, bob, ID)
        await bob.says(Reject(transfer=ID, code="key-changed", message="another key"))
        assert await alice.hears(Failed) == Failed(transfer=ID, code="declined", message="another key")
        await bob.waits("alice", OTHER, pair=True)
        await alice.heard_all()


async def test_who_has_withdrawn_is_not_met(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", role=Role.SEND) as bob:
        await bob.waits("alice", ID, pair=True)
        await bob.says(Withdraw(transfer=ID))
        await bob.heard_all()
        await alice.waits("bob", ID, pair=True)
        await bob.heard_all()


async def test_who_withdraws_while_it_rings_does_not_come(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", role=Role.SEND) as bob:
        await bob.waits("alice", ID, pair=True)
        _, incoming = await pairs(alice, bob, ID)
        data = await bob.redeem(incoming.ticket)
        await alice.says(Withdraw(transfer=ID))
        with trio.fail_after(SOON):
            assert isinstance(await data.receive(), Refused)
        await data.aclose()
        await alice.heard_all()


async def test_who_has_withdrawn_while_they_were_being_found_does_not_come_and_the_other_learns_it(
    home: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = trio.Event(), trio.Event()
    seeking = home.relay.registry.seeking

    @asynccontextmanager
    async def unhurried(name: str, other: str, session: Party, *, again: bool) -> AsyncIterator[Seeking[Party]]:
        """As with a registry that has to ask another machine."""
        async with seeking(name, other, session, again=again) as found:
            if found.found is not None:
                asked.set()
                with trio.CancelScope(shield=True):
                    await answered.wait()
            yield found

    monkeypatch.setattr(home.relay.registry, "seeking", unhurried)
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob", role=Role.SEND) as bob:
        await bob.waits("alice", ID, pair=True)
        await alice.says(Push(to="bob", transfer=ID, pair=True))
        with trio.fail_after(SOON):
            await asked.wait()
        await alice.says(Withdraw(transfer=ID))
        await alice.heard_all()
        answered.set()
        data = await bob.redeem((await bob.hears(Incoming)).ticket)
        with trio.fail_after(SOON):
            assert isinstance(await data.receive(), Refused)
        await data.aclose()


async def test_R2_who_has_as_many_transfers_as_may_be_can_still_be_met_by_whom_they_asked_for(start: Start) -> None:
    home = await start(Config(port=0, limits=Limits(transfers_per_client=1)))
    async with home.client("carol") as carol, home.client("alice") as alice, home.client("bob") as bob:
        await bob.waits("alice", ID, pair=True)
        async with transfer(carol, bob, OTHER), met(alice, bob, *await pairs(alice, bob, ID)):
            await bob.says(Push(to="dave", transfer=THIRD, wait=True))
            assert (await bob.hears(Failed)).code == "refused"
