"""What the receiver takes from the network, for the task that writes it: bytes in batches, and what is said.

This is where it is held to what its person allows: how many bytes, and how fast. What a manifest says was judged
before; here it is what comes that counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import trio

from glide.errors import Declined, GlideError, ProtocolError
from glide.net.connection import Connection
from glide.protocol.endtoend import Abort, Blocks, Busy, Digests, End
from glide.protocol.fields import Message
from glide.protocol.frames import Data
from glide.text import size
from glide.transfer.assembling import Assembly
from glide.transfer.storage import Arrival, Storage
from glide.transfer.terms import Watch, aborted

# Bytes that go to the disk in one thread call; fewer where the network takes longer than this to bring them: what waits
# here is lost if we are killed.
BATCH = 2 * 1024 * 1024
BATCH_SECONDS = 0.04
# A sender may cut its data into frames of a byte each; what we hold for each piece is more than that.
BATCH_PIECES = 512
SMALL_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes as they came, and what came behind them: a message, or the end."""

    views: list[memoryview]
    said: Message | GlideError | None


async def take_in(
    connection: Connection,
    watch: Watch,
    arrival: Arrival,
    storage: Storage,
    full: trio.MemorySendChannel[Batch],
) -> None:
    """Gather what arrives into batches, each with the message behind it, until the connection ends or is cancelled.

    What is more than ``arrival`` allows ends it as an error of the connection would. Cancelled while the throttle holds
    it up, nothing is lost: no more is asked of the network before all that came is on its way to the disk.
    """
    assembly, means, throttle = storage.assembly, storage.kept, arrival.throttle
    batch: list[memoryview] = []
    gathered = total = 0
    # Under a throttle a batch is no more than a second's worth: it comes at that pace to the disk, too.
    enough = BATCH if throttle is None else min(BATCH, throttle.rate)
    paid = -math.inf if throttle is None else throttle.take(0)
    begun, streams = 0.0, assembly.streams
    if throttle is not None:
        connection.take_little()
    try:
        while True:
            if not batch and total < assembly.wanted:
                await watch.hold(paid)
            said: Message | Data | None = None
            with trio.CancelScope(deadline=begun + BATCH_SECONDS if batch else math.inf):
                said = await connection.receive()
            full_enough = False
            match said:
                case Data(view=view):
                    if not view:
                        continue
                    watch.moved()
                    begun = begun if batch else trio.current_time()
                    total += len(view)
                    paid = paid if throttle is None else throttle.take(len(view))
                    if total > assembly.wanted or (assembly.streams and not streams):
                        raise ProtocolError(f"{watch.peer} sent more than was asked for.", means)
                    if arrival.most is not None and _standing(assembly) + total > arrival.most:
                        raise _too_much(watch.peer, arrival.most, means)
                    # A small piece is copied: the view would keep all that came with it in memory.
                    batch.append(view if len(view) >= SMALL_PIECE else memoryview(bytes(view)))
                    gathered += len(view)
                    full_enough = gathered >= enough or len(batch) >= BATCH_PIECES or total == assembly.wanted
                case None | Digests() | Blocks() | End():
                    streams = streams and not isinstance(said, Digests)  # then it has ended
                    full_enough = True
                case Busy(seconds=seconds):
                    watch.peer_is_busy(seconds)
                case Abort() as abort:
                    raise aborted(abort, watch.peer, means)
                case other:
                    raise ProtocolError(f"{watch.peer} said {type(other).__name__} in between.", means)
            if full_enough:
                await full.send(Batch(batch, None if isinstance(said, Data) else said))
                batch, gathered = [], 0
    except GlideError as error:
        # What came before it is still stored.
        await full.send(Batch(batch, error))


def _standing(assembly: Assembly) -> int:
    """Bytes of a transfer that are here already, or are of files that cannot be: all that is not asked for."""
    return 0 if assembly.streams else assembly.stock.manifest.bytes - assembly.wanted


def _too_much(sender: str, most: int, means: str) -> Declined:
    """Somebody sends more than ``most`` bytes in one transfer."""
    return Declined(
        f"{sender} sent more than the {size(most)} that you take from them in one transfer.",
        means,
        "A larger size in the policy lets it through.",
        for_peer=f"they take at most {size(most)} from you in one transfer.",
    )
