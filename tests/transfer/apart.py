"""Python in processes of its own: to be killed, to have other rights, or to race."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux: to mount, or to become somebody else"
)

# Goes in front of a script that must run without root's rights. Imports come first: where Python itself stands may
# be closed to others.
NOBODY = """
import os
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
"""


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A process that runs ``code``; its stdin and stdout are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(code: str, *arguments: str | Path) -> str:
    """What ``code`` prints; fails if it does not end with 0."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="glide-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def mounted(where: Path, *arguments: str) -> Iterator[Path]:
    """Something mounted on ``where`` by mount(8); skips where mounting is not allowed (in a container)."""
    where.mkdir()
    done = subprocess.run(["mount", *arguments, str(where)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)
