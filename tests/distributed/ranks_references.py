"""What each rank runs for test_references.py: a table of log-probs, and steps against references that follow the policy.

    ranks_references.py LAYOUT FOLDER

The main rank writes FOLDER/<run>.npz: losses, the last reference and the table; and checkpoints.
"""

import sys
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle

from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import ALL_LINEAR, choose_targets, fill
from paddlealign.models.other_adapter import worn, zero_adapter
from paddlealign.models.parameters import LoraSettings
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import Chain, connect
from paddlealign.parallel.topology import Topology, start
from paddlealign.training import reference_cache
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.moving_reference import MovingReference, follow
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import model_reference
from paddlealign.training.reference_cache import Parts, compute_logps
from paddlealign.training.share import load_share
from paddlealign.training.step import accumulate_gradients, apply_gradients
from paddlealign.training.whole import whole_tensors
from tests.distributed.layouts import LAYOUTS, Layout
from tests.distributed.ranks_lora import values
from tests.small_runs import FLOAT32, GOLDEN, dpo_objective, examples

MODEL = "qwen2_tied"
RUNS = ("copy", "adapter")
STEPS, SAVED_AT, EVERY, SHARE, ROWS_OF_A_STEP, EXAMPLES = 6, 3, 2, 0.4, 4, 11


def table(layout: Layout, topology: Topology, chain: Chain) -> np.ndarray:
    """The table of the examples, built in parts of two rows from one of which some is known already."""
    model, _ = load_share(GOLDEN / MODEL, "float32", 99, False, topology, layout.stage, layout.sequence)
    reference_cache.ROW_TOKENS, reference_cache.PART_ROWS = 1, 2
    known = np.full((EXAMPLES, 2), np.nan, "float32")
    known[3] = -1.5
    kept: list[int] = []
    parts = Parts(known, lambda numbers, logps: kept.extend(numbers.tolist()))
    found = compute_logps(model, examples(2, EXAMPLES), 0, FLOAT32, "", False, topology, chain, parts=parts)
    assert (found[3] == -1.5).all() and sorted(kept) == ([it for it in range(EXAMPLES) if it != 3] if topology.is_main else [])
    return found


def train(
    run: str, layout: Layout, topology: Topology, chain: Chain, folder: Path, resume_from: Path | None = None
) -> dict[str, np.ndarray]:
    """Train against a moving reference, save a checkpoint at SAVED_AT, and give what the test compares."""
    settings = LoraSettings(4, 8.0, False, 0.0, choose_targets(read_config(GOLDEN / MODEL), [ALL_LINEAR], ""))
    options = (GOLDEN / MODEL, "float32", 99, False, topology, layout.stage, layout.sequence)
    policy, sharding = load_share(*options, lora=settings if run == "adapter" else None)
    if run == "adapter":
        fill(policy, lambda name: values(policy, name))
        other = zero_adapter(policy, settings, "")
        with worn(policy, other):
            fill(policy, lambda name: values(policy, name))
        moving = MovingReference(EVERY, SHARE, policy, sharding, other)
    else:
        moving = MovingReference(EVERY, SHARE, *load_share(*options))
    objective = dpo_objective(model_reference(moving.model, FLOAT32, chain, other=moving.other), 0.1, 0.0)
    # epsilon: a gradient that is rounding alone does not move a weight
    optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-4, 0.01)
    feed = Feed(
        examples(2, EXAMPLES), pad_id=0, seed=1, max_length=64, micro_batch_size=1, accumulation=ROWS_OF_A_STEP // topology.data.size,
        packing="micro_batch", epochs=1, max_steps=STEPS, rank=topology.data.rank, ranks=topology.data.size,
    )  # fmt: skip
    first = 0
    if resume_from is not None:
        first = load_checkpoint(resume_from / run / f"checkpoint-{SAVED_AT}", policy, optimizer, FLOAT32, sharding, moving).step
    losses = []
    for number, step in enumerate(feed.steps(first=first), first + 1):
        sums = accumulate_gradients(policy, step.batches, objective, FLOAT32, False, topology, chain, sharding)
        apply_gradients(policy, optimizer, FLOAT32, 1e-2, 1.0, topology, sharding)
        follow(moving, policy, number)
        losses.append(sums.means()["loss"])
        if number == SAVED_AT:
            save_checkpoint(folder / run, policy, optimizer, TrainState(step=number), {}, topology, sharding, moving)
    with moving.standing():
        return {"losses": np.array(losses)} | whole(moving, topology)


def whole(moving: MovingReference, topology: Topology) -> dict[str, np.ndarray]:
    """The whole reference."""
    model: Decoder = moving.model
    moving.sharding.leave()
    tensor_of = whole_tensors(dict(model.trained()), moving.sharding.keepers, "float32", model, topology)
    found = {name: tensor_of(name) for name in model.trained_shapes()}
    return {f"reference {name}": tensor.numpy().copy() for name, tensor in found.items() if tensor is not None}


def main() -> None:
    """Train with every kind."""
    name, folder = sys.argv[1:]
    layout = LAYOUTS[name]
    paddle.set_device("cpu")
    topology = start(layout.tensor, layout.pipeline, layout.data, layout.shards)
    chain = connect(topology.pipeline)
    for run in RUNS:
        found = train(run, layout, topology, chain, Path(folder))
        if topology.is_main:
            np.savez(Path(folder) / f"{run}.npz", **found)
    logps = table(layout, topology, chain)
    if topology.is_main:
        np.save(Path(folder) / "table.npy", logps)
    everywhere(topology, True)  # nobody leaves before the last is done


if __name__ == "__main__":
    main()
