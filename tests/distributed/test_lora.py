"""Adapters under any layout train as in one process, dropout included, and their checkpoints know no layout."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.parallel.pipeline import LONE_CHAIN
from paddlealign.parallel.topology import SINGLE as ALONE
from tests.distributed.launching import run_ranks
from tests.distributed.layouts import LAYOUTS, SINGLE
from tests.distributed.ranks_lora import OBJECTIVES, SAVED_AT, STEPS, train

LIMITS = {"losses": 1e-5, "norms": 1e-5, "gradient": 1e-5, "weight": 1e-4}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("single")
    return folder, {objective: train(objective, LAYOUTS[SINGLE], ALONE, LONE_CHAIN, folder) for objective in OBJECTIVES}


def assert_near(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name, value in found.items():
        other = wanted[name][-len(value) :] if name in ("losses", "norms") else wanted[name]
        assert np.abs(value - other).max() <= LIMITS[name.split()[0]] * max(np.abs(other).max(), 1e-3), name


@pytest.mark.parametrize("layout", ["TP2, sequence parallel", "PP2", "DP2, sharding stage 3"])
def test_a_layout_trains_what_one_process_trains(single, layout: str, tmp_path: Path) -> None:
    run_ranks(Path(__file__).with_name("ranks_lora.py"), 2, layout, tmp_path, timeout=150)
    _, wanted = single
    for objective in OBJECTIVES:
        found = dict(np.load(tmp_path / f"{objective}.npz"))
        assert found.keys() == wanted[objective].keys() and len(found["losses"]) == STEPS
        assert all(np.abs(value).max() > 0 for name, value in found.items() if name.startswith("gradient"))
        assert_near(found, wanted[objective])
        resumed = train(objective, LAYOUTS[SINGLE], ALONE, LONE_CHAIN, tmp_path / "resumed", resume_from=tmp_path)
        assert len(resumed["losses"]) == STEPS - SAVED_AT
        assert_near(resumed, wanted[objective])


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(single, objective: str, tmp_path: Path) -> None:
    folder, wanted = single
    found = train(objective, LAYOUTS[SINGLE], ALONE, LONE_CHAIN, tmp_path, resume_from=folder)
    assert all(np.array_equal(value, wanted[objective][name][-len(value) :]) for name, value in found.items())
