"""The sender's files as bytes and digests, and how it is noticed that one changed meanwhile."""

from __future__ import annotations

import errno
import os
import random
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import FileError
from glide.protocol.endtoend import NO_DIGEST, Range
from glide.transfer import ranges, reading, sources
from glide.transfer.digests import BlockDigest, Digest, Sent
from glide.transfer.gathering import Gathered, gather
from glide.transfer.reading import Reader, check_empty, check_rest
from glide.transfer.sources import Changed, OpenFile
from tests.transfer import apart

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that was last written to an hour ago, so that any write now is seen in its time."""
    return aged(tmp_path / "file.bin", CONTENT)


def aged(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    an_hour_ago = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    return path


def gathered(*paths: Path) -> Gathered:
    return gather(paths, warn=pytest.fail)


def read(reader: Reader, wanted: list[Range], block: int = 65536) -> tuple[bytes, list[Digest | Sent]]:
    """All of these, as the sender reads it, if now more of it is in memory and now less."""
    reader.begin(wanted)
    found = bytearray()
    digests: list[Digest | Sent] = []
    draw = random.Random(block)
    while True:
        buffer = bytearray(block)
        view = memoryview(buffer)
        cached = reader.fill_cached(view[: draw.choice((0, draw.randrange(block + 1), block))])
        count, some, last = reader.fill(view[cached:]) if cached < block else (0, [], False)
        found += buffer[: cached + count]
        digests += some
        if last:
            return bytes(found), digests


def all_of(what: Gathered, block: int = 65536) -> tuple[bytes, list[Digest | Sent]]:
    reader = Reader(what)
    try:
        return read(reader, [(0, what.manifest.bytes)], block)
    finally:
        reader.close()


# --- reading ---------------------------------------------------------------------------------------------


def test_a_link_to_a_file_is_sent_as_what_it_points_to_under_the_links_name(path: Path) -> None:
    link = path.with_name("link.bin")
    link.symlink_to(path.name)
    what = gathered(link)
    assert [item.path for item in what.manifest] == ["link.bin"]
    assert all_of(what) == (CONTENT, [Digest(0, blake3.blake3(CONTENT).digest())])


SIZES = [0, 1, 5, 1000, 0, 40_000]


@given(st.lists(st.integers(0, 41_006), max_size=8), st.integers(1, 9000), st.lists(st.booleans(), min_size=8))
def test_what_is_wanted_is_read_and_what_is_read_whole_is_vouched_for_and_the_rest_by_itself(
    edges: list[int], block: int, chosen: list[bool]
) -> None:
    with tempfile.TemporaryDirectory(prefix="glide-test-") as folder:
        content = {f"{n}": CONTENT[n : n + size] for n, size in enumerate(SIZES)}
        for name, each in content.items():
            aged(Path(folder) / "f" / name, each)
        what = gathered(Path(folder) / "f")
        stream = b"".join(content.values())
        points = sorted(set(edges))
        wanted = [(start, end - start) for start, end in pairwise(points)]
        wanted = [each for each, yes in zip(wanted, chosen, strict=False) if yes]
        reader = Reader(what)
        found, told = read(reader, wanted, block)
        reader.close()
        digests = [each for each in told if isinstance(each, Digest)]
        items = list(what.manifest)
        rest = list(check_rest(what, ranges.unsent(what.manifest, wanted)))
        assert {each.number for each in told if isinstance(each, Sent)} == {
            number
            for number, item in enumerate(items)
            if item.size
            and number not in {each.number for each in digests}
            and any(s < what.manifest.start(number) + item.size <= s + length for s, length in wanted)
        }
        assert found == b"".join(stream[start : start + length] for start, length in wanted)
        digests += [each for each in rest if isinstance(each, Digest)]
        for told_of in digests:
            assert told_of.digest == blake3.blake3(content[items[told_of.number].path[2:]]).digest()
        assert sorted(each.number for each in digests) == [n for n, item in enumerate(items) if item.size]


@given(st.integers(0, 100), st.sampled_from([1, 7, 10, 50]), st.sampled_from([3, 10, 11, 1000]))
def test_blocks_of_what_the_receiver_has_are_told(here: int, block: int, step: int) -> None:
    with tempfile.TemporaryDirectory(prefix="glide-test-") as folder:
        content = CONTENT[:100]
        what = gathered(aged(Path(folder) / "file", content))
        with pytest.MonkeyPatch.context() as small:
            small.setattr(reading, "BLOCK", block)
            small.setattr(reading, "_READ", step)
            found = list(check_rest(what, [(0, what.manifest.item(0), here)]))
        blocks = [each for each in found if isinstance(each, BlockDigest)]
        expected = Digest(0, blake3.blake3(content).digest(), in_part=here > 0)
        assert [each for each in found if isinstance(each, Digest)] == [expected]
        starts = range(0, here, block)
        assert blocks == [
            BlockDigest(0, n, blake3.blake3(content[start : min(start + block, here)]).digest())
            for n, start in enumerate(starts)
        ]


# --- what happens to it meanwhile ------------------------------------------------------------------------


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def _replace(path: Path) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(CONTENT)
    fresh.replace(path)


def _swap_for_link(path: Path) -> None:
    path.unlink()
    path.with_name("elsewhere").write_bytes(CONTENT)
    path.symlink_to("elsewhere")


def _swap_for_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "grows": (_append, "it grew from 300000 bytes to 300004"),
    "shrinks": (lambda path: os.truncate(path, 1024), "it shrank from 300000 bytes"),
    "is emptied": (lambda path: os.truncate(path, 0), "it shrank from 300000 bytes"),
    "is removed": (Path.unlink, "it was removed|No such file"),
    "is renamed": (lambda path: path.replace(path.with_name("elsewhere")), "it was removed|No such file"),
    "is replaced": (_replace, "it was replaced by another file|it was written to"),
    "is replaced by a link": (_swap_for_link, "it was replaced by another file|it was written to|cannot be read"),
    "is replaced by a pipe": (_swap_for_fifo, "it was replaced by another file|it shrank|cannot be read"),
    "is written to": (_overwrite, "it was written to"),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("when", ["before", "in the middle", "at the end"])
def test_a_file_that_changes_while_it_is_sent_is_told_with_how(path: Path, how: str, when: str) -> None:
    change, words = CHANGES[how]
    what = gathered(path)
    reader = Reader(what)
    reader.begin([(0, len(CONTENT))])
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def sent() -> None:
        if when == "before":
            change(path)
        for left in range(len(CONTENT) // 1000, 0, -1):
            if (when, left) in (("in the middle", 150), ("at the end", 1)):
                change(path)
            reader.fill(memoryview(bytearray(1000)))

    with pytest.raises(FileError, match=words) as caught:
        sent()
    assert "file.bin changed while it was being sent" in caught.value.what
    assert "Nothing of it appears" in caught.value.means
    assert caught.value.exit == 8
    reader.close()
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("when", ["before", "in the middle", "at the end"])
def test_one_of_many_files_that_changes_is_not_vouched_for_and_the_others_are(
    tmp_path: Path, how: str, when: str
) -> None:
    change, words = CHANGES[how]
    folder = tmp_path / "f"
    for name in ("a", "b", "c"):
        aged(folder / name, CONTENT)
    what = gathered(folder)
    reader = Reader(what)
    found: list[Digest] = []
    reader.begin([(0, 3 * len(CONTENT))])
    received = bytearray()
    moment = {"before": 0, "in the middle": 450, "at the end": 599}[when]
    for step in range(3 * len(CONTENT) // 1000):
        if step == moment:
            change(folder / "b")
        buffer = bytearray(1000)
        count, digests, _ = reader.fill(memoryview(buffer))
        assert count == 1000, "the others stay where they are in the stream"
        received += buffer
        found += [each for each in digests if isinstance(each, Digest)]
    reader.close()
    good = blake3.blake3(CONTENT).digest()
    assert [(each.number, each.digest) for each in found] == [(1, good), (2, NO_DIGEST), (3, good)]
    assert f"{folder}/b: " in found[1].problem
    assert any(word in found[1].problem for word in words.split("|"))
    assert received[: len(CONTENT)] == received[2 * len(CONTENT) :] == CONTENT


def test_to_be_read_or_looked_at_changes_nothing(path: Path) -> None:
    what = gathered(path)
    path.read_bytes()
    path.chmod(0o600)
    path.with_name("another name").hardlink_to(path)
    assert all_of(what)[0] == CONTENT


def test_F3_a_folder_that_becomes_a_link_meanwhile_is_not_gone_through(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    aged(tmp_path / "f" / "s" / "x", b"12345")
    aged(tmp_path / "f" / "a", b"12345")
    what = gathered(tmp_path / "f")
    other = aged(tmp_path / "outside" / "x", b"54321")
    os.utime(other, ns=(0, what.manifest.item(3).modified))
    (tmp_path / "f" / "s").rename(tmp_path / "moved")
    (tmp_path / "f" / "s").symlink_to(tmp_path / "outside")
    received, found = all_of(what)
    assert received == b"12345" + bytes(5)
    assert [isinstance(each, Digest) and each.digest == NO_DIGEST for each in found] == [False, True]


@apart.root
def test_a_file_whose_permission_goes_meanwhile_is_told() -> None:
    script = f"""
import sys
from pathlib import Path
from glide.transfer.gathering import gather
from glide.transfer.reading import Reader
{apart.NOBODY}
what = gather([Path(sys.argv[1])], warn=print)
print("ready", flush=True)
sys.stdin.readline()
reader = Reader(what)
reader.begin([(0, what.manifest.bytes)])
count, found, _ = reader.fill(memoryview(bytearray(100)))
print(count, [each.problem for each in found])
"""
    with apart.public_folder() as folder:
        (folder / "f").mkdir()
        (folder / "f").chmod(0o755)
        for name in ("a", "b"):
            (folder / "f" / name).write_bytes(b"12345")
            (folder / "f" / name).chmod(0o644)
        process = apart.start(script, folder / "f")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (folder / "f" / "a").chmod(0o600)
        said, _ = process.communicate("go\n")
        assert said.strip() == f"10 ['{folder}/f/a: it cannot be read (Permission denied)', '']"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_that_holds_more_than_its_size_says_is_not_sent_as_an_empty_one(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="it holds more than its size says"):
        check_empty(gathered(Path("/proc/self/status")))
    assert check_empty(gathered(path)) == []
    assert check_empty(gathered(aged(tmp_path / "empty", b""))) == []


# --- what is in memory --------------------------------------------------------------------------------------


def opened(path: Path) -> OpenFile:
    return OpenFile(gathered(path).manifest.item(0), path)


@pytest.fixture
def room() -> memoryview:
    return memoryview(bytearray(len(CONTENT)))


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
def test_what_a_disk_would_have_to_bring_is_not_waited_for(path: Path, room: memoryview) -> None:
    file = opened(path)
    os.fsync(file.descriptor)
    os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        if os.preadv(file.descriptor, [room], 0, os.RWF_NOWAIT):
            pytest.skip("this file system lets nothing out of memory")
    except BlockingIOError:
        pass
    except OSError as error:
        pytest.skip(f"this file system cannot tell: {error}")
    assert file.read_cached(room, 0) == 0
    file.read(room, 0)
    room[:] = bytes(len(room))
    assert file.read_cached(room, 0) == len(room)
    assert room == CONTENT
    file.close()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system that is memory")
def test_a_file_system_that_is_memory_has_all_of_a_file_at_once(room: memoryview) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        file = opened(aged(Path(folder) / "file.bin", CONTENT))
        assert file.read_cached(room[:1000], 5) == 1000
        assert file.read_cached(room, 0) == len(room)
        assert room == CONTENT
        file.close()


def test_where_nobody_can_tell_what_is_in_memory_it_is_asked_once(
    path: Path, room: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = os.preadv, []

    def preadv(descriptor: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        asked.append(flags)
        if flags:
            raise OSError(errno.EOPNOTSUPP, "no such flag")
        return real(descriptor, views, offset)

    file = opened(path)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(sources, "_MEMORY", ())
    assert file.read_cached(room, 0) == file.read_cached(room, 0) == 0
    assert len(asked) == (sys.platform == "linux")
    file.read(room, 0)
    assert room == CONTENT
    file.close()


def test_a_disk_that_fails_is_told_by_whoever_waits_for_it(
    path: Path, room: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, "it is broken")

    file = opened(path)
    monkeypatch.setattr(os, "preadv", preadv)
    assert file.read_cached(room, 0) == 0
    with pytest.raises(Changed, match="it is broken"):
        file.read(room, 0)
    file.close()
