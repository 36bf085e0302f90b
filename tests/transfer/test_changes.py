"""Files that change, vanish or become unreadable while they are sent: they are missing, and the others are not."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from glide import events
from glide.errors import FileError
from glide.net.connection import FRAME
from glide.net.deadlines import Deadlines
from glide.transfer import feeding, reading
from glide.transfer.manifest import whole
from glide.transfer.sources import Changed, OpenFile
from glide.transfer.terms import Terms
from tests.transfer.halves import (
    BRISK,
    CONTENT,
    SMALL,
    Cut,
    Place,
    Side,
    digest,
    files,
    gather,
    joined,
    receive,
    send,
    transferred,
    while_reading,
)


def changes(path: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """What may happen to a file while it is sent, and what is said of it then."""

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more")

    def replace() -> None:
        fresh = path.with_name("fresh")
        fresh.write_bytes(CONTENT)
        os.utime(fresh, ns=(0, path.stat().st_mtime_ns))
        fresh.replace(path)

    def swap_for_a_folder() -> None:
        if not path.is_dir():
            path.unlink()
            path.mkdir()

    return {
        "grows": (grow, "it grew"),
        "shrinks": (lambda: os.truncate(path, FRAME + 1), "it shrank"),
        "is removed": (lambda: path.unlink(missing_ok=True), "it was removed"),
        "is replaced": (replace, "it was replaced"),
        "is written to": (lambda: path.write_bytes(CONTENT), "it was written to"),
        "becomes a folder": (swap_for_a_folder, "it was replaced"),
    }


WAYS = list(changes(Path()))


@pytest.mark.parametrize("how", WAYS)
async def test_a_file_that_changes_on_the_way_fails_on_both_sides_and_says_how(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    change, words = changes(path)[how]
    gathered = gather(path)
    while_reading(monkeypatch, "file.bin", change)
    alice, bob = await transferred(gathered, place)
    assert words in alice.failed_with(FileError)
    assert words in bob.failed_with(FileError)
    assert "alice" in str(bob.error)
    assert str(path.parent) not in str(bob.error)
    assert place.final() == []
    assert bob.of(events.Saved) == []


@pytest.mark.parametrize("how", WAYS)
async def test_a_file_among_others_that_changes_on_the_way_is_missing_and_the_others_land(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch, sent: list[int], how: str
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("before", "sub/file.bin", "zz after"):
        (tree / name).write_bytes(CONTENT)
    gathered = gather(tree)
    change, words = changes(tree / "sub/file.bin")[how]
    while_reading(monkeypatch, "tree/sub/file.bin", change)
    alice, bob = await transferred(gathered, place)
    assert alice.error is bob.error is None
    assert alice.outcome is not None
    assert bob.outcome is not None
    for outcome in (alice.outcome, bob.outcome):
        assert (outcome.items, outcome.bytes, outcome.missing) == (2, 2 * len(CONTENT), 1)
        assert outcome.digest == whole(bytes(32) + digest(CONTENT) + bytes(64) + digest(CONTENT))
    assert any("file.bin" in problem and words in problem for problem in alice.outcome.problems)
    assert bob.outcome.problems == ("tree/sub/file.bin: the sender could not read all of it",)
    assert sum(sent) == 3 * len(CONTENT), "its place in the stream is filled"
    assert place.into is not None
    assert files(place.into) == {"tree": None, "tree/before": CONTENT, "tree/sub": None, "tree/zz after": CONTENT}
    assert len(bob.of(events.Saved)) == 2
    assert place.is_clean()


@pytest.mark.parametrize("how", ["vanish", "become unreadable", "become other files", "get other times"])
async def test_files_that_change_before_their_turn_are_missing_and_the_others_land(
    tmp_path: Path, place: Place, how: str
) -> None:
    if how == "become unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"{number:02}").write_bytes(SMALL)
    gathered = gather(tree)
    for number in (0, 7, 8, 19):
        file = tree / f"{number:02}"
        match how:
            case "vanish":
                file.unlink()
            case "become unreadable":
                file.chmod(0)
            case "become other files":
                file.unlink()
                file.symlink_to("01")
            case "get other times":
                os.utime(file, ns=(0, 0))
    alice, bob = await transferred(gathered, place)
    assert alice.error is bob.error is None
    assert alice.outcome is not None
    assert bob.outcome is not None
    assert alice.outcome.items == bob.outcome.items == 16
    assert alice.outcome.missing == bob.outcome.missing == len(alice.outcome.problems) == 4
    assert len(place.final()) == 1
    assert place.into is not None
    landed = files(place.into / "tree")
    assert sorted(landed) == [f"{number:02}" for number in range(20) if number not in (0, 7, 8, 19)]
    assert set(landed.values()) == {SMALL}


async def test_a_folder_that_vanishes_takes_its_files_with_it_and_no_others(tmp_path: Path, place: Place) -> None:
    for name in ("tree/gone/a", "tree/gone/b", "tree/stays"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(SMALL)
    gathered = gather(tmp_path / "tree")
    (tmp_path / "tree/gone").rename(tmp_path / "elsewhere")
    (tmp_path / "tree/gone").symlink_to(tmp_path / "elsewhere")  # no way around: symlinks are not followed
    alice, bob = await transferred(gathered, place)
    assert alice.error is bob.error is None
    assert alice.outcome is not None
    assert (alice.outcome.items, alice.outcome.missing) == (1, 2)
    assert place.into is not None
    assert files(place.into) == {"tree": None, "tree/gone": None, "tree/stays": SMALL}


class Slow(Cut):
    """A stream on which a block of file bytes takes longer than its sender's farewell may."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) >= FRAME // 4:
            await trio.sleep(3 * BRISK.farewell)
        await super().send_all(data)


async def test_a_kept_file_that_has_changed_is_told_of_though_more_of_it_is_being_sent(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the record that is on its way; nothing else is begun before."""
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    await transferred(gather(path), place, cut=1.5 * FRAME)

    def check(*_: object) -> list[None]:
        time.sleep(0.4)  # meanwhile a block is on its way
        raise Changed("it was written to")

    monkeypatch.setattr(reading, "_check", check)
    monkeypatch.setattr(feeding, "BLOCK", FRAME // 2)  # so that there are several
    alice, bob = Side(), Side()
    async with joined(BRISK) as (near, far), trio.open_nursery() as nursery:
        near.stream = Slow(near.stream, math.inf)
        nursery.start_soon(send, near, alice, gather(path))
        nursery.start_soon(receive, far, bob, place)
    assert "it was written to" in alice.failed_with(FileError)
    assert "it was written to" in bob.failed_with(FileError)
    assert place.final() == []


@pytest.mark.parametrize("how", ["grows", "is removed", "becomes a pipe"])
async def test_an_empty_file_that_is_none_any_more_is_missing_and_the_others_land(
    tmp_path: Path, place: Place, how: str
) -> None:
    """Nothing of it would be read otherwise: it may have been offered hours ago."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, content in {"a": b"", "b": b"", "c": CONTENT}.items():
        (tree / name).write_bytes(content)
    gathered = gather(tree)
    match how:
        case "grows":
            (tree / "a").write_bytes(b"more")
        case "is removed":
            (tree / "a").unlink()
        case "becomes a pipe":
            was = (tree / "a").stat()
            (tree / "a").unlink()
            os.mkfifo(tree / "a")
            os.utime(tree / "a", ns=(was.st_mtime_ns, was.st_mtime_ns))
    alice, bob = await transferred(gathered, place)
    assert alice.error is bob.error is None
    assert alice.outcome is not None
    assert (alice.outcome.items, alice.outcome.missing) == (2, 1)
    assert place.into is not None
    assert files(place.into) == {"tree": None, "tree/b": b"", "tree/c": CONTENT}
    assert place.is_clean()


async def test_a_receiver_waits_for_a_sender_that_has_very_many_empty_files_to_look_at(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(60):
        (tree / f"{number:02}").touch()
    real = OpenFile.check

    def check(self: OpenFile) -> None:
        time.sleep(0.08)
        real(self)

    monkeypatch.setattr(OpenFile, "check", check)
    alice, bob = Side(), Side()
    terms = Terms(idle=3.0)
    async with joined(Deadlines(handshake=2.0, keepalive=0.2)) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(tree), terms)
        nursery.start_soon(receive, far, bob, place, terms)
    assert alice.error is bob.error is None
    assert alice.outcome is not None
    assert alice.outcome.items == 60
