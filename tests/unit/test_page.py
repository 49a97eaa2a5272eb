"""The run's page without a browser: what stands on it, that it follows from the folder alone, and that texts stay texts."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.data.examples import Examples
from paddlealign.data.length_counts import count_lengths, prompt_and_answer_lengths
from paddlealign.errors import UserError
from paddlealign.evaluation.pair_margins import drop_margins, margins_file, summarise_margins, write_margins
from paddlealign.recipes.run_page import RunPage
from paddlealign.report.__main__ import main, names_of
from paddlealign.report.argument_tables import arguments_of, differences
from paddlealign.report.charts import charts_of, lost_points
from paddlealign.report.facts import duration, state_of
from paddlealign.report.histograms import margin_histograms, shared_bins
from paddlealign.report.page import render, write_page
from paddlealign.report.run_files import RunFiles, columns_of, read_run
from paddlealign.report.sample_table import SHOWN, sample_table
from paddlealign.report.thin import thin
from tests.small_pages import HOSTILE, write_run


def argument(value: Any, source: str = "default") -> dict[str, Any]:
    return {"value": value, "source": source}


def run_of(arguments: dict[str, dict[str, Any]], rows: list[dict[str, Any]] | None = None, **more: Any) -> RunFiles:
    told = {"command": "dpo", "arguments": {"training": arguments}, **more}
    return RunFiles(Path("run"), "run", told, columns_of(rows or []), {}, {}, {})


# Long curves


def test_thinning_keeps_the_extremes_and_both_ends():
    rng = np.random.default_rng(0)
    values = rng.normal(size=10_000)
    values[[1234, 7777]] = 50.0, -60.0
    line = thin(range(10_000), values, groups=100)
    assert len(line.x) <= 202
    assert (max(line.y), min(line.y)) == (50.0, -60.0)
    assert line.x[line.y.index(50.0)] == 1234
    assert (line.x[0], line.x[-1]) == (0, 9999)
    assert line.x == sorted(line.x)
    for start in range(0, 10_000, 100):  # each group by itself
        part = [y for x, y in zip(line.x, line.y, strict=True) if start <= x < start + 100]
        assert max(part) == pytest.approx(values[start : start + 100].max(), rel=1e-5)
        assert min(part) == pytest.approx(values[start : start + 100].min(), rel=1e-5)


def test_what_is_smoothed_are_the_means_of_groups():
    values = np.arange(1000.0)
    values[10] = 1e6
    line = thin(range(1000), values, groups=10)
    assert line.mean_x == [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    assert line.mean_y[0] == pytest.approx(values[:100].mean(), rel=1e-5)
    assert line.mean_y[1:] == pytest.approx(values[100:].reshape(9, 100).mean(1))


def test_a_short_curve_is_drawn_as_it_is_without_what_is_not_finite():
    line = thin([1, 2, 3, 4], [0.1234567, float("nan"), 2.0, float("inf")])
    assert (line.x, line.y) == ([1, 3], [0.123457, 2])
    assert thin([], []).x == []


# Charts


def test_a_metric_without_a_chart_of_its_own_is_not_hidden():
    rows = [{"step": 1, "loss": 0.5, "tokens": 9, "something/new": 3.0}, {"step": 2, "eval_loss": 0.4, "eval_something/new": 2.0}]
    charts = charts_of([run_of({}, rows)])
    assert [chart["title"] for chart in charts] == ["Loss", "something/new"]
    assert [curve["label"] for curve in charts[1]["curves"]] == ["training rows", "dev rows"]


def test_curves_of_several_runs_lie_over_each_other():
    runs = [run_of({}, [{"step": 1, "loss": value}]) for value in (0.5, 0.25)]
    [chart] = charts_of(runs)
    assert [(curve["run"], curve["y"]) for curve in chart["curves"]] == [(0, [0.5]), (1, [0.25])]


def test_values_that_are_not_finite_are_counted():
    assert lost_points(run_of({}, [{"step": 1, "loss": None}, {"step": 2, "loss": None, "grad_norm": 1.0}])) == {"loss": 2}


# Arguments


def test_changed_arguments_come_first():
    keys = {
        "a": argument(1),
        "b": argument(0.5, "file"),
        "c": argument(None),
        "d": argument(True, "command line"),
        "e": argument(3, "derived"),
    }
    found = arguments_of(run_of(keys))
    assert [(it.key, it.value, it.changed) for it in found] == [
        ("d", "true", True),
        ("b", "0.5", True),
        ("e", "3", True),
        ("a", "1", False),
        ("c", "unset", False),
    ]


def test_only_differing_arguments_are_in_the_table():
    first = run_of({"beta": argument(0.1), "seed": argument(1), "output_dir": argument("a"), "old": argument(2)})
    second = run_of({"beta": argument(0.5), "seed": argument(1), "output_dir": argument("b")})
    assert [(it.key, it.values) for it in differences([first, second])] == [("beta", ("0.1", "0.5")), ("old", ("2", "(no such key)"))]
    assert differences([first, first]) == []


# Distributions


def test_histograms_share_their_bins_and_lose_no_value():
    found = shared_bins({"before": [0.0] * 50 + [-1000.0], "after": [1.0, 2.0, 3.0, float("nan")]}, bins=8)
    assert len(found["edges"]) == 9
    assert [sum(it["counts"]) for it in found["series"]] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found["series"][1]["above"] == 1
    assert found["series"][0]["above"] == 0
    assert shared_bins({"before": []}) == {}
    assert len(shared_bins({"only": [0.0, 0.0]})["edges"]) == 41  # one value has a width, too


def test_margins_are_shown_before_and_after():
    def step(reward: float) -> dict[str, list[float]]:
        return {"rewards/margins": [reward], "logps/margins": [2.0], "reference_logps/margins": [1.0]}

    reward, logps = margin_histograms({10: step(0.1), 30: step(0.9)})
    assert [it["name"] for it in reward["series"]] == ["step 10", "step 30"]
    assert [it["mean"] for it in reward["series"]] == [0.1, 0.9]
    assert [(it["name"], it["mean"]) for it in logps["series"]] == [("before: the reference", 1), ("after: the policy, step 30", 2)]
    [alone] = margin_histograms({10: {"rewards/margins": [0.5]}})
    assert alone["title"].startswith("Reward")
    assert margin_histograms({}) == []


def test_margins_files_are_the_same_however_the_pairs_were_shared_out(tmp_path: Path):
    write_margins(tmp_path / "a", 5, {"rewards/margins": np.array([3.0, 1.0, 2.0])})
    write_margins(tmp_path / "b", 5, {"rewards/margins": np.array([2.0, 3.0, 1.0])})
    write_margins(tmp_path / "a", 7, {})
    assert margins_file(tmp_path / "a", 5).read_bytes() == margins_file(tmp_path / "b", 5).read_bytes()
    assert not margins_file(tmp_path / "a", 7).exists()
    drop_margins(tmp_path / "a", after=5)
    assert margins_file(tmp_path / "a", 5).exists()
    drop_margins(tmp_path / "a", after=4)
    assert not margins_file(tmp_path / "a", 5).exists()


def test_of_many_margins_quantiles_are_kept():
    kept = summarise_margins(np.random.default_rng(0).permutation(np.arange(10_000.0)), most=101)
    assert (len(kept), kept[0], kept[50], kept[-1]) == (101, 0.0, 5000.0, 9999.0)


def test_lengths_are_counted_by_place():
    def example(prompt: int, *answers: int) -> Example:
        return Example(np.ones(prompt, "int32"), tuple(Response(np.ones(it, "int32"), np.ones(it, bool)) for it in answers))

    found = prompt_and_answer_lengths(Examples.of([example(3, 5, 2), example(4, 6, 1)]), ("chosen", "rejected"))
    [prompts] = found["prompts"]["series"]
    assert (prompts["count"], prompts["mean"], prompts["longest"]) == (2, 3.5, 4)
    assert [(it["name"], it["mean"]) for it in found["answers"]["series"]] == [("chosen", 5.5), ("rejected", 1.5)]
    assert found["answers"]["edges"][0] == 1
    wide = count_lengths({"prompts": np.array([1, 500])}, bins=10)
    assert len(wide["edges"]) <= 11
    assert sum(wide["series"][0]["counts"]) == 2
    assert count_lengths({"prompts": np.zeros(0, np.int64)})["series"] == []


# Samples


def test_samples_are_matched_and_told_apart(tmp_path: Path):
    table = sample_table(read_run(write_run(tmp_path / "run")))
    assert table is not None
    assert [row.change for row in table.rows] == ["better", "worse", "same"]
    assert (table.before, table.after) == ("before: step 0", "after: step 20")
    assert table.rows[0].gain == pytest.approx(2.0)


def test_of_many_samples_the_first_are_shown(tmp_path: Path):
    rows = [{"prompt": str(number), "response": "a"} for number in range(SHOWN + 1)]
    run = replace(read_run(write_run(tmp_path / "run")), samples={4: rows})
    table = sample_table(run)
    assert table is not None
    assert (len(table.rows), table.total) == (SHOWN, SHOWN + 1)
    assert f"The first {SHOWN} of {SHOWN + 1}" in render([run])


# The page


def test_the_page_follows_from_the_folder_alone(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    first = write_page(folder).read_bytes()
    assert write_page(folder).read_bytes() == first
    assert not list(folder.glob("*.part"))
    write_run(folder, steps=21)
    assert write_page(folder).read_bytes() != first


def test_texts_of_others_stay_texts(tmp_path: Path):
    page = render([read_run(write_run(tmp_path / HOSTILE.replace("/", ":")))])
    script = re.findall(r"<script[^>]*>", page)
    assert script == ['<script type="application/json" id="data">', "<script>", "<script>", "<script>", "<script>"]
    assert page.count("</script") == 5
    assert "<img" not in page.split("<script")[0]
    assert "&lt;img src=x onerror=" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    scripts = next(part for part in unescape(policy[1]).split(";") if "script-src" in part)
    assert "unsafe" not in scripts
    assert len(re.findall("sha256-", scripts)) == 4


def test_the_page_loads_nothing(tmp_path: Path):
    page = render([read_run(write_run(tmp_path / "run"))])
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", ours)
    assert "default-src &#39;none&#39;" in page
    assert "connect-src" not in page.split("<style>")[0]
    assert "connect-src" in render([read_run(tmp_path / "run")], live=True).split("<style>")[0]


def test_a_run_that_goes_on_or_was_broken_off_has_a_page(tmp_path: Path):
    folder = write_run(tmp_path / "run", finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')
    assert "step 20 of 40, not finished" in render([read_run(folder)])
    (folder / "data.json").write_text("{")
    (folder / "samples" / "step-20.jsonl").unlink()
    (folder / "margins" / "step-20.json").unlink()
    (folder / "metrics.jsonl").unlink()
    assert "Too early to tell from 0 training lines; 10 are needed (logging_steps)." in render([read_run(folder)])


def test_the_page_of_a_short_run_counts_the_training_lines_alone(tmp_path: Path):
    folder = write_run(tmp_path / "run", steps=9, finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "eval_loss": 0.5}\n')
    page = render([read_run(folder)])
    assert "Too early to tell from 9 training lines; 10 are needed (" in page and "Nothing that asks for a change" not in page


@pytest.mark.parametrize("text", [None, "{", "[]", '{"command": "dpo", "arguments": {"a": {"b": 1}}}', '{"command": 3, "arguments": {}}'])
def test_a_folder_that_holds_no_run_is_told(tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        read_run(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_page_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    (folder / "report.html").mkdir()
    told: list[str] = []
    page = RunPage(folder, json.loads((folder / "run.json").read_text()), told.append)
    page.refresh([])
    page.finish()
    [line] = told
    assert "report.html cannot be written" in line


def test_states_and_durations_read_well():
    assert state_of(run_of({}, [{"step": 7}], total_steps=1200)) == "step 7 of 1,200, not finished"
    assert state_of(run_of({}, finished=True, steps=1200)) == "finished after 1,200 steps"
    assert [duration(it) for it in (12.4, 200, 3725)] == ["12 s", "3 min 20 s", "1 h 02 min"]


# The command


def test_the_command_writes_one_page_and_overlays_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [write_run(tmp_path / name, beta=beta) for name, beta in (("a", 0.1), ("b", 0.5))]
    monkeypatch.chdir(tmp_path)
    assert main([str(runs[0])]) == 0
    assert main([*map(str, runs), "-o", "both.html"]) == 0
    both = (tmp_path / "both.html").read_text()
    assert "2 runs side by side" in both
    assert re.search(r"<code>beta</code></th><td>0\.1</td><td>0\.5</td>", both)
    assert (runs[0] / "report.html").exists()
    assert main([*map(str, runs)]) == 0
    assert (tmp_path / "report.html").read_text() == both


def test_a_file_of_another_kind_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "notes.html").write_text("mine")
    assert main([str(write_run(tmp_path / "run")), "-o", str(tmp_path / "notes.html")]) == 1
    assert (tmp_path / "notes.html").read_text() == "mine"
    assert main([str(tmp_path / "run"), "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("error: --output") == 2


def test_runs_of_one_name_are_called_by_their_paths():
    assert names_of([Path("a/run"), Path("b/run")]) == ["a/run", "b/run"]
    assert names_of([Path("x/a"), Path("x/b")]) == ["a", "b"]
