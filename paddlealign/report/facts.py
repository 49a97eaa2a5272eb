"""What a run was, in few words: the facts at the top of its page, its data, its environment. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddlealign.report.run_files import RunFiles

_METHODS = {"sft": "Supervised fine-tuning", "reward": "Reward model", "dpo": "Preference optimisation"}
_SPLITS = ("train", "dev")
# Figures at the top, and their metrics.
_FIGURES = {"loss": "loss", "dev loss": "eval_loss", "dev pairs ranked right": "eval_rewards/accuracies", "dev accuracy": "eval_accuracy"}


@dataclass(frozen=True)
class Fact:
    """A figure or a word with what it is."""

    name: str
    value: str
    remark: str = ""


def title_of(run: RunFiles) -> str:
    """What was done, with the loss where there is a choice."""
    method = _METHODS.get(run.run["command"], run.run["command"])
    loss = run.arguments.get("loss_type")
    return f"{method} ({loss})" if isinstance(loss, str) else method


def state_of(run: RunFiles) -> str:
    """Whether the run has ended, and how far it is."""
    total = run.run.get("total_steps")
    of_all = f" of {total:,}" if isinstance(total, int) else ""
    if run.run.get("finished"):
        return f"finished after {run.run.get('steps', run.last_step):,} steps"
    return f"step {run.last_step:,}{of_all}, not finished"


def facts_of(run: RunFiles) -> list[Fact]:
    """The few facts that a reader looks for first."""
    arguments, last = run.arguments, _last_values(run)
    facts = [Fact("model", str(arguments.get("model_name_or_path")), "with an adapter" if arguments.get("lora") else "")]
    told = (arguments.get(key) or [] for key in ("dataset_name_or_path", "train_dataset_path"))
    paths = [path for value in told for path in ([value] if isinstance(value, str) else value)]
    facts += [Fact("data", " ".join(paths), _rows_of(run.data))]
    for name, metric in _FIGURES.items():
        if metric in last:
            first, now = last[metric]
            was, shown = (f"{value:.1%}" if "accurac" in metric else f"{value:.4g}" for value in (first, now))
            facts.append(Fact(name, shown, f"from {was}" if first != now else ""))
    seconds = run.run.get("seconds")
    if isinstance(seconds, int | float):
        facts.append(Fact("time", duration(seconds)))
    return facts


def _rows_of(data: Mapping[str, Any]) -> str:
    counts = [f"{data[name]['kept']:,} {name}" for name in _SPLITS if isinstance(data.get(name), Mapping)]
    return " and ".join(counts) + " examples" if counts else ""


def _last_values(run: RunFiles) -> dict[str, tuple[float, float]]:
    """The first and the last finite value of each of the figures."""
    known = {metric: np.array(run.columns[metric].values) for metric in _FIGURES.values() if metric in run.columns}
    finite = {metric: values[np.isfinite(values)] for metric, values in known.items()}
    return {metric: (float(values[0]), float(values[-1])) for metric, values in finite.items() if len(values)}


def duration(seconds: float) -> str:
    """Seconds as people say them: "1 h 05 min", "3 min 20 s", "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def environment_of(run: RunFiles) -> list[Fact]:
    """Where the run computed, and with what."""
    facts = [Fact("device", str(run.run.get("device", "unknown")))]
    return facts + [Fact(name, str(version)) for name, version in run.run.get("versions", {}).items()]


def hashes_of(run: RunFiles) -> list[Fact]:
    """The sha256 of what went in."""
    return [Fact(name, str(value)) for name, value in run.run.get("sha256", {}).items()]


def splits_of(run: RunFiles) -> list[dict[str, Any]]:
    """Of each split what data.json says of it: {name, lines, figures: [Fact], charts: [{title, unit, edges, series, limit}]}."""
    found = []
    for name in _SPLITS:
        split = run.data.get(name)
        if not isinstance(split, Mapping):
            continue
        figures = [
            Fact("examples", f"{split['kept']:,}", f"of {split['records']:,} records"),
            Fact("tokens", f"{split['tokens']:,}", f"{split['scored_tokens']:,} scored"),
            Fact("prompts cut", f"{split['prompts_cut']:,}", share(split["prompts_cut"], split["kept"])),
            Fact("answers cut", f"{split['answers_cut']:,}"),
            Fact("left out: too long", f"{split['too_long']:,}", share(split["too_long"], split["records"])),
            Fact("left out: other reasons", f"{split['refused']:,}", share(split["refused"], split["records"])),
        ]
        found.append({"name": name, "figures": figures, "charts": length_charts(name, split)})
    return found


def length_charts(name: str, split: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The distribution of lengths of a split's prompts and answers, as shares over the bins that data.json has."""
    charts = []
    for part, counted in split["lengths"].items():
        series = [
            {"name": it["name"], "counts": [count / max(it["count"], 1) for count in it["counts"]], "mean": it["mean"], "above": None}
            for it in counted["series"]
        ]
        charts.append({"title": f"{part.capitalize()} of the {name} rows", "unit": "tokens", "edges": counted["edges"], "series": series})
    return charts


def share(part: int, whole: int) -> str:
    """A share in percent; nothing where there is no whole or no part."""
    return f"{part / whole:.1%}" if part and whole else ""
