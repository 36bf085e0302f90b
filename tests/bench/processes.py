"""The processes of one run: started, waited for, measured with wait4 and ended by their process id."""

from __future__ import annotations

import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

READY = 30.0  # seconds for a process to say or do what the next one waits for
END = 5.0  # seconds between SIGTERM and SIGKILL
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

    ``idle`` is what it had used of ``cpu`` when it began to listen, if it was waited for.
    ``resident`` is the largest VmHWM seen while it ran, together with those of the processes that it had started
    and that ran at the time; what these share is counted in each. Linux counts the memory of the process that
    started it into ru_maxrss, so that figure says something only where it is above this process's own. 0: it is not
    known, as it ended so soon.
    """

    role: str
    program: str
    popen: subprocess.Popen[bytes]
    log: Path
    begun: float
    ended: float = 0.0
    cpu: float = 0.0
    idle: float | None = None
    resident: int = 0

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def sample(self) -> None:
        """Take down the peak of its memory so far, in bytes.

        A process that is about to become another has its parent's memory till then: it is counted once.
        """
        self.resident = max(self.resident, sum(map(peak, set(map(memory, family(self.popen.pid))))))

    def reap(self) -> None:
        """Take its exit code and usage; it must have ended, or be about to."""
        _, status, usage = os.wait4(self.popen.pid, 0)
        self.ended = time.monotonic()
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime
        if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
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
    link: tuple[str | Path, ...] = ()  # the command of what lies between sender and relay, but for the relay's port
    children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.into.mkdir(parents=True)

    @property
    def into(self) -> Path:
        return self.folder / "into"

    def start(
        self,
        role: str,
        *command: str | Path,
        inside: tuple[str, ...] = (),
        stdin: int | None = None,
        **settings: str | Path,
    ) -> Child:
        """Start a process with ``settings`` in its environment. ``stdin``, a socket, is its stdout too.

        ``inside`` is a command that starts it, by becoming it, in another network namespace.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GLIDE_")}
        environment.update(HOME=str(self.folder), TMPDIR=str(self.folder))
        environment.update({name: str(value) for name, value in settings.items()})
        log = self.folder / f"{len(self.children)}-{role}.log"
        with log.open("wb") as file:
            begun = time.monotonic()
            popen = subprocess.Popen(
                [*inside, *map(str, command)],
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
        pid = child.popen.pid
        self.until(child, lambda: set(ports) <= listening(pid), f"does not listen on {ports}")
        child.idle = cpu_so_far(pid)

    def reach(self, port: int) -> int:
        """The port at which the sender finds the relay that listens on ``port``: the same, or that of the link."""
        if not self.link:
            return port
        link = self.start("link", *self.link, str(port))
        return int(self.says(link, r"(?m)^port (\d+)$")[1])

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


def memory(pid: int) -> str:
    """What the kernel tells of a process's memory; nothing if it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return ""
    return "\n".join(re.findall(r"^Vm.*", status, re.MULTILINE))


def peak(told: str) -> int:
    """The most memory that has been resident so far, in bytes, of what :func:`memory` tells."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_so_far(pid: int) -> float:
    """The CPU seconds that a process has used, all its threads together."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) has it


def listening(pid: int) -> set[int]:
    """The TCP ports that anybody listens on in the network namespace of a process."""
    ports = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):  # it has ended, or there is no IPv6
            rows = [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text("ascii").splitlines()[1:]]
            ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return ports


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def end_children() -> None:
    """End with SIGKILL what this process has started and nobody has reaped.

    There is none but for one whose start an interrupt broke off, before it was in anybody's list.
    """
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            for child in (thread / "children").read_text("ascii").split():
                os.kill(int(child), signal.SIGKILL)
                os.waitpid(int(child), 0)


def said_by(*command: str | Path, line: str = "", seconds: float = READY) -> str:
    """The first line that a command says, or the first that begins so; Missing, with the last, if it fails."""
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
    found = next((each for each in lines if each.startswith(line)), None)
    if done.returncode != 0 or found is None:
        raise Missing(f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1]}")
    return found


def tool(name: str) -> str:
    if found := shutil.which(name, path=PATH):
        return found
    raise Missing(f"{name} is neither on PATH nor in /usr/sbin or /sbin")
