"""known, verify and pair: how people make sure of each other's keys."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from glide.crypto.identity import Identity, fingerprint, key_text, load_or_create, parse_key
from glide.people.known import Known, Trust
from glide.people.words import new_code, words
from tests.processes import Process, World

RELAY, OTHER_RELAY = b"r" * 32, b"s" * 32
BOB = b"b" * 32

terminals = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")


def book(world: World, person: str) -> Known:
    return Known(world.folder / person / "known.json")


def key(world: World, person: str) -> bytes:
    return load_or_create(world.folder / person / "identity").public


def relay_key(world: World) -> bytes:
    return parse_key(world.address.partition("#")[2])


def trust(world: World, person: str, other: str) -> Trust:
    pin = book(world, person).find(relay_key(world), other)
    return pin.trust if pin is not None else Trust.NEW


def acquainted(w: World) -> None:
    """Alice has sent something to Bob, so that each has a pin of the other."""
    receiver = w.receive("bob", "--accept", "all", "--once")
    assert w.push("alice", "bob", w.file("letter", 10)).wait() == 0
    assert receiver.wait() == 0, receiver


# --- known -----------------------------------------------------------------------------------------------


def test_known_says_who_was_verified_and_when_something_was_last_sent(
    alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins, day = book(alone, "alice"), 86400
    clock = [20_000 * day]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    pins.remember(RELAY, "bob", BOB, Trust.KNOWN)
    pins.remember(RELAY, "a-longest-name-of-32-charactersx", BOB, Trust.SEEN)
    clock[0] += day
    pins.remember(RELAY, "bob", BOB, Trust.VERIFIED)
    clock[0] += day
    pins.transferred(RELAY, "bob")
    listed = alone.run("alice", "known")
    assert listed.wait() == 0, listed
    stranger, bob = listed.output
    days = [time.strftime("%Y-%m-%d", time.localtime(clock[0] - back * day)) for back in (2, 1, 0)]
    assert bob.split() == [
        "bob", "verified", fingerprint(BOB), "since", days[0], "verified", days[1], "last", days[2],
    ]  # fmt: skip  # one line of words
    assert stranger.split()[1:] == [
        "seen", fingerprint(BOB), "since", days[0], "not", "verified", "no", "transfer", "yet",
    ]  # fmt: skip  # one line of words
    assert bob.index(fingerprint(BOB)) == stranger.index(fingerprint(BOB))
    assert bob.index("last") == stranger.index("no transfer")


def test_known_tells_programs_the_same(alone: World) -> None:
    pins = book(alone, "alice")
    pins.remember(RELAY, "bob", BOB, Trust.VERIFIED)
    pins.remember(RELAY, "eve", BOB, Trust.KNOWN)
    pins.transferred(RELAY, "bob")
    listed = alone.run("alice", "known", "--json")
    assert listed.wait() == 0, listed
    bob, eve = listed.event("pin", name="bob"), listed.event("pin", name="eve")
    assert (bob["trust"], bob["verified"], eve["trust"], eve["verified"]) == ("verified", True, "known", False)
    assert time.time() - 300 < bob["last"] <= time.time()
    assert eve["last"] is None


def test_known_says_at_which_relay_if_there_are_several_of_a_name(alone: World) -> None:
    pins = book(alone, "alice")
    pins.remember_relay("example.org:8080", RELAY)
    for relay, name in ((RELAY, "bob"), (OTHER_RELAY, "bob"), (RELAY, "eve")):
        pins.remember(relay, name, BOB, Trust.KNOWN)
    listed = alone.run("alice", "known")
    assert listed.wait() == 0, listed
    here, there, eve, _ = listed.output
    assert here.endswith("  at example.org:8080")
    assert there.endswith(f"  at relay {fingerprint(OTHER_RELAY)}")
    assert " at " not in eve


def test_D1_no_name_in_the_list_of_pins_reaches_a_terminal_as_it_is(alone: World) -> None:
    book(alone, "alice").remember(RELAY, "bob\x1b]52;c;aGk=\x07\u202e", BOB, Trust.KNOWN)
    for arguments in (["known"], ["known", "--json"]):
        listed = alone.run("alice", *arguments)
        assert listed.wait() == 0, listed
        assert all(line.isascii() and line.isprintable() for line in listed.output)


# --- verify ----------------------------------------------------------------------------------------------


def rows(process: Process) -> list[tuple[str, list[str]]]:
    """The keys and words that were shown, in their order."""
    return [(row["key"], row["words"]) for row in process.event("words")["rows"]]


def test_C1_both_sides_show_the_same_words_in_the_same_order(w: World) -> None:
    acquainted(w)
    alices = w.run("alice", "verify", "bob", "--as", "alice", "--relay", w.address, "--json")
    bobs = w.run("bob", "verify", "alice", "--as", "bob", "--relay", w.address, "--json")
    assert (alices.wait(), bobs.wait()) == (0, 0)
    assert rows(alices) == rows(bobs)
    assert rows(alices) == [(key_text(k), list(words(k))) for k in sorted([key(w, "alice"), key(w, "bob")])]
    assert sorted(row["name"] for row in alices.event("words")["rows"]) == ["alice", "bob"]
    assert alices.told("notice")
    assert (trust(w, "alice", "bob"), trust(w, "bob", "alice")) == (Trust.KNOWN, Trust.SEEN), "nobody was asked"


def test_the_words_are_results_and_what_to_do_with_them_is_not(w: World) -> None:
    acquainted(w)
    process = w.run("alice", "verify", "@Bob", "--as", "alice", "--relay", w.address)
    assert process.wait() == 0, process
    assert sorted(line.split()[0] for line in process.output) == ["alice", "bob"]
    shown = {line.split()[0]: line.split()[-6:] for line in process.output}
    assert shown == {"alice": list(words(key(w, "alice"))), "bob": list(words(key(w, "bob")))}
    assert "(you)" in next(line for line in process.output if line.startswith("alice"))
    assert "Nothing is marked" in process.errors
    assert trust(w, "alice", "bob") is Trust.KNOWN


@terminals
@pytest.mark.parametrize("met", [True, False], ids=["pinned", "new"])
def test_C1_a_yes_at_a_terminal_verifies_and_pins(w: World, met: bool) -> None:
    if met:
        acquainted(w)
    w.receive("bob")
    process = w.run("alice", "verify", "bob", "--as", "alice", "--relay", w.address, terminal=True)
    process.says("at bob's? [y/N] ")
    assert ("not pinned yet" in process.errors) is not met
    process.types("yes\n")
    assert process.wait() == 0, process
    assert "bob is verified" in process.errors
    pin = book(w, "alice").find(relay_key(w), "bob")
    assert pin is not None
    assert (pin.key, pin.trust, pin.verified > 0) == (key(w, "bob"), Trust.VERIFIED, True)


@terminals
@pytest.mark.parametrize("answer", ["\n", "n\n", "maybe\n", "\x04"], ids=["nothing", "no", "maybe", "end"])
def test_C1_anything_but_yes_marks_nothing_and_says_so(w: World, answer: str) -> None:
    w.receive("bob")
    process = w.run("alice", "verify", "bob", "--as", "alice", "--relay", w.address, terminal=True)
    process.says("[y/N] ")
    process.types(answer)
    assert process.wait() == 4, process
    assert "Nothing was marked." in process.errors
    assert trust(w, "alice", "bob") is Trust.NEW


def test_C1_a_key_that_differs_from_its_pin_is_said_instead_of_words(w: World) -> None:
    w.receive("bob")
    book(w, "alice").remember(relay_key(w), "bob", BOB, Trust.VERIFIED)
    process = w.run("alice", "verify", "bob", "--as", "alice", "--relay", w.address, "--json")
    assert process.wait() == 5, process
    assert process.told("words") == []
    assert fingerprint(key(w, "bob")) in process.result["message"]


def test_whoever_was_never_met_and_is_not_there_cannot_be_verified(w: World) -> None:
    process = w.run("alice", "verify", "bob", "--relay", w.address, "--json")
    assert process.wait() == 3, process
    assert process.told("words") == []
    w.receive("alice")
    assert w.run("alice", "verify", "alice", "--relay", w.address).wait() == 2


def test_who_is_pinned_can_be_verified_while_the_relay_is_away(w: World) -> None:
    acquainted(w)
    assert w.relay is not None
    w.relay.signal(signal.SIGTERM)
    w.relay.wait()
    process = w.run("alice", "verify", "bob", "--as", "alice", "--relay", w.address, "--json")
    assert process.wait() == 0, process
    assert key_text(key(w, "bob")) in [shown for shown, _ in rows(process)]
    assert any("on record" in notice["message"] for notice in process.told("notice"))
    assert w.run("alice", "verify", "carol", "--relay", w.address).wait() == 6


# --- pair ------------------------------------------------------------------------------------------------


def pairs(w: World, person: str, other: str, *arguments: str, terminal: bool = False) -> Process:
    command = ["pair", other, "--as", person, "--relay", w.address, *arguments]
    return w.run(person, *command, terminal=terminal)


def another(code: str) -> str:
    """A code that could be one, and is not this one."""
    return next(each for each in iter(new_code, None) if each != code)


def test_C1_two_people_who_pair_have_verified_each_other(w: World) -> None:
    bob = pairs(w, "bob", "alice", "--json")
    code = bob.event("code")["code"]
    alice = pairs(w, "alice", "bob", "--json")
    alice.feed(f" {code.upper().replace('-', ' ')}\nthis is not ours\n".encode())
    assert (alice.wait(), bob.wait()) == (0, 0), (alice, bob)
    assert alice.event("paired")["key"] == key_text(key(w, "bob"))
    assert bob.event("paired")["name"] == "alice"
    for person, other in (("alice", "bob"), ("bob", "alice")):
        pin = book(w, person).find(relay_key(w), other)
        assert pin is not None
        assert (pin.key, pin.trust, pin.verified > 0) == (key(w, other), Trust.VERIFIED, True)


@terminals
def test_a_person_may_mistype_what_cannot_be_a_code(w: World) -> None:
    bob = pairs(w, "bob", "alice")
    bob.says("Tell alice this code")
    bob.says("attempt")
    alice = pairs(w, "alice", "bob", terminal=True)
    alice.says("The code that bob was shown: ")
    (code,) = bob.output
    alice.types("coral-windwo\n")
    alice.says("Did you mean 'window'?")
    alice.types(f"{code}\n")
    assert (alice.wait(), bob.wait()) == (0, 0), (alice, bob)
    assert f"bob is verified: {fingerprint(key(w, 'bob'))}." in alice.errors
    assert f"alice is verified: {fingerprint(key(w, 'alice'))}." in bob.errors
    assert bob.output == [code]
    assert alice.output == []


@terminals
def test_the_third_line_that_is_no_code_ends_it(w: World) -> None:
    bob = pairs(w, "bob", "alice", "--json")
    bob.event("code")
    alice = pairs(w, "alice", "bob", "--json", terminal=True)
    for word in ("eins", "zwei", "drei"):
        alice.says("was shown: ")
        alice.types(f"{word}-{word}\n")
        alice.says(word)
    assert (alice.wait(), bob.wait()) == (2, 4), (alice, bob)


def test_C1_a_wrong_code_pins_nobody_and_is_used_up(w: World) -> None:
    bob = pairs(w, "bob", "alice", "--json")
    code = bob.event("code")["code"]
    alice = pairs(w, "alice", "bob", "--json")
    alice.feed(another(code).encode() + b"\n")
    assert (alice.wait(), bob.wait()) == (7, 7), (alice, bob)
    for process in (alice, bob):
        assert "somebody is" in process.result["message"]
        assert "nothing was pinned" in process.result["message"]
        assert process.told("paired") == []
    assert (trust(w, "alice", "bob"), trust(w, "bob", "alice")) == (Trust.NEW, Trust.NEW)


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"coral\n", b"coral-windwo\n", b"\xff\xfe\n", b"coral-window" * 20], ids=repr
)
def test_a_line_of_input_that_is_no_code_is_wrong_usage(w: World, line: bytes) -> None:
    bob = pairs(w, "bob", "alice", "--json")
    bob.event("code")
    alice = pairs(w, "alice", "bob", "--json")
    alice.feed(line, end=not line or line.endswith(b"\n"))  # of an endless line so much is enough
    assert (alice.wait(), bob.wait()) == (2, 4), (alice, bob)
    assert trust(w, "bob", "alice") is Trust.NEW


def test_C1_a_key_that_differs_from_its_pin_cannot_be_paired_over(w: World) -> None:
    book(w, "alice").remember(relay_key(w), "bob", BOB, Trust.SEEN)
    bob = pairs(w, "bob", "alice", "--json", "--ask-timeout", "20s")
    bob.event("code")
    alice = pairs(w, "alice", "bob", "--json")
    assert alice.wait() == 5, alice
    pin = book(w, "alice").find(relay_key(w), "bob")
    assert pin is not None
    assert (pin.key, pin.trust) == (BOB, Trust.SEEN)


@pytest.mark.parametrize("terminal", [False, pytest.param(True, marks=terminals)], ids=["input", "terminal"])
# Of an end that comes while he is still shaking hands, he can say no more than of a sudden death.
@pytest.mark.parametrize(("number", "exits"), [(signal.SIGINT, (4, 6)), (signal.SIGKILL, (6,))], ids=["ends", "dies"])
def test_the_code_is_no_longer_asked_for_when_the_other_has_gone(
    w: World, terminal: bool, number: signal.Signals, exits: tuple[int, ...]
) -> None:
    bob = pairs(w, "bob", "alice", "--json")
    bob.event("code")
    alice = pairs(w, "alice", "bob", "--json", "--verbose", terminal=terminal)
    if terminal:
        alice.says("was shown: ")
    else:
        alice.event("notice", message="The code that bob was shown is awaited on standard input.")
    bob.signal(number)
    assert alice.wait() in exits, alice
    assert alice.told("paired") == []
    assert trust(w, "alice", "bob") is Trust.NEW


def test_who_pairs_alone_does_not_wait_for_ever(w: World) -> None:
    bob = pairs(w, "bob", "alice", "--ask-timeout", "1s", "--json")
    assert bob.wait() == 3, bob
    assert "alice" in bob.result["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_C5_the_code_is_in_no_argument_no_environment_and_no_log(w: World) -> None:
    refused = pairs(w, "alice", "bob", "coral-window")
    assert refused.wait() == 2, "it cannot be given as an argument"
    bob = pairs(w, "bob", "alice", "--json", "--verbose")
    code = bob.event("code")["code"]
    alice = pairs(w, "alice", "bob", "--json", "--verbose")
    seen = b""
    for process in (alice, bob):
        for name in ("cmdline", "environ", "comm"):
            seen += Path(f"/proc/{process.popen.pid}/{name}").read_bytes()
    alice.feed(f"{code}\n".encode())
    assert (alice.wait(), bob.wait()) == (0, 0), (alice, bob)
    assert w.relay is not None
    told = [event for event in [*alice.events, *bob.events, *w.relay.events] if event["event"] != "code"]
    logged = seen.decode("utf-8", "replace") + alice.errors + bob.errors + w.relay.errors + json.dumps(told)
    assert code not in logged
    for path in w.folder.rglob("*"):
        assert not path.is_file() or code.encode() not in path.read_bytes(), path


def test_D1_a_name_with_something_to_hide_is_refused_before_anything_is_shown(alone: World) -> None:
    for verb in ("verify", "pair"):
        process = alone.run("alice", verb, "bob\x1b[2J\u202e", "--json")
        assert process.wait() == 2, process
        assert "\x1b" not in process.errors
        assert all(line.isascii() and line.isprintable() for line in process.output)
    assert not (alone.folder / "alice" / "known.json").exists()


def test_C1_another_key_has_other_words_to_be_compared(alone: World) -> None:
    book(alone, "alice").remember_relay("127.0.0.1:1", RELAY)
    shown = []
    for person in (Identity.generate().public, Identity.generate().public):
        pins = book(alone, "alice")
        pins.forget("bob")
        pins.remember(RELAY, "bob", person, Trust.SEEN)
        process = alone.run("alice", "verify", "bob", "--as", "alice", "--relay", "127.0.0.1:1", "--json")
        assert process.wait() == 0, process
        shown.append({name["name"]: name["words"] for name in process.event("words")["rows"]})
    assert shown[0]["alice"] == shown[1]["alice"]
    assert shown[0]["bob"] != shown[1]["bob"]
