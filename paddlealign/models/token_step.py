"""One new token in every row through a decoder that one process holds whole, with as few operators as that takes.

A token is little work for a processor, and each of Paddle's operators costs it about ten microseconds beside: where the decoder's own form
has 60 in a layer, with functions that have a backward, this one has 25 without. Norm and residual are one operator, queries and keys
are turned together by tables made once for all layers, and the tables of the queries hold the scale of the scores.
"""

import paddle
from paddle import Tensor, nn
from paddle.incubate.nn.functional import fused_rms_norm

from paddlealign.models.cache import KeyValueCache
from paddlealign.models.decoder import Attention, Decoder
from paddlealign.models.kernels import rotary_tables


def has_token_step(model: Decoder) -> bool:
    """Whether ``token_step`` can run this decoder: of float32 weights on a CPU, where Paddle has the operators, and plain in its layers."""
    config, body = model.config, model.model
    whole = body.is_first and body.is_last and body.visits is None and model.make.positions == 1
    plain = config.norm == "rms" and not config.parallel_residual and config.activation == "swiglu"
    turned = config.rope.kind != "dynamic" and config.rope.dim == config.head_dim
    return whole and plain and turned and body.frequencies.place.is_cpu_place() and body.embed_tokens.weight.dtype == paddle.float32


def token_step(model: Decoder, input_ids: Tensor, position_ids: Tensor, cache: KeyValueCache) -> Tensor:
    """The hidden states after the last norm, as ``Decoder.forward`` finds them with ``cache.attend_token``: [rows, hidden].

    input_ids, position_ids: int64 [rows, 1]. cache: with room for this token, see ``KeyValueCache.make_room``.
    """
    body, epsilon = model.model, model.config.norm_eps
    stay, cross = (it[:, 0, 0] for it in rotary_tables(position_ids, body.frequencies, body.rope.attention_factor, 1))
    turn: tuple[Tensor, Tensor] | None = None
    x = body.embed_tokens(input_ids)[:, 0]
    added: Tensor | None = None  # what the layer before adds to x, which the next norm does
    for number, layer in body.layers.items():
        if body.adapter is not None:
            body.adapter.enter_layer(int(number))
        normed, x = _norm(x, added, layer.input_layernorm.weight, epsilon)
        attention, mlp = layer.self_attn, layer.mlp
        q, k = _heads(attention, normed, epsilon)
        if turn is None:
            turn = _repeated(stay, cross, q.shape[1], k.shape[1])
        both = paddle.concat([q, k], axis=1)
        both = both * turn[0] + paddle.roll(both, q.shape[2] // 2, axis=2) * turn[1]
        v = attention.v_proj(normed)
        mixed = cache.attend_scaled(attention.layer, both[:, : q.shape[1]], both[:, q.shape[1] :], v, attention.window)
        normed, x = _norm(x, attention.o_proj(mixed), layer.post_attention_layernorm.weight, epsilon)
        added = mlp.down_proj(nn.functional.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
    return _norm(x, added, body.norm.weight, epsilon)[0]


def _norm(x: Tensor, added: Tensor | None, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The root mean square norm of x + added, and that sum. x, added: [rows, hidden]."""
    if added is None:
        return fused_rms_norm(x, weight, None, epsilon, 1)[0], x
    normed, total, *_ = fused_rms_norm(added, weight, None, epsilon, 1, None, x)
    return normed, total


def _heads(attention: Attention, x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Queries [rows, heads, head_dim] and keys [rows, kv_heads, head_dim], not yet turned. x: [rows, hidden]."""
    shape = [x.shape[0], -1, attention.head_dim]
    q, k = attention.q_proj(x).reshape(shape), attention.k_proj(x).reshape(shape)
    if attention.q_norm is None or attention.k_norm is None:
        return q, k
    return tuple(fused_rms_norm(it, norm.weight, None, epsilon, 2)[0] for it, norm in ((q, attention.q_norm), (k, attention.k_norm)))


def _repeated(stay: Tensor, cross: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """The tables [rows, head_dim] for each head, [rows, heads + kv_heads, head_dim]: Paddle multiplies much faster than it broadcasts.

    Those of the queries are divided by the root of head_dim.
    """
    scale = stay.shape[1] ** -0.5
    rows = [paddle.stack([it * scale] * heads + [it] * kv_heads, axis=1) for it in (stay, cross)]
    return rows[0], rows[1]
