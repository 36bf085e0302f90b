"""What helps a person to type a line: what they typed before, and what a word may become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import completion
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory

from glide.cli.commands import Completion

# What the last word of a line may become.
Completions = Callable[[str], Iterable[Completion]]


def complete_word(buffer: Buffer, completions: Completions) -> None:
    """Write what is certain of the word; where there is a choice, show it, and then go through it.

    At once, and not in a task of prompt_toolkit's, which the next key would cancel.
    """
    if buffer.complete_state:
        buffer.complete_next()
        return
    before = buffer.document.text_before_cursor
    found = list(completions(before))
    common = _beginning([each.text for each in found])
    if found and (len(found) == 1 or len(common) > len(before) - found[0].start):
        buffer.delete_before_cursor(len(before) - found[0].start)
        buffer.insert_text(common)
    else:
        buffer.start_completion()


def _beginning(texts: list[str]) -> str:
    """What all of them begin with."""
    first, last = min(texts, default=""), max(texts, default="")
    differ = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differ, len(first))]


class Completer(completion.Completer):
    """The choice, as prompt_toolkit shows it."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    def get_completions(
        self, document: Document, complete_event: completion.CompleteEvent
    ) -> Iterable[completion.Completion]:
        before = document.text_before_cursor
        for each in self._completions(before):
            yield completion.Completion(each.text, start_position=each.start - len(before), display=each.shown)


class History(FileHistory):
    """What was typed, in a file of one's own; without one that can be written, for as long as the shell runs.

    ``wanted`` says whether what is typed now is to be kept.
    """

    def __init__(self, path: Path, wanted: Callable[[], bool]) -> None:
        super().__init__(path)
        self._wanted = wanted
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        except OSError:
            pass

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def append_string(self, string: str) -> None:
        if self._wanted():
            super().append_string(string)

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError:
            pass
