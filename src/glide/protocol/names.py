"""What a person's name at a relay may look like.

1 to 32 of ``a-z 0-9 . _ -``, beginning and ending with a letter or digit, no two dots in a row. Upper case is
folded, a leading ``@`` is dropped. So a name fits a shell word, a file name, a log line and a URL, and no two
names look alike by means of another alphabet.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable

from glide.errors import UsageError
from glide.text import printable

LONGEST = 32
PATTERN = r"^(?!.*\.\.)[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?\Z"
_VALID = re.compile(PATTERN)

# difflib takes some 60 us a comparison, on an event loop: only so many of the likelier candidates are compared.
_MOST_COMPARED = 50


def parse(text: str) -> str:
    """The name that ``text`` spells. Raises :class:`UsageError` if it is none."""
    name = text.removeprefix("@").lower()
    if text.isascii() and _VALID.match(name):  # the Kelvin sign, for one, is a k in lower case
        return name
    if not name:
        problem = "A name cannot be empty."
    elif len(name) > LONGEST:
        problem = f"{printable(text, 40)!r} is too long for a name: {LONGEST} characters at most."
    else:
        problem = f"{printable(text, 40)!r} is not a name."
    raise UsageError(
        problem,
        next="A name is made of a-z, 0-9, '.', '_' and '-', begins and ends with a letter or digit, "
        "and has no two dots in a row.",
    )


def default(login: str, fallback: str) -> str:
    """The name nearest to a login name, or ``fallback`` where nothing of it can be kept."""
    kept = re.sub(r"[^a-z0-9._-]+", "-", login.lower())
    kept = re.sub(r"\.{2,}", ".", kept)[:LONGEST].strip("._-")
    return kept if _VALID.match(kept) else fallback


def closest(name: str, candidates: Iterable[str]) -> list[str]:
    """At most three of ``candidates`` that ``name`` may have been meant to be, best first."""
    likely = (
        other for other in candidates if abs(len(other) - len(name)) <= 2 and (other[0] in name or other[-1] in name)
    )
    return difflib.get_close_matches(name, itertools.islice(likely, _MOST_COMPARED), n=3, cutoff=0.6)
