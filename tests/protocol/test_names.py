"""What a name is: which spellings are one, which are none, and what a login name becomes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import UsageError
from glide.protocol import names
from glide.text import printable
from tests.strategies import people_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        ("7", "7"),
        ("alice", "alice"),
        ("Alice", "alice"),
        ("@alice", "alice"),
        ("@ALICE", "alice"),
        ("a.b_c-d", "a.b_c-d"),
        ("a--b__c", "a--b__c"),
        ("a.-.b", "a.-.b"),
        ("a" * 32, "a" * 32),
        ("@" + "a" * 32, "a" * 32),
    ],
)
def test_case_is_folded_and_a_leading_at_is_dropped(text: str, name: str) -> None:
    assert names.parse(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@@alice",
        "alice@",
        ".alice",
        "alice.",
        "-alice",
        "alice-",
        "_alice",
        "alice_",
        "a..b",
        "a b",
        " alice",
        "alice\n",
        "al\nice",
        "al/ice",
        "..",
        ".",
        "-",
        "a" * 33,
        "ålice",
        "аlice",  # the first letter is Cyrillic
        "al\u200bice",
        "alice\0",
        "al\x1b[31mice",
    ],
)
def test_what_breaks_a_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        names.parse(text)


@given(st.text() | people_names() | st.text("aZ9._-@ ", max_size=40))
def test_whatever_is_accepted_fits_the_pattern_and_is_its_own_name(text: str) -> None:
    try:
        name = names.parse(text)
    except UsageError:
        return
    assert re.fullmatch(names.PATTERN, name)
    assert len(name) <= names.LONGEST
    assert name.isascii()
    assert names.parse(name) == name


@given(people_names())
def test_every_valid_name_is_accepted_as_it_is_with_an_at_and_in_upper_case(name: str) -> None:
    assert names.parse(name) == name
    assert names.parse("@" + name) == name
    assert names.parse(name.upper()) == name


@given(st.text(st.characters(), min_size=1))
def test_D1_a_refusal_shows_the_text_escaped_and_cut(text: str) -> None:
    try:
        names.parse(text)
    except UsageError as error:
        assert printable(error.what, len(error.what)) == error.what
        assert len(error.what) < 200


@given(st.text(st.characters()) | st.text("aZ9._-\\ ", max_size=50))
def test_a_login_name_becomes_a_valid_name_or_the_fallback(login: str) -> None:
    name = names.default(login, "somebody")
    assert names.parse(name) == name


@given(people_names())
def test_a_login_name_that_is_a_name_is_kept(name: str) -> None:
    assert names.default(name, "somebody") == name


@pytest.mark.parametrize(
    ("login", "name"),
    [
        ("Alice", "alice"),
        ("Alice Smith", "alice-smith"),
        ("CORP\\alice", "corp-alice"),
        ("_www", "www"),
        ("a...b", "a.b"),
        ("a" * 40, "a" * 32),
        ("a" * 31 + ".b", "a" * 31),
        ("", "somebody"),
        ("...", "somebody"),
        ("ΑΒΓ", "somebody"),  # Greek letters
    ],
)
def test_a_login_name_keeps_what_a_name_may_hold(login: str, name: str) -> None:
    assert names.default(login, "somebody") == name


def test_the_closest_name_comes_first_and_strangers_are_left_out() -> None:
    assert names.closest("alcie", ["bob", "malice", "alice"])[0] == "alice"
    assert "bob" not in names.closest("alcie", ["bob", "malice", "alice"])


@given(people_names(), st.lists(people_names(), max_size=20))
def test_at_most_three_names_are_suggested_all_of_them_candidates(name: str, candidates: list[str]) -> None:
    suggested = names.closest(name, candidates)
    assert len(suggested) <= 3
    assert set(suggested) <= set(candidates)


def test_R1_only_so_many_people_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def count(_: str, candidates: Iterable[str], **__: object) -> list[str]:
        compared.extend(candidates)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", count)
    names.closest("alice7", (f"alice{number}" for number in range(100_000)))
    assert 0 < len(compared) <= 50
