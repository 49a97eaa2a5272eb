"""Reward models against float64 NumPy, HuggingFace transformers and TRL (scripts/golden/rewards.py made the figures)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.data.example import Batch, Example, Response
from paddlealign.data.packing import make_batch
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.score_head import with_score_head
from paddlealign.models.tensor_files import read_tensors
from paddlealign.models.weights import load_model, save_model
from paddlealign.objectives.reward import reward_loss
from paddlealign.training.objective import Objective, reward_objective
from paddlealign.training.optimizer import learning_rate_at, make_optimizer
from paddlealign.training.reference import table_reference
from paddlealign.training.score import run_head, run_layers
from paddlealign.training.step import accumulate_gradients, apply_gradients
from scripts.models_page import share, worst_gradient
from tests.small_runs import FLOAT32, GOLDEN

REWARD = GOLDEN / "reward"
FIGURES = dict(np.load(REWARD / "rewards.npz"))
NAMES = sorted(path.name for path in REWARD.iterdir() if path.is_dir())
STORED = [name for name in NAMES if (REWARD / name / "model.safetensors").exists()]
MARGINS, CENTER = np.float32([0.5, 0.0, 1.25]), 0.1

# ---- the loss


def oracle(rewards: np.ndarray, margins: np.ndarray, center: float) -> tuple[float, np.ndarray]:
    """Loss and its gradient with respect to the rewards, float64."""
    chosen, rejected = rewards.reshape(-1, 2).T
    difference = chosen - rejected - margins
    loss = np.logaddexp(0, -difference).sum() + center * ((chosen + rejected) ** 2).sum()
    slope, pull = -np.exp(-np.logaddexp(0, difference)), 2 * center * (chosen + rejected)
    return loss, np.stack([slope + pull, -slope + pull], 1).reshape(-1)


ONE_REWARD = st.floats(-20, 20, width=32, allow_subnormal=False)
PAIRS = st.lists(st.tuples(ONE_REWARD, ONE_REWARD, st.floats(-2, 4, width=32, allow_subnormal=False)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(rows=PAIRS, center=st.sampled_from([0.0, 0.01, 0.5]))
def test_the_loss_equals_the_oracle(rows: list, center: float) -> None:
    table = np.array(rows, np.float32)
    tensor = paddle.to_tensor(table[:, :2].reshape(-1), stop_gradient=False)
    sums = reward_loss(tensor, paddle.to_tensor(table[:, 2]), center)
    whole = sums.loss({"pairs": 1})
    whole.backward()
    loss, slope = oracle(table[:, :2].reshape(-1).astype("float64"), table[:, 2].astype("float64"), center)
    assert float(whole) == pytest.approx(loss, rel=1e-6, abs=1e-6)
    assert np.abs(tensor.grad.numpy() - slope).max() <= 3e-6 * max(1.0, np.abs(slope).max())


def test_the_loss_on_paper() -> None:
    """Two pairs: 2 against 1 with a margin of 1, -1 against 0; c = 0.5. ln 2 + ln(1 + e) + 0.5 (9 + 1) = 7.006409."""
    sums = reward_loss(paddle.to_tensor([2.0, 1.0, -1.0, 0.0]), paddle.to_tensor([1.0, 0.0]), 0.5)
    values = {name: float(value) for name, value in sums.values["pairs"].items()}
    assert values.pop("loss") == pytest.approx(0.693147 + 1.313262 + 5.0, abs=1e-5)
    assert values == {"accuracy": 1.0, "margin": 0.0, "mean_reward": 1.0, "mean_squared_reward": 3.0}


def test_a_constant_on_all_rewards_moves_the_centring_term_only() -> None:
    rewards, none = np.float32([1.5, -0.5, 0.25, 0.75]), paddle.zeros([2])
    plain, moved = (float(reward_loss(paddle.to_tensor(it), none, 0.0).loss({"pairs": 2})) for it in (rewards, rewards + 7))
    assert plain == pytest.approx(moved, abs=1e-6)
    centred, off = (float(reward_loss(paddle.to_tensor(it), none, 0.1).loss({"pairs": 2})) for it in (rewards, rewards + 7))
    assert off > centred + 1


# ---- rewards, gradients and files of transformers


def pairs_of(rows: list[dict]) -> list[Example]:
    """Pairs in tokens as examples."""

    def response(ids: list[int]) -> Response:
        return Response(np.array(ids, np.int32), np.ones(len(ids), bool))

    return [
        Example(np.array(row["prompt"], np.int32), (response(row["chosen"]), response(row["rejected"])), row.get("margin", 0.0))
        for row in rows
    ]


def golden_pairs() -> list[Example]:
    """The three pairs of ``golden`` in scripts/golden/rewards.py: the same draws."""
    random = np.random.default_rng(3)

    def tokens(low: int, high: int) -> list[int]:
        return random.integers(low, high, random.integers(2, 14)).tolist()

    return pairs_of([{"prompt": tokens(3, 96), "chosen": tokens(40, 96), "rejected": tokens(3, 60)} for _ in range(3)])


def with_head(folder: Path, head: np.ndarray) -> Decoder:
    """A language model's decoder under a given score head, [1, hidden] as in files."""
    model = load_model(folder, "float32", config=with_score_head(read_config(folder), 0))
    assert not model.score.weight.numpy().any()
    model.score.weight.set_value(paddle.to_tensor(head.T.copy()))
    return model


def rewards_of(model: Decoder, batch: Batch) -> paddle.Tensor:
    return run_head(model, batch, run_layers(model, batch)).rewards


@pytest.mark.parametrize("name", NAMES)
def test_rewards_loss_and_gradients_are_those_of_transformers(name: str) -> None:
    """In one packed row and in three, each prompt laid once, against six padded rows there."""
    figures = {key.removeprefix(f"{name} "): array for key, array in FIGURES.items() if key.startswith(f"{name} ")}
    model = with_head(GOLDEN / name, figures["score.weight"])
    for rows in ([[0, 1, 2]], [[2], [0], [1]]):
        batch = make_batch(golden_pairs(), rows, 0)
        order = batch.example_ids
        rewards = rewards_of(model, batch)
        assert rewards.dtype == paddle.float32
        assert share(rewards.numpy(), figures["rewards"].reshape(-1, 2)[order].reshape(-1)) <= 2e-5
    loss = reward_loss(rewards, paddle.to_tensor(MARGINS[order]), CENTER).loss({"pairs": 3})
    assert float(loss) == pytest.approx(float(figures["loss"]), rel=2e-6)
    if name in STORED:
        loss.backward()
        assert worst_gradient(model, figures) <= 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_config_json_is_what_transformers_writes(name: str, tmp_path: Path) -> None:
    config = with_score_head(read_config(GOLDEN / name), 0)
    model = with_head(GOLDEN / name, FIGURES[f"{name} score.weight"])
    save_model(model.state_dict().__getitem__, config, tmp_path, {}, "float32")
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, REWARD / name))
    assert {**ours, "transformers_version": ""} == {**theirs, "transformers_version": ""}
    assert set(read_tensors(tmp_path / "model.safetensors")) == set(map(str, FIGURES[f"{name} names"]))
    assert read_config(tmp_path) == replace(config, dtype="float32") and read_config(REWARD / name) == read_config(tmp_path)


@pytest.mark.parametrize("name", STORED)
def test_a_reward_model_of_transformers_is_read_and_written_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    model = load_model(REWARD / name, "float32")
    rewards = rewards_of(model, make_batch(golden_pairs(), [[0, 1, 2]], 0)).numpy()
    assert share(rewards, FIGURES[f"{name} rewards"]) <= 2e-5
    save_model(model.state_dict().__getitem__, model.config, tmp_path, {}, "float32")
    ours, theirs = (read_tensors(folder / "model.safetensors") for folder in (tmp_path, REWARD / name))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], array) for key, array in theirs.items())
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((REWARD / name / "config.json").read_text())


# ---- a run of TRL


def follow(objective: Objective, rows: list[Example], start: dict, steps: int) -> dict[str, np.ndarray]:
    """Train from ``start`` on the rows in their order; what TRL logs of each step, by its names."""
    model = with_head(GOLDEN / start["checkpoint"], _head(start["head seed"], 32))
    optimizer = make_optimizer(list(model.named_parameters()), 0.9, 0.999, 1e-8, start["weight_decay"])
    size, logged = start["pairs of a step"], []
    for step in range(steps):
        first = step * size % len(rows)
        batches = [make_batch(rows, [[first], [first + 1]], 0), make_batch(rows, [list(range(first + 2, first + size))], 0)]
        means = accumulate_gradients(model, batches, objective, FLOAT32, False).means()
        rate = learning_rate_at(step, steps, start["learning_rate"], start["warmup_steps"], start["lr_scheduler_type"])
        logged.append({**means, "grad_norm": apply_gradients(model, optimizer, FLOAT32, rate, start["max_grad_norm"])})
    return {name: np.array([line[name] for line in logged]) for name in ("loss", "accuracy", "margin", "mean_reward", "grad_norm")}


def _head(seed: int, hidden: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((1, hidden)) / np.sqrt(hidden)).astype("float32")


def test_thirty_steps_follow_those_of_trl() -> None:
    """The same weights, rows, margins, centring term, AdamW and schedule; padded in one batch there, packed in two micro-batches here."""
    golden = json.loads((REWARD / "curve.json").read_text())
    rows, start = pairs_of(golden["pairs"]), golden["start"]
    margins = np.float32([example.margin for example in rows])
    assert len(golden["loss"]) == 30 and margins.any()
    ours = follow(reward_objective(table_reference(margins), start["center_rewards_coefficient"]), rows, start, 30)
    for name, array in ours.items():
        theirs = np.array(golden[name])
        # A margin or a mean reward may be near zero; it is held to the size of a reward.
        scale = np.abs(theirs) if name in ("loss", "grad_norm") else np.maximum(np.abs(theirs), 1.0)
        assert (np.abs(array - theirs) / scale).max() <= 1e-4, name
    assert golden["loss"][-1] < 0.2 * golden["loss"][0]
    # Without the margins, or without the centring term, it is another run.
    center = start["center_rewards_coefficient"]
    for other in (reward_objective(table_reference(0 * margins), center), reward_objective(table_reference(margins), 0.0)):
        assert np.abs(follow(other, rows, start, 4)["loss"] / golden["loss"][:4] - 1).max() > 0.01
