"""What each rank runs for test_equality.py: models trained by SFT and DPO, and one for rewards, under one layout; saved midway, or resumed.

    ranks_training.py LAYOUT FOLDER RUN,RUN... [RESUME_FROM]

The main rank writes FOLDER/<model> <objective>.npz: losses, norms, evaluation, the first step's gradients and the last weights, all whole;
of SFT also what the trained model answers.
"""

import sys
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle

from paddlealign.data.example import Example
from paddlealign.data.packing import idle_batch, make_batch
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.parameters import parameter_shapes
from paddlealign.models.sampling import GenerationSettings
from paddlealign.models.score_head import initialise_score, with_score_head
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.pipeline import Chain, connect
from paddlealign.parallel.sharding import Sharding
from paddlealign.parallel.topology import Topology, start
from paddlealign.recipes.sampling import answer_together, live_forward
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.feed import Feed
from paddlealign.training.objective import Objective, reward_objective, sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import model_reference, table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.share import load_share
from paddlealign.training.step import accumulate_gradients, apply_gradients, evaluate
from paddlealign.training.whole import whole_tensors
from tests.distributed.layouts import LAYOUTS, RESPONSES, Layout
from tests.small_runs import FLOAT32, GOLDEN, dpo_objective, examples

RATE, BETA = 5e-4, 0.1
NEW_TOKENS = 8
SAVED_AT = 9  # in the middle of the third epoch
ROWS_OF_A_STEP, EXAMPLES, EPOCHS = 4, 13, 5  # the last step of an epoch leaves one of two processes without a row


def load(name: str, layout: Layout, topology: Topology, with_rewards: bool = False) -> tuple[Decoder, Sharding]:
    """A model with the vocabulary's size made odd, for rewards with a new score head."""
    config = with_score_head(read_config(GOLDEN / name), 0) if with_rewards else None
    model, sharding = load_share(GOLDEN / name, "float32", 99, False, topology, layout.stage, layout.sequence, config)
    if with_rewards and model.model.is_last:
        initialise_score(model.score, 3)
    return model, sharding


def objective_of(
    name: str, policy: Decoder, data: list[Example], model: str, layout: Layout, topology: Topology, chain: Chain
) -> Objective:
    """The objective, whose reference is the model before it is trained."""
    if name == "sft":
        return sft_objective()
    if name == "reward":
        return reward_objective(table_reference(np.linspace(0, 1, EXAMPLES, dtype="float32")), center_rewards_coefficient=0.05)
    if name == "dpo":
        return dpo_objective(table_reference(compute_logps(policy, data, 0, FLOAT32, "", False, topology, chain)), BETA, 0.1)
    reference, _ = load(model, layout, topology)
    for parameter in reference.parameters():
        parameter.stop_gradient = True
    return dpo_objective(model_reference(reference, FLOAT32, chain), BETA, 0.1)


def train(
    name: str, objective_name: str, layout: Layout, topology: Topology, chain: Chain, folder: Path, resume_from: Path | None
) -> dict[str, np.ndarray]:
    """Train one model, save a checkpoint at SAVED_AT, and give what the test compares."""
    policy, sharding = load(name, layout, topology, objective_name == "reward")
    data = examples(RESPONSES[objective_name], EXAMPLES)
    objective = objective_of(objective_name, policy, data, name, layout, topology, chain)
    # epsilon: a gradient that is rounding alone does not move a weight
    optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-5, 0.01)
    feed = Feed(
        data, pad_id=0, seed=1, max_length=64, micro_batch_size=1, accumulation=ROWS_OF_A_STEP // topology.data.size, packing="micro_batch",
        epochs=EPOCHS, max_steps=0, rank=topology.data.rank, ranks=topology.data.size,
    )  # fmt: skip
    checkpoints = folder / f"{name} {objective_name}"
    first = 0
    if resume_from is not None:
        first = load_checkpoint(
            resume_from / f"{name} {objective_name}" / f"checkpoint-{SAVED_AT}", policy, optimizer, FLOAT32, sharding
        ).step
    losses, norms, found = [], [], {}
    for number, step in enumerate(feed.steps(first=first), first + 1):
        sums = accumulate_gradients(policy, step.batches, objective, FLOAT32, number % 2 == 0, topology, chain, sharding)
        if number == 1:
            found |= whole(policy, topology, sharding, "gradient")
        norms.append(apply_gradients(policy, optimizer, FLOAT32, RATE, 1.0, topology, sharding))
        means = sums.means()
        if number == 1 and objective_name in ("dpo", "frozen"):
            means["rewards/accuracies"] = 0.0  # policy and reference are one: which margin is above zero is rounding
        losses.append(list(means.values()))
        if number == SAVED_AT:
            save_checkpoint(checkpoints, policy, optimizer, TrainState(step=number), {}, topology, sharding)
    size = topology.data.size
    turns = [range(EXAMPLES)[first + topology.data.rank : first + topology.data.rank + 1] for first in range(0, EXAMPLES, size)]
    batches = [make_batch(data, [list(mine)], 0) if mine else idle_batch(0) for mine in turns]
    found["evaluation"] = np.array(list(evaluate(policy, batches, objective, FLOAT32, topology, chain).means().values()))
    if objective_name == "sft":
        found["answers"] = answers(policy, layout, topology, chain)
    return found | {"losses": np.array(losses), "norms": np.array(norms)} | whole(policy, topology, sharding, "weight")


def answers(policy: Decoder, layout: Layout, topology: Topology, chain: Chain) -> np.ndarray:
    """What the policy answers in the middle of its training: int64 [prompts, NEW_TOKENS], by draws that a wrong logit would change."""
    together = layout.stage == 3
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS, do_sample=True, temperature=1.5, seed=3)
    prompts = [[5, 6, 7, 8, 9], [10], [11, 12, 13], [14, 15], [16, 17, 18]]  # of four processes one has two, and rows end as one
    forward = live_forward(FLOAT32, topology, chain, together)
    return np.array(answer_together(policy, prompts, settings, 2, topology, forward, together))


def whole(policy: Decoder, topology: Topology, sharding: Sharding, what: str) -> dict[str, np.ndarray]:
    """All parameters, or their gradients, of the whole model."""
    held = {name: it if what == "weight" else it.grad for name, it in policy.named_parameters()}
    keepers = sharding.keepers if what == "weight" else sharding.owners if sharding.stage >= 2 else {}
    tensor_of = whole_tensors(held, keepers, "float32", policy, topology)
    found = {f"{what} {name}": tensor_of(name) for name in parameter_shapes(policy.config)}
    return {name: tensor.numpy().copy() for name, tensor in found.items() if tensor is not None}


def main() -> None:
    """Train the models by the methods that are asked for."""
    name, folder, runs, *resume_from = sys.argv[1:]
    layout = LAYOUTS[name]
    paddle.set_device("cpu")
    topology = start(layout.tensor, layout.pipeline, layout.data, layout.shards)
    chain = connect(topology.pipeline)
    for run in runs.split(","):
        name, objective = run.split()
        found = train(name, objective, layout, topology, chain, Path(folder), Path(resume_from[0]) if resume_from else None)
        if topology.is_main:
            np.savez(Path(folder) / f"{run}.npz", **found)
    everywhere(topology, True)  # nobody leaves before the last is done


if __name__ == "__main__":
    main()
