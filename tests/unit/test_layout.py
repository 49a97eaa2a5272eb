"""How families name and group their tensors."""

import numpy as np
import pytest

from paddlealign.models.families import FAMILIES
from paddlealign.models.layout import HUGGINGFACE, Layout, StoredTensor, segments, stored_tensors

Q, K, V = (f"model.layers.7.self_attn.{part}_proj" for part in "qkv")
QKV = {"model.layers.*.self_attn.qkv_proj": tuple(f"model.layers.*.self_attn.{part}_proj" for part in "qkv")}


def test_without_a_rule_the_names_are_the_same() -> None:
    parameters = {"model.embed_tokens.weight": (9, 4), f"{Q}.weight": (4, 4), f"{Q}.bias": (4,)}
    assert stored_tensors(parameters, HUGGINGFACE, 2) == [StoredTensor(name, (name,), 1) for name in parameters]


def test_renamed_and_fused_modules_keep_their_layer_and_kind() -> None:
    layout = Layout({"lm_head": "embed_out"}, QKV, by_head=True)
    parameters = {f"{module}.{kind}": (4, 8) if kind == "weight" else (8,) for module in (Q, K, V) for kind in ("weight", "bias")}
    theirs = "model.layers.7.self_attn.qkv_proj"
    assert stored_tensors({**parameters, "lm_head.weight": (4, 9)}, layout, 2) == [
        StoredTensor(f"{theirs}.weight", (f"{Q}.weight", f"{K}.weight", f"{V}.weight"), 2),
        StoredTensor(f"{theirs}.bias", (f"{Q}.bias", f"{K}.bias", f"{V}.bias"), 2),
        StoredTensor("embed_out.weight", ("lm_head.weight",), 1),
    ]


def test_what_no_file_could_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"v_proj\.weight is missing"):
        stored_tensors({f"{Q}.weight": (4, 8), f"{K}.weight": (4, 8)}, Layout({}, QKV, by_head=False), 2)
    with pytest.raises(ValueError, match="not a multiple of 3"):
        stored_tensors({f"{it}.weight": (4, 8) for it in (Q, K, V)}, Layout({}, QKV, by_head=True), 3)


def test_segments_by_head_and_one_after_another() -> None:
    assert list(segments([4, 4, 4], 2)) == [(0, 0, 0, 2), (1, 0, 2, 2), (2, 0, 4, 2), (0, 2, 6, 2), (1, 2, 8, 2), (2, 2, 10, 2)]
    assert list(segments([4, 2, 2], 1)) == [(0, 0, 0, 4), (1, 0, 4, 2), (2, 0, 6, 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_gives_one_name_to_two_modules(family: str) -> None:
    layout = FAMILIES[family].layout
    theirs = [*layout.renamed.values(), *layout.fused]
    assert len(set(theirs)) == len(theirs)
    assert not set(layout.renamed) & {part for parts in layout.fused.values() for part in parts}


def test_gpt_neox_is_transformers_reshape() -> None:
    """transformers views the fused rows as [heads, 3 * head_dim] and cuts each head's into query, key and value."""
    heads, head_dim = 3, 2
    fused = np.arange(heads * 3 * head_dim)
    expected = [part.reshape(-1) for part in np.split(fused.reshape(heads, 3 * head_dim), 3, axis=1)]
    parts = [np.zeros(heads * head_dim, int) for _ in range(3)]
    for part, at, stored_at, count in segments([heads * head_dim] * 3, heads):
        parts[part][at : at + count] = fused[stored_at : stored_at + count]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(parts, expected, strict=True))
