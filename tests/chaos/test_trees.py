"""A tree is what its seed says, and a snapshot sees every difference that counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.trees import HIDDEN_NAMES, ODD_NAMES, Tree, sizes, snapshot

SEEDS = range(60)


def tree(seed: int) -> Tree:
    return Tree(seed, 300_000, 60)


def test_the_same_seed_gives_the_same_tree_on_disk(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        tree(7).make(tmp_path / name)
        made.append({top: snapshot(tmp_path / name / top) for top in tree(7).tops()})
    assert made[0] == made[1]
    assert tree(7).entries() != tree(8).entries()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_made_is_what_was_planned(tmp_path: Path, seed: int) -> None:
    tree(seed).make(tmp_path)
    found = {path: node for top in tree(seed).tops() for path, node in snapshot(tmp_path / top).items()}
    assert {path.name for path in tmp_path.iterdir()} == set(tree(seed).tops())
    assert found.keys() == {entry.path for entry in tree(seed).entries()}
    for entry in tree(seed).entries():
        node = found[entry.path]
        assert node.kind == ("folder" if entry.size is None else "file")
        if entry.size is not None:
            assert (node.size, node.mtime, node.executable) == (entry.size, entry.mtime, entry.executable)


def test_trees_are_as_large_as_they_should_be() -> None:
    for seed in SEEDS:
        entries = tree(seed).entries()
        assert 1 <= len(entries) <= 60
        files = [entry.size for entry in entries if entry.size is not None]
        assert 300_000 <= sum(files) <= 300_000 + 60 * 100_000
        assert max(len(entry.path.encode()) for entry in entries) < 2000


def test_between_them_trees_have_everything_odd() -> None:
    entries = [entry for seed in SEEDS for entry in Tree(seed, 300_000, 400).entries()]
    names = {entry.path.rpartition("/")[2] for entry in entries}
    assert set(ODD_NAMES + HIDDEN_NAMES) <= names
    parents = {entry.path.rpartition("/")[0] for entry in entries}
    assert any(entry.size is None and entry.path not in parents for entry in entries), "an empty folder"
    assert any(entry.size == 0 for entry in entries)
    assert any(entry.executable for entry in entries)
    assert any(entry.mtime < 0 for entry in entries)
    assert max(entry.path.count("/") for entry in entries) >= 16
    assert {len(Tree(seed, 300_000, 60).tops()) for seed in SEEDS} == {1, 2, 3}


def test_no_name_at_the_top_is_hidden() -> None:
    assert not [top for seed in SEEDS for top in tree(seed).tops() if top.startswith(".")]


CHANGES: list[Callable[[Path], object]] = [
    lambda file: file.write_bytes(b"tent"),
    lambda file: file.write_bytes(b"tex"),
    lambda file: file.unlink(),
    lambda file: file.chmod(0o755),
    lambda file: os.utime(file, ns=(0, 1)),
    lambda file: (file.parent / "new").mkdir(),
    lambda file: os.replace(file, file.parent.parent / "moved"),
    lambda file: os.symlink("/", file.parent / "link"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_snapshot_sees_a_change(tmp_path: Path, number: int) -> None:
    file = tmp_path / "top" / "folder" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"text")
    os.utime(file, ns=(0, 0))
    before = snapshot(tmp_path / "top")
    assert before.keys() == sizes(tmp_path / "top").keys() == {"top", "top/folder", "top/folder/file"}
    CHANGES[number](file)
    if number == 0:
        assert sizes(tmp_path / "top") == {"top": -1, "top/folder": -1, "top/folder/file": 4}
        os.utime(file, ns=(0, 0))
    assert snapshot(tmp_path / "top") != before
