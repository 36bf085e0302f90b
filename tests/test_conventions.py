"""What this codebase promises of itself: silenced warnings are few and explained, nothing is left undone."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])

SILENCERS = re.compile(r"#\s*(pragma: no (?:cover|branch)|noqa|type: ignore|fmt: (?:skip|off))")

# Comments that silence a tool in src; a third of them are for Windows. Raise it only with a reason beside the new one.
MOST_IN_SRC = 27


def comments(path: Path) -> list[tuple[int, str]]:
    """The comments of a file with their line numbers: real ones, not text in strings."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def silenced(path: Path) -> list[tuple[int, str]]:
    return [(line, comment) for line, comment in comments(path) if SILENCERS.search(comment)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_silenced_warning_carries_its_reason(path: Path) -> None:
    for line, comment in silenced(path):
        last = list(SILENCERS.finditer(comment))[-1]
        reason = re.sub(r"^[\s:\[\]A-Z0-9a-z,-]*?(?:\]|[A-Z]+\d+)?\s*(?:#|-)\s*", "", comment[last.end() :])
        assert len(reason.split()) >= 3, f"{path.name}:{line}: {comment}"


def test_silenced_warnings_are_counted() -> None:
    found = [f"{path.name}:{line}" for path in SOURCES if "src" in path.parts for line, _ in silenced(path)]
    assert len(found) <= MOST_IN_SRC, found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_undone(path: Path) -> None:
    marks = "TO" + "DO", "FIX" + "ME", "XX" + "X:", "NotImplemented" + "Error"
    assert not [mark for mark in marks if mark in path.read_text(encoding="utf-8")]


def test_no_lock_file_and_no_registry_address_is_committed() -> None:
    for path in (ROOT / "constraints.txt", ROOT / "pyproject.toml", ROOT / "Makefile"):
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path
