"""Stand-ins for the half-precision kernels that Paddle's CPU build lacks, so that the flow of dtypes can be run and looked at.

Each computes in float32 and rounds. Where the real kernel takes one dtype only, so does its stand-in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import paddle
import pytest
from paddle import Tensor

from paddlealign.training.precision import Precision, choose_precision

HALF = (paddle.bfloat16, paddle.float16)
# Kernels that exist; they are only watched. Paddle widens where dtypes meet, which costs memory that nobody asked for.
WATCHED = ("__sub__", "__mul__", "subtract_", "multiply_", "subtract", "multiply")


class HalfKernels:
    """What was seen while the stand-ins were in place.

    mixed: names of operators that met two dtypes. attended: dtypes of each (q, k, v). cast_to: the dtype of matmuls under ``autocast``.
    """

    def __init__(self):
        self.mixed: list[str] = []
        self.outputs: set[paddle.dtype] = set()
        self.cast_to: paddle.dtype | None = None

    @contextmanager
    def autocast(self, kind: paddle.dtype) -> Iterator[None]:
        """What ``paddle.amp.auto_cast(level="O1")`` does to matmuls and linear layers on a GPU."""
        self.cast_to = kind
        try:
            yield
        finally:
            self.cast_to = None

    def multiplied(self, real: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """A matrix product of one dtype; anything else is a TypeError, as on a GPU."""
        if self.cast_to is not None:
            tensors = tuple(tensor.astype(self.cast_to) for tensor in tensors)
        kinds = {tensor.dtype for tensor in tensors}
        if len(kinds) > 1:
            raise TypeError(f"a matrix product of {kinds}")
        (kind,) = kinds
        product = real(*(tensor.astype("float32") for tensor in tensors)).astype(kind)
        self.outputs.add(kind)
        return product

    def note(self, name: str, *operands: object) -> None:
        """Remember an operator that met two dtypes."""
        if len({operand.dtype for operand in operands if isinstance(operand, Tensor)}) > 1:
            self.mixed.append(name)


def install(patch: pytest.MonkeyPatch) -> HalfKernels:
    """Put the stand-ins in place for one test."""
    kernels = HalfKernels()
    functional = paddle.nn.functional
    real_matmul, real_linear, real_adamw = paddle.matmul, functional.linear, paddle._C_ops.adamw_
    real_gelu, real_layer_norm, real_c_embedding = functional.gelu, functional.layer_norm, paddle._C_ops.c_embedding
    real_add, real_add_in_place = Tensor.__add__, Tensor.add_

    def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
        return kernels.multiplied(lambda a, b: real_matmul(a, b, transpose_x, transpose_y), x, y)

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, name: str | None = None) -> Tensor:
        return kernels.multiplied(real_linear, x, weight, *(() if bias is None else (bias,)))

    def rounded(real: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: real(x.astype("float32")).astype(x.dtype)

    def gelu(x: Tensor, approximate: bool = False) -> Tensor:
        return real_gelu(x.astype("float32"), approximate).astype(x.dtype)

    def layer_norm(input: Tensor, normalized_shape: list[int], weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:  # noqa: A002 - Paddle's name
        """As on a GPU: one dtype for all, the mean and the variance in float32."""
        if {weight.dtype, bias.dtype} != {input.dtype}:
            raise TypeError(f"a layer norm of {input.dtype} with {weight.dtype} and {bias.dtype}")
        wide, scale, shift = (tensor.astype("float32") for tensor in (input, weight, bias))
        return real_layer_norm(wide, normalized_shape, scale, shift, epsilon).astype(input.dtype)

    def add(x: Tensor, y: object) -> Tensor:
        kernels.note("+", x, y)
        if isinstance(y, Tensor) and x.dtype == y.dtype and x.dtype in HALF:
            return real_add(x.astype("float32"), y.astype("float32")).astype(x.dtype)
        return real_add(x, y)

    def add_in_place(x: Tensor, y: Tensor) -> Tensor:
        kernels.note("add_", x, y)
        if x.dtype not in HALF:
            return real_add_in_place(x, y)
        return paddle.assign(real_add(x.astype("float32"), y.astype("float32")).astype(x.dtype), output=x)

    def adamw(weight: Tensor, *rest: object) -> tuple[Tensor | None, ...]:
        if weight.dtype not in HALF:
            return real_adamw(weight, *rest)
        master, several = rest[7], rest[17]
        assert isinstance(master, Tensor) and master.dtype == paddle.float32 and several is True
        alone = (*rest[:7], None, *rest[8:17], False, *rest[18:])
        real_adamw(master, *alone)
        paddle.assign(master.astype(weight.dtype), output=weight)
        return (None,) * 7

    def c_embedding(table: Tensor, *rest: object) -> Tensor:
        return real_c_embedding(table.astype("float32"), *rest).astype(table.dtype)

    def watched(name: str) -> Callable[..., Tensor]:
        real = getattr(Tensor, name)

        def operator(x: Tensor, y: object) -> Tensor:
            kernels.note(name, x, y)
            return real(x, y)

        return operator

    patch.setattr(paddle, "matmul", matmul)
    patch.setattr(functional, "linear", linear)
    patch.setattr(functional, "gelu", gelu)
    patch.setattr(functional, "layer_norm", layer_norm)
    patch.setattr(functional, "silu", rounded(functional.silu))
    patch.setattr(functional, "sigmoid", rounded(functional.sigmoid))
    patch.setattr(paddle._C_ops, "adamw_", adamw)
    patch.setattr(paddle._C_ops, "c_embedding", c_embedding)
    patch.setattr(Tensor, "__add__", add)
    patch.setattr(Tensor, "__radd__", add)
    patch.setattr(Tensor, "add_", add_in_place)
    for name in WATCHED:
        patch.setattr(Tensor, name, watched(name))
    return kernels


def loss_scaling(monkeypatch: pytest.MonkeyPatch) -> Precision:
    """float16's loss scaling around float32 arithmetic: GradScaler believes that it is on a GPU.

    No auto_cast has been entered before, as under O2, where none is needed: GradScaler must not switch itself off for that.
    """
    monkeypatch.setattr(paddle.amp.grad_scaler.amp_global_state(), "amp_dtype", "float32")
    place = SimpleNamespace(is_gpu_place=lambda: True)
    monkeypatch.setattr(paddle.amp.grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    monkeypatch.setattr(Precision, "autocast", lambda self: nullcontext())
    precision, remark = choose_precision(bf16=False, fp16=True, level="O1", device="gpu")
    assert remark is None and precision.weights_dtype == "float32"
    assert precision.scaler is not None and precision.scaler.is_enable()
    return precision
