"""What a process holds of a model that several share: read, and no more than that."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import attach
from paddlealign.models.makers import WHOLE_LAYERS, TensorLayers, Visits
from paddlealign.models.parameters import EMBEDDING, LoraSettings, adapter_shapes, held_shapes, parameter_shapes
from paddlealign.models.tricks import ALL_TRICKS, Tricks
from paddlealign.models.weights import load_model
from paddlealign.parallel.sharding import Sharding, owners_of
from paddlealign.parallel.tensor import tensor_makers
from paddlealign.parallel.topology import Topology


def load_share(
    folder: str | Path,
    dtype: str,
    vocab_size: int,
    allow_pickle: bool,
    topology: Topology,
    sharding_stage: int = 0,
    sequence_parallel: bool = False,
    config: DecoderConfig | None = None,
    lora: LoraSettings | None = None,
    tricks: Tricks = ALL_TRICKS,
) -> tuple[Decoder, Sharding]:
    """Read this process's part of a model, and say which process of the shards keeps what of it.

    folder, dtype, vocab_size, allow_pickle, config: see ``weights.load_model``. sharding_stage: 0 to 3, see ``parallel.sharding``.
    sequence_parallel: see ``parallel.tensor``. lora: the adapters that are put beside the weights, as zeros; every process holds them whole
    at all stages. tricks: see ``models.tricks``.
    """
    stages, stage = topology.pipeline.size, topology.pipeline.rank
    config = replace(config or read_config(folder), vocab_size=vocab_size)

    def owners(shapes: Mapping[str, tuple[int, ...]], first: str = "") -> dict[str, int]:
        held = held_shapes(shapes, config, topology.tensor.size, stages, stage)
        return owners_of({name: math.prod(shape) for name, shape in held.items()}, topology.shards.size, first)

    # An embedding that is tied to the head is held by the first stage and the last, and its gradients are added up between equal places.
    owned = {EMBEDDING: 0, **owners(parameter_shapes(config), first=EMBEDDING)}
    if lora is not None:
        owned |= owners(adapter_shapes(config, lora))
    sharding = Sharding(sharding_stage, owned, topology)
    make = TensorLayers(*tensor_makers(topology.tensor, sequence_parallel)) if topology.tensor.size > 1 else WHOLE_LAYERS
    visits = Visits(sharding.built, sharding.enter) if sharding_stage == 3 else None
    model = load_model(folder, dtype, vocab_size, allow_pickle, make, (stages, stage), visits, config, tricks)
    if lora is not None:
        attach(model, lora, str(folder))
    return model, sharding
