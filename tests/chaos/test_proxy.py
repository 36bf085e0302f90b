"""The proxy does to connections what it says, and counts what passed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.chaos.proxy import BURST, HERE, PIECE, Cut, Direction, Proxy

# Well below a test's timeout; nothing here waits for it unless it fails.
PATIENCE = 10.0


@contextmanager
def joined(proxy: Proxy, listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of one connection through the proxy: the party's and the relay's."""
    with socket.create_connection((HERE, proxy.port), timeout=PATIENCE) as party:
        relay, _ = listener.accept()
        relay.settimeout(PATIENCE)
        with relay:
            yield party, relay


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0)) as made:
        made.settimeout(PATIENCE)
        yield made


def eventually(value: Callable[[], object], expected: object) -> None:
    """What the proxy has counted may lag behind what it has sent."""
    deadline = time.monotonic() + PATIENCE
    while value() != expected:
        assert time.monotonic() < deadline, f"{value()} is not {expected}"
        time.sleep(0.001)


def exactly(end: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        piece = end.recv(count - len(received))
        assert piece, f"the stream ended after {received!r}"
        received += piece
    return received


def test_bytes_pass_both_ways_and_are_counted(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy:
        for number in (1, 2):
            with joined(proxy, listener) as (party, relay):
                party.sendall(b"x" * 100)
                assert exactly(relay, 100) == b"x" * 100
                relay.sendall(b"y" * 7)
                assert exactly(party, 7) == b"y" * 7
            eventually(lambda: tuple(proxy.passed.values()), (100 * number, 7 * number))
        assert proxy.uploads == [100, 100]


def test_an_end_in_one_direction_passes_and_the_other_goes_on(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy, joined(proxy, listener) as (party, relay):
        party.shutdown(socket.SHUT_WR)
        assert relay.recv(1) == b""
        relay.sendall(b"late")
        assert exactly(party, 4) == b"late"


@pytest.mark.parametrize("how", Cut)
def test_a_cut_reaches_both_sides_and_only_those_connected(listener: socket.socket, how: Cut) -> None:
    with Proxy(listener.getsockname()[1]) as proxy:
        with joined(proxy, listener) as (party, relay):
            party.sendall(b"x")
            exactly(relay, 1)
            proxy.cut(how)
            for end in (party, relay):
                if how is Cut.RST:
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
                else:
                    assert end.recv(1) == b""
        with joined(proxy, listener) as (party, relay):
            party.sendall(b"x")
            exactly(relay, 1)


def test_what_one_side_resets_is_reset_for_the_other(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy, joined(proxy, listener) as (party, relay):
        party.sendall(b"x")
        relay.recv(1, socket.MSG_PEEK)
        relay.close()  # with a byte unread: that is a reset
        with pytest.raises(ConnectionResetError):
            party.recv(1)


def test_where_no_relay_listens_a_connection_is_reset(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with (
        Proxy(port) as proxy,
        pytest.raises(ConnectionResetError),
        socket.create_connection((HERE, proxy.port), timeout=PATIENCE) as party,
    ):
        party.recv(1)


def test_a_hole_holds_everything_back_and_loses_nothing(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy, joined(proxy, listener) as (party, relay):
        proxy.hole()
        party.sendall(b"up")
        relay.sendall(b"down")
        for end in (party, relay):
            end.settimeout(0.2)
            with pytest.raises(TimeoutError):
                end.recv(1)
            end.settimeout(PATIENCE)
        assert proxy.passed == {Direction.UP: 0, Direction.DOWN: 0}
        proxy.restore()
        assert (exactly(relay, 2), exactly(party, 4)) == (b"up", b"down")


def test_a_hole_in_one_direction_leaves_the_other(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy, joined(proxy, listener) as (party, relay):
        proxy.hole({Direction.UP})
        party.sendall(b"up")
        relay.sendall(b"down")
        assert exactly(party, 4) == b"down"
        assert proxy.passed[Direction.UP] == 0


def test_what_a_hole_held_back_is_lost_by_a_cut(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy, joined(proxy, listener) as (party, relay):
        proxy.hole({Direction.UP})
        party.sendall(b"up")
        proxy.cut(Cut.RST)
        proxy.restore()
        with pytest.raises(ConnectionResetError):
            relay.recv(1)
        assert proxy.passed[Direction.UP] == 0


def test_a_connection_made_during_a_hole_comes_through_afterwards(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy:
        proxy.hole()
        with socket.create_connection((HERE, proxy.port), timeout=PATIENCE) as party:
            party.sendall(b"x")
            listener.settimeout(0.2)
            with pytest.raises(TimeoutError):
                listener.accept()
            listener.settimeout(PATIENCE)
            proxy.restore()
            relay, _ = listener.accept()
            with relay:
                relay.settimeout(PATIENCE)
                assert exactly(relay, 1) == b"x"


def test_the_rate_holds_for_the_way_up(listener: socket.socket) -> None:
    rate, size = 1_000_000, 500_000
    with Proxy(listener.getsockname()[1], rate) as proxy, joined(proxy, listener) as (party, relay):
        begun = time.monotonic()
        party.sendall(bytes(size))
        exactly(relay, size)
        assert time.monotonic() - begun >= (size - PIECE) / rate - BURST


def test_live_uploads_are_those_of_the_connections_that_there_are(listener: socket.socket) -> None:
    with Proxy(listener.getsockname()[1]) as proxy:
        with joined(proxy, listener) as (party, relay):
            party.sendall(b"x")
            exactly(relay, 1)
            eventually(proxy.live_uploads, {0: 1})
        with joined(proxy, listener) as (party, relay):
            party.sendall(b"yy")
            exactly(relay, 2)
            eventually(proxy.live_uploads, {1: 2})
