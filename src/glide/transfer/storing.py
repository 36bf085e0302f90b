"""Where an accepted offer goes, from opening it to the last name: a folder, with a stage and a journal.

Everything here blocks, and is called in a thread. Raises a :class:`GlideError`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from glide.errors import Declined, FileError, NameUnusable
from glide.events import Saved, SavedFolder
from glide.protocol.endtoend import Item, ItemKind
from glide.text import printable
from glide.transfer.assembling import Assembly, StagedAssembly
from glide.transfer.destination import KEPT, Destination, disk_error, new_stage
from glide.transfer.journal import About, Confirmed, Journal, Phase
from glide.transfer.landing import Conflict, Landed, Landing
from glide.transfer.manifest import Manifest
from glide.transfer.staging import Stage
from glide.transfer.stock import State, Stock, boot, covered, take_stock
from glide.transfer.storage import Arrival, StandardOutput, Storage

# How many top-level names a journal holds for people to read.
_NAMES = 3

# What is asked of every item is looked up once (``manifest`` says why).
_FOLDER, _STREAM = ItemKind.FOLDER, ItemKind.STREAM
_FAILED, _ARRIVED = State.FAILED, (State.WHOLE, State.KEPT)


class Folders:
    """Into a folder."""

    def __init__(self, arrival: Arrival, manifest: Manifest, destination: Destination, journal: Journal) -> None:
        self._arrival = arrival
        self._manifest = manifest
        self._destination = destination
        self._journal = journal
        self._landed = Landed()
        self.confirmed: Confirmed | None = None
        # What a program said once it will hardly say again: the beginning of that is no use.
        self.kept = KEPT if not manifest.streams else "Nothing was kept: a stream has no place to go on from."
        self.stock: Stock
        self.assembly: Assembly
        self._stage: Stage | None = None

    @classmethod
    def open(cls, arrival: Arrival, manifest: Manifest, journal: Journal | None) -> Folders:
        """Open the destination, and go on with what ``journal`` has, if any; takes the journal over."""
        assert arrival.into is not None, "a folder"
        with ExitStack() as undo:
            if journal is not None:
                undo.callback(journal.close)
            destination = undo.enter_context(destination_of(arrival))
            new = journal is None
            if journal is None:
                journal = Journal.create(arrival.journals, arrival.key, destination.path, manifest, sync=arrival.sync)
                undo.callback(journal.delete)
            folders = cls(arrival, manifest, destination, journal)
            undo.callback(folders._give_up if new else folders._close_stage)
            try:
                folders._begin()
            except OSError as error:
                raise disk_error(error) from None
            undo.pop_all()
        return folders

    def _begin(self) -> None:
        journal, destination = self._journal, self._destination
        about = journal.about if journal.speaks else None
        if about is not None and journal.phase is Phase.LANDING:
            self._land_the_rest(about)
        if about is not None and journal.phase is Phase.LANDED:
            if stands(journal, self._manifest, destination):
                self.confirmed = journal.confirmed
                self.stock = Stock(self._manifest)
                for number, _, digest in journal.items():
                    self.stock.whole(number, digest, State.KEPT)
                for number in journal.failed():
                    self.stock.fail(number, "it could not land")
                self.assembly = Assembly(self._manifest, self.stock)
                return
            about = None
        again = about is not None and destination.folder.look(about.stage) is not None
        name = about.stage if about is not None and again else new_stage()
        self._stage = destination.stage(name) if again else None
        this_boot = boot()
        same_boot = about is not None and bool(this_boot) and about.boot == this_boot
        old = journal if again else None
        conflict = self._arrival.conflict
        self.stock = take_stock(self._manifest, old, self._stage, destination, conflict, same_boot=same_boot)
        self._check()
        digests = self.stock.digests
        journal.begin(self._about(name, this_boot), self._manifest, digests, self.stock.begun)
        if self._stage is None:
            self._stage = destination.stage(name)
        if self._arrival.sync:
            destination.folder.sync()
        assembly = StagedAssembly(self._manifest, self.stock, self._stage, journal, sync=self._arrival.sync)
        assembly.prepare(again=again)
        self.assembly = assembly

    def _check(self) -> None:
        """Raise if there is no room, if a name that must be free is taken, or if nothing could be kept."""
        manifest = self._manifest
        if self._arrival.conflict is Conflict.REFUSE:
            for _, item in manifest.tops():
                if self._destination.folder.look(item.path) is not None:
                    raise Declined(
                        f"{printable(item.path, 60)!r} exists, and --conflict refuse takes nothing then.",
                        "Nothing was written.",
                        for_peer=f"{printable(item.path, 60)!r} exists there, and they refuse it then.",
                    )
        if manifest.files and len(self.stock.problems) == manifest.items:
            problem = next(iter(self.stock.problems.values()))
            raise NameUnusable("This disk can hold none of those names.", "Nothing was written.", for_peer=problem)
        self._destination.check_room(sum(length for _, length in self.stock.wants()) if not manifest.streams else 0)

    def _about(self, stage: str, this_boot: str) -> About:
        manifest, arrival = self._manifest, self._arrival
        names = tuple(item.path for _, (_, item) in zip(range(_NAMES), manifest.tops(), strict=False))
        into = os.fsencode(self._destination.path)
        return About(
            arrival.relay,
            arrival.sender,
            arrival.key,
            into,
            stage,
            names,
            manifest.files,
            manifest.bytes,
            time.time(),
            this_boot,
            arrival.conflict,
            arrival.sync,
        )

    # --- after a crash ---

    def _land_the_rest(self, about: About) -> None:
        """All was whole and checked, and names were being given: go on with that."""
        manifest = Manifest()
        for _, item, _ in self._journal.items():
            manifest.add(item)
        manifest.close()
        confirmed = self._journal.confirmed
        if self._destination.folder.look(about.stage) is not None:
            with self._destination.stage(about.stage) as stage:
                landed = self._landing(manifest, stage, Conflict(about.conflict)).run()
            before = self._journal.failed()
            numbers = [number for number in landed.with_inside(manifest) if number not in before]
            lost = [item for item in map(manifest.item, numbers) if item.kind is not ItemKind.FOLDER]
            items, size = confirmed.items - len(lost), confirmed.bytes - sum(item.size for item in lost)
            confirmed = Confirmed(items, size, confirmed.digest)
            self._journal.note_whole(confirmed, numbers)
            self._destination.discard(about.stage)
        self._journal.note_landed(confirmed)

    def _landing(
        self, manifest: Manifest, stage: Stage, conflict: Conflict, on_step: Callable[[], None] = lambda: None
    ) -> Landing:
        journal = self._journal
        return Landing(
            self._destination,
            stage,
            manifest,
            conflict,
            journal.note_finals,
            journal.finals(),
            sync=self._arrival.sync,
            on_step=on_step,
        )

    # --- while it arrives ---

    def file(self, number: int, item: Item) -> int:
        if self.stock.states[number] == State.EXISTS:
            *parents, name = item.path.split("/")
            with self._destination.folder.below(parents) as parent:
                return parent.reopen(name, writing=False)
        assert self._stage is not None, "what was confirmed is not read again"
        return self._stage.reopen(self._manifest.top_of(number), item.path, writing=False)

    def drop(self, number: int, item: Item) -> None:
        if self._stage is not None:
            try:
                self._stage.remove(self._manifest.top_of(number), item.path)
            except OSError as error:
                raise disk_error(error) from None

    # --- the end ---

    def finish(self, digest: bytes, on_step: Callable[[], None]) -> Confirmed:
        manifest, stage, sync = self._manifest, self._stage, self._arrival.sync
        assert stage is not None, "what was confirmed before lands no more"
        try:
            self.assembly.sync()
            for number, item in enumerate(manifest):
                if item.kind is _FOLDER and self.stock.states[number] != _FAILED:
                    stage.complete_folder(manifest.top_of(number), item, sync=sync)
                    on_step()
            if sync:
                stage.folder.sync()
            if (removed := self.stock.removed(stage, on_step)) is not None:
                raise FileError(
                    f"What had arrived of {printable(removed.path, 60)!r} was removed before it had its final name.",
                    next="Let it be sent again. Leave folders alone whose names begin with .glide- until it is there.",
                    for_peer="what had arrived there was removed before it was whole.",
                )
            self._journal.note_whole(self._count(digest), self._failed())
            self._landed = self._landing(manifest, stage, self._arrival.conflict, on_step).run()
            for number, problem in self._landed.with_inside(manifest).items():
                self.stock.fail(number, problem)
            stage.close()
            confirmed = self._count(digest)
            self._journal.note_whole(confirmed, self._failed())  # what could not land is gone with the stage
            self._destination.discard(self._journal.about.stage)
            self._journal.note_landed(confirmed)
        except OSError as error:
            raise disk_error(error) from None
        return confirmed

    def _failed(self) -> list[int]:
        return [number for number in sorted(self.stock.problems) if self.stock.states[number] == _FAILED]

    def _count(self, digest: bytes) -> Confirmed:
        manifest = self._manifest
        lost = [item.size for item in map(manifest.item, self._failed()) if item.kind is not _FOLDER]
        size = self.assembly.stored if manifest.streams and not lost else manifest.bytes
        return Confirmed(manifest.files - len(lost), size - sum(lost), digest)

    def saved(self) -> Iterator[Saved | SavedFolder]:
        if self.confirmed is not None:
            return
        transfer, states, digest = self._arrival.transfer, self.stock.states, self.stock.digest
        top, where = -1, ""
        for number, item in enumerate(self._manifest):
            name, inside, rest = item.path.partition("/")
            if not inside:
                top += 1
                where = self._landed.where(self._destination, top, name)
                if item.kind is _FOLDER and states[number] != _FAILED:
                    yield SavedFolder(transfer, where)
            if states[number] in _ARRIVED:
                path = f"{where}/{self._landed.inside(number, rest)}" if inside else where
                size = self.assembly.stored if item.kind is _STREAM else item.size
                yield Saved(transfer, path, size, digest(number), bool(inside))

    def known(self) -> None:
        self._journal.delete()

    def close(self) -> None:
        self.assembly.abandon()
        self._close_stage()
        try:
            if self.empty():
                self._destination.discard(self._journal.about.stage)
                self._journal.delete()
        except FileError:
            pass  # then an empty stage is listed as kept
        finally:
            self._destination.close()
            self._journal.close()

    def _give_up(self) -> None:
        """Leave nothing of a transfer that could not be begun."""
        self._close_stage()
        if self._journal.speaks:
            self._destination.discard(self._journal.about.stage)

    def _close_stage(self) -> None:
        if self._stage is not None:
            self._stage.close()

    def empty(self) -> bool:
        """True if there is nothing to go on with later."""
        states = self.stock.states
        if self._manifest.streams and self._journal.open:
            return self._journal.phase is Phase.RECEIVING
        here = self.assembly.stored or State.KEPT in states or State.BEGUN in states or State.WHOLE in states
        return self.confirmed is None and not here and self._journal.open and self._journal.phase is Phase.RECEIVING


def stands(journal: Journal, manifest: Manifest, destination: Destination) -> bool:
    """True if what was confirmed is what is offered now, and still stands there."""
    items, count = iter(manifest), 0
    for _, was, _ in journal.items():
        count += 1
        if next(items, None) != was:
            return False
    finals, failed = journal.finals(), journal.failed()
    for top, item in manifest.tops():
        if manifest.number(top) in failed:
            continue
        found = destination.look(finals.get(top, item.path))
        is_folder = found is not None and stat.S_ISDIR(found.st_mode)
        if found is None or is_folder is not (item.kind is ItemKind.FOLDER):
            return False
        if not is_folder and (found.st_size, found.st_mtime_ns) != (item.size, item.modified):
            return False
    return count == manifest.items and not manifest.streams


def destination_of(arrival: Arrival) -> Destination:
    """Where it goes, open. Raises :class:`FileError`."""
    if arrival.opened is not None:
        return arrival.opened.again()
    assert arrival.into is not None, "a folder"
    return Destination.open(arrival.into)


def agreed(journal: Journal, manifest: Manifest, arrival: Arrival) -> bool:
    """True if a person who said yes to what the journal speaks of has thereby said yes to this."""
    about = journal.about
    if (about.sender, about.relay) != (arrival.sender, arrival.relay):
        return False  # the same key under another name: a person said yes to that name
    if journal.phase is Phase.RECEIVING:
        return covered(manifest, journal)
    # That yes has had its transfer. What is left of it is the receipt.
    with destination_of(arrival) as destination:
        return stands(journal, manifest, destination)


def open_storage(arrival: Arrival, manifest: Manifest, journal: Journal | None) -> Storage:
    """Where this offer goes. Takes the journal over."""
    return StandardOutput(manifest) if arrival.into is None else Folders.open(arrival, manifest, journal)
