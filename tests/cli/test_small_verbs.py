"""The verbs that move no files, and what is said of wrong usage."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from glide.cli.who import _ago
from glide.crypto.identity import Identity, fingerprint, key_text, load_or_create, parse_key
from glide.people.known import Known
from tests.processes import World

MIB = 1024 * 1024


def test_serve_prints_the_line_for_the_other_machines(alone: World) -> None:
    relay = alone.run("relay", "serve", "--port", "0")
    relay.says("--host 0.0.0.0")
    (line,) = (line.strip() for line in relay.errors.splitlines() if "glide use" in line)
    assert "Only this machine" in relay.errors
    words = line.split()
    used = alone.run("alice", *words[1:])
    assert used.wait() == 0, used
    assert alone.run("alice", "who").wait() == 0
    assert relay.output == []


def test_the_greeting_can_be_set(alone: World) -> None:
    relay = alone.run("relay", "serve", "--port", "0", "--json", "--greeting", "Hello \x1b[31mthere")
    heard = relay.event("listening")
    receiver = alone.run("bob", "receive", "--as", "bob", "--relay", f"127.0.0.1:{heard['port']}")
    receiver.says("Hello")
    receiver.says("Ctrl-C")
    assert "\x1b" not in receiver.errors


def test_the_default_greeting(w: World) -> None:
    receiver = w.run("bob", "receive", "--as", "bob", "--relay", w.address)
    receiver.says("Welcome to the server!")


def test_who_lists_people_and_registers_no_name(w: World) -> None:
    w.receive("bob")
    for verb in ("who", "list"):
        process = w.run("alice", verb, "--relay", w.address, "--json")
        assert process.wait() == 0
        people = [event for event in process.events if event["event"] == "person"]
        assert [(person["name"], person["receiving"], person["trust"]) for person in people] == [("bob", True, "new")]


def test_who_is_a_table_of_people_and_nothing_else(w: World) -> None:
    w.receive("bob")
    w.receive("a-name-that-is-somewhat-longer")
    process = w.run("alice", "who", "--relay", w.address)
    assert process.wait() == 0
    long, short = process.output
    assert long.split()[0] == "a-name-that-is-somewhat-longer"
    assert re.fullmatch(r"bob {29}takes files  \d+s  new  (\w{4}-){4}\w{4}", short)
    assert long.index("takes files") == short.index("takes files")


def test_who_says_how_well_a_key_is_known(w: World) -> None:
    w.receive("bob")
    w.receive("carol")
    known = Known(w.folder / "alice" / "known.json")
    assert w.run("alice", "known", "add", "carol", w.out("bob", "id").split()[1], "--relay", w.address).wait() == 0
    assert w.run("alice", "known", "add", "bob", w.out("bob", "id").split()[1], "--relay", w.address).wait() == 0
    process = w.run("alice", "who", "--relay", w.address)
    assert process.wait() == 0
    assert [line.split()[4] for line in process.output] == ["known", "changed"]
    assert [pin.name for pin in known.people()] == ["bob", "carol"]  # looking has changed nothing


def test_who_says_that_nobody_is_there(w: World) -> None:
    process = w.run("alice", "who", "--relay", w.address)
    assert process.wait() == 0
    assert process.output == []
    assert "Nobody" in process.errors


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5.0, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (3e5, "3d")],
)
def test_how_long_somebody_is_there_is_said_in_one_unit(seconds: float, said: str) -> None:
    assert _ago(seconds) == said


def test_id_shows_one_key_for_ever(alone: World) -> None:
    first, second = (json.loads(alone.out("alice", "id", "--json")) for _ in range(2))
    assert first["key"] == second["key"]
    key = parse_key(first["key"])
    assert first["fingerprint"] == fingerprint(key)
    identity = alone.folder / "alice" / "identity"
    assert load_or_create(identity).public == key
    assert identity.stat().st_mode & 0o777 == 0o600


def test_known_add_needs_a_relay_that_was_met_and_a_key(alone: World) -> None:
    key = key_text(Identity.generate().public)
    assert alone.run("alice", "known", "add", "bob", key).wait() == 2
    assert alone.run("alice", "known", "add", "bob", "nonsense", "--relay", "h:1").wait() == 2
    assert alone.run("alice", "known", "forget").wait() == 2
    assert alone.run("alice", "known", "forget", "bob").wait() == 0


def test_use_refuses_what_is_no_relay(alone: World) -> None:
    for text in ("", "host:port", "host:99999", "host#key", "a:b:c"):
        assert alone.run("alice", "use", text).wait() == 2


def test_the_environment_and_the_file_are_read(w: World) -> None:
    home = w.folder / "carol"
    home.mkdir()
    (home / "config.toml").write_text(f'relay = "{w.address}"\nas = "caroline"\n')
    process = w.run("carol", "receive", "--json", into=str(w.into("carol")), accept="all")
    assert process.event("registered")["name"] == "caroline"
    assert w.push("alice", "caroline", w.file("f", 1)).wait() == 0
    assert w.left("carol") == ["f"]
    (home / "config.toml").write_text('rely = "x"\n')
    refused = w.run("carol", "receive", "--json")
    assert refused.wait() == 2
    assert "'rely'" in refused.result["message"]
    assert "'relay'" in refused.result["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["push"],
        ["push", "bob"],
        ["nonsense"],
        ["receive", "--accept", "everything"],
        ["receive", "--idle", "soon"],
        ["serve", "--port", "99999"],
        ["push", "bob", "f", "--nonsense"],
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(alone: World, arguments: list[str]) -> None:
    process = alone.run("alice", *arguments)
    assert process.wait() == 2, process
    assert "Traceback" not in process.errors
    assert process.errors.strip()


def test_a_port_that_is_taken_is_said_so(w: World) -> None:
    port = w.address.partition("#")[0].split(":")[1]
    process = w.run("other", "serve", "--port", port, "--json")
    assert process.wait() == 1, process
    assert port in process.result["message"]
    assert "in use" in process.result["message"]


def test_help_and_version(alone: World) -> None:
    for arguments in (["--help"], ["--version"], *([verb, "--help"] for verb in ("serve", "push", "receive", "known"))):
        process = alone.run("alice", *arguments)
        assert process.wait() == 0, process
        assert process.output


def test_a_reader_that_goes_away_ends_it_quietly(w: World) -> None:
    environment = {**os.environ, "GLIDE_HOME": str(w.folder / "alice"), "GLIDE_RELAY": w.address}
    command = f"{sys.executable} -m glide who --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() in ("0", "1")  # it may have written all before the reader went
    assert "Traceback" not in done.stderr
