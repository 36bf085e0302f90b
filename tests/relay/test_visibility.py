"""Who asks not to be listed is told to nobody, and rung by whoever knows the name."""

from __future__ import annotations

import pytest

from glide.crypto.identity import Identity
from glide.protocol.messages import Failed, Hello, People, Push, Refused, Role, Who
from glide.relay.server import Config
from tests.relay.conftest import Start
from tests.relay.raw import Client, Running, met

ID = bytes(range(16))


@pytest.fixture
async def home(start: Start) -> Running:
    """A relay as it comes."""
    return await start(Config(port=0))


async def listed(client: Client) -> dict[str, bool]:
    """Who is here, and whether they take files."""
    await client.says(Who())
    return {person.name: person.receiving for person in (await client.hears(People)).people}


@pytest.mark.parametrize("role", [Role.RECEIVE, Role.SEND])
async def test_the_invisible_are_not_listed_not_even_to_themselves(home: Running, role: Role) -> None:
    async with home.client("alice") as alice, home.client("bob", role=role, invisible=True) as bob:
        assert await listed(alice) == await listed(bob) == {"alice": True}


async def test_who_knows_the_name_rings_the_invisible(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice:
        async with home.client("bob", invisible=True) as bob, met(alice, bob, *await alice.rings(bob, ID)):
            pass
        await home.gone("bob")
        await alice.waits("bob", ID[::-1])
        async with home.client("bob", invisible=True) as bob:
            await alice.heard_ringing(bob)


async def test_the_invisible_are_not_suggested(home: Running) -> None:
    async with home.client("robert", invisible=True), home.client("alice") as alice:
        await alice.says(Push(to="rober", transfer=ID))
        assert await alice.hears(Failed) == Failed(transfer=ID, code="nobody", message="is not connected")


async def test_an_invisible_one_that_only_sends_is_as_good_as_absent(home: Running) -> None:
    async with home.client("alice") as alice:
        answers = []
        for turn, name in enumerate(("bob", "absent")):
            async with home.client("bob", role=Role.SEND, invisible=True):
                await alice.says(Push(to=name, transfer=ID))
                answers.append(await alice.hears(Failed))
            await home.gone("bob", turn + 1)
        assert answers[0] == answers[1]


async def test_each_session_of_a_person_is_visible_or_not_for_itself(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice") as alice, home.client("bob", me, invisible=True) as hidden:
        async with home.client("bob", me, Role.SEND):
            assert await listed(alice) == {"alice": True, "bob": False}
            async with home.client("bob", me, Role.SEND, invisible=True):
                assert await listed(alice) == {"alice": True, "bob": False}
            await alice.rings(hidden, ID)
        await home.gone("bob")
        assert await listed(alice) == {"alice": True}


async def test_an_invisible_session_hides_no_visible_one(home: Running) -> None:
    me = Identity.generate()
    async with (
        home.client("alice") as alice,
        home.client("bob", me),
        home.client("bob", me, Role.SEND, invisible=True),
    ):
        assert await listed(alice) == {"alice": True, "bob": True}


async def test_R9_a_name_that_is_not_listed_is_held_all_the_same(home: Running) -> None:
    async with home.client("bob", invisible=True), await home.connect(Identity.generate()) as mallory:
        await mallory.send(Hello(role=Role.RECEIVE, name="bob"))
        refused = await mallory.receive()
        assert isinstance(refused, Refused)
        assert refused.code == "name-taken"
