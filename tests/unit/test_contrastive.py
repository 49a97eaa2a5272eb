"""Contrastive search against the equation, computed without a cache."""

import numpy as np
import paddle
import pytest

from paddlealign.models.attention import packed_attention
from paddlealign.models.config import parse_config
from paddlealign.models.contrastive import likeliest
from paddlealign.models.decoder import Decoder
from paddlealign.models.generation import generate, stream
from paddlealign.models.sampling import GenerationSettings


@pytest.fixture(scope="module")
def model() -> Decoder:
    """A random decoder of forty tokens."""
    source = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
    }
    decoder = Decoder(parse_config(source, ""))
    random = np.random.default_rng(2)
    for parameter in decoder.parameters():
        parameter.set_value((0.5 * random.standard_normal(parameter.shape)).astype("float32"))
    decoder.eval()
    return decoder


def hidden_states(model: Decoder, ids: list[int]) -> paddle.Tensor:
    attend = packed_attention(np.full([1, 1, len(ids), 1], len(ids), "int32"), np.arange(len(ids))[None])
    with paddle.no_grad():
        return model(paddle.to_tensor([ids]), paddle.arange(len(ids)).unsqueeze(0), attend)[0]


def by_the_equation(model: Decoder, prompt: list[int], count: int, alpha: float, top_k: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        logits = model.logits(hidden_states(model, ids)[-1:]).numpy()[0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        worth = {}
        for token in np.argsort(-probabilities)[:top_k]:
            states = hidden_states(model, [*ids, int(token)]).numpy().astype(np.float64)
            states = states / np.linalg.norm(states, axis=1, keepdims=True)
            worth[int(token)] = (1 - alpha) * probabilities[token] - alpha * (states[:-1] @ states[-1]).max()
        ids.append(max(worth, key=worth.__getitem__))
    return ids[len(prompt) :]


@pytest.mark.parametrize(("alpha", "top_k"), [(0.6, 4), (0.2, 8), (1.0, 3)])
def test_it_takes_what_the_equation_takes(model: Decoder, alpha: float, top_k: int) -> None:
    prompts = [[1, 2, 3], [7], [9, 8, 7, 6, 5, 4, 3]]
    settings = GenerationSettings(max_new_tokens=8, penalty_alpha=alpha, top_k=top_k)
    expected = [[by_the_equation(model, prompt, 8, alpha, top_k)] for prompt in prompts]
    assert generate(model, prompts, settings, batch_size=3) == expected
    assert generate(model, prompts, settings, batch_size=1) == expected
    assert list(stream(model, prompts[0], settings)) == expected[0][0]


def test_without_unlikeness_it_is_greedy(model: Decoder) -> None:
    prompts = [[1, 2, 3], [7]]
    greedy = generate(model, prompts, GenerationSettings(max_new_tokens=10))
    assert generate(model, prompts, GenerationSettings(max_new_tokens=10, penalty_alpha=1e-9, top_k=5)) == greedy
    assert generate(model, prompts, GenerationSettings(max_new_tokens=10, penalty_alpha=0.6, top_k=5)) != greedy


def test_rows_end_on_their_own(model: Decoder) -> None:
    prompts = [[1, 2, 3], [7], [9, 8, 7, 6], [4, 4], [0] * 60]
    free = generate(model, prompts, GenerationSettings(max_new_tokens=10, penalty_alpha=0.6, top_k=4))
    stops = (free[0][0][2], free[2][0][5])
    ending = GenerationSettings(max_new_tokens=10, penalty_alpha=0.6, top_k=4, stop_ids=stops)
    for [text], [whole] in zip(generate(model, prompts, ending), free, strict=True):
        places = [place for place, token in enumerate(whole) if token in stops]
        assert text == (whole[: places[0] + 1] if places else whole)
    assert len(free[4][0]) == 4  # the model has 64 positions


def test_top_k_above_the_vocabulary_takes_all(model: Decoder) -> None:
    tokens, probabilities = likeliest(np.log(np.array([0.2, 0.5, 0.3])), 9)
    assert tokens.tolist() == [1, 2, 0]
    np.testing.assert_allclose(probabilities, [0.5, 0.3, 0.2])
    assert generate(model, [[1]], GenerationSettings(max_new_tokens=3, penalty_alpha=0.5, top_k=1000))
