"""Attention over packed and branched rows, described on every device by flash-mask row indices.

A key at column j may be seen by the queries in rows j .. visible_until[j] - 1 of its packed row: causal, and cut off where its
example or its branch ends (FlashMask, Wang et al. 2024, the causal one-column form). On a GPU in half precision Paddle's own
kernel takes these indices. Everywhere else the same is computed here, head by head, in blocks of queries, each against those runs of
keys that at least one of its queries may see. No [length, length] matrix exists: scores live as long as their block of one head, which
a core's cache holds, and what is kept is a mask for each block from its first key that not every query sees, which is at the diagonal or
at an example's start.

A layer with a sliding window sees in addition only keys fewer than ``window`` positions back. Positions, not columns, count: a response
that lies behind another one is as near to the prompt as the first.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn.functional.flash_attention import flashmask_attention

from paddlealign.models.threads import in_threads

Attend = Callable[[int, Tensor, Tensor, Tensor, int | None], Tensor]

QUERY_BLOCK = 256
KEY_BLOCK = 64
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


def _query_ranges(until: np.ndarray) -> list[tuple[int, int]]:
    """Cut a row, int32 [length], into ranges of at most QUERY_BLOCK queries: whole examples where they fit, equal parts of longer ones."""
    length = len(until)
    ends = np.flatnonzero(np.maximum.accumulate(until) <= np.arange(1, length + 1)) + 1  # nothing so far is seen from there on
    ranges: list[tuple[int, int]] = []
    start = last = 0
    for end in [*ends.tolist(), length]:
        if end - start > QUERY_BLOCK:
            if last > start:
                ranges.append((start, last))
            parts = -(-(end - last) // QUERY_BLOCK)
            cuts = [last + (end - last) * part // parts for part in range(parts + 1)]
            ranges += list(itertools.pairwise(cuts[:-1]))
            start = cuts[-2]
        last = end
    return [*ranges, (start, length)]


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
    for row, (until, positions) in enumerate(zip(visible_until, position_ids, strict=True)):
        for start, stop in _query_ranges(until):
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


def _rows_of(x: Tensor, block: _Block) -> Tensor:
    """The block's key columns of one head, x [length, size]: [keys, size]."""
    parts = [x[start:stop] for start, stop in block.runs]
    return parts[0] if len(parts) == 1 else paddle.concat(parts)


def _whole_bias(block: _Block) -> Tensor | None:
    """The block's bias for all its keys: float32 [queries, keys]."""
    if block.bias is None or not block.clear:
        return block.bias
    return paddle.concat([paddle.zeros([block.stop - block.start, block.clear]), block.bias], axis=1)


def _probabilities(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax of a block's scores. query: scaled, [queries, head_dim]; key: [keys, head_dim]. Returns float32 [queries, keys]."""
    scores = paddle.matmul(query, key, transpose_y=True).astype("float32")
    return paddle.nn.functional.softmax(scores if bias is None else scores.add_(bias), axis=-1)


def _by_head(x: Tensor) -> Tensor:
    """[rows, length, heads, size] to [rows, heads, length, size], in which a head's columns lie together."""
    return x.transpose([0, 2, 1, 3]).contiguous()


class _BlockAttention(PyLayer):
    """Keeps q, k, v and the output; probabilities are computed again in backward. Products are made in q's dtype, the rest in float32."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: list[_Block], scale: float) -> Tensor:
        rows, heads, group = q.shape[0], q.shape[2], q.shape[2] // k.shape[2]
        query, key, value = _by_head(q * scale), _by_head(k), _by_head(v)

        def mix(kv_heads: range) -> list[list[Tensor]]:
            """For each row the outputs of the query heads that share these key heads, each [length, head_dim]."""
            parts: list[list[list[Tensor]]] = [[[] for _ in range(len(kv_heads) * group)] for _ in range(rows)]
            for block in blocks:
                bias = _whole_bias(block)
                for place, kv_head in enumerate(kv_heads):
                    keys, values = (_rows_of(x[block.row, kv_head], block) for x in (key, value))
                    for member in range(group):
                        queries = query[block.row, kv_head * group + member, block.start : block.stop]
                        mixed = paddle.matmul(_probabilities(queries, keys, bias).astype(q.dtype), values)
                        parts[block.row][place * group + member].append(mixed)
            return [[paddle.concat(head) for head in row] for row in parts]

        found = in_threads(mix, key.shape[1], q.place)
        by_row = [[head for part in found for head in part[row]] for row in range(rows)]
        out = paddle.stack([paddle.concat(row, axis=1) for row in by_row]).reshape([rows, -1, heads, q.shape[3]])
        ctx.save_for_backward(q, k, v, out)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out = ctx.saved_tensor()
        grads = _head_gradients(q, k, v, out, grad, ctx.blocks, ctx.scale)
        grad_query, grad_key, grad_value = (x.astype(q.dtype).transpose([0, 2, 1, 3]).contiguous() for x in grads)
        return grad_query, grad_key, grad_value


def _head_gradients(q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, blocks: list[_Block], scale: float) -> list[Tensor]:
    """The gradients of q, k and v, float32 and head by head as ``_by_head`` lays them. grad: of the output ``out``."""
    group = q.shape[2] // k.shape[2]
    query, key = _by_head(q * scale), _by_head(k)
    # softmax backward: P * (dP - sum(dP * P)) with dP = dO V^T, and sum(dP * P) = sum(dO * O): one more column of the product
    upstream, value = _by_head(grad), _by_head(v)
    inner = (grad.astype("float32") * out.astype("float32")).sum(-1, keepdim=True).transpose([0, 2, 1, 3])
    above = paddle.concat([upstream, -inner.astype(q.dtype)], axis=-1)
    value = paddle.concat([value, paddle.ones([*value.shape[:3], 1], q.dtype)], axis=-1)
    grads = [paddle.zeros(x.shape) for x in (query, key, key)]

    def back(kv_heads: range) -> None:
        for block in blocks:
            bias = _whole_bias(block)
            for kv_head in kv_heads:
                keys, values = (_rows_of(x[block.row, kv_head], block) for x in (key, value))
                for head in range(kv_head * group, kv_head * group + group):
                    of_block = [x[block.row, head, block.start : block.stop] for x in (query, upstream, above)]
                    totals = [x[block.row, own] for x, own in zip(grads, (head, kv_head, kv_head), strict=True)]
                    _block_back(of_block, keys, values, bias, block, totals)

    in_threads(back, key.shape[1], q.place)
    grads[0].scale_(scale)
    return grads


def _block_back(
    of_block: Sequence[Tensor], keys: Tensor, values: Tensor, bias: Tensor | None, block: _Block, totals: Sequence[Tensor]
) -> None:
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
    done = 0
    for start, stop in block.runs:
        totals[1][start:stop].add_(grad_key[done : done + stop - start])
        totals[2][start:stop].add_(grad_value[done : done + stop - start])
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
