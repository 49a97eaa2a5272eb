"""What is planned: a training step's rows, the layout of the devices, and what of the model each device holds."""

import math
from dataclasses import dataclass

from paddlealign.models.config import DecoderConfig
from paddlealign.models.parameters import EMBEDDING, cut_layers, head_name, held_shapes, parameter_shapes
from paddlealign.parallel.sharding import owners_of

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Row:
    """One row of the data: a prompt, laid down once, and its responses.

    tokens: of the prompt and all responses. scored_share: which share of them the responses are. responses: 1 for SFT, 2 for a pair.
    """

    tokens: float
    scored_share: float
    responses: int

    @property
    def scored(self) -> float:
        """Tokens of the responses."""
        return self.tokens * self.scored_share

    def seen_pairs(self, window: int | None) -> float:
        """How many pairs of a query and a key that it sees: causal, responses do not see each other, ``window`` positions back at most."""
        prompt, response = self.tokens - self.scored, self.scored / self.responses

        def causal(length: float) -> float:
            near = length if window is None else min(length, window)
            return near * near / 2 + (length - near) * near

        return causal(prompt) + self.responses * (causal(prompt + response) - causal(prompt))


def head_positions(config: DecoderConfig, row: Row) -> float:
    """How many hidden states of a row meet the head: its scored tokens, or one of each response in a reward model."""
    return row.responses if config.head == "score" else row.scored


@dataclass(frozen=True)
class Job:
    """What is trained, whatever the layout.

    reference: the config of a reference model that stays in memory (DPO, frozen), or None. dtype, level: see ``training.precision``.
    longest: the row that memory is counted for. usual: the row that time is counted for. on_cpu: whether attention runs in blocks
    instead of on flash-mask's kernel. reference_bytes: of one held weight of the reference; None: as many as of a trained one.
    """

    config: DecoderConfig
    reference: DecoderConfig | None
    dtype: str
    level: str
    longest: Row
    usual: Row
    on_cpu: bool = False
    reference_bytes: int | None = None

    @property
    def weight_bytes(self) -> int:
        """Of one held weight."""
        return NUMBER_BYTES[self.dtype] if self.level == "O2" else 4

    @property
    def stream_bytes(self) -> int:
        """Of one number between the layers. O1 multiplies in half precision and adds to a float32 stream."""
        return self.weight_bytes


@dataclass(frozen=True)
class Layout:
    """How the devices share the work: tensor x pipeline x data of them.

    sharding: 0 to 3, ZeRO's stage over ``shards`` of the data processes. rows: of a micro-batch, on one data process.
    micro_batches: of a step, on each.
    """

    tensor: int
    pipeline: int
    data: int
    sharding: int
    shards: int
    sequence_parallel: bool
    recompute: bool
    rows: int
    micro_batches: int

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.tensor * self.pipeline * self.data

    @property
    def bubble(self) -> float:
        """The share of a step in which a stage waits (Narayanan et al. 2021, 2.2.1): (stages - 1) / (micro-batches + stages - 1)."""
        return (self.pipeline - 1) / (self.micro_batches + self.pipeline - 1)


@dataclass(frozen=True)
class Holding:
    """What one stage's device holds of a model, in elements.

    layers: how many. total: all parameters. whole: of these embedding, last norm and head, which stage 3 leaves whole. layer: one layer.
    largest: the largest parameter. head: the output weights, 0 where the stage has none. embedding: likewise. owned: what the process with
    the most owns under sharding, of all parameters; owned_layers: of the layers'.
    """

    layers: int
    total: int
    whole: int
    layer: int
    largest: int
    head: int
    embedding: int
    owned: int
    owned_layers: int


def hold(config: DecoderConfig, layout: Layout, stage: int) -> Holding:
    """What a device of a stage holds under a layout; see ``Holding``."""
    shapes = held_shapes(parameter_shapes(config), config, layout.tensor, layout.pipeline, stage)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    first, last = cut_layers(config.num_layers, layout.pipeline, stage)
    in_layers = {name: size for name, size in sizes.items() if name.startswith("model.layers.")}
    owners = {EMBEDDING: 0, **owners_of(sizes, layout.shards, first=EMBEDDING)}
    total, of_layers = [0] * layout.shards, [0] * layout.shards
    for name, size in sizes.items():
        total[owners[name]] += size
        of_layers[owners[name]] += size if name in in_layers else 0
    return Holding(
        layers=last - first,
        total=sum(total),
        whole=sum(total) - sum(of_layers),
        layer=sum(size for name, size in in_layers.items() if name.startswith(f"model.layers.{first}.")),
        largest=max(sizes.values()),
        head=sizes[head_name(config)] if stage == layout.pipeline - 1 else 0,
        embedding=sizes[EMBEDDING] if stage == 0 else 0,
        owned=max(total),
        owned_layers=max(of_layers),
    )
