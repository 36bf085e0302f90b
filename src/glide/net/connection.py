"""An encrypted connection: typed messages, and file bytes, over any trio Stream."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager

import trio

from glide.crypto.handshake import Secrets
from glide.crypto.records import FULL, Opener, Sealer
from glide.errors import ConnectionLost, GlideError, Stopped, one_error
from glide.net import streams
from glide.net.deadlines import Deadlines
from glide.net.limiter import FrameLimiter
from glide.net.streams import BROKEN, PIECE, close_gently
from glide.protocol import frames, messages
from glide.protocol.endtoend import Abort
from glide.protocol.fields import Message
from glide.protocol.frames import HEADER, Data, Frame, Kind
from glide.protocol.messages import Keepalive
from glide.protocol.preface import Purpose
from glide.protocol.states import TABLE, Machine, Side, State

# What is asked of the socket at once where there are files. Records that came together are opened together.
_BULK = 2 * 1024 * 1024

# File bytes in one DATA frame: with its header they fill sixteen records. Always as many: how many headers there are,
# and with them how long the stream is, says nothing of what is in it.
FRAME = 16 * FULL - HEADER.size

_NO_EVENTS: Iterator[Frame | Data] = iter(())


class Connection:
    """Messages over a stream, encrypted, each checked against the state tables on its way in and out.

    Any task may :meth:`send`; one task at a time may :meth:`receive`. ``patience`` is how long, in seconds, the peer
    may be silent, or not take what is sent, before the connection counts as lost. ``peer`` is what people call the
    other side.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        secrets: Secrets,
        purpose: Purpose,
        side: Side,
        *,
        peer: str,
        deadlines: Deadlines,
        rest: bytes = b"",
    ) -> None:
        self.stream = stream
        self.peer = peer
        self.peer_key = secrets.peer
        # The hash of the handshake: equal at both ends, and nowhere else.
        self.transcript = secrets.hash
        self.deadlines = deadlines
        self.patience = deadlines.lost
        self.limiter = FrameLimiter()
        self.machine = Machine(purpose, side)
        self._sealer = Sealer(secrets.send)
        self._opener = Opener(secrets.receive)
        self._opener.feed(rest)
        # Until two clients are joined what follows a record may be none of ours: those are opened one by one.
        self._room = memoryview(bytearray(PIECE)) if purpose is Purpose.END_TO_END else None
        self._much = False  # is on its way, as far as can be told: files come
        self._decoder = frames.Decoder()
        self._events = _NO_EVENTS
        self._sending = trio.Lock()
        self._ruined = False
        self._mentioned: Message | None = None
        self._wake: trio.Event | None = None  # there is something to mention; only where keep_alive runs
        self._last_sent = trio.current_time()
        self.last_heard = trio.current_time()

    def __repr__(self) -> str:
        return f"<Connection with {self.peer}: {self.machine!r}{', ruined' if self._ruined else ''}>"

    # --- sending ---

    async def send(self, *said: Message, flush: bool = True) -> None:
        """Send messages and everything that waited before them; without ``flush``, a last, partly filled record waits.

        Raises :class:`ConnectionLost`. Cancelled half-way, the stream is ruined: it is closed, and every
        later call raises :class:`ConnectionLost`.
        """
        async with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()  # nothing is ruined where nothing was sealed
            self._check_open(message.kind for message in said)
            for message in said:
                self.machine.sent(message.kind)
            seal = self._sealer.seal_all if flush else self._sealer.seal
            sealed = seal(*(messages.to_bytes(message) for message in said))
            if sealed:
                await self._transmit(sealed, self.patience)

    async def send_data(self, data: memoryview) -> None:
        """Send file bytes in DATA frames. A last, partly filled record waits for the next call.

        Raises and is cancelled as :meth:`send`, but waits for ever: a block takes as long as the network needs, and
        whether it moves is watched by the idle deadline. ``data`` may be reused when this returns.
        """
        async with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_open([Kind.DATA])
            pieces: list[bytes | memoryview] = []
            for at in range(0, len(data), FRAME):
                piece = data[at : at + FRAME]
                self.machine.sent(Kind.DATA)
                pieces += (frames.header(Kind.DATA, len(piece)), piece)
            if sealed := self._sealer.seal(*pieces):
                await self._transmit(sealed, patience=math.inf)

    def _check_open(self, kinds: Iterable[Kind]) -> None:
        if self._ruined:
            raise self._lost()
        # While one task waited for its turn to send, another may have received the peer's last word.
        late = self.machine.state is State.CONFIRMED and not all(map(self.machine.may_say, kinds))
        if late or self.machine.state is State.CLOSED:
            raise self._lost("has said its last word")

    async def _transmit(self, sealed: bytes | memoryview, patience: float) -> None:
        try:
            with trio.fail_after(patience):
                await streams.send_all(self.stream, sealed)
        except BaseException as error:
            # Part of a record may be out: nothing sensible can follow it.
            self._ruined = True
            await trio.aclose_forcefully(self.stream)
            if isinstance(error, BROKEN):
                raise self._lost() from None
            if isinstance(error, trio.TooSlowError):
                raise self._lost(f"took nothing for {patience:.0f} s") from None
            raise
        self._last_sent = trio.current_time()

    async def keep_alive(self) -> None:
        """Say that we are here whenever nothing else was said for a while, until the last word or cancelled.

        Also what was to be mentioned. Both are dropped while something else is being sent, or waits for the peer to
        read: the patience above watches that.
        """
        while self.machine.state is not State.CLOSED:
            wait = self._last_sent + self.deadlines.keepalive - trio.current_time()
            with trio.move_on_after(wait if wait > 0 else self.deadlines.keepalive):
                if self._mentioned is None and (wait > 0 or self._sending.locked()):
                    self._wake = trio.Event()
                    await self._wake.wait()
            said, self._mentioned = self._mentioned, None
            if self._sending.locked():
                continue
            if said is not None and self.machine.may_say(said.kind):
                await self.send(said)
                continue
            due = self._last_sent + self.deadlines.keepalive - trio.current_time() <= 0
            if due and self.machine.may_say(Kind.KEEPALIVE):  # the last word may have been said while this waited
                await self.send(Keepalive())

    def silence(self) -> trio.Lock:
        """To be held, with ``async with``, while tasks that may be sending are cancelled: none is cut in the middle."""
        return self._sending

    def mention(self, message: Message) -> None:
        """Say something that may as well go unsaid, soon, if it still fits then. Never waits, and cannot be cut in two.

        That is the work of :meth:`keep_alive`.
        """
        self._mentioned = message
        if self._wake is not None:
            self._wake.set()

    # --- receiving ---

    async def receive(self) -> Message | Data:
        """The next message, or the next piece of file bytes (a view that stays valid).

        Keepalives, and messages of types that only newer versions know, are taken in silently. Raises
        :class:`ConnectionLost` at the end of the stream and after ``patience`` seconds of silence,
        :class:`IntegrityError` and :class:`ProtocolError` for what should not have been said. Cancelling
        it loses nothing.
        """
        while True:
            await self.limiter.wait()
            event = next(self._events, None)
            if event is not None:
                self.limiter.frame()
                found = self._judge(event)
                if found is not None:
                    return found
            elif (plaintext := self._opener.next(_BULK // FULL if self._room else 1)) is not None:
                self.limiter.record()
                self._events = self._decoder.feed(plaintext)
            else:
                self._events = _NO_EVENTS
                self._opener.feed(await self._read())

    def _judge(self, event: Frame | Data) -> Message | Data | None:
        """What a frame says, if it may say that here; None for what is only taken in."""
        if isinstance(event, Data):
            self.machine.received(Kind.DATA)
            return event
        message = messages.from_frame(event)
        if message is None:
            return None
        self.machine.received(message.kind)
        return None if isinstance(message, Keepalive) else message

    async def _read(self) -> bytes | bytearray | memoryview:
        """What comes next; used up before the next call."""
        try:
            with trio.move_on_after(self.patience) as waiting:
                if self._room is None:
                    piece: bytes | bytearray | memoryview = await self.stream.receive_some(PIECE)
                else:
                    if self._decoder.in_data and len(self._room) < _BULK:  # and not while somebody is asked about it
                        self._room = memoryview(bytearray(_BULK))
                    much = self._much or self._decoder.in_data
                    count = await streams.receive_into(self.stream, self._room, much=much)
                    self._much = count >= PIECE
                    piece = self._room[:count]
        except BROKEN:
            raise self._lost() from None
        if waiting.cancelled_caught:
            raise self._lost(f"was silent for {self.patience:.0f} s")
        if not piece:
            raise self._lost()
        self.last_heard = trio.current_time()
        return piece

    def _lost(self, how: str = "is gone") -> ConnectionLost:
        return ConnectionLost(f"The connection to {self.peer} {how}.")

    def leave_to(self, idle: float) -> None:
        """Be more patient than an idle deadline of so many seconds, which knows whom to blame; 0 means for ever."""
        self.patience = max(self.patience, 2 * idle) if idle else math.inf

    def take_little(self) -> None:
        """From now on take in a record at a time: what we hold the peer up for must not have come already."""
        self._room = None

    # --- ending ---

    async def say_why(self, error: GlideError) -> None:
        """Tell the peer why this ends, if it can still be told, and close so that it can be read.

        Takes at most twice ``farewell`` seconds, cancelled or not.
        """
        if self._ruined or isinstance(error, ConnectionLost):
            return
        if (self.machine.me, Kind.ABORT) in TABLE[self.machine.state]:
            with trio.move_on_after(self.deadlines.farewell, shield=True) as patience:
                try:
                    await self.send(Abort(code=error.code, message=error.for_peer[:400]))
                except ConnectionLost:
                    return  # the peer went first
            if patience.cancelled_caught:
                await trio.aclose_forcefully(self.stream)  # something else is still being sent: nothing fits behind it
                return
        if not self._ruined:  # it did not take that much
            await close_gently(self.stream, self.deadlines.farewell)

    def detach(self) -> tuple[trio.abc.HalfCloseableStream, bytes]:
        """The bare stream, and the bytes that came behind the last record: from now on it is not ours."""
        return self.stream, self._opener.rest()

    async def close(self) -> None:
        """Close so that the peer can read all that was said: see :func:`close_gently`."""
        await close_gently(self.stream, self.deadlines.farewell)

    async def aclose(self) -> None:
        """Close at once. What the peer has not read yet may be lost: prefer :meth:`close`."""
        await trio.aclose_forcefully(self.stream)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@asynccontextmanager
async def explained(connection: Connection, on_loss: Callable[[], str]) -> AsyncIterator[None]:
    """Whatever ends the block, the peer is told why; out comes one :class:`GlideError`, or what is not ours.

    ``on_loss`` says what it means here if the peer is lost. While the block runs, the connection is kept alive; that
    task is shielded, so that a cancellation does not cut a keepalive in two behind which the reason should follow.
    """
    keeping = trio.CancelScope(shield=True)

    async def keep_alive() -> None:
        with keeping:
            try:
                await connection.keep_alive()
            except ConnectionLost:
                pass  # whoever listens says so; what has come to a good end meanwhile stays that

    try:
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_alive)
                try:
                    with one_error():
                        yield
                except GlideError as error:
                    await connection.say_why(error)
                    raise
                except BaseException:
                    # Cancelled, alone or in a group; or a fault of ours, which to the peer comes to the same.
                    await connection.say_why(Stopped("Stopped."))
                    raise
                finally:
                    keeping.cancel()
    except ConnectionLost as error:
        raise ConnectionLost(error.what, on_loss(), error.next) from None
