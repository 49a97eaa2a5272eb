"""One optimizer step, and its twin without gradients: evaluation."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.optimizer import AdamW

from paddlealign.data.example import Batch
from paddlealign.models.decoder import Decoder
from paddlealign.models.parameters import EMBEDDING, sums_over_parts
from paddlealign.objectives.result import ObjectiveSums
from paddlealign.parallel.collect import gather_values, sum_gradients, sum_over, sum_over_ends
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain, run_pipeline
from paddlealign.parallel.sharding import Sharding, unsharded
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.objective import Objective
from paddlealign.training.optimizer import clip_gradients
from paddlealign.training.precision import Precision
from paddlealign.training.score import Scores, hidden_shape, run_head, run_layers, score_without_gradient
from paddlealign.training.whole_step import step_contexts


@dataclass(frozen=True)
class Sums:
    """Sums over the batches of a step or of an evaluation.

    values: by what they were summed over ("tokens", "pairs", ...): "loss" and the objective's metrics. counts: how many these were. tokens:
    tokens that are not padding. examples: dataset rows. padding: positions that hold no token.
    """

    values: dict[str, dict[str, float]]
    counts: dict[str, int]
    tokens: int
    examples: int
    padding: int = 0  # a checkpoint of an earlier version has none

    def means(self) -> dict[str, float]:
        """Each sum divided by its count; what has parts over several counts, the parts' sum. Where a count is 0 the value is left out."""
        nothing = {name for per, values in self.values.items() if not self.counts[per] for name in values}
        found: dict[str, float] = {}
        for per, values in self.values.items():
            for name in values.keys() - nothing:
                found[name] = found.get(name, 0.0) + values[name] / self.counts[per]
        return {name: found[name] for values in self.values.values() for name in values if name in found}


def add_up(parts: Sequence[Sums]) -> Sums:
    """Sum several ``Sums``; there must be at least one."""
    first = parts[0]
    values = {per: {name: sum(part.values[per][name] for part in parts) for name in first.values[per]} for per in first.values}
    counts = {per: sum(part.counts[per] for part in parts) for per in first.counts}
    return Sums(values, counts, sum(p.tokens for p in parts), sum(p.examples for p in parts), sum(p.padding for p in parts))


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

    The counts are taken over all the batches of all processes before the first one runs, so every split of the same rows gives the same
    gradient. batches: those of this process, as many as of the others; a batch without examples (``packing.idle_batch``) stands where there
    was nothing left for it. sharding: of the policy. draw: numbers that the step's dropout is drawn
    from, where adapters have one. Returns the sums over all processes.
    """
    sharding = sharding or unsharded(topology)
    working = [batch for batch in batches if len(batch.example_ids)]
    own = count_over(objective, working)
    counts = dict(zip(own, sum_over(topology.data, np.array(list(own.values()))).astype(int).tolist(), strict=True))
    references = [objective.reference(batch) for batch in batches]
    before = [score_without_gradient(policy, batch, precision, chain) for batch in batches] if objective.whole_step else []
    contexts = step_contexts(objective, batches, references, before, topology)
    totals: list[ObjectiveSums] = []

    def forward(index: int, received: Tensor | None) -> Tensor:
        batch = batches[index]
        if policy.adapter is not None:
            policy.adapter.draw = (*draw, index * topology.data.size + topology.data.rank)  # its place among those of all processes
        with precision.autocast():
            hidden = run_layers(policy, batch, received, recompute)
            if not chain.is_last:
                return hidden
            scores = run_head(policy, batch, hidden, objective.collisions)
            if not len(batch.example_ids):  # it computes what all compute together, and adds nothing
                return (scores.token_logps.sum() + scores.rewards.sum()) * 0.0
            sums = objective.loss(scores, references[index], contexts[index])
        totals.append(sums.detach())
        return sums.loss(counts)

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
    finite_loss: bool = True,
) -> float:
    """Clip, update the weights and clear the gradients. Returns the gradient's norm before clipping.

    Where the norm or the loss is not finite the weights stay as they are; under float16 the loss scaler also lowers its scale.
    """
    precision.unscale(optimizer, policy.parameters())
    sharding = sharding or unsharded(topology)
    norm = clip_gradients(policy.trained(), max_grad_norm, topology, apart=sharding.stage >= 2)
    optimizer.set_lr(learning_rate)
    precision.step(optimizer, math.isfinite(norm) and finite_loss)
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
    margins: dict[str, np.ndarray] | None = None,
) -> Sums:
    """Sum the objective over the batches of all processes without gradients; there must be at least one.

    batches: of this process, as many as of the others, some perhaps idle. margins: is filled with ``ObjectiveSums.margins`` of all of them,
    by name, in no order.
    """
    parts: list[Sums] = []
    of_batches: list[dict[str, list[float]]] = []
    scored = (
        (batch, objective.reference(batch), score_without_gradient(policy, batch, precision, chain, objective.collisions))
        for batch in batches
    )
    for batch, reference_logps, scores, context in _with_contexts(objective, scored, topology):
        if scores is not None and len(batch.example_ids):
            with precision.autocast():
                sums = objective.loss(scores, reference_logps, context)
            parts.append(_to_host([sums], [batch], count_over(objective, [batch])))
            if margins is not None:
                of_batches.append({name: values.numpy().tolist() for name, values in sums.margins.items()})
    if margins is not None:
        found = _from_ranks(of_batches, topology)
        margins.update({name: np.array([value for part in found for value in part[name]]) for name in (found[0] if found else {})})
    return _over_ranks(parts, topology)


def _with_contexts(
    objective: Objective, scored: Iterable[tuple[Batch, Tensor | None, Scores | None]], topology: Topology
) -> Iterator[tuple[Batch, Tensor | None, Scores | None, Tensor | None]]:
    """Scored batches with their contexts: one by one, or, where the loss looks at all examples at once, after all were scored."""
    if objective.whole_step is None:
        yield from ((*it, None) for it in scored)
        return
    kept = list(scored)
    batches, references, scores = [it[0] for it in kept], [it[1] for it in kept], [it[2] for it in kept]
    yield from zip(batches, references, scores, step_contexts(objective, batches, references, scores, topology), strict=True)


def count_over(objective: Objective, batches: Sequence[Batch]) -> dict[str, int]:
    """What the objective sums over in these batches, by name."""
    return {per: sum(count(batch) for batch in batches) for per, count in objective.counts.items()}


def _over_ranks(parts: Sequence[Sums], topology: Topology) -> Sums:
    """The sums of all processes, added up in one order everywhere."""
    return add_up([Sums(**part) for part in _from_ranks([asdict(part) for part in parts], topology)])


def _from_ranks(parts: list[dict[str, Any]], topology: Topology) -> list[dict[str, Any]]:
    """The parts of all processes that read different rows, in one order everywhere. Of a pipeline only the last stage has any."""
    of_pipeline = [part for of_stage in gather_values(topology.pipeline, parts) for part in of_stage]
    return [part for of_rank in gather_values(topology.data, of_pipeline) for part in of_rank]


def _to_host(totals: Sequence[ObjectiveSums], batches: Sequence[Batch], counts: dict[str, int]) -> Sums:
    """Add up over the micro-batches and bring the sums to the host, all at once."""
    names = [(per, name) for per, values in totals[0].values.items() for name in values]
    stacked = paddle.stack([paddle.stack([part.values[per][name].reshape([]) for per, name in names]) for part in totals]).sum(0)
    values: dict[str, dict[str, float]] = {per: {} for per in totals[0].values}
    for (per, name), value in zip(names, stacked.numpy(), strict=True):
        values[per][name] = float(value)
    tokens, positions = sum(b.token_count for b in batches), sum(b.input_ids.size for b in batches)
    return Sums(values, counts, tokens, sum(len(b.example_ids) for b in batches), positions - tokens)
