"""C1: what makes a person seen, known or verified, and what a changed key leads to."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio

from glide import events
from glide.client.address import Address
from glide.client.push import push
from glide.errors import Declined, Exit, KeyChanged
from glide.people.known import Trust
from glide.people.policy import Policy
from glide.protocol.preface import Purpose
from tests.client.people import Person
from tests.doubles import MaliciousRelay

HELLO = b"hello"


async def yes(offer: events.OfferArrived) -> bool:
    return True


async def no(offer: events.OfferArrived) -> bool:
    return False


@pytest.fixture
def other_alice(tmp_path: Path) -> Person:
    """Somebody else of the same name, or Alice with a new key."""
    return Person("alice", tmp_path / "other-alice")


@pytest.fixture
def other_bob(tmp_path: Path) -> Person:
    return Person("bob", tmp_path / "other-bob")


async def sends(sender: Person, relay: Address, receiver: str = "bob") -> None:
    await sender.push(relay, receiver, sender.file(HELLO))


# --- what a meeting makes of somebody ----------------------------------------------------------------------


async def test_C1_an_offer_that_a_policy_accepts_makes_its_sender_seen(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest, Policy.accepting("all"))
    await sends(alice, honest)
    await sends(alice, honest)  # however often
    assert bob.trusts(key, alice) is Trust.SEEN
    assert [offer.trust for offer in bob.told(events.OfferArrived)] == [Trust.NEW, Trust.SEEN]


async def test_C1_a_persons_yes_makes_the_sender_known(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest, Policy.accepting("ask"), yes)
    await sends(alice, honest)
    assert bob.trusts(key, alice) is Trust.KNOWN


@pytest.mark.parametrize("policy", [Policy.accepting("ask"), Policy.accepting("known")])
async def test_C1_an_offer_that_is_not_accepted_leaves_no_trace(
    policy: Policy, honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest, policy, no)
    with pytest.raises(Declined):
        await sends(alice, honest)
    assert bob.known.people() == []
    assert bob.inbox == {}


async def test_C1_a_push_of_ones_own_makes_the_receiver_known(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest)
    await sends(alice, honest)
    assert alice.trusts(key, bob) is Trust.KNOWN
    [pin] = alice.known.people()
    assert (pin.relay, pin.name, pin.key) == (key, "bob", bob.key)


@pytest.mark.parametrize("policy", [Policy.accepting("all"), Policy.accepting("ask")])
async def test_C1_no_meeting_lowers_what_somebody_is(
    policy: Policy, honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.pin(key, alice, Trust.VERIFIED)
    alice.pin(key, bob, Trust.VERIFIED)
    await bob.waits(nursery, honest, policy, yes)
    await sends(alice, honest)
    assert bob.trusts(key, alice) is alice.trusts(key, bob) is Trust.VERIFIED


async def test_C1_the_same_name_at_another_relay_is_another_person(
    honest: Address, key: bytes, evil: MaliciousRelay, alice: Person, bob: Person, other_bob: Person,
    nursery: trio.Nursery,
) -> None:  # fmt: skip  # the fixtures are one idea
    await bob.waits(nursery, honest)
    await other_bob.waits(nursery, evil.address)
    await sends(alice, honest)
    await sends(alice, evil.address)
    assert {pin.relay: pin.key for pin in alice.known.people()} == {key: bob.key, evil.key: other_bob.key}


async def test_C1_pins_are_for_their_owner_alone(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest)
    await sends(alice, honest)
    for person in (alice, bob):
        [pins] = person.into.parent.glob("known.json")
        assert stat.S_IMODE(pins.stat().st_mode) == 0o600


# --- changed keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [Trust.SEEN, Trust.KNOWN, Trust.VERIFIED])
async def test_C1_a_push_to_somebody_whose_key_changed_stops_before_any_data_connection(
    trust: Trust, evil: MaliciousRelay, alice: Person, bob: Person, other_bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(evil.key, bob, trust)
    await other_bob.waits(nursery, evil.address)
    with pytest.raises(KeyChanged) as caught:
        await sends(alice, evil.address)
    assert caught.value.exit is Exit.KEY
    assert not [each for each in evil.connections if each.purpose is Purpose.DATA and each.key == alice.key]
    assert alice.known.find(evil.key, "bob") is not None
    assert alice.trusts(evil.key, bob) is trust
    [pin] = alice.known.people()
    assert pin.key == bob.key, "a pin was replaced by itself"
    assert other_bob.inbox == {}


@pytest.mark.parametrize("policy", [Policy.accepting(word) for word in ("ask", "known", "all")])
async def test_C1_an_offer_of_somebody_whose_key_changed_is_refused_and_the_receiver_runs_on(
    policy: Policy, honest: Address, key: bytes, alice: Person, other_alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.pin(key, alice)
    await bob.waits(nursery, honest, policy, yes)
    with pytest.raises(Declined):
        await sends(other_alice, honest)
    [refused] = bob.told(events.OfferDeclined)
    assert refused.sender == "alice"
    assert not bob.told(events.OfferArrived), "a person was asked about it"
    assert bob.inbox == {}
    [pin] = bob.known.people()
    assert pin.key == alice.key, "a pin was replaced by itself"

    await sends(alice, honest)
    assert bob.inbox == {"holiday.jpg": HELLO}


async def test_C1_a_key_that_is_forgotten_may_be_another_one(
    honest: Address, key: bytes, alice: Person, bob: Person, other_bob: Person, nursery: trio.Nursery
) -> None:
    alice.pin(key, other_bob)
    await bob.waits(nursery, honest)
    with pytest.raises(KeyChanged):
        await sends(alice, honest)
    alice.known.forget("bob")
    await sends(alice, honest)
    assert alice.trusts(key, bob) is Trust.KNOWN


# --- one key, two names ------------------------------------------------------------------------------------


async def test_C1_a_key_that_is_pinned_under_another_name_is_shown_so(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    alice.known.remember(key, "robert", bob.key, Trust.VERIFIED)
    bob.known.remember(key, "alison", alice.key, Trust.SEEN)
    await bob.waits(nursery, honest, Policy.accepting("ask"), yes)
    await sends(alice, honest)
    [ringing], [offer] = alice.told(events.Ringing), bob.told(events.OfferArrived)
    assert ringing.aliases == ("robert",)
    assert offer.aliases == ("alison",)
    # What the key was under the other name says nothing about this one.
    assert ringing.trust == offer.trust == Trust.NEW


async def test_C1_another_name_of_a_known_key_is_not_known(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.known.remember(key, "alison", alice.key, Trust.VERIFIED)
    await bob.waits(nursery, honest, Policy.accepting("known"))
    with pytest.raises(Declined):
        await sends(alice, honest)


# --- who is taken from -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [Trust.KNOWN, Trust.VERIFIED])
async def test_C1_accept_known_takes_files_of_people_that_are_known(
    trust: Trust, honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    bob.pin(key, alice, trust)
    await bob.waits(nursery, honest, Policy.accepting("known"))
    await sends(alice, honest)
    assert bob.inbox == {"holiday.jpg": HELLO}
    assert bob.trusts(key, alice) is trust


@pytest.mark.parametrize("trust", [Trust.NEW, Trust.SEEN])
async def test_C1_accept_known_refuses_people_who_are_new_or_only_seen(
    trust: Trust, honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    if trust is Trust.SEEN:
        bob.pin(key, alice, trust)
    await bob.waits(nursery, honest, Policy.accepting("known"), yes)
    with pytest.raises(Declined):
        await sends(alice, honest)
    assert bob.inbox == {}
    assert bob.trusts(key, alice) is trust


async def test_C1_whoever_one_has_pushed_to_is_taken_from_with_accept_known(
    honest: Address, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await alice.waits(nursery, honest)
    await sends(bob, honest, "alice")
    await bob.waits(nursery, honest, Policy.accepting("known"))
    await sends(alice, honest)
    assert bob.inbox == {"holiday.jpg": HELLO}


@pytest.mark.parametrize("trust", Trust)
async def test_D3_where_nobody_can_be_asked_asking_means_no(
    trust: Trust, honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    if trust is not Trust.NEW:
        bob.pin(key, alice, trust)
    await bob.waits(nursery, honest, Policy.accepting("ask"), None)
    with pytest.raises(Declined) as caught:
        await sends(alice, honest)
    assert caught.value.exit is Exit.DECLINED
    assert bob.inbox == {}
    assert bob.trusts(key, alice) is trust


# --- the relay ---------------------------------------------------------------------------------------------


async def test_C1_a_relay_that_was_never_met_is_pinned_and_said_to_be_new(
    honest: Address, key: bytes, alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await bob.waits(nursery, honest)
    [notice] = bob.told(events.Notice)
    assert "First meeting" in notice.message
    pin = bob.known.relay(str(honest))
    assert pin is not None
    assert pin.key == key
    await sends(alice, honest)
    before = len(alice.told(events.Notice))
    await sends(alice, honest)
    assert len(alice.told(events.Notice)) == before, "said again of a relay that is known"


async def test_C1_a_push_under_a_name_that_was_not_chosen_binds_the_name_it_fell_back_to(
    honest: Address, key: bytes, alice: Person, other_alice: Person, bob: Person, nursery: trio.Nursery
) -> None:
    await alice.waits(nursery, honest)  # who holds the name
    await bob.waits(nursery, honest)
    async with other_alice.session(honest, name="alice", by_default=True) as session:
        parcel = other_alice.parcel("bob", other_alice.file(HELLO))
        await push(session, parcel, other_alice.terms, other_alice.report)
    [pin] = bob.known.people()
    assert pin.key == other_alice.key
    assert pin.name.startswith("alice-")
