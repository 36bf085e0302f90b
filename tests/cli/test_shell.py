"""The shell as a script uses it: lines in, lines out; and what its lines mean and may become."""

from __future__ import annotations

import os
import shlex
import signal
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from glide import events
from glide.cli.commands import (
    WORDS,
    Answer,
    Command,
    Help,
    Leave,
    List,
    Push,
    Requests,
    Show,
    Stop,
    complete,
    parse,
)
from glide.cli.underway import UnderWay
from glide.errors import UsageError
from tests.processes import Process, Proxy, World, held_up

MIB = 1024 * 1024
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
OSC_52 = "\x1b]52;c;cm0gLXJmIC8=\x07"

# --- what a line means ---


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", None),
        ("   ", None),
        ("list", List()),
        ("who", List()),
        ("/list", List()),
        ("LIST", List()),
        ("reqs", Requests()),
        ("help", Help()),
        ("exit", Leave()),
        ("/exit", Leave()),
        ("push a.txt @bob", Push("bob", ("a.txt",))),
        ("glide a.txt @bob", Push("bob", ("a.txt",))),
        ("/glide a.txt @bob", Push("bob", ("a.txt",))),
        ("push @Bob a.txt b.txt", Push("bob", ("a.txt", "b.txt"))),
        ("push a @bob b", Push("bob", ("a", "b"))),
        ("push 'my file.txt' @bob", Push("bob", ("my file.txt",))),
        (r"push my\ file.txt @bob", Push("bob", ("my file.txt",))),
        ('push "it\'s mine" @bob', Push("bob", ("it's mine",))),
        ("push ./@odd ./-f @bob", Push("bob", ("./@odd", "./-f"))),
        ("push -- -f @bob", Push("bob", ("-f",))),
        ("push a @bob --message 'as promised'", Push("bob", ("a",), "as promised")),
        ("push a @bob --message ''", Push("bob", ("a",), "")),
        ("push a @bob --wait 2h", Push("bob", ("a",), wait=7200.0)),
        ("push --strict --wait=1h30m a @bob", Push("bob", ("a",), wait=5400.0, strict=True)),
        ("push --message=hello a @bob", Push("bob", ("a",), "hello")),
        ("push ~/a @bob", Push("bob", (os.path.expanduser("~/a"),))),
        ("ok @alice", Answer(True, "alice", None)),
        ("ok alice", Answer(True, "alice", None)),
        ("no @alice", Answer(False, "alice", None)),
        ("show 2", Show(2)),
        ("ok 2", Answer(True, None, 2)),
        ("ok @alice 2", Answer(True, "alice", 2)),
        ("no 2 @alice", Answer(False, "alice", 2)),
        ("stop 2", Stop(2)),
        ("ok @42", Answer(True, "42", None)),
        ("ok @42 7", Answer(True, "42", 7)),
    ],
)
def test_a_line_means_a_command(line: str, command: Command | None) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("push", "to whom"),
        ("push a.txt", "to whom"),
        ("push a.txt bob", "to whom"),
        ("push @bob", "what to send"),
        ("push a @bob @alice", "One person"),
        ("push a @b..b", "not a name"),
        ("push '' @bob", "empty"),
        ("push - @bob", "Standard input"),
        ("push --filename b a @bob", "no option --filename"),
        ("push a @bob --wait", "--wait says nothing more"),
        ("push a @bob --message", "--message says nothing more"),
        ("push a @bob --wait soon", "'soon' is no duration"),
        ("push a @bob --strict=yes", "no option --strict=yes"),
        ("stop", "which transfer"),
        ("stop @bob", "which transfer"),
        ("stop 1 2", "which transfer"),
        ("cancel 2", "Did you mean stop?"),
        ("push a\0b @bob", "NUL"),
        ("push ~\0 @bob", "NUL"),
        ("push 'a @bob", "quotation mark"),
        ("push a @bob \\", "backslash"),
        ("ok", "which offer"),
        ("no", "which offer"),
        ("ok 1 2", "One offer"),
        ("ok @alice @bob", "One offer"),
        ("ok @alice 1 @bob", "One offer"),
        ("list all", "no arguments"),
        ("exit now", "no arguments"),
        ("lst", "Did you mean list?"),
        ("pusj a @bob", "Did you mean push?"),
        ("quit", "Did you mean exit?"),
        ("send a @bob", "Did you mean push?"),
        ("accept @alice", "Did you mean ok?"),
        ("xyzzy", "help lists"),
    ],
)
def test_a_line_that_is_none_is_told_in_one_line(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(line=st.text() | st.text(alphabet="push ok@b1~'\"\\-/\0\udc80\ud800\n\x1b\u202e"))
def test_D1_any_line_is_a_command_or_told_in_printable_words(line: str) -> None:
    try:
        parse(line)
    except UsageError as error:
        assert {unicodedata.category(character) for character in str(error)} & FORBIDDEN == set()
        assert len(str(error)) < 400


# --- what a word may become ---


def completed(line: str, *, people: tuple[str, ...] = (), asking: tuple[str, ...] = ()) -> list[str]:
    """The lines that ``line`` may become."""
    return [line[: each.start] + each.text for each in complete(line, people, asking)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_are_completed() -> None:
    assert completed("") == [f"{word} " for word in WORDS]
    assert completed("pu") == ["push "]
    assert completed("/pu") == ["/push "]
    assert completed("he") == ["help "]
    assert completed("nothing") == []
    assert completed("list ") == []


def test_people_are_completed(here: Path) -> None:
    (here / "bob.txt").touch()
    assert completed("push a @b", people=("bob", "bea", "alice")) == ["push a @bea ", "push a @bob "]
    assert completed("push b", people=("bob",)) == ["push bob.txt "]
    assert completed("ok ", people=("bob",), asking=("alice",)) == ["ok @alice "]
    assert completed("no @al", asking=("alice", "albert", "zoe")) == ["no @albert ", "no @alice "]


NAMES = [
    "plain.txt",
    "with space.txt",
    "it's",
    'quo"ted',
    "back\\slash",
    "täst",
    "@at",
    "-dash",
    "a$b",
    "#x",
    "~",
    "~x",
]


@pytest.mark.parametrize("quoted", ["", "'", '"'])
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_completed_so_that_it_means_that_file(here: Path, name: str, quoted: str) -> None:
    (here / "in").mkdir()
    (here / "in" / name).touch()
    (line,) = completed(f"push {quoted}in/")
    assert shlex.split(line) == ["push", f"in/{name}"]
    command = parse(f"{line}@bob")
    assert isinstance(command, Push)
    assert command.paths == (f"in/{name}",)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("~")])
def test_a_path_here_is_no_person_and_no_option(here: Path, name: str) -> None:
    (here / name).touch()
    (line,) = completed("push ")
    command = parse(f"{line}@bob")
    assert isinstance(command, Push)
    (path,) = command.paths
    assert Path(path) == Path(name)


def test_folders_are_gone_into_and_what_is_hidden_is_shown_when_it_is_asked_for(here: Path) -> None:
    (here / "my folder").mkdir()
    (here / "my folder" / "a.txt").touch()
    (here / ".hidden").touch()
    assert completed("push m") == ["push 'my folder'/"]
    assert completed("push 'my folder'/") == ["push 'my folder/a.txt' "]
    assert completed("push .h") == ["push .hidden "]
    assert completed("push none/") == []


def test_home_is_completed_as_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "my notes").touch()
    (line,) = completed("push ~/my")
    assert line == "push ~/'my notes' "
    command = parse(f"{line}@bob")
    assert isinstance(command, Push)
    assert command.paths == (str(here / "my notes"),)


def test_D1_names_that_a_terminal_would_obey_are_not_completed(here: Path) -> None:
    for name in ("a\x1b[2J", "a\u202egpj.exe", "a\u200b", "a\nb", "a.txt"):
        (here / name).touch()
    assert completed("push a") == ["push a.txt "]


# --- what is under way ---

TRANSFER = bytes(16)


def test_D2_lines_about_transfers_stay_few_and_short() -> None:
    for hostile in ("\x1b[2J", "x" * 10_000, "\u202e", "a\nb"):
        under_way = UnderWay()
        for number in range(50):
            transfer = number.to_bytes(16, "big")
            offer = events.OfferArrived(transfer, "alice", bytes(32), 1, 5, hostile, "new", (hostile,), tuple)
            under_way.take(offer)
            under_way.accept(number, transfer)
            under_way.take(events.Progress(transfer, number, 100))
        lines = under_way.lines()
        assert len(lines) == 6
        assert lines[-1] == "and 45 more"
        assert all(line.isprintable() and len(line) < 130 for line in lines)


def test_a_line_tells_how_far_how_fast_and_what_is_waited_for() -> None:
    now = [100.0]
    under_way = UnderWay(clock=lambda: now[0])
    row = under_way.push("to bob: a.txt")
    assert under_way.note(row, events.Ringing(TRANSFER, "bob", bytes(32), "known"))
    assert "rings" in under_way.lines()[0]
    under_way.note(row, events.Accepted(TRANSFER, "bob"))
    under_way.note(row, events.Progress(TRANSFER, 0, 4 * MIB))
    now[0] += 2
    under_way.note(row, events.Progress(TRANSFER, 2 * MIB, 4 * MIB))
    (line,) = under_way.lines()
    assert line.startswith("[1] to bob: a.txt ")
    assert "[##########----------]  50%  2.0 MiB of 4.0 MiB, 1.0 MiB/s" in line
    under_way.note(row, events.StalledEvent(TRANSFER, "receiver", 5, "waiting for bob's disk"))
    assert "waiting for bob's disk" in under_way.lines()[0]
    under_way.note(row, events.Progress(TRANSFER, 3 * MIB, 4 * MIB))
    assert "75%" in under_way.lines()[0]
    under_way.end(row)
    assert under_way.lines() == []


ENDS = [events.Received(TRANSFER, "alice", 1, 5), events.Failed(TRANSFER, "alice", "lost", "gone")]


@pytest.mark.parametrize("end", ENDS)
async def test_what_policy_took_is_over_when_that_is_told(end: events.Event) -> None:
    under_way = UnderWay()
    assert under_way.take(events.Progress(TRANSFER, 1, 5))
    assert len(under_way) == 1
    assert under_way.take(end)
    assert under_way.lines() == []
    await under_way.until_none()


@pytest.mark.parametrize("end", ENDS)
async def test_what_was_accepted_here_has_no_line_at_its_end_but_is_not_over_before_all_is_said(
    end: events.Event,
) -> None:
    under_way = UnderWay()
    row = under_way.accept(1, TRANSFER)
    assert under_way.take(end)
    assert under_way.lines() == []
    assert len(under_way) == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(under_way.until_none)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        under_way.end(row)


async def test_several_wait_until_nothing_is_under_way_and_all_of_them_learn_it() -> None:
    under_way = UnderWay()
    first, second = under_way.push("to bob: a"), under_way.push("to carol: b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(under_way.until_none)
        nursery.start_soon(under_way.until_none)
        await wait_all_tasks_blocked()
        under_way.end(first)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        under_way.end(second)


async def test_only_what_is_under_way_and_was_begun_here_is_stopped_by_its_number() -> None:
    under_way = UnderWay()
    mine, other = under_way.push("to bob: a"), under_way.push("to carol: b")
    under_way.take(events.Progress(TRANSFER, 1, 5))
    under_way.stop(1)
    assert mine.stop is not None
    assert other.stop is not None
    assert (mine.stop.cancel_called, other.stop.cancel_called) == (True, False)
    for number, words in ((3, "taken by a policy"), (4, "No transfer 4"), (0, "No transfer 0")):
        with pytest.raises(UsageError, match=words):
            under_way.stop(number)
    under_way.end(mine)
    with pytest.raises(UsageError, match="No transfer 1"):
        under_way.stop(1)


# --- as a script uses it ---


def shell(w: World, person: str, *arguments: str, **settings: str) -> Process:
    """A shell that is registered."""
    command = ("shell", "--as", person, "--into", str(w.into(person)), "--relay", w.address)
    rest: dict[str, Any] = settings
    process = w.run(person, *command, *arguments, terminal=False, whole=False, **rest)
    process.prints(f"You are {person}")
    return process


def tell(process: Process, line: str) -> None:
    process.feed(f"{line}\n".encode(), end=False)


def leave(process: Process) -> int:
    process.feed(b"", end=True)
    return process.wait()


def test_two_shells_send_to_each_other_at_once(w: World) -> None:
    alice, bob = shell(w, "alice"), shell(w, "bob")
    there, back = w.file("there.bin", 3 * MIB), w.file("back/here.bin", 2 * MIB)
    tell(alice, f"push {there} @bob")
    tell(bob, f"glide {back.parent} @alice --message 'as promised'")
    bob.prints("] alice (")  # by which number, depends on who was first
    alice.prints("] bob (")
    alice.prints("They say: as promised")
    tell(alice, "ok @bob")
    tell(bob, "ok @alice")
    alice.prints(f"From bob: 1 file, 2.0 MiB: {w.into('alice') / 'back'}")
    bob.prints(f"From alice: 1 file, 3.0 MiB: {w.into('bob') / 'there.bin'}")
    alice.prints("Delivered to bob: there.bin (1 file, 3.0 MiB).")
    bob.prints("Delivered to alice: back (1 file, 2.0 MiB).")
    assert (w.into("bob") / "there.bin").read_bytes() == there.read_bytes()
    assert (w.into("alice") / "back" / "here.bin").read_bytes() == back.read_bytes()
    assert leave(alice) == 0
    assert leave(bob) == 0


def test_the_end_of_the_input_waits_for_what_is_under_way(w: World) -> None:
    bob = shell(w, "bob")
    alice = shell(w, "alice")
    alice.feed(f"push {w.file('f', 5)} @bob\n".encode())
    bob.prints("offers 1 file")
    assert alice.popen.poll() is None
    tell(bob, "ok @alice")
    assert alice.wait() == 0, alice
    assert w.landed("bob") == ["f"]
    assert leave(bob) == 0


def test_exit_in_a_script_waits_for_what_is_under_way_and_then_does_no_more(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @bob\nexit\nlist")
    bob.prints("offers 1 file")
    tell(bob, "ok 1")
    assert alice.wait() == 0, alice
    assert "takes files" not in "".join(alice.output)
    assert leave(bob) == 0


def test_commands_may_come_from_a_file(w: World) -> None:
    script = w.folder / "script"
    script.write_text("list\nreqs\n")
    w.prefixes["alice"] = ("sh", "-c", f'exec "$@" < {shlex.quote(str(script))}', "sh")
    process = w.run("alice", "shell", "--as", "alice", "--relay", w.address)
    assert process.wait() == 0, process
    process.prints("alice  takes files  you")
    process.prints("Nothing waits for an answer.")


def test_the_first_failure_is_the_exit_code_and_is_told_once(w: World) -> None:
    alice = shell(w, "alice")
    tell(alice, f"push {w.folder / 'missing'} @bob")
    alice.prints("To bob: missing: ")
    tell(alice, "nonsense")
    alice.prints("There is no command 'nonsense'.")
    assert leave(alice) == 8
    assert "missing" not in alice.errors


def test_a_command_that_is_none_does_nothing_and_the_next_one_works(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)}\npush\nok 1\nok @bob\nno 7\nlist")
    alice.prints("to whom")
    alice.prints("No offer 1 waits")
    alice.prints("No offer from bob waits")
    alice.prints("No offer 7 waits")
    alice.prints("bob    takes files")
    assert not [line for line in bob.output if "offers" in line]
    assert leave(alice) == 2
    assert leave(bob) == 0


def test_a_message_that_is_too_long_disturbs_nobody(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @bob --message {'x' * 401}")
    alice.prints("To bob: f: A message has 400 characters of UTF-8 at most. Nobody was disturbed.")
    assert leave(alice) == 2
    assert leave(bob) == 0
    assert not [line for line in bob.output if "offers" in line]


def test_somebody_who_is_not_there_is_waited_for(w: World) -> None:
    alice = shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @bob")
    alice.prints("--wait")
    tell(alice, f"push {w.file('f', 5)} @bob --wait 1h")
    w.receive("bob", "--accept", "all")
    alice.prints("Delivered to bob: f (1 file, 5 B).")
    assert leave(alice) == 3


def test_C1_strict_sends_to_nobody_who_is_not_verified(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @bob --strict")
    alice.prints("bob is not verified")
    assert leave(alice) == 5
    assert leave(bob) == 0
    assert not [line for line in bob.output if "offers" in line]


def test_one_of_several_transfers_is_stopped_and_its_other_side_is_told(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    for name in ("first", "second"):
        tell(alice, f"push {w.file(name, 5)} @bob")
        bob.prints(f"5 B: {name}")
    tell(alice, "stop 7\nstop 1")
    alice.prints("No transfer 7 is under way.")
    alice.prints("To bob: first: You stopped it.")
    bob.prints("From alice: ")
    tell(bob, "ok 2")
    alice.prints("Delivered to bob: second")
    assert leave(alice) == 2
    assert leave(bob) == 0
    assert w.landed("bob") == ["second"]


def test_what_was_accepted_can_be_stopped_and_its_other_side_is_told(w: World) -> None:
    bob = shell(w, "bob")
    with Proxy(w.address, 20 * MIB) as proxy:
        sender = w.push("alice", "bob", w.file("f", 60 * MIB), relay=proxy.address)
        bob.prints("[1] alice")
        tell(bob, "stop 1")  # nothing is under way yet
        bob.prints("No transfer 1 is under way.")
        tell(bob, "ok 1")
        held_up(w, proxy, sender)
        tell(bob, "stop 1")
        assert sender.wait() == 4, sender
    bob.prints("From alice: You stopped it. What has arrived is kept.")
    tell(bob, "list")
    bob.prints("bob  takes files")
    assert leave(bob) == 2
    assert w.landed("bob") == []


def test_no_declines(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    alice.feed(f"push {w.file('f', 5)} @bob\n".encode())
    bob.prints("offers 1 file")
    tell(bob, "no @alice")
    bob.prints("Declined what alice offers.")
    assert alice.wait() == 4
    alice.prints("they said no")
    tell(bob, "reqs")
    bob.prints("Nothing waits for an answer.")
    assert not [line for line in bob.output if "You declined" in line]
    assert leave(bob) == 0
    assert w.left("bob") == []


def test_of_several_offers_of_one_person_it_is_asked_which(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    for number, name in enumerate(("first", "second"), start=1):
        tell(alice, f"push {w.file(name, 5)} @bob")
        bob.prints(f"[{number}] alice")
    tell(bob, "ok @alice")
    before = bob.prints("which one? ok 1 or ok 2")
    tell(bob, "reqs")
    bob.prints("[1] alice (nobody you know yet)", before)
    bob.prints("1 file, 5 B: second", before)
    assert w.left("bob") == []
    tell(bob, "ok @alice 2")
    bob.prints("From alice: 1 file, 5 B: ")
    assert w.landed("bob") == ["second"]
    tell(bob, "no 2")  # it was answered
    bob.prints("No offer 2 waits")
    tell(bob, "ok @alice")
    bob.prints(str(w.into("bob") / "first"))
    assert leave(alice) == 0
    assert leave(bob) == 2


def test_D2_all_that_is_in_an_offer_can_be_seen_before_the_answer(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    for name in ("one", "two/three", "four\u202etxt"):
        w.file(f"many/{name}", 1)
    tell(alice, f"push {w.folder / 'many'} @bob")
    bob.prints("offers 3 files")
    tell(bob, "show 1")
    for path in ("many/", "many/one", "many/two/", "many/two/three"):
        bob.prints(f"  {path}")
    tell(bob, "show 7")
    bob.prints("No offer 7 waits")
    tell(bob, "no 1")
    bob.prints("Declined what alice offers.")
    assert "\u202e" not in "".join(bob.output)
    leave(alice)
    assert leave(bob) == 2


def test_C1_a_yes_of_a_script_makes_nobody_known(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @bob")
    bob.prints("[1] alice")
    tell(bob, "ok 1")
    bob.prints("From alice: 1 file")
    tell(bob, "list")
    bob.prints("seen")
    leave(alice)
    assert leave(bob) == 0


def test_odd_paths_are_told_and_end_nothing(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    alice.feed(b"push a\0b @bob\npush \xff @bob\npush ~\xff @bob\npush " + b"x" * 5000 + b" @bob\nlist\n", end=False)
    alice.prints("No path has a NUL in it.")
    alice.prints("bob    takes files")
    assert leave(alice) == 2
    assert sum(line.startswith("To bob: ") for line in alice.output) == 3
    assert all(line.isprintable() for line in alice.output)
    assert leave(bob) == 0


def test_a_line_without_end_ends_it(w: World) -> None:
    alice = shell(w, "alice")
    alice.feed(b"x" * (MIB + 1), end=False)
    assert alice.wait() == 2
    assert "more than 1 MiB" in alice.errors


def test_D3_what_nobody_answers_is_not_taken(w: World) -> None:
    bob, alice = shell(w, "bob", ask_timeout="1s"), shell(w, "alice")
    alice.feed(f"push {w.file('f', 5)} @bob\n".encode())
    bob.prints("offers 1 file")
    assert alice.wait() == 4
    bob.prints("You did not answer within 1s")
    tell(bob, "ok 1")
    bob.prints("No offer 1 waits")
    assert leave(bob) == 2
    assert w.left("bob") == []


def test_an_offer_that_is_withdrawn_is_open_no_more(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @bob")
    bob.prints("offers 1 file")
    alice.signal(signal.SIGTERM)
    assert alice.wait() == 143
    bob.prints("From alice: ")
    tell(bob, "ok 1")
    bob.prints("No offer 1 waits")
    assert leave(bob) == 2


def test_D1_what_others_write_is_escaped_and_short(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    hostile = w.file("invoice\u202efdp.exe", 5)
    message = OSC_52 + "\r" + "x" * 300
    tell(alice, f"push '{hostile}' @bob --message '{message}'")
    bob.prints("They say: \\x1b]52;c;")
    tell(bob, "reqs")
    bob.prints("[1] alice", bob.prints("no 1 declines"))
    tell(bob, "ok 1")
    bob.prints("From alice: 1 file, 5 B")
    alice.prints("Delivered")
    assert leave(bob) == 0
    assert leave(alice) == 0
    assert w.landed("bob") == [hostile.name]
    for line in [*bob.output, *alice.output]:
        assert line.isprintable(), line
        assert len(line) < 1000
    assert any("invoice\\u202efdp.exe" in line for line in bob.output)


def test_plain_lines_have_no_prompt_and_no_colour(w: World) -> None:
    alice = shell(w, "alice")
    tell(alice, "help\nlist")
    alice.prints("alice  takes files  you")
    assert leave(alice) == 0
    assert "glide>" not in "".join(alice.output)
    assert "\x1b" not in "".join(alice.output)
    assert alice.errors == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_ends_it_and_the_other_side_is_told(w: World, number: signal.Signals, code: int) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    with Proxy(w.address, 20 * MIB) as proxy:
        other = w.push("carol", "bob", w.file("f", 60 * MIB), relay=proxy.address)
        bob.prints("[1] carol")
        tell(bob, "ok 1")
        held_up(w, proxy, other)
        bob.signal(number)
        assert bob.wait() == code, bob
        assert other.wait() == 4, other
    assert leave(alice) == 0


def test_a_relay_that_is_lost_for_good_ends_it(w: World) -> None:
    alice = shell(w, "alice")
    assert w.relay is not None
    w.relay.popen.kill()
    assert alice.wait() == 6
    assert alice.errors.startswith("glide: ")
    assert alice.errors.count("\n") == 1


def test_a_relay_that_is_lost_for_good_is_told_after_what_the_end_of_the_input_waits_for(w: World) -> None:
    w.receive("bob", "--accept", "all")
    with Proxy(w.address, 20 * MIB) as proxy:
        alice = w.run("alice", "shell", "--as", "alice", "--relay", proxy.address)
        alice.prints("You are alice")
        tell(alice, f"push {w.file('f', 60 * MIB)} @bob")
        held_up(w, proxy, alice)
        w.receive("alice")  # takes the name over
        alice.prints("It ends when what is under way is over.")
        alice.feed(b"nonsense\n")  # once that is told, all is read, and the end waits too
        alice.prints("There is no command")
        assert alice.popen.poll() is None
        proxy.release()
        assert alice.wait() == 11, alice
    alice.prints("Delivered to bob: f (1 file, 60.0 MiB).")
    assert w.landed("bob") == ["f"]


def test_a_relay_that_comes_back_is_found_again(alone: World) -> None:
    relay = alone.serve()
    port = relay.event("listening")["port"]
    alice = shell(alone, "alice", retry="30s")
    tell(alice, "list")
    before = alice.prints("alice  takes files  you")
    relay.popen.kill()
    relay.wait()
    alice.prints("Trying again in")
    alone.run("relay", "serve", "--port", str(port), "--json")
    alice.prints("Connected again.")
    tell(alice, "list")
    alice.prints("alice  takes files  you", before)
    assert leave(alice) == 0


def test_a_name_that_is_taken_is_told_with_its_code(w: World) -> None:
    w.receive("bob")
    carol = w.run("carol", "shell", "--as", "bob", "--relay", w.address)
    assert carol.wait() == 11
    assert "somebody else is bob" in carol.errors
