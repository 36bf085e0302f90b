"""What was interrupted goes on where it was: nothing that arrived is sent, or asked about, twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, Proxy, World, held_up, tree, until

KIB, MIB = 1024, 1024 * 1024

# What everything but the contents may take: handshakes, names, digests, acknowledgements, and headers of records.
OVERHEAD = 128 * KIB

TOTAL = 24 * MIB + 3 * 100_000
HELD = 10 * MIB  # about 40 % of it
ARRIVED = HELD - 3 * MIB  # the rest may still be on its way


@pytest.fixture
def proxy(w: World) -> Iterator[Proxy]:
    """Between the sender and the relay; lets pass :data:`HELD` bytes, and then no more until it is released."""
    with Proxy(w.address, limit=HELD) as made:
        yield made


def holiday(w: World) -> Path:
    """A folder of :data:`TOTAL` bytes: one file large enough to be cut in two, and others around it."""
    for name, size in (("a", 4 * MIB), ("b/film", 16 * MIB), ("b/one", 100_000), ("b/two", 100_000), ("c", 4 * MIB)):
        w.file(f"holiday/{name}", size)
    w.file("holiday/last", 100_000)
    (w.folder / "holiday/nothing").mkdir(exist_ok=True)
    return w.folder / "holiday"


def goes_on(w: World, proxy: Proxy, folder: Path, *arguments: str) -> int:
    """Push again, which must succeed: the bytes that were kept, of which none went by a second time."""
    proxy.cut()
    proxy.release()
    sender = w.push("alice", "bob", folder, *arguments, relay=proxy.address)
    assert sender.wait() == 0, sender
    kept: int = sender.event("resumed")["bytes"]
    assert TOTAL - kept <= proxy.count <= TOTAL - kept + OVERHEAD, (kept, proxy.count)
    first, *_, last = sender.told("progress")
    assert first["bytes"] >= kept
    assert last["bytes"] == last["total"] == TOTAL
    assert tree(w.into("bob") / folder.name) == tree(folder)
    assert w.left("bob") == [folder.name]
    assert sender.result["status"] == "ok"
    return kept


@pytest.mark.parametrize("sync", [(), ("--no-fsync",)], ids=["synced", "not-synced"])
@pytest.mark.parametrize("victim", ["sender", "receiver", "relay"])
def test_F5_after_a_kill_at_forty_percent_only_the_rest_moves(
    w: World, proxy: Proxy, victim: str, sync: tuple[str, ...]
) -> None:
    assert w.relay is not None
    folder = holiday(w)
    receiver = w.receive("bob", "--accept", "all", *sync)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    killed = {"sender": sender, "receiver": receiver, "relay": w.relay}[victim]
    killed.popen.kill()
    killed.wait()
    proxy.cut()
    if victim != "sender":
        assert sender.wait() == 6, sender
        assert sender.result["status"] == "lost"
    if victim == "sender":
        failed = receiver.event("failed")
        assert failed["status"] == "lost"
        assert "is kept" in failed["message"]
    if victim == "relay":
        assert receiver.wait() == 6, receiver
        w.serve("--port", w.address.partition("#")[0].split(":")[1])
    if victim != "sender":
        receiver = w.receive("bob", "--accept", "all", *sync)
    assert w.landed("bob") == []
    kept = goes_on(w, proxy, folder)
    assert kept > HELD - 4 * MIB
    assert receiver.event("resumed")["bytes"] == kept
    assert receiver.event("received")["bytes"] == TOTAL


def test_F5_one_large_file_goes_on_in_its_middle(w: World, proxy: Proxy) -> None:
    receiver = w.receive("bob", "--accept", "all")
    film = w.file("film", TOTAL)
    sender = w.push("alice", "bob", film, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    proxy.kill(sender)
    receiver.event("failed")
    proxy.release()
    again = w.push("alice", "bob", film, relay=proxy.address)
    assert again.wait() == 0, again
    kept = again.event("resumed")["bytes"]
    assert kept > HELD - 4 * MIB
    assert proxy.count <= TOTAL - kept + OVERHEAD
    assert (w.into("bob") / "film").read_bytes() == film.read_bytes()


def test_F5_ctrl_c_of_a_push_keeps_what_arrived_and_the_next_push_goes_on(w: World, proxy: Proxy) -> None:
    receiver = w.receive("bob", "--accept", "all")
    folder = holiday(w)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    sender.signal(signal.SIGINT)
    proxy.release()  # what it says last gets through; by then it has been told to stop
    assert sender.wait() == 130, sender
    assert "is kept" in sender.result["message"]
    assert receiver.event("failed")["status"] == "cancelled"
    assert goes_on(w, proxy, folder) > HELD - 4 * MIB


def test_F5_ctrl_c_of_a_receiver_keeps_what_arrived_and_the_next_push_goes_on(w: World, proxy: Proxy) -> None:
    receiver = w.receive("bob", "--accept", "all")
    folder = holiday(w)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    receiver.signal(signal.SIGINT)
    assert receiver.wait() == 130, receiver
    assert "is kept" in receiver.result["message"]
    assert sender.wait() == 4, sender
    assert sender.result["status"] == "cancelled"
    w.receive("bob", "--accept", "all")
    assert goes_on(w, proxy, folder) > HELD - 4 * MIB


def test_F5_what_changed_meanwhile_is_sent_anew(w: World, proxy: Proxy) -> None:
    receiver = w.receive("bob", "--accept", "all")
    folder = holiday(w)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    proxy.kill(sender)
    receiver.event("failed")
    (folder / "a").write_bytes(os.urandom(4 * MIB))
    proxy.release()
    again = w.push("alice", "bob", folder, relay=proxy.address)
    assert again.wait() == 0, again
    assert tree(w.into("bob") / "holiday") == tree(folder)
    assert w.left("bob") == ["holiday"]


def test_F5_what_was_kept_and_rots_is_sent_anew(w: World, proxy: Proxy) -> None:
    receiver = w.receive("bob", "--accept", "all")
    folder = holiday(w)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    proxy.kill(sender)
    receiver.event("failed")
    (film,) = w.stages("bob")[0].glob("*/b/film")
    with film.open("r+b") as file:
        file.seek(1000)
        file.write(b"rotten")
    proxy.release()
    again = w.push("alice", "bob", folder, relay=proxy.address)
    assert again.wait() == 0, again
    assert tree(w.into("bob") / "holiday") == tree(folder)


def test_F10_what_one_person_left_is_nothing_to_go_on_with_for_another(w: World, proxy: Proxy) -> None:
    receiver = w.receive("bob", "--accept", "all")
    folder = holiday(w)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    held_up(w, proxy, sender, ARRIVED)
    proxy.kill(sender)
    receiver.event("failed")
    proxy.release()
    other = w.push("carol", "bob", folder, relay=proxy.address)
    assert other.wait() == 0, other
    assert not other.told("resumed")
    assert proxy.count > TOTAL
    assert len(w.stages("bob")) == 1
    proxy.release()
    again = w.push("alice", "bob", folder, relay=proxy.address)
    assert again.wait() == 0, again
    assert again.event("resumed")["bytes"] > HELD - 4 * MIB
    assert w.left("bob") == ["holiday", "holiday (1)"]
    assert tree(w.into("bob") / "holiday (1)") == tree(folder)


# --- who is asked again ---


def asked(receiver: Process) -> int:
    return receiver.errors.count("Take it from alice?")


def interrupted_at_a_terminal(w: World, proxy: Proxy, folder: Path) -> Process:
    """A receiver who said yes once, and whose sender was killed in the middle."""
    receiver = w.receive("bob", terminal=True)
    sender = w.push("alice", "bob", folder, relay=proxy.address)
    receiver.says("Take it from alice?")
    receiver.types("y\n")
    held_up(w, proxy, sender, ARRIVED)
    proxy.kill(sender)
    receiver.event("failed")
    return receiver


def test_D4_the_same_files_are_not_asked_about_twice(w: World, proxy: Proxy) -> None:
    folder = holiday(w)
    receiver = interrupted_at_a_terminal(w, proxy, folder)
    goes_on(w, proxy, folder)
    assert asked(receiver) == 1
    # It was a yes to that transfer, which is over.
    once_more = w.push("alice", "bob", folder)
    until(lambda: asked(receiver) == 2)
    receiver.types("n\n")
    assert once_more.wait() == 4


def test_D4_a_path_that_is_new_is_asked_about(w: World, proxy: Proxy) -> None:
    folder = holiday(w)
    receiver = interrupted_at_a_terminal(w, proxy, folder)
    w.file("holiday/b/evil.sh", 1)
    (folder / "last").unlink()  # neither more files nor more bytes
    proxy.release()
    again = w.push("alice", "bob", folder, relay=proxy.address)
    until(lambda: asked(receiver) == 2)
    receiver.types("n\n")
    assert again.wait() == 4, again
    assert len(w.stages("bob")) == 1
    assert w.landed("bob") == []
    w.file("holiday/last", 100_000)
    (folder / "b" / "evil.sh").unlink()
    proxy.release()
    third = w.push("alice", "bob", folder, relay=proxy.address)
    assert third.wait() == 0, third
    assert asked(receiver) == 2


def test_D4_a_file_that_grew_is_asked_about(w: World, proxy: Proxy) -> None:
    folder = holiday(w)
    receiver = interrupted_at_a_terminal(w, proxy, folder)
    w.file("holiday/last", 5 * MIB)
    proxy.release()
    again = w.push("alice", "bob", folder, relay=proxy.address)
    until(lambda: asked(receiver) == 2)
    receiver.types("y\n")
    assert again.wait() == 0, again
    assert tree(w.into("bob") / "holiday") == tree(folder)


def test_D4_a_yes_of_before_opens_no_other_folder(w: World, proxy: Proxy) -> None:
    folder = holiday(w)
    interrupted_at_a_terminal(w, proxy, folder).end()
    elsewhere = w.folder / "elsewhere"
    elsewhere.mkdir()
    receiver = w.receive("bob", "--into", str(elsewhere), terminal=True)
    proxy.release()
    again = w.push("alice", "bob", folder, relay=proxy.address)
    receiver.says("Take it from alice?")
    receiver.types("n\n")
    assert again.wait() == 4, again
