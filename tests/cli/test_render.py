"""What is shown: nothing of a peer's unescaped, all that a person needs for a yes, and JSON as scripts expect it."""

from __future__ import annotations

import json
import sys
import time
import typing
import unicodedata
from typing import Any

import msgspec
import pytest

from glide import events
from glide.cli.records import record
from glide.cli.render import Renderer
from glide.cli.wording import offer_text, waiting_offer
from glide.crypto.identity import fingerprint, key_text
from glide.errors import ConnectionLost

KEY, DIGEST, TRANSFER = bytes(range(32)), bytes(range(32, 64)), bytes(range(16))
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HOSTILE = {
    "escape": "\x1b[2J\x1b[1;1Hall is well",
    "CSI of one byte": "a\x9b31mb",
    "OSC 52": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "title": "\x1b]0;title\x1b\\",
    "carriage return": "evil\rTake it from alice? [y/N] y",
    "lines": "one\ntwo\u2028three\u2029four\x85five\vsix",
    "bidi": "invoice\u202efdp.exe\u2066x\u2069",
    "invisible": "a\u200bb\ufeffc\U000e0041d\x00e\x7f",
    "no text": "\ud800\udfff",
    "10 kB": "x" * 10_000,
    "10 kB of escapes": "\x1b[31m" * 2_500,
}
EVENTS = sorted(events.Event.__subclasses__(), key=lambda kind: kind.event)


# People's names, addresses and the relay's words: nothing else comes through the wire as one of these.
NAMES = {"sender", "to", "name", "peer", "who", "aliases"}


def filled(kind: type[events.Event], text: str, name: str = "bob") -> events.Event:
    """An event whose every text is ``text``, and every name in it ``name``."""
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        shown = name if field.name in NAMES else text
        if field.name == "trust":
            values[field.name] = "seen"  # our own word
        elif field.name in ("names", "aliases"):
            values[field.name] = (shown,) * 5
        elif field.name in ("key", "digest", "transfer"):
            values[field.name] = {"key": KEY, "digest": DIGEST, "transfer": TRANSFER}[field.name]
        elif field.name == "paths":
            values[field.name] = tuple  # only the prompt shows these
        elif hints[field.name] is bool:
            values[field.name] = False
        elif hints[field.name] in (int, int | None):
            values[field.name] = 5
        else:
            assert hints[field.name] is str, field
            values[field.name] = shown
    return kind(**values)


def report(event: events.Event, **options: bool) -> None:
    renderer = Renderer(**{"json": False, **options})
    renderer.report(event)
    renderer.stop_bars()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both outputs are a terminal from now on."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


# --- D1 --------------------------------------------------------------------------------------------------


def test_the_events_of_this_test_are_all_that_there_are() -> None:
    assert {kind.event for kind in EVENTS} == {
        value.event for value in vars(events).values() if isinstance(value, type) and hasattr(value, "event")
    }
    assert len(EVENTS) >= 15


# Progress has no text, and its bar's own colours are escapes; what a Notice says is ours from beginning to end.
SHOWN = [kind for kind in EVENTS if kind not in (events.Progress, events.Notice)]


def check_shown(capsys: pytest.CaptureFixture[str], usual: events.Event, hostile: events.Event) -> None:
    """The hostile event is shown in as many lines as the usual one, all of them printable, none of them long."""
    report(usual)
    ours = "".join(capsys.readouterr())
    report(hostile)
    shown = "".join(capsys.readouterr())
    assert {unicodedata.category(character) for character in shown.replace("\n", "")} & FORBIDDEN == set()
    assert shown.count("\n") == ours.count("\n")
    assert len(shown) < 5000


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.event)
def test_D1_on_a_terminal_no_text_of_a_peer_is_unescaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: type[events.Event]
) -> None:
    on_terminal(monkeypatch)
    for text in HOSTILE.values():
        check_shown(capsys, filled(kind, "plain"), filled(kind, text))


@pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.event)
def test_D1_on_a_terminal_not_even_a_name_is_unescaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: type[events.Event]
) -> None:
    on_terminal(monkeypatch)
    # The wire lets no such name through; the known ones come from a file, and the last door is here.
    for text in HOSTILE.values():
        check_shown(capsys, filled(kind, "plain"), filled(kind, "plain", text))


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.event)
def test_D1_in_json_nothing_of_a_peer_is_unescaped(
    capsys: pytest.CaptureFixture[str], kind: type[events.Event], how: str
) -> None:
    report(filled(kind, HOSTILE[how], HOSTILE[how]), json=True, verbose=True)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.isascii()
    assert shown.out.count("\n") == 1
    assert shown.out[:-1].isprintable()
    (record,) = lines(shown.out)
    assert record["event"] == kind.event
    for name, value in record.items():
        # A path is what it is: a script opens it. All other text is for people, wherever the script shows it.
        if isinstance(value, str) and name != "path":
            assert {unicodedata.category(character) for character in value} & FORBIDDEN == set()
            assert len(value) <= 2000


@pytest.mark.parametrize("json", [False, True])
def test_D1_a_fault_is_told_without_what_caused_it_unescaped(capsys: pytest.CaptureFixture[str], json: bool) -> None:
    Renderer(json=json).fault(ValueError("\x1b]52;c;cm0=\x07\u202e" + "x" * 10_000))
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert len(text) < 600
    assert "ValueError" in text


def test_the_path_is_exact_for_a_script_and_escaped_for_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = events.Saved(TRANSFER, "/in/invoice\u202efdp.exe", 5, DIGEST)
    report(saved)
    assert capsys.readouterr().out == "/in/invoice\u202efdp.exe\n"
    report(saved, quiet=True)
    assert capsys.readouterr().out == "/in/invoice\u202efdp.exe\n"
    report(saved, json=True)
    assert lines(capsys.readouterr().out)[0]["path"] == "/in/invoice\u202efdp.exe"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report(saved)
    assert capsys.readouterr().out == "/in/invoice\\u202efdp.exe\n"


# --- JSON --------------------------------------------------------------------------------------------------

# The fields that can be relied on.
CONTRACT: dict[str, tuple[events.Event, dict[str, object]]] = {
    "listening": (
        events.Listening("127.0.0.1", 8080, KEY),
        {"host": "127.0.0.1", "port": 8080, "key": key_text(KEY)},
    ),
    "connected": (events.Connected("bob", "10.0.0.1:5"), {"name": "bob", "peer": "10.0.0.1:5"}),
    "disconnected": (events.Disconnected("bob", "10.0.0.1:5"), {"name": "bob", "peer": "10.0.0.1:5"}),
    "registered": (events.Registered("bob", KEY, "Welcome"), {"name": "bob", "key": key_text(KEY)}),
    "offer": (
        events.OfferArrived(TRANSFER, "alice", KEY, 1, 5, "hello", "new", ("a.txt",), tuple, ("zoe",)),
        {
            "transfer": TRANSFER.hex(),
            "from": "alice",
            "key": key_text(KEY),
            "items": 1,
            "bytes": 5,
            "message": "hello",
            "names": ["a.txt"],
        },
    ),
    "ringing": (
        events.Ringing(TRANSFER, "bob", KEY, "seen"),
        {"transfer": TRANSFER.hex(), "to": "bob", "key": key_text(KEY)},
    ),
    "accepted": (events.Accepted(TRANSFER, "bob"), {"transfer": TRANSFER.hex(), "to": "bob"}),
    "declined": (events.DeclinedEvent("bob", "no"), {"to": "bob", "reason": "no"}),
    "progress": (events.Progress(TRANSFER, 5, 5), {"transfer": TRANSFER.hex(), "bytes": 5, "total": 5}),
    "stalled": (
        events.StalledEvent(TRANSFER, "receiver", 12, "waiting for bob"),
        {"transfer": TRANSFER.hex(), "who": "receiver", "seconds": 12, "message": "waiting for bob"},
    ),
    "resumed": (events.Resumed(TRANSFER, 5), {"transfer": TRANSFER.hex(), "bytes": 5}),
    "folder": (events.SavedFolder(TRANSFER, "/in/d"), {"transfer": TRANSFER.hex(), "path": "/in/d"}),
    "partial": (
        events.Partial("/in/.glide-1.part", "alice", KEY, ("a", "b"), 2, 5, 10, 60),
        {
            "path": "/in/.glide-1.part",
            "from": "alice",
            "key": key_text(KEY),
            "names": ["a", "b"],
            "items": 2,
            "bytes": 5,
            "total": 10,
            "age": 60,
        },
    ),
    "failed": (
        events.Failed(TRANSFER, "alice", "lost", "gone"),
        {"transfer": TRANSFER.hex(), "from": "alice", "status": "lost", "message": "gone"},
    ),
    "undelivered": (
        events.Undelivered("bob", "declined", "bob said no."),
        {"to": "bob", "status": "declined", "message": "bob said no."},
    ),
    "waiting": (events.WaitingFor(TRANSFER, "bob"), {"transfer": TRANSFER.hex(), "to": "bob"}),
    "refused": (events.OfferDeclined("alice", "no"), {"from": "alice", "reason": "no"}),
    "saved": (
        events.Saved(TRANSFER, "/in/a.txt", 5, DIGEST),
        {"transfer": TRANSFER.hex(), "path": "/in/a.txt", "bytes": 5, "digest": f"blake3:{DIGEST.hex()}"},
    ),
    "delivered": (
        events.Delivered(TRANSFER, "bob", 1, 5, DIGEST),
        {"transfer": TRANSFER.hex(), "to": "bob", "items": 1, "bytes": 5, "digest": f"blake3:{DIGEST.hex()}"},
    ),
    "received": (
        events.Received(TRANSFER, "alice", 1, 5),
        {"transfer": TRANSFER.hex(), "from": "alice", "items": 1, "bytes": 5},
    ),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_a_json_line_has_the_fields_that_scripts_rely_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1234.5)
    event, expected = CONTRACT[name]
    report(event, json=True)
    shown = capsys.readouterr()
    (record,) = lines(shown.out)
    assert record == {"event": name, "time": 1234.5, **record}
    assert {key: record.get(key) for key in expected} == expected
    assert shown.err == ""


def test_the_result_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Renderer(json=True).result("declined", 4, "bob said no.")
    shown = capsys.readouterr()
    (record,) = lines(shown.out)
    assert isinstance(record.pop("time"), float)
    assert record == {"event": "result", "status": "declined", "exit": 4, "message": "bob said no."}
    assert shown.err == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_for_people_the_result_is_told_on_stderr(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    renderer = Renderer(json=False, quiet=quiet)
    renderer.result("ok", 0, "")
    assert capsys.readouterr() == ("", "")
    renderer.result("declined", 4, "bob said no.")
    assert capsys.readouterr() == ("", "glide: bob said no.\n")


def test_json_progress_comes_now_and_then_but_always_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    renderer = Renderer(json=True)
    for count in range(1, 101):
        renderer.report(events.Progress(TRANSFER, count, 100))
        renderer.report(events.Progress(DIGEST[:16], count, 1000))
        clock[0] += 0.02
    mine = [record["bytes"] for record in lines(capsys.readouterr().out) if record["transfer"] == TRANSFER.hex()]
    assert mine[0] == 1
    assert mine[-1] == 100
    assert 4 <= len(mine) <= 6


# --- D2 ----------------------------------------------------------------------------------------------------


def offer(**changes: Any) -> events.OfferArrived:
    return msgspec.structs.replace(
        events.OfferArrived(
            TRANSFER, "alice", KEY, 2, 3 * 2**20, "as promised", "seen", ("a.txt", "b.pdf"), tuple, ("zoe", "yan")
        ),
        **changes,
    )


@pytest.mark.parametrize(
    ("trust", "words"), [("new", "nobody you know"), ("seen", "never confirmed"), ("known", "known to you")]
)
def test_D2_the_question_shows_who_offers_what(trust: str, words: str) -> None:
    text = offer_text(offer(trust=trust))
    for shown in ("alice", words, fingerprint(KEY), "2 files", "3.0 MiB", "a.txt", "b.pdf", "as promised", "zoe"):
        assert shown in text


def test_D2_a_verified_person_and_one_file_are_called_so() -> None:
    text = offer_text(offer(trust="verified", items=1, names=("a.txt",), aliases=(), message=""))
    assert "verified" in text
    assert "1 file," in text
    assert "They say" not in text
    assert "also" not in text


def test_D2_of_many_files_some_are_named_and_all_counted() -> None:
    text = offer_text(offer(items=1000, names=tuple(f"file{n}" for n in range(1000))))
    assert "1000 files" in text
    assert "file0, file1, file2, and more" in text
    assert "file3" not in text


def test_D2_what_nobody_knows_the_size_of_is_offered_as_that() -> None:
    assert "1 file, of unknown size: dump.sql" in offer_text(offer(items=1, bytes=None, names=("dump.sql",)))


@pytest.mark.parametrize("how", HOSTILE)
def test_D2_nothing_pushes_the_question_off_the_screen(how: str) -> None:
    text = HOSTILE[how]
    longest = offer_text(
        offer(
            sender="s" * 32, message=text, names=(text,) * 1000, items=1000, aliases=("a" * 32,) * 50, bytes=2**63 - 1
        )
    )
    assert len(longest) < 12 * 80  # half a screen of the smallest kind
    assert longest.count("\n") <= 1
    assert fingerprint(KEY) in longest
    assert "8.0 EiB" in longest
    assert "1000 files" in longest


def test_D2_a_long_name_keeps_its_extension() -> None:
    assert ".exe" in offer_text(offer(items=1, names=("invoice.pdf" + " " * 5000 + ".exe",)))


# --- for people ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.event)
def test_results_alone_go_to_stdout(capsys: pytest.CaptureFixture[str], kind: type[events.Event]) -> None:
    report(filled(kind, "plain"))
    shown = capsys.readouterr().out
    if kind is events.Partial:
        assert shown.count("\n") == 1
    else:
        assert shown == ("plain\n" if kind in (events.Saved, events.SavedFolder) else "")


def test_of_a_folder_that_was_sent_only_the_folder_is_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    report(events.Saved(TRANSFER, "/in/d/a", 5, DIGEST, inside=True))
    report(events.SavedFolder(TRANSFER, "/in/d"))
    assert capsys.readouterr() == ("/in/d\n", "")


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.event)
def test_quiet_says_nothing_but_what_went_wrong(capsys: pytest.CaptureFixture[str], kind: type[events.Event]) -> None:
    report(filled(kind, "plain"), quiet=True)
    shown = capsys.readouterr()
    assert bool(shown.err) == (kind in (events.Failed, events.OfferDeclined, events.Undelivered))


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = Renderer(json=False)
    for count in range(5):
        renderer.report(events.Progress(TRANSFER, count, 5))
    renderer.stop_bars()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (events.Registered("bob", KEY, "Welcome!"), ["Welcome!", "bob", fingerprint(KEY)]),
        (events.Ringing(TRANSFER, "bob", KEY, "new"), ["bob", fingerprint(KEY), "first meeting"]),
        (events.Ringing(TRANSFER, "bob", KEY, "verified", ("zoe",)), ["bob", "verified", "zoe"]),
        (events.Accepted(TRANSFER, "bob"), ["bob"]),
        (events.Delivered(TRANSFER, "bob", 1, 2048, DIGEST), ["bob", "2.0 KiB", f"blake3:{DIGEST.hex()}"]),
        (events.StalledEvent(TRANSFER, "receiver", 12, "waiting for bob"), ["12 s", "waiting for bob"]),
        (events.WaitingFor(TRANSFER, "bob"), ["bob", "takes no files now", "Ctrl-C"]),
        (events.Undelivered("bob", "declined", "bob said no."), ["To bob: bob said no."]),
        (events.Resumed(TRANSFER, 3 * 2**20), ["3.0 MiB", "goes on"]),
        (events.Failed(TRANSFER, "alice", "lost", "The connection is gone."), ["alice", "The connection is gone."]),
        (events.OfferDeclined("alice", "The key changed."), ["alice", "The key changed."]),
        (events.Connected("bob", "10.0.0.1:5"), ["bob", "10.0.0.1:5"]),
        (events.Disconnected("bob", "10.0.0.1:5"), ["bob", "10.0.0.1:5"]),
        (events.Notice("Reconnecting."), ["Reconnecting."]),
    ],
    ids=lambda each: each.event if isinstance(each, events.Event) else "",
)
def test_an_event_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], event: events.Event, words: list[str]
) -> None:
    report(event)
    shown = capsys.readouterr().err
    assert [word for word in words if word not in shown] == []
    assert shown.count("\n") == (2 if "Welcome!" in words else 1)


def test_a_connection_that_is_made_anew_is_not_told_as_a_stall(capsys: pytest.CaptureFixture[str]) -> None:
    report(events.StalledEvent(TRANSFER, "network", 0, "The connection to the relay is gone. Trying again in 3s."))
    assert capsys.readouterr().err == "The connection to the relay is gone. Trying again in 3s.\n"


def test_why_a_transfer_failed_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = Renderer(json=False)
    renderer.report(events.Failed(TRANSFER, "alice", "lost", "The connection to alice is gone."))
    renderer.result("lost", 6, "The connection to alice is gone.")
    assert capsys.readouterr().err == "From alice: The connection to alice is gone.\n"
    renderer.result("lost", 6, "The relay is gone.")
    assert capsys.readouterr().err == "glide: The relay is gone.\n"


def test_D2_in_a_list_an_offer_is_one_line() -> None:
    for text in HOSTILE.values():
        listed = waiting_offer(offer(message=text, names=(text,) * 1000, items=1000), 3700)
        assert listed.isprintable()
        assert len(listed) < 500
        assert "1h1m40s ago" in listed
        assert "1000 files, 3.0 MiB" in listed


def test_a_fault_shows_where_only_to_those_who_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        try:
            raise LookupError("what")
        except LookupError as error:
            Renderer(json=False, verbose=verbose).fault(error)
        shown = capsys.readouterr().err
        assert "LookupError: what" in shown
        assert ("Traceback" in shown) is verbose


def test_a_fault_among_several_tasks_is_told_by_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    lost = ConnectionLost("The connection is gone.")
    inner = ExceptionGroup("two", [lost, LookupError("the first"), ValueError("another")])
    Renderer(json=False).fault(ExceptionGroup("one", [inner]))
    shown = capsys.readouterr().err
    assert "LookupError: the first." in shown
    assert "ExceptionGroup" not in shown


def test_a_record_is_what_json_says_of_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    event = offer(message="hello")
    told = record(event)
    Renderer(json=True).report(event)
    (shown,) = lines(capsys.readouterr().out)
    assert {**shown, "time": 0} == {**json.loads(json.dumps(told)), "time": 0}
    assert time.time() - 60 < told["time"] <= time.time()
    assert (told["event"], told["from"], told["message"]) == ("offer", "alice", "hello")


def test_a_result_has_its_name_its_time_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    Renderer(json=True).line("check", name="disk", event_count=1)
    (shown,) = lines(capsys.readouterr().out)
    assert list(shown) == ["event", "time", "name", "event_count"]
    assert (shown["event"], shown["name"]) == ("check", "disk")
