"""References under any layout: tables with the numbers of one process, and moving references that move as in one."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.parallel.pipeline import LONE_CHAIN
from paddlealign.parallel.topology import SINGLE as ALONE
from tests.distributed.launching import run_ranks
from tests.distributed.layouts import LAYOUTS, SINGLE
from tests.distributed.ranks_references import RUNS, SAVED_AT, STEPS, table, train

LIMITS = {"losses": 1e-5, "reference": 1e-4}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("single")
    return folder, {run: train(run, LAYOUTS[SINGLE], ALONE, LONE_CHAIN, folder) for run in RUNS}


def assert_near(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        other = wanted[name][-len(value) :] if name == "losses" else wanted[name]
        assert np.abs(value - other).max() <= LIMITS[name.split()[0]] * max(np.abs(other).max(), 1e-3), name


@pytest.mark.parametrize("layout", ["TP2, sequence parallel", "PP2", "DP2, sharding stage 3"])
def test_a_layout_is_held_against_what_one_process_is(single, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddlealign.training.reference_cache.ROW_TOKENS", 1)
    monkeypatch.setattr("paddlealign.training.reference_cache.PART_ROWS", 2)
    run_ranks(Path(__file__).with_name("ranks_references.py"), 2, layout, tmp_path, timeout=150)
    _, wanted = single
    for run in RUNS:
        found = dict(np.load(tmp_path / f"{run}.npz"))
        assert len(found["losses"]) == STEPS
        assert_near(found, wanted[run])
        resumed = train(run, LAYOUTS[SINGLE], ALONE, LONE_CHAIN, tmp_path / "resumed", resume_from=tmp_path)
        assert len(resumed["losses"]) == STEPS - SAVED_AT
        assert_near(resumed, wanted[run])
    logps, alone = np.load(tmp_path / "table.npy"), table(LAYOUTS[SINGLE], ALONE, LONE_CHAIN)
    if layout.startswith("DP"):  # each row is one process's alone
        assert np.array_equal(logps, alone)
    np.testing.assert_allclose(logps, alone, rtol=1e-5)


@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(single, run: str, tmp_path: Path) -> None:
    folder, wanted = single
    found = train(run, LAYOUTS[SINGLE], ALONE, LONE_CHAIN, tmp_path, resume_from=folder)
    assert all(np.array_equal(value, wanted[run][name][-len(value) :]) for name, value in found.items())
