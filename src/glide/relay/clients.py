"""All registered clients, and what is said to all of them: that the relay is here, and goodbye.

One task says the keepalives of everybody: a timer for each would cost each of ten thousand idle clients a task and a
deadline. Whatever is said to all is said to a few at a time, so that nobody else waits for it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import trio

# So many are spoken to before others run: some 5 ms, as each takes a task that sends one record.
BREATH = 50


class Client(Protocol):
    """What is known of a client here."""

    def keep_alive(self) -> None:
        """Say that the relay is here. Never waits."""

    def leave_when_idle(self) -> None:
        """Say goodbye as soon as no transfer of this client is under way. Never waits."""


class Clients:
    """Those who are registered. Each has its turn every ``keepalive`` seconds, whatever else is said to it."""

    def __init__(self, keepalive: float) -> None:
        self._keepalive = keepalive
        self._turns: OrderedDict[Client, float] = OrderedDict()  # when each is due, the next one first

    def __repr__(self) -> str:
        return f"<Clients: {len(self._turns)}>"

    def came(self, client: Client) -> None:
        """It has been welcomed."""
        self._turns[client] = trio.current_time() + self._keepalive

    def left(self, client: Client) -> bool:
        """It ends; True if it had been welcomed."""
        return self._turns.pop(client, None) is not None

    async def keep_alive(self) -> None:
        """Say to each in turn that the relay is here, until cancelled."""
        while True:
            # Whoever comes meanwhile is due later than who is first now, or than a turn from now if nobody is here.
            await trio.sleep_until(next(iter(self._turns.values()), trio.current_time() + self._keepalive))
            for client in self.due(trio.current_time()):
                client.keep_alive()

    def due(self, now: float) -> list[Client]:
        """Whose turn it is, or almost, at most :data:`BREATH`; their next one is a while from now."""
        soon = now + self._keepalive / 100  # who came within 0.3 s has one turn: waking up takes longer than speaking
        found: list[Client] = []
        for client, turn in self._turns.items():
            if turn > soon or len(found) == BREATH:
                break
            found.append(client)
        for client in found:
            self._turns[client] = now + self._keepalive
            self._turns.move_to_end(client)
        return found

    async def dismiss(self) -> None:
        """Have all who are here now leave as soon as they are idle."""
        for number, client in enumerate(list(self._turns)):
            client.leave_when_idle()
            if number % BREATH == BREATH - 1:
                await trio.lowlevel.checkpoint()
