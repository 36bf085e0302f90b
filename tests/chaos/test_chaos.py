"""Whatever dies, stops or is cut, and whenever: no wrong byte, nothing left over, no hang, and all of it arrives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import schedule

SEED = os.environ.get("GLIDE_CHAOS_SEED")
SEEDS = [int(SEED)] if SEED else range(int(os.environ.get("GLIDE_CHAOS_COUNT") or 200))

# Chosen: between them every victim; kills, stops and cuts; and a receipt that may be lost.
BRIEF = (13, 15, 21, 31, 35)


@pytest.mark.parametrize("seed", BRIEF, ids=lambda seed: f"brief-{seed}")
def test_a_transfer_survives_what_goes_wrong(tmp_path: Path, seed: int) -> None:
    run(schedule(seed, brief=True), tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(150)
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_a_transfer_survives_whatever_goes_wrong(tmp_path: Path, seed: int) -> None:
    run(schedule(seed), tmp_path)
