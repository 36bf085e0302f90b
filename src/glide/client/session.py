"""A person at a relay, through all control connections there: made when one is needed, shared while it lasts."""

from __future__ import annotations

import trio

from glide import events
from glide.client import dialling
from glide.client.address import Address
from glide.client.link import Link
from glide.client.me import Me
from glide.crypto.identity import key_text
from glide.errors import NameTaken, UsageError
from glide.protocol.messages import Role


class Session:
    """Whoever needs the relay asks for the :meth:`link`, and asks again when that one is lost.

    ``by_default`` says that nobody chose ``name``: where it is taken, one like it is used, but not to receive under.
    """

    def __init__(
        self,
        address: Address,
        me: Me,
        nursery: trio.Nursery,
        *,
        name: str | None,
        by_default: bool = False,
        invisible: bool = False,
        report: events.Report,
    ) -> None:
        self.address = address
        self.me = me
        self.name = name
        self.report = report
        self.over = False  # whoever was connected has ended that
        self.was_there = False  # connected at least once: what is wrong then is worth another try
        self._nursery = nursery
        self._fallback = f"{name[:27]}-{key_text(me.identity.public)[:4]}" if name and by_default else None
        self._invisible = invisible
        self._dialling = trio.Lock()
        self._links: dict[Role, Link] = {}

    def __repr__(self) -> str:
        return f"<Session of {self.name or 'nobody'} at {self.address}: {', '.join(self._links) or 'not connected'}>"

    async def link(self, role: Role) -> Link:
        """A control connection for that; one that receives can do all that others can.

        Raises why there is none: :class:`Unreachable`, :class:`KeyChanged`, :class:`NameTaken`,
        :class:`RelayRefused`, and what else a connection may raise. Cancelled while it dials, nothing is left.
        """
        async with self._dialling:
            if self.over:
                raise UsageError("The connection to the relay was given up: its block has ended.")
            fit = {Role.RECEIVE, role} if role is not Role.ASK else {*Role}
            for there, link in self._links.items():
                if there in fit and link.why is None:
                    return link
            try:
                return await self._dialled(role)
            except NameTaken as error:
                assert self.name is not None, "only a name is taken"
                if role is not Role.SEND or self._fallback is None:
                    means = "Nothing is received." if role is Role.RECEIVE else "Nothing was sent."
                    raise dialling.name_taken(error, self.name, means) from None
            self.report(events.Notice(f"The name {self.name} is taken here; you send as {self._fallback}."))
            self.name, self._fallback = self._fallback, None
            return await self._dialled(role)

    async def _dialled(self, role: Role) -> Link:
        link: Link = await self._nursery.start(self._hold, role)
        self.was_there = True
        return link

    async def _hold(self, role: Role, task_status: trio.TaskStatus[Link]) -> None:
        """Be connected until the relay ends that, or the nursery is cancelled."""
        name = None if role is Role.ASK else self.name
        async with dialling.connect(
            self.address, self.me, role=role, name=name, report=self.report, invisible=self._invisible
        ) as link:
            self._links[role] = link
            try:
                if role is Role.RECEIVE:
                    assert name is not None, "whoever receives has a name"
                    self.report(events.Registered(name, self.me.identity.public, link.greeting))
                task_status.started(link)
                await link.over.wait()
            finally:
                if self._links.get(role) is link:
                    del self._links[role]
