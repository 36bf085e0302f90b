"""Two people, an honest relay, and one that does what it likes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from glide import events
from glide.client.address import Address
from glide.crypto.identity import Identity
from glide.relay.server import Config, Relay
from tests.client.people import HASTY, HASTY_TERMS, Person
from tests.doubles import MaliciousRelay


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    return Person("alice", tmp_path / "alice")


@pytest.fixture
def bob(tmp_path: Path) -> Person:
    return Person("bob", tmp_path / "bob")


@pytest.fixture
def carol(tmp_path: Path) -> Person:
    return Person("carol", tmp_path / "carol")


@pytest.fixture
def hasty_alice(tmp_path: Path) -> Person:
    return Person("alice", tmp_path / "hasty-alice", HASTY, HASTY_TERMS)


@pytest.fixture
def hasty_bob(tmp_path: Path) -> Person:
    return Person("bob", tmp_path / "hasty-bob", HASTY, HASTY_TERMS)


@pytest.fixture
async def evil(nursery: trio.Nursery) -> MaliciousRelay:
    """Honest until its behaviour is changed."""
    relay = MaliciousRelay()
    await nursery.start(relay.serve)
    return relay


@pytest.fixture
def relay_identity() -> Identity:
    return Identity.generate()


@pytest.fixture
def key(relay_identity: Identity) -> bytes:
    """The relay's."""
    return relay_identity.public


@pytest.fixture
def relay_events() -> list[events.Event]:
    """What the honest relay reported."""
    return []


@pytest.fixture
async def honest(nursery: trio.Nursery, relay_identity: Identity, relay_events: list[events.Event]) -> Address:
    relay = Relay(relay_identity, Config(port=0), relay_events.append)
    host, port = await nursery.start(relay.serve)
    return Address(host, port)
