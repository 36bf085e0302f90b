"""What both halves of a transfer share: what the user set, what came out, and what it means when nothing moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from glide import events
from glide.errors import FileError, GlideError, IntegrityError, ProtocolError, Stalled, Stopped, from_code
from glide.net.connection import Connection
from glide.net.deadlines import IdleDeadline, idle_deadline
from glide.protocol.endtoend import Abort, Busy
from glide.protocol.fields import Digest
from glide.text import duration, printable

# Codes that a person's glide may end a transfer with; whatever else it says counts as having stopped it.
_ABORTS = (FileError, IntegrityError, ProtocolError, Stalled)


# How often a peer who waits for us is told that we get on, in seconds.
_GETTING_ON = 1.0


class Terms(msgspec.Struct, frozen=True):
    """What the user set for a transfer. Seconds; 0 means no deadline."""

    idle: float = 60.0
    ask_timeout: float = 300.0
    retry: float = 600.0  # how long a lost connection is tried again; 0: not at all
    stalled: float = 5.0  # after so long without movement a person is told what is waited for

    @property
    def often(self) -> float:
        """After how many seconds the peer should hear from us, if its patience is like ours."""
        return min(_GETTING_ON, (self.idle or math.inf) / 4, self.stalled / 2)


class Hint(msgspec.Struct):
    """What the relay said last: whom it waits for, and when it said anything at all (trio's clock)."""

    side: str = ""
    heard: Callable[[], float] = lambda: float("-inf")


class Outcome(msgspec.Struct, frozen=True):
    """What the receiver has confirmed: files, their bytes, and the digest over all as ``manifest.whole`` says.

    ``missing`` are files of the offer that do not stand there, and ``problems`` what is known of why.
    """

    items: int
    bytes: int
    digest: Digest
    missing: int = 0
    problems: tuple[str, ...] = ()


def aborted(abort: Abort, who: str, means: str) -> Stopped | FileError | IntegrityError | ProtocolError | Stalled:
    """The error that the other side's Abort comes to here. ``who`` said it; ``means`` what that means for the files."""
    said = f": {printable(abort.message, 400)}" if abort.message else "."
    error = from_code(abort.code, Stopped, *_ABORTS)(f"{who} stopped it{said}", means)
    assert isinstance(error, (Stopped, *_ABORTS))
    return error


class Cause(msgspec.Struct, frozen=True):
    """What a transfer waits for: ``who`` is ``sender``, ``receiver``, ``relay`` or ``network``; ``text`` for people."""

    who: str
    text: str


@dataclass
class Watch:
    """Whether a transfer moves and, if not, what it waits for: measured here, hinted at by the relay, told by the peer.

    ``me`` is ``sender`` or ``receiver``, ``peer`` the other person's name. ``disk`` is set while this side waits for
    its own disk (or what else the bytes come from or go to), to the words for it.
    """

    connection: Connection
    transfer: bytes
    me: str
    peer: str
    terms: Terms
    hint: Hint
    report: events.Report
    disk: str = ""
    # True if what the bytes come from, a program, may be as slow as it likes: that is no reason to give up.
    endless: bool = False
    # True at the sender once all is sent: then the relay waits for it because there is nothing left to send.
    sent_all: bool = False
    _moved: float = field(default_factory=trio.current_time)
    _busy: float = float("-inf")
    _got_on: float = float("-inf")
    _idle: IdleDeadline | None = None

    def moved(self) -> None:
        """Bytes were taken or given."""
        self._moved = trio.current_time()
        if self._idle is not None:
            self._idle.touch()

    def get_on(self) -> None:
        """Tell the peer, who hears nothing else meanwhile, that we get on; once a second at most, by default."""
        now = trio.current_time()
        if now - self._got_on >= self.terms.often:
            self._got_on = now
            self.connection.mention(Busy(seconds=0))

    async def hold(self, until: float) -> None:
        """Wait until then (trio's clock) because we want to: no deadline passes meanwhile, here or at the peer.

        Cancelled, it has only waited less.
        """
        while (rest := until - trio.current_time()) > 0:
            self.moved()
            self.get_on()
            await trio.sleep(min(rest, self.terms.often / 2))

    def disk_is_free(self) -> None:
        """The disk has answered. If a deadline passed while it was at it, that was the disk's doing all the same."""
        if self._idle is None or not self._idle.scope.cancel_called:
            self.disk = ""

    def peer_is_busy(self, seconds: int) -> None:
        """The peer said that it has waited so long for its own disk; 0: that it gets on with its work."""
        if not seconds:
            self.moved()
        else:
            self._busy = trio.current_time()
            self._be_patient()

    def _be_patient(self) -> None:
        if self.endless and self._idle is not None:
            self._idle.touch()

    @contextmanager
    def deadline(self, means: str) -> Iterator[None]:
        """Cancel the block and raise :class:`Stalled` once nothing has moved for the idle time, saying why."""
        with idle_deadline(self.terms.idle, lambda: self._stalled(means)) as self._idle:
            yield

    async def run(self) -> None:
        """Tell the person, and the peer, whenever nothing moves; until cancelled."""
        every = min(self.terms.stalled, (self.terms.idle or math.inf) / 2)
        while True:
            await trio.sleep(every)
            seconds = trio.current_time() - self._moved
            if seconds >= every:
                cause = self.cause()
                self.report(events.StalledEvent(self.transfer, cause.who, round(seconds), cause.text))
                if self.disk:
                    self._be_patient()
                    self.connection.mention(Busy(seconds=max(round(seconds), 1)))

    def cause(self) -> Cause:
        """What is waited for right now."""
        other = "receiver" if self.me == "sender" else "sender"
        now = trio.current_time()
        lately = 2 * max(self.connection.deadlines.keepalive, self.terms.stalled)
        there = now - self.connection.last_heard < lately
        if self.disk:
            return Cause(self.me, f"waiting for you: {self.disk}")
        if now - self._busy < lately:
            return Cause(other, f"waiting for {self.peer}'s disk")
        if self.sent_all and there:
            return Cause("receiver", f"waiting for {self.peer} to confirm it")
        if self.hint.side == other and there:
            return Cause("network", f"waiting for the network to {self.peer}")
        if self.hint.side == other:
            return Cause(other, f"waiting for {self.peer}, who is silent, or the network to {self.peer}")
        if self.hint.side == self.me and not self.sent_all:
            return Cause("network", "waiting for the network between you and the relay")
        if now - self.hint.heard() >= lately:
            return Cause("relay", "waiting for the relay, which is silent, or the network to it")
        if there:
            return Cause(other, f"waiting for {self.peer}, who is there")
        return Cause(other, f"waiting for {self.peer}, who is silent")

    def _stalled(self, means: str) -> GlideError:
        seconds = duration(self.terms.idle)
        arrow = f"to {self.peer}" if self.me == "sender" else f"from {self.peer}"
        cause = self.cause()
        error = Stalled(
            f"The transfer {arrow} stalled for {seconds}: {cause.text}.",
            means,
            "Allow longer pauses with --idle.",
            for_peer=f"nothing had moved for {seconds}.",
        )
        # What came to a halt between here and the relay may be mended by connecting anew.
        error.worth_a_retry = cause.who == "relay" or cause.text.endswith("you and the relay")
        return error
