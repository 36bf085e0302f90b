"""The pages name all that there is: verbs, flags, settings, events, codes, public names, modules."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import typer.main

import glide
from glide import errors, events
from glide.cli import hooks
from glide.cli.main import app
from glide.client.api import Client
from glide.client.offers import Offer
from glide.client.pairing import Paired
from glide.people.policy import Policy
from glide.settings import SETTINGS, Home, Settings
from tests.pages import ROOT, blocks, page


def verbs() -> dict[str, set[str]]:
    """Each verb with its flags, as the command line knows them."""
    group = typer.main.get_group(app)
    return {
        name: {option for each in command.params for option in each.opts if option.startswith("--")}
        for name, command in group.commands.items()
    }


def test_every_verb_and_flag_stands_in_the_manual() -> None:
    manual = page("docs/cli.md")
    (synopsis,) = re.findall(r"^## Verbs\n\n(.*?)^\n`python", manual, re.DOTALL | re.MULTILINE)
    usage = {part.split()[0]: part for part in re.split(r"^    glide +", synopsis, flags=re.MULTILINE) if part.split()}
    everywhere = {"--help", "--relay", "--quiet", "--verbose"}
    for verb, flags in verbs().items():
        assert verb in usage or f"glide {verb}" in synopsis, verb
        missing = {flag for flag in flags - everywhere if verb in usage and not re.search(rf"{flag}\b", usage[verb])}
        assert not missing, f"{verb}: {missing}"
    assert everywhere - {"--help"} <= set(re.findall(r"--[a-z]+", manual))


def test_every_setting_event_code_and_variable_stands_in_the_manual() -> None:
    manual = page("docs/cli.md")
    for name in SETTINGS:
        assert f"--{name}" in manual or f"`{name}`" in manual, name
    for each in vars(events).values():
        if inspect.isclass(each) and issubclass(each, events.Event) and each is not events.Event:
            assert f"`{each.event}`" in manual, each
    for each in vars(errors).values():
        if inspect.isclass(each) and issubclass(each, errors.GlideError):
            assert f"`{each.code}`" in manual, each
    for code in errors.Exit:
        assert re.search(rf"^\| (\d+, )*{int(code)}(, \d+)* \|", manual, re.MULTILINE), code
    for fact in hooks.FACTS:
        assert f"`{hooks.PREFIX}{fact}`" in manual, fact
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/glide/cli").glob("*.py"))
    emitted = set(re.findall(r'\.line\(\s*"([^"]+)"', written))
    assert emitted
    for name in emitted:
        assert f"`{name}`" in manual, name


def test_every_public_name_stands_in_the_page_about_the_api() -> None:
    api = page("docs/api.md")
    for name in glide.__all__:
        assert name == "__version__" or f"glide.{name}" in api, name
    for owner in (Client, Offer):
        attributes = re.findall(r"self\.([a-z]\w*)(?::[^=]+)? = ", inspect.getsource(owner.__init__))
        assert attributes
        # Those are for glide's own receiving.
        for name in {*vars(owner), *attributes} - {"answer", "wishes", "arrived"}:
            assert name.startswith("_") or re.search(rf"\b{name}\b", api), f"{owner.__name__}.{name}"
    for value in (glide.Receipt, glide.Received, glide.Somebody, Paired):
        (row,) = re.findall(rf"^\| `glide[a-z.]*\.{value.__name__}` \|(.*)$", api, re.MULTILINE)
        assert not [field.name for field in dataclasses.fields(value) if f"`{field.name}`" not in row]
    for name in inspect.signature(Client.push).parameters:
        assert name == "self" or name in api, name


@pytest.mark.parametrize("name", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page(name)):
        file, _, anchor = target.partition("#")
        if file.startswith("https:"):
            continue
        path = ((ROOT / name).parent / file).resolve() if file else ROOT / name
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("name", ["README.md", "docs/people.md"])
def test_what_is_shown_of_the_settings_can_be_read(name: str, tmp_path: Path) -> None:
    for block in blocks(name, "toml"):
        (tmp_path / "config.toml").write_text(block, encoding="utf-8")
        settings = Settings({}, Home(tmp_path, tmp_path), {})
        said = settings.policy() != Policy() or settings.groups() or any(settings[key] for key in tomllib.loads(block))
        assert said, block


@pytest.mark.parametrize("block", [each for name in ("README.md", "docs/api.md") for each in blocks(name, "python")])
def test_the_python_that_is_shown_is_python(block: str) -> None:
    compile(block, "a page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_architecture_has_a_question_for_every_module() -> None:
    architecture = page("docs/architecture.md")
    missing = []
    for path in sorted((ROOT / "src/glide").glob("*/*.py")):
        one_a_verb = path.parent.name == "cli" and path.stem in verbs()
        if path.name != "__init__.py" and not one_a_verb and f"`{path.parent.name}/{path.name}`" not in architecture:
            missing.append(path.name)
    assert not missing
