"""The benchmark's own arithmetic: the workload, what counts as equal work, how a run is timed, and the page."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from paddlealign.data.order import epoch_plan
from scripts.benchmark.equal import differences
from scripts.benchmark.measure import measure
from scripts.benchmark.page import write_page
from scripts.benchmark.profile import REST, products_of, table
from scripts.benchmark.run import Plan, Run, summarize
from scripts.benchmark.settings import AS_STARTED, in_fresh_process, settings
from scripts.benchmark.settings import table as settings_table
from scripts.benchmark.workload import (
    END as END_TOKEN,
)
from scripts.benchmark.workload import (
    HIDDEN,
    INNER,
    LAYERS,
    PAIRS_PER_STEP,
    SEED,
    SHAPES,
    VOCABULARY,
    Work,
    draw_pairs,
    in_our_order,
    model_flops,
    steps_of,
    write_tokenizer,
    write_workload,
)

LINE = {"loss": 0.6931, "logps/chosen": -850.0, "grad_norm": 66.0}
RUN = Run("common", "ours_dpo", 0, 1.0, 220.0, 780.0, 140.0, 200.0, 1.5, 3_000_000_000, 0.01, [])
PLAN = Plan(["common"], 8, 2, 1, ["ours_dpo", "trl_dpo"], 2)


def test_the_pairs_keep_to_their_shape_and_the_first_of_many_are_those_of_few():
    for shape in SHAPES.values():
        pairs = draw_pairs(shape, 200)
        assert pairs[:8] == draw_pairs(shape, 8)
        assert max(len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs) <= shape.longest
        assert all(pair.chosen[-1] == pair.rejected[-1] == END_TOKEN not in pair.prompt for pair in pairs)
        # Pairs that are too long are drawn again, so both means lie somewhat below the shape's.
        assert 0.7 < np.mean([len(pair.prompt) for pair in pairs]) / shape.prompt < 1.1
        assert 0.7 < np.mean([len(pair.chosen) for pair in pairs]) / shape.response < 1.1


def test_the_order_is_the_one_that_a_run_takes():
    pairs = draw_pairs(SHAPES["common"], 12)
    lengths = [len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs]
    plan = epoch_plan(lengths, seed=SEED, epoch=0, max_length=1024, micro_batch_size=PAIRS_PER_STEP)
    ordered = in_our_order(pairs)
    for number in range(plan.steps):
        [[batch]] = plan.step(number)
        taken = [pairs[index] for row in batch for index in row]
        mine = ordered[PAIRS_PER_STEP * number : PAIRS_PER_STEP * (number + 1)]
        assert sorted(map(str, taken)) == sorted(map(str, mine))
    assert ordered != pairs


def test_every_reader_finds_the_same_ids(tmp_path: Path):
    write_tokenizer(tmp_path)
    pairs = draw_pairs(SHAPES["short"], 8)
    write_workload(tmp_path, pairs)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = [json.loads(line) for line in (tmp_path / "dpo_ordered.jsonl").read_text().splitlines()]
    ids = [json.loads(line) for line in (tmp_path / "ids_ordered.jsonl").read_text().splitlines()]
    for text, numbers in zip(texts, ids, strict=True):
        for side in ("chosen", "rejected"):
            assert tokenizer.encode(text["prompt"] + text[side] + "</s>").ids == numbers["prompt"] + numbers[side]
    assert sorted(map(str, ids)) == sorted(str({"prompt": it.prompt, "chosen": it.chosen, "rejected": it.rejected}) for it in pairs)


def test_flops_are_those_of_every_product_counted_one_by_one():
    prompt, responses = 3, [2, 4]
    # Which earlier token, itself included, each token sees: a response sees the prompt and itself, not the other.
    seen = sum(range(1, prompt + 1)) + sum(prompt + place for size in responses for place in range(1, size + 1))
    linear = 2 * (prompt + sum(responses)) * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER)
    products = 2 * 2 * seen * HIDDEN  # queries with keys, weights with values
    forward = LAYERS * (linear + products) + 2 * sum(responses) * HIDDEN * VOCABULARY
    assert model_flops(prompt, responses, reference=False) == 3 * forward
    assert model_flops(prompt, responses, reference=True) == 4 * forward


def test_a_step_counts_a_prompt_once_for_each_response():
    pairs = draw_pairs(SHAPES["short"], 8)
    dpo, sft = steps_of(pairs, "dpo", True), steps_of(pairs, "sft", False)
    assert [step.examples for step in dpo] == [4, 4]
    assert sum(step.tokens for step in dpo) == sum(2 * len(it.prompt) + len(it.chosen) + len(it.rejected) for it in pairs)
    assert sum(step.scored for step in sft) == sum(len(it.chosen) for it in pairs)
    cached = steps_of(pairs, "dpo", False)  # forward and backward of the policy, without the reference's forward
    assert [step.flops for step in cached] == [pytest.approx(0.75 * step.flops) for step in dpo]
    assert [step.tokens for step in cached] == [step.tokens for step in dpo]


@pytest.mark.parametrize(
    ("change", "half", "told"),
    [
        ({}, False, []),
        ({"loss": 0.6934}, False, ["first loss 0.6934, not 0.6931"]),
        ({"loss": 0.6934}, True, []),
        ({"logps/chosen": -851.0}, False, ["first logps/chosen -851, not -850"]),
        ({"grad_norm": 80.0}, True, ["first grad_norm 80, not 66"]),
        ({"loss": float("nan")}, False, ["first loss nan, not 0.6931"]),
    ],
)
def test_unequal_work_is_told(change: dict, half: bool, told: list[str]):
    assert differences([{**LINE, **change}, LINE], [LINE, LINE], 2, half) == told


def test_another_number_of_steps_is_told():
    assert differences([LINE], [LINE, LINE], 2, half=False) == ["1 steps, not 2"]


def test_a_run_is_timed_from_outside(tmp_path: Path):
    line = "open('log', 'a').write('{\"loss\": 1}\\n')"
    script = f"import time\nheld = b'x' * 200_000_000\nfor _ in range(3):\n    time.sleep(0.2)\n    {line}"
    (tmp_path / "log").write_text("left over\n")
    found = measure([sys.executable, "-c", script], os.environ, tmp_path, tmp_path / "log", tmp_path / "words", 60)
    assert found.lines == [{"loss": 1}] * 3
    assert found.ends == sorted(found.ends)
    assert len(found.ends) == len(found.cpu) == 3
    assert 200_000_000 < found.peak < 300_000_000


def test_a_run_that_fails_or_does_not_end_is_told(tmp_path: Path):
    words = [sys.executable, "-c", "raise SystemExit('no such rows')"]
    with pytest.raises(RuntimeError, match="no such rows"):
        measure(words, os.environ, tmp_path, tmp_path / "log", tmp_path / "words", 60)
    with pytest.raises(TimeoutError):
        measure([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, tmp_path, tmp_path / "log", tmp_path / "words", 0.2)


def test_warm_up_steps_do_not_count(tmp_path: Path):
    script = "open('log', 'a').write('{}\\n' * 3)"
    found = measure([sys.executable, "-c", script], os.environ, tmp_path, tmp_path / "log", tmp_path / "words", 60)
    found = replace(found, ends=[100.0, 102.0, 104.0], cpu=[9.0, 12.0, 15.0], lines=[LINE] * 3)
    run = summarize(found, [Work(4, 4000, 900, 5e12)] * 3, 1, "common", "ours_dpo", 0, 200.0, [])
    assert (run.examples_per_second, run.tokens_per_second, run.scored_per_second) == (2.0, 2000.0, 450.0)
    assert (run.gflops, run.cpu_seconds_per_example) == (2500.0, 0.75)


def test_the_page_has_medians_and_the_ratios_of_rounds(tmp_path: Path):
    page = tmp_path / "page.md"
    other = "<!-- measured, short: begin -->\nof another run\n<!-- measured, short: end -->"
    page.write_text(f"before\n<!-- measured, common: begin -->\nold\n<!-- measured, common: end -->\n{other}\nafter\n")
    theirs = [replace(RUN, system="trl_dpo", round=number, examples_per_second=rate) for number, rate in enumerate((0.25, 0.5))]
    write_page(page, [RUN, replace(RUN, round=1), *theirs], {}, PLAN, {"trl": "1.0"})
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{other}\nafter\n")
    assert "old" not in text
    assert "3.00 x (2.00 to 4.00)" in text
    assert "| **ours**, live reference | 1.000 | 220 | 780 | 70% | 3.0 | 1.50 | - | - | 1% |" in text
    assert "The machine was quiet" in text
    assert "Work was equal" in text


def test_the_page_tells_a_loaded_machine_and_unequal_work(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("<!-- measured, common: begin -->\n<!-- measured, common: end -->\n")
    write_page(
        page,
        [replace(RUN, other_load=0.4), replace(RUN, system="trl_dpo", unequal=["1 steps, not 2"])],
        {"common, PaddleNLP": "no"},
        PLAN,
        {},
    )
    assert "loaded by others" in page.read_text()
    assert "- common, PaddleNLP: no" in page.read_text()
    assert "- TRL fp32: 1 steps, not 2" in page.read_text()


def test_settings_stand_beside_ours_in_the_same_round_and_the_fastest_is_first():
    seconds = {AS_STARTED: [2.0, 4.0, 4.0], "one thread": [4.0, 8.0, 5.0], "threads bound to cores": [1.0, 4.0, 2.0]}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in settings_table(seconds, settings(2)).splitlines()[4:]]
    assert [row[0] for row in rows] == ["threads bound to cores", AS_STARTED, "one thread"]
    assert rows[1][1:] == ["", "4.00", "1.00 x (1.00 to 1.00)"]
    assert rows[2][1:] == ["`MKL_NUM_THREADS=1`", "5.00", "0.50 x (0.50 to 0.80)"]


def test_a_setting_is_all_that_its_process_is_told_of_threads_and_memory(monkeypatch: pytest.MonkeyPatch):
    told = {}

    def run(command: list[str], env: dict[str, str], **more: object) -> subprocess.CompletedProcess[str]:
        told.update(env)
        return subprocess.CompletedProcess(command, 0, "machine: 2 cores\n1.25\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert in_fresh_process(Path("model"), {"MKL_NUM_THREADS": "1"}) == 1.25
    assert told["MKL_NUM_THREADS"] == "1" and "OMP_NUM_THREADS" not in told and "PATH" in told


def test_the_profile_is_of_the_median_round_and_adds_up():
    rounds = [{"norm, forward": 9.0, "all": 90.0}, {"norm, forward": 4.0, "all": 10.0}, {"norm, forward": 1.0, "all": 4.0}]
    said = table(rounds, pairs=20, flops={"model": 500e9, REST: 300e9}, peak=200.0)
    assert "2.00 pairs/s, 50 GFLOP/s by model FLOPs, 25% of the 200" in said
    assert f"| {REST} | 60% | 1,500 | 50 |\n| norm, forward | 40% | 1,000 |  |" in said


def test_the_profile_s_products_are_those_of_the_pairs():
    pairs = draw_pairs(SHAPES["common"], 4)
    found = products_of(pairs)
    assert found["model"] == pytest.approx(sum(model_flops(len(it.prompt), [len(it.chosen), len(it.rejected)], True) for it in pairs))
    once = {**{name: found[name] / 2 for name in ("attention, forward", "head and log-sum-exp, forward")}, REST: found[REST] / 4}
    unread = 2 * (512 * 512 + 3 * 512 * 1376) * sum(len(it.prompt) for it in pairs)  # by the last of eight layers
    assert 4 * (sum(once.values()) + unread) == pytest.approx(found["model"])
    assert 0.01 < once["attention, forward"] / found["model"] * 4 < 0.1
