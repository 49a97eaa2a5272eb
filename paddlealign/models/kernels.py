"""The small functions that a decoder spends its time in, each with its own backward: norm, rotary, SwiGLU.

Written as one step each because Paddle's CPU build is slow at many elementwise operators in a row: every intermediate tensor
costs a pass over memory, and most of these work in place. They run as they are on any device and in any floating dtype;
what must be exact is computed in float32 inside and cast back, as HuggingFace's LLaMA does.
"""

from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from paddlealign.objectives.sums import row_sums


def _outer(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    """The product of rows, float32 [..., 1], and columns, float32 [size], in the shape of ``like`` [..., size].

    Paddle's CPU build is four times slower where it broadcasts than where it multiplies matrices. On a GPU a product of matrices might
    be rounded to fewer digits (TF32).
    """
    if not rows.place.is_cpu_place():
        return rows * columns
    return paddle.mm(rows.reshape([-1, 1]), columns.unsqueeze(0)).reshape(like.shape)


def _weighted_sum(x: Tensor, factors: Tensor) -> Tensor:
    """The sum of the rows of x, float32 [rows, size], each with its factor, float32 [rows]: [size]."""
    if not x.place.is_cpu_place():
        return (x * factors.unsqueeze(1)).sum(0)
    return paddle.mm(factors.unsqueeze(0), x).squeeze(0)


def _row_means(x: Tensor) -> Tensor:
    """The mean of each row, float32 [..., size] to [..., 1]."""
    return row_sums(x.reshape([-1, x.shape[-1]])).reshape([*x.shape[:-1], 1]).scale_(1.0 / x.shape[-1])


class _RMSNorm(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        with paddle.amp.auto_cast(enable=False):
            wide = x.astype("float32")
            inverse = paddle.rsqrt(_row_means(paddle.square(wide)).scale_(1.0, bias=epsilon))
            ctx.save_for_backward(x, weight, inverse)
            ctx.frozen = weight.stop_gradient
            if x.dtype == weight.dtype == paddle.float32:
                return _outer(inverse, weight, x).multiply_(x)
            return (wide * inverse).astype(x.dtype).multiply_(weight.astype(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Any]:
        x, weight, inverse = ctx.saved_tensor()
        wide, grad = x.astype("float32"), grad.astype("float32")
        grad_weight = None
        if not ctx.frozen:
            products, factors = (grad * wide).reshape([-1, x.shape[-1]]), inverse.reshape([-1])
            grad_weight = _weighted_sum(products, factors).astype(weight.dtype)
        # d/dx of x / rms(x): the part of the gradient along the normed vector is taken away.
        grad_x = _outer(inverse, weight.astype("float32"), x).multiply_(grad)
        along = _row_means(grad_x * wide).multiply_(paddle.square(inverse))
        grad_x.subtract_(_outer(along, paddle.ones([x.shape[-1]]), x).multiply_(wide))
        return grad_x.astype(x.dtype), grad_weight


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Root mean square norm: ``x / sqrt(mean(x^2) + epsilon) * weight`` (Zhang and Sennrich 2019, equation 4).

    x: [..., hidden], any floating dtype; the mean is taken in float32. weight: [hidden]. Returns x's shape and dtype.
    """
    return _RMSNorm.apply(x, weight, epsilon)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Layer norm (Ba et al. 2016). x: [..., hidden]; weight, bias: [hidden]. Returns x's shape and dtype."""
    if weight.stop_gradient:
        # Paddle's CPU kernel gives x a wrong gradient where the weight is frozen (tests/parity/test_lora.py).
        weight = weight.detach()
        weight.stop_gradient = False
    return paddle.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def _swap_halves(x: Tensor) -> Tensor:
    """[..., size] with each vector's halves exchanged. As rows of halves, which Paddle's CPU build copies far faster than slices."""
    halves = x.reshape([-1, x.shape[-1] // 2])
    return paddle.gather(halves, paddle.bitwise_xor(paddle.arange(halves.shape[0]), paddle.ones([1], "int64"))).reshape(x.shape)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    """Turn what the tables are for by their angles, or the other way: ``x cos + swapped sin``, where swapped has the halves exchanged."""
    dim = cos.shape[-1]
    turned = x[..., :dim].astype("float32") if dim < x.shape[-1] else x.astype("float32")
    # Tables that were repeated for more heads than x has: of all heads they are the same.
    cos, sin = (table[:, :, : x.shape[2]] if table.shape[2] > x.shape[2] else table for table in (cos, sin))
    swapped = _swap_halves(turned).multiply_(sin)
    turned = (turned * cos).subtract_(swapped) if back else (turned * cos).add_(swapped)
    turned = turned.astype(x.dtype)
    return turned if dim == x.shape[-1] else paddle.concat([turned, x[..., dim:]], axis=-1)


class _Rotary(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # A rotation's transpose is the rotation back, scaled alike. The tables need no gradient.
        cos, sin = ctx.saved_tensor()
        return _rotate(grad, cos, sin, back=True)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in HuggingFace's layout: the first half of what is turned against its second half (Su et al. 2021).

    x: [rows, length, heads, head_dim]; cos, sin: from ``rotary_tables``, for as many heads or more, which must not require a gradient.
    Elements from ``dim`` on stay as they are. Returns x's shape and dtype; the rotation is done in float32.
    """
    return _Rotary.apply(x, cos, sin)


def rotary_tables(position_ids: Tensor, frequencies: Tensor, scale: float, heads: int) -> tuple[Tensor, Tensor]:
    """Cosine, and sine with the sign that it has in each half (minus in the first), for each position: two float32 [rows, length, n, dim].

    position_ids: int64 [rows, length]. frequencies: float32 [dim / 2] or [rows, length, 1, dim / 2], radians per position. scale: a factor
    on both tables (the attention factor of some rope scalings). n: on a CPU the most heads that are turned, ``heads``, elsewhere 1:
    Paddle's CPU build is 16 times slower where it has to broadcast in the middle.
    """
    angles = position_ids.astype("float32").unsqueeze(-1).unsqueeze(-1) * frequencies
    cos, sin = paddle.cos(angles) * scale, paddle.sin(angles) * scale
    times = heads if angles.place.is_cpu_place() else 1
    shape = [*cos.shape[:2], times, 2 * cos.shape[-1]]
    return paddle.concat([cos, cos] * times, axis=-1).reshape(shape), paddle.concat([-sin, sin] * times, axis=-1).reshape(shape)


class _SwiGLU(PyLayer):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return paddle.nn.functional.silu(gate).multiply_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensor()
        sigmoid = paddle.nn.functional.sigmoid(gate)
        silu = sigmoid * gate
        # d silu = sigmoid * (1 + gate * (1 - sigmoid)) = sigmoid + silu * (1 - sigmoid)
        slope = (1.0 - sigmoid).multiply_(silu).add_(sigmoid)
        return slope.multiply_(grad).multiply_(up), silu.multiply_(grad)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up`` (Shazeer 2020, equation 5). Both [..., intermediate] of one dtype; returns the same."""
    return _SwiGLU.apply(gate, up)
