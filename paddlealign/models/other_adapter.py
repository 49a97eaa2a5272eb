"""An adapter that stands beside a decoder's layers only for a while, in the place of the one that is trained or of none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from paddle import Tensor

from paddlealign.models.decoder import Decoder
from paddlealign.models.linear import Adapter, Linear
from paddlealign.models.parameters import LoraSettings


@dataclass(frozen=True)
class OtherAdapter:
    """Settings, and lora_A and lora_B of each layer by its path, cut as the layer's weight is. NO_ADAPTER has neither."""

    adapter: Adapter | None
    pairs: Mapping[str, tuple[Tensor, Tensor]]


NO_ADAPTER = OtherAdapter(None, {})


def zero_adapter(model: Decoder, settings: LoraSettings, base: str) -> OtherAdapter:
    """An adapter of zeros for ``model``, which may have another one; in the place of it once it is ``worn``. base: see ``Adapter``."""
    linear = {path: layer for path, layer in _linear(model).items() if path.rpartition(".")[2] in settings.targets}
    return OtherAdapter(Adapter(settings, base), {path: layer.zero_pair(settings.rank) for path, layer in linear.items()})


@contextmanager
def worn(model: Decoder, other: OtherAdapter) -> Iterator[None]:
    """The decoder with the other adapter in the place of its own: it computes with it, and whatever asks for what is trained finds it."""
    layers = _linear(model)
    own = OtherAdapter(model.adapter, {path: (it.lora_A, it.lora_B) for path, it in layers.items() if it.adapter is not None})
    _put(model, layers, other)
    try:
        yield
    finally:
        _put(model, layers, own)


def _linear(model: Decoder) -> dict[str, Linear]:
    return {path: layer for path, layer in model.named_sublayers() if isinstance(layer, Linear)}


def _put(model: Decoder, layers: Mapping[str, Linear], other: OtherAdapter) -> None:
    model.model.adapter = other.adapter
    for path, layer in layers.items():
        layer.stand_beside(other.adapter, other.pairs.get(path))
