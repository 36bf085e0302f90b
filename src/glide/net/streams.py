"""What trio's streams leave to their users: much at once, in and out, and an end that loses nothing.

A trio socket goes round the event loop for every piece that it moves, and a large block leaves in five of them: a
third of what sending it costs. Where a socket is a file descriptor, it is asked again at once for as long as it takes
or gives anything: once round the loop for each call.

And a socket says that there is something as soon as there is a little: who takes files as fast as they come is woken
for each packet. Linux can be told to wait for more (SO_RCVLOWAT, socket(7); TCP_NOTSENT_LOWAT, tcp(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import sys

import trio

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)

_POSIX = os.name == "posix"
# What is asked of a socket at once where there are messages, or nothing of interest.
PIECE = 64 * 1024

# To be woken costs as much as to move hundreds of KiB. Where files come so much is waited for, but only for a moment:
# nobody knows whether more is to come. Other systems do not say that a buffer is full before that.
MUCH = 1024 * 1024
_MOMENT = 0.01
_LITTLE = 16 * 1024  # that trio has each socket keep back unsent
_MARKS = sys.platform == "linux"


async def send_all(stream: trio.abc.SendStream, data: bytes | bytearray | memoryview) -> None:
    """As ``stream.send_all``."""
    if not (_POSIX and isinstance(stream, trio.SocketStream)):
        await stream.send_all(data)
        return
    await trio.lowlevel.checkpoint_if_cancelled()
    with memoryview(data) as left:
        at = 0
        while at < len(left):
            try:
                with left[at:] as rest:
                    at += os.write(descriptor(stream), rest)
            except BlockingIOError:
                await writable(stream, MUCH if len(data) >= 2 * MUCH else 0)
            except OSError as error:
                raise _broken(error) from error
    # Not before: whoever is cancelled while others run has sent nothing yet, and would not know it.
    await trio.lowlevel.cancel_shielded_checkpoint()


async def receive_into(stream: trio.abc.ReceiveStream, room: memoryview, *, much: bool = False) -> int:
    """Fill ``room`` with what there is, but with something: how many bytes; 0 at the end of the stream.

    Where ``much`` is on its way, a moment is waited for it. Raises as ``stream.receive_some``. Cancelling it loses
    nothing.
    """
    if not (_POSIX and isinstance(stream, trio.SocketStream)):
        piece = await stream.receive_some(len(room))
        room[: len(piece)] = piece
        return len(piece)
    await trio.lowlevel.checkpoint_if_cancelled()
    count, waited = 0, False
    while count < len(room):
        try:
            with room[count:] as rest:
                came = os.readv(descriptor(stream), [rest])
        except BlockingIOError:
            if count:
                break
            await readable(stream, MUCH if much and not waited else 0)
            waited = True
        except OSError as error:
            if count:
                break  # told by the next call
            raise _broken(error) from error
        else:
            if not came:
                break
            count += came
    if not waited:
        await trio.lowlevel.cancel_shielded_checkpoint()
    return count


async def readable(stream: trio.SocketStream, much: int = 0) -> None:
    """Wait until there is something to read or, where files come, until so ``much`` has come or a moment has passed.

    After a moment there may be nothing.
    """
    if not (much and _MARKS):
        await trio.lowlevel.wait_readable(stream.socket)
        return
    _set(stream, socket.SOL_SOCKET, socket.SO_RCVLOWAT, much)
    try:
        with trio.move_on_after(_MOMENT):
            await trio.lowlevel.wait_readable(stream.socket)
    finally:
        _set(stream, socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def writable(stream: trio.SocketStream, much: int = 0) -> None:
    """Wait until the socket takes something or, where files go, and fast, until it takes so ``much``.

    From now on twice as much may wait in the socket: whoever speaks next is heard behind it.
    """
    if _MARKS:
        _set(stream, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * much or _LITTLE)
    await trio.lowlevel.wait_writable(stream.socket)


def _set(stream: trio.SocketStream, level: int, option: int, count: int) -> None:
    try:
        stream.socket.setsockopt(level, option, count)
    except OSError:
        pass  # it is no TCP, or has been closed: who reads or writes will hear of it


async def close_gently(stream: trio.abc.HalfCloseableStream, seconds: float) -> None:
    """Close so that the peer can still read what was sent: say that it was all, and read until it is gone.

    A socket that is closed with unread bytes resets the connection, and takes what is on its way to the
    peer with it. Takes at most ``seconds``, cancelled or not; the stream is closed afterwards in any case.
    """
    try:
        with trio.move_on_after(seconds, shield=True):
            await stream.send_eof()
            while await stream.receive_some(PIECE):
                pass
    except BROKEN:
        pass
    finally:
        await trio.aclose_forcefully(stream)


def descriptor(stream: trio.SocketStream) -> int:
    """Asked before each call: once the socket is closed, its number may be another's."""
    number = stream.socket.fileno()
    if number < 0:
        raise trio.ClosedResourceError
    return number


def _broken(error: OSError) -> Exception:
    return trio.ClosedResourceError() if error.errno == errno.EBADF else trio.BrokenResourceError()
