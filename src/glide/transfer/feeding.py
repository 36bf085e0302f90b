"""What the sender reads and hashes, in threads, for the task that sends it: bytes that are wanted, and digests.

A channel of one block lies between the disk and the network, so that both work at once and neither runs ahead of the
other. Errors go the way of the blocks. Cancelled, a task leaves a thread behind that is stuck in a dead disk; it closes
what it has open once it comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from glide.errors import GlideError
from glide.net.connection import FRAME
from glide.protocol.endtoend import Item, Range
from glide.transfer import reading
from glide.transfer.digests import BlockDigest, Digest, Sent
from glide.transfer.gathering import Gathered
from glide.transfer.sources import Pipe
from glide.transfer.terms import Watch

# What one thread call reads and hashes, so much that the call costs nothing to speak of: about 4 MiB.
BLOCK = 4 * FRAME
_BUFFERS = 3  # one being read, one waiting, one being sent
# What goes out together takes about so many seconds: nothing else can be said before its end.
_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Block:
    """What goes out together: bytes in a buffer that comes back, and digests that were found with them."""

    buffer: bytearray
    count: int = 0
    found: Sequence[Digest | Sent | BlockDigest] = ()
    last: bool = False  # of what was wanted up to now
    flush: bool = False


class Pace:
    """How much goes out together: as much as arrives there in a tenth of a second, within bounds."""

    def __init__(self) -> None:
        self.size = FRAME  # bytes
        self._since = trio.current_time()

    def arrived(self, count: int) -> None:
        """So many bytes more did."""
        now = trio.current_time()
        # Acknowledgements that were held up come together: none speaks for more than itself.
        rate = count / max(now - self._since, _SECONDS)
        self._since = now
        self.size = min(max(int(rate * _SECONDS) // FRAME * FRAME, FRAME), BLOCK)


Filled = trio.MemorySendChannel[Block | GlideError]


async def read(
    gathered: Gathered, watch: Watch, wanted: trio.MemoryReceiveChannel[list[Range]], filled: Filled
) -> None:
    """Read and hash what is wanted, a block at a time, each in one thread call. Errors go the way of the blocks."""
    reader = reading.Reader(gathered)
    borrowed = reading.Borrowed(reader.close)
    size = min(BLOCK, gathered.manifest.bytes + 1)  # one more, so that the first call sees the end
    empty = deque(bytearray(size) for _ in range(_BUFFERS))
    try:
        async for each in wanted:
            reader.begin(each)
            last = False
            while not last:
                # The channel takes one block while another is sent: the third buffer is free by then.
                buffer = empty.popleft()
                empty.append(buffer)
                watch.disk = "your disk does not deliver what is to be sent"
                # Abandoned when cancelled: a dead network disk must not keep the process from ending.
                count, found, last = await trio.to_thread.run_sync(
                    borrowed.use, partial(reader.fill, memoryview(buffer)), abandon_on_cancel=True
                )
                watch.disk = ""
                await filled.send(Block(buffer, count, found, last))
    except GlideError as error:
        await filled.send(error)
    finally:
        borrowed.close()


async def read_pipe(watch: Watch, filled: Filled) -> None:
    """Read what comes, for as long as it comes, and send it at once."""
    pipe = Pipe()
    try:
        while True:
            watch.disk = "nothing comes from the program whose output is sent"
            piece = await trio.to_thread.run_sync(pipe.read, abandon_on_cancel=True)
            watch.disk = ""
            if not piece:
                break
            await filled.send(Block(bytearray(piece), len(piece), flush=True))
        await filled.send(Block(bytearray(), 0, (pipe.digest(),), last=True))
    except GlideError as error:
        await filled.send(error)


async def check(gathered: Gathered, watch: Watch, kept: Iterator[tuple[int, Item, int]], filled: Filled) -> None:
    """Hash what was not wanted whole, meanwhile."""
    checking = reading.check_rest(gathered, kept)
    borrowed = reading.Borrowed(checking.close)

    def some() -> list[Digest | BlockDigest] | None:
        return reading.some_of(checking)

    try:
        while True:
            found = await trio.to_thread.run_sync(borrowed.use, some, abandon_on_cancel=True)
            if found is None:
                break
            watch.moved()
            watch.get_on()
            await filled.send(Block(bytearray(), 0, found))
    except GlideError as error:
        await filled.send(error)
    finally:
        borrowed.close()
