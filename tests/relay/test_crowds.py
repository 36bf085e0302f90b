"""That many clients cost little is measured by ``make load``; here are counts on which it rests."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
import trio

from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.protocol.messages import Failed, Joined, People, Person, Push, Who
from glide.relay.limits import Admission, Limits
from glide.relay.registry import LocalRegistry
from glide.relay.server import Config
from glide.relay.session import ClientSession
from tests.relay.conftest import Start
from tests.relay.raw import SOON, Absent, Client, Running, crowd

ID = bytes(range(16))


@pytest.fixture
async def home(start: Start) -> Running:
    return await start(Config(port=0))


def below(nursery: trio.Nursery) -> int:
    """How many tasks there are in it, and in the nurseries of those."""
    return sum(1 + sum(map(below, task.child_nurseries)) for task in nursery.child_tasks)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(SOON):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody when it changes
            await trio.sleep(0.01)


async def heard_after(connection: Connection, moment: float) -> None:
    await until(lambda: connection.last_heard > moment)


# --- an idle client --------------------------------------------------------------------------------------


async def test_an_idle_client_is_one_task_of_the_relay_whatever_it_has_asked(home: Running) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(home.client(f"client-{number}")) for number in range(20)]
        await until(lambda: below(home.relay._control) == 20)
        for client in clients:
            await client.heard_all()
        await until(lambda: below(home.relay._control) == 20)


async def test_a_silent_client_hears_from_the_relay(start: Start) -> None:
    home = await start(Config(port=0, deadlines=Deadlines(keepalive=0.05)))
    async with home.client("alice") as alice, trio.open_nursery() as nursery:
        nursery.start_soon(alice.connection.receive)
        for _ in range(3):
            await heard_after(alice.connection, alice.connection.last_heard)
        nursery.cancel_scope.cancel()


async def leaves(client: Client) -> None:
    await client.connection.aclose()


async def says_what_it_may_not(client: Client) -> None:
    client.connection.machine.sent = lambda kind: None  # type: ignore[method-assign]  # this client knows no rules
    await client.says(Joined())


async def is_replaced(client: Client) -> None:
    async with client.home.client(client.name, client.identity):
        await client.home.gone(client.name)


@pytest.mark.parametrize("end", [leaves, says_what_it_may_not, is_replaced])
async def test_what_a_client_held_is_freed_when_it_ends_and_not_when_the_collector_comes(
    home: Running, end: Callable[[Client], Awaitable[None]]
) -> None:
    with uncollected():
        async with home.client("alice") as alice:
            session = home.relay.registry.receiver("alice")
            assert isinstance(session, ClientSession)
            held = weakref.ref(session.connection)
            del session
            assert held() is not None
            await end(alice)
        await home.gone("alice")
        await until(lambda: held() is None)


@contextmanager
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# --- many names ------------------------------------------------------------------------------------------


class Counted(str):
    """A name that counts how often any is compared or looked up."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()

    def __lt__(self, other: str) -> bool:
        Counted.looks += 1
        return super().__lt__(other)

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


async def counts(people: int, do: Callable[[LocalRegistry[Absent]], Awaitable[object]]) -> int:
    """How often names are looked at when something is done among so many people."""
    registry = LocalRegistry[Absent](64)
    async with AsyncExitStack() as stack:
        for number in range(people):
            name = Counted(f"person-{number:05}")
            await stack.enter_async_context(registry.register(name, Absent(ID + ID), receiving=True))
        Counted.looks = 0
        await do(registry)
        return Counted.looks


async def come_and_go(registry: LocalRegistry[Absent]) -> None:
    async with registry.register(Counted("person-00500a"), Absent(ID + ID), receiving=True):
        pass


async def one_page(registry: LocalRegistry[Absent]) -> None:
    assert len(registry.people(Counted("person-00500"), 100)) == 100


async def nearest(registry: LocalRegistry[Absent]) -> None:
    assert len(registry.near(Counted("person-00500a"), 100)) == 100


async def one_person(registry: LocalRegistry[Absent]) -> None:
    assert isinstance(registry.person(Counted("person-00500")), Person)


@pytest.mark.parametrize("do", [come_and_go, one_page, nearest, one_person])
async def test_nothing_takes_longer_among_ten_thousand_people(
    do: Callable[[LocalRegistry[Absent]], Awaitable[object]],
) -> None:
    few, many = [await counts(people, do) for people in (1_000, 10_000)]
    # A place in a sorted list is found by halving: four steps more in a list ten times as long, here and there.
    assert 0 < many <= few + 2 * math.ceil(math.log2(10))


@pytest.mark.parametrize(
    ("after", "most", "expected"),
    [
        (None, None, ["a", "b", "d", "e"]),
        (None, 2, ["a", "b"]),
        ("b", None, ["d", "e"]),
        ("c", 1, ["d"]),
        ("e", 3, []),
    ],
)
async def test_a_page_is_what_comes_behind_a_name(after: str | None, most: int | None, expected: list[str]) -> None:
    registry = LocalRegistry[Absent](1)
    async with AsyncExitStack() as stack:
        for name in ("d", "a", "e", "b"):
            await stack.enter_async_context(registry.register(name, Absent(ID + ID), receiving=True))
        hidden = registry.register("c", Absent(ID + ID), receiving=True, visible=False)
        await stack.enter_async_context(hidden)
        assert [person.name for person in registry.people(after, most)] == expected
    assert registry.people() == []


@pytest.mark.parametrize(
    ("name", "most", "expected"),
    [("c", 2, ["b", "d"]), ("a", 2, ["b"]), ("0", 2, ["a", "b"]), ("z", 2, ["e"]), ("c", 9, ["a", "b", "d", "e"])],
)
async def test_near_a_name_are_those_next_to_it_who_take_files(name: str, most: int, expected: list[str]) -> None:
    registry = LocalRegistry[Absent](1)
    async with AsyncExitStack() as stack:
        for each in ("d", "f", "a", "e", "b"):
            await stack.enter_async_context(registry.register(each, Absent(ID + ID), receiving=each != "f"))
        assert registry.near(name, most) == expected


async def test_all_pages_together_are_everybody_and_a_slip_among_many_is_still_found(home: Running) -> None:
    async with crowd(home, 1_050) as names, home.client("zoe") as zoe, home.client("roberta"):
        found: list[str] = []
        more = True
        while more:
            await zoe.says(Who(after=found[-1] if found else None))
            page = await zoe.hears(People)
            found += [person.name for person in page.people]
            more = page.more
        assert found == [*names, "roberta", "zoe"]
        await zoe.says(Push(to="robert", transfer=ID))
        assert (await zoe.hears(Failed)).closest == ("roberta",)


# --- many addresses --------------------------------------------------------------------------------------


def test_what_is_counted_of_an_address_is_forgotten_with_it() -> None:
    admission = Admission(Limits())
    for number in range(1000):
        with admission.connection(f"10.0.{number // 256}.{number % 256}"), admission.handshake("10.0.0.1"):
            assert repr(admission) == "<Admission: 1 open, 1 in handshake>"
    assert repr(admission) == "<Admission: 0 open, 0 in handshake>"
    assert not admission._open.of
    assert not admission._handshakes.of
