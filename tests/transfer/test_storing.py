"""Transfers that are offered, interrupted, changed, continued, landed and offered again, in any order at all."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glide.client import partials
from glide.errors import Declined, IntegrityError
from glide.protocol.endtoend import Item, ItemKind
from glide.transfer.filenames import candidates
from glide.transfer.journal import Confirmed
from glide.transfer.landing import Conflict
from glide.transfer.manifest import Manifest
from glide.transfer.stock import State
from tests.transfer.arriving import (
    THEN,
    Receiving,
    Standing,
    arrival,
    as_found,
    listed,
    manifest_of,
    shown,
    stages,
    tree,
)

# --- what should come of it ------------------------------------------------------------------------------


def inside(standing: Standing, top: str) -> list[str]:
    return [path for path in standing if path == top or path.startswith(f"{top}/")]


def free(standing: Standing, path: str) -> str:
    """The first name like it that nothing has."""
    above, slash, name = path.rpartition("/")
    return next(each for final in candidates(name) if (each := above + slash + final) not in standing)


def landed(
    standing: Standing, sent: Standing, offered: list[str], conflict: Conflict, compared: set[str]
) -> tuple[Standing, int]:
    """What stands after ``sent`` landed, and how many files of it are there.

    ``offered`` may hold more: what was unreadable. ``compared`` was not kept before, and looked for where it goes.
    """
    after, there = dict(standing), 0

    def put(path: str, final: str) -> int:
        count = 0
        for each in inside(sent, path):
            after[final + each.removeprefix(path)] = sent[each]
            count += sent[each] is not None
        return count

    done = ""
    for path in offered:
        top = path.partition("/")[0]
        if (done and path.startswith(done)) or path not in sent:
            continue
        content = sent[path]
        settled = True
        if path == top and not (conflict.merges and top in after):
            there += put(path, free(after, path))
        elif path not in after:
            there += put(path, path)
        elif content is None and after[path] is None:
            settled = False
        elif path in compared and content is not None and standing.get(path) == content:
            there += 1
        elif conflict is Conflict.SKIP and (content is not None or path == top):
            there += put(path, free(after, path))
        elif content is not None and after[path] is not None:
            there += put(path, path)
        done = f"{path}/" if settled else done
    return after, there


# --- what is offered -------------------------------------------------------------------------------------

SIZES = st.sampled_from([0, 1, 7, 100, 5000])
contents = st.builds(lambda size, seed: random.Random(seed).randbytes(size), SIZES, st.integers(0, 2))
leaves = {"a": contents, "b.txt": contents, "d/x": contents, "d/y": contents, "d/s/z": contents, "d/s/x": contents}
FOLDERS = ["d", "d/s", "d/e"]


@st.composite
def trees(draw: st.DrawFn) -> Standing:
    found: Standing = draw(st.dictionaries(st.sampled_from(["a", "b.txt", "d"]), contents, min_size=1, max_size=3))
    if "d" in found and draw(st.integers(0, 3)):
        found["d"] = None
        for name in draw(st.sets(st.sampled_from(["d/x", "d/y", "d/s", "d/e"]))):
            found[name] = draw(contents)
        if "d/s" in found and draw(st.booleans()):
            found["d/s"] = None
            for name in draw(st.sets(st.sampled_from(["d/s/z", "d/s/x"]))):
                found[name] = draw(contents)
    return {path: found[path] for path in sorted(found, key=lambda path: path.split("/"))}


times = st.dictionaries(st.sampled_from(["a", "b.txt", "d/x", "d/s", "d/s/z"]), st.just(THEN + 10**9), max_size=2)


Stood: TypeAlias = tuple[Standing, dict[str, int]]
"""What stands, and when its top-level files were written, in ns."""


class Transfers(RuleBasedStateMachine):
    """One folder that is received into, its journals, and what should be in both."""

    @initialize(there=trees() | st.just({}), data=st.data())
    def begin(self, there: Standing, data: st.DataObject) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="glide-test-"))
        (self.top / "outside").mkdir()
        (self.top / "outside" / "file").write_bytes(b"untouched")
        self.into, self.journals = self.top / "in", self.top / "journals"
        self.into.mkdir()
        self.standing: Standing = {}
        for path, content in there.items():
            self.place(path, content)
        self.receiving: Receiving | None = None
        self.conflict = Conflict.RENAME
        self.compared: set[str] = set()
        self.offered: tuple[Standing, dict[str, int], bytes] = {}, {}, b""
        # By key and identity: the bytes at the beginning of each file that are durable,
        self.durable: dict[tuple[bytes, bytes], dict[Item, int]] = {}
        # and what was confirmed to a sender who does not know: the items, the receipt, and what stood then.
        self.unconfirmed: dict[tuple[bytes, bytes], tuple[list[Item], Confirmed, Stood | None]] = {}
        self.boots = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("glide.transfer.storing.boot", lambda: str(self.boots))

    def teardown(self) -> None:
        if hasattr(self, "top"):
            if self.receiving is not None:
                self.receiving.close()
            self.patch.undo()
            shutil.rmtree(self.top)

    def place(self, path: str, content: bytes | None) -> None:
        target = self.into / path
        if content is None:
            target.mkdir()
        else:
            target.write_bytes(content)
        self.standing[path] = content

    def stood(self) -> Stood:
        """What stands, and since when: a file that somebody put there again is not the one that landed."""
        tops = [path for path, content in self.standing.items() if "/" not in path and content is not None]
        return dict(self.standing), {path: (self.into / path).stat().st_mtime_ns for path in tops}

    @property
    def mine(self) -> tuple[bytes, bytes]:
        assert self.receiving is not None
        return self.offered[2], self.receiving.manifest.identity()

    # --- what happens ---

    @rule(
        sent=trees(),
        modified=times,
        conflict=st.sampled_from(Conflict),
        key=st.sampled_from([b"k" * 32, b"K" * 32]),
        unreadable=st.none() | st.sampled_from(sorted(leaves)),
    )
    def offer(
        self, sent: Standing, modified: dict[str, int], conflict: Conflict, key: bytes, unreadable: str | None
    ) -> None:
        self.go_away()
        self.open(sent, modified, conflict, key, unreadable)

    @rule(conflict=st.sampled_from(Conflict))
    def offer_the_same_again(self, conflict: Conflict) -> None:
        sent, modified, key = self.offered
        if sent:
            self.go_away()
            self.open(sent, modified, conflict, key, None)

    @rule(data=st.data(), other=trees(), conflict=st.sampled_from(Conflict))
    def offer_nearly_the_same_again(self, data: st.DataObject, other: Standing, conflict: Conflict) -> None:
        sent, modified, key = self.offered
        if not sent:
            return
        self.go_away()
        path = data.draw(st.sampled_from(sorted(sent)))
        changed = dict(sent)
        if "/" in path and data.draw(st.booleans()):
            for each in inside(sent, path):
                del changed[each]
        elif path in other and (sent[path] is None) == (other[path] is None):
            changed[path] = other[path]
        for each in other:
            if each.rpartition("/")[0] in changed and changed[each.rpartition("/")[0]] is None:
                changed.setdefault(each, other[each])
        changed = {each: changed[each] for each in sorted(changed, key=lambda each: each.split("/"))}
        self.open(changed, modified, conflict, key, None)

    def open(
        self, sent: Standing, modified: dict[str, int], conflict: Conflict, key: bytes, unreadable: str | None
    ) -> None:
        manifest = manifest_of(sent, modified=modified)
        readable = {path: content for path, content in sent.items() if path != unreadable or content is None}
        self.offered, self.conflict = (sent, modified, key), conflict
        mine = key, manifest.identity()
        durable = self.durable.get(mine, {})
        items = set(manifest)
        self.durable[mine] = durable = {item: count for item, count in durable.items() if item in items}
        taken = any("/" not in path and path in self.standing for path in sent)
        was = self.unconfirmed.get(mine)
        try:
            self.receiving = Receiving(arrival(self.into, self.journals, conflict, key=key), readable, manifest)
        except Declined:
            assert conflict is Conflict.REFUSE
            assert taken
            return
        confirmed = self.receiving.storage.confirmed
        assert conflict is not Conflict.REFUSE or not taken or confirmed is not None
        if was is not None and was[0] == list(manifest) and was[2] == self.stood():
            assert confirmed == was[1], "what landed is not asked for again"
        if confirmed is not None:
            assert was is not None
            assert (was[0], was[1]) == (list(manifest), confirmed)
            return
        self.unconfirmed.pop(mine, None)
        states = self.receiving.storage.stock.states
        self.compared = {item.path for number, item in enumerate(manifest) if states[number] == State.EXISTS}
        missing = dict.fromkeys(items, 0)
        for start, length in self.receiving.wants:
            for piece in manifest.pieces(start, length):
                missing[piece.item] += piece.length
        for item, count in durable.items():
            assert item.size - missing[item] >= count, f"{item} was durable"

    @precondition(lambda self: self.receiving is not None and self.receiving.storage.confirmed is None)
    @rule(share=st.floats(0, 1), sync=st.booleans())
    def receive(self, share: float, sync: bool) -> None:
        receiving = self.receiving
        assert receiving is not None
        receiving.feed(int(share * receiving.wanted), sync=sync)
        if sync:
            self.note_durable()

    def note_durable(self) -> None:
        """After a sync: of what was asked for, all that came is durable."""
        receiving = self.receiving
        assert receiving is not None
        durable, left = self.durable[self.mine], receiving.storage.assembly.stored
        for start, length in receiving.wants:
            for piece in receiving.manifest.pieces(start, min(length, left)):
                durable[piece.item] = piece.offset + piece.length
            left -= min(length, left)

    def go_away(self) -> None:
        """The connection is lost, or the same sender comes anew."""
        if self.receiving is not None:
            if self.receiving.storage.confirmed is None:
                self.receiving.storage.assembly.sync()
                self.note_durable()
            self.receiving.close()
            self.receiving = None

    @rule()
    def lose(self) -> None:
        self.go_away()

    @precondition(lambda self: self.receiving is not None)
    @rule(power=st.booleans(), seed=st.integers(0, 5))
    def crash(self, power: bool, seed: int) -> None:
        receiving = self.receiving
        assert receiving is not None
        confirmed = receiving.storage.confirmed is not None
        receiving.die()
        self.receiving = None
        if power and not confirmed:
            self.boots += 1
            (stage,) = (
                found.about.stage for found in listed(self.journals) if found.file == receiving.storage._journal.file
            )
            self.spoil(self.into / stage, receiving.manifest, random.Random(seed))

    def spoil(self, stage: Path, manifest: Manifest, draw: random.Random) -> None:
        """What was not synced before a power failure: there, not there, or something else."""
        durable = self.durable[self.offered[2], manifest.identity()]
        for number, item in enumerate(manifest):
            path = stage.joinpath(str(manifest.top_of(number)), *item.path.split("/")[1:])
            if item.kind is ItemKind.FOLDER or not path.exists():
                continue
            sure = durable.get(item, 0)
            content = path.read_bytes()
            match draw.randrange(4):
                case 0:
                    path.write_bytes(content[:sure] + bytes(len(content) - sure))
                case 1:
                    path.write_bytes(content[:sure] + draw.randbytes(max(item.size - sure, 0)))
                case 2 if not sure:
                    path.unlink()
                case 3:
                    path.write_bytes(content[:sure])

    @precondition(lambda self: self.receiving is not None)
    @rule(knows=st.booleans())
    def finish(self, knows: bool) -> None:
        receiving, mine = self.receiving, self.mine
        assert receiving is not None
        offered = [item.path for item in receiving.manifest]
        sent = {path: content for path, content in receiving.sent.items() if path in offered}
        before = receiving.storage.confirmed
        try:
            confirmed = receiving.finish()
        except IntegrityError:
            assert before is not None, "what is sent is what arrives"
            assert mine in self.unconfirmed
            del self.unconfirmed[mine]  # it is not the same: the next try begins anew
            receiving.close()
            self.receiving = None
            return
        if before is None:
            self.standing, there = landed(self.standing, sent, offered, self.conflict, self.compared)
            assert confirmed.items == there
            # A top-level item that did not land may be looked for in vain: see test_landing.
            stood = None if receiving.storage.stock.problems else self.stood()
            self.unconfirmed[mine] = list(receiving.manifest), confirmed, stood
        assert confirmed == self.unconfirmed[mine][1]
        self.durable[mine] = {}
        if knows:
            receiving.storage.known()
            del self.unconfirmed[mine]
        receiving.close()
        self.receiving = None

    @precondition(lambda self: self.receiving is None)
    @rule()
    def clear(self) -> None:
        before = len(listed(self.journals))
        assert partials.clear(self.journals, lambda _: None) == before
        assert listed(self.journals) == []
        assert stages(self.into) == []
        self.durable.clear()
        self.unconfirmed.clear()

    @rule(data=st.data(), content=contents)
    def somebody_changes_what_stands(self, data: st.DataObject, content: bytes) -> None:
        if not self.standing or (self.receiving is not None and self.conflict is not Conflict.RENAME):
            return
        path = data.draw(st.sampled_from(sorted(self.standing)))
        if self.standing[path] is None:
            shutil.rmtree(self.into / path)
        else:
            (self.into / path).unlink()
        for each in inside(self.standing, path):
            del self.standing[each]
        if data.draw(st.booleans()):
            self.place(path, content)

    # --- what always holds ---

    @invariant()
    def F5_F6_what_stands_is_what_should(self) -> None:
        if hasattr(self, "top"):
            assert shown(self.into) == as_found(self.standing)

    @invariant()
    def F3_nothing_is_written_outside(self) -> None:
        if hasattr(self, "top"):
            assert sorted(path.name for path in self.top.iterdir() if path.name != "journals") == ["in", "outside"]
            assert tree(self.top / "outside") == {"file": b"untouched"}

    @invariant()
    def F9_what_is_kept_is_what_is_listed(self) -> None:
        if hasattr(self, "top"):
            names = [found.about.stage for found in listed(self.journals)]
            if self.receiving is not None and self.receiving.storage._stage is not None:
                names.append(self.receiving.storage._journal.about.stage)
            assert stages(self.into) == sorted(names)


Transfers.TestCase.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


TestTransfers = Transfers.TestCase
