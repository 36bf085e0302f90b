"""Two people who pair over one connection: what each of them gets, whatever the other does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from glide.client.pairing import Paired, show, type_in
from glide.crypto.identity import Identity
from glide.crypto.pairing import Exchange
from glide.errors import (
    ConnectionLost,
    Declined,
    GlideError,
    IntegrityError,
    Stalled,
    Stopped,
    UsageError,
)
from glide.net.connection import Connection
from glide.net.deadlines import Deadlines
from glide.net.opening import initiate, respond
from glide.protocol.endtoend import Abort, Confirm, Share
from glide.protocol.fields import Message
from glide.protocol.preface import Purpose
from glide.protocol.states import Side
from tests.net import pairs
from tests.net.pairs import INITIATORS_KEY, RESPONDERS_KEY, heard

CODE, OTHER_CODE = "coral-window", "coral-winter"

# Alice types the code, and is the initiator; Bob is shown it.
Outcome = Paired | GlideError


@dataclass
class Ended:
    """How it ended for the two; None while it has not."""

    alice: Outcome | None = None
    bob: Outcome | None = None


def answers(code: str) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        return code

    return ask


async def thinks_for_ever() -> str:
    await trio.sleep_forever()
    raise AssertionError("nobody wakes it")


async def outcome(side: Callable[[], Awaitable[Paired]]) -> Outcome:
    try:
        return await side()
    except GlideError as error:
        return error


async def pairing(
    alice: Connection,
    bob: Connection,
    *,
    shown: str = CODE,
    ask: Callable[[], Awaitable[str]] | None = None,
    patience: tuple[float, float] = (300.0, 300.0),
    keys: tuple[bytes, bytes] = (INITIATORS_KEY, RESPONDERS_KEY),
) -> Ended:
    """Both do their part at the same time; what came of it. ``patience`` is Alice's and Bob's."""
    ended = Ended()

    async def types() -> None:
        async with alice:
            ended.alice = await outcome(partial(type_in, alice, ask or answers(CODE), keys[0], patience=patience[0]))

    async def shows() -> None:
        async with bob:
            ended.bob = await outcome(partial(show, bob, shown, keys[1], patience=patience[1]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(types)
        nursery.start_soon(shows)
    return ended


def exchange(connection: Connection, code: str, me_key: bytes) -> Exchange:
    """What a peer of ours has who does as it likes."""
    initiator = connection.machine.me is Side.INITIATOR
    keys = (me_key, connection.peer_key) if initiator else (connection.peer_key, me_key)
    return Exchange(
        code, initiator=initiator, initiator_key=keys[0], responder_key=keys[1], transcript=connection.transcript
    )


async def shares(connection: Connection) -> bytes:
    """What the peer shared."""
    said = await heard(connection)
    assert isinstance(said, Share), said
    return said.share


# --- when it goes well -----------------------------------------------------------------------------------


async def test_C1_the_right_code_tells_both_whose_key_it_is(autojump_clock: MockClock) -> None:
    ended = await pairing(*pairs.pair(Purpose.PAIR))
    assert ended.alice == Paired("bob", RESPONDERS_KEY)
    assert ended.bob == Paired("alice", INITIATORS_KEY)


async def test_the_code_may_be_typed_carelessly(autojump_clock: MockClock) -> None:
    ended = await pairing(*pairs.pair(Purpose.PAIR), ask=answers(" Coral  WINDOW\n"))
    assert isinstance(ended.alice, Paired)
    assert isinstance(ended.bob, Paired)


async def test_the_connection_is_kept_alive_while_a_person_thinks(autojump_clock: MockClock) -> None:
    async def thinks() -> str:
        await trio.sleep(290)
        return CODE

    ended = await pairing(*pairs.pair(Purpose.PAIR, deadlines=Deadlines(keepalive=30.0, lost=90.0)), ask=thinks)
    assert isinstance(ended.alice, Paired)
    assert isinstance(ended.bob, Paired)


async def test_without_a_deadline_a_person_may_think_all_day(autojump_clock: MockClock) -> None:
    async def thinks() -> str:
        await trio.sleep(80_000)
        return CODE

    ended = await pairing(*pairs.pair(Purpose.PAIR), ask=thinks, patience=(0, 0))
    assert isinstance(ended.bob, Paired)


# --- a wrong code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shown", "typed"), [(CODE, OTHER_CODE), (OTHER_CODE, CODE)])
async def test_C1_a_wrong_code_is_said_so_to_both(autojump_clock: MockClock, shown: str, typed: str) -> None:
    ended = await pairing(*pairs.pair(Purpose.PAIR), shown=shown, ask=answers(typed))
    for side in (ended.alice, ended.bob):
        assert isinstance(side, IntegrityError)
        assert "code was wrong, or somebody is" in side.what
        assert "burnt" in side.means
        assert "nothing was pinned" in side.means
        assert "both sides" in side.next
        assert side.exit == 7


async def test_C5_no_error_shows_the_code(autojump_clock: MockClock) -> None:
    ended = await pairing(*pairs.pair(Purpose.PAIR), shown="coral-window", ask=answers("zebra-window"))
    told = f"{ended.alice} {ended.bob}"
    assert not [word for word in ("coral", "window", "zebra") if word in told]


async def test_what_is_no_code_is_never_tried(autojump_clock: MockClock) -> None:
    ended = await pairing(*pairs.pair(Purpose.PAIR), ask=answers("coral-windwo"))
    assert isinstance(ended.alice, UsageError)
    assert isinstance(ended.bob, Stopped)
    assert "windwo" not in str(ended.bob), "what was typed is told to nobody"


async def test_an_error_of_the_question_is_the_outcome(autojump_clock: MockClock) -> None:
    async def refuses() -> str:
        raise UsageError("No code was typed.")

    ended = await pairing(*pairs.pair(Purpose.PAIR), ask=refuses)
    assert isinstance(ended.alice, UsageError)
    assert ended.alice.what == "No code was typed."
    assert isinstance(ended.bob, Stopped)


# --- somebody in between ---------------------------------------------------------------------------------


async def shaken(initiator: Identity, responder: Identity) -> tuple[Connection, Connection]:
    """A real handshake: the initiator's end and the responder's."""
    left, right = memory_stream_pair()
    ends: list[Connection] = []

    async def begins() -> None:
        connection, _ = await initiate(
            left, Purpose.PAIR, initiator, peer="bob", deadlines=Deadlines(), check=lambda _: None
        )
        ends.insert(0, connection)

    async def follows() -> None:
        allowed = frozenset({Purpose.PAIR})
        connection, _, _ = await respond(
            right, allowed, responder, peer="alice", deadlines=Deadlines(), check=lambda _: None
        )
        ends.append(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begins)
        nursery.start_soon(follows)
    alice, bob = sorted(ends, key=lambda end: end.machine.me is Side.RESPONDER)
    return alice, bob


async def test_C2_over_a_real_handshake_both_learn_the_others_key(autojump_clock: MockClock) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    ended = await pairing(*await shaken(alice, bob), keys=(alice.public, bob.public))
    assert ended.alice == Paired("bob", bob.public)
    assert ended.bob == Paired("alice", alice.public)


async def test_C2_whoever_is_in_between_and_hands_everything_on_is_found_at_both(autojump_clock: MockClock) -> None:
    alice, bob, mallory = (Identity.generate() for _ in range(3))
    alices, as_bob = await shaken(alice, mallory)
    as_alice, bobs = await shaken(mallory, bob)
    handed: list[Message] = []

    async def hand_on(source: Connection, sink: Connection) -> None:
        try:
            while True:
                said = await heard(source)
                handed.append(said)
                await sink.send(said)
        except (GlideError, RuntimeError):
            await sink.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hand_on, as_bob, as_alice)
        nursery.start_soon(hand_on, as_alice, as_bob)
        ended = await pairing(alices, bobs, keys=(alice.public, bob.public))
        nursery.cancel_scope.cancel()
    assert [type(said) for said in handed[:3]] == [Share, Share, Confirm]
    assert not [said for said in handed[3:] if isinstance(said, Confirm)], "Bob showed no tag of his"
    assert isinstance(ended.alice, IntegrityError)
    assert isinstance(ended.bob, IntegrityError)


async def test_C1_who_guesses_at_the_one_who_shows_has_one_guess_and_sees_no_tag(autojump_clock: MockClock) -> None:
    mallory, bob = pairs.pair(Purpose.PAIR)
    guess = exchange(mallory, OTHER_CODE, INITIATORS_KEY)
    said: list[Message] = []

    async def guesses() -> None:
        await mallory.send(Share(share=guess.share))
        guess.take(await shares(mallory))
        await mallory.send(Confirm(tag=guess.tag))
        said.append(await heard(mallory))
        await mallory.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guesses)
        ended = await outcome(partial(show, bob, CODE, RESPONDERS_KEY))
    assert isinstance(ended, IntegrityError)
    assert isinstance(said[0], Abort)
    assert said[0].code == "integrity"


@pytest.mark.parametrize("excuse", ["cancelled", "declined", "stalled", "usage", "integrity", ""])
async def test_C1_who_guesses_at_the_one_who_types_cannot_go_away_unsuspected(
    autojump_clock: MockClock, excuse: str
) -> None:
    alice, mallory = pairs.pair(Purpose.PAIR)
    guess = exchange(mallory, OTHER_CODE, RESPONDERS_KEY)

    async def guesses() -> None:
        guess.take(await shares(mallory))
        await mallory.send(Share(share=guess.share))
        await heard(mallory)
        await mallory.send(Abort(code=excuse, message="my battery is empty"))
        await mallory.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guesses)
        ended = await outcome(partial(type_in, alice, answers(CODE), INITIATORS_KEY))
    assert isinstance(ended, IntegrityError)
    assert "somebody" in ended.what


@pytest.mark.parametrize("claims", ["reflected", "malformed"])
async def test_C2_a_share_that_is_none_ends_it_at_both(autojump_clock: MockClock, claims: str) -> None:
    alice, mallory = pairs.pair(Purpose.PAIR)
    said: list[Message] = []

    async def answers_badly() -> None:
        share = await shares(mallory)
        await mallory.send(Share(share=share if claims == "reflected" else b"B"))
        said.append(await heard(mallory))
        await mallory.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answers_badly)
        ended = await outcome(partial(type_in, alice, answers(CODE), INITIATORS_KEY))
    assert isinstance(ended, IntegrityError)
    assert isinstance(said[0], Abort), "no tag is shown to such a peer"


@settings(max_examples=40)
@given(st.binary(min_size=1, max_size=64), st.binary(min_size=32, max_size=32))
def test_C1_whatever_is_shared_and_confirmed_by_who_knows_no_code_pairs_nobody(share: bytes, tag: bytes) -> None:
    async def main() -> Outcome:
        mallory, bob = pairs.pair(Purpose.PAIR)

        async def guesses() -> None:
            try:
                await mallory.send(Share(share=share))
                await heard(mallory)
                await mallory.send(Confirm(tag=tag))
            except (GlideError, RuntimeError):
                pass  # it was over already
            await mallory.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(guesses)
            return await outcome(partial(show, bob, CODE, RESPONDERS_KEY))

    ended = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert isinstance(ended, IntegrityError)


# --- nobody types, somebody leaves -----------------------------------------------------------------------


@pytest.mark.parametrize("patience", [(10.0, 300.0), (300.0, 10.0)], ids=["hers", "his"])
async def test_when_no_code_is_typed_in_time_both_are_told(
    autojump_clock: MockClock, patience: tuple[float, float]
) -> None:
    ended = await pairing(*pairs.pair(Purpose.PAIR), ask=thinks_for_ever, patience=patience)
    for side in (ended.alice, ended.bob):
        assert isinstance(side, Declined)
        assert "typed" in str(side)
        assert side.means == "Nothing was pinned."
    assert trio.current_time() < 30


async def test_the_question_is_withdrawn_when_the_other_side_ends_it(autojump_clock: MockClock) -> None:
    withdrawn = trio.Event()

    async def asked() -> str:
        try:
            await trio.sleep_forever()
        finally:
            withdrawn.set()
        raise AssertionError("nobody wakes it")

    alice, bob = pairs.pair(Purpose.PAIR)

    async def shows_for_a_moment() -> None:
        with trio.move_on_after(5):
            await show(bob, CODE, RESPONDERS_KEY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shows_for_a_moment)
        ended = await outcome(partial(type_in, alice, asked, INITIATORS_KEY))
    assert withdrawn.is_set()
    assert isinstance(ended, Stopped)
    assert ended.means == "Nothing was pinned."


async def test_cancelled_the_one_who_types_tells_the_other(autojump_clock: MockClock) -> None:
    alice, bob = pairs.pair(Purpose.PAIR)
    outcomes: list[Outcome] = []

    async def shows() -> None:
        outcomes.append(await outcome(partial(show, bob, CODE, RESPONDERS_KEY)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shows)
        with trio.move_on_after(5) as scope:
            await type_in(alice, thinks_for_ever, INITIATORS_KEY)
    assert scope.cancelled_caught
    assert isinstance(outcomes[0], Stopped)


@pytest.mark.parametrize("says", [0, 1, 2])
async def test_the_one_who_shows_notices_that_the_other_has_gone_at_any_step(
    autojump_clock: MockClock, says: int
) -> None:
    # After so many messages of hers Alice is gone; after two she has not heard the last.
    alice, bob = pairs.pair(Purpose.PAIR)
    hers = exchange(alice, CODE, INITIATORS_KEY)

    async def leaves() -> None:
        if says > 0:
            await alice.send(Share(share=hers.share))
            hers.take(await shares(alice))
        if says > 1:
            await alice.send(Confirm(tag=hers.tag))
        await alice.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leaves)
        ended = await outcome(partial(show, bob, CODE, RESPONDERS_KEY))
    if says < 2:
        assert isinstance(ended, ConnectionLost)
        assert "Nothing was pinned" in ended.means
    else:
        # She has proved that she knows the code; whether the last word reached her nobody can know.
        assert isinstance(ended, (Paired, ConnectionLost))


@pytest.mark.parametrize("says", [0, 1])
async def test_the_one_who_types_notices_that_the_other_has_gone_at_any_step(
    autojump_clock: MockClock, says: int
) -> None:
    alice, bob = pairs.pair(Purpose.PAIR)
    his = exchange(bob, CODE, RESPONDERS_KEY)

    async def leaves() -> None:
        his.take(await shares(bob))
        if says > 0:
            await bob.send(Share(share=his.share))
            await heard(bob)
        await bob.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leaves)
        ended = await outcome(partial(type_in, alice, answers(CODE), INITIATORS_KEY))
    assert isinstance(ended, ConnectionLost)
    assert "othing was pinned" in ended.means
    assert ("trying codes" in ended.means) is (says > 0), "once the code was tried, it may have been a guess"


async def test_who_is_silent_is_lost(autojump_clock: MockClock) -> None:
    _, bob = pairs.pair(Purpose.PAIR)
    ended = await outcome(partial(show, bob, CODE, RESPONDERS_KEY, patience=0))
    assert isinstance(ended, ConnectionLost)
    assert trio.current_time() < 120


async def test_who_is_there_but_does_not_go_on_is_not_waited_for(autojump_clock: MockClock) -> None:
    mallory, bob = pairs.pair(Purpose.PAIR)
    hers = exchange(mallory, CODE, INITIATORS_KEY)

    async def lingers() -> None:
        await mallory.send(Share(share=hers.share))
        await mallory.keep_alive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lingers)
        ended = await outcome(partial(show, bob, CODE, RESPONDERS_KEY))
        nursery.cancel_scope.cancel()
    assert isinstance(ended, Stalled)
    assert trio.current_time() < 30


async def test_D1_what_the_other_gives_as_its_reason_is_shown_escaped(autojump_clock: MockClock) -> None:
    alice, bob = pairs.pair(Purpose.PAIR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(bob.send, Abort(code="cancelled", message="gone\x1b[2J\u202e")))
        ended = await outcome(partial(type_in, alice, thinks_for_ever, INITIATORS_KEY))
        await bob.aclose()
    assert isinstance(ended, Stopped)
    assert str(ended).isprintable()
    assert "gone" in ended.what
