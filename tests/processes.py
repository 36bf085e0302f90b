"""Real glide processes for tests: started, read line by line, and ended by their own process id."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The longest that any single wait of a test may take. Generous: the machine may be busy.
PATIENCE = 30.0

GLIDE = ("-m", "glide")

Event = dict[str, Any]


class Process:
    """One running glide with ``--json``: its events so far, and a way to wait for the next of a kind."""

    def __init__(
        self,
        *arguments: str,
        home: Path,
        terminal: bool = False,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = GLIDE,
        **settings: str,
    ) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GLIDE_")},
            "GLIDE_HOME": str(home),
            **{f"GLIDE_{name.upper()}": value for name, value in settings.items()},
        }
        self.events: list[Event] = []
        self.output: list[str] = []
        self._changed = threading.Condition()
        # A person's terminal, if there is one, is stdin and stderr; stdout stays a pipe, for the events.
        self.terminal, slave = pty.openpty() if terminal else (-1, -1)
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, *program, *arguments],
            stdin=slave if terminal else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave if terminal else subprocess.PIPE,
            text=True,
            env=environment,
        )
        if terminal:
            os.close(slave)
        self.errors = ""
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def __repr__(self) -> str:
        return f"<Process {self.popen.args!r}: {self.popen.poll()}, {self.output}, {self.errors!r}>"

    def _read_out(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._changed:
                self.output.append(line.rstrip("\n"))
                if line.startswith("{"):
                    self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_err(self) -> None:
        try:
            while piece := os.read(self.terminal if self.popen.stderr is None else self.popen.stderr.fileno(), 4096):
                with self._changed:
                    self.errors += piece.decode("utf-8", "replace")
                    self._changed.notify_all()
        except OSError:
            pass  # a terminal whose last process has gone

    def says(self, text: str) -> None:
        """Wait until it has said that on stderr."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while text not in self.errors:
                assert time.monotonic() < deadline, f"{text!r} was never said by {self!r}"
                self._changed.wait(0.5)

    def types(self, text: str) -> None:
        """A person types at the terminal."""
        os.write(self.terminal, text.encode())

    def event(self, name: str, seconds: float = PATIENCE, /, **fields: object) -> Event:
        """The first event of that name (and with those fields); waits for it."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for event in self.events:
                    if event.get("event") == name and all(event.get(key) == value for key, value in fields.items()):
                        return event
                left = deadline - time.monotonic()
                ended = not self._readers[0].is_alive()
                assert left > 0, f"no {name!r} {fields} came in time of {self!r}"
                assert not ended, f"no {name!r} {fields} came of {self!r}"
                self._changed.wait(min(left, 0.5))

    def progress(self, at_least: int) -> Event:
        """The first progress event with so many bytes acknowledged."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                for event in self.events:
                    if event.get("event") == "progress" and event["bytes"] >= at_least:
                        return event
                left = deadline - time.monotonic()
                assert left > 0, f"no progress to {at_least} came in time of {self!r}"
                assert self._readers[0].is_alive(), f"no progress to {at_least} came of {self!r}"
                self._changed.wait(min(left, 0.5))

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code, once it has ended and all that it said was read."""
        code = self.popen.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return code

    @property
    def result(self) -> Event:
        """The last line, which is always the result."""
        assert self.events, f"nothing was said by {self!r}"
        last = self.events[-1]
        assert last["event"] == "result", self
        return last

    @property
    def resident(self) -> int:
        """The most memory that it ever had resident, in bytes (Linux)."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(10)
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.popen.stdout, self.popen.stderr, self.popen.stdin):
            if pipe is not None:
                pipe.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


class World:
    """A relay, and people with homes of their own, on one machine."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.started: list[Process] = []
        self.address = ""
        # Which command starts a person's processes: one that puts them into another network namespace, say.
        self.prefixes: dict[str, tuple[str, ...]] = {}
        self.relay: Process | None = None

    def run(
        self,
        person: str,
        *arguments: str,
        terminal: bool = False,
        program: tuple[str, ...] = GLIDE,
        **settings: str,
    ) -> Process:
        """Start glide, or another Python program, as ``person``."""
        process = Process(
            *arguments,
            home=self.folder / person,
            terminal=terminal,
            prefix=self.prefixes.get(person, ()),
            program=program,
            **{**self.settings, **settings},
        )
        self.started.append(process)
        return process

    def serve(self, *arguments: str) -> Process:
        self.relay = self.run("relay", "serve", "--port", "0", "--json", *arguments)
        heard = self.relay.event("listening")
        self.address = f"{heard['host']}:{heard['port']}#{heard['key']}"
        return self.relay

    def into(self, person: str) -> Path:
        """The folder that ``person`` receives into."""
        folder = self.folder / f"{person}-files"
        folder.mkdir(exist_ok=True)
        return folder

    def receive(self, person: str, *arguments: str, terminal: bool = False, **settings: str) -> Process:
        """Start a receiver and wait until it is registered."""
        command = ["receive", "--as", person, "--into", str(self.into(person)), "--relay", self.address, "--json"]
        process = self.run(person, *command, *arguments, terminal=terminal, program=GLIDE, **settings)
        process.event("registered")
        return process

    def push(self, person: str, to: str, path: Path, *arguments: str, **settings: str) -> Process:
        command = ["push", to, str(path), "--as", person, "--relay", self.address, "--json"]
        return self.run(person, *command, *arguments, terminal=False, program=GLIDE, **settings)

    def file(self, name: str, size: int) -> Path:
        """A file with bytes that do not repeat."""
        path = self.folder / name
        with path.open("wb") as file:
            while size > 0:
                size -= file.write(os.urandom(min(size, 1 << 24)))
        return path

    def left(self, person: str) -> list[str]:
        """Every name in the folder that ``person`` receives into, hidden ones too."""
        return sorted(path.name for path in self.into(person).iterdir())


@contextmanager
def world(folder: Path, **settings: str) -> Iterator[World]:
    """A :class:`World`; every process that was started in it has ended when the block has."""
    made = World(folder, **settings)
    try:
        yield made
    finally:
        # The relay last: it would wait for the transfers of the others to finish.
        for process in reversed(made.started):
            process.end()
