"""Starting is most of what a small transfer takes, so no verb loads what it does not use."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final, get_type_hints

import pytest

from glide.cli.verbs import Verbs
from tests.processes import World

# Runs glide, and says as the last line on stderr which modules it loaded. It ends with os._exit, as nothing is to be
# torn down.
LOADED = """
import os, sys
before, end = {*sys.modules}, os._exit
def told(code):
    print("LOADED", *sorted({*sys.modules} - before), file=sys.stderr, flush=True)
    end(code)
os._exit = told
from glide.__main__ import main
main()
"""

# Packages, and modules of our own and of Python's, of which each costs as much as a round trip or more. Whatever a
# command is not listed with here it does not load.
_NAMES = """
    asyncio blake3 concurrent.futures cryptography email glide.relay glide.transfer.receiving
    glide.transfer.sending http importlib.metadata json mnemonic msgspec multiprocessing noise pathspec
    platformdirs prompt_toolkit pydantic pygments rich shlex spake2 sqlite3 tomlkit tomllib trio unittest
    urllib.request zoneinfo
"""
HEAVY: Final = frozenset(_NAMES.split())
KEYS: Final = {"cryptography", "msgspec"}  # one's own key, and those of others
ONLINE: Final = KEYS | {"trio", "noise"}
SENDS: Final = ONLINE | {"blake3", "glide.transfer.sending"}
RECEIVES: Final = ONLINE | {"blake3", "glide.transfer.receiving", "sqlite3"}
HOOKS: Final = {"json", "shlex"}

NOWHERE: Final = ("--relay", "127.0.0.1:1")  # nobody listens there

# What is typed, what of HEAVY it may load, and how many modules of glide and of others' packages at most: Python's own
# are not counted, as each version has its own. There is room for one module of ours, and for a few of others.
CASES: Final[dict[str, tuple[tuple[str, ...], set[str], int, int]]] = {
    "the version": (("--version",), set(), 6, 34),
    "the steps": ((), KEYS, 29, 62),
    "help": (("push", "--help"), {"msgspec", "rich", "pygments"}, 13, 200),
    "id, made": (("id",), KEYS, 21, 84),
    "id in JSON": (("id", "--json"), KEYS | {"json"}, 21, 84),
    "known": (("known",), KEYS, 23, 62),
    "partials": (("partials",), KEYS | {"blake3", "sqlite3"}, 36, 64),
    "use": (("use", "127.0.0.1:1"), KEYS | {"tomlkit"}, 25, 73),
    "push": (("push", "bob", __file__, *NOWHERE), SENDS, 67, 203),
    "push in JSON": (("push", "bob", __file__, "--json", *NOWHERE), SENDS | {"json"}, 67, 203),
    "push with patterns": (("push", "bob", __file__, "--exclude", "x", *NOWHERE), SENDS | {"pathspec"}, 67, 234),
    "receive": (("receive", "--as", "bob", *NOWHERE), RECEIVES | HOOKS, 82, 203),
    "who": (("who", *NOWHERE), ONLINE, 49, 201),
    "list": (("list", *NOWHERE), ONLINE, 49, 201),
    "verify": (("verify", "bob", *NOWHERE), ONLINE, 47, 201),
    "pair": (("pair", "bob", *NOWHERE), ONLINE, 48, 201),
    "doctor": (("doctor", *NOWHERE), ONLINE, 53, 201),
    "shell": (("shell", "--as", "bob", *NOWHERE), SENDS | RECEIVES | HOOKS, 95, 203),
    "serve": (("serve", "--greeting", "x" * 401), ONLINE | {"glide.relay"}, 57, 201),
}


def loaded(*typed: str, home: Path) -> set[str]:
    """The modules that a command has loaded when it ends."""
    # Nothing of ours in the environment: neither settings, nor what measures coverage.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # some Pythons need it
    environment = {"GLIDE_HOME": str(home), "GLIDE_RETRY": "0s", "GLIDE_AS": "alice", **kept}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *typed],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
    )
    return modules(done.stderr)


def modules(errors: str) -> set[str]:
    """What the last line tells."""
    first, *found = errors.splitlines()[-1].split()
    assert first == "LOADED", errors
    return {*found}


@pytest.mark.parametrize("case", CASES)
def test_a_verb_loads_what_it_uses_and_nothing_else(case: str, tmp_path: Path) -> None:
    typed, allowed, ours_at_most, others_at_most = CASES[case]
    found = loaded(*typed, home=tmp_path / "alice")
    assert found & HEAVY <= allowed
    ours = {name for name in found if name.partition(".")[0] == "glide"}
    others = {name for name in found - ours if name.partition(".")[0] not in sys.stdlib_module_names}
    assert "typer" in others, "it was loaded before it was looked at"
    assert len(ours) <= ours_at_most, sorted(ours)
    assert len(others) <= others_at_most, sorted(others)
    assert len(ours) > ours_at_most - 5, "the limit of our own modules is for a command that loaded more"


def test_every_verb_is_held_to_it() -> None:
    assert {*Verbs()} <= {typed[0] for typed, *_ in CASES.values() if typed}


def test_a_file_that_is_sent_costs_no_more(w: World) -> None:
    """From the first connection to the receipt: what is loaded on the way counts too."""
    w.receive("bob", "--accept", "all")
    pushed = w.run(
        "alice",
        *("push", "bob", str(w.file("a", 1024)), "--as", "alice", "--relay", w.address),
        program=("-c", LOADED),
    )
    assert pushed.wait() == 0, pushed
    found = modules(pushed.errors)
    assert "glide.transfer.sending" in found
    assert found & HEAVY <= SENDS


@pytest.mark.parametrize("verb", [name for name in Verbs() if name != "list"])
def test_what_a_verb_takes_is_text_which_nobody_but_the_settings_checks(verb: str) -> None:
    """A number or a path would come as text all the same: see ``glide.cli.verbs.unchecked``."""
    module, command = import_module(f"glide.cli.{verb}"), Verbs()[verb]
    names = [name for name in (verb, *getattr(command, "commands", {})) if hasattr(module, name)]
    assert names
    for hints in (get_type_hints(getattr(module, name)) for name in names):
        for name in hints.keys() - {"context", "return"}:
            assert hints[name] in (str, list[str], str | None, bool | None, list[str] | None), name
