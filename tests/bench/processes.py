"""The processes of one run: started, waited for, measured with wait4 and ended by their process id.

Run as a program this module is the plain TCP copy, sender and receiver: the floor for everything else.
"""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

READY = 30.0  # seconds for a process to say or do what the next one waits for
END = 5.0  # seconds between SIGTERM and SIGKILL
PIECE = 1 << 20
# Where servers are, too.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

T = TypeVar("T")


class Missing(Exception):
    """A peer that cannot be measured here; the message is the reason."""


class Failed(Exception):
    """A run that came to nothing; the message says why."""


@dataclass
class Child:
    """One process: what it said is in ``log``; its usage is known once it has ended.

    ``resident`` is the largest VmHWM seen while it ran, together with those of the processes that it had started
    and that ran at the time; what these share is counted in each. Linux counts the memory of the process that
    started it into ru_maxrss, so that figure says something only where it is above this process's own.
    """

    role: str
    program: str
    popen: subprocess.Popen[bytes]
    log: Path
    begun: float
    ended: float = 0.0
    cpu: float = 0.0
    resident: int = 0

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def sample(self) -> None:
        """Take down the peak of its memory so far, in bytes."""
        self.resident = max(self.resident, sum(map(peak, family(self.popen.pid))))

    def reap(self) -> None:
        """Take its exit code and usage; it must have ended, or be about to."""
        _, status, usage = os.wait4(self.popen.pid, 0)
        self.ended = time.monotonic()
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime
        if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss or not self.resident:
            self.resident = max(self.resident, usage.ru_maxrss * 1024)

    def failure(self, what: str) -> Failed:
        last = " | ".join(line.strip() for line in self.output().splitlines()[-3:] if line.strip())
        return Failed(f"the {self.role} ({self.program}) {what}: {last[-400:] or 'it said nothing'}")


@dataclass
class Stage:
    """What one run has: a folder of its own, the file, the folder to receive into, and its processes."""

    folder: Path
    source: Path
    limit: float  # seconds for the sender
    children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.into.mkdir(parents=True)

    @property
    def into(self) -> Path:
        return self.folder / "into"

    def start(self, role: str, *command: str | Path, stdin: int | None = None, **settings: str | Path) -> Child:
        """Start a process with ``settings`` in its environment. ``stdin``, a socket, is its stdout too."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GLIDE_")}
        environment.update(HOME=str(self.folder), TMPDIR=str(self.folder))
        environment.update({name: str(value) for name, value in settings.items()})
        log = self.folder / f"{len(self.children)}-{role}.log"
        with log.open("wb") as file:
            begun = time.monotonic()
            popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=file if stdin is None else stdin,
                stderr=file,
                cwd=self.folder,
                env=environment,
            )
        self.children.append(Child(role, Path(command[0]).name, popen, log, begun))
        return self.children[-1]

    def exits(self, child: Child, seconds: float | None = None) -> None:
        """Wait until it has ended, with 0; the memory of all is sampled meanwhile."""
        deadline = time.monotonic() + (seconds or self.limit)
        if not self._gone(child, deadline):
            raise child.failure(f"did not end within {seconds or self.limit:.0f} s")
        if child.popen.returncode != 0:
            raise child.failure(f"ended with {child.popen.returncode}")

    def until(self, child: Child, find: Callable[[], T | None], failing: str, seconds: float = READY) -> T:
        """Wait until ``find`` finds something that the process brings about, and return that."""
        deadline = time.monotonic() + seconds
        while not (found := find()):
            if self._gone(child, time.monotonic() + 0.005):
                raise child.failure(f"ended with {child.popen.returncode}, and {failing}")
            if time.monotonic() > deadline:
                raise child.failure(failing)
        return found

    def says(self, child: Child, pattern: str) -> re.Match[str]:
        """Wait until what it has said matches."""
        return self.until(child, lambda: re.search(pattern, child.output()), f"never said {pattern!r}")

    def listens(self, child: Child, *ports: int) -> None:
        """Wait until the ports are listened on; nothing connects to them for that."""
        self.until(child, lambda: set(ports) <= listening(), f"does not listen on {ports}")

    def kill(self, child: Child) -> None:
        """With SIGKILL, at once."""
        os.kill(child.popen.pid, signal.SIGKILL)
        child.reap()

    def close(self) -> None:
        """End what still runs, in the order in which it was started last."""
        for child in reversed(self.children):
            if not child.ended:
                child.sample()
                with suppress(ProcessLookupError):  # if Ctrl-C came just after it was reaped
                    # Not by Popen, which would first reap it if it has ended: its usage would be lost.
                    os.kill(child.popen.pid, signal.SIGTERM)
                    if not self._gone(child, time.monotonic() + END):
                        self.kill(child)

    def _gone(self, child: Child, deadline: float) -> bool:
        if child.ended:
            return True
        exit = os.pidfd_open(child.popen.pid)
        try:
            poll = select.poll()
            poll.register(exit, select.POLLIN)
            while (left := deadline - time.monotonic()) > 0:
                if poll.poll(min(left, 0.02) * 1000):
                    child.reap()
                    return True
                for other in self.children:
                    if not other.ended:
                        other.sample()
            return False
        finally:
            os.close(exit)


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text("ascii").split():
                yield from family(int(child))
    except OSError:
        pass  # it has ended meanwhile


def peak(pid: int) -> int:
    """The most memory that a process has had resident so far, in bytes; 0 if it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def listening() -> set[int]:
    """The TCP ports that anybody listens on in this network namespace."""
    ports = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            rows = [line.split() for line in table.read_text("ascii").splitlines()[1:]]
            ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return ports


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def said_by(*command: str | Path, seconds: float = READY) -> str:
    """The first line that a command says; Missing, with the last, if it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or [""]
    if done.returncode != 0:
        raise Missing(f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1]}")
    return lines[0]


def tool(name: str) -> str:
    if found := shutil.which(name, path=PATH):
        return found
    raise Missing(f"{name} is not on PATH")


# The plain copy: `send PORT FILE`, and `receive PORT FILE`. The receiver answers with one byte once it has
# written everything, so that the sender's end means the same here as with the others: it has arrived.


def send(port: int, file: IO[bytes]) -> None:
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=READY) as peer:
        peer.settimeout(None)
        while os.sendfile(peer.fileno(), file.fileno(), None, 1 << 30):
            pass
        peer.shutdown(socket.SHUT_WR)
        if peer.recv(1) != b"\x06":
            sys.exit("the receiver did not confirm")
    print(f"seconds {time.monotonic() - begun}")


def receive(port: int, file: IO[bytes]) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(READY)
        peer, _ = server.accept()
    with peer:
        peer.settimeout(None)
        piece = memoryview(bytearray(PIECE))
        while count := peer.recv_into(piece):
            file.write(piece[:count])
        peer.sendall(b"\x06")


if __name__ == "__main__":
    _, verb, port, path = sys.argv
    if verb == "send":
        with open(path, "rb", buffering=0) as file:
            send(int(port), file)
    else:
        with open(path, "wb", buffering=0) as file:
            receive(int(port), file)
