"""The relay's process: listeners, three nurseries, and how it ends.

    accepting   one task a connection until it has proved a key (ten seconds a step)
    control     one task a registered client, and a second while something is said to it
    data        one task a data connection, and one a transfer

A connection moves to its nursery once it is known what it is. To drain: new clients and pushes are refused, idle
clients are told goodbye, tickets already given out are still taken; when none is left the listeners close, and the
relay ends as soon as the data nursery is empty, or when the grace is over.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVarTuple, Unpack

import trio

from glide import events
from glide.crypto.identity import Identity
from glide.errors import ConnectionLost, GlideError, RelayRefused, Stalled
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import respond, turn_away
from glide.protocol import preface
from glide.protocol.messages import Hello, Ticket
from glide.protocol.preface import Purpose
from glide.relay import session
from glide.relay.clients import Clients
from glide.relay.limits import Admission, Limits, Place
from glide.relay.registry import LocalRegistry
from glide.relay.ringing import Exchange, Party
from glide.relay.seats import Seats
from glide.relay.session import ClientSession
from glide.relay.splicing import Budget
from glide.relay.transfer import Tickets
from glide.relay.turns import Turns
from glide.text import printable

log = logging.getLogger("glide.relay")

GREETING = "Welcome to the server!"
_BACKLOG = 1024
# Running out of descriptors or memory slows new arrivals; it must not end the relay (R11).
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_ACCEPT_AGAIN = 0.1
Arguments = TypeVarTuple("Arguments")
_PURPOSES = frozenset({Purpose.CONTROL, Purpose.DATA})


@dataclass(frozen=True)
class Config:
    """Seconds, and texts for people."""

    host: str = "127.0.0.1"
    port: int = 8080
    greeting: str = GREETING
    grace: float = 30.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    limits: Limits = field(default_factory=Limits)


class Relay:
    """One relay. ``report`` gets :mod:`glide.events`."""

    def __init__(self, identity: Identity, config: Config, report: events.Report) -> None:
        self.config = config
        self.registry = LocalRegistry[Party](config.limits.sessions_per_name)
        self.cut = 0  # transfers that the grace did not last for
        self._identity = identity
        self._report = report
        self._tickets = Tickets()
        self._admission = Admission(config.limits)
        self._clients = Clients(config.deadlines.keepalive)
        self._draining = trio.Event()
        self._transfers = 0
        self._turns = Turns(config.limits.turns)
        exchange = Exchange(
            self.registry,
            Seats(config.limits.transfers_per_client),
            self._tickets,
            self._spawn_transfer,
            self._draining,
            config.limits,
            Budget(config.limits),
            self._turns,
        )
        self._shared = session.Shared(exchange, self._clients, config.greeting, self._came, self._left)
        self._control: trio.Nursery
        self._data: trio.Nursery

    def __repr__(self) -> str:
        return f"<Relay {self.config.host}:{self.config.port}: {self.registry!r}, {self._transfers} transfers>"

    @property
    def draining(self) -> bool:
        """True once the relay has begun to end."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Begin to end; :meth:`serve` returns when it is done. Calling it again changes nothing."""
        self._draining.set()

    async def serve(self, *, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until drained; reports the host and port that were bound.

        Raises :class:`GlideError` if the address cannot be had. Cancelled, everything ends at once.
        """
        listeners = await self._listen()
        bound = listeners[0].socket.getsockname()
        # Left in the opposite order: first nobody is accepted any more; then clients that are in a transfer stay until
        # it is done, the others having been told goodbye; then the last transfer ends, or the grace does.
        async with trio.open_nursery() as keeping:
            keeping.start_soon(self._clients.keep_alive)
            keeping.start_soon(self._turns.run)
            async with (
                trio.open_nursery() as self._data,
                trio.open_nursery() as self._control,
                trio.open_nursery() as accepting,
            ):
                for listener in listeners:
                    accepting.start_soon(self._accept, listener, accepting)
                self._report(events.Listening(self.config.host, bound[1], self._identity.public))
                task_status.started((self.config.host, bound[1]))
                await self._draining.wait()
                self._data.cancel_scope.deadline = trio.current_time() + self.config.grace
                await self._clients.dismiss()
                await trio.lowlevel.checkpoint()  # a transfer that was begun just now gives out its tickets first
                await self._tickets.used_up()
                accepting.cancel_scope.cancel()
            keeping.cancel_scope.cancel()
        self.cut = self._transfers

    async def _listen(self) -> list[trio.SocketListener]:
        try:
            found = await trio.open_tcp_listeners(self.config.port, host=self.config.host, backlog=_BACKLOG)
            # A name with several addresses: one free port each would be as many ports.
            for extra in found[1:] if self.config.port == 0 else ():
                await extra.aclose()
            return found[:1] if self.config.port == 0 else found
        except OSError as error:
            reason = error.strerror or str(error)
            raise GlideError(
                f"Cannot listen on {printable(self.config.host)}:{self.config.port}: {reason}.",
                next="Choose another --port (0 takes a free one) or --host.",
            ) from None

    # --- a connection ---

    async def _accept(self, listener: trio.SocketListener, accepting: trio.Nursery) -> None:
        """Start a task for each connection. (trio.serve_listeners would close it with the task that greets it.)"""
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in _OUT_OF_RESOURCES:
                        raise
                    log.warning("cannot accept more connections: %s", error.strerror)
                    await trio.sleep(_ACCEPT_AGAIN)
                else:
                    accepting.start_soon(self._greet, stream)

    async def _greet(self, stream: trio.SocketStream) -> None:
        """Find out who a new connection is and what it wants, and hand it to its nursery."""
        host, address = _peer(stream)
        try:
            with self._admission.connection(host) as place, self._admission.handshake(host):
                await self._admit(stream, place, address)
        except RelayRefused as error:
            with self._admission.farewell() as politely:
                if politely:
                    log.warning("%s turned away: %s", address, error)
                    await turn_away(stream, preface.busy(error.what), self.config.deadlines)
                else:
                    await trio.aclose_forcefully(stream)
        except GlideError as error:
            # Once and in one line: a port scanner must not fill the log.
            log.info("%s refused: %s", address, error.what)
            await trio.aclose_forcefully(stream)
        except Exception:
            log.exception("%s ended by a fault of the relay", address)
            await trio.aclose_forcefully(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _admit(self, stream: trio.SocketStream, place: Place, address: str) -> None:
        """Let a connection prove a key and say its first message; then it, and its place, belong to another nursery."""
        deadlines = self.config.deadlines
        connection, _, _ = await respond(
            stream, _PURPOSES, self._identity, peer=address, deadlines=deadlines, check=_anybody
        )
        connection.limiter.most = self.config.limits.pace
        with trio.move_on_after(deadlines.handshake):
            match await connection.receive():
                case Hello() as hello:
                    self._control.start_soon(
                        self._guarded, place.pass_on(), connection, session.run, hello, self._shared
                    )
                case Ticket() as ticket:
                    await self._seat(place, connection, ticket)
            return
        raise Stalled(f"It said nothing within {deadlines.handshake:.0f} s.")

    async def _seat(self, place: Place, connection: Connection, ticket: Ticket) -> None:
        """Give a data connection its place, or tell it that it has none."""
        try:
            seat = self._tickets.redeem(ticket.ticket, connection.peer_key)
        except RelayRefused as error:
            await session.refuse(connection, error)
        else:
            self._data.start_soon(self._guarded, place.pass_on(), connection, seat.take)

    async def _guarded(
        self,
        place: Place,
        connection: Connection,
        serve: Callable[[Connection, Unpack[Arguments]], Awaitable[None]],
        *arguments: *Arguments,
    ) -> None:
        """Whatever happens to one connection ends that connection alone."""
        try:
            with place:
                await serve(connection, *arguments)
        except ConnectionLost:
            pass
        except GlideError as error:
            log.info("%s ended: %s", connection.peer, error.what)
        except Exception:
            log.exception("%s ended by a fault of the relay", connection.peer)
        finally:
            await trio.aclose_forcefully(connection.stream)

    def _came(self, client: ClientSession) -> None:
        """A client was welcomed."""
        self._clients.came(client)
        if client.name is not None:
            self._report(events.Connected(client.name, client.connection.peer))
        if self.draining:  # since it asked to come in
            client.leave_when_idle()

    def _left(self, client: ClientSession) -> None:
        if self._clients.left(client) and client.name is not None:
            self._report(events.Disconnected(client.name, client.connection.peer))

    def _spawn_transfer(self, own: Callable[[], Awaitable[None]]) -> None:
        self._transfers += 1

        async def task() -> None:
            try:
                await own()
            except Exception:
                log.exception("a transfer ended by a fault of the relay")
            self._transfers -= 1  # but not if it was cancelled: then it was cut

        self._data.start_soon(task)


def _anybody(key: bytes) -> None:
    """A relay takes any key; what a key may do is decided where it is asked for."""


def _peer(stream: trio.SocketStream) -> tuple[str, str]:
    """The host that limits are counted by, and the address as it is written."""
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "gone", "gone"
    return host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
