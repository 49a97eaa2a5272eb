"""One step of a run computed again and looked at from near: the numbers in each layer, and how much of the loss each row brings."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.arguments.fields import TrainingArguments
from paddlealign.data.example import Batch
from paddlealign.models.decoder import Decoder
from paddlealign.parallel.collect import gather_values, sum_over
from paddlealign.training.checkpoint import TrainState
from paddlealign.training.loop import rate_of as rate_of_step
from paddlealign.training.loop import step_gradients, update
from paddlealign.training.moving_reference import follow
from paddlealign.training.optimizer import clip_gradients
from paddlealign.training.progress import Progress
from paddlealign.training.score import score_without_gradient
from paddlealign.training.step import count_over
from paddlealign.training.task import Task
from paddlealign.training.whole_step import step_contexts


@dataclass
class Numbers:
    """What some tensors hold. count: of values. broken: those that are NaN or infinite. largest, squares: of the others."""

    count: int = 0
    broken: int = 0
    largest: float = 0.0
    squares: float = 0.0

    def add(self, tensor: Tensor) -> None:
        """Count a tensor of any float dtype."""
        values = tensor.detach().astype("float32")
        finite = paddle.isfinite(values)
        clean = paddle.where(finite, values, paddle.zeros_like(values))
        self.count += values.size
        self.broken += values.size - int(finite.astype("int64").sum())
        self.largest = max(self.largest, float(clean.abs().max()))
        self.squares += float(clean.astype("float64").square().sum())

    def told(self) -> dict[str, float]:
        """Norm and rms over the finite values, their largest magnitude, and the share of those that are not."""
        sound = max(self.count - self.broken, 1)
        share = self.broken / max(self.count, 1)
        return {"norm": math.sqrt(self.squares), "rms": math.sqrt(self.squares / sound), "max": self.largest, "not_finite": share}


@dataclass(frozen=True)
class Replay:
    """A step that was computed again. loss, norm: as the run logs them. layers: a layer's name to "weights", "activations" and
    "gradients", and each to ``Numbers.told``; what there is none of is left out. tensors: the same of each trained tensor. rows: of each
    row of the step, where it stands, its tokens, the scored ones, and its part of the loss (without dropout).
    """

    loss: float
    norm: float
    rate: float
    layers: dict[str, dict[str, dict[str, float]]]
    tensors: dict[str, dict[str, dict[str, float]]]
    rows: list[dict[str, Any]]

    def first_broken(self) -> str | None:
        """Where the numbers are not finite first: in the order of computation, weights before what is made of them."""
        for kind in ("weights", "activations"):
            for layer, of_layer in self.layers.items():
                if of_layer.get(kind, {}).get("not_finite"):
                    return f"{kind} of {layer}"
        if not math.isfinite(self.loss):
            return "the loss"
        # Backward goes from the last layer to the first.
        return next(
            (f"gradients of {name}" for name, it in reversed(self.layers.items()) if it.get("gradients", {}).get("not_finite")), None
        )


def replay(task: Task, settings: TrainingArguments, state: TrainState, step: int, progress: Progress) -> Replay:
    """Train from ``state`` up to step number ``step`` as the run did, and compute that one without its update.

    All processes of the data axis call it; there must be no other axis, and no sharding of gradients. Nothing is written.
    """
    total = task.feed.total_steps
    steps = task.feed.steps(first=state.step)
    for before in steps:
        if state.step == step - 1:
            break
        sums = step_gradients(task, settings, before.batches, state.step)
        update(task, settings, sums, rate_of_step(settings, state.step, total))
        state.step += 1
        follow(task.moving, task.policy, state.step)
        progress.advance(sums.means())
    batches = before.batches
    weights = {name: _numbers([parameter]) for name, parameter in task.policy.named_parameters()}
    with _watched(task.policy) as activations:
        sums = step_gradients(task, settings, batches, state.step)
    task.precision.unscale(task.optimizer, task.policy.parameters())
    trained = task.policy.trained()
    gradients = {name: _numbers([parameter.grad]) for name, parameter in trained if parameter.grad is not None}
    norm = clip_gradients(trained, 0.0, task.topology)
    for _, parameter in trained:
        parameter.clear_gradient(False)
    kinds = {"weights": weights, "gradients": gradients}
    tensors = {name: {kind: of[name].told() for kind, of in kinds.items() if name in of} for name, _ in trained}
    rate = rate_of_step(settings, state.step, total)
    return Replay(sums.means()["loss"], norm, rate, _by_layer(weights, activations, gradients), tensors, _rows(task, batches))


def _numbers(tensors: Sequence[Tensor]) -> Numbers:
    found = Numbers()
    for tensor in tensors:
        found.add(tensor)
    return found


@contextmanager
def _watched(policy: Decoder) -> Iterator[dict[str, Numbers]]:
    """What comes out of the embedding, each layer and the last norm, by the name of the module, while the context lasts."""
    found: dict[str, Numbers] = {}
    body = policy.model
    modules = {"model.embed_tokens": body.embed_tokens, **{f"model.layers.{number}": layer for number, layer in body.layers.items()}}
    hooks = []
    for name, module in {**modules, "model.norm": body.norm}.items():
        found[name] = Numbers()

        def look(_: Any, __: Any, output: Tensor, numbers: Numbers = found[name]) -> None:
            with paddle.no_grad():
                numbers.add(output)

        hooks.append(module.register_forward_post_hook(look))  # type: ignore[arg-type]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _by_layer(
    weights: dict[str, Numbers], activations: dict[str, Numbers], gradients: dict[str, Numbers]
) -> dict[str, dict[str, dict[str, float]]]:
    """Numbers by layer, in the order of computation."""
    head = [name for name in dict.fromkeys(map(_layer_of, weights)) if name not in activations]
    result: dict[str, dict[str, dict[str, float]]] = {}
    for layer in [*activations, *head]:
        result[layer] = {}
        for kind, numbers in (("weights", weights), ("activations", activations), ("gradients", gradients)):
            own = [it for name, it in numbers.items() if (name if kind == "activations" else _layer_of(name)) == layer]
            if own:
                joined = Numbers(
                    sum(it.count for it in own), sum(it.broken for it in own), max(it.largest for it in own), sum(it.squares for it in own)
                )
                result[layer][kind] = joined.told()
    return result


def _layer_of(parameter: str) -> str:
    """The layer that a parameter lies in: "model.layers.3", "model.embed_tokens", "lm_head"."""
    parts = parameter.split(".")
    return ".".join(parts[:3]) if parts[:2] == ["model", "layers"] else parameter.rsplit(".", 1)[0]


@paddle.no_grad()
def _rows(task: Task, batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Each row of the step alone, and its part of the step's loss; the parts add up to the loss but for rounding."""
    objective = task.objective
    own = count_over(objective, [batch for batch in batches if len(batch.example_ids)])
    counts = dict(zip(own, sum_over(task.topology.data, np.array(list(own.values()))).astype(int).tolist(), strict=True))
    singles = [task.feed.alone(int(example)) for batch in batches for example in batch.example_ids]
    references = [objective.reference(batch) for batch in singles]
    scores = [score_without_gradient(task.policy, batch, task.precision, task.chain, objective.collisions) for batch in singles]
    contexts = step_contexts(objective, singles, references, scores, task.topology)
    found = []
    for batch, reference, score, context in zip(singles, references, scores, contexts, strict=True):
        assert score is not None
        with task.precision.autocast():
            part = float(objective.loss(score, reference, context).loss(counts))
        example = int(batch.example_ids[0])
        source = str(example) if task.source_of is None else task.source_of(example)
        found.append({"row": source, "tokens": batch.token_count, "scored": len(batch.target_ids), "part_of_loss": part})
    return [row for of_rank in gather_values(task.topology.data, found) for row in of_rank]
