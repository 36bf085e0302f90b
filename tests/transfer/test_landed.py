"""What stands in the destination already, and what landed of which the sender does not know: nothing is there twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from glide import events
from glide.errors import ConnectionLost, Declined
from glide.net.deadlines import Deadlines
from glide.protocol.endtoend import Receipt, Want
from glide.protocol.frames import Kind
from glide.transfer.journal import Phase
from glide.transfer.landing import Conflict
from tests.transfer import apart
from tests.transfer.halves import (
    CONTENT,
    SMALL,
    TRANSFER,
    Place,
    Side,
    files,
    gather,
    joined,
    offered,
    receive,
    send,
    transferred,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name, content in {"a": CONTENT, "b/c": SMALL, "b/d": b"", "e": b"\0" * 1000}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "empty").mkdir()
    return top


# --- --conflict ----------------------------------------------------------------------------------------------


async def test_skip_does_not_send_what_stands_there_already(
    path: Path, tree: Path, place: Place, sent: list[int]
) -> None:
    first, _ = await transferred(gather(path, tree), place)
    sent.clear()
    place.conflict = Conflict.SKIP
    before = stamps(place)
    alice, bob = await transferred(gather(path, tree), place)
    assert alice.error is bob.error is None
    assert alice.outcome == bob.outcome == first.outcome
    assert sum(sent) == 0
    assert bob.of(events.Saved) == []
    assert stamps(place) == before
    assert place.final() == ["file.bin", "tree"]
    assert place.is_clean()
    size = gather(path, tree).manifest.bytes
    assert alice.of(events.Resumed) == bob.of(events.Resumed) == [events.Resumed(TRANSFER, size)]


def stamps(place: Place) -> dict[str, tuple[int, int]]:
    """Which file each name is, and when it was written to; of files only."""
    assert place.into is not None
    found = {str(path): path.stat() for path in place.into.rglob("*") if path.is_file()}
    return {path: (each.st_ino, each.st_mtime_ns) for path, each in found.items()}


@pytest.mark.parametrize("how", ["of the same size", "of another size"])
async def test_F6_skip_puts_other_content_beside_what_stands_there(path: Path, place: Place, how: str) -> None:
    place.conflict = Conflict.SKIP
    assert place.into is not None
    mine = CONTENT[::-1] if how == "of the same size" else b"mine"
    (place.into / "file.bin").write_bytes(mine)
    alice, bob = await transferred(gather(path), place)
    assert alice.error is None, repr(alice.error)
    assert alice.outcome == bob.outcome
    assert files(place.into) == {"file.bin": mine, "file (1).bin": CONTENT}
    assert [event.path for event in bob.reports if isinstance(event, events.Saved)] == [
        str(place.into.resolve() / "file (1).bin")
    ]
    assert place.is_clean()


async def test_skip_fills_a_folder_up_and_sends_only_what_is_missing(tree: Path, place: Place, sent: list[int]) -> None:
    place.conflict = Conflict.SKIP
    assert place.into is not None
    there = place.into / "tree"
    (there / "b").mkdir(parents=True)
    (there / "a").write_bytes(CONTENT)
    (there / "b/mine").write_bytes(b"mine")
    (there / "e").write_bytes(b"\1" * 1000)
    alice, bob = await transferred(gather(tree), place)
    assert alice.error is None, repr(alice.error)
    assert bob.error is None, repr(bob.error)
    assert files(there) == files(tree) | {"b/mine": b"mine", "e": b"\1" * 1000, "e (1)": b"\0" * 1000}
    assert sum(sent) == len(SMALL) + 1000
    assert place.final() == ["tree"]
    assert place.is_clean()


async def test_overwrite_replaces_files_and_leaves_what_was_not_sent(tree: Path, path: Path, place: Place) -> None:
    place.conflict = Conflict.OVERWRITE
    assert place.into is not None
    (place.into / "tree/b").mkdir(parents=True)
    for name in ("file.bin", "tree/a", "tree/b/mine"):
        (place.into / name).write_bytes(b"mine")
    alice, bob = await transferred(gather(tree, path), place)
    assert alice.error is bob.error is None
    assert files(place.into / "tree") == files(tree) | {"b/mine": b"mine"}
    assert (place.into / "file.bin").read_bytes() == CONTENT
    assert place.final() == ["file.bin", "tree"]
    assert place.is_clean()


async def test_overwrite_puts_no_file_in_the_place_of_a_folder(path: Path, place: Place) -> None:
    place.conflict = Conflict.OVERWRITE
    assert place.into is not None
    (place.into / "file.bin").mkdir()
    alice, bob = await transferred(gather(path), place)
    assert alice.error is bob.error is None
    assert alice.outcome is not None
    assert bob.outcome is not None
    assert (alice.outcome.items, alice.outcome.missing) == (bob.outcome.items, bob.outcome.missing) == (0, 1)
    assert "in each other's way" in bob.outcome.problems[0]
    assert files(place.into) == {"file.bin": None}


async def test_refuse_declines_when_a_name_is_taken_and_says_so(
    path: Path, tree: Path, place: Place, sent: list[int]
) -> None:
    place.conflict = Conflict.REFUSE
    assert place.into is not None
    (place.into / "tree").write_bytes(b"mine")
    alice, bob = await transferred(gather(path, tree), place)
    assert "'tree' exists there" in alice.failed_with(Declined)
    assert "--conflict refuse" in bob.failed_with(Declined)
    assert sent == []
    assert files(place.into) == {"tree": b"mine"}
    assert place.is_clean()


async def test_refuse_when_the_name_was_taken_meanwhile_leaves_no_file_open(path: Path, place: Place) -> None:
    """What had arrived is kept; the person may make room."""
    place.conflict = Conflict.REFUSE
    await transferred(gather(path), place, cut=1.5 * 1024 * 1024)
    assert place.into is not None
    (place.into / "file.bin").write_bytes(b"mine")
    alice, _ = await transferred(gather(path), place)
    assert "exists there" in alice.failed_with(Declined)
    assert len(place.kept()) == 1
    (place.into / "file.bin").unlink()
    alice, bob = await transferred(gather(path), place)
    assert alice.error is None
    assert len(bob.of(events.Resumed)) == 1
    assert files(place.into) == {"file.bin": CONTENT}
    assert place.is_clean()


# --- landed, and the sender does not know ------------------------------------------------------------------------


async def without_receipt(place: Place, *paths: Path) -> Side:
    """A transfer whose connection is lost right before the receipt is said."""
    alice, bob = Side(), Side()
    async with joined(Deadlines(handshake=1, farewell=0.2)) as (near, far), trio.open_nursery() as nursery:
        real = far.machine.sent

        def sent(kind: Kind) -> None:
            if kind == Kind.RECEIPT:
                nursery.start_soon(near.aclose)
                raise ConnectionLost("The connection to alice is gone.")
            real(kind)

        far.machine.sent = sent  # type: ignore[method-assign]  # where every message passes
        nursery.start_soon(send, near, alice, gather(*paths))
        await receive(far, bob, place)
    assert "bob is gone" in alice.failed_with(ConnectionLost)
    assert bob.error is None, "it has all of it"
    return bob


@pytest.mark.parametrize("conflict", list(Conflict))
async def test_what_landed_without_the_sender_knowing_is_confirmed_and_not_sent_again(
    path: Path, tree: Path, place: Place, sent: list[int], conflict: Conflict
) -> None:
    place.conflict = conflict
    first = await without_receipt(place, path, tree)
    (kept,) = place.kept()
    assert kept.phase is Phase.LANDED
    sent.clear()
    alice, bob = await transferred(gather(path, tree), place, again=True)
    assert alice.error is None, repr(alice.error)
    assert alice.outcome == bob.outcome == first.outcome
    assert sent == []
    assert bob.of(events.Saved) == bob.of(events.SavedFolder) == []
    assert place.offers[-1].before
    assert place.final() == ["file.bin", "tree"]
    assert place.is_clean()


@pytest.mark.parametrize("conflict", [Conflict.RENAME, Conflict.SKIP])
async def test_F6_what_landed_beside_something_without_the_sender_knowing_is_not_there_twice(
    path: Path, place: Place, sent: list[int], conflict: Conflict
) -> None:
    place.conflict = conflict
    assert place.into is not None
    (place.into / "file.bin").write_bytes(b"mine")
    await without_receipt(place, path)
    sent.clear()
    alice, bob = await transferred(gather(path), place, again=True)
    assert alice.error is bob.error is None
    assert sent == []
    assert files(place.into) == {"file.bin": b"mine", "file (1).bin": CONTENT}


@pytest.mark.parametrize("how", ["removed", "truncated", "swapped for a folder"])
async def test_what_was_confirmed_and_is_not_there_any_more_is_sent_anew(
    path: Path, place: Place, sent: list[int], how: str
) -> None:
    await without_receipt(place, path)
    assert place.into is not None
    landed = place.into / "file.bin"
    match how:
        case "removed":
            landed.unlink()
        case "truncated":
            os.truncate(landed, 5)
        case "swapped for a folder":
            landed.unlink()
            landed.mkdir()
    sent.clear()
    alice, bob = await transferred(gather(path), place, again=True)
    assert alice.error is bob.error is None
    assert sum(sent) == len(CONTENT)
    assert CONTENT in files(place.into).values()
    assert place.is_clean()


async def test_what_was_confirmed_and_has_changed_at_the_sender_is_sent_anew(
    path: Path, place: Place, sent: list[int]
) -> None:
    await without_receipt(place, path)
    path.write_bytes(SMALL)
    sent.clear()
    alice, bob = await transferred(gather(path), place, again=True)
    assert alice.error is bob.error is None
    assert sum(sent) == len(SMALL)
    assert place.into is not None
    assert files(place.into) == {"file.bin": CONTENT, "file (1).bin": SMALL}
    assert place.is_clean()


async def test_C4_what_was_confirmed_and_has_other_content_now_is_not_confirmed_again(path: Path, place: Place) -> None:
    """Neither its size nor its time tells; the digest does, and the next attempt begins anew."""
    await without_receipt(place, path)
    stamp = path.stat().st_mtime_ns
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(stamp, stamp))
    alice, bob = await transferred(gather(path), place, again=True)
    assert alice.error is not None
    assert "digests differ" in str(bob.error)
    alice, bob = await transferred(gather(path), place, again=True)
    assert alice.error is bob.error is None
    assert place.into is not None
    assert files(place.into) == {"file.bin": CONTENT, "file (1).bin": CONTENT[::-1]}


async def test_C9_a_repeated_offer_learns_no_digest_of_what_is_there(path: Path, place: Place) -> None:
    """The receipt comes only to who tells the right digests first."""
    await without_receipt(place, path)
    item = next(iter(gather(path).manifest))
    bob = Side()
    async with joined(Deadlines(handshake=1, farewell=0.2)) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        assert await offered(near, item) == []
        with trio.move_on_after(0.3):
            heard = await near.receive()
            assert not isinstance(heard, (Receipt, Want)), heard
        await near.aclose()
    assert bob.error is not None


# --- a crash while names are given ---------------------------------------------------------------------------------

CRASH = """
import errno, os, sys, trio
from pathlib import Path
from glide.transfer import folders
from glide.transfer.landing import Conflict
from tests.transfer import halves

moment, into, journals, conflict, *paths = sys.argv[1:]
count = 0

def crashing(real, before):
    def call(*arguments):
        global count
        count += 1
        if before and count == 2:
            os._exit(77)
        done = real(*arguments)
        if not before and count == 2:
            os._exit(77)
        return done
    return call

def no_such_rename(*_):
    raise OSError(errno.ENOTSUP, "as on NFS")

move, unlink = folders.Folder.move_new, folders.Folder.unlink
if moment == "between link and unlink":
    folders._rename_new = no_such_rename
    folders.Folder.unlink = crashing(unlink, True)
else:
    folders.Folder.move_new = crashing(move, moment == "before a move")

place = halves.Place(Path(into), Path(journals), Conflict(conflict))
trio.run(lambda: halves.transferred(halves.gather(*map(Path, paths)), place))
"""


@pytest.mark.parametrize("conflict", [Conflict.RENAME, Conflict.SKIP])
@pytest.mark.parametrize("moment", ["before a move", "after a move", "between link and unlink"])
async def test_F6_after_a_crash_while_names_were_given_the_rest_lands_and_nothing_is_there_twice(
    tmp_path: Path, place: Place, sent: list[int], moment: str, conflict: Conflict, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(SMALL + path.name.encode())
    assert place.into is not None
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    child = apart.start(CRASH, moment, place.into, place.journals, conflict, *paths)
    child.communicate(timeout=40)
    assert child.returncode == 77, "it has not crashed"
    (kept,) = place.kept()
    assert kept.phase is Phase.LANDING
    assert 1 <= len(place.final()) <= 2
    place.conflict = conflict
    alice, bob = await transferred(gather(*paths), place, again=True)
    assert alice.error is None, repr(alice.error)
    assert alice.outcome == bob.outcome
    assert alice.outcome is not None
    assert alice.outcome.items == 3
    assert sent == []
    assert files(place.into) == {path.name: path.read_bytes() for path in paths}
    assert place.is_clean()
