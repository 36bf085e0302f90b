"""Pages: whatever a manifest holds, its pages fit their frames, and only their number shows on the wire."""

from __future__ import annotations

import random
from itertools import cycle

import pytest
import trio
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from trio.testing import MockClock, memory_stream_pair

from glide.crypto.records import LENGTH
from glide.errors import Declined
from glide.protocol.endtoend import (
    LONGEST_PATH,
    PAGE,
    PAGE_ITEMS,
    Decline,
    Digests,
    Item,
    ItemKind,
    Offer,
    Page,
)
from glide.protocol.frames import HEADER, Frame
from glide.protocol.messages import from_frame, to_bytes
from glide.transfer.manifest import Manifest
from glide.transfer.taking import Room, take
from tests.net.pairs import heard, pair

MOST = 2**63 - 1
LARGE = 2**48  # of many items the sizes add up: they take nine bytes all the same


def paths() -> SearchStrategy[str]:
    """Paths of every length up to the longest, in letters of one to four bytes. Their order does not matter here."""

    def path(letter: str, length: int, number: int) -> str:
        return f"{number:x}" + letter * min(length, (LONGEST_PATH - 16) // len(letter.encode()))

    lengths = st.integers(0, 200) | st.integers(0, LONGEST_PATH)
    return st.builds(path, st.sampled_from("aé漢🐌"), lengths, st.integers(0, 2**60))


items = st.builds(
    Item,
    paths(),
    st.sampled_from(ItemKind),
    st.integers(0, LARGE),
    st.integers(-(2**63), MOST),
)


def made_of(these: list[Item]) -> Manifest:
    manifest = Manifest()
    for item in these:
        manifest.add(item)
    manifest.close()
    return manifest


def frames_of(manifest: Manifest) -> list[bytes]:
    """The pages as the sender says them, and the offer."""
    pages = [Page(items=manifest.page(number)) for number in range(manifest.pages)]
    return [to_bytes(said) for said in [*pages, Offer()]]


def heard_from(frames: list[bytes]) -> Manifest:
    """The manifest as the receiver has it."""
    manifest = Manifest()
    for frame in frames[:-1]:
        page = from_frame(Frame(frame[0], frame[HEADER.size :]))
        assert isinstance(page, Page)
        manifest.add_page(page.items)
    return manifest


# --- whatever is in them, they fit -----------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(items, min_size=1, max_size=20), st.integers(1, 15))
@example([Item("a", ItemKind.FOLDER, MOST, -(2**63))], 121)
@example([Item("a")], 2 * PAGE_ITEMS + 1)
@example([Item("a" * LONGEST_PATH, ItemKind.STREAM, MOST, -(2**63))], 1)
@example([Item("🐌" * (LONGEST_PATH // 4), ItemKind.EXECUTABLE, MOST, -(2**63))], 1)
def test_every_page_of_every_manifest_fits_its_frame_and_so_do_its_digests(some: list[Item], times: int) -> None:
    manifest = made_of(some * times)
    assert {len(frame) for frame in frames_of(manifest)} == {HEADER.size + PAGE}
    for number in range(manifest.pages):
        page = manifest.page(number)
        assert 1 <= len(page) <= PAGE_ITEMS
        assert len(to_bytes(Digests(page=number, digests=b"\xff" * 32 * len(page)))) == HEADER.size + PAGE


@settings(max_examples=60)
@given(st.lists(items, min_size=1, max_size=20), st.integers(1, 15))
def test_the_receiver_has_the_same_items_on_the_same_pages(some: list[Item], times: int) -> None:
    sent = made_of(some * times)
    got = heard_from(frames_of(sent))
    assert list(got) == list(sent) == some * times
    assert (got.pages, got.items, got.files, got.bytes) == (sent.pages, sent.items, sent.files, sent.bytes)
    assert [got.page(number) for number in range(got.pages)] == [sent.page(number) for number in range(sent.pages)]
    assert got.identity() == sent.identity()


@settings(max_examples=60)
@given(st.lists(items, min_size=2, max_size=20), st.integers(1, 15))
def test_no_page_is_begun_before_the_one_before_it_is_full(some: list[Item], times: int) -> None:
    manifest = made_of(some * times)
    for number in range(manifest.pages - 1):
        page, following = manifest.page(number), manifest.page(number + 1)[0]
        if len(page) < PAGE_ITEMS:
            with pytest.raises(ValueError, match="MANIFEST"):
                # Three bytes are set aside for the number of items, which may be said in one.
                to_bytes(Page(items=(*page, following, Item(""), Item(""))))


def test_the_digests_of_a_full_page_fit_whatever_its_number() -> None:
    full = Digests(page=MOST, digests=b"\xff" * 32 * PAGE_ITEMS)
    frame = to_bytes(full)
    assert len(frame) == HEADER.size + PAGE
    assert from_frame(Frame(frame[0], frame[HEADER.size :])) == full


@pytest.mark.parametrize(("count", "pages"), [(1, 1), (119, 1), (120, 1), (121, 2), (240, 2), (241, 3)])
def test_a_page_holds_a_hundred_and_twenty_items_with_short_names(count: int, pages: int) -> None:
    manifest = made_of([Item(f"f{number:04}") for number in range(count)])
    assert manifest.pages == pages
    assert {len(manifest.page(number)) for number in range(pages - 1)} <= {PAGE_ITEMS}


def test_an_item_with_the_longest_path_has_a_page_of_its_own() -> None:
    first, long, last = Item("0" * 100), Item("a" * LONGEST_PATH, size=MOST, modified=MOST), Item("b" * 100)
    manifest = made_of([first, long, last])
    assert [manifest.page(number) for number in range(manifest.pages)] == [(first,), (long,), (last,)]


# --- what shows of them ----------------------------------------------------------------------------------


async def on_the_wire(manifest: Manifest) -> list[int]:
    """The lengths of the records in which a manifest is offered, and the digests of all its pages told."""
    left, right = memory_stream_pair()
    sender, receiver = pair(streams=(left, right))
    lengths: list[int] = []

    async def collect() -> None:
        sealed = bytes(left.send_stream.get_data_nowait())
        right.receive_stream.put_data(sealed)
        while sealed:
            end = LENGTH + int.from_bytes(sealed[:LENGTH], "big")
            lengths.append(end)
            sealed = sealed[end:]

    left.send_stream.send_all_hook = collect
    for number in range(manifest.pages):
        await sender.send(Page(items=manifest.page(number)), flush=False)
    await sender.send(Offer(message="Look!"))
    for number in range(manifest.pages):
        assert await heard(receiver) == Page(items=manifest.page(number))
    assert await heard(receiver) == Offer(message="Look!")
    return lengths


@settings(max_examples=60)
@given(st.lists(items, min_size=1, max_size=12), st.lists(items, min_size=1, max_size=12), st.integers(1, 12))
@example([Item("x")], [Item("y" * 4000, ItemKind.FOLDER)], 1)
def test_C3_of_manifests_with_as_many_pages_all_frames_and_records_are_as_long(
    one: list[Item], other: list[Item], pages: int
) -> None:
    def of_pages(some: list[Item]) -> Manifest:
        """These items, again and again, on exactly so many pages."""
        manifest = Manifest()
        for item in cycle(some):
            if manifest.pages == pages:
                return manifest
            manifest.add(item)
        raise AssertionError("a cycle does not end")

    first, second = of_pages(one), of_pages(other)
    assume(list(first) != list(second))
    assert [len(frame) for frame in frames_of(first)] == [len(frame) for frame in frames_of(second)]
    lengths = [trio.run(on_the_wire, each) for each in (first, second)]
    assert lengths[0] == lengths[1]


def test_C3_the_length_of_the_offer_does_not_tell_whether_there_is_a_message() -> None:
    assert len(to_bytes(Offer())) == len(to_bytes(Offer("🐌" * 400)))


def test_C3_the_digests_of_a_page_are_as_long_as_the_page_whatever_is_on_it() -> None:
    page = to_bytes(Page(items=(Item("a"),)))
    for count in (1, 2, PAGE_ITEMS):
        assert len(to_bytes(Digests(page=0, digests=random.Random(count).randbytes(32 * count)))) == len(page)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_F1_an_offer_with_a_bad_name_is_declined_in_words(autojump_clock: MockClock, bad: int) -> None:
    sender, receiver = pair()
    names = ["a", "b", "c"]
    names[bad] = f"{names[bad]}/../x"
    for name in names:
        await sender.send(Page(items=(Item(name),)), flush=False)
    await sender.send(Offer())
    with Room().place(bytes(32)) as room, pytest.raises(Declined, match="no honest sender"):
        await take(receiver, "alice", room)
    said = await heard(sender)
    assert isinstance(said, Decline)
    assert said.code == "declined"
    assert said.message.startswith("the offer was refused whole")


async def test_F1_sizes_that_add_up_to_more_than_can_be_are_declined_in_words(autojump_clock: MockClock) -> None:
    sender, receiver = pair()
    for number in range(4):
        await sender.send(Page(items=(Item(f"{number}", size=MOST),)), flush=False)
    await sender.send(Offer())
    with Room().place(bytes(32)) as room, pytest.raises(Declined):
        await take(receiver, "alice", room)
    said = await heard(sender)
    assert isinstance(said, Decline)
    assert said.message.startswith("the offer was refused whole")
