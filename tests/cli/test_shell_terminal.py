"""The shell as a person uses it: at a real terminal, a key at a time."""

from __future__ import annotations

import os
import re
import signal
import stat
import termios
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.screen import Screen
from tests.processes import PATIENCE, Process, Proxy, World, held_up, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")

MIB = 1024 * 1024
PROMPT = "glide>"
ENTER, TAB, UP, INTERRUPT, END, ERASE = "\r", "\t", "\x1b[A", "\x03", "\x04", "\x7f"
OSC_52 = "\x1b]52;c;cm0gLXJmIC8=\x07"


def wait_until(condition: Callable[[], bool], problem: Callable[[], str]) -> None:
    """Wait for what can only be looked at, and say what was there if it does not come about."""
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < patience, problem()
        time.sleep(0.02)


class Person:
    """Somebody at a terminal with a shell on it, who reads downwards."""

    def __init__(self, process: Process, before: list[Any]) -> None:
        self.process = process
        self._before = before
        self._row = 0  # of what was seen last

    @property
    def rows(self) -> list[str]:
        """What stands on the screen, and what was scrolled away."""
        return Screen.of(self.process.errors).rows

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def line(self) -> str:
        """The line that is being edited, or asks."""
        return next((row for row in reversed(self.rows) if row.strip()), "")

    def see(self, text: str) -> None:
        """Wait until the screen shows ``text``, not above what was seen last."""

        def shown() -> bool:
            rows = self.rows
            found = [number for number in range(self._row, len(rows)) if text in rows[number]]
            self._row = found[0] if found else self._row
            return bool(found)

        wait_until(shown, lambda: f"{text!r} is not on {self.rows[self._row :]} of {self.rows}")

    def see_prompt(self, text: str = "") -> None:
        """Wait until ``text`` is what has been typed at the prompt."""
        wanted = f"{PROMPT} {text}".rstrip()
        wait_until(lambda: self.line.rstrip() == wanted, lambda: f"{wanted!r} is not {self.line!r} of {self.rows}")

    def type(self, text: str) -> None:
        self.process.types(text)

    def enters(self, text: str) -> None:
        """Type a line at the prompt, see it there, and enter it."""
        self.type(text)
        self.see_prompt(text)
        self.enter()

    def enter(self) -> None:
        """Enter what is typed; what is seen next stands below it."""
        rows = self.rows
        at = max(number for number, row in enumerate(rows) if row.startswith(PROMPT))
        # What goes on is drawn above the line for as long as it is edited, and not when it is entered.
        self._row = at + 1 - sum(re.match(r"\[\d+\] (from|to) ", row) is not None for row in rows[:at])
        self.type(ENTER)

    @property
    def edits(self) -> bool:
        """True if the terminal is not as it was found."""
        return bool(termios.tcgetattr(self.process.terminal) != self._before)

    def check_left(self, code: int) -> None:
        """It ends with that code, and leaves the terminal as it found it."""
        assert self.process.wait() == code, self.process
        assert not self.edits
        written = self.process.errors
        assert written.rfind("\x1b[?2004l") > written.rfind("\x1b[?2004h"), "pasted text stays bracketed"
        assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l"), "the cursor stays hidden"
        assert not re.search(r"\x1b\[\?(?:9|100\d|1015|1049|47)h", written), "mouse, or another screen"
        assert "\x1b[6n" not in written, "its answer could come too late"


def shell(w: World, person: str, *arguments: str, **settings: str) -> Person:
    """A person at a new terminal, whose shell is registered and shows its prompt."""
    w.prefixes.setdefault(person, ("env", "-u", "NO_COLOR", "TERM=xterm"))
    command = ("shell", "--as", person, "--into", str(w.into(person)), "--relay", w.address)
    rest: dict[str, Any] = settings
    process = w.run(person, *command, *arguments, terminal=True, whole=True, **rest)
    made = Person(process, termios.tcgetattr(process.terminal))
    made.see(f"You are {person}")
    made.see_prompt()
    return made


def leave(*people: Person) -> None:
    for person in people:
        person.enters("exit")
        person.check_left(0)


# --- sending and receiving ---


def test_a_person_sends_and_another_one_accepts(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    path = w.file("hello.txt", 5)
    alice.enters("list")
    alice.see("bob    takes files  new")
    alice.enters(f"push {path} @bob")
    bob.see("[1] alice (nobody you know yet, fingerprint ")
    bob.see("offers 1 file, 5 B: hello.txt")
    bob.see("ok 1 takes it, no 1 declines it.")
    bob.enters("reqs")
    bob.see("[1] alice")
    bob.enters("ok @alice")
    bob.see(f"From alice: 1 file, 5 B: {w.into('bob') / 'hello.txt'}")
    alice.see("Delivered to bob: hello.txt (1 file, 5 B).")
    assert (w.into("bob") / "hello.txt").read_bytes() == path.read_bytes()
    alice.enters("exit")
    alice.check_left(0)
    bob.type(END)
    bob.check_left(0)
    assert bob.line.startswith("From alice: ")  # no empty prompt stays behind


def test_a_person_refuses(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    alice.enters(f"push {w.file('f', 5)} @bob")
    bob.see("no 1 declines it.")
    bob.enters("no 1")
    bob.see("Declined what alice offers.")
    alice.see("To bob: f: ")
    assert "they said no" in alice.text
    assert w.left("bob") == []
    leave(alice, bob)


def test_two_shells_send_to_each_other_at_once(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    there, back = w.file("there.bin", 3 * MIB), w.file("back.bin", 2 * MIB)
    alice.enters(f"push {there} @bob")
    bob.enters(f"push {back} @alice")
    until(lambda: "takes it" in alice.text and "takes it" in bob.text)  # by which number, depends on who was first
    alice.enters("ok @bob")
    bob.enters("ok @alice")
    until(lambda: "Delivered to bob: there.bin (1 file, 3.0 MiB)" in alice.text)
    until(lambda: "Delivered to alice: back.bin (1 file, 2.0 MiB)" in bob.text)
    assert (w.into("bob") / "there.bin").read_bytes() == there.read_bytes()
    assert (w.into("alice") / "back.bin").read_bytes() == back.read_bytes()
    leave(alice, bob)


def test_what_is_half_typed_survives_an_offer(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    bob.type("rexs")
    bob.see_prompt("rexs")
    alice.enters(f"push {w.file('f', 5)} @bob")
    bob.see("[1] alice")
    bob.see("ok 1 takes it, no 1 declines it.")
    bob.see_prompt("rexs")  # it is drawn anew below
    assert bob.text.count("rexs") == 1
    bob.type(ERASE + ERASE + "qs")
    bob.see_prompt("reqs")
    bob.enter()
    bob.see("[1] alice (nobody you know yet), ")
    bob.enters("ok 1")
    bob.see("From alice: ")
    leave(alice, bob)


def test_D3_a_name_that_was_begun_before_an_offer_came_takes_nothing(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    bob.type("ok @ali")
    bob.see_prompt("ok @ali")
    alice.enters(f"push {w.file('f', 5)} @bob")
    bob.see("ok 1 takes it, no 1 declines it.")
    bob.type("ce")
    bob.see_prompt("ok @alice")
    bob.enter()
    bob.see("Offer 1 came while you were typing. ok 1 takes it.")
    assert w.left("bob") == []
    bob.enters("ok @alice")
    bob.see("From alice: ")
    leave(alice, bob)


def test_progress_is_drawn_above_what_is_typed_and_goes_when_it_is_over(w: World) -> None:
    bob = shell(w, "bob")
    with Proxy(w.address, 20 * MIB) as proxy:
        sender = w.push("alice", "bob", w.file("big.bin", 60 * MIB), relay=proxy.address)
        bob.see("ok 1 takes it")
        bob.enters("ok 1")
        bob.see("[1] from alice: big.bin")
        held_up(w, proxy, sender)
        bob.type("half")
        bob.see_prompt("half")
        wait_until(lambda: re.search(r"from alice: big.bin +\[#+-+\] +\d+%", bob.text) is not None, lambda: bob.text)
        bob.type(" typed")
        bob.see_prompt("half typed")
        proxy.release()
        bob.see("From alice: 1 file, 60.0 MiB")
        bob.see_prompt("half typed")
        assert sender.wait() == 0
    assert "%" not in bob.text
    assert bob.text.count("half") == 1
    bob.type(INTERRUPT)
    leave(bob)


def test_who_has_no_name_is_asked_for_one_first(w: World) -> None:
    w.prefixes["alice"] = ("env", "TERM=xterm")
    process = w.run("alice", "shell", "--relay", w.address, terminal=True, whole=True)
    before = termios.tcgetattr(process.terminal)
    process.says("Under which name")
    process.types("alice" + ENTER)
    after = process.says("You are alice")
    process.says(PROMPT, after)
    process.types("exit" + ENTER)
    assert process.wait() == 0, process
    assert termios.tcgetattr(process.terminal) == before


# --- completion and history ---


def test_tab_completes_commands_people_and_paths(w: World) -> None:
    bob, alice = shell(w, "bob"), shell(w, "alice")
    folder = w.folder / "some folder"
    folder.mkdir()
    (folder / "a file.txt").write_bytes(b"hello")
    alice.type("li" + TAB)
    alice.see_prompt("list")
    alice.enter()
    alice.see("bob    takes files")
    alice.type("pu" + TAB + f"'{w.folder}/some f" + TAB + "a" + TAB + "@b" + TAB)
    alice.see_prompt(f"push '{folder}/a file.txt' @bob")
    alice.enter()
    bob.see("a file.txt")
    bob.type("ok " + TAB)
    bob.see_prompt("ok @alice")
    bob.enter()
    bob.see("From alice: 1 file, 5 B")
    leave(alice, bob)


def test_people_who_are_known_are_completed_at_once(w: World) -> None:
    (key,) = re.findall(r'"key": "([a-z0-9]+)"', w.out("robert", "id", "--json"))
    assert w.run("alice", "known", "add", "robert", key, "--relay", w.address).wait() == 0
    alice = shell(w, "alice")
    alice.type("push x @r" + TAB)
    alice.see_prompt("push x @robert")
    alice.type(INTERRUPT)
    leave(alice)


def test_where_there_is_a_choice_tab_shows_it(w: World) -> None:
    for name in ("first.txt", "second.txt", "\u202eevil.txt"):
        w.file(f"in/{name}", 1)
    alice = shell(w, "alice")
    alice.type(f"push {w.folder}/in/" + TAB)
    alice.see("first.txt")
    alice.see("second.txt")
    assert "evil" not in alice.text
    alice.type("f" + TAB)
    alice.see_prompt(f"push {w.folder}/in/first.txt")
    alice.type(INTERRUPT)
    leave(alice)


def test_what_was_typed_is_kept_for_the_next_time_and_for_nobody_else(w: World) -> None:
    alice = shell(w, "alice")
    alice.enters("list")
    alice.see("alice  takes files")
    leave(alice)
    history = w.folder / "alice" / "shell-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    alice = shell(w, "alice")
    alice.type(UP)
    alice.see_prompt("exit")
    alice.type(UP)
    alice.see_prompt("list")
    alice.enter()
    alice.see("alice  takes files")
    leave(alice)


def test_a_history_that_cannot_be_written_stops_nobody(w: World) -> None:
    (w.folder / "alice" / "shell-history").mkdir(parents=True)
    alice = shell(w, "alice")
    alice.enters("list")
    alice.see("alice  takes files")
    alice.type(UP)
    alice.see_prompt("list")
    alice.type(INTERRUPT)
    leave(alice)


# --- leaving ---


def lose_the_relay(w: World, person: Person) -> None:
    assert w.relay is not None
    w.relay.popen.kill()


def by(number: signal.Signals) -> Callable[[World, Person], None]:
    return lambda _, person: person.process.signal(number)


@pytest.mark.parametrize("half", ["", "push half"], ids=["nothing typed", "half typed"])
@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (by(signal.SIGINT), 130, "glide: Stopped."),
        (by(signal.SIGTERM), 143, "glide: Stopped."),
        (by(signal.SIGHUP), 129, "glide: Stopped."),
        (lose_the_relay, 6, "glide: The "),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP", "relay lost"],
)
def test_however_it_is_ended_the_terminal_is_as_it_was(
    w: World, end: Callable[[World, Person], None], code: int, words: str, half: str
) -> None:
    alice = shell(w, "alice")
    alice.type(half)
    alice.see_prompt(half)
    assert alice.edits
    end(w, alice)
    alice.check_left(code)
    assert alice.line.startswith(words)


@pytest.mark.parametrize(
    "keys", ["exit" + ENTER, "/exit" + ENTER, END, INTERRUPT + INTERRUPT], ids=["exit", "/exit", "Ctrl-D", "Ctrl-C"]
)
def test_however_a_person_leaves_the_terminal_is_as_it_was(w: World, keys: str) -> None:
    alice = shell(w, "alice")
    assert alice.edits
    alice.type(keys)
    alice.check_left(0)
    assert "glide: " not in alice.text


def test_ctrl_c_clears_what_is_typed_and_then_says_how_to_leave(w: World) -> None:
    alice = shell(w, "alice")
    alice.type("nonsense")
    alice.see_prompt("nonsense")
    alice.type(INTERRUPT)
    alice.see_prompt()
    alice.type(INTERRUPT)
    alice.see("To leave: exit, Ctrl-D, or Ctrl-C again.")
    alice.enters("list")  # and so it was not meant
    alice.see("alice  takes files")
    alice.type(INTERRUPT)
    alice.see("To leave: exit, Ctrl-D, or Ctrl-C again.")
    assert "There is no command" not in alice.text
    alice.type(INTERRUPT)
    alice.check_left(0)


@pytest.mark.parametrize("keys", ["exit" + ENTER, END, INTERRUPT + INTERRUPT], ids=["exit", "Ctrl-D", "Ctrl-C"])
def test_who_leaves_while_something_is_under_way_is_asked(w: World, keys: str) -> None:
    bob = shell(w, "bob")
    question = "1 transfer under way; leave and stop it? [y/N]"
    with Proxy(w.address, 20 * MIB) as proxy:
        sender = w.push("alice", "bob", w.file("f", 60 * MIB), relay=proxy.address)
        bob.see("ok 1 takes it")
        bob.enters("ok 1")
        held_up(w, proxy, sender)
        for no in ("n" + ENTER, ENTER, INTERRUPT, "what" + ENTER):
            bob.type(keys)
            wait_until(lambda: bob.line.startswith(question), lambda: bob.text)
            bob.type(no)
            bob.see_prompt()
        assert sender.popen.poll() is None
        bob.type(keys)
        wait_until(lambda: bob.line.startswith(question), lambda: bob.text)
        bob.type("y" + ENTER)
        bob.check_left(0)
        assert sender.wait() == 4, sender
    assert w.landed("bob") == []
    typed = (w.folder / "bob" / "shell-history").read_text().splitlines()
    assert "+ok 1" in typed
    assert "+y" not in typed
    assert "+what" not in typed


# Runs a shell at a terminal that nobody reads any more, until nothing more can be written; then ends it.
STUCK = """
import os, pty, select, signal, subprocess, sys
master, slave = pty.openpty()
command = [sys.executable, "-m", "glide", *sys.argv[1:]]
shell = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL)
shown = b""
while b"exit leaves" not in shown:
    shown += os.read(master, 4096)
while select.select([], [slave], [], 1)[1]:
    if select.select([], [master], [], 1)[1]:
        os.write(master, b"help\\r")
shell.send_signal(signal.SIGTERM)
print(shell.wait(20))
"""


def test_a_terminal_that_nobody_reads_holds_nothing_up(w: World) -> None:
    w.prefixes["alice"] = ("env", "TERM=xterm")
    stuck = w.run("alice", "shell", "--as", "alice", "--relay", w.address, program=("-c", STUCK))
    assert stuck.wait() == 0, stuck
    assert stuck.output == ["143"], stuck


# Runs a shell at a terminal that is closed when it is there; says what that ended with.
CLOSED = """
import os, pty, subprocess, sys
master, slave = pty.openpty()
shell = subprocess.Popen([sys.executable, "-m", "glide", *sys.argv[1:]], stdin=slave, stdout=slave, stderr=slave)
os.close(slave)
shown = b""
while b"exit leaves" not in shown:
    shown += os.read(master, 4096)
os.close(master)
print(shell.wait(20))
"""


def test_a_terminal_that_is_closed_ends_it(w: World) -> None:
    w.prefixes["alice"] = ("env", "TERM=xterm")
    closed = w.run("alice", "shell", "--as", "alice", "--relay", w.address, program=("-c", CLOSED))
    assert closed.wait() == 0, closed
    assert closed.output == ["1"], closed


# --- what is shown ---


def test_D1_nothing_of_others_reaches_the_terminal_unescaped(w: World) -> None:
    bob = shell(w, "bob")
    hostile = w.file("invoice\u202efdp.exe", 5)
    w.push("carol", "bob", hostile, "--message", OSC_52 + "\x1b[2J\rall is well\u2066")
    bob.see("They say: \\x1b]52;c;")
    bob.enters("reqs")
    bob.see("[1] carol (nobody you know yet), ")
    bob.enters("ok @carol")
    bob.see("From carol: 1 file, 5 B: ")
    bob.see("invoice\\u202efdp.exe")
    leave(bob)
    assert w.landed("bob") == [hostile.name]
    assert not re.search("[\u202e\u2066\x07\x9b]|\x1b\\]|\x1b\\[2J", bob.process.errors)
    assert all(row.isprintable() for row in bob.rows)


def test_D2_a_long_name_pushes_nothing_off_the_screen(w: World) -> None:
    bob = shell(w, "bob")
    w.push("carol", "bob", w.file("x" * 240, 5), w.file("y" * 240, 5), "--message", "z" * 400)
    bob.see("[1] carol (nobody you know yet, fingerprint ")
    bob.see("offers 2 files, 10 B: ")
    bob.see("ok 1 takes it, no 1 declines it.")
    bob.see_prompt()
    (offer,) = re.findall(r"\[1\] carol.*declines it\.", bob.text, re.DOTALL)
    assert len(offer) < 12 * 80
    bob.enters("no 1")
    bob.see("Declined")
    leave(bob)


def test_NO_COLOR_means_no_colour(w: World) -> None:
    w.prefixes["alice"] = ("env", "TERM=xterm-256color", "NO_COLOR=1")
    for name in ("first.txt", "second.txt"):
        w.file(f"in/{name}", 1)
    alice = shell(w, "alice")
    alice.type(f"push {w.folder}/in/" + TAB)  # the choice is what has colours
    alice.see("second.txt")
    alice.type(INTERRUPT)
    leave(alice)
    for codes in re.findall(r"\x1b\[([\d;]*)m", alice.process.errors):
        assert not {code for code in codes.split(";") if re.fullmatch(r"[349][0-8]|10[0-7]", code)}, codes


def test_a_terminal_that_cannot_edit_gets_plain_lines(w: World) -> None:
    w.prefixes["alice"] = ("env", "TERM=dumb")
    command = ("shell", "--as", "alice", "--relay", w.address)
    process = w.run("alice", *command, terminal=True, whole=True)
    before = termios.tcgetattr(process.terminal)
    process.says("You are alice")
    process.types("list\n")
    process.says("alice  takes files  you")
    process.types(END)
    assert process.wait() == 0, process
    assert "\x1b" not in process.errors
    assert termios.tcgetattr(process.terminal) == before


def test_lines_that_are_pasted_together_are_commands_one_after_another(w: World) -> None:
    alice = shell(w, "alice")
    alice.type("\x1b[200~list\nreqs\x1b[201~")
    alice.see("list")
    alice.enter()
    alice.see("alice  takes files")
    alice.see("Nothing waits for an answer.")
    leave(alice)
