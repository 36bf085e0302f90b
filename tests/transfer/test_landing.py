"""How what arrived gets its names: all of it at once, in nobody's place, and what stands there whatever happens."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import glide
from glide.client import partials
from glide.errors import Declined, FileError
from glide.protocol.endtoend import ItemKind
from glide.transfer import folders
from glide.transfer.destination import Destination, disk_error, new_stage
from glide.transfer.landing import Conflict
from glide.transfer.stock import State
from tests.transfer import apart
from tests.transfer.arriving import (
    ROOT,
    THEN,
    Found,
    Receiving,
    Tree,
    arrival,
    as_found,
    land,
    listed,
    manifest_of,
    shown,
    stages,
    tree,
)

SOURCE = Path(glide.__file__).parent
CONTENT = b"what was sent"
SENT: Tree = {"d": None, "d/e": None, "d/s": None, "d/s/deep": b"deep", "d/x": CONTENT, "file.txt": CONTENT}


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def descriptors() -> set[str]:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    return set(os.listdir("/proc/self/fd"))


# --- the one place ---------------------------------------------------------------------------------------

# What changes the file system, and the modules of the transfer layer that may.
_OS = {"open", "link", "rename", "renames", "replace", "unlink", "remove", "mkdir", "makedirs", "rmdir", "symlink"}
_OS |= {"mknod", "mkfifo", "truncate", "ftruncate", "chmod", "fchmod", "chown", "utime", "write", "writev", "pwrite"}
_OS |= {"pwritev"}
_PATH = {"write_text", "write_bytes", "rename", "unlink", "mkdir", "symlink_to", "hardlink_to", "chmod", "rmdir"}
_MODULES = {"shutil", "tempfile", "tarfile", "zipfile"}
_WRITERS = {
    "folders.py": {
        "os.open",
        "os.link",
        "os.rename",
        "os.replace",
        "os.unlink",
        "os.mkdir",
        "os.pwrite",
        "os.pwritev",
        "os.write",
    },
    "staging.py": {"os.fchmod", "os.utime", "shutil"},
    "destination.py": {"shutil"},
    "journal.py": {".mkdir", ".chmod", ".unlink"},  # names that no peer has a say in
    "assembling.py": {"os.write"},  # to standard output
    "sources.py": {"os.open"},  # the sender's own
}
_OWN = {
    "folders.py": {".unlink", ".replace"},
    "staging.py": {".unlink"},
    "landing.py": {".unlink"},
}  # methods of a Folder
_BUILTIN = {"gathering.py": {"open"}}  # a .gitignore, by its descriptor


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


def test_F2_files_are_touched_relative_to_open_folders_and_in_one_place() -> None:
    found = {path.name: _touches(path) for path in (SOURCE / "transfer").glob("*.py")}
    allowed = {name: _WRITERS.get(name, set()) | _OWN.get(name, set()) | _BUILTIN.get(name, set()) for name in found}
    assert {name: what - allowed[name] for name, what in found.items() if what - allowed[name]} == {}
    assert {"os.open", "os.link", "os.unlink"} <= found["folders.py"], "the check sees what it looks for"


def test_F2_only_landing_gives_a_received_file_its_name() -> None:
    callers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "move_new"
    }
    assert callers == {"transfer/landing.py"}


# --- names appear at the end, all of them ----------------------------------------------------------------


def test_F5_names_appear_only_with_all_of_the_content(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), SENT) as receiving:
        for _ in range(receiving.wanted - 1):
            receiving.feed(1)
            assert shown(into) == {}
        receiving.feed()
        receiving.check()
        assert shown(into) == {}
        receiving.finish()
        assert tree(into) == as_found(SENT)


def test_F5_while_bytes_come_there_is_one_private_folder_of_an_unpredictable_name(into: Path, journals: Path) -> None:
    names = set()
    for _ in range(10):
        with Receiving(arrival(into, journals), SENT) as receiving:
            receiving.feed(10)
            (name,) = os.listdir(into)
            random_part = name.removeprefix(".glide-").removesuffix(".part")
            assert len(random_part) == 24
            assert set(random_part) <= set("0123456789abcdef")
            found = os.lstat(into / name)
            assert stat.S_ISDIR(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o700
            assert found.st_dev == into.stat().st_dev
            names.add(name)
        partials.clear(journals, lambda _: None)
        assert os.listdir(into) == []
    assert len(names) == 10


def test_F5_a_file_that_is_not_whole_is_its_owners_alone(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), {"a": CONTENT}) as receiving:
        receiving.feed(5)
        (stage,) = stages(into)
        assert stat.S_IMODE((into / stage / "0").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_F5_a_stage_is_never_something_else_of_that_name(into: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "outside").mkdir()
    name = new_stage()
    if kind == "file":
        (into / name).write_bytes(b"somebody else's")
    else:
        (into / name).symlink_to(tmp_path / "outside" if kind == "link" else tmp_path / "nothing")
    before = tree(tmp_path)
    with Destination.open(into) as destination, pytest.raises(FileError):
        destination.stage(name)
    assert tree(tmp_path) == before


# --- conflicts -------------------------------------------------------------------------------------------

KINDS = ["file", "empty", "folder", "full folder", "link", "dangling", "loop", "fifo"]


def _stand(taken: Path, outside: Path, kind: str) -> None:
    match kind:
        case "file" | "empty":
            taken.write_bytes(b"mine" if kind == "file" else b"")
        case "folder" | "full folder":
            taken.mkdir()
            if kind == "full folder":
                (taken / "inside").write_bytes(b"mine")
        case "link" | "dangling" | "loop":
            taken.symlink_to({"link": outside, "dangling": outside.with_name("nothing"), "loop": taken}[kind])
        case "fifo":
            os.mkfifo(taken)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["file.txt", "d"])
def test_F6_what_stands_under_the_name_is_neither_followed_nor_replaced(
    into: Path, journals: Path, kind: str, name: str
) -> None:
    outside, taken = into.with_name("outside"), into / name
    outside.write_bytes(b"untouched")
    _stand(taken, outside, kind)
    before = os.lstat(taken)
    assert land(into, journals, SENT).items == 3
    after = os.lstat(taken)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert outside.read_bytes() == b"untouched"
    other = "file (1).txt" if name == "file.txt" else "d (1)"
    assert set(os.listdir(into)) == {"d", "file.txt", other}
    if name == "file.txt":
        assert (into / other).read_bytes() == CONTENT
    else:
        assert (into / other / "s" / "deep").read_bytes() == b"deep"


def test_F6_numbers_go_on(into: Path, journals: Path) -> None:
    for _ in range(3):
        land(into, journals, {"a.txt": CONTENT, "d": None})
    names = ["a (1).txt", "a (2).txt", "a.txt", "d", "d (1)", "d (2)"]
    assert sorted(os.listdir(into)) == names


@pytest.mark.parametrize(
    "name",
    ["x" * 251 + ".txt", "x" * 255, "漢" * 83 + ".txt", "é" * 127, "a." + "x" * 253],
    ids=["extension", "none", "three bytes a letter", "two bytes a letter", "all extension"],
)
def test_F6_a_number_fits_behind_the_longest_name(into: Path, journals: Path, name: str) -> None:
    (into / name).write_bytes(b"first")
    land(into, journals, {name: CONTENT})
    (second,) = set(os.listdir(into)) - {name}
    assert tree(into) == {name: b"first", second: CONTENT}


def test_F6_refuse_declines_before_anything_is_written(into: Path, journals: Path) -> None:
    (into / "d").symlink_to("nothing")
    with pytest.raises(Declined, match="'d' exists") as caught:
        Receiving(arrival(into, journals, Conflict.REFUSE), SENT)
    assert "'d' exists" in caught.value.for_peer
    assert tree(into.parent) == {"in": "folder", "in/d": ("link", "nothing"), "journals": "folder"}


def test_F6_refuse_replaces_nothing_that_appears_later(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals, Conflict.REFUSE), SENT) as receiving:
        (into / "d").mkdir()
        assert receiving.finish().items == 1
        assert receiving.storage.stock.problems == dict.fromkeys(range(5), "something of that name has appeared")
    assert tree(into) == {"d": "folder", "file.txt": CONTENT}


MINE: Tree = {"d": None, "d/mine": b"mine", "d/s": None, "d/s/deep": b"mine, deep", "file.txt": b"mine, file"}


def _put(into: Path, standing: Tree) -> None:
    for path, content in standing.items():
        if content is None:
            (into / path).mkdir()
        else:
            (into / path).write_bytes(content)


def test_F6_overwrite_replaces_files_and_fills_folders_and_touches_nothing_else(into: Path, journals: Path) -> None:
    _put(into, MINE)
    assert land(into, journals, SENT, Conflict.OVERWRITE).items == 3
    assert tree(into) == as_found({**MINE, **SENT})


def test_F6_overwrite_replaces_a_link_and_not_what_it_points_to(into: Path, journals: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"untouched")
    _put(into, {"d": None})
    (into / "file.txt").symlink_to(tmp_path / "outside")
    (into / "d" / "x").symlink_to(tmp_path / "outside")
    land(into, journals, SENT, Conflict.OVERWRITE)
    assert tree(into) == as_found(SENT)
    assert (tmp_path / "outside").read_bytes() == b"untouched"


@pytest.mark.parametrize("conflict", [Conflict.OVERWRITE, Conflict.SKIP])
@pytest.mark.parametrize("path", ["d", "d/s"])
def test_F3_a_link_in_the_place_of_a_folder_is_not_gone_through(
    into: Path, journals: Path, tmp_path: Path, conflict: Conflict, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if path == "d/s":
        (into / "d").mkdir()
    (into / path).symlink_to(outside)
    beside = conflict is Conflict.SKIP and path == "d"
    assert land(into, journals, SENT, conflict).items == (3 if beside else 1 if path == "d" else 2)
    assert tree(outside) == {}
    assert (into / path).is_symlink()


@pytest.mark.parametrize("path", ["d", "d/s", "d/x", "file.txt"])
def test_F6_overwrite_never_puts_a_file_in_the_place_of_a_folder_or_the_reverse(
    into: Path, journals: Path, path: str
) -> None:
    standing: dict[str, bytes | None] = {"d": None} if "/" in path else {}
    standing[path] = b"mine" if SENT[path] is None else None
    if SENT[path] is not None:
        standing[f"{path}/inner"] = b"mine"
    _put(into, standing)
    lost = [each for each in SENT if each == path or each.startswith(f"{path}/")]
    with Receiving(arrival(into, journals, Conflict.OVERWRITE), SENT) as receiving:
        confirmed = receiving.finish()
        assert {receiving.manifest.item(number).path for number in receiving.storage.stock.problems} == set(lost)
    assert confirmed.items == 3 - sum(SENT[each] is not None for each in lost)
    expected = as_found({each: SENT[each] for each in SENT if each not in lost})
    assert tree(into) == {**expected, **as_found(standing)}


def test_F6_skip_leaves_what_is_the_same_and_puts_the_rest_beside_it(into: Path, journals: Path) -> None:
    _put(into, {**MINE, "d/x": CONTENT})
    before = (into / "d" / "x").stat()
    with Receiving(arrival(into, journals, Conflict.SKIP), SENT) as receiving:
        assert receiving.wanted == len(b"deep") + len(CONTENT), "what is there is not sent"
        assert receiving.finish().items == 3
        paths = {str(Path(saved.path).relative_to(into.resolve())) for saved in receiving.storage.saved()}
        assert paths == {"d", "d/s/deep (1)", "file (1).txt"}
    after = (into / "d" / "x").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    more = {"d/x": CONTENT, "d/e": None, "d/s/deep (1)": b"deep", "file (1).txt": CONTENT}
    assert tree(into) == as_found({**MINE, **more})


def test_F6_skip_compares_contents_and_not_sizes(into: Path, journals: Path) -> None:
    other = bytes(len(CONTENT))
    _put(into, {"file.txt": other, "d": None, "d/x": other})
    with Receiving(arrival(into, journals, Conflict.SKIP), SENT) as receiving:
        assert receiving.wanted == len(b"deep")
        assert receiving.finish().items == 3
        assert sum(length for _, length in receiving.asked_again) == 2 * len(CONTENT)
    found = tree(into)
    assert (found["file.txt"], found["file (1).txt"]) == (other, CONTENT)
    assert (found["d/x"], found["d/x (1)"]) == (other, CONTENT)


@pytest.mark.parametrize("conflict", list(Conflict))
def test_F6_what_landed_beside_something_else_is_not_received_twice_if_the_receipt_was_lost(
    into: Path, journals: Path, conflict: Conflict
) -> None:
    if conflict is not Conflict.REFUSE:
        _put(into, MINE)
    with Receiving(arrival(into, journals, conflict), SENT) as receiving:
        confirmed = receiving.finish()
    before = tree(into)
    with Receiving(arrival(into, journals, conflict), SENT) as receiving:
        assert receiving.storage.confirmed == confirmed
        assert receiving.finish() == confirmed
        receiving.storage.known()
    assert tree(into) == before
    assert list(journals.iterdir()) == []


def test_F6_what_landed_in_part_is_not_received_twice_if_the_receipt_was_lost(into: Path, journals: Path) -> None:
    sent: Tree = {"a": CONTENT, "d": None, "d/x": CONTENT, "d/y": CONTENT, "z": CONTENT}
    readable = {path: sent[path] for path in sent if path not in ("a", "d/y")}
    with Receiving(arrival(into, journals), readable, manifest_of(sent)) as receiving:
        confirmed = receiving.finish()
        assert confirmed.items == 2
    with Receiving(arrival(into, journals), readable, manifest_of(sent)) as receiving:
        assert receiving.storage.confirmed == confirmed
    assert tree(into) == as_found(readable)


def test_what_landed_and_was_removed_since_is_received_anew(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.finish()
    (into / "file.txt").unlink()
    with Receiving(arrival(into, journals), SENT) as receiving:
        assert receiving.storage.confirmed is None
        receiving.finish()
        receiving.storage.known()
    assert (into / "file.txt").read_bytes() == CONTENT


RACER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from glide.events import SavedFolder
from tests.transfer.arriving import Receiving, arrival
top, who, count = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    content = f"{who} {number}".encode()
    sent = {"d": None, "d/file": content, "name.txt": content}
    with Receiving(arrival(top / "in", top / f"journals{who}"), sent) as receiving:
        assert receiving.finish().items == 2
        receiving.storage.known()
        for saved in receiving.storage.saved():
            path = Path(saved.path) / "file" if isinstance(saved, SavedFolder) else Path(saved.path)
            assert path.read_bytes() == content, path
print("done")
"""


def test_F6_many_processes_that_land_under_one_name_at_once_get_a_file_and_a_folder_each(
    into: Path, tmp_path: Path
) -> None:
    processes, count = 4, 12
    _put(into, {"name.txt": b"there before", "d": None, "d/file": b"there before"})
    racers = [apart.start(RACER, ROOT, tmp_path, str(n), str(count)) for n in range(processes)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [racer.communicate()[0] for racer in racers] == ["done\n"] * processes
    total = processes * count
    everybodys = {f"{who} {number}" for who in range(processes) for number in range(count)}
    files = {path.name: path.read_text() for path in into.iterdir() if path.is_file()}
    inner = {path.name: (path / "file").read_text() for path in into.iterdir() if path.is_dir()}
    assert set(files) == {"name.txt", *(f"name ({n}).txt" for n in range(1, total + 1))}
    assert set(inner) == {"d", *(f"d ({n})" for n in range(1, total + 1))}
    for found, first in ((files, "name.txt"), (inner, "d")):
        assert found.pop(first) == "there before"
        assert set(found.values()) == everybodys


# --- two names that are one to the disk ------------------------------------------------------------------


def test_F4_something_in_the_way_in_the_stage_fails_that_item_alone(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), {"d": None, "first": CONTENT}) as receiving:
        receiving.feed()
    (stage,) = stages(into)
    (into / stage / "0" / "x").mkdir()
    sent: Tree = {"d": None, "d/s": None, "d/s/deep": b"deep", "d/x": CONTENT, "first": CONTENT}
    with Receiving(arrival(into, journals), sent) as receiving:
        confirmed = receiving.finish()
        problems = receiving.storage.stock.problems
        there = {item.path for n, item in enumerate(receiving.manifest) if n not in problems}
    # It is replaced, since nobody vouches for it, or what it keeps out fails; never neither.
    assert confirmed.items == sum(sent[path] is not None for path in there)
    for path in there:
        assert (into / path).is_dir() if sent[path] is None else (into / path).read_bytes() == sent[path]


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk to which upper and lower case are the same, as far as names in open folders go."""

    def actual(name: object, within: int | None) -> object:
        if within is None or not isinstance(name, str):
            return name
        return next((each for each in os.listdir(within) if each.casefold() == name.casefold()), name)

    def around(call: Callable[..., object]) -> Callable[..., object]:
        def folded(name: object, *arguments: object, dir_fd: int | None = None, **words: object) -> object:
            return call(actual(name, dir_fd), *arguments, dir_fd=dir_fd, **words)

        return folded

    def around_both(call: Callable[..., object]) -> Callable[..., object]:
        def folded(old: object, new: object, *, src_dir_fd: int, dst_dir_fd: int, **words: object) -> object:
            old, new = actual(old, src_dir_fd), actual(new, dst_dir_fd)
            return call(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **words)

        return folded

    real = folders._rename_new

    def rename_new(source: folders.Folder, name: str, to: folders.Folder, final: str) -> None:
        real(source, str(actual(name, source.descriptor)), to, str(actual(final, to.descriptor)))

    for name in ("open", "stat", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, around(getattr(os, name)))
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, around_both(getattr(os, name)))
    monkeypatch.setattr(folders, "_rename_new", rename_new)


TWINS: Tree = {
    "A": b"first",
    "D": None,
    "D/x": b"in D",
    "a": b"second",
    "d": None,
    "d/X": b"large",
    "d/e": None,
    "d/e/y": b"y",
    "d/x": b"small",
}


def _twins(into: Path, journals: Path, conflict: Conflict) -> tuple[Found, int]:
    with Receiving(arrival(into, journals, conflict), TWINS) as receiving:
        items = receiving.finish().items
        failed = [receiving.manifest.item(number) for number in receiving.storage.stock.problems]
        assert sum(item.kind is not ItemKind.FOLDER for item in failed) == receiving.manifest.files - items
        receiving.storage.known()
    return tree(into), items


@pytest.mark.usefixtures("folding")
@pytest.mark.parametrize("conflict", list(Conflict))
def test_F4_names_that_are_one_to_the_disk_never_replace_each_other(
    into: Path, journals: Path, conflict: Conflict
) -> None:
    found, items = _twins(into, journals, conflict)
    contents = {content for content in found.values() if isinstance(content, bytes)}
    first = {b"first", b"in D"} if conflict is Conflict.REFUSE else {b"first", b"in D", b"large", b"y"}
    assert first <= contents, "the first of two stands"
    assert len(contents) == items, "what is confirmed stands"
    assert found["A"] == b"first"
    assert found["D/x"] == b"in D"


@apart.root
def test_F4_on_a_real_disk_that_folds_case_the_same_holds(tmp_path: Path, journals: Path) -> None:
    where = tmp_path / "folding"
    with apart.mounted(where, "-t", "tmpfs", "-o", "casefold", "none") as folder:
        (folder / "in").mkdir()
        (tmp_path / "probe").mkdir()
        for number, conflict in enumerate(Conflict):
            target = folder / f"in{number}"
            target.mkdir()
            apart.run("import subprocess, sys; subprocess.run(['chattr', '+F', sys.argv[1]], check=True)", target)
            found, items = _twins(target, journals, conflict)
            contents = {content for content in found.values() if isinstance(content, bytes)}
            assert len(contents) == items


# --- swaps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["after opening", "half way", "before landing"])
@pytest.mark.parametrize("what", ["folder", "parent"])
def test_F3_a_folder_swapped_for_a_symlink_in_mid_transfer_gets_nothing(
    tmp_path: Path, journals: Path, moment: str, what: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    folder = tmp_path / "parent" / "in"
    folder.mkdir(parents=True)
    swapped = folder if what == "folder" else folder.parent

    def swap(now: str) -> None:
        if now == moment:
            swapped.rename(tmp_path / "moved")
            swapped.symlink_to(outside)

    with Receiving(arrival(folder, journals, sync=True), SENT) as receiving:
        swap("after opening")
        receiving.feed(20)
        swap("half way")
        receiving.feed()
        swap("before landing")
        receiving.finish()
    assert tree(outside) == {"in": "folder"}
    kept = tmp_path / "moved" if what == "folder" else tmp_path / "moved" / "in"
    assert tree(kept) == as_found(SENT)


SWAPPER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from glide.errors import GlideError
from glide.transfer.landing import Conflict
from tests.transfer.arriving import Receiving, arrival, tree

top, conflict, merge, target = Path(sys.argv[2]), Conflict(sys.argv[3]), sys.argv[4] == "merge", sys.argv[5]
SENT = {"d": None, "d/e": None, "d/s": None, "d/s/deep": b"deep", "d/x": b"x" * 1000, "d/z": b"", "file": b"file"}
EVENTS = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.listdir", "os.utime", "os.chmod"}
left, outside = -1, None

def hook(event, arguments):
    # Just before the nth thing that is done with files, somebody swaps a folder for a symlink to another.
    global left
    if left < 0 or event not in EVENTS:
        return
    left -= 1
    if left >= 0:
        return
    for path in sorted(here.glob(target)):
        if path.is_dir() and not path.is_symlink():
            os.rename(path, here / "moved")
            os.symlink(outside, path)
            swapped.add(target)
            break

sys.addaudithook(hook)
swapped = set()
done = 0
for again in (False, True):
    step = 0
    while True:
        here = top / f"{done}"
        done += 1
        outside = here / "outside"
        for path in (outside / "s", outside / "0" / "s", outside / "d" / "s", here / "in"):
            path.mkdir(parents=True)
        (outside / "x").write_bytes(b"untouched")
        if merge:
            (here / "in" / "d" / "s").mkdir(parents=True)
            (here / "in" / "d" / "s" / "deep").write_bytes(b"mine")
        before = tree(outside)
        if again:
            with Receiving(arrival(here / "in", here / "journals", conflict), SENT) as receiving:
                receiving.feed(300)
        # The destination itself a person named: it may be a link when it is opened, though not become one later.
        left = -1 if target == "in" else step
        try:
            with Receiving(arrival(here / "in", here / "journals", conflict), SENT) as receiving:
                left = step if target == "in" else left
                receiving.finish()
        except GlideError:
            pass
        finally:
            over, left = left >= 0, -1
        assert tree(outside) == before, (target, again, step, tree(outside))
        if over:
            break
        step += 2
assert swapped == {target}
print("ok", done)
"""


@pytest.mark.skipif(not folders.RELATIVE, reason="needs open folders")
@pytest.mark.parametrize("target", ["in", "in/.glide-*", "in/.glide-*/*", "in/.glide-*/*/s", "in/d", "in/d/s"])
@pytest.mark.parametrize(
    ("conflict", "into_existing"),
    [(Conflict.OVERWRITE, "merge"), (Conflict.SKIP, "merge"), (Conflict.RENAME, "new")],
)
def test_F3_a_folder_swapped_for_a_symlink_at_any_step_lets_nothing_out(
    tmp_path: Path, conflict: Conflict, into_existing: str, target: str
) -> None:
    assert apart.run(SWAPPER, ROOT, tmp_path, conflict, into_existing, target).startswith("ok")


def test_F3_a_destination_that_is_removed_in_mid_transfer_is_an_error(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(5)
        shutil.rmtree(into)
        with pytest.raises(FileError):
            receiving.finish()
    assert shown(into.parent) == {
        "journals": "folder",
        **{f"journals/{p.name}": p.read_bytes() for p in journals.iterdir()},
    }


@pytest.mark.parametrize("what", ["stage", "item", "destination"])
@pytest.mark.parametrize("conflict", [each for each in Conflict if each is not Conflict.REFUSE])
@pytest.mark.parametrize("standing", [b"", CONTENT, b"another"])
def test_C4_what_somebody_removed_before_it_landed_is_not_confirmed(
    into: Path, journals: Path, what: str, conflict: Conflict, standing: bytes
) -> None:
    sent: Tree = {"file.txt": CONTENT, "other.txt": CONTENT * 2}
    if standing:
        (into / "file.txt").write_bytes(standing)
    before = tree(into)
    with Receiving(arrival(into, journals, conflict), sent) as receiving:
        receiving.feed()
        (stage,) = stages(into)
        if what == "item":
            (into / stage / "1").unlink()
        else:
            shutil.rmtree(into / stage if what == "stage" else into)
        with pytest.raises(FileError):
            receiving.finish()
    if what == "destination":
        into.mkdir()
    else:
        assert {path: found for path, found in tree(into).items() if ".glide-" not in path} == before
    with Receiving(arrival(into, journals, conflict), sent) as receiving:  # again: what is gone comes anew
        receiving.finish()
        receiving.storage.known()
    assert CONTENT in tree(into).values()
    assert (into / "other.txt").read_bytes() == CONTENT * 2
    assert stages(into) == []


# --- killed ----------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from glide.client import partials
from glide.transfer.landing import Conflict
from tests.transfer.arriving import Receiving, Standing, arrival, as_found, listed, shown, stages, tree

top, conflict, merge = Path(sys.argv[2]), Conflict(sys.argv[3]), sys.argv[4] == "merge"
SENT = {"a": b"a" * 100, "d": None, "d/e": None, "d/s": None, "d/s/deep": b"deep", "d/x": b"x" * 1000, "z": b""}
MINE = {"a": b"mine", "d": None, "d/mine": b"mine", "d/s": None, "d/s/deep": b"my deep", "d/x": None} if merge else {}
STEPS = ("open", "pwrite", "pwritev", "fchmod", "fsync", "link", "unlink", "close", "mkdir", "replace", "utime", "stat")
here = top

def arrive():
    with Receiving(arrival(here / "in", here / "journals", conflict, sync=True), SENT) as receiving:
        receiving.feed(50)
        receiving.feed(500)
        confirmed = receiving.finish()
        (here / "known").mkdir(exist_ok=True)
        receiving.storage.known()
    return confirmed

def fresh(number):
    global here
    here = top / str(number)
    (here / "in").mkdir(parents=True)
    for path, content in MINE.items():
        if content is None:
            (here / "in" / path).mkdir()
        else:
            (here / "in" / path).write_bytes(content)

def check(stood):
    # Whatever stands was there before, or is whole and of this transfer, or is a name that it was to get.
    found = shown(here / "in")
    for path, what in found.items():
        if path in before and before[path] == what:
            continue
        assert path in expected and what == expected[path], (path, stood)
    for path in before:
        assert path in found, path
    assert set(stages(here / "in")) <= {each.about.stage for each in listed(here / "journals")}, stood

def killed_at(step, action):
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
        try:
            action()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFEXITED(status)

# What comes of it when nothing happens.
fresh("calm")
before = as_found(dict(sorted(MINE.items())))
calm = arrive()
expected = shown(here / "in")

step = int(sys.argv[5])
lived = False
deaths = 0
while not lived:
    fresh(step)
    lived = killed_at(step, arrive)
    step += int(sys.argv[6])
    check("killed")
    deaths += not lived
    if (here / "known").exists():
        # The sender knows, and does not come again.
        assert shown(here / "in") == expected
    else:
        # It is offered again, by a sender who does not know how far it came.
        confirmed = arrive()
        found = shown(here / "in")
        if found != expected or confirmed != calm:
            more = {path: found.get(path) for path in set(found) ^ set(expected)}
            print("after step", step - int(sys.argv[6]), confirmed.items, calm.items, sorted(more))
        assert stages(here / "in") == []
        assert listed(here / "journals") == []
print("ok" if deaths > 20 else deaths)
"""


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize(
    ("conflict", "into_existing"),
    [
        (Conflict.RENAME, "new"),
        (Conflict.RENAME, "merge"),
        (Conflict.OVERWRITE, "merge"),
        (Conflict.SKIP, "merge"),
        (Conflict.REFUSE, "new"),
    ],
)
def test_F5_a_kill_at_any_step_leaves_no_wrong_file_and_the_next_try_ends_as_if_nothing_had_been(
    tmp_path: Path, conflict: Conflict, into_existing: str, part: int
) -> None:
    assert apart.run(KILLED, ROOT, tmp_path, conflict, into_existing, str(part), "3") == "ok"


KILLED_AT_RANDOM = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.transfer.arriving import Receiving, arrival, as_found, land, listed, shown, stages
top, draw = Path(sys.argv[2]), random.Random(int(sys.argv[3]))
SENT = {"d": None, **{f"d/{n:02}": bytes([n]) * 5000 for n in range(40)}, "file.bin": bytes(range(256)) * 4096}
for name in ("in", "elsewhere"):
    (top / name).mkdir()

def receive(into, journals):
    with Receiving(arrival(top / into, top / journals, sync=True), SENT) as receiving:
        while receiving._pending:
            receiving.feed(1 << 16)
        receiving.finish()
        receiving.storage.known()

def measured():
    begun = time.monotonic()
    receive("elsewhere", "journals elsewhere")
    return time.monotonic() - begun

takes = min(measured() for _ in range(3))  # on this machine
landed, over = 0, time.monotonic() + 25  # seconds; 25 kills where a disk is no slower than most
for _ in range(25):
    if time.monotonic() > over:
        break
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(tell, b"!")
        while True:
            receive("in", "journals")
    os.read(told, 1)
    time.sleep(draw.random() * 2 * takes)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(told)
    os.close(tell)
    for path in (top / "in").iterdir():
        if path.name.startswith(".glide-"):
            continue
        landed += 1
        if path.is_dir():
            assert {f"d/{each.name}": each.read_bytes() for each in path.iterdir()} == {
                each: content for each, content in SENT.items() if each.startswith("d/")}
        else:
            assert path.read_bytes() == SENT["file.bin"], path
    assert set(stages(top / "in")) <= {each.about.stage for each in listed(top / "journals")}
    assert len(stages(top / "in")) <= 1
print("ok" if landed else "nothing ever landed")
"""


def test_F5_a_kill_at_any_moment_leaves_no_wrong_file_under_a_final_name(tmp_path: Path) -> None:
    assert apart.run(KILLED_AT_RANDOM, ROOT, tmp_path, "20260101") == "ok"


# --- modes and times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("002", 0o664), ("000", 0o666)])
def test_F7_modes_pass_the_umask_with_the_executable_bit_as_it_was_sent(tmp_path: Path, umask: str, mode: int) -> None:
    script = """
import os, sys
os.umask(int(sys.argv[3], 8))
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.transfer.arriving import Receiving, arrival, manifest_of
top = Path(sys.argv[2])
(top / "in").mkdir(mode=0o777)
sent = {"d": None, "d/plain": b"#!/bin/sh", "d/run": b"#!/bin/sh", "empty": b"", "run": b""}
manifest = manifest_of(sent, executable=["d/run", "run"])
with Receiving(arrival(top / "in", top / "journals"), sent, manifest) as receiving:
    receiving.finish()
print(oct(os.umask(0)))
"""
    assert int(apart.run(script, ROOT, tmp_path, umask), 8) == int(umask, 8)  # it is the same as before, too
    into, executable = tmp_path / "in", 0o777 & ~int(umask, 8)
    modes = {path: stat.S_IMODE((into / path).stat().st_mode) for path in ("d", "d/plain", "d/run", "empty", "run")}
    assert modes == {"d": executable, "d/plain": mode, "d/run": executable, "empty": mode, "run": executable}


def test_F7_no_special_bit_comes_from_the_folder_either(into: Path, journals: Path) -> None:
    into.chmod(0o3777)
    sent: Tree = {"d": None, "d/x": CONTENT, "file": CONTENT, "run": CONTENT}
    with Receiving(arrival(into, journals), sent, manifest_of(sent, executable=["run"])) as receiving:
        receiving.finish()
    for path in ("d/x", "file", "run"):
        mode = stat.S_IMODE((into / path).stat().st_mode)
        assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX)
        assert bool(mode & 0o111) is (path == "run")
    assert not (into / "d").stat().st_mode & (stat.S_ISUID | stat.S_ISVTX)


def test_F7_files_and_folders_have_the_times_that_were_sent(into: Path, journals: Path) -> None:
    times = {path: THEN + number * 10**9 for number, path in enumerate(SENT)}
    with Receiving(arrival(into, journals), SENT, manifest_of(SENT, modified=times)) as receiving:
        receiving.finish()
    assert {path: (into / path).stat().st_mtime_ns for path in SENT} == times


@pytest.mark.parametrize("modified", [-(2**63), 2**63 - 1, -1, 0])
def test_a_time_that_the_disk_cannot_hold_loses_no_file(into: Path, journals: Path, modified: int) -> None:
    sent: Tree = {"d": None, "d/x": CONTENT}
    with Receiving(
        arrival(into, journals), sent, manifest_of(sent, modified=dict.fromkeys(sent, modified))
    ) as receiving:
        receiving.finish()
    assert tree(into) == as_found(sent)


# --- what is removed -------------------------------------------------------------------------------------


def test_F9_what_did_not_land_goes_with_its_stage_and_nothing_else_does(into: Path, journals: Path) -> None:
    _put(into, MINE)
    foreign = into / new_stage()
    foreign.mkdir()
    (foreign / "0").write_bytes(b"another transfer's")
    before = tree(into)
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(5)
    assert tree(into) != before
    assert partials.clear(journals, lambda _: None) == 1
    assert tree(into) == before


def test_F9_where_nothing_arrived_nothing_is_left(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), {"a": CONTENT, "d": None}):
        pass
    assert tree(into) == {}
    assert list(journals.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "mine",
        "../outside",
        ".glide-/../mine.part",
        ".glide-x/../../outside.part",
        "/.glide-x.part",
        ".glide-mine",
        "mine.part",
        ".glide-\0.part",
    ],
)
def test_F9_only_what_is_called_like_a_stage_is_removed(into: Path, tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "outside", tmp_path / "outside.part", into / "mine", into / "mine.part", into / ".glide-"):
        path.mkdir()
        (path / "precious").write_bytes(b"mine")
    (into / ".glide-x").mkdir()
    before = tree(tmp_path)
    with Destination.open(into) as destination:
        try:
            destination.discard(name)
        except (AssertionError, FileError, ValueError):
            pass
    assert tree(tmp_path) == before


def test_F9_a_stage_that_has_become_a_link_is_neither_followed_nor_a_surprise(
    into: Path, journals: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "0").write_bytes(b"mine")
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(5)
    (stage,) = stages(into)
    (into / stage).rename(tmp_path / "moved")
    (into / stage).symlink_to(outside)
    with pytest.raises(FileError, match=r"cannot be removed: [A-Z]") as caught:
        partials.clear(journals, lambda _: None)
    assert "None" not in str(caught.value)
    assert tree(outside) == {"0": b"mine"}
    # What is offered again neither reads nor writes through it.
    try:
        with Receiving(arrival(into, journals), SENT) as receiving:
            receiving.finish()
    except FileError:
        pass
    assert tree(outside) == {"0": b"mine"}


def test_F9_links_in_a_stage_are_removed_and_not_what_they_point_to(into: Path, journals: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"mine")
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(5)
    (stage,) = stages(into)
    (into / stage / "link").symlink_to(outside)
    (into / stage / "0" / "link").symlink_to(outside / "precious")
    partials.clear(journals, lambda _: None)
    assert tree(into) == {}
    assert tree(outside) == {"precious": b"mine"}


def test_F9_a_stage_that_somebody_removed_is_no_error(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(25)
    (stage,) = stages(into)
    shutil.rmtree(into / stage)
    with Receiving(arrival(into, journals), SENT) as receiving:
        assert receiving.wanted == len(receiving.stream)
        receiving.finish()
        receiving.storage.known()
    assert tree(into) == as_found(SENT)
    with Destination.open(into) as destination:
        destination.discard(new_stage())


# --- descriptors -----------------------------------------------------------------------------------------


def _fails_again(into: Path, journals: Path) -> None:
    (into / "file.txt").write_bytes(b"appeared")
    with pytest.raises(Declined):
        Receiving(arrival(into, journals, Conflict.REFUSE), SENT)
    (into / "file.txt").unlink()


def _goes_on(into: Path, journals: Path) -> None:
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(3)


def _lands(into: Path, journals: Path) -> None:
    land(into, journals, SENT)
    _goes_on(into, journals)


@pytest.mark.parametrize("what", [_fails_again, _goes_on, _lands])
def test_no_descriptor_is_left_open(into: Path, journals: Path, what: Callable[[Path, Path], None]) -> None:
    with Receiving(arrival(into, journals), SENT) as receiving:
        receiving.feed(5)
    what(into, journals)
    before = descriptors()
    for _ in range(5):
        what(into, journals)
    assert descriptors() == before


# --- destinations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["/", "//", "/..", "/tmp/..", "link"])
def test_F12_the_root_of_a_file_system_is_no_destination(tmp_path: Path, root: str) -> None:
    if root == "link":
        (tmp_path / "link").symlink_to("/")
        root = str(tmp_path / "link")
    with pytest.raises(FileError, match="root of a file system"):
        Destination.open(Path(root))


def test_a_destination_may_itself_be_a_link_to_a_folder(tmp_path: Path, journals: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    land(tmp_path / "link", journals, SENT)
    assert tree(tmp_path / "real") == as_found(SENT)


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
    error = disk_error(OSError(number, os.strerror(number), "/home/bob/secret"))
    assert words in error.what
    assert "kept" in error.means
    assert error.next
    assert error.for_peer
    assert "secret" not in str(error)


# --- file systems without hard links ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_F6_where_there_are_no_hard_links_a_rename_takes_their_place(
    into: Path, journals: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", none)
    for n in range(3):
        land(into, journals, {"a.txt": b"%d" % n})
    assert tree(into) == {"a.txt": b"0", "a (1).txt": b"1", "a (2).txt": b"2"}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system whose C library has no rename that replaces nothing, and no hard links."""

    def none(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    class Bare:
        """Such a library."""

    folders._function.cache_clear()
    monkeypatch.setattr(os, "link", none)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Bare())
    yield
    folders._function.cache_clear()


@pytest.mark.usefixtures("bare")
def test_F6_where_there_is_neither_link_nor_rename_it_is_told_and_what_arrived_is_kept(
    into: Path, journals: Path
) -> None:
    with Receiving(arrival(into, journals), {"a.txt": CONTENT}) as receiving, pytest.raises(FileError) as caught:
        receiving.finish()
    assert "cannot be written to" in str(caught.value)
    assert shown(into) == {}
    assert len(listed(journals)) == len(stages(into)) == 1


@pytest.mark.usefixtures("bare")
def test_F6_where_there_is_no_such_rename_a_folder_takes_the_place_of_an_empty_one(into: Path, journals: Path) -> None:
    _put(into, {"d": None, "d/mine": b"mine"})
    land(into, journals, {"d": None, "d/x": CONTENT})
    assert tree(into) == {"d": "folder", "d/mine": b"mine", "d (1)": "folder", "d (1)/x": CONTENT}


def test_F5_an_error_of_the_disk_while_syncing_leaves_nothing_under_a_final_name(
    into: Path, journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Receiving(arrival(into, journals, sync=True), SENT) as receiving:
        receiving.feed(5)
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(FileError, match="cannot be written"):
            receiving.finish()
        monkeypatch.undo()
    assert shown(into) == {}


def test_F13_what_a_disk_has_failed_to_write_is_not_noted_as_durable_the_next_time(
    into: Path, journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells of such an error once; the bytes are gone all the same."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Receiving(arrival(into, journals, sync=True), {"file.txt": CONTENT * 100}) as receiving:
        receiving.feed(50)
        receiving.feed(900, sync=False)
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(FileError):
            receiving.storage.assembly.sync()
        monkeypatch.undo()
        receiving.storage.assembly.sync()  # as it is done on the way out
    assert [kept.bytes for kept in listed(journals)] == [50]


@pytest.mark.parametrize("failing", [1, 30])
def test_F13_a_disk_that_fails_to_write_small_files_is_not_believed_later_either(
    into: Path, journals: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Without syncfs(2) they are synced one by one, a few dozen at a time."""
    sent: Tree = {f"{number:02}": CONTENT for number in range(70)}
    calls = 0
    real = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(folders.Folder, "can_sync_file_system", False)
    with Receiving(arrival(into, journals, sync=True), sent) as receiving:
        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(FileError):
            receiving.feed()
        receiving.storage.assembly.sync()
        assert calls == failing, "nothing more was noted"
    monkeypatch.undo()
    with Receiving(arrival(into, journals, sync=True), sent) as again:
        assert State.KEPT not in again.storage.stock.states, "they are compared with the sender's"
        again.finish()
    assert {path: (into / path).read_bytes() for path in sent} == sent
