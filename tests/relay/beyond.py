"""A program of test_splicing.py: uses up the kernel pipes that a plain user may have, then carries transfers.

Run by root it becomes somebody whom nobody else is; that happens in here, when all is imported, since such a somebody
may not be able to read the folder that this lies in. Prints what it found as JSON.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import sys
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from glide.relay.limits import Limits
from tests.relay.bridges import Tap, over_tcp
from tests.relay.raw import exactly

MOST = Path("/proc/sys/fs/pipe-user-pages-soft")
PAYLOAD = random.Random(1).randbytes(2 << 20)


async def carry() -> dict[str, object]:
    """One transfer: how many pipes it had, and whether all arrived."""
    async with over_tcp(Limits(splice_after=1)) as tcp:
        tcp.bridge.nursery.start_soon(Tap(tcp.sender, PAYLOAD).run)
        arrived = await exactly(tcp.receiver, len(PAYLOAD)) == PAYLOAD
        await wait_all_tasks_blocked()
        return {"arrived": arrived, "pipes": len(tcp.forth.pipes or [])}


def use_up(size: int) -> list[int]:
    """Open pipes until the system gives none of this size any more, nor any of the usual one. Raises OSError."""
    taken: list[int] = []
    try:
        while True:
            taken += os.pipe()
            fcntl.fcntl(taken[-1], fcntl.F_SETPIPE_SZ, size)
    except PermissionError:
        pass
    while fcntl.fcntl(taken[-1], fcntl.F_GETPIPE_SZ) > 2 * os.sysconf("SC_PAGESIZE"):
        taken += os.pipe()
    return taken


def become_plain() -> None:
    somebody = 20_000 + os.getpid() % 40_000
    os.setgroups([])
    os.setresgid(somebody, somebody, somebody)
    os.setresuid(somebody, somebody, somebody)


def main() -> dict[str, object]:
    if not MOST.exists() or not 0 < int(MOST.read_text()) <= 1 << 16:
        return {"skip": "this system has no limit to a user's pipes that could be reached"}
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logging.getLogger("glide.relay").addHandler(Lines())
    logging.getLogger("glide.relay").setLevel(logging.DEBUG)
    trio.run(carry)  # what is imported late, is by now
    if os.geteuid() == 0:
        try:
            become_plain()
        except OSError as error:
            return {"skip": f"root cannot be somebody else here: {error}"}
    said: dict[str, object] = {"user": os.geteuid(), "before": trio.run(carry), "log": lines}
    try:
        taken = use_up(Limits().pipe_size)
    except OSError as error:  # of descriptors, before there were too few pages; or this user may have any number
        return {"skip": f"the pipes here cannot be used up: {error}"}
    said["beyond"] = trio.run(carry)
    for number in taken:
        os.close(number)
    return said | {"after": trio.run(carry)}


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
