"""People and their relay, as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import World, world


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.serve()
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """People, but no relay."""
    with world(tmp_path) as made:
        yield made
