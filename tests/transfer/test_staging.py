"""What has arrived while it is not whole: when it is durable, and what becomes of it when the disk takes no more."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import FileError
from glide.transfer.destination import Destination
from glide.transfer.folders import Folder, read_at, write_at
from glide.transfer.landing import Conflict
from tests.processes import world
from tests.transfer import apart
from tests.transfer.arriving import (
    ROOT,
    Receiving,
    Tree,
    arrival,
    as_found,
    land,
    listed,
    shown,
    stages,
    tree,
)

CONTENT = random.Random(3).randbytes(300_000)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "journals"


# --- writing ---------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=40), st.lists(st.integers(0, 2000), max_size=5))
def test_bytes_that_come_in_pieces_of_any_size_make_the_files_that_were_sent(
    pieces: list[bytes], edges: list[int]
) -> None:
    with tempfile.TemporaryDirectory(prefix="glide-test-") as folder:
        stream = b"".join(pieces)
        points = [0, *sorted(min(edge, len(stream)) for edge in edges), len(stream)]
        sent: Tree = {f"{n}": stream[a:b] for n, (a, b) in enumerate(pairwise(points))}
        (Path(folder) / "in").mkdir()
        with Receiving(arrival(Path(folder) / "in", Path(folder) / "journals"), sent) as receiving:
            stored = receiving.storage.assembly.store([memoryview(piece) for piece in pieces])
            assert sum(count for _, count in stored) == len(stream)
            del receiving._pending[:]
            receiving._stored = stored
            receiving.finish()
        assert tree(Path(folder) / "in") == as_found(sent)


def test_more_pieces_than_the_system_takes_in_one_call_are_written(tmp_path: Path) -> None:
    # A sender may put its bytes into DATA frames as small as it likes; IOV_MAX is 1024 on Linux.
    contents = [b"%6d" % number for number in range(5000)]
    with Folder.open(tmp_path) as folder:
        descriptor = folder.create("file")
        write_at(descriptor, [memoryview(content) for content in contents], 10)
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == bytes(10) + b"".join(contents)


def test_short_writes_and_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read, draw = os.pwritev, os.preadv, random.Random(7)

    def short_write(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return write(descriptor, [buffers[0][: draw.randrange(1, len(buffers[0]) + 1)]], offset)

    def short_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return read(descriptor, [buffers[0][: draw.randrange(1, len(buffers[0]) + 1)]], offset)

    monkeypatch.setattr(os, "pwritev", short_write)
    monkeypatch.setattr(os, "preadv", short_read)
    content = CONTENT[:20_000]
    with Folder.open(tmp_path) as folder:
        descriptor = folder.create("file")
        write_at(descriptor, [memoryview(content)[at : at + 3000] for at in range(0, len(content), 3000)], 0)
        found = bytearray(30_000)
        assert read_at(descriptor, memoryview(found), 5) == len(content) - 5
        os.close(descriptor)
    assert found == content[5:] + bytes(10_005)


# --- folders ---------------------------------------------------------------------------------------------


def test_F3_no_component_is_followed_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside" / "s").mkdir(parents=True)
    (tmp_path / "outside" / "file").write_bytes(b"mine")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "to file").symlink_to(tmp_path / "outside" / "file")
    with Folder.open(tmp_path / "in") as folder:
        for components in (["link"], ["link", "s"]):
            with pytest.raises(OSError, match=r"\w"):
                folder.below(components)
        for writing in (False, True):
            with pytest.raises(OSError, match=r"\w"):
                folder.reopen("to file", writing=writing)
        with pytest.raises(FileExistsError):
            folder.create("to file")
        found = folder.look("link")
        assert found is not None
        assert stat.S_ISLNK(found.st_mode)
    with Folder.open(tmp_path / "in" / "link") as named:
        assert named.look("s") is not None, "what a person named may be reached through one"


@pytest.mark.timeout(30)  # it would wait for ever
def test_only_a_regular_file_is_opened_again_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with Folder.open(tmp_path) as folder:
        for name in ("fifo", "folder"):
            for writing in (False, True):
                with pytest.raises(OSError, match=r"\w"):
                    folder.reopen(name, writing=writing)
    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_F6_a_move_replaces_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "new").mkdir() if kind == "folder" else (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to("nothing")
    (tmp_path / "folder").mkdir()
    before = tree(tmp_path)
    with Folder.open(tmp_path) as folder:
        for taken in ("old", "link", "folder"):
            with pytest.raises(FileExistsError):
                folder.move_new("new", folder, taken)
        assert tree(tmp_path) == before
        folder.move_new("new", folder, "naïve 漢")
        with pytest.raises(FileNotFoundError):
            folder.move_new("new", folder, "newer")
    before["naïve 漢"] = before.pop("new")
    assert tree(tmp_path) == before


# --- full disks and closed folders -----------------------------------------------------------------------


@apart.root
@pytest.mark.parametrize("sync", [False, True])
def test_F11_a_full_disk_is_told_and_what_arrived_goes_on_after_room_was_made(
    tmp_path: Path, journals: Path, sync: bool
) -> None:
    sent: Tree = {"a": CONTENT, "d": None, "d/b": CONTENT[::-1], "d/c": CONTENT}
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        with Receiving(arrival(folder, journals, sync=sync), sent) as receiving:
            receiving.feed(350_000)
            (folder / "mine").write_bytes(bytes(500_000))
            with pytest.raises(FileError, match="disk is full") as caught:
                receiving.feed()
            assert "kept" in caught.value.means
            assert "Make room" in caught.value.next
            assert str(folder) not in caught.value.for_peer
        assert set(shown(folder)) == {"mine"}
        assert stages(folder) == [found.about.stage for found in listed(journals)]
        with pytest.raises(FileError, match="disk is too full"):
            Receiving(arrival(folder, journals, sync=sync), sent)
        assert len(listed(journals)) == 1
        (folder / "mine").unlink()
        with Receiving(arrival(folder, journals, sync=sync), sent) as receiving:
            assert receiving.found
            assert receiving.wanted <= 900_000 - 350_000
            receiving.finish()
            receiving.storage.known()
        assert tree(folder) == as_found(sent)


@apart.root
def test_F11_a_disk_that_is_full_of_names_is_told_and_leaves_nothing_unlisted(tmp_path: Path, journals: Path) -> None:
    sent: Tree = {"d": None, **{f"d/{number}": b"" for number in range(20)}}
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "nr_inodes=12", "none") as folder:
        with pytest.raises(FileError, match="disk is full"):
            Receiving(arrival(folder, journals), sent)
        assert shown(folder) == {}
        assert stages(folder) == [found.about.stage for found in listed(journals)]
        subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(folder)], check=True)
        land(folder, journals, sent)
        assert shown(folder) == as_found(sent)


@apart.root
def test_F11_what_will_not_fit_is_told_before_the_first_byte(tmp_path: Path, journals: Path) -> None:
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        with Destination.open(folder) as destination:
            destination.check_room(1024 * 1024)
            with pytest.raises(FileError, match=r"disk is too full for 1\.0 MiB"):
                destination.check_room(1024 * 1024 + 1)
        with pytest.raises(FileError, match="disk is too full") as caught:
            Receiving(arrival(folder, journals), {"a": bytes(2**20 + 1)})
        assert "Nothing was written" in caught.value.means
        assert (os.listdir(folder), os.listdir(journals)) == ([], [])
        (folder / "a").write_bytes(bytes(900_000))
        with Receiving(arrival(folder, journals, Conflict.SKIP), {"a": bytes(900_000), "b": bytes(1000)}) as receiving:
            assert receiving.finish().items == 2, "what is there needs no room"


def test_F11_no_disk_has_room_for_everything(into: Path) -> None:
    with Destination.open(into) as destination:
        destination.check_room(0)
        with pytest.raises(FileError, match="full"):
            destination.check_room(2**63 - 1)


def test_F11_a_system_that_does_not_say_how_much_is_free_is_believed(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: object) -> os.statvfs_result:
        raise OSError("no")

    monkeypatch.setattr(os, "statvfs", unknown)
    with Destination.open(into) as destination:
        destination.check_room(2**63 - 1)


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from glide.errors import FileError
from tests.transfer.arriving import Receiving, arrival
top = Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Receiving(arrival(top / "in", top / "journals"), {"small": b"s" * 100, "zlarge": b"x" * 200_000}) as receiving:
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    receiving.feed(40_000)
    try:
        receiving.feed()
    except FileError as error:
        print(error)
"""


def test_F11_a_file_larger_than_allowed_is_told_and_goes_on_once_it_is_allowed(
    into: Path, journals: Path, tmp_path: Path
) -> None:
    assert "larger than allowed" in apart.run(LIMITED, ROOT, tmp_path)
    assert shown(into) == {}
    sent: Tree = {"small": b"s" * 100, "zlarge": b"x" * 200_000}
    with Receiving(arrival(into, journals), sent) as receiving:
        assert receiving.wanted <= 200_100 - 40_000
        receiving.finish()
    assert tree(into) == as_found(sent)


@apart.root
def test_F11_a_folder_that_becomes_read_only_in_mid_transfer_is_told(tmp_path: Path, journals: Path) -> None:
    sent: Tree = {"a": CONTENT, "b": CONTENT}
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "none") as folder:
        with Receiving(arrival(folder, journals), sent) as receiving:
            receiving.feed(len(CONTENT))
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            with pytest.raises(FileError, match=r"[Rr]ead-only"):
                receiving.feed()
        with pytest.raises(FileError, match="cannot be received into"):
            Receiving(arrival(folder, journals), sent)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        with Receiving(arrival(folder, journals), sent) as receiving:
            assert receiving.wanted == len(CONTENT)
            receiving.finish()
        assert tree(folder) == as_found(sent)


AS_NOBODY = f"""
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from glide.errors import FileError
from glide.transfer.landing import Conflict
from glide.transfer.stock import boot
from tests.transfer.arriving import Receiving, arrival, land
boot()  # what it imports, too
{apart.NOBODY}
top = Path(sys.argv[2])
try:
    print(land(top / "in", top / "journals", {{"d": None, "d/x": b"12345", "y": b"1"}}, Conflict(sys.argv[3])).items)
except FileError as error:
    print(error)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    with apart.public_folder() as folder:
        (folder / "journals").mkdir()
        (folder / "journals").chmod(0o777)
        (folder / "in").mkdir()
        (folder / "in").chmod(0o777)
        yield folder


@apart.root
@pytest.mark.parametrize("mode", [0o755, 0o555, 0o700, 0o000, 0o776])
def test_F11_a_folder_without_permission_is_told_before_anything_is_written(public: Path, mode: int) -> None:
    (public / "in").chmod(mode)
    said = apart.run(AS_NOBODY, ROOT, public, "rename")
    assert "cannot be received into" in said
    assert "permission" in said.lower()
    assert (os.listdir(public / "in"), os.listdir(public / "journals")) == ([], [])
    (public / "in").chmod(0o777)
    assert apart.run(AS_NOBODY, ROOT, public, "rename") == "2"


@apart.root
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o000])
def test_F11_a_folder_inside_without_permission_costs_what_belongs_into_it(public: Path, mode: int) -> None:
    (public / "in" / "d").mkdir()
    (public / "in" / "d").chmod(mode)
    assert apart.run(AS_NOBODY, ROOT, public, "overwrite") == "1"
    assert shown(public / "in") == {"d": "folder", "y": b"1"}
    assert stages(public / "in") == []


@apart.root
def test_F11_a_place_for_journals_without_permission_is_told(public: Path) -> None:
    (public / "journals").chmod(0o555)
    said = apart.run(AS_NOBODY, ROOT, public, "rename")
    assert "cannot be recorded" in said
    assert "GLIDE_HOME" in said
    assert os.listdir(public / "in") == []


@apart.root
@pytest.mark.parametrize("path", ["y", "d/x"])
def test_F11_with_skip_a_file_that_cannot_be_read_is_received_beside_it(public: Path, path: str) -> None:
    (public / "in" / "d").mkdir()
    (public / "in" / "d").chmod(0o777)
    (public / "in" / path).write_bytes(b"1" if path == "y" else b"12345")
    (public / "in" / path).chmod(0o600)
    assert apart.run(AS_NOBODY, ROOT, public, "skip") == "2"
    assert (public / "in" / f"{path} (1)").exists()


# --- durability ------------------------------------------------------------------------------------------

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

CALLS = "fsync,fdatasync,syncfs,rename,renameat,renameat2,linkat,sendto,sendmsg,write,pwrite64,pwritev,pwritev2,unlink"
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += ")


def calls(log: Path) -> list[tuple[str, str]]:
    """What was called, in the order in which it was done, with its arguments."""
    found, begun = [], {}
    for line in log.read_text(errors="replace").splitlines():
        pid, whole = line.split(maxsplit=1)[0], line
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>")
            continue
        if " resumed>" in line:
            whole = begun.pop(pid) + line.partition(" resumed>")[2]
        if match := _CALL.match(whole):
            found.append((match[1], match[2]))
    return found


DRIVEN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.transfer.arriving import Receiving, arrival
top, sync, many = Path(sys.argv[2]), sys.argv[3] == "sync", int(sys.argv[4])
sent = {"d": None, "d/s": None, "d/s/deep": b"deep" * 100, "file": b"file" * 100}
sent |= {f"d/{n:03}": b"%d" % n for n in range(many)}
with Receiving(arrival(top / "in", top / "journals", sync=sync), sent) as receiving:
    os.write(2, b"begun")
    for part in range(3):
        receiving.feed(300 + 4 * many)
        os.write(2, b"ack")
    receiving.finish()
    os.write(2, b"receipt")
    receiving.storage.known()
"""


def _driven(tmp_path: Path, into: Path, sync: str, many: int) -> list[tuple[str, str]]:
    log = tmp_path / "log"
    command = ["strace", "-f", "-y", "-s", "64", "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", DRIVEN, str(ROOT), str(tmp_path), sync, str(many)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip  # one command a line
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    assert shown(into)["file"] == b"file" * 100
    return calls(log)


def durable_before(found: list[tuple[str, str]], into: Path) -> None:
    """Check each step against what has to be durable by then."""
    dirty: set[str] = set()  # files with bytes, and folders with names, that are not durable
    journal: set[str] = set()
    landed = False
    for call, arguments in found:
        path = match[1] if (match := re.match(r"\d+<([^>]*)>", arguments)) else ""
        if call in ("fsync", "fdatasync"):
            dirty.discard(path)
            journal.discard(path)
        elif call == "syncfs":
            dirty.clear()
        elif call in ("pwritev", "pwrite64", "pwritev2") and path.startswith(str(into)):
            dirty.add(path)
        elif call in ("pwrite64", "write") and path.endswith("-wal"):
            journal.add(path)
        elif call in ("linkat", "renameat2", "renameat", "rename") and str(into) in arguments:
            assert not dirty or landed, f"{dirty} is not durable before its final name"
            assert not journal, "the journal knows what is about to be given"
            landed = True
            dirty.add(str(into))
        elif call == "write" and arguments.startswith("2<") and ("ack" in arguments or "receipt" in arguments):
            assert not dirty, f"{dirty} is not durable before {arguments}"
            assert not journal, f"the journal is not durable before {arguments}"
    assert landed


@needs_strace
@pytest.mark.parametrize("many", [3, 200])
def test_F13_bytes_are_durable_before_they_are_acknowledged_and_names_before_the_receipt(
    tmp_path: Path, into: Path, many: int
) -> None:
    found = _driven(tmp_path, into, "sync", many)
    durable_before(found, into.resolve())
    named = [arguments for call, arguments in found if call in ("linkat", "renameat2")]
    assert len(named) >= 2
    synced = [arguments for call, arguments in found if call in ("fsync", "fdatasync")]
    assert any(str(into) in each and "/0/s" in each for each in synced), "folders inside are synced too"
    assert any("journals" in each and "-wal" in each for each in synced)
    assert any(call == "syncfs" for call, _ in found) is (many > 100)
    receipt = next(number for number, (_, arguments) in enumerate(found) if '"receipt"' in arguments)
    tail = found[receipt - 8 : receipt]
    assert any("journals" in arguments for call, arguments in tail if call in ("fsync", "fdatasync"))


@needs_strace
def test_F13_without_fsync_nothing_is_synced(tmp_path: Path, into: Path) -> None:
    found = _driven(tmp_path, into, "no", 200)
    assert [call for call in found if call[0] in ("fsync", "fdatasync", "syncfs")] == []
    assert any(call == "renameat2" for call, _ in found), "the trace sees what it looks for"


@needs_strace
@pytest.mark.parametrize("option", ["--fsync", "--no-fsync"])
def test_F13_a_real_receiver_syncs_before_the_name_and_before_it_answers(tmp_path: Path, option: str) -> None:
    log = tmp_path / "log"
    with world(tmp_path) as here:
        here.serve()
        here.prefixes["bob"] = ("strace", "-f", "-yy", "-s", "16", "-e", f"trace={CALLS}", "-o", str(log))
        file = here.file("file.bin", 3_000_000)
        receiver = here.receive("bob", "--accept", "all", "--once", *([option] if option == "--no-fsync" else []))
        sender = here.push("alice", "bob", file)
        assert sender.wait() == 0, sender
        assert receiver.wait() == 0, receiver
        into = here.into("bob").resolve()
        assert (into / "file.bin").read_bytes() == file.read_bytes()
    found = calls(log)
    places: dict[str, list[int]] = {}
    for number, (call, arguments) in enumerate(found):
        if call in ("fsync", "fdatasync"):
            if ".part/0>" in arguments:
                places.setdefault("file", []).append(number)
            elif f"<{into}>" in arguments:
                places.setdefault("folder", []).append(number)
            elif ".journal-wal" in arguments:
                places.setdefault("journal", []).append(number)
        elif call in ("linkat", "renameat2") and "file.bin" in arguments:
            places["named"] = [number]
        elif call in ("sendto", "sendmsg", "write") and "TCP" in arguments:
            places.setdefault("sent", []).append(number)
    if option == "--no-fsync":
        assert set(places) == {"named", "sent"}
        return
    (named,) = places["named"]
    written = ("pwrite64", "pwritev", "pwritev2")
    last = max(n for n, (call, arguments) in enumerate(found) if call in written and ".part/0>" in arguments)
    acknowledged = next(number for number in places["sent"] if number > last)
    assert any(last < number < acknowledged for number in places["file"])
    assert any(last < number < acknowledged for number in places["journal"])
    assert acknowledged < named
    assert max(places["file"]) < named
    answered = next(number for number in places["sent"] if number > named)
    assert any(named < number < answered for number in places["folder"])
    assert any(named < number < answered for number in places["journal"])
