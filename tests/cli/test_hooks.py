"""Hooks: what they are told, where they write, and that nothing they do touches a transfer."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from glide import events
from glide.cli import hooks
from glide.crypto.identity import fingerprint, key_text
from glide.errors import Declined, UsageError
from tests.processes import World, until

KEY = bytes(range(32))
ONE = b"\1" * 16
TOLD = "import os, json, sys; facts = {k: v for k, v in os.environ.items() if k.startswith('GLIDE_HOOK_')}; "


def offer(
    transfer: bytes = ONE, *, sender: str = "alice", message: str = "", names: tuple[str, ...] = ("a",)
) -> events.OfferArrived:
    return events.OfferArrived(transfer, sender, KEY, 2, None, message, "seen", names, lambda: iter(names))


def program(code: str, *arguments: str) -> str:
    """A hook's command: Python, with that code."""
    return shlex.join([sys.executable, "-c", code, *arguments])


def telling(folder: Path) -> str:
    """A hook that writes what it was told into a file of its own."""
    return program(f"{TOLD}open(os.path.join({str(folder)!r}, str(os.getpid())), 'w').write(json.dumps(facts))")


def told(folder: Path) -> list[dict[str, str]]:
    """What hooks were told, without the prefix, in order of their events' names."""
    found = [json.loads(path.read_text()) for path in folder.iterdir()]
    plain = [{name.removeprefix(hooks.PREFIX): value for name, value in each.items()} for each in found]
    return sorted(plain, key=lambda each: each["EVENT"])


def notices(reported: list[events.Event]) -> list[str]:
    return [event.message for event in reported if isinstance(event, events.Notice)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "told"
    made.mkdir()
    return made


# --- the command ---


@pytest.mark.parametrize("command", ["'", "no-such-program-anywhere x", "/nowhere/at/all", "true\0", "/etc"])
async def test_what_cannot_be_run_is_wrong_usage_before_anything_starts(command: str) -> None:
    with pytest.raises(UsageError, match="--on-received"):
        async with hooks.running({"received": command}, lambda _: None):
            pytest.fail("it began")


@pytest.mark.parametrize("command", [None, "", "  "])
async def test_without_a_command_events_pass_untouched(command: str | None) -> None:
    reported: list[events.Event] = []
    async with hooks.running({"offer": command, "failed": None}, reported.append) as report:
        report(offer())
    assert [type(event) for event in reported] == [events.OfferArrived]


def test_a_program_is_found_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ring"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hooks.parse("offer", "~/ring loud") == hooks.Hook("--on-offer", (str(script), "loud"))


async def test_a_command_is_never_a_line_for_a_shell(folder: Path) -> None:
    code = f"import sys, json; open({str(folder / 'x')!r}, 'w').write(json.dumps(sys.argv[1:]))"
    command = f"{program(code)} $HOME ';' '$(touch y)' '*' \"a b\""
    async with hooks.running({"offer": command}, lambda _: None) as report:
        report(offer())
    assert json.loads((folder / "x").read_text()) == ["$HOME", ";", "$(touch y)", "*", "a b"]


# --- what it is told ---


async def test_every_event_tells_its_facts(folder: Path) -> None:
    tell = telling(folder)
    async with hooks.running({"offer": tell, "received": tell, "failed": tell}, lambda _: None) as report:
        report(offer(message="hello", names=("a", "b/")))
        report(events.Saved(ONE, "/in/b/c", 1, b"\2" * 32, inside=True))
        report(events.Saved(ONE, "/in/a", 1, b"\2" * 32))
        report(events.SavedFolder(ONE, "/in/b"))
        report(events.Received(ONE, "alice", 2, 77))
        report(events.Failed(ONE, "alice", "partly", "1 of 3 is not here."))
        report(events.OfferDeclined("mallory", "Not known."))
    failed, offered, received, refused = told(folder)
    about = {
        "FROM": "alice",
        "KEY": key_text(KEY),
        "FINGERPRINT": fingerprint(KEY),
        "TRUST": "seen",
        "ITEMS": "2",
        "NAMES": "a\nb/",
        "MESSAGE": "hello",
        "TRANSFER": ONE.hex(),
    }
    for each in (offered, received, failed):
        assert about.items() <= each.items()
    assert (offered["EVENT"], offered["BYTES"], offered["PATH"]) == ("offer", "", "")
    assert (received["EVENT"], received["BYTES"]) == ("received", "77")
    assert (received["PATH"], received["PATHS"]) == ("/in/a", "/in/a\n/in/b")
    assert (failed["EVENT"], failed["STATUS"], failed["REASON"]) == ("failed", "partly", "1 of 3 is not here.")
    assert (refused["STATUS"], refused["FROM"], refused["REASON"]) == ("refused", "mallory", "Not known.")
    assert all(set(each) == set(hooks.FACTS) for each in (offered, received, failed, refused))
    line = json.loads(received["JSON"])
    assert {"event": "received", "from": "alice", "items": 2, "bytes": 77, "paths": ["/in/a", "/in/b"]}.items() <= (
        line.items()
    )


HOSTILE = "\x1b]52;c;eA==\x07\r\n\u202e\x9b31m\0\ud800" + "x" * 10_000


async def test_D1_nothing_of_a_peer_reaches_a_hook_unescaped(folder: Path) -> None:
    path = "/in/\x1b[2J\u202e\udcff\n.txt"
    tell = telling(folder)
    async with hooks.running({"received": tell, "failed": tell}, lambda _: None) as report:
        report(offer(sender=HOSTILE, message=HOSTILE, names=(HOSTILE, HOSTILE)))
        report(events.Saved(ONE, path, 1, b"\2" * 32))
        report(events.Received(ONE, HOSTILE, 2, 77))
        report(events.Failed(ONE, HOSTILE, "stopped", HOSTILE))
    failed, received = told(folder)
    for each in (failed, received):
        for name, value in each.items():
            lines = value.split("\n") if name in ("NAMES", "PATHS") else [value]
            assert all(line.isprintable() for line in lines), name
            assert all(len(line) <= 1000 for line in lines) or name == "JSON"
    assert received["NAMES"].count("\n") == 1
    assert received["PATHS"].count("\n") == 0
    assert received["JSON"].isascii()
    assert json.loads(received["JSON"])["paths"] == [path]  # exactly


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), max_size=4), st.text())
def test_D1_whatever_they_are_called_an_environment_can_hold_it(names: list[str], message: str) -> None:
    runner = hooks._Runner({}, lambda _: None)
    runner.report(offer(message=message, names=tuple(names)))
    for name in names:
        runner.report(events.SavedFolder(ONE, f"/in/{name}"))
    facts = runner._facts(events.Received(ONE, "alice", 1, 1))
    assert all("\0" not in value for value in facts.values())
    assert json.loads(facts["JSON"])["paths"] == [f"/in/{name}" for name in names]


async def test_a_great_many_long_paths_do_not_keep_a_hook_from_starting(folder: Path) -> None:
    reported: list[events.Event] = []
    async with hooks.running({"received": telling(folder)}, reported.append) as report:
        report(offer(message="\U0001f600" * 400, names=("\U0001f600" * 60,) * 100))
        for number in range(2000):
            report(events.SavedFolder(ONE, f"/in/{number}" + "\x01" * 200))
        report(events.Received(ONE, "alice", 2000, 77))
    (received,) = told(folder)
    assert notices(reported) == []
    assert received["PATHS"].count("\n") > 50


async def test_an_older_hook_s_facts_are_not_inherited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIDE_HOOK_PATH", "/old")
    monkeypatch.setenv("GLIDE_HOOK_ODD", "1")
    async with hooks.running({"failed": telling(folder)}, lambda _: None) as report:
        report(events.OfferDeclined("mallory", "no"))
    (refused,) = told(folder)
    assert refused["PATH"] == ""
    assert "ODD" not in refused


async def test_many_transfers_are_not_remembered_for_ever(folder: Path) -> None:
    async with hooks.running({"failed": telling(folder)}, lambda _: None) as report:
        for number in range(hooks._MOST_REMEMBERED + 1):
            report(offer(number.to_bytes(16)))
        report(events.Failed((0).to_bytes(16), "alice", "lost", "gone"))
        report(events.Failed((1).to_bytes(16), "alice", "lost", "gone"))
    forgotten, remembered = sorted(told(folder), key=lambda each: each["TRANSFER"])
    assert (forgotten["KEY"], remembered["KEY"]) == ("", key_text(KEY))
    assert forgotten["FROM"] == "alice"


# --- how it runs ---


async def test_its_output_goes_to_stderr_and_it_reads_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('out', repr(sys.stdin.read())); print('err', file=sys.stderr)"
    async with hooks.running({"offer": program(code)}, lambda _: None) as report:
        report(offer())
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "out ''\nerr\n" or sorted(err.splitlines()) == ["err", "out ''"]


async def test_its_output_goes_nowhere_if_it_is_not_to_be_heard(
    capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    code = f"import sys; print('out'); print('err', file=sys.stderr); open({str(folder / 'ran')!r}, 'w').close()"
    async with hooks.running({"offer": program(code)}, lambda _: None, heard=False) as report:
        report(offer())
    assert (folder / "ran").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "signal 40"),
    ],
)
async def test_a_hook_that_fails_is_a_notice(code: str, said: str) -> None:
    reported: list[events.Event] = []
    async with hooks.running({"offer": program(code)}, reported.append) as report:
        report(offer())
    (notice,) = notices(reported)
    assert said in notice
    assert "--on-offer" in notice


async def test_a_hook_whose_program_has_gone_is_a_notice(tmp_path: Path) -> None:
    script = tmp_path / "ring"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    reported: list[events.Event] = []
    async with hooks.running({"offer": str(script)}, reported.append) as report:
        script.unlink()
        report(offer())
    (notice,) = notices(reported)
    assert "cannot be started" in notice


def waiting(folder: Path, gate: Path) -> str:
    """A hook that says that it runs, and ends as soon as ``gate`` is there."""
    begun = f"open(os.path.join({str(folder)!r}, str(os.getpid())), 'w').close()"
    return program(f"import os, time\n{begun}\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)")


async def begun(folder: Path, count: int = 1) -> None:
    await trio.to_thread.run_sync(until, lambda: len(list(folder.iterdir())) == count)


async def test_four_run_at_once_and_the_others_wait_for_their_turn(folder: Path, tmp_path: Path) -> None:
    async with hooks.running({"offer": waiting(folder, tmp_path / "gate")}, lambda _: None) as report:
        for number in range(6):
            report(offer(number.to_bytes(16)))
        await begun(folder, hooks.MOST_AT_ONCE)
        await wait_all_tasks_blocked(0.05)  # whatever else would start has started
        assert len(list(folder.iterdir())) == hooks.MOST_AT_ONCE
        (tmp_path / "gate").touch()
        await begun(folder, 6)


async def test_more_than_can_wait_are_dropped_with_a_notice() -> None:
    reported: list[events.Event] = []
    async with hooks.running({"offer": "true"}, reported.append) as report:
        await wait_all_tasks_blocked()
        for number in range(hooks.MOST_AT_ONCE + hooks.MOST_WAITING + 3):
            report(offer(number.to_bytes(16)))
        assert [notice for notice in notices(reported) if "wait already" in notice] == notices(reported)[:1], (
            "said once"
        )


async def test_strangers_cannot_take_the_places_of_what_has_arrived(folder: Path, tmp_path: Path) -> None:
    slow, tell = waiting(tmp_path / "slow", tmp_path / "gate"), telling(folder)
    (tmp_path / "slow").mkdir()
    async with hooks.running({"failed": slow, "received": tell}, lambda _: None) as report:
        for _ in range(3 * (hooks.MOST_AT_ONCE + hooks.MOST_WAITING)):
            report(events.OfferDeclined("mallory", "Not known."))
        report(offer())
        report(events.Received(ONE, "alice", 2, 77))
        await begun(folder, 1)
        (tmp_path / "gate").touch()
    [received] = told(folder)
    assert received["FROM"] == "alice"


async def test_an_id_that_is_used_again_has_nothing_of_what_it_was(folder: Path) -> None:
    async with hooks.running({"received": telling(folder)}, lambda _: None) as report:
        for name in ("first", "second"):
            report(offer())
            report(events.Saved(ONE, f"/in/{name}", 1, b"\2" * 32))
            report(events.Received(ONE, "alice", 1, 1))
            await begun(folder, 1 if name == "first" else 2)
    assert {each["PATHS"] for each in told(folder)} == {"/in/first", "/in/second"}


@pytest.mark.parametrize("first", ["", "trap '' TERM;"])
@pytest.mark.parametrize("limit", ["LONGEST", "AT_THE_END"])
async def test_a_hook_without_end_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, first: str, limit: str
) -> None:
    """It takes too long, or glide ends meanwhile; it obeys when it is asked to end, or is killed."""
    monkeypatch.setattr(hooks, limit, 1.5 if limit == "LONGEST" else 0.05)
    monkeypatch.setattr(hooks, "TO_OBEY", 0.1 if first else 30.0)
    command = shlex.join(["sh", "-c", f'{first} : > "$0/$$"; while :; do sleep 9; done', str(folder)])
    reported: list[events.Event] = []
    async with hooks.running({"offer": command}, reported.append) as report:
        report(offer())
        await begun(folder)
        if limit == "LONGEST":
            await trio.to_thread.run_sync(until, lambda: bool(notices(reported)))
    (notice,) = notices(reported)
    assert "ended" in notice
    (pid,) = (int(path.name) for path in folder.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_whoever_is_cancelled_leaves_a_running_hook_time_to_finish(folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    reported: list[events.Event] = []
    with trio.CancelScope() as scope:
        async with hooks.running({"offer": f"{waiting(folder, gate)}"}, reported.append) as report:
            report(offer())
            await begun(folder)
            scope.cancel()
            gate.touch()
            await trio.sleep_forever()
    assert notices(reported) == []  # it was not ended: it has ended


async def test_what_has_happened_last_is_told_though_the_verb_ends_with_it(folder: Path) -> None:
    with trio.CancelScope() as scope:
        async with hooks.running({"received": telling(folder)}, lambda _: None) as report:
            report(events.Received(ONE, "alice", 1, 1))
            scope.cancel()
    assert [each["EVENT"] for each in told(folder)] == ["received"]


async def test_an_error_of_the_verb_comes_out_as_it_is() -> None:
    error = Declined("no")
    with pytest.raises(Declined) as raised:
        async with hooks.running({"offer": "true"}, lambda _: None):
            raise error
    assert raised.value is error


# --- at a receiver ---


def test_a_receiver_starts_its_hooks_and_ends_when_they_have(w: World, folder: Path) -> None:
    tell = telling(folder)
    receiver = w.receive("bob", "--accept", "all", "--once", "--on-offer", tell, "--on-received", tell)
    (w.folder / "photos").mkdir()
    sent = w.file("photos/one.jpg", 10)
    assert w.push("alice", "bob", sent.parent, "--message", "look").wait() == 0
    assert receiver.wait() == 0, receiver
    offered, received = told(folder)
    assert (offered["FROM"], offered["NAMES"], offered["MESSAGE"], offered["TRUST"]) == (
        "alice",
        "photos/",
        "look",
        "new",
    )
    assert received["PATHS"] == received["PATH"] == str(w.into("bob") / "photos")
    line = json.loads(received["JSON"])
    there = receiver.event("received")
    assert line == {**there, "time": line["time"], "paths": [received["PATH"]]}


def test_a_receiver_tells_of_what_it_refuses(w: World, folder: Path) -> None:
    receiver = w.receive("bob", "--accept", "known", "--on-failed", telling(folder))
    assert w.push("mallory", "bob", w.file("f", 1)).wait() == 4
    until(lambda: len(list(folder.iterdir())) == 1)
    until(lambda: bool(next(folder.iterdir()).read_text()))
    (refused,) = told(folder)
    assert (refused["FROM"], refused["STATUS"]) == ("mallory", "refused")
    assert receiver.popen.poll() is None


def test_a_hook_that_fails_is_no_failed_transfer(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", "--once", "--on-offer", "false", "--on-received", "false")
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 0
    assert receiver.wait() == 0, receiver
    said = [event["message"] for event in receiver.told("notice")]
    assert any("--on-received" in line and "exit code 1" in line for line in said)


def test_what_is_written_to_standard_output_is_the_file_and_nothing_of_a_hook(w: World) -> None:
    output = w.folder / "output"
    command = (
        "receive",
        "--as",
        "bob",
        "--relay",
        w.address,
        "--accept",
        "all",
        "--stdout",
        "--on-offer",
        "echo spoilt",
    )
    receiver = w.run("bob", *command, output=output)
    receiver.says("You receive as bob")
    sent = w.file("f", 1000)
    assert w.push("alice", "bob", sent).wait() == 0
    assert receiver.wait() == 0, receiver
    assert output.read_bytes() == sent.read_bytes()
    assert "spoilt" in receiver.errors


def test_a_hook_that_cannot_be_run_is_said_before_anybody_knows_of_it(alone: World) -> None:
    process = alone.run("bob", "receive", "--as", "bob", "--relay", "127.0.0.1:1", "--on-received", "no-such-program")
    assert process.wait() == 2, process
    assert "no-such-program" in process.errors


def test_a_hook_of_the_settings_can_be_switched_off(w: World, folder: Path) -> None:
    (w.folder / "bob").mkdir()
    (w.folder / "bob" / "config.toml").write_text(f"on-offer = {json.dumps(telling(folder))}\n")
    quiet = w.receive("bob", "--accept", "all", "--once", "--on-offer", "")
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 0
    assert quiet.wait() == 0
    assert told(folder) == []
    loud = w.receive("bob", "--accept", "all", "--once")
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 0
    assert loud.wait() == 0
    assert len(told(folder)) == 1
