"""glide: send files to a person, by name, through a relay that you run and need not trust.

    async with glide.connect("relay.example.org:8080", "alice") as me:
        receipt = await me.push("bob", ["a.txt"])

The names below are loaded when they are first used: importing glide costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glide.client.api import Client, connect
    from glide.client.arriving import Received
    from glide.client.offers import Offer
    from glide.client.push import Receipt
    from glide.client.who import Somebody
    from glide.errors import GlideError

__version__ = "0.1.0"

_WHERE = {
    "Client": "glide.client.api",
    "GlideError": "glide.errors",
    "Offer": "glide.client.offers",
    "Received": "glide.client.arriving",
    "Receipt": "glide.client.push",
    "Somebody": "glide.client.who",
    "connect": "glide.client.api",
}

__all__ = ["Client", "GlideError", "Offer", "Receipt", "Received", "Somebody", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module 'glide' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
