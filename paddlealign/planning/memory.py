"""The memory of one device, counted from what the decoder's kernels keep for backward and from what a step holds.

What is held grows and shrinks within a step, so a few moments are counted and the highest is the answer: the head's backward and the last
layer's, when all activations are there; the first layer's, when the gradients are; and the update. Left out: what Paddle itself takes,
collectives' buffers, and memory that the allocator cannot use for its pieces. `scripts/measure/memory.py` holds this to runs on a CPU.
"""

from dataclasses import dataclass

from paddlealign.models.attention_blocks import QUERY_BLOCK
from paddlealign.models.config import DecoderConfig
from paddlealign.models.head import CHUNK_ELEMENTS
from paddlealign.planning.layout import NUMBER_BYTES, Holding, Job, Layout

MOMENTS = (
    "in the head's backward of the first micro-batch",
    "in the last layer's backward of the first micro-batch",
    "in the first layer's backward of the first micro-batch",
    "in the head's backward of a later micro-batch",
    "in the last layer's backward of a later micro-batch",
    "in the first layer's backward of a later micro-batch",
    "in the update",
)


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the moment when it holds most.

    weights: with a layer that stage 3 has brought together. optimizer: moments and float32 masters. reference: a frozen model. gradients:
    sums, and those of the micro-batch. activations: what is kept for backward, and one layer's intermediate results. head: a chunk of
    logits, and what its backward makes of them. moment: one of MOMENTS.
    """

    weights: float
    optimizer: float
    reference: float
    gradients: float
    activations: float
    head: float
    moment: str

    def parts(self) -> dict[str, float]:
        """Everything by its name."""
        return {name: value for name, value in vars(self).items() if name != "moment"}

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts().values())


def layer_bytes(config: DecoderConfig, job: Job, layout: Layout) -> float:
    """What one layer keeps for backward, for each token: the inputs of its norms, matmuls, rotations, attention and activation.

    Tensor parallelism cuts what lies between a column layer and a row layer; under sequence_parallel the layer's inputs too, but not
    the norms' outputs, which are brought together for the column layers. O1 casts these once for each of them.
    """
    stream, width, cut = job.stream_bytes, NUMBER_BYTES[job.dtype], layout.tensor
    gates = 2 if config.activation == "swiglu" else 1
    residuals: float = config.hidden_size * stream * (1 if config.parallel_residual else 2)
    normed = config.hidden_size * width * (3 + gates if width != stream else 2)
    if layout.sequence_parallel:
        residuals /= cut
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    inner = 2 * queries + 2 * keys + (queries + keys if config.qk_norm else 0) + (1 + gates) * config.intermediate_size
    # In float32 whatever the dtype: of the two norms the inverse, of attention the log-sum-exp of each head.
    sums = 4 * 2 + 4 * config.num_heads / cut
    return residuals + normed + inner * width / cut + sums


def stage_bytes(config: DecoderConfig, job: Job, layout: Layout, stage: int, layers: int) -> float:
    """What a stage keeps of one micro-batch for backward, for each token where the head meets all of them."""
    whole = config.hidden_size * job.stream_bytes
    stream = whole / layout.tensor if layout.sequence_parallel else whole
    kept = layers * (stream if layout.recompute else layer_bytes(config, job, layout))
    kept += stream + whole if stage == layout.pipeline - 1 else stream  # the last norm's input and output, or what was sent on
    kept += 8 * config.rope.dim * (config.num_heads / layout.tensor if job.on_cpu else 1)  # cosines and sines, see ``rotary_tables``
    return kept + (4 * QUERY_BLOCK if job.on_cpu else 0)  # the mask of each block of queries


def unmet_bytes(config: DecoderConfig, job: Job, layout: Layout) -> float:
    """What of a last stage's bytes of a token is not kept where no head meets it: the last layer's behind attention, the last norm's."""
    stream, width = job.stream_bytes, NUMBER_BYTES[job.dtype]
    of_norm = 2.0 * config.hidden_size * stream
    if layout.recompute:
        return of_norm
    gates = 2 if config.activation == "swiglu" else 1
    attended = 0 if config.parallel_residual else config.hidden_size * stream
    normed = config.hidden_size * width * (gates if width != stream else 1)
    return of_norm + attended + normed + (1 + gates) * config.intermediate_size * width / layout.tensor + 4


def met_bytes(config: DecoderConfig, job: Job, layout: Layout) -> float:
    """What a last stage keeps in addition of a token that the head meets: copies of attention's output and of a parallel block's input."""
    if layout.sequence_parallel:
        return config.hidden_size * job.stream_bytes  # of the last norm's output
    if layout.recompute:
        return 0.0
    copied = config.num_heads * config.head_dim * NUMBER_BYTES[job.dtype] / layout.tensor
    return copied + (config.hidden_size * job.stream_bytes if config.parallel_residual else 0.0)


def head_bytes(config: DecoderConfig, job: Job, holding: Holding, targets: float) -> float:
    """What the head's backward holds at once: logits as they become their slope, the weights' gradient, and in half its product."""
    width = NUMBER_BYTES[job.dtype]
    vocabulary = holding.head / config.hidden_size
    chunk = min(targets, max(1, CHUNK_ELEMENTS // vocabulary)) * vocabulary
    if width == 4:
        return max(4 * chunk + 4 * holding.head, 8 * holding.head if config.tie_embeddings else 0)  # an embedding's is turned round last
    copied = 2 * holding.head if job.level == "O1" else 0  # the weights in the dtype of the matmul
    return max(8 * chunk + 4 * holding.head, 6 * chunk + 10 * holding.head) + copied


def _work_bytes(config: DecoderConfig, job: Job, layout: Layout) -> float:
    """The intermediate results of a layer's backward, for each token: three of the activation's size, or three of a norm's in float32."""
    return 3 * max(config.intermediate_size / layout.tensor * NUMBER_BYTES[job.dtype], config.hidden_size * 4)


def stage_memory(
    job: Job, layout: Layout, stage: int, holding: Holding, reference: Holding | None, tokens: float, targets: float
) -> Memory:
    """The memory of one of a stage's devices.

    holding, reference: see ``layout.hold``; of the trained model and of the reference that stays in memory. tokens, targets: positions and
    scored tokens of a micro-batch.
    """
    config, held, half = job.config, job.weight_bytes, job.weight_bytes < 4
    owned = holding.owned if layout.sharding else holding.total
    weights = held * holding.total
    if layout.sharding == 3:
        weights = held * (holding.owned_layers + holding.whole + holding.layer)
    optimizer = (12 if half else 8) * owned

    # Half-precision gradients are moved into float32 sums after each micro-batch. Float32 ones add up by themselves, at their owner.
    apart = half or layout.sharding >= 2
    sums = 4.0 * (owned if layout.sharding >= 2 else holding.total)
    computed = holding.whole + holding.layer if layout.sharding == 3 else holding.total
    fresh = held * computed * (1 if half else 1 - owned / holding.total) if apart else 0.0
    of_head = held * holding.head

    casts = 2.0 * holding.layer if job.level == "O1" and job.dtype != "float32" else 0.0
    layer = layer_bytes(config, job, layout) * tokens + casts
    kept = stage_bytes(config, job, layout, stage, holding.layers) * tokens
    if stage == layout.pipeline - 1:
        kept += targets * met_bytes(config, job, layout)
        kept -= 0.0 if layout.sequence_parallel else (tokens - targets) * unmet_bytes(config, job, layout)
    kept += 0.0 if layout.recompute else casts * holding.layers
    work = _work_bytes(config, job, layout) * tokens + (layer if layout.recompute else 0.0)
    left = layer if not layout.recompute else 0.0  # of the micro-batch whose first layer is about to be done
    embedding = held * holding.embedding
    head = head_bytes(config, job, holding, targets) if holding.head else 0.0

    alive = min(layout.pipeline - stage, layout.micro_batches)
    later = min(alive, layout.micro_batches - 1)
    first_done = sums if not apart else fresh
    held_at = [
        (0.0, kept * alive, head),
        (of_head, kept * alive + work, 0.0),
        (first_done + embedding * holding_is_tied(config, holding), kept * (alive - 1) + left + work, 0.0),
    ]
    if layout.micro_batches > 1:
        held_at += [
            (sums, kept * later, head),
            (sums + of_head * apart, kept * later + work, 0.0),
            (sums + fresh + embedding, kept * (later - 1) + left + work, 0.0),
        ]
    else:
        held_at += [(0.0, 0.0, 0.0)] * 3
    held_at.append((sums + 4.0 * holding.largest, 0.0, 0.0))
    resident = (job.reference_bytes or held) * reference.total if reference else 0.0
    gradients, activations, logits, moment = max(((*parts, moment) for parts, moment in zip(held_at, MOMENTS, strict=True)), key=_sum)
    return Memory(weights, optimizer, resident, gradients, activations, logits, moment)


def holding_is_tied(config: DecoderConfig, holding: Holding) -> bool:
    """Whether the stage has one tensor as embedding and head, whose two gradients meet."""
    return config.tie_embeddings and holding.head > 0 and holding.embedding > 0


def _sum(parts: tuple[float, float, float, str]) -> float:
    return parts[0] + parts[1] + parts[2]
