"""The decoder's kernels once more, as their formulas read: Paddle's own operators, differentiated by Paddle. Slow, to check results by.

Each function has the contract of the kernel that it stands in for, which says the shapes.
"""

import functools

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.models.attention import Attend

_HIDDEN = -1e30


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See ``kernels.rms_norm``."""
    wide = x.astype("float32")
    normed = wide / paddle.sqrt((wide * wide).mean(-1, keepdim=True) + epsilon)
    return normed.astype(x.dtype) * weight.astype(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """See ``kernels.layer_norm``."""
    wide = x.astype("float32")
    centred = wide - wide.mean(-1, keepdim=True)
    normed = centred / paddle.sqrt((centred * centred).mean(-1, keepdim=True) + epsilon)
    return (normed * weight.astype("float32") + bias.astype("float32")).astype(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See ``kernels.rotary``."""
    half = cos.shape[-1] // 2
    cos, sin = cos[:, :, :1, half:], sin[:, :, :1, half:]  # one head's, without the sign of the other half
    first, second = x[..., :half].astype("float32"), x[..., half : 2 * half].astype("float32")
    turned = paddle.concat([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
    return turned if 2 * half == x.shape[-1] else paddle.concat([turned, x[..., 2 * half :]], axis=-1)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See ``kernels.swiglu``."""
    return gate * paddle.nn.functional.sigmoid(gate) * up


def visible(visible_until: np.ndarray, position_ids: np.ndarray, window: int | None) -> np.ndarray:
    """Which query sees which key: bool [rows, queries, keys]. visible_until, position_ids: see ``attention.packed_attention``."""
    columns = np.arange(position_ids.shape[1])
    queries, keys = columns[:, None], columns[None, :]
    seen = (keys <= queries) & (queries < visible_until[:, 0, None, :, 0])
    return seen if window is None else seen & (position_ids[:, :, None] - position_ids[:, None, :] < window)


def plain_attention(visible_until: np.ndarray, position_ids: np.ndarray) -> Attend:
    """See ``attention.packed_attention``. Scores, mask and probabilities are [rows, heads, length, length]."""

    @functools.cache
    def mask(window: int | None) -> Tensor:
        return paddle.to_tensor(np.where(visible(visible_until, position_ids, window), 0.0, _HIDDEN).astype("float32")).unsqueeze(1)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        shared_by = q.shape[2] // k.shape[2]  # query heads that have one key head
        query, key, value = (it.transpose([0, 2, 1, 3]) for it in (q, k, v))
        if shared_by > 1:
            key, value = (paddle.repeat_interleave(it, shared_by, axis=1) for it in (key, value))
        scores = paddle.matmul(query, key, transpose_y=True).astype("float32") * q.shape[-1] ** -0.5 + mask(window)
        weights = paddle.nn.functional.softmax(scores, axis=-1).astype(v.dtype)
        return paddle.matmul(weights, value).transpose([0, 2, 1, 3])

    return attend


def token_logps(hidden: Tensor, head: Tensor, target_ids: Tensor, vocabulary_first: bool) -> tuple[Tensor, Tensor]:
    """See ``head.token_logps``; the logits are one tensor [targets, vocab].

    Cross-entropy, not log_softmax, whose gradient Paddle's CPU build computes in a time that grows with the square of the vocabulary.
    """
    logits = _logits(hidden, head, vocabulary_first)
    logps = -paddle.nn.functional.cross_entropy(logits, target_ids, reduction="none")
    found = logits.detach()
    return logps, paddle.take_along_axis(found, target_ids.unsqueeze(1), 1).squeeze(1) >= found.max(-1)


@paddle.no_grad()
def collision_logps(hidden: Tensor, head: Tensor, vocabulary_first: bool) -> Tensor:
    """See ``head.collision_logps``."""
    logits = _logits(hidden, head, vocabulary_first)
    return paddle.logsumexp(2.0 * logits, axis=-1) - 2.0 * paddle.logsumexp(logits, axis=-1)


def _logits(hidden: Tensor, head: Tensor, vocabulary_first: bool) -> Tensor:
    """Float32 [targets, vocab]."""
    return paddle.matmul(hidden, head, transpose_y=vocabulary_first).astype("float32")
