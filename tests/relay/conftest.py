"""Relays for the tests of this folder."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import pytest
import trio

from glide.crypto.identity import Identity
from glide.events import Event
from glide.relay.server import Config, Relay
from tests.relay.raw import Log, Running, Watched

Start: TypeAlias = Callable[[Config], Awaitable[Running]]


@pytest.fixture
def log() -> Iterator[Log]:
    """What the relay logs, from the level of a busy day on."""
    logger, handler = logging.getLogger("glide.relay"), Log()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def start(nursery: trio.Nursery, log: Log) -> Start:
    """Start a relay on a free port of 127.0.0.1; it ends with the test. No faults of its own may be logged."""

    async def run(config: Config) -> Running:
        identity, events = Identity.generate(), Watched[Event]()
        running = Running(Relay(identity, config, events.add), identity, events, log)
        await nursery.start(running.serve)
        return running

    return run
