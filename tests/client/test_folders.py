"""What a relay and a stranger learn of folders and of what is resumed: C2, C3 and C9 beyond a single file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import blake3
import pytest
import trio
from msgspec.structs import replace

from glide import events
from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, Declined, Exit, GlideError
from glide.people.policy import Policy
from glide.protocol.messages import Push
from glide.relay.server import Config, Relay
from glide.transfer.landing import Conflict
from tests.client.people import Person, content
from tests.doubles import (
    AtPlace,
    Behaviour,
    Drop,
    EndBefore,
    Flip,
    Insert,
    MaliciousRelay,
    Part,
    Piece,
    Place,
    RecordingProxy,
    Repeat,
    Replace,
    Replay,
    Swap,
)

MIB = 1024 * 1024
DETECTED = {Exit.KEY, Exit.UNREACHABLE, Exit.INTEGRITY, Exit.VERSION}


def lengths(relay: MaliciousRelay, transfer: int, source: Part) -> list[int]:
    return [len(raw) for raw in relay.said(transfer, source)]


def tree(person: Person, name: str, files: dict[str, bytes], folders: tuple[str, ...] = ()) -> Path:
    for path, data in files.items():
        person.file(data, f"{name}/{path}")
    for path in folders:
        (person.files / name / path).mkdir(parents=True)
    return person.files / name


# --- C3 ----------------------------------------------------------------------------------------------------


def cut_up(size: int, at: list[int], name: Callable[[int], str], seed: int) -> dict[str, bytes]:
    """Files that make ``size`` bytes together, cut at these places."""
    data = content(size, seed)
    ends = [*at, size]
    return {name(number): data[start:end] for number, (start, end) in enumerate(zip([0, *at], ends, strict=True))}


SIZE = 3 * MIB + 12_345
TREES: dict[str, dict[str, bytes]] = {
    # All of one page, all of the same number of bytes.
    "one-file": cut_up(SIZE, [], lambda number: "a", 1),
    "the-first-is-small": cut_up(SIZE, [10], lambda number: f"file {number}", 2),
    "the-last-is-small": cut_up(SIZE, [SIZE - 10], lambda number: f"Übergröße {number}", 3),
    "many-small-ones": cut_up(SIZE, [100 * number for number in range(1, 60)], lambda number: f"{number:03}", 4),
    "in-deep-folders": cut_up(SIZE, [MIB, 2 * MIB], lambda number: f"{'deep/' * 5}{number}", 5),
    "with-empty-ones": {"z": content(SIZE, 6), "a": b"", "b": b""},
}


async def test_C3_trees_of_the_same_size_and_number_of_pages_cannot_be_told_apart_by_their_records(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    said = {}
    for transfer, (case, files) in enumerate(TREES.items()):
        await alice.push(evil.address, "bob", tree(alice, case, files))
        assert {path.removeprefix(f"{case}/"): data for path, data in bob.inbox.items() if case in path} == files
        said[case] = lengths(evil, transfer, Part.SENDER)
    assert len(said["one-file"]) > 50
    assert all(each == said["one-file"] for each in said.values()), said


async def test_C3_that_holds_for_trees_of_several_pages_whatever_their_files_are_like(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    cuts = {
        "small-first": [*range(100, 200 * 100, 100)],
        "small-last": [SIZE - 100 * number for number in range(199, 0, -1)],
        "even": [SIZE // 200 * number for number in range(1, 200)],
    }
    said = {}
    for transfer, (case, at) in enumerate(cuts.items()):
        await alice.push(evil.address, "bob", tree(alice, case, cut_up(SIZE, at, lambda n: f"{n:03}", transfer)))
        said[case] = lengths(evil, transfer, Part.SENDER)
    assert all(each == said["even"] for each in said.values()), said


CANARIES = {
    "name of a folder": b"canary-folder",
    "name of a file": b"canary-file",
    "name of an empty folder": b"canary-empty",
    "content": b"canary content",
    "digest": blake3.blake3(b"canary content " * 1000).digest(),
    "digest in hex": blake3.blake3(b"canary content " * 1000).hexdigest().encode(),
}


def found(places: list[bytearray]) -> set[str]:
    return {name for name, canary in CANARIES.items() for place in places if canary in bytes(place)}


async def test_C3_nothing_of_a_folder_is_in_what_a_relay_receives_or_sends_in_a_transfer_and_its_continuation(
    alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    relay = Relay(Identity.generate(), Config(port=0), lambda event: None)
    host, port = await nursery.start(relay.serve)
    proxy = RecordingProxy(host, port)
    await nursery.start(proxy.serve)
    files = {"canary-file": b"canary content " * 1000, "film": content(30 * MIB)}
    path = tree(alice, "canary-folder", files, ("canary-empty",))
    await bob.waits(nursery, proxy.address)
    async with trio.open_nursery() as pushing:
        pushing.start_soon(alice.push, proxy.address, "bob", path)
        while not any(each.stat().st_size > MIB for stage in bob.stages for each in stage.rglob("film")):  # noqa: ASYNC110  # a folder can only be looked at
            await trio.sleep(0.002)
        pushing.cancel_scope.cancel()
    await bob.hears(events.Failed)
    assert len(bob.stages) == 1
    await alice.push(proxy.address, "bob", path)
    assert bob.told(events.Resumed)
    assert bob.inbox == {f"canary-folder/{name}": data for name, data in files.items()}
    assert sum(map(len, proxy.to_relay)) > 30 * MIB
    assert found([*proxy.to_relay, *proxy.from_relay]) == set()


# --- C9 ----------------------------------------------------------------------------------------------------

SAME = {"a": content(5000), "b/c": content(MIB, 2)}


async def interrupt(sender: Person, relay: MaliciousRelay, receiver: str, path: Path) -> None:
    """Push so much that something is kept, and hang up."""
    before = relay.behaviour
    relay.behaviour = EndBefore(Place.record(Part.SENDER, 100))
    with pytest.raises(ConnectionLost):
        await sender.push(relay.address, receiver, path)
    relay.behaviour = before


@pytest.mark.parametrize("answer", [True, False], ids=["yes", "no"])
@pytest.mark.parametrize("conflict", Conflict)
async def test_C9_up_to_the_answer_a_receiver_says_the_same_whatever_folder_it_has(
    conflict: Conflict, answer: bool, evil: MaliciousRelay, alice: Person, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async def decide(offer: events.OfferArrived) -> bool:
        return answer

    path = tree(alice, "d", SAME)
    said = {}
    there: dict[str, dict[str, bytes]] = {
        "nothing": {},
        "the-same": SAME,
        "a-part": {"a": SAME["a"]},
        "other-content": {"a": bytes(5000), "b/c": bytes(MIB)},
    }
    for transfer, (case, files) in enumerate(there.items()):
        bob = Person(f"bob{transfer}", tmp_path / case)
        for name, data in files.items():
            (bob.into / "d" / name).parent.mkdir(parents=True, exist_ok=True)
            (bob.into / "d" / name).write_bytes(data)
        await bob.waits(nursery, evil.address, Policy.accepting("ask"), decide, conflict=conflict)
        try:
            await alice.push(evil.address, bob.name, path)
        except Declined as error:
            if answer:
                assert conflict is Conflict.REFUSE
                continue  # declined after the yes: that something is there is what was chosen to be told
            said[case] = (lengths(evil, transfer, Part.RECEIVER), str(error).replace(bob.name, "bob"))
        else:
            assert answer
            until = Place.record(Part.RECEIVER, 0).index + 1
            said[case] = (lengths(evil, transfer, Part.RECEIVER)[:until], "")
    assert all(each == said["nothing"] for each in said.values()), said


async def test_C9_what_is_kept_of_one_sender_is_not_told_to_another_before_a_yes(
    evil: MaliciousRelay, alice: Person, bob: Person, tmp_path: Path, nursery: trio.Nursery
) -> None:
    asked: list[str] = []

    async def decide(offer: events.OfferArrived) -> bool:
        asked.append(offer.sender)
        return offer.sender == "alice"

    carol = Person("carol", tmp_path / "carol")
    files = {"a": content(12 * MIB), "b": content(1000)}
    await bob.waits(nursery, evil.address, Policy.accepting("ask"), decide)
    await interrupt(alice, evil, "bob", tree(alice, "d", files))
    await bob.hears(events.Failed)
    assert len(bob.stages) == 1
    with pytest.raises(Declined) as caught:
        await carol.push(evil.address, "bob", tree(carol, "d", files))
    assert asked == ["alice", "carol"]
    with pytest.raises(Declined) as of_nothing:
        await carol.push(evil.address, "bob", tree(carol, "e", files))
    assert str(caught.value) == str(of_nothing.value)
    assert lengths(evil, 1, Part.RECEIVER) == lengths(evil, 2, Part.RECEIVER)
    # And the first has not lost it by that, nor is asked about again.
    await alice.push(evil.address, "bob", alice.files / "d")
    assert asked == ["alice", "carol", "carol"]
    assert bob.told(events.Resumed)[0].bytes > MIB
    assert bob.inbox == {f"d/{name}": data for name, data in files.items()}


# --- C2, of a transfer that is gone on with ----------------------------------------------------------------

FILM = content(12 * MIB)
# Of the connection that goes on: the offer; then what was missing, in full records.
OFFER, FIRST, SECOND = (Place.record(Part.SENDER, number) for number in range(3))
ACCEPT, WANT, ACK, RECEIPT = (Place.record(Part.RECEIVER, number) for number in range(4))


async def kept(evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery) -> Path:
    """A film of which bob has the beginning."""
    path = alice.file(FILM, "film")
    await bob.waits(nursery, evil.address)
    await interrupt(alice, evil, "bob", path)
    await bob.hears(events.Failed)
    assert len(bob.stages) == 1
    alice.events.clear()
    bob.events.clear()
    return path


async def is_detected(evil: MaliciousRelay, alice: Person, bob: Person, path: Path) -> None:
    """The push fails on both sides; behaving again, it goes on, and what stands at the end is what was sent."""
    with pytest.raises(GlideError) as caught:
        await alice.push(evil.address, "bob", path)
    assert caught.value.exit in DETECTED
    assert not alice.told(events.Delivered)
    await bob.hears(events.Failed, events.OfferDeclined)
    assert not bob.told(events.Received)
    assert bob.inbox == {}
    evil.behaviour = Behaviour()
    await alice.push(evil.address, "bob", path)
    assert alice.told(events.Resumed)[-1].bytes > MIB, "what was kept is lost"
    assert bob.inbox == {"film": FILM}
    assert bob.stages == []


@pytest.mark.parametrize("source", Part)
async def test_C2_the_records_of_an_interrupted_connection_cannot_be_replayed_into_the_next(
    source: Part, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    path = await kept(evil, alice, bob, nursery)
    evil.behaviour = Replay(source, evil.said(0, source))
    await is_detected(evil, alice, bob, path)


@pytest.mark.parametrize("place", [OFFER, FIRST, SECOND, ACCEPT, WANT], ids=str)
async def test_C2_no_record_of_an_interrupted_connection_passes_in_the_next(
    place: Place, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    path = await kept(evil, alice, bob, nursery)
    earlier = evil.said(0, place.source)
    evil.behaviour = Replace(place, instead=earlier[min(place.index, len(earlier) - 1)])
    await is_detected(evil, alice, bob, path)


@pytest.mark.parametrize("place", [ACK, RECEIPT], ids=str)
async def test_C2_C4_without_the_receipt_it_is_no_success_and_pushed_again_it_lands_once(
    place: Place, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    path = await kept(evil, alice, bob, nursery)
    evil.behaviour = Flip(place)
    with pytest.raises(GlideError) as caught:
        await alice.push(evil.address, "bob", path)
    assert caught.value.exit in DETECTED
    await bob.hears(events.Failed, events.Received)  # by then bob may have all of it
    evil.behaviour = Behaviour()
    await alice.push(evil.address, "bob", path)
    assert alice.told(events.Delivered)
    assert bob.inbox == {"film": FILM}
    assert bob.stages == []


@pytest.mark.parametrize("place", [FIRST, SECOND, WANT], ids=str)
@pytest.mark.parametrize("kind", [Flip, Drop, Repeat, Swap, Insert])
async def test_C2_what_is_done_to_a_continuation_is_detected(
    kind: Callable[[Place], AtPlace],
    place: Place,
    evil: MaliciousRelay,
    hasty_alice: Person,
    hasty_bob: Person,
    nursery: trio.Nursery,
) -> None:
    path = await kept(evil, hasty_alice, hasty_bob, nursery)
    evil.behaviour = kind(place)
    await is_detected(evil, hasty_alice, hasty_bob, path)


async def test_C2_by_itself_a_push_comes_back_through_a_relay_that_hung_up_and_sends_only_the_rest(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    class Once(EndBefore):
        def forward(self, piece: Piece) -> Iterator[bytes]:
            yield from super().forward(piece) if piece.transfer == 0 else [piece.raw]

    path = alice.file(FILM, "film")
    await bob.waits(nursery, evil.address)
    evil.behaviour = Once(Place.record(Part.SENDER, 100))
    patient = replace(alice.terms, retry=30.0)
    await alice.send(evil.address, alice.parcel("bob", path), patient)
    assert bob.inbox == {"film": FILM}
    [resumed] = alice.told(events.Resumed)
    assert resumed.bytes > MIB
    rest = sum(lengths(evil, 1, Part.SENDER))
    assert len(FILM) - resumed.bytes < rest < len(FILM) - resumed.bytes + 100_000
    assert len({event.transfer for event in alice.told(events.Progress)}) == 1


async def test_C2_the_transfer_of_a_continuation_has_a_number_of_its_own_at_the_relay(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    path = await kept(evil, alice, bob, nursery)
    await alice.push(evil.address, "bob", path)
    pushed = [message.transfer for message in evil.messages if isinstance(message, Push)]
    assert len(pushed) == len(set(pushed)) == 2
