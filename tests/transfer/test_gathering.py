"""What a push sends of what a person named, what it leaves out, and what it says about that."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from glide.errors import FileError, UsageError
from glide.protocol.endtoend import LONGEST_PATH, Item, ItemKind
from glide.text import printable
from glide.transfer import gathering, ignoring
from glide.transfer.filenames import BadName, check_name
from glide.transfer.folders import Folder
from glide.transfer.gathering import MOST_WARNINGS, Gathered
from glide.transfer.manifest import DEEPEST, Checker
from tests.transfer import apart

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def make(folder: Path, *paths: str) -> Path:
    """A folder with these files in it, each holding its own path; what ends in a slash is a folder."""
    folder.mkdir(exist_ok=True)
    for path in paths:
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path, encoding="utf-8")
    return folder


def gather(*paths: Path, **how: Any) -> tuple[Gathered, list[str]]:
    """What is gathered, and the warnings."""
    warnings: list[str] = []
    gathered = gathering.gather(paths, warn=warnings.append, **how)
    assert all(printable(line, 1000) == line for line in warnings)
    return gathered, warnings


def sent(*paths: Path, **how: Any) -> list[str]:
    """The paths of the items, of which nothing is worth a warning."""
    gathered, warnings = gather(*paths, **how)
    assert (gathered.skipped, warnings) == (0, [])
    return names(gathered)


def names(gathered: Gathered) -> list[str]:
    return [item.path for item in gathered.manifest]


# --- what is named ---------------------------------------------------------------------------------------


def test_files_and_folders_are_sent_side_by_side(tmp_path: Path) -> None:
    make(tmp_path, "here/z.txt", "there/folder/b", "there/folder/a/c", "there/folder/empty/")
    gathered, _ = gather(tmp_path / "here" / "z.txt", tmp_path / "there" / "folder")
    expected = ["folder", "folder/a", "folder/a/c", "folder/b", "folder/empty", "z.txt"]
    assert names(gathered) == expected
    assert gathered.roots == {"z.txt": tmp_path / "here" / "z.txt", "folder": tmp_path / "there" / "folder"}
    assert gathered.path("z.txt").read_text() == "here/z.txt"
    assert gathered.path("folder/a/c").read_text() == "there/folder/a/c"
    assert gathered.path("folder") == tmp_path / "there" / "folder"


def test_an_item_says_what_it_is_how_long_and_from_when(tmp_path: Path) -> None:
    make(tmp_path / "f", "plain", "run", "anyone", "sub/")
    (tmp_path / "f" / "run").chmod(0o700)
    (tmp_path / "f" / "anyone").chmod(0o645)
    for number, name in enumerate(["plain", "run", "anyone", "sub", "."]):
        os.utime(tmp_path / "f" / name, ns=(0, 10**18 + number))
    gathered, _ = gather(tmp_path / "f")
    assert list(gathered.manifest) == [
        Item("f", ItemKind.FOLDER, 0, 10**18 + 4),
        Item("f/anyone", ItemKind.EXECUTABLE, 6, 10**18 + 2),
        Item("f/plain", ItemKind.FILE, 5, 10**18),
        Item("f/run", ItemKind.EXECUTABLE, 3, 10**18 + 1),
        Item("f/sub", ItemKind.FOLDER, 0, 10**18 + 3),
    ]


@pytest.mark.parametrize("seconds", [2**33 + 2**32, -(2**31)])
def test_a_time_that_does_not_fit_does_not_keep_a_file_from_being_sent(tmp_path: Path, seconds: int) -> None:
    make(tmp_path, "file")
    os.utime(tmp_path / "file", (seconds, seconds))
    gathered, _ = gather(tmp_path / "file")
    assert -(2**63) <= gathered.manifest.item(0).modified < 2**63
    assert gathered.manifest.item(0).modified == gathering.modified((tmp_path / "file").stat())


@pytest.mark.parametrize("named", [".", "../folder", "inner/..", "./", "../folder/", "inner/../inner/.."])
def test_a_folder_has_its_own_name_however_it_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    make(tmp_path / "folder", "inner/file")
    monkeypatch.chdir(tmp_path / "folder")
    assert sent(Path(named)) == ["folder", "folder/inner", "folder/inner/file"]


@pytest.mark.parametrize("named", ["/", "/.."])
def test_the_folder_of_all_folders_has_no_name(named: str) -> None:
    with pytest.raises(FileError, match="has no name to send it under") as caught:
        gather(Path(named))
    assert "--filename" in caught.value.next


@pytest.mark.parametrize("named", ["file", "folder"])
def test_the_only_one_may_get_another_name(tmp_path: Path, named: str) -> None:
    make(tmp_path, "file", "folder/file")
    gathered, _ = gather(tmp_path / named, filename="other")
    assert names(gathered) == (["other"] if named == "file" else ["other", "other/file"])
    assert gathered.path(names(gathered)[-1]).read_text().endswith("file")


def test_one_name_for_several_is_a_contradiction(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    with pytest.raises(UsageError, match="--filename"):
        gather(tmp_path / "a", tmp_path / "b", filename="c")


def test_two_of_the_same_name_are_not_sent_together(tmp_path: Path) -> None:
    make(tmp_path, "a/name", "b/name")
    with pytest.raises(UsageError) as caught:
        gather(tmp_path / "a" / "name", tmp_path / "b" / "name")
    assert "a/name" in caught.value.what
    assert "b/name" in caught.value.what
    assert "separately" in caught.value.next


def test_a_link_that_is_named_is_sent_as_what_it_points_to_under_its_own_name(tmp_path: Path) -> None:
    make(tmp_path, "file", "folder/file")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-folder").symlink_to("folder")
    gathered, warnings = gather(tmp_path / "to-file", tmp_path / "to-folder")
    assert names(gathered) == ["to-file", "to-folder", "to-folder/file"]
    assert gathered.manifest.item(0).size == 4
    assert warnings == []


@pytest.mark.parametrize("missing", ["missing", "dangling", "file/below", "a\0b", "x" * 300])
@pytest.mark.parametrize("others", [0, 1])
def test_a_path_where_nothing_is_stops_the_whole_push(tmp_path: Path, missing: str, others: int) -> None:
    make(tmp_path, "file")
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(FileError) as caught:
        gather(*[tmp_path / "file"] * others, Path(f"{tmp_path}/{missing}"))
    assert caught.value.means == "Nobody was disturbed."
    assert str(caught.value).isprintable()


@pytest.mark.timeout(30)  # it would wait for ever
@pytest.mark.parametrize("kind", ["fifo", "link", "socket", "/dev/null", "/dev/tty"])
def test_a_pipe_socket_or_device_that_is_named_is_told_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK)
    (tmp_path / "link").symlink_to("fifo")
    with pytest.raises(FileError, match="is a device, pipe or socket"):
        gather(tmp_path / kind)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "\x1b[2J", "no\udcfftext", "x" * (LONGEST_PATH + 1)])
def test_F1_a_name_that_no_receiver_takes_is_refused_here(tmp_path: Path, name: str) -> None:
    make(tmp_path, "file")
    with pytest.raises(FileError, match="cannot be offered as") as caught:
        gather(tmp_path / "file", filename=name)
    assert "--filename" in caught.value.next
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [b"no\xfftext", b"two\nlines"])
def test_what_is_named_and_whose_name_no_receiver_takes_is_refused_alone_and_skipped_among_others(
    tmp_path: Path, name: bytes
) -> None:
    make(tmp_path, "file")
    odd = tmp_path / os.fsdecode(name)
    odd.touch()
    with pytest.raises(FileError, match="cannot be offered as"):
        gather(odd)
    assert sent(odd, filename="plain") == ["plain"]
    gathered, [warning] = gather(odd, tmp_path / "file")
    assert names(gathered) == ["file"]
    assert gathered.skipped == 1
    assert "the name" in warning


def test_when_nothing_is_left_that_is_an_error(tmp_path: Path) -> None:
    odd = [tmp_path / os.fsdecode(name) for name in (b"\xfe", b"\xff")]
    for path in odd:
        path.touch()
    with pytest.raises(FileError, match="nothing to send"):
        gather(*odd)


# --- what is found ---------------------------------------------------------------------------------------


def test_F8_symlinks_in_a_folder_are_skipped_with_a_warning_each(tmp_path: Path) -> None:
    make(tmp_path / "f", "file", "sub/file")
    links = {"dangling": "nowhere", "to-file": "file", "to-folder": "sub", "to-itself": "."}
    for name, target in links.items():
        (tmp_path / "f" / name).symlink_to(target)
    gathered, warnings = gather(tmp_path / "f")
    assert names(gathered) == ["f", "f/file", "f/sub", "f/sub/file"]
    assert gathered.skipped == 0  # nobody expects them to arrive
    assert warnings == [f"f/{name} is skipped: it is a symlink." for name in links]


@pytest.mark.timeout(30)  # it would wait for ever
def test_F8_devices_pipes_and_sockets_in_a_folder_are_skipped_with_a_warning_each(tmp_path: Path) -> None:
    make(tmp_path / "f", "file")
    os.mkfifo(tmp_path / "f" / "fifo")
    os.mknod(tmp_path / "f" / "socket", stat.S_IFSOCK)
    gathered, warnings = gather(tmp_path / "f")
    assert names(gathered) == ["f", "f/file"]
    assert gathered.skipped == 0
    assert warnings == [f"f/{name} is skipped: it is a device, pipe or socket." for name in ("fifo", "socket")]


def test_names_not_UTF_8_are_reported_and_skipped(tmp_path: Path) -> None:
    make(tmp_path / "f", "file")
    (tmp_path / "f" / os.fsdecode(b"caf\xe9")).touch()
    make(tmp_path / "f" / os.fsdecode(b"dir\xff"), "inside")
    gathered, warnings = gather(tmp_path / "f")
    assert names(gathered) == ["f", "f/file"]
    assert gathered.skipped == 2
    assert [("\\udce9" in line, "not UTF-8" in line) for line in warnings] == [(True, True), (False, True)]


def test_names_with_control_characters_are_reported_and_skipped(tmp_path: Path) -> None:
    make(tmp_path / "f", "file", "two\nlines", "\x1b]0;title\x07/inside")
    gathered, warnings = gather(tmp_path / "f")
    assert names(gathered) == ["f", "f/file"]
    assert gathered.skipped == 2
    assert all("control character" in line for line in warnings)


def test_folders_are_sent_down_to_the_depth_that_a_receiver_takes(tmp_path: Path) -> None:
    make(tmp_path / "deep")
    descriptor = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(210):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    make(tmp_path / "deep", "z/z")
    try:
        gathered, [warning] = gather(tmp_path / "deep", filename="d")
        assert [item.path for item in gathered.manifest][:-2] == [
            "/".join("d" * depth) for depth in range(1, DEEPEST + 1)
        ]
        assert names(gathered)[-2:] == ["d/z", "d/z/z"]
        assert f"{DEEPEST} folders" in warning
        assert gathered.skipped == 1
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)  # rmtree opens them all at once


def test_a_path_is_measured_in_bytes_of_UTF_8(tmp_path: Path) -> None:
    part = "ä" * 100
    make(tmp_path / "f", "/".join([part] * 17) + "/file")
    top = "x" * (LONGEST_PATH - 17 * 201 - len("/file"))
    assert len(sent(tmp_path / "f", filename=top)[-1].encode()) == LONGEST_PATH
    gathered, [warning] = gather(tmp_path / "f", filename=top + "x")
    assert (gathered.skipped, gathered.manifest.items) == (1, 18)
    assert "longer than" in warning


AS_NOBODY = f"""
import sys
from pathlib import Path
import pathspec.patterns.gitignore.spec
from glide.errors import FileError
from glide.transfer.gathering import gather
{apart.NOBODY}
try:
    found = gather([Path(path) for path in sys.argv[2:]], gitignore=bool(sys.argv[1]), warn=print)
    print(*(item.path for item in found.manifest), found.skipped)
except FileError as error:
    print(error)
"""


@apart.root
def test_what_may_not_be_read_is_reported_and_skipped() -> None:
    with apart.public_folder() as folder:
        make(folder / "f", "closed/a", "file", "listed/b", "private", "through/c")
        for name, mode in [("closed", 0), ("private", 0o600), ("listed", 0o744), ("through", 0o711)]:
            (folder / "f" / name).chmod(mode)
        *warnings, last = apart.run(AS_NOBODY, "", folder / "f").splitlines()
        assert last == "f f/file 4"
        assert warnings == [
            f"f/{name} is skipped: it cannot be read: Permission denied."
            for name in ("closed", "listed", "private", "through")
        ]


@apart.root
@pytest.mark.parametrize("mode", [0o600, 0o744])
@pytest.mark.parametrize("named", ["private", "folder"])
def test_what_is_named_and_may_not_be_read_stops_the_whole_push(named: str, mode: int) -> None:
    with apart.public_folder() as folder:
        make(folder, "file", "private", "folder/file")
        assert apart.run(AS_NOBODY, "", folder / named, folder / "file").endswith(" 0")
        (folder / named).chmod(mode if named == "folder" else 0o600)
        for others in ([], [folder / "file"]):
            told = apart.run(AS_NOBODY, "", folder / named, *others)
            assert f"{named} cannot be read: Permission denied. Nobody was disturbed." in told


@apart.root
def test_a_gitignore_that_may_not_be_read_stops_the_whole_push() -> None:
    with apart.public_folder() as folder:
        make(folder / "f", "sub/.gitignore", "sub/secret")
        (folder / "f" / "sub" / ".gitignore").chmod(0o600)
        assert "f/sub/.gitignore cannot be read" in apart.run(AS_NOBODY, "yes", folder / "f")
        assert apart.run(AS_NOBODY, "", folder / "f").endswith("f f/sub f/sub/secret 1")


def test_warnings_do_not_flood(tmp_path: Path) -> None:
    make(tmp_path / "f", *[f"{number:02}\n" for number in range(MOST_WARNINGS + 3)])
    for number in range(4):
        (tmp_path / "f" / f"link {number}").symlink_to("f")
    gathered, warnings = gather(tmp_path / "f")
    assert len(warnings) == MOST_WARNINGS + 1
    assert warnings[-1] == "... and 7 more were skipped"
    assert gathered.skipped == MOST_WARNINGS + 3


# --- while others change it ------------------------------------------------------------------------------


def gather_while(path: Path, change: Any, **how: Any) -> tuple[Gathered, list[str]]:
    """Gather while ``change`` is called with each warning, at the moment that it comes."""
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        change(line)

    return gathering.gather([path], warn=warn, **how), warnings


def test_what_vanishes_meanwhile_is_reported_and_skipped(tmp_path: Path) -> None:
    make(tmp_path / "f", "gone", "gone-too/x", "stays")
    (tmp_path / "f" / "a link").symlink_to("f")

    def change(line: str) -> None:
        if "a link" in line:
            (tmp_path / "f" / "gone").unlink()
            shutil.rmtree(tmp_path / "f" / "gone-too")

    gathered, warnings = gather_while(tmp_path / "f", change)
    assert names(gathered) == ["f", "f/stays"]
    assert gathered.skipped == 2
    assert warnings[1:] == [f"f/{name} is skipped: it vanished meanwhile." for name in ("gone", "gone-too")]
    make(tmp_path / "f", "gone", "gone-too/x")
    assert gather_while(tmp_path / "f", change, exclude=["gone*"])[0].skipped == 0


def test_a_folder_that_is_removed_while_it_is_looked_at_does_not_stop_the_others(tmp_path: Path) -> None:
    make(tmp_path / "f", "a/b/file", "c")
    (tmp_path / "f" / "a" / "b" / "a link").symlink_to("f")
    gathered, _ = gather_while(tmp_path / "f", lambda _: shutil.rmtree(tmp_path / "f" / "a", ignore_errors=True))
    assert names(gathered) == ["f", "f/a", "f/a/b", "f/c"]
    assert gathered.skipped == 1


def test_a_folder_that_is_moved_while_it_is_looked_at_does_not_lead_elsewhere(tmp_path: Path) -> None:
    make(tmp_path / "f", "a/file", "b")
    make(tmp_path / "secret", "file")
    (tmp_path / "f" / "a" / "a link").symlink_to("f")
    with pytest.raises(FileError, match="was moved"):
        gather_while(tmp_path / "f", lambda _: (tmp_path / "f" / "a").rename(tmp_path / "secret" / "a"))


def test_a_folder_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "f", "a/file", "b")
    make(tmp_path / "secret", "file")
    child = Folder.child

    def too_late(folder: Folder, name: str) -> Folder:
        if name == "a":
            shutil.rmtree(tmp_path / "f" / "a")
            (tmp_path / "f" / "a").symlink_to(tmp_path / "secret")
        return child(folder, name)

    monkeypatch.setattr(Folder, "child", too_late)
    gathered, [warning] = gather(tmp_path / "f")
    assert names(gathered) == ["f", "f/b"]
    assert gathered.skipped == 1
    assert "cannot be read" in warning


@pytest.mark.parametrize("failing", ["open", "listdir"])
def test_a_named_folder_that_fails_at_the_last_moment_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    make(tmp_path / "f", "a")
    monkeypatch.setattr(Folder if failing == "open" else os, failing, fail)
    with pytest.raises(FileError, match="f cannot be read: Input/output error"):
        gather(tmp_path / "f")


# --- order and size --------------------------------------------------------------------------------------

Tree = dict[str, Any]  # of a folder the names in it; None stands for a file


def file_names() -> SearchStrategy[str]:
    plain = st.sampled_from(["a", "b", "ab", "a.b", "a-", "a b", "a0", "A", ".a", "ä", "\uffff", "\U00010000", "é"])
    odd = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
    return plain | odd.filter(lambda name: name not in (".", ".."))


def trees() -> SearchStrategy[Tree]:
    inner: SearchStrategy[Any] = st.recursive(
        st.none() | st.just({}), lambda inner: st.dictionaries(file_names(), inner, max_size=5), max_leaves=25
    )
    return st.dictionaries(file_names(), inner, min_size=1, max_size=5)


def plant(folder: Path, tree: Tree) -> None:
    folder.mkdir()
    for name, inner in tree.items():
        if inner is None:
            (folder / name).touch()
        else:
            plant(folder / name, inner)


def taken(tree: Tree, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The items of a tree whose names a receiver takes."""
    found = []
    for name, inner in tree.items():
        try:
            check_name(name)
        except BadName:
            continue
        found += [(*above, name), *taken(inner or {}, (*above, name))]
    return sorted(found)


@given(trees())
@example({"a": {"b": None}, "a-": None, "a.b": {}, "a0": {"c": None}})
def test_every_receiver_takes_the_order_and_everything_is_in_it(tree: Tree) -> None:
    with tempfile.TemporaryDirectory(prefix="glide-test-") as temporary:
        folder = Path(temporary) / "f"
        plant(folder, tree)
        whole, _ = gather(folder)
        try:
            side_by_side, _ = gather(*folder.iterdir())
        except FileError:  # no name that anybody takes
            side_by_side = None
    for gathered, expected in ((whole, taken({"f": tree})), (side_by_side, taken(tree))):
        if gathered is None:
            assert not expected
            continue
        checker = Checker()
        for page in range(gathered.manifest.pages):
            checker.check(gathered.manifest.page(page))
        assert [tuple(path.split("/")) for path in names(gathered)] == expected


@pytest.mark.parametrize("deep", [False, True])
def test_an_item_costs_200_bytes_at_most(tmp_path: Path, deep: bool) -> None:
    folder = tmp_path / "f"
    for number in range(200):
        (folder / f"{number:03}" / "sub").mkdir(parents=True) if deep else folder.mkdir(exist_ok=True)
        for file in range(100):
            (folder / (f"{number:03}/sub" if deep else ".") / f"photo {number:03}{file:02}.jpeg").touch()
    gather(folder)  # what is allocated once
    tracemalloc.start()
    try:
        gathered, _ = gather(folder)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert gathered.manifest.files == 20_000
    assert held / gathered.manifest.items < 120
    assert peak / gathered.manifest.items < 200


# --- what is excluded ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.o"], "Makefile build build/out keep src src/a.c"),
        (["build/"], "Makefile keep keep.o src src/a.c src/a.o"),
        (["/Makefile", "a.*"], "build build/out keep keep.o src"),
        (["src/*.o"], "Makefile build build/out keep keep.o src src/a.c"),
        (["build", "!build/out"], "Makefile keep keep.o src src/a.c src/a.o"),  # what is in it is not asked about
        (["build/**", "!out"], "Makefile build build/out keep keep.o src src/a.c src/a.o"),
        (["*", "!*/", "!*.c"], "build src src/a.c"),
        (["*", "!keep"], "keep"),
        (["f"], "Makefile build build/out keep keep.o src src/a.c src/a.o"),  # what is named is sent
    ],
)
def test_what_is_excluded_stays_here(tmp_path: Path, patterns: list[str], left: str) -> None:
    make(tmp_path / "f", "Makefile", "build/out", "keep", "keep.o", "src/a.c", "src/a.o")
    assert sent(tmp_path / "f", exclude=patterns) == ["f", *(f"f/{path}" for path in left.split())]


def test_patterns_are_about_each_of_the_named_folders_and_not_about_what_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a/x/y", "a/y", "b/x/y", "b/y", "y")
    left = sent(tmp_path / "a", tmp_path / "b", tmp_path / "y", exclude=["/y", "b"])
    assert left == ["a", "a/x", "a/x/y", "b", "b/x", "b/x/y", "y"]


def test_nothing_is_said_of_what_is_excluded(tmp_path: Path) -> None:
    make(tmp_path / "f", "file", "odd\n", "hidden/odd\n")
    os.mkfifo(tmp_path / "f" / "fifo")
    (tmp_path / "f" / "link").symlink_to("file")
    (tmp_path / "f" / os.fsdecode(b"odd\xff")).touch()
    assert sent(tmp_path / "f", exclude=["fifo", "link", "odd*", "hidden"]) == ["f", "f/file"]


@pytest.mark.parametrize("pattern", ["", "/", "//", "!", "[", "[z-a]", "back\\", "a[[:alpha:]]", "\x1b[0m["])
def test_a_pattern_that_means_nothing_is_told(tmp_path: Path, pattern: str) -> None:
    make(tmp_path / "f", "file")
    with pytest.raises(UsageError, match=r"--exclude .* is no pattern") as caught:
        gather(tmp_path / "f", exclude=["*.o", pattern])
    assert str(caught.value).isprintable()


def test_gitignore_files_count_only_if_that_is_wanted(tmp_path: Path) -> None:
    make(tmp_path / "f", "a.o", "b.c", ".git/config", "sub/a.o", "sub/.git/config", "sub/keep.o", "worktree/.git")
    (tmp_path / "f" / ".gitignore").write_text("*.o\n")
    (tmp_path / "f" / "sub" / ".gitignore").write_text("!keep.o\n")
    assert "f/sub/a.o" in sent(tmp_path / "f")
    assert "f/sub/.git/config" in sent(tmp_path / "f")
    left = ["f", "f/.gitignore", "f/b.c", "f/sub", "f/sub/.gitignore", "f/sub/keep.o", "f/worktree"]
    assert sent(tmp_path / "f", gitignore=True) == left
    assert sent(tmp_path / "f", gitignore=True, exclude=["b.c", "!a.o"]) == [
        *left[:2],
        "f/a.o",
        "f/sub",
        "f/sub/.gitignore",
        "f/sub/a.o",
        *left[5:],
    ]


@pytest.mark.timeout(30)  # it would wait for ever
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_gitignore_that_is_no_file_says_nothing(tmp_path: Path, kind: str) -> None:
    make(tmp_path / "f", "a", "rules")
    (tmp_path / "f" / "rules").write_text("a\n")
    ignore = tmp_path / "f" / ".gitignore"
    if kind == "link":
        ignore.symlink_to("rules")
    elif kind == "pipe":
        os.mkfifo(ignore)
    else:
        ignore.mkdir()
    assert "f/a" in names(gather(tmp_path / "f", gitignore=True)[0])


def test_a_line_of_a_gitignore_that_is_not_understood_is_told(tmp_path: Path) -> None:
    make(tmp_path / "f", "a", "b")
    (tmp_path / "f" / ".gitignore").write_text("# [\n\n[[:alpha:]]\na\n")
    gathered, [warning] = gather(tmp_path / "f", gitignore=True)
    assert names(gathered) == ["f", "f/.gitignore", "f/b"]
    assert warning == "the pattern '[[:alpha:]]' of f/.gitignore is skipped: it is not understood."
    assert gathered.skipped == 0


def kept_by_git(folder: Path, exclude: Sequence[str] = ()) -> list[str]:
    """The files that git would add."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q"], cwd=folder, env=environment, check=True)
    excluding = [word for pattern in exclude for word in ("-x", pattern)]
    listing = ["git", "ls-files", "-o", "-z", "--exclude-per-directory=.gitignore", *excluding]
    found = subprocess.run(listing, cwd=folder, env=environment, check=True, capture_output=True)
    return sorted(os.fsdecode(name) for name in found.stdout.split(b"\0")[:-1])


def kept(folder: Path, exclude: Sequence[str] = ()) -> list[str]:
    gathered, _ = gather(folder, filename="f", exclude=exclude, gitignore=True)
    return sorted(item.path.removeprefix("f/") for item in gathered.manifest if item.kind is not ItemKind.FOLDER)


@needs_git
@pytest.mark.parametrize(
    ("rules", "exclude"),
    [
        ({".": "*.o\n!keep.o\n", "src": "!a.o\n", "src/deep": "*.o\n"}, []),
        ({".": "/*\n!/src\n/src/*\n!/src/deep/\n"}, []),
        ({".": "*\n!*/\n!*.c\n!.gitignore\n"}, []),
        ({".": "src/**\n!src/**/\n!src/**/a.c\n"}, []),
        ({".": "deep/\n", "src": "!deep\n", "src/deep": "/a.c\n"}, []),
        ({".": "**/deep/**/a.*\nsrc/\\#x\n\\!x\n"}, []),
        ({".": "\ufeff#x\r\n\\#x\r\nspaced\\ \r\n*.o   \r\n"}, []),
        ({".": "[ab].c\nkee[!q].o\n", "src": "!a.[c-d]\n"}, []),
        ({".": "src\n", "src": "!*\n"}, []),
        ({"src": "/a.c\nsrc/a.o\ndeep/a.o\n"}, []),
        ({".": "!a.c\n"}, ["*.c", "/src/deep"]),
        ({".": "*\n"}, ["!src", "!src/*.c"]),
        ({}, ["#x", "spaced "]),
    ],
)
def test_the_same_is_left_out_as_by_git(tmp_path: Path, rules: dict[str, str], exclude: list[str]) -> None:
    folder = make(tmp_path / "f", "keep.o", "a.o", "a.c", "#x", "!x", "spaced ", "src/a.c", "src/a.o", "src/#x")
    make(folder, "src/deep/a.c", "src/deep/a.o", "src/deep/deep/a.c", "other/deep/a.c", "other/b.c", "other/keep.o")
    for where, lines in rules.items():
        (folder / where / ".gitignore").write_bytes(lines.encode())
    assert kept(folder, exclude) == kept_by_git(folder, exclude)


@needs_git
@pytest.mark.parametrize("seed", range(30))
def test_the_same_is_left_out_as_by_git_for_random_patterns(tmp_path: Path, seed: int) -> None:
    drawn = random.Random(seed)
    parts = ["a", "b", "ab", "*", "**", "*.o", "a*", "?", "[ab]", "[!a]", "\\a", "\\!x", "!x", "c d", "e\\ ", "e "]

    def patterns() -> list[str]:
        found = []
        for _ in range(drawn.randint(1, 4)):
            body = "/".join(drawn.choices(parts, k=drawn.choice([1, 1, 1, 2, 3])))
            start, end = drawn.choice(["", "", "/", "**/"]), drawn.choice(["", "", "", "/", "/**", "/*", " "])
            found.append(drawn.choice(["", "", "!"]) + start + body + end)
        return found

    folder = make(tmp_path / "f")
    inner = [folder]
    for place in inner:
        for name in ("a", "b", "ab", "a.o", "!x", "c d", "e "):
            if drawn.random() < 0.35 and len(inner) < 25:
                inner.append(make(place / name))
            elif drawn.random() < 0.7:
                (place / name).touch()
    for place in [folder, *drawn.sample(inner, min(3, len(inner)))]:
        (place / ".gitignore").write_text("\n".join(patterns()))
    assert kept(folder) == kept_by_git(folder)
    assert kept(folder, excluded := patterns()) == kept_by_git(folder, excluded)


@given(st.text("ab*?[]!^-\\/# .", max_size=12))
def test_any_text_is_a_pattern_or_is_refused(text: str) -> None:
    try:
        rule = ignoring.parse(text)
    except ValueError:
        return
    rule.matches("a")
    rule.matches("a/b")
