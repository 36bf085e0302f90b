"""Who may send without being asked about: the whole table."""

from __future__ import annotations

import itertools

import pytest

from glide.people.known import Trust
from glide.people.policy import Policy, Verdict, judge

ACCEPT, ASK, DENY = Verdict.ACCEPT, Verdict.ASK, Verdict.DENY

TABLE = {
    (Policy.ASK, Trust.NEW): ASK,
    (Policy.ASK, Trust.SEEN): ASK,
    (Policy.ASK, Trust.KNOWN): ASK,
    (Policy.ASK, Trust.VERIFIED): ASK,
    (Policy.KNOWN, Trust.NEW): DENY,
    (Policy.KNOWN, Trust.SEEN): DENY,
    (Policy.KNOWN, Trust.KNOWN): ACCEPT,
    (Policy.KNOWN, Trust.VERIFIED): ACCEPT,
    (Policy.ALL, Trust.NEW): ACCEPT,
    (Policy.ALL, Trust.SEEN): ACCEPT,
    (Policy.ALL, Trust.KNOWN): ACCEPT,
    (Policy.ALL, Trust.VERIFIED): ACCEPT,
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(itertools.product(Policy, Trust))


@pytest.mark.parametrize(("policy", "trust"), TABLE)
def test_what_a_policy_says_of_somebody(policy: Policy, trust: Trust) -> None:
    assert judge(policy, trust, "alice", frozenset()) is TABLE[policy, trust]


@pytest.mark.parametrize(("policy", "trust"), TABLE)
def test_from_filters_and_never_consents_by_itself(policy: Policy, trust: Trust) -> None:
    assert judge(policy, trust, "alice", frozenset({"alice", "bob"})) is TABLE[policy, trust]
    assert judge(policy, trust, "mallory", frozenset({"alice", "bob"})) is DENY
    assert judge(policy, trust, "alic", frozenset({"alice"})) is DENY
