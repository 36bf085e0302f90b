"""Every command in the README works as it is printed there.

They run in a network namespace of their own, where port 8080 is free and nobody else's relay listens. A command that is
added to the README without being run here fails the last test.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glide.crypto.identity import Identity, key_text
from tests.processes import Process, World, world

ROOT = Path(__file__).parent.parent

# A line of a ```sh block, its comment cut off.
COMMANDS = [
    re.split(r"\s{2,}#", line)[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


# Those with a pipe in them are typed into a shell.
PIPES = [command for command in COMMANDS if "|" in command]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def the(beginning: str) -> list[str]:
    """The words of the one command that begins like this, without `python -m glide` or `glide`."""
    (command,) = (command for command in COMMANDS if command.startswith(beginning))
    return re.sub(r"^(python -m )?glide ", "", command).split()


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace, where port 8080 is free, needs root, Linux and iproute2")
    name = f"glide-{os.getpid()}-readme"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, timeout=10)
        with world(tmp_path) as made:
            for person in ("relay", "bob", "alice", "carol"):
                made.prefixes[person] = ("ip", "netns", "exec", name, "env", "-C", str(made.into(person)))
            yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)


def ended(process: Process) -> Process:
    assert process.wait() == 0, process
    return process


def test_the_readme_as_typed(w: World) -> None:
    # --- a file, by name ---
    relay = w.run("relay", *the("python -m glide serve"))
    relay.says("glide use 127.0.0.1:8080#")
    bob = w.run("bob", *the("python -m glide receive"), terminal=True)
    bob.says("You receive as bob")
    (w.into("alice") / "holiday.jpg").write_bytes(os.urandom(100_000))
    alice = w.run("alice", *the("python -m glide push"))
    bob.says("[y/N]")
    bob.types("y\n")
    ended(alice)
    assert (w.into("bob") / "holiday.jpg").read_bytes() == (w.into("alice") / "holiday.jpg").read_bytes()
    for process in (bob, relay):
        process.signal(signal.SIGINT)
        process.wait()

    # --- folders, and pipes ---
    relay = w.run("relay", *the("python -m glide serve"))
    relay.says("glide use 127.0.0.1:8080#")
    receiving = the("glide receive --as bob --accept known --conflict skip")
    bob = w.run("bob", *receiving)
    bob.says("You receive as bob")
    home = w.into("alice")
    for name in ("photos/a.jpg", "notes.txt", "project/src/a.py", "project/huge.iso", "project/a.log"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "project" / ".gitignore").write_text("*.log\n")
    ended(w.run("alice", *the("glide push bob photos notes.txt")))
    assert (w.into("bob") / "photos" / "a.jpg").read_text() == "photos/a.jpg"
    ended(w.run("alice", *shlex.split(" ".join(the("glide push bob project")))))
    found = sorted(path.name for path in (w.into("bob") / "project").rglob("*"))
    assert found == [".gitignore", "a.py", "src"]
    ended(w.run("alice", *the("glide push bob photos --receipt")))
    assert json.loads((home / "photos.json").read_text())["items"] == 1
    assert sorted(path.name for path in w.into("bob").iterdir()) == ["holiday.jpg", "notes.txt", "photos", "project"]
    (listing,) = {command for command in COMMANDS if command == "glide partials"}
    ended(w.run("bob", *listing.split()[1:]))
    ended(w.run("bob", *the("glide partials clear")))
    bob.signal(signal.SIGINT)
    bob.wait()
    taking, sending = (
        subprocess.Popen(
            [*w.prefixes[person], "bash", "-c", pipeline],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GLIDE_HOME": str(w.folder / person), "PATH": PATH},
        )
        for person, pipeline in (("bob", PIPES[1]), ("alice", f"mkdir src; touch src/x; sleep 2; {PIPES[0]}"))
    )
    sending.communicate(timeout=30)
    assert sending.returncode == 0
    assert taking.communicate(timeout=30)[0].split() == ["src/", "src/x"]
    relay.signal(signal.SIGINT)
    relay.wait()

    # --- to another machine ---
    relay = w.run("relay", *the("glide serve --host"))
    relay.says("glide use ")
    (printed,) = re.findall(r"glide use (\S+)", relay.errors)
    key = printed.partition("#")[2]
    use = the("glide use")
    assert re.fullmatch(r"[a-z.]+:8080#KEY", use[1])
    for person in ("bob", "alice"):
        ended(w.run(person, use[0], f"127.0.0.1:8080#{key}"))
    ended(w.run("alice", *the("glide who")))

    # --- keys ---
    assert ended(w.run("alice", *the("glide id"))).output[1].startswith("fingerprint")
    carols = key_text(Identity.generate().public)
    ended(w.run("alice", *(carols if word == "CAROLS-KEY" else word for word in the("glide known add"))))
    (listing,) = {command for command in COMMANDS if command == "glide known"}
    assert any(line.startswith("carol ") for line in ended(w.run("alice", *listing.split()[1:])).output)
    ended(w.run("alice", *the("glide known forget")))

    # --- a receiver for scripts ---
    (w.into("bob") / "inbox").mkdir()
    daemon = w.run("bob", *the("glide receive --as bob --into"))
    daemon.event("registered")
    (w.into("alice") / "notes").write_text("hello")
    ended(w.run("alice", "push", "bob", "notes"))
    assert (w.into("bob") / "inbox" / "notes").read_text() == "hello"


def test_the_environment_of_make_is_entered() -> None:
    enter = " ".join(the(". .venv"))
    command = f"{enter} && python -m glide --version"
    if not (ROOT / ".venv").exists():
        pytest.skip("there is no .venv: this was not started by make")
    subprocess.run(["bash", "-c", command], check=True, cwd=ROOT, capture_output=True, timeout=30)


@pytest.mark.timeout(200)
def test_it_installs(tmp_path: Path) -> None:
    install = the("python -m pip install")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_QUIET": "2"}
    subprocess.run([str(python), *install[1:]], check=True, cwd=ROOT, env=environment, timeout=160)
    glide = str(tmp_path / "venv" / "bin" / "glide")
    done = subprocess.run([glide, "--version"], check=True, capture_output=True, text=True, timeout=20)
    assert done.stdout.startswith("glide ")


def test_the_demo() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    the("make demo")
    assert re.search(r"^demo:.*\n\t@\$\(BIN\)/python tests/demo.py$", makefile, re.MULTILINE)
    demo = [sys.executable, "tests/demo.py"]
    done = subprocess.run(demo, check=False, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_command_is_left_out() -> None:
    """By reading this file: the order of tests is random, so what has run so far says nothing."""
    source = Path(__file__).read_text(encoding="utf-8")
    begun = [*re.findall(r'the\("([^"]+)"\)', source), "glide known", "glide partials", "make test"]
    assert len(PIPES) == 2, "both are run"
    for command in set(COMMANDS) - set(PIPES):
        assert any(command.startswith(beginning) for beginning in begun), command
