"""Measured runs as the tables of docs/performance.md."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from scripts.benchmark.run import Plan, Run
from scripts.benchmark.systems import SYSTEMS
from scripts.benchmark.workload import SHAPES
from scripts.marks import fill

# Above this share of the machine for others the page says that it was loaded.
QUIET = 0.05
HEAD = (
    "| system | examples/s | scored tokens/s | total tokens/s | share of peak | peak RSS, GB | CPU s an example "
    "| ours is faster | ours' memory | other load |"
)


def write_page(path: Path, runs: Sequence[Run], failed: dict[str, str], plan: Plan, versions: dict[str, str]) -> None:
    """Put each set's tables into its place of the page; the rest of the page stays, other sets' tables too."""
    for name in plan.sets:
        of_set = [run for run in runs if run.set == name]
        told = {where: why for where, why in failed.items() if where.split(", ")[0] == name}
        fill(path, f"measured, {name}", tables(of_set, told, replace(plan, sets=[name]), versions))


def tables(runs: Sequence[Run], failed: dict[str, str], plan: Plan, versions: dict[str, str]) -> str:
    """The machine, the run, a table for each method, what failed, and whether the work was equal. runs, failed, plan: of one set."""
    parts = [_machine(runs, plan, versions)]
    for method in ("dpo", "sft"):
        keys = [key for key in plan.systems if SYSTEMS[key].method == method and _of(runs, key)]
        if keys:
            parts.append(_table(runs, plan.sets[0], method, keys))
    if failed:
        parts.append("Failed:\n\n" + "\n".join(f"- {where}: {why}" for where, why in failed.items()))
    unequal = [f"- {SYSTEMS[run.system].title}: {'; '.join(run.unequal)}" for run in runs if run.unequal]
    if unequal:
        parts.append("Work was NOT equal in:\n\n" + "\n".join(dict.fromkeys(unequal)))
    else:
        parts.append(
            "Work was equal in every run: optimizer steps, first loss, first log-probs, and first gradient norm where it is logged."
        )
    return "\n\n".join(parts)


def _machine(runs: Sequence[Run], plan: Plan, versions: dict[str, str]) -> str:
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    load = [run.other_load for run in runs]
    state = "The machine was quiet" if max(load) <= QUIET else "**The machine was loaded by others: take no speed from these figures**"
    peaks = [run.peak_gflops for run in runs]
    pinned = ", ".join(f"{name} {version}" for name, version in versions.items())
    command = f"python -m scripts.benchmark docs/performance.md{' --quick' if plan.warm_up == 1 else ''}"
    told = f"--pairs {plan.pairs} --rounds {plan.rounds} --threads {plan.threads}"
    chosen = f"--sets {' '.join(plan.sets)} --systems {' '.join(plan.systems)}"
    return (
        f"    {command} {told} {chosen}\n\n"
        f"{model} ({platform.machine()}), threads of each system: {plan.threads}. Pairs: {plan.pairs}, 4 a step; "
        f"steps of a run that do not count: {plan.warm_up}; rounds, all systems in turn: {plan.rounds}. "
        f"fp32 matmuls of 1024 in Paddle: {median(peaks):.0f} GFLOP/s "
        f"({min(peaks):.0f} to {max(peaks):.0f}). {state}: others had {median(load):.0%} of it "
        f"({min(load):.0%} to {max(load):.0%}).\n\n{pinned}."
    )


def _table(runs: Sequence[Run], name: str, method: str, keys: Sequence[str]) -> str:
    shape = SHAPES[name]
    lines = [
        f"### {method.upper()}, {name} prompts (mean {shape.prompt} tokens, responses {shape.response})",
        "",
        HEAD,
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key in keys:
        mine = _of(runs, key)
        against = _of(runs, SYSTEMS[key].against)
        cells = [
            f"{_middle(mine, lambda run: run.examples_per_second):.3f}",
            f"{_middle(mine, lambda run: run.scored_per_second):.0f}",
            f"{_middle(mine, lambda run: run.tokens_per_second):.0f}",
            f"{_middle(mine, lambda run: run.gflops / run.peak_gflops):.0%}",
            f"{_middle(mine, lambda run: run.peak_bytes) / 1e9:.1f}",
            f"{_middle(mine, lambda run: run.cpu_seconds_per_example):.2f}",
            _ratio(against, mine, lambda ours, theirs: ours.examples_per_second / theirs.examples_per_second, " x"),
            _ratio(against, mine, lambda ours, theirs: ours.peak_bytes / theirs.peak_bytes, ""),
            f"{_middle(mine, lambda run: run.other_load):.0%}",
        ]
        lines.append(f"| {SYSTEMS[key].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(runs: Sequence[Run], key: str) -> list[Run]:
    return [run for run in runs if run.system == key]


def _middle(runs: Sequence[Run], value: Callable[[Run], float]) -> float:
    return median(value(run) for run in runs)


def _ratio(ours: Sequence[Run], theirs: Sequence[Run], value: Callable[[Run, Run], float], unit: str) -> str:
    """The ratio of each round that both ran in: its median and from where to where it went."""
    if ours == theirs:
        return "-"
    values = [value(a, b) for a in ours for b in theirs if a.round == b.round]
    return f"{median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"
