"""The verbs, by name: each is loaded, and its flags are looked at, when somebody asks for it.

So starting costs what the verb needs that was typed, and not what all of them need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

import typer
import typer.main

# Each with its module here, which has a function of its name or, with verbs of its own, an `app`; in the order of the
# list that `glide --help` shows.
_MODULES: Final = {
    "serve": "serve",
    "use": "use",
    "receive": "receive",
    "push": "push",
    "who": "who",
    "list": "who",
    "shell": "shell",
    "id": "id",
    "verify": "verify",
    "pair": "pair",
    "doctor": "doctor",
    "known": "known",
    "partials": "partials",
}


class Verbs(Mapping[str, Any]):
    """Name to command, as the parser wants it."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)

    def __contains__(self, name: object) -> bool:
        return name in _MODULES

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(name, _MODULES[name])
        return self._made[name]


def _made(name: str, where: str) -> Any:
    module = import_module(f"glide.cli.{where}")
    alone = typer.Typer(add_completion=False)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name)
    else:
        alone.command(name, help=None if name == where else f"The same as {where}.")(getattr(module, where))
    command = unchecked(typer.main.get_group(alone).commands[name])
    for inner in getattr(command, "commands", {}).values():
        unchecked(inner)
    return command


def unchecked(command: Any) -> Any:
    """The same command, whose parameters take text as it comes: what it means is for the settings to say.

    Typer has pydantic check that text is text, and that nothing is nothing; loading that takes as long as sending a
    small file. What is missing, or has a meaning for the parser itself, is still left to typer.
    """
    command.get_params = partial(_plain, command.get_params)
    return command


def _plain(parameters: Callable[[Any], list[Any]], context: Any) -> list[Any]:
    found = parameters(context)
    for each in found:
        if not isinstance(each.process_value, partial):
            each.process_value = partial(_taken, each, each.process_value)
    return found


def _taken(parameter: Any, checked: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    if value:
        return value if parameter.callback is None else checked(context, value)
    return checked(context, value) if parameter.required else value
