"""Questions to a person, at a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")

PATIENCE = 20.0

# Does on its terminal what it is told through a pipe, a letter at a time: ask, cancel the question.
PERSON = """
import os, sys, trio
from glide import events
from glide.cli.prompt import Prompt
from glide.cli.render import Renderer

orders = int(sys.argv[1])
prompt = Prompt(Renderer(json="json" in sys.argv, quiet="quiet" in sys.argv))

def offer(sender, number):
    names = (f"file{number}.txt",)
    paths = lambda: [*names, "in/it\\x1b[2J", "n" * 2000]
    return events.OfferArrived(bytes(16), sender, bytes(32), 1, 2048, "hello", "new", names, paths)

async def ask(number, scope, sender="alice"):
    with scope:
        print(number, await prompt.consent(offer(sender, number)), flush=True)
    if scope.cancelled_caught:
        print(number, "cancelled", flush=True)

async def main():
    scopes = []
    async with trio.open_nursery() as nursery:
        print("ready", flush=True)
        while True:
            await trio.lowlevel.wait_readable(orders)
            order = os.read(orders, 1)
            if order == b"a":
                scopes.append(trio.CancelScope())
                nursery.start_soon(ask, len(scopes), scopes[-1])
                await trio.testing.wait_all_tasks_blocked()
            elif order == b"c":
                scopes[-1].cancel()
            else:
                return

import trio.testing
trio.run(main)
"""


class Terminal:
    """A person's terminal with the process on it."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()
        orders, self._orders = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PERSON, str(orders), *words],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            pass_fds=[orders],
            env={**os.environ, "PAGER": "cat"},
        )
        os.close(slave)
        os.close(orders)
        self.shown = ""
        assert self.said() == "ready"

    def order(self, what: str) -> None:
        os.write(self._orders, what.encode())

    def type(self, what: str) -> None:
        os.write(self._master, what.encode())

    def see(self, what: str) -> None:
        """Wait until the screen shows ``what``, and go on behind it."""
        ends = time.monotonic() + PATIENCE
        while what not in self.shown:
            ready, _, _ = select.select([self._master], [], [], max(0, ends - time.monotonic()))
            assert ready, f"{what!r} is not shown, but {self.shown!r}"
            self.shown += os.read(self._master, 4096).decode()
        self.shown = self.shown.partition(what)[2]

    def said(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, f"nothing was said; the screen shows {self.shown!r}"
        return self._process.stdout.readline().decode().strip()

    def quiet(self) -> bool:
        """True if nothing was said on stdout up to now."""
        assert self._process.stdout is not None
        return not select.select([self._process.stdout], [], [], 0)[0]

    def close(self) -> None:
        os.close(self._orders)
        os.close(self._master)
        assert self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    opened = Terminal(*getattr(request, "param", ()))
    yield opened
    opened.close()


QUESTION = "Take it from alice? [y/N] "


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y\n", True),
        ("yes\n", True),
        ("Y\n", True),
        (" YES \n", True),
        ("n\n", False),
        ("no\n", False),
        ("\n", False),
        ("yess\nn\n", False),  # neither: it is asked again
        ("yn\n\n", False),
        ("sure\ny\n", True),
        ("\x04", False),  # the end of input
        ("nx\x7f\x7fy\n", True),  # corrected while typing
    ],
)
def test_a_yes_is_a_yes_and_all_else_a_no(terminal: Terminal, typed: str, answer: bool) -> None:
    terminal.order("a")
    terminal.see(QUESTION)
    assert terminal.quiet()
    terminal.type(typed)
    assert terminal.said() == f"1 {answer}"


def test_D3_what_was_typed_before_the_question_is_no_answer(terminal: Terminal) -> None:
    terminal.type("y\ny\n")
    terminal.see("y\r\ny\r\n")  # the terminal has it
    terminal.order("a")
    terminal.see(QUESTION)
    terminal.type("no\n")
    assert terminal.said() == "1 False"


def test_what_was_typed_behind_one_answer_is_none_to_the_next_question(terminal: Terminal) -> None:
    terminal.order("a")
    terminal.see(QUESTION)
    terminal.order("a")
    terminal.type("y\ny\n")
    terminal.see("y\r\n")
    assert terminal.said() == "1 True"
    terminal.see(QUESTION)
    terminal.type("n\n")
    assert terminal.said() == "2 False"


def test_a_question_that_is_cancelled_is_withdrawn_and_the_next_one_asked(terminal: Terminal) -> None:
    terminal.order("a")
    terminal.see(QUESTION)
    terminal.type("y")  # half an answer
    terminal.see("y")
    terminal.order("c")
    terminal.see("(no longer asked)")
    assert terminal.said() == "1 cancelled"
    terminal.order("a")
    terminal.see(QUESTION)
    assert terminal.quiet()
    terminal.type("y\n")
    assert terminal.said() == "2 True"


def test_a_question_that_waits_for_its_turn_can_be_cancelled_unseen(terminal: Terminal) -> None:
    terminal.order("a")
    terminal.see(QUESTION)
    terminal.order("a")
    terminal.order("c")
    assert terminal.said() == "2 cancelled"
    terminal.type("y\n")
    assert terminal.said() == "1 True"
    assert "(no longer asked)" not in terminal.shown


@pytest.mark.parametrize("terminal", [["quiet"], ["json"]], indirect=True, ids=["quiet", "json"])
def test_D2_where_the_offer_was_not_shown_the_question_shows_it(terminal: Terminal) -> None:
    terminal.order("a")
    terminal.see("alice (nobody you know yet")
    terminal.see("fingerprint")
    terminal.see("2.0 KiB: file1.txt")
    terminal.see(QUESTION)
    terminal.type("y\n")
    assert terminal.said() == "1 True"


@pytest.mark.parametrize("word", ["l", "list", "L"])
def test_D1_D2_l_lists_all_that_is_offered_escaped_and_asks_again(terminal: Terminal, word: str) -> None:
    terminal.order("a")
    terminal.see(QUESTION)
    terminal.type(f"{word}\n")
    terminal.see("file1.txt\r\n")
    terminal.see("in/it\\x1b[2J\r\n")
    terminal.see("…")
    terminal.see(QUESTION)
    assert terminal.quiet()
    terminal.type("y\n")
    assert terminal.said() == "1 True"
