"""Whole runs beside TRL's: the same weights, rows and settings give the same losses and gradient norms for 30 steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.data.example import Example, Response
from paddlealign.models.weights import load_model
from paddlealign.objectives.pairs import Coefficients
from paddlealign.training.checkpoint import TrainState
from paddlealign.training.feed import Feed
from paddlealign.training.loop import fit
from paddlealign.training.objective import Objective, preference_objective, sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.progress import Progress
from paddlealign.training.reference import table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.run_log import RunLog, read_metrics
from paddlealign.training.task import Task
from tests.small_runs import FLOAT32, MODEL

GOLDEN = json.loads((Path(__file__).parent / "golden" / "curves.json").read_text("utf-8"))


def examples(sides: tuple[str, ...]) -> list[Example]:
    """The golden rows with these responses."""

    def ids(row: dict[str, list[int]], name: str) -> np.ndarray:
        return np.array(row[f"{name}_ids"], "int32")

    def response(row: dict[str, list[int]], side: str) -> Response:
        return Response(ids(row, side), np.ones(len(row[f"{side}_ids"]), bool))

    return [Example(ids(row, "prompt"), tuple(response(row, side) for side in sides)) for row in GOLDEN["rows"]]


def train(data: list[Example], objective: Objective, folder: Path) -> list[dict[str, Any]]:
    """The run that scripts/golden/curves.py describes, through the training loop. Returns its log."""
    keys = GOLDEN["settings"]
    policy = load_model(MODEL, "float32")
    feed = Feed(
        data, pad_id=0, seed=5, max_length=64, micro_batch_size=2, accumulation=2, packing="micro_batch", epochs=1, max_steps=30
    )  # fmt: skip
    fed = [[int(index) for batch in step.batches for index in batch.example_ids] for step in feed.steps(first=0)]
    assert list(map(sorted, fed)) == list(map(sorted, GOLDEN["order"]))
    optimizer = make_optimizer(list(policy.named_parameters()), 0.9, keys["adam_beta2"], 1e-8, keys["weight_decay"])
    settings = TrainingArguments(
        output_dir=str(folder), logging_steps=1, save_strategy="no", learning_rate=keys["learning_rate"], warmup_steps=keys["warmup_steps"],
        max_grad_norm=keys["max_grad_norm"],
    )  # fmt: skip
    log = RunLog(folder, 0)
    fit(Task(policy, optimizer, FLOAT32, objective, feed, objective, list, {}), settings, TrainState(), log, Progress(30, 0, disable=True))
    log.close()
    return read_metrics(folder)


@pytest.mark.parametrize("name", GOLDEN["curves"])
def test_thirty_steps_follow_trl(name: str, tmp_path: Path):
    if name == "sft":
        data, objective = examples(("chosen",)), sft_objective()
    else:
        data = examples(("chosen", "rejected"))
        table = compute_logps(load_model(MODEL, "float32"), data, 0, FLOAT32, "", False)
        objective = preference_objective(table_reference(table), {name: 1.0}, Coefficients(**GOLDEN["losses"][name]))
    lines = train(data, objective, tmp_path)
    assert len(lines) == 30
    for key in ("loss", "grad_norm", "learning_rate"):
        found, wanted = (np.array([line[key] for line in curve]) for curve in (lines, GOLDEN["curves"][name]))
        assert (np.abs(found - wanted) <= 1e-4 * wanted + 1e-9).all(), f"{key}: {np.abs(found / wanted - 1).max():.1e}"
    assert min(line["loss"] for line in lines) < 0.8 * lines[0]["loss"]  # it did train
