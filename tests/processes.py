"""Real glide processes for tests: started, read line by line, and ended by their own process id."""

from __future__ import annotations

import json
import math
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The longest that any single wait of a test may take. Generous: the machine may be busy.
PATIENCE = 30.0

GLIDE = ("-m", "glide")

Event = dict[str, Any]


class Process:
    """One running glide with ``--json``: its events so far, and a way to wait for the next of a kind.

    Without a terminal its standard input is a pipe (:meth:`feed`); ``output`` is a file for its standard output. With
    ``whole`` the terminal is its standard output too, and all that it writes is in ``errors``.
    """

    def __init__(
        self,
        *arguments: str,
        home: Path,
        terminal: bool = False,
        whole: bool = False,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = GLIDE,
        output: Path | None = None,
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
        out = subprocess.PIPE if output is None else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        if whole:
            assert terminal, "the terminal is what is whole"
            out = slave
            termios.tcsetwinsize(slave, (40, 250))  # so wide that no line is broken
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, *program, *arguments],
            stdin=slave if terminal else subprocess.PIPE,
            stdout=out,
            stderr=slave if terminal else subprocess.PIPE,
            env=environment,
        )
        if terminal:
            os.close(slave)
        if output is not None:
            os.close(out)
        self.errors = ""
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def __repr__(self) -> str:
        return f"<Process {self.popen.args!r}: {self.popen.poll()}, {self.output}, {self.errors!r}>"

    def _read_out(self) -> None:
        for raw in self.popen.stdout or ():
            line = raw.decode("utf-8", "surrogateescape")
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

    def says(self, text: str, after: int = 0) -> int:
        """Wait until it has said that on stderr, after so many characters of it; how many it is then."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while (found := self.errors.find(text, after)) < 0:
                assert time.monotonic() < deadline, f"{text!r} was never said by {self!r}"
                self._changed.wait(0.5)
        return found + len(text)

    def prints(self, text: str, after: int = 0) -> int:
        """Wait until a line of its output has that in it, after so many lines of it; how many it is then."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                for number, line in enumerate(self.output[after:], start=after + 1):
                    if text in line:
                        return number
                assert time.monotonic() < deadline, f"{text!r} was never printed by {self!r}"
                self._changed.wait(0.5)

    def types(self, text: str) -> None:
        """A person types at the terminal."""
        os.write(self.terminal, text.encode())

    def feed(self, data: bytes, *, end: bool = True) -> None:
        """Write to its standard input; ``end`` says that this was all."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(data)
        self.popen.stdin.flush()
        if end:
            self.popen.stdin.close()

    def told(self, name: str) -> list[Event]:
        """All events of that name so far."""
        with self._changed:
            return [event for event in self.events if event["event"] == name]

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
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # it went without reading all that it was fed
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


class World:
    """A relay, and people with homes of their own, on one machine.

    A lost connection is not made anew unless ``retry`` says so.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = {"retry": "0s", **settings}
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
        whole: bool = False,
        program: tuple[str, ...] = GLIDE,
        output: Path | None = None,
        **settings: str,
    ) -> Process:
        """Start glide, or another Python program, as ``person``."""
        process = Process(
            *arguments,
            home=self.folder / person,
            terminal=terminal,
            whole=whole,
            prefix=self.prefixes.get(person, ()),
            program=program,
            output=output,
            **{**self.settings, **settings},
        )
        self.started.append(process)
        return process

    def serve(self, *arguments: str) -> Process:
        """Start the relay, at a free port unless ``arguments`` say another."""
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
        process = self.run(
            person, *command, *arguments, terminal=terminal, whole=False, program=GLIDE, output=None, **settings
        )
        process.event("registered")
        return process

    def push(self, person: str, to: str, *what: str | Path, relay: str = "", **settings: str) -> Process:
        """Push what is said: paths, and further arguments; through ``relay``, if it is not ours by its own address."""
        command = ["push", to, *map(str, what), "--as", person, "--relay", relay or self.address, "--json"]
        return self.run(person, *command, terminal=False, whole=False, program=GLIDE, output=None, **settings)

    def out(self, person: str, *arguments: str) -> str:
        """The first line that a verb writes, which must succeed."""
        process = self.run(person, *arguments)
        assert process.wait() == 0, process
        return process.output[0] if process.output else ""

    def file(self, name: str, size: int) -> Path:
        """A file with bytes that do not repeat; folders in its name are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while size > 0:
                size -= file.write(os.urandom(min(size, 1 << 24)))
        return path

    def sparse(self, name: str, size: int) -> Path:
        """A file of that size that takes no room and no time: all of it is zeros."""
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size)
        return path

    def left(self, person: str) -> list[str]:
        """Every name in the folder that ``person`` receives into, hidden ones too."""
        return sorted(path.name for path in self.into(person).iterdir())

    def landed(self, person: str) -> list[str]:
        """The names there that are final: not the hidden folders of what is not whole."""
        return [name for name in self.left(person) if not is_stage(name)]

    def stages(self, person: str) -> list[Path]:
        """The hidden folders there of what is not whole."""
        return [self.into(person) / name for name in self.left(person) if is_stage(name)]

    def arrived(self, person: str) -> int:
        """The bytes there of what is not whole."""
        return sum(path.stat().st_size for each in self.stages(person) for path in each.rglob("*") if path.is_file())


def is_stage(name: str) -> bool:
    """True if a folder of that name holds what arrived of a transfer that is not whole."""
    return name.startswith(".glide-") and name.endswith(".part")


def tree(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder: relative path to content, None for a folder."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found


# What a proxy reads at once, and how much more its socket may take in while it is held up: so little that no
# client gets rid of a file's rest, however large the buffers are that a machine gives to a connection.
PIECE, WINDOW = 64 * 1024, 256 * 1024


class Proxy:
    """Stands before a relay, counts what clients say through it, and can hold it up.

    ``limit`` bytes pass in that direction, then no more until it is raised; ``reached`` is set then. So a transfer of
    more than that cannot be over before it is released, however fast the machine is.
    """

    def __init__(self, address: str, limit: float = math.inf) -> None:
        target, _, key = address.partition("#")
        host, _, port = target.rpartition(":")
        self.count = 0
        self.limit = limit
        self.reached = threading.Event()
        self._cuts = 0
        self._target = host, int(port)
        self._moved = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)  # of all that it accepts
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}#{key}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def release(self) -> None:
        """Let everything pass, and count from 0."""
        with self._moved:
            self.limit, self.count = math.inf, 0
            self._moved.notify_all()

    def kill(self, sender: Process) -> None:
        """Kill a process whose connections these are; what it had said and was held up here is lost with it."""
        sender.popen.kill()
        sender.wait()
        self.cut()

    def cut(self) -> None:
        """End all connections, as a network does that breaks."""
        with self._moved:
            self._cuts += 1
            self._moved.notify_all()
        _end(*self._sockets)

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.cut()  # first, or what is held up would pass
        self.release()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                relay = socket.create_connection(self._target)
            except OSError:
                client.close()  # there is no relay right now
                continue
            self._sockets += [client, relay]
            self._start(self._copy, client, relay, True)
            self._start(self._copy, relay, client, False)

    def _copy(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        cuts = self._cuts
        try:
            while piece := source.recv(PIECE):
                rest = memoryview(piece)
                while rest:
                    passing = self._passing(len(rest), cuts) if counted else len(rest)
                    sink.sendall(rest[:passing])
                    rest = rest[passing:]
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _end(source, sink)  # one of them has gone, and the other is to know

    def _passing(self, size: int, cuts: int) -> int:
        """How many of so many bytes may pass now; waits until it is one at least."""
        with self._moved:
            while self.count >= self.limit and cuts == self._cuts:
                self.reached.set()
                self._moved.wait()
            if cuts != self._cuts:
                raise ConnectionAbortedError("what was held up was cut")
            passing = int(min(size, self.limit - self.count))
            self.count += passing
            return passing

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already


def held_up(w: World, proxy: Proxy, sender: Process, arrived: int = 1) -> None:
    """Wait until a push to bob gets no further, and so many bytes of it are on bob's disk; some are on their way."""
    assert proxy.reached.wait(PATIENCE), sender
    until(lambda: w.arrived("bob") >= arrived)


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for what can only be looked at."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


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
