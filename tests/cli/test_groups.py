"""A push to a group of config.toml: to each member for themselves, and what it comes to for all of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from glide import events
from glide.cli.groups import to_each
from glide.client.push import Receipt
from glide.crypto.identity import load_or_create, parse_key
from glide.errors import GlideError, Partly, RelayRefused
from glide.people.known import Known, Trust
from tests.processes import Process, World


def group(w: World, *members: str, name: str = "team") -> None:
    """Alice has a group of these people."""
    (w.folder / "alice").mkdir(exist_ok=True)
    (w.folder / "alice" / "config.toml").write_text(f"[groups]\n{name} = {json.dumps(members)}\n")


def sends(w: World, *more: str | Path, to: str = "team") -> Process:
    return w.push("alice", to, w.file("f", 100), *more)


def takes(w: World, *people: str) -> list[Process]:
    return [w.receive(person, "--accept", "all") for person in people]


def test_everybody_in_a_group_gets_it(w: World) -> None:
    group(w, "bob", "Carol", "@dave")
    receivers = takes(w, "bob", "carol", "dave")
    sender = sends(w, "--message", "for all of you", to="@Team")
    assert sender.wait() == 0, sender
    sent = (w.folder / "f").read_bytes()
    for person in ("bob", "carol", "dave"):
        assert (w.into(person) / "f").read_bytes() == sent
    assert {event["to"] for event in sender.told("delivered")} == {"bob", "carol", "dave"}
    assert len({event["transfer"] for event in sender.told("delivered")}) == 3
    assert not sender.told("undelivered")
    assert any("bob, carol, dave" in notice["message"] for notice in sender.told("notice"))
    assert [receiver.event("offer")["message"] for receiver in receivers] == ["for all of you"] * 3
    assert sender.result["status"] == "ok"


def test_a_member_who_is_not_there_keeps_it_from_nobody_else(w: World) -> None:
    group(w, "bob", "carol", "dave")
    takes(w, "bob", "dave")
    receipt = w.folder / "receipt.json"
    sender = sends(w, "--receipt", receipt)
    assert sender.wait() == 9, sender
    assert sender.result["status"] == "partly"
    assert "carol" in sender.result["message"]
    assert "bob, dave" in sender.result["message"]
    (undelivered,) = sender.told("undelivered")
    assert (undelivered["to"], undelivered["status"]) == ("carol", "nobody")
    assert "carol is not connected" in undelivered["message"]
    assert {event["to"] for event in sender.told("delivered")} == {"bob", "dave"}
    confirmed = json.loads(receipt.read_text())
    assert sorted(each["to"] for each in confirmed) == ["bob", "dave"]
    for each in confirmed:
        assert each["to_key"] == sender.event("ringing", to=each["to"])["key"]
        assert each["transfer"] == sender.event("delivered", to=each["to"])["transfer"]
        assert (each["items"], each["bytes"]) == (1, 100)


def test_whoever_of_a_group_got_only_some_of_it_has_a_receipt_for_that(w: World) -> None:
    group(w, "bob", "carol")
    takes(w, "bob", "carol")
    w.file("folder/good", 10)
    w.file("folder/bad\nname", 10)
    receipt = w.folder / "receipt.json"
    sender = w.push("alice", "team", w.folder / "folder", "--receipt", receipt)
    assert sender.wait() == 9, sender
    assert [each["items"] for each in json.loads(receipt.read_text())] == [1, 1]
    assert {event["status"] for event in sender.told("undelivered")} == {"partly"}


def test_if_nobody_got_it_for_one_reason_that_is_the_reason(w: World) -> None:
    group(w, "bob", "carol")
    receipt = w.folder / "receipt.json"
    sender = sends(w, "--receipt", receipt)
    assert sender.wait() == 3, sender
    assert sender.result["status"] == "nobody"
    assert "Nobody in team" in sender.result["message"]
    assert len(sender.told("undelivered")) == 2
    assert not receipt.exists() or json.loads(receipt.read_text()) == []
    for person in ("bob", "carol"):
        w.receive(person)  # and can ask nobody there
    declined = sends(w)
    assert declined.wait() == 4, declined


def test_if_nobody_got_it_for_several_reasons_there_is_no_code_for_that(w: World) -> None:
    group(w, "bob", "carol")
    w.receive("bob")  # declines
    sender = sends(w)
    assert sender.wait() == 1, sender
    assert {event["to"]: event["status"] for event in sender.told("undelivered")} == {
        "bob": "declined",
        "carol": "nobody",
    }


def test_a_member_who_is_there_twice_gets_it_once(w: World) -> None:
    group(w, "bob", "@Bob", "BOB")
    (receiver,) = takes(w, "bob")
    sender = sends(w)
    assert sender.wait() == 0, sender
    assert len(receiver.told("offer")) == 1
    assert w.left("bob") == ["f"]


def test_standard_input_cannot_be_read_for_several(w: World) -> None:
    group(w, "bob", "carol")
    receivers = takes(w, "bob", "carol")
    sender = w.push("alice", "team", "-", "--filename", "f")
    assert sender.wait() == 2, sender
    assert "standard input" in sender.result["message"]
    assert not any(receiver.told("offer") for receiver in receivers)


@pytest.mark.parametrize(
    "lines",
    [
        'team = "bob"',
        "team = []",
        "team = [1]",
        'team = ["b b"]',
        'team = ["other"]\nother = ["bob"]',
        '"te am" = ["bob"]',
        'team = ["bob"]\nTeam = ["carol"]',
    ],
)
def test_what_is_no_group_is_wrong_usage_and_disturbs_nobody(w: World, lines: str) -> None:
    (receiver,) = takes(w, "bob")
    (w.folder / "alice").mkdir()
    (w.folder / "alice" / "config.toml").write_text(f"[groups]\n{lines}\n")
    sender = sends(w)
    assert sender.wait() == 2, sender
    assert "groups" in sender.result["message"]
    assert not receiver.told("offer")


def test_ctrl_c_stops_the_pushes_to_all(w: World) -> None:
    group(w, "bob", "carol", "dave")
    receivers = [w.receive(person, terminal=True) for person in ("bob", "carol")]
    sender = sends(w, "--wait", "10m")
    sender.event("waiting", to="dave")
    for receiver in receivers:
        receiver.says("Take it from alice?")
    sender.signal(signal.SIGINT)
    assert sender.wait() == 130, sender
    for receiver in receivers:
        receiver.says("(no longer asked)")
        assert receiver.event("failed")["status"] == "cancelled"
    (dave,) = takes(w, "dave")
    assert w.push("zoe", "dave", w.file("other", 1)).wait() == 0
    assert [event["from"] for event in dave.told("offer")] == ["zoe"]


def test_one_member_who_takes_their_time_holds_up_nobody_else(w: World) -> None:
    group(w, "bob", "carol")
    slow = w.receive("bob", terminal=True)
    takes(w, "carol")
    sender = sends(w)
    slow.says("Take it from alice?")
    assert sender.event("delivered", to="carol")
    assert not [event for event in sender.told("delivered") if event["to"] == "bob"]
    slow.types("y\n")
    assert sender.wait() == 0, sender


def test_C1_a_strict_push_to_a_group_goes_only_to_whom_was_verified(w: World) -> None:
    group(w, "bob", "carol")
    receivers = takes(w, "bob", "carol")
    key = load_or_create(w.folder / "bob" / "identity").public
    Known(w.folder / "alice" / "known.json").remember(
        parse_key(w.address.partition("#")[2]), "bob", key, Trust.VERIFIED
    )
    sender = sends(w, "--strict")
    assert sender.wait() == 9, sender
    (undelivered,) = sender.told("undelivered")
    assert (undelivered["to"], undelivered["status"]) == ("carol", "not-verified")
    assert (w.left("bob"), w.left("carol")) == (["f"], [])
    assert [bool(receiver.told("offer")) for receiver in receivers] == [True, False]


def test_members_who_are_not_there_keep_nobody_waiting_who_is(w: World) -> None:
    group(w, *(f"absent{number}" for number in range(20)), "bob")
    takes(w, "bob")
    sender = sends(w, "--wait", "10m")
    assert sender.event("delivered", to="bob")
    sender.signal(signal.SIGINT)
    assert sender.wait() == 130, sender


def test_ctrl_c_loses_no_receipt_of_who_has_it(w: World) -> None:
    group(w, "bob", "carol", "dave")
    takes(w, "bob", "carol")
    receipt = w.folder / "receipt.json"
    sender = sends(w, "--wait", "10m", "--receipt", receipt)
    for person in ("bob", "carol"):
        sender.event("delivered", to=person)
    sender.event("waiting", to="dave")
    sender.signal(signal.SIGINT)
    assert sender.wait() == 130, sender
    assert sorted(each["to"] for each in json.loads(receipt.read_text())) == ["bob", "carol"]


# --- more than a relay allows at once ---


class Relay:
    """Allows so many pushes at once, and notices ``late`` seconds after its client that one is over."""

    def __init__(self, most: int, late: float = 0.0) -> None:
        self.most = most
        self.late = late
        self.open = 0  # as far as it has noticed
        self.tries = 0
        self.under_way = 0
        self.at_once = 0
        self.there = trio.Event()  # somebody who was waited for has come

    async def push(self, person: str) -> Receipt:
        self.tries += 1
        await trio.sleep(0.1)
        if self.open >= self.most:
            raise RelayRefused(f"You have {self.most} transfers under way.")
        self.open += 1
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        try:
            if person.startswith("absent"):
                await self.there.wait()
            else:
                await trio.sleep(5)
        finally:
            self.under_way -= 1
            trio.lowlevel.spawn_system_task(self.notice)
        return Receipt(bytes(16), 0.0, bytes(32), "alice", bytes(32), person, bytes(32), 1, 5, bytes(32))

    async def notice(self) -> None:
        await trio.sleep(self.late)
        self.open -= 1


def crowd(count: int, name: str = "person") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


@pytest.mark.parametrize("patient", [True, False])
async def test_more_members_than_the_relay_allows_at_once_all_get_it(
    autojump_clock: MockClock, tmp_path: Path, patient: bool
) -> None:
    relay, reported = Relay(32, late=0.5), list[events.Event]()
    record = tmp_path / "receipt"
    await to_each("team", crowd(100), relay.push, reported.append, record, patient=patient)
    assert sorted(each["to"] for each in json.loads(record.read_text())) == sorted(crowd(100))
    assert not [event for event in reported if isinstance(event, events.Undelivered)]
    assert relay.at_once == (32 if patient else 16)
    assert relay.tries <= 100 + 2 * 68  # refused ones are tried when there may be room, and not all the time


async def test_whoever_is_refused_is_tried_again_when_another_is_over(autojump_clock: MockClock) -> None:
    relay, reported = Relay(2), list[events.Event]()
    members = [*crowd(2, "absent"), *crowd(1)]
    async with trio.open_nursery() as nursery:

        async def push() -> None:
            await to_each("team", members, relay.push, reported.append, None, patient=True)

        nursery.start_soon(push)
        await trio.sleep(60)
        tries = relay.tries
        await trio.sleep(3600)
        assert relay.tries == tries  # nothing looks around meanwhile
        assert not [event for event in reported if isinstance(event, events.Undelivered)]
        relay.there.set()
    assert not [event for event in reported if isinstance(event, events.Undelivered)]
    assert relay.tries == 4


async def test_a_relay_that_takes_none_is_asked_until_nothing_else_is_under_way(autojump_clock: MockClock) -> None:
    relay, reported = Relay(0), list[events.Event]()
    with pytest.raises(RelayRefused, match="Nobody in team"), trio.fail_after(60):
        await to_each("team", crowd(50), relay.push, reported.append, None, patient=True)
    assert {event.status for event in reported if isinstance(event, events.Undelivered)} == {"refused"}


async def test_cancelled_what_was_confirmed_is_written(autojump_clock: MockClock, tmp_path: Path) -> None:
    relay, record = Relay(1), tmp_path / "receipt"
    with trio.move_on_after(5.5) as scope:  # the first is over, and others stand in line
        await to_each("team", crowd(3), relay.push, lambda _: None, record, patient=True)
    assert scope.cancelled_caught
    assert len(json.loads(record.read_text())) == 1


async def test_an_error_of_one_is_told_and_the_others_go_on(autojump_clock: MockClock) -> None:
    relay, reported = Relay(8), list[events.Event]()

    async def push(person: str) -> Receipt:
        if person == "person1":
            raise GlideError("It is a bad day.")
        return await relay.push(person)

    with pytest.raises(Partly, match="1 of 3 in team"):
        await to_each("team", crowd(3), push, reported.append, None, patient=False)
    (told,) = (event for event in reported if isinstance(event, events.Undelivered))
    assert (told.to, told.message) == ("person1", "It is a bad day.")
