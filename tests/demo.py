"""The demo: a relay, a receiver and a sender as three real processes; 64 MiB go through and are verified.

Run by `make demo`. Each process gets a GLIDE_HOME of its own, as three people on three machines would
have. Their event lines (stdout, `--json`) are retold here; what they say to a person (stderr) appears
as they say it. Exit status 0 means: the same bytes arrived, and every process ended with 0.
"""

import hashlib
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any, TypeAlias

import trio

MIB = 1024 * 1024
FILE_SIZE = 64 * MIB

START_DEADLINE = 30.0  # seconds for a process to say its first word, a slow machine's imports included
TRANSFER_DEADLINE = 120.0  # seconds for the 64 MiB, which take one or two
EXIT_DEADLINE = 15.0  # seconds for a process to end once it has nothing left to do

Event: TypeAlias = dict[str, Any]  # one line of `--json`


class DemoFailed(Exception):
    """Something did not go as promised. The message says what."""


class Party:
    """One glide process: what it has said so far, and waiting for what it says next."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process
        self.events: list[Event] = []
        self._silent = False
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Party {self.name} pid={self.process.pid} exit={self.process.returncode}>"

    async def listen(self) -> None:
        """Retell every event line until the process closes its stdout."""
        try:
            async for line in lines_of(self.process):
                event = self._parse(line)
                self.events.append(event)
                retell(self.name, event, self.process.pid)
                self._wake()
        finally:
            self._silent = True
            self._wake()

    async def until(self, kind: str, deadline: float) -> Event:
        """The first event of this kind, whether it has been said already or is still to come."""
        with trio.move_on_after(deadline):
            while True:
                for event in self.events:
                    if event["event"] == kind:
                        return event
                if self._silent:
                    raise DemoFailed(f"{self.name} ended without saying '{kind}'")
                await self._news.wait()
        raise DemoFailed(f"{self.name} did not say '{kind}' within {deadline:.0f} s")

    async def ended_well(self, deadline: float) -> None:
        """Wait for the process to end; it must have exited with 0."""
        with trio.move_on_after(deadline):
            code = await self.process.wait()
            if code != 0:
                raise DemoFailed(f"{self.name} (process {self.process.pid}) ended with exit code {code}")
            say(self.name, f"process {self.process.pid} ended with exit code 0")
            return
        raise DemoFailed(f"{self.name} (process {self.process.pid}) had not ended after {deadline:.0f} s")

    def _parse(self, line: bytes) -> Event:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise DemoFailed(f"{self.name} wrote to its stdout what is not an event: {line[:200]!r}")
        return event

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


async def lines_of(process: trio.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None  # it was started with stdout=PIPE
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


# What the person sees


def say(who: str, text: str) -> None:
    print(f"{who:>8} | {text}", flush=True)


def retell(who: str, event: Event, pid: int) -> None:
    kind = event["event"]
    fields = {name: value for name, value in event.items() if name not in ("event", "time")}
    match kind:
        case "listening":
            text = f"listening on {fields['host']}:{fields['port']} (process {pid}), key {fields['key']}"
        case "registered":
            text = f"is connected as '{fields['name']}' (process {pid})"
        case "connected" | "disconnected":
            text = f"{fields['name']} has {kind} ({fields['peer']})"
        case "ringing":
            text = f"asking {fields['to']}"
        case "offer":
            text = f"{fields['from']} offers {count(fields['items'])}, {size(fields['bytes'])}"
        case "accepted":
            text = f"{fields['to']} accepts"
        case "progress":
            if fields["bytes"] not in (0, fields["total"]):  # both ends tell of it: the milestones will do
                return
            text = f"{size(fields['bytes'])} of {size(fields['total'])} are safely written"
        case "saved":
            text = f"saved {fields['path']}, {size(fields['bytes'])}, {fields['digest']}"
        case "delivered":
            text = f"delivered {count(fields['items'])}, {size(fields['bytes'])}, {fields['digest']}"
        case "received":
            text = f"received {count(fields['items'])}, {size(fields['bytes'])}, from {fields['from']}"
        case "result":
            text = f"result: {fields['status']} (exit code {fields['exit']})"
            if fields.get("message"):
                text += f": {fields['message']}"
        case _:
            text = f"{kind}: " + ", ".join(f"{name} {value}" for name, value in fields.items())
    say(who, text)


def size(count_of_bytes: int) -> str:
    return f"{count_of_bytes / MIB:.0f} MiB" if count_of_bytes >= MIB else f"{count_of_bytes} bytes"


def count(items: int) -> str:
    return "1 file" if items == 1 else f"{items} items"


# The three processes


@asynccontextmanager
async def party(name: str, home: Path, *arguments: str) -> AsyncIterator[Party]:
    """Run `python -m glide ARGUMENTS` while the body runs; afterwards the process is gone, whatever happened.

    What still runs then is ended by its own process id: SIGTERM, and SIGKILL 5 s later.
    """
    command = [sys.executable, "-m", "glide", *arguments]
    print(f"\n$ GLIDE_HOME={shlex.quote(str(home))} {shlex.join(command)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GLIDE_")}
    environment["GLIDE_HOME"] = str(home)
    async with trio.open_nursery() as nursery:
        start: Callable[..., Any] = partial(
            trio.run_process, command, stdin=b"", stdout=PIPE, check=False, env=environment
        )
        process: trio.Process = await nursery.start(start)
        running = Party(name, process)
        nursery.start_soon(running.listen)
        yield running
        nursery.cancel_scope.cancel()


async def transfer(folder: Path) -> None:
    """One push from alice to bob, every step of it waited for.

    Raises DemoFailed at the first step that does not go as promised.
    """
    source, into = folder / "holiday.bin", folder / "bobs-files"
    into.mkdir()
    sent_digest = await trio.to_thread.run_sync(write_random, source)
    print(f"{source} holds {size(FILE_SIZE)} of random bytes; sha256 {sent_digest}")

    async with party("relay", folder / "relay", "serve", "--port", "0", "--json") as relay:
        listening = await relay.until("listening", START_DEADLINE)
        address = f"{listening['host']}:{listening['port']}#{listening['key']}"

        receive = ["receive", "--as", "bob", "--into", str(into), "--accept", "all", "--once", "--json"]
        async with party("bob", folder / "bob", *receive, "--relay", address) as bob:
            await bob.until("registered", START_DEADLINE)

            push = ["push", "bob", str(source), "--as", "alice", "--json"]
            async with party("alice", folder / "alice", *push, "--relay", address) as alice:
                begun = time.monotonic()
                await alice.until("delivered", TRANSFER_DEADLINE)
                seconds = time.monotonic() - begun
                await alice.ended_well(EXIT_DEADLINE)
            saved = await bob.until("saved", EXIT_DEADLINE)
            await bob.ended_well(EXIT_DEADLINE)

        print(f"\n$ kill -TERM {relay.process.pid}", flush=True)
        relay.process.send_signal(signal.SIGTERM)
        await relay.ended_well(EXIT_DEADLINE)

    await trio.to_thread.run_sync(verify, source, Path(saved["path"]), into)
    print(f"{seconds:.1f} s from alice's start to bob's receipt")


def write_random(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(FILE_SIZE // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def verify(source: Path, saved: Path, into: Path) -> None:
    """What glide reports is not taken on trust: the files themselves are read and compared."""
    found = sorted(path.name for path in into.iterdir())
    if found != [source.name] or saved.resolve() != (into / source.name).resolve():
        raise DemoFailed(f"bob says that he saved {saved}; {into} holds {found}")
    print()
    digests = []
    for path in (source, saved):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        print(f"sha256 {digests[-1]}  {path}")
    if digests[0] != digests[1] or saved.stat().st_size != FILE_SIZE:
        raise DemoFailed("what bob has is not what alice sent")


async def cancel_on_signal(scope: trio.CancelScope) -> None:
    """Ctrl-C and `kill` end the demo like any failure: by way of every clean-up."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            print(f"\nended by {signal.Signals(number).name}", flush=True)
            scope.cancel()


async def demo() -> bool:
    with tempfile.TemporaryDirectory(prefix="glide-demo-") as folder:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
            try:
                await transfer(Path(folder))
            except* DemoFailed as failures:
                for failure in leaves(failures):
                    print(f"\nThe demo failed: {failure}.", flush=True)
            else:
                print("\nThe demo passed: the bytes are the same, and all three processes ended with 0.")
                return True
            finally:
                nursery.cancel_scope.cancel()
    return False


def leaves(group: BaseExceptionGroup[DemoFailed]) -> list[DemoFailed]:
    found: list[DemoFailed] = []
    for failure in group.exceptions:
        found += leaves(failure) if isinstance(failure, BaseExceptionGroup) else [failure]
    return found


def main() -> int:
    return 0 if trio.run(demo) else 1


if __name__ == "__main__":
    sys.exit(main())
