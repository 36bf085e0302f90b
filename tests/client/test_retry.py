"""When a lost connection is tried again: soon at first, more and more seldom, and not for ever."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from glide.client.retry import Backoff
from glide.errors import ConnectionLost, Exit, GlideError, Unreachable

# What a wait may be at most, by the number of waits before it.
LONGEST = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, *([15.0] * 1000)]


def lost() -> ConnectionLost:
    return ConnectionLost("The connection to the relay is gone.", "Nothing was saved.", "It can be sent again.")


async def attempts(backoff: Backoff, error: GlideError, each: float = 0.0) -> list[float]:
    """Fail again and again, each time after so many seconds, until it is over: the waits."""
    waits: list[float] = []
    while True:
        await trio.sleep(each)
        try:
            waits.append(backoff.next(error))
        except GlideError as over:
            assert over is error
            return waits
        await trio.sleep(waits[-1])


async def test_the_waits_get_longer_up_to_fifteen_seconds_each_between_half_and_all_of_it(
    autojump_clock: MockClock,
) -> None:
    waits = await attempts(Backoff(600), lost())
    assert len(waits) > 40
    for wait, most in zip(waits[:-1], LONGEST, strict=False):  # the last is cut at the end
        assert most / 2 <= wait <= most
    assert 0 < waits[-1] <= 15


async def test_clients_that_lost_the_same_relay_do_not_come_back_at_once(autojump_clock: MockClock) -> None:
    firsts = {Backoff(600).next(lost()) for _ in range(50)}
    assert len(firsts) > 40
    assert max(firsts) - min(firsts) > 0.05


@pytest.mark.parametrize("limit", [0.1, 1.0, 10.0, 600.0, 86400.0])
async def test_the_last_attempt_is_made_when_the_time_is_over_not_before_and_not_after(
    autojump_clock: MockClock, limit: float
) -> None:
    await attempts(Backoff(limit), lost())
    assert trio.current_time() == pytest.approx(limit)


async def test_attempts_that_take_their_time_count(autojump_clock: MockClock) -> None:
    waits = await attempts(Backoff(60), lost(), each=10)
    # Of the last wait only what was left; the attempt after it may still take its own time.
    assert sum(waits) + 10 * len(waits) <= 60 + 1e-6
    assert trio.current_time() <= 70 + 1e-6
    assert len(waits) >= 4


async def test_whoever_does_not_want_it_tries_once_and_is_told_nothing_of_trying(autojump_clock: MockClock) -> None:
    error = lost()
    with pytest.raises(ConnectionLost) as caught:
        Backoff(0).next(error)
    assert caught.value is error
    assert caught.value.next == "It can be sent again."


async def test_what_went_well_begins_anew(autojump_clock: MockClock) -> None:
    backoff = Backoff(60)
    for _ in range(20):  # an hour of a network that breaks all the time, with something moving in between
        for most in LONGEST[:6]:
            wait = backoff.next(lost())
            assert most / 2 <= wait <= most
            await trio.sleep(wait)
        await trio.sleep(30)
        backoff.went_well()
    assert trio.current_time() > 600


async def test_the_error_says_how_long_it_was_tried_and_stays_what_it_was(autojump_clock: MockClock) -> None:
    backoff, error = Backoff(90), lost()
    await attempts(backoff, error)
    assert error.what == "The connection to the relay is gone."
    assert error.means == "Nothing was saved."
    assert error.next == "It was tried again for 1m30s (--retry). It can be sent again."
    assert error.exit is Exit.UNREACHABLE
    with pytest.raises(ConnectionLost):
        backoff.next(error)
    assert error.next.count("It was tried again") == 1


async def test_an_error_without_advice_gets_just_that(autojump_clock: MockClock) -> None:
    error = Unreachable("Nobody answers.")
    await attempts(Backoff(1), error)
    assert str(error) == "Nobody answers. It was tried again for 1s (--retry)."


async def test_the_error_is_that_of_the_last_attempt(autojump_clock: MockClock) -> None:
    backoff = Backoff(1)
    await trio.sleep(backoff.next(lost()))
    await trio.sleep(5)
    last = Unreachable("Nobody answers.")
    with pytest.raises(Unreachable) as caught:
        backoff.next(last)
    assert caught.value is last


@settings(max_examples=60)
@given(
    st.floats(0, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30),
)
def test_no_wait_is_longer_than_what_is_left_since_the_last_good_news(
    limit: float, failures: list[tuple[float, bool]]
) -> None:
    async def run() -> None:
        backoff, since = Backoff(limit), trio.current_time()
        longest = iter(LONGEST)
        for after, good in failures:
            await trio.sleep(after)
            if good:
                backoff.went_well()
                since, longest = trio.current_time(), iter(LONGEST)
            left = since + limit - trio.current_time()
            if left <= 0:
                with pytest.raises(ConnectionLost):
                    backoff.next(lost())
                return
            wait = backoff.next(lost())
            most = min(next(longest), left)
            assert 0 < wait <= most
            assert wait >= min(most / 2, left) or wait == left
            await trio.sleep(wait)

    trio.run(run, clock=MockClock(autojump_threshold=0))
