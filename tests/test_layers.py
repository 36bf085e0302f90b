"""The drawing of the architecture, asserted: which package may import which.

cli  ->  client, relay  ->  transfer, people  ->  net  ->  crypto, protocol  ->  errors

Beside the drawing, settings turns text into what it means: policies of people, names of the protocol.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import glide

ROOT = Path(glide.__file__).parent

# Package -> what it may import of glide, besides itself. These are words and tools that all share.
WORDS = {"errors", "text", "events", "files"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "text": set(),
    "files": set(),
    "events": set(),
    "protocol": WORDS,
    "crypto": WORDS,
    "net": WORDS | {"crypto", "protocol"},
    "people": WORDS | {"crypto", "protocol", "net"},
    "transfer": WORDS | {"crypto", "protocol", "net"},
    "settings": WORDS | {"protocol", "people"},
    "relay": WORDS | {"crypto", "protocol", "net", "transfer", "people"},
    "client": WORDS | {"crypto", "protocol", "net", "transfer", "people", "settings"},
    "cli": WORDS | {"crypto", "protocol", "net", "transfer", "people", "relay", "client", "settings", "__version__"},
    "__main__": {"cli"},
    "__init__": {"client", "errors"},
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The modules of glide, and other top-level packages, that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"glide.{alias.name}" for alias in node.names}
            found |= names if node.module == "glide" else {node.module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downhill(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    own = {name.split(".")[1] for name in imports(path) if name.startswith("glide.")} - {package}
    assert own <= ALLOWED[package], f"{path.name} of {package} may not import {own - ALLOWED[package]}"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in ("protocol", "crypto")], ids=lambda p: p.name)
def test_protocol_and_crypto_never_wait(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"trio", "socket", "time", "asyncio"}


def test_modules_stay_readable() -> None:
    long = {path.name: n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 330}
    assert long == {}, "is there a second idea inside?"
