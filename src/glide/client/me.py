"""Whoever runs this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from glide.crypto.identity import Identity
from glide.people.known import Known

if TYPE_CHECKING:
    from glide.net.deadlines import Deadlines


class Me(msgspec.Struct, frozen=True):
    """Who I am, whom I know, and how patient I am."""

    identity: Identity
    known: Known
    deadlines: Deadlines
