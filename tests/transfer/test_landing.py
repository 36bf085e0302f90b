"""How files land: the names that may, the one way in, and what stands there whatever happens meanwhile."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
import random
import secrets
import shutil
import stat
import string
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import glide
from glide.errors import Declined, FileError, GlideError, NameUnusable
from glide.transfer import landing
from glide.transfer.filenames import BadName, check_name, check_usable
from glide.transfer.landing import Destination
from tests.transfer import apart

SOURCE = Path(glide.__file__).parent
CONTENT = b"what was sent"


def land(folder: Path, name: str, content: bytes = CONTENT) -> Path:
    """Let one file land, as the receiver does it."""
    with Destination.open(folder) as destination, destination.create() as partial:
        partial.write([memoryview(content)] if content else [])
        return partial.land(name, sync=False)


def tree(top: Path) -> dict[str, object]:
    """Everything under ``top``: its kind and what it holds."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        inside = str(path.relative_to(top))
        if path.is_symlink():
            found[inside] = ("link", os.readlink(path))
        else:
            found[inside] = "folder" if path.is_dir() else path.read_bytes()
    return found


# --- names -----------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    ["..", ".", "/", "\\", "\0", "~", "$HOME", "%2e%2e", "%2f", "\n", "\x1b[2J", "\x7f", "\x85", "\ud800", "\u202e"]
) | st.sampled_from(
    ["a", "b.txt", " ", ":", "*", "con", "outside", "é", "e\u0301", "∕", "\uff0f", "\u2028", "x" * 120, "漢" * 60]
)
any_name = st.lists(pieces, max_size=6).map("".join) | st.text(
    st.characters() | st.characters(categories=["Cc", "Cf", "Cs"]), max_size=300
)


@given(any_name)
@example("../outside")
@example("/etc/passwd")
@example("..")
@example("...")
@example("a\0/../../outside")
@example("\u202egpj.exe")
@example("x" * 255)
@example("漢" * 85 + ".txt")
@example("~root")
@example("-rf")
def test_F1_what_is_accepted_lands_inside_the_destination_and_nowhere_else(name: str) -> None:
    top = Path(tempfile.mkdtemp(prefix="glide-test-"))
    try:
        (top / "outside").write_bytes(b"untouched")
        folder = top / "in"
        folder.mkdir()
        before = tree(top)
        try:
            check_name(name)
            check_usable(name, allow_hidden=True)
        except (BadName, GlideError):
            assert tree(top) == before
            return
        where = land(folder, name)
        assert where == folder.resolve() / name
        assert tree(top) == {**before, f"in/{name}": CONTENT}
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (".", "folder"),
        ("..", "parent"),
        ("/", "separator"),
        ("/etc/passwd", "separator"),
        ("a/b", "separator"),
        ("a/", "separator"),
        ("../a", "separator"),
        ("./a", "separator"),
        ("a/../b", "separator"),
        ("a\0b", "control"),
        ("\0", "control"),
        ("a\nb", "control"),
        ("a\rb", "control"),
        ("\x1b]52;c;cm0=\x07", "control"),
        ("a\x7f", "control"),
        ("a\x9bb", "control"),
        ("a\ud800", "UTF-8"),
    ],
)
def test_F1_a_name_that_no_honest_sender_offers_is_refused_whole(name: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        check_name(name)


ORDINARY = [
    "a",
    "...",
    "..a",
    "a..",
    " ",
    "-rf",
    "~",
    "a\\b",
    "aux.c",
    "1700000000.M1P2.host:2,S",
    "naïve.pdf",
    "漢字",
    "🎁",
]
ORDINARY += ["name (1).txt", "a" * 255, "$(reboot)", "\u202egpj.exe"]


@pytest.mark.parametrize("name", ORDINARY)
def test_F1_an_ordinary_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    check_name(name)
    check_usable(name, allow_hidden=True, platform="linux")
    assert land(tmp_path, name) == tmp_path.resolve() / name
    assert tree(tmp_path) == {name: CONTENT}


@pytest.mark.parametrize("name", ["a" * 256, "漢" * 86, "é" * 127 + "ab"])
def test_F1_a_name_that_is_too_long_for_the_disk_fails_by_itself(name: str) -> None:
    check_name(name)
    with pytest.raises(NameUnusable, match="longer than 255 bytes") as caught:
        check_usable(name, allow_hidden=False)
    assert "--filename" in caught.value.next
    assert caught.value.exit == 9


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("con", "device"),
        ("CON", "device"),
        ("aux.c", "device"),
        ("NUL.tar.gz", "device"),
        ("prn .txt", "device"),
        ("com1", "device"),
        ("Lpt9.txt", "device"),
        ("CONIN$", "device"),
        ("conout$", "device"),
        ("com¹.txt", "device"),  # Windows reads the superscripts as digits
        ("LPT³", "device"),
        ("a:b", "not allowed"),
        ("file.txt::$DATA", "not allowed"),
        ("a\\b", "not allowed"),
        ("a<b", "not allowed"),
        ("a>b", "not allowed"),
        ('a"b', "not allowed"),
        ("a|b", "not allowed"),
        ("a?b", "not allowed"),
        ("a*b", "not allowed"),
        ("a.", "ending in"),
        ("a ", "ending in"),
        ("...", "ending in"),
    ],
)
def test_F1_on_windows_a_name_that_means_something_else_there_fails_by_itself(name: str, why: str) -> None:
    check_name(name)
    with pytest.raises(NameUnusable, match=why):
        check_usable(name, allow_hidden=True, platform="win32")
    check_usable(name, allow_hidden=True, platform="linux")


@pytest.mark.parametrize("name", ["console.txt", "auxiliary", "com10", "lpt", "null", "a.con", "a b", "naïve.pdf"])
def test_F1_on_windows_an_ordinary_name_is_taken(name: str) -> None:
    check_usable(name, allow_hidden=False, platform="win32")


@pytest.mark.parametrize("name", [".bashrc", ".ssh", "...", ".a.b"])
def test_F12_a_hidden_name_needs_a_yes_of_the_receivers(name: str) -> None:
    with pytest.raises(Declined, match="hidden") as caught:
        check_usable(name, allow_hidden=False)
    assert "--allow-hidden" in caught.value.next
    check_usable(name, allow_hidden=True, platform="linux")


@pytest.mark.parametrize("root", ["/", "//", "/..", "/tmp/..", "link"])
def test_F12_the_root_of_a_file_system_is_no_destination(tmp_path: Path, root: str) -> None:
    if root == "link":
        (tmp_path / "link").symlink_to("/")
        root = str(tmp_path / "link")
    with pytest.raises(FileError, match="root of a file system"):
        Destination.open(Path(root))


# --- the one place ---------------------------------------------------------------------------------------

# What changes the file system, and the modules that may. Those besides landing.py write files of glide's own,
# under names that no peer has a say in.
_OS = {"open", "link", "rename", "renames", "replace", "unlink", "remove", "mkdir", "makedirs", "rmdir", "symlink"}
_OS |= {"mknod", "mkfifo", "truncate", "ftruncate", "chmod", "fchmod", "chown", "utime", "write", "writev", "pwrite"}
_PATH = {"write_text", "write_bytes", "rename", "unlink", "mkdir", "symlink_to", "hardlink_to", "chmod", "rmdir"}
_MODULES = {"shutil", "tempfile", "tarfile", "zipfile"}
_WRITERS = {
    "transfer/landing.py": {"os.open", "os.link", "os.rename", "os.unlink", "os.write", "os.writev", "os.fchmod"},
    "transfer/manifest.py": {"os.open"},  # reads
    "files.py": {"os.open", "os.replace", ".mkdir", ".unlink"},
    "people/known.py": {"os.open", ".mkdir"},
    "crypto/identity.py": {"os.open", "os.link", ".mkdir", ".unlink", ".chmod"},
    "cli/render.py": {"os.open"},  # the null device
}
_OWN_METHODS = {"transfer/landing.py": {".unlink"}}


def _touches(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=attr)) if attr in _OS:
                found.add(f"os.{attr}")
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in _PATH:
                found.add(f".{attr}")
            case ast.Call(func=ast.Name(id="open")):
                found.add("open")
            case ast.Import(names=names):
                found |= {alias.name for alias in names if alias.name in _MODULES}
            case ast.ImportFrom(module=str(module)) if module in _MODULES:
                found.add(module)
    return found


def test_F2_only_landing_gives_a_received_file_its_name() -> None:
    found = {str(path.relative_to(SOURCE)): _touches(path) for path in SOURCE.rglob("*.py")}
    more = {name: what - _WRITERS.get(name, set()) - _OWN_METHODS.get(name, set()) for name, what in found.items()}
    assert {name: what for name, what in more.items() if what} == {}
    assert {"os.open", "os.link", "os.unlink"} <= found["transfer/landing.py"], "the check sees what it looks for"


def test_F2_only_the_receivers_half_of_a_transfer_lets_files_land() -> None:
    callers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("land", "create")
    }
    assert callers == {"transfer/receiving.py"}


# --- while it is not whole -------------------------------------------------------------------------------


def test_F5_while_bytes_come_there_is_one_private_file_of_an_unpredictable_name(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with Destination.open(tmp_path) as destination, destination.create() as partial:
            partial.write([memoryview(b"half")])
            (name,) = os.listdir(tmp_path)
            assert name == partial.name
            random_part = name.removeprefix(".glide-").removesuffix(".part")
            assert len(random_part) == 24
            assert set(random_part) <= set(string.hexdigits)
            found = os.lstat(tmp_path / name)
            assert stat.S_ISREG(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert found.st_dev == tmp_path.stat().st_dev
            names.add(name)
    assert len(names) == 20
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder"])
def test_F5_the_temporary_file_is_created_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"untouched")
    taken = folder / f".glide-{'ab' * 12}.part"
    if kind == "file":
        taken.write_bytes(b"somebody else's")
    elif kind == "folder":
        taken.mkdir()
    else:
        taken.symlink_to(outside if kind == "link" else tmp_path / "nothing")
    before = tree(tmp_path)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "ab" * 12)
    with Destination.open(folder) as destination, pytest.raises(FileError):
        destination.create()
    assert tree(tmp_path) == before


def test_F5_the_name_appears_only_with_all_of_the_content(tmp_path: Path) -> None:
    with Destination.open(tmp_path) as destination, destination.create() as partial:
        for piece in (b"one ", b"two ", b"three"):
            partial.write([memoryview(piece)])
            assert os.listdir(tmp_path) == [partial.name]
        partial.land("file", sync=True)
        assert tree(tmp_path) == {"file": b"one two three"}


# Lands the same file again and again, killed before the nth call that the file system sees, and at seeded moments.
KILLED = """
import os, random, signal, sys, time
from glide.transfer import landing

folder, seed = sys.argv[1], int(sys.argv[2])
CONTENT = bytes(range(256)) * 4096
STEPS = ("open", "writev", "fchmod", "fsync", "link", "unlink", "close")

def land():
    with landing.Destination.open(landing.Path(folder)) as destination, destination.create() as partial:
        for at in range(0, len(CONTENT), 1 << 18):
            partial.write([memoryview(CONTENT)[at:at + (1 << 18)]])
        partial.land("file.bin", sync=True)

def check():
    names = os.listdir(folder)
    for name in names:
        path = os.path.join(folder, name)
        if not (name.startswith(".glide-") and name.endswith(".part")):
            assert name in ("file.bin", "file (1).bin"), names
            with open(path, "rb") as file:
                assert file.read() == CONTENT, name
        os.unlink(path)
    return names

def killed_at(step):
    # True if the child lived to its end: there is no such step.
    pid = os.fork()
    if not pid:
        left = [step]
        def around(call):
            def wrapper(*arguments, **words):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return call(*arguments, **words)
            return wrapper
        for name in STEPS:
            setattr(os, name, around(getattr(os, name)))
        os.supports_dir_fd.add(os.open)
        try:
            land()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFEXITED(status)

steps = 0
seen = set()
while not killed_at(steps):
    steps += 1
    seen.add(tuple(sorted(name[0] for name in check())))
assert steps > 10, steps
assert check() == ["file.bin"]
assert seen == {(), (".",), (".", "f"), ("f",)}, seen  # every state that there is was met

draw = random.Random(seed)
for _ in range(25):
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(tell, b"!")
        while True:
            land()
            os.unlink(os.path.join(folder, "file.bin"))
    os.read(told, 1)
    time.sleep(draw.random() * 0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(told)
    os.close(tell)
    check()
print("ok", steps)
"""


def test_F5_a_kill_at_any_moment_leaves_no_wrong_file_under_a_final_name(tmp_path: Path) -> None:
    assert apart.run(KILLED, tmp_path, "20260101").startswith("ok")


# --- conflicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("a.txt", ["a (1).txt", "a (2).txt", "a (3).txt"]),
        ("a", ["a (1)", "a (2)"]),
        ("a.tar.gz", ["a.tar (1).gz"]),
        (".bashrc", [".bashrc (1)", ".bashrc (2)"]),
        ("a.", ["a (1)."]),
        ("a (1).txt", ["a (1) (1).txt"]),
    ],
)
def test_F6_a_name_that_is_taken_gets_a_number(tmp_path: Path, name: str, then: list[str]) -> None:
    expected: dict[str, object] = {}
    for number, final in enumerate([name, *then]):
        content = b"%d" % number
        assert land(tmp_path, name, content).name == final
        expected[final] = content
    assert tree(tmp_path) == expected


@pytest.mark.parametrize(
    "name",
    ["x" * 251 + ".txt", "x" * 255, "漢" * 83 + ".txt", "é" * 127, "a." + "x" * 253],
    ids=["extension", "none", "three bytes a letter", "two bytes a letter", "all extension"],
)
def test_F6_a_number_fits_behind_the_longest_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"first")
    second = land(tmp_path, name)
    assert second.name != name
    assert len(os.fsencode(second.name)) <= 255
    assert "(1)" in second.name
    assert tree(tmp_path) == {name: b"first", second.name: CONTENT}


@pytest.mark.parametrize("kind", ["file", "empty", "folder", "full folder", "link", "dangling", "loop", "fifo"])
def test_F6_what_stands_under_the_name_is_neither_followed_nor_replaced(tmp_path: Path, kind: str) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"untouched")
    taken = folder / "file.txt"
    match kind:
        case "file" | "empty":
            taken.write_bytes(b"mine" if kind == "file" else b"")
        case "folder" | "full folder":
            taken.mkdir()
            if kind == "full folder":
                (taken / "inside").write_bytes(b"mine")
        case "link" | "dangling" | "loop":
            taken.symlink_to({"link": outside, "dangling": tmp_path / "nothing", "loop": taken}[kind])
        case "fifo":
            os.mkfifo(taken)
    before = os.lstat(taken)
    assert land(folder, "file.txt").name == "file (1).txt"
    after = os.lstat(taken)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert outside.read_bytes() == b"untouched"
    assert sorted(os.listdir(tmp_path)) == ["in", "outside"]
    assert sorted(os.listdir(folder)) == ["file (1).txt", "file.txt"]
    assert (folder / "file (1).txt").read_bytes() == CONTENT


RACER = """
import sys, threading
from pathlib import Path
from glide.transfer.landing import Destination
folder, who, threads, files = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
barrier = threading.Barrier(threads)

def race(thread):
    barrier.wait()
    for number in range(files):
        content = f"{who} {thread} {number}".encode()
        with Destination.open(folder) as destination, destination.create() as partial:
            partial.write([memoryview(content)])
            path = partial.land("name.txt", sync=False)
        assert path.read_bytes() == content, path

racing = [threading.Thread(target=race, args=(thread,)) for thread in range(threads)]
for thread in racing: thread.start()
for thread in racing: thread.join()
print("done")
"""


def test_F6_many_that_land_under_one_name_at_once_get_a_file_each(tmp_path: Path) -> None:
    processes, threads, files = 4, 6, 5
    (tmp_path / "name.txt").write_bytes(b"there before")
    racers = [apart.start(RACER, tmp_path, str(n), str(threads), str(files)) for n in range(processes)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [racer.communicate()[0] for racer in racers] == ["done\n"] * processes
    total = processes * threads * files
    contents = {path.name: path.read_bytes().decode() for path in tmp_path.iterdir()}
    assert set(contents) == {"name.txt", *(f"name ({n}).txt" for n in range(1, total + 1))}
    assert contents.pop("name.txt") == "there before"
    assert sorted(contents.values()) == sorted(
        f"{who} {thread} {number}" for who in range(processes) for thread in range(threads) for number in range(files)
    )


def test_F6_threads_of_one_process_race_for_the_name_in_one_open_folder(tmp_path: Path) -> None:
    many = 24
    barrier = threading.Barrier(many)
    with Destination.open(tmp_path) as destination:

        def race(number: int) -> None:
            with destination.create() as partial:
                partial.write([memoryview(b"%d" % number)])
                barrier.wait()
                partial.land("name", sync=False)

        racing = [threading.Thread(target=race, args=(number,)) for number in range(many)]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join()
    assert set(os.listdir(tmp_path)) == {"name", *(f"name ({n})" for n in range(1, many))}
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"%d" % number for number in range(many)}


# --- swaps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before create", "before write", "before land"])
@pytest.mark.parametrize("what", ["folder", "parent"])
def test_F3_a_folder_swapped_for_a_symlink_in_mid_transfer_gets_nothing(tmp_path: Path, moment: str, what: str) -> None:
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    folder = tmp_path / "parent" / "in"
    folder.mkdir(parents=True)
    swapped = folder if what == "folder" else folder.parent

    def swap() -> None:
        swapped.rename(tmp_path / "moved")
        swapped.symlink_to(outside)

    with Destination.open(folder) as destination:
        if moment == "before create":
            swap()
        with destination.create() as partial:
            if moment == "before write":
                swap()
            partial.write([memoryview(CONTENT)])
            if moment == "before land":
                swap()
            partial.land("file", sync=True)
    assert tree(outside) == {"in": "folder"}
    kept = tmp_path / "moved" if what == "folder" else tmp_path / "moved" / "in"
    assert tree(kept) == {"file": CONTENT}


def test_F3_a_folder_that_is_removed_in_mid_transfer_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with Destination.open(folder) as destination:
        with destination.create() as partial:
            partial.write([memoryview(CONTENT)])
            shutil.rmtree(folder)
            with pytest.raises(FileError):
                partial.land("file", sync=True)
        with pytest.raises(FileError):
            destination.create()
    assert tree(tmp_path) == {}


# --- modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("002", 0o664), ("000", 0o666)])
def test_F7_the_mode_passes_the_umask_and_nothing_is_executable(tmp_path: Path, umask: str, mode: int) -> None:
    script = """
import os, sys
os.umask(int(sys.argv[2], 8))
from pathlib import Path
from glide.transfer.landing import Destination
with Destination.open(Path(sys.argv[1])) as destination, destination.create() as partial:
    partial.write([memoryview(b"#!/bin/sh")])
    partial.land("script.sh", sync=False)
print(oct(os.umask(0)))
"""
    assert int(apart.run(script, tmp_path, umask), 8) == int(umask, 8)  # it is the same as before, too
    assert stat.S_IMODE((tmp_path / "script.sh").stat().st_mode) == mode


def test_F7_no_special_bit_comes_from_the_folder_either(tmp_path: Path) -> None:
    tmp_path.chmod(0o3777)
    mode = stat.S_IMODE(land(tmp_path, "file").stat().st_mode)
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | 0o111)


# --- cleaning up -----------------------------------------------------------------------------------------


def test_F9_what_did_not_land_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"mine")
    (tmp_path / ".glide-000000000000000000000000.part").write_bytes(b"another transfer's")
    (tmp_path / "folder").mkdir()
    before = tree(tmp_path)
    with Destination.open(tmp_path) as destination:
        with destination.create() as partial:
            partial.write([memoryview(CONTENT)])
        assert tree(tmp_path) == before
        with pytest.raises(RuntimeError), destination.create() as partial:
            raise RuntimeError
        assert tree(tmp_path) == before
        with destination.create() as other:
            other.write([memoryview(b"goes on")])
            with destination.create() as partial:
                partial.write([memoryview(CONTENT)])
            assert other.land("other", sync=False).read_bytes() == b"goes on"
    assert tree(tmp_path) == {**before, "other": b"goes on"}


def test_F9_a_temporary_file_that_somebody_removed_is_no_second_error(tmp_path: Path) -> None:
    with Destination.open(tmp_path) as destination, destination.create() as partial:
        (tmp_path / partial.name).unlink()
    with Destination.open(tmp_path) as destination, destination.create() as partial:
        (tmp_path / partial.name).unlink()
        with pytest.raises(FileError):
            partial.land("file", sync=False)
    assert os.listdir(tmp_path) == []


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for number in range(10):
        land(tmp_path, f"file {number}")
    if os.path.isdir("/proc/self/fd"):
        assert set(os.listdir("/proc/self/fd")) == before


# --- writing ---------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_pieces_of_any_sizes_arrive_in_order(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="glide-test-") as folder:
        with Destination.open(Path(folder)) as destination, destination.create() as partial:
            partial.write([memoryview(content) for content in contents])
            path = partial.land("file", sync=False)
        assert path.read_bytes() == b"".join(contents)


def test_more_pieces_than_the_system_takes_in_one_call_are_written(tmp_path: Path) -> None:
    # A sender may put its bytes into DATA frames as small as it likes; IOV_MAX is 1024 on Linux.
    contents = [b"%6d" % number for number in range(5000)]
    with Destination.open(tmp_path) as destination, destination.create() as partial:
        partial.write([memoryview(content) for content in contents])
        path = partial.land("file", sync=False)
    assert path.read_bytes() == b"".join(contents)


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    draw = random.Random(7)

    def short(descriptor: int, buffers: list[memoryview]) -> int:
        return real(descriptor, [buffers[0][: draw.randrange(1, len(buffers[0]) + 1)]])

    monkeypatch.setattr(os, "writev", short)
    content = random.Random(8).randbytes(20_000)
    with Destination.open(tmp_path) as destination, destination.create() as partial:
        partial.write([memoryview(content)[at : at + 3000] for at in range(0, len(content), 3000)])
        assert partial.land("file", sync=False).read_bytes() == content


# --- full disks and closed folders -----------------------------------------------------------------------


@apart.root
def test_F11_a_full_disk_is_told_and_nothing_of_the_file_is_left(tmp_path: Path) -> None:
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        (folder / "mine").write_bytes(b"mine")
        with Destination.open(folder) as destination, destination.create() as partial:
            partial.write([memoryview(bytes(512 * 1024))])
            with pytest.raises(FileError, match="disk is full") as caught:
                partial.write([memoryview(bytes(768 * 1024))])
        assert "--into" in caught.value.next
        assert str(folder) not in str(caught.value), "the sender reads this as well"
        assert tree(folder) == {"mine": b"mine"}
        assert land(folder, "fits").name == "fits"


@apart.root
def test_F11_what_will_not_fit_is_told_before_the_first_byte(tmp_path: Path) -> None:
    with (
        apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder,
        Destination.open(folder) as destination,
    ):
        destination.check_room(1024 * 1024)
        with pytest.raises(FileError, match=r"disk is too full for 1\.0 MiB"):
            destination.check_room(1024 * 1024 + 1)
        (folder / "half").write_bytes(bytes(512 * 1024))
        with pytest.raises(FileError, match=r"disk is too full for 1\.0 MiB"):
            destination.check_room(1024 * 1024)


def test_F11_no_disk_has_room_for_everything(tmp_path: Path) -> None:
    with Destination.open(tmp_path) as destination:
        destination.check_room(0)
        with pytest.raises(FileError, match="full"):
            destination.check_room(2**63 - 1)


def test_F11_a_system_that_does_not_say_how_much_is_free_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: object) -> os.statvfs_result:
        raise OSError(errno.ENOSYS, "no")

    monkeypatch.setattr(os, "statvfs", unknown)
    with Destination.open(tmp_path) as destination:
        destination.check_room(2**63 - 1)


def test_F11_a_file_larger_than_allowed_is_told_and_removed(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from glide.errors import FileError
from glide.transfer.landing import Destination
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    with Destination.open(Path(sys.argv[1])) as destination, destination.create() as partial:
        for _ in range(3):
            partial.write([memoryview(bytes(40000))])
except FileError as error:
    print(error)
"""
    assert "larger than allowed" in apart.run(script, tmp_path)
    assert os.listdir(tmp_path) == []


OPEN_AS_NOBODY = """
import sys
from pathlib import Path
from glide.errors import FileError
from glide.transfer.landing import Destination
{become}
try:
    Destination.open(Path(sys.argv[1])).close()
    print("opened")
except FileError as error:
    print(error)
"""


@apart.root
@pytest.mark.parametrize("mode", [0o755, 0o555, 0o700, 0o000, 0o776])
def test_F11_a_folder_without_permission_is_told_before_any_offer(mode: int) -> None:
    with apart.public_folder() as folder:
        (folder / "in").mkdir()
        (folder / "in").chmod(mode)
        said = apart.run(OPEN_AS_NOBODY.format(become=apart.NOBODY), folder / "in")
        assert "cannot be received into" in said
        assert "permission" in said.lower()
        (folder / "in").chmod(0o777)
        assert apart.run(OPEN_AS_NOBODY.format(become=apart.NOBODY), folder / "in") == "opened"


@apart.root
def test_F11_a_folder_that_becomes_read_only_in_mid_transfer_is_told(tmp_path: Path) -> None:
    with apart.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        with Destination.open(folder) as destination:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            with pytest.raises(FileError, match=r"[Rr]ead-only"):
                destination.create()
        assert os.listdir(folder) == []


@pytest.mark.parametrize("kind", ["missing", "file", "dangling", "missing parent"])
def test_F11_what_is_no_folder_is_told(tmp_path: Path, kind: str) -> None:
    into = tmp_path / "into"
    if kind == "file":
        into.write_bytes(b"")
    elif kind == "dangling":
        into.symlink_to(tmp_path / "nothing")
    elif kind == "missing parent":
        into = into / "deeper"
    before = tree(tmp_path)
    with pytest.raises(FileError, match="cannot be received into") as caught:
        Destination.open(into)
    assert "--into" in caught.value.next
    assert tree(tmp_path) == before


def test_a_destination_may_itself_be_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert land(tmp_path / "link", "file") == tmp_path.resolve() / "real" / "file"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "larger than allowed"),
        (errno.EROFS, "cannot be written"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_F11_a_failed_write_is_put_into_words(number: int, words: str) -> None:
    error = landing.disk_error(OSError(number, os.strerror(number), "/home/bob/secret"))
    assert words in error.what
    assert "Nothing was kept" in error.means
    assert error.next
    assert "secret" not in str(error)


# --- file systems without hard links ---------------------------------------------------------------------


@apart.root
def test_F6_on_a_file_system_without_hard_links_nothing_is_replaced_either(tmp_path: Path) -> None:
    if shutil.which("mkfs.vfat") is None or "vfat" not in Path("/proc/filesystems").read_text(encoding="ascii").split():
        pytest.skip("no mkfs.vfat, or a kernel without vfat: see the tests of the same promise below")
    image = tmp_path / "image"
    image.write_bytes(bytes(4 * 1024 * 1024))
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True)
    with apart.mounted(tmp_path / "fat", "-o", "loop", str(image)) as folder:
        assert [land(folder, "a.txt", b"%d" % n).name for n in range(3)] == ["a.txt", "a (1).txt", "a (2).txt"]
        assert land(folder, "A.TXT").name == "A (1).TXT" or (folder / "A.TXT").read_bytes() == CONTENT
        assert (folder / "a.txt").read_bytes() == b"0"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="renameat2 is Linux's")
def test_F6_a_rename_that_replaces_nothing(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "old").write_bytes(b"old")
        (tmp_path / "link").symlink_to("nothing")
        (tmp_path / "folder").mkdir()
        for taken in ("old", "link", "folder"):
            with pytest.raises(FileExistsError):
                landing._rename_noreplace(folder, "new", taken)
        before = tree(tmp_path)
        assert before == {"new": b"new", "old": b"old", "link": ("link", "nothing"), "folder": "folder"}
        landing._rename_noreplace(folder, "new", "naïve 漢")
        assert tree(tmp_path) == {"naïve 漢": b"new", "old": b"old", "link": ("link", "nothing"), "folder": "folder"}
        with pytest.raises(FileNotFoundError):
            landing._rename_noreplace(folder, "new", "newer")
    finally:
        os.close(folder)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_F6_where_there_are_no_hard_links_the_rename_takes_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", none)
    assert [land(tmp_path, "a.txt", b"%d" % n).name for n in range(3)] == ["a.txt", "a (1).txt", "a (2).txt"]
    assert tree(tmp_path) == {"a.txt": b"0", "a (1).txt": b"1", "a (2).txt": b"2"}


def test_F6_where_there_is_neither_link_nor_rename_it_is_told_and_nothing_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    class Bare:
        """A C library that does not know renameat2."""

    monkeypatch.setattr(os, "link", none)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Bare())
    with pytest.raises(FileError, match="no hard links"):
        land(tmp_path, "a.txt")
    assert os.listdir(tmp_path) == []


def test_F5_an_error_of_the_disk_while_syncing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with Destination.open(tmp_path) as destination, destination.create() as partial:
        partial.write([memoryview(CONTENT)])
        with pytest.raises(FileError, match="cannot be written"):
            partial.land("file", sync=True)
    assert os.listdir(tmp_path) == []
