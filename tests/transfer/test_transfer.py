"""Both halves of a transfer against each other: what should happen, and what should when a disk does not play along."""

from __future__ import annotations

import os
import random
import stat
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from glide import events
from glide.errors import Declined, FileError, GlideError, NameUnusable, Stopped
from glide.net.connection import FRAME, Connection
from glide.protocol.endtoend import Done, Item, ItemKind, Receipt
from glide.protocol.fields import Message
from glide.transfer import intake, receiving
from glide.transfer.destination import Destination, disk_error
from glide.transfer.landing import Landing
from glide.transfer.manifest import whole
from glide.transfer.staging import Stage
from glide.transfer.taking import Offered
from glide.transfer.terms import Outcome, Terms
from tests.transfer import apart
from tests.transfer.halves import (
    CONTENT,
    SMALL,
    TRANSFER,
    Place,
    Side,
    Streams,
    answer_of,
    digest,
    ended,
    files,
    gather,
    joined,
    offered,
    receive,
    send,
    socket_pair,
    transferred,
)

ONE = Outcome(1, len(CONTENT), digest(CONTENT))
EVERY_STREAM = [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair, socket_pair]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with whatever a folder may hold."""
    top = tmp_path / "tree"
    for folder in ("empty", "deep/er/est", "deep/er!"):
        (top / folder).mkdir(parents=True)
    (top / "nothing").write_bytes(b"")
    (top / "deep/er/nothing either").write_bytes(b"")
    (top / "deep/er/est/large.bin").write_bytes(CONTENT)
    (top / "deep/er!/x").write_bytes(SMALL)
    (top / "ünïcode").write_bytes(b"\0")
    (top / "run.sh").write_bytes(b"#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    for number, path in enumerate(sorted(top.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 10**18 + number * 10**9 + 123456789))
    os.utime(top, ns=(0, 999_999_999_000_000_001))
    return top


# --- what should happen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 5 * 1024 * 1024 + 3])
@pytest.mark.parametrize("streams", EVERY_STREAM)
async def test_C4_a_file_arrives_whole_and_both_sides_have_its_digest(
    tmp_path: Path, place: Place, size: int, streams: Streams
) -> None:
    content = random.Random(size).randbytes(size)
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    alice, bob = await transferred(gather(path), place, streams)
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome == Outcome(1, size, digest(content))
    assert place.into is not None
    assert files(place.into) == {"file.bin": content}
    assert place.is_clean()

    assert alice.of(events.Accepted) == [events.Accepted(TRANSFER, "bob")]
    where = str(place.into.resolve() / "file.bin")
    assert bob.of(events.Saved) == [events.Saved(TRANSFER, where, size, digest(content))]
    assert bob.reports[-1] == events.Received(TRANSFER, "alice", 1, size)
    for side in (alice, bob):
        progress = [(event.bytes, event.total) for event in side.reports if isinstance(event, events.Progress)]
        assert progress == sorted(progress)
        assert progress[0] == (0, size)
        assert progress[-1] == (size, size)
        assert {total for _, total in progress} == {size}
        assert side.of(events.Resumed) == []


@pytest.mark.parametrize("streams", EVERY_STREAM)
async def test_C4_a_folder_arrives_with_all_that_is_in_it(tree: Path, place: Place, streams: Streams) -> None:
    gathered = gather(tree)
    alice, bob = await transferred(gathered, place, streams)
    assert alice.error is bob.error is None
    assert place.into is not None
    assert files(place.into / "tree") == files(tree)
    assert place.is_clean()
    told = b"".join(
        bytes(32) if item.kind is ItemKind.FOLDER else digest((tree.parent / item.path).read_bytes())
        for item in gathered.manifest
    )
    assert alice.outcome == bob.outcome == Outcome(6, gathered.manifest.bytes, whole(told))

    landed = place.into.resolve() / "tree"
    assert bob.of(events.SavedFolder) == [events.SavedFolder(TRANSFER, str(landed))]
    saved = [event for event in bob.reports if isinstance(event, events.Saved)]
    assert {event.path for event in saved} == {
        str(landed / name) for name, held in files(tree).items() if held is not None
    }
    assert all(event.inside and event.digest == digest(Path(event.path).read_bytes()) for event in saved)
    assert bob.reports[-1] == events.Received(TRANSFER, "alice", 6, gathered.manifest.bytes)


async def test_times_of_files_and_folders_arrive(tree: Path, place: Place) -> None:
    await transferred(gather(tree), place)
    assert place.into is not None
    for name in ("", *files(tree)):
        there, here = (place.into / "tree" / name).stat(), (tree / name).stat()
        assert there.st_mtime_ns == here.st_mtime_ns, name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
async def test_F7_of_a_mode_only_the_executable_bit_arrives_and_passes_the_umask(tree: Path, place: Place) -> None:
    (tree / "run.sh").chmod(0o6755)
    (tree / "nothing").chmod(0o400)
    (tree / "empty").chmod(0o2700)
    alice, _ = await transferred(gather(tree), place)
    assert alice.error is None
    assert place.into is not None
    umask = os.umask(0o022)
    os.umask(umask)

    def mode(name: str) -> int:
        assert place.into is not None
        return stat.S_IMODE((place.into / "tree" / name).stat().st_mode)

    assert mode("run.sh") == 0o777 & ~umask
    assert mode("nothing") == mode("ünïcode") == 0o666 & ~umask
    assert mode("empty") == mode("") == 0o777 & ~umask


async def test_several_things_arrive_side_by_side(tree: Path, path: Path, tmp_path: Path, place: Place) -> None:
    lone = tmp_path / "lone folder"
    lone.mkdir()
    gathered = gather(path, tree, lone)
    alice, bob = await transferred(gathered, place)
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome
    assert place.final() == ["file.bin", "lone folder", "tree"]
    assert place.into is not None
    assert files(place.into / "tree") == files(tree)
    assert (place.into / "file.bin").read_bytes() == CONTENT
    assert place.is_clean()
    assert len(bob.of(events.SavedFolder)) == 2
    assert [event.inside for event in bob.reports if isinstance(event, events.Saved)] == [False] + [True] * 6


async def test_nothing_but_empty_folders_arrives_too(tmp_path: Path, place: Place) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    alice, bob = await transferred(gather(tmp_path / "a"), place)
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome == Outcome(0, 0, whole(bytes(96)))
    assert place.into is not None
    assert files(place.into) == {"a": None, "a/b": None, "a/b/c": None}
    assert place.is_clean()


@pytest.mark.parametrize("sync", [True, False])
async def test_thousands_of_small_files_go_in_one_stream(
    tmp_path: Path, place: Place, sent: list[int], sync: bool
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    rng = random.Random(5)
    for number in range(3000):
        (many / f"{number:05}").write_bytes(rng.randbytes(number % 97))
    place.sync = sync
    gathered = gather(many)
    alice, bob = await transferred(gathered, place, socket_pair)
    assert alice.error is bob.error is None
    assert place.into is not None
    assert files(place.into / "many") == files(many)
    assert alice.outcome is not None
    assert alice.outcome.items == 3000
    assert sum(sent) == gathered.manifest.bytes
    assert len(sent) < 10, "a file is no reason for a frame of its own"
    assert place.is_clean()


async def test_what_the_sender_is_told_was_written_is_written(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)  # acknowledge every batch
    monkeypatch.setattr(intake, "BATCH", FRAME)
    alice, bob = Side(), Side()
    there: list[tuple[int, int]] = []

    def look(event: events.Event) -> None:
        if isinstance(event, events.Progress) and place.into is not None:
            there.append((event.bytes, sum(each.stat().st_size for each in place.into.rglob("*") if each.is_file())))

    alice.on_report = look
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        nursery.start_soon(receive, far, bob, place)
    assert len(there) >= 3
    assert all(acknowledged <= written for acknowledged, written in there)


async def test_what_was_delivered_is_told_before_the_receiver_may_forget_it(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, the sender would send it a second time, and they would have it twice."""
    alice, bob = Side(), Side()
    told, real = [], Connection.send

    async def say(connection: Connection, *said: Message, flush: bool = True) -> None:
        if Done() in said:
            told.append(alice.of(events.Delivered))
        await real(connection, *said, flush=flush)

    monkeypatch.setattr(Connection, "send", say)
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        nursery.start_soon(receive, far, bob, place)
    assert told == [[events.Delivered(TRANSFER, "bob", 1, path.stat().st_size, digest(path.read_bytes()))]]


async def test_F5_nothing_bears_a_final_name_or_is_open_to_others_before_all_is_there(
    path: Path, tree: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(intake, "BATCH", FRAME)
    seen: list[tuple[list[str], int, list[str]]] = []

    def look(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.bytes and event.bytes != event.total:
            stage = place.stage()
            seen.append((place.final(), stat.S_IMODE(stage.stat().st_mode), sorted(os.listdir(stage))))

    alice, bob = Side(), Side(on_report=look)
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path, tree))
        nursery.start_soon(receive, far, bob, place)
    assert len(seen) >= 3
    assert all(final == [] and mode == 0o700 and names == ["0", "1"] for final, mode, names in seen)


async def test_F6_a_second_one_of_the_name_gets_a_number(path: Path, tree: Path, place: Place) -> None:
    await transferred(gather(path, tree), place)
    alice, bob = await transferred(gather(path, tree), place)
    assert alice.error is None
    assert alice.outcome == bob.outcome
    assert place.into is not None
    assert place.final() == ["file (1).bin", "file.bin", "tree", "tree (1)"]
    assert files(place.into / "tree (1)") == files(tree)
    landed = place.into.resolve()
    assert bob.of(events.SavedFolder) == [events.SavedFolder(TRANSFER, str(landed / "tree (1)"))]
    saved = [event.path for event in bob.reports if isinstance(event, events.Saved)]
    assert saved[0] == str(landed / "file (1).bin")
    assert all(path.startswith(str(landed / "tree (1)")) for path in saved[1:])


async def test_the_offer_says_what_the_person_said(path: Path, place: Place) -> None:
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(near, Side(), gather(path), message="as promised"))
        nursery.start_soon(receive, far, Side(), place)
    (offer,) = place.offers
    assert offer.message == "as promised"
    assert list(offer.manifest) == [Item("file.bin", size=len(CONTENT), modified=path.stat().st_mtime_ns)]
    assert not offer.before


# --- no ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Declined, FileError, NameUnusable])
async def test_a_no_reaches_the_sender_with_its_reason_and_nothing_is_sent(
    path: Path, place: Place, sent: list[int], kind: type[GlideError]
) -> None:
    async def decide(_: Offered) -> NoReturn:
        raise kind("You said no, in your own words.", "Nothing was written.", for_peer="Not on a Sunday.")

    alice, bob = await transferred(gather(path), place, decide=decide)
    assert "bob declined: Not on a Sunday." in alice.failed_with(kind)
    assert "in your own words" in bob.failed_with(kind)
    assert alice.reports == bob.reports == []
    assert sent == []
    assert place.is_clean()


async def test_who_does_not_answer_in_time_has_declined_and_is_told(path: Path, place: Place) -> None:
    asked, withdrawn = trio.Event(), trio.Event()

    async def decide(_: Offered) -> NoReturn:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            withdrawn.set()

    alice, bob = Side(), Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(near, alice, gather(path), Terms(ask_timeout=1.0)))
        nursery.start_soon(lambda: receive(far, bob, place, decide=decide))
    assert asked.is_set()
    assert withdrawn.is_set()
    assert "bob did not answer within 1s" in alice.failed_with(Declined)
    assert "nobody answered within 1s" in bob.failed_with(Stopped)
    assert alice.reports == bob.reports == []
    assert place.is_clean()


# --- disks -------------------------------------------------------------------------------------------------


@apart.root
async def test_F11_a_disk_that_is_too_full_is_told_on_both_sides_before_the_first_byte(
    path: Path, place: Place, tmp_path: Path, sent: list[int]
) -> None:
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "none") as small:
        place.into = small
        alice, bob = await transferred(gather(path), place)
        assert place.is_clean()
    assert "their disk is too full" in alice.failed_with(FileError)
    assert "The disk is too full" in bob.failed_with(FileError)
    assert str(small) not in str(alice.error)
    assert sent == []


@apart.root
async def test_F11_what_arrived_before_the_disk_was_full_is_kept_and_goes_on_once_there_is_room(
    path: Path, place: Place, tmp_path: Path, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(intake, "BATCH", FRAME)
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=5m", "none") as small:
        place.into = small

        async def fill_up(_: Offered) -> None:
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr(Destination, "check_room", lambda *_: (small / "other").write_bytes(bytes(3 * 1024 * 1024)))
        alice, bob = await transferred(gather(path), place, decide=fill_up)
        assert "their disk is full" in alice.failed_with(FileError)
        assert "The disk is full" in bob.failed_with(FileError)
        assert place.final() == ["other"]
        (kept,) = place.kept()
        there = (place.stage() / "0").stat().st_size
        assert FRAME <= kept.bytes <= there, "it may know less than there is, never more"
        monkeypatch.undo()
        (small / "other").unlink()
        alice, bob = await transferred(gather(path), place, again=True)
        assert alice.outcome == bob.outcome == ONE
        assert bob.of(events.Resumed) == [events.Resumed(TRANSFER, there)]
        assert files(small) == {"file.bin": CONTENT}


@pytest.mark.parametrize("moment", ["create", "complete", "sync", "land"])
async def test_F11_an_error_of_the_disk_is_told_on_both_sides_and_nothing_gets_a_final_name(
    path: Path, place: Place, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def failing(*_: object, **__: object) -> NoReturn:
        raise OSError(5, "Input/output error")

    if moment == "land":
        monkeypatch.setattr(Landing, "run", failing)
    elif moment == "complete":
        monkeypatch.setattr(os, "fchmod", failing)
    else:
        monkeypatch.setattr(Stage, moment, failing)
    alice, bob = await transferred(gather(path), place)
    for side in (alice, bob):
        assert "cannot be written to" in side.failed_with(FileError)
        assert "Input/output error" in str(side.error)
    assert str(place.into) not in str(alice.error)
    assert place.final() == []


async def test_F11_a_folder_that_cannot_be_written_to_is_told_before_the_first_byte(
    path: Path, place: Place, sent: list[int], tmp_path: Path
) -> None:
    place.into = tmp_path / "not there"
    alice, bob = await transferred(gather(path), place)
    assert "their folder cannot be written to" in alice.failed_with(FileError)
    assert str(place.into) in bob.failed_with(FileError)
    assert str(place.into) not in str(alice.error)
    assert sent == []
    assert not list(place.journals.glob("*"))


async def test_F11_journals_that_cannot_be_written_are_told_before_the_first_byte(
    path: Path, place: Place, sent: list[int]
) -> None:
    place.journals.write_bytes(b"a file, where a folder should be")
    alice, bob = await transferred(gather(path), place)
    assert "their disk cannot record" in alice.failed_with(FileError)
    assert "GLIDE_HOME" in bob.failed_with(FileError)
    assert sent == []
    assert place.names() == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux takes names of 255 bytes, others of other lengths")
async def test_F4_names_that_the_disk_cannot_hold_fail_alone(place: Place) -> None:
    # 300 bytes: macOS may hold that name, and no test on Linux can make such a file to send.
    name = "漢" * 100
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        items = (Item("ok", size=len(SMALL)), Item(name, size=len(SMALL)))
        assert await offered(near, *items) == [(0, len(SMALL))]
        await near.send_data(memoryview(SMALL))
        await ended(near, SMALL, SMALL)
        receipt = await answer_of(near)
        await near.close()
    assert bob.outcome is not None
    assert (bob.outcome.items, bob.outcome.bytes, bob.outcome.missing) == (1, len(SMALL), 1)
    assert "255 bytes" in bob.outcome.problems[0]
    assert receipt == Receipt(items=1, bytes=len(SMALL), digest=bob.outcome.digest)
    assert place.final() == ["ok"]


def test_a_disk_error_speaks_of_no_path_to_the_peer() -> None:
    assert "their folder" in disk_error(OSError(5, "Input/output error", "/home/bob/secret")).for_peer
    assert "secret" not in disk_error(OSError(5, "Input/output error", "/home/bob/secret")).for_peer
