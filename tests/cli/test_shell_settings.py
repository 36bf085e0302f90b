"""What config.toml and the environment say holds in a shell too: groups, receipts, hooks, a message."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cli.test_shell import leave, shell, tell
from tests.processes import World, until


def configure(w: World, person: str, text: str) -> None:
    (w.folder / person).mkdir(exist_ok=True)
    (w.folder / person / "config.toml").write_text(text)


def test_a_push_to_a_group_goes_to_each_of_them(w: World) -> None:
    configure(w, "alice", '[groups]\nteam = ["bob", "carol"]\n')
    bob, carol = (w.receive(person, "--accept", "all") for person in ("bob", "carol"))
    alice = shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @Team --message 'for both'")
    alice.prints("team is your group of bob, carol.")
    alice.prints("Delivered to bob: f (1 file, 5 B).")
    alice.prints("Delivered to carol: f (1 file, 5 B).")
    assert leave(alice) == 0
    assert [each.event("offer")["message"] for each in (bob, carol)] == ["for both"] * 2


def test_who_of_a_group_did_not_get_it_is_told_and_decides_the_exit_code(w: World) -> None:
    configure(w, "alice", 'receipt = "receipt.json"\n[groups]\nteam = ["bob", "carol"]\n')
    receipt = w.folder / "receipt.json"
    w.receive("bob", "--accept", "all")
    alice = shell(w, "alice", receipt=str(receipt))
    tell(alice, f"push {w.file('f', 5)} @team")
    alice.prints("To carol: carol is not connected")
    alice.prints("To team: f: 1 of 2 in team did not get all of it: carol. The others have it: bob.")
    assert leave(alice) == 9
    assert [each["to"] for each in json.loads(receipt.read_text())] == ["bob"]


def test_the_end_of_the_input_waits_for_all_of_a_group(w: World) -> None:
    configure(w, "alice", '[groups]\nteam = ["bob", "carol"]\n')
    bob, carol = shell(w, "bob"), shell(w, "carol")
    alice = shell(w, "alice")
    alice.feed(f"push {w.file('f', 5)} @team\n".encode())
    for each in (bob, carol):
        each.prints("offers 1 file")
    tell(bob, "no @alice")
    alice.prints("they said no")
    assert alice.popen.poll() is None
    tell(carol, "no @alice")
    assert alice.wait() == 4, alice  # what both failed with
    alice.prints("To team: f: Nobody in team got anything")
    assert leave(bob) == 0
    assert leave(carol) == 0


def test_one_of_a_group_is_stopped_by_the_number_of_their_transfer(w: World) -> None:
    configure(w, "alice", '[groups]\nteam = ["bob", "carol"]\n')
    bob, carol = shell(w, "bob"), shell(w, "carol")
    alice = shell(w, "alice")
    tell(alice, f"push {w.file('f', 5)} @team")
    for each in (bob, carol):
        each.prints("offers 1 file")
    tell(alice, "stop 2")
    alice.prints("To carol: You stopped it.")
    tell(bob, "ok @alice")
    alice.prints("To team: f: 1 of 2 in team did not get all of it: carol.")
    assert leave(alice) == 9
    assert leave(bob) == 0
    assert leave(carol) == 0


def test_a_group_that_is_none_is_told_before_anything_begins(w: World) -> None:
    configure(w, "alice", "[groups]\nteam = []\n")
    alice = w.run("alice", "shell", "--as", "alice", "--relay", w.address)
    assert alice.wait() == 2
    assert "team" in alice.errors
    assert alice.output == []


def test_what_was_confirmed_last_stands_in_the_receipt(w: World) -> None:
    receipt = w.folder / "receipt.json"
    w.receive("bob", "--accept", "all")
    alice = shell(w, "alice", receipt=str(receipt))
    for name, size in (("first", 5), ("second", 7)):
        tell(alice, f"push {w.file(name, size)} @bob")
        alice.prints(f"Delivered to bob: {name}")
    assert leave(alice) == 0
    assert json.loads(receipt.read_text())["bytes"] == 7


def test_a_file_that_is_sent_is_not_overwritten_by_its_receipt(w: World) -> None:
    path = w.file("f", 5)
    sent = path.read_bytes()
    w.receive("bob", "--accept", "all")
    alice = shell(w, "alice", receipt=str(path))
    tell(alice, f"push {path} @bob")
    alice.prints("To bob: f: --receipt wants a file of its own")
    assert leave(alice) == 2
    assert path.read_bytes() == sent
    assert w.left("bob") == []


@pytest.mark.parametrize(("receipt", "code"), [("", 2), ("-", 2), ("/no/such/folder/receipt", 8)])
def test_a_receipt_that_cannot_be_written_is_told_before_anything_begins(w: World, receipt: str, code: int) -> None:
    alice = w.run("alice", "shell", "--as", "alice", "--relay", w.address, receipt=receipt)
    assert alice.wait() == code, alice
    assert "receipt" in alice.errors
    assert alice.output == []


def test_the_message_of_the_settings_goes_with_what_has_none_of_its_own(w: World) -> None:
    bob = w.receive("bob", "--accept", "all")
    alice = shell(w, "alice", message="hello")
    for name, more in (("one", ""), ("two", "--message ''"), ("three", "--message other")):
        tell(alice, f"push {w.file(name, 5)} @bob {more}")
        alice.prints(f"Delivered to bob: {name}")
    assert [event["message"] for event in bob.told("offer")] == ["hello", "", "other"]
    assert leave(alice) == 0


def hook(folder: Path) -> str:
    """A command that writes a file, named after the event, and a line on its standard output."""
    code = "import os; kind = os.environ['GLIDE_HOOK_EVENT']; print('the hook', 'speaks'); "
    return f"{sys.executable} -c \"{code} open(os.path.join('{folder}', kind), 'w').close()\""


def test_hooks_are_started_in_a_shell_too(w: World) -> None:
    told = w.folder / "told"
    told.mkdir()
    command = hook(told)
    bob = shell(w, "bob", on_offer=command, on_received=command, on_failed=command)
    for answer, name in (("ok", "taken"), ("no", "declined")):
        sender = w.push("alice", "bob", w.file(name, 5))
        bob.prints(f"5 B: {name}")
        tell(bob, f"{answer} @alice")
        sender.wait()
    until(lambda: sorted(os.listdir(told)) == ["failed", "offer", "received"])
    assert leave(bob) == 0
    assert "the hook speaks" not in "".join(bob.output)
    assert "the hook speaks" in bob.errors


def test_a_hook_that_is_no_program_is_told_before_anything_begins(w: World) -> None:
    bob = w.run("bob", "shell", "--as", "bob", "--relay", w.address, on_offer="no-such-program")
    assert bob.wait() == 2
    assert "--on-offer" in bob.errors
    assert bob.output == []
