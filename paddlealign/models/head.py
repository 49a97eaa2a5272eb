"""From hidden states to the log-probs of the scored tokens, without a tensor of [tokens, vocabulary]."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from paddlealign.models.arrays import are_arrays, array_of
from paddlealign.models.threads import in_threads
from paddlealign.objectives.sums import row_sums

# Logits are made for so many of their elements at a time (128 MB in float32).
CHUNK_ELEMENTS = 1 << 25
# Of them a thread works on so many at a time (1 MB), which stay in its core's cache.
_PIECE = 1 << 18


class _TokenLogps(PyLayer):
    """Keeps the last chunk's exp(logits), with which backward begins: no more is held at once than where they are made again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, target_ids: Tensor, vocabulary_first: bool) -> tuple[Tensor, Tensor]:
        logps, normalisers, correct = [], [], []
        shares = None
        for start, stop in _chunks(hidden.shape[0], head.shape[0 if vocabulary_first else 1]):
            del shares  # before the next chunk's are made
            raw = paddle.matmul(hidden[start:stop], head, transpose_y=vocabulary_first)
            # Autocast multiplies in another dtype than it is given, and is off in backward: the logits there must be these.
            ctx.dtype = raw.dtype
            shares = raw.astype("float32")
            del raw
            picked = _flat(shares).gather(_places(target_ids[start:stop], shares))
            highest, normaliser = _log_sums(shares)
            correct.append(picked >= highest)
            logps.append(picked - normaliser)
            normalisers.append(normaliser)
        ctx.shares, ctx.scales = shares, paddle.exp(highest - normaliser)
        ctx.save_for_backward(hidden, head, target_ids, paddle.concat(normalisers))
        ctx.vocabulary_first = vocabulary_first
        ctx.frozen = head.stop_gradient
        right = paddle.concat(correct)
        ctx.mark_non_differentiable(right)
        return paddle.concat(logps), right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Any]:
        hidden, head, target_ids, normalisers = ctx.saved_tensor()
        vocabulary_first = ctx.vocabulary_first
        rows_dtype, head_dtype = hidden.dtype, head.dtype
        hidden, head = hidden.astype(ctx.dtype), head.astype(ctx.dtype)
        grad_hidden = []
        vocabulary = head.shape[0 if vocabulary_first else 1]
        grad_head = None
        for start, stop in reversed(_chunks(hidden.shape[0], vocabulary)):
            rows, upstream = hidden[start:stop], grad[start:stop]
            # d logp / d logits = one_hot(target) - softmax
            if ctx.shares is None:
                logits = paddle.matmul(rows, head, transpose_y=vocabulary_first).astype("float32")
                slope = _scaled_exp(logits, normalisers[start:stop], -upstream)
                del logits
            else:
                slope, ctx.shares = _scaled(ctx.shares, -upstream * ctx.scales), None  # once, and written over
            places = _places(target_ids[start:stop], slope)
            _flat(slope).scatter_(places, _flat(slope).gather(places) + upstream)
            slope = slope.astype(ctx.dtype)
            grad_hidden.append(paddle.matmul(slope, head, transpose_y=not vocabulary_first))
            if not ctx.frozen:
                grad_head = _product_and(grad_head, rows, slope)
            del slope
        found = paddle.concat(grad_hidden[::-1]).astype(rows_dtype)
        if grad_head is None:
            return found, None
        return found, (grad_head.t().contiguous() if vocabulary_first else grad_head).astype(head_dtype)


def _log_sums(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row its highest element and log sum exp, float32 [rows]; logits, float32 [rows, vocab], become exp(logits - highest)."""
    if not are_arrays(logits):
        highest = logits.max(-1, keepdim=True)
        return highest.squeeze(1), row_sums(logits.subtract_(highest).exp_()).log_().add_(highest.squeeze(1))
    highest, normalisers = paddle.empty([len(logits)]), paddle.empty([len(logits)])
    elements, highs, sums = map(array_of, (logits, highest, normalisers))

    def work(rows: range) -> None:
        for own in _pieces(rows, elements.shape[1]):
            elements[own].max(1, out=highs[own])
            shares = _exp_below(elements[own], highs[own])
            sums[own] = np.log(shares.sum(1)) + highs[own]

    in_threads(work, len(logits), logits.place)
    return highest, normalisers


def _scaled_exp(logits: Tensor, normalisers: Tensor, factors: Tensor) -> Tensor:
    """The factor times exp(logits - normaliser), in the place of the logits: float32 [rows, vocab]. normalisers, factors: [rows]."""
    if not are_arrays(logits):
        return logits.subtract_(normalisers.unsqueeze(1)).exp_().multiply_(factors.unsqueeze(1))
    elements, logs, times = map(array_of, (logits, normalisers, factors))

    def work(rows: range) -> None:
        for own in _pieces(rows, elements.shape[1]):
            shares = _exp_below(elements[own], logs[own])
            shares *= times[own, None]

    in_threads(work, len(logits), logits.place)
    return logits


def _scaled(shares: Tensor, factors: Tensor) -> Tensor:
    """Multiply each row by its factor, in place. shares: float32 [rows, columns]; factors: [rows]."""
    if not are_arrays(shares):
        return shares.multiply_(factors.unsqueeze(1))
    elements, times = map(array_of, (shares, factors))

    def work(rows: range) -> None:
        for own in _pieces(rows, elements.shape[1]):
            elements[own] *= times[own, None]

    in_threads(work, len(shares), shares.place)
    return shares


def _exp_below(elements: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """exp(elements - rows), in place. elements: [n, columns]; rows: [n]."""
    elements -= rows[:, None]
    return np.exp(elements, out=elements)


def _pieces(rows: range, columns: int) -> Iterator[slice]:
    """Rows a few at a time, ``_PIECE`` elements or one row."""
    size = max(1, _PIECE // columns)
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _flat(x: Tensor) -> Tensor:
    """A view of x as one row. Paddle's operators that pick or put along an axis copy the whole tensor."""
    return x.reshape([-1])


def _places(target_ids: Tensor, logits: Tensor) -> Tensor:
    """Where each row's target lies in ``_flat(logits)``, int64 [rows]."""
    return paddle.arange(len(logits)) * logits.shape[1] + target_ids


def _product_and(total: Tensor | None, rows: Tensor, slope: Tensor) -> Tensor:
    """``rows^T slope``, float32 [hidden, vocab]; added to total in place where there is one. rows: [n, hidden]; slope: [n, vocab]."""
    if total is not None and slope.dtype == paddle.float32:
        return total.addmm_(rows.t(), slope)  # without a tensor for the product
    product = paddle.matmul(rows, slope, transpose_x=True).astype("float32")
    return product if total is None else total.add_(product)


def _chunks(rows: int, vocabulary: int) -> list[tuple[int, int]]:
    """Ranges of rows whose logits have CHUNK_ELEMENTS elements at most, the last as many as that: it is kept."""
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [(max(0, stop - size), stop) for stop in range(rows % size or size, rows + 1, size)]


def token_logps(hidden: Tensor, head: Tensor, target_ids: Tensor, vocabulary_first: bool) -> tuple[Tensor, Tensor]:
    """Log-probability of each target under the softmax of the head's logits, in float32 from the logits on.

    hidden: [targets, hidden], one row for each scored token. head: [vocab, hidden] (``vocabulary_first``: an embedding) or [hidden,
    vocab] (a linear layer); both are used as they lie, without a transposed copy. target_ids: int64 [targets]. Returns the
    log-probs, float32 [targets], and whether each target is the first choice, bool [targets]. Logits exist for one chunk of rows at
    a time; backward has those of the last chunk from forward and computes the others again.
    """
    return _TokenLogps.apply(hidden, head, target_ids, vocabulary_first)


@paddle.no_grad()
def collision_logps(hidden: Tensor, head: Tensor, vocabulary_first: bool) -> Tensor:
    """``log sum_v p(v)^2``: the log-probability that two tokens drawn in one place are the same.

    hidden, head, vocabulary_first: see ``token_logps``. Returns float32 [targets] without a gradient; logits are made a chunk at a time.
    """
    found = []
    for start, stop in _chunks(hidden.shape[0], head.shape[0 if vocabulary_first else 1]):
        logits = paddle.matmul(hidden[start:stop], head, transpose_y=vocabulary_first).astype("float32")
        shares = logits.subtract_(logits.max(-1, keepdim=True)).exp_()
        total = row_sums(shares)
        found.append(row_sums(shares.square_()).log() - total.log().scale(2.0))
    return paddle.concat(found)
