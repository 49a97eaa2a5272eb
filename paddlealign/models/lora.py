"""Low-rank adaptation (LoRA, Hu et al. 2021) of a decoder: adapters attached, given their first values, and merged into the weights."""

import zlib
from collections.abc import Callable

import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.config import DecoderConfig
from paddlealign.models.decoder import Decoder
from paddlealign.models.families import FAMILIES
from paddlealign.models.linear import Adapter, Linear
from paddlealign.models.parameters import LORA_A, LORA_B, LoraSettings, linear_modules, share_of, take_share

ALL_LINEAR = "all-linear"


def choose_targets(config: DecoderConfig, asked: list[str], key: str) -> tuple[str, ...]:
    """The modules that get an adapter: those asked for by name, or all of a layer's linear ones for "all-linear". key: of the messages.

    Raises UserError for a name that the model does not have, and for one of several modules that are one tensor in the family's files:
    there an adapter has one lora_A for all of them, which these cannot be written as.
    """
    modules, fused = linear_modules(config), fused_modules(config)
    free = [name for name in modules if name not in fused]
    unknown = [name for name in asked if name not in (*modules, ALL_LINEAR)]
    if unknown:
        raise UserError(
            f"{key}: {', '.join(unknown)}: no linear module of this model's layers; there are {', '.join(modules)}, {ALL_LINEAR}."
        )
    targets = modules if ALL_LINEAR in asked else tuple(name for name in modules if name in asked)
    together = [name for name in targets if name in fused]
    if together:
        raise UserError(
            f"{key}: {', '.join(together)}: one tensor with others in the files of a {config.family} model, so that no adapter of theirs "
            f"could be written for peft. Name some of {', '.join(free)}."
        )
    return targets


def fused_modules(config: DecoderConfig) -> set[str]:
    """The names of those modules that are one tensor with others in the family's files."""
    return {part.rpartition(".")[2] for parts in FAMILIES[config.family].layout.fused.values() for part in parts}


def attach(model: Decoder, settings: LoraSettings, base: str) -> None:
    """Put adapters of zeros beside the targets' weights, and freeze all that is not trained; the model computes what it computed before.

    base: see ``Adapter``.
    """
    for name, parameter in model.named_parameters():
        parameter.stop_gradient = name not in settings.whole
    adapter = model.model.adapter = Adapter(settings, base)
    for path, layer in model.named_sublayers():
        if isinstance(layer, Linear) and path.rpartition(".")[2] in settings.targets:
            layer.attach(adapter)


def first_values(model: Decoder, seed: int) -> Callable[[str], np.ndarray | None]:
    """A new adapter's values by name, float32: lora_B is zero, and lora_A uniform within 1 / sqrt(inputs), as in peft; for ``fill``.

    They depend on the seed and the parameter's name, not on what a process holds.
    """
    shapes = model.trained_shapes()

    def values(name: str) -> np.ndarray | None:
        if name.endswith(LORA_B):
            return np.zeros(shapes[name], "float32")
        if not name.endswith(LORA_A):
            return None
        bound = shapes[name][0] ** -0.5
        return np.random.default_rng([seed, zlib.crc32(name.encode())]).uniform(-bound, bound, shapes[name]).astype("float32")

    return values


@paddle.no_grad()
def fill(model: Decoder, values: Callable[[str], np.ndarray | None]) -> None:
    """Give what is trained here its share of ``values``: a whole parameter by name, in Paddle's layout, or None for one that stays."""
    shapes = model.trained_shapes()
    for name, parameter in model.trained():
        value = values(name)
        if value is not None:
            share = share_of(name, shapes[name], model.make.part, model.make.parts)
            parameter.set_value(paddle.to_tensor(take_share(value, share).astype("float32")).astype(parameter.dtype))


@paddle.no_grad()
def merge(model: Decoder) -> None:
    """Add what the adapters add to the weights themselves, in the weights' dtype, and take the adapters away."""
    adapter = model.adapter
    if adapter is None:
        return
    for layer in model.sublayers():
        if isinstance(layer, Linear) and layer.adapter is not None:
            layer.weight.add_(paddle.matmul(layer.lora_A, layer.lora_B) * adapter.settings.scale)
            layer.adapter = None
            del layer.lora_A, layer.lora_B
    model.model.adapter = None
