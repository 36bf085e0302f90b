"""The Python API: ``glide.connect``. The verbs that send, receive, ask and pair use nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from glide import events
from glide.client import profile
from glide.client.session import Session
from glide.errors import GlideError, UsageError, one_error
from glide.protocol.messages import Role
from glide.protocol.names import parse
from glide.settings import SETTINGS, Home, Settings, setting

# What it takes to send, to receive or to pair is loaded by whoever does it: no command does all of it.
if TYPE_CHECKING:
    from glide.client.arriving import Wishes
    from glide.client.consent import Answer, Ask
    from glide.client.meeting import Ask as AskCode
    from glide.client.meeting import Show
    from glide.client.offers import Offer
    from glide.client.pairing import Paired
    from glide.client.push import Receipt
    from glide.client.who import Somebody

# Standard input, in place of a path.
PIPE = "-"
# Of a message that goes with files, in characters; the frame would hold a little more.
LONGEST_MESSAGE = 400
# Settings that mean something to the command line alone.
_OF_THE_COMMAND_LINE = frozenset(
    {"json", "quiet", "verbose", "host", "port", "greeting", "grace", "receipt", "on-offer", "on-received", "on-failed"}
)


def _ignore(event: events.Event) -> None:
    pass


@asynccontextmanager
async def connect(
    relay: str | None = None,
    name: str | None = None,
    *,
    role: str = Role.SEND,
    at_once: bool = True,
    home: Path | None = None,
    report: events.Report = _ignore,
    settings: Settings | None = None,
    **flags: Any,
) -> AsyncIterator[Client]:
    """Be at a relay under a name while the block runs.

    ``relay`` is ``HOST[:PORT][#KEY]``. What is not said comes from the environment and ``config.toml``, as for the
    command line; ``flags`` are its flags, with underscores (``idle="5m"``, ``accept="known"``, ``invisible=True``).
    ``home`` is the folder of another person's keys and settings. ``role`` is ``send``; ``receive``, to take files from
    the beginning (otherwise from the first use of :meth:`Client.offers`); or ``ask``, under no name. Unless
    ``at_once``, the relay is dialled when something is first asked of it.
    ``report`` is called with what happens (:mod:`glide.events`), in the task of whatever it happens to.

    Raises a :class:`GlideError`: the relay cannot be reached, has another key than it had, or the name is taken. A
    connection that is lost later is made anew when it is needed. When the block ends, transfers that are under way are
    stopped as by cancellation.
    """
    if role not in [*Role]:
        raise UsageError(f"There is no role {role!r}.", next=f"The roles are {', '.join(Role)}.")
    given = {"relay": relay, "as": name, **{setting(flag): value for flag, value in flags.items()}}
    if settings is None:
        if unknown := given.keys() - (SETTINGS.keys() - _OF_THE_COMMAND_LINE):
            raise UsageError(f"There is no setting {', '.join(sorted(unknown))} of a client.")
        settings = await trio.to_thread.run_sync(Settings, given, Home(home, home) if home else Home.find())
    elif home is not None or any(value is not None for value in given.values()):
        raise UsageError("With `settings` all is said: relay, name, home and flags have their places in them.")
    me = await trio.to_thread.run_sync(profile.me, settings)
    mine = profile.name(settings, me.identity.public)
    own: Exception | None = None
    with one_error():
        async with trio.open_nursery() as nursery:
            session = Session(
                profile.address(settings),
                me,
                nursery,
                name=mine.text,
                by_default=mine.by_default,
                invisible=settings["invisible"],
                report=report,
            )
            client = Client(session, settings, nursery, report)
            if role == Role.RECEIVE:
                from glide.client import receive

                # What is wrong with the settings is told before anybody is rung.
                await trio.to_thread.run_sync(receive.check, client._wishes(None))
            if at_once:
                await session.link(Role(role))
            try:
                yield client
            except Exception as error:  # noqa: BLE001  # not ours: it goes past the nursery, as it came
                own = error
            session.over = True
            nursery.cancel_scope.cancel()
    if own is not None:
        raise own


class Client:
    """One person at a relay; made by :func:`connect`. All of it may be used side by side."""

    def __init__(self, session: Session, chosen: Settings, nursery: trio.Nursery, report: events.Report) -> None:
        self._session = session
        self._chosen = chosen
        self._nursery = nursery
        self._report = report
        self._terms = profile.terms(chosen)
        self.key = session.me.identity.public
        self.known = session.me.known
        self._offers: _Offers | None = None
        self._receives = False

    def __repr__(self) -> str:
        return f"<Client: {self._session!r}>"

    @property
    def name(self) -> str:
        """Mine at the relay: the one that was chosen, or one like it where a default was taken."""
        assert self._session.name is not None, "everybody has a name, though not everybody registers it"
        return self._session.name

    async def push(
        self,
        to: str,
        paths: str | Path | Sequence[str | Path],
        *,
        report: events.Report | None = None,
        message: str | None = None,
        filename: str | None = None,
        exclude: str | Sequence[str] | None = None,
        gitignore: bool | None = None,
        wait: float | None = None,
        strict: bool | None = None,
    ) -> Receipt:
        """Send files and folders to a person; returns when they have confirmed all of it.

        ``report`` gets what happens to this push, in place of the client's. ``paths`` may be just ``-``, for standard
        input. ``filename`` is another name for a single file, ``exclude`` has patterns as in ``.gitignore``,
        ``gitignore`` says to follow the folders' own. ``wait`` is how many seconds they may take to appear; ``strict``
        sends to nobody whose key is not verified. What is None is as the settings say.

        Raises :class:`NobodyThere`, :class:`Declined`, :class:`KeyChanged`, :class:`FileError` and others of
        :mod:`glide.errors`; :class:`Partly` has the receipt for what was confirmed. Cancelled, they are told, and keep
        what has arrived; the same push goes on there.
        """
        from glide.client.push import Parcel, push
        from glide.transfer.gathering import gather, gather_pipe

        chosen = self._chosen
        person, names = parse(to), [str(path) for path in _listed(paths)]
        message = chosen["message"] if message is None else message
        filename = chosen["filename"] if filename is None else filename
        exclude = chosen["exclude"] if exclude is None else [str(each) for each in _listed(exclude)]
        gitignore = chosen["gitignore"] if gitignore is None else gitignore
        wait = chosen["wait"] if wait is None else wait
        strict = chosen["strict"] if strict is None else strict
        if len(message) > LONGEST_MESSAGE or any("\ud800" <= c <= "\udfff" for c in message):
            raise UsageError(f"A message has {LONGEST_MESSAGE} characters of UTF-8 at most.", "Nobody was disturbed.")
        if not names or "" in names:
            raise UsageError("A PATH is empty.", "Nobody was disturbed.", "A dot (.) is the folder that you are in.")
        if PIPE in names and len(names) > 1:
            raise UsageError("- is standard input, which is sent alone.", next="To send a file of that name: ./-")
        find = (
            partial(gather_pipe, filename)
            if names == [PIPE]
            else lambda warn: gather(
                [Path(path) for path in names], filename=filename, exclude=exclude, gitignore=gitignore, warn=warn
            )
        )
        parcel = Parcel(person, find, message, wait, strict)
        return await push(self._session, parcel, self._terms, report or self._report)

    def offers(self) -> AsyncIterator[Offer]:
        """What others offer, while this is iterated and afterwards, until the connection ends for good.

        Only what the policy in the settings says to ask about; other offers are taken or refused by themselves. An
        offer that nobody answers is refused in time. Raises why there can be no more. Whoever calls this again goes on
        where the last one stopped.
        """
        if self._offers is None or self._offers.error is not None:
            self._offers = _Offers(self)
        return self._offers

    async def receive(self, ask: Ask | None = None) -> None:
        """Take what the settings say to take, asking ``ask`` where they say so, until cancelled.

        With ``once`` set, until the first transfer that was accepted has ended. Raises why it ended otherwise.
        """
        from glide.client.receive import receive

        if self._receives:
            raise UsageError("This client receives already: there is one who decides about offers.")
        self._receives = True
        try:
            await receive(self._session, self._wishes(ask), self._terms, self._report)
        finally:
            self._receives = False

    def _wishes(self, ask: Ask | None) -> Wishes:
        """What the settings say of how to receive. Raises :class:`UsageError`."""
        from glide.client.arriving import Wishes
        from glide.client.consent import Consent
        from glide.transfer.landing import Conflict

        chosen = self._chosen
        consent = Consent(
            chosen.policy(),
            frozenset(parse(name) for name in chosen["from"]),
            chosen["allow-hidden"],
            ask,
            self._terms.ask_timeout,
        )
        return Wishes(
            into=None if chosen["stdout"] else Path(chosen["into"]).expanduser(),
            journals=chosen.home.partials,
            consent=consent,
            conflict=Conflict(chosen["conflict"]),
            once=chosen["once"] or chosen["stdout"],
            sync=not chosen["no-fsync"],
            keep=chosen["keep-partials"],
        )

    async def who(self) -> list[Somebody]:
        """Who is connected, in order of names, but for those who do not want to be listed."""
        from glide.client.who import who

        return await who(await self._session.link(Role.ASK), self.known)

    async def pair(self, name: str, *, show: Show, ask: AskCode) -> Paired:
        """Pin each other's keys as verified with a short code, while the other person does the same.

        ``show(code)`` is called if we are first: the code is to be told to them, not through the relay. Otherwise
        ``await ask()`` gives the code that they see. Raises :class:`IntegrityError` for a wrong one, which is used up
        by that, :class:`KeyChanged` if another key is pinned, and others. Cancelled, nothing is pinned.
        """
        from glide.client.meeting import pair

        return await pair(self._session, parse(name), show, ask, self._terms.ask_timeout)


def _listed(what: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    """One, as a list of one: a string is a sequence too, of its letters."""
    return [what] if isinstance(what, (str, Path)) else what


class _Offers:
    """The iterator: receiving begins with the first step, and goes on in the client's nursery."""

    def __init__(self, client: Client) -> None:
        from glide.client.offers import Offer
        from glide.client.receive import MOST_AT_ONCE

        self._client = client
        self._channel_in, self._channel = trio.open_memory_channel[Offer](MOST_AT_ONCE)
        self._begun = False
        self.error: GlideError | None = None

    def __aiter__(self) -> _Offers:
        return self

    async def __anext__(self) -> Offer:
        if not self._begun:
            self._begun = True
            self._client._nursery.start_soon(self._run)
        while True:
            try:
                offer = await self._channel.receive()
            except trio.EndOfChannel:
                raise self.error or StopAsyncIteration from None
            if offer.open:
                return offer

    async def _run(self) -> None:
        async with self._channel_in:
            try:
                await self._client.receive(self._ask)
            except GlideError as error:
                self.error = error

    async def _ask(self, arrived: events.OfferArrived) -> Answer | None:
        from glide.client.offers import Offer

        offer = Offer(arrived)
        try:
            await self._channel_in.send(offer)
        except BaseException:
            offer.decline()
            raise
        return await offer.answer()
