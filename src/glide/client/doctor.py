"""What may be wrong here, looked at one thing after the other. Nothing is changed by looking: no key is made or pinned.

A check returns a sentence if all is well, and raises the :class:`GlideError` that a verb would end with otherwise.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import trio

from glide import events
from glide.client import looking, profile
from glide.client import who as asking
from glide.client.address import Address
from glide.client.link import EVERYBODY, Link
from glide.crypto.identity import Identity, fingerprint
from glide.errors import FileError, GlideError, NameTaken, Stalled, UsageError
from glide.people.known import Known
from glide.protocol.messages import Person, Who
from glide.protocol.names import LONGEST
from glide.settings import SETTINGS, Home, Settings, variable
from glide.text import duration, printable, size
from glide.transfer.destination import Destination

# Bytes: with less than this free, most of what people send does not fit.
LITTLE_ROOM = 100 * 1024 * 1024

# Seconds that two clocks may differ: more than a slow connection explains, less than anybody would notice.
CLOCKS_APART = 60.0

# After every name that there can be: the answer is one empty page, whose round trip is measured.
_AFTER_ALL = "z" * LONGEST

# Beginning like settings, but none: where everything is, and what a hook is told.
_NO_SETTINGS = "GLIDE_HOME", "GLIDE_HOOK_"


@dataclass(frozen=True)
class Check:
    """What came of one: ``error`` is None if all is well."""

    name: str
    message: str
    error: GlideError | None = None

    @classmethod
    def of(cls, name: str, look: Callable[[], str]) -> Check:
        """Look, and take what is wrong for an answer."""
        try:
            return cls(name, look())
        except GlideError as error:
            return cls.failed(name, error)
        except OSError as error:
            return cls.failed(name, FileError(f"It cannot be looked at: {error.strerror or error}."))

    @classmethod
    def failed(cls, name: str, error: GlideError) -> Check:
        """What happened, and what to do; that nothing was transferred goes without saying here."""
        return cls(name, " ".join(part for part in (error.what, error.next) if part), error)


class _Unset(Home, frozen=True):
    """The same places, with nothing set in a file."""

    @property
    def config_file(self) -> Path:
        return Path(os.devnull)


def settings(flags: Mapping[str, object], home: Home) -> tuple[Settings, Check]:
    """The settings, those of the file left out if it cannot be read; and whether all of them can be."""
    try:
        chosen = Settings(flags, home)
    except GlideError as error:
        return Settings(flags, _Unset(home.config, home.state)), Check.failed("settings", error)
    return chosen, Check.of("settings", lambda: _settings(chosen))


def local(chosen: Settings) -> Iterator[Check]:
    """The checks that need no network. They block, though not for long."""
    yield Check.of("identity", lambda: _identity(chosen.home.identity))
    yield Check.of("pins", lambda: _pins(chosen.home.known))
    yield Check.of("disk", lambda: _disk(chosen))
    yield Check.of("state", lambda: _state(chosen.home.state))


async def relay(chosen: Settings, report: events.Report) -> list[Check]:
    """The checks that ask the relay: whether it answers and is the one it was, whether my name is free, the clocks."""
    try:
        address = profile.address(chosen)
        identity, known = _own_or_any(chosen.home.identity), Known(chosen.home.known)
        async with looking.connect(chosen, identity, report) as link:
            now = time.time()
            seconds = await _round_trip(link)
            people = await asking.everybody(link)
    except GlideError as error:
        return [Check.failed("relay", error)]
    there = Check("relay", f"{address} answers in {_milliseconds(seconds)}; {_whose_key(known, address, link)}")
    named = Check.of("name", lambda: _name(chosen, identity.public, people))
    return [there, named, Check.of("clock", lambda: _clock(now, link.clock))]


# --- each of them ---


def _settings(chosen: Settings) -> str:
    for name in SETTINGS:
        chosen[name]
    chosen.policy()
    chosen.groups()
    names = {variable(name): name for name in SETTINGS}
    for found in sorted(os.environ):
        if found.startswith("GLIDE_") and found not in names and not found.startswith(_NO_SETTINGS):
            close = get_close_matches(found, names, n=1)
            hint = f"Did you mean {close[0]}?" if close else "Remove it, if it was meant for this program."
            raise UsageError(f"{printable(found, 60)} in the environment is no setting.", next=hint)
    path = chosen.home.config_file
    shown = printable(str(path), 400)
    return f"{shown} can be read" if path.exists() else f"there is no {shown}, and need not be one"


def _identity(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "there is none yet; it is made when it is first needed"
    shown = printable(str(path), 400)
    key = looking.identity(path).public
    _check_private(path, mode, f"{shown} can be read by others: it is your secret key.", "`glide id` makes it yours.")
    return f"your key is {fingerprint(key)}"


def _pins(path: Path) -> str:
    known = Known(path)
    people, relays = known.people(), known.relays()
    if not people and not relays:
        return "nobody is known yet"
    shown = printable(str(path), 400)
    _check_private(path, path.stat().st_mode, f"{shown} can be seen by others.", "`chmod 600` makes it yours.")
    return f"{_count(len(people), 'person', 'people')} and {_count(len(relays), 'relay', 'relays')} are known"


def _disk(chosen: Settings) -> str:
    folders = {Path(chosen["into"]).expanduser(), *(folder.expanduser() for folder in chosen.policy().folders)}
    rooms = []
    for folder in sorted(folders):
        with Destination.open(folder) as destination:
            free = shutil.disk_usage(destination.path).free
            shown = printable(str(destination.path), 400)
        if free < LITTLE_ROOM:
            raise FileError(
                f"Only {size(free)} are free in {shown}, where files are received into.",
                next="Make room, or choose another folder with --into.",
            )
        rooms.append(f"{size(free)} are free in {shown}")
    return "; ".join(rooms)


def _state(folder: Path) -> str:
    """What is not there yet is made when it is needed, in the nearest folder that is."""
    nearest = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    shown = printable(str(folder), 400)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise FileError(
            f"The folder {shown}, for pins and for what is kept of transfers, cannot be written to.",
            next="Check its permissions, or set GLIDE_HOME to a folder of your own.",
        )
    return f"{shown} can be written to" if nearest == folder else f"{shown} can be made"


def _name(chosen: Settings, key: bytes, people: list[Person]) -> str:
    mine = profile.name(chosen, key)
    holder = next((person for person in people if person.name == mine.text), None)
    if holder is None:
        default = "" if not mine.by_default else ", which you would be called because you chose none"
        return f"nobody is seen there as {mine.text}{default}"
    if holder.key == key:
        return f"you are there as {mine.text}, {'and take files' if holder.receiving else 'to send'}"
    raise NameTaken(
        f"Somebody else is {mine.text} there, with the key {fingerprint(holder.key)}.",
        next=f"Choose another name with --as, {mine.text[:25]}-laptop for instance: each machine has its own key.",
    )


def _clock(here: float, there: int) -> str:
    if there == 0:
        return "the relay does not tell the time"
    apart = here - there
    if abs(apart) <= CLOCKS_APART:
        return f"{duration(round(abs(apart)))} from the relay's"
    raise GlideError(
        f"This machine's clock is {duration(round(abs(apart)))} {'ahead of' if apart > 0 else 'behind'} the relay's.",
        next="Transfers work all the same, but dates are wrong at one of them: set that clock.",
    )


# --- what they need ---


def _check_private(path: Path, mode: int, what: str, next: str) -> None:
    """Raise if anybody else may read or write the file, where there are such permissions."""
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise FileError(f"{what} Its mode is {stat.S_IMODE(mode):04o}.", next=next)


def _own_or_any(path: Path) -> Identity:
    """My identity; where there is none to be had one for this once, since the relay wants to see some key."""
    try:
        return looking.identity(path)
    except (OSError, FileError):
        return Identity.generate()


async def _round_trip(link: Link) -> float:
    """Seconds until the relay has answered. Raises a :class:`GlideError`."""
    begun = trio.current_time()
    with link.answers(EVERYBODY) as answers:
        await link.ask(Who(after=_AFTER_ALL))
        with trio.move_on_after(seconds := link.connection.deadlines.handshake):
            await link.answer(answers)
            return trio.current_time() - begun
    raise Stalled(f"The relay {link.address} did not answer within {seconds:.0f} s.")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "less than 1 ms"


def _whose_key(known: Known, address: Address, link: Link) -> str:
    key = fingerprint(link.relay_key)
    if known.relay(str(address)) is not None:
        return f"its key {key} is pinned"
    return f"its key {key} is the one given" if address.key else f"its key {key} is not pinned yet"


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
