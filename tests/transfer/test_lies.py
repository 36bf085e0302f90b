"""Each half of a transfer against a peer that lies: what does not check out lands nowhere, and is never a fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from glide import events
from glide.errors import ConnectionLost, Declined, GlideError, IntegrityError, ProtocolError, Stalled, Stopped
from glide.net.connection import FRAME, Connection
from glide.net.deadlines import Deadlines
from glide.protocol.endtoend import (
    NO_DIGEST,
    Abort,
    Accept,
    Ack,
    Blocks,
    Busy,
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
from glide.protocol.frames import Data
from glide.protocol.messages import Keepalive
from glide.transfer.gathering import gather_pipe
from glide.transfer.manifest import ENDLESS, whole
from glide.transfer.terms import Outcome, Terms
from tests.transfer.halves import (
    CONTENT,
    SMALL,
    TRANSFER,
    Place,
    Side,
    all_of,
    answer_of,
    anything,
    digest,
    ended,
    gather,
    joined,
    offered,
    receive,
    send,
    socket_pair,
    take_offer,
    until_end,
)

STREAM = ItemKind.STREAM

# --- a sender that lies about one file -----------------------------------------------------------------------

RIGHT, WRONG = digest(SMALL), digest(b"something else")
Said = tuple[Message | bytes, ...]
END = End(bytes=len(SMALL), digest=RIGHT)


def told(*digests: bytes, page: int = 0) -> Digests:
    return Digests(page=page, digests=b"".join(digests))


LIES: dict[str, tuple[Said, type[GlideError]]] = {
    "a wrong digest": ((SMALL, told(WRONG), End(bytes=len(SMALL), digest=WRONG)), IntegrityError),
    "a wrong digest of the item": ((SMALL, told(WRONG), END), IntegrityError),
    "a wrong digest of all": ((SMALL, told(RIGHT), End(bytes=len(SMALL), digest=WRONG)), IntegrityError),
    "a wrong digest before the bytes": ((told(WRONG), SMALL, END), IntegrityError),
    "a wrong total": ((SMALL, told(RIGHT), End(bytes=len(SMALL) - 1, digest=RIGHT)), IntegrityError),
    "a huge total": ((SMALL, told(RIGHT), End(bytes=2**63 - 1, digest=RIGHT)), IntegrityError),
    "other bytes": ((SMALL[::-1], told(RIGHT), END), IntegrityError),
    "too many bytes": ((SMALL + b"!", told(RIGHT), END), ProtocolError),
    "too many bytes, later": ((SMALL, b"!", told(RIGHT), END), ProtocolError),
    "far too many bytes": ((SMALL, bytes(3 * FRAME)), ProtocolError),
    "bytes after the end": ((SMALL, told(RIGHT), b"!"), ProtocolError),
    "no digest": ((SMALL, told()), ProtocolError),
    "two digests": ((SMALL, told(RIGHT, RIGHT)), ProtocolError),
    "half a digest": ((SMALL, Digests(page=0, digests=RIGHT[:16])), ProtocolError),
    "digests twice": ((SMALL[:-1], told(RIGHT), told(RIGHT)), ProtocolError),
    "digests of another page": ((SMALL, told(RIGHT, page=1)), ProtocolError),
    "digests of a page far away": ((SMALL, told(RIGHT, page=2**63 - 1)), ProtocolError),
    "no digests at all": ((SMALL, End(bytes=len(SMALL), digest=NO_DIGEST)), ProtocolError),
    "an end at once": ((End(bytes=len(SMALL), digest=NO_DIGEST),), ProtocolError),
    "an end with another digest at once": ((End(bytes=0, digest=digest(b"")),), ProtocolError),
    "blocks of what is not kept": ((Blocks(number=0, first=0, digests=RIGHT), SMALL), ProtocolError),
    "blocks of no item": ((Blocks(number=2**63 - 1, first=2**63 - 1, digests=RIGHT),), ProtocolError),
    "another offer": ((SMALL, Offer()), ProtocolError),
    "another page": ((SMALL, Page(items=(Item("other"),))), ProtocolError),
    "its own receipt": ((SMALL, told(RIGHT), Receipt(items=1, bytes=len(SMALL), digest=RIGHT)), ProtocolError),
    "done at once": ((SMALL, told(RIGHT), Done()), ProtocolError),
    "acknowledgements": ((Ack(bytes=3),), ProtocolError),
    "wishes": ((Want(ranges=((0, 1),)),), ProtocolError),
}

STREAM_LIES: dict[str, tuple[Said, type[GlideError]]] = {
    "a wrong digest": ((SMALL, told(WRONG), End(bytes=len(SMALL), digest=WRONG)), IntegrityError),
    "a wrong total": ((SMALL, told(RIGHT), End(bytes=len(SMALL) + 1, digest=RIGHT)), IntegrityError),
    "digests twice": ((SMALL, told(RIGHT), told(RIGHT)), ProtocolError),
    "digests of another page": ((SMALL, told(RIGHT, page=1)), ProtocolError),
    "bytes after the digests": ((SMALL, told(RIGHT), b"!", END), ProtocolError),
    "nothing, and bytes after the digests": ((told(digest(b"")), b"!"), ProtocolError),
    "no digests at all": ((SMALL, End(bytes=len(SMALL), digest=NO_DIGEST)), ProtocolError),
    "blocks": ((SMALL, Blocks(number=0, first=0, digests=RIGHT)), ProtocolError),
}


async def lied_to(place: Place, bob: Side, item: Item, said: Said, kind: type[GlideError]) -> None:
    answer: Message | Data | None = None
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, item)
        anything(near)
        try:
            for each in said:
                if isinstance(each, bytes):
                    await near.send_data(memoryview(each))
                else:
                    await near.send(each, flush=False)
            await near.send(Keepalive())  # so that bytes alone do not wait for more
            answer = await answer_of(near)
            await near.close()
        except ConnectionLost:
            assert bytes(3 * FRAME) in said, "otherwise there was time to say why"
    bob.failed_with(kind)
    if answer is not None:
        assert isinstance(answer, Abort)
        assert answer.code == kind.code
    assert bob.of(events.Saved) == bob.of(events.Received) == []


@pytest.mark.parametrize("lie", LIES)
async def test_C4_what_does_not_check_out_gets_no_final_name(place: Place, lie: str) -> None:
    said, kind = LIES[lie]
    await lied_to(place, Side(), Item("file.bin", size=len(SMALL)), said, kind)
    assert place.final() == []


@pytest.mark.parametrize("lie", STREAM_LIES)
async def test_C4_a_stream_that_does_not_check_out_gets_no_final_name(place: Place, lie: str) -> None:
    said, kind = STREAM_LIES[lie]
    await lied_to(place, Side(), Item("stdin", STREAM), said, kind)
    assert place.final() == []


@pytest.mark.parametrize("lie", ["a wrong digest", "other bytes", "a wrong digest of all"])
async def test_C4_after_a_lie_an_honest_sender_comes_through(place: Place, lie: str) -> None:
    said, kind = LIES[lie]
    item = Item("file.bin", size=len(SMALL))
    await lied_to(place, Side(), item, said, kind)
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        for start, length in await offered(near, item):
            await near.send_data(memoryview(SMALL)[start : start + length])
        await ended(near, SMALL)
        answer = await answer_of(near)
        if isinstance(answer, Want):  # what was kept is not what is sent now
            assert answer.ranges == ((0, len(SMALL)),)
            await near.send_data(memoryview(SMALL))
            await near.send(Keepalive())
            answer = await answer_of(near)
        assert isinstance(answer, Receipt)
        await near.send(Done())
    assert bob.error is None
    assert place.into is not None
    assert (place.into / "file.bin").read_bytes() == SMALL
    assert place.is_clean()


async def test_a_sender_may_put_its_bytes_into_small_frames(place: Place) -> None:
    content = CONTENT[:20_000]
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, Item("file.bin", size=len(content)))
        for at in range(0, len(content), 4):
            await near.send_data(memoryview(content)[at : at + 4])
        await ended(near, content)
        assert isinstance(await answer_of(near), Receipt)
        await near.send(Done())
    assert bob.error is None
    assert place.into is not None
    assert (place.into / "file.bin").read_bytes() == content


async def test_a_digest_may_come_before_the_bytes_and_an_end_before_the_last_of_them(place: Place) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, Item("file.bin", size=len(SMALL)))
        await near.send(told(RIGHT), END)
        await near.send_data(memoryview(SMALL))
        await near.send(Keepalive())
        assert isinstance(await answer_of(near), Receipt)
        await near.send(Done())
    assert bob.error is None
    assert place.final() == ["file.bin"]


@pytest.mark.parametrize("after", ["the accept", "some bytes", "all bytes", "the digests"])
async def test_C4_a_connection_that_ends_is_not_a_transfer_that_ended(place: Place, after: str) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, Item("file.bin", size=len(SMALL)))
        if after != "the accept":
            await near.send_data(memoryview(SMALL[:5]))
            await near.send(Keepalive())
        if after in ("all bytes", "the digests"):
            await near.send_data(memoryview(SMALL[5:]))
            await near.send(Keepalive())
        if after == "the digests":
            await near.send(told(RIGHT))
        await near.stream.send_eof()
    said = bob.failed_with(ConnectionLost)
    assert "alice is gone" in said
    assert place.final() == []
    assert place.is_clean() is (after == "the accept"), "what arrived is kept, and nothing else"
    assert ("Nothing was kept" in said) is place.is_clean()
    assert [kept.bytes for kept in place.kept()] == {"the accept": [], "some bytes": [5]}.get(after, [len(SMALL)])


@pytest.mark.parametrize("after", ["done", "hangs up", "is silent", "aborts", "sends more", "sends rubbish", "is busy"])
async def test_C4_what_the_sender_does_after_the_end_changes_nothing_at_the_receiver(place: Place, after: str) -> None:
    bob = Side()
    async with joined(Deadlines(handshake=1.0, farewell=0.2)) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, Item("file.bin", size=len(SMALL)))
        await near.send_data(memoryview(SMALL))
        await ended(near, SMALL)
        assert await answer_of(near) == Receipt(items=1, bytes=len(SMALL), digest=RIGHT)
        anything(near)
        match after:
            case "done":
                await near.send(Done())
            case "hangs up":
                await near.aclose()
            case "aborts":  # it crossed the receipt
                await near.send(Abort(code="cancelled"))
            case "sends more":
                await near.send(told(WRONG))
            case "sends rubbish":
                await near.stream.send_all(bytes(100))
            case "is busy":
                await near.send(Busy(seconds=3), Done())
    assert bob.error is None, "the file is there: to say that nothing was kept would be wrong"
    assert bob.outcome == Outcome(1, len(SMALL), RIGHT)
    assert place.into is not None
    assert (place.into / "file.bin").read_bytes() == SMALL
    assert place.names() == ["file.bin"]
    assert bob.reports[-1] == events.Received(TRANSFER, "alice", 1, len(SMALL))


async def test_D1_what_a_sender_says_when_it_stops_is_made_printable(place: Place) -> None:
    bob = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, Item("file.bin", size=len(SMALL)))
        await near.send(Abort(code="cancelled", message="\x1b]52;c;cm0=\x07\u202e\r"))
        await near.close()
    said = bob.failed_with(Stopped)
    assert not set("\x1b\x07\r\u202e") & set(said)
    assert "alice" in said


@pytest.mark.parametrize("after", ["the accept", "the wishes"])
async def test_a_file_that_the_sender_could_not_read_is_told_as_missing_and_is_not_there(
    place: Place, after: str
) -> None:
    bob = Side()
    items = (Item("a", size=len(SMALL)), Item("b", size=len(SMALL)))
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(receive, far, bob, place)
        await offered(near, *items)
        if after == "the accept":  # told before its bytes, which mean nothing
            await near.send(told(RIGHT, NO_DIGEST))
        await near.send_data(memoryview(SMALL + bytes(len(SMALL))))
        if after == "the wishes":
            await near.send(told(RIGHT, NO_DIGEST))
        await near.send(End(bytes=2 * len(SMALL), digest=whole(RIGHT + NO_DIGEST)))
        assert await answer_of(near) == Receipt(items=1, bytes=len(SMALL), digest=whole(RIGHT + NO_DIGEST))
        await near.send(Done())
    assert bob.outcome is not None
    assert (bob.outcome.items, bob.outcome.missing) == (1, 1)
    assert place.names() == ["a"]


# --- a receiver that lies ------------------------------------------------------------------------------------

TOTAL, GOOD = len(CONTENT), digest(CONTENT)


def receipt(items: int = 1, size: int = TOTAL, of: bytes = GOOD) -> Receipt:
    return Receipt(items=items, bytes=size, digest=of)


def want(*ranges: tuple[int, int], more: bool = False) -> Want:
    return Want(ranges=ranges, more=more)


@dataclass(frozen=True)
class Words:
    """What a receiver says in place of its wishes, or after the end."""

    wishes: Said = (want((0, TOTAL)),)
    after: Said = (receipt(),)


WRONG_ANSWERS: dict[str, Words] = {
    "more bytes than were offered": Words(after=(Ack(bytes=TOTAL + 1),)),
    "bytes before any were sent": Words((Ack(bytes=TOTAL), want((0, TOTAL)))),
    "fewer bytes than before": Words(after=(Ack(bytes=FRAME), Ack(bytes=FRAME - 1))),
    "a receipt before the end": Words((receipt(),)),
    "a receipt with another digest": Words(after=(receipt(of=WRONG),)),
    "a receipt with fewer bytes": Words(after=(receipt(size=TOTAL - 1),)),
    "a receipt with more bytes": Words(after=(receipt(size=TOTAL + 1),)),
    "a receipt with more items": Words(after=(receipt(items=2),)),
    "a receipt of nothing with bytes beyond": Words(after=(receipt(items=0, size=TOTAL + 1),)),
    "a no after the yes": Words((Decline(code="declined"),)),
    "yes twice": Words((Accept(),)),
    "an offer of its own": Words((Offer(),)),
    "that it is done": Words(after=(Done(),)),
    "bytes": Words((b"bytes",)),
    "digests": Words((told(GOOD),)),
    "a range beyond the end": Words((want((0, TOTAL + 1)),)),
    "a range that begins beyond the end": Words((want((TOTAL, 1)),)),
    "a range far beyond the end": Words((want((2**63 - 1, 2**63 - 1)),)),
    "a range that is endless": Words((want((0, ENDLESS)),)),
    "a range of nothing": Words((want((0, 0)),)),
    "ranges that overlap": Words((want((0, 10), (9, 10)),)),
    "ranges out of order": Words((want((10, 10), (0, 10)),)),
    "ranges that overlap from one message to the next": Words((want((0, 10), more=True), want((9, 10)))),
    "too many ranges": Words(tuple(want(*((2 * at, 1) for at in range(500)), more=True) for _ in range(3))),
    "ranges beyond the end, later": Words(after=(want((TOTAL, 1)),)),
}


@pytest.mark.parametrize("what", WRONG_ANSWERS)
async def test_C4_a_receiver_that_says_what_cannot_be_is_not_believed(path: Path, what: str) -> None:
    words = WRONG_ANSWERS[what]
    alice = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        await take_offer(far)
        anything(far)
        heard: Message | Data | None = None
        try:
            await far.send(Accept(), flush=False)
            for each in words.wishes:
                if isinstance(each, bytes):
                    await far.send_data(memoryview(each))
                else:
                    await far.send(each, flush=False)
            await far.send(Keepalive())
            while not isinstance(heard, (End, Abort)):
                heard = await far.receive()
            if isinstance(heard, End):
                for each in words.after:
                    assert not isinstance(each, bytes)
                    await far.send(each)
                while not isinstance(heard, (Abort, Done)):
                    heard = await far.receive()
        except ConnectionLost:
            pass
        await far.close()
    alice.failed_with(ProtocolError)


@pytest.mark.parametrize("ranges", [(), ((0, 10),), ((0, ENDLESS - 1),), ((1, ENDLESS),), ((0, ENDLESS), (ENDLESS, 1))])
async def test_of_a_stream_nothing_but_all_can_be_wanted(ranges: tuple[tuple[int, int], ...]) -> None:
    alice = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather_pipe(None, lambda _: None))
        await take_offer(far)
        await far.send(Accept(), Want(ranges=ranges))
        assert isinstance(await answer_of(far), Abort)
        await far.close()
    assert "a part of what has no parts" in alice.failed_with(ProtocolError)


@pytest.mark.parametrize(
    "ranges",
    [
        ((3, 5), (8, 1), (FRAME - 1, 2), (TOTAL - 1, 1)),
        ((3, 5), (8, 1), (FRAME - 1, 2), (TOTAL - 2, 1)),
        ((100, 4), (200, 5)),
        ((0, 4), (TOTAL - 5, 5)),
        ((0, 9),),
    ],
)
async def test_a_receiver_may_want_what_it_likes_in_order(path: Path, ranges: tuple[tuple[int, int], ...]) -> None:
    """And is sent just that. Digests of blocks are told of what lies before, if it is the end that is sent."""
    alice, heard, blocks = Side(), b"", False
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        await take_offer(far)
        await far.send(Accept(), want(*ranges[:2], more=True), want(*ranges[2:]))
        while not isinstance(message := await far.receive(), End):
            heard += bytes(message.view) if isinstance(message, Data) else b""
            blocks = blocks or isinstance(message, Blocks)
        await far.send(receipt())
        assert isinstance(await answer_of(far), Done)
    assert blocks is (ranges[0][0] > 0 and sum(ranges[-1]) == TOTAL)
    assert heard == b"".join(CONTENT[start : start + length] for start, length in ranges)
    assert alice.outcome == Outcome(1, TOTAL, GOOD)
    assert alice.of(events.Resumed) == [events.Resumed(TRANSFER, TOTAL - 9)]


@pytest.mark.parametrize("ends", ["the idle time", "its user"])
async def test_R5_a_receiver_that_confirms_and_takes_no_more_cannot_hold_a_sender(path: Path, ends: str) -> None:
    """It asks for some of it again, reads nothing of that, and says that it has everything."""
    alice, over = Side(), trio.Event()
    terms = Terms(idle=0.8 if ends == "the idle time" else 0)
    async with joined(Deadlines(farewell=0.2), socket_pair) as (near, far), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def sender() -> None:
            with scope:
                await send(near, alice, gather(path), terms)
            over.set()

        nursery.start_soon(sender)
        await confirmed_while_sending(near, far, FRAME)
        await trio.testing.wait_all_tasks_blocked(0.1)
        if ends == "its user":
            assert not over.is_set()
            scope.cancel()
        with trio.fail_after(5.0):
            await over.wait()
    assert alice.outcome is None
    if ends == "the idle time":
        assert "stalled" in alice.failed_with(Stalled)


async def confirmed_while_sending(near: Connection, far: Connection, again: int) -> None:
    """Take all, ask for so many bytes again, and confirm all while the sender waits to send these."""
    await far.send(Accept(), all_of(await take_offer(far)))
    await until_end(far)
    await far.send(want((0, again)))
    while not near._sending.locked():
        await trio.testing.wait_all_tasks_blocked(0.05)
    await trio.testing.wait_all_tasks_blocked(0.1)  # the socket is full
    await far.send(receipt())


@pytest.mark.parametrize("again", [FRAME, TOTAL])
async def test_C4_a_receiver_that_confirms_what_is_still_being_sent_is_no_fault(path: Path, again: int) -> None:
    """It reads on afterwards; if more was to come, it cannot be right."""
    alice = Side()
    async with joined(streams=socket_pair) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        await confirmed_while_sending(near, far, again)
        await trio.testing.wait_all_tasks_blocked(0.1)
        anything(far)
        while not isinstance(await far.receive(), (Done, Abort)):
            pass
        await far.close()
    if again == TOTAL:
        assert "what it has not got" in alice.failed_with(ProtocolError)
    else:
        assert alice.outcome == Outcome(1, TOTAL, GOOD)


async def test_C4_of_files_that_were_not_sent_none_is_believed_to_have_arrived(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(SMALL)
    gathered = gather(*(tmp_path / name for name in "abc"))
    (tmp_path / "b").unlink()
    alice = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gathered)
        await far.send(Accept(), all_of(await take_offer(far)))
        end = await until_end(far)
        assert end == End(bytes=3 * len(SMALL), digest=whole(RIGHT + NO_DIGEST + RIGHT))
        await far.send(receipt(items=3, size=3 * len(SMALL), of=end.digest))
        await far.close()
    alice.failed_with(ProtocolError)


@pytest.mark.parametrize("after", ["the offer", "the accept", "some bytes", "the end"])
async def test_C4_without_a_receipt_nothing_was_delivered(path: Path, after: str) -> None:
    alice = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        wish = all_of(await take_offer(far))
        if after != "the offer":
            await far.send(Accept(), wish)
        if after == "some bytes":
            await far.receive()
        if after == "the end":
            await until_end(far)
            await far.send(Ack(bytes=TOTAL))
        await far.aclose()
    assert "bob is gone" in alice.failed_with(ConnectionLost)


async def test_C4_with_the_receipt_it_was_delivered_whatever_becomes_of_the_receiver(path: Path) -> None:
    alice = Side()
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        await far.send(Accept(), all_of(await take_offer(far)))
        await until_end(far)
        await far.send(receipt())
        await far.aclose()  # nobody is there to be told that we have it
    assert alice.error is None
    assert alice.outcome == Outcome(1, TOTAL, GOOD)


@pytest.mark.parametrize("when", ["declines", "stops it", "stops it in between"])
async def test_D1_what_a_receiver_says_is_made_printable(path: Path, when: str) -> None:
    alice = Side()
    hostile = "\x1b]52;c;cm0=\x07\u202e\r" + "x" * 370
    async with joined() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(send, near, alice, gather(path))
        wish = all_of(await take_offer(far))
        match when:
            case "declines":
                await far.send(Decline(code="declined", message=hostile))
            case "stops it":
                await far.send(Accept(), Abort(code="no such word", message=hostile))
            case "stops it in between":
                await far.send(Accept(), wish, Ack(bytes=0), Abort(code="no such word", message=hostile))
        await far.close()
    said = alice.failed_with(Declined if when == "declines" else Stopped)
    assert not set("\x1b\x07\r\u202e") & set(said)
    assert said.startswith("bob ")
