"""AdamW, its learning rate, gradient clipping, and its state under the weights' own names."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import paddle
from paddle import Tensor
from paddle.optimizer import AdamW

from paddlealign.models.arrays import are_arrays, array_of
from paddlealign.models.parameters import EMBEDDING, LORA_B, cut_axis
from paddlealign.models.threads import in_threads
from paddlealign.parallel.collect import sum_over
from paddlealign.parallel.topology import SINGLE, Topology

# A thread adds up or scales so many of a gradient's elements at a time.
_PIECE = 1 << 20


def learning_rate_at(step: int, total: int, peak: float, warmup: int, kind: str, lowest: float = 0.0) -> float:
    """Learning rate of an optimizer step, as PaddleNLP and HuggingFace count: warmup from 0, then the decay to ``lowest``.

    step: 0 for the first. total: optimizer steps of the whole run. peak: the highest rate. warmup: steps. kind: "linear", "cosine" (half a
    period), "constant" or "constant_with_warmup", which do not decay.
    """
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if kind in ("constant", "constant_with_warmup"):
        return peak
    if kind == "linear":
        return lowest + (peak - lowest) * max(0.0, 1.0 - progress)
    if kind == "cosine":
        return lowest + (peak - lowest) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    raise ValueError(f"lr_scheduler_type {kind!r} is not known")


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to a parameter: not to biases and norms."""
    return not name.endswith((".bias", "norm.weight"))


def make_optimizer(
    named: Sequence[tuple[str, Tensor]], beta1: float, beta2: float, epsilon: float, weight_decay: float, lora_plus_scale: float = 1.0
) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019) over these parameters, with float32 master weights for those in half precision.

    lora_plus_scale: the learning rate of adapters' lora_B, as a multiple of the others' (LoRA+, Hayou et al. 2024).
    """
    for name, parameter in named:
        if name.endswith(LORA_B):
            parameter.optimize_attr["learning_rate"] = lora_plus_scale
    decayed = {parameter.name for name, parameter in named if is_decayed(name)}
    return AdamW(
        learning_rate=0.0,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        parameters=[parameter for _, parameter in named],
        weight_decay=weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
        multi_precision=True,
    )


@paddle.no_grad()
def clip_gradients(named: Iterable[tuple[str, Tensor]], largest: float, topology: Topology = SINGLE, apart: bool = False) -> float:
    """Scale all gradients in place so that their global L2 norm is ``largest`` at most; 0 leaves them as they are.

    The norm is that of the whole model: what tensor parallelism cuts is added up over its processes, what they all hold counts once.
    named: parameters, of which some may have no gradient here. apart: whether the shards have each the gradients of some of them. Returns
    the norm before clipping, summed in float32. A norm that is not finite is returned and nothing is scaled.
    """
    gradients = {name: parameter.grad for name, parameter in named if parameter.grad is not None}
    counted = list(gradients)
    if topology.tensor.rank > 0:  # what all hold whole counts in the first of them
        counted = [name for name in counted if cut_axis(name) is not None]
    if topology.pipeline.rank > 0:  # an embedding that the last stage holds for its head counts in the first
        counted = [name for name in counted if name != EMBEDDING]
    total = _sum_of_squares([gradients[name] for name in counted])
    for axis in (topology.tensor, topology.pipeline, *([topology.shards] if apart else [])):
        total = total if axis.size == 1 else paddle.to_tensor(sum_over(axis, total.numpy()))
    norm = float(paddle.sqrt(total))
    if math.isfinite(norm) and 0 < largest < norm:
        _scale(list(gradients.values()), largest / norm)
    return norm


def _sum_of_squares(gradients: Sequence[Tensor]) -> Tensor:
    """The sum of all squared elements, float32 []."""
    if not gradients:
        return paddle.zeros([])
    if not are_arrays(*gradients):
        return paddle.stack([paddle.sum(paddle.square(it.astype("float32"))) for it in gradients]).sum()
    pieces = _pieces(gradients)

    def add_up(some: range) -> float:
        return sum(float(np.einsum("i,i->", pieces[at], pieces[at])) for at in some)

    return paddle.to_tensor(sum(in_threads(add_up, len(pieces), gradients[0].place)), dtype="float32")


def _scale(gradients: Sequence[Tensor], factor: float) -> None:
    """Multiply all elements by a factor, in place."""
    if not are_arrays(*gradients):
        for gradient in gradients:
            gradient.scale_(factor)
        return
    pieces = _pieces(gradients)

    def scale(some: range) -> None:
        for at in some:
            pieces[at] *= np.float32(factor)

    in_threads(scale, len(pieces), gradients[0].place)


def _pieces(gradients: Sequence[Tensor]) -> list[np.ndarray]:
    """The memory of gradients on the CPU in pieces of ``_PIECE`` elements at most."""
    flat = [array_of(it).reshape(-1) for it in gradients]
    return [it[at : at + _PIECE] for it in flat for at in range(0, len(it), _PIECE)]


def optimizer_state(optimizer: AdamW, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The optimizer's own tensors under the names of its parameters.

    Returns ``<name>.moment1`` and ``<name>.moment2`` in the parameter's shape, ``<name>.master`` where it has a float32 master weight, and
    the powers of the two betas, "beta1_pow" and "beta2_pow" [1], which are the same for all. In Paddle's layout, not copied.
    """
    named = list(named)
    _make_state(optimizer, named)
    moments = optimizer._accumulators
    state = {}
    for name, parameter in named:
        key = _state_key(optimizer, parameter)
        for moment in ("moment1", "moment2"):
            state[f"{name}.{moment}"] = moments[moment][key]
        if parameter.name in optimizer._master_weights:
            state[f"{name}.master"] = optimizer._master_weights[parameter.name]
    for power in ("beta1_pow", "beta2_pow"):
        state[power] = moments[f"{power}_acc"][key]
    return state


def load_optimizer_state(optimizer: AdamW, named: Sequence[tuple[str, Tensor]], read: Callable[[str], np.ndarray]) -> None:
    """Put back what ``optimizer_state`` gave. read: gives the values of a name; it raises KeyError where there are none."""
    _make_state(optimizer, named)
    moments = optimizer._accumulators
    powers = {power: read(power) for power in ("beta1_pow", "beta2_pow")}
    for name, parameter in named:
        key = _state_key(optimizer, parameter)
        targets = {moment: moments[moment][key] for moment in ("moment1", "moment2")}
        if parameter.name in optimizer._master_weights:
            targets["master"] = optimizer._master_weights[parameter.name]
        for kind, target in targets.items():
            target.set_value(read(f"{name}.{kind}"))
        for power, value in powers.items():
            moments[f"{power}_acc"][key].set_value(value)


def _make_state(optimizer: AdamW, named: Sequence[tuple[str, Tensor]]) -> None:
    """Give the optimizer the tensors that its first update would; those that it has stay."""
    block = paddle.base.framework.default_main_program().global_block()
    optimizer._create_accumulators(block, [parameter for _, parameter in named])


def _state_key(optimizer: AdamW, parameter: Tensor) -> str:
    """Paddle keys moments by automatic names: the master weight's where there is one."""
    master = optimizer._master_weights.get(parameter.name)
    return parameter.name if master is None else master.name
