"""A registered control connection, shared by all that its client does at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from glide.client.address import Address
from glide.errors import ConnectionLost, GlideError, RelayRefused, Replaced, Unreachable, from_code
from glide.net.connection import Connection
from glide.protocol.fields import Message
from glide.protocol.messages import Failed, Goodbye, Incoming, Queued, Ringing, Waiting
from glide.text import printable
from glide.transfer.terms import Hint

# What the relay's answers are about: a transfer, somebody's name (who asks to pair), or who is here.
Subject: TypeAlias = bytes | str
EVERYBODY: Final = ""


@dataclass
class Link:
    """A registered control connection, for all that its client does at once.

    ``inbox`` yields the offers of others, and ends when the connection does; ``why`` then says how, and ``over`` is
    set. Losing it never ends a transfer: those have connections of their own. ``clock`` is the relay's when this
    began, in seconds since 1970; 0 if it did not tell.
    """

    address: Address
    relay_key: bytes
    name: str | None
    greeting: str
    clock: int
    connection: Connection
    inbox: trio.MemoryReceiveChannel[Incoming]
    why: GlideError | None = None
    over: trio.Event = field(default_factory=trio.Event)
    hints: dict[bytes, Hint] = field(default_factory=dict)
    listing: trio.Lock = field(default_factory=trio.Lock)  # held by whoever asks for everybody, page by page
    _expected: dict[Subject, trio.MemorySendChannel[Message]] = field(default_factory=dict)

    @contextmanager
    def hint(self, transfer: bytes) -> Iterator[Hint]:
        """What the relay says of a transfer while the block runs."""
        self.hints[transfer] = hint = Hint(heard=lambda: self.connection.last_heard)
        try:
            yield hint
        finally:
            if self.hints.get(transfer) is hint:
                del self.hints[transfer]

    def knows(self, transfer: bytes) -> bool:
        """True if something of this id is under way here: ids of others must not be mistaken for it."""
        return transfer in self.hints or transfer in self._expected

    async def ask(self, message: Message, within: float | None = None) -> None:
        """Say something to the relay. Raises why the connection ended, if it has.

        Not to be cut by a cancellation, which would cost all who share this connection; it takes ``within`` seconds at
        most, or those of a handshake.
        """
        if self.why is not None:
            raise self.why
        seconds = within if within is not None else self.connection.deadlines.handshake
        with trio.move_on_after(seconds, shield=True):
            await self.connection.send(message)
            return
        raise ConnectionLost(f"The relay {self.address} took nothing for {seconds:.0f} s.", "Nothing was sent.")

    @contextmanager
    def answers(self, *subjects: Subject) -> Iterator[trio.MemoryReceiveChannel[Message]]:
        """What the relay says of these subjects while the block runs; see :meth:`answer`."""
        # Of what is asked once there are a few answers at most; what a relay says beyond that is dropped.
        channel_in, channel = trio.open_memory_channel[Message](8)
        if self.why is not None:
            channel_in.close()
        with channel_in, channel:
            self._expected.update(dict.fromkeys(subjects, channel_in))
            try:
                yield channel
            finally:
                for subject in subjects:
                    self._expected.pop(subject, None)

    async def answer(self, answers: trio.MemoryReceiveChannel[Message]) -> Message:
        """The next of :meth:`answers`. Raises why the connection ended, if it does."""
        try:
            return await answers.receive()
        except trio.EndOfChannel:
            assert self.why is not None, "answers end with the connection"
            raise self.why from None

    async def listen(self, inbox: trio.MemorySendChannel[Incoming]) -> None:
        """Take in what the relay says, for whoever waits for it, until the connection ends; ``why`` says how."""
        try:
            await self._take_in(inbox)
        # The reason is there before anything closes that wakes whoever waits for it.
        except ConnectionLost as error:
            self.why = ConnectionLost(
                error.what,
                "A transfer that was under way has a connection of its own, and its outcome is told by itself.",
                "Start again once the relay can be reached: it goes on where it was.",
            )
        except GlideError as error:
            self.why = error
        inbox.close()
        for channel in self._expected.values():
            channel.close()
        self.over.set()

    async def _take_in(self, inbox: trio.MemorySendChannel[Incoming]) -> None:
        while True:
            match await self.connection.receive():
                case Waiting(transfer=transfer, side=side):
                    if (hint := self.hints.get(transfer)) is not None:
                        hint.side = "" if side == "nobody" else side
                case Goodbye(code=code, message=said):
                    raise self._goodbye(code, printable(said, 400))
                case Incoming(pair=False) as incoming:
                    try:
                        inbox.send_nowait(incoming)
                    except (trio.WouldBlock, trio.BrokenResourceError):
                        pass  # nobody looks at offers: its sender is told that nobody came
                case Message() as message:
                    self._answered(message)

    def _answered(self, message: Message) -> None:
        match message:
            case Ringing(transfer=subject) | Failed(transfer=subject) | Queued(transfer=subject):
                channel = self._expected.get(subject)
            case Incoming(sender=sender):
                channel = self._expected.get(sender)
            case _:
                channel = self._expected.get(EVERYBODY)
        if channel is not None:
            try:
                channel.send_nowait(message)
            except trio.WouldBlock:
                pass  # more than was asked for

    def _goodbye(self, code: str, said: str) -> GlideError:
        if code == Replaced.code:
            return Replaced(
                f"A newer session with your key now receives as {self.name}; this one was replaced.",
                "Transfers that were under way have been finished.",
                "Nothing is wrong if you started it yourself. `glide receive` takes the name back.",
            )
        return from_code(code, ConnectionLost, Unreachable, RelayRefused)(
            f"The relay {self.address} said goodbye: {said}", "Transfers that were under way have been finished."
        )
