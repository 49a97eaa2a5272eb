"""The proof that every trick leaves training as it is: 20 steps with all of them against the plain path, and each switched off alone.

The plain path computes a prompt with one response in a row of its own, all logits, and the reference anew at each step, by Paddle's own
differentiated operators. Losses and final weights must be equal to LIMIT, absolutely: weights are of the order 0.02 to 1 and move by up to
STEPS * RATE = 0.02, so that a fault which turns a step by a thousandth of its length shows.

AdamW divides a gradient by its own size: with the usual epsilon of 1e-8 an element whose gradient is rounding alone (1e-9, where others
have 1e-3) is moved by a whole RATE in a direction that rounding chose. EPSILON is what gradients have to exceed to be followed fully: a
hundred times their rounding, and below most of what is no rounding.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from paddle import Tensor
from paddle.autograd import PyLayer

from paddlealign.data.example import Example, Response
from paddlealign.models import decoder, makers
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.score_head import initialise_score, with_score_head
from paddlealign.models.tricks import ALL_TRICKS, NO_TRICKS, Tricks
from paddlealign.models.weights import load_model
from paddlealign.training import score
from paddlealign.training.feed import Feed
from paddlealign.training.objective import Objective, reward_objective, sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.reference import model_reference, table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.step import accumulate_gradients, apply_gradients
from tests.small_runs import FLOAT32, GOLDEN, dpo_objective

STEPS, RATE, EPSILON = 20, 1e-3, 1e-5
LIMIT = 1e-5
RUNS = ("sft", "dpo, live reference", "dpo, cached reference", "reward")
# Grouped queries; biases and a tied head; norms of queries and keys, and a window; partial rotary, layer norm and a parallel residual.
MODELS = ("llama2_gqa", "qwen2_tied", "qwen3_window", "pythia")


class Trained(NamedTuple):
    """What a run left: the loss of each step, and every weight."""

    losses: np.ndarray
    weights: dict[str, np.ndarray]


def examples(responses: int) -> list[Example]:
    """Rows of random tokens and uneven lengths; in every third only a part of each response is scored."""
    rng = np.random.default_rng(11)

    def response(number: int) -> Response:
        ids = rng.integers(3, 96, rng.integers(3, 25)).astype("int32")
        return Response(ids, np.arange(len(ids)) % 3 > 0 if number % 3 == 0 else np.ones(len(ids), bool))

    return [
        Example(rng.integers(3, 96, rng.integers(2, 25)).astype("int32"), tuple(response(number) for _ in range(responses)))
        for number in range(24)
    ]


def objective_of(run: str, model: str, data: list[Example], tricks: Tricks) -> Objective:
    if run == "sft":
        return sft_objective()
    if run == "reward":
        return reward_objective(table_reference(np.linspace(0, 1, len(data), dtype="float32")), center_rewards_coefficient=0.05)
    reference = load_model(GOLDEN / model, "float32", tricks=tricks)
    if run == "dpo, cached reference" and tricks == ALL_TRICKS:
        return dpo_objective(table_reference(compute_logps(reference, data, 0, FLOAT32, "", False)), 0.5, 0.1)
    return dpo_objective(model_reference(reference, FLOAT32), 0.5, 0.1)


def train(run: str, model: str, tricks: Tricks, steps: int = STEPS, packing: str = "best_fit") -> Trained:
    """Train a golden model; of packed rows two make a micro-batch, and two of these a step."""
    data = examples(1 if run == "sft" else 2)
    objective = objective_of(run, model, data, tricks)
    config = with_score_head(read_config(GOLDEN / model), 0) if run == "reward" else None
    policy = load_model(GOLDEN / model, "float32", config=config, tricks=tricks)
    if run == "reward":
        initialise_score(policy.score, 3)
    optimizer = make_optimizer(list(policy.named_parameters()), 0.9, 0.99, EPSILON, 0.01)
    feed = Feed(
        data, pad_id=0, seed=1, max_length=64, micro_batch_size=2, accumulation=2, packing=packing, epochs=1, max_steps=steps,
        shared_prompt=tricks.shared_prompt, packed_rows=tricks.packed_rows,
    )  # fmt: skip
    losses = []
    for step in feed.steps(first=0):
        losses.append(accumulate_gradients(policy, step.batches, objective, FLOAT32, False).means()["loss"])
        apply_gradients(policy, optimizer, FLOAT32, RATE, 1.0)
    return Trained(np.array(losses), {name: parameter.numpy() for name, parameter in policy.named_parameters()})


def difference(left: Trained, right: Trained) -> tuple[float, float]:
    """The largest between losses, and between weights."""
    assert left.losses.shape == right.losses.shape and left.weights.keys() == right.weights.keys()
    gaps = [float(np.abs(weight - right.weights[name]).max()) for name, weight in left.weights.items()]
    return float(np.abs(left.losses - right.losses).max()), max(gaps)


@pytest.mark.parametrize(("run", "model"), [*((run, MODELS[0]) for run in RUNS), *((RUNS[1], model) for model in MODELS[1:])])
def test_twenty_steps_with_all_tricks_are_those_of_the_plain_path(run: str, model: str):
    fast, slow = train(run, model, ALL_TRICKS), train(run, model, NO_TRICKS)
    assert len(fast.losses) == STEPS and max(difference(fast, slow)) <= LIMIT
    start = load_model(GOLDEN / model, "float32").state_dict()
    moved = {name: np.abs(weight - start[name].numpy()).max() for name, weight in slow.weights.items() if name in start}
    assert all(by > 100 * LIMIT for by in moved.values()), moved  # so that equal weights say something of each


# A model in which each trick is at work.
MODEL_OF = {"fused_norm": "qwen3_window", "fused_rotary": "pythia", "blockwise_attention": "qwen3_window", "chunked_head": "qwen2_tied"}


@pytest.mark.parametrize("trick", [field.name for field in fields(Tricks)])
@pytest.mark.parametrize("run", ["sft", "dpo, live reference", "reward"])
def test_each_trick_alone_changes_nothing(run: str, trick: str):
    model = MODEL_OF.get(trick, MODELS[0]) if run != "reward" else MODELS[0]
    on, off = (train(run, model, tricks, steps=3) for tricks in (ALL_TRICKS, replace(ALL_TRICKS, **{trick: False})))
    assert max(difference(on, off)) <= LIMIT


# Where the package takes each trick's function from. Rows, prompts and the head's positions are no functions: see the next tests.
PLACES: dict[str, list[tuple[Any, str]]] = {
    "chunked_head": [(makers, "token_logps")],
    "blockwise_attention": [(score, "packed_attention")],
    "fused_norm": [(decoder, "rms_norm"), (decoder, "layer_norm")],
    "fused_rotary": [(decoder, "rotary")],
    "fused_swiglu": [(decoder, "swiglu")],
}


@pytest.mark.parametrize("trick", PLACES)
def test_the_plain_path_calls_no_kernel_of_ours(trick: str, monkeypatch: pytest.MonkeyPatch):
    class Called(Exception):  # noqa: N818 - it is no error
        pass

    def refuse(*_: object) -> None:
        raise Called

    for place, name in [it for places in PLACES.values() for it in places]:
        monkeypatch.setattr(place, name, refuse)
    train("dpo, live reference", MODELS[0], NO_TRICKS, steps=1)
    with pytest.raises(Called):
        train("dpo, live reference", MODELS[0], replace(NO_TRICKS, **{trick: True}), steps=1)


def test_nothing_is_shared_or_packed_on_the_plain_path():
    data = examples(2)
    options = {"pad_id": 0, "seed": 1, "max_length": 64, "micro_batch_size": 2, "accumulation": 1, "packing": "best_fit"}
    fast, slow = (
        next(Feed(data, epochs=1, max_steps=1, shared_prompt=on, packed_rows=on, **options).steps(0)).batches[0]  # type: ignore[arg-type]
        for on in (True, False)
    )
    assert fast.example_ids.tolist() == slow.example_ids.tolist() and len(slow.example_ids) > 2
    texts = [
        [*data[index].prompt_ids.tolist(), *response.token_ids.tolist()] for index in slow.example_ids for response in data[index].responses
    ]
    width = slow.input_ids.shape[1]
    assert slow.input_ids.tolist() == [text + [0] * (width - len(text)) for text in texts]
    assert [row[: len(text)] for row, text in zip(slow.position_ids.tolist(), texts, strict=True)] == [[*range(len(it))] for it in texts]
    assert fast.input_ids.shape[0] == 1 and fast.token_count < slow.token_count == sum(map(len, texts))
    assert fast.target_ids.tolist() == slow.target_ids.tolist() and fast.target_owner.tolist() == slow.target_owner.tolist()


@pytest.mark.parametrize("run", ["sft", "reward"])
def test_the_head_meets_every_position_on_the_plain_path(run: str, monkeypatch: pytest.MonkeyPatch):
    met: list[int] = []
    name = "forward" if run == "reward" else "token_logps"
    owner = type(load_model(GOLDEN / MODELS[0], "float32", config=with_score_head(read_config(GOLDEN / MODELS[0]), 0)).score)
    place = owner if run == "reward" else Decoder
    own: Callable[..., Any] = getattr(place, name)

    def watched(self: Any, hidden: Tensor, *rest: Any) -> Any:
        met.append(hidden.shape[0])
        return own(self, hidden, *rest)

    monkeypatch.setattr(place, name, watched)
    train(run, MODELS[0], NO_TRICKS, steps=1, packing="micro_batch")
    plain, met[:] = met[:], []
    train(run, MODELS[0], replace(NO_TRICKS, scored_head=True), steps=1, packing="micro_batch")
    assert len(plain) == len(met) == 2 and all(few < every and every % 8 == 0 for few, every in zip(met, plain, strict=True))


class _Tilted(PyLayer):
    """x as it is, with a gradient that is a thousandth too long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 1.001


@pytest.mark.parametrize("place", ["rms_norm", "rotary", "swiglu"])
def test_a_kernel_whose_gradient_is_off_by_a_thousandth_is_seen(place: str, monkeypatch: pytest.MonkeyPatch):
    kernel = getattr(decoder, place)
    slow = train("sft", MODELS[0], NO_TRICKS)
    monkeypatch.setattr(decoder, place, lambda x, *rest: kernel(_Tilted.apply(x), *rest))
    assert difference(train("sft", MODELS[0], ALL_TRICKS), slow)[1] > 3 * LIMIT


def test_a_key_that_is_hidden_from_a_few_queries_is_seen(monkeypatch: pytest.MonkeyPatch):
    slow, attention = train("sft", MODELS[0], NO_TRICKS), score.packed_attention

    def short_sighted(visible_until: np.ndarray, position_ids: np.ndarray) -> Any:
        until = visible_until.copy()
        until[0, 0, 0, 0] -= 4  # the last tokens of the first text no longer see its first one; the very last predicts nothing
        return attention(until, position_ids)

    monkeypatch.setattr(score, "packed_attention", short_sighted)
    assert max(difference(train("sft", MODELS[0], ALL_TRICKS), slow)) > 3 * LIMIT
