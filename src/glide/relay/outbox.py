"""What is to be said to one client: a bounded memory channel, and a task that sends what is in it.

Both are there only while there is something to say. A client that is merely here, as most are most of the time, costs
neither: they would be a third of its memory.
"""

from __future__ import annotations

import trio

from glide.errors import ConnectionLost
from glide.net.connection import Connection
from glide.net.streams import BROKEN
from glide.protocol.fields import Message


class Outbox:
    """Takes messages from :meth:`open` on to its end, and sends them while the nursery runs that it is given.

    ``most`` messages may wait in it. It ends with :meth:`put_last` or :meth:`close`, and takes nothing after that.
    """

    __slots__ = ("_channel", "_connection", "_last", "_most", "_nursery", "_over")

    def __init__(self, connection: Connection, most: int) -> None:
        self._connection = connection
        self._most = most
        self._nursery: trio.Nursery | None = None
        self._channel: tuple[trio.MemorySendChannel[Message], trio.MemoryReceiveChannel[Message]] | None = None
        self._last: Message | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<Outbox: {'over' if self.over else 'speaking' if self.speaks else 'silent'}>"

    @property
    def over(self) -> bool:
        """True if nothing is taken any more."""
        return self._over or self._last is not None

    @property
    def speaks(self) -> bool:
        """True while something is being said."""
        return self._channel is not None

    def put(self, message: Message) -> bool:
        """Have it said; False if too much is waiting already, or this is over. Never waits."""
        if self.over:
            return False
        try:
            self._open().send_nowait(message)
        except trio.WouldBlock:
            return False
        return True

    async def put_in_turn(self, message: Message) -> None:
        """The same, waiting for room; nothing happens if this is over, or is meanwhile."""
        if not self.over:
            try:
                await self._open().send(message)
            except BROKEN:
                pass

    def put_last(self, message: Message) -> None:
        """Have it said when all is said that waits, and then end the nursery."""
        if not self.over:
            self._last = message
            if self._channel is not None:
                self._channel[0].close()
            else:
                self._start()

    def begin(self, nursery: trio.Nursery) -> None:
        """Send from now on, as a task of ``nursery``. Losing the connection ends the nursery, and is not raised."""
        self._nursery = nursery
        if self._channel is not None or self._last is not None:
            self._start()

    def close(self) -> None:
        """To be called before the nursery ends."""
        self._over = True
        self._nursery = None

    def _open(self) -> trio.MemorySendChannel[Message]:
        if self._channel is None:
            self._channel = trio.open_memory_channel(self._most)
            self._start()
        return self._channel[0]

    def _start(self) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._speak, self._nursery)

    async def _speak(self, nursery: trio.Nursery) -> None:
        try:
            if self._channel is not None:
                await self._send_all(*self._channel)
            if self._last is not None:
                await self._connection.send(self._last)
                nursery.cancel_scope.cancel()
        except ConnectionLost:
            nursery.cancel_scope.cancel()
        finally:
            if self._channel is not None:  # cut short, and closed: whoever comes before the session ends finds it over
                self.close()

    async def _send_all(
        self, put: trio.MemorySendChannel[Message], waiting: trio.MemoryReceiveChannel[Message]
    ) -> None:
        with put, waiting:
            while True:
                try:
                    message = waiting.receive_nowait()
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
                await self._connection.send(message)
        self._channel = None
