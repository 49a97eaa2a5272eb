"""What each rank runs for test_whole_step.py: a few steps of the losses that look at all rows of a step, under one layout.

    ranks_whole_step.py PIPELINE DATA FOLDER

The main rank writes FOLDER/<objective>.npz: losses, norms and the evaluation.
"""

import sys
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle

from paddlealign.data.packing import idle_batch, make_batch
from paddlealign.objectives.pairs import Coefficients
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import Chain, connect
from paddlealign.parallel.topology import Topology, start
from paddlealign.training.feed import Feed
from paddlealign.training.objective import Objective, Reference, kto_objective, preference_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import model_reference, table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.share import load_share
from paddlealign.training.step import accumulate_gradients, apply_gradients, evaluate
from tests.small_runs import FLOAT32, MODEL, examples

ROWS_OF_A_STEP, EXAMPLES, STEPS = 4, 9, 6  # the last step of an epoch leaves one of two processes without a row
MIXTURE = {"aot_unpaired": 0.5, "aot": 0.3, "kto_pair": 1.0, "bco_pair": 0.5, "sft": 0.2}
LABELS = np.arange(EXAMPLES) % 3 != 0
LD_ALPHA = 0.5


def objective_of(name: str, frozen: Reference, cached: Reference) -> Objective:
    """One of the objectives. frozen: a reference that is asked for each batch; cached: one that was asked before."""
    if name == "kto":
        return kto_objective(frozen, LABELS, 0.5, 1.0, 1.5)
    return preference_objective(cached, MIXTURE, Coefficients(beta=0.5), LD_ALPHA)


def train(name: str, topology: Topology, chain: Chain) -> dict[str, np.ndarray]:
    """Losses and metrics of every step, gradient norms, and the evaluation after them."""
    policy, sharding = load_share(MODEL, "float32", 96, False, topology, 0, False)
    reference, _ = load_share(MODEL, "float32", 96, False, topology, 0, False)
    data = examples(2, EXAMPLES)
    table = compute_logps(reference, data, 0, FLOAT32, "", False, topology, chain, LD_ALPHA)
    objective = objective_of(name, model_reference(reference, FLOAT32, chain), table_reference(table))
    optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-5, 0.0)
    size = topology.data.size
    feed = Feed(
        data, pad_id=0, seed=1, max_length=64, micro_batch_size=1, accumulation=ROWS_OF_A_STEP // size, packing="micro_batch", epochs=1,
        max_steps=STEPS, rank=topology.data.rank, ranks=size,
    )  # fmt: skip
    losses, norms = [], []
    for step in feed.steps(first=0):
        means = accumulate_gradients(policy, step.batches, objective, FLOAT32, False, topology, chain, sharding).means()
        losses.append([means["loss"], means.get("logps/chosen", 0.0)])
        norms.append(apply_gradients(policy, optimizer, FLOAT32, 1e-3, 1.0, topology, sharding))
    turns = [range(EXAMPLES)[first + topology.data.rank : first + topology.data.rank + 1] for first in range(0, EXAMPLES, size)]
    batches = [make_batch(data, [list(mine)], 0) if mine else idle_batch(0) for mine in turns]
    evaluated = evaluate(policy, batches, objective, FLOAT32, topology, chain).means()
    return {"losses": np.array(losses), "norms": np.array(norms), "evaluation": np.array([evaluated[key] for key in sorted(evaluated)])}


def main() -> None:
    """Train with either objective."""
    pipeline, data, folder = sys.argv[1:]
    paddle.set_device("cpu")
    topology = start(1, int(pipeline), int(data), 1)
    chain = connect(topology.pipeline)
    for name in ("mixture", "kto"):
        found = train(name, topology, chain)
        if topology.is_main:
            np.savez(Path(folder) / f"{name}.npz", **found)
    everywhere(topology, True)  # nobody leaves before the last is done


if __name__ == "__main__":
    main()
