"""Beam search: the bookkeeping of one step, and what must hold for every model: width one is greedy, a wide beam finds the best text."""

import itertools

import numpy as np
import paddle
import pytest

from paddlealign.models.attention import packed_attention
from paddlealign.models.beam import Beam, Candidate, Group, Hypothesis, advance, advance_row, beam_search, best_candidates
from paddlealign.models.config import parse_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.generation import generate, stream
from paddlealign.models.incremental import RunningBatch
from paddlealign.models.sampling import GenerationSettings

VOCABULARY = 5


@pytest.fixture(scope="module")
def model() -> Decoder:
    """A random decoder of five tokens."""
    source = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
    }
    decoder = Decoder(parse_config(source, ""))
    random = np.random.default_rng(6)
    for parameter in decoder.parameters():
        parameter.set_value((0.5 * random.standard_normal(parameter.shape)).astype("float32"))
    decoder.eval()
    return decoder


def log_probs(model: Decoder, prompt: list[int], text: tuple[int, ...]) -> float:
    """The sum of a text's log-probs, computed in one go."""
    ids = [*prompt, *text]
    attend = packed_attention(np.full([1, 1, len(ids), 1], len(ids), "int32"), np.arange(len(ids))[None])
    with paddle.no_grad():
        hidden = model(paddle.to_tensor([ids]), paddle.arange(len(ids)).unsqueeze(0), attend)
        table = paddle.nn.functional.log_softmax(model.logits(hidden)[0]).numpy()
    return float(sum(table[len(prompt) - 1 + place, token] for place, token in enumerate(text)))


def all_texts(length: int, stop: int) -> list[tuple[int, ...]]:
    """Every text that ends with the stop id or has this length."""
    texts = [text for count in range(1, length + 1) for text in itertools.product(range(VOCABULARY), repeat=count)]
    return [text for text in texts if stop not in text[:-1] and (text[-1] == stop or len(text) == length)]


@pytest.mark.parametrize("length_penalty", (0.0, 1.0, -1.0, 3.0))
@pytest.mark.parametrize("prompt", ([1], [3, 0, 2], [4, 4]))
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_all(model: Decoder, prompt: list[int], length_penalty: float) -> None:
    stop, length = 2, 3
    texts = all_texts(length, stop)
    scores = {text: log_probs(model, prompt, text) / len(text) ** length_penalty for text in texts}
    best = sorted(texts, key=lambda text: -scores[text])
    settings = GenerationSettings(
        max_new_tokens=length, stop_ids=(stop,), num_beams=len(texts) + 1, num_return_sequences=len(texts), length_penalty=length_penalty
    )
    [(row, found)] = beam_search(RunningBatch(model, [prompt]), [prompt], [length], settings)
    assert row == 0 and [answer.tokens for answer in found] == best
    np.testing.assert_allclose([answer.score for answer in found], [scores[text] for text in best], atol=1e-5)


def test_a_beam_of_width_one_is_greedy(model: Decoder) -> None:
    prompts = [[1], [3, 0, 2], [4, 4], [0], [2, 1, 3]]
    for extra in ({}, {"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 5}):
        greedy = GenerationSettings(max_new_tokens=9, stop_ids=(2,), **extra)
        one = GenerationSettings(max_new_tokens=9, stop_ids=(2,), early_stopping=True, **extra)
        expected = generate(model, prompts, greedy)
        found = dict(beam_search(RunningBatch(model, prompts), prompts, [9] * len(prompts), one))
        assert [[list(answer.tokens) for answer in found[row]] for row in range(len(prompts))] == expected, extra


def test_a_wider_beam_never_has_a_worse_best_of_equal_length(model: Decoder) -> None:
    prompt = [1, 0]
    best = []
    for width in (2, 25, 125):
        settings = GenerationSettings(max_new_tokens=4, num_beams=width)
        [(_, found)] = beam_search(RunningBatch(model, [prompt]), [prompt], [4], settings)
        best.append(found[0].score)
    exact = max(log_probs(model, prompt, text) / 4 for text in itertools.product(range(VOCABULARY), repeat=4))
    assert best[0] <= best[1] + 1e-6 and best[2] == pytest.approx(exact, abs=1e-5)


def test_rows_do_not_depend_on_their_batch_and_may_end_at_different_limits(model: Decoder) -> None:
    prompts = [[1], [3, 0, 2, 1, 1, 0], [4, 4], [0] * 29]
    for extra in ({}, {"num_beam_groups": 2, "diversity_rate": 0.4}, {"early_stopping": True}):
        settings = GenerationSettings(max_new_tokens=8, stop_ids=(2,), num_beams=4, num_return_sequences=4, **extra)
        together = generate(model, prompts, settings, batch_size=4)
        assert generate(model, prompts, settings, batch_size=1) == together
        assert max(len(text) for text in together[3]) <= 3  # the model has 32 positions
        assert all(len(answers) == 4 for answers in together)
        assert "num_beam_groups" in extra or all(len(set(map(tuple, answers))) == 4 for answers in together)


def test_groups_keep_away_from_each_other(model: Decoder) -> None:
    def first_tokens(rate: float) -> list[int]:
        settings = GenerationSettings(max_new_tokens=1, num_beams=4, num_beam_groups=4, diversity_rate=rate, num_return_sequences=4)
        return [text[0] for text in generate(model, [[1, 3]], settings)[0]]

    assert len(set(first_tokens(50.0))) == 4
    assert len(set(first_tokens(1e-6))) == 1


def test_stream_of_beams_is_the_best_answer(model: Decoder) -> None:
    settings = GenerationSettings(max_new_tokens=6, stop_ids=(2,), num_beams=3, num_return_sequences=3)
    assert list(stream(model, [1, 3], settings)) == generate(model, [[1, 3]], settings)[0][0]
    assert list(stream(model, [1, 3], GenerationSettings(max_new_tokens=0, num_beams=3))) == []
    assert generate(model, [[1]], GenerationSettings(max_new_tokens=0, num_beams=3)) == [[[]]]


def test_a_stop_string_ends_a_beam(model: Decoder) -> None:
    free = GenerationSettings(max_new_tokens=6, num_beams=3, num_return_sequences=3)
    pair = tuple(generate(model, [[1, 3]], free)[0][0][1:3])
    stopping = GenerationSettings(
        max_new_tokens=6, num_beams=3, num_return_sequences=3, holds_stop=lambda tokens: tuple(tokens[-2:]) == pair
    )
    ends = [tuple(text[-2:]) == pair for text in generate(model, [[1, 3]], stopping)[0]]
    assert any(ends)
    for text in generate(model, [[1, 3]], stopping)[0]:
        assert all(tuple(text[place : place + 2]) != pair for place in range(len(text) - 2))
    everything = GenerationSettings(max_new_tokens=6, num_beams=3, num_return_sequences=3, holds_stop=lambda tokens: True)
    assert [len(text) for text in generate(model, [[1, 3]], everything)[0]] == [1, 1, 1]


# One step by hand.


def test_best_candidates() -> None:
    scores = np.array([[-1.0, -np.inf, -3.0], [-2.0, -0.5, -9.0]], dtype="float32")
    assert best_candidates(scores, 3) == [Candidate(-0.5, 1, 1), Candidate(-1.0, 0, 0), Candidate(-2.0, 1, 0)]
    assert len(best_candidates(scores, 100)) == 5  # not the banned one


def test_only_the_best_ends_count_and_beams_are_filled_up_behind_them() -> None:
    group = Group((Beam((7,), -1.0, 4), Beam((8,), -2.0, 6)))
    settings = GenerationSettings(stop_ids=(0,), num_beams=2)
    candidates = [Candidate(-1.5, 0, 0), Candidate(-2.0, 1, 3), Candidate(-2.2, 1, 0), Candidate(-2.4, 0, 5), Candidate(-3.0, 0, 6)]
    after = advance(group, candidates, 2, settings, last=False)
    assert after.beams == (Beam((8, 3), -2.0, 6), Beam((7, 5), -2.4, 4))
    assert after.finished == (Hypothesis((7, 0), -0.75),)  # -2.2 stands behind the best two
    assert after.open


def test_when_a_row_is_done() -> None:
    full = (Hypothesis((1, 0), -0.5), Hypothesis((2, 0), -0.6))
    group = Group((Beam((3, 4), -1.7, 0), Beam((5, 6), -1.9, 1)), full)
    hopeful, hopeless = [Candidate(-1.7, 0, 1), Candidate(-1.75, 1, 1)], [Candidate(-1.81, 0, 1), Candidate(-1.9, 1, 1)]
    settings = GenerationSettings(stop_ids=(0,), num_beams=2)
    assert advance(group, hopeful, 2, settings, last=False).open  # -1.7 / 3 is better than -0.6
    assert not advance(group, hopeless, 2, settings, last=False).open
    assert advance(group, hopeless, 2, GenerationSettings(stop_ids=(0,), num_beams=2, length_penalty=1.2), last=False).open
    eager = GenerationSettings(stop_ids=(0,), num_beams=2, early_stopping=True)
    assert not advance(group, hopeful, 2, eager, last=False).open
    last = advance(group, hopeful, 2, settings, last=True)
    assert not last.open and last.finished == (full[0], Hypothesis((3, 4, 1), -1.7 / 3))


def test_a_row_whose_tokens_are_all_banned_ends_as_it_stands() -> None:
    group = Group((Beam((3,), -1.0, 0), Beam((4,), -2.0, 1)))
    after = advance(group, [], 2, GenerationSettings(num_beams=2), last=False)
    assert not after.open and after.finished == (Hypothesis((3,), -1.0), Hypothesis((4,), -2.0))


def test_there_are_candidates_enough_where_every_stop_id_is_likely() -> None:
    table = np.log(np.array([[0.3, 0.2, 0.2, 0.1, 0.08, 0.05, 0.04, 0.03]], dtype="float32"))
    settings = GenerationSettings(num_beams=2, stop_ids=(0, 1, 2))
    [group] = advance_row([Group((Beam((), 0.0, 0),))], table, [9], settings, last=False)
    assert [beam.tokens for beam in group.beams] == [(3,), (4,)]
    assert [answer.tokens for answer in group.finished] == [(0,), (1,)]


def test_closed_groups_choose_nothing() -> None:
    table = np.log(np.array([[0.6, 0.3, 0.1]], dtype="float32"))
    settings = GenerationSettings(num_beams=2, num_beam_groups=2, diversity_rate=10.0)
    first, second = advance_row([Group((Beam((), 0.0, 0),))] * 2, table, [9], settings, last=False)
    assert (first.beams[0].tokens, second.beams[0].tokens) == ((0,), (1,))
    closed = Group((Beam((5,), 0.0, 0),), open=False)
    kept, second = advance_row([closed, Group((Beam((), 0.0, 0),))], table, [9], settings, last=False)
    assert kept is closed and second.beams[0].tokens == (0,)
