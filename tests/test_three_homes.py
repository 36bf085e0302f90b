"""Three people on one machine, each with a home of their own: what a policy in config.toml makes of what they send."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import Process, World, until, world

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")

KIB, MIB = 1024, 1024 * 1024

CONFIG = """\
as = "bob"
into = "{inbox}"

[policy.everybody]
do = "ask"
size = "1MiB"

[policy.verified]
do = "accept"
into = "{friends}"
size = "unlimited"

[policy.name.mallory]
do = "deny"
"""


@dataclass
class Bob:
    """Who receives, at a terminal, as his settings say."""

    process: Process
    inbox: Path
    friends: Path

    def asked(self) -> int:
        """How often he was asked so far."""
        return self.process.errors.count("Take it from")


def verified(w: World, person: str, other: str) -> None:
    """Two people who have compared a code."""
    shows = w.run(other, "pair", person, "--as", other, "--relay", w.address, "--json")
    code = shows.event("code")["code"]
    types = w.run(person, "pair", other, "--as", person, "--relay", w.address, "--json")
    types.feed(f"{code}\n".encode())
    assert (types.wait(), shows.wait()) == (0, 0), (types, shows)


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, retry="1m") as made:
        made.serve()
        yield made


@pytest.fixture
def bob(w: World) -> Bob:
    """He receives; of all people he has verified Alice."""
    verified(w, "alice", "bob")
    inbox, friends = w.folder / "inbox", w.folder / "friends"
    inbox.mkdir()
    friends.mkdir()
    (w.folder / "bob" / "config.toml").write_text(CONFIG.format(inbox=inbox, friends=friends))
    process = w.run("bob", "receive", "--relay", w.address, "--json", terminal=True)
    assert process.event("registered")["name"] == "bob"
    return Bob(process, inbox, friends)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_day_in_the_life_of_a_receiver(w: World, bob: Bob) -> None:
    """One daemon, and what becomes of the offers of three people, one after the other."""
    # Of Alice he takes whatever it is, without being asked, into a folder of its own.
    assert w.push("alice", "bob", w.file("film", 2 * MIB), "--strict").wait() == 0
    assert (bob.asked(), names(bob.friends), names(bob.inbox)) == (0, ["film"], [])

    # About Carol he is asked, and says yes.
    carol = w.push("carol", "bob", w.file("letter", 10 * KIB), "--message", "it is me")
    bob.process.says("Take it from carol? [y/N]")
    bob.process.types("y\n")
    assert carol.wait() == 0, carol
    assert names(bob.inbox) == ["letter"]

    # From Mallory he takes nothing, and is not asked.
    mallory = w.push("mallory", "bob", w.file("virus", 10))
    assert mallory.wait() == 4, mallory
    assert "takes nothing from you" in mallory.result["message"]
    assert bob.process.event("refused", **{"from": "mallory"})
    assert bob.asked() == 1

    # Too much of Carol is refused, and he is not asked.
    too_much = w.push("carol", "bob", w.file("archive", 2 * MIB))
    assert too_much.wait() == 4, too_much
    assert "1.0 MiB" in too_much.result["message"]
    assert bob.asked() == 1

    assert (names(bob.inbox), names(bob.friends)) == (["letter"], ["film"])
    assert bob.process.popen.poll() is None


def test_carol_is_asked_about_again_and_he_may_say_no(w: World, bob: Bob) -> None:
    first = w.push("carol", "bob", w.file("one", 10))
    bob.process.says("nobody you know yet")
    bob.process.says("Take it from carol?")
    bob.process.types("y\n")
    assert first.wait() == 0
    # She is known now, and the policy says nothing of people who are only known.
    second = w.push("carol", "bob", w.file("two", 10))
    bob.process.says("Take it from carol?", after=bob.process.says("Take it from carol?"))
    assert "(known to you" in bob.process.errors
    bob.process.types("n\n")
    assert second.wait() == 4, second
    assert names(bob.inbox) == ["one"]


def test_who_shows_each_of_them_how_well_they_know_the_others(w: World, bob: Bob) -> None:
    waiting = w.push("carol", "dave", w.file("later", 10), "--wait", "10m")  # so that she is connected
    waiting.event("waiting")

    def seen_by(person: str) -> dict[str, tuple[bool, str]]:
        process = w.run(person, "who", "--relay", w.address, "--json")
        assert process.wait() == 0, process
        return {each["name"]: (each["receiving"], each["trust"]) for each in process.told("person")}

    assert seen_by("alice") == {"bob": (True, "verified"), "carol": (False, "new")}
    assert seen_by("bob") == {"bob": (True, "new"), "carol": (False, "new")}
    assert seen_by("mallory") == {"bob": (True, "new"), "carol": (False, "new")}
    listed = w.run("alice", "who", "--relay", w.address)
    assert listed.wait() == 0
    (line,) = [line for line in listed.output if line.startswith("bob ")]
    assert "takes files" in line
    assert "verified" in line


def test_what_waits_for_somebody_who_is_away_arrives_when_they_come(w: World, bob: Bob) -> None:
    waiting = [
        w.push(person, "dave", w.file(f"from-{person}", 100 * KIB), "--wait", "10m") for person in ("alice", "carol")
    ]
    for process in waiting:
        process.event("waiting", to="dave")
    dave = w.receive("dave", "--accept", "all")
    assert [process.wait() for process in waiting] == [0, 0], waiting
    assert w.left("dave") == ["from-alice", "from-carol"]
    until(lambda: len(dave.told("received")) == 2)
    # Meanwhile Bob was left in peace.
    assert not bob.process.told("offer")


def test_whoever_takes_the_name_of_a_friend_is_not_taken_for_them(w: World, bob: Bob) -> None:
    """Mallory comes as alice while Alice is away: her key is another one."""
    process = w.run("mallory", "push", "bob", str(w.file("f", 10)), "--as", "alice", "--relay", w.address, "--json")
    assert process.wait() == 4, process
    assert bob.process.event("refused", **{"from": "alice"})
    assert bob.asked() == 0
    assert (names(bob.inbox), names(bob.friends)) == ([], [])
    assert w.push("alice", "bob", w.file("really", 10)).wait() == 0
    assert names(bob.friends) == ["really"]
