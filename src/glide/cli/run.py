"""The only place that starts trio; it turns whatever happens into an exit code and a last line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from glide.cli.render import Renderer
from glide.errors import Exit, GlideError, one_error

# Ctrl-C, kill, and the terminal being closed.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_STATUS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def run(verb: Callable[[], Awaitable[None]], renderer: Renderer) -> NoReturn:
    """Run an asynchronous verb to its end, or until a signal; exit as the contract says.

    The first signal cancels the verb, which tells its peers; a second one ends the process at once.
    """
    import trio

    caught: list[int] = []

    async def watch(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                if caught:
                    os._exit(128 + number)
                caught.append(number)
                scope.cancel()

    async def supervised() -> None:
        with one_error():
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(watch, scope)
                    await verb()
                nursery.cancel_scope.cancel()

    with ending(renderer):
        trio.run(supervised)
        if caught:
            renderer.result(_STATUS.get(caught[0], "terminated"), 128 + caught[0], "Stopped.")
            _exit(128 + caught[0])
    raise AssertionError("ending always exits")  # pragma: no cover - every way through it exits


@contextmanager
def ending(renderer: Renderer) -> Iterator[None]:
    """Whatever the block does, exit with its code after the last line; verbs that need no trio use it alone."""
    try:
        yield
    except GlideError as error:
        renderer.result(error.code, error.exit, str(error))
        _exit(error.exit)
    except KeyboardInterrupt:
        renderer.result("interrupted", Exit.INTERRUPTED, "Stopped.")
        _exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _exit(Exit.OTHER)
    except Exception as error:  # noqa: BLE001  # whatever it is, no traceback reaches a user
        renderer.fault(error)
        _exit(Exit.OTHER)
    renderer.result("ok", Exit.OK, "")
    _exit(Exit.OK)


def _exit(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(int(code))
