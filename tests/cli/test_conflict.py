"""What becomes of an item whose name is taken: --conflict, for files and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.processes import Proxy, World, tree

KIB, MIB = 1024, 1024 * 1024

# Handshakes, names, digests and headers.
OVERHEAD = 128 * KIB


def source(w: World) -> Path:
    for name, size in (("same", 100), ("other", 200), ("in/new", 300), ("in/same", 0)):
        w.file(f"d/{name}", size)
    return w.folder / "d"


def before(w: World, folder: Path) -> dict[str, bytes | None]:
    """Put into bob's folder what is in the way of ``folder``; what it was."""
    there = w.into("bob") / "d"
    (there / "in").mkdir(parents=True)
    (there / "same").write_bytes((folder / "same").read_bytes())
    (there / "other").write_bytes(b"bob's own")
    (there / "in" / "same").write_bytes(b"")
    (there / "only bob's").write_bytes(b"x")
    return tree(there)


@pytest.mark.parametrize("flag", [(), ("--conflict", "rename")], ids=["default", "rename"])
def test_F6_rename_puts_a_whole_folder_or_a_file_beside_the_old_one(w: World, flag: tuple[str, ...]) -> None:
    folder, file = source(w), w.file("photo.tar.gz", 10)
    was = before(w, folder)
    (w.into("bob") / "photo.tar.gz").write_bytes(b"old")
    receiver = w.receive("bob", "--accept", "all", *flag)
    sender = w.push("alice", "bob", folder, file)
    assert sender.wait() == 0, sender
    assert tree(w.into("bob") / "d") == was
    assert tree(w.into("bob") / "d (1)") == tree(folder)
    assert w.left("bob") == ["d", "d (1)", "photo.tar (1).gz", "photo.tar.gz"]
    receiver.event("received")  # all is told before it
    assert receiver.event("folder")["path"] == str(w.into("bob") / "d (1)")
    saved = {event["path"] for event in receiver.told("saved")}
    files = ("photo.tar (1).gz", "d (1)/same", "d (1)/other", "d (1)/in/new", "d (1)/in/same")
    assert saved == {str(w.into("bob") / name) for name in files}


def test_F6_skip_fills_a_folder_up_and_keeps_what_differs_beside_it(w: World) -> None:
    folder = source(w)
    was = before(w, folder)
    w.receive("bob", "--accept", "all", "--conflict", "skip")
    sender = w.push("alice", "bob", folder)
    assert sender.wait() == 0, sender
    there = tree(w.into("bob") / "d")
    assert there == {**was, "in/new": (folder / "in/new").read_bytes(), "other (1)": (folder / "other").read_bytes()}
    assert w.left("bob") == ["d"]


def test_F6_overwrite_replaces_what_differs_and_touches_nothing_else(w: World) -> None:
    folder = source(w)
    was = before(w, folder)
    w.receive("bob", "--accept", "all", "--conflict", "overwrite")
    sender = w.push("alice", "bob", folder)
    assert sender.wait() == 0, sender
    assert tree(w.into("bob") / "d") == {**was, **tree(folder)}
    assert w.left("bob") == ["d"]


def test_F6_overwrite_of_a_file_leaves_a_reader_of_the_old_one_alone(w: World) -> None:
    old = w.into("bob") / "f"
    old.write_bytes(b"old")
    w.receive("bob", "--accept", "all", "--conflict", "overwrite")
    with old.open("rb") as reader:
        assert w.push("alice", "bob", w.file("f", 10)).wait() == 0
        assert reader.read() == b"old"
    assert old.read_bytes() == (w.folder / "f").read_bytes()
    assert w.left("bob") == ["f"]


def test_F8_overwrite_replaces_a_symlink_and_not_what_it_points_to(w: World) -> None:
    target = w.folder / "precious"
    target.write_text("precious")
    (w.into("bob") / "f").symlink_to(target)
    w.receive("bob", "--accept", "all", "--conflict", "overwrite")
    assert w.push("alice", "bob", w.file("f", 10)).wait() == 0
    assert target.read_text() == "precious"
    assert not (w.into("bob") / "f").is_symlink()


def test_F8_no_folder_is_filled_up_through_a_symlink(w: World) -> None:
    target = w.folder / "target"
    target.mkdir()
    (w.into("bob") / "d").symlink_to(target)
    for conflict in ("skip", "overwrite"):
        receiver = w.receive("bob", "--accept", "all", "--conflict", conflict)
        w.push("alice", "bob", source(w)).wait()
        assert tree(target) == {}
        receiver.end()


def test_F6_refuse_declines_and_writes_nothing(w: World) -> None:
    folder = source(w)
    was = before(w, folder)
    receiver = w.receive("bob", "--accept", "all", "--conflict", "refuse")
    sender = w.push("alice", "bob", w.file("new", 1), folder)
    assert sender.wait() == 4, sender
    assert sender.result["status"] == "declined"
    assert "'d' exists" in sender.result["message"]
    assert "--conflict refuse" in receiver.event("failed")["message"]
    assert w.left("bob") == ["d"]
    assert tree(w.into("bob") / "d") == was
    assert w.push("alice", "bob", w.folder / "new").wait() == 0


def test_F6_a_folder_and_a_file_in_each_others_way_are_told_of_and_the_rest_arrives(w: World) -> None:
    folder = source(w)
    (w.into("bob") / "d" / "other").mkdir(parents=True)
    (w.into("bob") / "d" / "in").write_text("a file")
    receiver = w.receive("bob", "--accept", "all", "--conflict", "overwrite")
    sender = w.push("alice", "bob", folder)
    assert sender.wait() == 9, sender
    assert receiver.event("failed")["status"] == "partly"
    there = tree(w.into("bob") / "d")
    assert there == {"in": b"a file", "other": None, "same": (folder / "same").read_bytes()}
    assert sender.event("delivered")["items"] == receiver.event("received")["items"] == 1


@pytest.mark.parametrize("changed", [False, True], ids=["the-same", "one-changed"])
def test_F6_a_whole_folder_again_with_skip_moves_only_what_is_new(w: World, changed: bool) -> None:
    folder = w.folder / "d"
    for number in range(6):
        w.file(f"d/{number}/data", 2 * MIB)
    w.receive("bob", "--accept", "all", "--conflict", "skip")
    assert w.push("alice", "bob", folder).wait() == 0
    there = tree(w.into("bob") / "d")
    if changed:
        w.file("d/3/new", MIB)
    with Proxy(w.address) as proxy:
        sender = w.push("alice", "bob", folder, relay=proxy.address)
        assert sender.wait() == 0, sender
        assert changed * MIB <= proxy.count < changed * MIB + OVERHEAD
    assert sender.event("resumed")["bytes"] == 12 * MIB
    assert tree(w.into("bob") / "d") == tree(folder)
    assert changed or there == tree(folder)
    assert sender.event("delivered")["items"] == 6 + changed
    assert w.left("bob") == ["d"]


def test_F6_a_file_of_the_same_size_and_time_that_differs_is_found_out(w: World) -> None:
    file = w.file("f", MIB)
    there = w.into("bob") / "f"
    there.write_bytes(os.urandom(MIB))
    found = file.stat()
    os.utime(there, ns=(found.st_atime_ns, found.st_mtime_ns))
    w.receive("bob", "--accept", "all", "--conflict", "skip")
    mine = there.read_bytes()
    sender = w.push("alice", "bob", file)
    assert sender.wait() == 0, sender
    assert there.read_bytes() == mine
    assert (w.into("bob") / "f (1)").read_bytes() == file.read_bytes()
