"""What Hypothesis draws from: names, messages, frames, and the ways a stream may be cut.

Messages are derived from the annotations of their structs, so a new field or type is tested on the day
that it is written.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect

from glide.protocol import names
from glide.protocol.fields import Message
from glide.protocol.frames import LIMITS, UNKNOWN_LIMIT, Frame, Kind
from glide.protocol.messages import TYPES, to_bytes

_EDGE = "abcdefghijklmnopqrstuvwxyz0123456789"
_INSIDE = _EDGE + "._-"

KNOWN_KINDS = frozenset(int(kind) for kind in Kind)
UNKNOWN_KINDS = sorted(set(range(256)) - KNOWN_KINDS)


def people_names() -> SearchStrategy[str]:
    """Valid names, of every length from one to the longest."""
    longer = st.builds(
        lambda first, inside, last: first + inside + last,
        st.sampled_from(_EDGE),
        st.text(_INSIDE, max_size=names.LONGEST - 2),
        st.sampled_from(_EDGE),
    ).filter(lambda name: ".." not in name)
    return st.sampled_from(_EDGE) | longer


def blobs(longest: int) -> SearchStrategy[bytes]:
    """Up to ``longest`` bytes that cost Hypothesis two small draws, however many they are."""
    return st.builds(
        lambda seed, length: random.Random(seed).randbytes(length),
        st.integers(0, 2**32 - 1),
        st.integers(0, longest),
    )


# --- messages --------------------------------------------------------------------------------------------


def messages_of(message: type[Message]) -> SearchStrategy[Message]:
    """Every message of this type that fits its frame."""
    return _values(inspect.type_info(message)).filter(_fits)


def messages() -> SearchStrategy[Message]:
    """Every message of every type."""
    return st.one_of([messages_of(message) for message in TYPES.values()])


def _fits(message: Message) -> bool:
    try:
        to_bytes(message)
    except ValueError:
        return False
    return True


def _values(form: inspect.Type) -> SearchStrategy[Any]:
    """The values that msgspec takes for a field of this form."""
    match form:
        case inspect.StructType(cls=cls, fields=fields):
            required = {field.name: _values(field.type) for field in fields if field.required}
            optional = {field.name: _values(field.type) for field in fields if not field.required}
            return st.fixed_dictionaries(required, optional=optional).map(lambda drawn: cls(**drawn))
        case inspect.StrType(pattern=names.PATTERN):
            return people_names()
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case inspect.StrType(max_length=longest):
            return st.text(max_size=longest)
        case inspect.BytesType(min_length=shortest, max_length=longest):
            return st.binary(min_size=shortest or 0, max_size=longest)
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType(cls=choices):
            return st.sampled_from(choices)
        case inspect.UnionType(types=types):
            return st.one_of([_values(each) for each in types])
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(_values, items))
        case inspect.VarTupleType(item_type=item, min_length=fewest, max_length=most):
            return st.lists(_values(item), min_size=fewest or 0, max_size=most).map(tuple)
        case _:
            raise TypeError(f"no strategy for a field of the form {form}")


# --- frames and streams ----------------------------------------------------------------------------------


def frames() -> SearchStrategy[Frame]:
    """Whole frames within their limits, of every kind (DATA too) and of kinds that are none yet."""
    known = st.sampled_from(Kind).flatmap(
        lambda kind: st.builds(Frame, st.just(int(kind)), blobs(min(LIMITS[kind], 3000)))
    )
    unknown = st.builds(Frame, st.sampled_from(UNKNOWN_KINDS), blobs(UNKNOWN_LIMIT))
    return known | unknown


def chunkings(stream: bytes) -> SearchStrategy[list[bytes]]:
    """Every way to cut ``stream`` into pieces, empty ones too."""

    def cut(places: list[int]) -> list[bytes]:
        edges = [0, *sorted(places), len(stream)]
        return [stream[start:end] for start, end in pairwise(edges)]

    single_bytes = st.just([stream[at : at + 1] for at in range(len(stream))])
    few = st.lists(st.integers(0, len(stream)), max_size=12).map(cut)
    return few | single_bytes if len(stream) <= 4096 else few
