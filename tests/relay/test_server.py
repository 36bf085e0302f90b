"""The relay over real sockets: names, pushes, tickets, limits, strangers, and how it ends."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NoReturn, cast

import pytest
import trio

from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, RelayRefused
from glide.events import Connected, Disconnected, Listening
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.protocol import preface
from glide.protocol.frames import HEADER, Kind
from glide.protocol.messages import (
    Failed,
    Goodbye,
    Hello,
    Incoming,
    People,
    Push,
    Refused,
    Reject,
    Ringing,
    Role,
    Ticket,
    Waiting,
    Welcome,
    Who,
    to_bytes,
)
from glide.protocol.preface import Purpose
from glide.relay import server
from glide.relay.limits import Admission, Limits
from glide.relay.ringing import Party
from glide.relay.server import Config
from tests.relay.conftest import Start
from tests.relay.raw import SOON, Client, Running, crowd, exactly, joined, met, rest_of, shaken, transfer

ID = bytes(range(16))
QUICK = Deadlines(handshake=1.0, farewell=0.5)


def config(limits: Limits | None = None, deadlines: Deadlines | None = None, grace: float = 30.0) -> Config:
    return Config(port=0, grace=grace, limits=limits or Limits(), deadlines=deadlines or Deadlines())


@pytest.fixture
async def home(start: Start) -> Running:
    """A relay as it comes."""
    return await start(config())


async def ended(listener: Connection) -> None:
    """The relay must have nothing more to say."""
    with trio.fail_after(SOON), pytest.raises(ConnectionLost):
        await listener.receive()
    await listener.aclose()


# --- names -----------------------------------------------------------------------------------------------


async def test_clients_are_greeted_and_their_coming_and_going_is_reported(start: Start) -> None:
    home = await start(Config(port=0, greeting="Hello, this is a test."))
    assert home.events.items == [Listening("127.0.0.1", home.port, home.identity.public)]
    async with await home.connect(Identity.generate()) as connection:
        await connection.send(Hello(role=Role.RECEIVE, name="alice"))
        welcome = await connection.receive()
        assert isinstance(welcome, Welcome)
        assert welcome.greeting == "Hello, this is a test."
        host, port = cast("trio.SocketStream", connection.stream).socket.getsockname()
        await home.events.until(lambda event: event == Connected("alice", f"{host}:{port}"))
    await home.events.until(lambda event: event == Disconnected("alice", f"{host}:{port}"))


async def test_the_greeting_is_the_one_people_know(home: Running) -> None:
    async with await home.connect(Identity.generate()) as connection:
        await connection.send(Hello(role=Role.ASK))
        welcome = await connection.receive()
        assert isinstance(welcome, Welcome)
        assert welcome.greeting == "Welcome to the server!"


async def test_whoever_is_welcomed_is_told_the_relay_s_clock(home: Running) -> None:
    before = int(time.time())
    async with await home.connect(Identity.generate()) as connection:
        await connection.send(Hello(role=Role.ASK))
        welcome = await connection.receive()
        assert isinstance(welcome, Welcome)
        assert before <= welcome.time <= time.time()


@pytest.mark.parametrize("role", [Role.RECEIVE, Role.SEND])
async def test_R9_a_taken_name_is_refused(home: Running, role: Role) -> None:
    async with home.client("alice") as alice, await home.connect(Identity.generate()) as mallory:
        await mallory.send(Hello(role=role, name="alice"))
        refused = await mallory.receive()
        assert isinstance(refused, Refused)
        assert (refused.code, refused.message) == ("name-taken", "Username already taken")
        await ended(mallory)
        await alice.says(Who())
        assert [person.key for person in (await alice.hears(People)).people] == [alice.identity.public]
    assert home.here().count("alice") <= 1


async def test_R9_a_newer_session_of_the_key_replaces_the_older_one(home: Running) -> None:
    me = Identity.generate()
    async with home.client("alice", me) as old, home.client("alice", me) as new:
        goodbye = await old.hears(Goodbye)
        assert goodbye.code == "replaced"
        await ended(old.connection)
        await home.gone("alice")
        async with home.client("bob") as bob:
            await bob.rings(new, ID)


async def test_a_name_is_free_as_soon_as_its_holder_is_gone(home: Running) -> None:
    async with home.client("alice"):
        pass
    await home.gone("alice")
    async with home.client("alice"):
        pass


async def test_without_a_name_nobody_receives_or_sends(home: Running) -> None:
    for role in (Role.RECEIVE, Role.SEND):
        async with await home.connect(Identity.generate()) as nobody:
            await nobody.send(Hello(role=role))
            assert isinstance(await nobody.receive(), Refused)
    async with home.client("bob"), await home.connect(Identity.generate()) as asking:
        await asking.send(Hello(role=Role.ASK, name="alice"))
        assert isinstance(await asking.receive(), Welcome)
        await asking.send(Push(to="bob", transfer=ID))
        failed = await asking.receive()
        assert isinstance(failed, Failed)
        assert failed.code == RelayRefused.code


@pytest.mark.parametrize("count", [0, 99, 100, 250])
async def test_everybody_is_listed_page_by_page(home: Running, count: int) -> None:
    async with crowd(home, count) as names, home.client("zoe", role=Role.SEND) as zoe:
        found: list[str] = []
        pages = 0
        more = True
        while more:
            await zoe.says(Who(after=found[-1] if found else None))
            page = await zoe.hears(People)
            found += [person.name for person in page.people]
            more, pages = page.more, pages + 1
        assert found == [*names, "zoe"]
        assert pages == count // 100 + 1


# --- pushes and tickets ----------------------------------------------------------------------------------


async def test_a_push_to_nobody_fails_and_names_who_may_have_been_meant(home: Running) -> None:
    async with home.client("robert"), home.client("zoe"), home.client("alice") as alice:
        await alice.says(Push(to="rober", transfer=ID))
        assert await alice.hears(Failed) == Failed(
            transfer=ID, code="nobody", message="is not connected", closest=("robert",)
        )


async def test_a_push_to_somebody_who_only_sends_says_so(home: Running) -> None:
    async with home.client("bob", role=Role.SEND), home.client("alice") as alice:
        await alice.says(Push(to="bob", transfer=ID))
        failed = await alice.hears(Failed)
        assert (failed.code, failed.message, failed.closest) == ("nobody", "is connected, but takes no files now", ())


async def test_a_push_rings_both_with_a_ticket_each(home: Running) -> None:
    async with home.client("alice", role=Role.SEND) as alice, home.client("bob") as bob:
        ringing, incoming = await alice.rings(bob, ID)
        assert ringing.ticket != incoming.ticket
        assert ringing == Ringing(transfer=ID, ticket=ringing.ticket, key=bob.identity.public)
        assert incoming == Incoming(sender="alice", key=alice.identity.public, transfer=ID, ticket=incoming.ticket)


async def test_two_tickets_make_a_transfer_and_bytes_pass_unchanged(home: Running) -> None:
    payload = random.Random(3).randbytes(1_000_000)
    async with home.client("alice") as alice, home.client("bob") as bob, transfer(alice, bob) as (one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, payload)
            assert await exactly(other, len(payload)) == payload
        await other.send_all(b"receipt")
        assert await exactly(one, 7) == b"receipt"
        await one.send_eof()
        assert await rest_of(other) == b""
        await other.send_eof()
        assert await rest_of(one) == b""


async def refused(data: Connection) -> str:
    """A data connection is refused and ended; what it is told."""
    with trio.fail_after(SOON):
        answer = await data.receive()
    assert isinstance(answer, Refused), answer
    assert answer.code == RelayRefused.code
    await ended(data)
    return answer.message


async def test_a_ticket_is_good_for_one_connection(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        ringing, incoming = await alice.rings(bob, ID)
        async with met(alice, bob, ringing, incoming) as (one, other):
            for client, ticket in ((alice, ringing.ticket), (bob, incoming.ticket)):
                assert "not valid" in await refused(await client.redeem(ticket))
            await one.send_all(b"undisturbed")
            assert await exactly(other, 11) == b"undisturbed"


async def test_a_ticket_is_used_up_before_the_partner_comes(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        ringing, incoming = await alice.rings(bob, ID)
        one, again = await alice.redeem(ringing.ticket), await alice.redeem(ringing.ticket)
        other = await bob.redeem(incoming.ticket)
        await joined(other)
        # Whichever of the two the relay read first.
        with trio.fail_after(SOON):
            answers = [await one.receive(), await again.receive()]
        for data in (one, again, other):
            await data.aclose()
        assert sorted(type(answer).__name__ for answer in answers) == ["Joined", "Refused"]


async def test_R9_a_ticket_is_good_for_its_key_alone_and_trying_does_not_use_it_up(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob, home.client("mallory") as mallory:
        ringing, incoming = await alice.rings(bob, ID)
        for thief in (mallory, bob):
            assert "not valid" in await refused(await thief.redeem(ringing.ticket))
        async with met(alice, bob, ringing, incoming):
            pass


async def test_an_unknown_ticket_is_refused(home: Running) -> None:
    async with home.client("alice") as alice:
        assert "not valid" in await refused(await alice.redeem(bytes(16)))


async def test_a_ticket_expires_and_the_sender_is_told_that_nobody_came(start: Start) -> None:
    home = await start(config(Limits(ticket_life=1.5)))
    async with home.client("alice") as alice, home.client("bob") as bob:
        ringing, incoming = await alice.rings(bob, ID)
        one = await alice.redeem(ringing.ticket)  # in time, but alone
        failed = await alice.hears(Failed)
        assert (failed.transfer, failed.code) == (ID, "nobody")
        assert failed.message == "did not come to take it"
        assert "did not come" in await refused(one)
        assert "not valid" in await refused(await bob.redeem(incoming.ticket))


OTHER_CODES = ["declined", "refused", "key-changed", "integrity", "name-taken", "file", "", "nobody\n", "x" * 32]


@pytest.mark.parametrize(("said", "told"), [("nobody", "nobody"), *((code, "declined") for code in OTHER_CODES)])
async def test_of_a_reject_s_code_only_nobody_is_passed_on_as_it_is(home: Running, said: str, told: str) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        await alice.rings(bob, ID)
        await bob.says(Reject(transfer=ID, code=said, message="cannot come now"))
        assert await alice.hears(Failed) == Failed(transfer=ID, code=told, message="cannot come now")


@pytest.mark.parametrize("early", [False, True])
async def test_a_reject_is_passed_on_and_ends_the_waiting(home: Running, early: bool) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        ringing, incoming = await alice.rings(bob, ID)
        one = await alice.redeem(ringing.ticket) if early else None
        await bob.says(Reject(transfer=ID, code="key-changed", message="I have another key on record."))
        assert await alice.hears(Failed) == Failed(
            transfer=ID, code="declined", message="I have another key on record."
        )
        if one is not None:
            await refused(one)
        assert "not valid" in await refused(await bob.redeem(incoming.ticket))


async def test_only_who_is_rung_can_reject(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob, home.client("mallory") as mallory:
        ringing, incoming = await alice.rings(bob, ID)
        for meddler in (mallory, alice):
            await meddler.says(Reject(transfer=ID, code="declined"))
            await meddler.says(Who())
            await meddler.hears(People)  # the reject has been read, too
        async with met(alice, bob, ringing, incoming):
            pass


async def test_a_receiver_that_goes_away_ends_the_sender_s_waiting(home: Running) -> None:
    async with home.client("alice") as alice:
        async with home.client("bob") as bob:
            await alice.rings(bob, ID)
        failed = await alice.hears(Failed)
        assert (failed.transfer, failed.code, failed.message) == (ID, "nobody", "has gone")


async def test_a_receiver_that_shows_its_ticket_and_leaves_before_the_sender_comes_has_gone(start: Start) -> None:
    home = await start(config(Limits(ticket_life=0.5)))
    async with home.client("alice") as alice, home.client("bob") as bob:
        _, incoming = await alice.rings(bob, ID)
        await (await bob.redeem(incoming.ticket)).aclose()
        failed = await alice.hears(Failed)
        assert (failed.transfer, failed.code) == (ID, "nobody")


async def test_R2_the_transfers_of_one_client_are_limited(start: Start) -> None:
    home = await start(config(Limits(transfers_per_client=2)))
    async with home.client("alice") as alice, home.client("bob") as bob, home.client("carol") as carol:
        for number in range(2):
            await alice.rings(bob, bytes([number]) * 16)
        await alice.says(Push(to="carol", transfer=ID))
        assert "You have 2 transfers" in (await alice.hears(Failed)).message
        await carol.says(Push(to="bob", transfer=ID))
        assert "bob has 2 transfers" in (await carol.hears(Failed)).message
        await bob.says(Reject(transfer=bytes(16), code="declined"))
        await alice.hears(Failed)
        await carol.rings(bob, ID)


async def test_an_id_that_is_ringing_is_not_rung_again(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        await alice.rings(bob, ID)
        await alice.says(Push(to="bob", transfer=ID))
        assert (await alice.hears(Failed)).code == RelayRefused.code


async def test_R4_losing_both_control_connections_does_not_end_a_joined_transfer(home: Running) -> None:
    async with AsyncExitStack() as stack:
        async with home.client("alice") as alice, home.client("bob") as bob:
            one, other = await stack.enter_async_context(transfer(alice, bob))
            await one.send_all(b"before")
        await home.gone("alice")
        await home.gone("bob")
        await one.send_all(b", after")
        assert await exactly(other, 13) == b"before, after"
        await other.send_all(b"receipt")
        assert await exactly(one, 7) == b"receipt"


async def test_R4_taking_a_name_over_does_not_end_its_transfers(home: Running) -> None:
    async with AsyncExitStack() as stack:
        alice = await stack.enter_async_context(home.client("alice"))
        bob = await stack.enter_async_context(home.client("bob"))
        one, other = await stack.enter_async_context(transfer(alice, bob))
        newer = await stack.enter_async_context(home.client("bob", bob.identity))
        await bob.hears(Goodbye)
        await one.send_all(b"still going")
        assert await exactly(other, 11) == b"still going"
        await alice.rings(newer, ID)


# --- strangers and vandals -------------------------------------------------------------------------------


async def random_bytes(home: Running, stream: trio.SocketStream) -> None:
    await stream.send_all(random.Random(4).randbytes(5000))


async def a_browser(home: Running, stream: trio.SocketStream) -> None:
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def half_a_tls_hello(home: Running, stream: trio.SocketStream) -> None:
    await stream.send_all(bytes.fromhex("16030102000100") + b"\x01\xfc\x03\x03" + b"\x55" * 32)


async def a_port_scanner(home: Running, stream: trio.SocketStream) -> None:
    await stream.send_eof()


async def noise_for_a_handshake(home: Running, stream: trio.SocketStream) -> None:
    await stream.send_all(preface.opening(Purpose.CONTROL) + b"\0\x20" + bytes(32))


async def an_oversized_handshake(home: Running, stream: trio.SocketStream) -> None:
    await stream.send_all(preface.opening(Purpose.DATA) + b"\xff\xff")


def records(purpose: Purpose, *plaintexts: bytes) -> Callable[[Running, trio.SocketStream], Awaitable[None]]:
    async def say(home: Running, stream: trio.SocketStream) -> None:
        sealer = await shaken(stream, purpose, Identity.generate())
        for plaintext in plaintexts:
            await stream.send_all(sealer.seal_all(plaintext))

    return say


async def noise_for_a_record(home: Running, stream: trio.SocketStream) -> None:
    await shaken(stream, Purpose.CONTROL, Identity.generate())
    await stream.send_all(b"\0\x40" + bytes(64))


HELLO = to_bytes(Hello(role=Role.RECEIVE, name="vandal"))

VANDALS: dict[str, Callable[[Running, trio.SocketStream], Awaitable[None]]] = {
    "random bytes": random_bytes,
    "HTTP": a_browser,
    "half a TLS hello": half_a_tls_hello,
    "nothing at all": a_port_scanner,
    "a useless handshake key": noise_for_a_handshake,
    "an oversized handshake message": an_oversized_handshake,
    "a record that does not open": noise_for_a_record,
    "an oversized frame": records(Purpose.CONTROL, HEADER.pack(Kind.HELLO, 1 << 31)),
    "an oversized frame later": records(Purpose.CONTROL, HELLO, HEADER.pack(Kind.PUSH, 1 << 20)),
    "file bytes on control": records(Purpose.CONTROL, HELLO, HEADER.pack(Kind.DATA, 1000) + bytes(1000)),
    "Hello twice": records(Purpose.CONTROL, HELLO, HELLO),
    "the wrong first message": records(Purpose.CONTROL, to_bytes(Push(to="bob", transfer=ID))),
    "the relay's own words": records(Purpose.CONTROL, HELLO, to_bytes(Goodbye(code="lost"))),
    "Hello on data": records(Purpose.DATA, HELLO),
    "a ticket twice": records(Purpose.DATA, to_bytes(Ticket(ticket=ID)) * 2),
    "a message that does not fit its form": records(Purpose.CONTROL, HEADER.pack(Kind.HELLO, 3) + b"\xc1\xc1\xc1"),
    "a name that is none": records(
        Purpose.CONTROL, HEADER.pack(Kind.HELLO, 19) + b"\x82\xa4role\xa3ask\xa4name\xa3../"
    ),
}


@pytest.mark.parametrize("vandal", VANDALS.values(), ids=VANDALS.keys())
async def test_R1_whatever_is_said_ends_that_connection_alone(
    start: Start, vandal: Callable[[Running, trio.SocketStream], Awaitable[None]], request: pytest.FixtureRequest
) -> None:
    home = await start(config(deadlines=QUICK))
    async with home.client("alice") as alice, home.client("bob") as bob, transfer(alice, bob) as (one, other):
        await one.send_all(b"before")
        stream = await home.dial()
        host, port = stream.socket.getsockname()
        address = f"{host}:{port}"
        await vandal(home, stream)
        await rest_of(stream)  # the relay ends it, whether in words or at once
        await trio.aclose_forcefully(stream)
        if "a ticket twice" not in request.node.callspec.id:  # there the first one is refused: no fault of the second
            assert len(await home.log.about(address)) == 1
        await one.send_all(b", after")
        assert await exactly(other, 13) == b"before, after"
        await other.send_all(b"receipt")
        assert await exactly(one, 7) == b"receipt"
        for client in (alice, bob):
            await client.says(Who())
            names = [person.name for person in (await client.hears(People)).people]
            assert names == ["alice", "bob"]
    assert all(line.exc_info is None for line in home.log.lines.items)
    assert len([line for line in home.log.lines.items if address in line.getMessage()]) <= 1


async def test_R2_who_does_not_finish_the_handshake_is_dropped(start: Start) -> None:
    home = await start(config(deadlines=QUICK))
    for said in (b"", b"glide/1 con", preface.opening(Purpose.CONTROL), preface.opening(Purpose.CONTROL) + b"\0\x20"):
        async with await home.dial() as stream:
            if said:
                await stream.send_all(said)
            assert await rest_of(stream) == b""


@pytest.mark.parametrize("purpose", [Purpose.CONTROL, Purpose.DATA])
async def test_R2_who_says_nothing_after_the_handshake_is_dropped(start: Start, purpose: Purpose) -> None:
    home = await start(config(deadlines=QUICK))
    async with await home.connect(Identity.generate(), purpose) as mute:
        await ended(mute)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(handshakes_per_address=3), "from your address"),
        (Limits(handshakes=3), "too many connections are being set up"),
    ],
)
async def test_R2_handshakes_at_once_are_limited(start: Start, limits: Limits, words: str) -> None:
    home = await start(config(limits))
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await home.dial()) for _ in range(4)]
        busy: Watcher = Watcher()
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(busy.watch, stream)
            with trio.fail_after(SOON):
                await busy.answered.wait()
            nursery.cancel_scope.cancel()
        [(turned_away, line)] = busy.lines
        assert line.startswith(b"glide/1 busy ")
        assert words.encode() in line
        # The three others can still finish, and make room.
        for stream in streams:
            if stream is not turned_away:
                sealer = await shaken(stream, Purpose.CONTROL, Identity.generate())
                await stream.send_all(sealer.seal_all(to_bytes(Hello(role=Role.ASK))))
                await exactly(stream, 1)  # the welcome
        async with home.client("alice"):
            pass


class Watcher:
    """Waits for the first of many connections to be answered."""

    def __init__(self) -> None:
        self.lines: list[tuple[trio.SocketStream, bytes]] = []
        self.answered = trio.Event()

    async def watch(self, stream: trio.SocketStream) -> None:
        line = bytes(await stream.receive_some(1000))
        self.lines.append((stream, line))
        self.answered.set()


async def test_who_does_not_read_does_not_stop_the_others(start: Start) -> None:
    home = await start(config(deadlines=Deadlines(lost=3.0, farewell=0.5)))
    async with crowd(home, 250), home.client("alice") as alice, home.client("bob") as bob:
        async with home.client("sloth") as sloth, trio.open_nursery() as nursery:
            asked = 0

            async def ask_and_never_listen() -> None:
                nonlocal asked
                try:
                    while True:
                        await sloth.connection.send(Who())
                        asked += 1
                except ConnectionLost:
                    pass

            await home.events.until(lambda event: isinstance(event, Connected) and event.name == "sloth")
            nursery.start_soon(ask_and_never_listen)
            turns = 0
            while "sloth" in home.here():
                turns += 1
                await alice.rings(bob, turns.to_bytes(16, "big"))
                await bob.says(Reject(transfer=turns.to_bytes(16, "big"), code="declined"))
                await alice.hears(Failed)
        assert asked > Limits().outbox
        assert turns > 1


async def test_R3_the_relay_holds_little_of_a_transfer_whose_receiver_has_stopped(start: Start) -> None:
    home = await start(config(Limits(hint_after=0.1)))
    async with home.client("alice") as alice, home.client("bob") as bob, transfer(alice, bob) as (one, other):
        piece, sent = bytes(1 << 16), 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await one.send_all(piece)
                sent += len(piece)

        async with trio.open_nursery() as nursery:
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                nursery.start_soon(flood)
                while (await alice.hears(Waiting)).side != "receiver":
                    pass
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert sent > 0
            assert held - before < 2 << 20
            await exactly(other, sent)  # and it goes on
            nursery.cancel_scope.cancel()


async def test_both_sides_are_told_whom_a_standstill_waits_for(start: Start) -> None:
    home = await start(config(Limits(hint_after=0.05)))
    async with home.client("alice") as alice, home.client("bob") as bob, transfer(alice, bob, ID):
        for client in (alice, bob):
            waiting = await client.hears(Waiting)
            assert (waiting.transfer, waiting.side) == (ID, "sender")


# --- the end ---------------------------------------------------------------------------------------------


async def over(home: Running) -> None:
    """serve() has returned, soon, whatever the grace."""
    with trio.fail_after(SOON):
        await home.ended.wait()


async def told_goodbye(client: Client) -> None:
    assert (await client.hears(Goodbye)).code == "unreachable"
    await ended(client.connection)


async def test_an_idle_relay_says_goodbye_and_ends(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob", role=Role.SEND) as bob:
        home.relay.drain()
        home.relay.drain()
        await told_goodbye(alice)
        await told_goodbye(bob)
        await over(home)
    assert home.relay.cut == 0
    assert home.here() == []


async def test_while_draining_pushes_and_newcomers_are_refused(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        await alice.rings(bob, ID)  # keeps both, and the listener
        home.relay.drain()
        await alice.says(Push(to="bob", transfer=bytes(16)))
        failed = await alice.hears(Failed)
        assert (failed.transfer, failed.code) == (bytes(16), "refused")
        assert "shutting down" in failed.message
        async with await home.connect(Identity.generate()) as late:
            await late.send(Hello(role=Role.RECEIVE, name="carol"))
            refusal = await late.receive()
            assert isinstance(refusal, Refused)
            assert "shutting down" in refusal.message
        await bob.says(Reject(transfer=ID, code="declined"))
        await alice.hears(Failed)
        await told_goodbye(alice)
        await told_goodbye(bob)
        await over(home)


async def test_tickets_that_were_given_out_are_honoured_while_draining(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob:
        ringing, incoming = await alice.rings(bob, ID)
        home.relay.drain()
        async with met(alice, bob, ringing, incoming) as (one, other):
            await one.send_all(b"all of it")
            await one.send_eof()
            assert await rest_of(other) == b"all of it"
            await other.send_eof()
            assert await rest_of(one) == b""
        await told_goodbye(alice)
        await told_goodbye(bob)
        await over(home)
    assert home.relay.cut == 0


async def test_the_relay_ends_as_soon_as_the_last_transfer_has(home: Running) -> None:
    async with home.client("alice") as alice, home.client("bob") as bob, home.client("idle") as idle:
        async with transfer(alice, bob, bytes(16)) as (one, other):
            async with transfer(bob, alice, ID) as (third, fourth):
                home.relay.drain()
                await told_goodbye(idle)
                await third.send_all(b"x")
                assert await exactly(fourth, 1) == b"x"
            await one.send_all(b"y")
            assert await exactly(other, 1) == b"y"
            assert not home.ended.is_set()
        await told_goodbye(alice)
        await told_goodbye(bob)
        await over(home)
    assert home.relay.cut == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_transfers_that_outlast_the_grace_are_cut_and_counted(start: Start, count: int) -> None:
    home = await start(config(grace=0.3))
    async with home.client("alice") as alice, home.client("bob") as bob, AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(transfer(alice, bob, bytes([number]) * 16)) for number in range(count)
        ]
        home.relay.drain()
        await over(home)
        for one, other in streams:
            assert await rest_of(one) == await rest_of(other) == b""
    assert home.relay.cut == count


@pytest.mark.parametrize("purpose", [Purpose.CONTROL, Purpose.DATA])
async def test_a_connection_that_has_said_nothing_does_not_delay_the_end(home: Running, purpose: Purpose) -> None:
    async with await home.connect(Identity.generate(), purpose):
        home.relay.drain()
        await over(home)


async def test_a_client_that_is_being_registered_when_the_draining_begins_is_not_forgotten(
    home: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = trio.Event(), trio.Event()
    register = home.relay.registry.register

    @asynccontextmanager
    async def unhurried(name: str, session: Party, *, receiving: bool, visible: bool) -> AsyncIterator[None]:
        """As with a registry that has to ask another machine."""
        asked.set()
        await answered.wait()
        async with register(name, session, receiving=receiving, visible=visible):
            yield

    monkeypatch.setattr(home.relay.registry, "register", unhurried)
    async with await home.connect(Identity.generate()) as connection:
        await connection.send(Hello(role=Role.RECEIVE, name="alice"))
        with trio.fail_after(SOON):
            await asked.wait()
            home.relay.drain()
            await trio.testing.wait_all_tasks_blocked()
            answered.set()
            answer = await connection.receive()
            if isinstance(answer, Welcome):
                answer = await connection.receive()
        assert isinstance(answer, (Goodbye, Refused))
        await ended(connection)
        await over(home)


async def test_a_port_that_is_taken_is_said_in_words(home: Running, start: Start) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await start(Config(port=home.port))
    [error] = caught.value.exceptions
    assert f"Cannot listen on 127.0.0.1:{home.port}" in str(error)


async def test_a_fault_of_the_relay_while_it_greets_somebody_ends_that_connection_alone(
    home: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(*_: object, **__: object) -> NoReturn:
        raise ValueError("that must not happen")

    async with home.client("alice") as alice:
        with monkeypatch.context() as faulty:
            faulty.setattr(server, "respond", respond)
            async with await home.dial() as stream:
                assert await rest_of(stream) == b""
        await alice.says(Who())
        await alice.hears(People)
        async with home.client("bob"):
            pass
    (fault,) = [line for line in home.log.lines.items if line.exc_info is not None]
    assert "a fault of the relay" in fault.getMessage()


def test_R4_a_place_that_is_passed_on_is_nobody_s_in_between() -> None:
    """A newcomer that took it would cost a client that was let in its connection."""
    admission = Admission(Limits())
    with admission.connection("192.0.2.1") as place:
        mine = place.pass_on()
        assert "1 open" in repr(admission)
    assert "1 open" in repr(admission)
    with mine:
        assert "1 open" in repr(admission)
    assert "0 open" in repr(admission)
