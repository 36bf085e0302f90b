"""Fast transfers, with and without one whose receiver is slow, in turn: what the slow one costs the others."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median
from typing import Any

from tests.load.generator import Generator
from tests.load.relay import RelayProcess

_ROUND = 2.0  # seconds that are measured
_SETTLE = 0.5  # and before them, for buffers to fill
_SLOTH_PAUSE = 0.5  # seconds between two reads of 64 KiB
MIB = 1024 * 1024

Figures = dict[str, Any]


def fairness(fast: int, rounds: int) -> tuple[list[list[str]], list[str], Figures]:
    """The table, what was not served, and all figures. All fast transfers stay the same throughout."""
    with ExitStack() as stack:
        relay = RelayProcess()
        stack.callback(relay.close)

        def started(part: str, numbers: range, pause: float = 0.0) -> Generator:
            generator = Generator(part, relay.port, relay.key, numbers, pause)
            stack.callback(generator.close)
            generator.ready()
            return generator

        receivers = started("receivers", range(fast))
        senders = started("senders", range(fast))
        sloth = started("receivers", range(fast, fast + 1), _SLOTH_PAUSE)
        pusher = started("senders", range(fast, fast + 1))
        senders.ask("start")
        rates: dict[bool, list[float]] = {False: [], True: []}
        costs: dict[bool, list[float]] = {False: [], True: []}
        least = 1.0
        problems: list[str] = []
        # In pairs whose order alternates, so that what changes slowly on the machine falls on both alike.
        for number in range(rounds):
            for slow in (False, True) if number % 2 else (True, False):
                if slow:
                    pusher.ask("start")
                time.sleep(_SETTLE)
                cpu = relay.cpu
                moved, rate, share = measured(receivers)
                rates[slow].append(rate)
                costs[slow].append((relay.cpu - cpu) / moved * 1024 * MIB)
                least = min(least, share)
                if slow:
                    problems += pusher.ask("drop")["problems"]
                    sloth.ask("drop")
        senders.ask("finish")
        problems += served(senders, receivers, fast)
        slowly = sloth.ask("count")
        if not slowly["bytes"][0]:
            problems.append("the slow one got nothing")
        problems += slowly["problems"]
    ratios = [with_sloth / without for without, with_sloth in zip(rates[False], rates[True], strict=True)]
    figures = {
        "fast": fast,
        "without": rates[False],
        "with": rates[True],
        "ratios": ratios,
        "least_share": least,
        "cpu": costs,
    }
    rows = [
        [f"{fast} fast transfers alone, in all", f"{median(rates[False]) / MIB:.0f} MiB/s"],
        ["the same beside one whose receiver takes 128 KiB/s", f"{median(rates[True]) / MIB:.0f} MiB/s"],
        ["that is, median of the rounds", f"{(median(ratios) - 1) * 100:+.1f} %"],
        ["relay CPU for a GiB, alone and beside it", f"{median(costs[False]):.2f} and {median(costs[True]):.2f} s"],
        ["the least that one of them got in a round, of an equal share", f"{least * 100:.0f} %"],
    ]
    return rows, problems, figures


def measured(receivers: Generator) -> tuple[int, float, float]:
    """Bytes of all, the same a second, and what the last of them got of an equal share."""
    before = receivers.ask("count")
    time.sleep(_ROUND)
    after = receivers.ask("count")
    moved = [now - then for now, then in zip(after["bytes"], before["bytes"], strict=True)]
    total = max(sum(moved), 1)
    return total, total / (after["at"] - before["at"]), min(moved) * len(moved) / total


def served(senders: Generator, receivers: Generator, count: int) -> list[str]:
    """What is wrong with transfers that were to finish."""
    ended = receivers.ask("ended")
    sent = senders.ask("count")
    problems: list[str] = [*sent["problems"], *ended["problems"]]
    if ended["ended"] != count or ended["bytes"] != sent["bytes"]:
        problems.append(f"{ended['ended']} of {count} transfers ended, or not with all their bytes")
    return problems
