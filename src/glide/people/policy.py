"""Who may send what: rules for everybody, for people who are known or verified, and for single people.

A rule has four parts: what to do with an offer, the folder that it goes into, the most bytes of one transfer, the
most bytes a second. Each part is looked up by itself, in the most specific rule that says it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from glide.errors import UsageError
from glide.people.known import Trust
from glide.protocol import names
from glide.text import parse_size, printable

# In place of a number: no limit, whatever a more general rule says. As large as a size on the wire can be.
UNLIMITED = 2**63 - 1


class Verdict(StrEnum):
    """What to do with an offer."""

    ACCEPT = "accept"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True)
class Rule:
    """What is said of some people; None where nothing is said. ``most`` is bytes of a transfer, ``rate`` a second."""

    do: Verdict | None = None
    into: Path | None = None
    most: int | None = None
    rate: int | None = None

    @classmethod
    def of(cls, said: Mapping[str, str]) -> Rule:
        """The rule that these words make, by the names of :data:`KEYS`. Raises ValueError."""
        for key in said:
            _check_key(key, KEYS)
        found = {}
        for key, text in said.items():
            try:
                found[key] = KEYS[key](text)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return cls(found.get("do"), found.get("into"), found.get("size"), found.get("rate"))

    def over(self, other: Rule) -> Rule:
        """This one, and of the other what this one does not say."""
        return Rule(
            other.do if self.do is None else self.do,
            other.into if self.into is None else self.into,
            other.most if self.most is None else self.most,
            other.rate if self.rate is None else self.rate,
        )


SILENT = Rule()


@dataclass(frozen=True)
class Judgement:
    """What becomes of somebody's offers. ``into``, ``most`` and ``rate`` are None where no rule says anything.

    ``because`` names whose rule decided ``do``: ``everybody``, ``known``, ``verified`` or the person.
    """

    do: Verdict
    into: Path | None
    most: int | None
    rate: int | None
    because: str


@dataclass(frozen=True)
class Policy:
    """Rules for classes of people, each within the one before, and for single people by their names."""

    everybody: Rule = SILENT
    known: Rule = SILENT
    verified: Rule = SILENT
    people: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def folders(self) -> frozenset[Path]:
        """Every folder that a rule names."""
        return frozenset(rule.into for rule in self._every_rule if rule.into is not None)

    @property
    def asks(self) -> bool:
        """True if there is anybody about whom a person is to be asked."""
        return self.judge(Trust.NEW, "").do is Verdict.ASK or any(rule.do is Verdict.ASK for rule in self._every_rule)

    @property
    def _every_rule(self) -> tuple[Rule, ...]:
        return (self.everybody, self.known, self.verified, *self.people.values())

    @classmethod
    def accepting(cls, word: str) -> Policy:
        """What ``--accept`` is short for. Raises ValueError."""
        match word:
            case "ask":
                return cls(Rule(Verdict.ASK), Rule(Verdict.ASK), Rule(Verdict.ASK))
            case "known":
                return cls(Rule(Verdict.DENY), Rule(Verdict.ACCEPT), Rule(Verdict.ACCEPT))
            case "all":
                return cls(Rule(Verdict.ACCEPT), Rule(Verdict.ACCEPT), Rule(Verdict.ACCEPT))
        raise ValueError(f"{word!r} is none of ask, known, all")

    @classmethod
    def of(cls, whose: str, rule: Rule) -> Policy:
        """One rule, for ``everybody``, ``known``, ``verified`` or ``@NAME``. Raises ValueError or UsageError."""
        match whose:
            case "everybody":
                return cls(everybody=rule)
            case "known":
                return cls(known=rule)
            case "verified":
                return cls(verified=rule)
        if not whose.startswith("@"):
            raise ValueError(f"{whose!r} is none of everybody, known, verified; a person is written @NAME")
        return cls(people={names.parse(whose): rule})

    @classmethod
    def of_tables(cls, tables: object) -> Policy:
        """From the tables of a TOML file: ``everybody``, ``known``, ``verified``, and ``name`` with one for each name.

        Raises ValueError or UsageError.
        """
        found = dict(_table(tables, "policy"))
        people = _table(found.pop("name", {}), "policy.name")
        policy = cls()
        for key, table in found.items():
            _check_key(key, ("everybody", "known", "verified", "name"))
            policy = cls.of(key, _rule(table, f"policy.{key}")).over(policy)
        for name, table in people.items():
            one = cls.of(f"@{name}", _rule(table, f"policy.name.{name}"))
            if one.people.keys() & policy.people.keys():
                raise ValueError(f"[policy.name.{name}] is there twice")
            policy = one.over(policy)
        return policy

    @classmethod
    def parse(cls, text: str) -> Policy:
        """From ``WHO:KEY=VALUE[,KEY=VALUE...]``. Raises ValueError or UsageError."""
        whose, colon, rest = text.partition(":")
        if not colon:
            raise ValueError(f"{text!r} is no rule; write it like known:do=accept,into=inbox or @carol:do=deny")
        said: dict[str, str] = {}
        for part in rest.split(","):
            key, equals, value = part.partition("=")
            key = key.strip()
            if not equals:
                raise ValueError(f"{part!r} is no KEY=VALUE; a value with a comma has to stand in config.toml")
            if key in said:
                raise ValueError(f"{key!r} is said twice")
            said[key] = value.strip()
        return cls.of(whose.strip(), Rule.of(said))

    def over(self, other: Policy) -> Policy:
        """The rules of both; where they say the same thing of the same people, these count."""
        people = {
            name: self.people.get(name, SILENT).over(other.people.get(name, SILENT))
            for name in [*other.people, *self.people]
        }
        return Policy(
            self.everybody.over(other.everybody),
            self.known.over(other.known),
            self.verified.over(other.verified),
            MappingProxyType(people),
        )

    def judge(self, trust: Trust, sender: str) -> Judgement:
        """What becomes of the offers of ``sender``, whose key is known so well. Nothing said: a person is asked."""
        rules = self._rules(trust, sender)
        decided = ((rule.do, whose) for whose, rule in rules if rule.do is not None)
        do, because = next(decided, (Verdict.ASK, "everybody"))
        rule = SILENT
        for _, more_general in rules:
            rule = rule.over(more_general)
        return Judgement(do, rule.into, _limit(rule.most), _limit(rule.rate), because)

    def _rules(self, trust: Trust, sender: str) -> list[tuple[str, Rule]]:
        """The rules that count for somebody, and whose they are, the most specific first."""
        person = self.people.get(sender, SILENT)
        if trust.rank < Trust.KNOWN.rank:
            # A name proves nothing: whoever came first under it would be taken for the person who was meant. So of
            # such a rule counts only what is stricter than what holds for everybody.
            person = Rule(
                None if person.do is Verdict.ACCEPT else person.do,
                None,
                _stricter(person.most, self.everybody.most),
                _stricter(person.rate, self.everybody.rate),
            )
        rules = [(sender, person)]
        if trust.rank >= Trust.VERIFIED.rank:
            rules.append(("verified", self.verified))
        if trust.rank >= Trust.KNOWN.rank:
            rules.append(("known", self.known))
        return [*rules, ("everybody", self.everybody)]


def _stricter(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _verdict(text: str) -> Verdict:
    if text not in set(Verdict):
        raise ValueError(f"{text!r} is none of {', '.join(Verdict)}")
    return Verdict(text)


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("a folder is wanted")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _most(text: str) -> int:
    if text == "unlimited":
        return UNLIMITED
    count = parse_size(text)
    if not count:
        raise ValueError("it cannot be nothing; do=deny takes nothing, unlimited lifts a limit")
    return count


def _rate(text: str) -> int:
    return _most(text.removesuffix("/s"))


# How the parts of a rule are read. Upper and lower case make a difference, as in all settings.
KEYS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {"do": _verdict, "into": _folder, "size": _most, "rate": _rate}
)


def _limit(count: int | None) -> int | None:
    return None if count == UNLIMITED else count


def _table(found: object, where: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise UsageError(f"{where} has to be a table, or several: [policy.known] or [policy.name.carol]")
    return found


def _rule(found: object, where: str) -> Rule:
    """The rule in a table of a TOML file. Raises UsageError."""
    table = _table(found, where)
    try:
        for key, value in table.items():
            if isinstance(value, dict):
                raise UsageError(f"{key!r} is a table of its own; a name with a dot is written in quotes")
            _check_key(key, KEYS)
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                raise UsageError(f"{key}: one plain value is wanted")
        return Rule.of({key: str(value) for key, value in table.items()})
    except (ValueError, UsageError) as error:
        raise UsageError(f"[{where}] {error}") from None


def _check_key(key: str, keys: Collection[str]) -> None:
    """Raise ValueError for a key that is none of these, saying which was probably meant."""
    if key not in keys:
        from difflib import get_close_matches

        close = get_close_matches(key, keys, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(keys)}."
        raise ValueError(f"unknown key {printable(key, 40)!r}. {hint}")
