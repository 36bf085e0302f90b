"""``push --strict``: to people whose keys were compared, and to nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from glide.crypto.identity import Identity, load_or_create, parse_key
from glide.people.known import Known, Trust
from tests.processes import Process, World


def knows(w: World, trust: Trust, key: bytes | None = None) -> Known:
    """Alice knows bob so well: his key, unless another one is said."""
    pins = Known(w.folder / "alice" / "known.json")
    if trust is not Trust.NEW:
        relay = parse_key(w.address.partition("#")[2])
        pins.remember(relay, "bob", key or load_or_create(w.folder / "bob" / "identity").public, trust)
    return pins


def strict(w: World, *more: str | Path, **settings: str) -> Process:
    return w.push("alice", "bob", w.file("f", 10), *more, **settings)


@pytest.mark.parametrize("trust", [Trust.NEW, Trust.SEEN, Trust.KNOWN])
@pytest.mark.parametrize("wait", [(), ("--wait", "10m")], ids=["now", "wait"])
def test_C1_whoever_is_not_verified_is_not_even_rung(w: World, trust: Trust, wait: tuple[str, ...]) -> None:
    receiver = w.receive("bob", "--accept", "all")
    pins = knows(w, trust)
    before = pins.people()
    sender = strict(w, "--strict", *wait)
    assert sender.wait() == 5, sender
    assert sender.result["status"] == "not-verified"
    assert "glide verify bob" in sender.result["message"]
    assert "glide pair bob" in sender.result["message"]
    assert not sender.told("ringing")
    assert not sender.told("waiting")
    assert pins.people() == before
    # What is pushed now is the first that bob hears of.
    assert w.push("zoe", "bob", w.file("other", 1)).wait() == 0
    assert [event["from"] for event in receiver.told("offer")] == ["zoe"]
    assert w.left("bob") == ["other"]


@pytest.mark.parametrize("wait", [(), ("--wait", "10m")], ids=["now", "wait"])
def test_C1_whoever_is_verified_gets_it(w: World, wait: tuple[str, ...]) -> None:
    if wait:
        knows(w, Trust.VERIFIED)
        sender = strict(w, "--strict", *wait)
        sender.event("waiting")
        w.receive("bob", "--accept", "all")
    else:
        w.receive("bob", "--accept", "all")
        knows(w, Trust.VERIFIED)
        sender = strict(w, "--strict")
    assert sender.wait() == 0, sender
    assert w.left("bob") == ["f"]


def test_C1_whoever_is_verified_but_has_another_key_now_gets_nothing(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    knows(w, Trust.VERIFIED, Identity.generate().public)
    sender = strict(w, "--strict")
    assert sender.wait() == 5, sender
    assert sender.result["status"] == "key-changed"
    assert not receiver.told("offer")


def test_C1_verified_under_another_name_is_not_verified_under_this(w: World) -> None:
    receiver = w.receive("bob", "--accept", "all")
    key = load_or_create(w.folder / "bob" / "identity").public
    Known(w.folder / "alice" / "known.json").remember(
        parse_key(w.address.partition("#")[2]), "robert", key, Trust.VERIFIED
    )
    sender = strict(w, "--strict")
    assert sender.wait() == 5, sender
    assert not receiver.told("offer")


@pytest.mark.parametrize("where", ["file", "environment"])
def test_C1_a_setting_makes_every_push_strict(w: World, where: str) -> None:
    w.receive("bob", "--accept", "all")
    knows(w, Trust.KNOWN)
    if where == "file":
        (w.folder / "alice" / "config.toml").write_text("strict = true\n")
        sender = strict(w)
    else:
        sender = strict(w, strict="yes")
    assert sender.wait() == 5, sender
    assert w.left("bob") == []


def test_a_push_that_is_not_strict_makes_nobody_verified(w: World) -> None:
    w.receive("bob", "--accept", "all")
    assert strict(w).wait() == 0
    assert strict(w, "--strict").wait() == 5
