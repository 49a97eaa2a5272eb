"""Every preference loss through dpo_main.py: the loss that is logged, the gradient's norm and the new weights are its oracle's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.losses import LOSSES
from paddlealign.data.example import Example
from paddlealign.data.packing import make_batch
from paddlealign.models.weights import load_model
from paddlealign.recipes import dpo, references
from paddlealign.recipes import run as run_recipe
from paddlealign.recipes.entry import main
from paddlealign.recipes.rows import prepare_rows
from paddlealign.training.run_log import read_metrics
from paddlealign.training.score import run_head, run_layers
from tests.preference_oracle import Tokens, answers, kto, oracle, with_slope
from tests.small_runs import make_checkpoint, write_rows

RATE, PAIRS = 1e-3, 4
NUMBERS = {"beta": 0.4, "label_smoothing": 0.1, "simpo_gamma": 0.7, "dpop_lambda": 2.0, "discopop_tau": 0.1}
# Beside each loss alone: what the other keys change.
MORE: dict[str, tuple[dict[str, float], dict[str, Any], float]] = {
    "ipo --ipo_average sum": ({"ipo": 1.0}, {"beta": 0.4, "ipo_average": "sum"}, 1.0),
    "sigmoid --ld_alpha 0.3": ({"sigmoid": 1.0}, {"beta": 0.4}, 0.3),
    "sigmoid --f_divergence_type js_divergence": ({"sigmoid": 1.0}, {"beta": 0.4, "f_divergence_type": "js_divergence"}, 1.0),
    "sigmoid --f_divergence_type alpha_divergence --f_alpha_divergence_coef 0.7": (
        {"sigmoid": 1.0}, {"beta": 0.4, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7}, 1.0,
    ),
    "sigmoid,bco_pair,sft --loss_weights 0.8,0.2,0.5": ({"sigmoid": 0.8, "bco_pair": 0.2, "sft": 0.5}, {"beta": 0.4}, 1.0),
    "hinge --pref_loss_ratio 0.5 --sft_loss_ratio 0.25": ({"hinge": 0.5, "sft": 0.25}, {"beta": 0.4}, 1.0),
    "orpo --pref_loss_ratio 0.1": ({"orpo": 0.1, "sft": 1.0}, {}, 1.0),
    "sigmoid,sft --use_weighting": ({"sigmoid": 1.0, "sft": 1.0}, {"beta": 0.4}, 1.0),
    "sigmoid --reference_free": ({"sigmoid": 1.0}, {"beta": 0.4}, 1.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a reference with other weights, and four pairs."""
    folder = tmp_path_factory.mktemp("preference")
    make_checkpoint(folder / "policy")
    make_checkpoint(folder / "reference", seed=1)
    write_rows(folder / "rows.jsonl", "dpo", "train", 0, PAIRS)
    return folder


def words(folder: Path, output: Path, options: list[str], with_reference: bool) -> list[str]:
    """One step of all pairs in two micro-batches."""
    keys = ["--model_name_or_path", str(folder / "policy"), "--train_dataset_path", str(folder / "rows.jsonl")]
    keys += ["--output_dir", str(output), "--do_train", "--max_steps", "1", "--learning_rate", str(RATE), "--logging_steps", "1"]
    keys += ["--lr_scheduler_type", "constant", "--max_grad_norm", "0", "--per_device_train_batch_size", "2"]
    keys += ["--gradient_accumulation_steps", "2", "--save_strategy", "no", "--max_length", "256", "--src_length", "128"]
    if with_reference:
        keys += ["--ref_model_name_or_path", str(folder / "reference"), "--reference_cache_dir", str(folder / "cache")]
    return [*keys, *options]


def token_logps(model_dir: Path, examples: list[Example]) -> tuple[Any, Any, Tokens]:
    """A model, its log-probs of all scored tokens as a tensor, and the same by pair and answer in float64."""
    model = load_model(model_dir, "float32")
    batch = make_batch(examples, [range(len(examples))], 0)
    logps = run_head(model, batch, run_layers(model, batch)).token_logps
    values = logps.numpy().astype("float64")
    parts = [values[batch.target_owner == owner] for owner in range(2 * len(examples))]
    return model, logps, [[parts[2 * i], parts[2 * i + 1]] for i in range(len(examples))]


def collision_logps(model: Any, examples: list[Example]) -> Tokens:
    """log sum_v p(v)^2 in each scored token's place, from the whole logits in float64."""
    batch = make_batch(examples, [range(len(examples))], 0)
    with paddle.no_grad():
        logits = model.logits(run_layers(model, batch))[0].numpy().astype("float64")
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    values = np.log((shares**2).sum(-1)) - 2 * np.log(shares.sum(-1))
    parts = [values[batch.target_owner == owner] for owner in range(2 * len(examples))]
    return [[parts[2 * i], parts[2 * i + 1]] for i in range(len(examples))]


def cases() -> list[tuple[str, dict[str, float], dict[str, Any], float]]:
    found = []
    for name, loss in LOSSES.items():
        numbers = {key: value for key, value in NUMBERS.items() if key in loss.reads}
        options = " ".join([name, *(f"--{key} {value}" for key, value in numbers.items())])
        found.append((options + (" --sft_loss_ratio 0" if name in ("orpo", "cpo") else ""), {name: 1.0}, numbers, 1.0))
    return found + [
        (f"{options} --beta 0.4" if numbers else options, weights, numbers, ld) for options, (weights, numbers, ld) in MORE.items()
    ]


@pytest.mark.parametrize(("options", "weights", "numbers", "ld_alpha"), cases(), ids=lambda it: it if isinstance(it, str) else "")
def test_a_step_is_the_oracles(
    options: str, weights: dict[str, float], numbers: dict[str, Any], ld_alpha: float, folder: Path, tmp_path: Path, monkeypatch: Any
):
    alone = "reference_free" in options or all(LOSSES[name].compares == "policy" for name in weights)
    if alone:
        monkeypatch.setattr(dpo, "load_reference", never)
        monkeypatch.setattr(references, "weights_hash", never)
    monkeypatch.setattr(run_recipe, "draw_curves", lambda *arguments: True)  # a third of the test's time
    keys = words(folder, tmp_path / "out", ["--loss_type", *options.split()], with_reference=not alone)
    assert main("dpo", keys) == 0
    (line,) = read_metrics(tmp_path / "out")

    examples = prepare_rows(parse("dpo", keys, {}), "preference").train
    assert len(examples) == PAIRS
    model, logps, tokens = token_logps(folder / "policy", examples)
    reference = None if alone else answers(token_logps(folder / "reference", examples)[2], ld_alpha)
    collisions = collision_logps(model, examples) if "use_weighting" in options else None
    wanted, slope = oracle(tokens, reference, weights, numbers, ld_alpha, collisions)
    assert line["loss"] == pytest.approx(wanted, rel=5e-5)  # the log-probs are float32 and come from rows that are packed otherwise
    if "sft" in weights:
        assert line["nll_loss"] == pytest.approx(-sum(pair[0].sum() for pair in tokens) / sum(len(pair[0]) for pair in tokens), rel=1e-5)

    (logps * paddle.to_tensor(slope.astype("float32"))).sum().backward()
    norm = np.sqrt(sum(float((it.grad**2).sum()) for it in model.parameters()))
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-4)
    trained = load_model(tmp_path / "out", "float32").state_dict()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.numpy()
        # AdamW's first step from zero moments is all but the gradient's sign.
        step, expected = (trained[name] - parameter).numpy(), -RATE * gradient / (np.abs(gradient) + 1e-8)
        clear = np.abs(gradient) > 1e-2 * np.abs(gradient).max()
        assert clear.any() and np.abs(step - expected)[clear].max() <= 0.01 * RATE, name


def test_kto_on_labelled_rows_is_the_oracles(folder: Path, tmp_path: Path, monkeypatch: Any):
    """Rows of pairs and of single answers, in steps of eight rows; the dev rows' estimate of the KL is of all of them."""
    monkeypatch.setattr(run_recipe, "draw_curves", lambda *arguments: True)
    pairs = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]
    single = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs[2:]
        for side in ("chosen", "rejected")
    ]
    rows = tmp_path / "labelled.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*pairs[:2], *single]), "utf-8")
    numbers = {"beta": 0.4, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    options = ["--loss_type", "kto", *(word for key, value in numbers.items() for word in (f"--{key}", str(value)))]
    options += ["--per_device_train_batch_size", "4", "--train_dataset_path", str(rows), "--dev_dataset_path", str(rows), "--do_eval"]
    keys = words(folder, tmp_path / "out", options, with_reference=True)
    assert main("dpo", [*keys, "--per_device_eval_batch_size", "3", "--check"]) == 0
    assert main("dpo", [*keys, "--per_device_eval_batch_size", "3", "--learning_rate", "1e-9"]) == 0
    line, dev = read_metrics(tmp_path / "out")

    found = prepare_rows(parse("dpo", keys, {}), "labelled")
    assert found.train_labels is not None and found.train_labels.tolist() == [True, False] * PAIRS
    answered = {tuple(example.responses[0].token_ids.tolist()): example for example in found.train}
    for example in found.train:  # the second answer is another prompt's
        assert not np.array_equal(answered[tuple(example.responses[1].token_ids.tolist())].prompt_ids, example.prompt_ids)
    model, logps, tokens = token_logps(folder / "policy", found.train)
    reference = answers(token_logps(folder / "reference", found.train)[2], 1.0)
    wanted, slope = with_slope(tokens, reference, 1.0, lambda seen: kto(seen, numbers, found.train_labels).mean())
    assert line["loss"] == pytest.approx(wanted, rel=5e-5) and dev["eval_loss"] == pytest.approx(wanted, rel=5e-5)
    ratios = answers(tokens, 1.0) - reference
    assert line["kl"] == pytest.approx(max(0.0, ratios[:, 1].mean()), rel=1e-3, abs=1e-5)
    assert line["rewards/margins"] == pytest.approx(0.4 * (ratios[::2, 0].mean() - ratios[1::2, 0].mean()), rel=1e-3, abs=1e-5)
    (logps * paddle.to_tensor(slope.astype("float32"))).sum().backward()
    norm = np.sqrt(sum(float((it.grad**2).sum()) for it in model.parameters()))
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_kto_needs_more_than_one_prompt(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = tmp_path / "labelled.jsonl"
    rows.write_text("".join(json.dumps({"prompt": "q", "completion": word, "label": True}) + "\n" for word in ("a", "b")), "utf-8")
    keys = words(folder, tmp_path / "out", ["--loss_type", "kto", "--train_dataset_path", str(rows)], with_reference=True)
    assert main("dpo", keys) == 1
    assert "all rows have the same prompt" in capsys.readouterr().err


def never(*arguments: Any) -> Any:
    raise AssertionError("a loss without a reference asks for none")
