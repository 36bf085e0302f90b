"""Who may say what when: two peers that walk the tables together always agree on where they are."""

from __future__ import annotations

from collections import deque
from itertools import combinations

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glide.errors import ProtocolError
from glide.protocol.frames import Kind
from glide.protocol.preface import Purpose
from glide.protocol.states import START, TABLE, Machine, Side, State
from tests.strategies import UNKNOWN_KINDS

I, R = Side.INITIATOR, Side.RESPONDER  # noqa: E741 - as in the tables

# Where a connection's story ends, as far as these tables tell it.
ENDS = {State.CLOSED, State.JOINED}


def legal(state: State) -> list[tuple[Side, Kind]]:
    """All that may be said in ``state``, by whom."""
    anywhere = [] if state in ENDS else [(I, Kind.KEEPALIVE), (R, Kind.KEEPALIVE)]
    return [*TABLE[state], *anywhere]


def reachable(start: State) -> set[State]:
    found, unexplored = {start}, [start]
    while unexplored:
        following = set(TABLE[unexplored.pop()].values()) - found
        found |= following
        unexplored.extend(following)
    return found


# --- the tables ------------------------------------------------------------------------------------------


def test_every_state_has_a_row() -> None:
    assert set(TABLE) == set(State)


def test_every_purpose_of_a_connection_has_a_start() -> None:
    assert set(START) == set(Purpose)


def test_every_state_is_reachable() -> None:
    assert set.union(*(reachable(start) for start in START.values())) == set(State)


@pytest.mark.parametrize("state", State)
def test_from_every_state_there_is_a_way_to_the_end(state: State) -> None:
    assert reachable(state) & ENDS


def test_only_at_the_end_is_nothing_left_to_say() -> None:
    assert {state for state in State if not TABLE[state]} == ENDS


def test_connections_of_different_purpose_share_no_state_but_the_last() -> None:
    for one, other in combinations(Purpose, 2):
        assert reachable(START[one]) & reachable(START[other]) == {State.CLOSED}


def test_every_kind_is_said_somewhere() -> None:
    # KEEPALIVE may be said anywhere; CAPABILITIES travels inside the handshake, before the tables begin.
    said = {kind for row in TABLE.values() for _, kind in row}
    assert set(Kind) - said == {Kind.KEEPALIVE, Kind.CAPABILITIES}


def test_a_kind_always_comes_from_the_same_side_but_for_what_either_may_have_to_say() -> None:
    both = {kind for kind in Kind if len({side for row in TABLE.values() for side, said in row if said == kind}) > 1}
    assert both == {Kind.ABORT, Kind.BUSY, Kind.SHARE, Kind.CONFIRM}


@pytest.mark.parametrize("state", [State.OFFERING, State.ASKING, State.STREAMING, State.ENDED])
@pytest.mark.parametrize("side", Side)
def test_either_side_may_stop_a_transfer_until_the_receipt(state: State, side: Side) -> None:
    assert TABLE[state][side, Kind.ABORT] is State.CLOSED


PAIRING = [State.PAIRING, State.SHARED, State.CONFIRMING, State.ACKNOWLEDGING]


@pytest.mark.parametrize("state", PAIRING)
@pytest.mark.parametrize("side", Side)
def test_either_side_may_stop_a_pairing_until_both_have_shown_what_they_know(state: State, side: Side) -> None:
    assert TABLE[state][side, Kind.ABORT] is State.CLOSED


def test_C1_of_a_pairing_nothing_can_be_said_twice_or_out_of_turn() -> None:
    turns = [(I, Kind.SHARE), (R, Kind.SHARE), (I, Kind.CONFIRM), (R, Kind.CONFIRM)]
    for state, turn, following in zip(PAIRING, turns, [*PAIRING[1:], State.CLOSED], strict=True):
        assert {said for said in TABLE[state] if said[1] is not Kind.ABORT} == {turn}
        assert TABLE[state][turn] is following


def test_C1_who_shows_the_code_shows_no_tag_before_the_other_has() -> None:
    assert [state for state in State if (R, Kind.CONFIRM) in TABLE[state]] == [State.ACKNOWLEDGING]
    assert [state for state in State if State.ACKNOWLEDGING in TABLE[state].values()] == [State.CONFIRMING]
    assert TABLE[State.CONFIRMING][I, Kind.CONFIRM] is State.ACKNOWLEDGING


def test_C9_before_a_yes_the_receiver_says_nothing_of_what_is_there() -> None:
    for state in (State.OFFERING, State.ASKING):
        said = {kind for side, kind in TABLE[state] if side is R}
        assert said <= {Kind.ACCEPT, Kind.DECLINE, Kind.ABORT}


def test_a_receipt_is_said_once_and_only_when_all_digests_were_told() -> None:
    assert [state for state in State if (R, Kind.RECEIPT) in TABLE[state]] == [State.ENDED]
    assert State.ENDED not in reachable(TABLE[State.ENDED][R, Kind.RECEIPT])
    assert (I, Kind.DIGESTS) not in TABLE[State.ENDED]


# --- conversations ---------------------------------------------------------------------------------------

CONVERSATIONS = {
    "a receiver is registered, rung, looks around and is sent away": (
        Purpose.CONTROL,
        [
            (I, Kind.HELLO),
            (R, Kind.WELCOME),
            (R, Kind.INCOMING),
            (I, Kind.REJECT),
            (I, Kind.KEEPALIVE),
            (I, Kind.WHO),
            (R, Kind.PEOPLE),
            (R, Kind.PEOPLE),
            (R, Kind.GOODBYE),
        ],
        State.CLOSED,
    ),
    "a sender rings two people at once": (
        Purpose.CONTROL,
        [
            (I, Kind.HELLO),
            (R, Kind.WELCOME),
            (I, Kind.PUSH),
            (I, Kind.PUSH),
            (R, Kind.FAILED),
            (R, Kind.RINGING),
            (R, Kind.WAITING),
        ],
        State.REGISTERED,
    ),
    "a push waits, rings, and another is withdrawn": (
        Purpose.CONTROL,
        [
            (I, Kind.HELLO),
            (R, Kind.WELCOME),
            (I, Kind.PUSH),
            (R, Kind.QUEUED),
            (I, Kind.PUSH),
            (R, Kind.QUEUED),
            (R, Kind.RINGING),
            (I, Kind.WITHDRAW),
            (R, Kind.FAILED),
            (R, Kind.QUEUED),
        ],
        State.REGISTERED,
    ),
    "a name is taken": (Purpose.CONTROL, [(I, Kind.HELLO), (R, Kind.REFUSED)], State.CLOSED),
    "the relay is full": (Purpose.CONTROL, [(R, Kind.REFUSED)], State.CLOSED),
    "a ticket joins": (Purpose.DATA, [(I, Kind.TICKET), (R, Kind.KEEPALIVE), (R, Kind.JOINED)], State.JOINED),
    "a ticket is not known": (Purpose.DATA, [(I, Kind.TICKET), (R, Kind.REFUSED)], State.CLOSED),
    "a file is sent": (
        Purpose.END_TO_END,
        [
            (I, Kind.MANIFEST),
            (I, Kind.OFFER),
            (R, Kind.KEEPALIVE),
            (R, Kind.ACCEPT),
            (R, Kind.WANT),
            (I, Kind.DATA),
            (R, Kind.ACK),
            (I, Kind.DATA),
            (I, Kind.DIGESTS),
            (R, Kind.ACK),
            (I, Kind.END),
            (R, Kind.ACK),
            (R, Kind.RECEIPT),
            (I, Kind.DONE),
        ],
        State.CLOSED,
    ),
    "an empty file is sent": (
        Purpose.END_TO_END,
        [
            (I, Kind.MANIFEST),
            (I, Kind.OFFER),
            (R, Kind.ACCEPT),
            (R, Kind.WANT),
            (I, Kind.DIGESTS),
            (I, Kind.END),
            (R, Kind.RECEIPT),
            (I, Kind.DONE),
        ],
        State.CLOSED,
    ),
    "many files are sent, and the digests of the first are known before the last is": (
        Purpose.END_TO_END,
        [
            (I, Kind.MANIFEST),
            (I, Kind.MANIFEST),
            (I, Kind.KEEPALIVE),
            (I, Kind.OFFER),
            (R, Kind.ACCEPT),
            (R, Kind.WANT),
            (I, Kind.DATA),
            (I, Kind.DIGESTS),
            (R, Kind.ACK),
            (I, Kind.DATA),
            (I, Kind.DIGESTS),
            (I, Kind.END),
            (R, Kind.ACK),
            (R, Kind.RECEIPT),
            (I, Kind.DONE),
        ],
        State.CLOSED,
    ),
    "a transfer goes on, and a block that was kept is not what is sent now": (
        Purpose.END_TO_END,
        [
            (I, Kind.MANIFEST),
            (I, Kind.OFFER),
            (R, Kind.ACCEPT),
            (R, Kind.WANT),
            (R, Kind.WANT),
            (I, Kind.DATA),
            (I, Kind.BLOCKS),
            (R, Kind.BUSY),
            (R, Kind.WANT),
            (I, Kind.BUSY),
            (I, Kind.DATA),
            (I, Kind.DIGESTS),
            (I, Kind.END),
            (R, Kind.ACK),
            (R, Kind.RECEIPT),
            (I, Kind.DONE),
        ],
        State.CLOSED,
    ),
    "a whole file that was kept turns out to differ when all digests have been told": (
        Purpose.END_TO_END,
        [
            (I, Kind.MANIFEST),
            (I, Kind.OFFER),
            (R, Kind.ACCEPT),
            (R, Kind.WANT),
            (I, Kind.DIGESTS),
            (I, Kind.END),
            (R, Kind.BUSY),
            (R, Kind.WANT),
            (I, Kind.BUSY),
            (I, Kind.DATA),
            (R, Kind.ACK),
            (R, Kind.BUSY),
            (R, Kind.RECEIPT),
            (I, Kind.BUSY),
            (I, Kind.DONE),
        ],
        State.CLOSED,
    ),
    "two people pair": (
        Purpose.PAIR,
        [
            (R, Kind.KEEPALIVE),
            (I, Kind.SHARE),
            (R, Kind.SHARE),
            (I, Kind.CONFIRM),
            (R, Kind.CONFIRM),
        ],
        State.CLOSED,
    ),
    "the code was wrong": (
        Purpose.PAIR,
        [(I, Kind.SHARE), (R, Kind.SHARE), (I, Kind.CONFIRM), (R, Kind.ABORT)],
        State.CLOSED,
    ),
    "nobody types a code": (Purpose.PAIR, [(I, Kind.KEEPALIVE), (R, Kind.ABORT)], State.CLOSED),
    "a file is declined": (
        Purpose.END_TO_END,
        [(I, Kind.MANIFEST), (I, Kind.OFFER), (R, Kind.DECLINE)],
        State.CLOSED,
    ),
    "the disk is full": (
        Purpose.END_TO_END,
        [(I, Kind.MANIFEST), (I, Kind.OFFER), (R, Kind.ACCEPT), (R, Kind.WANT), (I, Kind.DATA), (R, Kind.ABORT)],
        State.CLOSED,
    ),
    "the disk is full when all has been told": (
        Purpose.END_TO_END,
        [
            (I, Kind.MANIFEST),
            (I, Kind.OFFER),
            (R, Kind.ACCEPT),
            (R, Kind.WANT),
            (I, Kind.DATA),
            (I, Kind.DIGESTS),
            (I, Kind.END),
            (R, Kind.ABORT),
        ],
        State.CLOSED,
    ),
}


@pytest.mark.parametrize(("purpose", "said", "end"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_this_conversation_is_possible(purpose: Purpose, said: list[tuple[Side, Kind]], end: State) -> None:
    peers = {side: Machine(purpose, side) for side in Side}
    for side, kind in said:
        peers[side].sent(kind)
        peers[side.other].received(kind)
    assert peers[I].state is peers[R].state is end


def at(state: State, me: Side) -> Machine:
    machine = Machine("control", me)
    machine.state = state
    return machine


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("side", Side)
def test_what_is_not_in_the_table_is_a_bug_of_the_speaker_and_an_error_to_the_listener(
    state: State, side: Side
) -> None:
    for kind in set(Kind) - {kind for speaker, kind in legal(state) if speaker is side}:
        speaker, listener = at(state, side), at(state, side.other)
        with pytest.raises(RuntimeError, match=f"{kind.name} in {state.name}"):
            speaker.sent(kind)
        with pytest.raises(ProtocolError, match=rf"{kind.name} .*{state.name}"):
            listener.received(kind)
        assert speaker.state is listener.state is state


@pytest.mark.parametrize("state", State)
def test_before_an_offer_is_accepted_and_after_the_receipt_no_file_byte_may_be_sent(state: State) -> None:
    allowed = {(side, kind) for side, kind in legal(state) if kind == Kind.DATA}
    assert allowed == ({(I, Kind.DATA)} if state in (State.STREAMING, State.ENDED) else set())


def test_R1_a_kind_that_is_none_is_an_error_of_the_peer_and_nothing_worse() -> None:
    for kind in UNKNOWN_KINDS:
        with pytest.raises(ProtocolError, match=f"type {kind} "):
            Machine("e2e", R).received(kind)


def test_the_repr_tells_the_state_and_the_side() -> None:
    assert repr(Machine("data", I)) == "<Machine TICKET as initiator>"


# --- all walks -------------------------------------------------------------------------------------------


class TwoPeers(RuleBasedStateMachine):
    """Two peers, each message heard as soon as it is said."""

    @initialize(purpose=st.sampled_from(Purpose))
    def open(self, purpose: Purpose) -> None:
        self.peers = {side: Machine(purpose, side) for side in Side}

    @property
    def state(self) -> State:
        return self.peers[I].state

    @precondition(lambda self: bool(legal(self.state)))
    @rule(data=st.data())
    def something_legal_is_taken_by_both(self, data: st.DataObject) -> None:
        side, kind = data.draw(st.sampled_from(legal(self.state)))
        before = self.state
        self.peers[side].sent(kind)
        self.peers[side.other].received(kind)
        assert self.state is (before if kind == Kind.KEEPALIVE else TABLE[before][side, kind])

    @rule(side=st.sampled_from(Side), kind=st.sampled_from(Kind))
    def something_illegal_is_refused_by_both(self, side: Side, kind: Kind) -> None:
        assume((side, kind) not in legal(self.state))
        before = self.state
        with pytest.raises(RuntimeError):
            self.peers[side].sent(kind)
        with pytest.raises(ProtocolError):
            self.peers[side.other].received(kind)
        assert self.state is before

    @invariant()
    def they_agree_on_where_they_are(self) -> None:
        assert self.peers[I].state is self.peers[R].state


class TwoPeersFarApart(RuleBasedStateMachine):
    """Two peers whose messages take their time: each says what its own state allows before it hears more.

    Besides the tables one rule holds: DATA answers a WANT, and there is no RECEIPT before all that was wanted is there.
    """

    @initialize(purpose=st.sampled_from(Purpose))
    def open(self, purpose: Purpose) -> None:
        self.peers = {side: Machine(purpose, side) for side in Side}
        self.on_the_way: dict[Side, deque[Kind]] = {side: deque() for side in Side}  # to that side
        self.asked = 0  # WANTs that the sender has heard and not answered
        self.awaited = 0  # and those that the receiver has no DATA for

    def may_say(self, side: Side) -> list[Kind]:
        kinds = [kind for speaker, kind in legal(self.peers[side].state) if speaker is side]
        unwise = {Kind.DATA} if not self.asked else set()
        unwise |= {Kind.RECEIPT} if self.awaited else set()
        return [kind for kind in kinds if kind not in unwise]

    @precondition(lambda self: any(map(self.may_say, Side)))
    @rule(data=st.data())
    def say(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from([side for side in Side if self.may_say(side)]))
        kind = data.draw(st.sampled_from(self.may_say(side)))
        self.peers[side].sent(kind)
        self.on_the_way[side.other].append(kind)
        self.asked -= kind is Kind.DATA
        self.awaited += kind is Kind.WANT

    @precondition(lambda self: any(self.on_the_way.values()))
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from([side for side in Side if self.on_the_way[side]]))
        kind = self.on_the_way[side].popleft()
        if self.peers[side].state not in ENDS:  # what arrives after our own last word is no error
            self.peers[side].received(kind)
            self.asked += kind is Kind.WANT
            self.awaited -= kind is Kind.DATA

    @precondition(lambda self: not any(self.on_the_way.values()) and not any(map(self.may_say, Side)))
    @rule(purpose=st.sampled_from(Purpose))
    def open_another(self, purpose: Purpose) -> None:
        self.open(purpose)

    @invariant()
    def they_agree_once_all_is_heard(self) -> None:
        if not any(self.on_the_way.values()):
            assert self.peers[I].state is self.peers[R].state


TestTwoPeers = TwoPeers.TestCase
TestTwoPeersFarApart = TwoPeersFarApart.TestCase


@pytest.mark.parametrize("kind", [Kind.ABORT, Kind.BUSY])
def test_what_crosses_the_receipt_is_no_error_of_the_sender(kind: Kind) -> None:
    sender, receiver = at(State.ENDED, I), at(State.ENDED, R)
    receiver.sent(Kind.RECEIPT)
    sender.sent(kind)
    receiver.received(kind)


@pytest.mark.parametrize("kind", [Kind.WANT, Kind.ACK, Kind.BUSY, Kind.ABORT])
def test_what_crosses_the_end_is_no_error_of_the_receiver(kind: Kind) -> None:
    sender, receiver = at(State.STREAMING, I), at(State.STREAMING, R)
    sender.sent(Kind.END)
    receiver.sent(kind)
    sender.received(kind)


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.DIGESTS, Kind.BLOCKS, Kind.END])
def test_after_the_receipt_nothing_more_may_be_told(kind: Kind) -> None:
    receiver = at(State.CONFIRMED, R)
    with pytest.raises(ProtocolError, match=kind.name):
        receiver.received(kind)
