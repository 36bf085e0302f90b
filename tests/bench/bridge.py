"""glide's bridge and nothing else of its relay, a program.

    HOST PORT RECEIVER-HOST RECEIVER-PORT [LIMIT=NUMBER ...]

It takes one connection, makes one to the receiver, and joins them with the relay's own pipe. There are no handshakes,
no tickets, no records: what is measured is what moving the bytes costs. A ``LIMIT`` is a field of the relay's
:class:`glide.relay.limits.Limits`, so that one way to move them can be measured beside another.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import trio

from glide.relay.limits import Limits
from glide.relay.pipe import Pipe
from glide.relay.splicing import Budget


async def bridge(here: tuple[str, int], there: tuple[str, int], limits: Limits) -> None:
    """One sender, one receiver, until both directions have ended."""
    (listener,) = await trio.open_tcp_listeners(here[1], host=here[0])
    async with listener:
        sender = await listener.accept()
    receiver = await trio.open_tcp_stream(*there)
    pipe = Pipe(limits, Budget(limits))
    async with sender, receiver, trio.open_nursery() as nursery:
        nursery.start_soon(pipe.sender.run, sender)
        nursery.start_soon(pipe.receiver.run, receiver)
    pipe.leave(pipe.sender)
    pipe.leave(pipe.receiver)


if __name__ == "__main__":
    _, host, port, receiver_host, receiver_port, *changes = sys.argv
    named = {name: int(number) for name, _, number in (change.partition("=") for change in changes)}
    trio.run(bridge, (host, int(port)), (receiver_host, int(receiver_port)), replace(Limits(), **named))
