"""What each trick saves of a training step, counted: pure functions of a configuration and of how long the texts are.

Arithmetic is counted as paddlealign.planning counts it, 2 operations for a multiplication and an addition. Each function says beside what
it counts. ``passes``: how often a layer's forward is worth in a step: 3 with its backward, 4 where it is recomputed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paddlealign.models.config import DecoderConfig
from paddlealign.models.head import CHUNK_ELEMENTS
from paddlealign.planning.compute import BEHIND_ATTENTION, head_forward, layer_weights, layers_forward, unread_forward
from paddlealign.planning.layout import NUMBER_BYTES, Job, Layout, Row
from paddlealign.planning.memory import layer_bytes, stage_bytes

WIDE = 4  # bytes of a float32 number


@dataclass(frozen=True)
class Text:
    """One example in tokens: a prompt and its responses, all of whose tokens are scored."""

    prompt: int
    responses: tuple[int, ...]

    @property
    def scored(self) -> int:
        """Tokens of the responses."""
        return sum(self.responses)

    @property
    def tokens(self) -> int:
        """With the prompt once."""
        return self.prompt + self.scored

    @property
    def seen_pairs(self) -> int:
        """Pairs of a query and a key that it sees, itself included; responses do not see each other."""
        own = sum(size * (size + 1) // 2 for size in (self.prompt, *self.responses))
        return own + self.prompt * self.scored

    def row(self) -> Row:
        """As planning describes it."""
        return Row(self.tokens, self.scored / self.tokens, len(self.responses))


def kept_bytes(config: DecoderConfig, job: Job, layout: Layout) -> float:
    """What each token of a micro-batch takes until its backward; under recompute the layers' inputs, and one layer whole."""
    kept = stage_bytes(config, job, layout, 0, config.num_layers)
    return kept + (layer_bytes(config, job, layout) if layout.recompute else 0.0)


def layers_flops(config: DecoderConfig, text: Text) -> float:
    """Operations of a forward through all layers, the last one behind its attention for scored tokens alone."""
    return layers_forward(config, text.row(), 0, config.num_layers) - unread_forward(config, text.row())


def repeated_prompts(text: Text) -> int:
    """Tokens that a prompt laid down once for all its responses saves, beside a row for each response."""
    return (len(text.responses) - 1) * text.prompt


def prompt_once_flops(config: DecoderConfig, text: Text, passes: int) -> float:
    """Operations that the same saves in the layers."""
    apart = [Text(text.prompt, (size,)) for size in text.responses]
    return passes * (sum(layers_flops(config, it) for it in apart) - layers_flops(config, text))


def padding_tokens(texts: Sequence[Text]) -> int:
    """Positions of a rectangle, a row for each text and as wide as the longest, that hold no token."""
    return len(texts) * max(text.tokens for text in texts) - sum(text.tokens for text in texts)


def padding_flops(config: DecoderConfig, texts: Sequence[Text], passes: int) -> float:
    """Operations that packed rows save in the layers' matrices; attention to padding is not counted."""
    weights = layer_weights(config) * config.num_layers - layer_weights(config, BEHIND_ATTENTION)
    return passes * 2.0 * weights * padding_tokens(texts)


def unread_flops(config: DecoderConfig, text: Text, passes: int) -> float:
    """Operations behind the last layer's attention that are saved where the head does not look."""
    return passes * unread_forward(config, text.row())


def unscored_head_flops(config: DecoderConfig, text: Text) -> float:
    """Operations that a head on scored tokens alone saves, beside one on every token: forward and backward."""
    return 3 * 2.0 * config.hidden_size * config.vocab_size * (text.tokens - text.scored)


def logits_bytes(config: DecoderConfig, dtype: str, positions: int) -> float:
    """What plain cross-entropy holds of so many positions: logits in the dtype, and their softmax in float32."""
    return float(positions * config.vocab_size * (NUMBER_BYTES[dtype] + WIDE))


def chunk_bytes(config: DecoderConfig, positions: int) -> float:
    """What the chunked head holds in their place: one chunk of logits and its slope, in float32."""
    return 2.0 * WIDE * config.vocab_size * min(positions, max(1, CHUNK_ELEMENTS // config.vocab_size))


def recomputed_head_flops(config: DecoderConfig, positions: int) -> float:
    """Operations of a micro-batch's logits that are computed again in backward: those of so many positions but for one chunk."""
    return 2.0 * config.hidden_size * config.vocab_size * max(0, positions - max(1, CHUNK_ELEMENTS // config.vocab_size))


def reference_flops(config: DecoderConfig, text: Text) -> float:
    """Operations of the reference's forward, which cached log-probs save in every pass over the rows but the one that fills the cache."""
    return layers_flops(config, text) + head_forward(config, text.row())


def unseen_pairs(texts: Sequence[Text], square: bool = True) -> int:
    """Pairs of a query and a key, of the texts behind each other in one row, that no mask lets through.

    square: beside all pairs; otherwise beside those of one causal text as long as the row.
    """
    length = sum(text.tokens for text in texts)
    every = length * length if square else length * (length + 1) // 2
    return every - sum(text.seen_pairs for text in texts)


def attention_flops(config: DecoderConfig, pairs: int, passes: int) -> float:
    """Operations of so many pairs in all layers: a product of query and key, and one of weight and value."""
    return passes * 4.0 * config.num_heads * config.head_dim * config.num_layers * pairs


def score_bytes(config: DecoderConfig, dtype: str, length: int, layers: int) -> float:
    """What attention weights [heads, length, length] of so many layers take, in the dtype."""
    return float(layers * config.num_heads * length * length * NUMBER_BYTES[dtype])


def fused_kept_bytes(config: DecoderConfig, dtype: str) -> dict[str, float]:
    """What single operators keep of a token and layer for backward that one with its own backward does not, in bytes.

    norm: two of them, each a float32 copy of its input and the normed values before the weight. rotary: both factors of x cos and of
    rotated x sin, for queries and keys. swiglu: silu(gate) beside gate and up.
    """
    width, rotated = NUMBER_BYTES[dtype], (config.num_heads + config.num_kv_heads) * config.head_dim
    return {
        "norm": 2.0 * config.hidden_size * (WIDE + width),
        "rotary": 2.0 * rotated * width,
        "swiglu": float(config.intermediate_size * width),
    }


def fused_moved_bytes(config: DecoderConfig, dtype: str) -> dict[str, float]:
    """What single operators read and write more than one pass, of a token and layer in one forward, in bytes.

    norm: cast (w + 4), square (8), mean (4), product (8), cast (4 + w), weight (2 w) beside 2 w, twice a layer. rotary: negated half (w),
    concat (2 w), two products (4 w), sum (3 w) beside 2 w. swiglu: silu (2 w) and product (3 w) beside 3 w. w: bytes of the dtype.
    """
    width, rotated = NUMBER_BYTES[dtype], (config.num_heads + config.num_kv_heads) * config.head_dim
    return {
        "norm": 2.0 * config.hidden_size * (7 * WIDE + 2 * width),
        "rotary": 8.0 * rotated * width,
        "swiglu": 2.0 * config.intermediate_size * width,
    }
