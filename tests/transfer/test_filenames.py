"""The names that an offer may hold, those that a destination can hold, and those to try when one is taken."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from glide.errors import Declined, GlideError, NameUnusable
from glide.protocol.endtoend import Item, ItemKind
from glide.transfer.filenames import BadName, candidates, check_hidden, check_name, check_usable
from glide.transfer.manifest import Checker, Manifest
from tests.transfer.arriving import Receiving, Standing, arrival, as_found, land, shown, tree

CONTENT = b"what was sent"

# --- what is accepted lands inside -----------------------------------------------------------------------

pieces = st.sampled_from(
    ["..", ".", "/", "\\", "\0", "~", "$HOME", "%2e%2e", "%2f", "\n", "\x1b[2J", "\x7f", "\x85", "\ud800", "\u202e"]
) | st.sampled_from(
    ["a", "b.txt", " ", ":", "*", "con", "outside", "é", "e\u0301", "∕", "\uff0f", "\u2028", "x" * 120, "漢" * 60]
)
any_name = st.lists(pieces, max_size=6).map("".join) | st.text(
    st.characters() | st.characters(categories=["Cc", "Cf", "Cs"]), max_size=300
)
some_bytes = st.binary(min_size=1, max_size=40).map(os.fsdecode)  # what no text is, among them
component: SearchStrategy[str] = any_name | some_bytes | st.sampled_from(["f", "g", "outside"])
any_path = st.lists(component, min_size=1, max_size=4).map("/".join)


@given(st.lists(st.tuples(any_path, st.sampled_from([ItemKind.FILE, ItemKind.FOLDER])), min_size=1, max_size=5))
@example([("../outside", ItemKind.FILE)])
@example([("/etc/passwd", ItemKind.FILE)])
@example([("f", ItemKind.FOLDER), ("f/..", ItemKind.FOLDER), ("f/../outside", ItemKind.FILE)])
@example([("f", ItemKind.FOLDER), ("f/../../outside", ItemKind.FILE)])
@example([("f", ItemKind.FOLDER), ("f//x", ItemKind.FILE)])
@example([("f", ItemKind.FOLDER), ("f/", ItemKind.FILE)])
@example([("f", ItemKind.FOLDER), ("f/./x", ItemKind.FILE)])
@example([("..", ItemKind.FILE)])
@example([("...", ItemKind.FILE)])
@example([("a\0/../../outside", ItemKind.FILE)])
@example([("\u202egpj.exe", ItemKind.FILE)])
@example([("x" * 255, ItemKind.FILE)])
@example([("漢" * 85 + ".txt", ItemKind.FILE)])
@example([("f", ItemKind.FOLDER), ("f/" + "x" * 256, ItemKind.FILE)])
@example([("~root", ItemKind.FILE)])
@example([("-rf", ItemKind.FILE)])
def test_F1_what_is_accepted_lands_inside_the_destination_and_nowhere_else(
    offered: list[tuple[str, ItemKind]],
) -> None:
    top = Path(tempfile.mkdtemp(prefix="glide-test-"))
    try:
        (top / "outside").write_bytes(b"untouched")
        folder, journals = top / "in", top / "journals"
        folder.mkdir()
        manifest, checker, sent = Manifest(), Checker(), Standing()
        for path, kind in offered:
            size = len(CONTENT) if kind is ItemKind.FILE else 0
            try:
                checker.check([Item(path, kind, size)])
            except (BadName, UnicodeEncodeError):  # a path that is no UTF-8 never comes through the wire's decoder
                break  # then all of it is refused; here, what came before lands nevertheless
            manifest.add(Item(path, kind, size))
            sent[path] = CONTENT if size else None
        manifest.close()
        if not sent:
            return
        usable = {path: sent[path] for path in sent if all(len(os.fsencode(name)) <= 255 for name in path.split("/"))}
        try:
            with Receiving(arrival(folder, journals), sent, manifest) as receiving:
                receiving.finish()
        except NameUnusable:
            assert not usable
        assert {path: what for path, what in tree(top).items() if not path.startswith("journals")} == {
            "in": "folder",
            "outside": b"untouched",
            **{f"in/{path}": what for path, what in as_found(usable).items()},
        }
    finally:
        shutil.rmtree(top)


@given(any_name)
def test_F1_a_bad_name_has_one_error_and_a_good_one_none(name: str) -> None:
    try:
        check_name(name)
        check_usable(name)
        check_hidden(name)
    except (BadName, GlideError) as error:
        assert str(error)
    else:
        assert "/" not in name
        assert name.isprintable() or not any(ord(letter) < 32 for letter in name)
        assert len(os.fsencode(name)) <= 255


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


ORDINARY = ["a", "...", "..a", "a..", " ", "-rf", "~", "a\\b", "aux.c", "1700000000.M1P2.host:2,S", "naïve.pdf", "漢字"]
ORDINARY += ["🎁", "name (1).txt", "a" * 255, "$(reboot)", "\u202egpj.exe"]


@pytest.mark.parametrize("name", ORDINARY)
def test_F1_an_ordinary_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    check_name(name)
    check_usable(name, platform="linux")
    (tmp_path / "in").mkdir()
    land(tmp_path / "in", tmp_path / "journals", {name: CONTENT})
    assert shown(tmp_path / "in") == {name: CONTENT}


@pytest.mark.parametrize("name", ["a" * 256, "漢" * 86, "é" * 127 + "ab"])
def test_F1_a_name_that_is_too_long_for_the_disk_fails_by_itself(name: str, tmp_path: Path) -> None:
    check_name(name)
    with pytest.raises(NameUnusable, match="longer than 255 bytes") as caught:
        check_usable(name)
    assert "--filename" in caught.value.next
    assert caught.value.exit == 9
    (tmp_path / "in").mkdir()
    sent = {"f": None, f"f/{name}": None, f"f/{name}/inner": CONTENT, "f/x": b"", "other": CONTENT}
    assert land(tmp_path / "in", tmp_path / "journals", sent).items == 2
    assert shown(tmp_path / "in") == {"f": "folder", "f/x": b"", "other": CONTENT}


def test_F1_if_the_disk_can_hold_none_of_the_names_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(NameUnusable):
        Receiving(arrival(tmp_path / "in", tmp_path / "journals"), {"a" * 256: b"", "b" * 256: CONTENT})
    assert tree(tmp_path) == {"in": "folder", "journals": "folder"}


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
        check_usable(name, platform="win32")
    check_usable(name, platform="linux")


@pytest.mark.parametrize("name", ["console.txt", "auxiliary", "com10", "lpt", "null", "a.con", "a b", "naïve.pdf"])
def test_F1_on_windows_an_ordinary_name_is_taken(name: str) -> None:
    check_usable(name, platform="win32")


@pytest.mark.parametrize("name", [".bashrc", ".ssh", "...", ".a.b", ".glide-000000000000000000000000.part"])
def test_F12_a_hidden_name_needs_a_yes_of_the_receivers(name: str) -> None:
    with pytest.raises(Declined, match="hidden") as caught:
        check_hidden(name)
    assert "--allow-hidden" in caught.value.next
    assert "hidden" in caught.value.for_peer
    check_usable(name, platform="linux")


# --- names to try ----------------------------------------------------------------------------------------


def first(name: str, count: int) -> list[str]:
    return [final for final, _ in zip(candidates(name), range(count), strict=False)]


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
def test_F6_a_name_that_is_taken_gets_a_number(name: str, then: Sequence[str]) -> None:
    assert first(name, 1 + len(then)) == [name, *then]


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(lambda n: n not in ".."))
@example("x" * 251 + ".txt")
@example("x" * 255)
@example("漢" * 83 + ".txt")
@example("é" * 127)
@example("a." + "x" * 253)
def test_F6_the_names_to_try_differ_fit_and_are_one_component_each(name: str) -> None:
    if len(os.fsencode(name)) > 255:
        return
    tried = first(name, 30)
    assert tried[0] == name
    assert len(set(tried)) == 30
    for number, final in enumerate(tried[1:], 1):
        assert f"({number})" in final
        assert len(os.fsencode(final)) <= 255
        assert "/" not in final
        assert final not in (".", "..")


def test_F6_an_end_comes_to_the_names_to_try() -> None:
    assert sum(1 for _ in candidates("a")) == 10_000
