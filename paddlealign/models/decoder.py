"""The decoder: one description, `DecoderConfig`, covers the LLaMA family and its relatives.

Parameters bear HuggingFace's names; linear weights are Paddle's [in, out], the transpose of HuggingFace's. The decoder knows neither
masks nor caches: it is given ``attend``, and training and generation each bring their own.
"""

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute as recomputed

from paddlealign.models.attention import Attend
from paddlealign.models.config import DecoderConfig, rope_frequencies
from paddlealign.models.kernels import rms_norm, rotary, rotary_tables, swiglu

_ZEROS = nn.initializer.Constant(0.0)


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """Make a linear layer of zeros: every parameter is about to be read from a checkpoint."""
    zeros = paddle.ParamAttr(initializer=_ZEROS)
    return nn.Linear(inputs, outputs, weight_attr=zeros, bias_attr=zeros if bias else False)


class RMSNorm(nn.Layer):
    """See ``kernels.rms_norm``. weight: [hidden]."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = self.create_parameter([size], default_initializer=_ZEROS)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] to the same."""
        return rms_norm(x, self.weight, self.epsilon)


class Attention(nn.Layer):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = _linear(config.hidden_size, queries, config.qkv_bias)
        self.k_proj = _linear(config.hidden_size, keys, config.qkv_bias)
        self.v_proj = _linear(config.hidden_size, keys, config.qkv_bias)
        self.o_proj = _linear(queries, config.hidden_size, config.output_bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x: [rows, length, hidden]; cos, sin: see ``kernels.rotary_tables``. Returns x's shape."""
        heads = [*x.shape[:2], -1, self.head_dim]
        q = rotary(self.q_proj(x).reshape(heads), cos, sin)
        k = rotary(self.k_proj(x).reshape(heads), cos, sin)
        mixed = attend(self.layer, q, k, self.v_proj(x).reshape(heads))
        return self.o_proj(mixed.reshape([*x.shape[:2], -1]))


class MLP(nn.Layer):
    """The gated feed-forward block."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.up_proj = _linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.down_proj = _linear(config.intermediate_size, config.hidden_size, config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] to the same."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Layer):
    """Attention, then the MLP, each behind a norm and beside a residual."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x: [rows, length, hidden]. Returns the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class DecoderBody(nn.Layer):
    """Embedding, layers and the last norm: what HuggingFace's names call ``model``."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        zeros = paddle.ParamAttr(initializer=_ZEROS)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, weight_attr=zeros)
        self.layers = nn.LayerList([DecoderLayer(config, layer) for layer in range(config.num_layers)])
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.frequencies = paddle.to_tensor(rope_frequencies(config), dtype="float32")

    def forward(self, input_ids: Tensor, position_ids: Tensor, attend: Attend, recompute: bool) -> Tensor:
        """See ``Decoder.forward``."""
        cos, sin = rotary_tables(position_ids, self.frequencies)
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = recomputed(layer, x, cos, sin, attend) if recompute else layer(x, cos, sin, attend)
        return self.norm(x)


class Decoder(nn.Layer):
    """A decoder with its output head. ``state_dict`` has HuggingFace's names; its weights are zero until they are loaded."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = DecoderBody(config)
        if not config.tie_embeddings:
            self.lm_head = _linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, input_ids: Tensor, position_ids: Tensor, attend: Attend, recompute: bool = False) -> Tensor:
        """Compute the hidden states after the last norm.

        input_ids, position_ids: int64 [rows, length]. attend: see ``models.attention``. recompute: keep only each layer's input and
        compute the layer again in backward. Returns [rows, length, hidden] in the dtype of the weights.
        """
        return self.model(input_ids, position_ids, attend, recompute)

    @property
    def head(self) -> Tensor:
        """The output weights as they are held: the embedding's [vocab, hidden] where they are tied, [hidden, vocab] otherwise."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] to [..., vocab]."""
        return paddle.matmul(hidden, self.head, transpose_y=self.config.tie_embeddings)
