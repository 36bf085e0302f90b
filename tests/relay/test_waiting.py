"""Pushes that wait at the relay until somebody takes files: they ring then, once, and end with who said them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from glide.crypto.identity import Identity
from glide.errors import ConnectionLost
from glide.events import Connected
from glide.net.deadlines import Deadlines
from glide.protocol.messages import (
    Failed,
    Goodbye,
    Incoming,
    Push,
    Queued,
    Refused,
    Reject,
    Ringing,
    Role,
    Who,
    Withdraw,
)
from glide.relay.limits import Limits
from glide.relay.server import Config
from tests.relay.conftest import Start
from tests.relay.raw import SOON, Client, Running, crowd, exactly, met, transfer

ID, OTHER, THIRD = bytes(range(16)), bytes(range(1, 17)), bytes(range(2, 18))


def config(limits: Limits | None = None, deadlines: Deadlines | None = None) -> Config:
    return Config(port=0, limits=limits or Limits(), deadlines=deadlines or Deadlines())


@pytest.fixture
async def home(start: Start) -> Running:
    """A relay as it comes."""
    return await start(config())


async def refused(client: Client, push: Push) -> str:
    """The relay refuses a push; why."""
    await client.says(push)
    failed = await client.hears(Failed)
    assert (failed.transfer, failed.code) == (push.transfer, "refused")
    return failed.message


# --- it rings when they come -----------------------------------------------------------------------------


async def test_a_push_that_waits_rings_as_soon_as_they_take_files(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        async with home.client("bob") as bob:
            ringing, incoming = await alice.heard_ringing(bob)
            assert ringing == Ringing(transfer=ID, ticket=ringing.ticket, key=bob.identity.public)
            assert incoming == Incoming(sender="alice", key=alice.identity.public, transfer=ID, ticket=incoming.ticket)
            async with met(alice, bob, ringing, incoming) as (one, other):
                await one.send_all(b"at last")
                assert await exactly(other, 7) == b"at last"
            await alice.heard_all()


async def test_it_rings_at_once_if_they_are_there(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob:
        await alice.says(Push(to="bob", transfer=ID, wait=True))
        async with met(alice, bob, *await alice.heard_ringing(bob)):
            pass


async def test_it_does_not_ring_whoever_only_sends(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        async with home.client("bob", role=Role.SEND) as bob, home.client("carol") as carol:
            for client in (alice, bob, carol):
                await client.heard_all()


async def test_it_waits_on_if_they_go_away_before_they_take_it_and_says_so_once(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        tickets = []
        for turn in range(3):
            async with home.client("bob") as bob:
                ringing, _ = await alice.heard_ringing(bob)
                tickets.append(ringing.ticket)
                await alice.heard_all()
            await home.gone("bob", turn + 1)
            await alice.heard_all()
        assert len(set(tickets)) == 3
        async with home.client("bob") as bob, met(alice, bob, *await alice.heard_ringing(bob)):
            pass


async def test_whoever_does_not_come_is_not_rung_again_before_they_register_anew(start: Start) -> None:
    home = await start(config(Limits(ticket_life=0.2)))
    me = Identity.generate()
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        async with home.client("bob", me) as idle:
            ringing, _ = await alice.heard_ringing(idle)
            data = await alice.redeem(ringing.ticket)
            with trio.fail_after(SOON):
                assert isinstance(await data.receive(), Refused)
            await data.aclose()
            for client in (idle, alice):
                await client.heard_all()
            async with home.client("bob", me) as newer, met(alice, newer, *await alice.heard_ringing(newer)):
                await idle.hears(Goodbye)


async def test_a_push_that_rang_and_found_them_gone_is_said_to_wait_then(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        async with home.client("bob") as bob:
            await alice.says(Push(to="bob", transfer=ID, wait=True))
            await alice.heard_ringing(bob)
        assert await alice.hears(Queued) == Queued(transfer=ID)
        async with home.client("bob") as bob, met(alice, bob, *await alice.heard_ringing(bob)):
            pass


async def test_who_could_not_come_is_waited_for(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        me = Identity.generate()
        async with home.client("bob", me) as bob:
            await alice.heard_ringing(bob)
            await bob.says(Reject(transfer=ID, code="nobody", message="could not reach the relay"))
            await bob.heard_all()
            await alice.heard_all()
            async with home.client("bob", me) as newer:
                await alice.heard_ringing(newer)


async def test_a_no_ends_it(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        async with home.client("bob") as bob:
            await alice.heard_ringing(bob)
            await bob.says(Reject(transfer=ID, code="declined", message="not from you"))
            assert await alice.hears(Failed) == Failed(transfer=ID, code="declined", message="not from you")
        await home.gone("bob")
        async with home.client("bob") as bob:
            await bob.heard_all()
            await alice.heard_all()


async def test_both_ends_may_be_the_same_person_on_two_machines(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=2)))
    me = Identity.generate()
    async with home.client("alice", me, Role.SEND) as sending:
        await sending.waits("alice", ID)
        await sending.waits("alice", OTHER)  # all that one may have, and they must not be in their own way
        async with home.client("alice", me) as receiving:
            first = await receiving.hears(Incoming)
            assert (await sending.hears(Ringing)).transfer == first.transfer
            await receiving.says(Reject(transfer=first.transfer, code="declined"))
            await sending.hears(Failed)
            second = await receiving.hears(Incoming)
            assert {first.transfer, second.transfer} == {ID, OTHER}


# --- it ends ---------------------------------------------------------------------------------------------


async def test_a_withdrawn_push_does_not_ring_and_nothing_is_said_of_it(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        await alice.says(Withdraw(transfer=ID))
        await alice.heard_all()
        async with home.client("bob") as bob:
            await bob.heard_all()
            await alice.heard_all()
            await alice.says(Push(to="bob", transfer=ID))  # the id is free again
            await alice.heard_ringing(bob)


async def test_a_push_that_is_withdrawn_before_it_is_looked_at_is_withdrawn(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob:
        await alice.connection.send(Push(to="carol", transfer=ID, wait=True), Withdraw(transfer=ID))
        await alice.connection.send(Push(to="bob", transfer=OTHER, wait=True))
        # Whether it was withdrawn before it was said to wait, or after, is for the relay's scheduler to choose.
        said = await alice.connection.receive()
        if said == Queued(transfer=ID):
            said = await alice.connection.receive()
        assert isinstance(said, Ringing)
        await bob.hears(Incoming)
        async with home.client("carol") as carol:
            await carol.heard_all()


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("early", [True, False])
async def test_what_rings_is_called_off_when_it_is_withdrawn(home: Running, wait: bool, early: bool) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob:
        await alice.says(Push(to="bob", transfer=ID, wait=wait))
        ringing, incoming = await alice.heard_ringing(bob)
        first = await bob.redeem(incoming.ticket) if early else await alice.redeem(ringing.ticket)
        await alice.says(Withdraw(transfer=ID))
        await alice.heard_all()
        late = await alice.redeem(ringing.ticket) if early else await bob.redeem(incoming.ticket)
        for data in (first, late):
            with trio.fail_after(SOON):
                assert isinstance(await data.receive(), Refused)
            await data.aclose()
        await alice.heard_all()
        await bob.heard_all()
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob:
        await alice.heard_all()
        await bob.heard_all()


@pytest.mark.parametrize("wait", [True, False])
async def test_a_transfer_that_has_come_together_goes_on_when_its_push_is_withdrawn(home: Running, wait: bool) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob:
        await alice.says(Push(to="bob", transfer=ID, wait=wait))
        async with met(alice, bob, *await alice.heard_ringing(bob)) as (one, other):
            await alice.says(Withdraw(transfer=ID))
            await alice.heard_all()
            await one.send_all(b"still going")
            assert await exactly(other, 11) == b"still going"


async def test_R9_nobody_withdraws_another_s_push(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("mallory") as mallory:
        await alice.waits("bob", ID)
        for meddler, id in ((mallory, ID), (alice, OTHER)):
            await meddler.says(Withdraw(transfer=id))
            await meddler.says(Reject(transfer=id, code="declined"))
            await meddler.heard_all()
        async with home.client("bob") as bob:
            ringing, incoming = await alice.heard_ringing(bob)
            for meddler in (mallory, bob):
                await meddler.says(Withdraw(transfer=ID))
                await meddler.heard_all()
            async with met(alice, bob, ringing, incoming):
                pass


async def test_an_id_that_waits_or_rings_or_runs_is_not_taken_again(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        await alice.waits("bob", ID)
        again = [Push("bob", ID), Push("bob", ID, wait=True), Push("carol", ID, wait=True), Push("bob", ID, pair=True)]
        for push in again[1:]:
            assert "under way already" in await refused(alice, push)
        async with home.client("bob") as bob:
            ringing, incoming = await alice.heard_ringing(bob)
            for push in again:
                assert "under way already" in await refused(alice, push)
            async with met(alice, bob, ringing, incoming):
                for push in again:
                    assert "under way already" in await refused(alice, push)


async def test_an_id_that_another_rings_them_with_is_refused_when_it_would_ring(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("carol", role=Role.SEND) as carol:
        await alice.waits("bob", ID)
        await carol.waits("bob", ID)
        async with home.client("bob") as bob:
            assert (await bob.hears(Incoming)).transfer == ID
            with trio.fail_after(SOON):
                answers = [await alice.connection.receive(), await carol.connection.receive()]
            assert sorted(type(answer).__name__ for answer in answers) == ["Failed", "Ringing"]
            await bob.heard_all()


async def test_it_is_gone_with_its_session(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=1)))
    me = Identity.generate()
    for turn in range(3):
        async with home.client("alice", me, Role.SEND) as alice:
            await alice.waits("bob", ID)
        await home.gone("alice", turn + 1)
    async with home.client("bob") as bob:
        await bob.heard_all()


async def test_it_is_gone_when_its_session_is_replaced(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice", me) as old:
        await old.waits("bob", ID)
        async with home.client("alice", me) as new:
            await old.hears(Goodbye)
            async with home.client("bob") as bob:
                await bob.heard_all()
                await new.heard_all()


async def test_R4_a_transfer_that_had_waited_outlives_its_session(home: Running) -> None:
    async with AsyncExitStack() as stack:
        async with home.client("alice", role=Role.SEND) as alice:
            await alice.waits("bob", ID)
            bob = await stack.enter_async_context(home.client("bob"))
            one, other = await stack.enter_async_context(met(alice, bob, *await alice.heard_ringing(bob)))
        await home.gone("alice")
        await one.send_all(b"after")
        assert await exactly(other, 5) == b"after"


# --- limits ----------------------------------------------------------------------------------------------


async def test_R2_what_waits_counts_for_its_sender(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=3)))
    me = Identity.generate()
    async with home.client("alice", me, Role.SEND) as alice, home.client("alice", me, Role.SEND) as too:
        await alice.waits("bob", ID)
        await alice.waits("carol", OTHER, pair=True)
        await too.waits("bob", THIRD)
        async with home.client("dave") as dave:
            for number in range(20):
                flood = number.to_bytes(16, "big")
                assert "You have 3" in await refused(alice, Push("bob", flood, wait=True))
                assert "You have 3" in await refused(too, Push("bob", flood, pair=True))
            assert "You have 3" in await refused(too, Push("dave", bytes(16)))
            await alice.says(Withdraw(transfer=ID))
            await alice.heard_all()
            await alice.says(Push(to="dave", transfer=ID))
            await alice.heard_ringing(dave)
            assert "You have 3" in await refused(too, Push("dave", bytes(16)))


async def test_R2_who_waits_for_others_can_still_be_sent_to(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=2)))
    async with home.client("alice") as alice, home.client("carol", role=Role.SEND) as carol:
        await alice.waits("bob", ID)
        await alice.waits("bob", OTHER)
        await carol.rings(alice, ID)
        await carol.rings(alice, OTHER)


async def test_R2_who_waits_on_for_others_can_still_be_sent_to(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=1)))
    async with home.client("alice") as alice, home.client("carol", role=Role.SEND) as carol:
        await alice.waits("bob", ID)
        for turn in range(2):
            async with home.client("bob") as bob:
                await alice.heard_ringing(bob)
                await carol.says(Push(to="alice", transfer=OTHER))  # one that rings is another matter
                assert "alice has 1" in (await carol.hears(Failed)).message
                await bob.says(Reject(transfer=ID, code="nobody"))
                await bob.heard_all()
            await home.gone("bob", turn + 1)
            await carol.rings(alice, OTHER)
            await alice.says(Reject(transfer=OTHER, code="declined"))
            await carol.hears(Failed)


async def test_R2_a_transfer_that_had_waited_keeps_its_seat_when_its_session_has_gone(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=1)))
    me = Identity.generate()
    async with AsyncExitStack() as stack:
        bob = await stack.enter_async_context(home.client("bob"))
        async with home.client("alice", me, Role.SEND) as alice:
            await alice.says(Push(to="bob", transfer=ID, wait=True))
            async with met(alice, bob, *await alice.heard_ringing(bob)):
                await alice.connection.aclose()
                await home.gone("alice")
                again = await stack.enter_async_context(home.client("alice", me, Role.SEND))
                assert "You have 1" in await refused(again, Push("carol", OTHER, wait=True))
        # What the two had is over when the relay has seen both ends of it go.
        with trio.fail_after(SOON):
            while True:
                await again.says(Push("carol", OTHER, wait=True))
                answer = await again.connection.receive()
                if isinstance(answer, Queued):
                    break
        assert "You have 1" in await refused(again, Push("carol", THIRD, wait=True))


async def test_who_is_refused_in_line_lets_the_next_one_ring(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=2)))
    async with (
        home.client("alice", role=Role.SEND) as alice,
        home.client("bob") as bob,
        home.client("carol", role=Role.SEND) as carol,
        home.client("dave", role=Role.SEND) as dave,
    ):
        await alice.rings(bob, ID)
        await alice.rings(bob, OTHER)
        await carol.waits("bob", ID)  # which is taken at bob's
        await dave.waits("bob", THIRD)
        await bob.says(Reject(transfer=OTHER, code="declined"))
        assert (await carol.hears(Failed)).code == "refused"
        await dave.heard_ringing(bob)


async def test_R2_many_who_wait_for_one_ring_as_many_as_may_and_then_in_line(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=3)))
    waiting: dict[bytes, Client] = {}
    async with AsyncExitStack() as stack:
        for number in range(10):
            client = await stack.enter_async_context(home.client(f"person-{number}", role=Role.SEND))
            await client.waits("bob", bytes([number]) * 16)
            waiting[bytes([number]) * 16] = client
        bob = await stack.enter_async_context(home.client("bob"))
        ringing = [(await bob.hears(Incoming)).transfer for _ in range(3)]
        await bob.heard_all()
        late = await stack.enter_async_context(home.client("late", role=Role.SEND))
        assert "bob has 3 transfers" in await refused(late, Push("bob", ID))
        # Two go away while they stand in line: nobody behind them is kept.
        in_line = [id for id in waiting if id not in ringing]
        for id in in_line[:2]:
            await waiting.pop(id).connection.aclose()
            await home.gone(f"person-{id[0]}")
        answered: list[bytes] = []
        while len(answered) < len(waiting):
            id = ringing.pop(0)
            await waiting[id].hears(Ringing)
            await bob.says(Reject(transfer=id, code="declined"))
            await waiting[id].hears(Failed)
            answered.append(id)
            if len(answered) + len(ringing) < len(waiting):
                ringing.append((await bob.hears(Incoming)).transfer)
        assert sorted(answered) == sorted(waiting)
        await bob.heard_all()


async def test_who_stands_in_line_waits_on_when_they_leave(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=1)))
    async with (
        home.client("alice", role=Role.SEND) as alice,
        home.client("carol", role=Role.SEND) as carol,
        AsyncExitStack() as running,
    ):
        async with home.client("bob") as bob:
            await running.enter_async_context(transfer(alice, bob, ID))
            await carol.waits("bob", OTHER)
        await home.gone("bob")
        # Their transfer goes on; another person has the name meanwhile.
        async with home.client("bob") as another, met(carol, another, *await carol.heard_ringing(another)):
            pass


# --- a relay that ends, and clients that do not read -----------------------------------------------------


async def test_while_draining_nothing_waits_any_more(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob, home.client("carol", role=Role.SEND) as carol:
        await carol.waits("dave", ID)
        await carol.waits("alice", OTHER, pair=True)
        async with transfer(alice, bob, ID):
            home.relay.drain()
            assert (await carol.hears(Goodbye)).code == "unreachable"
            await carol.connection.aclose()
            for push in (Push("dave", OTHER, wait=True), Push("bob", OTHER, pair=True)):
                assert "shutting down" in await refused(alice, push)
        for client in (alice, bob):
            assert (await client.hears(Goodbye)).code == "unreachable"
            await client.connection.aclose()
        with trio.fail_after(5):
            await home.ended.wait()
    assert home.relay.cut == 0


async def test_while_draining_nobody_in_line_is_rung(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=2)))
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob, home.client("carol") as carol:
        async with transfer(alice, bob, ID):
            async with transfer(carol, bob, ID[::-1]):
                await alice.waits("bob", OTHER)
                home.relay.drain()
            await carol.hears(Goodbye)
            await carol.connection.aclose()
            await bob.heard_all()
            await alice.heard_all()
        for client in (alice, bob):
            await client.hears(Goodbye)
            await client.connection.aclose()
        with trio.fail_after(5):
            await home.ended.wait()


async def test_a_client_that_does_not_read_holds_nobody_up(start: Start) -> None:
    home = await start(config(Limits(outbox=2, pace=10_000.0), Deadlines(lost=1.0, farewell=0.5)))
    async with crowd(home, 250), home.client("alice") as alice:
        async with home.client("sloth", role=Role.SEND) as sloth, trio.open_nursery() as nursery:

            async def wait_and_never_listen() -> None:
                try:
                    while True:
                        for number in range(32):
                            await sloth.connection.send(Push("dave", bytes([number]) * 16, wait=True))
                        for number in range(32):
                            await sloth.connection.send(Withdraw(bytes([number]) * 16), *[Who()] * 50)
                except ConnectionLost:
                    pass

            await home.events.until(lambda event: isinstance(event, Connected) and event.name == "sloth")
            nursery.start_soon(wait_and_never_listen)
            turns = 0
            while "sloth" in home.here():
                turns += 1
                id, name = turns.to_bytes(16, "big"), f"dave-{turns}"
                await alice.waits(name, id)
                async with home.client(name) as dave:
                    await alice.heard_ringing(dave)
                    await dave.says(Reject(transfer=id, code="declined"))
                    await alice.hears(Failed)
        assert turns > 1
        async with home.client("dave") as dave:
            await dave.heard_all()
