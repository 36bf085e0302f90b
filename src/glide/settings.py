"""Settings: a flag, or else the environment, or else ``config.toml``, or else the default.

Every setting has one name; ``--ask-timeout`` is ``GLIDE_ASK_TIMEOUT`` and ``ask-timeout = "5m"`` in the file. An
unknown key in the file is an error that names it, so that a typing mistake does not pass for a choice.

Two things in the file are tables: ``[policy.…]``, who may send what, and ``[groups]``, names for several people.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from glide import files
from glide.errors import FileError, UsageError
from glide.text import parse_duration, printable

if TYPE_CHECKING:
    from glide.people.policy import Policy


class Setting(msgspec.Struct, frozen=True):
    """How a setting is read from text, and what it is if nobody set it; ``between`` stands between ``many``."""

    parse: Callable[[str], Any]
    default: Any
    many: bool = False
    between: str = ","


def _boolean(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
    raise ValueError(f"{text!r} is neither yes nor no")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise ValueError(f"{text!r} is no port; ports are 0 to 65535")
    return int(text)


def _some_time(text: str) -> float:
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError("it cannot be nothing")
    return seconds


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return parse


# What may hold several values: a TOML array, and what a program hands over.
_LISTS = (list, tuple, set, frozenset)

SETTINGS: dict[str, Setting] = {
    "relay": Setting(str, "127.0.0.1:8080"),
    "as": Setting(str, None),
    "into": Setting(str, "."),
    "accept": Setting(_choice("ask", "known", "all"), "ask"),
    "policy": Setting(str, (), many=True, between=";"),  # in the file a table: see Settings.policy
    "from": Setting(str, (), many=True),
    "invisible": Setting(_boolean, False),
    "once": Setting(_boolean, False),
    "allow-hidden": Setting(_boolean, False),
    "no-fsync": Setting(_boolean, False),
    "message": Setting(str, ""),
    "filename": Setting(str, None),
    "conflict": Setting(_choice("rename", "skip", "overwrite", "refuse"), "rename"),
    "stdout": Setting(_boolean, False),
    "exclude": Setting(str, (), many=True),
    "gitignore": Setting(_boolean, False),
    "receipt": Setting(str, None),
    "wait": Setting(parse_duration, 0.0),
    "strict": Setting(_boolean, False),
    "on-offer": Setting(str, None),
    "on-received": Setting(str, None),
    "on-failed": Setting(str, None),
    "retry": Setting(parse_duration, 600.0),
    "idle": Setting(parse_duration, 60.0),
    "ask-timeout": Setting(parse_duration, 300.0),
    "host": Setting(str, "127.0.0.1"),
    "port": Setting(_port, 8080),
    "greeting": Setting(str, None),
    "grace": Setting(parse_duration, 30.0),
    "json": Setting(_boolean, False),
    "quiet": Setting(_boolean, False),
    "verbose": Setting(_boolean, False),
    # Without flags: deadlines that only a test, or somebody with a very odd network, has reason to change.
    "handshake-timeout": Setting(_some_time, 10.0),
    "keepalive": Setting(_some_time, 30.0),
    "lost-after": Setting(_some_time, 90.0),
    "stall-after": Setting(_some_time, 5.0),
    "keep-partials": Setting(parse_duration, 7 * 86400.0),
}

# What stands in the file as a table.
TABLES = ("policy", "groups")


def setting(argument: str) -> str:
    """The setting of a Python argument: underscores for dashes, and one behind a word that Python has (``from_``)."""
    return argument.rstrip("_").replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "GLIDE_" + name.upper().replace("-", "_")


class Home(msgspec.Struct, frozen=True):
    """Where this person's files are: all under ``GLIDE_HOME``, or in the platform's own places."""

    config: Path
    state: Path

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> Home:
        if home := environment.get("GLIDE_HOME"):
            return cls(Path(home), Path(home))
        import platformdirs

        return cls(
            Path(platformdirs.user_config_dir("glide", appauthor=False)),
            Path(platformdirs.user_state_dir("glide", appauthor=False)),
        )

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def identity(self) -> Path:
        return self.config / "identity"

    @property
    def relay_identity(self) -> Path:
        """A relay's key is not a person's: one machine may be both."""
        return self.config / "relay-identity"

    @property
    def partials(self) -> Path:
        """The folder of what is known of interrupted transfers."""
        return self.state / "partials"

    @property
    def known(self) -> Path:
        return self.state / "known.json"


class Settings:
    """The settings of one command. ``flags`` holds what was given on the command line, None for what was not."""

    def __init__(self, flags: Mapping[str, Any], home: Home, environment: Mapping[str, str] = os.environ) -> None:
        self.home = home
        self._flags = flags
        self._environment = environment
        found = _load(home.config_file)
        self._tables = {name: found.pop(name) for name in TABLES if name in found}
        self._file = found

    def __getitem__(self, name: str) -> Any:
        """The value that counts. Raises :class:`UsageError` if it cannot be read, saying where it stands."""
        setting = SETTINGS[name]
        for value, where in (self._flag(name), self._variable(name), self._line(name)):
            if value is not None:
                return self._parse(setting, value, where)
        return setting.default

    # What each of the three places says, None for nothing, and how that place is called in messages.

    def _flag(self, name: str) -> tuple[Any, str]:
        given = self._flags.get(name)
        return None if given == [] else given, f"--{name}"

    def _variable(self, name: str) -> tuple[Any, str]:
        setting, text = SETTINGS[name], self._environment.get(variable(name))
        return text.split(setting.between) if setting.many and text is not None else text, variable(name)

    def _line(self, name: str) -> tuple[Any, str]:
        return self._file.get(name), f"{name!r} in {self.home.config_file}"

    @staticmethod
    def _parse(setting: Setting, value: Any, where: str) -> Any:
        with _told(where):
            if isinstance(value, dict) or (isinstance(value, _LISTS) and not setting.many):
                raise ValueError("one plain value is wanted")
            if isinstance(value, bool) and setting.parse is not _boolean:
                raise ValueError("true and false mean nothing here")
            if setting.many:
                return tuple(setting.parse(str(each)) for each in (value if isinstance(value, _LISTS) else [value]))
            return setting.parse(str(value))

    def policy(self) -> Policy:
        """Who may send what: the rules of the flags over those of the environment, over those of the file.

        In each place ``accept`` comes first, and what is said more exactly over it. Raises :class:`UsageError`.
        """
        from glide.people.policy import Policy

        with _told(f"[policy] in {self.home.config_file}"):
            policy = Policy.of_tables(self._tables.get("policy", {}))
        policy = policy.over(self._accepting(self._line))
        for place in (self._variable, self._flag):
            policy = self._accepting(place).over(policy)
            rules, where = place("policy")
            with _told(where):
                for text in filter(str.strip, [rules] if isinstance(rules, str) else rules or ()):
                    policy = Policy.parse(text).over(policy)
        return policy

    def _accepting(self, place: Callable[[str], tuple[Any, str]]) -> Policy:
        from glide.people.policy import Policy

        word, where = place("accept")
        return Policy() if word is None else Policy.accepting(self._parse(SETTINGS["accept"], word, where))

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names that stand for several people: each group's members, in order, once. Raises :class:`UsageError`."""
        with _told(f"[groups] in {self.home.config_file}"):
            return _groups(self._tables.get("groups", {}))

    def use(self, name: str, value: str) -> None:
        """As if it had been said on the command line."""
        self._flags = {**self._flags, name: value}

    def save(self, name: str, value: str) -> None:
        """Write one setting into ``config.toml``, leaving all else in it as it is. Raises :class:`FileError`."""
        import tomlkit

        path = self.home.config_file
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            document = tomlkit.parse(text)
            document[name] = value
            files.replace(path, tomlkit.dumps(document).encode())
        except OSError as error:
            raise FileError(
                f"{path} cannot be written: {error.strerror}.", "The setting was not saved.", "Check its permissions."
            ) from None
        self._file[name] = value


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What cannot be read in the block is told with the place where it stands."""
    try:
        yield
    except (ValueError, UsageError) as error:
        raise UsageError(f"{where}: {printable(str(error))}") from None


def _groups(table: object) -> dict[str, tuple[str, ...]]:
    from glide.protocol import names

    if not isinstance(table, dict):
        raise UsageError('a table is wanted, with lines like team = ["bob", "carol"]')
    groups: dict[str, tuple[str, ...]] = {}
    for key, members in table.items():
        group = names.parse(key)
        if group in groups:
            raise ValueError(f"{group!r} is there twice")
        if not isinstance(members, list) or not all(isinstance(each, str) for each in members):
            raise ValueError(f"{group!r} is no list of names")
        if not members:
            raise ValueError(f"{group!r} has nobody in it")
        groups[group] = tuple(dict.fromkeys(map(names.parse, members)))
    for group, people in groups.items():
        if inner := next((each for each in people if each in groups), ""):
            raise ValueError(f"{inner!r} in {group!r} is a group, and groups are made of people")
    return groups


def _load(path: Path) -> dict[str, Any]:
    """The settings in ``path``; none if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib

        found = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise UsageError(f"{path} is not TOML: {error}.", next="Mend it, or move it away.") from None
    known = (*SETTINGS, "groups")
    for key in found:
        if key not in known:
            from difflib import get_close_matches

            close = get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"The settings are: {', '.join(known)}."
            raise UsageError(f"{path} has an unknown setting: {printable(key, 40)!r}.", next=hint)
    return found


def login() -> str:
    """The login name, or an empty string where there is none."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
