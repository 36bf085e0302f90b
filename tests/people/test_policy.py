"""Who may send what: every rule against every kind of sender, and how rules are written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glide.errors import UsageError
from glide.people.known import Trust
from glide.people.policy import UNLIMITED, Judgement, Policy, Rule, Verdict

ACCEPT, ASK, DENY = Verdict.ACCEPT, Verdict.ASK, Verdict.DENY
NEW, SEEN, KNOWN, VERIFIED = Trust.NEW, Trust.SEEN, Trust.KNOWN, Trust.VERIFIED
MIB = 1024 * 1024


class Kind(NamedTuple):
    """A kind of sender: by how well the key is known, and whether there is a rule for the name."""

    trust: Trust
    named: bool

    @property
    def name(self) -> str:
        return "carol" if self.named else "dave"


KINDS = [Kind(trust, named) for named in (False, True) for trust in Trust]

# Whose rule it is -> whom it is about; the most specific last.
ABOUT: dict[str, list[Kind]] = {
    "everybody": KINDS,
    "known": [kind for kind in KINDS if kind.trust in (KNOWN, VERIFIED)],
    "verified": [kind for kind in KINDS if kind.trust is VERIFIED],
    "@carol": [kind for kind in KINDS if kind.named],
}
# One part of a rule each, and the same part said in another way.
PARTS = [
    (Rule(do=DENY), Rule(do=ASK)),
    (Rule(do=ASK), Rule(do=DENY)),
    (Rule(do=ACCEPT), Rule(do=DENY)),
    (Rule(into=Path("a")), Rule(into=Path("b"))),
    (Rule(most=1), Rule(most=2)),
    (Rule(rate=1), Rule(rate=2)),
]


def policy(**rules: Rule) -> Policy:
    """From the rules of some, ``carol`` among them."""
    found = Policy()
    for whose, rule in rules.items():
        found = Policy.of("@carol" if whose == "carol" else whose, rule).over(found)
    return found


def of(*rules: tuple[str, Rule]) -> Policy:
    found = Policy()
    for whose, rule in rules:
        found = Policy.of(whose, rule).over(found)
    return found


def judged(found: Policy, kind: Kind) -> tuple[Verdict, Path | None, int | None, int | None]:
    judgement = found.judge(kind.trust, kind.name)
    return judgement.do, judgement.into, judgement.most, judgement.rate


def says(rule: Rule) -> tuple[Verdict, Path | None, int | None, int | None]:
    """What somebody is told of whom this rule alone counts."""
    return rule.do or ASK, rule.into, rule.most, rule.rate


def counts(whose: str, rule: Rule, kind: Kind) -> bool:
    trusted = kind.trust in (KNOWN, VERIFIED)
    opens = rule.do is ACCEPT or rule.into is not None
    return kind in ABOUT[whose] and (whose != "@carol" or not opens or trusted)


# --- each rule, and each pair ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{'named, ' * kind.named}{kind.trust}")
def test_where_nothing_is_said_a_person_is_asked(kind: Kind) -> None:
    assert Policy().judge(kind.trust, kind.name) == Judgement(ASK, None, None, None, "everybody")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{'named, ' * kind.named}{kind.trust}")
@pytest.mark.parametrize("whose", ABOUT)
def test_a_rule_is_about_those_that_it_names_and_nobody_else(whose: str, kind: Kind) -> None:
    for rule, _ in PARTS:
        assert judged(of((whose, rule)), kind) == says(rule if counts(whose, rule, kind) else Rule()), rule


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{'named, ' * kind.named}{kind.trust}")
@pytest.mark.parametrize(("general", "specific"), list(itertools.combinations(ABOUT, 2)))
def test_of_two_rules_the_more_specific_decides_each_part(general: str, specific: str, kind: Kind) -> None:
    for rule, other in PARTS:
        found = of((general, other), (specific, rule))
        decides = rule if counts(specific, rule, kind) else other if counts(general, other, kind) else Rule()
        assert judged(found, kind) == says(decides), (rule, other)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{'named, ' * kind.named}{kind.trust}")
def test_each_part_comes_from_the_most_specific_rule_that_says_it(kind: Kind) -> None:
    found = policy(
        everybody=Rule(DENY, Path("all"), 1, 10), known=Rule(ASK, Path("known"), 2), verified=Rule(ACCEPT, Path("v"))
    )
    rules = {
        NEW: (DENY, Path("all"), 1, 10),
        SEEN: (DENY, Path("all"), 1, 10),
        KNOWN: (ASK, Path("known"), 2, 10),
        VERIFIED: (ACCEPT, Path("v"), 2, 10),
    }
    assert judged(found, kind) == rules[kind.trust]
    over = policy(carol=Rule(rate=4)).over(found)
    assert judged(over, kind) == (*rules[kind.trust][:3], 4 if kind.named else 10)


# --- what a name is worth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "trust", "expected"),
    [
        (ACCEPT, NEW, DENY),
        (ACCEPT, SEEN, DENY),
        (ACCEPT, KNOWN, ACCEPT),
        (ACCEPT, VERIFIED, ACCEPT),
        (ASK, NEW, ASK),
        (ASK, SEEN, ASK),
        (ASK, KNOWN, ASK),
        (ASK, VERIFIED, ASK),
        (DENY, NEW, DENY),
        (DENY, SEEN, DENY),
        (DENY, KNOWN, DENY),
        (DENY, VERIFIED, DENY),
    ],
)
def test_C1_a_yes_for_a_name_is_only_for_the_key_that_is_known_by_it(
    do: Verdict, trust: Trust, expected: Verdict
) -> None:
    found = policy(everybody=Rule(DENY), known=Rule(DENY), carol=Rule(do))
    assert found.judge(trust, "carol").do is expected
    assert found.judge(trust, "dave").do is DENY


@pytest.mark.parametrize("trust", [NEW, SEEN])
def test_C1_a_name_that_nobody_has_proved_opens_nothing_and_may_close(trust: Trust) -> None:
    wider = policy(everybody=Rule(ASK, Path("all"), 5, 6), carol=Rule(ACCEPT, Path("carol"), 7, UNLIMITED))
    assert judged(wider, Kind(trust, named=True)) == (ASK, Path("all"), 5, 6)
    narrower = policy(everybody=Rule(ASK, Path("all"), 5), carol=Rule(DENY, Path("carol"), 4, 3))
    assert judged(narrower, Kind(trust, named=True)) == (DENY, Path("all"), 4, 3)


@pytest.mark.parametrize("trust", [KNOWN, VERIFIED])
def test_folder_and_limits_of_a_person_whose_key_is_known_count(trust: Trust) -> None:
    found = policy(everybody=Rule(ASK, Path("all"), 5, 6), carol=Rule(ACCEPT, Path("carol"), 7, 8))
    assert judged(found, Kind(trust, named=True)) == (ACCEPT, Path("carol"), 7, 8)


@pytest.mark.parametrize("name", ["everybody", "known", "verified"])
def test_a_person_may_be_called_like_a_class(name: str) -> None:
    found = Policy.of(f"@{name}", Rule(DENY)).over(Policy.accepting("all"))
    assert found.judge(VERIFIED, name).do is DENY
    assert found.judge(VERIFIED, "carol").do is ACCEPT


@pytest.mark.parametrize(
    ("whose", "trust", "sender", "because"),
    [
        (("everybody", "known", "verified", "@carol"), VERIFIED, "carol", "carol"),
        (("everybody", "known", "verified", "@carol"), VERIFIED, "dave", "verified"),
        (("everybody", "known", "@carol"), VERIFIED, "dave", "known"),
        (("everybody", "known", "verified"), KNOWN, "carol", "known"),
        (("everybody", "known", "verified"), SEEN, "carol", "everybody"),
        (("everybody", "@carol"), NEW, "carol", "everybody"),
        ((), NEW, "carol", "everybody"),
    ],
)
def test_the_rule_that_decided_is_named(whose: tuple[str, ...], trust: Trust, sender: str, because: str) -> None:
    assert of(*((each, Rule(ACCEPT)) for each in whose)).judge(trust, sender).because == because


def test_a_limit_can_be_lifted_for_some() -> None:
    found = policy(everybody=Rule(most=1, rate=1), verified=Rule(most=UNLIMITED), carol=Rule(rate=UNLIMITED))
    assert judged(found, Kind(KNOWN, named=False))[2:] == (1, 1)
    assert judged(found, Kind(VERIFIED, named=False))[2:] == (None, 1)
    assert judged(found, Kind(VERIFIED, named=True))[2:] == (None, None)


# --- --accept, and layers ----------------------------------------------------------------------------------------

WORDS = {
    ("ask", NEW): ASK,
    ("ask", SEEN): ASK,
    ("ask", KNOWN): ASK,
    ("ask", VERIFIED): ASK,
    ("known", NEW): DENY,
    ("known", SEEN): DENY,
    ("known", KNOWN): ACCEPT,
    ("known", VERIFIED): ACCEPT,
    ("all", NEW): ACCEPT,
    ("all", SEEN): ACCEPT,
    ("all", KNOWN): ACCEPT,
    ("all", VERIFIED): ACCEPT,
}


@pytest.mark.parametrize(("word", "trust"), WORDS)
def test_accept_is_short_for_three_rules(word: str, trust: Trust) -> None:
    assert Policy.accepting(word).judge(trust, "carol").do is WORDS[word, trust]
    # Whatever the classes were told in a place that counts less.
    for do in Verdict:
        below = policy(everybody=Rule(do), known=Rule(do), verified=Rule(do))
        assert Policy.accepting(word).over(below).judge(trust, "carol").do is WORDS[word, trust]


@pytest.mark.parametrize("word", ["ask", "known", "all"])
def test_accept_says_nothing_of_single_people_folders_and_limits(word: str) -> None:
    below = policy(everybody=Rule(into=Path("a"), most=1, rate=2), carol=Rule(DENY))
    found = Policy.accepting(word).over(below)
    assert judged(found, Kind(VERIFIED, named=True)) == (DENY, Path("a"), 1, 2)


def test_accept_has_three_words() -> None:
    with pytest.raises(ValueError, match="none of ask, known, all"):
        Policy.accepting("some")


def test_what_counts_more_replaces_only_what_it_says() -> None:
    above = policy(known=Rule(most=2), carol=Rule(into=Path("b")))
    below = policy(known=Rule(DENY, Path("a"), 1, 1), verified=Rule(ASK), carol=Rule(ACCEPT, Path("a"), rate=3))
    assert above.over(below) == policy(
        known=Rule(DENY, Path("a"), 2, 1), verified=Rule(ASK), carol=Rule(ACCEPT, Path("b"), rate=3)
    )


def test_first_who_said_it_counts_and_then_how_specific_it_is() -> None:
    below = policy(everybody=Rule(DENY), carol=Rule(DENY))
    assert policy(everybody=Rule(ACCEPT)).over(below).judge(KNOWN, "carol").do is DENY
    assert policy(carol=Rule(ACCEPT)).over(below).judge(KNOWN, "carol").do is ACCEPT


def test_all_folders_of_a_policy_are_known_beforehand() -> None:
    found = policy(everybody=Rule(into=Path("a")), verified=Rule(into=Path("b")), carol=Rule(into=Path("a/c")))
    assert found.folders == {Path("a"), Path("b"), Path("a/c")}
    assert Policy.accepting("all").folders == set()


@pytest.mark.parametrize(
    ("found", "asks"),
    [
        (Policy(), True),
        (Policy.accepting("ask"), True),
        (Policy.accepting("known"), False),
        (Policy.accepting("all"), False),
        (policy(known=Rule(ACCEPT)), True),
        (policy(everybody=Rule(DENY)), False),
        (policy(everybody=Rule(DENY), known=Rule(ASK)), True),
        (policy(everybody=Rule(DENY), carol=Rule(ASK)), True),
        (policy(everybody=Rule(DENY), carol=Rule(ACCEPT, Path("a"), 1, 1)), False),
    ],
)
def test_a_policy_asks_if_there_is_anybody_to_ask_about(found: Policy, asks: bool) -> None:
    assert found.asks is asks
    assert asks is any(found.judge(kind.trust, kind.name).do is ASK for kind in KINDS)


# --- how rules are written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("everybody:do=ask", policy(everybody=Rule(ASK))),
        (
            "known:do=accept,into=inbox,size=2GiB,rate=10MiB",
            policy(known=Rule(ACCEPT, Path("inbox"), 2048 * MIB, 10 * MIB)),
        ),
        ("verified:rate=10MiB/s", policy(verified=Rule(rate=10 * MIB))),
        ("@carol:do=deny", policy(carol=Rule(DENY))),
        ("@CAROL : do = deny , size = 1 kB", policy(carol=Rule(DENY, most=1000))),
        ("known:into=C:\\in=box", policy(known=Rule(into=Path("C:\\in=box")))),
        ("known:size=unlimited,rate=unlimited", policy(known=Rule(most=UNLIMITED, rate=UNLIMITED))),
    ],
)
def test_a_rule_on_the_command_line(text: str, expected: Policy) -> None:
    assert Policy.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no rule; write it like"),
        ("known", "is no rule; write it like"),
        ("known:", "'' is no KEY=VALUE"),
        ("known:accept", "'accept' is no KEY=VALUE"),
        ("known:into=a,b", "'b' is no KEY=VALUE; a value with a comma"),
        ("known:do=ask,do=deny", "'do' is said twice"),
        ("known:doo=ask", "unknown key 'doo'. Did you mean 'do'?"),
        ("known:most=1", "unknown key 'most'. There are do, into, size, rate."),
        ("known:do=", "do: '' is none of accept, ask, deny"),
        ("known:do=Accept", "do: 'Accept' is none of accept, ask, deny"),
        ("known:into=", "into: a folder is wanted"),
        ("known:into=~nobody-of-that-name/x", "into: "),
        ("known:size=", "size: '' is no size"),
        ("known:size=-1", "size: '-1' is no size"),
        ("known:size=1GiB/s", "size: '1GiB/s' is no size"),
        ("known:rate=fast", "rate: 'fast' is no size"),
        ("known:size=0", "size: it cannot be nothing"),
        ("known:rate=0", "rate: it cannot be nothing"),
        ("carol:do=deny", "'carol' is none of everybody, known, verified; a person is written @NAME"),
        ("Known:do=deny", "'Known' is none of everybody"),
        (":do=deny", "'' is none of everybody"),
    ],
)
def test_a_rule_that_says_nothing_clear_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Policy.parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["@:do=ask", "@a b:do=ask", "@-:do=ask", "@" + "x" * 33 + ":do=ask"])
def test_a_rule_for_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="name"):
        Policy.parse(text)


def test_a_folder_may_be_in_somebodys_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/bob")
    assert Policy.parse("known:into=~/in").known.into == Path("/home/bob/in")
    assert Policy.parse("known:into=in/~").known.into == Path("in/~")


@given(
    st.text(max_size=40) | st.from_regex(r"\A(known|@carol|everybody):((do|into|size|rate)=[a-z0-9~/]{0,9},?){1,3}\Z")
)
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        found = Policy.parse(text)
    except (ValueError, UsageError):
        return
    assert found != Policy()
