"""What is here of an offer already, against a model that looks at everything."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import FileError
from glide.protocol.endtoend import Item, ItemKind
from glide.transfer.destination import Destination
from glide.transfer.digests import EMPTY
from glide.transfer.journal import Journal
from glide.transfer.landing import Conflict
from glide.transfer.stock import State, Stock, boot, covered, take_stock
from tests.transfer.arriving import KEY, THEN, Receiving, Standing, arrival, digests_of, land, manifest_of, tree

contents = st.builds(lambda size, letter: letter * size, st.sampled_from([0, 1, 5, 300]), st.sampled_from([b"a", b"b"]))
inner = st.sampled_from(["d/e", "d/x", "d/y"])
deep = st.sampled_from(["d/e/x", "d/e/z", "d/e/z/y"])


@st.composite
def trees(draw: st.DrawFn) -> Standing:
    """Always the same at the top, so that one is a later offer of the other."""
    found: Standing = {"a": draw(contents), "d": None, "z": draw(contents)}
    for level in (inner, deep):
        for path in sorted(draw(st.sets(level)), key=lambda path: path.split("/")):
            above = path.rpartition("/")[0]
            if above in found and found[above] is None:
                found[path] = draw(contents | st.none())
    return found


times = st.dictionaries(st.sampled_from(["a", "d", "d/e", "d/x", "d/e/x"]), st.just(THEN + 10**9), max_size=2)


@given(trees(), trees() | st.none(), times, times, st.integers(0, 1500), st.integers(0, 300), st.booleans())
def test_what_is_kept_is_what_is_the_same_and_durable(
    old: Standing,
    new: Standing | None,
    old_times: dict[str, int],
    new_times: dict[str, int],
    durable: int,
    more: int,
    same_boot: bool,
) -> None:
    new, new_times = (old, old_times) if new is None else (new, new_times)
    top = Path(tempfile.mkdtemp(prefix="glide-test-"))
    try:
        into, journals = top / "in", top / "journals"
        into.mkdir()
        before = manifest_of(old, modified=old_times)
        receiving = Receiving(arrival(into, journals, sync=True), old, before)
        receiving.feed(durable)
        receiving.feed(more, sync=False)
        receiving.die()
        manifest = manifest_of(new, modified=new_times)
        with (
            Journal.find(journals, KEY, into.resolve(), manifest, sync=False) or pytest.fail("it is there") as journal,
            Destination.open(into) as destination,
            destination.stage(journal.about.stage) as stage,
        ):
            stock = take_stock(manifest, journal, stage, destination, Conflict.RENAME, same_boot=same_boot)
            staged = tree(into / journal.about.stage)

        # The model: how much of each file had come, and how much of that was durable.
        had: dict[Item, tuple[int, int]] = {}
        for _, position, item in before.numbered():
            if item.kind is not ItemKind.FOLDER:
                there, safe = (min(max(count - position, 0), item.size) for count in (durable + more, durable))
                had[item] = there, safe
        expected: dict[str, object] = {}
        changed = 0
        was = {item.path: item for item in before}
        for number, item in enumerate(manifest):
            name = "/".join([str(manifest.top_of(number)), *item.path.split("/")[1:]])
            content = old.get(item.path)
            if item.kind is ItemKind.FOLDER:
                if item.path in was and was[item.path].kind is ItemKind.FOLDER:
                    expected[name] = "folder"
                continue
            state, begun = stock.states[number], stock.begun.get(number)
            came, sure = had.get(item, (0, 0))
            if item in had and sure == item.size:
                assert content is not None
                assert (state, begun) == (State.KEPT, None)
                assert stock.digest(number) == blake3.blake3(content).digest()
            elif count := came if same_boot else sure:
                assert (state, begun) == (State.BEGUN, count)
                assert stock.digest(number) == bytes(32)
            else:
                assert (state, begun) == (State.MISSING, None)
            if item in had and content is not None and (came or not item.size):
                expected[name] = content[:came]
            older = was.get(item.path)
            changed += older is not None and older != item and had.get(older, (0, 0))[0] > 0
        assert stock.changed == changed
        # What an earlier offer had, and this one has not, is gone. What nothing had come of may be there or not.
        assert {path: what for path, what in staged.items() if what != b""} == {
            path: what for path, what in expected.items() if what != b""
        }
    finally:
        shutil.rmtree(top)


@given(trees(), trees(), st.sampled_from([Conflict.SKIP, Conflict.RENAME, Conflict.OVERWRITE]))
def test_with_skip_a_file_of_the_same_size_in_the_same_place_is_looked_at(
    standing: Standing, offered: Standing, conflict: Conflict
) -> None:
    top = Path(tempfile.mkdtemp(prefix="glide-test-"))
    try:
        (top / "in").mkdir()
        land(top / "in", top / "journals", standing)
        manifest = manifest_of(offered)
        with Destination.open(top / "in") as destination:
            stock = take_stock(manifest, None, None, destination, conflict, same_boot=False)
        for number, item in enumerate(manifest):
            there, content = standing.get(item.path), offered[item.path]
            exists = there is not None and content is not None and len(there) == len(content)
            if conflict is Conflict.SKIP and exists:
                assert stock.states[number] == State.EXISTS
                assert stock.digest(number) == (bytes(32) if item.size else EMPTY)
            else:
                assert stock.states[number] == State.MISSING
        assert not stock.begun
        assert not stock.problems
    finally:
        shutil.rmtree(top)


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_with_skip_what_is_no_file_is_not_looked_at(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").write_bytes(b"12345")
    into = tmp_path / "in"
    into.mkdir()
    if kind == "link":
        (into / "a").symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        (into / "a").mkdir()
    else:
        os.mkfifo(into / "a")
    with Destination.open(into) as destination:
        stock = take_stock(manifest_of({"a": b"12345"}), None, None, destination, Conflict.SKIP, same_boot=False)
    assert stock.states == bytes([State.MISSING])


@given(trees(), trees(), times)
def test_a_yes_covers_a_later_offer_only_if_no_path_is_new_and_it_is_no_more(
    old: Standing, new: Standing, modified: dict[str, int]
) -> None:
    top = Path(tempfile.mkdtemp(prefix="glide-test-"))
    try:
        (top / "in").mkdir()
        before, manifest = manifest_of(old), manifest_of(new, modified=modified)
        receiving = Receiving(arrival(top / "in", top / "journals"), old, before)
        receiving.die()
        with Journal.find(top / "journals", KEY, (top / "in").resolve(), manifest, sync=False) or pytest.fail(
            "it is there"
        ) as found:
            expected = set(new) <= set(old) and manifest.bytes <= before.bytes and manifest.files <= before.files
            assert covered(manifest, found) is expected
    finally:
        shutil.rmtree(top)


def test_what_is_whole_begun_or_failed_is_kept_apart() -> None:
    sent: Standing = {"a": b"a", "b": b"b", "c": b"c"}
    manifest = manifest_of(sent)
    digests = digests_of(manifest, sent)
    stock = Stock(manifest)
    stock.begun[0] = 1
    stock.whole(0, digests[:32])
    stock.fail(1, "for a reason")
    assert (list(stock.states), stock.begun, stock.problems) == (
        [State.WHOLE, State.FAILED, State.MISSING],
        {},
        {1: "for a reason"},
    )
    assert stock.wants() == [(2, 1)]
    stock.forget(0)
    assert stock.digest(0) == bytes(32)
    assert stock.wants() == [(0, 1), (2, 1)]


def test_this_run_of_the_machine_has_one_name() -> None:
    assert boot() == boot()
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert len(boot()) == 36


def test_a_disk_that_cannot_be_looked_at_is_an_error_and_no_loss(tmp_path: Path) -> None:
    """A stage that is a file now: nothing is taken for being there, and nothing of it is removed."""
    (tmp_path / "in").mkdir()
    with Receiving(arrival(tmp_path / "in", tmp_path / "journals"), {"a": b"x" * 100}) as receiving:
        receiving.feed(50)
    (stage,) = (tmp_path / "in").iterdir()
    shutil.rmtree(stage)
    stage.write_bytes(b"mine")
    with pytest.raises(FileError):
        Receiving(arrival(tmp_path / "in", tmp_path / "journals"), {"a": b"x" * 100})
    assert stage.read_bytes() == b"mine"
