"""A person's terminal for the shell: a line to edit, what goes on above it, and above that what was said.

prompt_toolkit runs on asyncio, in a thread of its own; lines go to trio through a channel, and what is said comes back
through the other loop's queue, so that only that thread ever writes to the terminal while a line is edited. The
terminal is given back as it was found, however the block ends.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output

from glide.cli import tty
from glide.cli.console import Said
from glide.cli.editing import Completer, Completions, History, complete_word

# Seconds that the thread has to leave the terminal by itself.
_TO_LEAVE = 2.0

# Bracketed paste off, cursor shown, plain letters: for a terminal that its thread did not leave.
_PLAIN = b"\x1b[?2004l\x1b[?25h\x1b[0m\r\n"

_PROMPT = "glide> "


@asynccontextmanager
async def opened(history: Path, completions: Completions) -> AsyncIterator[Terminal]:
    """The terminal that stdin and stdout are, while the block runs. ``completions`` is called in another thread.

    ``history`` is the file of what was typed before. Cancelled, or when the block ends, the terminal is as it was.
    """
    terminal = Terminal(history, completions)
    restore = tty.restorer()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.run)
            try:
                yield terminal
            finally:
                await terminal.leave()
                nursery.cancel_scope.cancel()
    finally:
        restore()


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        pass  # the terminal is gone


def _abandon() -> None:
    """The thread hangs. If that is because nobody reads what it writes, nothing else is to wait for the same."""
    descriptor = sys.stdout.fileno()
    if sys.platform != "win32" and select.select([], [descriptor], [], 0)[1]:
        os.write(descriptor, _PLAIN)


class Terminal:
    """See :class:`glide.cli.console.Console`."""

    interactive = True

    def __init__(self, history: Path, completions: Completions) -> None:
        self._history = history
        self._completions = completions
        self._trio = trio.lowlevel.current_trio_token()
        # Without bound: it takes what one person types.
        self._typed, self._lines = trio.open_memory_channel[tuple[str | Said, float]](float("inf"))
        self.begun = 0.0
        self._over = trio.Event()
        # Shared with the thread; each is only ever replaced, or appended to.
        self._said: deque[str] = deque()
        self._shown: list[str] = []
        self._question = ""
        self._leaving = False
        self._first_key: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: PromptSession[str] | None = None

    # --- in trio ---

    async def run(self) -> None:
        """Let the person type. Cancelled, the thread goes on until :meth:`leave`."""
        await trio.to_thread.run_sync(self._thread, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))

    async def leave(self) -> None:
        """Have the thread give the terminal back; takes at most two seconds, cancelled or not."""
        self._leaving = True
        self._in_thread(self._exit)
        with trio.move_on_after(_TO_LEAVE, shield=True):
            await self._over.wait()
        if self._over.is_set():
            while self._said:
                _write(self._said.popleft() + "\n")
        else:
            _abandon()

    async def line(self) -> str | Said:
        try:
            said, self.begun = await self._lines.receive()
        except trio.EndOfChannel:
            return Said.GONE
        return said

    async def ask(self, question: str) -> bool:
        # What was typed before the question was seen is no answer to it.
        while True:
            try:
                self._lines.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        self._question = question
        self._in_thread(self._redraw, True)
        try:
            answer = await self.line()
        finally:
            self._question = ""
            self._in_thread(self._redraw)
        return isinstance(answer, str) and answer.strip().lower() in ("y", "yes")

    def say(self, text: str) -> None:
        self._said.append(text)
        self._in_thread(self._flush)

    def show(self, lines: list[str]) -> None:
        self._shown = lines
        self._in_thread(self._redraw)

    def _in_thread(self, what: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(what, *arguments)
            except RuntimeError:
                pass  # it has ended

    # --- in the thread ---

    def _thread(self) -> None:
        try:
            asyncio.run(self._prompts())
        except OSError:
            pass  # the terminal is gone
        finally:
            try:
                self._trio.run_sync_soon(self._typed.close)
                self._trio.run_sync_soon(self._over.set)
            except trio.RunFinishedError:
                pass  # nobody waits any more

    async def _prompts(self) -> None:
        session = self._session = self._new_session()
        session.default_buffer.on_text_changed += self._note_typing
        self._loop = asyncio.get_running_loop()
        self._flush()
        while not self._leaving:
            try:
                text = await session.prompt_async(self._message, set_exception_handler=False, handle_sigint=False)
            except EOFError:
                return  # the terminal is gone
            begun, self._first_key = self._first_key, None
            if not self._leaving:
                for line in text.splitlines() or [""]:
                    self._tell(line, begun)

    def _new_session(self) -> PromptSession[str]:
        output = create_output(sys.stdout)
        if hasattr(output, "enable_cpr"):
            # Asking a terminal where its cursor is leaves an answer behind if it comes too late.
            output.enable_cpr = False
        return PromptSession(
            history=History(self._history, lambda: not self._question),
            completer=Completer(self._completions),
            complete_while_typing=False,
            key_bindings=self._keys(),
            color_depth=ColorDepth.DEPTH_1_BIT if "NO_COLOR" in os.environ else None,
            input=create_input(sys.stdin),
            output=output,
        )

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        typing = has_focus(DEFAULT_BUFFER)

        @keys.add("c-c", filter=typing)
        def interrupt(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                self._tell(Said.INTERRUPT)

        @keys.add("c-d", filter=typing & Condition(lambda: not self._text))
        def end(event: KeyPressEvent) -> None:
            self._tell(Said.END)

        @keys.add("tab", filter=typing)
        def complete(event: KeyPressEvent) -> None:
            complete_word(event.current_buffer, self._completions)

        return keys

    @property
    def _text(self) -> str:
        return self._session.default_buffer.text if self._session is not None else ""

    def _note_typing(self, buffer: Buffer) -> None:
        if not buffer.text:
            self._first_key = None
        elif self._first_key is None:
            self._first_key = time.monotonic()

    def _tell(self, said: str | Said, begun: float | None = None) -> None:
        try:
            self._trio.run_sync_soon(self._typed.send_nowait, (said, begun or time.monotonic()))
        except trio.RunFinishedError:
            pass  # nobody waits any more

    def _message(self) -> StyleAndTextTuples:
        """What stands before the line: what goes on, unless the line is done and stays as it is."""
        session = self._session
        lines = [] if session is None or session.app.is_done else self._shown
        return [("", "\n".join([*lines, self._question or _PROMPT]))]

    def _flush(self) -> None:
        """Write what was said above the line that is being edited."""
        if self._session is None or not self._said:
            return
        app = self._session.app
        if app.is_running:
            app.renderer.erase()
        while self._said:
            app.output.write(self._said.popleft() + "\n")
        app.output.flush()
        if app.is_running:
            app.renderer.reset()
            app.invalidate()

    def _redraw(self, afresh: bool = False) -> None:
        if self._session is None:
            return
        if afresh:
            self._session.default_buffer.reset()
        if self._session.app.is_running:
            self._session.app.invalidate()

    def _exit(self) -> None:
        if self._session is not None and self._session.app.is_running and not self._session.app.is_done:
            self._session.app.erase_when_done = not self._text
            self._session.app.exit(result="")
