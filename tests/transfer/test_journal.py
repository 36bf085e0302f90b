"""What is durable of a transfer, and who finds it again: journals that are whole, torn, foreign or somebody else's."""

from __future__ import annotations

import gc
import os
import random
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from glide.errors import FileError
from glide.protocol.endtoend import Item, ItemKind
from glide.transfer.journal import About, Confirmed, Journal, Phase
from glide.transfer.keeping import kept
from glide.transfer.manifest import Manifest
from tests.transfer import apart
from tests.transfer.arriving import (
    KEY,
    ROOT,
    Receiving,
    Tree,
    arrival,
    as_found,
    listed,
    manifest_of,
    shown,
    stages,
    tree,
)

SENT: Tree = {"d": None, "d/x": b"x" * 1000, "d/y": b"y" * 1000, "file": b"file" * 500}


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def about(into: Path, manifest: Manifest) -> About:
    return About(
        b"r" * 32, "alice", KEY, os.fsencode(into), ".glide-x.part", ("d", "file"), manifest.files, manifest.bytes, 1.5,
        "boot", "skip",
    )  # fmt: skip  # in the order of the fields


@pytest.fixture
def interrupted(into: Path, journals: Path) -> Path:
    """The journal of a transfer of which 1500 bytes are here."""
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(1500)
    (file,) = journals.iterdir()
    return file


# --- what it says ----------------------------------------------------------------------------------------


def test_what_was_written_is_read_again(into: Path, journals: Path) -> None:
    manifest = Manifest()
    items = [
        Item(f"{number:04}", ItemKind(number % 3), 0 if number % 3 == 2 else number, -number) for number in range(500)
    ]
    for item in items:
        manifest.add(item)
    manifest.close()
    digests = random.Random(1).randbytes(32 * 500)
    with Journal.create(journals, KEY, into, manifest, sync=True) as journal:
        assert not journal.speaks
        journal.begin(about(into, manifest), manifest, bytes(32 * 500), {7: 3})
        assert (journal.speaks, journal.phase, journal.about) == (True, Phase.RECEIVING, about(into, manifest))
        pages = {}
        for page in (0, manifest.pages - 1):
            first = manifest.first(page)
            pages[page] = digests[32 * first : 32 * (first + len(manifest.page(page)))]
        journal.note(pages, {3: 1, 499: 12}, [5])
        journal.note({}, {499: 14}, [5, 6])
        journal.note_finals({0: "0000 (1)"})
        journal.note_finals({1: "0001", 0: "0000 (2)"})
        journal.note_whole(Confirmed(1, 2, b"d" * 32))
    with Journal.find(journals, KEY, into, manifest, sync=True) or pytest.fail("it is there") as journal:
        found = list(journal.items())
        assert [item for _, item, _ in found] == items
        for number, _, digest in found:
            expected = digests[32 * number : 32 * number + 32]
            assert digest == (expected if manifest.page_of(number) in pages else bytes(32))
        assert journal.begun() == {499: 14}
        assert journal.finals() == {0: "0000 (2)", 1: "0001"}
        assert journal.phase is Phase.LANDING
        assert journal.confirmed == Confirmed(1, 2, b"d" * 32)
        journal.note_landed(Confirmed(3, 4, b"e" * 32))
        assert (journal.phase, journal.confirmed) == (Phase.LANDED, Confirmed(3, 4, b"e" * 32))


def test_what_is_kept_is_its_owners_alone(interrupted: Path) -> None:
    assert stat.S_IMODE(interrupted.stat().st_mode) == 0o600
    assert stat.S_IMODE(interrupted.parent.stat().st_mode) == 0o700


def test_what_is_listed_counts_what_is_durable(interrupted: Path, into: Path, journals: Path) -> None:
    (found,) = listed(journals)
    assert (found.bytes, found.phase, found.file) == (1500, Phase.RECEIVING, interrupted)
    assert (found.about.bytes, found.about.items, found.about.names) == (4000, 3, ("d", "file"))
    assert [found.about.stage] == stages(into)


# --- who finds it ----------------------------------------------------------------------------------------


def test_F10_it_is_found_by_the_same_key_for_the_same_names_into_the_same_folder_only(
    interrupted: Path, into: Path, journals: Path, tmp_path: Path
) -> None:
    def found(key: bytes, folder: Path, sent: Tree) -> bool:
        journal = Journal.find(journals, key, folder, manifest_of(sent), sync=False)
        if journal is not None:
            journal.close()
        return journal is not None

    assert found(KEY, into, SENT)
    assert found(KEY, into, {"d": None, "file": b"other"}), "what is in it may have changed"
    assert not found(b"x" * 32, into, SENT)
    assert not found(KEY, tmp_path, SENT)
    assert not found(KEY, into, {"d": None})
    assert not found(KEY, into, {**SENT, "more": b""})
    assert not found(KEY, into, {"d": b"", "file": b""}), "a file is no folder"
    assert interrupted.exists()


def test_F10_somebody_else_who_offers_the_same_gets_nothing_of_it(
    interrupted: Path, into: Path, journals: Path
) -> None:
    other: Tree = {path: content and bytes(len(content)) for path, content in SENT.items()}
    with Receiving(arrival(into, journals, key=b"m" * 32), other) as receiving:
        assert not receiving.found
        assert receiving.wanted == 4000
        assert receiving.finish().items == 3
    assert shown(into) == as_found(other)
    with Receiving(arrival(into, journals), SENT) as receiving:
        assert receiving.wanted == 2500
        receiving.finish()
    assert (into / "file (1)").read_bytes() == SENT["file"]


def test_F10_two_of_the_same_at_once_have_a_journal_each(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), SENT) as first, Receiving(arrival(into, journals), SENT) as second:
        assert not second.found
        assert len(stages(into)) == 2
        first.feed(100)
        second.feed(200)
        second.finish()
        first.finish()
    assert {"d", "d (1)", "file", "file (1)"} == set(os.listdir(into))


def test_so_many_of_the_same_at_once_are_too_many(into: Path, journals: Path) -> None:
    manifest = manifest_of(SENT)
    opened = [Journal.create(journals, KEY, into, manifest, sync=False) for _ in range(8)]
    with pytest.raises(FileError, match="8 transfers"):
        Journal.create(journals, KEY, into, manifest, sync=False)
    for journal in opened:
        journal.delete()
    assert list(journals.iterdir()) == []


def test_one_that_another_process_has_open_is_neither_found_nor_listed(
    interrupted: Path, into: Path, journals: Path
) -> None:
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.transfer.arriving import Receiving, arrival
from tests.transfer.test_journal import SENT
top = Path(sys.argv[2])
with Receiving(arrival(top / "in", top / "journals"), SENT) as receiving:
    print(receiving.found, flush=True)
    sys.stdin.readline()
"""
    process = apart.start(script, ROOT, into.parent)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert listed(journals) == []
    assert Journal.find(journals, KEY, into, manifest_of(SENT), sync=False) is None
    process.communicate("go\n")
    assert process.returncode == 0
    assert len(listed(journals)) == 1


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.transfer.arriving import Receiving, arrival
from tests.transfer.test_journal import SENT
top = Path(sys.argv[2])
receiving = Receiving(arrival(top / "in", top / "journals", sync=True), SENT)
receiving.feed(1200)
receiving.feed(300)
receiving.feed(400, sync=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_noted_is_read(into: Path, journals: Path) -> None:
    process = apart.start(KILLED, ROOT, into.parent)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert any(path.name.endswith("-wal") and path.stat().st_size for path in journals.iterdir())
    (found,) = listed(journals)
    assert found.bytes == 1500
    with Receiving(arrival(into, journals), SENT) as receiving:
        # In the same run of the machine, what was written though not noted is there too.
        assert receiving.wanted == 4000 - 1900
        receiving.finish()
        receiving.storage.known()
    assert shown(into) == as_found(SENT)
    assert list(journals.iterdir()) == []


def test_a_journal_is_only_where_it_lies_until_it_speaks(into: Path, journals: Path) -> None:
    Journal.create(journals, KEY, into, manifest_of(SENT), sync=False).close()
    assert listed(journals) == []
    assert Journal.find(journals, KEY, into, manifest_of(SENT), sync=False) is None
    assert list(journals.iterdir()) == []


# --- what is no journal ----------------------------------------------------------------------------------


def _foreign(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE other (x)")
    database.close()


def _rewritten(file: Path, statement: str, value: bytes) -> None:
    database = sqlite3.connect(file)
    database.execute(statement, (value,))
    database.commit()
    database.close()


SPOILED: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "garbage": lambda file: file.write_bytes(random.Random(1).randbytes(20_000)),
    "text": lambda file: file.write_text("no journal"),
    "cut short": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a page of it zeroed": lambda file: file.write_bytes(file.read_bytes()[:4096] + bytes(file.stat().st_size - 4096)),
    "another database": _foreign,
    "of another version": lambda file: _rewritten(
        file, "UPDATE about SET value = ? WHERE name = 'about'", b"\x93\x01\x02\x03"
    ),
    "without a phase": lambda file: _rewritten(file, "UPDATE about SET value = ? WHERE name = 'phase'", b"?"),
    "of odd items": lambda file: _rewritten(file, "UPDATE pages SET items = ?", b"\xc1"),
    "without digests": lambda file: _rewritten(file, "UPDATE pages SET digests = ?", b""),
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is not closed stays open."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("how", SPOILED)
def test_F11_a_journal_that_cannot_be_read_costs_what_it_spoke_of_and_nothing_else(
    interrupted: Path, into: Path, journals: Path, how: str
) -> None:
    SPOILED[how](interrupted)
    list(kept(journals))
    assert not interrupted.with_name(interrupted.name + "-journal").exists()
    with Receiving(arrival(into, journals), SENT) as receiving:
        assert list(journals.glob("*.journal")) == [interrupted], "a new one in its place: nobody has the old one open"
        assert receiving.finish().items == 3
        receiving.storage.known()
    assert shown(into) == as_found(SENT)
    with Receiving(arrival(into, journals), {"other": b"x" * 10}) as receiving:
        receiving.feed(5)
    assert len([found for found in listed(journals) if found.about.names == ("other",)]) == 1


def test_F11_a_journal_whose_log_is_torn_says_what_it_said_before(into: Path, journals: Path) -> None:
    process = apart.start(KILLED, ROOT, into.parent)
    process.communicate()
    (log,) = (path for path in journals.iterdir() if path.name.endswith("-wal"))
    size = log.stat().st_size
    os.truncate(log, size - 100)
    (found,) = listed(journals)
    assert found.bytes == 1200
    assert tree(into)


@pytest.mark.parametrize("kind", ["file", "link to a file"])
def test_F11_a_place_for_journals_that_is_none_is_told(into: Path, journals: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    if kind == "file":
        journals.write_bytes(b"")
    else:
        journals.symlink_to(tmp_path / "mine")
    with pytest.raises(FileError, match="cannot be recorded") as caught:
        Receiving(arrival(into, journals), SENT)
    assert "GLIDE_HOME" in caught.value.next
    assert tree(into) == {}
    assert (tmp_path / "mine").read_bytes() == b"mine"


def fill(filler: Path) -> None:
    """Take all the room that there is."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def bit_by_bit(receiving: Receiving) -> None:
    for _ in range(100):
        receiving.feed(10)


@apart.root
def test_F11_a_full_disk_for_journals_is_told_and_what_was_noted_is_kept(into: Path, tmp_path: Path) -> None:
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=256k", "none") as small:
        home = small / "journals"
        with Receiving(arrival(into, home), SENT) as receiving:
            receiving.feed(1500)
            fill(small / "filler")
            with pytest.raises(FileError, match="cannot be recorded"):
                bit_by_bit(receiving)
        (small / "filler").unlink()
        with Receiving(arrival(into, home), SENT) as receiving:
            assert receiving.found
            assert receiving.wanted <= 2500
            receiving.finish()
    assert shown(into) == as_found(SENT)
