"""The arithmetic of a row: matmuls and attention, counted as 2 operations for a multiplication and an addition.

Norms, rotations, activations, softmax and the optimizer are left out: they are bound by memory, and small beside these.
"""

import math
from collections import Counter
from dataclasses import replace

from paddlealign.models.config import DecoderConfig
from paddlealign.models.head import CHUNK_ELEMENTS
from paddlealign.models.parameters import parameter_shapes
from paddlealign.planning.layout import Job, Layout, Row, head_positions

# Names of the matrices behind a layer's attention hold one of these.
BEHIND_ATTENTION = (".o_proj.", ".mlp.")


def layer_weights(config: DecoderConfig, parts: tuple[str, ...] = ("",)) -> int:
    """Elements of the matrices of one layer, which every token is multiplied with. parts: of those alone whose names hold one of these."""
    shapes = parameter_shapes(replace(config, num_layers=1))
    matrices = {name: shape for name, shape in shapes.items() if name.startswith("model.layers.") and len(shape) == 2}
    return sum(math.prod(shape) for name, shape in matrices.items() if any(part in name for part in parts))


def layers_forward(config: DecoderConfig, row: Row, first: int, last: int) -> float:
    """Operations of the layers ``first`` to ``last`` - 1 for one row.

    2 for each weight and token, and in attention 2 x 2 x heads x head_dim for each pair of a query and a key that it sees: for one
    causal text of n tokens that is 2 n^2 x hidden a layer.
    """
    windows = Counter(config.windows[first:last])
    attention = sum(count * 4.0 * config.num_heads * config.head_dim * row.seen_pairs(window) for window, count in windows.items())
    return 2.0 * layer_weights(config) * (last - first) * row.tokens + attention


def unread_forward(config: DecoderConfig, row: Row) -> float:
    """Those of the last layer behind its attention, for the positions that no head meets: training leaves them out."""
    return 2.0 * layer_weights(config, BEHIND_ATTENTION) * (row.tokens - head_positions(config, row))


def head_forward(config: DecoderConfig, row: Row) -> float:
    """Operations of the output head for one row, see ``head_positions``."""
    outputs = 1 if config.head == "score" else config.vocab_size
    return 2.0 * config.hidden_size * outputs * head_positions(config, row)


def model_flops(config: DecoderConfig, row: Row) -> float:
    """Forward and backward of a whole model for one row, nothing computed twice: 6 x weights x tokens, and attention.

    This is the usual measure of useful work (Chowdhery et al. 2022, appendix B), with the causal half of attention and the scored
    tokens only.
    """
    return 3.0 * (layers_forward(config, row, 0, config.num_layers) + head_forward(config, row))


def stage_flops(job: Job, layout: Layout, first: int, last: int, has_head: bool) -> float:
    """What one device of a stage with the layers ``first`` to ``last`` - 1 computes for a micro-batch.

    Forward once, backward twice that; a recomputed layer forward once more, and the head but for a chunk of its logits; a frozen reference
    forward.
    """
    config, row = job.config, job.usual
    passes = 4 if layout.recompute else 3
    reads_all = not has_head or layout.sequence_parallel
    total = passes * (layers_forward(config, row, first, last) - (0.0 if reads_all else unread_forward(config, row)))
    if has_head:
        logits = layout.rows * head_positions(config, row) * (1 if config.head == "score" else config.vocab_size) / layout.tensor
        total += (4 - min(1.0, CHUNK_ELEMENTS / logits)) * head_forward(config, row)
    if job.reference:
        layers = job.reference.num_layers
        total += layers_forward(job.reference, row, first * layers // config.num_layers, last * layers // config.num_layers)
        total += head_forward(job.reference, row) if has_head else 0.0
        total -= 0.0 if reads_all else unread_forward(job.reference, row)
    return layout.rows * total / layout.tensor
