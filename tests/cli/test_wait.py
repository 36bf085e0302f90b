"""``push --wait``: nobody has to be there yet. What rings when, what withdraws it, and that it is kept nowhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from glide.crypto.identity import Identity, load_or_create, parse_key
from glide.people.known import Known, Trust
from tests.processes import Process, World, tree, world


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, retry="1m") as made:
        made.serve()
        yield made


def relay_key(w: World) -> bytes:
    return parse_key(w.address.partition("#")[2])


def waits(w: World, person: str, *what: str | Path, patience: str = "10m", to: str = "bob") -> Process:
    """A push that has begun to wait."""
    sender = w.push(person, to, *what, "--wait", patience)
    sender.event("waiting", to=to)
    return sender


def offers(receiver: Process) -> list[list[str]]:
    """The names in all that was offered so far."""
    return [event["names"] for event in receiver.told("offer")]


def nothing_else_came(w: World, receiver: Process, *expected: str) -> None:
    """Of all that might have rung by now, only these did: a push that is made now is the next."""
    assert w.push("zoe", "bob", w.file("last", 1)).wait() == 0
    assert offers(receiver) == [*([name] for name in expected), ["last"]]


def test_a_push_that_waits_is_delivered_when_they_come(w: World) -> None:
    sent = w.file("f", 1000)
    sender = waits(w, "alice", sent)
    assert sender.popen.poll() is None
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender
    assert (w.into("bob") / "f").read_bytes() == sent.read_bytes()
    told = [event["event"] for event in sender.events if event["event"] not in ("progress", "notice")]
    assert told == ["waiting", "ringing", "accepted", "delivered", "result"]
    waiting, ringing = sender.event("waiting"), sender.event("ringing")
    assert set(waiting) == {"event", "time", "transfer", "to"}
    assert waiting["transfer"] == ringing["transfer"] == sender.event("delivered")["transfer"]


def test_a_person_is_told_that_it_waits_and_how_to_stop_it(w: World) -> None:
    command = ("push", "bob", str(w.file("f", 1)), "--as", "alice", "--relay", w.address, "--wait", "10m")
    sender = w.run("alice", *command)
    sender.says("bob takes no files now")
    sender.says("Ctrl-C withdraws it")
    sender.signal(signal.SIGINT)
    assert sender.wait() == 130, sender
    assert sender.output == []


def test_whoever_only_sends_is_waited_for_until_they_take_files(w: World) -> None:
    elsewhere = waits(w, "bob", w.file("g", 1), to="nobody")  # bob is connected, and takes no files
    sender = waits(w, "alice", w.file("f", 1))
    assert not sender.told("ringing")
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender
    assert elsewhere.popen.poll() is None


def test_when_the_time_is_over_nobody_was_there(w: World) -> None:
    sender = w.push("alice", "bob", w.file("f", 1), "--wait", "1s")
    assert sender.wait() == 3, sender
    assert sender.result["status"] == "nobody"
    assert "bob did not come within 1s" in sender.result["message"]
    assert sender.told("waiting")
    assert not sender.told("ringing")
    receiver = w.receive("bob", "--accept", "all")
    nothing_else_came(w, receiver)


def test_without_wait_or_with_none_it_fails_at_once_and_says_what_would_help(w: World) -> None:
    for more in ((), ("--wait", "0s")):
        sender = w.push("alice", "bob", w.file("f", 1), *more)
        assert sender.wait() == 3, sender
        assert not sender.told("waiting")
        assert "--wait" in sender.result["message"]


def test_what_is_no_duration_is_wrong_usage(w: World) -> None:
    sender = w.push("alice", "bob", w.file("f", 1), "--wait", "until he comes")
    assert sender.wait() == 2, sender
    assert "--wait" in sender.result["message"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=str
)
def test_a_push_that_is_ended_while_it_waits_rings_nobody(w: World, number: signal.Signals, code: int) -> None:
    sender = waits(w, "alice", w.file("never", 1))
    sender.signal(number)
    assert sender.wait() == code, sender
    assert w.relay is not None
    w.relay.event("disconnected", name="alice")
    receiver = w.receive("bob", "--accept", "all")
    nothing_else_came(w, receiver)
    assert not receiver.told("failed")


def test_C1_whoever_comes_with_another_key_gets_nothing(w: World) -> None:
    pins = Known(w.folder / "alice" / "known.json")
    pins.remember(relay_key(w), "bob", Identity.generate().public, Trust.SEEN)
    sender = waits(w, "alice", w.file("f", 1))
    receiver = w.receive("bob", "--accept", "all")
    assert sender.wait() == 5, sender
    assert sender.result["status"] == "key-changed"
    assert not receiver.told("offer")
    assert w.left("bob") == []
    pin = pins.find(relay_key(w), "bob")
    assert pin is not None
    assert pin.key != load_or_create(w.folder / "bob" / "identity").public, "a pin was replaced by itself"


def test_a_push_that_waits_outlives_a_relay_that_is_restarted(w: World) -> None:
    sender = waits(w, "alice", w.file("f", 1000))
    assert w.relay is not None
    w.relay.popen.kill()
    w.relay.wait()
    sender.event("stalled", who="network")
    port = w.address.partition("#")[0].rpartition(":")[2]
    w.serve("--port", port).event("connected", name="alice")
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender
    assert w.left("bob") == ["f"]
    assert len(sender.told("waiting")) == 1, "said once, however often it is begun anew"


def test_a_relay_that_ends_in_order_is_waited_for_too(w: World) -> None:
    sender = waits(w, "alice", w.file("f", 1000))
    assert w.relay is not None
    w.relay.signal(signal.SIGTERM)
    assert w.relay.wait() == 0, w.relay
    port = w.address.partition("#")[0].rpartition(":")[2]
    w.serve("--port", port).event("connected", name="alice")
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender


def test_two_who_wait_for_one_person_are_both_delivered(w: World) -> None:
    senders = [waits(w, person, w.file(f"from-{person}", 100)) for person in ("alice", "carol")]
    w.receive("bob", "--accept", "all")
    assert [sender.wait() for sender in senders] == [0, 0], senders
    assert w.left("bob") == ["from-alice", "from-carol"]


def test_whoever_declines_is_not_waited_for_again(w: World) -> None:
    sender = waits(w, "alice", w.file("f", 1))
    w.receive("bob")  # nobody can be asked there
    assert sender.wait() == 4, sender
    assert sender.event("declined")["to"] == "bob"


def test_whoever_goes_before_they_have_looked_is_waited_for_again(w: World) -> None:
    sender = waits(w, "alice", w.file("f", 1))
    first = w.receive("bob", terminal=True)
    first.says("Take it from alice?")
    first.popen.kill()
    first.wait()
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender
    assert w.left("bob") == ["f"]


def test_what_waits_is_stored_nowhere(w: World) -> None:
    """The relay keeps it in memory alone, and the folder that is sent is only read."""
    folder = w.folder / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        w.file(f"photos/{name}", 10)
    sent, times = tree(folder), {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())}
    first = waits(w, "alice", folder)  # from now on both have the files that everybody has
    at_relay, at_alice = tree(w.folder / "relay"), tree(w.folder / "alice")
    second = waits(w, "alice", folder)
    assert tree(w.folder / "relay") == at_relay
    assert tree(w.folder / "alice") == at_alice
    for sender in (first, second):
        sender.signal(signal.SIGINT)
        assert sender.wait() == 130, sender
    assert tree(w.folder / "relay") == at_relay
    assert tree(w.folder / "alice") == at_alice
    assert (tree(folder), {path: path.stat().st_mtime_ns for path in times}) == (sent, times)


def test_a_setting_says_how_long_every_push_waits(w: World) -> None:
    (w.folder / "alice").mkdir()
    (w.folder / "alice" / "config.toml").write_text('wait = "10m"\n')
    sender = w.push("alice", "bob", w.file("f", 1))
    sender.event("waiting")
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender


def test_what_is_sent_is_what_is_there_when_they_come(w: World) -> None:
    path = w.file("f", 10)
    sender = waits(w, "alice", path)
    path.write_bytes(b"something else, and longer")
    w.receive("bob", "--accept", "all")
    assert sender.wait() == 0, sender
    assert (w.into("bob") / "f").read_bytes() == b"something else, and longer"


def test_what_has_gone_while_it_waited_is_said_before_they_are_disturbed(w: World) -> None:
    path = w.file("f", 10)
    sender = waits(w, "alice", path)
    path.unlink()
    receiver = w.receive("bob", "--accept", "all")
    assert sender.wait() == 8, sender
    assert "f" in sender.result["message"]
    nothing_else_came(w, receiver)
