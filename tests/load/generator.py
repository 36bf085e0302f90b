"""A process that loads a relay, and how the one that measures speaks with it.

``python -m tests.load.generator PART PORT KEY FIRST COUNT PAUSE`` registers its clients and says so in a line of JSON;
then it reads words, one a line, and answers each with another. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from tests.load.parts import PARTS
from tests.load.people import Home

ROOT = Path(__file__).parent.parent.parent


class Generator:
    """A generator, from the side of the process that measures. Each word has its answer before the next is said."""

    def __init__(self, part: str, port: int, key: bytes, numbers: range, pause: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.load.generator", part, port, key.hex(), numbers.start, len(numbers)]
        self.part = part
        self._process = subprocess.Popen(
            [str(word) for word in (*command, pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            bufsize=1,
        )

    def ready(self) -> None:
        """Wait until its clients are registered."""
        self.heard()

    def say(self, word: str) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(word + "\n")

    def heard(self) -> dict[str, Any]:
        """Its next answer. SystemExit if it is gone."""
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a generator ({self.part}) ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, word: str) -> dict[str, Any]:
        self.say(word)
        return self.heard()

    def close(self) -> None:
        """End it, at once."""
        self._process.kill()
        self._process.communicate()


async def serve(part: str, home: Home, numbers: range, pause: float) -> None:
    work = PARTS[part](home, numbers, pause)
    async with trio.open_nursery() as nursery:
        await nursery.start(work.run)
        print(json.dumps({}), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            figures = await work.does(line.strip())
            print(json.dumps({**figures, "problems": work.problems}), flush=True)
        nursery.cancel_scope.cancel()


# Generators give way to the relay, as if they were on other machines; who measures does not.
_NICE = {"prober": 0}

if __name__ == "__main__":
    _, _part, _port, _key, _first, _count, _pause = sys.argv
    _hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    os.nice(_NICE.get(_part, 10))
    _numbers = range(int(_first), int(_first) + int(_count))
    trio.run(serve, _part, Home(int(_port), bytes.fromhex(_key)), _numbers, float(_pause))
