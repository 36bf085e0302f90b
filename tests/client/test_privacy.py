"""What a relay, a network, a log and a stranger learn: C3, C5, C6, C7, C9; and C4, that an end is not a success."""

from __future__ import annotations

import base64
import logging
import os
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import blake3
import pytest
import trio
from msgspec.structs import replace

from glide import events
from glide.client import dialling
from glide.client.address import Address
from glide.client.who import who
from glide.crypto.handshake import Handshake
from glide.crypto.identity import Identity
from glide.crypto.records import FULL
from glide.errors import ConnectionLost, Declined, Exit, GlideError, KeyChanged, NobodyThere
from glide.people.policy import Policy
from glide.protocol.endtoend import Decline, Item, Offer, Page
from glide.protocol.frames import HEADER
from glide.protocol.messages import Role
from glide.relay.server import Config, Relay
from tests.client.people import Person, content
from tests.doubles import Behaviour, EndBefore, MaliciousRelay, ManInTheMiddle, Part, Place, RecordingProxy
from tests.processes import world

# --- C3: what the relay learns -----------------------------------------------------------------------------

FILENAME = "canary-of-the-name.txt"
MESSAGE = "canary of the message"
SIZE = 271_829
CONTENT = (b"canary of the content. " * SIZE)[:SIZE]
DIGEST = blake3.blake3(CONTENT).digest()

CANARIES = {
    "name": FILENAME.encode(),
    "content": b"canary of the content",
    "message": MESSAGE.encode(),
    "digest": DIGEST,
    "digest in hex": DIGEST.hex().encode(),
    "digest in base32": base64.b32encode(DIGEST).rstrip(b"="),
    "digest in base64": base64.b64encode(DIGEST).rstrip(b"="),
    "size": str(SIZE).encode(),
    "size in MessagePack": b"\xce" + SIZE.to_bytes(4, "big"),
}


def found(places: Iterable[bytes | bytearray]) -> set[str]:
    """Which canaries are anywhere in ``places``, whatever the case of their letters."""
    lowered = [bytes(place).lower() for place in places]
    return {name for name, canary in CANARIES.items() for place in lowered if canary.lower() in place}


def test_the_search_finds_every_canary_in_plain_text() -> None:
    assert found([b"..." + b"|".join(CANARIES.values())]) == set(CANARIES)


async def test_C3_no_canary_is_in_anything_that_a_relay_received_sent_or_logged(
    alice: Person,
    bob: Person,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    reported: list[events.Event] = []
    relay = Relay(Identity.generate(), Config(port=0), reported.append)
    host, port = await nursery.start(relay.serve)
    proxy = RecordingProxy(host, port)
    await nursery.start(proxy.serve)

    await bob.waits(nursery, proxy.address)
    await alice.push(proxy.address, "bob", alice.file(CONTENT, FILENAME), MESSAGE)

    assert bob.inbox == {FILENAME: CONTENT}
    assert sum(map(len, proxy.to_relay)) > SIZE, "the transfer did not come by here"
    assert found(proxy.to_relay) == set()
    assert found(proxy.from_relay) == set()
    assert found([caplog.text.encode(), repr(reported).encode(), repr(relay).encode()]) == set()


async def test_C3_no_canary_is_in_anything_that_is_said_to_a_relay_decrypted(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    await alice.push(evil.address, "bob", alice.file(CONTENT, FILENAME), MESSAGE)
    assert bob.inbox == {FILENAME: CONTENT}
    assert evil.messages
    assert found([repr(message).encode() for message in evil.messages]) == set()
    assert found(evil.received) == set()


async def test_C3_no_canary_is_said_to_a_relay_when_an_offer_comes_to_nothing(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    async def no(offer: events.OfferArrived) -> bool:
        return False

    await bob.waits(nursery, evil.address, Policy.accepting("ask"), no)
    with pytest.raises(Declined):
        await alice.push(evil.address, "bob", alice.file(CONTENT, FILENAME), MESSAGE)
    with pytest.raises(NobodyThere):
        await alice.push(evil.address, "carol", alice.file(CONTENT, FILENAME), MESSAGE)
    evil.behaviour = EndBefore(Place.record(Part.RECEIVER, 0))
    with pytest.raises(ConnectionLost):
        await alice.push(evil.address, "bob", alice.file(CONTENT, FILENAME), MESSAGE)
    assert found([repr(message).encode() for message in evil.messages]) == set()
    assert found(evil.received) == set()


async def test_C3_a_relay_that_is_in_the_middle_finds_them_so_the_search_is_no_formality(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = middle = ManInTheMiddle()
    await alice.push(evil.address, "bob", alice.file(CONTENT, FILENAME), MESSAGE)
    offered = [message for message in middle.heard if isinstance(message, (Page, Offer))]
    assert found([repr(offered).encode(), middle.stolen]) == {"name", "content", "message", "size"}


def lengths(relay: MaliciousRelay, transfer: int, source: Part) -> list[int]:
    return [len(raw) for raw in relay.said(transfer, source)]


async def test_C3_names_messages_and_contents_do_not_show_in_the_lengths_of_records(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    size = 3 * FULL + 1234
    variants = [
        ("a", bytes(size), ""),
        ("n" * 200 + ".tar.gz", content(size), ""),
        ("Übergröße – ñandú.txt", content(size, 2), "x" * 400),
    ]
    for name, data, message in variants:
        await alice.push(evil.address, "bob", alice.file(data, name), message)
    first, *others = [lengths(evil, transfer, Part.SENDER) for transfer in range(len(variants))]
    assert len(first) > 5
    assert others == [first] * len(others)


async def test_C3_all_records_of_data_but_the_last_are_full(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    await alice.push(evil.address, "bob", alice.file(content(5 * FULL + 99)))
    data = lengths(evil, 0, Part.SENDER)[Place.record(Part.SENDER, 1).index : -2]
    assert data == [2 + FULL + 16] * 5


# --- C4: an end is not a success ---------------------------------------------------------------------------

# One block of the sender's: its data end exactly with a record, so that digests and End stand in one of their own.
WHOLE_RECORDS = 16 * FULL - HEADER.size
THE_END = Place.record(Part.SENDER, 17)
# Behind Accept, what is wanted, and one acknowledgement.
RECEIPT = Place.record(Part.RECEIVER, 3)


@pytest.mark.parametrize(
    "size", [pytest.param(WHOLE_RECORDS, id="all-of-a-file"), pytest.param(0, id="all-of-an-empty-file")]
)
async def test_C4_a_stream_that_ends_after_all_data_and_before_the_end_is_no_success_on_either_side(
    size: int, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = EndBefore(THE_END if size else Place.record(Part.SENDER, 1))
    with pytest.raises(ConnectionLost) as caught:
        await alice.push(evil.address, "bob", alice.file(content(size)))
    assert caught.value.exit is Exit.UNREACHABLE
    await bob.hears(events.Failed)
    passed_on = evil.said(0, Part.SENDER)[Place.record(Part.SENDER, 1).index : THE_END.index]
    assert not size or len(passed_on) == 16, "the receiver did not have all of the data"
    assert bob.inbox == {}
    assert not bob.told(events.Saved)
    assert not bob.told(events.Received)
    assert not alice.told(events.Delivered)


async def test_C4_a_receiver_that_waits_for_one_transfer_does_not_take_a_cut_one_for_it(
    evil: MaliciousRelay, alice: Person, bob: Person
) -> None:
    evil.behaviour = EndBefore(THE_END)

    async def receive() -> None:
        with pytest.raises(ConnectionLost):
            await bob.receive(evil.address, once=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await bob.hears(events.Registered)
        with pytest.raises(ConnectionLost):
            await alice.push(evil.address, "bob", alice.file(content(WHOLE_RECORDS)))
    assert bob.inbox == {}


async def test_C4_a_stream_that_ends_before_the_receipt_is_no_success_for_the_sender(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = EndBefore(RECEIPT)
    with pytest.raises(ConnectionLost):
        await alice.push(evil.address, "bob", alice.file(content(1000)))
    assert not alice.told(events.Delivered)
    await bob.hears(events.Received)
    assert bob.inbox == {"holiday.jpg": content(1000)}


# --- C5: secrets -------------------------------------------------------------------------------------------


def spellings(secret: bytes) -> Iterator[str]:
    """Every way in which a secret is likely to be written."""
    yield secret.hex()
    yield base64.b32encode(secret).decode().rstrip("=")
    yield base64.b64encode(secret).decode().rstrip("=")
    yield base64.urlsafe_b64encode(secret).decode().rstrip("=")
    yield repr(secret)[2:-1]


def shown(secrets: Iterable[bytes], *texts: str) -> list[str]:
    return [each for secret in secrets for each in spellings(secret) for text in texts if each.lower() in text.lower()]


async def test_C5_no_repr_of_what_holds_a_secret_shows_it(evil: MaliciousRelay, alice: Person) -> None:
    async with dialling.connect(evil.address, alice.me, role=Role.SEND, name="alice", report=alice.report) as control:
        one, other = Handshake(alice.identity, b"", initiator=True), Handshake(evil.identity, b"", initiator=False)
        other.read(one.write())
        one.read(other.write())
        other.read(one.write())
        finished, secrets = one.finish(), other.finish()
        keys = [alice.identity.private, evil.identity.private, secrets.send, secrets.receive]
        holders: list[Any] = [alice.identity, alice.me, secrets, finished, one, control, control.connection]
        assert shown(keys, *map(repr, holders), *map(str, holders)) == []


async def test_C5_no_key_or_ticket_is_in_a_log_an_event_an_error_or_a_traceback(
    evil: MaliciousRelay,
    honest: Address,
    relay_identity: Identity,
    relay_events: list[events.Event],
    alice: Person,
    bob: Person,
    nursery: trio.Nursery,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    mallory = Person("alice", tmp_path / "mallory")
    errors: list[GlideError] = []

    async def failing(attempt: Awaitable[object]) -> None:
        with pytest.raises(GlideError) as caught:
            await attempt
        errors.append(caught.value)

    for relay in (evil.address, honest):
        await bob.waits(nursery, relay)
        await alice.push(relay, "bob", alice.file(b"hello"))
        await failing(alice.push(relay, "nobody", alice.file(b"hello")))
        await failing(mallory.push(relay, "bob", mallory.file(b"hello")))  # another key on record
    for place in (Place.handshake(Part.RECEIVER), Place.record(Part.SENDER, 1), Place.record(Part.RECEIVER, 1)):
        evil.behaviour = EndBefore(place)
        await failing(alice.push(evil.address, "bob", alice.file(b"hello")))
    with trio.socket.socket() as nothing:
        await nothing.bind(("127.0.0.1", 0))
        await failing(alice.push(Address("127.0.0.1", nothing.getsockname()[1]), "bob", alice.file(b"hello")))

    secrets = [evil.identity.private, relay_identity.private, *evil.tickets]
    secrets += [person.identity.private for person in (alice, bob, mallory)]
    texts = [caplog.text, *(repr(event) for person in (alice, bob, mallory) for event in person.events)]
    texts += [repr(event) for event in relay_events]
    for error in errors:
        texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
    assert len(errors) == 8
    assert len(evil.tickets) >= 10
    assert shown(secrets, *texts) == []


def test_C5_no_secret_is_an_argument_of_a_process_or_among_its_words(tmp_path: Path) -> None:
    with world(tmp_path) as machine:
        relay = machine.serve("--verbose")
        bob = machine.receive("bob", "--verbose", terminal=True)
        alice = machine.push("alice", "bob", machine.file("holiday.jpg", 1000), "--verbose")
        bob.says("[y/N]")  # nobody answers yet: all three are there to be looked at
        processes = {"relay": relay, "bob": bob, "alice": alice}
        arguments = [Path(f"/proc/{each.popen.pid}/cmdline").read_text() for each in processes.values()]
        titles = [Path(f"/proc/{each.popen.pid}/comm").read_text() for each in processes.values()]
        bob.types("y\n")
        assert alice.wait() == 0
        words = [text for each in processes.values() for text in (each.errors, *each.output)]
        identities = [path for person in processes for path in (tmp_path / person).rglob("*identity")]
        assert len(identities) >= 3
        secrets = [base64.b32decode(path.read_text().strip().upper() + "====") for path in identities]
        assert shown(secrets, *arguments, *titles, *words) == []


# --- C6: the relay proves its key --------------------------------------------------------------------------

Verb = Callable[[Person, Address], Awaitable[object]]


async def pushes(person: Person, relay: Address) -> None:
    await person.push(relay, "bob", person.file(b"hello"))


async def receives(person: Person, relay: Address) -> None:
    await person.receive(relay)


async def asks(person: Person, relay: Address) -> None:
    async with person.session(relay) as session:
        await who(await session.link(Role.ASK), person.known)


@pytest.mark.parametrize("verb", [pushes, receives, asks])
@pytest.mark.parametrize("known", ["pinned", "given"])
async def test_C6_a_relay_with_another_key_is_told_nothing_not_even_who_calls(
    verb: Verb, known: str, evil: MaliciousRelay, alice: Person
) -> None:
    address, expected = evil.address, Identity.generate().public
    if known == "pinned":
        alice.known.remember_relay(str(address), expected)
    else:
        address = replace(address, key=expected)
    with pytest.raises(KeyChanged) as caught:
        await verb(alice, address)
    assert caught.value.exit is Exit.KEY
    # The opening line and the first handshake message, which is an ephemeral key: the client's own comes third.
    [received] = evil.received
    assert received[:16] == b"glide/1 control\n"
    assert len(received) == 16 + 2 + 32
    pin = alice.known.relay(str(address))
    assert (pin.key if pin else None) == (expected if known == "pinned" else None), "a pin was made or replaced"


async def test_C6_a_relay_with_the_key_that_was_given_is_taken(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    address = replace(evil.address, key=evil.key)
    await bob.waits(nursery, address)
    await alice.push(address, "bob", alice.file(b"hello"))
    assert bob.inbox == {"holiday.jpg": b"hello"}


# --- C7: nothing is used twice -----------------------------------------------------------------------------


def first_messages(relay: MaliciousRelay) -> list[bytes]:
    """The initiator's ephemeral key of every handshake that passed: with the relay, and end to end."""
    opened = [received.partition(b"\n")[2] for received in relay.received]
    joined = [piece.raw for piece in relay.pieces if piece.place == Place.handshake(Part.SENDER, 0)]
    return [message[2:34] for message in (*opened, *joined)]


async def test_C7_the_same_file_sent_again_has_no_record_in_common(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    path = alice.file(bytes(3 * FULL))  # records of one transfer would be alike too, if a nonce came twice
    await bob.waits(nursery, evil.address)
    await alice.push(evil.address, "bob", path)
    evil.behaviour = EndBefore(Place.record(Part.SENDER, 3))
    with pytest.raises(ConnectionLost):
        await alice.push(evil.address, "bob", path)  # a failed one, and another try
    evil.behaviour = Behaviour()
    await alice.push(evil.address, "bob", path)

    for source in Part:
        said = [set(evil.said(transfer, source)[1:]) for transfer in range(3)]
        assert all(said)
        assert not any(one & other for one, other in combinations(said, 2))
    everything = [piece.raw for piece in evil.pieces if piece.place.index]
    assert len(set(everything)) == len(everything)


async def test_C7_every_connection_has_a_handshake_of_its_own(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    for _ in range(3):
        await alice.push(evil.address, "bob", alice.file(b"hello"))
    keys = first_messages(evil)
    assert len(keys) == 1 + 3 * (1 + 2 + 1)  # bob's control connection; alice's, two for data, and end to end
    assert len(set(keys)) == len(keys)


# --- C9: an offer is no question ---------------------------------------------------------------------------

SAME = content(5000)
THERE: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "the-same-file": {"holiday.jpg": SAME},
    "the-same-name": {"holiday.jpg": content(5000, 2)},
    "the-same-name-shorter": {"holiday.jpg": SAME[:100]},
    "the-same-content": {"other.jpg": SAME},
    "a-hundred-names": {"holiday.jpg": SAME} | {f"holiday ({n}).jpg": SAME for n in range(1, 100)},
}


@pytest.mark.parametrize("answer", [True, False], ids=["yes", "no"])
async def test_C9_up_to_the_answer_a_receiver_says_the_same_whatever_it_has(
    answer: bool, evil: MaliciousRelay, alice: Person, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async def decide(offer: events.OfferArrived) -> bool:
        return answer

    said = {}
    for transfer, (case, files) in enumerate(THERE.items()):
        bob = Person(f"bob{transfer}", tmp_path / case)
        for name, data in files.items():
            (bob.into / name).write_bytes(data)
        await bob.waits(nursery, evil.address, Policy.accepting("ask"), decide)
        try:
            await alice.push(evil.address, bob.name, alice.file(SAME))
        except Declined as error:
            assert not answer
            said[case] = (lengths(evil, transfer, Part.RECEIVER), str(error).replace(bob.name, "bob"))
        else:
            assert answer
            until = Place.record(Part.RECEIVER, 0).index + 1
            said[case] = (lengths(evil, transfer, Part.RECEIVER)[:until], "")
    assert len(said["nothing"][0]) == 3  # line, handshake message, Accept or Decline
    assert all(each == said["nothing"] for each in said.values()), said


async def test_C9_while_a_person_thinks_nothing_crosses_the_pipe(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    before: list[int] = []

    async def think(offer: events.OfferArrived) -> bool:
        await trio.testing.wait_all_tasks_blocked(0.05)
        before.extend(lengths(evil, 0, Part.RECEIVER))
        return True

    (bob.into / "holiday.jpg").write_bytes(SAME)
    await bob.waits(nursery, evil.address, Policy.accepting("ask"), think)
    await alice.push(evil.address, "bob", alice.file(SAME))
    assert len(before) == 2  # line and handshake message


# With `--accept known` a stranger does not get as far as making an offer.
@pytest.mark.parametrize("policy", [Policy.accepting("ask")])
async def test_C9_a_stranger_is_not_told_how_much_room_a_receiver_has(
    policy: Policy, honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    asked: list[events.OfferArrived] = []

    async def no(offer: events.OfferArrived) -> bool:
        asked.append(offer)
        return False

    await bob.waits(nursery, honest, policy, no)
    said = []
    for size in (1, 2**62):  # one fits every disk, one none
        async with alice.reaches(honest, "bob", os.urandom(16)) as connection:
            await connection.send(Page(items=(Item("holiday.jpg", size=size),)), Offer())
            answer = await connection.receive()
            assert isinstance(answer, Decline)
            said.append((answer.code, answer.message))
    assert said[0] == said[1], "an offer that nobody agreed to found out how much is free"
