"""The modes of the terminal that a person sits at. Where there are none to keep (a pipe, Windows) nothing happens."""

from __future__ import annotations

import sys
from collections.abc import Callable

try:
    import termios
except ImportError:  # pragma: no cover - only Windows comes here
    termios = None  # type: ignore[assignment]  # a console has no modes that outlive a program


def restorer() -> Callable[[], None]:
    """What makes stdin's terminal again what it is now. Harmless if it is gone by then."""
    if termios is None:
        return lambda: None
    try:
        descriptor = sys.stdin.fileno() if sys.stdin is not None else -1
        before = termios.tcgetattr(descriptor)
    except (termios.error, OSError, ValueError):
        return lambda: None

    def restore() -> None:
        try:
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
        except termios.error:
            pass  # it is gone

    return restore


def forget_typed_ahead() -> None:
    """What was typed before a question was seen is no answer to it."""
    if termios is not None:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
