"""Pushes that wait: for somebody to take files under a name, or for two people to ask for each other.

Each is a task of the session that said it, and gone with it. It sleeps until the registry wakes it; nothing here looks
around. It rings whoever has come once: if they do not answer, it waits for the next who comes. Those that find their
receiver with as many transfers as it may have wait in line until one of them is over.
"""

from __future__ import annotations

from glide.errors import Replaced
from glide.relay.registry import Arrivals
from glide.relay.ringing import Exchange, Outgoing, Party


async def wait(outgoing: Outgoing, exchange: Exchange) -> None:
    """Wait and ring until this push is over. Cancelled, it is withdrawn, but for a transfer that has come together."""
    with outgoing.waiting():
        if outgoing.pair:
            await _for_counterpart(outgoing, exchange)
        else:
            await _for_receiver(outgoing, exchange)


async def _for_receiver(outgoing: Outgoing, exchange: Exchange) -> None:
    async with exchange.registry.arrivals(outgoing.to) as arrivals:
        while True:
            receiver = await _receiver_with_room(outgoing, arrivals, exchange)
            if receiver is not None and await outgoing.rings(receiver):
                return
            await outgoing.queue()
            await arrivals.news()


async def _receiver_with_room(outgoing: Outgoing, arrivals: Arrivals[Party], exchange: Exchange) -> Party | None:
    """Whom to ring now; None if there is nobody."""
    seats = exchange.seats
    receiver = arrivals.receiver()
    while receiver is not None and not outgoing.stopped():
        if seats.may_be_rung(receiver.key):
            return receiver
        await outgoing.queue()
        # Looked up again: meanwhile there may be room, or somebody else.
        key = receiver.key
        await seats.room(key)
        receiver = arrivals.receiver()
        if outgoing.stopped() or receiver is None or receiver.key != key:
            seats.wake(key)  # the room is for the next in line
    return None


async def _for_counterpart(outgoing: Outgoing, exchange: Exchange) -> None:
    """Two who ask for each other: the one who asks last rings the one who waits, whose own push is used up by that."""
    me = outgoing.sender
    assert me.name is not None, "only a named session pushes"
    again = False
    while True:
        async with exchange.registry.seeking(me.name, outgoing.to, me, again=again) as seeking:
            if seeking.waits:
                await outgoing.queue()
            if seeking.found is None:
                if not await seeking.over():
                    await outgoing.fail(Replaced.code, "A newer session of yours asks to pair with them.")
                return
        # Their seat was taken when they asked: that they have many transfers is no reason now.
        if await outgoing.rings(seeking.found):
            return
        again = True
