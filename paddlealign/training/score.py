"""A batch through a model: from packed rows to what its head says, log-probs of the scored tokens or a reward for each response."""

from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.models.attention import packed_attention
from paddlealign.models.decoder import Decoder
from paddlealign.models.plain import plain_attention
from paddlealign.parallel.pipeline import LONE_CHAIN, Chain, run_forward_only
from paddlealign.training.precision import Precision


@dataclass(frozen=True)
class Scores:
    """What a model says of a batch.

    A language head speaks of the targets: token_logps: float32 [targets]; correct: bool [targets], whether the target is the model's first
    choice; owner: int64 [targets], the response of each; collision_logps: float32 [targets], ``log sum_v p(v)^2`` in each target's place,
    where it was asked for. A score head speaks of the responses: rewards: float32 [responses]. What the other head says is empty, [0].
    responses: how many responses the batch has.
    """

    token_logps: Tensor
    correct: Tensor
    owner: Tensor
    rewards: Tensor
    responses: int
    collision_logps: Tensor | None = None


def run_layers(model: Decoder, batch: Batch, received: Tensor | None = None, recompute: bool = False) -> Tensor:
    """The batch through the layers that this process holds. received: hidden states of the stage before, None on the first stage.

    Returns hidden states [rows, length, hidden]; of the last layer those that the head meets, [1, scored tokens or responses, hidden],
    where ``_read_alone`` says so.
    """
    attention = packed_attention if model.tricks.blockwise_attention else plain_attention
    attend = attention(batch.visible_until, batch.position_ids)
    inputs = paddle.to_tensor(batch.input_ids) if received is None else received
    read_at = paddle.to_tensor(_met_by_head(model, batch)) if _read_alone(model) else None
    return model(inputs, paddle.to_tensor(batch.position_ids), attend, recompute, read_at)


def _read_alone(model: Decoder) -> bool:
    """Whether the last layer computes what the head meets and no more.

    Not where its positions are cut over processes, nor under an adapter's dropout: its masks are drawn for all positions, so that they
    are the same however a model is laid over processes.
    """
    dropped = model.adapter is not None and model.adapter.drops
    return model.tricks.scored_head and model.model.is_last and model.make.positions == 1 and not dropped


def _met_by_head(model: Decoder, batch: Batch) -> np.ndarray:
    """Which places of a batch's rows the head meets, int64: before each scored token, or at each response's last."""
    return batch.last_at if model.config.head == "score" else batch.score_at


def run_head(model: Decoder, batch: Batch, hidden: Tensor, collisions: bool = False) -> Scores:
    """The head at the scored tokens only, or at each response's last token; without the trick ``scored_head`` at every position.

    hidden: as ``run_layers`` gave it. collisions: see ``Scores``.
    """
    flat = hidden.reshape([-1, hidden.shape[-1]])
    of_responses = model.config.head == "score"
    if not model.tricks.scored_head:
        if of_responses:
            return _of_responses(batch, model.score(flat).index_select(paddle.to_tensor(batch.last_at)))
        return _head_everywhere(model, batch, flat, collisions)
    met = flat if _read_alone(model) else flat.index_select(paddle.to_tensor(_met_by_head(model, batch)))
    if of_responses:
        return _of_responses(batch, model.score(met))
    logps, correct = model.token_logps(met, paddle.to_tensor(batch.target_ids))
    seen = model.collision_logps(met) if collisions else None
    return Scores(logps, correct, paddle.to_tensor(batch.target_owner), paddle.zeros([0]), batch.response_count, seen)


def _of_responses(batch: Batch, rewards: Tensor) -> Scores:
    none = paddle.zeros([0])
    return Scores(none, none.astype("bool"), none.astype("int64"), rewards, batch.response_count)


def _head_everywhere(model: Decoder, batch: Batch, flat: Tensor, collisions: bool) -> Scores:
    """``run_head`` of a language head at every position. flat: [rows * length, hidden].

    The scored positions come first, one before two responses twice; behind them the others, with token 0 for a target that nobody reads.
    """
    count = len(batch.score_at)
    others = np.setdiff1d(np.arange(flat.shape[0]), batch.score_at)
    everywhere = flat.index_select(paddle.to_tensor(np.concatenate([batch.score_at, others])))
    targets = paddle.to_tensor(np.concatenate([batch.target_ids, np.zeros_like(others)]))
    logps, correct = model.token_logps(everywhere, targets)
    seen = model.collision_logps(everywhere)[:count] if collisions else None
    return Scores(logps[:count], correct[:count], paddle.to_tensor(batch.target_owner), paddle.zeros([0]), batch.response_count, seen)


def hidden_shape(model: Decoder, batch: Batch) -> tuple[int, ...]:
    """The shape of the hidden states between two stages."""
    rows, length = batch.input_ids.shape
    return rows, length // model.make.positions, model.config.hidden_size


@paddle.no_grad()
def score_without_gradient(
    model: Decoder, batch: Batch, precision: Precision, chain: Chain = LONE_CHAIN, collisions: bool = False
) -> Scores | None:
    """What the model says of a batch, on the chain's last stage; None on the others. All stages call it. collisions: see ``Scores``."""
    found: list[Scores] = []

    def forward(_: int, received: Tensor | None) -> Tensor:
        with precision.autocast():
            hidden = run_layers(model, batch, received)
            if chain.is_last:
                found.append(run_head(model, batch, hidden, collisions))
        return hidden

    run_forward_only(chain, [hidden_shape(model, batch)], precision.weights_dtype, forward)
    return found[0] if found else None
