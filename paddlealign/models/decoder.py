"""The decoder: one description, `DecoderConfig`, covers the LLaMA family and its relatives.

Parameters bear the names that HuggingFace gives LLaMA's, whatever the family (``models.layout`` has the others); linear weights are
Paddle's [in, out], the transpose of HuggingFace's. The decoder knows neither masks nor caches: it is given ``attend``, and training and
generation each bring their own.
"""

from functools import partial

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute as recomputed

from paddlealign.models import plain
from paddlealign.models.attention import Attend
from paddlealign.models.config import DecoderConfig
from paddlealign.models.kernels import layer_norm, rms_norm, rotary, rotary_tables, swiglu
from paddlealign.models.linear import Adapter, Linear
from paddlealign.models.makers import WHOLE_LAYERS, Stage, TensorLayers, Visits
from paddlealign.models.parameters import adapter_shapes, padded_vocabulary, parameter_shapes
from paddlealign.models.rope import frequencies, text_lengths
from paddlealign.models.score_head import ScoreHead
from paddlealign.models.tricks import ALL_TRICKS, Tricks

_ZEROS = nn.initializer.Constant(0.0)


class RMSNorm(nn.Layer):
    """See ``kernels.rms_norm``. weight: [size]."""

    def __init__(self, size: int, epsilon: float, fused: bool) -> None:
        super().__init__()
        self.weight = self.create_parameter([size], default_initializer=_ZEROS)
        self.epsilon = epsilon
        self.norm = rms_norm if fused else plain.rms_norm

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] to the same."""
        return self.norm(x, self.weight, self.epsilon)


class LayerNorm(nn.Layer):
    """See ``kernels.layer_norm``. weight, bias: [size]."""

    def __init__(self, size: int, epsilon: float, fused: bool) -> None:
        super().__init__()
        self.weight = self.create_parameter([size], default_initializer=_ZEROS)
        self.bias = self.create_parameter([size], default_initializer=_ZEROS)
        self.epsilon = epsilon
        self.norm = layer_norm if fused else plain.layer_norm

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] to the same."""
        return self.norm(x, self.weight, self.bias, self.epsilon)


def _norm(config: DecoderConfig, tricks: Tricks) -> nn.Layer:
    """A norm of the hidden states, as the family has it."""
    if config.norm == "rms":
        return RMSNorm(config.hidden_size, config.norm_eps, tricks.fused_norm)
    return LayerNorm(config.hidden_size, config.norm_eps, tricks.fused_norm)


class Embedding(nn.Layer):
    """A table of vectors, of which the processes of a tensor axis hold some rows each. weight: [rows, columns]."""

    def __init__(self, rows: int, columns: int, make: TensorLayers) -> None:
        super().__init__()
        self.make = make
        self.weight = self.create_parameter([rows // make.parts, columns], default_initializer=_ZEROS)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [rows, length] to [rows, length / positions, columns]."""
        return self.make.collect(self.make.lookup(ids, self.weight))


class Attention(nn.Layer):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: DecoderConfig, layer: int, make: TensorLayers, tricks: Tricks) -> None:
        super().__init__()
        self.rotary = rotary if tricks.fused_rotary else plain.rotary
        self.layer, self.head_dim, self.window = layer, config.head_dim, config.windows[layer]
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.spread = make.spread
        self.q_proj = Linear(config.hidden_size, queries, config.qkv_bias, make, cut_inputs=False)
        self.k_proj = Linear(config.hidden_size, keys, config.qkv_bias, make, cut_inputs=False)
        self.v_proj = Linear(config.hidden_size, keys, config.qkv_bias, make, cut_inputs=False)
        self.o_proj = Linear(queries, config.hidden_size, config.output_bias, make, cut_inputs=True)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps, tricks.fused_norm) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps, tricks.fused_norm) if config.qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, read_at: Tensor | None) -> Tensor:
        """x: [rows, length / positions, hidden]; cos, sin: see ``kernels.rotary_tables``. Returns x's shape, or ``_at`` of it."""
        x = self.spread(x)
        heads = [*x.shape[:2], -1, self.head_dim]
        q, k = self.q_proj(x).reshape(heads), self.k_proj(x).reshape(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        mixed = attend(self.layer, self.rotary(q, cos, sin), self.rotary(k, cos, sin), self.v_proj(x).reshape(heads), self.window)
        return self.o_proj(_at(mixed.reshape([*x.shape[:2], -1]), read_at))


class MLP(nn.Layer):
    """The feed-forward block, with a gate (swiglu) or without (gelu)."""

    def __init__(self, config: DecoderConfig, make: TensorLayers, tricks: Tricks) -> None:
        super().__init__()
        self.swiglu = swiglu if tricks.fused_swiglu else plain.swiglu
        self.activation, self.spread = config.activation, make.spread
        if self.activation == "swiglu":
            self.gate_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias, make, cut_inputs=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias, make, cut_inputs=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, config.mlp_bias, make, cut_inputs=True)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length / positions, hidden] to the same."""
        x = self.spread(x)
        up = self.up_proj(x)
        if self.activation == "swiglu":
            return self.down_proj(self.swiglu(self.gate_proj(x), up))
        return self.down_proj(nn.functional.gelu(up, approximate=self.activation == "gelu_tanh"))


class DecoderLayer(nn.Layer):
    """Attention, then the MLP, each behind a norm and beside a residual; or both side by side."""

    def __init__(self, config: DecoderConfig, layer: int, make: TensorLayers, tricks: Tricks) -> None:
        super().__init__()
        self.parallel = config.parallel_residual
        self.self_attn = Attention(config, layer, make, tricks)
        self.mlp = MLP(config, make, tricks)
        self.input_layernorm = _norm(config, tricks)
        self.post_attention_layernorm = _norm(config, tricks)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, read_at: Tensor | None = None) -> Tensor:
        """x: [rows, length / positions, hidden]. Returns the same shape, or ``_at`` of it.

        read_at: the places whose results are read; behind attention, which needs all for its keys, nothing else is computed.
        """
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, attend, read_at)
        x = _at(x, read_at)
        attended = x + mixed
        return attended + self.mlp(self.post_attention_layernorm(x if self.parallel else attended))


def _at(x: Tensor, places: Tensor | None) -> Tensor:
    """[rows, length, n] at some of its rows * length places, int64 [m], as [1, m, n]; None: as it is."""
    return x if places is None else x.reshape([-1, x.shape[-1]]).index_select(places).unsqueeze(0)


class DecoderBody(nn.Layer):
    """Embedding, layers and the last norm: what HuggingFace's names call ``model``; of these what the stage holds."""

    def __init__(self, config: DecoderConfig, make: TensorLayers, stage: Stage, visits: Visits | None, tricks: Tricks) -> None:
        super().__init__()
        self.join, self.visits = make.join, visits
        self.adapter: Adapter | None = None
        self.is_first, self.is_last = stage.first == 0, stage.last == config.num_layers
        if self.is_first or (self.is_last and config.tie_embeddings):
            self.embed_tokens = Embedding(padded_vocabulary(config.vocab_size, make.parts), config.hidden_size, make)
        self.layers = nn.LayerDict()
        for number in range(stage.first, stage.last):
            self.layers[str(number)] = DecoderLayer(config, number, make, tricks)
            if visits is not None:
                visits.built(f"model.layers.{number}.", self.layers[str(number)])
        if self.is_last:
            self.norm = _norm(config, tricks)
        self.rope, self.heads = config.rope, config.num_heads // make.parts
        self.frequencies = paddle.to_tensor(frequencies(config.rope), dtype="float32")

    def forward(self, inputs: Tensor, position_ids: Tensor, attend: Attend, recompute: bool, read_at: Tensor | None) -> Tensor:
        """See ``Decoder.forward``."""
        turns = self.frequencies
        if self.rope.kind == "dynamic":
            turns = paddle.to_tensor(frequencies(self.rope, text_lengths(position_ids.numpy())), dtype="float32").unsqueeze(2)
        cos, sin = rotary_tables(position_ids, turns, self.rope.attention_factor, self.heads)
        x = self.embed_tokens(inputs) if self.is_first else inputs
        again = paddle.is_grad_enabled() and (recompute or self.visits is not None)
        if self.adapter is not None and paddle.is_grad_enabled():
            x.stop_gradient = False  # behind a frozen embedding; what is computed again has gradients only where its input has one
        *_, last = self.layers.values()
        for number, layer in self.layers.items():
            if self.adapter is not None:
                self.adapter.enter_layer(int(number))
            compute = layer if self.visits is None else partial(_enter_and_compute, self.visits, layer)
            behind = read_at if layer is last else None
            x = recomputed(compute, x, cos, sin, attend, behind) if again else compute(x, cos, sin, attend, behind)
        return self.join(self.norm(x)) if self.is_last else x


def _enter_and_compute(
    visits: Visits, layer: nn.Layer, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, read_at: Tensor | None
) -> Tensor:
    visits.enter(layer, paddle.is_grad_enabled())  # not in the forward of a layer that is computed again
    return layer(x, cos, sin, attend, read_at)


class Decoder(nn.Layer):
    """A decoder with its head, or the part of one that a process holds.

    ``state_dict`` has HuggingFace's names for LLaMA; the weights are zero until they are loaded.
    """

    def __init__(
        self,
        config: DecoderConfig,
        make: TensorLayers = WHOLE_LAYERS,
        stage: Stage | None = None,
        visits: Visits | None = None,
        tricks: Tricks = ALL_TRICKS,
    ) -> None:
        """make: how tensor parallelism cuts the layers, which needs all tricks. stage: the layers that this process holds, None for all.
        visits, tricks: see there.
        """
        super().__init__()
        self.config = config
        self.make = make
        self.tricks = tricks
        self.model = DecoderBody(config, make, stage or Stage(0, config.num_layers), visits, tricks)
        if self.model.is_last and config.head == "score":
            self.score = ScoreHead(config.hidden_size)
        elif self.model.is_last and not config.tie_embeddings:
            self.lm_head = Linear(config.hidden_size, padded_vocabulary(config.vocab_size, make.parts), False, make, cut_inputs=False)

    def forward(
        self, inputs: Tensor, position_ids: Tensor, attend: Attend, recompute: bool = False, read_at: Tensor | None = None
    ) -> Tensor:
        """Compute the hidden states after the last norm, or after this stage's last layer.

        inputs: token ids, int64 [rows, length], or the hidden states that the stage before gave. position_ids: int64 [rows, length].
        attend: see ``models.attention``. recompute: keep only each layer's input and compute the layer again in backward. read_at:
        int64 [m], of all rows * length places those that are read, some perhaps twice, where this is the last stage and positions are
        not cut; None: all. Returns [rows, length, hidden] in the dtype of the weights, or [1, m, hidden]; between stages [rows, length /
        positions, hidden].
        """
        return self.model(inputs, position_ids, attend, recompute, read_at)

    @property
    def embedding(self) -> Tensor | None:
        """The embedding's weights, [vocab, hidden]; None where this process holds none."""
        return self.model.embed_tokens.weight if hasattr(self.model, "embed_tokens") else None

    @property
    def embedding_shape(self) -> list[int]:
        """The shape of the embedding's share that each process of a tensor axis holds."""
        return [padded_vocabulary(self.config.vocab_size, self.make.parts) // self.make.parts, self.config.hidden_size]

    @property
    def head(self) -> Tensor:
        """The output weights as they are held: the embedding's [vocab, hidden] where they are tied, [hidden, vocab] otherwise."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    @property
    def adapter(self) -> Adapter | None:
        """What the adapters of the layers have in common; None where there are none. See ``lora.attach``."""
        return self.model.adapter

    def trained(self) -> list[tuple[str, Tensor]]:
        """The parameters that are not frozen, by name."""
        return [(name, parameter) for name, parameter in self.named_parameters() if not parameter.stop_gradient]

    def trained_shapes(self) -> dict[str, tuple[int, ...]]:
        """Those of the whole decoder, of which this process may hold a part: name to shape."""
        return parameter_shapes(self.config) if self.adapter is None else adapter_shapes(self.config, self.adapter.settings)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] to [..., vocab], for generation: whole and the same in all processes of a tensor axis, without a gradient there."""
        part = paddle.matmul(hidden, self.head, transpose_y=self.config.tie_embeddings)
        return self.make.gather_logits(part, self.config.vocab_size)

    def token_logps(self, hidden: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
        """See ``head.token_logps``. hidden: [targets, hidden]. target_ids: int64 [targets]."""
        if not self.tricks.chunked_head:
            return plain.token_logps(hidden, self.head, target_ids, self.config.tie_embeddings)
        return self.make.token_logps(hidden, self.head, target_ids, self.config.tie_embeddings, self.config.vocab_size)

    def collision_logps(self, hidden: Tensor) -> Tensor:
        """See ``head.collision_logps``. hidden: [targets, hidden]."""
        if not self.tricks.chunked_head:
            return plain.collision_logps(hidden, self.head, self.config.tie_embeddings)
        return self.make.collision_logps(hidden, self.head, self.config.tie_embeddings, self.config.vocab_size)
