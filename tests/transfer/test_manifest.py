"""What is being sent: its items, where each lies in the stream of bytes, and what parts of that stream are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import ProtocolError
from glide.protocol.endtoend import LONGEST_PATH, NO_DIGEST, PAGE, PAGE_ITEMS, Item, ItemKind, Page, Range
from glide.protocol.frames import HEADER
from glide.protocol.messages import to_bytes
from glide.transfer import ranges
from glide.transfer.digests import EMPTY, Digest, DigestTable
from glide.transfer.filenames import BadName
from glide.transfer.journal import About, Journal
from glide.transfer.manifest import ENDLESS, Checker, Manifest, whole
from glide.transfer.stock import State, Stock
from tests.transfer.arriving import KEY

FILE, FOLDER, STREAM = ItemKind.FILE, ItemKind.FOLDER, ItemKind.STREAM


@st.composite
def many_items(draw: st.DrawFn) -> list[Item]:
    """Items in the order that is asked for, over several pages, with runs of folders and of empty files."""
    items: list[Item] = []
    for top in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from([FILE, ItemKind.EXECUTABLE, FOLDER, FOLDER]))
        items.append(Item(f"{top:03}", kind, draw(SIZES) if kind is not FOLDER else 0, draw(st.integers(-9, 9))))
        if kind is FOLDER:
            inner = draw(st.sampled_from([0, 1, 3, 130]))
            what = draw(st.sampled_from(["folders", "empty", "both"]))
            for number in range(inner):
                name = f"{top:03}/{number:04}" + "x" * draw(st.sampled_from([0, 0, 40, 240]))
                if what == "folders" or (what == "both" and number % 3):
                    items.append(Item(name, FOLDER))
                else:
                    items.append(Item(name, FILE, 0 if what == "empty" else draw(SIZES)))
    return items


SIZES = st.sampled_from([0, 0, 1, 2, 5, 11])


def manifest_from(items: list[Item]) -> Manifest:
    manifest = Manifest()
    for item in items:
        manifest.add(item)
    manifest.close()
    return manifest


def owners(items: list[Item]) -> list[int]:
    """Of each byte of the stream the number of the item that it is of."""
    return [number for number, item in enumerate(items) if item.kind is not FOLDER for _ in range(item.size)]


def one_by_one(checker: Checker, items: list[Item]) -> None:
    for item in items:
        checker.check([item])


# --- items and pages -------------------------------------------------------------------------------------


@given(many_items())
def test_items_are_found_by_their_numbers_and_their_places(items: list[Item]) -> None:
    manifest = manifest_from(items)
    assert list(manifest) == items
    assert (manifest.items, manifest.files) == (len(items), sum(item.kind is not FOLDER for item in items))
    assert manifest.bytes == sum(item.size for item in items)
    assert [manifest.item(number) for number in range(len(items))] == items
    position, top, tops = 0, -1, []
    for number, item in enumerate(items):
        if "/" not in item.path:
            top += 1
            tops.append((top, item))
        assert manifest.start(number) == position
        assert manifest.top_of(number) == top
        assert item in manifest.page(manifest.page_of(number))
        position += item.size
    assert list(manifest.tops()) == tops
    assert [number for t, _ in tops for number, _ in manifest.inside(t)] == list(range(len(items)))
    assert [(number, item) for number, _, item in manifest.numbered()] == list(enumerate(items))
    assert [start for _, start, _ in manifest.numbered()] == [manifest.start(number) for number in range(len(items))]


@given(many_items())
def test_C3_a_page_fits_its_frame_and_its_digests_do_too(items: list[Item]) -> None:
    manifest = manifest_from(items)
    assert sum(len(manifest.page(page)) for page in range(manifest.pages)) == len(items)
    for page in range(manifest.pages):
        assert 0 < len(manifest.page(page)) <= PAGE_ITEMS
        assert len(to_bytes(Page(items=manifest.page(page)))) == HEADER.size + PAGE
        assert manifest.first(page) == sum(len(manifest.page(before)) for before in range(page))


def test_C3_the_longest_path_fits_a_page() -> None:
    path = "/".join(["漢" * 80] * 16)
    path += "/" + "x" * (LONGEST_PATH - len(path.encode()) - 1)
    manifest = manifest_from([Item(path, FILE, 2**62, -(2**63))])
    assert len(to_bytes(Page(items=manifest.page(0)))) == HEADER.size + PAGE


def test_two_offers_are_of_the_same_things_if_their_top_level_items_are() -> None:
    def identity(*items: Item) -> bytes:
        return manifest_from(list(items)).identity()

    same = identity(Item("d", FOLDER), Item("d/x", FILE, 5), Item("z", FILE, 7))
    assert len(same) == 16
    assert identity(Item("d", FOLDER, 0, 99), Item("z", ItemKind.EXECUTABLE, 8)) == same
    assert identity(Item("d", FOLDER), Item("y", FILE, 7)) != same
    assert identity(Item("d", FILE), Item("z", FILE, 7)) != same
    assert identity(Item("d", FOLDER)) != same


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["a", "a"], "same name"),
        (["b", "a"], "order"),
        (["d/", "d/b", "d/a"], "order"),
        (["d/", "d.x", "d/a"], "order"),
        (["a/b"], "no folder"),
        (["d", "d/x"], "no folder"),
        (["d/", "d/x", "d/x/y"], "no folder"),
        (["d/", "d/s/", "e", "e/x"], "no folder"),
        (["d/", "e/x"], "no folder"),
        (["d/", "d/s/t"], "no folder"),
        (["d/", "d/.."], "parent"),
        (["d/", "d//"], "empty"),
    ],
)
def test_F4_items_that_no_honest_sender_offers_are_refused_whole(paths: list[str], why: str) -> None:
    items = [Item(path.removesuffix("/"), FOLDER if path.endswith("/") else FILE) for path in paths]
    with pytest.raises(BadName, match=why):
        Checker().check(items)
    checker = Checker()
    with pytest.raises(BadName, match=why):
        one_by_one(checker, items)


@pytest.mark.parametrize(
    "paths",
    [["a", "b"], ["d/", "d/a", "d.x"], ["d/", "d/s/", "d/s/t", "d/t", "e"], ["A", "a"], ["d/", "d/d/", "d/d/d"]],
)
def test_F4_items_in_their_order_are_taken(paths: list[str]) -> None:
    Checker().check([Item(path.removesuffix("/"), FOLDER if path.endswith("/") else FILE) for path in paths])


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([Item("a", STREAM), Item("b")], "alone"),
        ([Item("a"), Item("b", STREAM)], "alone"),
        ([Item("d", FOLDER), Item("d/x", STREAM)], "alone"),
        ([Item("a", STREAM, 1)], "alone"),
        ([Item("d", FOLDER, 1)], "a folder has a size"),
    ],
)
def test_F4_odd_kinds_are_refused_whole(items: list[Item], why: str) -> None:
    with pytest.raises(BadName, match=why):
        Checker().check(items)


def test_F1_a_path_that_is_too_long_is_refused_whole() -> None:
    paths = ["/".join(["漢" * 40] * count) for count in range(1, 50)]
    allowed = [path for path in paths if len(path.encode()) <= LONGEST_PATH]
    checker = Checker()
    one_by_one(checker, [Item(path, FOLDER) for path in allowed])
    with pytest.raises(BadName, match="longer than 4000 bytes"):
        checker.check([Item(paths[len(allowed)], FOLDER)])


# --- parts of the stream ---------------------------------------------------------------------------------


@given(many_items(), st.data())
def test_a_range_of_the_stream_is_parts_of_files(items: list[Item], data: st.DataObject) -> None:
    manifest, owned = manifest_from(items), owners(items)
    start = data.draw(st.integers(0, manifest.bytes))
    length = data.draw(st.integers(0, manifest.bytes - start))
    at = start
    for piece in manifest.pieces(start, length):
        assert piece.item == items[piece.number]
        assert piece.length > 0
        assert piece.to_the_end is (piece.offset + piece.length == piece.item.size)
        assert owned[at : at + piece.length] == [piece.number] * piece.length
        assert manifest.start(piece.number) + piece.offset == at
        at += piece.length
    assert at == start + length
    with pytest.raises(ValueError, match="beyond the end"):
        list(manifest.pieces(start, manifest.bytes - start + 1))


def some_ranges(data: st.DataObject, total: int) -> list[Range]:
    """Ranges that may be asked for: in order, not empty, side by side at most."""
    edges = sorted(data.draw(st.sets(st.integers(0, total), max_size=12)))
    found = [(start, end - start) for start, end in pairwise(edges)]
    return [each for each in found if data.draw(st.integers(0, 2))]


@given(many_items(), st.data())
def test_what_is_not_sent_from_beginning_to_end_is_told_with_what_the_receiver_has_of_it(
    items: list[Item], data: st.DataObject
) -> None:
    manifest = manifest_from(items)
    wanted = some_ranges(data, manifest.bytes)
    expected, position = [], 0
    for number, item in enumerate(items):
        if item.kind is FOLDER or not item.size:
            continue
        mine = set(range(position, position + item.size))
        sent = [mine & set(range(start, start + length)) for start, length in wanted]
        if mine not in sent:
            first = min((min(part) for part in sent if part), default=position)
            to_the_end = any(max(mine) in part for part in sent)
            expected.append((number, item, first - position if to_the_end else 0))
        position += item.size
    assert list(ranges.unsent(manifest, wanted)) == expected
    assert ranges.check(wanted, manifest, "bob") == sum(length for _, length in wanted)


@given(many_items(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4))
def test_ranges_are_in_order_not_empty_and_of_what_there_is_or_an_error(items: list[Item], wanted: list[Range]) -> None:
    manifest = manifest_from(items)
    taken: set[int] = set()
    good, end = True, 0
    for start, length in wanted:
        mine = set(range(start, start + length))
        good = good and bool(mine) and start >= end and not mine & taken and start + length <= manifest.bytes
        taken |= mine
        end = start + length
    if good:
        assert ranges.check(wanted, manifest, "bob") == len(taken)
    else:
        with pytest.raises(ProtocolError, match="bob wants"):
            ranges.check(wanted, manifest, "bob")


@pytest.mark.parametrize("wanted", [[], [(0, 1)], [(1, ENDLESS)], [(0, ENDLESS), (ENDLESS, 1)], [(0, ENDLESS + 1)]])
def test_what_has_no_parts_is_wanted_whole(wanted: list[Range]) -> None:
    manifest = manifest_from([Item("stdin", STREAM)])
    with pytest.raises(ProtocolError, match="no parts"):
        ranges.check(wanted, manifest, "bob")
    assert ranges.check([(0, ENDLESS)], manifest, "bob") == ENDLESS
    assert list(ranges.unsent(manifest, [(0, ENDLESS)])) == []
    (piece,) = manifest.pieces(17, 5)
    assert (piece.number, piece.offset, piece.length) == (0, 17, 5)
    assert Stock(manifest).wants() == [(0, ENDLESS)]


@given(many_items(), st.data())
def test_what_is_wanted_is_what_is_not_here(items: list[Item], data: st.DataObject) -> None:
    stock = Stock(manifest_from(items))
    missing: list[int] = []
    position = 0
    for number, item in enumerate(items):
        here = 0
        if item.kind is not FOLDER:
            state = data.draw(st.sampled_from([State.MISSING, State.KEPT, State.BEGUN, State.FAILED, State.EXISTS]))
            if state == State.BEGUN:
                here = data.draw(st.integers(0, item.size))
                stock.states[number], stock.begun[number] = state, here
            elif state == State.FAILED:
                stock.fail(number, "for a reason")
            elif state != State.MISSING:
                stock.whole(number, b"d" * 32, state)
            here = here if state in (State.MISSING, State.BEGUN) else item.size
        missing += range(position + here, position + item.size)
        position += item.size
    wants = stock.wants()
    assert [byte for start, length in wants for byte in range(start, start + length)] == missing
    assert all(start + length < after for (start, length), (after, _) in pairwise(wants))


# --- digests ---------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=8))
def test_the_digest_over_a_transfer_is_that_of_its_one_item_or_of_all_in_order(items: list[bytes]) -> None:
    joined = b"".join(items)
    if len(items) == 1:
        assert whole(joined) == items[0]
    else:
        assert whole(joined) == blake3.blake3(joined).digest()
    assert whole(bytearray(joined)) == whole(joined)


@given(many_items(), st.data())
def test_pages_of_digests_are_ready_once_each_when_they_are_complete(items: list[Item], data: st.DataObject) -> None:
    manifest = manifest_from(items)
    table = DigestTable(manifest)
    to_come = [number for number, item in enumerate(items) if item.size]
    ready, known = list(table.ready), {number for number, item in enumerate(items) if not item.size}
    table.ready.clear()
    expected = {n: EMPTY if item.kind is not FOLDER else bytes(32) for n, item in enumerate(items) if not item.size}
    for number in data.draw(st.permutations(to_come)):
        assert not table.complete
        digest = blake3.blake3(str(number).encode()).digest()
        table.add(Digest(number, digest))
        table.add(Digest(number, b"x" * 32))  # the first one counts
        expected[number] = digest
        known.add(number)
        ready += table.ready
        table.ready.clear()
        done = [
            page
            for page in range(manifest.pages)
            if known.issuperset(range(manifest.first(page), manifest.first(page) + len(manifest.page(page))))
        ]
        assert sorted(ready) == done
    assert table.complete
    pages = b"".join(table.page(page) for page in range(manifest.pages))
    assert pages == bytes(table.digests) == b"".join(expected[number] for number in range(len(items)))
    assert (table.failed, table.problems) == (0, [])


def test_a_file_that_turns_out_to_be_unreadable_is_told_so_whatever_was_known_before() -> None:
    table = DigestTable(manifest_from([Item("a", FILE, 1), Item("b", FILE, 1)]))
    table.add(Digest(0, b"a" * 32))
    table.add(Digest(0, NO_DIGEST, "it shrank"))
    table.add(Digest(1, NO_DIGEST, "it grew"))
    assert bytes(table.digests) == bytes(64)
    assert (table.failed, table.problems, list(table.ready)) == (2, ["it shrank", "it grew"], [0])


def test_a_digest_of_a_file_of_which_the_end_is_still_sent_waits_for_that_end() -> None:
    table = DigestTable(manifest_from([Item("a", FILE, 9), Item("b", FILE, 9)]))
    table.add(Digest(0, b"a" * 32, in_part=True))
    table.read_to_the_end(1)
    assert not table.ready
    table.add(Digest(1, b"b" * 32, in_part=True))
    assert bytes(table.digests) == bytes(32) + b"b" * 32
    table.read_to_the_end(0)
    assert bytes(table.digests) == b"a" * 32 + b"b" * 32
    assert (table.complete, list(table.ready)) == (True, [0])


def test_a_thousand_unreadable_files_are_counted_and_a_few_told() -> None:
    table = DigestTable(manifest_from([Item(f"{n:05}", FILE, 1) for n in range(1000)]))
    for number in range(1000):
        table.add(Digest(number, NO_DIGEST, f"{number}"))
    assert table.failed == 1000
    assert table.problems == [str(number) for number in range(20)]


# --- memory ----------------------------------------------------------------------------------------------

COUNT = 100_000


def _hundred_thousand() -> Iterator[Item]:
    yield Item("folder", FOLDER, 0, 1_600_000_000_123_456_789)
    for number in range(COUNT - 1):
        yield Item(f"folder/a file of a usual name {number:06}.txt", FILE, 12345, 1_600_000_000_123_456_789 + number)


@pytest.mark.timeout(120)
def test_a_hundred_thousand_items_take_no_more_than_two_hundred_bytes_each(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journals", KEY, tmp_path, manifest_from([Item("x")]), sync=False) as journal:
        tracemalloc.start()
        try:
            manifest = Manifest()
            for item in _hundred_thousand():
                manifest.add(item)
            manifest.close()
            stock, table = Stock(manifest), DigestTable(manifest)
            about = About(
                b"r" * 32, "alice", KEY, b"/in", ".glide-.part", ("folder",), COUNT, manifest.bytes, 0, "", ""
            )
            journal.begin(about, manifest, stock.digests, stock.begun)
            for number in range(1, COUNT):
                stock.whole(number, b"d" * 32)
                table.add(Digest(number, b"d" * 32))
            for page in range(0, manifest.pages, 100):
                pages = range(page, min(page + 100, manifest.pages))
                journal.note({each: table.page(each) for each in pages}, {COUNT - 1: 5})
            assert sum(1 for _ in journal.items()) == COUNT
            assert stock.wants() == []
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held / COUNT <= 200
    assert peak / COUNT <= 200
