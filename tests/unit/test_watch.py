"""What the curves mean: each rule triggered and not, nothing found in noise, and findings that are a function of the rows."""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.losses import LOSSES, UNPAIRED_LOSSES
from paddlealign.arguments.show import arguments_dict
from paddlealign.recipes.run_file import argument_values
from paddlealign.report import curve_rules, remedies, watch
from paddlealign.report.curve_rules import RULES
from paddlealign.report.curve_statistics import evaluation_turn, noise, shift
from paddlealign.report.remedies import Run
from paddlealign.report.watch import Finding, Watch, findings, more_lines, tell
from tests.least_arguments import BASE

ROOT = Path(__file__).resolve().parents[2]
STEPS = 100
Curve = Callable[[float], float]


def run_of(command: str, **keys: Any) -> Run:
    """A run with its effective arguments, as the parser fills them in."""
    given = {**BASE[command], "evaluation_strategy": "steps", "eval_steps": 10, "learning_rate": 1e-5, **keys}
    words = [text for key, value in given.items() for text in (f"--{key}", str(value).lower() if isinstance(value, bool) else str(value))]
    return Run(command, STEPS, argument_values(arguments_dict(parse(command, words, {}))))


def log(seed: int = 0, *, dev: dict[str, Curve] | None = None, dev_rows: int = 10, spread: float = 0.03, **train: Curve) -> list[dict]:
    """A run log of 100 steps, each logged, with noise of so many units. train, dev: metrics as functions of the share of the run done."""
    rng = np.random.default_rng(seed)
    rows: list[dict] = []
    for step in range(1, STEPS + 1):
        done, row = step / STEPS, {"step": step, "epoch": 3 * step / STEPS, "examples": 32 * step}
        rows.append({**row, **{name: curve(done) + spread * rng.standard_normal() for name, curve in train.items()}})
        if dev and step % (STEPS // dev_rows) == 0:
            rows.append({"step": step, "epoch": 3 * done, **{name: curve(done) for name, curve in dev.items()}})
    return rows


def line(start: float, end: float) -> Curve:
    return lambda done: start + (end - start) * done


RANKED = line(0.6, 0.85)


def preference(chosen: Curve, rejected: Curve, accuracy: Curve = RANKED) -> dict[str, Curve]:
    """DPO's curves (beta 0.1, chosen answers of 100 nats) by the two rewards."""
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": lambda done: chosen(done) - rejected(done),
        "logps/chosen": lambda done: -100 + chosen(done) / 0.1,
        "rewards/accuracies": accuracy,
        "loss": line(0.69, 0.4),
        "grad_norm": line(0.8, 0.6),
    }


def rewards(mean: Curve, accuracy: Curve = RANKED) -> dict[str, Curve]:
    return {"loss": line(0.7, 0.4), "accuracy": accuracy, "margin": line(0, 1.5), "mean_reward": mean, "grad_norm": line(1, 1)}


GOOD = preference(line(0, 1), line(0, -1))
TOKENS = {"loss": line(2, 1), "accuracy": line(0.5, 0.99), "grad_norm": line(0.9, 0.7)}
SAMPLES = {"samples/length": line(50, 55), "samples/score": line(0, 2), "samples/judge": line(0.4, 0.6)}


def bent(low: float, start: float, end: float, at: float = 0.4) -> Curve:
    """Falls (or rises) from start to low, then goes to end."""
    return lambda done: start + (low - start) * done / at if done < at else low + (end - low) * (done - at) / (1 - at)


def overflowing(rows: list[dict], steps: range) -> list[dict]:
    """The same rows, where these steps' gradients are not finite."""
    return [{**row, "grad_norm": math.inf} if row["step"] in steps else row for row in rows]


def fewer_pairs(rows: list[dict]) -> list[dict]:
    """The same rows, of 4 pairs each."""
    return [{**row, "examples": row["step"] * 4} for row in rows]


# Of each rule: a run and a log that meet it, and such that nearly do.
CASES: dict[str, tuple[tuple[Run, list[dict]], list[tuple[Run, list[dict]]]]] = {
    "chosen-less-likely": (
        (run_of("dpo"), log(**preference(line(0, -1.5), line(0, -4)))),
        [
            (run_of("dpo"), log(**preference(line(0, -0.3), line(0, -4)))),  # 3 % of their log-prob
            (run_of("dpo"), log(**preference(line(0, -1.5), line(0, -1.5)))),  # no margin comes of it
            (run_of("dpo"), log(**GOOD)),
        ],
    ),
    "margin-from-rejected": (
        (run_of("dpo"), log(**preference(line(0, -0.1), line(0, -4)))),
        [
            (run_of("dpo"), log(**preference(line(0, 0.5), line(0, -4)))),  # a ninth of it comes from the chosen ones
            (run_of("dpo"), log(**preference(line(0, 0), line(0, -0.4)))),  # no margin to speak of
            (run_of("dpo"), log(**preference(line(0, 2), line(0, 0)))),
        ],
    ),
    "accuracy-saturated": (
        (run_of("dpo"), log(spread=0.002, **preference(line(0, 1), line(0, -1), bent(0.995, 0.6, 0.995, 0.1)))),
        [
            (run_of("dpo"), log(spread=0.002, **preference(line(0, 1), line(0, -1), bent(0.995, 0.6, 0.995, 0.5)))),  # later
            (run_of("dpo"), log(spread=0.002, **preference(line(0, 1), line(0, -1), bent(0.97, 0.6, 0.97, 0.1)))),
            (run_of("reward"), log(spread=0.002, **rewards(line(0, 0), bent(0.97, 0.6, 0.97, 0.1)))),
            (run_of("dpo"), fewer_pairs(log(spread=0, **preference(line(0, 1), line(0, -1), line(1, 1))))),
        ],
    ),
    "overfitting": (
        (run_of("sft"), log(**TOKENS, dev={"eval_loss": bent(1.5, 2, 1.9)})),
        [
            (run_of("sft"), log(**TOKENS, dev={"eval_loss": bent(1.5, 2, 1.54)})),  # by 3 %
            (run_of("sft"), log(**{**TOKENS, "loss": bent(1.5, 2, 1.5, 0.2)}, dev={"eval_loss": bent(1.5, 2, 1.9)})),  # no longer learns
            (run_of("sft"), log(**TOKENS, dev={"eval_loss": line(2, 1.5)})),
            (run_of("sft"), log(**TOKENS, dev={"eval_loss": bent(1.5, 2, 1.9, 0.7)}, dev_rows=3)),  # one rise alone
        ],
    ),
    "loss-rising": (
        (run_of("sft", lr_scheduler_type="constant"), log(**{**TOKENS, "loss": bent(1, 2, 3)})),
        [
            (run_of("sft"), log(**{**TOKENS, "loss": bent(1, 2, 1.05)})),
            (run_of("sft"), log(**{**TOKENS, "loss": bent(1, 2, 1.05)}, spread=0.5)),
            (run_of("sft"), log(**TOKENS)),
        ],
    ),
    "gradient-clipped": (
        (run_of("dpo"), log(**{**GOOD, "grad_norm": line(20, 8)})),
        [
            (run_of("dpo"), log(**{**GOOD, "grad_norm": line(3, 1.5)})),  # not far
            (run_of("dpo"), log(**{**GOOD, "grad_norm": bent(1, 20, 0.8)})),  # at first only
            (run_of("dpo", max_grad_norm=0), log(**{**GOOD, "grad_norm": line(20, 8)})),
        ],
    ),
    "steps-skipped": (
        (run_of("sft", fp16=True), overflowing(log(**TOKENS), range(65, 101, 5))),
        [
            (run_of("sft", fp16=True), overflowing(log(**TOKENS), range(60, 101, 20))),
            (run_of("sft", fp16=True), overflowing(log(**TOKENS), range(1, 9))),  # the scale is looked for
        ],
    ),
    "rewards-drift": (
        (run_of("reward"), log(**rewards(line(0, 6)))),
        [
            (run_of("reward"), log(**{**rewards(line(0, 1.7)), "margin": line(0, 1)})),
            (run_of("reward"), log(**{**rewards(line(0, 3)), "margin": line(0, 5)})),  # chosen and rejected on either side of zero
            (run_of("reward"), log(**rewards(line(-6, -4)))),  # on its way to zero
        ],
    ),
    "answers-lengthen": (
        (run_of("dpo"), log(**GOOD, dev={**SAMPLES, "samples/length": line(50, 110)})),
        [
            (run_of("dpo"), log(**GOOD, dev=SAMPLES)),
            (run_of("dpo"), log(**GOOD, dev={**SAMPLES, "samples/length": line(110, 50)})),
            (run_of("dpo"), log(**GOOD, dev={**SAMPLES, "samples/length": line(50, 110)}, dev_rows=5)),  # too few
        ],
    ),
    "score-and-judge-apart": (
        (run_of("dpo"), log(**GOOD, dev={**SAMPLES, "samples/judge": bent(0.6, 0.4, 0.3)})),
        [
            (run_of("dpo"), log(**GOOD, dev=SAMPLES)),
            # Both fall: the model gets worse, and the reward model sees it.
            (run_of("dpo"), log(**GOOD, dev={**SAMPLES, "samples/judge": bent(0.6, 0.4, 0.3), "samples/score": bent(1, 0, -1)})),
        ],
    ),
}  # fmt: skip


def names(rows: list[dict], run: Run) -> set[str]:
    return {finding.name for finding in findings(rows, run)}


@functools.cache
def watched(name: str) -> list[list[Finding]]:
    """What is said of each row of the log that meets a rule."""
    run, rows = CASES[name][0]
    watch = Watch(run)
    return [watch.see(row) for row in rows]


def the(name: str) -> Finding:
    return next(it for said in watched(name) for it in said if it.name == name)


def test_every_rule_has_its_cases():
    assert list(CASES) == [rule.name for rule in RULES]


@pytest.mark.parametrize("name", CASES)
def test_a_rule_sees_its_pattern_and_no_other(name: str):
    wanted = [name, *(["margin-from-rejected"] if name == "chosen-less-likely" else [])]
    assert sorted(it.name for said in watched(name) for it in said) == wanted
    for place, (run, rows) in enumerate(CASES[name][1]):
        assert name not in names(rows, run), place


@pytest.mark.parametrize(
    ("name", "first", "last", "figures"),
    [
        ("chosen-less-likely", 10, 50, {"logps/chosen": (-100, -106), "rewards/chosen": (0, -0.6), "rewards/margins": (0, 1)}),
        ("margin-from-rejected", 10, 25, {"rewards/margins": (0.1, 0.65), "rewards/chosen": (0, 0), "rewards/rejected": (-0.1, -0.65)}),
        ("accuracy-saturated", 10, 33, {"rewards/accuracies": (0.6, 0.99)}),
        ("overfitting", 60, 90, {"eval_loss": (1.5, 1.6), "loss": (1.6, 1.3)}),
        ("loss-rising", 45, 75, {"loss": (1, 1.4)}),
        ("gradient-clipped", 50, 50, {"grad_norm": (20, 15)}),
        ("steps-skipped", 70, 76, {"overflows in 30 logged steps": (0, 3)}),
        ("rewards-drift", 30, 60, {"mean_reward": (0.3, 2), "margin": (0, 0.6)}),
        ("answers-lengthen", 60, 60, {"samples/length": (62, 98)}),
        ("score-and-judge-apart", 60, 90, {"samples/score": (0.8, 1.4), "samples/judge": (0.57, 0.4)}),
    ],
)  # fmt: skip
def test_a_finding_has_its_step_and_its_figures(name: str, first: int, last: int, figures: dict[str, tuple[float, float]]):
    """The figures are those of when it was seen: near what the curves were made of."""
    found = the(name)
    assert first <= found.step <= last
    assert [it.name for it in found.figures] == list(figures)
    for it in found.figures:
        before, now = figures[it.name]
        room = 0.1 + 0.1 * max(abs(before), abs(now))
        assert it.before == pytest.approx(before, abs=room) and it.now == pytest.approx(now, abs=2 * room), it


def test_reward_models_saturate_too_and_token_accuracy_is_another_thing():
    rows = log(spread=0.002, **rewards(line(0, 0), bent(0.995, 0.6, 0.995, 0.1)))
    assert names(rows, run_of("reward")) == {"accuracy-saturated"}
    assert names(log(spread=0.002, **{**TOKENS, "accuracy": line(0.99, 0.99)}), run_of("sft")) == set()


def test_without_a_reference_the_fall_counts_against_the_log_prob_itself():
    curves = preference(line(-10, -10.3), line(-10, -14))
    assert "chosen-less-likely" not in names(log(**curves), run_of("dpo", loss_type="cpo"))
    curves = preference(line(-10, -11), line(-10, -14))
    assert "chosen-less-likely" in names(log(**curves), run_of("dpo", loss_type="cpo"))


@pytest.mark.parametrize("keys", [{"ref_model_name_or_path": "other"}, {"ref_model_name_or_path": "m", "lora": True, "lora_path": "a"}])
def test_against_another_model_rewards_begin_where_they_begin(keys: dict[str, Any]):
    rows = log(**preference(line(-2, -2), line(-2, -2.3)))
    assert names(rows, run_of("dpo", **keys)) == set()
    rows = log(**preference(line(-2, -2), line(-2, -4)))
    assert names(rows, run_of("dpo", **keys)) == {"margin-from-rejected"}
    assert names(rows, run_of("dpo", ref_model_name_or_path="m")) == {"chosen-less-likely", "margin-from-rejected"}


def test_few_evaluations_must_rise_twice():
    losses = {1: 1.6, 2: 1.5, 3: 1.6, 4: 1.7}
    rows = log(**TOKENS, dev={"eval_loss": lambda done: losses[round(4 * done)]}, dev_rows=4)
    assert [(it.name, it.step) for it in findings(rows, run_of("sft"))] == [("overfitting", 100)]
    losses[3], losses[4] = 1.7, 1.65
    assert names(log(**TOKENS, dev={"eval_loss": lambda done: losses[round(4 * done)]}, dev_rows=4), run_of("sft")) == set()


def noisy(seed: int, command: str, heavy: bool) -> list[dict]:
    """Rows that go nowhere: every metric is noise about its level, with outliers or without."""
    rng = np.random.default_rng(seed)
    levels = {"loss": (1, 0.1), "accuracy": (0.8, 0.1), "margin": (2, 0.3), "mean_reward": (3, 0.3), "grad_norm": (0.8, 0.1)}
    if command == "dpo":
        levels = {"loss": (0.6, 0.1), "rewards/accuracies": (0.8, 0.05), "grad_norm": (0.8, 0.1), "logps/chosen": (-100, 10)}
        levels |= {f"rewards/{name}": (0, 0.5) for name in ("chosen", "rejected", "margins")}
    draw = (lambda: rng.standard_t(3)) if heavy else rng.standard_normal
    rows: list[dict] = []
    for step in range(1, 201):
        row = {"step": step, "epoch": step / 200, "examples": 8 * step}
        rows.append({**row, **{name: level + spread * draw() for name, (level, spread) in levels.items()}})
        if step % 10 == 0:
            dev = {"eval_loss": 1.0 + 0.03 * draw()}
            dev |= {f"samples/{name}": level * (1 + 0.1 * draw()) for name, level in (("length", 80), ("score", 2), ("judge", 5))}
            rows.append({"step": step, "epoch": step / 200, **dev})
    return rows


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("command", ["sft", "reward", "dpo"])
def test_nothing_is_found_in_noise(command: str, heavy: bool):
    run = dataclasses.replace(run_of(command), total_steps=200)
    for seed in range(3):
        assert findings(noisy(seed, command, heavy), run) == (), seed


def test_noise_is_told_from_trend():
    rng = np.random.default_rng(0)
    values = np.linspace(0, 50, 400) + 2 * rng.standard_normal(400)
    values[::40] += 100
    assert noise(values) == pytest.approx(2, rel=0.2)
    assert shift(np.zeros(9)) is None and evaluation_turn(np.array([1.0, 2.0])) is None


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_finds_what_an_uninterrupted_one_does_and_repeats_nothing(name: str):
    run, rows = CASES[name][0]
    whole = watched(name)
    for cut in (40, 90):
        resumed = Watch(run)
        for row in rows[:cut]:  # as metrics.jsonl gives them back
            kept = {key: None if not math.isfinite(value) else value for key, value in row.items()}
            resumed.see(json.loads(json.dumps(kept)))
        assert [resumed.see(row) for row in rows[cut:]] == whole[cut:]
        assert resumed.found == [it for said in whole for it in said] == list(findings(rows, run))


def test_long_logs_are_looked_at_in_proportion(monkeypatch: pytest.MonkeyPatch):
    """A look reads all rows; 10,000 rows must not be read 10,000 times."""
    seen: list[int] = []
    rule = dataclasses.replace(RULES[0], look=lambda curves, run: seen.append(curves.rows))
    monkeypatch.setattr(watch, "RULES", (rule,))
    assert findings([{"step": step} for step in range(10_000)], run_of("dpo")) == ()
    assert seen[:100] == list(range(1, 101)) and len(seen) < 700
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 100


@pytest.mark.parametrize("name", CASES)
def test_what_may_help_can_be_typed_as_it_stands(name: str):
    """Each try is accepted by the command beside the keys of the run, and changes the arguments that it names."""
    run, found = CASES[name][0][0], the(name)
    own = {key: run.arguments[key] for key in ("fp16", "lr_scheduler_type")}
    told = tell(found).partition("what may help: ")[2].split("; or ")
    assert len(told) == len(found.tries) > 0
    for text, tries in zip(told, found.tries, strict=True):
        words = text.split()
        asked = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
        effective = run_of(run.command, **{**own, **asked}).arguments
        assert {key: effective[key] for key in asked} == tries
        assert any(run.arguments[key] != value for key, value in tries.items()), text


@pytest.mark.parametrize("loss", [*LOSSES, *UNPAIRED_LOSSES])
@pytest.mark.parametrize("free", [False, True])
def test_every_loss_gets_advice_that_it_can_take(loss: str, free: bool):
    keys = {"loss_type": loss, **({"label_smoothing": 0.1} if loss == "exo_pair" else {})}
    if free:
        if loss in UNPAIRED_LOSSES or LOSSES[loss].compares != "difference":
            return
        keys["reference_free"] = True
    run = run_of("dpo", **keys)
    advice = [remedies.more_of_chosen(run), remedies.closer(run), remedies.smoother(run), remedies.discounted(run)]
    advice += [remedies.other_loss(run, other) for other in ("dpop", "apo_zero", "sigmoid_norm")]
    *kept, other = [it for tries in advice for it in tries]
    for it in ({key: value for tries in kept for key, value in tries.items()}, other):  # two parses for all
        told = run_of("dpo", **{**keys, **it})
        assert all(told.arguments[key] == value != run.arguments[key] for key, value in it.items())
    assert bool(remedies.closer(run)) is (loss not in ("orpo", "sft", "sft_norm"))


def test_advice_leaves_out_what_a_run_has():
    assert remedies.keeping_best(run_of("sft", save_steps=10, load_best_model_at_end=True)) == []
    assert remedies.keeping_best(run_of("sft")) == [{"load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 10}]
    assert remedies.warmer(run_of("sft", warmup_steps=5)) == [] and remedies.clipped(run_of("sft")) == []
    assert remedies.smoother(run_of("dpo", label_smoothing=0.1)) == [] and remedies.discounted(run_of("dpo", ld_alpha=0.9)) == []
    assert remedies.shorter(run_of("sft", max_steps=80), 30, 0.4) == [{"max_steps": 30}]
    assert remedies.shorter(run_of("sft", num_train_epochs=4)) == [{"num_train_epochs": 2.0}]
    assert remedies.more_of_chosen(run_of("dpo", sft_loss_ratio=0.2)) == [{"sft_loss_ratio": 0.4}]


def test_what_makes_a_short_log_long_enough():
    assert more_lines(run_of("sft", logging_steps=40)) == f"--logging_steps {STEPS // 10}"
    assert more_lines(Run("sft", 9, run_of("sft").arguments)) == "max_steps"
    assert more_lines(run_of("sft", logging_steps=STEPS // 10)) == "logging_steps"


def test_a_finding_is_told_in_two_lines_and_the_end_lists_all():
    run, rows = CASES["overfitting"][0]
    watched = Watch(run)
    assert watched.summary() == "what the curves say: too early to tell from 0 training lines; 10 are needed (--logging_steps 10)"
    for row in rows:
        watched.see(row)
    (found,) = watched.found
    first, second = tell(found).split("\n")
    assert first.startswith(f"  overfitting, step {found.step}: eval_loss 1.567 to 1.") and first.endswith(found.meaning)
    assert second.startswith(
        "    what may help: --num_train_epochs 1.2; or --load_best_model_at_end true --save_strategy steps --save_steps 10; or "
    )
    assert watched.summary() == f"what the curves say (docs/curves.md):\n{first}\n{second}"
    watched = Watch(run)
    for row in log(**TOKENS):
        watched.see(row)
    assert watched.summary() == "what the curves say: nothing that asks for a change (docs/curves.md)"


THRESHOLDS = {
    "chosen-less-likely": [f"{curve_rules.LOST_SHARE:.0%}"],
    "margin-from-rejected": [f"{curve_rules.MARGIN_GAIN:g}", f"{curve_rules.CHOSEN_SHARE:.0%}"],
    "accuracy-saturated": [f"{curve_rules.SATURATED:.0%}", f"{curve_rules.SATURATED_PAIRS} pairs", "third"],
    "overfitting": [f"{curve_rules.DEV_RISE:.0%}", f"{curve_rules.TRAIN_FALL:.0%}", f"{curve_rules.LEAST_RISE:g}"],
    "loss-rising": [f"{curve_rules.LOSS_RISE:.0%}", f"{curve_rules.LEAST_RISE:g}"],
    "gradient-clipped": [f"{curve_rules.CLIPPED_SHARE:.0%}", f"{curve_rules.CLIPPED_BY:g} times", f"{curve_rules.CLIPPED_ROWS} logged"],
    "steps-skipped": [f"{curve_rules.SKIPPED} of the last {curve_rules.SKIPPED_ROWS} logged steps"],
    "rewards-drift": [f"{curve_rules.OFFSET:g}"],
    "answers-lengthen": [f"{curve_rules.LONGER - 1:.0%}", f"{curve_rules.LEAST_SAMPLES} evaluations"],
    "score-and-judge-apart": [f"{curve_rules.LEAST_SAMPLES} evaluations"],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_page_has_every_rule_with_its_thresholds_and_keys(rule: curve_rules.Rule):
    page = (ROOT / "docs" / "curves.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(f"\n### {rule.name}\n")
    section = " ".join(rest.partition("\n### ")[0].split())
    assert rule.meaning in section
    plain = section.replace(" %", "%")
    assert [text for text in THRESHOLDS[rule.name] if text not in plain] == []
    assert [key for it in the(rule.name).tries for key in it if f"`{key}`" not in section] == []
