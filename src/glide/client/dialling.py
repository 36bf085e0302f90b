"""The connections of a client to its relay: one for control, one for each transfer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from glide import events
from glide.client.address import Address
from glide.client.link import Link
from glide.client.me import Me
from glide.crypto.identity import fingerprint
from glide.errors import (
    ConnectionLost,
    KeyChanged,
    NameTaken,
    RelayRefused,
    Stalled,
    Unreachable,
    from_code,
    leaves,
    one_error,
)
from glide.net.connection import Connection
from glide.net.opening import initiate
from glide.people.known import Trust, check_relay
from glide.protocol.messages import (
    Hello,
    Incoming,
    Joined,
    Refused,
    Role,
    Ticket,
    Welcome,
)
from glide.protocol.preface import Purpose
from glide.text import printable

# Offers that wait to be looked at; the relay rings no client for more.
_MOST_INCOMING = 64


async def _dial(address: Address, purpose: Purpose, me: Me) -> tuple[Connection, Trust]:
    """A connection to the relay, its key checked against what was said and what is pinned."""
    try:
        with trio.fail_after(me.deadlines.handshake):
            stream = await trio.open_tcp_stream(address.host, address.port)
    except trio.TooSlowError:
        raise _unreachable(address, f"no answer within {me.deadlines.handshake:.0f} s") from None
    except OSError as error:
        raise _unreachable(address, _reason(error)) from None
    trust = Trust.NEW
    pin = await trio.to_thread.run_sync(me.known.relay, str(address))

    def check(key: bytes) -> None:
        nonlocal trust
        if address.key is not None and key != address.key:
            raise KeyChanged(
                f"The relay {address} has another key than the one given: {fingerprint(key)}, not "
                f"{fingerprint(address.key)}.",
                "Nothing was transferred. Another machine may be answering in its place.",
                "Ask whoever runs it for the line that `glide serve` prints.",
            )
        trust = check_relay(pin, str(address), key)

    try:
        connection, _ = await initiate(
            stream, purpose, me.identity, peer=f"the relay {address}", deadlines=me.deadlines, check=check
        )
    except (ConnectionLost, Stalled) as error:
        await trio.aclose_forcefully(stream)
        raise _unreachable(address, error.what) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return connection, trust


def _unreachable(address: Address, reason: str) -> Unreachable:
    return Unreachable(
        f"The relay {address} cannot be reached: {reason.rstrip('.')}.",
        "Nothing was transferred.",
        "Is `glide serve` running there, and are host and port right (--relay, or `glide use`)?",
    )


def _reason(error: OSError) -> str:
    """Trio wraps the errors of all addresses it tried; the first is what a person understands."""
    if isinstance(error.__cause__, BaseExceptionGroup):
        error = next((each for each in leaves(error.__cause__) if isinstance(each, OSError)), error)
    elif isinstance(error.__cause__, OSError):
        error = error.__cause__
    # Of a name that does not resolve the number is another kind of number.
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno) if known and error.errno else error.strerror or str(error)


@asynccontextmanager
async def connect(
    address: Address, me: Me, *, role: Role, name: str | None, report: events.Report, invisible: bool = False
) -> AsyncIterator[Link]:
    """A control connection that is registered as ``name`` while the block runs.

    Raises :class:`Unreachable`, :class:`KeyChanged`, :class:`NameTaken`, :class:`RelayRefused` and what else a
    connection may raise. A relay that was never met before is pinned, with a notice.
    """
    connection, trust = await _dial(address, Purpose.CONTROL, me)
    async with connection:
        if trust is Trust.NEW:
            await trio.to_thread.run_sync(me.known.remember_relay, str(address), connection.peer_key)
            report(
                events.Notice(
                    f"First meeting with the relay {address}: its fingerprint is {fingerprint(connection.peer_key)}, "
                    "remembered from now on."
                )
            )
        report(events.Detail(f"The relay {address} has proved its key {fingerprint(connection.peer_key)}."))
        welcome = await _register(connection, Hello(role=role, name=name, invisible=invisible), address)
        channel_in, channel = trio.open_memory_channel[Incoming](_MOST_INCOMING)
        link = Link(address, connection.peer_key, name, welcome.greeting, welcome.time, connection, channel)
        with channel, one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_alive, connection)
                nursery.start_soon(link.listen, channel_in)
                yield link
                nursery.cancel_scope.cancel()


async def _keep_alive(connection: Connection) -> None:
    try:
        await connection.keep_alive()
    except ConnectionLost:
        pass  # the listening task says so


async def _register(connection: Connection, hello: Hello, address: Address) -> Welcome:
    with trio.move_on_after(connection.deadlines.handshake):
        await connection.send(hello)
        match await connection.receive():
            case Welcome() as welcome:
                return welcome
            case Refused(code=code, message=said):
                raise from_code(code, RelayRefused, NameTaken)(printable(said, 400))
    raise _unreachable(address, f"no answer within {connection.deadlines.handshake:.0f} s")


def name_taken(error: NameTaken, name: str, means: str) -> NameTaken:
    """What to do about a name that somebody else holds."""
    return NameTaken(
        f"{error.what}: somebody else is {name} at this relay.",
        means,
        f"Choose another name with --as, {name[:25]}-laptop for instance: each machine has its own key.",
    )


async def open_data(address: Address, relay_key: bytes, ticket: bytes, me: Me) -> tuple[trio.SocketStream, bytes]:
    """A data connection that has been joined to its partner: the stream, and the partner's first bytes if any.

    Raises :class:`RelayRefused` if the partner did not come, and what else a connection may raise.
    """
    connection, _ = await _dial(Address(address.host, address.port, relay_key), Purpose.DATA, me)
    try:
        await connection.send(Ticket(ticket=ticket))
        with trio.fail_after(me.deadlines.join):
            match await connection.receive():
                case Refused(message=said):
                    raise RelayRefused(printable(said, 400), "Nothing was transferred.")
                case Joined():
                    pass
    except trio.TooSlowError:
        await connection.aclose()
        raise Stalled(
            f"The relay {address} did not join the transfer within {me.deadlines.join:.0f} s.",
            "Nothing was transferred.",
        ) from None
    except BaseException:
        await connection.aclose()
        raise
    stream, rest = connection.detach()
    assert isinstance(stream, trio.SocketStream)
    return stream, rest
