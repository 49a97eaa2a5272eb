"""What each rank runs for test_bad_numbers.py: a run in which one rank's loss is NaN at one step.

    ranks_bad_numbers.py FOLDER

Each rank writes a line: what it did with the step. The optimizer's state and the gradients are shared out (stage 2).
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from paddlealign.machine import prepare

prepare()

import paddle

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.errors import Stopped
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import connect
from paddlealign.parallel.topology import start
from paddlealign.training.checkpoint import TrainState
from paddlealign.training.feed import Feed
from paddlealign.training.loop import fit
from paddlealign.training.objective import sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.progress import Progress
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import RunLog, read_incidents
from paddlealign.training.share import load_share
from paddlealign.training.task import Task
from tests.small_runs import FLOAT32, MODEL, examples

BAD_STEP, STEPS = 2, 3


def main() -> None:
    """The run that skips the step, then the one that stops at it."""
    folder, ranks = Path(sys.argv[1]), 2
    paddle.set_device("cpu")
    topology = start(1, 1, ranks, ranks)
    chain = connect(topology.pipeline)
    found: dict[str, Any] = {}
    for way in ("skip", "stop"):
        policy, sharding = load_share(MODEL, "float32", 96, False, topology, 2, False)
        optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-5, 0.0)
        feed = Feed(
            examples(1), pad_id=0, seed=1, max_length=64, micro_batch_size=1, accumulation=2, packing="micro_batch", epochs=9,
            max_steps=STEPS, rank=topology.data.rank, ranks=ranks,
        )  # fmt: skip
        objective, state = sft_objective(), TrainState()

        def loss(scores: Any, reference: Any, context: Any, state: TrainState = state, objective: Any = objective) -> Any:
            sums = objective.loss(scores, reference, context)
            bad = state.step + 1 == BAD_STEP and topology.data.rank == topology.data.size - 1
            return type(sums)({"tokens": {**sums.values["tokens"], "loss": sums.values["tokens"]["loss"] * (math.nan if bad else 1.0)}})

        output = folder / way
        settings = TrainingArguments(
            output_dir=str(output), logging_steps=1, learning_rate=1e-3, save_strategy="no", on_bad_numbers=way, max_steps=STEPS
        )
        if topology.is_main:
            output.mkdir()
        everywhere(topology, True)
        spoilt = dataclasses.replace(objective, loss=loss)
        task = Task(policy, optimizer, FLOAT32, spoilt, feed, objective, list, {}, topology, chain, sharding)
        log = RunLog(output if topology.is_main else None, 0)
        try:
            fit(task, settings, state, log, Progress(STEPS, 0, disable=True))
        except Stopped as stopped:
            found["code"] = stopped.code
        log.close()
        everywhere(topology, True)
        found[way] = [state.step, state.skipped]
        found["checkpoints"] = [step for step, _ in list_checkpoints(output)]
        found[f"rows {way}"] = [len(line["rows"]) for line in read_incidents(output)]
        held = [(name, it) for name, it in policy.named_parameters() if it._is_initialized()]
        found[f"finite {way}"] = all(bool(paddle.isfinite(it).all()) for _, it in held)
    sys.stderr.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
