"""Events as they are told to scripts: names and fields are a contract, see docs/cli.md."""

from __future__ import annotations

import time
from typing import Any

from glide import events
from glide.crypto.identity import key_text
from glide.text import printable

_JSON_NAMES = {"sender": "from"}
_HUMAN_ONLY = {"trust", "paths", "aliases", "asked", "greeting", "inside"}


def record(event: events.Event) -> dict[str, Any]:
    """What is told of an event in JSON."""
    told = {
        _JSON_NAMES.get(name, name): _plain(name, getattr(event, name))
        for name in event.__struct_fields__
        if name not in _HUMAN_ONLY
    }
    return dated(event.event, told)


def dated(event: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The name of an event and its fields, as they are told now."""
    return {"event": event, "time": time.time(), **fields}


def _plain(name: str, value: Any) -> Any:
    match name, value:
        case "key", bytes():
            return key_text(value)
        case "digest", bytes():
            return f"blake3:{value.hex()}"
        case _, bytes():
            return value.hex()
        case "path", str():
            return value  # exactly, for scripts; written in ASCII
        case _, tuple():
            return [_plain(name, each) for each in value]
        case _, str():
            return printable(value, 2000)
    return value
