"""What a line that was typed into the shell means, and what it may become. Nothing here waits or writes.

    list, who                       everybody who is connected
    push PATH... @NAME              also: glide PATH... @NAME, push @NAME PATH...
         --message TEXT, --wait DURATION, --strict
    reqs                            offers that wait for an answer
    show N                          all that is in one
    ok @NAME [N], ok N              take one; `no` likewise
    stop N                          a transfer that is under way
    help, exit

Words are quoted as in other shells. The name of a person begins with @ where a path may stand too, so that neither is
taken for the other; a file of such a name is written ./@file.
"""

from __future__ import annotations

import difflib
import itertools
import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from glide.errors import UsageError
from glide.protocol import names
from glide.text import parse_duration, printable

# Names of a folder that are looked at for a completion, and characters of one (255 bytes is what file systems take).
_MOST_ENTRIES = 10_000
_LONGEST_NAME = 255

HELP = """\
  list (or who)            who is connected
  push PATH... @NAME       send files and folders to a person or a group; glide does the same
    --message TEXT         a line for them
    --wait DURATION        wait so long for them to appear
    --strict               send to nobody who is not verified
  reqs                     offers that wait for your answer
  show N                   every path in an offer
  ok @NAME, ok N           take what they offer: by name, or by the offer's number
  no @NAME, no N           decline it
  stop N                   stop what is under way, by its number
  help                     this
  exit                     leave (also: Ctrl-D)
A path with spaces is put in quotes. Several transfers may be under way at once."""


@dataclass(frozen=True)
class List:
    """Who is connected?"""


@dataclass(frozen=True)
class Push:
    """``paths`` to ``to``; a leading ~ is expanded. What is None is as the settings say; ``wait`` is in seconds."""

    to: str
    paths: tuple[str, ...]
    message: str | None = None
    wait: float | None = None
    strict: bool | None = None


@dataclass(frozen=True)
class Requests:
    """Which offers are open?"""


@dataclass(frozen=True)
class Show:
    """Everything that is in the offer of that number."""

    number: int


@dataclass(frozen=True)
class Answer:
    """Yes or no to an offer: to the one of that number, or to the only one of that sender. At least one is given."""

    yes: bool
    sender: str | None
    number: int | None


@dataclass(frozen=True)
class Stop:
    """The transfer of that number is not to go on."""

    number: int


@dataclass(frozen=True)
class Help:
    pass


@dataclass(frozen=True)
class Leave:
    pass


Command: TypeAlias = List | Push | Requests | Show | Answer | Stop | Help | Leave

_SIMPLE: dict[str, Command] = {"list": List(), "who": List(), "reqs": Requests(), "help": Help(), "exit": Leave()}

# Each word and what completes it: P paths and people, A people who have offered something.
WORDS: dict[str, str] = {
    "list": "",
    "who": "",
    "push": "P",
    "glide": "P",
    "reqs": "",
    "show": "",
    "ok": "A",
    "no": "A",
    "stop": "",
    "help": "",
    "exit": "",
}
# What people type who know other programs.
_ALSO = {
    "accept": "ok",
    "abort": "stop",
    "bye": "exit",
    "cancel": "stop",
    "decline": "no",
    "ls": "list",
    "offers": "reqs",
    "q": "exit",
    "quit": "exit",
    "requests": "reqs",
    "send": "push",
    "yes": "ok",
    "?": "help",
}


def parse(line: str) -> Command | None:
    """What ``line`` asks for; None if it is blank. Raises :class:`UsageError`, and then nothing has been done."""
    try:
        words = shlex.split(line)
    except ValueError:
        raise UsageError("A quotation mark is not closed, or a backslash stands last.") from None
    if not words:
        return None
    verb, rest = words[0].removeprefix("/").lower(), words[1:]
    match verb:
        case "push" | "glide":
            return _push(verb, rest)
        case "ok" | "no":
            return _answer(verb, rest)
        case "stop":
            return Stop(_number("stop", rest, "transfer"))
        case "show":
            return Show(_number("show", rest, "offer"))
        case "list" | "who" | "reqs" | "help" | "exit":
            if rest:
                raise UsageError(f"{verb} takes no arguments.")
            return _SIMPLE[verb]
    close = [_ALSO[verb]] if verb in _ALSO else difflib.get_close_matches(verb[:32], WORDS, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}?" if close else "help lists what there is."
    raise UsageError(f"There is no command {printable(words[0], 40)!r}.", next=hint)


def _push(verb: str, words: list[str]) -> Push:
    usage = f"Write it as {verb} PATH... @NAME."
    people, paths = [], []
    message: str | None = None
    wait: float | None = None
    strict: bool | None = None
    rest, options = iter(words), True
    for word in rest:
        if options and word == "--":
            options = False
        elif options and word.partition("=")[0] == "--message":
            message = _value(word, rest)
        elif options and word.partition("=")[0] == "--wait":
            wait = _duration(_value(word, rest))
        elif options and word == "--strict":
            strict = True
        elif options and word == "-":
            raise UsageError("Standard input is where you type; `glide push NAME -` sends it.")
        elif options and word.startswith("-"):
            raise UsageError(
                f"{verb} has no option {printable(word, 40)}.", next=f"A file of that name is ./{printable(word, 40)}."
            )
        elif word.startswith("@"):
            people.append(word)
        elif not word:
            raise UsageError("A path is empty.", next="A dot (.) is the folder that you are in.")
        else:
            paths.append(_expanded(word))
    if not people:
        raise UsageError("It does not say to whom.", next=usage)
    if len(people) > 1:
        raise UsageError("One person at a time.", next=f"{usage} A file of such a name is ./@name.")
    if not paths:
        raise UsageError("It does not say what to send.", next=usage)
    return Push(names.parse(people[0]), tuple(paths), message, wait, strict)


def _value(option: str, rest: Iterator[str]) -> str:
    """What stands behind the = of an option, or else in the next word."""
    name, equals, value = option.partition("=")
    found = value if equals else next(rest, None)
    if found is None:
        raise UsageError(f"{name} says nothing more.", next=f"Write it as {name} VALUE.")
    return found


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--wait: {printable(str(error))}") from None


def _expanded(path: str) -> str:
    if "\0" in path:
        raise UsageError("No path has a NUL in it.")
    try:
        return os.path.expanduser(path)
    except ValueError:
        return path  # ~ and what cannot be a user's name


def _answer(verb: str, words: list[str]) -> Answer:
    sender, number = None, None
    for word in words:
        # A name may be all digits: with its @ it is one, without it is a number.
        digits = word.isascii() and word.isdigit()
        if digits and number is None:
            number = int(word[:10])
        elif not digits and sender is None:
            sender = names.parse(word)
        else:
            raise UsageError("One offer at a time.", next=f"Write it as {verb} @NAME, or as {verb} N.")
    if sender is None and number is None:
        raise UsageError("It does not say to which offer.", next=f"Write it as {verb} @NAME, or as {verb} N.")
    return Answer(verb == "ok", sender, number)


def _number(verb: str, words: list[str], what: str) -> int:
    if len(words) != 1 or not (words[0].isascii() and words[0].isdigit()):
        raise UsageError(f"It does not say which {what}.", next=f"Write it as {verb} N; N stands before it.")
    return int(words[0][:10])


@dataclass(frozen=True)
class Completion:
    """``text`` in place of what stands from ``start`` on; a person is shown ``shown``."""

    start: int
    text: str
    shown: str


def complete(line: str, people: Iterable[str], asking: Iterable[str]) -> list[Completion]:
    """What the last word of ``line`` may become: a command, a person, one who is ``asking``, or a path. Blocks."""
    start, word, first = _last_word(line)
    if first:
        slash = "/" if word.startswith("/") else ""
        found = [name for name in WORDS if name.startswith(word.removeprefix("/").lower())]
        return [Completion(start, f"{slash}{name} ", name) for name in found]
    verb = line.split(maxsplit=1)[0].removeprefix("/").lower()
    kind = WORDS.get(verb, "")
    if kind == "A" or (kind == "P" and word.startswith("@")):
        wanted = word.removeprefix("@").lower()
        found = [name for name in sorted(set(asking if kind == "A" else people)) if name.startswith(wanted)]
        return [Completion(start, f"@{name} ", f"@{name}") for name in found]
    return [Completion(start, text, shown) for text, shown in _paths(word)] if kind == "P" else []


def _last_word(line: str) -> tuple[int, str, bool]:
    """Where the last word begins, what it is without its quotes, and whether it is the first."""
    start, word, quote, escaped, count = -1, "", "", False, 0
    for at, character in enumerate(line):
        if character.isspace() and not quote and not escaped:
            start, word = -1, ""
            continue
        if start < 0:
            start, count = at, count + 1
        if escaped:
            word, escaped = word + character, False
        elif character == "\\" and quote != "'":
            escaped = True
        elif character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote = character
        else:
            word += character
    return (start, word, count == 1) if start >= 0 else (len(line), "", count == 0)


def _paths(word: str) -> Iterator[tuple[str, str]]:
    """Paths that begin with ``word``, quoted, and as they are shown."""
    folder, slash, beginning = word.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(folder + slash) or ".") as entries:
            found = sorted(
                (entry.name, entry.is_dir())
                for entry in itertools.islice(entries, _MOST_ENTRIES)
                if entry.name.startswith(beginning) and (beginning or not entry.name.startswith("."))
            )
    except (OSError, ValueError):
        return
    home, rest = ("~/", folder[2:]) if folder == "~" or folder.startswith("~/") else ("", folder)
    for name, is_folder in found:
        if printable(name, _LONGEST_NAME) != name:
            continue  # somebody else may have chosen it: what a terminal would obey is not put on one (D1)
        inside = rest + slash if rest or not home else ""
        quoted = shlex.quote(f"{'./' if name.startswith(('@', '-')) and not inside and not home else ''}{inside}{name}")
        yield home + quoted + ("/" if is_folder else " "), name + ("/" if is_folder else "")
