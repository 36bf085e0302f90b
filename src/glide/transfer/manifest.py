"""What is being sent, as both ends know it: the items in their order, and where each lies in the stream of bytes.

A transfer may have a million items. They are kept as the encoded pages that travel, about 70 bytes an item, and decoded
a page at a time; a position in the stream is found by the page that it lies in.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import blake3
import msgspec

from glide.protocol.endtoend import LONGEST_PATH, PAGE, PAGE_ITEMS, Item, ItemKind
from glide.transfer.filenames import BadName, check_name

# What surrounds the items in a page: the length before the map, the map, its one key, the array.
_AROUND = 4 + 1 + 6 + 3

# Components of a path. Far more than anybody has; what removes a stage holds a descriptor for each.
DEEPEST = 200

# Until it ends, a stream is taken to be as long as anything can be.
ENDLESS = 2**62

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Item, ...])

# Python 3.11 takes 0.15 us to look a member of an Enum up: too long for what is asked of every item.
_FOLDER, _STREAM = ItemKind.FOLDER, ItemKind.STREAM


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A part of one file: ``length`` bytes from ``offset`` on."""

    number: int
    item: Item
    offset: int
    length: int

    @property
    def to_the_end(self) -> bool:
        return self.offset + self.length == self.item.size


class Manifest:
    """Items in strictly rising order of their paths, component by component, each folder before what is in it."""

    def __init__(self) -> None:
        self.items = 0  # files and folders
        self.files = 0
        self.bytes = 0
        self.streams = False  # one item, whose size shows when it ends
        self._tops = array("Q")  # numbers of the items that are in no folder
        self._pages: list[bytes] = []
        self._firsts = array("Q")  # of each page the number of its first item,
        self._starts = array("Q")  # and the position of its first byte
        self._held: tuple[int, tuple[Item, ...]] = (-1, ())
        self._next: list[Item] = []  # items that do not fill a page yet
        self._next_size = _AROUND

    def __repr__(self) -> str:
        return f"<Manifest of {self.items} items, {self.bytes} bytes>"

    # --- making one ---

    def add(self, item: Item) -> None:
        """Put one item behind the others; call :meth:`close` after the last."""
        size = len(_encoder.encode(item))
        if len(self._next) == PAGE_ITEMS or self._next_size + size > PAGE:
            self.close()
        self._next.append(item)
        self._next_size += size

    def close(self) -> None:
        """Make a page of the items that wait for one."""
        if self._next:
            self.add_page(tuple(self._next))
            self._next, self._next_size = [], _AROUND

    def add_page(self, items: tuple[Item, ...]) -> None:
        """Put a whole page behind the others."""
        self._firsts.append(self.items)
        self._starts.append(self.bytes)
        self._pages.append(_encoder.encode(items))
        for item in items:
            if "/" not in item.path:
                self._tops.append(self.items)
            self.items += 1
            if item.kind is not _FOLDER:
                self.files += 1
                self.bytes += item.size
            self.streams = self.streams or item.kind is _STREAM

    # --- reading it ---

    @property
    def pages(self) -> int:
        return len(self._pages)

    def page(self, page: int) -> tuple[Item, ...]:
        """The items of one page; that of the last call costs nothing."""
        held = self._held  # threads share it
        if held[0] != page:
            held = self._held = (page, _decoder.decode(self._pages[page]))
        return held[1]

    def first(self, page: int) -> int:
        """The number of the first item of a page."""
        return self._firsts[page]

    def numbers(self, page: int) -> range:
        """The numbers of a page's items."""
        end = self._firsts[page + 1] if page + 1 < len(self._firsts) else self.items
        return range(self._firsts[page], end)

    def page_of(self, number: int) -> int:
        """The page that the item of that number is on."""
        return bisect_right(self._firsts, number) - 1

    def item(self, number: int) -> Item:
        page = self.page_of(number)
        return self.page(page)[number - self._firsts[page]]

    def __iter__(self) -> Iterator[Item]:
        for encoded in self._pages:
            yield from _decoder.decode(encoded)

    def numbered(self) -> Iterator[tuple[int, int, Item]]:
        """Each item's number, the position where it begins, and the item."""
        position = 0
        for number, item in enumerate(self):
            yield number, position, item
            if item.kind is not _FOLDER:
                position += item.size

    def tops(self) -> Iterator[tuple[int, Item]]:
        """The items that are in no folder, counted by themselves."""
        for top, number in enumerate(self._tops):
            yield top, self.item(number)

    def number(self, top: int) -> int:
        """The number of a top-level item."""
        return self._tops[top]

    def identity(self) -> bytes:
        """What two offers of the same things have in common, whatever has changed in them: 16 bytes."""
        tops = [(item.path, item.kind is _FOLDER) for _, item in self.tops()]
        return bytes(blake3.blake3(_encoder.encode(tops)).digest(length=16))

    def fingerprint(self) -> bytes:
        """What only two offers of exactly the same have in common: 16 bytes."""
        return bytes(blake3.blake3(b"".join(self._pages)).digest(length=16))

    def top_of(self, number: int) -> int:
        """Which of :meth:`tops` an item is, or lies in."""
        return bisect_right(self._tops, number) - 1

    def inside(self, top: int) -> Iterator[tuple[int, Item]]:
        """The items of a top-level item, itself first, with their numbers."""
        end = self._tops[top + 1] if top + 1 < len(self._tops) else self.items
        for number in range(self._tops[top], end):
            yield number, self.item(number)

    def start(self, number: int) -> int:
        """The position where the item of that number begins."""
        page = self.page_of(number)
        before = self.page(page)[: number - self._firsts[page]]
        return self._starts[page] + sum(item.size for item in before if item.kind is not _FOLDER)

    def pieces(self, start: int, length: int) -> Iterator[Piece]:
        """The parts of files that lie in a range of the stream. ValueError if it reaches beyond the end."""
        if self.streams:
            yield Piece(0, self.page(0)[0], start, length)
            return
        if start + length > self.bytes:
            raise ValueError("a range beyond the end")
        page = bisect_right(self._starts, start) - 1
        # Pages of nothing but folders and empty files begin at the same position; the last of them has the byte.
        while length:
            position = self._starts[page]
            for number, item in enumerate(self.page(page), self._firsts[page]):
                end = position if item.kind is _FOLDER else position + item.size
                if end > start:
                    take = min(end - start, length)
                    yield Piece(number, item, start - position, take)
                    start += take
                    length -= take
                    if not length:
                        return
                position = end
            page += 1


class Checker:
    """Which items a manifest may hold (F1, F4): the rules that refuse an offer whole.

    Since the order rises, two items of one path are neighbours, and whatever lies in a folder comes between that folder
    and the next item outside it: what has to be remembered is one path and the folders around it.
    """

    def __init__(self) -> None:
        self._last: tuple[str, ...] = ()
        self._folders: list[str] = []  # the folders that the last item is in, itself if it is one
        self._alone = False
        self._bytes = 0

    def check(self, items: Iterable[Item]) -> None:
        """Raise :class:`BadName` unless these items may follow those before."""
        for item in items:
            components = tuple(item.path.split("/"))
            check_name(components[-1])  # those before it are folders', which have been checked
            if (len(item.path) if item.path.isascii() else len(item.path.encode())) > LONGEST_PATH:
                raise BadName(f"a path is longer than {LONGEST_PATH} bytes")
            if components == self._last:
                raise BadName("two items have the same name")
            if components < self._last:
                raise BadName("the items are not in the order of their names")
            if list(components[:-1]) != self._folders[: len(components) - 1]:
                raise BadName("an item lies in what is no folder")
            del self._folders[len(components) - 1 :]
            if item.kind is _FOLDER:
                self._folders.append(components[-1])
            if item.kind is _FOLDER and item.size:
                raise BadName("a folder has a size")
            self._bytes += item.size
            if self._bytes >= 2**63:
                raise BadName("there are more bytes than there can be")
            if len(components) > DEEPEST:
                raise BadName(f"folders are more than {DEEPEST} deep")
            streams = item.kind is _STREAM
            if self._alone or (streams and (self._last or len(components) > 1 or item.size)):
                raise BadName("a stream is not alone")
            self._alone = streams
            self._last = components


def whole(digests: bytes | bytearray) -> bytes:
    """The digest over a whole transfer: of one item its own; of several the BLAKE3 of theirs, in manifest order."""
    return bytes(digests) if len(digests) == 32 else blake3.blake3(digests).digest()
