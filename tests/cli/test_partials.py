"""What is kept of interrupted transfers: listed, removed, and gone after its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, Proxy, World, held_up, until

MIB = 1024 * 1024
HELD = 4 * MIB
TOTAL = 10 * MIB


@pytest.fixture
def proxy(w: World) -> Iterator[Proxy]:
    with Proxy(w.address, limit=HELD) as made:
        yield made


def under_way(w: World, proxy: Proxy, name: str = "film", *arguments: str) -> tuple[Process, Process]:
    """A receiver and a sender, held up in the middle."""
    receiver = w.receive("bob", "--accept", "all", *arguments)
    sender = w.push("alice", "bob", w.file(name, TOTAL), relay=proxy.address)
    held_up(w, proxy, sender, MIB + 1)
    return receiver, sender


def interrupted(w: World, proxy: Proxy, name: str = "film") -> Path:
    """The stage of what is kept, with nobody running."""
    receiver, sender = under_way(w, proxy, name)
    proxy.kill(sender)
    receiver.event("failed")
    receiver.end()
    (stage,) = w.stages("bob")
    return stage


def journals(w: World) -> list[Path]:
    return sorted((w.folder / "bob" / "partials").iterdir())


def test_partials_says_from_whom_how_much_and_where(w: World, proxy: Proxy) -> None:
    stage = interrupted(w, proxy)
    text = w.run("bob", "partials")
    assert text.wait() == 0, text
    (line,) = text.output
    assert line.startswith("film from alice: ")
    assert "MiB of 10.0 MiB" in line
    assert line.endswith(f"in {stage}")
    machine = w.run("bob", "partials", "--json")
    assert machine.wait() == 0
    event = machine.event("partial")
    assert (event["from"], event["path"], event["names"]) == ("alice", str(stage), ["film"])
    assert (event["items"], event["total"]) == (1, TOTAL)
    assert MIB < event["bytes"] <= HELD
    assert 0 <= event["age"] < 120
    assert machine.result["status"] == "ok"


def test_partials_says_so_if_there_is_nothing(w: World) -> None:
    for verb, words in ((["partials"], "Nothing is kept"), (["partials", "clear"], "Nothing was kept")):
        process = w.run("bob", *verb)
        assert process.wait() == 0, process
        assert words in process.errors
        assert process.output == []


def test_clear_removes_it_and_nothing_else(w: World, proxy: Proxy) -> None:
    stage = interrupted(w, proxy)
    (w.into("bob") / "mine").write_text("stays")
    process = w.run("bob", "partials", "clear", "--json")
    assert process.wait() == 0, process
    assert process.event("partial")["path"] == str(stage)
    assert w.left("bob") == ["mine"]
    assert journals(w) == []
    w.receive("bob", "--accept", "all")
    proxy.release()
    again = w.push("alice", "bob", w.folder / "film", relay=proxy.address)
    assert again.wait() == 0, again
    assert not again.told("resumed")
    assert proxy.count > TOTAL


def test_what_is_under_way_is_neither_listed_nor_removed(w: World, proxy: Proxy) -> None:
    _, sender = under_way(w, proxy)
    listed = w.run("bob", "partials", "--json")
    assert listed.wait() == 0
    assert not listed.told("partial")
    cleared = w.run("bob", "partials", "clear", "--json")
    assert cleared.wait() == 0
    assert not cleared.told("partial")
    proxy.release()
    assert sender.wait() == 0, sender
    assert (w.into("bob") / "film").read_bytes() == (w.folder / "film").read_bytes()
    assert w.left("bob") == ["film"]
    until(lambda: journals(w) == [])  # once bob has heard that alice knows


def test_R8_what_is_kept_is_gone_after_its_time(w: World, proxy: Proxy) -> None:
    interrupted(w, proxy)
    patient = w.receive("bob", "--accept", "all")
    assert w.push("carol", "bob", w.file("next", 1)).wait() == 0
    patient.end()
    assert len(w.stages("bob")) == 1, "gone before its time"
    w.receive("bob", "--accept", "all", keep_partials="0s")
    until(lambda: w.left("bob") == ["next"] and journals(w) == [])


def test_D1_nothing_of_a_sender_is_unescaped_in_the_list(w: World, proxy: Proxy) -> None:
    interrupted(w, proxy, "\u202egnp.exe")
    text = w.run("bob", "partials")
    assert text.wait() == 0
    assert text.output[0].startswith("\\u202egnp.exe from alice")
    machine = w.run("bob", "partials", "--json")
    assert machine.wait() == 0
    assert all(line.isascii() for line in machine.output)


def test_a_folder_that_has_gone_does_not_keep_the_rest_from_being_cleared(w: World, proxy: Proxy) -> None:
    stage = interrupted(w, proxy)
    for path in (stage / "0", stage, w.into("bob")):
        path.unlink() if path.is_file() else path.rmdir()
    process = w.run("bob", "partials", "clear")
    assert process.wait() == 0, process
    assert journals(w) == []


def test_a_push_that_was_declined_or_not_answered_leaves_nothing(w: World) -> None:
    w.receive("bob")
    assert w.push("alice", "bob", w.file("f", 1000)).wait() == 4
    assert w.left("bob") == []
    assert not (w.folder / "bob" / "partials").exists() or journals(w) == []
