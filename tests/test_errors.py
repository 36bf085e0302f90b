"""Errors: exit codes are a contract with scripts, words one with the wire; and of many one comes out."""

from __future__ import annotations

import inspect

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from glide import errors
from glide.errors import (
    ConnectionLost,
    Declined,
    Engaged,
    Exit,
    FileError,
    GlideError,
    IntegrityError,
    KeyChanged,
    NameTaken,
    NameUnusable,
    NobodyThere,
    NotGlide,
    NotVerified,
    Partly,
    ProtocolError,
    RelayRefused,
    Replaced,
    Stalled,
    Stopped,
    Unreachable,
    UsageError,
    from_code,
    one_error,
)

# The table of the documentation, and the word under which each error travels and stands in JSON.
CONTRACT: dict[type[GlideError], tuple[str, int]] = {
    GlideError: ("error", 1),
    UsageError: ("usage", 2),
    NobodyThere: ("nobody", 3),
    Declined: ("declined", 4),
    Stopped: ("cancelled", 4),
    KeyChanged: ("key-changed", 5),
    Unreachable: ("unreachable", 6),
    ConnectionLost: ("lost", 6),
    Stalled: ("stalled", 6),
    NotVerified: ("not-verified", 5),
    Engaged: ("engaged", 4),
    IntegrityError: ("integrity", 7),
    FileError: ("file", 8),
    NameUnusable: ("name-unusable", 9),
    Partly: ("partly", 9),
    ProtocolError: ("protocol", 10),
    NotGlide: ("not-glide", 10),
    NameTaken: ("name-taken", 11),
    Replaced: ("replaced", 11),
    RelayRefused: ("refused", 12),
}


@pytest.mark.parametrize(("error", "word", "status"), [(e, *c) for e, c in CONTRACT.items()])
def test_an_error_ends_a_command_with_its_documented_code(error: type[GlideError], word: str, status: int) -> None:
    assert error.exit == status
    assert error.code == word


def test_every_error_is_in_the_contract() -> None:
    defined = {each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, GlideError)}
    assert defined == set(CONTRACT)


def test_the_exit_codes_are_those_documented() -> None:
    assert [int(code) for code in Exit] == [*range(13), 130, 143]
    assert (Exit.OK, Exit.INTERRUPTED, Exit.TERMINATED) == (0, 128 + 2, 128 + 15)


@pytest.mark.parametrize("error", set(CONTRACT) - {GlideError}, ids=lambda error: error.__name__)
def test_the_word_of_an_error_stands_for_it_on_the_other_side(error: type[GlideError]) -> None:
    assert from_code(error.code, GlideError, FileError, error) is error
    assert len(error.code) <= 32, "must fit the field `code` of messages"


@given(st.text())
def test_a_word_of_a_newer_version_stands_for_the_default(word: str) -> None:
    assert from_code("new-" + word, Declined, FileError) is Declined


def test_a_word_that_may_not_be_said_here_stands_for_the_default() -> None:
    assert from_code(NameTaken.code, Declined, FileError) is Declined


@pytest.mark.parametrize("error", CONTRACT, ids=lambda error: error.__name__)
def test_only_what_may_pass_by_itself_is_worth_a_retry(error: type[GlideError]) -> None:
    assert error.worth_a_retry == (error in (Unreachable, ConnectionLost))
    assert error("what happened").worth_a_retry == error.worth_a_retry


def test_one_error_may_be_worth_a_retry_without_its_kind_being_so() -> None:
    error = Stalled("The network does not move.")
    error.worth_a_retry = True
    assert not Stalled("Somebody does not answer.").worth_a_retry


def test_an_error_says_what_happened_what_it_means_and_what_to_do_next_in_this_order() -> None:
    error = FileError("The disk is full.", "Nothing was kept.", "Make room.")
    assert str(error) == "The disk is full. Nothing was kept. Make room."
    assert (error.what, error.means, error.next) == ("The disk is full.", "Nothing was kept.", "Make room.")
    assert str(FileError("The disk is full.")) == "The disk is full."


# --- one error out of many -------------------------------------------------------------------------------


def nested(leaf: SearchStrategy[Exception]) -> SearchStrategy[BaseExceptionGroup[Exception]]:
    """Groups of groups of such exceptions."""
    return st.recursive(
        st.lists(leaf, min_size=1, max_size=3).map(lambda found: ExceptionGroup("tasks", found)),
        lambda inner: st.lists(inner | leaf, min_size=1, max_size=3).map(lambda found: ExceptionGroup("tasks", found)),
        max_leaves=5,
    )


ours = st.sampled_from(list(CONTRACT)).map(lambda error: error("what happened"))
foreign = st.sampled_from([KeyError, ZeroDivisionError, trio.BrokenResourceError]).map(lambda error: error("a bug"))


@given(nested(ours))
def test_one_error_comes_out_and_a_cause_wins_over_a_connection_merely_lost(
    group: BaseExceptionGroup[Exception],
) -> None:
    causes = [error for error in errors.leaves(group) if not isinstance(error, ConnectionLost)]
    with pytest.raises(GlideError) as caught, one_error():
        raise group
    assert caught.value is (causes[0] if causes else next(errors.leaves(group)))
    assert caught.value.__suppress_context__


@given(nested(ours | foreign))
def test_a_group_with_anything_foreign_in_it_comes_out_whole(group: BaseExceptionGroup[Exception]) -> None:
    found = list(errors.leaves(group))
    with pytest.raises(BaseException) as caught, one_error():  # noqa: PT011 - which one is the question
        raise group
    if all(isinstance(error, GlideError) for error in found):
        assert isinstance(caught.value, GlideError)
    else:
        assert caught.value is group


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), FileError("gone"), ConnectionLost("lost")])
def test_an_exception_that_is_no_group_passes_untouched(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, one_error():
        raise error
    assert caught.value is error


def test_an_interrupt_beside_an_error_of_ours_is_not_swallowed() -> None:
    group = BaseExceptionGroup("tasks", [FileError("gone"), KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup) as caught, one_error():
        raise group
    assert caught.value is group


def test_a_block_that_ends_well_ends_well() -> None:
    with one_error():
        pass


async def test_two_tasks_that_fail_together_are_told_by_the_cause() -> None:
    # Neither waits for anything, so neither is cancelled by the failure of the other.
    async def cause() -> None:
        raise FileError("The disk is full.")

    async def consequence() -> None:
        raise ConnectionLost("The connection is gone.")

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cause)
            nursery.start_soon(consequence)

    with pytest.raises(FileError, match="disk is full"), one_error():
        await both()
