"""What the shell completes, and that completing leaves no trace and never speaks."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glide.people.known import Known, Trust
from tests.processes import Process, World, tree

OTHER_RELAY = b"o" * 32


@pytest.fixture
def home(w: World) -> Path:
    """Alice's, who has been at the relay and knows a few people."""
    w.out("alice", "who", "--relay", w.address)
    home = w.folder / "alice"
    (home / "config.toml").write_text(f'relay = "{w.address}"\n[groups]\nbulk = ["bob", "carol"]\n')
    known = Known(home / "known.json")
    (relay,) = known.relays()
    known.remember(relay.key, "bert", b"k" * 32, Trust.KNOWN)
    known.remember(OTHER_RELAY, "beth", b"k" * 32, Trust.KNOWN)
    return home


def complete(w: World, *words: str, person: str = "alice") -> list[str]:
    """What bash is told when Tab is pressed behind the last of ``words``."""
    process = completing(w, *words, person=person)
    assert process.wait() == 0, process
    assert process.errors == ""
    return sorted(filter(None, process.output))


def completing(w: World, *words: str, person: str = "alice") -> Process:
    line = " ".join(("glide", *words))
    w.prefixes[person] = ("env", "_GLIDE_COMPLETE=complete_bash", f"COMP_WORDS={line}", f"COMP_CWORD={len(words)}")
    try:
        return w.run(person)
    finally:
        del w.prefixes[person]


@pytest.mark.usefixtures("home")
def test_names_are_those_who_are_there_or_known_and_groups(w: World) -> None:
    w.receive("bob")
    assert complete(w, "push", "b") == ["bert", "bob", "bulk"]
    assert complete(w, "push", "be") == ["bert"]
    assert complete(w, "push", "@b") == ["@bert", "@bob", "@bulk"]
    assert complete(w, "push", "x") == []


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [("verify",), ("pair",), ("receive", "--from")])
def test_where_one_person_is_meant_there_are_no_groups(w: World, words: tuple[str, ...]) -> None:
    w.receive("bob")
    assert complete(w, *words, "b") == ["bert", "bob"]


@pytest.mark.usefixtures("home")
def test_whom_to_forget_is_somebody_known_wherever(w: World) -> None:
    w.receive("bob")
    assert complete(w, "known", "forget", "b") == ["bert", "beth"]


@pytest.mark.usefixtures("home")
def test_the_relay_that_was_typed_is_the_one_that_is_asked(w: World) -> None:
    w.receive("bob")
    assert complete(w, "push", "--relay", "127.0.0.1:1", "b") == ["bert", "beth", "bulk"]  # it was never met


def test_values_are_completed_where_there_are_few(alone: World) -> None:
    assert complete(alone, "receive", "--accept", "") == ["all", "ask", "known"]
    assert complete(alone, "receive", "--conflict", "r") == ["refuse", "rename"]


def test_behind_a_verb_that_there_is_not_nothing_is_said(alone: World) -> None:
    assert complete(alone, "send", "b") == []


def test_completing_makes_no_key_and_pins_nothing(w: World) -> None:
    w.receive("bob")
    assert complete(w, "push", "--relay", w.address.partition("#")[0], "b") == []
    assert not (w.folder / "alice").exists()
    w.out("alice", "id")
    before = tree(w.folder / "alice")
    assert complete(w, "push", "--relay", w.address.partition("#")[0], "b") == ["bob"]
    assert tree(w.folder / "alice") == before


SPOILED = ["config.toml", "known.json", "identity"]


@pytest.mark.parametrize("name", SPOILED)
def test_whatever_is_wrong_completing_is_silent(w: World, home: Path, name: str) -> None:
    (home / name).write_bytes(b"\xff{{ nonsense")
    assert "beth" not in complete(w, "push", "b")  # and nothing on stderr


@pytest.fixture
def silent() -> Iterator[str]:
    """A relay that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.usefixtures("home")
def test_a_relay_that_does_not_answer_holds_nobody_up(w: World, silent: str) -> None:
    began = time.monotonic()
    assert complete(w, "push", "--relay", silent, "be") == ["bert", "beth"]
    took = time.monotonic() - began
    # The relay is waited for 0.7 s; the rest is for a busy machine, and well under a handshake's ten seconds.
    assert took < 7


@pytest.mark.usefixtures("home")
def test_a_relay_that_is_stopped_holds_nobody_up(w: World) -> None:
    assert w.relay is not None
    w.relay.signal(signal.SIGSTOP)
    assert complete(w, "push", "b") == ["bert", "bulk"]
