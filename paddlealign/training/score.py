"""A batch through a model: from packed rows to the log-probs of its scored tokens."""

from dataclasses import dataclass

import paddle
from paddle import Tensor

from paddlealign.data.example import Batch
from paddlealign.models.attention import packed_attention
from paddlealign.models.decoder import Decoder
from paddlealign.models.head import token_logps


@dataclass(frozen=True)
class Scores:
    """What a model says of a batch's targets.

    token_logps: float32 [targets]. correct: bool [targets], whether the target is the model's first choice. owner: int64 [targets],
    the response of each. responses: how many responses the batch has.
    """

    token_logps: Tensor
    correct: Tensor
    owner: Tensor
    responses: int


def score(model: Decoder, batch: Batch, recompute: bool = False) -> Scores:
    """Run the model over the batch once, and its head over the scored tokens only."""
    attend = packed_attention(batch.visible_until, batch.position_ids)
    hidden = model(paddle.to_tensor(batch.input_ids), paddle.to_tensor(batch.position_ids), attend, recompute)
    scored = hidden.reshape([-1, hidden.shape[-1]]).index_select(paddle.to_tensor(batch.score_at))
    logps, correct = token_logps(scored, model.head, paddle.to_tensor(batch.target_ids), model.config.tie_embeddings)
    return Scores(logps, correct, paddle.to_tensor(batch.target_owner), batch.response_count)
