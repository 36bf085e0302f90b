"""The line in clear that opens a connection, and the line that answers it, in any version to come."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glide.errors import NotGlide, RelayRefused
from glide.protocol import preface
from glide.protocol.preface import LONGEST_LINE, Purpose
from glide.text import printable

ASCII_SENTENCES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400)


def body(line: bytes) -> bytes:
    """The line without its newline, which must be there, once, at its end."""
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    return line[:-1]


@pytest.mark.parametrize("purpose", Purpose)
def test_the_responder_reads_the_purpose_that_the_initiator_wrote(purpose: Purpose) -> None:
    assert preface.parse_opening(body(preface.opening(purpose))) is purpose


def test_the_opening_lines_are_those_of_the_document() -> None:
    assert [preface.opening(purpose) for purpose in Purpose] == [
        b"glide/1 control\n",
        b"glide/1 data\n",
        b"glide/1 e2e\n",
        b"glide/1 pair\n",
    ]


def test_yes_is_taken_for_yes() -> None:
    preface.check_answer(body(preface.ok()), "relay.example")


@given(ASCII_SENTENCES)
def test_busy_is_told_with_its_reason_and_is_no_question_of_version(why: str) -> None:
    with pytest.raises(RelayRefused) as caught:
        preface.check_answer(body(preface.busy(why)), "relay.example")
    assert "relay.example" in caught.value.what
    assert why[:100] in caught.value.what


@given(ASCII_SENTENCES)
def test_a_refusal_is_told_with_its_reason(why: str) -> None:
    with pytest.raises(NotGlide) as caught:
        preface.check_answer(body(preface.refusal(why)), "relay.example")
    assert "relay.example" in caught.value.what
    assert why[:100] in caught.value.what


@given(st.text(max_size=1000))
def test_R1_no_answer_is_longer_than_the_longest_line(why: str) -> None:
    assert len(preface.busy(why)) <= LONGEST_LINE
    assert len(preface.refusal(why)) <= LONGEST_LINE
    assert preface.busy(why).isascii()
    assert preface.refusal(why).isascii()


@pytest.mark.parametrize(
    ("version", "advice"),
    [(b"0", "yours is older"), (b"2", "this one is older"), (b"99999", "this one is older")],
)
def test_another_version_is_refused_in_words_that_reach_the_other_person(version: bytes, advice: str) -> None:
    with pytest.raises(NotGlide) as refused:
        preface.parse_opening(b"glide/" + version + b" control")
    assert advice in refused.value.what
    # What the responder found is fit to be sent back, and arrives as it was meant.
    with pytest.raises(NotGlide) as told:
        preface.check_answer(body(preface.refusal(refused.value.what)), "relay.example")
    assert refused.value.what in told.value.what


def test_a_refusal_of_any_later_version_can_be_read() -> None:
    with pytest.raises(NotGlide, match="speaks version 42") as caught:
        preface.check_answer(b"glide/42 refused speaks 40 to 42: update yours", "relay.example")
    assert "update yours" in caught.value.what


def test_yes_in_a_version_that_we_do_not_speak_is_not_taken() -> None:
    with pytest.raises(NotGlide):
        preface.check_answer(b"glide/2 ok", "relay.example")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"glide/1",
        b"glide/1 ",
        b"glide/ control",
        b"glide/1 control ",
        b" glide/1 control",
        b"glide/1 control\r",
        b"glide/1 control\n",
        b"GLIDE/1 control",
        b"glide/-1 control",
        b"glide/123456 control",
        b"glide/1 elevator",
        b"GET / HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"SSH-2.0-OpenSSH_9.6",
    ],
)
def test_an_opening_that_is_not_one_is_refused(line: bytes) -> None:
    with pytest.raises(NotGlide):
        preface.parse_opening(line)


@given(st.binary(max_size=LONGEST_LINE) | st.from_regex(rb"glide/\d+ [a-z0-9]*"))
@example("glide/١ control".encode())
def test_R1_any_opening_is_a_purpose_or_refused_in_plain_words(line: bytes) -> None:
    try:
        assert preface.parse_opening(line) in Purpose
    except NotGlide as error:
        # The words are ours: they can go into a refusal whatever the line was.
        assert error.what.isascii()
        assert error.what.isprintable()


@pytest.mark.parametrize("line", [b"HTTP/1.1 400 Bad Request\r", b"HTTP/1.0 501 Not Implemented"])
def test_a_web_server_is_not_glide_and_its_answer_is_shown(line: bytes) -> None:
    with pytest.raises(NotGlide, match="not a glide relay") as caught:
        preface.check_answer(line, "the relay web.example")
    assert "HTTP/1." in caught.value.what
    assert "host and port" in caught.value.next


@given(
    st.binary(max_size=LONGEST_LINE)
    | st.builds(lambda start, tail: start + tail, st.from_regex(rb"\Aglide/\d{1,6} [a-z]{0,8} "), st.binary())
    | st.builds(
        lambda word, text: b"glide/1 " + word + b" " + text.encode("utf-8", "surrogatepass"),
        st.sampled_from([b"refused", b"busy", b"ok", b"eh"]),
        st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Lu"])),
    )
)
@example(b"glide/1 refused \x1b[2J\x1b]52;c;cm0gLXJm\x07")
@example(b"\x1b]0;owned\x07")
@example("glide/1 busy \u202egnp.exe".encode())
def test_D1_any_answer_is_yes_or_an_error_that_holds_nothing_unescaped(line: bytes) -> None:
    try:
        preface.check_answer(line, "relay.example")
    except (NotGlide, RelayRefused) as error:
        text = str(error)
        assert printable(text, len(text)) == text
    else:
        assert line.startswith(b"glide/")
