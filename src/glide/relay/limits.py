"""What anybody may ask of a relay, and why. Each limit is enforced where the resource is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from glide.errors import RelayRefused

try:
    import resource
except ImportError:  # pragma: no cover - only Windows comes here
    resource = None  # type: ignore[assignment]  # the one platform without it has no such limit either

# Descriptors kept free, beside those of kernel pipes, for listeners, files and partners of transfers that have begun.
SPARE_DESCRIPTORS = 32


@dataclass(frozen=True)
class Limits:
    """Counts, bytes and seconds."""

    # Connections that have not proved a key yet: each costs two X25519 operations at most, and ends in 30 s.
    handshakes: int = 512
    handshakes_per_address: int = 128
    # One person's sending connections under one name, and the transfers, waiting, ringing or running, of one client.
    sessions_per_name: int = 64
    transfers_per_client: int = 32
    # Messages that wait for one client to read them; a client that is this far behind is not reading.
    outbox: int = 32
    # Frames a second that a client may say on control: a person's program says one in thirty.
    pace: float = 50.0
    # A ticket is used at once: by a program, before any person is asked.
    ticket_life: float = 20.0
    # Bytes of one read, chunks waiting between the two tasks of a direction: with the one being read and the one
    # being written at most 4 x 256 KiB a direction, 2 MiB a transfer.
    chunk: int = 256 * 1024
    chunks_waiting: int = 2
    # Chunks of all transfers that are moved before others run: a few milliseconds. See Turns.
    turns: int = 16
    # Kernel pipes of a direction through which so many bytes have come: how many, of how many bytes, at most 2 MiB a
    # direction beside the blocks, 4 MiB a transfer; and the bytes of all the relay's.
    splice_after: int = 1024 * 1024
    pipes: int = 2
    pipe_size: int = 1024 * 1024
    pipe_budget: int = 32 * 1024 * 1024
    # A direction through which nothing has come for so long leaves its kernel pipes to others.
    pipe_rest: float = 5.0
    # After one side of a transfer has ended: to deliver each chunk still in the pipe, and for the other to end.
    drain: float = 30.0
    linger: float = 5.0
    # A pipe through which nothing moves, not even the keepalives of the two ends, holds memory for nobody.
    pipe_idle: float = 3600.0
    # When both sides are told whom the relay waits for.
    hint_after: float = 5.0

    @property
    def pipe_descriptors(self) -> int:
        """Of all the relay's kernel pipes, two each."""
        return 2 * (self.pipe_budget // self.pipe_size)


class _Tally:
    """How many there are, in all and of each address. Counting takes the same time however many addresses there are."""

    def __init__(self) -> None:
        self.total = 0
        self.of: Counter[str] = Counter()


class Place:
    """One more of an address while the block runs. Each idle client has one: a generator would cost 400 bytes."""

    __slots__ = ("_address", "_counted", "_tally")

    def __init__(self, tally: _Tally, address: str, *, counted: bool = False) -> None:
        self._tally = tally
        self._address = address
        self._counted = counted

    def pass_on(self) -> Place:
        """The same place, for the block of another task, which must run: this one's end does not give it back."""
        self._counted = False
        return Place(self._tally, self._address, counted=True)

    def __enter__(self) -> Place:
        if not self._counted:
            self._counted = True
            self._tally.total += 1
            self._tally.of[self._address] += 1
        return self

    def __exit__(self, *_: object) -> None:
        if not self._counted:
            return
        self._counted = False
        self._tally.total -= 1
        self._tally.of[self._address] -= 1
        if not self._tally.of[self._address]:
            del self._tally.of[self._address]


class Admission:
    """Counts the connections, those that have not proved a key yet, and those that are being turned away."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handshakes = _Tally()
        self._open = _Tally()
        self._turned_away = 0
        self._most_open = _most_descriptors(SPARE_DESCRIPTORS + limits.pipe_descriptors)
        # One address must not lock everybody else out, and a relay behind one gateway has only one. To fill the relay
        # takes two addresses all the same, as it would were this a half.
        self._most_of_one = max(self._most_open * 3 // 4, 1)

    def __repr__(self) -> str:
        return f"<Admission: {self._open.total} open, {self._handshakes.total} in handshake>"

    def connection(self, address: str) -> Place:
        """One open connection of ``address``. Raises :class:`RelayRefused` when descriptors run low."""
        if self._open.total >= self._most_open:
            raise RelayRefused("too many connections")
        if self._open.of[address] >= self._most_of_one:
            raise RelayRefused("too many connections from your address")
        return Place(self._open, address)

    def handshake(self, address: str) -> Place:
        """One handshake with ``address``. Raises :class:`RelayRefused`."""
        if self._handshakes.total >= self._limits.handshakes:
            raise RelayRefused("too many connections are being set up")
        if self._handshakes.of[address] >= self._limits.handshakes_per_address:
            raise RelayRefused("too many connections are being set up from your address")
        return Place(self._handshakes, address)

    @contextmanager
    def farewell(self) -> Iterator[bool]:
        """One connection that is turned away; False if there are too many already to be polite about it."""
        self._turned_away += 1
        try:
            yield self._turned_away <= SPARE_DESCRIPTORS // 2
        finally:
            self._turned_away -= 1


def _most_descriptors(spare: int) -> int:
    """How many connections fit this process beside ``spare``, after asking for all the descriptors that it may have."""
    if resource is None:
        return 400  # pragma: no cover - select() on Windows takes 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(soft - spare, 1)
