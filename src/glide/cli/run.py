"""Where verbs that talk to a relay start trio, and where whatever happens becomes an exit code and a last line."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from glide.cli import tty
from glide.cli.render import Renderer
from glide.errors import Exit, GlideError, one_error

# Ctrl-C, kill, and the terminal being closed.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_STATUS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class _Signalled(Exception):  # it is no error
    """A signal ended the verb."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def run(verb: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous verb to its end, or until a signal; to be called within :func:`ending`.

    The first signal cancels the verb, which tells its peers; a second one ends the process at once.
    """
    import trio

    caught: list[int] = []
    restore = tty.restorer()

    async def watch(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            if caught:
                restore()
                os._exit(128 + number)
            caught.append(number)
            scope.cancel()

    async def supervised() -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals, one_error():
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(watch, signals, scope)
                    await verb()
                nursery.cancel_scope.cancel()

    # What was loaded stays until the end: it need not be looked at again and again.
    gc.freeze()
    gc.enable()
    try:
        trio.run(supervised)
    except Exception:
        # Whatever else went wrong while the verb was being stopped, it was stopped.
        if not caught:
            raise
    if caught:
        raise _Signalled(caught[0])


@contextmanager
def ending(renderer: Renderer) -> Iterator[None]:
    """Whatever the block does, exit with its code after the last line."""
    try:
        yield
    except GlideError as error:
        renderer.result(error.code, error.exit, str(error))
        _exit(error.exit)
    except (_Signalled, KeyboardInterrupt) as error:
        number = error.number if isinstance(error, _Signalled) else signal.SIGINT
        renderer.result(_STATUS.get(number, "hangup"), 128 + number, f"Stopped. {_means(renderer)}")
        _exit(128 + number)
    except Exception as error:  # noqa: BLE001  # whatever it is, no traceback reaches a user
        renderer.fault(error)
        _exit(Exit.OTHER)
    renderer.result("ok", Exit.OK, "")
    _exit(Exit.OK)


def _means(renderer: Renderer) -> str:
    """What it means for the files that the verb was stopped."""
    if not renderer.under_way:
        return "Nothing was being transferred."
    if all(renderer.under_way.values()):
        return "What has arrived is kept, under no final name; pushed again, it goes on there."
    return "What comes from a pipe cannot go on: it has to be sent from the beginning."


def _exit(code: int) -> NoReturn:
    sys.exit(int(code))
