"""Text of others made fit to be shown, and the words for sizes and times."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glide.text import duration, parse_duration, parse_size, printable, size

FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}

any_text = st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]))
plain_text = st.text(st.characters(categories=["L", "N", "P", "S"]))


@given(any_text, st.integers(1, 300))
@example("\x1b[2J\x1b]52;c;cm0gLXJmIC8=\x07", 200)
@example("report\u202efdp.exe", 200)
@example("line\r\x1b[Kline\u2028line\u2029\x85", 200)
@example("\ud800\udfff\U000e0041\ufeff\u200b", 200)
def test_D1_nothing_invisible_or_directional_comes_back_and_never_more_than_the_limit(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert not {unicodedata.category(character) for character in shown} & FORBIDDEN
    assert len(shown) <= limit


@pytest.mark.parametrize(
    "character", ["\x1b", "\x9b", "\r", "\n", "\x7f", "\u202e", "\u2066", "\u200f", "\u2028", "\0"]
)
def test_D1_what_is_hidden_is_shown_as_an_escape(character: str) -> None:
    shown = printable(f"a{character}b")
    assert re.fullmatch(r"a\\(x[0-9a-f]{2}|u[0-9a-f]{4})b", shown)
    assert chr(int(shown[3:-1], 16)) == character


def test_D1_a_character_beyond_the_first_plane_is_escaped_in_full() -> None:
    assert printable("a\U000e0001b") == r"a\U000e0001b"


def test_D1_a_name_of_ten_thousand_letters_keeps_its_beginning_and_its_end() -> None:
    shown = printable("begin" + "x" * 10_000 + "end.pdf", 80)
    assert len(shown) == 80
    assert shown.startswith("begin")
    assert shown.endswith("end.pdf")
    assert "…" in shown


def test_D1_ten_thousand_escapes_are_cut_as_well() -> None:
    shown = printable("begin" + "\x1b" * 10_000 + ".pdf", 80)
    assert len(shown) == 80
    assert shown.startswith("begin")
    assert shown.endswith(".pdf")


@given(plain_text, st.integers(1, 300))
def test_what_can_be_seen_and_fits_is_shown_as_it_is(text: str, room: int) -> None:
    assert printable(text, len(text) + room) == text


@given(any_text, st.integers(1, 300))
def test_what_was_made_printable_stays_as_it_is(text: str, limit: int) -> None:
    assert printable(printable(text, limit), limit) == printable(text, limit)


# --- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (64 * 2**20, "64.0 MiB"),
        (2**63 - 1, "8.0 EiB"),
        (2**70, "1024.0 EiB"),
    ],
)
def test_a_size_is_told_in_binary_units(count: int, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 2**63 - 1))
def test_a_size_is_right_to_the_last_digit_shown(count: int) -> None:
    number, unit = size(count).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
    assert abs(float(number) - count / scale) <= (0 if unit == "B" else 0.0500001)


# --- durations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1d2h3m4s", 93784),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("0.5", 0.5),
        (" 5M ", 300),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "m5",
        "5x",
        "-5",
        "-5s",
        "5 m",
        "1h 30m",
        "1h30",
        "30 1h",
        "1.h",
        ".5",
        "1e3",
        "nan",
        "inf",
        "5mm",
        "1,5h",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 5m or 2h"):
        parse_duration(text)


@given(st.text(max_size=20) | st.from_regex(r"\A[0-9.]{0,5}(ms|[smhd])?[0-9.]{0,5}[smhd]?\Z"))
def test_any_text_is_a_time_span_that_is_not_negative_or_refused(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError:
        pass


@given(st.integers(0, 10**7))
def test_a_duration_of_whole_seconds_is_read_back_as_it_was_told(seconds: int) -> None:
    assert parse_duration(duration(seconds)) == seconds


@given(st.integers(1, 500))
def test_a_duration_below_a_second_is_told_in_milliseconds(milliseconds: int) -> None:
    assert duration(milliseconds / 1000) == f"{milliseconds}ms"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (45, "45s"), (60, "1m"), (5400, "1h30m"), (3601, "1h1s"), (0.25, "250ms"), (1.4, "1s")],
)
def test_a_duration_is_told_in_its_parts(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- sizes that people write -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("100", 100),
        ("100B", 100),
        ("500k", 500 * 1024),
        ("500KiB", 500 * 1024),
        ("500kB", 500_000),
        ("2.5M", 2.5 * 1024**2),
        ("2.5MiB", 2.5 * 1024**2),
        ("2.5MB", 2_500_000),
        ("1G", 1024**3),
        ("1GiB", 1024**3),
        ("1GB", 10**9),
        ("1T", 1024**4),
        ("1TiB", 1024**4),
        ("1TB", 10**12),
        ("2P", 2 * 1024**5),
        ("2EB", 2 * 10**18),
        ("7EiB", 7 * 1024**6),
        ("1 gib", 1024**3),
        (" 10MIB ", 10 * 1024**2),
        ("0.1k", 102),
        ("1.9", 1),
        ("9223372036854775807", 2**63 - 1),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "k", "GiB", "-1", "+1", "1x", "1 k B", "1  k", "1kiloB", "1.k", ".5k", "1e3", "nan", "inf", "1,5k"],
        *["1ib", "1bi", "1/s", "0x10", "1_000", "\u0661k", "8EiB", "9223372036854775808", "1" * 20, "9" * 10_000],
    ],
)
def test_what_is_no_size_or_too_large_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 500k, 2\.5MB or 1GiB"):
        parse_size(text)


@given(st.text(max_size=20) | st.from_regex(r"\A[0-9.]{0,22} ?[kmgtpe]?i?b?\Z", fullmatch=True))
def test_any_text_is_a_size_that_fits_the_wire_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_size(text) < 2**63
    except ValueError:
        pass


@given(st.integers(0, 2**62))
def test_a_size_as_it_is_told_can_be_read_back(count: int) -> None:
    assert abs(parse_size(size(count)) - count) <= count // 19 + 1  # one digit behind the point, of 1.0 at least
