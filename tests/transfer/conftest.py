"""What the tests of whole transfers begin with: a file, somewhere to put it, and a disk that stops."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from glide.net.connection import Connection
from tests.transfer.halves import CONTENT, Place, spied


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    an_hour_ago = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    into = tmp_path / "in"
    into.mkdir()
    return Place(into, tmp_path / "journals")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of files went out, in each DATA frame."""
    sizes: list[int] = []
    monkeypatch.setattr(Connection, "send_data", spied(sizes))
    return sizes


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """A disk that does not answer until this is set."""
    event = threading.Event()
    yield event
    event.set()
