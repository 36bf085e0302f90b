"""A relay as a process of its own, and what the kernel knows of it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from glide.crypto.identity import parse_key

_READY = 30.0
_TICK = os.sysconf("SC_CLK_TCK")


class RelayProcess:
    """``glide serve`` on a free port of 127.0.0.1, with its events in a file, as a service has them."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="glide-load-")
        events = Path(self._home.name) / "events"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GLIDE_")}
        with events.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "glide", "serve", "--port", "0", "--json"],
                stdout=file,
                stderr=subprocess.DEVNULL,
                env={**environment, "GLIDE_HOME": self._home.name},
            )
        deadline = time.monotonic() + _READY
        while not (said := events.read_text("utf-8")).endswith("\n"):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise SystemExit("the relay did not start")
            time.sleep(0.02)
        listening = json.loads(said.splitlines()[0])
        self.port = int(listening["port"])
        self.key = parse_key(listening["key"])

    @property
    def cpu(self) -> float:
        """Seconds, user and system, so far."""
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    @property
    def resident(self) -> int:
        """Bytes of its memory that are in RAM."""
        return int(self._read("statm").split()[1]) * os.sysconf("SC_PAGESIZE")

    @property
    def pipes(self) -> int:
        """Bytes that its kernel pipes may hold, which count to nobody's memory."""
        sizes: dict[str, int] = {}
        for link in Path(f"/proc/{self._process.pid}/fd").iterdir():
            try:
                target = os.readlink(link)
                if target.startswith("pipe:") and target not in sizes:
                    descriptor = os.open(link, os.O_RDONLY | os.O_NONBLOCK)
                    try:
                        sizes[target] = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
                    finally:
                        os.close(descriptor)
            except OSError:
                pass  # closed meanwhile
        return sum(sizes.values())

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text("ascii")

    def drain(self) -> float:
        """Ask it to end; when that was."""
        self._process.send_signal(signal.SIGTERM)
        return time.monotonic()

    def ended(self, seconds: float) -> int | None:
        """Its exit code; None if it has none after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._home.cleanup()
