"""What stays here because of a pattern: ``--exclude``, and ``.gitignore`` files, understood as git does.

pathspec only translates single patterns. Its own matching is for the paths of files alone: of folders, which are not to
be entered for nothing, it takes "*" to say more than the "!*/" behind it.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Sequence

import msgspec

from glide.errors import UsageError
from glide.text import printable

# A line without the spaces that end it, unless a backslash says that they are meant.
_TRIMMED = re.compile(r"(?: *(?:\\.|\\\Z|[^\\ ]))*", re.DOTALL)
# Not, what it matches, only folders.
_PATTERN = re.compile(r"(!?)((?:\\.|[^\\])*?)(/?)", re.DOTALL)
# Patterns for whatever there is. pathspec turns them into an expression that is not anchored.
_EVERYTHING = re.compile(r"\*+|/?(?:\*\*/)*\*\*|/?(?:\*\*/)+\*+")
# Of what may stand between brackets, this means something else to pathspec and re than to git.
_ODD = re.compile(r"(?<!\\)\[[!^]?\]?[^\]]*?(?:\[|\\|--|&&|\|\||~~)")


class Rule(msgspec.Struct, frozen=True):
    """One pattern. It is asked about each item on the way down, and so never about what is in an excluded folder."""

    matches: Callable[[str], object]
    excludes: bool
    only_folders: bool
    by_name: bool  # the path does not matter


def parse(text: str) -> Rule:
    """The rule that a pattern is. ValueError if it cannot be understood."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(text)
    negated, pattern, slash = found.groups()
    if _EVERYTHING.fullmatch(pattern):
        pattern = "*"
    # With a slash before it a pattern is anchored, and a "!" or "#" that it begins with means itself; so does a space
    # that it ends with, between brackets.
    glob = "/" + pattern.removeprefix("/") + ("/*" if pattern.endswith("/**") else "")
    glob = re.sub(r"(?<!\\)\s\Z", r"[\g<0>]", glob)
    if _ODD.search(glob):
        raise ValueError(text)
    try:
        expression = GitIgnoreSpecPattern(glob).regex
    except re.error as error:
        raise ValueError(text) from error
    if expression is None:
        raise ValueError(text)
    # The expression takes all that is in a folder, too; only as a whole does it take the item itself alone.
    return Rule(expression.fullmatch, not negated, bool(slash), "/" not in pattern)


def given(patterns: Sequence[str]) -> list[Rule]:
    """The rules that ``--exclude`` gives, the last one first."""
    rules = []
    for pattern in reversed(patterns):
        try:
            rules.append(parse(pattern))
        except ValueError:
            raise UsageError(
                f"--exclude {printable(pattern)!r} is no pattern.",
                next="Patterns are those of .gitignore files: '*.o', 'build/', '/notes.txt'.",
            ) from None
    return rules


def read(content: bytes) -> tuple[list[Rule], list[str]]:
    """The rules of a ``.gitignore``, the last one first, and the lines that cannot be understood."""
    rules, odd = [], []
    for line in os.fsdecode(content.removeprefix(codecs.BOM_UTF8)).split("\n"):
        found = _TRIMMED.match(line.removesuffix("\r"))
        pattern = found[0] if found else ""
        if pattern and not pattern.startswith("#"):
            try:
                rules.append(parse(pattern))
            except ValueError:
                odd.append(line)
    rules.reverse()
    return rules, odd


def verdict(rules: list[Rule], name: str, path: str, *, folder: bool) -> bool | None:
    """Whether an item is excluded, by the last rule that matches; None if none does."""
    for rule in rules:
        if (folder or not rule.only_folders) and rule.matches(name if rule.by_name else path):
            return rule.excludes
    return None
