"""Commands of the user's that ``receive`` starts: at an offer, at a transfer that is here, at one that failed.

A command is an argument vector, never a line for a shell: what it is told stands in its environment, where nothing of
a peer's can become part of a command. The names begin with ``GLIDE_HOOK_``, since ``GLIDE_FROM`` and the like
would be settings of a glide that the hook starts.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import trio

from glide import events
from glide.cli.records import record
from glide.crypto.identity import fingerprint, key_text
from glide.errors import UsageError, one_error
from glide.settings import Settings
from glide.text import printable

# Hooks that run at once, and those that wait for their turn; of what has arrived, and of the others, which strangers
# cause, one for each offer.
MOST_AT_ONCE = 4
MOST_WAITING = 32

# Seconds. A hook that takes longer is ended; when glide itself ends, those that run have this long; one that is asked
# to end has a moment before it is killed.
LONGEST = 60.0
AT_THE_END = 5.0
TO_OBEY = 2.0

# Transfers whose facts are remembered for their later events; a receiver looks at 32 offers at once.
_MOST_REMEMBERED = 128

# Bytes of paths that one hook is told: Linux takes 128 KiB for one variable, and JSON writes a byte as up to six.
_MOST_OF_PATHS = 16 * 1024

# Which events start a hook, and the word of the flag that names its command.
_KINDS: dict[type[events.Event], str] = {
    events.OfferArrived: "offer",
    events.Received: "received",
    events.Failed: "failed",
    events.OfferDeclined: "failed",
}

PREFIX = "GLIDE_HOOK_"
# All of them are always set, empty where there is nothing to tell: a script under `set -u` finds every one.
FACTS = (
    *("EVENT", "FROM", "KEY", "FINGERPRINT", "TRUST", "ITEMS", "BYTES", "NAMES", "MESSAGE", "TRANSFER"),
    *("PATH", "PATHS", "REASON", "STATUS", "JSON"),
)


@dataclass(frozen=True)
class Hook:
    """A command for one kind of event: ``flag`` names it for people, ``argv`` begins with a program that was there."""

    flag: str
    argv: tuple[str, ...]


# A hook, and what its environment says.
_Start: TypeAlias = tuple[Hook, dict[str, str]]


@dataclass
class _Transfer:
    """What is known of one transfer until its last event: not the offer itself, which holds on to all its paths."""

    about: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    bytes_of_paths: int = 0


def parse(kind: str, command: str | None) -> Hook | None:
    """The hook that ``--on-KIND COMMAND`` asks for; None without one, and for an empty one, which switches it off.

    Raises :class:`UsageError` for what cannot be split into words, and for a program that is not there.
    """
    flag = f"--on-{kind}"
    try:
        words = shlex.split(command or "")
    except ValueError as error:
        raise UsageError(f"{flag}: {printable(command or '')!r} cannot be split into words: {error}.") from None
    if not words:
        return None
    program = None if "\0" in "".join(words) else shutil.which(os.path.expanduser(words[0]))
    if program is None:
        raise UsageError(
            f"{flag}: there is no program {printable(words[0])!r} that can be run.",
            next="A command is a program and its arguments; for what a shell understands write: sh -c '...'",
        )
    return Hook(flag, (program, *words[1:]))


def commands(chosen: Settings) -> dict[str, str | None]:
    """What the settings say, by kind, and all of it can be run. Raises :class:`UsageError`."""
    found = {kind: chosen[f"on-{kind}"] for kind in ("offer", "received", "failed")}
    for kind, command in found.items():
        parse(kind, command)
    return found


@asynccontextmanager
async def running(
    commands: Mapping[str, str | None], report: events.Report, *, heard: bool = True
) -> AsyncIterator[events.Report]:
    """A report function that passes every event on to ``report``, and starts the hooks for those that have one.

    ``commands`` are by kind: ``offer``, ``received``, ``failed``; what they write goes to our standard error, unless
    they are not to be ``heard``. Raises :class:`UsageError` before anything starts.
    The function never waits, and no hook delays or fails a transfer: what goes wrong is a notice. When the block ends,
    cancelled or not, hooks that run or wait have five seconds; then they are ended.
    """
    hooks = {kind: hook for kind, command in commands.items() if (hook := parse(kind, command)) is not None}
    if not hooks:
        yield report
        return
    runner = _Runner(hooks, report, heard=heard)
    with one_error():
        async with trio.open_nursery() as nursery:
            runner.start(nursery)
            try:
                yield runner.report
            finally:
                runner.close()


class _Runner:
    """Takes events, and has a few tasks that start one hook after the other."""

    def __init__(self, hooks: Mapping[str, Hook], report: events.Report, *, heard: bool = True) -> None:
        self._hooks = hooks
        self._heard = heard
        self._report = report
        self._transfers: dict[bytes, _Transfer] = {}
        self._full = False
        # What has arrived was accepted; the rest can be caused by any stranger, and must not stand in its way.
        self._queues = {kind: trio.open_memory_channel[_Start](MOST_WAITING) for kind in ("received", "other")}
        # Shielded: the end of the verb is not the end of a hook, at least not at once.
        self._scopes: list[trio.CancelScope] = []

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to work."""
        for _, queued in self._queues.values():
            for _ in range(MOST_AT_ONCE):
                self._scopes.append(trio.CancelScope(shield=True))
                nursery.start_soon(self._work, queued, self._scopes[-1])

    def close(self) -> None:
        """No more events; what runs and waits has a short time left."""
        for queue, _ in self._queues.values():
            queue.close()
        for scope in self._scopes:
            scope.deadline = trio.current_time() + AT_THE_END

    def report(self, event: events.Event) -> None:
        """Pass the event on, and start its hook as soon as there is room."""
        self._report(event)
        match event:
            case events.OfferArrived():
                self._transfers.pop(event.transfer, None)  # whatever it was before, it begins anew
                self._of(event.transfer).about = _about(event)
            case events.Saved(inside=False) | events.SavedFolder():
                _add(self._of(event.transfer), event.path)
        kind = _KINDS.get(type(event), "")
        hook = self._hooks.get(kind)
        if hook is not None:
            queue, _ = self._queues.get(kind, self._queues["other"])
            try:
                queue.send_nowait((hook, self._facts(event)))
                self._full = False
            except trio.WouldBlock:
                if not self._full:  # said once: whoever fills the queue is not to fill the terminal too
                    said = f"{hook.flag}: {MOST_WAITING} of them wait already; some are not started."
                    self._report(events.Notice(said))
                self._full = True
        if isinstance(event, events.Failed):
            self._transfers.pop(event.transfer, None)

    def _of(self, transfer: bytes) -> _Transfer:
        if transfer not in self._transfers and len(self._transfers) >= _MOST_REMEMBERED:
            del self._transfers[next(iter(self._transfers))]
        return self._transfers.setdefault(transfer, _Transfer())

    def _facts(self, event: events.Event) -> dict[str, str]:
        """What the hook's environment says. What a peer wrote is fit to be shown; only the JSON has exact paths."""
        transfer = getattr(event, "transfer", b"")
        known = self._transfers.get(transfer, _Transfer())
        facts = dict.fromkeys(FACTS, "")
        facts |= known.about
        facts |= {"EVENT": event.event, "TRANSFER": transfer.hex(), "FROM": printable(getattr(event, "sender", ""))}
        more: dict[str, Any] = {}
        match event:
            case events.Received():
                shown = [printable(path, 4096) for path in known.paths]
                facts |= {"ITEMS": str(event.items), "BYTES": str(event.bytes)}
                facts |= {"PATH": shown[0] if shown else "", "PATHS": "\n".join(shown)}
                more = {"paths": known.paths}
            case events.Failed():
                facts |= {"REASON": printable(event.message, 1000), "STATUS": event.status}
            case events.OfferDeclined():
                facts |= {"REASON": printable(event.reason, 1000), "STATUS": "refused"}
        facts["JSON"] = json.dumps({**record(event), **more}, ensure_ascii=True)
        return facts

    async def _work(self, queued: trio.MemoryReceiveChannel[_Start], scope: trio.CancelScope) -> None:
        """Run one hook after the other, until there are no more or ``scope`` ends."""
        hook = None
        with scope:
            async for hook, facts in queued:
                await self._run(hook, facts)
        if scope.cancelled_caught and hook is not None:
            self._notice(hook, "it was ended, because glide ends")

    async def _run(self, hook: Hook, facts: dict[str, str]) -> None:
        """One hook, from its start to its end. Cancelled, it is told to end, and killed if it does not."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        # Always UTF-8, in whatever encoding this machine writes its environment.
        told = {PREFIX + name: os.fsdecode(value.encode("utf-8", "backslashreplace")) for name, value in facts.items()}
        to_us = 2 if self._heard and sys.stderr is not None else subprocess.DEVNULL  # never where results go
        patience = trio.move_on_after(LONGEST)
        try:
            with patience:
                # A session of its own: Ctrl-C is for glide, and the hook may finish; and it cannot ask at our terminal.
                done = await trio.run_process(
                    hook.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=to_us,
                    stderr=to_us,
                    check=False,
                    env=outside | told,
                    start_new_session=True,
                    deliver_cancel=_stop,
                )
                if done.returncode:
                    self._notice(hook, f"it failed with {_code(done.returncode)}")
        except OSError as error:
            self._notice(hook, f"it cannot be started: {error.strerror or error}")
        if patience.cancelled_caught:
            self._notice(hook, f"it took more than {LONGEST:.0f} s, and was ended")

    def _notice(self, hook: Hook, what: str) -> None:
        self._report(events.Notice(f"{hook.flag} ({printable(hook.argv[0], 400)}): {what}."))


def _about(offer: events.OfferArrived) -> dict[str, str]:
    return {
        "FROM": printable(offer.sender),
        "KEY": key_text(offer.key),
        "FINGERPRINT": fingerprint(offer.key),
        "TRUST": str(offer.trust),
        "ITEMS": str(offer.items),
        "BYTES": "" if offer.bytes is None else str(offer.bytes),
        "NAMES": "\n".join(printable(name) for name in offer.names),
        "MESSAGE": printable(offer.message, 1000),
    }


def _add(transfer: _Transfer, path: str) -> None:
    """Note where something was saved, as long as there is room for it in an environment."""
    transfer.bytes_of_paths += len(path.encode("utf-8", "surrogatepass"))
    if transfer.bytes_of_paths <= _MOST_OF_PATHS:
        transfer.paths = (*transfer.paths, path)


async def _stop(process: trio.Process) -> None:
    """Ask a hook and whatever it started to end, and kill what does not obey; cancelled once the hook has ended."""
    _signal(process, "SIGTERM")
    await trio.sleep(TO_OBEY)
    _signal(process, "SIGKILL")


def _signal(process: trio.Process, name: str) -> None:
    """To the whole session of the hook, where there are such; elsewhere any signal ends the process alone."""
    kill = getattr(os, "killpg", os.kill)
    try:
        kill(process.pid, getattr(signal, name, signal.SIGTERM))
    except (ProcessLookupError, PermissionError):
        pass  # it has ended just now; the second is what macOS says of it


def _code(returned: int) -> str:
    if returned > 0:
        return f"exit code {returned}"
    try:
        return signal.Signals(-returned).name
    except ValueError:
        return f"signal {-returned}"
