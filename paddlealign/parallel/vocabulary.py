"""Log-probs of the scored tokens where the ranks of a tensor axis hold a part of the vocabulary each, without gathered logits."""

from dataclasses import dataclass
from typing import Any

import paddle
import paddle.distributed as dist
from paddle import Tensor
from paddle.autograd import PyLayer

from paddlealign.objectives.sums import row_sums
from paddlealign.parallel.collect import join_shares
from paddlealign.parallel.topology import Axis

# Logits of this rank's part are made for so many of their elements at a time (128 MB in float32).
CHUNK_ELEMENTS = 1 << 25
# The logit of a row that only pads the vocabulary: no softmax sees it. Finite, since a rank may hold nothing but padding: inf - inf is NaN.
_NEVER = float(paddle.finfo(paddle.float32).min)


@dataclass(frozen=True)
class _Part:
    """This rank's part of the vocabulary: how many rows it has, the id of its first, and how many of them are tokens."""

    axis: Axis
    vocabulary_first: bool
    width: int
    first: int
    tokens: int


class _TokenLogps(PyLayer):
    """Keeps the last chunk's exp(logits) for backward, as ``models.head`` does."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, target_ids: Tensor, part: _Part) -> tuple[Tensor, Tensor]:
        here, places = _targets_here(target_ids, part)
        highests, totals, picks = [], [], []
        shares = None
        for start, stop in _chunks(hidden.shape[0], part.width):
            del shares  # before the next chunk's are made
            raw = paddle.matmul(hidden[start:stop], head, transpose_y=part.vocabulary_first)
            # Autocast multiplies in another dtype than it is given, and is off in backward: the logits there must be these.
            ctx.dtype = raw.dtype
            shares = _covered(raw.astype("float32"), _NEVER, part)
            del raw
            picks.append(paddle.take_along_axis(shares, places[start:stop].unsqueeze(1), 1).squeeze(1))
            highest = shares.max(-1, keepdim=True)
            highests.append(highest.squeeze(1))
            totals.append(row_sums(shares.subtract_(highest).exp_()))
        own = paddle.concat(highests)
        highest = own.clone()
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=part.axis.group)
        total = paddle.concat(totals) * paddle.exp(own - highest)
        picked = paddle.where(here, paddle.concat(picks), paddle.zeros_like(own))
        sums = paddle.stack([total, picked])
        dist.all_reduce(sums, group=part.axis.group)
        total, picked = sums.unbind(0)
        normaliser = total.log() + highest
        ctx.save_for_backward(hidden, head, target_ids, normaliser)
        ctx.shares, ctx.scales, ctx.part = shares, paddle.exp(own - normaliser), part
        ctx.frozen = head.stop_gradient
        correct = picked >= highest
        ctx.mark_non_differentiable(correct)
        return picked - normaliser, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Any]:
        hidden, head, target_ids, normaliser = ctx.saved_tensor()
        part = ctx.part
        rows_dtype, head_dtype = hidden.dtype, head.dtype
        hidden, head = hidden.astype(ctx.dtype), head.astype(ctx.dtype)
        here, places = _targets_here(target_ids, part)
        at_target = paddle.where(here, grad, paddle.zeros_like(grad)).unsqueeze(1)
        grad_hidden = []
        grad_head = None if ctx.frozen else paddle.zeros(head.shape, "float32")
        for start, stop in reversed(_chunks(hidden.shape[0], part.width)):
            rows = hidden[start:stop]
            # d logp / d logits = one_hot(target) - softmax; the one stands on the rank that holds the target.
            if ctx.shares is None:
                logits = paddle.matmul(rows, head, transpose_y=part.vocabulary_first).astype("float32")
                slope = logits.subtract_(normaliser[start:stop].unsqueeze(1)).exp_()
                del logits
            else:
                slope, ctx.shares = ctx.shares.multiply_(ctx.scales[start:stop].unsqueeze(1)), None  # once, and written over
            slope = slope.multiply_(-grad[start:stop].unsqueeze(1))
            slope = paddle.put_along_axis(slope, places[start:stop].unsqueeze(1), at_target[start:stop], 1, reduce="add")
            slope = _covered(slope, 0.0, part).astype(ctx.dtype)
            grad_hidden.append(paddle.matmul(slope, head, transpose_y=not part.vocabulary_first))
            if grad_head is not None:
                left, right = (slope, rows) if part.vocabulary_first else (rows, slope)
                grad_head.add_(paddle.matmul(left, right, transpose_x=True).astype("float32"))
        whole = paddle.concat(grad_hidden[::-1]).astype(rows_dtype)
        dist.all_reduce(whole, group=part.axis.group)
        return whole, None if grad_head is None else grad_head.astype(head_dtype)


def _chunks(rows: int, width: int) -> list[tuple[int, int]]:
    """Ranges of rows whose logits have CHUNK_ELEMENTS elements at most, the last as many as that: it is kept."""
    size = max(1, CHUNK_ELEMENTS // width)
    return [(max(0, stop - size), stop) for stop in range(rows % size or size, rows + 1, size)]


def _targets_here(target_ids: Tensor, part: _Part) -> tuple[Tensor, Tensor]:
    """Whether each target is a row of this part, bool [targets], and which, int64 [targets]; any row for a target of another part."""
    places = target_ids - part.first
    return (places >= 0).logical_and(places < part.width), places.clip(0, part.width - 1)


def _covered(values: Tensor, cover: float, part: _Part) -> Tensor:
    """Put ``cover`` in place of the values of padding, [rows, width]."""
    if part.tokens < part.width:
        values[:, part.tokens :] = cover
    return values


def token_logps(
    axis: Axis, hidden: Tensor, head: Tensor, target_ids: Tensor, vocabulary_first: bool, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target under the softmax over the whole vocabulary, in float32 from the logits on.

    axis: the ranks that share the vocabulary, two at least, in the order of their parts. hidden: [targets, hidden], the same on every
    rank. head: this rank's part, [width, hidden] (``vocabulary_first``) or [hidden, width], where width x ranks is vocab_size or more;
    rows beyond vocab_size are padding, whose values count nowhere and whose gradient is 0. target_ids: int64 [targets], ids of the
    whole vocabulary. Returns the log-probs, float32 [targets], and whether each target is the first choice, bool [targets], bit-equal on
    every rank; where logits tie at the top, each of them is a first choice.

    With m the highest logit of all ranks, log p(t) = z_t - m - log(sum over ranks of sum_v exp(z_v - m)). Two all-reduces, of [targets]
    and of [2, targets], however many chunks there are. Backward computes all but the last chunk's logits again and
    adds up the ranks' gradients of ``hidden``, in its dtype, in one all-reduce; every rank must be given the same gradient of the
    log-probs.
    """
    return _TokenLogps.apply(hidden, head, target_ids, _part(axis, head, vocabulary_first, vocab_size))


@paddle.no_grad()
def collision_logps(axis: Axis, hidden: Tensor, head: Tensor, vocabulary_first: bool, vocab_size: int) -> Tensor:
    """``log sum_v p(v)^2`` over the whole vocabulary: see ``head.collision_logps``; for the arguments, ``token_logps``.

    Two all-reduces, of [targets] and of [2, targets]. Returns float32 [targets] without a gradient, bit-equal on every rank.
    """
    part = _part(axis, head, vocabulary_first, vocab_size)
    highests, totals, squares = [], [], []
    for start, stop in _chunks(hidden.shape[0], part.width):
        logits = _covered(paddle.matmul(hidden[start:stop], head, transpose_y=vocabulary_first).astype("float32"), _NEVER, part)
        highest = logits.max(-1, keepdim=True)
        highests.append(highest.squeeze(1))
        shares = logits.subtract_(highest).exp_()
        totals.append(row_sums(shares))
        squares.append(row_sums(shares.square_()))
    own = paddle.concat(highests)
    highest = own.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=axis.group)
    factor = paddle.exp(own - highest)
    sums = paddle.stack([paddle.concat(totals) * factor, paddle.concat(squares) * factor.square()])
    dist.all_reduce(sums, group=axis.group)
    return sums[1].log() - sums[0].log().scale(2.0)


def _part(axis: Axis, head: Tensor, vocabulary_first: bool, vocab_size: int) -> _Part:
    width = head.shape[0 if vocabulary_first else 1]
    first = axis.rank * width
    return _Part(axis, vocabulary_first, width, first, min(max(vocab_size - first, 0), width))


def gather_logits(axis: Axis, logits: Tensor, vocab_size: int) -> Tensor:
    """Put the ranks' logits together, for generation: [..., width] on each rank to [..., vocab_size] on all of them, without padding.

    No gradient flows back. On an axis of one rank these are its logits.
    """
    return join_shares(axis, logits, -1)[..., :vocab_size]
