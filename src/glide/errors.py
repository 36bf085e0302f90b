"""One family of errors; each knows the word it travels under and the exit code it ends a command with.

An error is raised once, with all that a person needs: what happened, what it means for the files, and
what to do next. It is rendered once, by the command line. The exit codes are a contract with scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """What a process of glide ends with."""

    OK = 0
    OTHER = 1
    USAGE = 2
    NOBODY = 3
    DECLINED = 4
    KEY = 5
    UNREACHABLE = 6
    INTEGRITY = 7
    FILE = 8
    PARTLY = 9
    VERSION = 10
    NAME = 11
    REFUSED = 12
    INTERRUPTED = 130
    TERMINATED = 143


class GlideError(Exception):
    """Something that a person has to be told.

    ``what`` happened; what it ``means`` for the files; what to do ``next``. ``code`` is the word used on
    the wire and as the ``status`` in JSON. Text of a peer goes through :func:`glide.text.printable` first.
    ``for_peer`` is what the other side of a transfer is told, since the rest speaks of this side's files and in this
    side's words; without it they get the code alone.
    """

    code: str = "error"
    exit: Exit = Exit.OTHER
    # True if connecting anew may help, without anybody doing anything.
    worth_a_retry: bool = False

    def __init__(self, what: str, means: str = "", next: str = "", *, for_peer: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.means = means
        self.next = next
        self.for_peer = for_peer

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.means, self.next) if part)


class UsageError(GlideError):
    code, exit = "usage", Exit.USAGE


class NobodyThere(GlideError):
    """Nobody of that name takes files at this relay."""

    code, exit = "nobody", Exit.NOBODY


class Declined(GlideError):
    """The other person, or their policy, said no."""

    code, exit = "declined", Exit.DECLINED


class Engaged(Declined):
    """The other person's glide looks at as many offers as it does at once."""

    code = "engaged"


class Stopped(GlideError):
    """The other person stopped a transfer that had been accepted or offered."""

    code, exit = "cancelled", Exit.DECLINED


class KeyChanged(GlideError):
    """A key differs from the one on record."""

    code, exit = "key-changed", Exit.KEY


class NotVerified(GlideError):
    """Only verified people were to be sent anything, and this one is not."""

    code, exit = "not-verified", Exit.KEY


class Unreachable(GlideError):
    """No connection to the relay could be made."""

    code, exit = "unreachable", Exit.UNREACHABLE
    worth_a_retry = True


class ConnectionLost(GlideError):
    """A connection that was there is gone."""

    code, exit = "lost", Exit.UNREACHABLE
    worth_a_retry = True


class Stalled(GlideError):
    """A deadline passed with the connection still there."""

    code, exit = "stalled", Exit.UNREACHABLE


class IntegrityError(GlideError):
    """What arrived is not what was sent, or not by whom it was said to be sent."""

    code, exit = "integrity", Exit.INTEGRITY


class FileError(GlideError):
    """A local file or disk: missing, unreadable, changed, full, no permission."""

    code, exit = "file", Exit.FILE


class NameUnusable(GlideError):
    """The destination cannot hold a file of that name."""

    code, exit = "name-unusable", Exit.PARTLY


class Partly(GlideError):
    """Some items are there, some are not. ``receipt`` is what was confirmed of a push, for those that are."""

    code, exit = "partly", Exit.PARTLY

    def __init__(self, what: str, means: str = "", next: str = "", *, receipt: object = None) -> None:
        super().__init__(what, means, next)
        self.receipt = receipt


class ProtocolError(GlideError):
    """The peer said something that the protocol does not allow here."""

    code, exit = "protocol", Exit.VERSION


class NotGlide(GlideError):
    """Whatever answered does not speak this protocol, or not a version of it that we do."""

    code, exit = "not-glide", Exit.VERSION


class NameTaken(GlideError):
    code, exit = "name-taken", Exit.NAME


class Replaced(GlideError):
    """A newer session of the same key took the name over."""

    code, exit = "replaced", Exit.NAME


class RelayRefused(GlideError):
    """A limit of the relay, or its admission; the message says which."""

    code, exit = "refused", Exit.REFUSED


def from_code(code: str, default: type[GlideError], *others: type[GlideError]) -> type[GlideError]:
    """The error that a word from the wire stands for, of those that its sender may cause here; else ``default``."""
    return next((error for error in others if error.code == code), default)


@contextmanager
def one_error() -> Iterator[None]:
    """Let one :class:`GlideError` out of a block whose nurseries raise groups of them.

    When several tasks fail together the first that names a cause wins over the ones that merely lost
    their connection, since losing it is what the cause looks like from the other task. Exceptions that
    are not ours pass untouched: they are bugs, or cancellation.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(GlideError)
        if ours is None or others is not None:
            raise
        found = sorted(leaves(ours), key=lambda error: isinstance(error, ConnectionLost))
        raise found[0] from None


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The single exceptions inside nested groups, in order."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
