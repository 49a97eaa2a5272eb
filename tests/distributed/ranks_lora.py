"""What each rank runs for test_lora.py: a few steps on adapters with dropout, under one layout.

    ranks_lora.py LAYOUT FOLDER

The main rank writes FOLDER/<objective>.npz: losses, norms, the first step's gradients and the last adapter, all whole; and a checkpoint.
"""

import sys
import zlib
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle

from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import ALL_LINEAR, choose_targets, fill
from paddlealign.models.other_adapter import NO_ADAPTER
from paddlealign.models.parameters import SCORE, LoraSettings
from paddlealign.models.score_head import with_score_head
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import Chain, connect
from paddlealign.parallel.sharding import Sharding
from paddlealign.parallel.topology import Topology, start
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.objective import reward_objective, sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import model_reference, table_reference
from paddlealign.training.share import load_share
from paddlealign.training.step import accumulate_gradients, apply_gradients
from paddlealign.training.whole import whole_tensors
from tests.distributed.layouts import LAYOUTS, Layout
from tests.small_runs import FLOAT32, GOLDEN, dpo_objective, examples

MODEL = "qwen2_tied"
OBJECTIVES = {"sft": 1, "dpo": 2, "reward": 2}  # responses of an example
STEPS, SAVED_AT, ROWS_OF_A_STEP, EXAMPLES = 5, 3, 4, 11  # the last step of an epoch leaves one of two processes without a row


def settings(config: DecoderConfig) -> LoraSettings:
    return LoraSettings(4, 8.0, False, 0.2, choose_targets(config, [ALL_LINEAR], ""), (SCORE,) if config.head == "score" else ())


def values(model: Decoder, name: str) -> np.ndarray:
    """Neither matrix is zero, so that both have a gradient in the first step."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.1, model.trained_shapes()[name]).astype("float32")


def train(
    objective_name: str, layout: Layout, topology: Topology, chain: Chain, folder: Path, resume_from: Path | None = None
) -> dict[str, np.ndarray]:
    """Train one adapter, save a checkpoint at SAVED_AT, and give what the test compares."""
    config = read_config(GOLDEN / MODEL)
    if objective_name == "reward":
        config = with_score_head(config)
    lora = settings(config)
    policy, sharding = load_share(GOLDEN / MODEL, "float32", 99, False, topology, layout.stage, layout.sequence, config, lora)
    fill(policy, lambda name: values(policy, name))
    data = examples(OBJECTIVES[objective_name], EXAMPLES)
    objective = sft_objective()
    if objective_name == "dpo":
        objective = dpo_objective(model_reference(policy, FLOAT32, chain, other=NO_ADAPTER), 0.1, 0.0)
    elif objective_name == "reward":
        objective = reward_objective(table_reference(np.linspace(0, 1, EXAMPLES, dtype="float32")), 0.05)
    # epsilon: a gradient that is rounding alone does not move a weight
    optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-5, 0.01, lora_plus_scale=4.0)
    feed = Feed(
        data, pad_id=0, seed=1, max_length=64, micro_batch_size=1, accumulation=ROWS_OF_A_STEP // topology.data.size, packing="micro_batch",
        epochs=1, max_steps=STEPS, rank=topology.data.rank, ranks=topology.data.size,
    )  # fmt: skip
    first = 0
    if resume_from is not None:
        first = load_checkpoint(resume_from / objective_name / f"checkpoint-{SAVED_AT}", policy, optimizer, FLOAT32, sharding).step
    frozen = {name: it.numpy().copy() for name, it in policy.named_parameters() if it.stop_gradient and it._is_initialized()}
    losses, norms, found = [], [], {}
    for number, step in enumerate(feed.steps(first=first), first + 1):
        sums = accumulate_gradients(
            policy, step.batches, objective, FLOAT32, number % 2 == 0, topology, chain, sharding, draw=(7, number)
        )  # fmt: skip
        if number == 1:
            found |= whole(policy, topology, sharding, "gradient")
        norms.append(apply_gradients(policy, optimizer, FLOAT32, 1e-2, 1.0, topology, sharding))
        losses.append(list(sums.means().values()))
        if number == SAVED_AT:
            save_checkpoint(folder / objective_name, policy, optimizer, TrainState(step=number), {}, topology, sharding)
    held = dict(policy.named_parameters())
    assert all(np.array_equal(held[name].numpy(), value) for name, value in frozen.items() if held[name]._is_initialized())
    return found | {"losses": np.array(losses), "norms": np.array(norms)} | whole(policy, topology, sharding, "weight")


def whole(policy: Decoder, topology: Topology, sharding: Sharding, what: str) -> dict[str, np.ndarray]:
    """The whole adapter, or its gradients."""
    held = {name: it if what == "weight" else it.grad for name, it in policy.trained()}
    keepers = sharding.keepers if what == "weight" else sharding.owners if sharding.stage >= 2 else {}
    tensor_of = whole_tensors(held, keepers, "float32", policy, topology)
    found = {f"{what} {name}": tensor_of(name) for name in policy.trained_shapes()}
    return {name: tensor.numpy().copy() for name, tensor in found.items() if tensor is not None}


def main() -> None:
    """Train with every objective."""
    name, folder = sys.argv[1:]
    layout = LAYOUTS[name]
    paddle.set_device("cpu")
    topology = start(layout.tensor, layout.pipeline, layout.data, layout.shards)
    chain = connect(topology.pipeline)
    for objective in OBJECTIVES:
        found = train(objective, layout, topology, chain, Path(folder))
        if topology.is_main:
            np.savez(Path(folder) / f"{objective}.npz", **found)
    everywhere(topology, True)  # nobody leaves before the last is done


if __name__ == "__main__":
    main()
