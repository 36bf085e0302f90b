"""People for tests: each with a key, pins, an inbox and files of their own."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from glide import events
from glide.client import dialling, endtoend, ringing
from glide.client.address import Address
from glide.client.api import Client, connect
from glide.client.arriving import Wishes
from glide.client.consent import Answer, Consent
from glide.client.me import Me
from glide.client.push import Parcel, push
from glide.client.receive import receive
from glide.client.session import Session
from glide.crypto.identity import Identity, key_text
from glide.errors import one_error
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.people.known import Known, Trust
from glide.people.policy import Policy
from glide.protocol.messages import Push, Role
from glide.transfer.gathering import gather
from glide.transfer.terms import Terms
from tests.processes import is_stage

E = TypeVar("E", bound=events.Event)

# A person who is asked: True for yes.
Asked = Callable[[events.OfferArrived], Awaitable[bool]]

ALL = Policy.accepting("all")

# Long enough that no deadline passes on a busy machine; keepalives so rare that records can be counted.
PATIENT = Deadlines(handshake=20.0, keepalive=300.0, lost=50.0, farewell=2.0)
# A lost connection stays lost: what a relay does to it is to be seen once.
TERMS = Terms(idle=40.0, ask_timeout=40.0, retry=0.0)

# For attacks that only silence gives away: whatever comes late fails in the same way.
HASTY = Deadlines(handshake=1.5, keepalive=300.0, lost=50.0, farewell=0.5)
HASTY_TERMS = Terms(idle=1.5, ask_timeout=5.0, retry=0.0)


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Person:
    """Somebody with a home; ``events`` is what glide told them."""

    def __init__(self, name: str, home: Path, deadlines: Deadlines = PATIENT, terms: Terms = TERMS) -> None:
        self.name = name
        self.home = home
        self.identity = Identity.generate()
        self.me = Me(self.identity, Known(home / "known.json"), deadlines)
        self.terms = terms
        self.into = home / "inbox"
        self.files = home / "files"
        self.into.mkdir(parents=True)
        self.files.mkdir()
        self.events: list[events.Event] = []
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Person {self.name}>"

    @property
    def key(self) -> bytes:
        return self.identity.public

    @property
    def known(self) -> Known:
        return self.me.known

    @property
    def inbox(self) -> dict[str, bytes]:
        """The files that lie in the inbox under final names; of folders that were sent, with their paths."""
        found = {str(path.relative_to(self.into)): path for path in self.into.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if not is_stage(name.partition("/")[0])}

    @property
    def stages(self) -> list[Path]:
        """The hidden folders in the inbox, of what is not whole."""
        return [path for path in self.into.iterdir() if is_stage(path.name)]

    def trusts(self, relay: bytes, other: Person) -> Trust:
        """What the pin of ``other`` says; NEW if there is none."""
        pin = self.known.find(relay, other.name)
        return pin.trust if pin is not None else Trust.NEW

    def pin(self, relay: bytes, other: Person, trust: Trust = Trust.KNOWN) -> None:
        self.known.remember(relay, other.name, other.key, trust)

    # --- what is told ---

    def report(self, event: events.Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def hears(self, *kinds: type[events.Event], times: int = 1) -> events.Event:
        """The event of one of these kinds that is the ``times``-th, said already or still to come."""
        while True:
            found = [event for event in self.events if isinstance(event, kinds)]
            if len(found) >= times:
                return found[times - 1]
            await self._news.wait()

    # --- what they do ---

    def file(self, data: bytes, name: str = "holiday.jpg") -> Path:
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def parcel(self, to: str, *paths: Path, **more: Any) -> Parcel:
        """What a push of these files and folders is made of."""
        return Parcel(to, lambda warn: gather(paths, warn=warn), **more)

    @asynccontextmanager
    async def session(self, relay: Address, *, name: str = "", by_default: bool = False) -> AsyncIterator[Session]:
        """At that relay while the block runs, under their own name if no other is said."""
        with one_error():
            async with trio.open_nursery() as nursery:
                named = name or self.name
                yield Session(relay, self.me, nursery, name=named, by_default=by_default, report=self.report)
                nursery.cancel_scope.cancel()

    def client(
        self, relay: Address, name: str | None = "", *, role: str = "send", **flags: Any
    ) -> AbstractAsyncContextManager[Client]:
        """The same person in a program: what ``glide.connect`` gives. What is lost stays lost unless a flag says."""
        path = self.home / "identity"
        path.write_text(key_text(self.identity.private) + "\n", encoding="ascii")
        path.chmod(0o600)
        given = {"into": str(self.into), "no_fsync": True, "retry": "0s", **flags}
        named = self.name if name == "" else name
        return connect(str(relay), named, role=role, home=self.home, report=self.report, **given)

    async def push(self, relay: Address, to: str, path: Path, message: str = "") -> None:
        await self.send(relay, self.parcel(to, path, message=message))

    async def send(self, relay: Address, parcel: Parcel, terms: Terms | None = None) -> None:
        async with self.session(relay) as session:
            await push(session, parcel, terms or self.terms, self.report)

    async def receive(self, relay: Address, policy: Policy = ALL, ask: Asked | None = None, **more: Any) -> None:
        async def answer(offer: events.OfferArrived) -> Answer | None:
            assert ask is not None, "somebody to ask"
            return Answer(Trust.KNOWN) if await ask(offer) else None

        consent = Consent(policy, ask=answer if ask else None, ask_timeout=self.terms.ask_timeout)
        wishes = Wishes(self.into, self.into.parent / "partials", consent, sync=False, **more)
        async with self.session(relay) as session:
            await receive(session, wishes, self.terms, self.report)

    async def waits(
        self, nursery: trio.Nursery, relay: Address, policy: Policy = ALL, ask: Asked | None = None, **more: Any
    ) -> None:
        """Begin to receive, in the background; returns once registered."""
        before = len(self.told(events.Registered))
        nursery.start_soon(partial(self.receive, relay, policy, ask, **more))
        await self.hears(events.Registered, times=before + 1)

    @asynccontextmanager
    async def reaches(self, relay: Address, to: str, transfer: bytes) -> AsyncIterator[Connection]:
        """The end-to-end connection to ``to``, as a push has it before its offer: to say something else there."""
        async with dialling.connect(relay, self.me, role=Role.SEND, name=self.name, report=self.report) as control:
            with control.answers(transfer) as answers:
                rung = await ringing.ring(control, answers, Push(to=to, transfer=transfer), lambda: None)
            terms = endtoend.Binding(transfer, control.relay_key, self.name, self.key, to, rung.key)
            stream, already = await dialling.open_data(relay, control.relay_key, rung.ticket, self.me)
            async with stream:
                yield await endtoend.as_sender(stream, already, terms, self.me)


@asynccontextmanager
async def taking_all(person: Person, relay: Address) -> AsyncIterator[Client]:
    """They take whatever comes while the block runs."""
    async with person.client(relay, role="receive", accept="all") as him, trio.open_nursery() as nursery:
        nursery.start_soon(him.receive)
        yield him
        nursery.cancel_scope.cancel()
