"""What the sender reads and hashes, for those who send it: bytes that are wanted, and digests.

What the system has in memory is read at once, which takes less time than waking a thread; what a disk has to bring is
read in one. Both work at the same time all the same: meanwhile the network has what waits in the socket, and while that
is filled the system reads ahead by itself. Errors are raised. Cancelled, a task leaves a thread behind that is stuck in
a dead disk; it closes what it has open once it comes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import trio

from glide.errors import GlideError
from glide.net.connection import FRAME
from glide.protocol.endtoend import Item, Range
from glide.transfer import reading
from glide.transfer.digests import BlockDigest, Digest, Sent
from glide.transfer.gathering import Gathered
from glide.transfer.sources import Pipe
from glide.transfer.terms import Watch

# What is read and hashed at a time, so much that a thread call costs little beside it: about 4 MiB.
BLOCK = 4 * FRAME
# What goes out together takes about so many seconds: nothing else can be said before its end.
_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Block:
    """What goes out together: bytes, and digests that were found with them."""

    data: memoryview
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


Give: TypeAlias = Callable[[Block], Awaitable[None]]

_NOTHING = memoryview(b"")
_NONE: Sequence[Digest | Sent] = ()


@asynccontextmanager
async def _lent(close: Callable[[], None], give: Give) -> AsyncIterator[reading.Borrowed]:
    """What threads work on while the block runs. An error leaves it behind what is being sent, whose end must be out
    before the peer can be told why."""
    borrowed = reading.Borrowed(close)
    try:
        yield borrowed
    except GlideError:
        await give(Block(_NOTHING))
        raise
    finally:
        borrowed.close()


async def read(gathered: Gathered, watch: Watch, wanted: trio.MemoryReceiveChannel[list[Range]], give: Give) -> None:
    """Read and hash what is wanted, and give it a block at a time."""
    reader = reading.Reader(gathered)
    buffer = memoryview(bytearray(min(BLOCK, gathered.manifest.bytes + 1)))  # one more, so that one call sees the end
    async with _lent(reader.close, give) as borrowed:
        async for each in wanted:
            reader.begin(each)
            last = False
            while not last:
                count, found, last = reader.fill_cached(buffer), _NONE, False
                if count < len(buffer):
                    watch.disk = "your disk does not deliver what is to be sent"
                    # Abandoned when cancelled: a dead network disk must not keep the process from ending.
                    more, found, last = await trio.to_thread.run_sync(
                        borrowed.use, partial(reader.fill, buffer[count:]), abandon_on_cancel=True
                    )
                    watch.disk = ""
                    count += more
                await give(Block(buffer[:count], found, last))


async def read_pipe(watch: Watch, give: Give) -> None:
    """Read what comes, for as long as it comes, and give it at once."""
    pipe = Pipe()
    while True:
        watch.disk = "nothing comes from the program whose output is sent"
        piece = await trio.to_thread.run_sync(pipe.read, abandon_on_cancel=True)
        watch.disk = ""
        if not piece:
            break
        await give(Block(piece, flush=True))
    await give(Block(_NOTHING, (pipe.digest(),), last=True))


async def check(gathered: Gathered, watch: Watch, kept: Iterator[tuple[int, Item, int]], give: Give) -> None:
    """Hash what was not wanted whole, meanwhile."""
    checking = reading.check_rest(gathered, kept)

    def some() -> list[Digest | BlockDigest] | None:
        return reading.some_of(checking)

    async with _lent(checking.close, give) as borrowed:
        while (found := await trio.to_thread.run_sync(borrowed.use, some, abandon_on_cancel=True)) is not None:
            watch.moved()
            watch.get_on()
            if found:
                await give(Block(_NOTHING, found))
