"""Attention over packed and branched rows, described on every device by flash-mask row indices.

A key at column j may be seen by the queries in rows j .. visible_until[j] - 1 of its packed row: causal, and cut off where its
example or its branch ends (FlashMask, Wang et al. 2024, the causal one-column form). On a GPU in half precision Paddle's own
kernel takes these indices. Everywhere else the same is computed head by head, in blocks of queries, each against those runs of keys that
at least one of its queries may see (``models.attention_blocks``). No [length, length] matrix exists: scores live as long as their block
of one head, and what is kept is a mask for each block from its first key that not every query sees, which is at the diagonal or at an
example's start.

A layer with a sliding window sees in addition only keys fewer than ``window`` positions back. Positions, not columns, count: a response
that lies behind another one is as near to the prompt as the first.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn.functional.flash_attention import flashmask_attention

from paddlealign.models import cpu_attention
from paddlealign.models.attention_blocks import Block, plan_blocks

Attend = Callable[[int, Tensor, Tensor, Tensor, int | None], Tensor]


def window_indices(visible_until: np.ndarray, position_ids: np.ndarray, window: int | None) -> np.ndarray | None:
    """``visible_until`` for a layer with a window, or None where row indices cannot say it.

    They cannot where a prompt has several responses and is longer, with one of them, than the window: the prompt's first tokens would
    have to vanish in the middle of one response and come back for the next. All arrays [rows, length].
    """
    if window is None or position_ids.max() < window:
        return visible_until
    columns = np.arange(visible_until.shape[1])
    last = np.take_along_axis(position_ids, visible_until - 1, axis=1)
    if (last - position_ids != visible_until - 1 - columns).any():
        return None
    return np.minimum(visible_until, columns + window).astype(np.int32)


class _CpuAttention(PyLayer):
    """Attention of float32 on the CPU (``models.cpu_attention``). Keeps q, k, v, the output and log sum exp of each query's scores."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: list[Block], scale: float) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, logs = cpu_attention.mix(q, k, v, blocks, scale)
        ctx.save_for_backward(q, k, v, out, logs)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, logs = ctx.saved_tensor()
        return cpu_attention.gradients(q, k, v, out, logs, grad.contiguous(), ctx.blocks, ctx.scale)


def _rows_of(x: Tensor, block: Block) -> Tensor:
    """The block's key columns of one head, x [length, size]: [keys, size]."""
    parts = [x[start:stop] for start, stop in block.runs]
    return parts[0] if len(parts) == 1 else paddle.concat(parts)


def _bias_of(block: Block) -> Tensor:
    """The block's bias for all its keys: float32 [queries, keys]."""
    whole = np.zeros((block.stop - block.start, block.keys), np.float32)
    if block.bias is not None:
        whole[:, block.clear :] = block.bias
    return paddle.to_tensor(whole)


def _probabilities(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """Softmax of a block's scores. query: scaled, [queries, head_dim]; key: [keys, head_dim]. Returns float32 [queries, keys]."""
    scores = paddle.matmul(query, key, transpose_y=True).astype("float32")
    return paddle.nn.functional.softmax(scores.add_(bias), axis=-1)


def _by_head(x: Tensor) -> Tensor:
    """[rows, length, heads, size] to [rows, heads, length, size], in which a head's columns lie together."""
    return x.transpose([0, 2, 1, 3]).contiguous()


class _BlockAttention(PyLayer):
    """Keeps q, k, v and the output; probabilities are computed again in backward. Products are made in q's dtype, the rest in float32."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: list[Block], biases: list[Tensor], scale: float) -> Tensor:
        heads, group = q.shape[2], q.shape[2] // k.shape[2]
        query, key, value = _by_head(q * scale), _by_head(k), _by_head(v)
        by_head: list[list[Tensor]] = [[] for _ in range(q.shape[0] * heads)]
        for block, bias in zip(blocks, biases, strict=True):
            for head in range(heads):
                keys, values = (_rows_of(x[block.row, head // group], block) for x in (key, value))
                weights = _probabilities(query[block.row, head, block.start : block.stop], keys, bias)
                by_head[block.row * heads + head].append(paddle.matmul(weights.astype(q.dtype), values))
        out = paddle.stack([paddle.concat(parts) for parts in by_head]).reshape(query.shape).transpose([0, 2, 1, 3]).contiguous()
        ctx.save_for_backward(q, k, v, out)
        ctx.blocks, ctx.biases, ctx.scale = blocks, biases, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out = ctx.saved_tensor()
        grads = _head_gradients(q, k, v, out, grad, zip(ctx.blocks, ctx.biases, strict=True), ctx.scale)
        grad_query, grad_key, grad_value = (x.astype(q.dtype).transpose([0, 2, 1, 3]).contiguous() for x in grads)
        return grad_query, grad_key, grad_value


def _head_gradients(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, blocks: Iterable[tuple[Block, Tensor]], scale: float
) -> list[Tensor]:
    """The gradients of q, k and v, float32 and head by head as ``_by_head`` lays them. grad: of the output ``out``. blocks: with biases."""
    group = q.shape[2] // k.shape[2]
    query, key = _by_head(q * scale), _by_head(k)
    # softmax backward: P * (dP - sum(dP * P)) with dP = dO V^T, and sum(dP * P) = sum(dO * O): one more column of the product
    upstream, value = _by_head(grad), _by_head(v)
    inner = (grad.astype("float32") * out.astype("float32")).sum(-1, keepdim=True).transpose([0, 2, 1, 3])
    above = paddle.concat([upstream, -inner.astype(q.dtype)], axis=-1)
    value = paddle.concat([value, paddle.ones([*value.shape[:3], 1], q.dtype)], axis=-1)
    grads = [paddle.zeros(x.shape) for x in (query, key, key)]
    for block, bias in blocks:
        for head in range(q.shape[2]):
            keys, values = (_rows_of(x[block.row, head // group], block) for x in (key, value))
            of_block = [x[block.row, head, block.start : block.stop] for x in (query, upstream, above)]
            totals = [x[block.row, own] for x, own in zip(grads, (head, head // group, head // group), strict=True)]
            _block_back(of_block, keys, values, bias, block, totals)
    grads[0].scale_(scale)
    return grads


def _block_back(of_block: Sequence[Tensor], keys: Tensor, values: Tensor, bias: Tensor, block: Block, totals: Sequence[Tensor]) -> None:
    """Add a block's gradients of one head to totals: those of its query, key and value, views of [length, head_dim] each.

    of_block: the scaled queries and the output's gradient, both [queries, head_dim], and the latter with a column more. values:
    [keys, head_dim + 1]. See ``_head_gradients``.
    """
    queries, upstream, above = of_block
    weights = _probabilities(queries, keys, bias)
    slope = paddle.matmul(above, values, transpose_y=True).astype("float32").multiply_(weights).astype(keys.dtype)
    grad_value = paddle.matmul(weights.astype(keys.dtype), upstream, transpose_x=True).astype("float32")
    grad_key = paddle.matmul(slope, queries, transpose_x=True).astype("float32")
    totals[0][block.start : block.stop].add_(paddle.matmul(slope, keys).astype("float32"))
    for columns, keys_of_row in block.places():
        totals[1][keys_of_row].add_(grad_key[columns])
        totals[2][keys_of_row].add_(grad_value[columns])


def packed_attention(visible_until: np.ndarray, position_ids: np.ndarray) -> Attend:
    """Make the ``attend`` that a decoder calls in training.

    visible_until: int32 [rows, 1, length, 1]; position_ids: int64 [rows, length]; as in a batch. The returned function takes (layer, q, k,
    v, window) with q [rows, length, heads, head_dim] and k, v [rows, length, kv_heads, head_dim], all of one dtype, and returns q's shape
    and dtype. On a GPU in half precision it is Paddle's flash-mask kernel wherever row indices can say what is seen, otherwise the
    blocks of ``models.attention_blocks``, planned once for all layers of a window.
    """
    until, longest = visible_until[:, 0, :, 0], int(position_ids.max()) + 1

    @functools.cache
    def indices(window: int | None) -> Tensor | None:
        rows = window_indices(until, position_ids, window)
        return None if rows is None else paddle.to_tensor(rows[:, None, :, None])

    blocks = functools.cache(lambda window: plan_blocks(until, position_ids, window))
    biases = functools.cache(lambda window: [_bias_of(block) for block in blocks(window)])

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        if window is not None and window >= longest:
            window = None
        if q.place.is_gpu_place() and q.dtype != paddle.float32:
            rows = indices(window)
            if rows is not None:
                return flashmask_attention(q, k, v, rows, causal=True)
        scale = q.shape[-1] ** -0.5
        if q.place.is_cpu_place() and q.dtype == paddle.float32:
            return _CpuAttention.apply(q, k, v, blocks(window), scale)
        return _BlockAttention.apply(q, k, v, blocks(window), biases(window), scale)

    return attend
