"""A run's folder as training leaves it, without training, for the tests of the page."""

import json
import math
import random
from pathlib import Path
from typing import Any

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
_SAMPLES = [("How many legs?", "Six.", "Six legs!", -1.0, 1.0), (HOSTILE, HOSTILE, "四。", 2.0, 0.5), ("Same?", "Same.", "Same.", 0.0, 0.0)]


def write_run(folder: Path, steps: int = 20, finished: bool = True, beta: float = 0.1) -> Path:
    """Write the files of a DPO run of so many steps, with hostile texts in its samples, arguments and findings. Returns the folder."""
    for name in ("samples", "margins"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    keys = {
        "beta": (beta, "command line"),
        "seed": (42, "default"),
        "output_dir": (folder.name, "file"),
        "model_name_or_path": (HOSTILE, "file"),
    }
    run = {
        "command": "dpo",
        "arguments": {"training": {key: {"value": value, "source": source} for key, (value, source) in keys.items()}},
        "sha256": {"train files": "ab" * 32},
        "device": "cpu",
        "versions": {"python": "3.11"},
        "total_steps": 2 * steps,
        "finished": finished,
        "findings": [],
    }
    if finished:
        figures = [{"name": HOSTILE, "before": 0.5, "now": 0.75}]
        run |= {"steps": steps, "seconds": 61.0}
        run["findings"] = [{"name": "loss-rising", "step": 9, "figures": figures, "meaning": HOSTILE, "tries": [{"learning_rate": 1e-5}]}]
    _json(folder / "run.json", run)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        share = step / steps
        rows.append({"step": step, "epoch": share, "loss": 0.7 - 0.3 * share, "rewards/margins": share, "learning_rate": 1e-4 * share})
        rows[-1] |= {"grad_norm": 1.0 + step % 3, "tokens_per_second": 900.0 + step, "memory_gib": 1.0}
        if step % 10 == 0:
            rows.append({"step": step, "epoch": share, "eval_loss": 0.8 - 0.2 * share, "eval_rewards/margins": 0.9 * share})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (0, 20):
        answers = [
            {"prompt": prompt, "response": after if step else before, "score": later if step else earlier, "length": 3}
            for prompt, before, after, earlier, later in _SAMPLES
        ]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in answers]
        (folder / "samples" / f"step-{step}.jsonl").write_text("".join(lines), encoding="utf-8")
    for step, shift in ((10, 0.0), (20, 1.0)):
        names = ("rewards/margins", "logps/margins", "reference_logps/margins")
        _json(folder / "margins" / f"step-{step}.json", {name: [value / 10 + shift for value in range(-20, 21)] for name in names})
    counted = {"edges": [0, 5, 10], "series": [{"name": "chosen", "counts": [30, 10], "count": 40, "mean": 4.5, "longest": 9}]}
    split = {
        "records": 42,
        "kept": 40,
        "tokens": 900,
        "scored_tokens": 400,
        "prompts_cut": 1,
        "answers_cut": 0,
        "too_long": 2,
        "refused": 0,
    }
    _json(folder / "data.json", {"train": {**split, "lengths": {"prompts": counted, "answers": counted}}})
    return folder


def write_long_run(folder: Path, steps: int, seed: int = 0) -> Path:
    """``write_run`` with a log that has every figure of a DPO run for each of so many steps, noisy as they are. Returns the folder."""
    write_run(folder, beta=0.1 * (seed + 1))
    noise = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        share = step / steps
        rows.append({"step": step, "epoch": share, **_dpo_figures(share, noise)})
        speeds = {"grad_norm": noise.lognormvariate(0, 0.4), "tokens_per_second": noise.gauss(9000, 400), "padding": noise.uniform(0, 0.02)}
        rows[-1] |= {"learning_rate": 1e-4 * (1 - share), "memory_gib": 1 + share // 0.25 / 10, "tokens": 4096 * step, **speeds}
        if step % max(1, steps // 20) == 0:
            rows.append({"step": step, "epoch": share, **{f"eval_{name}": it for name, it in _dpo_figures(share, noise).items()}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _dpo_figures(share: float, noise: random.Random) -> dict[str, float]:
    """What DPO logs of a batch after that share of the run."""
    learnt = 1 - math.exp(-4 * share)
    chosen, rejected = noise.gauss(learnt, 0.2), noise.gauss(-3 * learnt, 0.3)
    return {
        "loss": math.log1p(math.exp(rejected - chosen)),
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": round(min(1.0, noise.gauss(0.5 + 0.45 * learnt, 0.05)), 3),
        "logps/chosen": 10 * chosen - 40,
        "logps/rejected": 10 * rejected - 60,
    }


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
