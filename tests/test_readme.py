"""Every command in the README works as it is printed there.

They run in a network namespace of their own, where port 8080 is free and nobody else's relay listens. A command that is
added to the README without being run here fails the last test. The files that start a receiver with the machine are
those of the page about people; they are run, or read as far as this machine can.
"""

from __future__ import annotations

import json
import os
import plistlib
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glide.crypto.identity import Identity, key_text, parse_key
from glide.people.known import Known, Trust
from tests.pages import ROOT, blocks
from tests.processes import Process, World, until, world

# A line of a ```sh block, its comment cut off.
COMMANDS = [
    re.split(r"\s{2,}#", line)[0].strip()
    for block in blocks("README.md", "sh")
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


def pipe(beginning: str) -> str:
    """The one line with a pipe in it that begins like this."""
    (line,) = (line for line in PIPES if line.startswith(beginning))
    return line


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace, where port 8080 is free, needs root, Linux and iproute2")
    name = f"glide-{os.getpid()}-readme"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, timeout=10)
        with world(tmp_path) as made:
            for person in ("relay", "bob", "alice", "carol", "mallory"):
                # Everybody sits in a folder of their own, which is also what ~ means.
                home = made.into(person)
                programs = f"{home}/bin:{PATH}"
                made.prefixes[person] = (
                    "ip", "netns", "exec", name, "env", "-C", str(home), f"HOME={home}", f"PATH={programs}",
                )  # fmt: skip  # a command to be read across
            yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)


def chosen(w: World, person: str, *tables: str) -> None:
    """Write down what they have chosen: their name, as `glide receive` saves it, and tables of the README."""
    (w.folder / person).mkdir(exist_ok=True)
    (w.folder / person / "config.toml").write_text("\n".join([f'as = "{person}"', *tables]), encoding="utf-8")


def table(beginning: str) -> str:
    """The one TOML block of the README that begins like this."""
    (found,) = (block for block in blocks("README.md", "toml") if block.startswith(beginning))
    return found


def serving(w: World) -> Process:
    relay = w.run("relay", *the("python -m glide serve"))
    relay.says("glide use 127.0.0.1:8080#")
    return relay


def receiving(w: World, person: str, *arguments: str) -> Process:
    process = w.run(person, "receive", *arguments)
    process.says(f"You receive as {person}")
    return process


def has(w: World, person: str, *paths: str) -> bool:
    return all((w.into(person) / path).exists() for path in paths)


def files(w: World, person: str, *names: str) -> None:
    for name in names:
        path = w.into(person) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


def acquainted(w: World, one: str, other: str) -> None:
    """They have verified each other, at the relay that runs."""
    for me, them in ((one, other), (other, one)):
        ended(w.run(me, "who"))  # meets the relay
        book = Known(w.folder / me / "known.json")
        (relay,) = book.relays()
        shown = ended(w.run(them, "id", "--json")).event("id")
        book.remember(relay.key, them, parse_key(str(shown["key"])), Trust.VERIFIED)


def ended(process: Process) -> Process:
    assert process.wait() == 0, process
    return process


def shell(w: World, person: str, line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*w.prefixes[person], "bash", "-c", line],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GLIDE_HOME": str(w.folder / person), "PATH": PATH},
    )


@pytest.mark.timeout(200)  # more than twenty processes, one after the other
def test_files_folders_and_pipes_as_typed(w: World) -> None:
    # --- a file, by name ---
    relay = serving(w)
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
    relay = serving(w)
    bob = w.run("bob", *the("glide receive --as bob --accept known --conflict skip"))
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
    taking = shell(w, "bob", pipe("glide receive"))
    until(lambda: any(line.startswith("bob ") for line in ended(w.run("alice", "who")).output))
    sending = shell(w, "alice", f"mkdir src; touch src/x; {pipe('tar')}")
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


@pytest.mark.timeout(120)
def test_two_people_are_sure_of_each_other_and_share_a_shell_as_typed(w: World) -> None:
    chosen(w, "alice")
    chosen(w, "bob")
    serving(w)
    bob = receiving(w, "bob", "--accept", "all")
    files(w, "alice", "holiday.jpg", "taxes.pdf", "notes.txt", "photos/a.jpg")
    ended(w.run("alice", *the("python -m glide push")))

    # --- words: the same rows on both sides ---
    rows = []
    for person, command in (("alice", the("glide verify bob")), ("bob", ["verify", "alice"])):
        verify = w.run(person, *command, terminal=True)
        verify.says("[y/N] ")
        verify.types("y\n")
        rows.append([line.split()[-6:] for line in ended(verify).output])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2
    assert w.out("alice", "known").split()[:2] == ["bob", "verified"]

    # --- a code: shown to the first, typed by the other ---
    for person, other in (("alice", "bob"), ("bob", "alice")):
        ended(w.run(person, "known", "forget", other))
    strict = w.run("alice", *the("glide push bob taxes.pdf"))
    assert strict.wait() == 5, "bob is nobody any more"
    showing = w.run("bob", *the("glide pair alice"))
    showing.prints("-")
    typing = w.run("alice", *the("glide pair bob"), terminal=True)
    typing.says("The code that bob was shown: ")
    typing.types(f"{showing.output[0]}\n")
    ended(typing)
    ended(showing)
    ended(w.run("alice", *the("glide push bob taxes.pdf")))
    assert has(w, "bob", "taxes.pdf")

    # --- the shell, by a person and by a script ---
    alice = w.run("alice", *the("glide shell"), terminal=True, whole=True, term="xterm")
    alice.says("glide>")
    files(w, "bob", "plan.pdf")
    pushing = w.run("bob", "push", "alice", "plan.pdf")
    alice.says("ok 1 takes it")
    alice.types("push photos notes.txt @bob\r")
    alice.says("Delivered to bob: photos, notes.txt (2 files, ")
    alice.types("ok @bob\r")
    alice.says("From bob: 1 file, ")
    ended(pushing)
    alice.types("exit\r")
    ended(alice)
    assert has(w, "alice", "plan.pdf")
    assert has(w, "bob", "photos/a.jpg", "notes.txt")
    script = shell(w, "alice", pipe("printf"))
    assert "Delivered to bob: notes.txt (1 file, " in script.communicate(timeout=30)[0]
    assert script.returncode == 0
    assert has(w, "bob", "notes (1).txt")
    bob.signal(signal.SIGINT)
    bob.wait()


@pytest.mark.timeout(120)
def test_whoever_is_not_there_is_waited_for_as_typed(w: World) -> None:
    chosen(w, "alice", table("[groups]"))
    serving(w)
    files(w, "alice", "report.pdf", "holiday.jpg")
    waiting = w.run("alice", *the("glide push bob report.pdf --wait"))
    waiting.says("bob takes no files now")
    people = [receiving(w, person, "--as", person, "--accept", "all") for person in ("bob", "carol")]
    ended(waiting)
    ended(w.run("alice", *the("glide push team")))
    assert has(w, "carol", "report.pdf")
    assert has(w, "bob", "report.pdf", "report (1).pdf")

    # --- from Python ---
    (program,) = blocks("README.md", "python")
    python = ended(w.run("alice", program=("-c", program)))
    assert python.output == ["bob has confirmed 11 bytes"]
    assert has(w, "bob", "holiday.jpg")
    for process in people:
        process.signal(signal.SIGINT)
        process.wait()


@pytest.mark.timeout(120)
def test_a_policy_decides_and_a_hook_tells_as_typed(w: World) -> None:
    chosen(w, "bob", table("[policy.known]"))
    serving(w)
    acquainted(w, "alice", "bob")
    acquainted(w, "mallory", "bob")
    files(w, "alice", "notes.txt")
    files(w, "mallory", "trap.exe")
    (w.into("bob") / "inbox").mkdir()
    linux, _ = blocks("README.md", "bash")
    program(w.into("bob") / "notice.sh", linux)
    program(w.into("bob") / "bin" / "notify-send", STANDS_IN)
    bob = w.run("bob", *the("glide receive --as bob --on-received"))
    bob.says("You receive as bob")
    assert w.run("mallory", "push", "bob", "trap.exe", "--as", "mallory").wait() == 4
    ended(w.run("alice", "push", "bob", "notes.txt", "--as", "alice"))
    assert has(w, "bob", "inbox/notes.txt")
    told = w.into("bob") / "told"
    until(lambda: told.exists() and told.read_text(encoding="utf-8").count("\n") == 2)
    assert told.read_text(encoding="utf-8").splitlines() == ["--", "From alice: notes.txt"]
    bob.signal(signal.SIGINT)
    bob.wait()


# What a desktop would be told: no test has one.
STANDS_IN = """#!/bin/sh
printf '%s\\n' "$@" > "$HOME/told"
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("script", blocks("README.md", "bash"), ids=["linux", "macos"])
def test_what_a_stranger_writes_is_only_ever_an_argument_of_the_notice(tmp_path: Path, script: str) -> None:
    evil = '--help "; touch evil; $(touch evil) `touch evil` " & (do shell script "touch evil") & "'
    program(tmp_path / "notice.sh", script)
    for name in ("notify-send", "osascript"):
        program(tmp_path / "bin" / name, STANDS_IN)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "GLIDE_HOOK_FROM": "mallory",
        "GLIDE_HOOK_NAMES": evil,
    }
    subprocess.run(["./notice.sh"], check=True, cwd=tmp_path, env=environment, timeout=20)
    told = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    if told[0] == "--":
        assert told == ["--", f"From mallory: {evil}"]
    else:
        assert told[-2:] == ["From mallory", evil]
        assert not any(evil in line or "mallory" in line for line in told[:-2]), "the script itself is ours alone"
    assert not (tmp_path / "evil").exists()


@pytest.mark.timeout(120)
def test_what_the_service_files_start_receives(w: World) -> None:
    """The line of the README is the one in the unit; launchd's says the same with its folders written out."""
    (unit,) = blocks("docs/people.md", "ini")
    (line,) = blocks("README.md", "ini")
    assert line in unit
    home = w.into("bob")
    command = line.strip().removeprefix("ExecStart=").replace("%h", str(home)).split()
    glide_there, *arguments = command
    assert glide_there == f"{home}/.local/bin/glide"
    assert [word.replace("/Users/bob", str(home)) for word in launched()] == command

    serving(w)
    acquainted(w, "alice", "bob")
    (home / "inbox").mkdir()
    bob = w.run("bob", *arguments)
    bob.says("You receive as bob")
    files(w, "alice", "notes.txt")
    ended(w.run("alice", "push", "bob", "notes.txt", "--as", "alice"))
    assert has(w, "bob", "inbox/notes.txt")
    bob.signal(signal.SIGTERM)
    assert f"SuccessExitStatus={bob.wait()}" in unit, "systemd's own way to end it is no failure"


def launched() -> list[str]:
    """What launchd starts, by the whole file and by the lines of the README."""
    (xml,) = blocks("docs/people.md", "xml")
    (lines,) = blocks("README.md", "xml")
    assert "".join(lines.split()) in "".join(xml.split())
    agent = plistlib.loads(xml.encode())
    assert agent["Label"] == "glide"
    assert agent["RunAtLoad"] is True
    words = agent["ProgramArguments"]
    assert isinstance(words, list)
    return [str(word) for word in words]


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    (unit,) = blocks("docs/people.md", "ini")
    file = tmp_path / "glide.service"
    file.write_text(unit, encoding="utf-8")
    there = tmp_path / ".local" / "bin"
    there.mkdir(parents=True)
    program(there / "glide", "#!/bin/sh\n")
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]}

    def complaints() -> str:
        done = subprocess.run(
            [analyze, "verify", "--user", str(file)],
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr

    assert complaints() == ""
    file.write_text(unit.replace("Restart=", "Restrt="), encoding="utf-8")
    assert "Restrt" in complaints(), "it does look"


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
    for command in set(COMMANDS) - set(PIPES):
        assert any(command.startswith(beginning) for beginning in begun), command
    piped = re.findall(r"""pipe\(["']([^"']+)["']\)""", source)
    for line in PIPES:
        assert any(line.startswith(beginning) for beginning in piped), line
