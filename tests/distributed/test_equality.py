"""Any layout trains what one process trains: 20 steps of SFT, DPO and a reward model on real ranks, and checkpoints that know no layout."""

from pathlib import Path

import numpy as np
import pytest

from scripts.parallel_page import LIMITS, ROOT, RUNS, Figures, Run, difference, faults, largest, read_table, train
from tests.distributed import layouts
from tests.distributed.layouts import LAYOUTS, SINGLE, some_runs
from tests.distributed.ranks_training import SAVED_AT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("equality")


@pytest.fixture(scope="module")
def single(folder: Path) -> dict[str, Run]:
    return train(SINGLE, folder / SINGLE)


def runs_of(layout: str) -> list[str]:
    """The runs that the layout is held to one process by: four of the ten, each model and each method among them."""
    return [f"{model} {method}" for model, method in some_runs(layout)]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != SINGLE])
def test_a_layout_trains_what_one_process_trains_as_the_page_says(folder: Path, single: dict[str, Run], layout: str) -> None:
    found = train(layout, folder / layout, runs_of(layout))
    for run in found:
        assert len(found[run]["losses"]) == 20
        assert found[run].keys() == single[run].keys()
        assert np.array_equal(found[run].get("answers"), single[run].get("answers")), run
    figures = largest([difference(found[run], single[run]) for run in found])
    assert not faults(layout, figures, read_table((ROOT / "docs" / "parallel.md").read_text("utf-8")))


def test_the_layouts_together_train_every_model_by_every_method() -> None:
    """Of those with a degree in common, too: a model's layers are cut by tensor, rows by data, and its chain by pipeline."""
    for degree in ("tensor", "pipeline", "data"):
        names = [name for name, layout in LAYOUTS.items() if getattr(layout, degree) > 1]
        assert {run for name in names for run in some_runs(name)} == set(layouts.RUNS), degree
    for name in LAYOUTS.keys() - {SINGLE}:
        models, methods = zip(*some_runs(name), strict=True)
        assert set(models) == set(layouts.MODELS) and set(methods) == set(layouts.RESPONSES), name


def test_training_changed_something(single: dict[str, Run]) -> None:
    answers = [single[run]["answers"] for run in RUNS if "answers" in single[run]]
    assert len(answers) == 3 and all(len(np.unique(it)) > 20 for it in answers)
    for run in RUNS:
        losses = single[run]["losses"][:, 0]
        assert losses[-4:].mean() < losses[:4].mean() - 0.05, run
        assert all(np.abs(array).max() > 0 for name, array in single[run].items() if name.startswith("gradient")), run


@pytest.mark.parametrize("kind", Figures._fields)
def test_a_difference_is_seen(single: dict[str, Run], kind: str) -> None:
    run = single[RUNS[0]]
    name = next(name for name in run if name.startswith(kind.removesuffix("s")))
    other = {**run, name: run[name] + np.abs(run[name]).max() * 2 * getattr(LIMITS, kind)}
    assert getattr(difference(other, run), kind) > getattr(LIMITS, kind)
    assert len(faults("TP2", difference(other, run), {"TP2": LIMITS})) == 1


@pytest.mark.parametrize(
    ("saved_by", "goes_on"),
    [
        ("TP2 x PP2, sequence parallel", SINGLE),
        ("TP2 x PP2, sequence parallel", "DP2, sharding stage 1"),
        ("DP2, sharding stage 3", "TP2"),
        ("DP2, sharding stage 3", "DP2, sharding stage 3"),
        ("PP2", "PP2"),
    ],
)
def test_a_checkpoint_knows_no_layout(folder: Path, single: dict[str, Run], saved_by: str, goes_on: str) -> None:
    """Saved in the middle of an epoch under one layout, resumed under another; under the same one it is the same bit for bit."""
    if not (folder / saved_by).exists():
        train(saved_by, folder / saved_by, runs_of(saved_by))
    found = train(goes_on, folder / f"{saved_by} to {goes_on}", runs_of(saved_by), resume_from=folder / saved_by)
    for run in found:
        assert len(found[run]["losses"]) == 20 - SAVED_AT
        assert all(value <= limit for value, limit in zip(difference(found[run], single[run], slice(SAVED_AT, None)), LIMITS, strict=True))
        if saved_by == goes_on:
            straight = np.load(folder / saved_by / f"{run}.npz")
            assert all(np.array_equal(array, straight[name][-len(array) :]) for name, array in found[run].items())
