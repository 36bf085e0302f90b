"""Many files in one push: folders, what is left out of them, odd names, and what a person is asked."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest

from tests.processes import Process, World, tree

KIB = 1024


def holiday(w: World) -> Path:
    """A folder with files, empty ones and folders in it, one of them empty."""
    for name, size in (("a.txt", 10), ("b/c.bin", 70 * KIB), ("b/empty", 0), ("b/d/e", 1), ("über.txt", 5)):
        w.file(f"holiday/{name}", size)
    (w.folder / "holiday/nothing/in here").mkdir(parents=True)
    return w.folder / "holiday"


def warnings(sender: Process) -> list[str]:
    """What a push said of things that it leaves out."""
    return [event["message"] for event in sender.told("notice") if "skipped" in event["message"]]


def test_F1_several_files_and_folders_arrive_as_one_transfer(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all", "--once")
    folder, one, two = holiday(w), w.file("one", 100), w.file("two", 0)
    sender = w.push("alice", "bob", one, folder, two)
    assert sender.wait() == 0, sender
    assert receiver.wait() == 0, receiver
    assert tree(w.into("bob")) == {
        "one": one.read_bytes(),
        "two": b"",
        "holiday": None,
        **{f"holiday/{path}": content for path, content in tree(folder).items()},
    }
    (offer,) = receiver.told("offer")
    total = 100 + 10 + 70 * KIB + 1 + 5
    assert (offer["items"], offer["bytes"], offer["names"]) == (7, total, ["holiday/", "one", "two"])
    delivered, received = sender.event("delivered"), receiver.event("received")
    assert (delivered["items"], delivered["bytes"]) == (received["items"], received["bytes"]) == (7, total)
    saved = {event["path"] for event in receiver.told("saved")}
    assert len(saved) == 7
    assert all(Path(path).is_file() for path in saved)
    assert [event["path"] for event in receiver.told("folder")] == [str(w.into("bob") / "holiday")]
    assert sender.result["status"] == receiver.result["status"] == "ok"


def test_only_the_paths_of_what_was_named_are_on_stdout(w: World) -> None:
    receiver = w.run(
        "bob", "receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address, "--accept", "all", "--once"
    )
    receiver.says("You receive as bob")
    assert w.push("alice", "bob", holiday(w), w.file("one", 100)).wait() == 0
    assert receiver.wait() == 0
    assert receiver.output == [str(w.into("bob") / name) for name in ("holiday", "one")]


def test_an_empty_folder_is_sent_and_is_a_success(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    (w.folder / "empty").mkdir()
    sender = w.push("alice", "bob", w.folder / "empty")
    assert sender.wait() == 0, sender
    assert tree(w.into("bob")) == {"empty": None}
    assert sender.event("delivered")["items"] == 0
    assert receiver.event("folder")["path"] == str(w.into("bob") / "empty")


def test_F7_times_and_executable_bits_arrive_and_nothing_else_of_a_mode(w: World) -> None:
    w.receive("bob", "--accept", "all")
    folder = holiday(w)
    (folder / "b" / "c.bin").chmod(0o4755)
    (folder / "a.txt").chmod(0o666)
    for path in (folder / "a.txt", folder / "b" / "c.bin", folder / "b", folder):
        os.utime(path, ns=(1_500_000_000_123_456_789, 1_400_000_000_987_654_321))
    sender = w.push("alice", "bob", folder)
    assert sender.wait() == 0, sender
    landed = w.into("bob") / "holiday"
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE((landed / "a.txt").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((landed / "b/c.bin").stat().st_mode) == 0o777 & ~umask
    for name in ("", "a.txt", "b", "b/c.bin"):
        assert (landed / name).stat().st_mtime_ns == 1_400_000_000_987_654_321, name


def test_names_that_are_odd_but_names_arrive_as_they_are(w: World) -> None:
    w.receive("bob", "--accept", "all")
    odd = ["aux.c", "a:b", "Übergröße – ñandú.txt", "e\u0301", "\u00e9", " ", "-rf", "a\\b", "x" * 255, "\u202egnp.exe"]
    for number, name in enumerate(odd):
        (w.folder / "odd").mkdir(exist_ok=True)
        (w.folder / "odd" / name).write_text(str(number))
    sender = w.push("alice", "bob", w.folder / "odd")
    assert sender.wait() == 0, sender
    assert tree(w.into("bob") / "odd") == {name: str(number).encode() for number, name in enumerate(odd)}


@pytest.mark.parametrize("bad", [b"a\nb", b"\xff\xfe", b"\x1b[31m"], ids=["newline", "not-utf-8", "escape"])
def test_F4_a_name_that_no_receiver_takes_is_skipped_and_the_others_are_delivered(w: World, bad: bytes) -> None:
    receiver = w.receive("bob", "--accept", "all")
    folder = holiday(w)
    Path(os.fsdecode(os.fsencode(folder) + b"/b/" + bad)).write_text("x")
    sender = w.push("alice", "bob", folder)
    assert sender.wait() == 9, sender
    assert sender.result["status"] == "partly"
    assert "1 of 6 files" in sender.result["message"]
    (warning,) = warnings(sender)
    assert warning.isprintable()
    assert "holiday/b/" in warning
    assert sender.event("delivered")["items"] == receiver.event("received")["items"] == 5
    assert len(tree(w.into("bob") / "holiday")) == 9


def test_F4_a_bad_name_among_several_that_were_named_is_skipped(w: World) -> None:
    w.receive("bob", "--accept", "all")
    bad = w.folder / "a\nb"
    bad.write_text("x")
    sender = w.push("alice", "bob", bad, w.file("good", 3))
    assert sender.wait() == 9, sender
    assert w.left("bob") == ["good"]


def test_F8_symlinks_in_folders_are_skipped_with_a_warning_and_one_that_is_named_is_what_it_points_to(w: World) -> None:
    w.receive("bob", "--accept", "all")
    folder = holiday(w)
    (folder / "b" / "link").symlink_to("/etc/passwd")
    (folder / "around").symlink_to("..")
    (folder / "dangling").symlink_to("nowhere")
    (w.folder / "named").symlink_to(folder / "a.txt")
    sender = w.push("alice", "bob", folder, w.folder / "named")
    assert sender.wait() == 0, sender
    for name in ("b/link", "around", "dangling"):
        assert f"holiday/{name} is skipped: it is a symlink." in warnings(sender)
        assert not os.path.lexists(w.into("bob") / "holiday" / name)
    assert not (w.into("bob") / "named").is_symlink()
    assert (w.into("bob") / "named").read_bytes() == (folder / "a.txt").read_bytes()


def test_a_pipe_or_socket_in_a_folder_is_skipped_and_not_opened(w: World) -> None:
    w.receive("bob", "--accept", "all")
    folder = holiday(w)
    os.mkfifo(folder / "pipe")
    sender = w.push("alice", "bob", folder)
    assert sender.wait() == 0, sender
    assert [warning for warning in warnings(sender) if "holiday/pipe" in warning]
    assert "pipe" not in tree(w.into("bob") / "holiday")


def test_exclude_leaves_out_what_matches(w: World) -> None:
    w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", holiday(w), "--exclude", "*.txt", "--exclude", "/b/d/", "--exclude", "nothing")
    assert sender.wait() == 0, sender
    assert sorted(tree(w.into("bob") / "holiday")) == ["b", "b/c.bin", "b/empty"]
    assert warnings(sender) == []


def test_gitignore_is_obeyed_only_when_asked_for(w: World) -> None:
    folder = holiday(w)
    (folder / ".gitignore").write_text("*.txt\n!/a.txt\nnothing/\n")
    (folder / "b" / ".gitignore").write_text("empty\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", folder, "--gitignore")
    assert sender.wait() == 0, sender
    landed = tree(w.into("bob") / "holiday")
    assert sorted(landed) == [".gitignore", "a.txt", "b", "b/.gitignore", "b/c.bin", "b/d", "b/d/e"]
    assert w.push("alice", "bob", folder).wait() == 0
    assert tree(w.into("bob") / "holiday (1)") == tree(folder)


def test_filename_gives_a_folder_another_name(w: World) -> None:
    w.receive("bob", "--accept", "all")
    folder = holiday(w)
    assert w.push("alice", "bob", folder, "--filename", "summer").wait() == 0
    assert w.left("bob") == ["summer"]
    assert tree(w.into("bob") / "summer") == tree(folder)


def test_filename_is_one_name_and_no_path(w: World) -> None:
    several = w.push("alice", "bob", w.file("a", 1), w.file("b", 1), "--filename", "c")
    assert several.wait() == 2, several
    path = w.push("alice", "bob", w.folder / "a", "--filename", "../c")
    assert path.wait() == 8, path


def test_two_paths_that_would_arrive_under_one_name_are_wrong_usage(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", w.file("one/same", 1), w.file("two/same", 1))
    assert sender.wait() == 2, sender
    assert "one/same" in sender.result["message"]
    assert "two/same" in sender.result["message"]
    assert not receiver.told("offer")


def test_one_path_of_several_that_is_missing_stops_it_before_bob_is_disturbed(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", w.file("there", 1), w.folder / "missing", w.file("also", 1))
    assert sender.wait() == 8, sender
    assert "missing" in sender.result["message"]
    assert not receiver.told("offer")
    assert w.left("bob") == []


def test_a_file_that_changes_while_others_are_sent_is_reported_and_the_others_arrive(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    folder = holiday(w)
    sender = w.push("alice", "bob", folder)
    receiver.says("Take it")
    (folder / "b/c.bin").write_bytes(b"changed")
    receiver.types("y\n")
    assert sender.wait() == 9, sender
    assert "1 of 5 files" in sender.result["message"]
    assert [event for event in sender.told("notice") if "c.bin" in event["message"]]
    failed = receiver.event("failed")
    assert (failed["status"], "b/c.bin" in failed["message"]) == ("partly", True)
    landed = tree(w.into("bob") / "holiday")
    assert "b/c.bin" not in landed
    assert len(landed) == 8
    assert receiver.event("received")["items"] == 4


def test_once_ends_with_9_if_some_of_it_is_not_there(w: World) -> None:
    receiver = w.run(
        "bob", "receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address, "--once", "--json",
        terminal=True,
    )  # fmt: skip  # the command line reads as one
    receiver.event("registered")
    folder = holiday(w)
    sender = w.push("alice", "bob", folder)
    receiver.says("Take it")
    (folder / "a.txt").unlink()
    receiver.types("y\n")
    assert sender.wait() == 9, sender
    assert receiver.wait() == 9, receiver
    assert receiver.result["status"] == "partly"


def test_D1_a_name_in_a_problem_is_escaped_on_both_sides(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    path = w.file("d/\u202egnp.exe", 10)
    w.file("d/other", 10)
    sender = w.push("alice", "bob", path.parent)
    receiver.says("Take it")
    path.unlink()
    receiver.types("y\n")
    assert sender.wait() == 9, sender
    (told,) = [event["message"] for event in sender.told("notice") if "Not sent" in event["message"]]
    for text in (told, sender.result["message"], receiver.event("failed")["message"]):
        assert "\u202e" not in text
    assert "\\u202egnp.exe" in told
    assert "\\u202egnp.exe" in receiver.event("failed")["message"]


# --- what a person is asked ---


def test_D2_the_question_names_the_first_and_counts_all(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    paths = [w.file(f"file{number}", 2 * KIB) for number in range(5)]
    sender = w.push("alice", "bob", holiday(w), *paths, "--message", "for you")
    receiver.says("Take it from alice? [y/N]")
    assert "offers 10 files, 80.0 KiB: file0, file1, file2, and more" in receiver.errors
    assert "They say: for you" in receiver.errors
    assert "Answer l to see all of it." in receiver.errors
    receiver.types("y\n")
    assert sender.wait() == 0, sender


def test_D1_D2_l_shows_every_path_escaped_and_the_answer_still_counts(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", "cat")
    receiver = w.receive("bob", terminal=True)
    folder = holiday(w)
    (folder / "b" / "\u202egnp.exe").write_text("x")
    (folder / "b" / ("x" * 200 + ".exe")).write_text("x")
    sender = w.push("alice", "bob", folder)
    receiver.says("Take it from alice?")
    receiver.types("l\n")
    for path in ("holiday/", "holiday/a.txt", "holiday/b/d/e", "holiday/nothing/in here/", "holiday/b/\\u202egnp.exe"):
        receiver.says(f"{path}\r\n")
    receiver.says("holiday/b/" + "x" * 200 + ".exe\r\n")
    assert not re.search("[\u202e\x1b]", receiver.errors)
    receiver.types("n\n")
    assert sender.wait() == 4, sender
    assert w.left("bob") == []


def test_D1_D2_names_of_any_length_and_kind_leave_the_question_readable(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    long = w.file("invoice.pdf" + " " * 200 + ".exe", 1)
    hidden = w.file("\u202egnp.exe", 1)
    sender = w.push("alice", "bob", long, hidden)
    receiver.says("Take it from alice?")
    question = receiver.errors[receiver.errors.index("alice (") :]
    assert len(question) < 480
    assert ".exe, \\u202egnp.exe" in question
    assert "\u202e" not in receiver.errors
    receiver.types("n\n")
    assert sender.wait() == 4


def test_F12_a_hidden_folder_needs_the_flag_and_hidden_names_in_a_folder_do_not(w: World) -> None:
    w.file(".ssh/config", 1)
    w.file("dots/.profile", 1)
    receiver = w.receive("bob", "--accept", "all")
    assert w.push("alice", "bob", w.folder / ".ssh").wait() == 4
    assert w.push("alice", "bob", w.folder / "dots").wait() == 0
    receiver.end()
    w.receive("bob", "--accept", "all", "--allow-hidden")
    assert w.push("alice", "bob", w.folder / ".ssh").wait() == 0
    assert sorted(tree(w.into("bob"))) == [".ssh", ".ssh/config", "dots", "dots/.profile"]


# --- the receipt ---


def test_a_receipt_says_what_was_confirmed(w: World) -> None:
    w.receive("bob", "--accept", "all")
    where = w.folder / "receipt.json"
    sender = w.push("alice", "bob", holiday(w), "--receipt", where)
    assert sender.wait() == 0, sender
    receipt = json.loads(where.read_text())
    delivered, ringing = sender.event("delivered"), sender.event("ringing")
    assert isinstance(receipt.pop("time"), float)
    assert receipt == {
        "transfer": delivered["transfer"],
        "relay": w.address.partition("#")[2],
        "from": "alice",
        "from_key": json.loads(w.out("alice", "id", "--json"))["key"],
        "to": "bob",
        "to_key": ringing["key"],
        "items": 5,
        "bytes": 10 + 70 * KIB + 1 + 5,
        "digest": delivered["digest"],
    }


def test_a_receipt_that_cannot_be_written_is_found_out_before_bob_is_disturbed(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    sender = w.push("alice", "bob", w.file("f", 1), "--receipt", w.folder / "nowhere" / "receipt.json")
    assert sender.wait() == 8, sender
    assert "nowhere" in sender.result["message"]
    assert not receiver.told("offer")


def test_there_is_no_receipt_of_what_was_declined(w: World) -> None:
    w.receive("bob")
    assert w.push("alice", "bob", w.file("f", 1), "--receipt", w.folder / "receipt.json").wait() == 4
    assert not (w.folder / "receipt.json").exists()


def test_a_receipt_replaces_no_pipe_or_device(w: World) -> None:
    w.receive("bob", "--accept", "all")
    pipe = w.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that writing into it does not wait
    try:
        assert w.push("alice", "bob", w.file("f", 1), "--receipt", pipe).wait() in (0, 8)
    finally:
        os.close(reader)
    assert pipe.is_fifo()
