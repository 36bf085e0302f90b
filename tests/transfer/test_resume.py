"""A transfer that goes on after its connection was lost: what is durable is not sent again, and nothing is believed."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import trio

from glide import events
from glide.errors import ConnectionLost, FileError
from glide.net.connection import FRAME
from glide.protocol.endtoend import Item
from glide.transfer import checking, feeding, intake, reading, receiving
from glide.transfer.digests import BlockDigest, Digest, Sent
from glide.transfer.gathering import Gathered
from glide.transfer.journal import Phase
from glide.transfer.manifest import whole
from tests.transfer.halves import (
    ALICE,
    CONTENT,
    TRANSFER,
    Place,
    Side,
    Streams,
    digest,
    files,
    gather,
    socket_pair,
    transferred,
)

KIB = 1024
SMALL_BLOCK = 64 * KIB


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 KiB in place of 64 MiB; small batches, and each acknowledged, so that much is durable early."""
    monkeypatch.setattr(reading, "BLOCK", SMALL_BLOCK)
    monkeypatch.setattr(checking, "BLOCK", SMALL_BLOCK)
    monkeypatch.setattr(intake, "BATCH", 64 * KIB)
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 0.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small files, large ones, empty ones and folders."""
    top, rng = tmp_path / "tree", random.Random(7)
    sizes = {"a/1": 0, "a/2": 1, "a/large": 2 * FRAME + 77, "b/c/d": 5000, "b/e": 700 * KIB, "empty/none": 0, "z": 3}
    for name, size in sizes.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(rng.randbytes(size))
    for number in range(150):  # more than one page
        (top / "b" / f"{number:03}").write_bytes(rng.randbytes(number * 11))
    (top / "a/large").chmod(0o755)
    return top


def kept_bytes(place: Place) -> int:
    return sum(kept.bytes for kept in place.kept())


async def cut(place: Place, *paths: Path, after: float = 1.5 * FRAME) -> int:
    """An attempt that is cut off; how many bytes are durable then."""
    alice, bob = await transferred(gather(*paths), place, cut=after)
    assert "bob is gone" in alice.failed_with(ConnectionLost)
    assert "alice is gone" in bob.failed_with(ConnectionLost)
    return kept_bytes(place)


def data_left(sent: list[int]) -> int:
    """The bytes of files that went out since this was asked last."""
    total = sum(sent)
    sent.clear()
    return total


def arrived_whole(path: Path, place: Place, alice: Side, bob: Side) -> None:
    """Check that it is all there, once, that both sides say so, and that nothing else is."""
    assert alice.error is None, repr(alice.error)
    assert bob.error is None, repr(bob.error)
    assert alice.outcome == bob.outcome
    assert alice.outcome is not None
    assert alice.outcome.missing == 0
    assert place.into is not None
    assert place.names() == [path.name]
    landed = place.into / path.name
    if path.is_dir():
        assert files(landed) == files(path)
        assert all((landed / name).stat().st_mtime_ns == (path / name).stat().st_mtime_ns for name in files(path))
    else:
        assert landed.read_bytes() == path.read_bytes()
    assert place.is_clean()


# --- what is durable is not sent again -------------------------------------------------------------------------


@pytest.mark.parametrize("after", [20 * KIB, 100 * KIB, FRAME, int(1.5 * FRAME), int(2.6 * FRAME)])
@pytest.mark.parametrize("streams", [trio.testing.memory_stream_pair, socket_pair])
async def test_nothing_of_a_tree_that_is_durable_is_sent_again(
    tree: Path, place: Place, sent: list[int], after: int, streams: Streams
) -> None:
    gathered = gather(tree)
    alice, bob = await transferred(gathered, place, streams, cut=after)
    for side in (alice, bob):
        side.failed_with(ConnectionLost)
    assert place.final() == []
    durable = kept_bytes(place)
    assert durable <= after
    data_left(sent)
    alice, bob = await transferred(gather(tree), place, streams, again=True)
    arrived_whole(tree, place, alice, bob)
    assert data_left(sent) == gathered.manifest.bytes - durable
    assert alice.of(events.Resumed) == [events.Resumed(TRANSFER, durable)]
    assert bob.of(events.Resumed) == ([events.Resumed(TRANSFER, durable)] if durable else [])
    for side in (alice, bob):
        assert side.of(events.Progress)[0] == events.Progress(TRANSFER, durable, gathered.manifest.bytes)
    assert [offer.before for offer in place.offers] == [False, True]


async def test_nothing_of_a_file_that_is_durable_is_sent_again_however_often_it_is_cut(
    path: Path, place: Place, sent: list[int]
) -> None:
    durable = [0]
    while True:
        data_left(sent)
        alice, bob = await transferred(gather(path), place, cut=FRAME)
        if alice.error is None:
            break
        durable.append(kept_bytes(place))
        assert durable[-1] > durable[-2]
    assert len(durable) >= 4
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == len(CONTENT) - durable[-1]
    assert [offer.before for offer in place.offers] == [False] + [True] * (len(durable) - 1)


async def test_an_interrupted_transfer_is_listed_as_kept_with_what_is_durable(tree: Path, place: Place) -> None:
    durable = await cut(place, tree)
    assert place.into is not None
    (kept,) = place.kept()
    assert kept.phase is Phase.RECEIVING
    assert kept.bytes == durable > 0
    assert kept.about.sender == "alice"
    assert kept.about.key == ALICE.public
    assert kept.about.names == ("tree",)
    assert os.fsdecode(kept.about.into) == str(place.into.resolve())
    assert place.stage().name == kept.about.stage
    assert kept.file.stat().st_mode & 0o077 == 0


async def test_when_nothing_has_arrived_nothing_is_kept(path: Path, place: Place) -> None:
    alice, _ = await transferred(gather(path), place, cut=9000)  # the offer, and not a record of the file
    assert alice.error is not None
    assert place.is_clean()


async def test_a_kept_part_that_is_longer_than_the_journal_says_is_used_if_the_machine_has_not_crashed(
    path: Path, place: Place, sent: list[int]
) -> None:
    await cut(place, path)
    (place.stage() / "0").write_bytes(CONTENT[: 2 * FRAME])
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == len(CONTENT) - 2 * FRAME


@pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/random/boot_id"), reason="only Linux tells its boots apart")
async def test_F13_after_a_crash_of_the_machine_only_what_the_journal_says_is_used(
    path: Path, place: Place, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = await cut(place, path)
    (place.stage() / "0").write_bytes(CONTENT[: 2 * FRAME])
    data_left(sent)
    monkeypatch.setattr("glide.transfer.storing.boot", lambda: "another one")
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == len(CONTENT) - durable


# --- nothing is believed --------------------------------------------------------------------------------------


async def test_C4_a_kept_block_that_was_damaged_is_asked_for_again_and_no_other(
    path: Path, place: Place, sent: list[int]
) -> None:
    durable = await cut(place, path)
    damage(place.stage() / "0", 3 * SMALL_BLOCK + 5)
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == len(CONTENT) - durable + SMALL_BLOCK
    assert "What was kept of a file is not what is sent now" in bob.notices()


async def test_C4_every_kept_block_that_was_damaged_is_asked_for_again(
    path: Path, place: Place, sent: list[int]
) -> None:
    durable = await cut(place, path)
    (place.stage() / "0").write_bytes(bytes(durable))
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == len(CONTENT)


async def test_C4_a_kept_file_of_a_tree_that_became_shorter_or_longer_is_sent_anew(
    tree: Path, place: Place, sent: list[int]
) -> None:
    durable = await cut(place, tree, after=2.6 * FRAME)
    stage = place.stage() / "0"
    os.truncate(stage / "b/010", 5)
    with (stage / "b/020").open("ab") as file:
        file.write(b"more")
    (stage / "b/030").unlink()
    data_left(sent)
    alice, bob = await transferred(gather(tree), place, again=True)
    arrived_whole(tree, place, alice, bob)
    lost = (110 - 5) + 220 + 330  # what is there of the shorter one is used, once it is checked
    assert data_left(sent) == gather(tree).manifest.bytes - durable + lost


async def test_C4_a_source_that_changed_without_its_size_or_time_is_noticed_and_sent_anew(
    path: Path, place: Place, sent: list[int]
) -> None:
    durable = await cut(place, path)
    change(path, damage)
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == len(CONTENT) - durable + SMALL_BLOCK


async def test_C4_files_of_a_tree_that_changed_without_their_size_or_time_are_sent_anew(
    tree: Path, place: Place, sent: list[int]
) -> None:
    """One is kept whole, of one the beginning is kept, one was not sent yet."""
    durable = await cut(place, tree, after=1.5 * FRAME)
    for name in ("a/2", "a/large", "z"):
        change(tree / name, damage)
    data_left(sent)
    alice, bob = await transferred(gather(tree), place, again=True)
    arrived_whole(tree, place, alice, bob)
    assert data_left(sent) == gather(tree).manifest.bytes - durable + 1 + SMALL_BLOCK
    assert "sent anew" in bob.notices()


async def test_what_is_asked_for_again_is_sent_in_large_pieces(tmp_path: Path, place: Place, sent: list[int]) -> None:
    """However little was asked for at first."""
    content = CONTENT[: 100 * KIB]
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    await cut(place, path, after=80 * KIB)
    (place.stage() / "0").write_bytes(bytes(len(content) - 1))
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert sum(sent) == len(content)
    assert len(sent) < 20


@pytest.mark.parametrize("how", ["another size", "another time", "both"])
async def test_a_source_that_changed_between_the_attempts_is_sent_anew(
    path: Path, place: Place, sent: list[int], how: str
) -> None:
    durable = await cut(place, path)
    assert durable
    before = path.stat().st_mtime_ns
    if how == "another time":
        os.utime(path, ns=(before + 1, before + 1))
    else:
        path.write_bytes(CONTENT[::-1][: -100 if how == "another size" else None])
        if how == "another size":
            os.utime(path, ns=(before, before))
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert data_left(sent) == path.stat().st_size
    assert "Changed since, and sent anew: 1 file." in bob.notices()
    assert alice.of(events.Resumed) == [events.Resumed(TRANSFER, 0)]
    assert bob.of(events.Resumed) == []


async def test_a_tree_that_changed_between_the_attempts_arrives_as_it_is_now(tree: Path, place: Place) -> None:
    await cut(place, tree, after=2.6 * FRAME)
    (tree / "a/1").write_bytes(b"no longer empty")
    (tree / "a/2").unlink()
    (tree / "b/000").unlink()
    (tree / "b/000").mkdir()
    (tree / "b/000/inside").write_bytes(b"x")
    (tree / "0 first").write_bytes(b"new")
    (tree / "zz last").mkdir()
    for name in (tree / "b/c/d", tree / "b/c"):
        name.unlink() if name.is_file() else name.rmdir()
    (tree / "b/c").write_bytes(b"a folder before")
    alice, bob = await transferred(gather(tree), place, again=True)
    arrived_whole(tree, place, alice, bob)
    assert place.offers[-1].before is False, "there are paths that nobody has said yes to"


@pytest.mark.parametrize("what", ["the journal", "the stage", "all of the journal but its name", "its files"])
async def test_what_was_kept_and_is_lost_is_sent_anew(path: Path, place: Place, sent: list[int], what: str) -> None:
    await cut(place, path)
    stage = place.stage()
    match what:
        case "the journal":
            for file in place.journals.iterdir():
                file.unlink()
        case "all of the journal but its name":
            for file in place.journals.iterdir():
                file.write_bytes(b"not a database" * 1000)
        case "the stage":
            (stage / "0").unlink()
            stage.rmdir()
        case "its files":
            (stage / "0").unlink()
    data_left(sent)
    alice, bob = await transferred(gather(path), place, again=True)
    assert alice.error is bob.error is None
    assert data_left(sent) == len(CONTENT)
    assert place.final() == ["file.bin"]
    # A stage of which nobody knows whose it was is not removed: nothing else ever is (F9).
    assert ([stage.name] if "journal" in what else []) == [name for name in place.names() if name not in place.final()]
    assert bob.of(events.Resumed) == []


async def test_F3_a_kept_file_that_was_swapped_for_a_symlink_is_not_written_through(
    path: Path, place: Place, tmp_path: Path
) -> None:
    await cut(place, path)
    outside = tmp_path / "outside"
    outside.write_bytes(CONTENT[:FRAME])
    (place.stage() / "0").unlink()
    (place.stage() / "0").symlink_to(outside)
    alice, bob = await transferred(gather(path), place, again=True)
    arrived_whole(path, place, alice, bob)
    assert outside.read_bytes() == CONTENT[:FRAME]


async def test_F10_what_is_kept_of_one_key_is_not_continued_by_another(
    path: Path, place: Place, sent: list[int]
) -> None:
    await cut(place, path)
    stage, arrived = place.stage(), (place.stage() / "0").read_bytes()
    place.key = b"m" * 32
    data_left(sent)
    alice, bob = await transferred(gather(path), place)
    assert alice.error is bob.error is None
    assert data_left(sent) == len(CONTENT)
    assert not place.offers[-1].before
    assert place.final() == ["file.bin"]
    assert (stage / "0").read_bytes() == arrived


async def test_what_is_kept_for_one_folder_is_not_continued_in_another(
    path: Path, place: Place, tmp_path: Path, sent: list[int]
) -> None:
    await cut(place, path)
    (tmp_path / "in other").mkdir()
    other = Place(tmp_path / "in other", place.journals)
    data_left(sent)
    alice, bob = await transferred(gather(path), other)
    assert alice.error is bob.error is None
    assert data_left(sent) == len(CONTENT)
    assert not other.offers[-1].before


# --- a file of several that changes or fails meanwhile -------------------------------------------------------------


async def test_a_file_of_which_the_beginning_is_kept_and_that_has_gone_is_missing_and_the_others_land(
    tmp_path: Path, place: Place
) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(CONTENT)
    paths = tmp_path / "a", tmp_path / "b"
    await cut(place, *paths)
    gathered = gather(*paths)
    paths[0].unlink()
    alice, bob = await transferred(gathered, place, again=True)
    assert alice.error is None, repr(alice.error)
    assert bob.error is None, repr(bob.error)
    assert alice.outcome is not None
    assert (alice.outcome.items, alice.outcome.missing, alice.outcome.digest) == (
        1,
        1,
        whole(bytes(32) + digest(CONTENT)),
    )
    assert place.names() == ["b"]


async def test_a_file_of_which_the_beginning_is_kept_and_that_changes_once_it_was_checked_is_missing(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(CONTENT)
    paths = tmp_path / "a", tmp_path / "b"
    await cut(place, *paths, after=1.5 * FRAME + len(CONTENT))
    gathered, checked = gather(*paths), threading.Event()
    monkeypatch.setattr(feeding, "BLOCK", FRAME)
    real, real_check = reading.Reader.fill, reading.check_rest

    def check_rest(gathered: Gathered, kept: Iterable[tuple[int, Item, int]]) -> Iterator[Digest | BlockDigest | None]:
        yield from real_check(gathered, kept)
        checked.set()

    def fill(reader: reading.Reader, buffer: memoryview) -> tuple[int, list[Digest | Sent], bool]:
        count, found, last = real(reader, buffer)
        if not last:
            checked.wait(20)
            with paths[1].open("ab") as file:
                file.write(b"more")
        return count, found, last

    monkeypatch.setattr(reading, "check_rest", check_rest)
    monkeypatch.setattr(reading.Reader, "fill", fill)
    alice, bob = await transferred(gathered, place, again=True)
    assert alice.error is None, repr(alice.error)
    assert bob.error is None, repr(bob.error)
    assert alice.outcome is not None
    assert (alice.outcome.items, alice.outcome.missing) == (1, 1)
    assert place.names() == ["a"]


async def test_a_single_file_of_which_the_beginning_is_kept_and_that_has_gone_fails_on_both_sides(
    path: Path, place: Place
) -> None:
    await cut(place, path)
    gathered = gather(path)
    path.unlink()
    alice, bob = await transferred(gathered, place, again=True)
    assert "file.bin changed while it was being sent" in alice.failed_with(FileError)
    assert "alice stopped it" in bob.failed_with(FileError)
    assert place.final() == []
    assert kept_bytes(place) > 0


async def test_C4_a_file_of_zero_digest_is_not_kept_as_if_it_had_arrived(tmp_path: Path, place: Place) -> None:
    """Zeros that stood for a file which the sender could not read are no part of it when it can."""
    for name in "abc":
        (tmp_path / name).write_bytes(CONTENT)
    paths = [tmp_path / name for name in "abc"]
    gathered = gather(*paths)
    moved = tmp_path / "moved"
    paths[0].rename(moved)
    alice, _ = await transferred(gathered, place, cut=2.5 * len(CONTENT))
    assert alice.error is not None
    moved.rename(paths[0])
    alice, bob = await transferred(gather(*paths), place, again=True)
    assert alice.error is None, repr(alice.error)
    assert bob.outcome is not None
    assert bob.outcome.missing == 0
    assert place.into is not None
    assert files(place.into) == dict.fromkeys("abc", CONTENT)


def damage(path: Path, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def change(path: Path, how: Callable[[Path], None]) -> None:
    """Change a file's content, and neither its size nor its time."""
    before = path.stat()
    how(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
