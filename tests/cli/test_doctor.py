"""doctor: it finds what is wrong, says what to do, goes on with the next check, and changes nothing."""

from __future__ import annotations

import http.server
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glide.client import doctor
from glide.crypto.identity import Identity, key_text, load_or_create
from glide.errors import FileError, GlideError
from glide.people.known import Known, Trust
from glide.settings import Home, Settings
from tests.processes import Process, World, tree

LOCAL = ["settings", "identity", "pins", "disk", "state"]
ALL = [*LOCAL, "relay", "name", "clock"]


def ask(w: World, person: str, *arguments: str, **settings: str) -> Process:
    relay = ("--relay", w.address) if w.address and "--relay" not in arguments else ()
    given: dict[str, Any] = {"as": person, "into": str(w.folder), **settings}
    process = w.run(person, "doctor", "--json", *relay, *arguments, **given)
    process.wait()
    return process


def checks(process: Process) -> dict[str, bool]:
    return {event["name"]: event["ok"] for event in process.told("check")}


def wrong(process: Process) -> list[str]:
    return [name for name, well in checks(process).items() if not well]


def message(process: Process, name: str) -> str:
    text = process.event("check", name=name)["message"]
    assert isinstance(text, str)
    return text


@pytest.fixture
def home(alone: World) -> Path:
    made = alone.folder / "alice"
    made.mkdir()
    return made


def test_where_all_is_well_each_check_is_a_line_and_the_code_is_0(w: World) -> None:
    w.out("alice", "id")
    w.out("alice", "who", "--relay", w.address)
    process = ask(w, "alice")
    assert process.wait() == 0, process
    assert checks(process) == dict.fromkeys(ALL, True)
    assert "is pinned" in message(process, "relay")
    assert "0s from" in message(process, "clock") or "1s from" in message(process, "clock")
    text = w.run("alice", "doctor", "--relay", w.address, into=str(w.folder))
    assert text.wait() == 0, text
    assert [line.split()[:2] for line in text.output] == [["ok", name] for name in ALL]


def test_it_makes_no_key_and_pins_nothing(w: World) -> None:
    process = ask(w, "alice")
    assert process.wait() == 0, process
    assert not (w.folder / "alice").exists()
    w.out("alice", "id")
    (w.folder / "alice" / "identity").chmod(0o640)
    before = tree(w.folder / "alice")
    process = ask(w, "alice", "--relay", w.address.partition("#")[0])
    assert "not pinned yet" in message(process, "relay")
    assert tree(w.folder / "alice") == before
    assert (w.folder / "alice" / "identity").stat().st_mode & 0o777 == 0o640


def test_every_check_is_made_whatever_the_others_say(home: Path, alone: World) -> None:
    (home / "config.toml").write_text("relay = \n")
    (home / "identity").write_text("nonsense\n")
    process = ask(alone, "alice", "--relay", "127.0.0.1:1", into=str(home / "nowhere"))
    assert wrong(process) == ["settings", "identity", "disk", "relay"]
    assert list(checks(process)) == [*LOCAL, "relay"]
    assert (process.wait(), process.result["status"]) == (2, "usage")  # as the first
    assert process.result["message"] == "4 of 6 checks failed: settings, identity, disk, relay."


def carelessly_restored(path: Path) -> None:
    load_or_create(path)
    path.chmod(0o644)


SPOILED: list[tuple[str, Callable[[Path], object], str, int]] = [
    ("settings", lambda home: (home / "config.toml").write_text("relai = 'h:1'\n"), "'relay'", 2),
    ("settings", lambda home: (home / "config.toml").write_text("idle = 'soon'\n"), "idle", 2),
    ("settings", lambda home: (home / "config.toml").write_text("[policy.known]\ndo = 'maybe'\n"), "maybe", 2),
    ("settings", lambda home: (home / "config.toml").write_text("[groups]\nteam = []\n"), "team", 2),
    ("identity", lambda home: (home / "identity").write_text("nonsense\n"), "backup", 8),
    ("identity", lambda home: (home / "identity").mkdir(), "looked at", 8),
    ("identity", lambda home: carelessly_restored(home / "identity"), "0644", 8),
    ("pins", lambda home: (home / "known.json").write_text("{"), "known.json", 8),
]


@pytest.mark.parametrize(("name", "spoil", "said", "code"), SPOILED)
def test_what_is_wrong_in_the_home_folder_is_found(
    w: World, name: str, spoil: Callable[[Path], object], said: str, code: int
) -> None:
    home = w.folder / "alice"
    home.mkdir()
    spoil(home)
    process = ask(w, "alice")
    assert wrong(process)[0] == name
    # A relay cannot be checked against pins that cannot be read, nor folders of rules that make no sense.
    assert set(wrong(process)) <= {name, "relay" if name == "pins" else "disk"}
    assert said in message(process, name)
    assert process.wait() == code, process


def test_C1_pins_that_others_may_read_are_found(home: Path, alone: World) -> None:
    Known(home / "known.json").remember(b"r" * 32, "bob", b"k" * 32, Trust.KNOWN)
    assert "pins" not in wrong(ask(alone, "alice", "--relay", "127.0.0.1:1"))
    (home / "known.json").chmod(0o664)
    process = ask(alone, "alice", "--relay", "127.0.0.1:1")
    assert "0664" in message(process, "pins")
    assert wrong(process) == ["pins", "relay"]


def test_a_variable_that_is_no_setting_is_found(alone: World) -> None:
    process = ask(alone, "alice", "--relay", "127.0.0.1:1", rely="h:1")
    assert "GLIDE_RELAY?" in message(process, "settings")
    assert process.wait() == 2


def test_D1_what_it_finds_is_fit_to_be_shown(alone: World) -> None:
    process = ask(alone, "alice", "--relay", "127.0.0.1:1", **{"x\x1b[31m": "1"})
    assert "\\x1b" in message(process, "settings")


def test_a_folder_that_cannot_be_used_is_found(alone: World) -> None:
    for into in ("/", str(alone.folder / "nowhere"), __file__):
        process = ask(alone, "alice", "--relay", "127.0.0.1:1", into=into)
        assert wrong(process) == ["disk", "relay"]
        assert process.wait() == 8


def test_the_folders_of_rules_are_looked_at_too(home: Path, alone: World) -> None:
    (home / "config.toml").write_text(f"[policy.known]\ninto = '{home / 'nowhere'}'\n")
    assert wrong(ask(alone, "alice", "--relay", "127.0.0.1:1")) == ["disk", "relay"]


def test_a_state_folder_that_cannot_be_made_is_found(alone: World) -> None:
    (alone.folder / "alice").write_text("a file in the place of the folder\n")
    process = ask(alone, "alice", "--relay", "127.0.0.1:1")
    assert "state" in wrong(process)
    assert "GLIDE_HOME" in message(process, "state")


def test_a_disk_with_little_room_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_ROOM", 1 << 62)
    chosen = Settings({"into": str(tmp_path)}, Home(tmp_path, tmp_path), {})
    (disk,) = (check for check in doctor.local(chosen) if check.name == "disk")
    assert isinstance(disk.error, FileError)
    assert "free" in disk.message


# --- the relay ---


def test_a_relay_that_does_not_answer_is_6(alone: World) -> None:
    process = ask(alone, "alice", "--relay", "127.0.0.1:1")
    assert (wrong(process), process.wait()) == (["relay"], 6)
    assert "glide serve" in message(process, "relay")
    assert "name" not in checks(process)


def test_a_relay_with_another_key_is_5(w: World) -> None:
    place, _, _ = w.address.partition("#")
    other = key_text(Identity.generate().public)
    process = ask(w, "alice", "--relay", f"{place}#{other}")
    assert (wrong(process), process.wait()) == (["relay"], 5)
    Known(w.folder / "alice" / "known.json").remember_relay(place, bytes(32))
    process = ask(w, "alice", "--relay", place)
    assert (wrong(process), process.wait()) == (["relay"], 5)
    assert "known forget --relay" in message(process, "relay")


def test_what_is_no_relay_is_10(alone: World) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        process = ask(alone, "alice", "--relay", f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert (wrong(process), process.wait()) == (["relay"], 10)


def test_a_name_that_somebody_else_has_is_11(w: World) -> None:
    w.receive("bob")
    process = ask(w, "alice", **{"as": "bob"})
    assert (wrong(process), process.wait()) == (["name"], 11)
    assert "bob-laptop" in message(process, "name")
    mine = ask(w, "bob")
    assert mine.wait() == 0, mine
    assert "take files" in message(mine, "name")


@pytest.mark.parametrize(("here", "there"), [(1000.0, 0), (1000.0, 1000), (1060.0, 1000), (940.0, 1000)])
def test_clocks_may_differ_by_a_minute(here: float, there: int) -> None:
    assert doctor._clock(here, there)


@pytest.mark.parametrize(("here", "said"), [(1061.0, "ahead"), (938.0, "behind"), (8.0e8, "ahead")])
def test_a_clock_that_is_wrong_is_told_with_its_direction(here: float, said: str) -> None:
    with pytest.raises(GlideError, match=said):
        doctor._clock(here, 1000)


def test_it_is_stopped_by_a_signal_while_the_relay_is_silent(alone: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = alone.run("alice", "doctor", "--json", "--relay", f"127.0.0.1:{silent.getsockname()[1]}")
        process.event("check", name="state")
        connection, _ = silent.accept()
        with connection:
            process.signal(signal.SIGINT)
            assert process.wait() == 130


def test_settings_of_the_file_hold_for_its_own_output(home: Path, alone: World) -> None:
    (home / "config.toml").write_text("json = true\n")
    process = alone.run("alice", "doctor", "--relay", "127.0.0.1:1")
    assert process.wait() == 6
    assert process.told("check")
