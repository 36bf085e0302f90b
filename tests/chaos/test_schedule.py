"""A schedule is what its seed says, and between them the schedules have everything that can go wrong."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import CONNECTION, Ledger
from tests.chaos.run import EXITS, SIGNALS, repeat
from tests.chaos.schedule import KINDS, MIB, Acknowledged, Kind, Later, Passed, Said, Victim, schedule
from tests.chaos.stage import PORTS, free_port
from tests.chaos.test_chaos import BRIEF

ALL = [schedule(seed) for seed in range(200)]


@pytest.mark.parametrize("brief", [False, True])
def test_the_same_seed_gives_the_same_schedule(brief: bool) -> None:
    for seed in range(20):
        assert schedule(seed, brief=brief) == schedule(seed, brief=brief)
        assert str(schedule(seed, brief=brief)) == str(schedule(seed, brief=brief))
    assert schedule(1, brief=brief) != schedule(2, brief=brief)


def test_two_hundred_schedules_have_every_fault_at_every_kind_of_moment() -> None:
    faults = [fault for each in ALL for fault in each.faults]
    assert {(fault.victim, fault.kind) for fault in faults} == {(v, kind) for v in Victim for kind in KINDS[v]}
    assert {type(fault.at) for fault in faults} == {Passed, Acknowledged, Later, Said}
    assert {len(each.faults) for each in ALL} == {1, 2, 3, 4}


def test_the_brief_ones_have_every_victim() -> None:
    faults = [fault for seed in BRIEF for fault in schedule(seed, brief=True).faults]
    assert {fault.victim for fault in faults} == set(Victim)
    assert {Kind.KILL, Kind.STOP} <= {fault.kind for fault in faults}


def test_schedules_are_bounded() -> None:
    for each in ALL:
        assert each.tree.size <= 25 * MIB
        assert each.tree.size / each.rate <= 2.8
        assert all(0 <= fault.seconds <= 3.0 for fault in each.faults)


def test_every_fault_can_be_done() -> None:
    for victim in (Victim.SENDER, Victim.RECEIVER, Victim.RELAY):
        for kind in set(KINDS[victim]) - {Kind.KILL, Kind.STOP}:
            assert (victim, kind) in EXITS
            assert kind in SIGNALS


def test_a_failure_tells_how_to_repeat_it() -> None:
    assert "make chaos SEED=17" in repeat(schedule(17))
    assert "brief-3" in repeat(schedule(3, brief=True))


def test_a_transfer_may_take_its_bytes_once() -> None:
    ledger = Ledger(10 * MIB)
    ledger.check([10 * MIB + CONNECTION, CONNECTION])
    with pytest.raises(AssertionError, match="were allowed"):
        ledger.check([9 * MIB, 2 * MIB])


def test_names_may_take_as_much_as_their_pages() -> None:
    Ledger(0, 100_000).check([CONNECTION + 400_000])
    with pytest.raises(AssertionError, match="0 were missing"):
        Ledger(0, 100_000).check([CONNECTION + 400_001])


def test_what_was_not_durable_at_a_fault_may_be_sent_again() -> None:
    ledger = Ledger(20 * MIB)
    ledger.see(1)
    ledger.keep(6 * MIB)
    ledger.fault()
    ledger.lose(10 * MIB)
    ledger.lose(10 * MIB)  # the same bytes are not lost twice
    assert ledger.conceded == 4 * MIB
    ledger.check([10 * MIB, 14 * MIB])


def test_what_was_durable_before_a_connection_may_not_pass_in_it() -> None:
    ledger = Ledger(20 * MIB)
    ledger.see(1)
    ledger.keep(12 * MIB)
    ledger.fault()
    ledger.lose(18 * MIB)
    ledger.see(2)
    ledger.keep(20 * MIB)
    ledger.check([18 * MIB, 8 * MIB])
    with pytest.raises(AssertionError, match="connection 1; when it was made, 8388608 were missing"):
        ledger.check([18 * MIB, 9 * MIB])


def test_a_fault_costs_at_most_what_was_missing() -> None:
    ledger = Ledger(20 * MIB)
    ledger.keep(15 * MIB)
    ledger.lose(50 * MIB)
    assert ledger.conceded == 5 * MIB


def test_a_connection_that_is_lost_without_a_fault_costs_nothing() -> None:
    ledger = Ledger(20 * MIB)
    with pytest.raises(AssertionError, match="were allowed"):
        ledger.check([10 * MIB, 20 * MIB])
    ledger.fault()
    ledger.lose(10 * MIB)
    ledger.check([10 * MIB, 20 * MIB])


def test_what_comes_late_of_a_dead_sender_is_no_fault_of_the_next() -> None:
    ledger = Ledger(20 * MIB)
    ledger.fault()
    ledger.lose(4 * MIB)
    ledger.doom({0: 4 * MIB})
    ledger.doom({0: 5 * MIB})  # it died when it died
    ledger.check([8 * MIB, 20 * MIB])
    ledger = Ledger(20 * MIB)
    ledger.fault()
    ledger.lose(4 * MIB)
    with pytest.raises(AssertionError, match="were allowed"):
        ledger.check([8 * MIB, 20 * MIB])


def test_ports_are_free_and_below_those_of_connections() -> None:
    assert free_port(3) in PORTS
    assert PORTS.stop <= 32_768
