"""The last word of one side, while the other is still speaking."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from glide.crypto.handshake import Secrets
from glide.errors import ConnectionLost
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.protocol.endtoend import Abort, Accept, Item, Offer, Page
from glide.protocol.preface import Purpose
from glide.protocol.states import Side


async def streaming() -> tuple[Connection, Connection]:
    """A sender and a receiver who agreed on a transfer."""
    near, far = trio.testing.memory_stream_pair()
    forth, back = bytes(32), bytes([1]) * 32
    sender = Connection(
        near, Secrets(forth, back, back, b""), Purpose.END_TO_END, Side.INITIATOR, peer="bob", deadlines=Deadlines()
    )
    receiver = Connection(
        far, Secrets(back, forth, forth, b""), Purpose.END_TO_END, Side.RESPONDER, peer="alice", deadlines=Deadlines()
    )
    await sender.send(Page(items=(Item("x", size=9),)), Offer())
    await receiver.receive()
    await receiver.receive()
    await receiver.send(Accept())
    await sender.receive()
    return sender, receiver


@pytest.mark.parametrize("later", range(5))
async def test_an_abort_that_comes_while_data_are_being_sent_is_no_fault_of_ours(later: int) -> None:
    # Trio runs the tasks that are ready in an order of its own, so each turn may find the two at another step.
    for _ in range(100):
        sender, receiver = await streaming()
        await receiver.send(Abort(code="file", message="The disk is full."))
        sending = trio.CancelScope()

        async def send(sender: Connection, sending: trio.CancelScope) -> None:
            with sending:
                for _ in range(later):
                    await trio.lowlevel.checkpoint()
                try:
                    await sender.send_data(memoryview(b"123"))
                except ConnectionLost:
                    pass  # one of the two right answers

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, sender, sending)
            assert isinstance(await sender.receive(), Abort)
            sending.cancel()
