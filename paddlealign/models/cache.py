"""Keys and values of the tokens so far, and the two ways to attend with them: a whole prompt, then token by token.

Kept as [rows, kv_heads, room, head_dim], so that each head's keys lie together and one product per step needs no transpose of the
cache. The room grows by blocks: a short text does not pay for the longest one that was allowed.
"""

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional

from paddlealign.models.attention import packed_attention
from paddlealign.models.attention_blocks import HIDDEN_SCORE

BLOCK = 64


class KeyValueCache:
    """The cache of one batch of left-padded rows.

    keys, values: by the layer's number a tensor [rows, kv_heads, room, head_dim]; columns from ``length`` on are zeros.
    bias: float32 [rows, 1, 1, room], 0 where a token may be attended to, HIDDEN_SCORE at padding and at columns not yet filled.
    """

    def __init__(self, visible: np.ndarray) -> None:
        """Make an empty cache. visible: bool [rows, length], False at the padding on the left of each prompt."""
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        rows, self.length = visible.shape
        bias = np.full([rows, 1, 1, self.length + self._spare()], HIDDEN_SCORE, np.float32)
        bias[:, 0, 0, : self.length][visible] = 0.0
        self.bias = paddle.to_tensor(bias)
        self._wide: Tensor | None = None
        # Padding is seen by itself alone, the prompt's tokens by all that follow.
        until = np.where(visible, self.length, np.arange(self.length) + 1).astype(np.int32)
        columns = np.tile(np.arange(self.length), (rows, 1))
        self._attend_prompt = packed_attention(until.reshape([rows, 1, self.length, 1]), columns)

    def _spare(self) -> int:
        """Columns from ``length`` to the next full block, at least one."""
        return BLOCK - self.length % BLOCK

    def attend_prompt(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """``attend`` for the prompts, see ``models.attention``. Keeps k and v."""
        for kept, new in ((self.keys, k), (self.values, v)):
            rows, _, kv_heads, head_dim = new.shape
            spare = paddle.zeros([rows, kv_heads, self._spare(), head_dim], new.dtype)
            kept[layer] = paddle.concat([new.transpose([0, 2, 1, 3]), spare], axis=2)
        return self._attend_prompt(layer, q, k, v, window)

    def make_room(self) -> None:
        """Prepare for one more token in every row; to be called before each step."""
        rows, _, _, room = self.bias.shape
        if self.length == room:
            for kept in (self.keys, self.values):
                for layer, held in kept.items():
                    spare = paddle.zeros([rows, held.shape[1], BLOCK, held.shape[3]], held.dtype)
                    kept[layer] = paddle.concat([held, spare], axis=2)
            self.bias = paddle.concat([self.bias, paddle.full([rows, 1, 1, BLOCK], HIDDEN_SCORE)], axis=3)
        self.bias[:, :, :, self.length] = 0.0
        self.length += 1
        self._wide = None

    def attend_token(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """``attend`` for one new token per row: q [rows, 1, heads, head_dim], k and v [rows, 1, kv_heads, head_dim].

        Query heads that share a key head stand together, so keys and values are never repeated.
        """
        rows, _, heads, head_dim = q.shape
        return self.attend_scaled(layer, (q * head_dim**-0.5)[:, 0], k[:, 0], v, window).reshape([rows, 1, heads, head_dim])

    def attend_scaled(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """``attend_token`` for q [rows, heads, head_dim] that the scores' scale is in, k [rows, kv_heads, head_dim], and v of its size.

        Returns [rows, heads * head_dim].
        """
        rows, heads, head_dim = q.shape
        kv_heads = k.shape[1]
        key, value, last = self.keys[layer], self.values[layer], self.length - 1
        key[:, :, last : last + 1] = k.reshape([rows, kv_heads, 1, head_dim])
        value[:, :, last : last + 1] = v.reshape([rows, kv_heads, 1, head_dim])
        bias = self._wide_bias(kv_heads, heads // kv_heads)
        if window is not None and window < self.length:
            first = self.length - window
            key, value, bias = key[:, :, first:], value[:, :, first:], bias[..., first:]
        scores = paddle.matmul(q.reshape([rows, kv_heads, heads // kv_heads, head_dim]), key, transpose_y=True)
        weights = functional.softmax(scores + bias if scores.dtype == paddle.float32 else scores.astype("float32") + bias)
        weights = weights if weights.dtype == value.dtype else weights.astype(value.dtype)
        return paddle.matmul(weights, value).reshape([rows, heads * head_dim])

    def _wide_bias(self, kv_heads: int, group: int) -> Tensor:
        """The bias [rows, kv_heads, group, room], made once for all layers of a step: Paddle adds it 20 times as fast as it broadcasts."""
        if self._wide is None:
            rows, _, _, room = self.bias.shape
            self._wide = paddle.expand(self.bias, [rows, kv_heads, group, room]).contiguous()
        return self._wide

    def keep_rows(self, rows: list[int]) -> None:
        """Drop all rows but these, in this order."""
        index = paddle.to_tensor(rows, dtype="int64")
        for kept in (self.keys, self.values):
            for layer, held in kept.items():
                kept[layer] = paddle.index_select(held, index)
        self.bias = paddle.index_select(self.bias, index)
        self._wide = None
