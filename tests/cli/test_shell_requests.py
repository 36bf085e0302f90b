"""Which of the offers that a shell has shown an answer means: no console, nothing that waits."""

from __future__ import annotations

import itertools

import pytest

from glide import events
from glide.cli.commands import Answer
from glide.cli.requests import OpenOffers, Several
from glide.client.offers import Offer
from glide.errors import UsageError

LATER = 100.0  # when answers are typed; offers come before it


def offer(sender: str = "alice") -> Offer:
    return Offer(events.OfferArrived(bytes(16), sender, bytes(32), 1, 5, "", "new", ("a",), tuple))


def ok(sender: str | None = None, number: int | None = None) -> Answer:
    return Answer(True, sender, number)


def no(sender: str | None = None, number: int | None = None) -> Answer:
    return Answer(False, sender, number)


def test_offers_have_numbers_in_order_and_none_comes_twice() -> None:
    offers = OpenOffers(itertools.count(5))
    assert [offers.add(offer(), 1.0).number for _ in range(3)] == [5, 6, 7]
    offers.take(ok(number=6), LATER)
    assert offers.add(offer(), 2.0).number == 8
    assert [each.number for each in offers.open()] == [5, 7, 8]


def test_an_offer_is_meant_by_its_number_its_sender_or_both() -> None:
    offers = OpenOffers()
    first, second = offer("alice"), offer("bob")
    for each in (first, second):
        offers.add(each, 1.0)
    assert offers.take(ok(number=2), LATER).offer is second
    assert offers.take(no("alice"), LATER).offer is first
    both = offers.add(offer("bob"), 1.0)
    assert offers.take(ok("bob", 3), LATER) is both


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ok(number=7), "No offer 7 waits"),
        (ok("bob", 1), "No offer 1 from bob waits"),
        (no("bob"), "No offer from bob waits"),
    ],
)
def test_what_no_offer_is_meant_by_takes_none(answer: Answer, words: str) -> None:
    offers = OpenOffers()
    offers.add(offer("alice"), 1.0)
    with pytest.raises(UsageError, match=words):
        offers.take(answer, LATER)
    assert len(offers.open()) == 1


def test_of_several_offers_of_one_person_a_name_means_none() -> None:
    offers = OpenOffers()
    for sender in ("alice", "bob", "alice"):
        offers.add(offer(sender), 1.0)
    with pytest.raises(Several, match=r"which one\? no 1 or no 3") as caught:
        offers.take(no("alice"), LATER)
    assert [each.number for each in caught.value.found] == [1, 3]
    assert len(offers.open()) == 3
    assert offers.take(ok("bob"), LATER).number == 2


def test_an_offer_that_was_answered_or_is_over_is_meant_no_more() -> None:
    offers = OpenOffers()
    answered, withdrawn = offer("alice"), offer("bob")
    offers.add(answered, 1.0)
    offers.add(withdrawn, 1.0)
    offers.take(ok("alice"), LATER)
    withdrawn.decline()
    assert offers.open() == []
    assert offers.senders() == []
    for answer in (ok(number=1), ok("alice"), ok(number=2), ok("bob")):
        with pytest.raises(UsageError, match="waits for an answer"):
            offers.take(answer, LATER)


def test_D3_a_name_that_was_begun_before_the_offer_came_takes_nothing() -> None:
    offers = OpenOffers()
    offers.add(offer("alice"), LATER + 1)
    with pytest.raises(UsageError, match="Offer 1 came while you were typing"):
        offers.take(ok("alice"), LATER)
    assert offers.senders() == ["alice"]
    assert offers.take(ok(number=1), LATER).number == 1  # a number is nothing else's
    offers.add(offer("alice"), LATER + 1)
    assert offers.take(no("alice"), LATER).number == 2  # to decline harms nobody


def test_who_waits_for_an_answer_is_known_for_completion() -> None:
    offers = OpenOffers()
    for sender in ("bob", "alice"):
        offers.add(offer(sender), 1.0)
    assert offers.senders() == ["bob", "alice"]
