"""What glide says to whoever does not know yet what to type."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.cli.next import MEANT, push_mistake
from glide.cli.verbs import Verbs
from tests.processes import World


def test_alone_it_says_how_to_begin(alone: World) -> None:
    process = alone.run("alice")
    assert process.wait() == 0, process
    assert any("glide serve" in line for line in process.output)
    assert any("glide use" in line for line in process.output)
    assert len(process.output) == 4
    assert not (alone.folder / "alice").exists()  # nothing was made


def test_with_a_relay_in_use_it_says_what_one_can_do_there(w: World) -> None:
    assert w.run("alice", "use", w.address).wait() == 0
    process = w.run("alice")
    assert process.wait() == 0, process
    assert w.address.partition("#")[0] in process.output[0]
    assert any("glide receive" in line for line in process.output)
    assert not (w.folder / "alice" / "identity").exists()


def test_later_it_says_who_one_is(w: World) -> None:
    assert w.run("alice", "use", w.address).wait() == 0
    assert w.run("alice", "who").wait() == 0
    called: dict[str, Any] = {"as": "Alice"}
    process = w.run("alice", **called)
    assert process.wait() == 0, process
    assert process.output[0].startswith("You are alice;")
    assert any("glide doctor" in line for line in process.output)


def test_alone_it_dials_nobody(alone: World) -> None:
    begun = time.monotonic()
    assert alone.run("alice", relay="192.0.2.1:1").wait() == 0  # a place where nobody answers
    assert time.monotonic() - begun < 9  # a dial would take ten seconds


def test_alone_it_says_what_is_wrong_with_the_settings(alone: World) -> None:
    (alone.folder / "alice").mkdir()
    (alone.folder / "alice" / "config.toml").write_text("rely = 'h:1'\n")
    process = alone.run("alice")
    assert process.wait() == 2
    assert "'relay'" in process.errors


@pytest.mark.parametrize(("typed", "meant"), [("send", "push"), ("recv", "receive"), ("get", "receive"), ("ls", "who")])
def test_a_verb_of_another_program_is_understood_but_not_done(alone: World, typed: str, meant: str) -> None:
    process = alone.run("alice", typed, "bob", "x")
    assert process.wait() == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in process.errors


def test_a_slip_of_the_finger_is_understood(alone: World) -> None:
    process = alone.run("alice", "pusch", "bob", "x")
    assert process.wait() == 2
    assert "'push'" in process.errors


def test_every_verb_that_is_suggested_exists() -> None:
    verbs = {*Verbs()}
    assert set(MEANT.values()) <= verbs
    assert not set(MEANT) & verbs


# --- the wrong way round ---


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "my file", "dave", "-x"):
        (tmp_path / name).touch()
    (tmp_path / "photos").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["a.txt", "bob"], "glide push bob a.txt"),
        (["a.txt", "@bob"], "glide push @bob a.txt"),
        (["my file", "photos", "bob"], "glide push bob 'my file' photos"),
        (["photos", "a.txt", "Bob"], "glide push Bob photos a.txt"),
        (["dave", "bob"], "glide push bob dave"),
        (["-", "bob"], "glide push bob -"),
        (["-x", "bob"], "glide push bob -- -x"),
        (["./nothing", "@bob"], "glide push @bob ./nothing"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_person_who_stands_last_is_put_first(typed: list[str], meant: str) -> None:
    assert push_mistake(typed[0], typed[1:]) == meant


@pytest.mark.parametrize(
    "typed",
    [
        ["bob", "a.txt"],
        ["bob", "photos", "a.txt"],
        ["bob", "nothing"],  # a file that is missing
        ["bob", "@carol"],
        ["dave", "a.txt"],  # a person called like a file
        ["a.txt", "photos"],  # nobody is meant
        ["./nothing", "bob"],
        ["bob", "-"],
        ["a.txt", "not/a/name"],
    ],
)
@pytest.mark.usefixtures("here")
def test_what_may_be_right_is_left_alone(typed: list[str]) -> None:
    assert push_mistake(typed[0], typed[1:]) is None


@pytest.mark.usefixtures("here")
def test_a_great_many_paths_are_not_repeated() -> None:
    meant = push_mistake("a.txt", [*("photos" for _ in range(1000)), "bob"])
    assert meant == "glide push bob a.txt ..."


@given(st.lists(st.text(min_size=1), min_size=2, max_size=5))
def test_D1_whatever_is_typed_a_suggestion_is_one_line_that_can_be_shown(words: list[str]) -> None:
    meant = push_mistake("a\nb", words) if "\0" not in "".join(words) else None
    assert meant is None or (meant.isprintable() and shlex.split(meant)[:2] == ["glide", "push"])


def test_the_wrong_way_round_disturbs_nobody(alone: World) -> None:
    file = alone.file("a.txt", 1)
    process = alone.run("alice", "push", str(file), "bob", "--json", "--relay", "127.0.0.1:1")
    assert process.wait() == 2, process
    assert f"glide push bob {file}" in process.result["message"]
