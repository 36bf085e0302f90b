"""Settings: which of four places counts, and that a mistake in any of them is told with where it stands."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup, TyperOption

from glide.cli import options
from glide.cli.main import app
from glide.errors import FileError, UsageError
from glide.people.known import Trust
from glide.people.policy import UNLIMITED, Policy, Rule, Verdict
from glide.settings import SETTINGS, TABLES, Home, Settings, login, variable

ACCEPT, ASK, DENY = Verdict.ACCEPT, Verdict.ASK, Verdict.DENY

# For every setting three texts, each other than the default and than the others, and what they mean.
VALUES: dict[str, list[tuple[str, object]]] = {
    "relay": [("a:1", "a:1"), ("b:2", "b:2"), ("c:3", "c:3")],
    "as": [("alice", "alice"), ("bob", "bob"), ("carol", "carol")],
    "into": [("/a", "/a"), ("b", "b"), ("~/c", "~/c")],
    "accept": [("known", "known"), ("all", "all"), ("ask", "ask")],
    "policy": [("known:do=ask", ("known:do=ask",)), ("@a:do=deny", ("@a:do=deny",)), ("", ())],  # in the file a table
    "from": [("alice", ("alice",)), ("bob", ("bob",)), ("carol", ("carol",))],
    "message": [("a", "a"), ("b", "b"), ("c=d, e", "c=d, e")],
    "filename": [("a", "a"), ("b", "b"), ("c", "c")],
    "conflict": [("skip", "skip"), ("overwrite", "overwrite"), ("refuse", "refuse")],
    "exclude": [("*.tmp", ("*.tmp",)), ("build/", ("build/",)), ("!keep", ("!keep",))],
    "receipt": [("a.json", "a.json"), ("/b", "/b"), ("~/c", "~/c")],
    "wait": [("1m", 60.0), ("2h", 7200.0), ("250ms", 0.25)],
    "on-offer": [("a", "a"), ("b 'c d'", "b 'c d'"), ("~/c", "~/c")],
    "on-received": [("a", "a"), ("b 'c d'", "b 'c d'"), ("~/c", "~/c")],
    "on-failed": [("a", "a"), ("b 'c d'", "b 'c d'"), ("~/c", "~/c")],
    "retry": [("1m", 60.0), ("2h", 7200.0), ("0s", 0.0)],
    "idle": [("1m", 60.0 * 1), ("2h", 7200.0), ("0s", 0.0)],
    "ask-timeout": [("1m", 60.0), ("2h", 7200.0), ("250ms", 0.25)],
    "host": [("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("localhost", "localhost")],
    "port": [("0", 0), ("1", 1), ("65535", 65535)],
    "greeting": [("Hello", "Hello"), ("Hi", "Hi"), ("Good day", "Good day")],
    "grace": [("1", 1.0), ("2", 2.0), ("3s", 3.0)],
    "handshake-timeout": [("1", 1.0), ("2", 2.0), ("3s", 3.0)],
    "keepalive": [("1", 1.0), ("2", 2.0), ("3s", 3.0)],
    "lost-after": [("1", 1.0), ("2", 2.0), ("3s", 3.0)],
    "stall-after": [("1", 1.0), ("2", 2.0), ("250ms", 0.25)],
    "keep-partials": [("1d", 86400.0), ("2h", 7200.0), ("0s", 0.0)],
}
BOOLEANS = {"once", "allow-hidden", "no-fsync", "stdout", "gitignore", "json", "quiet", "verbose"}
BOOLEANS |= {"invisible", "strict"}
for _name in BOOLEANS:
    VALUES[_name] = [("true", True), ("false", False), ("yes", True)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "config", tmp_path / "state")


def write(home: Home, text: str) -> None:
    home.config.mkdir(exist_ok=True)
    home.config_file.write_text(text, encoding="utf-8")


def flag(name: str, text: str) -> object:
    """What the command line hands over."""
    if name in BOOLEANS:
        return text in ("true", "yes")
    return [text] if SETTINGS[name].many else text


# --- precedence ------------------------------------------------------------------------------------------


def test_every_setting_has_its_values_in_this_test() -> None:
    assert set(VALUES) == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(home: Home, name: str) -> None:
    (by_flag, flagged), (by_environment, there), (in_file, filed) = VALUES[name]
    flags, environment = {name: flag(name, by_flag)}, {variable(name): by_environment}
    assert Settings({}, home, {})[name] == SETTINGS[name].default
    if name not in TABLES:
        write(home, f'{name} = "{in_file}"\n')
    assert Settings(flags, home, environment)[name] == flagged
    assert Settings({}, home, environment)[name] == there
    assert Settings({name: None}, home, environment)[name] == there
    assert Settings({}, home, {})[name] == filed
    assert Settings(flags, home, {})[name] == flagged


@pytest.mark.parametrize("name", sorted(BOOLEANS))
def test_a_flag_that_says_no_beats_an_environment_that_says_yes(home: Home, name: str) -> None:
    assert Settings({name: False}, home, {variable(name): "1"})[name] is False


def test_a_flag_that_was_given_no_times_leaves_the_choice_to_the_others(home: Home) -> None:
    assert Settings({"from": []}, home, {"GLIDE_FROM": "alice"})["from"] == ("alice",)


def test_several_values_come_as_flags_in_a_list_or_between_commas(home: Home) -> None:
    both = ("alice", "bob")
    assert Settings({"from": ["alice", "bob"]}, home, {})["from"] == both
    assert Settings({}, home, {"GLIDE_FROM": "alice,bob"})["from"] == both
    write(home, 'from = ["alice", "bob"]\n')
    assert Settings({}, home, {})["from"] == both


def test_the_file_may_say_numbers_and_yes_as_toml_has_them(home: Home) -> None:
    write(home, "port = 9000\nonce = true\nidle = 90\nquiet = false\n")
    found = Settings({}, home, {})
    assert (found["port"], found["once"], found["idle"], found["quiet"]) == (9000, True, 90.0, False)


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_words_that_mean_yes(home: Home, text: str) -> None:
    assert Settings({}, home, {"GLIDE_ONCE": text})["once"] is True


@pytest.mark.parametrize("text", ["0", "false", "No", "off", ""])
def test_words_that_mean_no(home: Home, text: str) -> None:
    write(home, "once = true\n")
    assert Settings({}, home, {"GLIDE_ONCE": text})["once"] is False


def test_several_patterns_are_given_one_after_the_other(home: Home) -> None:
    assert Settings({"exclude": ["*.tmp", "build/"]}, home, {})["exclude"] == ("*.tmp", "build/")
    assert Settings({}, home, {"GLIDE_EXCLUDE": "*.tmp,build/"})["exclude"] == ("*.tmp", "build/")
    write(home, 'exclude = ["*.tmp", "a,b"]\n')
    assert Settings({}, home, {})["exclude"] == ("*.tmp", "a,b")


def test_what_nobody_has_set_is_what_the_documentation_says(home: Home) -> None:
    chosen = Settings({}, home, {})
    said = ("conflict", "stdout", "exclude", "gitignore", "receipt", "retry", "stall-after", "keep-partials")
    assert [chosen[name] for name in said] == ["rename", False, (), False, None, 600.0, 5.0, 7 * 86400.0]


def test_zero_turns_trying_again_off(home: Home) -> None:
    assert Settings({}, home, {"GLIDE_RETRY": "0"})["retry"] == 0.0
    assert Settings({"retry": "0s"}, home, {"GLIDE_RETRY": "10m"})["retry"] == 0.0


# --- every flag ------------------------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app)
assert isinstance(COMMANDS, TyperGroup)
FLAGS = [
    (verb, option.opts[0].removeprefix("--"), option.help or "")
    for verb, command in COMMANDS.commands.items()
    for option in command.params
    if isinstance(option, TyperOption) and option.opts[0] != "--help"
]


@pytest.mark.parametrize(("verb", "name", "said"), FLAGS, ids=lambda each: str(each)[:20])
def test_every_flag_is_a_setting_with_a_variable_that_its_help_names(verb: str, name: str, said: str) -> None:
    assert name in SETTINGS
    assert f"[env: {variable(name)}]" in said


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_variable(name: str) -> None:
    assert variable(name) == "GLIDE_" + name.upper().replace("-", "_")
    assert variable(name).replace("_", "").isalnum()


def test_a_verb_hands_its_flags_on_under_the_names_of_the_settings(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIDE_HOME", str(home.config))
    seen = []

    def use() -> None:
        with options.verb(as_="bob", from_=["alice"], ask_timeout="5m", allow_hidden=True) as (found, _):
            seen.append((found["as"], found["from"], found["ask-timeout"], found["allow-hidden"]))

    with pytest.raises(SystemExit, match="0"):
        use()
    assert seen == [("bob", ("alice",), 300, True)]


# --- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "meant"), [("ask_timeout", "ask-timeout"), ("rely", "relay"), ("Port", "port"), ("jsn", "json")]
)
def test_an_unknown_key_is_named_with_what_was_probably_meant(home: Home, key: str, meant: str) -> None:
    write(home, f'{key} = "x"\n')
    with pytest.raises(UsageError, match=f"unknown setting: '{key}'") as caught:
        Settings({}, home, {})
    assert f"'{meant}'" in caught.value.next
    assert str(home.config_file) in caught.value.what
    assert caught.value.exit == 2


def test_an_unknown_key_like_nothing_is_named_with_all_that_there_are(home: Home) -> None:
    write(home, 'xyzzy = "x"\n')
    with pytest.raises(UsageError, match="'xyzzy'") as caught:
        Settings({}, home, {})
    assert all(name in caught.value.next for name in SETTINGS)


def test_D1_an_unknown_key_is_shown_on_one_line(home: Home) -> None:
    write(home, '"\\u001b[2J\\u202e' + "x" * 10_000 + '" = 1\n')
    with pytest.raises(UsageError) as caught:
        Settings({}, home, {})
    assert not {"\x1b", "\u202e"} & set(str(caught.value))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", ["port = \n", "port 8080", "= 1", "[relay", 'as = "bob\n', "port = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_named(home: Home, text: str) -> None:
    write(home, text)
    with pytest.raises(UsageError, match=r"config\.toml is not TOML") as caught:
        Settings({}, home, {})
    assert caught.value.exit == 2


def test_a_file_that_cannot_be_read_is_named(home: Home) -> None:
    home.config_file.mkdir(parents=True)
    with pytest.raises(FileError, match=r"config\.toml cannot be read"):
        Settings({}, home, {})
    home.config_file.rmdir()
    home.config_file.write_bytes(b'as = "\xff"\n')
    with pytest.raises(UsageError, match=r"config\.toml is not TOML"):
        Settings({}, home, {})


BAD = [("port", "http"), ("port", "65536"), ("port", "-1"), ("port", ""), ("accept", "maybe"), ("accept", "ALL")]
BAD += [("idle", "soon"), ("idle", "-1"), ("ask-timeout", ""), ("grace", "1x"), ("once", "perhaps"), ("json", "2")]
BAD += [("conflict", "replace"), ("conflict", ""), ("conflict", "Skip"), ("stdout", "perhaps"), ("gitignore", "2")]
BAD += [("retry", "for ever"), ("retry", "-1s"), ("stall-after", "x"), ("keep-partials", "a week"), ("retry", "")]
BAD += [("keepalive", "1 s"), ("handshake-timeout", "nan"), ("lost-after", "inf")]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_value_says_where_it_stands(home: Home, name: str, text: str) -> None:
    def said(flags: dict[str, Any], environment: dict[str, str]) -> str:
        with pytest.raises(UsageError) as caught:
            Settings(flags, home, environment)[name]
        assert caught.value.exit == 2
        return str(caught.value)

    assert said({name: text}, {}).startswith(f"--{name}: ")
    assert said({}, {variable(name): text}).startswith(f"{variable(name)}: ")
    write(home, f'{name} = "{text}"\n')
    assert said({}, {}).startswith(f"{name!r} in {home.config_file}: ")


@pytest.mark.parametrize(("name", "value"), [("into", '["a"]'), ("relay", "{host = 'a'}"), ("as", "true")])
def test_a_value_of_another_kind_is_no_text(home: Home, name: str, value: str) -> None:
    write(home, f"{name} = {value}\n")
    with pytest.raises(UsageError, match=r"config\.toml"):
        Settings({}, home, {})[name]


def test_D1_a_bad_value_is_shown_on_one_line(home: Home) -> None:
    with pytest.raises(UsageError) as caught:
        Settings({"accept": "\x1b]52;c;cm0=\x07\u202e\r" + "x" * 10_000}, home, {})["accept"]
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(str(caught.value))
    assert len(str(caught.value)) < 300


# --- who may send what -----------------------------------------------------------------------------------


def test_rules_stand_in_the_file_as_tables(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/bob")
    write(
        home,
        """
        accept = "known"
        [policy.everybody]
        size = "2GiB"
        rate = 1000
        [policy.known]
        into = "~/known"
        [policy.verified]
        rate = "unlimited"
        [policy.name.Carol]
        do = "ask"
        into = "carol"
        [policy.name."a.b"]
        do = "deny"
        """,
    )
    assert Settings({}, home, {}).policy() == Policy(
        Rule(Verdict.DENY, most=2 * 1024**3, rate=1000),
        Rule(Verdict.ACCEPT, Path("/home/bob/known")),
        Rule(Verdict.ACCEPT, rate=UNLIMITED),
        {"carol": Rule(Verdict.ASK, Path("carol")), "a.b": Rule(Verdict.DENY)},
    )


def test_without_any_rule_everybody_is_asked_about(home: Home) -> None:
    assert Settings({}, home, {}).policy() == Policy()
    assert Settings({"policy": [], "accept": None}, home, {"GLIDE_POLICY": " ; "}).policy() == Policy()


# What stands in the file, in the environment, and among the flags; and what becomes of carol, who is known.
LAYERS: list[tuple[str, dict[str, str], dict[str, Any], Verdict]] = [
    ("[policy.known]\ndo = 'deny'", {}, {}, DENY),
    ("[policy.known]\ndo = 'deny'", {"GLIDE_POLICY": "known:do=accept"}, {}, ACCEPT),
    ("[policy.known]\ndo = 'deny'", {"GLIDE_POLICY": "known:do=accept"}, {"policy": ["known:do=ask"]}, ASK),
    ("[policy.known]\ndo = 'deny'", {"GLIDE_POLICY": "everybody:do=accept"}, {"policy": ["everybody:do=ask"]}, DENY),
    # accept is short for rules for all three classes, in its own place.
    ("accept = 'all'\n[policy.known]\ndo = 'deny'", {}, {}, DENY),
    ("accept = 'all'\n[policy.everybody]\ndo = 'deny'", {}, {}, ACCEPT),
    ("accept = 'all'", {"GLIDE_ACCEPT": "ask"}, {}, ASK),
    ("accept = 'all'", {"GLIDE_ACCEPT": "ask"}, {"accept": "known"}, ACCEPT),
    ("[policy.everybody]\ndo = 'deny'\n[policy.known]\ndo = 'deny'", {}, {"accept": "known"}, ACCEPT),
    ("[policy.name.carol]\ndo = 'deny'", {}, {"accept": "all"}, DENY),
    ("[policy.name.carol]\ndo = 'deny'", {"GLIDE_ACCEPT": "all"}, {"policy": ["@carol:do=ask"]}, ASK),
    ("", {"GLIDE_ACCEPT": "all", "GLIDE_POLICY": "known:do=deny"}, {}, DENY),
    ("", {"GLIDE_POLICY": "known:do=deny"}, {"accept": "all"}, ACCEPT),
    ("", {}, {"accept": "all", "policy": ["known:do=deny"]}, DENY),
    ("", {"GLIDE_ACCEPT": "all"}, {"policy": ["known:do=deny"]}, DENY),
    # Of flags that say the same of the same people the last counts.
    ("", {}, {"policy": ["@carol:do=deny", "@carol:do=accept"]}, ACCEPT),
    ("", {"GLIDE_POLICY": "@carol:do=accept;@carol:do=deny"}, {}, DENY),
]


@pytest.mark.parametrize(("text", "environment", "flags", "expected"), LAYERS)
def test_rules_of_flags_count_before_those_of_the_environment_and_of_the_file(
    home: Home, text: str, environment: dict[str, str], flags: dict[str, Any], expected: Verdict
) -> None:
    write(home, text)
    assert Settings(flags, home, environment).policy().judge(Trust.KNOWN, "carol").do is expected


def test_each_place_adds_what_the_others_do_not_say(home: Home) -> None:
    write(home, "[policy.known]\ndo = 'accept'\nsize = 1")
    found = Settings({"policy": ["known:rate=3"]}, home, {"GLIDE_POLICY": "known:size=2;@carol:into=x"}).policy()
    assert found == Policy(known=Rule(Verdict.ACCEPT, most=2, rate=3), people={"carol": Rule(into=Path("x"))})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policy.evrybody]\ndo = 'ask'", "unknown key 'evrybody'. Did you mean 'everybody'?"),
        ("[policy.carol]\ndo = 'ask'", "unknown key 'carol'. There are everybody, known, verified, name."),
        ("[policy.known]\nrat = 1", "[policy.known] unknown key 'rat'. Did you mean 'rate'?"),
        ("[policy.name.carol]\ndoo = 1", "[policy.name.carol] unknown key 'doo'. Did you mean 'do'?"),
        ("[policy.known]\ndo = 'maybe'", "[policy.known] do: 'maybe' is none of accept, ask, deny"),
        ("[policy.known]\ndo = true", "[policy.known] do: one plain value is wanted"),
        ("[policy.known]\ninto = ['a']", "[policy.known] into: one plain value is wanted"),
        ("[policy.known]\nsize = 1.5", "[policy.known] size: one plain value is wanted"),
        ("[policy.known]\nsize = -1", "[policy.known] size: '-1' is no size"),
        ("[policy.name.a.b]\ndo = 'ask'", "[policy.name.a] 'b' is a table of its own; a name with a dot"),
        ("[policy.name.carol]\n[policy.name.CAROL]", "[policy.name.CAROL] is there twice"),
        ("[policy.name.'a b']\ndo = 'ask'", "'@a b' is not a name"),
        ("[policy]\nname = 'carol'", "policy.name has to be a table"),
        ("[policy]\nknown = 'accept'", "policy.known has to be a table"),
        ("policy = 'known:do=ask'", "policy has to be a table"),
        ("[[policy.known]]\ndo = 'ask'", "policy.known has to be a table"),
    ],
)
def test_a_mistake_in_a_rule_of_the_file_says_where_it_stands(home: Home, text: str, said: str) -> None:
    write(home, text)
    with pytest.raises(UsageError) as caught:
        Settings({}, home, {}).policy()
    assert str(caught.value).startswith(f"[policy] in {home.config_file}: ")
    assert said in str(caught.value)


def test_a_mistake_in_a_rule_elsewhere_says_where_it_stands(home: Home) -> None:
    with pytest.raises(UsageError, match=r"^--policy: 'carol' is none of everybody"):
        Settings({"policy": ["carol:do=ask"]}, home, {}).policy()
    with pytest.raises(UsageError, match=r"^GLIDE_POLICY: do: 'x' is none of accept"):
        Settings({}, home, {"GLIDE_POLICY": "known:do=ask;known:do=x"}).policy()
    with pytest.raises(UsageError, match=r"^GLIDE_ACCEPT: 'x' is none of ask"):
        Settings({}, home, {"GLIDE_ACCEPT": "x"}).policy()


def test_D1_a_bad_rule_is_shown_on_one_line(home: Home) -> None:
    write(home, '[policy.known]\n"\\u001b[2J\\u202e' + "x" * 10_000 + '" = 1\n')
    with pytest.raises(UsageError) as caught:
        Settings({}, home, {}).policy()
    assert not {"\x1b", "\u202e"} & set(str(caught.value))
    assert len(str(caught.value)) < 500


# --- names for several people ----------------------------------------------------------------------------


def test_a_group_is_a_name_for_several_people(home: Home) -> None:
    assert Settings({}, home, {}).groups() == {}
    write(home, "[groups]\nTeam = ['bob', '@Carol', 'bob', 'dave']\n'x.y' = ['bob']\n")
    assert Settings({}, home, {}).groups() == {"team": ("bob", "carol", "dave"), "x.y": ("bob",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups = ['bob']", "a table is wanted"),
        ("[groups]\nteam = 'bob'", "'team' is no list of names"),
        ("[groups]\nteam = [1]", "'team' is no list of names"),
        ("[groups.team]\nbob = 1", "'team' is no list of names"),
        ("[groups]\nteam = []", "'team' has nobody in it"),
        ("[groups]\nteam = ['b b']", "'b b' is not a name"),
        ("[groups]\n'a team' = ['bob']", "'a team' is not a name"),
        ("[groups]\nteam = ['bob']\nTEAM = ['carol']", "'team' is there twice"),
        ("[groups]\na = ['bob', 'B']\nb = ['carol']", "'b' in 'a' is a group"),
        ("[groups]\nteam = ['team']", "'team' in 'team' is a group"),
    ],
)
def test_a_mistake_in_a_group_says_where_it_stands(home: Home, text: str, said: str) -> None:
    write(home, text)
    with pytest.raises(UsageError) as caught:
        Settings({}, home, {}).groups()
    assert str(caught.value).startswith(f"[groups] in {home.config_file}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"), [("[group]", "groups"), ("[polcy.known]", "policy"), ("[Groups]", "groups")]
)
def test_an_unknown_table_is_named_with_what_was_probably_meant(home: Home, text: str, meant: str) -> None:
    write(home, text)
    with pytest.raises(UsageError, match="unknown setting") as caught:
        Settings({}, home, {})
    assert f"'{meant}'" in caught.value.next


# --- where the files are ---------------------------------------------------------------------------------


def test_glide_home_holds_everything(tmp_path: Path) -> None:
    home = Home.find({"GLIDE_HOME": str(tmp_path)})
    places = {home.config_file, home.identity, home.relay_identity, home.known, home.partials}
    assert {place.parent for place in places} == {tmp_path}
    assert len(places) == 5


@pytest.mark.parametrize("environment", [{}, {"GLIDE_HOME": ""}])
def test_without_it_the_platforms_own_places_are_used(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.name != "posix":
        pytest.skip("XDG is POSIX")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    home = Home.find(environment)
    if home.config != tmp_path / "c" / "glide":
        pytest.skip("this platform has places of its own")
    assert home.config_file == tmp_path / "c" / "glide" / "config.toml"
    assert home.known == tmp_path / "s" / "glide" / "known.json"
    assert home.partials == tmp_path / "s" / "glide" / "partials"


def test_to_read_settings_creates_nothing(home: Home, tmp_path: Path) -> None:
    assert Settings({}, home, {})["relay"]
    assert list(tmp_path.iterdir()) == []


# --- saving ----------------------------------------------------------------------------------------------


def test_to_save_keeps_comments_order_and_everything_else(home: Home) -> None:
    before = '# mine\nport = 9000  # because\n\n# who I am\nas = "old" # for now\nidle = "5m"\n'
    write(home, before)
    chosen = Settings({}, home, {})
    chosen.save("as", "bob")
    assert home.config_file.read_text(encoding="utf-8") == before.replace('"old"', '"bob"')
    assert chosen["as"] == "bob"


def test_to_save_something_new_adds_it(home: Home) -> None:
    for before in ("", "# only a comment", "port = 9000", '# naïve 漢\nidle = "5m"\n'):
        write(home, before)
        Settings({}, home, {}).save("relay", "example.org:8080#key")
        after = home.config_file.read_text(encoding="utf-8")
        assert after.startswith(before)
        assert tomllib.loads(after) == {**tomllib.loads(before), "relay": "example.org:8080#key"}


def test_to_save_leaves_the_tables_as_they_are(home: Home) -> None:
    before = '[policy.known]\ndo = "ask"\n\n[groups]\nteam = ["bob"]  # all of us\n'
    for text in (before, f'as = "alice"\n\n{before}'):
        write(home, text)
        Settings({}, home, {}).save("relay", "a:1")
        after = home.config_file.read_text(encoding="utf-8")
        assert tomllib.loads(after) == {**tomllib.loads(text), "relay": "a:1"}
        assert Settings({}, home, {})["relay"] == "a:1"
        assert before in after


def test_to_save_makes_the_folder_and_leaves_nothing_else_there(home: Home) -> None:
    chosen = Settings({}, home, {})
    chosen.save("as", "bob")
    assert chosen["as"] == "bob"
    assert Settings({}, home, {})["as"] == "bob"
    assert os.listdir(home.config) == ["config.toml"]


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a'b", "a#b", "a\nb", "naïve 漢", '"""', ""])
def test_what_was_saved_is_what_is_read(home: Home, value: str) -> None:
    Settings({}, home, {}).save("message", value)
    assert Settings({}, home, {})["message"] == value


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    chosen = Settings({}, Home(tmp_path / "config", tmp_path), {})
    chosen.home = Home(tmp_path / "file" / "config", tmp_path)
    with pytest.raises(FileError, match="cannot be written") as caught:
        chosen.save("as", "bob")
    assert "not saved" in caught.value.means


def test_who_has_no_login_name_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    assert login() == "alice"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    assert login() == ""
