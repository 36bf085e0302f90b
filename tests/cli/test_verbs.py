"""The verbs as scripts see them: real processes, their exit codes, their last lines."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glide.crypto.identity import Identity, key_text
from tests.processes import World, until

MIB = 1024 * 1024


# --- a transfer ---


def test_a_file_by_name_end_to_end(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", "--once")
    sent = w.file("holiday photo.jpg", 3 * MIB + 1)
    sender = w.push("alice", "bob", sent, "--message", "from the beach")
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    landed = w.into("bob") / "holiday photo.jpg"
    assert landed.read_bytes() == sent.read_bytes()
    delivered, saved, offer = sender.event("delivered"), receiver.event("saved"), receiver.event("offer")
    assert saved["path"] == str(landed)
    assert saved["digest"] == delivered["digest"]
    assert (offer["from"], offer["items"], offer["bytes"], offer["message"]) == (
        "alice",
        1,
        3 * MIB + 1,
        "from the beach",
    )
    assert [event["event"] for event in sender.events if event["event"] not in ("progress", "notice")] == [
        "ringing",
        "accepted",
        "delivered",
        "result",
    ]
    assert sender.events[-2]["event"] == "delivered"
    assert sender.event("progress", bytes=3 * MIB + 1)["total"] == 3 * MIB + 1
    assert all(isinstance(event["time"], float) for event in sender.events + receiver.events)


def test_the_paths_that_were_saved_are_all_of_stdout(w: World) -> None:
    first, second = w.file("same", 10), w.file("other", 0)
    receiver = w.run(
        "bob", "receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address, "--accept", "all"
    )
    receiver.says("You receive as bob")
    for path in (first, first, second):
        sender = w.run("alice", "push", "@Bob", str(path), "--as", "alice", "--relay", w.address)
        assert sender.wait() == 0, sender
        assert sender.output == []
    receiver.signal(signal.SIGTERM)
    assert receiver.wait() == 143
    assert receiver.output == [str(w.into("bob") / name) for name in ("same", "same (1)", "other")]


def test_a_person_says_yes_at_a_terminal_and_the_sender_is_known_from_then_on(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    sender = w.push("alice", "bob", w.file("f", 100))
    receiver.says("Take it from alice? [y/N]")
    receiver.types("y\n")
    assert sender.wait() == 0, sender
    listed = w.run("bob", "known", "--json")
    assert listed.wait() == 0
    assert listed.event("pin", name="alice")["trust"] == "known"


def test_a_person_says_no(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    sender = w.push("alice", "bob", w.file("f", 100))
    receiver.says("Take it from alice?")
    receiver.types("\n")
    assert sender.wait() == 4
    assert sender.event("declined")["to"] == "bob"
    assert w.left("bob") == []


def test_D3_without_a_terminal_and_a_policy_the_answer_is_no(w: World) -> None:
    receiver = w.receive("bob")
    sender = w.push("alice", "bob", w.file("f", 100))
    assert sender.wait() == 4, sender
    assert receiver.event("failed")["status"] == "declined"
    assert w.left("bob") == []


def test_from_filters(w: World) -> None:
    w.receive("bob", "--accept", "all", "--from", "carol")
    assert w.push("alice", "bob", w.file("a", 1)).wait() == 4
    assert w.push("carol", "bob", w.file("c", 1)).wait() == 0
    assert w.left("bob") == ["c"]


def test_accept_known_takes_only_whom_a_person_said_yes_to(w: World) -> None:
    first = w.receive("bob", "--accept", "all", "--once")
    assert w.push("alice", "bob", w.file("a", 1)).wait() == 0
    first.wait()
    w.receive("bob", "--accept", "known")
    refused = w.push("alice", "bob", w.file("b", 1))
    assert refused.wait() == 4  # seen is not known
    assert refused.event("declined")["to"] == "bob"
    key = json.loads(w.out("alice", "id", "--json"))["key"]
    w.out("bob", "known", "forget", "alice")
    w.out("bob", "known", "add", "alice", key, "--relay", w.address)
    assert w.push("alice", "bob", w.file("c", 1)).wait() == 0
    assert w.left("bob") == ["a", "c"]


# --- what bad input gets ---


@pytest.mark.parametrize("name", ["", "a" * 33, "bob smith", "böb", "..", "bob..b", "-bob", "bob/x", "\x1b[31m"])
def test_a_bad_name_exits_2_before_any_connection(alone: World, name: str) -> None:
    path = alone.file("f", 1)
    arguments = ["push", "--relay", "127.0.0.1:1", "--json", "--", name, str(path)]
    process = alone.run("alice", *arguments)
    assert process.wait() == 2, process
    assert "\x1b" not in process.errors + process.result["message"]
    receiver = alone.run("bob", "receive", "--as", name or "@", "--relay", "127.0.0.1:1", "--json")
    assert receiver.wait() == 2, receiver


def test_nobody_of_that_name_exits_3_with_the_closest(w: World) -> None:
    w.receive("bob")
    sender = w.push("alice", "bbo", w.file("f", 1))
    assert sender.wait() == 3
    assert "Did you mean bob?" in sender.result["message"]


def test_somebody_who_only_sends_takes_no_files(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    w.push("alice", "bob", w.file("f", 1))
    receiver.says("Take it")
    sender = w.push("carol", "alice", w.file("g", 1))
    assert sender.wait() == 3
    assert "takes no files now" in sender.result["message"]


@pytest.mark.parametrize("kind", ["missing", "fifo", "device", "socket", "bad name"])
def test_what_cannot_be_sent_exits_8_before_bob_is_disturbed(w: World, kind: str) -> None:
    receiver = w.receive("bob", "--accept", "all")
    path = w.folder / "thing"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "bad name":
            path = w.folder / "a\nb"
            path.write_text("x")
    sender = w.push("alice", "bob", path)
    assert sender.wait() == 8, sender
    assert sender.result["status"] == "file"
    assert not [event for event in receiver.events if event["event"] == "offer"]
    assert w.relay is not None
    assert not [event for event in w.relay.events if event.get("name") == "alice"]


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root and setpriv, to be nobody")
def test_an_unreadable_file_exits_8(w: World) -> None:
    path = w.file("secret", 10)
    path.chmod(0o600)
    w.folder.chmod(0o755)
    for parent in w.folder.parents[:2]:
        parent.chmod(0o755)
    home = w.folder / "nobody"
    home.mkdir()
    os.chown(home, 65534, 65534)
    w.prefixes["nobody"] = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    sender = w.push("nobody", "bob", path)
    assert sender.wait() == 8, sender
    assert "Permission denied" in sender.result["message"]


def test_no_relay_exits_6_naming_address_and_reason(alone: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for arguments in (["push", "bob", str(alone.file("f", 1))], ["receive"], ["who"]):
            process = alone.run("alice", *arguments, "--relay", address, "--json")
            assert process.wait() == 6, process
            assert address in process.result["message"]
            assert "refused" in process.result["message"].lower()


def test_an_http_server_is_not_a_relay(alone: World) -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it that
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        process = alone.run("alice", "who", "--relay", f"127.0.0.1:{server.server_port}", "--json")
        assert process.wait() == 10, process
        assert "not a glide relay" in process.result["message"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_R1_garbage_is_refused_and_logged_once_and_nothing_else_notices(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    host, port = w.address.partition("#")[0].split(":")
    sent = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(3000), b"glide/99 control\n" + bytes(100), b"\n"]
    answers = []
    for garbage in sent:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answers.append(connection.recv(4096))
    assert all(answer.startswith(b"glide/1 refused") for answer in answers), answers
    assert b"update" in answers[2]
    relay = w.relay
    assert relay is not None
    until(lambda: relay.errors.count("refused") >= len(sent))
    assert w.push("alice", "bob", w.file("f", 1000)).wait() == 0
    assert relay.errors.count("refused") == len(sent)
    assert "Traceback" not in relay.errors
    assert receiver.popen.poll() is None


@pytest.mark.parametrize("change", ["grow", "shrink", "vanish", "touch"])
def test_a_file_that_changes_while_it_is_sent_exits_8_and_leaves_nothing(w: World, change: str) -> None:
    receiver = w.receive("bob", terminal=True)
    path = w.file("f", 2 * MIB)
    sender = w.push("alice", "bob", path)
    receiver.says("Take it")
    match change:
        case "grow":
            with path.open("ab") as file:
                file.write(b"more")
        case "shrink":
            os.truncate(path, 1000)
        case "vanish":
            path.unlink()
        case "touch":
            os.utime(path, (1, 1))
    receiver.types("y\n")
    assert sender.wait() == 8, sender
    failed = receiver.event("failed")
    assert failed["status"] == "file"
    assert "changed while it was being sent" in failed["message"]
    assert w.left("bob") == []


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux")
def test_F11_a_full_disk_is_told_to_both_sides(w: World) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(w.into("bob"))], check=True, timeout=10)
    try:
        receiver = w.receive("bob", "--accept", "all")
        sender = w.push("alice", "bob", w.file("f", 2 * MIB))
        assert sender.wait() == 8, sender
        assert "full" in sender.result["message"]
        assert "full" in receiver.event("failed")["message"]
        assert w.left("bob") == []
        # and it takes what fits
        assert w.push("alice", "bob", w.file("small", 1000)).wait() == 0
        receiver.end()
    finally:
        subprocess.run(["umount", str(w.into("bob"))], check=True, timeout=10)


def test_F12_root_is_no_destination_and_hidden_names_need_a_flag(w: World) -> None:
    refused = w.run("bob", "receive", "--as", "bob", "--into", "/", "--relay", w.address, "--json")
    assert refused.wait() == 8, refused
    w.receive("bob", "--accept", "all")
    assert w.push("alice", "bob", w.file(".ssh", 1)).wait() == 4
    assert w.left("bob") == []


# --- names and sessions ---


def test_a_name_in_use_by_another_key_is_refused(w: World) -> None:
    w.receive("bob")
    other = w.run("mallory", "receive", "--as", "bob", "--relay", w.address, "--json")
    assert other.wait() == 11, other
    assert "Username already taken" in other.result["message"]
    assert "bob-laptop" in other.result["message"]


def test_R9_a_newer_session_of_the_same_key_replaces_the_older(w: World) -> None:
    older = w.receive("bob", "--accept", "all")
    newer = w.receive("bob", "--accept", "all")
    assert older.wait() == 11, older
    assert older.result["status"] == "replaced"
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 0
    assert newer.event("received")["from"] == "alice"


def test_a_defaulted_name_that_is_taken_falls_back(w: World) -> None:
    login = json.loads(subprocess.run(
        [sys.executable, "-c", "import json, getpass; print(json.dumps(getpass.getuser()))"],
        check=True, capture_output=True, timeout=10,
    ).stdout)  # fmt: skip  # the command line reads as one
    w.receive(login)
    w.receive("bob", "--accept", "all")
    sender = w.run("alice", "push", "bob", str(w.file("f", 1)), "--relay", w.address, "--json")
    assert sender.wait() == 0, sender
    key = json.loads(w.out("alice", "id", "--json"))["key"]
    assert f"{login}-{key[:4]}" in [event for event in sender.events if event["event"] == "notice"][-1]["message"]


def test_receive_on_a_terminal_asks_for_a_name_once_and_saves_it(w: World) -> None:
    first = w.run("bob", "receive", "--relay", w.address, "--json", terminal=True)
    first.says("Under which name")
    first.types("Robert\n")
    assert first.event("registered")["name"] == "robert"
    first.signal(signal.SIGINT)
    assert first.wait() == 130
    again = w.run("bob", "receive", "--relay", w.address, "--json", terminal=True)
    assert again.event("registered")["name"] == "robert"


def test_C1_a_changed_key_of_a_person_stops_the_push_with_5(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 0
    receiver.end()
    (w.folder / "bob" / "identity").unlink()
    w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", w.file("g", 1))
    assert sender.wait() == 5, sender
    assert "glide known forget bob" in sender.result["message"]
    w.out("alice", "known", "forget", "bob")
    assert w.push("alice", "bob", w.file("h", 1)).wait() == 0


def test_C1_a_changed_key_of_a_sender_is_refused_and_the_receiver_runs_on(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    assert w.push("alice", "bob", w.file("f", 1)).wait() == 0
    (w.folder / "alice" / "identity").unlink()
    sender = w.push("alice", "bob", w.file("g", 1))
    assert sender.wait() == 4, sender
    assert "another key on record" in sender.result["message"]
    assert receiver.event("refused")["from"] == "alice"
    assert w.push("carol", "bob", w.file("h", 1)).wait() == 0
    assert w.left("bob") == ["f", "h"]


def test_C6_a_changed_key_of_the_relay_exits_5(w: World) -> None:
    address = w.address.partition("#")[0]
    assert w.run("alice", "who", "--relay", address).wait() == 0
    assert w.relay is not None
    w.relay.end()
    (w.folder / "relay" / "relay-identity").unlink()
    w.run("relay", "serve", "--port", address.split(":")[1], "--json").event("listening")
    process = w.run("alice", "who", "--relay", address, "--json")
    assert process.wait() == 5, process
    assert f"glide known forget --relay {address}" in process.result["message"]


def test_a_key_on_the_command_line_must_be_the_relays(w: World) -> None:
    address = w.address.partition("#")[0]
    wrong = key_text(Identity.generate().public)
    assert w.run("alice", "who", "--relay", f"{address}#{wrong}").wait() == 5
    assert w.run("alice", "who", "--relay", f"{address}#nonsense").wait() == 2


# --- questions and output ---


def test_D2_a_yes_is_for_the_offer_that_was_asked_about(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    first = w.push("mallory", "bob", w.file("evil.sh", 10))
    receiver.says("Take it from mallory? [y/N]")
    second = w.push("carol", "bob", w.file("holiday.jpg", 10))
    receiver.event("offer", **{"from": "carol"})
    assert "carol" not in receiver.errors  # nothing is written behind an open question
    receiver.types("n\n")
    assert first.wait() == 4
    receiver.says("Take it from carol? [y/N]")
    assert "holiday.jpg" in receiver.errors.partition("Take it from mallory")[2]
    receiver.types("y\n")
    assert second.wait() == 0
    assert w.left("bob") == ["holiday.jpg"]


@pytest.mark.parametrize("output", [">&-", ">/dev/full", "| true", "2>&-", "2>/dev/full"])
def test_output_that_nobody_takes_changes_nothing(w: World, output: str) -> None:
    into = w.into("bob")
    environment = {**os.environ, "GLIDE_RELAY": w.address, "PYTHONPATH": ":".join(sys.path)}
    glide = f"{sys.executable} -m glide"
    receive = subprocess.Popen(
        ["bash", "-c", f"{glide} receive --as bob --into {into} --accept all --once {output}; exit ${{PIPESTATUS[0]}}"],
        env={**environment, "GLIDE_HOME": str(w.folder / "bob")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert w.relay is not None
        w.relay.event("connected", name="bob")
        push = subprocess.run(
            ["bash", "-c", f"{glide} push bob {w.file('f', 100)} --as alice {output}; exit ${{PIPESTATUS[0]}}"],
            env={**environment, "GLIDE_HOME": str(w.folder / "alice")},
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        _, errors = receive.communicate(timeout=30)
    finally:
        receive.kill()
        receive.wait()
    assert (push.returncode, receive.returncode) == (0, 0), push.stderr + errors
    assert w.left("bob") == ["f"]
    assert "Traceback" not in push.stderr + errors
    assert push.stdout == ""


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("path", "why"), [("/proc/cpuinfo", "more than its size says"), ("/proc/self/mem", "cannot be read (")]
)
def test_a_file_that_holds_more_than_its_size_says_is_not_sent_short(w: World, path: str, why: str) -> None:
    w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", Path(path))
    assert sender.wait() == 8, sender
    assert f"{path} cannot be sent: it" in sender.result["message"]
    assert why in sender.result["message"]
    assert w.left("bob") == []


def test_wrong_usage_has_a_last_line_too(alone: World) -> None:
    process = alone.run("alice", "push", "--json", "bob")
    assert process.wait() == 2
    assert process.result["status"] == "usage"


@pytest.mark.parametrize(
    ("set_to", "word"),
    [
        ("127.0.0.1:2", "Remembered"),
        ("nonsense:x", "Remembered"),
        ("", "Remembered"),  # no relay at all: the next command says so
        ("127.0.0.1:1", "In use"),
        ("127.0.0.1:01", "In use"),
    ],
)
def test_what_is_remembered_is_not_said_to_be_in_use_where_the_environment_says_otherwise(
    alone: World, set_to: str, word: str
) -> None:
    process = alone.run("alice", "use", "127.0.0.1:1", relay=set_to)
    assert process.wait() == 0, process
    assert f"{word}: 127.0.0.1:1" in process.errors
    assert ("GLIDE_RELAY" in process.errors) is (word == "Remembered")
