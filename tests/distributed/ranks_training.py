"""What each rank runs for test_equality.py: some models trained by SFT and DPO under one layout, saved midway, or resumed from there.

    ranks_training.py TENSOR PIPELINE DATA FOLDER [RESUME_FROM]

The main rank writes FOLDER/<model> <objective>.npz: losses, norms, evaluation, the first step's gradients and the last weights, all whole.
"""

import sys
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle

from paddlealign.data.packing import make_batch
from paddlealign.models.makers import WHOLE_LAYERS, TensorLayers
from paddlealign.models.parameters import parameter_shapes
from paddlealign.models.weights import load_model
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import Chain, connect
from paddlealign.parallel.tensor import tensor_makers
from paddlealign.parallel.topology import Topology, start
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.objective import dpo_objective, sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import compute_logps, table_reference
from paddlealign.training.step import accumulate_gradients, apply_gradients, evaluate
from paddlealign.training.whole import whole_tensors
from tests.small_runs import FLOAT32, GOLDEN, examples

MODELS = ("llama2_gqa", "qwen2_tied", "qwen3")
OBJECTIVES = {"sft": 1, "dpo": 2}  # responses of an example
SAVED_AT = 9  # in the middle of the third epoch
ROWS_OF_A_STEP, EXAMPLES, EPOCHS = 4, 13, 5  # the last step of an epoch leaves one of two processes without a row


def train(
    name: str, objective_name: str, topology: Topology, chain: Chain, folder: Path, resume_from: Path | None
) -> dict[str, np.ndarray]:
    """Train one model, save a checkpoint at SAVED_AT, and give what the test compares."""
    make = TensorLayers(*tensor_makers(topology.tensor)) if topology.tensor.size > 1 else WHOLE_LAYERS
    policy = load_model(GOLDEN / name, "float32", 99, False, make, (topology.pipeline.size, topology.pipeline.rank))
    data = examples(OBJECTIVES[objective_name], EXAMPLES)
    objective = sft_objective()
    if objective_name == "dpo":
        table = compute_logps(policy, data, 0, FLOAT32, "", False, topology, chain)
        objective = dpo_objective(table_reference(table), beta=0.5, label_smoothing=0.1)
    optimizer = make_optimizer(policy, 0.9, 0.99, 1e-6, 0.01)
    feed = Feed(
        data, pad_id=0, seed=1, max_length=64, micro_batch_size=1, accumulation=ROWS_OF_A_STEP // topology.data.size, packing="micro_batch",
        epochs=EPOCHS, max_steps=0, rank=topology.data.rank, ranks=topology.data.size,
    )  # fmt: skip
    checkpoints = folder / f"{name} {objective_name}"
    first = 0
    if resume_from is not None:
        first = load_checkpoint(resume_from / f"{name} {objective_name}" / f"checkpoint-{SAVED_AT}", policy, optimizer, FLOAT32).step
    losses, norms, found = [], [], {}
    for number, step in enumerate(feed.steps(first=first), first + 1):
        sums = accumulate_gradients(policy, step.batches, objective, FLOAT32, number % 2 == 0, topology, chain)
        if number == 1:
            found |= whole(policy, topology, "gradient")
        norms.append(apply_gradients(policy, optimizer, FLOAT32, 1e-3, 1.0, topology))
        means = sums.means()
        if number == 1 and objective_name == "dpo":
            means["rewards/accuracies"] = 0.0  # policy and reference are one: which margin is above zero is rounding
        losses.append(list(means.values()))
        if number == SAVED_AT:
            save_checkpoint(checkpoints, policy, optimizer, TrainState(step=number), {}, topology)
    batches = [make_batch(data, [[index]], 0) for index in range(topology.data.rank, EXAMPLES, topology.data.size)]
    found["evaluation"] = np.array(list(evaluate(policy, batches, objective, FLOAT32, topology, chain).means().values()))
    return found | {"losses": np.array(losses), "norms": np.array(norms)} | whole(policy, topology, "weight")


def whole(policy: paddle.nn.Layer, topology: Topology, what: str) -> dict[str, np.ndarray]:
    """All parameters, or their gradients, of the whole model."""
    held = {name: it if what == "weight" else it.grad for name, it in policy.named_parameters()}
    tensor_of = whole_tensors(held, "float32", policy, topology)
    return {f"{what} {name}": tensor_of(name).numpy().copy() for name in parameter_shapes(policy.config)}


def main() -> None:
    """Train every model with every objective."""
    tensor, pipeline, data, folder, *resume_from = sys.argv[1:]
    paddle.set_device("cpu")
    topology = start(int(tensor), int(pipeline), int(data))
    chain = connect(topology.pipeline)
    for name in MODELS:
        for objective in OBJECTIVES:
            found = train(name, objective, topology, chain, Path(folder), Path(resume_from[0]) if resume_from else None)
            if topology.is_main:
                np.savez(Path(folder) / f"{name} {objective}.npz", **found)
    everywhere(topology, True)  # nobody leaves before the last is done


if __name__ == "__main__":
    main()
