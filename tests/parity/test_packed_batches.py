"""Packed, branched and accumulated batches against the same rows alone: log-probs, losses and gradients of every parameter."""

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddlealign.data.example import Batch, Example, Response
from paddlealign.data.packing import make_batch
from paddlealign.models.attention import packed_attention
from paddlealign.models.decoder import Decoder
from paddlealign.models.weights import load_model
from paddlealign.objectives.pairs import Coefficients
from paddlealign.objectives.response import response_logps
from paddlealign.training.objective import Objective, kto_objective, preference_objective, sft_objective
from paddlealign.training.precision import Precision
from paddlealign.training.reference import table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.score import run_head, run_layers
from paddlealign.training.step import accumulate_gradients, evaluate
from tests.small_runs import dpo_objective

GOLDEN = Path(__file__).parent / "golden"
FLOAT32 = Precision("float32", "O1", None)


@pytest.fixture(scope="module", params=["llama2_gqa", "qwen2_tied", "mistral", "qwen3_window", "pythia"])
def policy(request: pytest.FixtureRequest) -> Decoder:
    return load_model(GOLDEN / request.param, "float32")


def pairs(count: int, vocabulary: int, seed: int = 0) -> list[Example]:
    """Preference examples of random tokens and uneven lengths."""
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(0, vocabulary, rng.integers(low, high)).astype("int32")

    made = []
    for _ in range(count):
        answers = [tokens(1, 30), tokens(1, 9)]
        made.append(Example(tokens(1, 20), tuple(Response(ids, np.ones(len(ids), bool)) for ids in answers)))
    return made


def apart(examples: list[Example]) -> list[Example]:
    """Every response as an example of its own, prompt and all."""
    return [Example(example.prompt_ids, (response,)) for example in examples for response in example.responses]


def logps(model: Decoder, batch: Batch) -> np.ndarray:
    scores = run_head(model, batch, run_layers(model, batch))
    return response_logps(scores.token_logps, scores.owner, scores.responses).numpy()


def gradients(model: Decoder, batches: list[Batch], objective: Objective, recompute: bool = False) -> tuple[float, dict[str, np.ndarray]]:
    """Loss per unit of the whole step, and every parameter's gradient."""
    sums = accumulate_gradients(model, batches, objective, FLOAT32, recompute)
    found = {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.clear_grad()
    return sums.means()["loss"], found


def assert_same(left: tuple[float, dict[str, np.ndarray]], right: tuple[float, dict[str, np.ndarray]]) -> None:
    assert left[0] == pytest.approx(right[0], rel=2e-6)
    for name, gradient in left[1].items():
        scale = np.abs(gradient).max()
        assert scale > 0, name
        assert np.abs(gradient - right[1][name]).max() <= 2e-5 * scale, name


def test_branched_and_packed_rows_give_the_logps_of_single_rows(policy: Decoder):
    examples = pairs(7, policy.config.vocab_size)
    packed = logps(policy, make_batch(examples, [[0, 1, 2], [3, 4], [5, 6]], 0))
    single = np.concatenate([logps(policy, make_batch([one], [[0]], 0)) for one in apart(examples)])
    assert np.abs(packed - single).max() <= 2e-5 * np.abs(single).max()


def test_sft_gradients_do_not_depend_on_packing_or_accumulation(policy: Decoder):
    examples = apart(pairs(5, policy.config.vocab_size, seed=1))[:9]
    lengths = {example.scored_count for example in examples}
    assert max(lengths) > 4 * min(lengths)  # uneven: averaging micro-batches would show
    objective = sft_objective()
    whole = gradients(policy, [make_batch(examples, [range(9)], 0)], objective)
    for split in ([[0], [1], [2], [3], [4], [5], [6], [7], [8]], [[0, 1, 2, 3, 4, 5, 6], [7, 8]], [[4, 8], [1, 0, 2, 3], [5], [7, 6]]):
        cut = gradients(policy, [make_batch(examples, [[index] for index in part], 0) for part in split], objective)
        assert_same(whole, cut)


MIXTURES = [
    {"sigmoid": 1.0},
    {"sigmoid": 0.5, "sft": 0.3},  # two denominators: pairs, and the chosen answers' tokens
    {"kto_pair": 1.0, "bco_pair": 0.5},  # means over all pairs of the step
    {"aot": 1.0, "aot_unpaired": 0.7, "sft": 0.1},  # ranks among all pairs of the step
]


@pytest.mark.parametrize(("weights", "ld_alpha"), list(zip(MIXTURES, (1.0, 0.3, 1.0, 0.3), strict=True)), ids=str)
def test_preference_gradients_do_not_depend_on_packing_or_accumulation(policy: Decoder, weights: dict[str, float], ld_alpha: float):
    examples = pairs(6, policy.config.vocab_size, seed=2)
    table = np.random.default_rng(3).uniform(-90, -10, (6, 2)).astype("float32")
    objective = preference_objective(table_reference(table), weights, Coefficients(label_smoothing=0.1), ld_alpha)
    batches = [make_batch(examples, [range(6)], 0)]
    whole, evaluated = gradients(policy, batches, objective), evaluate(policy, batches, objective, FLOAT32).means()
    for split in ([[0], [1], [2], [3], [4], [5]], [[5, 0], [1, 2, 3, 4]]):
        batches = [make_batch(examples, [[index] for index in part], 0) for part in split]
        assert_same(whole, gradients(policy, batches, objective))
        assert evaluate(policy, batches, objective, FLOAT32).means() == pytest.approx(evaluated, rel=2e-5)
    assert whole[0] == pytest.approx(evaluated["loss"], rel=2e-6)


def test_kto_gradients_do_not_depend_on_packing_or_accumulation(policy: Decoder):
    """Rows of one label alone in a micro-batch included."""
    examples = pairs(6, policy.config.vocab_size, seed=2)
    table = np.random.default_rng(3).uniform(-90, -10, (6, 2)).astype("float32")
    labels = np.array([True, False, True, True, False, True])
    objective = kto_objective(table_reference(table), labels, beta=0.1, desirable_weight=1.0, undesirable_weight=2.0)
    batches = [make_batch(examples, [range(6)], 0)]
    whole, evaluated = gradients(policy, batches, objective), evaluate(policy, batches, objective, FLOAT32).means()
    assert evaluated["rewards/margins"] == pytest.approx(evaluated["rewards/chosen"] - evaluated["rewards/rejected"], rel=1e-5)
    for split in ([[0], [1], [2], [3], [4], [5]], [[5, 0], [1, 2, 3, 4]]):
        batches = [make_batch(examples, [[index] for index in part], 0) for part in split]
        assert_same(whole, gradients(policy, batches, objective))
        assert evaluate(policy, batches, objective, FLOAT32).means() == pytest.approx(evaluated, rel=2e-5)
    assert "rewards/margins" not in evaluate(policy, [make_batch(examples, [[0, 2]], 0)], objective, FLOAT32).means()


def test_dpo_of_branches_equals_dpo_of_separate_rows(policy: Decoder):
    """The prompt laid down once gives the gradient of the textbook form: chosen and rejected as rows of their own."""
    examples = pairs(4, policy.config.vocab_size, seed=4)
    table = np.random.default_rng(5).uniform(-90, -10, (4, 2)).astype("float32")
    objective = dpo_objective(table_reference(table), beta=0.2, label_smoothing=0.0)
    branched = gradients(policy, [make_batch(examples, [range(4)], 0)], objective)

    rows = apart(examples)
    total = 0.0
    for index in range(4):
        answers = []
        for row in rows[2 * index : 2 * index + 2]:
            alone = make_batch([row], [[0]], 0)
            answers.append(run_head(policy, alone, run_layers(policy, alone)).token_logps.sum())
        ratio = (answers[0] - answers[1]) - float(table[index, 0] - table[index, 1])
        loss = -paddle.nn.functional.log_sigmoid(0.2 * ratio) / 4
        loss.backward()
        total += float(loss)
    separate = (total, {name: parameter.grad.numpy().copy() for name, parameter in policy.named_parameters()})
    for parameter in policy.parameters():
        parameter.clear_grad()
    assert_same(branched, separate)


def test_recompute_changes_no_number(policy: Decoder):
    examples = pairs(4, policy.config.vocab_size, seed=6)
    objective = dpo_objective(table_reference(np.full((4, 2), -50, "float32")), 0.1, 0.0)
    batches = [make_batch(examples, [[0, 1], [2, 3]], 0)]
    plain, again = gradients(policy, batches, objective), gradients(policy, batches, objective, recompute=True)
    assert plain[0] == again[0]
    assert all((plain[1][name] == again[1][name]).all() for name in plain[1])


def test_policy_equal_to_reference_starts_at_ln_2(policy: Decoder):
    """The reference's log-probs are computed in other rows than the policy's, and the margin is still nothing but rounding."""
    examples = pairs(9, policy.config.vocab_size, seed=7)
    table = compute_logps(policy, examples, 0, FLOAT32, "test", False)
    objective = dpo_objective(table_reference(table), beta=0.1, label_smoothing=0.0)
    sums = accumulate_gradients(policy, [make_batch(examples, [[8, 0], [1, 2, 3], [4, 5, 6, 7]], 0)], objective, FLOAT32, False)
    for parameter in policy.parameters():
        parameter.clear_grad()
    assert sums.means()["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert abs(sums.means()["rewards/margins"]) <= 1e-5


def test_the_last_layer_computes_what_the_head_meets_and_no_more(policy: Decoder):
    batch = make_batch(pairs(3, policy.config.vocab_size, seed=8), [[0, 1, 2]], 0)
    met: dict[str, int] = {}
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda _, inputs, number=number: met.update({number: inputs[0].shape[1]}))
        for number, layer in policy.model.layers.items()
    ]
    read = run_layers(policy, batch)
    for hook in hooks:
        hook.remove()
    *before, last = met.values()
    assert set(before) == {batch.input_ids.size} and last == len(batch.score_at) < batch.token_count
    attend = packed_attention(batch.visible_until, batch.position_ids)
    every = policy(paddle.to_tensor(batch.input_ids), paddle.to_tensor(batch.position_ids), attend)
    assert np.abs(read.numpy()[0] - every.numpy()[0][batch.score_at]).max() <= 1e-5


def test_the_prompt_is_laid_down_once_and_only_responses_meet_the_head(policy: Decoder):
    examples = pairs(3, policy.config.vocab_size, seed=8)
    batch = make_batch(examples, [[0, 1, 2]], 0)
    assert batch.token_count == sum(example.length for example in examples)
    assert len(batch.target_ids) == sum(len(response.token_ids) for example in examples for response in example.responses)
