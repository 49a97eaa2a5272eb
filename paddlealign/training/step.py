"""One optimizer step, and its twin without gradients: evaluation."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import paddle
from paddle import Tensor
from paddle.optimizer import AdamW

from paddlealign.data.example import Batch
from paddlealign.models.decoder import Decoder
from paddlealign.models.parameters import EMBEDDING, sums_over_parts
from paddlealign.parallel.collect import gather_values, sum_gradients, sum_over, sum_over_ends
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain, run_pipeline
from paddlealign.parallel.sharding import Sharding, unsharded
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.objective import Objective
from paddlealign.training.optimizer import clip_gradients
from paddlealign.training.precision import Precision
from paddlealign.training.score import hidden_shape, run_head, run_layers, score_without_gradient


@dataclass(frozen=True)
class Sums:
    """Sums over the batches of a step or of an evaluation.

    values: "loss" and the objective's metrics, each summed. count: tokens (SFT) or pairs (DPO) that they were summed over. tokens: tokens
    that are not padding. examples: dataset rows.
    """

    values: dict[str, float]
    count: int
    tokens: int
    examples: int

    def means(self) -> dict[str, float]:
        """Each sum divided by the count."""
        return {name: value / self.count for name, value in self.values.items()}


def add_up(parts: Sequence[Sums]) -> Sums:
    """Sum several ``Sums``; there must be at least one."""
    values = {name: sum(part.values[name] for part in parts) for name in parts[0].values}
    return Sums(values, sum(p.count for p in parts), sum(p.tokens for p in parts), sum(p.examples for p in parts))


def accumulate_gradients(
    policy: Decoder,
    batches: Sequence[Batch],
    objective: Objective,
    precision: Precision,
    recompute: bool,
    topology: Topology = SINGLE,
    chain: Chain = LONE_CHAIN,
    sharding: Sharding | None = None,
    draw: tuple[int, ...] = (0,),
) -> Sums:
    """Add the gradients of ``sum of losses / count of the whole step`` to the policy's parameters, one micro-batch at a time.

    The count is taken over all the batches of all processes before the first one runs, so every split of the same rows gives the same
    gradient. batches: those of this process, as many as of the others; a batch without examples (``packing.idle_batch``) stands where there
    was nothing left for it. sharding: of the policy. draw: numbers that the step's dropout is drawn
    from, where adapters have one. Returns the sums over all processes.
    """
    sharding = sharding or unsharded(topology)
    working = [batch for batch in batches if len(batch.example_ids)]
    own = sum(objective.count(batch) for batch in working)
    count = int(sum_over(topology.data, np.array(own)))
    references = [objective.reference(batch) for batch in batches]
    totals: list[dict[str, Tensor]] = []

    def forward(index: int, received: Tensor | None) -> Tensor:
        batch = batches[index]
        if policy.adapter is not None:
            policy.adapter.draw = (*draw, index * topology.data.size + topology.data.rank)  # its place among those of all processes
        with precision.autocast():
            hidden = run_layers(policy, batch, received, recompute)
            if not chain.is_last:
                return hidden
            scores = run_head(policy, batch, hidden)
            if not len(batch.example_ids):  # it computes what all compute together, and adds nothing
                return scores.token_logps.sum() * 0.0
            sums = objective.loss(scores, references[index])
        totals.append({"loss": sums.loss.detach(), **sums.metrics})
        return sums.loss / count

    def backward(index: int, output: Tensor, gradient: Tensor | None) -> None:
        precision.backward(output, gradient)
        sharding.take(policy.trained())

    run_pipeline(chain, [hidden_shape(policy, batch) for batch in batches], precision.weights_dtype, forward, backward)
    if policy.adapter is not None:
        policy.adapter.draw = None
    sharding.settle(policy.trained())
    by_positions = policy.make.positions > 1
    sum_gradients(topology.tensor, [it for name, it in policy.trained() if sums_over_parts(name, by_positions)])
    if policy.config.tie_embeddings and policy.adapter is None and sharding.owns_gradient(EMBEDDING):
        sum_over_ends(topology.pipeline, policy.embedding, policy.embedding_shape)
    return _over_ranks([_to_host(totals, working, own)] if totals else [], topology)


def apply_gradients(
    policy: Decoder,
    optimizer: AdamW,
    precision: Precision,
    learning_rate: float,
    max_grad_norm: float,
    topology: Topology = SINGLE,
    sharding: Sharding | None = None,
) -> float:
    """Clip, update the weights and clear the gradients. Returns the gradient's norm before clipping.

    Where the norm is not finite the weights stay as they are; under float16 the loss scaler also lowers its scale.
    """
    precision.unscale(optimizer, policy.parameters())
    sharding = sharding or unsharded(topology)
    norm = clip_gradients(policy.trained(), max_grad_norm, topology, apart=sharding.stage >= 2)
    optimizer.set_lr(learning_rate)
    precision.step(optimizer, math.isfinite(norm))
    for _, parameter in policy.trained():
        parameter.clear_gradient(False)  # set_to_zero: by its name it is not heeded
    sharding.share(policy.trained())
    return norm


@paddle.no_grad()
def evaluate(
    policy: Decoder,
    batches: Iterable[Batch],
    objective: Objective,
    precision: Precision,
    topology: Topology = SINGLE,
    chain: Chain = LONE_CHAIN,
) -> Sums:
    """Sum the objective over the batches of all processes without gradients; there must be at least one.

    batches: of this process, as many as of the others, some perhaps idle.
    """
    parts: list[Sums] = []
    for batch in batches:
        reference_logps = objective.reference(batch)
        scores = score_without_gradient(policy, batch, precision, chain)
        if scores is not None and len(batch.example_ids):
            with precision.autocast():
                sums = objective.loss(scores, reference_logps)
            parts.append(_to_host([{"loss": sums.loss, **sums.metrics}], [batch], objective.count(batch)))
    return _over_ranks(parts, topology)


def _over_ranks(parts: Sequence[Sums], topology: Topology) -> Sums:
    """The sums of all processes, added up in one order everywhere. Of a pipeline only the last stage has any."""
    of_pipeline = [part for of_stage in gather_values(topology.pipeline, [asdict(part) for part in parts]) for part in of_stage]
    everywhere = gather_values(topology.data, of_pipeline)
    return add_up([Sums(**part) for of_rank in everywhere for part in of_rank])


def _to_host(totals: list[dict[str, Tensor]], batches: Sequence[Batch], count: int) -> Sums:
    """Add up over the micro-batches and bring the sums to the host, all at once."""
    names = list(totals[0])
    stacked = paddle.stack([paddle.stack([part[name].reshape([]) for name in names]) for part in totals]).sum(0)
    values = {name: float(value) for name, value in zip(names, stacked.numpy(), strict=True)}
    return Sums(values, count, sum(b.token_count for b in batches), sum(len(b.example_ids) for b in batches))
