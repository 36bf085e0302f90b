"""What one more small file costs: these system calls and no others, and no turn of a thread of its own."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from glide.transfer import feeding, intake, reading, receiving
from glide.transfer.digests import Digest, Sent
from glide.transfer.gathering import Gathered
from glide.transfer.reading import Reader
from glide.transfer.sources import OpenFile
from tests.transfer.arriving import Receiving, arrival
from tests.transfer.halves import Place, gather, transferred

CALLS = (
    "access chmod close dup fchmod fdatasync fstat fsync ftruncate link listdir lseek lstat mkdir open pread preadv "
    "pwrite pwritev read readv rename replace rmdir scandir stat truncate unlink utime write writev"
)
SIZE = 1000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other calls")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The calls of ``os`` that are made in the block."""
    made: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            made[name] += 1
            return real(*arguments, **words)

        return call

    with monkeypatch.context() as patched:
        for name in CALLS.split():
            patched.setattr(os, name, counting(name, getattr(os, name)))
        yield made


def files(count: int) -> dict[str, bytes | None]:
    """So many files, in two folders."""
    found: dict[str, bytes | None] = {"f": None, "f/a": None, "f/b": None}
    for number in range(count):
        found[f"f/{'ab'[number % 2]}/{number:04}"] = bytes([number % 256]) * SIZE
    return found


def made(folder: Path, count: int) -> Path:
    for path, content in files(count).items():
        (folder / path).mkdir(parents=True) if content is None else (folder / path).write_bytes(content)
    return folder / "f"


def per_file(cost: Callable[[int], Counter[str]]) -> dict[str, float]:
    """The difference that 100 files more make, for each."""
    few, many = cost(100), cost(200)
    many.subtract(few)
    return {name: difference / 100 for name, difference in many.items() if difference}


def test_looking_at_a_file_that_is_sent_takes_two_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(count: int) -> Counter[str]:
        folder = made(tmp_path / str(count), count)
        with counted(monkeypatch) as calls:
            assert gather(folder).manifest.files == count
        return calls

    assert per_file(cost) == {"stat": 1, "access": 1}


def test_sending_a_file_takes_five_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at again before and after it is read: what is sent is what was offered."""
    monkeypatch.setattr(reading, "_PATIENCE", 1000.0)  # however slow this machine is, one call reads all

    def cost(count: int) -> Counter[str]:
        gathered = gather(made(tmp_path / str(count), count))
        with counted(monkeypatch) as calls:
            assert read(gathered) == count * SIZE
        return calls

    assert per_file(cost) == {"open": 1, "fstat": 1, "preadv": 1, "stat": 1, "close": 1}


def read(gathered: Gathered) -> int:
    """Read all of it; how many bytes there were."""
    reader = Reader(gathered)
    reader.begin([(0, gathered.manifest.bytes)])
    count, found, last = reader.fill(memoryview(bytearray(gathered.manifest.bytes + 1)))
    reader.close()
    assert last
    assert len(found) == gathered.manifest.files
    return count


def test_receiving_a_file_takes_five_calls_from_the_stage_to_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name costs none: a folder gets its own with all that is in it."""

    def cost(count: int) -> Counter[str]:
        into, journals = tmp_path / f"in {count}", tmp_path / f"journals {count}"
        into.mkdir()
        with counted(monkeypatch) as calls, Receiving(arrival(into, journals), files(count)) as receiving:
            assert receiving.finish().items == count
            assert sum(1 for _ in receiving.storage.saved()) == count + 1
        assert len(list(into.glob("f/*/*"))) == count
        return calls

    assert per_file(cost) == {"open": 1, "pwrite": 1, "utime": 1, "fchmod": 1, "close": 1}


@pytest.mark.parametrize("cached", [True, False])
async def test_a_large_file_takes_one_turn_of_a_thread_for_four_mebibytes_at_its_sender_or_none_if_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    blocks, fills = [], Reader.fill
    size, rest = 13 * 1024 * 1024, 13 * 1024 * 1024 - 3 * feeding.BLOCK

    def fill(reader: Reader, buffer: memoryview) -> tuple[int, list[Digest | Sent], bool]:
        done = fills(reader, buffer)
        blocks.append(done[0])
        return done

    monkeypatch.setattr(reading, "_PATIENCE", 1000.0)
    monkeypatch.setattr(Reader, "fill", fill)
    if not cached:
        monkeypatch.setattr(OpenFile, "read_cached", lambda *_: 0)
    (tmp_path / "into").mkdir()
    (tmp_path / "file").write_bytes(bytes(size))
    alice, bob = await transferred(gather(tmp_path / "file"), Place(tmp_path / "into", tmp_path / "journals"))
    assert alice.error is bob.error is None
    # The first block is read where the file is opened, the last where it is looked at again.
    assert blocks == [feeding.BLOCK, rest] if cached else [*[feeding.BLOCK] * 3, rest]


async def test_more_files_take_no_more_turns_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes in four times as many files: blocks and batches are as many, at both ends."""
    # What depends on how fast this machine is.
    monkeypatch.setattr(intake, "BATCH_SECONDS", 1000.0)
    monkeypatch.setattr(reading, "_PATIENCE", 1000.0)
    monkeypatch.setattr(receiving, "SYNC_SECONDS", 1000.0)
    real, turns, pages = trio.to_thread.run_sync, [0], []

    async def run_sync(*arguments: Any, **words: Any) -> Any:
        turns[-1] += 1
        return await real(*arguments, **words)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    for count in (256, 1024):
        folder, into = tmp_path / str(count), tmp_path / f"in {count}"
        folder.mkdir()
        into.mkdir()
        for number in range(count):
            (folder / f"{number:04}").write_bytes(bytes([number % 256]) * (4 * 1024 * 1024 // count))
        gathered = gather(folder)
        pages.append(gathered.manifest.pages)
        turns.append(0)
        alice, bob = await transferred(gathered, Place(into, tmp_path / f"journals {count}"))
        assert alice.error is bob.error is None
        assert len(list(into.glob("*/*"))) == count
    few, many = turns[1:]
    assert few < 40
    assert many - few <= pages[1] - pages[0], "not one a file"
