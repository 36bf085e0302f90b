"""The file that is being sent: what may be, and how it is noticed that it changed meanwhile."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import FileError
from glide.transfer.manifest import Source, whole
from tests.transfer import apart

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that was last written to an hour ago, so that any write now is seen in its time."""
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    an_hour_ago = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    return path


def read(source: Source, block: int = 65536) -> bytes:
    """All of it, as the sender reads it."""
    found = bytearray()
    while len(found) < source.item.size:
        buffer = bytearray(block)
        found += buffer[: source.read_into(memoryview(buffer), len(found))]
    return bytes(found)


# --- what may be sent ------------------------------------------------------------------------------------


def test_a_file_is_offered_under_its_own_name_with_its_size(path: Path) -> None:
    with Source.open(path) as source:
        assert (source.item.name, source.item.size) == ("file.bin", len(CONTENT))
        assert read(source) == CONTENT
        source.check_unchanged()


def test_a_file_is_offered_under_another_name_if_one_is_given(path: Path) -> None:
    with Source.open(path, "other.txt") as source:
        assert source.item.name == "other.txt"


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with Source.open(tmp_path / "empty") as source:
        assert source.item.size == 0
        assert source.read_into(memoryview(bytearray(10)), 0) == 0
        source.check_unchanged()


def test_a_link_to_a_file_is_sent_as_what_it_points_to_under_the_links_name(path: Path) -> None:
    link = path.with_name("link.bin")
    link.symlink_to(path.name)
    with Source.open(link) as source:
        assert source.item.name == "link.bin"
        assert read(source) == CONTENT
        source.check_unchanged()


@given(st.integers(0, 5000), st.integers(1, 6000), st.integers(0, 5000))
def test_a_read_gives_what_is_there_and_no_more_than_fits(length: int, block: int, offset: int) -> None:
    with tempfile.TemporaryDirectory(prefix="glide-test-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(CONTENT[:length])
        offset = min(offset, length)
        with Source.open(path) as source:
            buffer = bytearray(block)
            count = source.read_into(memoryview(buffer), offset)
        assert buffer[:count] == CONTENT[offset : min(offset + block, length)]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nothing\.bin cannot be read: No such file") as caught:
        Source.open(tmp_path / "nothing.bin")
    assert caught.value.exit == 8
    assert "Nobody was disturbed" in caught.value.means


def test_a_dangling_link_is_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(FileError, match="cannot be read"):
        Source.open(tmp_path / "link")


def test_a_path_that_no_system_takes_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        Source.open(Path(f"{tmp_path}/a\0b"))


@apart.root
def test_a_file_without_permission_is_told() -> None:
    script = f"""
import sys
from pathlib import Path
from glide.errors import FileError
from glide.transfer.manifest import Source
{apart.NOBODY}
try:
    Source.open(Path(sys.argv[1])).close()
    print("opened")
except FileError as error:
    print(error)
"""
    with apart.public_folder() as folder:
        path = folder / "private"
        path.write_bytes(CONTENT)
        path.chmod(0o600)
        assert "private cannot be read: Permission denied" in apart.run(script, path)
        path.chmod(0o644)
        assert apart.run(script, path) == "opened"
        (folder / "closed").mkdir(mode=0o700)
        assert "closed is a folder" in apart.run(script, folder / "closed")


@pytest.mark.parametrize("named", ["folder", "folder/", "folder/."])
def test_a_folder_is_told_with_what_to_do(tmp_path: Path, named: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="is a folder") as caught:
        Source.open(Path(f"{tmp_path}/{named}"))
    assert "tar" in caught.value.next


@pytest.mark.timeout(10)  # it would wait for ever
@pytest.mark.parametrize("named", ["fifo.bin", "link"])
def test_a_pipe_is_told_and_never_waited_for(tmp_path: Path, named: str) -> None:
    os.mkfifo(tmp_path / "fifo.bin")
    (tmp_path / "link").symlink_to("fifo.bin")
    with pytest.raises(FileError, match="is a device, pipe or socket"):
        Source.open(tmp_path / named)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/tty"])
def test_a_device_is_told(device: str) -> None:
    with pytest.raises(FileError, match="is a device, pipe or socket"):
        Source.open(Path(device))


def test_a_socket_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(FileError, match="is a device, pipe or socket"):
            Source.open(tmp_path / "socket")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "a\nb", "\x1b[2J"])
def test_F1_a_name_that_no_receiver_takes_is_refused_at_the_sender(path: Path, name: str) -> None:
    with pytest.raises(FileError, match="cannot be offered as") as caught:
        Source.open(path, name)
    assert "--filename" in caught.value.next
    assert "\x1b" not in str(caught.value)


def test_F1_a_file_whose_own_name_no_receiver_takes_needs_another(tmp_path: Path) -> None:
    named = tmp_path / "two\nlines"
    named.write_bytes(CONTENT)
    with pytest.raises(FileError, match="control character") as caught:
        Source.open(named)
    assert "--filename" in caught.value.next
    assert "\n" not in str(caught.value)
    with Source.open(named, "one line") as source:
        assert read(source) == CONTENT


def test_F1_a_name_that_is_no_text_needs_another(tmp_path: Path) -> None:
    named = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(named, "wb") as file:
        file.write(CONTENT)
    with pytest.raises(FileError, match="cannot be offered"):
        Source.open(Path(os.fsdecode(named)))
    with Source.open(Path(os.fsdecode(named)), "café.txt") as source:
        assert read(source) == CONTENT


def test_no_descriptor_is_left_open_by_what_was_refused(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc")
    before = set(os.listdir(descriptors))
    for refused, name in ((path, "a/b"), (tmp_path, None), (tmp_path / "fifo", None), (tmp_path / "nothing", None)):
        with pytest.raises(FileError):
            Source.open(refused, name)
    assert set(os.listdir(descriptors)) == before


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


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "grows": (_append, "it grew from"),
    "shrinks": (lambda path: os.truncate(path, 1024), r"it shrank from 300000 bytes to 1024"),
    "is emptied": (lambda path: os.truncate(path, 0), r"it shrank from 300000 bytes to 0"),
    "is removed": (Path.unlink, "it was removed"),
    "is renamed": (lambda path: path.replace(path.with_name("elsewhere")), "it was removed"),
    "is replaced": (_replace, "it was replaced by another file"),
    "is replaced by a link": (_swap_for_link, "it was replaced by another file"),
    "is written to": (_overwrite, "it was written to"),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("before_reading", [True, False], ids=["before it is read", "after it is read"])
def test_a_file_that_changes_while_it_is_sent_is_told_with_how(path: Path, how: str, before_reading: bool) -> None:
    change, words = CHANGES[how]

    def sent() -> None:
        with Source.open(path) as source:
            if before_reading:
                change(path)
            read(source)
            if not before_reading:
                change(path)
            source.check_unchanged()

    with pytest.raises(FileError, match=words) as caught:
        sent()
    assert "file.bin changed while it was being sent" in caught.value.what
    assert "Nothing of it appears" in caught.value.means
    assert caught.value.exit == 8


def test_what_was_appended_is_not_sent(path: Path) -> None:
    with Source.open(path) as source:
        _append(path)
        assert read(source) == CONTENT


def test_to_be_read_or_looked_at_changes_nothing(path: Path) -> None:
    with Source.open(path) as source:
        path.read_bytes()
        path.chmod(0o600)
        path.with_name("another name").hardlink_to(path)
        assert read(source) == CONTENT
        source.check_unchanged()


# --- the digest over a transfer --------------------------------------------------------------------------

digests = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=8)


@given(digests)
def test_the_digest_over_a_transfer_is_that_of_its_one_item_or_of_all_in_order(items: list[bytes]) -> None:
    if len(items) == 1:
        assert whole(items) == items[0]
    else:
        assert whole(items) == blake3.blake3(b"".join(items)).digest()
        assert whole(tuple(items)) == whole(items)
        if items != items[::-1]:
            assert whole(items) != whole(items[::-1])
