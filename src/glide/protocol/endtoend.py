"""The messages of two clients to each other, inside the joined pipe; see ``messages`` for how they become bytes.

A transfer is one stream of bytes: the contents of the manifest's files, in its order, with nothing in between. Where
something lies in it is a *position* there. A file of 0 bytes takes no part in it; a folder neither.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from glide.protocol.fields import Code, Digest, Features, Message, Size, Text, Time
from glide.protocol.frames import Kind

# Payload of every OFFER, MANIFEST and DIGESTS frame: they are padded to it, so that lengths say nothing of what is in
# them, and so that as many pages of digests follow as there were pages of the manifest (C3).
PAGE = 4096
# Items of one page: their digests, 32 bytes each, must fit one page too.
PAGE_ITEMS = 120
# Of an item's path, in bytes of UTF-8: so that one item fits a page. PATH_MAX of Linux is 4,096 with what is before it.
LONGEST_PATH = 4000

# Digests of a kept part of a file are told for each so many bytes of it.
BLOCK = 64 * 1024 * 1024

# In place of a digest: the sender could not read all of that file, and its bytes mean nothing.
NO_DIGEST = bytes(32)

Blob = Annotated[bytes, Meta(max_length=32 * 1000)]  # digests, one after the other
Range = tuple[Size, Size]  # a position in the stream, and a number of bytes from there


class Capabilities(Message, frozen=True):
    """What the second and third end-to-end handshake messages carry: the features of each side."""

    kind = Kind.CAPABILITIES
    features: Features = ()


class ItemKind(IntEnum):
    FILE = 0
    EXECUTABLE = 1
    FOLDER = 2
    STREAM = 3  # a file whose size shows when it ends; the only item of its transfer


class Item(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One file or folder. ``path`` has ``/`` between its components and is not to be trusted (``manifest.check``)."""

    path: Annotated[str, Meta(max_length=LONGEST_PATH)]
    kind: ItemKind = ItemKind.FILE
    size: Size = 0
    modified: Time = 0


class Page(Message, frozen=True):
    """Sender to receiver: the next items of the manifest."""

    kind = Kind.MANIFEST
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=PAGE_ITEMS)]


class Offer(Message, frozen=True):
    """Sender to receiver, after all pages: that is what I offer. ``message`` is for a person to read."""

    kind = Kind.OFFER
    message: Text = ""


class Accept(Message, frozen=True):
    """Receiver to sender: yes. What is wanted of it follows."""

    kind = Kind.ACCEPT


class Decline(Message, frozen=True):
    """Receiver to sender: no, and why."""

    kind = Kind.DECLINE
    code: Code
    message: Text = ""


class Want(Message, frozen=True):
    """Receiver to sender: send these ranges, in this order, after those wanted before.

    ``more`` says that the list goes on in the next of these, and is not to be acted on yet.
    """

    kind = Kind.WANT
    ranges: Annotated[tuple[Range, ...], Meta(max_length=1000)] = ()
    more: bool = False


class Blocks(Message, frozen=True):
    """Sender to receiver: BLAKE3 of successive blocks of a file of which only the end was wanted.

    ``number`` is the item's in the manifest, ``first`` the first block's in the file. The last block of the part that
    was not wanted ends where that part does.
    """

    kind = Kind.BLOCKS
    number: Size
    first: Size
    digests: Blob


class Digests(Message, frozen=True):
    """Sender to receiver: BLAKE3 of each item of one page, 32 bytes each; zeros for a folder, or :data:`NO_DIGEST`."""

    kind = Kind.DIGESTS
    page: Size
    digests: Annotated[bytes, Meta(max_length=32 * PAGE_ITEMS)]


class End(Message, frozen=True):
    """Sender to receiver: all digests are told. ``digest`` as :func:`glide.transfer.manifest.whole` says."""

    kind = Kind.END
    bytes: Size
    digest: Digest


class Ack(Message, frozen=True):
    """Receiver to sender: so many bytes of what was wanted on this connection are durable here."""

    kind = Kind.ACK
    bytes: Size


class Receipt(Message, frozen=True):
    """Receiver to sender: these many files, of so many bytes, stand under their final names; the others do not."""

    kind = Kind.RECEIPT
    items: Size
    bytes: Size
    digest: Digest


class Done(Message, frozen=True):
    """Sender to receiver: I have the receipt."""

    kind = Kind.DONE


class Busy(Message, frozen=True):
    """Either side to the other: I am waiting for my own disk (or whatever the bytes come from or go to), so long."""

    kind = Kind.BUSY
    seconds: Size


class Abort(Message, frozen=True):
    """Either side to the other: this transfer ends here, and why."""

    kind = Kind.ABORT
    code: Code
    message: Text = ""


class Share(Message, frozen=True):
    """Either of two people who pair: a half of the password-authenticated key exchange (SPAKE2, 33 bytes)."""

    kind = Kind.SHARE
    share: Annotated[bytes, Meta(min_length=1, max_length=64)]


class Confirm(Message, frozen=True):
    """Either of them: that the same key came out here, shown by a tag that only who knows the code can make."""

    kind = Kind.CONFIRM
    tag: Digest
