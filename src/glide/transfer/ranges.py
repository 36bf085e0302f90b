"""Ranges of the stream that a receiver wants: whether there are such, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from glide.errors import ProtocolError
from glide.protocol.endtoend import Item, ItemKind, Range
from glide.transfer.manifest import ENDLESS, Manifest


def check(ranges: Sequence[Range], manifest: Manifest, to: str) -> int:
    """The bytes of these ranges, which ``to`` asked for. Raises :class:`ProtocolError` if there are no such."""
    end = 0
    if manifest.streams and ranges != [(0, ENDLESS)]:
        raise ProtocolError(f"{to} wants a part of what has no parts.")
    for start, length in ranges:
        if start < end or not length:
            raise ProtocolError(f"{to} wants ranges that are in no order.")
        end = start + length
    if end > manifest.bytes and not manifest.streams:
        raise ProtocolError(f"{to} wants more than there is.")
    return sum(length for _, length in ranges)


def unsent(manifest: Manifest, wanted: Sequence[Range]) -> Iterator[tuple[int, Item, int]]:
    """The files that are not sent from beginning to end.

    With each the bytes before what is sent of it, if that goes on to its end; else 0.
    """
    if manifest.streams or list(wanted) == [(0, manifest.bytes)]:
        return
    at = 0
    for number, position, item in manifest.numbered():
        if not item.size or item.kind is ItemKind.FOLDER:
            continue
        end = position + item.size
        while at < len(wanted) and sum(wanted[at]) <= position:
            at += 1
        start, length = wanted[at] if at < len(wanted) else (end, 0)
        if start >= end:
            yield number, item, 0
        elif start > position or start + length < end:
            last = at
            while last + 1 < len(wanted) and wanted[last + 1][0] < end:
                last += 1
            yield number, item, max(0, start - position) if sum(wanted[last]) >= end else 0
