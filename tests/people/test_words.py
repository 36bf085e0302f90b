"""Words for keys, and codes: what people say to each other."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import UsageError
from glide.people.words import new_code, parse_code, words

KEYS = st.binary(min_size=32, max_size=32)

LOADED = """
import sys
import glide.people.words
print("mnemonic" in sys.modules)
"""


def test_the_words_are_those_of_BIP_39() -> None:
    # Its first word and its last, and the test vector of 2^128 - 1 bits, which begins with eleven ones.
    assert parse_code("abandon zoo") == "abandon-zoo"


def test_six_words_are_the_first_66_bits_of_the_hash() -> None:
    key = bytes(range(32))
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(b"glide words " + key).digest())
    listed = sorted({word for number in range(4000) for word in words(number.to_bytes(32, "big"))})
    assert len(listed) == 2048, "the list is in order, and every word of it is used"
    assert words(key) == tuple(listed[int(bits[at : at + 11], 2)] for at in range(0, 66, 11))


@given(KEYS, KEYS)
def test_C1_another_key_has_other_words(one: bytes, other: bytes) -> None:
    assert (words(one) == words(other)) == (one == other)


def test_C1_a_key_that_differs_in_one_bit_has_other_words() -> None:
    key = bytes(32)
    seen = {words(key)}
    for bit in range(256):
        changed = (int.from_bytes(key, "big") ^ (1 << bit)).to_bytes(32, "big")
        seen.add(words(changed))
    assert len(seen) == 257


def test_a_code_is_two_random_words_and_reads_back() -> None:
    codes = {new_code() for _ in range(200)}
    assert len(codes) > 195, "22 bits: of 200 codes hardly two are the same"
    for code in codes:
        assert code.count("-") == 1
        assert parse_code(code) == code


def test_both_words_of_a_code_are_drawn_from_all() -> None:
    firsts, seconds = zip(*(new_code().split("-") for _ in range(3000)), strict=True)
    # Of 2,048 words 3,000 draws leave out a quarter (e^-1.46); far fewer would come of a shorter list.
    assert min(len(set(firsts)), len(set(seconds))) > 1400


@pytest.mark.parametrize(
    "typed",
    [
        "coral-window",
        "CORAL-Window",
        "  coral   window \r\n",
        "coral - window",
        "coral\u2013window",
        "coral\twindow",
        "-coral--window-",
        "coral\u00a0window",
        "Coral. Window.",
    ],
)
def test_case_spaces_and_dashes_are_forgiven(typed: str) -> None:
    assert parse_code(typed) == "coral-window"


def test_a_word_that_is_none_is_named_with_the_closest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_code("coral-windwo")
    assert "'windwo'" in caught.value.what
    assert "coral" not in caught.value.what
    assert "'window'" in caught.value.next
    assert "Nothing was tried" in caught.value.means
    assert caught.value.exit == 2


@pytest.mark.parametrize("typed", ["", " - ", "coral", "coral-window-coral", "coralwindow", "1234-5678"])
def test_what_is_no_code_is_wrong_usage(typed: str) -> None:
    with pytest.raises(UsageError):
        parse_code(typed)


@given(st.text(max_size=300))
def test_D1_whatever_is_typed_comes_back_as_a_code_or_an_error_that_can_be_shown(typed: str) -> None:
    try:
        code = parse_code(typed)
    except UsageError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 300
        assert not error.for_peer, "what was typed goes to nobody"
    else:
        assert parse_code(code) == code


def test_the_list_is_not_loaded_before_it_is_needed() -> None:
    said = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout == "False\n"
