"""Offers that no honest sender makes: refused whole, in words, before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from glide.errors import Declined, ProtocolError
from glide.net.connection import FRAME
from glide.protocol.endtoend import (
    Abort,
    Accept,
    Decline,
    Digests,
    Done,
    End,
    Item,
    ItemKind,
    Offer,
    Page,
    Receipt,
    Want,
)
from glide.protocol.fields import Message
from glide.protocol.messages import Keepalive
from glide.transfer import taking
from glide.transfer.manifest import whole
from tests.transfer.halves import (
    CONTENT,
    Place,
    Side,
    answer_of,
    anything,
    digest,
    joined,
    never,
    offered,
    receive,
)

FOLDER, STREAM = ItemKind.FOLDER, ItemKind.STREAM
LIST = tuple[Item, ...]

# --- manifests that no honest sender makes -----------------------------------------------------------------

MANIFESTS: dict[str, list[LIST]] = {
    "unsorted": [(Item("b"), Item("a"))],
    "unsorted over pages": [(Item("b"),), (Item("a"),)],
    "sorted as text, not by components": [(Item("a", FOLDER), Item("a!", FOLDER), Item("a/b"))],
    "the same twice": [(Item("a"), Item("a"))],
    "the same on the next page": [(Item("a"),), (Item("a", FOLDER),)],
    "a file as a parent": [(Item("a"), Item("a/b"))],
    "a file as a parent, on the page before": [(Item("a"),), (Item("a/b"),)],
    "no parent at all": [(Item("a/b"),)],
    "no parent in between": [(Item("a", FOLDER), Item("a/b/c"))],
    "another folder's child": [(Item("a", FOLDER), Item("b", FOLDER), Item("b/c/d"))],
    "a folder with a size": [(Item("a", FOLDER, 1),)],
    "a stream and a file": [(Item("a", STREAM), Item("b"))],
    "a file and a stream": [(Item("a"), Item("b", STREAM))],
    "two streams over pages": [(Item("a", STREAM),), (Item("b", STREAM),)],
    "a stream in a folder": [(Item("a", FOLDER), Item("a/b", STREAM))],
    "a stream with a size": [(Item("a", STREAM, 1),)],
    "sizes that add up to more than there is": [
        tuple(Item(name, size=2**63 - 1) for name in "abc"),
        (Item("d", size=1),),
    ],
}
NAMES = ["", ".", "..", "../file", "/etc/passwd", "a\0b", "a\nb", "\x1b[2J", "a/", "a//b", "a/./b", "a/../../b"]
INSIDE = ["", ".", "..", "b\0", "b\nc", "\x9b2J"]
for bad in NAMES:
    MANIFESTS[f"the name {bad!r}"] = [
        (Item("a", FOLDER), Item(bad, size=3)) if bad[:2] == "a/" else (Item(bad, size=3),)
    ]
for bad in INSIDE:
    MANIFESTS[f"the name {bad!r} in a folder"] = [(Item("a", FOLDER), Item(f"a/{bad}", size=3))]
    MANIFESTS[f"the folder {bad!r} in a folder"] = [(Item("a", FOLDER), Item(f"a/{bad}", FOLDER), Item(f"a/{bad}/c"))]


@pytest.mark.parametrize("what", MANIFESTS)
async def test_F1_F4_an_offer_that_breaks_the_rules_is_refused_whole_before_anybody_is_asked(
    place: Place, what: str
) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: receive(far, bob, place, decide=never))
        await near.send(*(Page(items=items) for items in MANIFESTS[what]), Offer())
        answer = await near.receive()
        await near.close()
    assert isinstance(answer, Decline)
    assert "refused whole" in answer.message
    assert not set("\x1b\x9b\n\0") & set(bob.failed_with(Declined))
    assert bob.reports == []
    assert place.is_clean()


async def test_R1_an_offer_of_too_many_pages_is_refused_before_anybody_is_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MOST_PAGES", 3)
    monkeypatch.setattr(taking, "_FREE_PAGES", 0)
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: receive(far, bob, place, decide=never))
        await near.send(*(Page(items=(Item(name),)) for name in "abcd"), Offer())
        answer = await near.receive()
        await near.close()
    assert isinstance(answer, Decline)
    assert "more items than there is room for" in bob.failed_with(Declined)
    assert place.is_clean()


async def test_an_offer_of_just_as_many_pages_as_there_may_be_is_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "MOST_PAGES", 4)
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await near.send(*(Page(items=(Item(name),)) for name in "abcd"), Offer())
        assert isinstance(await near.receive(), Accept)
        told = digest(b"")
        await near.send(*(Digests(page=page, digests=told) for page in range(4)), End(bytes=0, digest=whole(told * 4)))
        assert await answer_of(near) == Want()
        assert await answer_of(near) == Receipt(items=4, bytes=0, digest=whole(told * 4))
        await near.send(Done())
    assert bob.error is None
    assert place.names() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("what", ["no page", "something else", "digests"])
async def test_an_offer_that_is_none_is_refused_before_anybody_is_asked(place: Place, what: str) -> None:
    said: dict[str, Message] = {"no page": Offer(), "something else": Done(), "digests": Digests(page=0, digests=b"")}
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: receive(far, bob, place, decide=never))
        anything(near)
        await near.send(said[what])
        assert isinstance(await near.receive(), Abort)
        await near.close()
    bob.failed_with(ProtocolError)
    assert place.is_clean()


async def test_F10_C9_what_is_kept_of_another_key_is_neither_seen_nor_told(path: Path, place: Place) -> None:
    """Two keys offer the same: the second one is asked for all of it, and what the first one sent stays his."""
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, Side(), place)
        await offered(near, Item("file.bin", size=len(CONTENT)))
        await near.send_data(memoryview(CONTENT)[:FRAME])
        await near.send(Keepalive())
        await near.stream.send_eof()
    first = place.stage()
    place.key = b"m" * 32
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, Side(), place)
        assert await offered(near, Item("file.bin", size=len(CONTENT))) == [(0, len(CONTENT))]
        await near.aclose()
    assert place.offers[1].before is False
    assert place.stage() == first
    assert (first / "0").read_bytes() == CONTENT[:FRAME]
