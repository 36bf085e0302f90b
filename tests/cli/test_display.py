"""D1 over every surface: what a peer or a relay wrote never reaches a terminal, a log, JSON or a hook as it came."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from glide.client.address import Address
from glide.crypto.identity import Identity
from glide.net.connection import Connection
from glide.net.opening import initiate
from glide.protocol.endtoend import Abort, Item, Offer, Page
from glide.protocol.messages import (
    Failed,
    Goodbye,
    Hello,
    People,
    Push,
    Refused,
    Role,
    Welcome,
    Who,
)
from glide.protocol.messages import Person as Listed
from glide.protocol.preface import Purpose
from tests.client.people import PATIENT, Person
from tests.doubles import MaliciousRelay, Tapped
from tests.net.pairs import heard
from tests.processes import Process, World, until

terminals = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")

# Set the clipboard, clear the screen, overwrite the line, turn the reading direction, C1's CSI and NEL, lines.
HOSTILE = "good\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[1;1Hevil\rgood\u202etxt.exe\x9b31m\x85next\u2028more\u200f\u2066end"
# What of it must not be in anything that was written, as bytes.
NEVER = [
    piece.encode()
    for piece in (
        "\x1b]52", "\x07", "\x1b[2J", "\x1b[1;1H", "evil\r", "\u202e", "\x9b", "\x85", "\u2028", "\u200f", "\u2066",
    )
]  # fmt: skip  # a list to be read across
# The same in a file name: nothing that is a control character, which would be refused (F1).
ODD_NAME = "invoice\u202efdp\u200f\u2066.exe"
LONG_NAME = "n" * 200 + "\u202e" + "m" * 40


def written(process: Process) -> bytes:
    """All that a process wrote, to whatever stream."""
    out = "\n".join(process.output).encode("utf-8", "surrogateescape")
    return out + process.errors.encode("utf-8", "surrogateescape")


def harmless(*processes: Process) -> None:
    """Nothing of :data:`NEVER` was written; and all JSON is plain ASCII without control characters."""
    for process in processes:
        found = [piece for piece in NEVER if piece in written(process)]
        assert not found, f"{found} by {process!r}"
        for line in process.output:
            if line.startswith("{"):
                assert line.isascii()
                assert line.isprintable()


def told_escaped(process: Process) -> None:
    """It was not swallowed either: a person sees that there is something odd."""
    assert "\\x1b]52" in process.errors + "".join(process.output), process


@pytest.fixture
def w(alone: World) -> World:
    """People and a relay that greets them in its own way."""
    alone.serve("--greeting", HOSTILE)
    return alone


def test_D1_the_greeting_of_a_relay(w: World) -> None:
    command = ("receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address)
    receiver = w.run("bob", *command, "--verbose")
    receiver.says("You receive as bob")
    harmless(receiver)
    told_escaped(receiver)
    machine = w.receive("carol", "--verbose")
    harmless(machine)


@terminals
def test_D1_message_and_names_in_the_question_and_in_everything_around_it(w: World) -> None:
    receiver = w.run(
        "bob", "receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address, "--verbose",
        terminal=True, whole=True,
    )  # fmt: skip  # the command line reads as one
    receiver.says("You receive as bob")
    paths = [w.file(f"out/{name}", 3_000_000) for name in (ODD_NAME, LONG_NAME, "plain")]
    sender = w.run(
        "alice", "push", "bob", *map(str, paths), "--message", HOSTILE, "--as", "alice", "--relay", w.address,
        "--verbose", terminal=True, whole=True,
    )  # fmt: skip  # the command line reads as one
    receiver.says("Take it from alice?")
    receiver.types("y\n")
    assert sender.wait() == 0, sender
    receiver.says("plain\r\n")
    receiver.end()
    harmless(receiver, sender)
    told_escaped(receiver)
    assert "\\u202e" in receiver.errors


@terminals
def test_D2_ten_thousand_characters_leave_the_question_on_the_screen(w: World) -> None:
    receiver = w.receive("bob", terminal=True)
    sender = w.push("alice", "bob", w.file(f"out/{LONG_NAME}", 10), "--message", "m" * 400)
    receiver.says("Take it from alice?")
    question = receiver.errors[receiver.errors.index("alice (") :]
    assert len(question) < 1000
    assert "\u202e" not in question
    receiver.types("n\n")
    assert sender.wait() == 4, sender
    assert w.push("alice", "bob", w.file("f", 1), "--message", "m" * 10_000).wait() == 2


def test_D1_message_and_names_in_json_and_in_what_a_hook_is_told(w: World) -> None:
    dumped = w.folder / "dumped"
    code = (
        "import json, os, sys; "
        "facts = {k: v for k, v in os.environ.items() if k.startswith('GLIDE_HOOK_')}; "
        "path = os.path.join(sys.argv[1], facts['GLIDE_HOOK_EVENT']); "
        "open(path + '.new', 'w').write(json.dumps(facts)); os.rename(path + '.new', path)"
    )
    hook = shlex.join([sys.executable, "-c", code, str(dumped)])
    dumped.mkdir()
    receiver = w.receive("bob", "--accept", "all", "--verbose", "--on-offer", hook, "--on-received", hook)
    sender = w.push(
        "alice", "bob", w.file(f"out/{ODD_NAME}", 10), w.file("out/b", 1), "--message", HOSTILE, "--verbose"
    )
    assert sender.wait() == 0, sender
    until(lambda: {path.name for path in dumped.iterdir()} == {"offer", "received"})
    harmless(receiver, sender)
    offer = receiver.event("offer")
    assert "\\x1b]52" in offer["message"]
    assert "\\u202e" in "".join(offer["names"])
    for event in receiver.events:
        for value in event.values():
            if event["event"] not in ("saved", "folder"):  # whose path is exact, for scripts
                assert not isinstance(value, str) or value.isprintable(), event
    for path in dumped.iterdir():
        facts = json.loads(path.read_text())
        raw = "\n".join(f"{name}={value}" for name, value in facts.items()).encode()
        assert not [piece for piece in NEVER if piece in raw]
        assert facts["GLIDE_HOOK_FROM"] == "alice"
        for name, value in facts.items():
            assert all(line.isprintable() for line in value.split("\n")), name
        assert "\\x1b]52" in facts["GLIDE_HOOK_MESSAGE"]


# --- a sender who is no glide ----------------------------------------------------------------------------


@asynccontextmanager
async def offering(w: World, folder: Path, *names: str, message: str = "") -> AsyncIterator[None]:
    """Mallory, whose own program makes an offer of these names, and whose last words are hostile too."""
    mallory = Person("mallory", folder / "mallory")
    relay = Address.parse(w.address)
    async with mallory.reaches(relay, "bob", os.urandom(16)) as connection:
        for name in names:
            await connection.send(Page(items=(Item(path=name, size=1),)))
        await connection.send(Offer(message=message))
        yield
        await connection.send(Abort(code="cancelled", message=HOSTILE))
        await connection.close()


@terminals
@pytest.mark.parametrize("json", [False, True], ids=["person", "machine"])
async def test_D1_the_reason_of_a_sender_who_goes_away(w: World, tmp_path: Path, json: bool) -> None:
    command = ("receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address, "--verbose")
    receiver = w.run("bob", *command, *(["--json"] if json else []), terminal=True)
    await trio.to_thread.run_sync(lambda: receiver.event("registered") if json else receiver.says("You receive as"))
    async with offering(w, tmp_path, "f", message=HOSTILE):
        await trio.to_thread.run_sync(receiver.says, "Take it from mallory?")
    await trio.to_thread.run_sync(receiver.says, "(no longer asked)")
    if json:
        await trio.to_thread.run_sync(receiver.event, "failed")
    else:
        await trio.to_thread.run_sync(receiver.says, "mallory stopped it")
    harmless(receiver)
    told_escaped(receiver)


@pytest.mark.parametrize("json", [False, True], ids=["person", "machine"])
@pytest.mark.parametrize(
    "name", [HOSTILE, "a/\x1b[2J", "x" * 3990, "\u202e" * 1300, "b\x00", "../\u202e"],
    ids=["controls", "inside", "long", "long-bidi", "nul", "upwards"],
)  # fmt: skip  # names and what they are called
async def test_D1_F1_a_name_that_is_refused_is_told_escaped_and_short(
    w: World, tmp_path: Path, name: str, json: bool
) -> None:
    command = ("receive", "--as", "bob", "--into", str(w.into("bob")), "--relay", w.address, "--accept", "all")
    receiver = w.run("bob", *command, "--verbose", *(["--json"] if json else []))
    await trio.to_thread.run_sync(lambda: receiver.event("registered") if json else receiver.says("You receive as"))
    before = len(written(receiver))
    async with offering(w, tmp_path, name):
        said = receiver.event if json else receiver.says
        await trio.to_thread.run_sync(said, "failed" if json else "From mallory:")
    harmless(receiver)
    assert len(written(receiver)) - before < 4000
    assert w.landed("bob") == []


async def test_D1_a_name_that_is_none_is_in_no_log_of_the_relay(w: World) -> None:
    assert w.relay is not None
    loud = w.serve("--verbose")
    address = Address.parse(w.address)
    for name in (HOSTILE, "x" * 2000):
        stream = await trio.open_tcp_stream(address.host, address.port)
        connection, _ = await initiate(
            stream, Purpose.CONTROL, Identity.generate(), peer="relay", deadlines=PATIENT, check=lambda _: None
        )
        async with connection:
            await connection.send(Hello(role=Role.SEND, name=name))
            with pytest.raises(Exception, match="gone"):
                await heard(connection)
    await trio.to_thread.run_sync(loud.says, "refused: ")
    harmless(loud)
    assert not loud.told("connected")
    assert len(written(loud)) < 3000


# --- a relay that is no glide ----------------------------------------------------------------------------


class Rude(MaliciousRelay):
    """Says what it likes wherever a text may stand."""

    def __init__(self, *, refuses: bool = False, leaves: bool = False, lists: bool = False) -> None:
        super().__init__()
        self._refuses, self._leaves, self._lists = refuses, leaves, lists

    async def _control(self, client: Tapped, connection: Connection) -> None:
        await self._hear(connection)
        if self._refuses:
            await connection.send(Refused(code="refused", message=HOSTILE))
            return
        await connection.send(Welcome(greeting=HOSTILE))
        if self._leaves:
            await connection.send(Goodbye(code="unreachable", message=HOSTILE))
            return
        while True:
            match await self._hear(connection):
                case Push(transfer=transfer, to=to):
                    code = "declined" if to == "carol" else "nobody"
                    await connection.send(Failed(transfer=transfer, code=code, message=HOSTILE))
                case Who():
                    name = HOSTILE[:32] if self._lists else "bob"
                    await connection.send(People(people=(Listed(name, bytes(range(32)), receiving=True),)))


VERBS = {
    "push": ("push", "bob", "FILE"),
    "push-declined": ("push", "carol", "FILE"),
    "wait": ("push", "carol", "FILE", "--wait", "1m"),
    "receive": ("receive", "--as", "bob"),
    "who": ("who",),
    "verify": ("verify", "bob"),
    "pair": ("pair", "bob"),
}


async def run_all(w: World, relay: Rude, verbs: list[str], json: bool) -> dict[str, Process]:
    """Start all these verbs at that relay, and wait for their ends."""
    sent = w.file("f", 10)
    processes = {}
    for verb in verbs:
        arguments = [str(sent) if each == "FILE" else each for each in VERBS[verb]]
        more = ["--relay", str(relay.address), "--verbose", *(["--json"] if json else [])]
        processes[verb] = w.run(f"user-of-{verb}", *arguments, *more)
    for process in processes.values():
        await trio.to_thread.run_sync(process.wait)
    return processes


@pytest.mark.parametrize("json", [False, True], ids=["person", "machine"])
@pytest.mark.parametrize("refuses", [False, True], ids=["failing", "refusing"])
async def test_D1_whatever_a_relay_says_to_a_verb(
    alone: World, nursery: trio.Nursery, json: bool, refuses: bool
) -> None:
    relay = Rude(refuses=refuses)
    await nursery.start(relay.serve)
    verbs = [verb for verb in VERBS if refuses or verb != "receive"]  # which would go on
    processes = await run_all(alone, relay, verbs, json)
    harmless(*processes.values())
    for verb, process in processes.items():
        if refuses or verb in ("push", "push-declined", "pair"):
            assert process.wait() in (3, 4, 12), process
            told_escaped(process)


@pytest.mark.parametrize("json", [False, True], ids=["person", "machine"])
async def test_D1_what_a_relay_says_when_it_leaves(alone: World, nursery: trio.Nursery, json: bool) -> None:
    relay = Rude(leaves=True)
    await nursery.start(relay.serve)
    processes = await run_all(alone, relay, ["receive"], json)
    harmless(*processes.values())
    assert processes["receive"].wait() != 0
    told_escaped(processes["receive"])


@pytest.mark.parametrize("json", [False, True], ids=["person", "machine"])
async def test_D1_a_list_of_people_whose_names_are_none_is_not_shown(
    alone: World, nursery: trio.Nursery, json: bool
) -> None:
    relay = Rude(lists=True)
    await nursery.start(relay.serve)
    processes = await run_all(alone, relay, ["who", "verify"], json)
    harmless(*processes.values())
    for process in processes.values():
        assert process.wait() == 10, process
        assert not process.told("person")
        assert not process.told("words")
