"""Identities: one key in one private file, made once; and the one spelling of a key."""

from __future__ import annotations

import os
import re
import stat
import string
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.crypto.identity import Identity, fingerprint, key_text, load_or_create, parse_key
from glide.errors import FileError

posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
keys = st.binary(min_size=32, max_size=32)

# One process that waits to be told, so that several can begin at the same moment.
RACER = """
import sys
from pathlib import Path
from glide.crypto.identity import key_text, load_or_create
print("ready", flush=True)
path = Path(sys.stdin.readline().rstrip())
print(key_text(load_or_create(path).public))
"""

# One process on whose disk there is no room.
NO_ROOM = """
import resource, sys
from pathlib import Path
from glide.crypto.identity import load_or_create
from glide.errors import FileError
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    load_or_create(Path(sys.argv[1]))
except FileError:
    print("FileError")
"""


def process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


# --- the file --------------------------------------------------------------------------------------------


def test_the_identity_is_made_once_and_then_always_the_same(tmp_path: Path) -> None:
    path = tmp_path / "not yet there" / "identity"
    made = load_or_create(path)
    written = path.read_bytes()
    assert load_or_create(path) == made
    assert path.read_bytes() == written
    assert made == Identity.from_private(made.private)


def test_two_identities_are_not_the_same(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "one") != load_or_create(tmp_path / "other")


def test_the_file_holds_the_private_key_as_base32_and_nothing_else(tmp_path: Path) -> None:
    made = load_or_create(tmp_path / "identity")
    assert (tmp_path / "identity").read_text() == key_text(made.private) + "\n"


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_C5_the_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        load_or_create(tmp_path / "home" / "identity")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "home" / "identity").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_nothing_but_the_identity_is_left_in_the_folder(tmp_path: Path) -> None:
    load_or_create(tmp_path / "identity")
    assert os.listdir(tmp_path) == ["identity"]


@pytest.mark.parametrize("round_", range(10))
def test_threads_that_race_agree_on_one_key(tmp_path: Path, round_: int) -> None:
    start, found = threading.Barrier(8), []

    def race() -> None:
        start.wait()
        found.append(load_or_create(tmp_path / "identity"))

    racers = [threading.Thread(target=race) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert found == [load_or_create(tmp_path / "identity")] * 8
    assert os.listdir(tmp_path) == ["identity"]


def test_processes_that_race_agree_on_one_key(tmp_path: Path) -> None:
    racers = [process(RACER) for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(f"{tmp_path / 'identity'}\n")
        racer.stdin.flush()
    found = [racer.communicate()[0].strip() for racer in racers]
    assert found == [key_text(load_or_create(tmp_path / "identity").public)] * 4
    assert os.listdir(tmp_path) == ["identity"]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n",
        b"not a key\n",
        b"\xff\xfe\x00",
        b"a" * 51 + b"\n",
        b"a" * 53 + b"\n",
        b"a" * 51 + b"b\n",
        b"a" * 52 + b"\n" + b"a" * 52 + b"\n",
    ],
    ids=range(8),
)
def test_a_file_that_holds_no_key_is_an_error_and_left_alone(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(junk)
    with pytest.raises(FileError, match=re.escape(str(path))) as caught:
        load_or_create(path)
    assert path.read_bytes() == junk
    assert os.listdir(tmp_path) == ["identity"]
    assert "backup" in caught.value.next


def test_a_folder_that_is_a_file_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("I am a file")
    with pytest.raises(FileError, match="cannot be read or made") as caught:
        load_or_create(tmp_path / "home" / "identity")
    assert "GLIDE_HOME" in caught.value.next


def test_an_identity_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    with pytest.raises(FileError, match="cannot be read or made"):
        load_or_create(tmp_path / "identity")


@posix
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_folder_without_permission_is_an_error(mode: int) -> None:
    nobody = 65534
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=mode)
        if root:  # whom modes do not bind: be somebody else for a moment
            Path(folder).chmod(0o755)
            os.chown(home, nobody, nobody)
            os.seteuid(nobody)
        try:
            with pytest.raises(FileError, match="Permission denied"):
                load_or_create(home / "identity")
        finally:
            if root:
                os.seteuid(0)
            home.chmod(0o700)


@posix
def test_a_link_that_leads_nowhere_is_an_error_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "identity").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError):
        load_or_create(tmp_path / "identity")
    assert (tmp_path / "identity").is_symlink()
    assert os.listdir(tmp_path) == ["identity"]


@posix
def test_a_full_disk_is_an_error_and_leaves_no_half_of_a_key_behind(tmp_path: Path) -> None:
    output, _ = process(NO_ROOM, str(tmp_path / "identity")).communicate()
    assert output == "FileError\n"
    assert os.listdir(tmp_path) == []


# --- C5: the private half is nowhere to be seen ------------------------------------------------------------


@given(keys)
def test_C5_the_private_key_is_not_in_the_repr(private: bytes) -> None:
    identity = Identity.from_private(private)
    for shown in (repr(identity), str(identity), f"{identity}"):
        assert "private" not in shown
        for spelling in (key_text(private), private.hex(), repr(private)):
            assert spelling not in shown


def test_C5_an_error_about_a_damaged_identity_does_not_tell_what_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    secret = key_text(load_or_create(path).private)
    path.write_text(secret[:-1])
    with pytest.raises(FileError) as caught:
        load_or_create(path)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not any(secret[at : at + 8] in told for at in range(len(secret) - 8))


@given(keys)
def test_C5_an_error_about_a_spelling_does_not_repeat_it(key: bytes) -> None:
    with pytest.raises(ValueError, match="52 characters") as caught:
        parse_key(key_text(key)[:-1])
    assert key_text(key)[:20] not in "".join(traceback.format_exception(caught.value, chain=True))


# --- how keys are written --------------------------------------------------------------------------------


@given(keys)
def test_a_key_and_its_text_stand_for_each_other(key: bytes) -> None:
    text = key_text(key)
    assert re.fullmatch("[a-z2-7]{52}", text)
    assert parse_key(text) == key


@given(keys, st.sampled_from(["", " ", "\n", "\t "]))
def test_a_key_may_come_in_upper_case_and_with_blanks_around_it(key: bytes, blank: str) -> None:
    assert parse_key(blank + key_text(key).upper() + blank) == key


@given(keys, st.sampled_from(string.ascii_lowercase + "234567"))
def test_the_last_character_of_a_key_has_one_spelling(key: bytes, last: str) -> None:
    text = key_text(key)[:-1] + last
    # 52 characters hold 260 bits; the last four must be zero, else one key would have sixteen spellings.
    if last in "aq":
        assert key_text(parse_key(text)) == text
    else:
        with pytest.raises(ValueError, match="52 characters"):
            parse_key(text)


@given(
    st.text(max_size=60)
    | st.text(string.ascii_letters + string.digits + "=", min_size=50, max_size=58)
    | st.builds(
        lambda key, at, put: key_text(key)[:at] + put + key_text(key)[at + 1 :],
        keys,
        st.integers(0, 51),
        st.sampled_from(["", "=", "0", "1", "8", " ", "-", "\u212a", "\u0131", "\u017f", "ß", "ﬀ"]),
    )
)
def test_whatever_is_accepted_as_a_key_is_its_one_spelling(text: str) -> None:
    try:
        key = parse_key(text)
    except ValueError:
        return
    assert key_text(key) == text.strip().lower()


@pytest.mark.parametrize("tail", ["=", "====", "a", "aa", "\0"])
def test_a_key_with_anything_behind_it_is_refused(tail: str) -> None:
    with pytest.raises(ValueError, match="52 characters"):
        parse_key(key_text(bytes(32)) + tail)


@given(keys)
def test_a_fingerprint_can_be_read_aloud(key: bytes) -> None:
    assert re.fullmatch("[a-z2-7]{4}(-[a-z2-7]{4}){4}", fingerprint(key))


@given(keys, st.integers(0, 255))
def test_fingerprints_of_different_keys_differ(key: bytes, bit: int) -> None:
    other = (int.from_bytes(key, "big") ^ (1 << bit)).to_bytes(32, "big")
    assert fingerprint(key) != fingerprint(other)
    assert fingerprint(key) == fingerprint(bytes(key))


def test_the_public_half_is_that_of_x25519() -> None:
    # RFC 7748, section 6.1: Alice's keys.
    private = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert Identity.from_private(private).public == public
