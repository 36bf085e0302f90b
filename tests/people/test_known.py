"""Pins: whose key is whose, and that nothing but a person's word changes it."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glide.errors import FileError, KeyChanged
from glide.people import known
from glide.people.known import Known, Trust

HERE, THERE = b"r" * 32, b"s" * 32  # two relays
BOB, EVE = b"b" * 32, b"e" * 32
RANKED = [Trust.SEEN, Trust.KNOWN, Trust.VERIFIED]


@pytest.fixture
def book(tmp_path: Path) -> Known:
    return Known(tmp_path / "known.json")


def pins(book: Known) -> list[tuple[bytes, str, bytes, Trust]]:
    return [(pin.relay, pin.name, pin.key, pin.trust) for pin in book.people()]


def test_C1_whoever_was_never_met_is_new_and_asking_writes_nothing(book: Known, tmp_path: Path) -> None:
    assert book.check(HERE, "bob", BOB) is Trust.NEW
    assert book.find(HERE, "bob") is None
    assert book.people() == []
    assert book.relays() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trust", RANKED)
def test_C1_a_pin_is_found_again_with_its_trust(book: Known, tmp_path: Path, trust: Trust) -> None:
    book.remember(HERE, "bob", BOB, trust)
    again = Known(tmp_path / "known.json")
    assert again.check(HERE, "bob", BOB) is trust
    pin = again.find(HERE, "bob")
    assert pin is not None
    assert (pin.relay, pin.name, pin.key, pin.trust) == (HERE, "bob", BOB, trust)


@pytest.mark.parametrize(("first", "then"), list(itertools.product(RANKED, RANKED)))
def test_C1_trust_rises_and_never_falls(book: Known, first: Trust, then: Trust) -> None:
    book.remember(HERE, "bob", BOB, first)
    book.remember(HERE, "bob", BOB, then)
    assert pins(book) == [(HERE, "bob", BOB, max(first, then, key=RANKED.index))]


def test_the_ranks_are_in_order() -> None:
    assert [trust.rank for trust in (Trust.NEW, *RANKED)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("first", "then"), list(itertools.product(RANKED, RANKED)))
def test_C1_a_pin_is_never_replaced_by_itself(book: Known, tmp_path: Path, first: Trust, then: Trust) -> None:
    book.remember(HERE, "bob", BOB, first)
    before = (tmp_path / "known.json").read_bytes()
    with pytest.raises(KeyChanged):
        book.check(HERE, "bob", EVE)
    with pytest.raises(KeyChanged):
        book.remember(HERE, "bob", EVE, then)
    assert (tmp_path / "known.json").read_bytes() == before


def test_C1_a_changed_key_is_told_with_both_fingerprints_and_what_to_do(book: Known) -> None:
    from glide.crypto.identity import fingerprint

    book.remember(HERE, "bob", BOB, Trust.VERIFIED)
    with pytest.raises(KeyChanged) as caught:
        book.check(HERE, "bob", EVE)
    said = str(caught.value)
    assert fingerprint(BOB) in said
    assert fingerprint(EVE) in said
    assert "verified" in said
    assert "glide known forget bob" in caught.value.next
    assert caught.value.exit == 5


def test_C1_the_same_name_at_another_relay_is_another_person(book: Known) -> None:
    book.remember(HERE, "bob", BOB, Trust.VERIFIED)
    assert book.check(THERE, "bob", EVE) is Trust.NEW
    book.remember(THERE, "bob", EVE, Trust.SEEN)
    assert book.check(HERE, "bob", BOB) is Trust.VERIFIED
    assert book.check(THERE, "bob", EVE) is Trust.SEEN
    assert pins(book) == [(HERE, "bob", BOB, Trust.VERIFIED), (THERE, "bob", EVE, Trust.SEEN)]


def test_C1_only_to_forget_removes_a_pin(book: Known) -> None:
    for relay, name in ((HERE, "bob"), (THERE, "bob"), (HERE, "alice")):
        book.remember(relay, name, BOB, Trust.VERIFIED)
    assert book.forget("bob") == 2
    assert book.forget("bob") == 0
    assert pins(book) == [(HERE, "alice", BOB, Trust.VERIFIED)]
    book.remember(HERE, "bob", EVE, Trust.SEEN)
    assert book.check(HERE, "bob", EVE) is Trust.SEEN


def test_C1_a_key_that_is_known_under_another_name_is_shown_so(book: Known) -> None:
    for name in ("bob", "zoe", "bob-laptop"):
        book.remember(HERE, name, BOB, Trust.SEEN)
    book.remember(HERE, "eve", EVE, Trust.SEEN)
    book.remember(THERE, "robert", BOB, Trust.SEEN)
    assert book.aliases(HERE, "mallory", BOB) == ("bob", "bob-laptop", "zoe")
    assert book.aliases(HERE, "bob", BOB) == ("bob-laptop", "zoe")
    assert book.aliases(HERE, "eve", EVE) == ()
    assert book.aliases(THERE, "robert", BOB) == ()


def test_a_meeting_is_noted_and_the_first_one_kept(book: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    book.remember(HERE, "bob", BOB, Trust.SEEN)
    clock[0] = 2000.5
    book.transferred(HERE, "bob")
    pin = book.find(HERE, "bob")
    assert pin is not None
    assert (pin.since, pin.met) == (1000, 2000)


def test_who_is_pinned_so_already_is_not_written_again(book: Known, tmp_path: Path) -> None:
    book.remember(HERE, "bob", BOB, Trust.KNOWN)
    (path,) = tmp_path.rglob("known.json")
    written = tmp_path / "written"
    written.hardlink_to(path)
    for trust in (Trust.SEEN, Trust.KNOWN):
        book.remember(HERE, "bob", BOB, trust)
    assert path.samefile(written)
    with pytest.raises(KeyChanged):
        book.remember(HERE, "bob", EVE, Trust.SEEN)
    book.remember(HERE, "bob", BOB, Trust.VERIFIED)
    assert not path.samefile(written)


def test_C1_when_the_keys_were_compared_is_noted(book: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    for now, trust, verified, met in (
        (1000, Trust.KNOWN, 0, 1000),
        (2000, Trust.VERIFIED, 2000, 2000),
        (3000, Trust.SEEN, 2000, 2000),
        (4000, Trust.KNOWN, 2000, 2000),
        (5000, Trust.VERIFIED, 5000, 5000),
    ):
        clock[0] = now
        book.remember(HERE, "bob", BOB, trust)
        pin = book.find(HERE, "bob")
        assert pin is not None
        assert (pin.verified, pin.since, pin.met) == (verified, 1000, met)


def test_C1_to_compare_keys_never_replaces_a_pin(book: Known) -> None:
    book.remember(HERE, "bob", BOB, Trust.SEEN)
    with pytest.raises(KeyChanged):
        book.remember(HERE, "bob", EVE, Trust.VERIFIED)
    pin = book.find(HERE, "bob")
    assert pin is not None
    assert (pin.key, pin.trust, pin.verified) == (BOB, Trust.SEEN, 0)


def test_a_transfer_is_noted_with_its_time_and_changes_nothing_else(
    book: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    for relay, name in ((HERE, "bob"), (THERE, "bob"), (HERE, "eve")):
        book.remember(relay, name, BOB, Trust.VERIFIED)
    before = book.people()
    assert [pin.last for pin in before] == [0, 0, 0]
    clock[0] = 2000.9
    book.transferred(HERE, "bob")
    assert [(pin.relay, pin.name) for pin in book.people() if pin.last] == [(HERE, "bob")]
    pin = book.find(HERE, "bob")
    assert pin is not None
    assert (pin.last, pin.met, pin.since, pin.verified, pin.trust) == (2000, 2000, 1000, 1000, Trust.VERIFIED)
    book.remember(HERE, "bob", BOB, Trust.SEEN)
    assert [pin.last for pin in book.people() if (pin.relay, pin.name) == (HERE, "bob")] == [2000]


def test_C1_a_transfer_pins_nobody(book: Known, tmp_path: Path) -> None:
    book.transferred(HERE, "bob")
    assert book.people() == []
    assert not (tmp_path / "known.json").exists()


# --- relays ----------------------------------------------------------------------------------------------


def test_C6_a_relays_key_is_pinned_like_a_persons(book: Known) -> None:
    assert book.check_relay("example.org:8080", HERE) is Trust.NEW
    book.remember_relay("example.org:8080", HERE)
    book.remember_relay("example.org:8080", HERE)
    assert book.check_relay("example.org:8080", HERE) is Trust.KNOWN
    assert book.check_relay("example.org:8081", THERE) is Trust.NEW
    for attempt in (book.check_relay, book.remember_relay):
        with pytest.raises(KeyChanged, match=r"example\.org:8080") as caught:
            attempt("example.org:8080", THERE)
        assert "--relay example.org:8080" in caught.value.next
    assert [(pin.address, pin.key) for pin in book.relays()] == [("example.org:8080", HERE)]


def test_to_forget_a_relay_keeps_the_people_met_there(book: Known) -> None:
    book.remember_relay("b:1", HERE)
    book.remember_relay("a:1", THERE)
    book.remember(HERE, "bob", BOB, Trust.KNOWN)
    assert [pin.address for pin in book.relays()] == ["a:1", "b:1"]
    assert book.forget_relay("b:1") == 1
    assert book.forget_relay("b:1") == 0
    assert [pin.address for pin in book.relays()] == ["a:1"]
    assert pins(book) == [(HERE, "bob", BOB, Trust.KNOWN)]


# --- the file --------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_C1_pins_are_private_whatever_the_umask_or_the_mode_before(tmp_path: Path) -> None:
    path = tmp_path / "state" / "glide" / "known.json"
    before = os.umask(0)
    try:
        Known(path).remember(HERE, "bob", BOB, Trust.SEEN)
        path.chmod(0o666)
        Known(path).remember(HERE, "bob", BOB, Trust.KNOWN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


def test_nothing_else_stays_in_the_folder(book: Known, tmp_path: Path) -> None:
    for name in ("bob", "eve"):
        book.remember(HERE, name, BOB, Trust.SEEN)
    book.forget("eve")
    assert sorted(os.listdir(tmp_path)) == ["known.json", "known.json.lock"]


WRITER = """
import sys
import time
from pathlib import Path
from glide.people.known import Known, Trust
path, who, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
book = Known(path)
for number in range(many):
    book.remember(b"r" * 32, f"p{who}-{number}", b"b" * 32, Trust.SEEN)
    book.remember_relay(f"relay{who}:{number}", b"r" * 32)
    book.remember(b"r" * 32, "everybody", b"b" * 32, Trust.KNOWN if who == "0" else Trust.SEEN)
    assert book.find(b"r" * 32, f"p{who}-{number}") is not None
print("done")
"""


def test_C1_processes_that_write_at_once_lose_nothing(book: Known, tmp_path: Path) -> None:
    processes, many = 4, 12
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "known.json"), str(number), str(many)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate()[0] for writer in writers] == ["done\n"] * processes
    names = {pin.name for pin in book.people()}
    assert names == {"everybody", *(f"p{who}-{n}" for who in range(processes) for n in range(many))}
    assert {pin.address for pin in book.relays()} == {f"relay{w}:{n}" for w in range(processes) for n in range(many)}
    assert book.check(HERE, "everybody", BOB) is Trust.KNOWN


DAMAGE = {
    "empty": b"",
    "cut off": b'{"version":1,"people":[{"relay":"cnJy',
    "no JSON": b"\x00\x01\x02",
    "no UTF-8": b'{"people":[{"name":"\xff"}]}',
    "another form": b"[]",
    "a trust that is none": b'{"people":[{"relay":"","name":"b","key":"","trust":"best","since":1,"met":1}]}',
    "a pin without a key": b'{"people":[{"relay":"","name":"bob","trust":"seen","since":1,"met":1}]}',
    "nested without end": b'{"more":' + b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_C1_a_damaged_file_is_an_error_and_left_alone(book: Known, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(DAMAGE[damage])
    for attempt in (
        lambda: book.check(HERE, "bob", BOB),
        lambda: book.remember(HERE, "bob", BOB, Trust.SEEN),
        lambda: book.forget("bob"),
        lambda: book.transferred(HERE, "bob"),
        lambda: book.check_relay("a:1", HERE),
        lambda: book.remember_relay("a:1", HERE),
        lambda: book.forget_relay("a:1"),
        book.people,
    ):
        with pytest.raises(FileError, match="cannot be read") as caught:
            attempt()
        assert "left as it is" in caught.value.means
        assert path.read_bytes() == DAMAGE[damage]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".known")]


def test_C1_a_folder_in_the_place_of_the_file_is_an_error(book: Known, tmp_path: Path) -> None:
    (tmp_path / "known.json").mkdir()
    with pytest.raises(FileError):
        book.check(HERE, "bob", BOB)
    with pytest.raises(FileError):
        book.remember(HERE, "bob", BOB, Trust.SEEN)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written"):
        Known(tmp_path / "file" / "known.json").remember(HERE, "bob", BOB, Trust.SEEN)


def test_a_write_that_fails_leaves_the_old_pins(book: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book.remember(HERE, "bob", BOB, Trust.VERIFIED)
    before = (tmp_path / "known.json").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        book.remember(HERE, "eve", EVE, Trust.SEEN)
    assert (tmp_path / "known.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["known.json", "known.json.lock"]


def test_what_an_older_version_wrote_is_read(book: Known, tmp_path: Path) -> None:
    book.remember(HERE, "bob", BOB, Trust.VERIFIED)
    path = tmp_path / "known.json"
    found = json.loads(path.read_bytes())
    for field in ("verified", "last"):
        del found["people"][0][field]
    path.write_text(json.dumps(found))
    pin = book.find(HERE, "bob")
    assert pin is not None
    assert (pin.trust, pin.verified, pin.last) == (Trust.VERIFIED, 0, 0)
    book.transferred(HERE, "bob")
    assert book.check(HERE, "bob", BOB) is Trust.VERIFIED


def test_what_a_newer_version_added_to_a_pin_is_read_over(book: Known, tmp_path: Path) -> None:
    book.remember(HERE, "bob", BOB, Trust.KNOWN)
    path = tmp_path / "known.json"
    found = json.loads(path.read_bytes())
    found["people"][0]["colour"] = "green"
    path.write_text(json.dumps(found))
    assert book.check(HERE, "bob", BOB) is Trust.KNOWN


# --- strangers -------------------------------------------------------------------------------------------


def test_C1_strangers_cannot_make_the_file_grow_for_ever(book: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_SEEN", 5)
    clock = itertools.count(1000)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    book.remember(HERE, "old-friend", EVE, Trust.KNOWN)
    book.remember(HERE, "sister", EVE, Trust.VERIFIED)
    for number in range(12):
        book.remember(HERE, f"stranger{number}", BOB, Trust.SEEN)
    book.remember(HERE, "stranger8", BOB, Trust.SEEN)  # met again
    book.remember(HERE, "stranger12", BOB, Trust.SEEN)
    seen = {pin.name for pin in book.people() if pin.trust is Trust.SEEN}
    assert seen == {"stranger8", "stranger9", "stranger10", "stranger11", "stranger12"}
    assert book.check(HERE, "old-friend", EVE) is Trust.KNOWN
    assert book.check(HERE, "sister", EVE) is Trust.VERIFIED


def test_C1_to_know_somebody_costs_no_stranger_its_pin(book: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_SEEN", 3)
    for number in range(3):
        book.remember(HERE, f"stranger{number}", BOB, Trust.SEEN)
    book.remember(HERE, "friend", EVE, Trust.KNOWN)
    assert {pin.name for pin in book.people()} == {"friend", "stranger0", "stranger1", "stranger2"}
