"""Attention of float32 heads on the CPU, block by block, by MKL's products and NumPy on the tensors' own memory.

Nothing is transposed or copied: a head's vectors are read, and its outputs and gradients written, where they lie among the others.
A block's scores, float32 [heads, queries, keys] of a few heads at a time, lie in a buffer that the next block uses again. A few, because
threads wait for Python before each step of the work, and not more than a core's cache holds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.models.arrays import array_of, multiply
from paddlealign.models.attention_blocks import Block
from paddlealign.models.threads import in_threads

# So many scores at a time (2 MB), or one head's.
SCORES = 1 << 19
# Sums of exp(scores) beyond these limits are made again with each query's highest score taken away.
_LEAST_SUM, _GREATEST_SUM = 1e-25, 1e25


@dataclass(frozen=True)
class _Heads:
    """What attention reads and writes.

    query, out: [rows, length, heads, head_dim]. key, value: [rows, length, kv_heads, head_dim]. logs: log sum exp of each query's scores,
    [rows, heads, length]. scale: of the scores.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    out: np.ndarray
    logs: np.ndarray
    scale: float

    @property
    def group(self) -> int:
        """How many query heads look at a key head."""
        return self.query.shape[2] // self.key.shape[2]


@dataclass(frozen=True)
class _Work:
    """A block of some heads, first .. last - 1."""

    block: Block
    first: int
    last: int

    @property
    def queries(self) -> tuple[int, slice, slice]:
        """Where the queries lie in [rows, length, heads, size]."""
        return self.block.row, slice(self.block.start, self.block.stop), slice(self.first, self.last)

    @property
    def logs(self) -> tuple[int, slice, slice]:
        """Where the queries lie in [rows, heads, length]."""
        row, queries, heads = self.queries
        return row, heads, queries

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the scores: heads, queries, keys."""
        return self.last - self.first, self.block.stop - self.block.start, self.block.keys

    def scores_in(self, buffer: np.ndarray) -> np.ndarray:
        """The beginning of a buffer as scores, [heads, queries, keys]."""
        return buffer[: math.prod(self.shape)].reshape(self.shape)

    def products(self, group: int) -> Iterator[tuple[int, tuple[int, slice, int], tuple[int, slice, int], slice]]:
        """Each head with each run of keys: its place in the scores, where its queries and its keys lie, and the keys' columns of scores."""
        for head in range(self.first, self.last):
            for columns, keys in self.block.places():
                queries = self.block.row, slice(self.block.start, self.block.stop), head
                yield head - self.first, queries, (self.block.row, keys, head // group), columns


def _works(blocks: Sequence[Block], heads: range) -> list[_Work]:
    """The blocks of these heads, as many heads at a time as have about ``SCORES`` scores."""
    works = []
    for block in blocks:
        some = max(1, SCORES // ((block.stop - block.start) * block.keys))
        works += [_Work(block, first, min(first + some, heads.stop)) for first in range(heads.start, heads.stop, some)]
    return works


def _buffer(works: Sequence[_Work]) -> np.ndarray:
    """Memory for the scores of any of them."""
    return np.empty(max(math.prod(it.shape) for it in works), np.float32)


def mix(q: Tensor, k: Tensor, v: Tensor, blocks: Sequence[Block], scale: float) -> tuple[Tensor, Tensor]:
    """The output of attention, of q's shape, and log sum exp of each query's scores, [rows, heads, length].

    q: [rows, length, heads, head_dim]; k, v: [rows, length, kv_heads, head_dim]; all float32, on the CPU, contiguous.
    """
    out, logs = paddle.empty(q.shape), paddle.empty([q.shape[0], q.shape[2], q.shape[1]])
    heads = _Heads(array_of(q), array_of(k), array_of(v), array_of(out), array_of(logs), scale)

    def mix_heads(kv_heads: range) -> None:
        works = _works(blocks, range(kv_heads.start * heads.group, kv_heads.stop * heads.group))
        buffer = _buffer(works)
        for work in works:
            _mix_block(heads, work, work.scores_in(buffer))

    in_threads(mix_heads, k.shape[2], q.place)
    return out, logs


def _mix_block(heads: _Heads, work: _Work, weights: np.ndarray) -> None:
    """Write a block's outputs and logs. weights: where its scores are to be."""
    _write_scores(heads, work, weights)
    np.exp(weights, out=weights)
    sums, highest = weights.sum(-1), np.float32(0.0)
    if not (sums.min() > _LEAST_SUM and sums.max() < _GREATEST_SUM):  # nor where one is not a number
        _write_scores(heads, work, weights)
        highest = weights.max(-1)
        weights -= highest[:, :, None]
        np.exp(weights, out=weights)
        sums = weights.sum(-1)
    for place, queries, keys, columns in work.products(heads.group):
        multiply(weights[place][:, columns], heads.value[keys], heads.out[queries], add=columns.start > 0)
    heads.out[work.queries] /= sums.T[:, :, None]
    heads.logs[work.logs] = np.log(sums) + highest


def _write_scores(heads: _Heads, work: _Work, scores: np.ndarray) -> None:
    for place, queries, keys, columns in work.products(heads.group):
        multiply(heads.query[queries], heads.key[keys].T, scores[place][:, columns], heads.scale)
    if work.block.bias is not None:
        scores[:, :, work.block.clear :] += work.block.bias


def gradients(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, logs: Tensor, grad: Tensor, blocks: Sequence[Block], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v. out, logs: as ``mix`` gave them; grad: the output's gradient, float32, contiguous."""
    found = paddle.zeros(q.shape), paddle.zeros(k.shape), paddle.zeros(v.shape)
    heads = _Heads(array_of(q), array_of(k), array_of(v), array_of(out), array_of(logs), scale)
    upstream, totals = array_of(grad), (array_of(found[0]), array_of(found[1]), array_of(found[2]))

    def add_heads(kv_heads: range) -> None:
        works = _works(blocks, range(kv_heads.start * heads.group, kv_heads.stop * heads.group))
        buffers = _buffer(works), _buffer(works)
        for work in works:
            _add_gradients(heads, upstream, work, (work.scores_in(buffers[0]), work.scores_in(buffers[1])), totals)

    in_threads(add_heads, k.shape[2], q.place)
    return found


def _add_gradients(
    heads: _Heads,
    upstream: np.ndarray,
    work: _Work,
    room: tuple[np.ndarray, np.ndarray],
    totals: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Add a block's gradients to totals: those of queries, keys and values. upstream: the output's gradient; room: for scores, twice."""
    weights, slope = room
    logs = heads.logs[work.logs][:, :, None]
    weights[:, :, : work.block.clear] = -logs
    if work.block.bias is not None:
        np.subtract(work.block.bias, logs, out=weights[:, :, work.block.clear :])
    # Of softmax: P * (dP - sum(dP * P)) with dP = dO V^T and sum(dP * P) = sum(dO * O).
    slope[:] = -np.einsum("qhd,qhd->hq", upstream[work.queries], heads.out[work.queries])[:, :, None]
    for place, queries, keys, columns in work.products(heads.group):
        multiply(heads.query[queries], heads.key[keys].T, weights[place][:, columns], heads.scale, add=True)
        multiply(upstream[queries], heads.value[keys].T, slope[place][:, columns], add=True)
    np.exp(weights, out=weights)
    slope *= weights
    of_queries, of_keys, of_values = totals
    for place, queries, keys, columns in work.products(heads.group):
        multiply(slope[place][:, columns], heads.key[keys], of_queries[queries], heads.scale, add=True)
        multiply(slope[place][:, columns].T, heads.query[queries], of_keys[keys], heads.scale, add=True)
        multiply(weights[place][:, columns].T, upstream[queries], of_values[keys], add=True)
