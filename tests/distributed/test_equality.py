"""Any layout trains what one process trains: 20 steps of SFT and DPO on real ranks, and checkpoints that know no layout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.launching import run_ranks
from tests.distributed.ranks_training import MODELS, OBJECTIVES, SAVED_AT

SCRIPT = Path(__file__).with_name("ranks_training.py")
RUNS = [f"{name} {objective}" for name in MODELS for objective in OBJECTIVES]
LAYOUTS = {"TP2": (2, 1, 1), "PP2": (1, 2, 1), "DP2": (1, 1, 2), "TP2xPP2": (2, 2, 1), "TP2xDP2": (2, 1, 2)}  # tensor, pipeline, data
SINGLE = (1, 1, 1)
Results = dict[str, dict[str, np.ndarray]]


def train(layout: tuple[int, int, int], folder: Path, resume_from: Path | None = None) -> Results:
    folder.mkdir(parents=True)
    words = [*layout, folder, *([] if resume_from is None else [resume_from])]
    if layout == SINGLE:
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
        subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], check=True, timeout=240, env=environment)
    else:
        run_ranks(SCRIPT, int(np.prod(layout)), *words, timeout=240)
    return {run: dict(np.load(folder / f"{run}.npz")) for run in RUNS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("equality")


@pytest.fixture(scope="module")
def single(folder: Path) -> Results:
    return train(SINGLE, folder / "single")


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Results]:
    return request.param, train(LAYOUTS[request.param], folder / request.param)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], steps: slice = slice(None)) -> None:
    """Losses, metrics and first gradients to 1e-5, norms to 3e-5, the last weights to 1e-4, each relative to the largest of its kind."""
    limits = {"losses": 1e-5, "norms": 3e-5, "evaluation": 1e-5, "gradient": 1e-5, "weight": 1e-4}
    for name in found:
        theirs = expected[name][steps] if name in ("losses", "norms") else expected[name]
        # Metrics stand in columns: each is held to its own size, a margin or a reward to that of a nat at least.
        scale = np.maximum(np.abs(theirs).max(axis=0), 1.0) if name in ("losses", "evaluation") else np.abs(theirs).max()
        error = float((np.abs(found[name] - theirs) / scale).max())
        assert error <= limits[name.split()[0]], f"{name}: {error:.1e}"


@pytest.mark.parametrize("run", RUNS)
def test_a_layout_trains_what_one_process_trains(layout: tuple[str, Results], single: Results, run: str) -> None:
    assert len(single[run]["losses"]) == 20
    assert layout[1][run].keys() == single[run].keys()
    assert_same(layout[1][run], single[run])


def test_training_changed_something(single: Results) -> None:
    for run in RUNS:
        losses = single[run]["losses"][:, 0]
        assert losses[-4:].mean() < losses[:4].mean() - 0.05, run
        assert all(np.abs(array).max() > 0 for name, array in single[run].items() if name.startswith("gradient")), run


@pytest.mark.parametrize(("saved_by", "goes_on"), [("TP2xPP2", SINGLE), ("TP2xPP2", (1, 1, 2)), ("DP2", (2, 1, 1)), ("PP2", (1, 2, 1))])
def test_a_checkpoint_knows_no_layout(
    folder: Path, single: Results, saved_by: str, goes_on: tuple[int, int, int], request: pytest.FixtureRequest
) -> None:
    """Saved in the middle of an epoch under one layout, resumed under another; under the same one it is the same bit for bit."""
    if not (folder / saved_by).exists():
        train(LAYOUTS[saved_by], folder / saved_by)
    found = train(goes_on, folder / f"{saved_by} to {goes_on}", resume_from=folder / saved_by)
    for run in RUNS:
        assert len(found[run]["losses"]) == 20 - SAVED_AT
        assert_same(found[run], single[run], slice(SAVED_AT, None))
        if LAYOUTS[saved_by] == goes_on:
            straight = np.load(folder / saved_by / f"{run}.npz")
            assert all(np.array_equal(array, straight[name][-len(array) :]) for name, array in found[run].items())


DISAGREEING = """
import sys
from paddlealign.errors import UserError
from paddlealign.parallel.collect import agree
from paddlealign.parallel.topology import start
import paddle
paddle.set_device("cpu")
topology = start(1, 1, 2)
agree(topology, {"seed": "1", "rows": "same"})
one, other = {"seed": "1"}, {"seed": "1", "dev files": "x"}
for told in ({"seed": str(topology.rank)}, [one, other][topology.rank], [{"seed": "1", "q": "y"}, one][topology.rank]):
    try:
        agree(topology, told)
    except UserError as error:
        print(error)
"""


def test_processes_that_were_told_different_things_are_refused_by_name() -> None:
    for wrote in run_ranks(DISAGREEING, 2):
        assert "process 1 was started with another seed than process 0: 1, not 0." in wrote
        assert "another dev files than process 0: x, not None." in wrote
        assert "another q than process 0: None, not y." in wrote
