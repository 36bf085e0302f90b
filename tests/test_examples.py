"""The programs in examples/, each against a real relay and real people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from glide.crypto.identity import load_or_create, parse_key
from glide.people.known import Known, Trust
from tests.processes import Process, World, world

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.serve()
        yield made


def example(w: World, person: str, name: str, *arguments: str | Path) -> Process:
    """Run an example as that person; what a user would have in config.toml is said in the environment."""
    program = (str(EXAMPLES / f"{name}.py"),)
    settings = {"relay": w.address, "as": person}
    return w.run(person, *map(str, arguments), terminal=False, whole=False, program=program, output=None, **settings)


def connected(w: World, person: str) -> None:
    assert w.relay is not None
    w.relay.event("connected", name=person)


def test_send(w: World) -> None:
    nobody = example(w, "alice", "send", "bob", w.file("f", 10))
    assert nobody.wait() == 1, nobody
    assert "bob is not connected" in nobody.errors
    assert "Traceback" not in nobody.errors
    w.receive("bob", "--accept", "all")
    process = example(w, "alice", "send", "bob", w.file("f", 1000), w.file("g", 24))
    assert process.wait() == 0, process
    (line,) = process.output
    assert line.startswith("bob has 2 files of 1024 bytes, blake3:")
    assert w.left("bob") == ["f", "g"]


def test_pictures(w: World) -> None:
    process = example(w, "bob", "pictures", "bob", w.into("bob"))
    connected(w, "bob")
    assert w.push("alice", "bob", w.file("holiday.JPG", 1000), w.file("beach.png", 10)).wait() == 0
    assert w.push("carol", "bob", w.file("cat.gif", 10)).wait() == 0
    assert w.push("alice", "bob", w.file("virus.exe", 10), w.file("cat.gif", 10)).wait() == 4
    process.prints("cat.gif")
    assert sorted(str(path.relative_to(w.into("bob"))) for path in w.into("bob").rglob("*.*")) == [
        "alice/beach.png", "alice/holiday.JPG", "carol/cat.gif",
    ]  # fmt: skip  # a list to be read across
    assert process.popen.poll() is None


def test_pictures_says_why_it_cannot_begin(w: World) -> None:
    w.receive("bob")
    process = example(w, "mallory", "pictures", "bob", w.into("bob"))
    assert process.wait() == 1, process
    assert "bob" in process.errors
    assert "Traceback" not in process.errors


def test_everybody(w: World) -> None:
    w.receive("bob", "--accept", "all")
    w.receive("dave")  # and can ask nobody
    process = example(w, "alice", "everybody", w.file("report.pdf", 1000), "bob", "carol", "dave")
    process.prints("bob has it.")
    process.prints("dave: ")
    assert process.popen.poll() is None, "it waits for carol"
    w.receive("carol", "--accept", "all")
    assert process.wait() == 1, process
    assert "carol has it." in process.output
    assert (w.left("bob"), w.left("carol"), w.left("dave")) == (["report.pdf"], ["report.pdf"], [])


def test_people(w: World) -> None:
    for person in ("bob", "carol"):
        w.receive(person)
    key = load_or_create(w.folder / "bob" / "identity").public
    relay = parse_key(w.address.partition("#")[2])
    Known(w.folder / "alice" / "known.json").remember(relay, "bob", key, Trust.VERIFIED)
    process = example(w, "alice", "people")
    assert process.wait() == 0, process
    assert [line.split() for line in process.output] == [["bob", "(verified)"], ["carol"]]


def test_checksums(w: World) -> None:
    process = example(w, "bob", "checksums")
    connected(w, "bob")
    path = w.file("folder/f", 1000)
    assert w.push("alice", "bob", path.parent).wait() == 0
    receiver = w.receive("alice", "--accept", "all", "--once")
    assert receiver.wait() == 0, receiver
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (w.into("alice") / "SHA256SUMS").read_text() == f"{digest}  folder/f\n"
    assert process.popen.poll() is None


def test_every_example_is_run_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_it_is_run(path: Path) -> None:
    assert f"    python {path.name}" in path.read_text(encoding="utf-8")
