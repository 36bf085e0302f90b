"""What trio's streams leave to their users: much at once, in and out, and an end that loses nothing.

A trio socket goes round the event loop for every piece that it moves, and a large block leaves in five of them: a
third of what sending it costs. Where a socket is a file descriptor, it is asked again at once for as long as it takes
or gives anything: once round the loop for each call.
"""

from __future__ import annotations

import errno
import os

import trio

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)

_POSIX = os.name == "posix"
# What is asked of a socket at once where there are messages, or nothing of interest.
PIECE = 64 * 1024


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
                await trio.lowlevel.wait_writable(stream.socket)
            except OSError as error:
                raise _broken(error) from error
    # Not before: whoever is cancelled while others run has sent nothing yet, and would not know it.
    await trio.lowlevel.cancel_shielded_checkpoint()


async def receive_into(stream: trio.abc.ReceiveStream, room: memoryview) -> int:
    """Fill ``room`` with what there is, but with something: how many bytes; 0 at the end of the stream.

    Raises as ``stream.receive_some``. Cancelling it loses nothing.
    """
    if not (_POSIX and isinstance(stream, trio.SocketStream)):
        piece = await stream.receive_some(len(room))
        room[: len(piece)] = piece
        return len(piece)
    await trio.lowlevel.checkpoint()
    count = 0
    while count < len(room):
        try:
            with room[count:] as rest:
                came = os.readv(descriptor(stream), [rest])
        except BlockingIOError:
            if count:
                break
            await trio.lowlevel.wait_readable(stream.socket)
        except OSError as error:
            if count:
                break  # told by the next call
            raise _broken(error) from error
        else:
            if not came:
                break
            count += came
    return count


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
