"""Who may send what, without asking."""

from __future__ import annotations

from enum import StrEnum

from glide.people.known import Trust


class Policy(StrEnum):
    """``--accept``."""

    ASK = "ask"
    KNOWN = "known"
    ALL = "all"


class Verdict(StrEnum):
    ACCEPT = "accept"
    ASK = "ask"
    DENY = "deny"


def judge(policy: Policy, trust: Trust, sender: str, only: frozenset[str]) -> Verdict:
    """What to do with an offer of ``sender``. ``only``, if not empty, filters; it never consents by itself."""
    if only and sender not in only:
        return Verdict.DENY
    if policy is Policy.ALL or (policy is Policy.KNOWN and trust.rank >= Trust.KNOWN.rank):
        return Verdict.ACCEPT
    return Verdict.ASK if policy is Policy.ASK else Verdict.DENY
