"""The pairing of two people over a connection between their two clients; ``crypto.pairing`` says what is in it.

One of them was shown a code, and told the other by voice; the other types it in here. It is good for one attempt: when
either of these functions has raised, whatever it was, the code must not be used again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from glide.crypto.pairing import Exchange
from glide.errors import Declined, GlideError, IntegrityError, ProtocolError, Stalled, Stopped, from_code
from glide.net.connection import Connection, explained
from glide.people import words
from glide.protocol.endtoend import Abort, Confirm, Share
from glide.protocol.fields import Message
from glide.protocol.frames import Data
from glide.text import duration, printable

# Asks the person for the code that the other side shows. Cancelled if they go away or the time is over.
AskCode = Callable[[], Awaitable[str]]

_MEANS = "Nothing was pinned."
_AGAIN = "Run it again on both sides; there will be a new code."


@dataclass(frozen=True)
class Paired:
    """Who has shown to know the code, and the key that they have: it may be pinned as verified."""

    name: str
    key: bytes


async def show(connection: Connection, code: str, me_key: bytes, *, patience: float = 300.0) -> Paired:
    """Wait for the other to type the code that is shown here; the connection's responder.

    ``patience`` is how long they may take to type it, in seconds; 0 means for ever. Raises :class:`IntegrityError` if
    it was another code, or if somebody is in between; :class:`Declined` if none was typed; :class:`Stopped`,
    :class:`Stalled` or :class:`ConnectionLost` if they did not see it through. They are told why. Cancelled, it
    tells them within the connection's ``farewell``. It closes the connection when all went well.
    """
    exchange = Exchange(
        words.parse_code(code),
        initiator=False,
        initiator_key=connection.peer_key,
        responder_key=me_key,
        transcript=connection.transcript,
    )
    async with explained(connection, lambda: f"{_MEANS} The code that was shown is burnt."):
        with trio.move_on_after(patience or math.inf) as waiting:
            exchange.take(_share(connection, await connection.receive()))
        if waiting.cancelled_caught:
            raise _nobody_typed(f"{connection.peer} typed no code", patience)
        await connection.send(Share(share=exchange.share))
        # Theirs first: who only guesses sees no tag of ours to compare the next guess with.
        exchange.check(_tag(connection, await _next(connection)))
        await connection.send(Confirm(tag=exchange.tag))
    await connection.close()
    return Paired(connection.peer, connection.peer_key)


async def type_in(connection: Connection, ask: AskCode, me_key: bytes, *, patience: float = 300.0) -> Paired:
    """Ask for the code that the other shows, and try it; the connection's initiator.

    ``patience`` is how long the person may take, in seconds; 0 means for ever. What ``ask`` returns may be as it was
    typed. Raises what :func:`show` does, :class:`UsageError` for what cannot be a code, and what ``ask`` raises.
    Cancelled, it tells the other within the connection's ``farewell``. It closes the connection when all went well.
    """
    tried = False
    async with explained(connection, lambda: _lost(connection.peer, tried=tried)):
        code = words.parse_code(await _asked(connection, ask, patience))
        exchange = Exchange(
            code,
            initiator=True,
            initiator_key=me_key,
            responder_key=connection.peer_key,
            transcript=connection.transcript,
        )
        await connection.send(Share(share=exchange.share))
        exchange.take(_share(connection, await _next(connection)))
        tried = True
        await connection.send(Confirm(tag=exchange.tag))
        exchange.check(_tag(connection, await _next(connection), tried=True))
    await connection.close()
    return Paired(connection.peer, connection.peer_key)


async def _asked(connection: Connection, ask: AskCode, patience: float) -> str:
    """What the person types. The question is withdrawn when the other side ends it, or has gone."""
    code = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, connection)
        with trio.move_on_after(patience or math.inf):
            code = await ask()
        nursery.cancel_scope.cancel()
    if code is None:
        raise _nobody_typed("You typed no code", patience)
    return code


async def _listen(connection: Connection) -> None:
    """Nothing is to be heard while the code is typed but that the other side ends it. Cancelling it loses nothing."""
    raise _instead(connection, await connection.receive())


async def _next(connection: Connection) -> Message | Data:
    """What follows without anybody thinking. Raises :class:`Stalled` after the deadline of a handshake's step."""
    seconds = connection.deadlines.handshake
    with trio.move_on_after(seconds):
        return await connection.receive()
    raise Stalled(f"{connection.peer} did not answer within {seconds:.0f} s.", _MEANS, _AGAIN)


def _share(connection: Connection, said: Message | Data) -> bytes:
    if isinstance(said, Share):
        return said.share
    raise _instead(connection, said)


def _tag(connection: Connection, said: Message | Data, *, tried: bool = False) -> bytes:
    if isinstance(said, Confirm):
        return said.tag
    raise _instead(connection, said, tried=tried)


def _instead(connection: Connection, said: Message | Data, *, tried: bool = False) -> GlideError:
    """What it comes to that the other side said something else. ``tried``: our tag may have been compared already."""
    if not isinstance(said, Abort):
        return ProtocolError(f"{connection.peer} said what does not belong to a pairing.", _MEANS)
    if tried or said.code == IntegrityError.code:
        # Whoever guessed a code, and sees by our tag that it was wrong, may give any reason for going away.
        return IntegrityError(
            f"The code was wrong, or somebody is between you and {connection.peer}.",
            "This code is burnt, and nothing was pinned.",
            _AGAIN,
        )
    reason = f": {printable(said.message, 400)}" if said.message else "."
    return from_code(said.code, Stopped, Declined, Stalled)(f"{connection.peer} stopped it{reason}", _MEANS, _AGAIN)


def _nobody_typed(what: str, patience: float) -> Declined:
    within = duration(patience)
    return Declined(
        f"{what} within {within}.",
        _MEANS,
        "Run it again on both sides, or allow longer with --ask-timeout.",
        for_peer=f"no code was typed within {within}.",
    )


def _lost(peer: str, *, tried: bool) -> str:
    if not tried:
        return _MEANS
    return (
        f"Nothing was pinned here; {peer} may have pinned you already. Run it again on both sides. If this happens "
        "again, somebody in between may be trying codes."
    )
