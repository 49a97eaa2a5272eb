"""Contrastive search (Su et al. 2022): likely tokens whose hidden states are unlike those before them.

Of the k likeliest tokens v after a text x it takes the one with the greatest

    (1 - alpha) p(v | x) - alpha max_j cos(h_v, h_j),    j over the tokens of x, the prompt's included,

h being the hidden states after the last norm. The meanings are those of HuggingFace transformers 4, the last whose core holds it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.models.incremental import RunningBatch, pad_left
from paddlealign.models.sampling import GenerationSettings, process_scores


def contrastive_search(
    batch: RunningBatch, prompts: Sequence[Sequence[int]], limits: Sequence[int], settings: GenerationSettings
) -> Iterator[tuple[int, int, bool]]:
    """Search one batch; yields (row, token, whether the row ends with it) as the tokens come.

    batch: of the prompts, not yet read. limits: the most new tokens of each row, one at least. Each step is one model call for all rows
    times top_k.
    """
    hidden, logits = batch.read_prompts()
    context = _directions(hidden)
    visible = pad_left(prompts)[2]
    new: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    places = rows
    while rows:
        scores = logits.astype("float32").numpy()
        ranked = [likeliest(process_scores(scores[i], prompts[row], new[row], settings), settings.top_k) for i, row in enumerate(rows)]
        tokens, probabilities = np.stack([item[0] for item in ranked]), np.stack([item[1] for item in ranked])
        count = tokens.shape[1]
        batch.keep_rows([place for place in places for _ in range(count)])
        hidden, logits = batch.read_tokens(tokens.ravel().tolist())
        candidates = _directions(hidden).reshape([len(rows), count, -1])
        cosines = paddle.matmul(candidates, context, transpose_y=True).numpy()
        likeness = np.where(visible[:, None], cosines, -np.inf).max(axis=2)
        chosen = ((1.0 - settings.penalty_alpha) * probabilities - settings.penalty_alpha * likeness).argmax(axis=1)
        staying = []
        for i, row in enumerate(rows):
            new[row].append(int(tokens[i, chosen[i]]))
            ended = len(new[row]) == limits[row] or settings.ends(new[row])
            if not ended:
                staying.append(i)
            yield row, new[row][-1], ended
        if not staying:
            return
        rows = [rows[i] for i in staying]
        places = [i * count + int(chosen[i]) for i in staying]
        added = paddle.index_select(candidates.reshape([-1, candidates.shape[2]]), paddle.to_tensor(places, dtype="int64"))
        context = paddle.concat([paddle.index_select(context, paddle.to_tensor(staying, dtype="int64")), added.unsqueeze(1)], axis=1)
        visible = np.pad(visible[staying], ((0, 0), (0, 1)), constant_values=True)
        logits = paddle.index_select(logits, paddle.to_tensor(places, dtype="int64"))


def likeliest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` likeliest tokens, best first, and their probabilities among all. scores: float [vocab]."""
    weights = np.exp(scores - scores.max())
    best = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
    best = best[np.argsort(-scores[best], kind="stable")]
    return best, weights[best] / weights.sum()


def _directions(hidden: Tensor) -> Tensor:
    """Hidden states [..., hidden] at length one, float32."""
    hidden = hidden.astype("float32")
    return hidden / hidden.norm(axis=-1, keepdim=True)
