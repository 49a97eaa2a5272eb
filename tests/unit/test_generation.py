"""Generation: padding, the cache, stopping, and draws that do not depend on the batch."""

import itertools
from dataclasses import replace

import numpy as np
import paddle
import pytest

from paddlealign.errors import UserError
from paddlealign.models.cache import BLOCK
from paddlealign.models.config import parse_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.generation import generate, stream
from paddlealign.models.incremental import RunningBatch, forward_whole, pad_left
from paddlealign.models.sampling import GenerationSettings, choose_token, row_generator, top_k_tokens, top_p_tokens
from paddlealign.models.token_step import has_token_step

POSITIONS = 160


def random_decoder(change: dict) -> Decoder:
    """A random decoder with two key heads for four query heads. change: other values of config.json."""
    source = {
        "model_type": "llama",
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": POSITIONS,
    }
    decoder = Decoder(parse_config({**source, **change}, ""))
    random = np.random.default_rng(3)
    for parameter in decoder.parameters():
        parameter.set_value((0.4 * random.standard_normal(parameter.shape)).astype("float32"))
    return decoder


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_decoder({})


def prompts(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(0, 50, length).tolist() for length in lengths]


def recomputed_greedy(model: Decoder, prompt: list[int], count: int) -> list[int]:
    """Greedy text without any cache: the whole text goes through the model for every token."""
    from paddlealign.models.attention import packed_attention

    ids = list(prompt)
    for _ in range(count):
        length = len(ids)
        attend = packed_attention(np.full([1, 1, length, 1], length, "int32"), np.arange(length)[None])
        with paddle.no_grad():
            hidden = model(paddle.to_tensor([ids]), paddle.arange(length).unsqueeze(0), attend)
            ids.append(int(model.logits(hidden[:, -1]).argmax()))
    return ids[len(prompt) :]


def test_pad_left() -> None:
    input_ids, position_ids, visible = pad_left([[7, 8, 9], [5]])
    assert input_ids.tolist() == [[7, 8, 9], [0, 0, 5]]
    assert position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert visible.tolist() == [[True, True, True], [False, False, True]]


def test_the_cache_gives_what_recomputing_gives_across_its_blocks(model: Decoder) -> None:
    rows = prompts(BLOCK - 2, BLOCK, 3, BLOCK + 1)
    expected = [[recomputed_greedy(model, row, 10)] for row in rows]
    assert generate(model, rows, GenerationSettings(max_new_tokens=10), batch_size=4) == expected
    assert generate(model, rows, GenerationSettings(max_new_tokens=10), batch_size=1) == expected


def test_long_texts_grow_the_cache_again_and_again(model: Decoder) -> None:
    row = prompts(5)[0]
    [[output]] = generate(model, [row], GenerationSettings(max_new_tokens=2 * BLOCK + 5))
    assert output == recomputed_greedy(model, row, 2 * BLOCK + 5)


def test_rows_stop_on_their_own(model: Decoder) -> None:
    rows = prompts(4, 9, 2, 6, 6)
    free = [text for [text] in generate(model, rows, GenerationSettings(max_new_tokens=12))]
    stops = (free[0][3], free[1][7])
    stopped = [text for [text] in generate(model, rows, GenerationSettings(max_new_tokens=12, stop_ids=stops))]
    for row, text in zip(stopped, free, strict=True):
        places = [index for index, token in enumerate(text) if token in stops]
        assert row == (text[: places[0] + 1] if places else text)
    assert len({len(row) for row in stopped}) > 1


def test_draws_depend_on_seed_and_row_not_on_the_batch(model: Decoder) -> None:
    rows = prompts(4, 9, 2, 6, 6, 3)
    settings = GenerationSettings(max_new_tokens=8, do_sample=True, top_k=20, top_p=0.9, temperature=1.3, seed=1)
    together = generate(model, rows, settings, batch_size=6)
    assert generate(model, rows, settings, batch_size=1) == together
    assert generate(model, rows[3:], settings, batch_size=2, row_ids=[3, 4, 5]) == together[3:]
    assert generate(model, rows[3:], settings) != together[3:]
    another = GenerationSettings(max_new_tokens=8, do_sample=True, top_k=20, top_p=0.9, temperature=1.3, seed=2)
    assert generate(model, rows, another) != together


def test_several_answers_are_drawn_each_on_its_own(model: Decoder) -> None:
    rows = prompts(4, 9, 2, 6, 6, 3)
    settings = GenerationSettings(max_new_tokens=8, do_sample=True, top_k=20, seed=1, num_return_sequences=3, stop_ids=(1, 2, 3))
    together = generate(model, rows, settings, batch_size=6)
    assert all(len(answers) == 3 == len(set(map(tuple, answers))) for answers in together)
    assert len({len(text) for answers in together for text in answers}) > 2
    assert generate(model, rows, settings, batch_size=1) == together
    order = [5, 0, 3]
    assert generate(model, [rows[row] for row in order], settings, batch_size=2, row_ids=order) == [together[row] for row in order]
    # The first answers are those that a run with one answer, or with two, draws.
    for count in (1, 2):
        fewer = generate(model, rows, replace(settings, num_return_sequences=count))
        assert fewer == [answers[:count] for answers in together]


def test_min_new_tokens_holds_stop_ids_back(model: Decoder) -> None:
    rows = prompts(4, 9, 2)
    for do_sample in (False, True):
        free = GenerationSettings(max_new_tokens=12, do_sample=do_sample, stop_ids=tuple(range(0, 50, 3)))
        held = replace(free, min_new_tokens=7)
        assert min(len(text) for [text] in generate(model, rows, free)) < 7
        for [text] in generate(model, rows, held):
            assert len(text) >= 7 and not set(text[:6]) & set(free.stop_ids)


def test_no_ngram_comes_twice_in_a_text(model: Decoder) -> None:
    [row] = prompts(10)
    [[free]] = generate(model, [row], GenerationSettings(max_new_tokens=60))
    [[text]] = generate(model, [row], GenerationSettings(max_new_tokens=60, no_repeat_ngram_size=2))
    pairs = list(itertools.pairwise([*row, *text]))
    assert len(set(pairs[len(row) - 1 :])) == len(pairs[len(row) - 1 :])
    assert text != free


def test_a_text_ends_where_it_holds_a_stop(model: Decoder) -> None:
    rows = prompts(4, 9, 2)
    free = generate(model, rows, GenerationSettings(max_new_tokens=12))
    pair = free[1][0][3:5]
    stopped = generate(model, rows, GenerationSettings(max_new_tokens=12, holds_stop=lambda tokens: tokens[-2:] == pair))
    for [text], [whole] in zip(stopped, free, strict=True):
        places = [place for place in range(2, 13) if whole[place - 2 : place] == pair]
        assert text == whole[: places[0] if places else None]
    assert len(stopped[1][0]) < 12 in {len(text) for [text] in stopped}


def test_same_prompt_in_two_rows_draws_two_texts(model: Decoder) -> None:
    row = prompts(5)[0]
    one, two = generate(model, [row, row], GenerationSettings(max_new_tokens=12, do_sample=True))
    assert one != two


def test_stream_and_callback(model: Decoder) -> None:
    rows = prompts(4, 9)
    settings = GenerationSettings(max_new_tokens=5)
    ended: dict[int, list[list[int]]] = {}
    outputs = generate(model, rows, settings, on_finished=ended.__setitem__)
    assert list(stream(model, rows[1], settings)) == outputs[1][0]
    assert ended == dict(enumerate(outputs))


def test_generation_keeps_no_gradients(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = []
    logits = Decoder.logits
    monkeypatch.setattr(Decoder, "logits", lambda self, hidden: tracked.append(not hidden.stop_gradient) or logits(self, hidden))
    generate(model, prompts(4), GenerationSettings(max_new_tokens=3))
    assert tracked == [False, False, False]


def test_generation_leaves_gradients_and_mode_alone(model: Decoder) -> None:
    model.train()
    tokens = stream(model, [1, 2], GenerationSettings(max_new_tokens=3))
    next(tokens)
    weight = model.model.norm.weight
    assert not (weight * 2).stop_gradient  # no_grad does not leak out of a text that is still being made
    list(tokens)
    assert model.training


def test_prompts_without_room_are_refused_and_texts_end_with_the_positions(model: Decoder) -> None:
    for bad in ([], [1] * POSITIONS):
        with pytest.raises(UserError, match=f"{POSITIONS} positions"):
            generate(model, [bad], GenerationSettings())
    assert len(generate(model, [[1] * (POSITIONS - 4)], GenerationSettings(max_new_tokens=50))[0][0]) == 4
    assert generate(model, [[1]], GenerationSettings(max_new_tokens=0)) == [[[]]]
    assert generate(model, [], GenerationSettings()) == []


def test_logits_that_are_not_finite_are_an_error(model: Decoder) -> None:
    weight = model.model.norm.weight
    before = weight.numpy()
    weight.set_value(np.full(before.shape, np.nan, "float32"))
    with pytest.raises(UserError, match="not finite"):
        generate(model, [[1]], GenerationSettings())
    weight.set_value(before)


def test_filters_by_hand() -> None:
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert top_k_tokens(scores, 2).tolist() == [0, 1]
    assert top_k_tokens(scores, 0).tolist() == top_k_tokens(scores, 4).tolist() == [0, 1, 2, 3]
    assert top_k_tokens(np.array([1.0, 2.0, 1.0, 0.0]), 2).tolist() == [0, 1, 2]  # as likely as the second
    # 0.5 does not reach 0.7, 0.5 + 0.3 does.
    assert top_p_tokens(scores, 0.7).tolist() == [0, 1]
    assert top_p_tokens(scores, 1e-9).tolist() == [0]
    assert top_p_tokens(scores, 1.0).tolist() == [0, 1, 2, 3]
    assert len(top_p_tokens(np.zeros(1000), 1e-9)) == 1


@pytest.mark.parametrize("vocabulary", (500, 60_000))
@pytest.mark.parametrize("spread", (0.1, 1.0, 4.0))
def test_top_p_leaves_out_what_sorting_everything_leaves_out(spread: float, vocabulary: int) -> None:
    """Flat and peaked, so that the few likeliest tokens hold top_p, or not, or hardly any token does."""
    random = np.random.default_rng(9)
    for top_p in (0.1, 0.5, 0.7, 0.95, 0.999):
        scores = spread * random.standard_normal(vocabulary)
        order = np.argsort(-scores)
        shares = np.exp(scores[order]) / np.exp(scores).sum()
        count = int(np.searchsorted(shares.cumsum(), top_p)) + 1
        assert top_p_tokens(scores, top_p).tolist() == sorted(order[:count])


def test_few_tokens_are_sorted_where_few_hold_top_p(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = np.argsort
    monkeypatch.setattr(np, "argsort", lambda array, kind=None: sizes.append(len(array)) or real(array, kind=kind))
    scores = 3.0 * np.random.default_rng(2).standard_normal(150_000)
    top_p_tokens(scores, 0.7)
    top_p_tokens(np.zeros(150_000), 0.7)
    assert sizes[0] < 4096 and sizes[1] == 150_000


@pytest.mark.parametrize("top_k", (0, 40))
@pytest.mark.parametrize("top_p", (0.5, 0.95, 1.0))
def test_draws_are_those_of_the_plain_way(top_k: int, top_p: float) -> None:
    """The whole vocabulary sorted, what is left out at -inf, and the draw from all."""
    settings = GenerationSettings(do_sample=True, temperature=0.9, top_k=top_k, top_p=top_p)
    random = np.random.default_rng(4)
    for row in range(30):
        logits = (3.0 * random.standard_normal(8000)).astype("float32")
        scores = logits.astype(np.float64) / settings.temperature
        order = np.argsort(-scores)
        if top_k:
            scores[order[top_k:]] = -np.inf
        shares = np.exp(scores[order] - scores.max())
        before = (shares.cumsum() - shares) / shares.sum()
        scores[order[before >= top_p]] = -np.inf
        cumulative = np.exp(scores - scores.max()).cumsum()
        plain = int(np.searchsorted(cumulative, row_generator(7, row).random() * cumulative[-1], side="right"))
        assert choose_token(logits, settings, row_generator(7, row)) == plain


def test_draws_have_the_distribution_of_the_logits() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype="float32"))
    random = row_generator(0, 0)
    settings = GenerationSettings(do_sample=True)
    counts = np.bincount([choose_token(logits, settings, random) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(counts / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    cold = GenerationSettings(do_sample=True, temperature=0.05)
    assert {choose_token(logits, cold, random) for _ in range(200)} == {0}


def test_a_draw_never_takes_a_token_that_was_filtered_out() -> None:
    class Highest:
        def random(self) -> float:
            return 1.0

    logits = np.array([3.0, 2.0, 1.0, 0.0], dtype="float32")
    assert choose_token(logits, GenerationSettings(do_sample=True, top_k=2), Highest()) == 1


@pytest.mark.parametrize(
    "change", [{}, {"model_type": "qwen3", "head_dim": 8}, {"model_type": "qwen2"}, {"model_type": "mistral", "sliding_window": 12}]
)
def test_the_short_form_of_a_token_is_the_decoders_own(change: dict) -> None:
    decoder = random_decoder(change)
    assert has_token_step(decoder)
    rows = prompts(4, 30, 9)
    short = RunningBatch(decoder, rows)
    own = RunningBatch(decoder, rows, lambda *given: forward_whole(*given))  # another function than the one that has a short form
    for batch in (short, own):
        batch.read_prompts()
    for token in (3, 4, 5):
        found, expected = (batch.read_tokens([token, token + 7, token + 9]) for batch in (short, own))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-5)
