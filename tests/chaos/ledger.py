"""How many bytes a transfer may take: nothing that is durable is sent twice, and a fault costs what was under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MIB = 1024 * 1024

# Of each connection, besides the manifest and its digests: handshakes, keepalives, a page of each.
CONNECTION = 256 * 1024
# Pages of a manifest are padded, and at least half full as long as no path is longer than half of one; as many pages
# of digests follow.
PAGES = 2 * 2
# Records and frames.
FRAMING = 0.02
# What may still go up before everybody has noticed a fault.
NOTICING = 2 * MIB


class Ledger:
    """Bytes are those of the tree, as reported; what has *passed* was counted between the sender and the relay."""

    def __init__(self, total: int, manifest: int = 0) -> None:
        """``total`` is what all files hold, ``manifest`` what names them."""
        self.total = total
        self._overhead = CONNECTION + PAGES * manifest
        self.durable = 0  # at the receiver, at the least
        self.conceded = 0  # passed, and perhaps in vain
        self.faults = 0
        self._wanted: list[int] = []  # of each connection: what was not durable when it was seen first
        self._doomed: dict[int, int] = {}  # of connections that nobody feeds any more: what each had passed by then

    def see(self, connections: int) -> None:
        """So many there have been by now; to be called before :meth:`keep` hears what one of them has achieved."""
        self._wanted += [self.total - self.durable] * (connections - len(self._wanted))

    def keep(self, count: int) -> None:
        """Somebody has said that so many bytes are durable."""
        self.durable = max(self.durable, count)

    def fault(self) -> None:
        self.faults += 1

    def lose(self, passed: int) -> None:
        """A fault took hold when so much had passed: what was not durable by then may have to be sent again."""
        under_way = passed - self.conceded - self.durable
        self.conceded += max(0, min(under_way, self.total - self.durable))

    def doom(self, uploads: Mapping[int, int]) -> None:
        """The sender of these connections is dead; what its kernel still sends of them may come too late."""
        self._doomed = {**uploads, **self._doomed}

    def check(self, uploads: Sequence[int]) -> None:
        """AssertionError if these connections passed more than they may have."""
        self.see(len(uploads))
        for number, (upload, wanted) in enumerate(zip(uploads, self._wanted, strict=True)):
            assert upload <= wanted * (1 + FRAMING) + self._overhead, (
                f"E: {upload} bytes passed in connection {number}; when it was made, {wanted} were missing"
            )
        late = sum(uploads[number] - before for number, before in self._doomed.items())
        most = int(self.total * (1 + FRAMING)) + self.conceded + late + self.faults * NOTICING
        passed = sum(max(0, upload - self._overhead) for upload in uploads)
        assert passed <= most, (
            f"E: {passed} bytes passed in {len(uploads)} connections, {most} were allowed: {self.total} of the tree, "
            f"{self.conceded} not durable when a fault came, {late} of dead senders, {self.faults} faults"
        )
