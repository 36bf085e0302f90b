"""The digests of a transfer's files, at its sender: which are known, and which pages of them can be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import blake3
from msgspec import Struct

from glide.protocol.endtoend import NO_DIGEST, ItemKind
from glide.transfer.manifest import Manifest

EMPTY = blake3.blake3().digest()

# Reasons that are kept for people; the count is of all.
_MOST_PROBLEMS = 20


class Digest(Struct, frozen=True, gc=False):
    """Of a whole file, by its number; :data:`NO_DIGEST` if it could not be sent, and why not.

    ``in_part`` says that only its end is sent, which may not have been read yet.
    """

    number: int
    digest: bytes
    problem: str = ""
    in_part: bool = False


class Sent(Struct, frozen=True, gc=False):
    """The end of a file, of which the beginning was not wanted, has been read."""

    number: int


class BlockDigest(Struct, frozen=True, gc=False):
    """Of one block of a file."""

    number: int
    block: int
    digest: bytes


class DigestTable:
    """32 bytes an item, in the manifest's order; zeros for folders."""

    def __init__(self, manifest: Manifest, lacking: Sequence[Digest] = ()) -> None:
        """``lacking`` are of empty files that are none any more."""
        self.digests = bytearray(32 * manifest.items)
        self.ready: deque[int] = deque()  # pages that are complete, and were not taken yet
        self.problems: list[str] = []
        self.failed = 0
        self._manifest = manifest
        # Of files of which only the end is sent, a digest counts once the end has been read too: it may have changed.
        self._read_to_the_end: set[int] = set()
        self._held: dict[int, Digest] = {}
        self._known = bytearray(manifest.items)
        self._missing: list[int] = []  # of each page
        for page in range(manifest.pages):
            missing = 0
            for number, item in enumerate(manifest.page(page), manifest.first(page)):
                if item.size or item.kind is ItemKind.STREAM:
                    missing += 1
                elif item.kind is not ItemKind.FOLDER:
                    self.digests[32 * number : 32 * number + 32] = EMPTY
            self._missing.append(missing)
            if not missing:
                self.ready.append(page)
        self._incomplete = sum(missing > 0 for missing in self._missing)
        for each in lacking:
            self._fail(each)
            self.digests[32 * each.number : 32 * each.number + 32] = NO_DIGEST

    @property
    def complete(self) -> bool:
        return not self._incomplete

    def read_to_the_end(self, number: int) -> None:
        """The end of a file has been read, and was as it should be."""
        self._read_to_the_end.add(number)
        if number in self._held:
            self.add(self._held.pop(number))

    def add(self, found: Digest) -> None:
        """Enter a file's digest. The first one counts, unless a later one says that the file cannot be sent."""
        if found.in_part and found.number not in self._read_to_the_end:
            self._held[found.number] = found
            return
        number, digest = found.number, found.digest
        start, end = 32 * number, 32 * number + 32
        known = self._known[number]
        if known and (digest != NO_DIGEST or self.digests[start:end] == NO_DIGEST):
            return
        if digest == NO_DIGEST:
            self._fail(found)
        self.digests[start:end] = digest
        if known:
            return
        self._known[number] = 1
        page = self._manifest.page_of(number)
        self._missing[page] -= 1
        if not self._missing[page]:
            self._incomplete -= 1
            self.ready.append(page)

    def _fail(self, found: Digest) -> None:
        self.failed += 1
        self.problems = [*self.problems, found.problem][:_MOST_PROBLEMS]

    def page(self, page: int) -> bytes:
        """The digests of one page's items."""
        numbers = self._manifest.numbers(page)
        return bytes(self.digests[32 * numbers.start : 32 * numbers.stop])
