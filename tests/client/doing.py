"""Something that goes on beside a test, and what becomes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from glide.errors import GlideError

T = TypeVar("T")

# Seconds. Nothing that a test waits for takes so long, however busy the machine is.
SOON = 20.0


class Doing(Generic[T]):
    """A call in a task of its own, which can be cancelled; made by :func:`begin`."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._over = trio.Event()
        self._value: list[T] = []
        self._error: GlideError | None = None

    async def run(self, call: Callable[[], Awaitable[T]]) -> None:
        try:
            with self.scope:
                self._value.append(await call())
        except GlideError as error:
            self._error = error
        finally:
            self._over.set()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    async def cancel(self) -> None:
        """Cancel it, and wait until it has ended by that."""
        self.scope.cancel()
        with trio.fail_after(SOON):
            await self._over.wait()
        assert self.scope.cancelled_caught, "it had ended before"

    async def result(self) -> T:
        """What it returned."""
        with trio.fail_after(SOON):
            await self._over.wait()
        assert self._error is None, repr(self._error)
        (value,) = self._value
        return value

    async def error(self) -> GlideError:
        """Why it failed, which it must have."""
        with trio.fail_after(SOON):
            await self._over.wait()
        assert self._error is not None, f"it did not fail: {self._value}"
        return self._error


def begin(nursery: trio.Nursery, call: Callable[[], Awaitable[T]]) -> Doing[T]:
    """Start ``call`` in the background."""
    doing: Doing[T] = Doing()
    nursery.start_soon(doing.run, call)
    return doing
