"""Attention over packed and branched rows, described on every device by flash-mask row indices.

A key at column j may be seen by the queries in rows j .. visible_until[j] - 1 of its packed row: causal, and cut off where its
example or its branch ends (FlashMask, Wang et al. 2024, the causal one-column form). On a GPU in half precision Paddle's own
kernel takes these indices. Everywhere else the same is computed here in blocks of queries, each against those runs of
keys that at least one of its queries may see. No [length, length] matrix exists: scores live as long as their block, and what is kept
is a mask for each block from its first key that not every query sees, which is at the diagonal or at an example's start.

A layer with a sliding window sees in addition only keys fewer than ``window`` positions back. Positions, not columns, count: a response
that lies behind another one is as near to the prompt as the first.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn.functional.flash_attention import flashmask_attention

Attend = Callable[[int, Tensor, Tensor, Tensor, int | None], Tensor]

QUERY_BLOCK = 256
KEY_BLOCK = 64
# Columns of a row whose gradients of keys and values are added up in a tensor of their own.
STRIP = 256
HIDDEN_SCORE = -1e30


@dataclass(frozen=True)
class _Block:
    """One row's queries start .. stop - 1 and the runs of key columns that they meet.

    clear: how many of the keys, from the first, are visible to every query. bias: float32 [queries, keys - clear] for the others, 0
    where visible and HIDDEN_SCORE where not; None where there are none.
    """

    row: int
    start: int
    stop: int
    runs: tuple[tuple[int, int], ...]
    clear: int
    bias: Tensor | None


def _key_runs(seen: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Turn a bool [columns] into runs (start, stop) of whole key blocks that hold at least one True."""
    starts = np.arange(0, len(seen), KEY_BLOCK)
    touched = np.logical_or.reduceat(seen, starts)
    runs: list[tuple[int, int]] = []
    for start in starts[touched]:
        stop = min(int(start) + KEY_BLOCK, len(seen))
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((int(start), stop))
    return tuple(runs)


def _visible(until: np.ndarray, positions: np.ndarray, window: int | None, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which queries [q, 1] of a row see which keys [k]: bool [q, k]. until, positions: the row's, [length]."""
    seen = (keys <= queries) & (until[keys] > queries)
    return seen if window is None else seen & (positions[queries] - positions[keys] < window)


def plan_blocks(visible_until: np.ndarray, position_ids: np.ndarray, window: int | None) -> list[_Block]:
    """Cut each row into blocks of queries with the keys that they can see.

    visible_until: int32 [rows, length]. position_ids: int64 [rows, length]. window: how many positions back a query sees, its own
    included; None: all. Every query sees itself at least, so no block is without keys.
    """
    blocks = []
    length = visible_until.shape[1]
    for row, (until, positions) in enumerate(zip(visible_until, position_ids, strict=True)):
        for start in range(0, length, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, length)
            queries = np.arange(start, stop)[:, None]
            seen = until[:stop] > start
            if window is not None:
                columns = np.flatnonzero(seen)  # of all columns the work would grow with the square of the row
                seen[columns] = _visible(until, positions, window, queries, columns).any(axis=0)
            runs = _key_runs(seen)
            keys = np.concatenate([np.arange(first, last) for first, last in runs])
            visible = _visible(until, positions, window, queries, keys)
            partly = np.flatnonzero(~visible.all(axis=0))
            clear = int(partly[0]) if len(partly) else len(keys)
            bias = paddle.to_tensor(np.where(visible[:, clear:], 0.0, HIDDEN_SCORE).astype("float32")) if len(partly) else None
            blocks.append(_Block(row, start, stop, runs, clear, bias))
    return blocks


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


def _gather(x: Tensor, block: _Block) -> Tensor:
    """Take the block's key columns of x [rows, kv_heads, length, head_dim]: [kv_heads, keys, head_dim]."""
    parts = [x[block.row, :, start:stop] for start, stop in block.runs]
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=1)


def _probabilities(query: Tensor, key: Tensor, block: _Block, scale: float) -> Tensor:
    """Softmax of the block's scores. query: [kv_heads, group * queries, head_dim]; returns float32 [kv_heads, group * queries, keys]."""
    scores = paddle.matmul(query, key, transpose_y=True).astype("float32").scale_(scale)
    if block.bias is not None:
        kv_heads, rows, keys = scores.shape
        queries = block.stop - block.start
        # Added to whole rows of scores: adding to a slice of them in place is slower.
        bias = paddle.concat([paddle.zeros([queries, block.clear]), block.bias], axis=1) if block.clear else block.bias
        scores = scores.reshape([kv_heads, rows // queries, queries, keys]).add_(bias).reshape([kv_heads, rows, keys])
    return paddle.nn.functional.softmax(scores, axis=-1)


def _heads_first(x: Tensor, kv_heads: int) -> Tensor:
    """[rows, length, heads, head_dim] to [rows, kv_heads, group, length, head_dim]: query heads stand with the key head they share."""
    rows, length, heads, head_dim = x.shape
    return x.reshape([rows, length, kv_heads, heads // kv_heads, head_dim]).transpose([0, 2, 3, 1, 4])


def _block_of(x: Tensor, block: _Block) -> Tensor:
    """Take the block's queries of x [rows, kv_heads, group, length, head_dim]: [kv_heads, group * queries, head_dim]."""
    part = x[block.row, :, :, block.start : block.stop]
    return part.reshape([part.shape[0], -1, part.shape[-1]])


class _BlockAttention(PyLayer):
    """Keeps q, k, v and the output; probabilities are computed again in backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: list[_Block], scale: float) -> Tensor:
        rows, _, heads, head_dim = q.shape
        kv_heads = k.shape[2]
        query = _heads_first(q, kv_heads)
        key, value = k.transpose([0, 2, 1, 3]), v.transpose([0, 2, 1, 3])
        parts: list[list[Tensor]] = [[] for _ in range(rows)]
        for block in blocks:
            weights = _probabilities(_block_of(query, block), _gather(key, block), block, scale)
            mixed = paddle.matmul(weights.astype(v.dtype), _gather(value, block))
            parts[block.row].append(mixed.reshape([heads, block.stop - block.start, head_dim]))
        out = paddle.stack([paddle.concat(row, axis=1) for row in parts]).transpose([0, 2, 1, 3]).contiguous()
        ctx.save_for_backward(q, k, v, out)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out = ctx.saved_tensor()
        rows, _, heads, head_dim = q.shape
        kv_heads = k.shape[2]
        query, upstream = _heads_first(q, kv_heads), _heads_first(grad, kv_heads)
        inner = _heads_first((grad.astype("float32") * out.astype("float32")).sum(-1, keepdim=True), kv_heads)
        key, value = k.transpose([0, 2, 1, 3]), v.transpose([0, 2, 1, 3])
        query_parts: list[list[Tensor]] = [[] for _ in range(rows)]
        grad_key, grad_value = ([_strips(*key.shape[1:]) for _ in range(rows)] for _ in range(2))
        for block in ctx.blocks:
            queries, keys = _block_of(query, block), _gather(key, block)
            above = _block_of(upstream, block)
            weights = _probabilities(queries, keys, block, ctx.scale)
            _scatter(grad_value, block, paddle.matmul(weights.astype(v.dtype), above, transpose_x=True))
            # softmax backward: P * (dP - sum(dP * P)), and sum(dP * P) = sum(dO * O)
            scores = paddle.matmul(above, _gather(value, block), transpose_y=True).astype("float32")
            scores = scores.subtract_(_block_of(inner, block)).multiply_(weights).scale_(ctx.scale).astype(q.dtype)
            query_parts[block.row].append(paddle.matmul(scores, keys).reshape([heads, block.stop - block.start, head_dim]))
            _scatter(grad_key, block, paddle.matmul(scores, queries, transpose_x=True))
        grad_query = paddle.stack([paddle.concat(row, axis=1) for row in query_parts]).transpose([0, 2, 1, 3])
        grad_keys, grad_values = (
            paddle.stack([paddle.concat(row, axis=1) for row in total]).transpose([0, 2, 1, 3]).astype(k.dtype)
            for total in (grad_key, grad_value)
        )
        return grad_query, grad_keys, grad_values


def _strips(kv_heads: int, length: int, head_dim: int) -> list[Tensor]:
    """Zeros for a row's gradient, cut into strips of columns: float32 [kv_heads, STRIP or fewer, head_dim] each."""
    return [paddle.zeros([kv_heads, min(STRIP, length - start), head_dim]) for start in range(0, length, STRIP)]


def _scatter(totals: list[list[Tensor]], block: _Block, part: Tensor) -> None:
    """Add part [kv_heads, keys, head_dim] to the block's key columns of its row's total, which ``_strips`` made, in place.

    Zeros are added to the rest of a strip: Paddle's CPU build takes 20 times as long to add to a slice. Strips that the block does not
    meet are left alone, or the work would grow with the square of the row.
    """
    strips, done = totals[block.row], 0
    kv_heads, _, head_dim = part.shape
    for start, stop in block.runs:
        for number in range(start // STRIP, (stop - 1) // STRIP + 1):
            total, begin = strips[number], number * STRIP
            first, last, end = max(start, begin), min(stop, begin + STRIP), begin + total.shape[1]
            piece = part[:, done + first - start : done + last - start].astype("float32")
            if (first, last) != (begin, end):
                zeros = [paddle.zeros([kv_heads, count, head_dim]) for count in (first - begin, end - last)]
                piece = paddle.concat([zeros[0], piece, zeros[1]], axis=1)
            total.add_(piece)
        done += stop - start


def packed_attention(visible_until: np.ndarray, position_ids: np.ndarray) -> Attend:
    """Make the ``attend`` that a decoder calls in training.

    visible_until: int32 [rows, 1, length, 1]; position_ids: int64 [rows, length]; as in a batch. The returned function takes (layer, q, k,
    v, window) with q [rows, length, heads, head_dim] and k, v [rows, length, kv_heads, head_dim], all of one dtype, and returns q's shape
    and dtype. On a GPU in half precision it is Paddle's flash-mask kernel wherever row indices can say what is seen, otherwise the
    blocks of this file, planned once for all layers of a window.
    """
    until, longest = visible_until[:, 0, :, 0], int(position_ids.max()) + 1

    @functools.cache
    def indices(window: int | None) -> Tensor | None:
        rows = window_indices(until, position_ids, window)
        return None if rows is None else paddle.to_tensor(rows[:, None, :, None])

    blocks = functools.cache(lambda window: plan_blocks(until, position_ids, window))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        if window is not None and window >= longest:
            window = None
        if q.place.is_gpu_place() and q.dtype != paddle.float32:
            rows = indices(window)
            if rows is not None:
                return flashmask_attention(q, k, v, rows, causal=True)
        return _BlockAttention.apply(q, k, v, blocks(window), q.shape[-1] ** -0.5)

    return attend
