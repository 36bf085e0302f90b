"""C2: whatever a relay does to a transfer, both ends find out.

Unless a test says otherwise nobody is pinned: what is done to a transfer after its handshake is detected at a first
contact too. Only a key that was swapped before it is not; the last tests show that, and that a pin on either side
changes it. After every attack the receiver, still running, takes a file from an honest transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import trio

from glide import events
from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, Declined, Exit, GlideError, IntegrityError, KeyChanged
from glide.people.known import Trust
from glide.protocol.endtoend import Offer, Page
from glide.protocol.preface import Purpose
from tests.client.people import Person, content
from tests.doubles import (
    AtPlace,
    Behaviour,
    CloseAt,
    CrossJoin,
    Drop,
    Empty,
    EndBefore,
    Flip,
    Impersonate,
    Insert,
    JoinToItself,
    Lie,
    MaliciousRelay,
    ManInTheMiddle,
    Meanwhile,
    NewKeyForData,
    Part,
    Place,
    Reflect,
    Repeat,
    Replace,
    Replay,
    Shorten,
    Step,
    StripPayload,
    Swap,
    Truncate,
)

# The sender's records: the manifest with the offer, three full ones, one with the rest, the digests and the end; and
# Done. The receiver's: Accept, what it wants, one acknowledgement (of all: another comes only after a second), the
# receipt.
FILE = content(200_000)
OFFER, FULL, LAST, DONE = (Place.record(Part.SENDER, number) for number in (0, 1, 4, 5))
ACCEPT, WANT, ACK, RECEIPT = (Place.record(Part.RECEIVER, number) for number in range(4))
LINES = [Place.line(part) for part in Part]
HANDSHAKES = [Place.handshake(Part.SENDER, 0), Place.handshake(Part.RECEIVER), Place.handshake(Part.SENDER, 1)]

# The ways in which a push may notice.
DETECTED = {Exit.KEY, Exit.UNREACHABLE, Exit.INTEGRITY, Exit.VERSION}
ENDED = (events.Failed, events.OfferDeclined, events.Received)


async def fails(
    sender: Person, relay: MaliciousRelay, receiver: Person, detected: Collection[Exit] = DETECTED
) -> GlideError:
    """How the push of FILE ends, which must be one of the ways to notice."""
    with pytest.raises(GlideError) as caught:
        await sender.push(relay.address, receiver.name, sender.file(FILE))
    assert caught.value.exit in detected
    assert not sender.told(events.Delivered)
    return caught.value


async def goes_on(sender: Person, relay: MaliciousRelay, receiver: Person) -> None:
    """The receiver still runs: behaving again, the relay carries another file to it."""
    relay.behaviour = Behaviour()
    await sender.push(relay.address, receiver.name, sender.file(b"all is well", "next.txt"))
    assert receiver.inbox["next.txt"] == b"all is well"


def by_name(attack: object) -> str:
    return repr(attack)


def at(kind: Callable[[Place], AtPlace], *places: Place) -> list[AtPlace]:
    return [kind(place) for place in places]


async def test_the_double_behaves_unless_it_is_told_otherwise(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    await alice.push(evil.address, "bob", alice.file(FILE))
    assert bob.inbox == {"holiday.jpg": FILE}
    # What the attacks below take for granted of the places of things.
    assert [piece.place for piece in evil.pieces if piece.place.source is Part.SENDER][-1] == DONE
    assert [piece.place for piece in evil.pieces if piece.place.source is Part.RECEIVER][-1] == RECEIPT


# --- records, noticed at once ------------------------------------------------------------------------------

BEFORE_THE_END = [
    *at(Flip, OFFER, FULL, LAST, ACCEPT, WANT),
    *[Flip(place, at_byte=2) for place in (OFFER, FULL, LAST, ACCEPT, WANT)],
    *at(Shorten, OFFER, FULL, LAST, ACCEPT, WANT),
    *at(Empty, OFFER, FULL, LAST, ACCEPT, WANT),
    *at(Insert, OFFER, FULL, LAST, ACCEPT, WANT),
    *at(Truncate, OFFER, FULL, LAST, ACCEPT, WANT),
    *at(EndBefore, OFFER, FULL, LAST, ACCEPT, WANT),
    *at(Repeat, HANDSHAKES[1], OFFER, FULL, ACCEPT, WANT),
    *at(Drop, FULL, Place.record(Part.SENDER, 3), ACCEPT),
    *at(Swap, FULL, Place.record(Part.SENDER, 3), ACCEPT),
]


@pytest.mark.parametrize("attack", BEFORE_THE_END, ids=by_name)
async def test_C2_a_record_that_is_changed_dropped_repeated_moved_or_cut_is_detected(
    attack: Behaviour, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = attack
    error = await fails(alice, evil, bob)
    assert isinstance(error, (IntegrityError, ConnectionLost))
    await bob.hears(events.Failed)
    assert bob.inbox == {}
    assert not bob.told(events.Saved)
    await goes_on(alice, evil, bob)
    assert set(bob.inbox) == {"next.txt"}


AT_THE_RECEIPT = [
    *at(Flip, RECEIPT),
    *at(Shorten, RECEIPT),
    *at(Empty, RECEIPT),
    *at(Insert, RECEIPT),
    *at(Truncate, RECEIPT),
    *at(EndBefore, RECEIPT),
    *at(Flip, ACK),
    *at(Drop, ACK),
    *at(Repeat, ACK),
]


@pytest.mark.parametrize("attack", AT_THE_RECEIPT, ids=by_name)
async def test_C2_without_the_receipt_the_push_fails_though_the_receiver_may_have_all_of_it(
    attack: Behaviour, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = attack
    await fails(alice, evil, bob)
    await bob.hears(*ENDED)
    assert bob.inbox in ({"holiday.jpg": FILE}, {})
    await goes_on(alice, evil, bob)
    assert set(bob.inbox) <= {"next.txt", "holiday.jpg"}


@pytest.mark.parametrize("attack", [*at(Flip, DONE), *at(Insert, DONE), *at(Truncate, DONE)], ids=by_name)
async def test_what_is_done_after_the_receipt_changes_nothing_for_either_side(
    attack: Behaviour, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = attack
    await alice.push(evil.address, "bob", alice.file(FILE))
    ended = await bob.hears(*ENDED)
    assert bob.inbox == {"holiday.jpg": FILE}
    assert isinstance(ended, events.Received), f"the file is there and confirmed, yet the receiver was told {ended}"


async def test_C2_the_last_record_twice_is_detected_or_comes_too_late_to_matter(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    # While the receiver lands what it has it reads no more; which of the two it is, is a race of the relay's making.
    await bob.waits(nursery, evil.address)
    evil.behaviour = Repeat(LAST)
    try:
        await alice.push(evil.address, "bob", alice.file(FILE))
    except GlideError as error:
        assert error.exit in DETECTED
    ended = await bob.hears(*ENDED)
    assert isinstance(ended, events.Received) is bool(alice.told(events.Delivered))
    assert bob.inbox == ({"holiday.jpg": FILE} if isinstance(ended, events.Received) else {})
    await goes_on(alice, evil, bob)


async def test_a_sender_that_stops_while_the_receipt_is_on_its_way_does_not_make_the_receiver_fail(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    # Both are honest here, and so may the network be: Receipt and Abort cross. The relay only makes sure of it.
    stop = trio.CancelScope()
    evil.behaviour = Meanwhile(RECEIPT, do=stop.cancel)
    await bob.waits(nursery, evil.address)
    with stop:
        await alice.push(evil.address, "bob", alice.file(FILE))
    assert stop.cancelled_caught
    ended = await bob.hears(*ENDED)
    assert bob.inbox == {"holiday.jpg": FILE}
    assert isinstance(ended, events.Received), f"the file was saved, yet the receiver was told {ended}"


# --- what only silence gives away --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack", [*at(Drop, OFFER, LAST, WANT, *LINES, *HANDSHAKES), Flip(LAST, at_byte=0, bit=0x80)], ids=by_name
)
async def test_C2_what_is_held_back_ends_in_a_failure_on_both_sides(
    attack: Behaviour, evil: MaliciousRelay, hasty_alice: Person, hasty_bob: Person, nursery: trio.Nursery
) -> None:
    await hasty_bob.waits(nursery, evil.address)
    evil.behaviour = attack
    await fails(hasty_alice, evil, hasty_bob)
    await hasty_bob.hears(events.Failed)
    assert hasty_bob.inbox == {}
    await goes_on(hasty_alice, evil, hasty_bob)


async def test_C2_a_receipt_that_is_held_back_is_no_success_for_the_sender(
    evil: MaliciousRelay, hasty_alice: Person, hasty_bob: Person, nursery: trio.Nursery
) -> None:
    await hasty_bob.waits(nursery, evil.address)
    evil.behaviour = Drop(RECEIPT)
    error = await fails(hasty_alice, evil, hasty_bob)
    assert error.exit is Exit.UNREACHABLE
    await hasty_bob.hears(*ENDED)
    assert hasty_bob.inbox == {"holiday.jpg": FILE}
    await goes_on(hasty_alice, evil, hasty_bob)


# --- the end-to-end handshake ------------------------------------------------------------------------------

HIGHEST_BIT = 0x80  # which X25519 ignores in a key (RFC 7748), and the handshake must not

IN_THE_HANDSHAKE = [
    *at(Flip, *HANDSHAKES),
    Flip(HANDSHAKES[0], at_byte=2 + 31, bit=HIGHEST_BIT),
    Flip(HANDSHAKES[1], at_byte=2 + 31, bit=HIGHEST_BIT),
    Flip(Place.line(Part.SENDER), at_byte=8),
    *at(Shorten, *HANDSHAKES),
    *at(Empty, *HANDSHAKES),
    *at(Insert, *HANDSHAKES),
    *at(Truncate, *LINES, *HANDSHAKES),
    *at(EndBefore, *LINES, *HANDSHAKES),
    *at(StripPayload, *HANDSHAKES[1:]),
    *at(Repeat, HANDSHAKES[0], HANDSHAKES[2]),
    *[
        Replace(Place.line(Part.SENDER), instead=line)
        for line in (b"glide/1 data\n", b"glide/1 control\n", b"glide/2 e2e\n", b"glide/01 e2e\n", b"GET / HTTP/1.1\n")
    ],
    *[
        Replace(Place.line(Part.RECEIVER), instead=line)
        for line in (b"glide/1 refused speaks 2 to 3: yours is older\n", b"HTTP/1.1 200 OK\n", b"\n", b"x" * 300)
    ],
]


@pytest.mark.parametrize("attack", IN_THE_HANDSHAKE, ids=by_name)
async def test_C2_a_handshake_that_is_touched_does_not_come_out(
    attack: Behaviour, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = attack
    await fails(alice, evil, bob)
    await bob.hears(events.Failed)
    assert bob.inbox == {}
    assert not bob.told(events.OfferArrived), "an offer was read out of a handshake that was touched"
    await goes_on(alice, evil, bob)


# --- one transfer's bytes in another -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", [OFFER, FULL, LAST, ACCEPT, WANT, RECEIPT, Place.record(Part.SENDER, 2), *HANDSHAKES], ids=str
)
async def test_C2_a_piece_of_an_earlier_transfer_of_the_same_file_is_detected(
    place: Place, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    await alice.push(evil.address, "bob", alice.file(FILE))
    earlier = evil.said(0, place.source)
    alice.events.clear()
    evil.behaviour = Replace(place, instead=earlier[place.index])
    await fails(alice, evil, bob)
    await bob.hears(*ENDED, times=2)
    assert set(bob.inbox.values()) == {FILE}
    assert len(bob.inbox) == (2 if place == RECEIPT else 1)
    await goes_on(alice, evil, bob)


@pytest.mark.parametrize("source", Part)
async def test_C2_an_earlier_transfer_cannot_be_replayed(
    source: Part, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    await alice.push(evil.address, "bob", alice.file(FILE))
    alice.events.clear()
    evil.behaviour = Replay(source, evil.said(0, source))
    await fails(alice, evil, bob)
    await bob.hears(events.Failed)
    assert bob.inbox == {"holiday.jpg": FILE}
    await goes_on(alice, evil, bob)


@pytest.mark.parametrize("start", [0, 1, 2], ids=["from-the-start", "from-the-first-record", "from-the-second-record"])
async def test_C2_a_clients_own_bytes_do_not_pass_for_the_others(
    start: int, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = Reflect(start)
    await fails(alice, evil, bob)
    await bob.hears(events.Failed)
    assert bob.inbox == {}
    await goes_on(alice, evil, bob)


@pytest.mark.parametrize("pinned", [False, True], ids=["first-contact", "pinned"])
async def test_C2_two_transfers_of_four_people_cannot_be_crossed(
    pinned: bool, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery, tmp_path: Path
) -> None:
    carol, dave = Person("carol", tmp_path / "carol"), Person("dave", tmp_path / "dave")
    for sender, receiver in ((alice, bob), (carol, dave)):
        if pinned:
            sender.pin(evil.key, receiver)
            receiver.pin(evil.key, sender)
        await receiver.waits(nursery, evil.address)
    evil.behaviour = CrossJoin()
    async with trio.open_nursery() as pushes:
        # A receiver may be the first to notice, and not come: that is asserted below.
        pushes.start_soon(fails, alice, evil, bob, DETECTED | {Exit.NOBODY})
        pushes.start_soon(fails, carol, evil, dave, DETECTED | {Exit.NOBODY})
    for receiver in (bob, dave):
        await receiver.hears(events.Failed)
        assert receiver.inbox == {}
        assert not receiver.told(events.OfferArrived)
    await goes_on(alice, evil, bob)
    await goes_on(carol, evil, dave)


async def test_C2_two_transfers_of_the_same_two_people_cannot_be_crossed(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(evil.key, bob)
    bob.pin(evil.key, alice)
    await bob.waits(nursery, evil.address)
    evil.behaviour = CrossJoin()
    async with trio.open_nursery() as pushes:
        # Here too.
        pushes.start_soon(fails, alice, evil, bob, DETECTED | {Exit.NOBODY})
        pushes.start_soon(fails, alice, evil, bob, DETECTED | {Exit.NOBODY})
    await bob.hears(events.Failed, times=2)
    assert bob.inbox == {}
    assert not bob.told(events.OfferArrived)
    await goes_on(alice, evil, bob)


# --- who is who --------------------------------------------------------------------------------------------


async def test_C2_with_a_pin_somebody_joined_to_themselves_stops(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(evil.key, bob)
    await alice.waits(nursery, evil.address)
    await bob.waits(nursery, evil.address)
    evil.behaviour = JoinToItself(evil)
    assert (await fails(alice, evil, bob)).exit is Exit.KEY
    assert alice.inbox == bob.inbox == {}
    await goes_on(alice, evil, bob)


async def test_C2_at_a_first_contact_too_somebody_joined_to_themselves_does_not_shake_hands(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await alice.waits(nursery, evil.address)
    await bob.waits(nursery, evil.address)
    evil.behaviour = JoinToItself(evil)
    assert (await fails(alice, evil, bob)).exit is Exit.INTEGRITY
    await alice.hears(events.Failed)
    assert alice.inbox == bob.inbox == {}
    assert alice.known.people() == [], "a key was pinned that nobody proved"
    await goes_on(alice, evil, bob)


STRANGER = Identity.generate().public

LIES = {
    "another-key-in-ringing": Lie(ringing_key=STRANGER),
    "another-key-in-incoming": Lie(incoming_key=STRANGER),
    "another-key-in-both": Lie(ringing_key=STRANGER, incoming_key=STRANGER),
    "another-senders-name": Lie(sender_name="carol"),
    "another-transfer": Lie(transfer=bytes(16)),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_C2_the_two_do_not_shake_hands_unless_they_were_told_the_same(
    lie: Behaviour, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = lie
    await fails(alice, evil, bob)
    await bob.hears(*ENDED)
    assert bob.inbox == {}
    assert not bob.told(events.OfferArrived)
    assert bob.known.people() == alice.known.people() == [], "a key was pinned that nobody proved"
    await goes_on(alice, evil, bob)


async def test_C2_with_a_pin_another_key_for_the_receiver_stops_the_push_before_a_data_connection(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(evil.key, bob)
    await bob.waits(nursery, evil.address)
    evil.behaviour = Lie(ringing_key=STRANGER)
    error = await fails(alice, evil, bob)
    assert isinstance(error, KeyChanged)
    assert not [each for each in evil.connections if each.purpose is Purpose.DATA and each.key == alice.key]
    await goes_on(alice, evil, bob)


async def test_C2_with_a_pin_another_key_for_the_sender_is_refused_before_a_data_connection(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.pin(evil.key, alice)
    await bob.waits(nursery, evil.address)
    evil.behaviour = Lie(incoming_key=STRANGER)
    with pytest.raises(Declined):
        await alice.push(evil.address, "bob", alice.file(FILE))
    await bob.hears(events.OfferDeclined)
    assert not [each for each in evil.connections if each.purpose is Purpose.DATA and each.key == bob.key]
    assert bob.inbox == {}
    await goes_on(alice, evil, bob)


async def test_C2_who_answers_in_the_receivers_place_is_told_nothing_not_even_the_senders_key(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = Impersonate(Part.SENDER)
    error = await fails(alice, evil, bob)
    assert isinstance(error, KeyChanged)
    [data] = [each for each in evil.connections if each.purpose is Purpose.DATA and each.key == alice.key]
    assert data.received.endswith(data.received.partition(b"glide/1 e2e\n")[2])
    assert len(data.received.partition(b"glide/1 e2e\n")[2]) == 2 + 32, "more than the first handshake message"
    await bob.hears(events.Failed)
    await goes_on(alice, evil, bob)


async def test_C2_who_speaks_in_the_senders_place_is_refused(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = Impersonate(Part.RECEIVER)
    await fails(alice, evil, bob)
    await bob.hears(events.OfferDeclined)
    assert bob.inbox == {}
    assert not bob.told(events.OfferArrived)
    await goes_on(alice, evil, bob)


async def test_C2_a_relay_that_has_another_key_for_data_is_detected_by_both(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour, itself = NewKeyForData(evil), evil.identity
    assert isinstance(await fails(alice, evil, bob), KeyChanged)
    await bob.hears(events.OfferDeclined)
    assert bob.inbox == {}
    evil.identity = itself
    await goes_on(alice, evil, bob)


# --- hanging up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        CloseAt(Step.ACCEPTED),
        CloseAt(Step.SHAKEN),
        CloseAt(Step.HELLO, Part.SENDER),
        CloseAt(Step.WELCOMED, Part.SENDER),
        CloseAt(Step.PUSHED, Part.SENDER),
        CloseAt(Step.SHAKEN, purpose=Purpose.DATA),
        CloseAt(Step.TICKET, Part.SENDER),
        CloseAt(Step.TICKET, Part.RECEIVER),
        CloseAt(Step.JOINED, Part.SENDER),
        CloseAt(Step.JOINED, Part.RECEIVER),
    ],
    ids=by_name,
)
async def test_C2_a_relay_that_hangs_up_makes_the_push_fail_and_nothing_else(
    attack: Behaviour, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = attack
    with pytest.raises(GlideError) as caught:
        await alice.push(evil.address, "bob", alice.file(FILE))
    # Where the relay hung up before the two were joined, it told the sender that the other did not come.
    assert isinstance(caught.value, Declined) or caught.value.exit is Exit.UNREACHABLE
    await goes_on(alice, evil, bob)
    assert set(bob.inbox) == {"next.txt"}


async def test_a_relay_that_hangs_up_on_the_senders_control_connection_does_not_end_its_transfer(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = CloseAt(Step.RUNG, Part.SENDER)
    await alice.push(evil.address, "bob", alice.file(FILE))
    assert bob.inbox == {"holiday.jpg": FILE}


@pytest.mark.parametrize("step", [Step.ACCEPTED, Step.SHAKEN, Step.HELLO, Step.WELCOMED])
async def test_a_relay_that_hangs_up_on_a_receiver_ends_its_session_with_an_error(
    step: Step, evil: MaliciousRelay, bob: Person
) -> None:
    evil.behaviour = CloseAt(step)
    with pytest.raises(GlideError) as caught:
        await bob.receive(evil.address)
    assert caught.value.exit is Exit.UNREACHABLE


# --- the man in the middle ---------------------------------------------------------------------------------


async def test_C2_at_a_first_contact_a_swapped_key_is_not_detected(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    # The limit of what keys can do for people who have never met: see docs/security.md. The relay reads it all.
    await bob.waits(nursery, evil.address)
    evil.behaviour = middle = ManInTheMiddle()
    await alice.push(evil.address, "bob", alice.file(FILE, "secret.txt"), message="for your eyes only")
    assert bob.inbox == {"secret.txt": FILE}
    assert bytes(middle.stolen) == FILE
    [page] = [message for message in middle.heard if isinstance(message, Page)]
    [offer] = [message for message in middle.heard if isinstance(message, Offer)]
    assert (page.items[0].path, offer.message) == ("secret.txt", "for your eyes only")
    # But both are shown as people whom nobody vouched for.
    [ringing], [offered] = alice.told(events.Ringing), bob.told(events.OfferArrived)
    assert ringing.trust == offered.trust == Trust.NEW


async def test_C2_a_swapped_key_at_a_first_contact_is_detected_as_soon_as_the_relay_tells_the_truth(
    evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = ManInTheMiddle()
    await alice.push(evil.address, "bob", alice.file(FILE))
    evil.behaviour = Behaviour()
    with pytest.raises(KeyChanged):
        await alice.push(evil.address, "bob", alice.file(FILE))


@pytest.mark.parametrize("trust", [Trust.SEEN, Trust.KNOWN, Trust.VERIFIED])
async def test_C2_with_a_pin_at_the_sender_alone_a_man_in_the_middle_is_detected(
    trust: Trust, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(evil.key, bob, trust)
    await bob.waits(nursery, evil.address)
    evil.behaviour = middle = ManInTheMiddle()
    error = await fails(alice, evil, bob)
    assert error.exit is Exit.KEY
    assert not middle.stolen
    assert not middle.heard
    assert bob.inbox == {}
    await goes_on(alice, evil, bob)


@pytest.mark.parametrize("trust", [Trust.SEEN, Trust.KNOWN, Trust.VERIFIED])
async def test_C2_with_a_pin_at_the_receiver_alone_a_man_in_the_middle_is_detected(
    trust: Trust, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.pin(evil.key, alice, trust)
    await bob.waits(nursery, evil.address)
    evil.behaviour = middle = ManInTheMiddle()
    with pytest.raises(Declined):
        await alice.push(evil.address, "bob", alice.file(FILE))
    await bob.hears(events.OfferDeclined)
    assert bob.inbox == {}
    assert not middle.stolen
    await goes_on(alice, evil, bob)


@pytest.mark.parametrize("told", Part)
async def test_C2_a_man_in_the_middle_who_lies_to_one_side_alone_is_detected_at_a_first_contact_too(
    told: Part, evil: MaliciousRelay, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, evil.address)
    evil.behaviour = middle = ManInTheMiddle(lie_to=frozenset({told}))
    await fails(alice, evil, bob)
    await bob.hears(*ENDED)
    assert bob.inbox == {}
    assert not middle.stolen
