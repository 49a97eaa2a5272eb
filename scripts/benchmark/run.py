"""The whole comparison: all systems in turn, round after round, each in a fresh process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benchmark.equal import differences
from scripts.benchmark.measure import Measured, measure
from scripts.benchmark.systems import LIVE, ROOT, SYSTEMS, Setting
from scripts.benchmark.workload import SHAPES, Work, draw_pairs, steps_of, write_model, write_workload

LIMIT_SECONDS = 3600.0


@dataclass(frozen=True)
class Plan:
    """What is run. warm_up: steps of a run that do not count. systems: their keys, in turn."""

    sets: Sequence[str]
    pairs: int
    rounds: int
    warm_up: int
    systems: Sequence[str]
    threads: int


@dataclass(frozen=True)
class Run:
    """One measured run. Rates are of the steps behind the warm-up; peak: GFLOP/s of matmuls, measured just before."""

    set: str
    system: str
    round: int
    examples_per_second: float
    scored_per_second: float
    tokens_per_second: float
    gflops: float
    peak_gflops: float
    cpu_seconds_per_example: float
    peak_bytes: int
    other_load: float
    unequal: list[str]


def prepare_files(folder: Path, plan: Plan) -> None:
    """Make the model, for ours and TRL and for PaddleNLP, and the rows of each set."""
    model, converted = folder / "model", folder / "paddlenlp_model"
    if not (model / "tokenizer_config.json").exists():
        write_model(model)
    if not (converted / "config.json").exists():
        words = ["-m", "paddlealign.export", "--model_name_or_path", str(model), "--output_dir", str(converted), "--format", "paddlenlp"]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in plan.sets:
        write_workload(folder / "rows" / name, draw_pairs(SHAPES[name], plan.pairs))


def run_all(folder: Path, trl_python: Path, plan: Plan) -> tuple[list[Run], dict[str, str]]:
    """Run everything, A B A B; each run is printed, and kept in runs.jsonl as it ends.

    Returns the runs, and by "set, system" why a peer's failed; it is not tried again. A failure of ours is raised.
    """
    kept = folder / "runs.jsonl"
    kept.unlink(missing_ok=True)
    runs: list[Run] = []
    failed: dict[str, str] = {}
    for name in plan.sets:
        first: dict[str, list[dict[str, Any]]] = {}
        for number in range(plan.rounds):
            for key in plan.systems:
                where = f"{name}, {SYSTEMS[key].title}"
                if where in failed:
                    continue
                try:
                    run = _run(folder, trl_python, plan, name, key, number, first)
                except (RuntimeError, TimeoutError) as error:
                    if key == SYSTEMS[key].against:
                        raise
                    failed[where] = str(error).splitlines()[-1]
                    print(f"round {number + 1}, {where}: {error}", flush=True)
                    continue
                runs.append(run)
                with kept.open("a") as file:
                    file.write(json.dumps(asdict(run)) + "\n")
                words = f"{run.examples_per_second:.3f} a second, {run.peak_bytes / 1e9:.1f} GB, other load {run.other_load:.0%}"
                print(f"round {number + 1}, {where}: {words}", *run.unequal, sep="; ", flush=True)
    return runs, failed


def _run(folder: Path, trl_python: Path, plan: Plan, name: str, key: str, number: int, first: dict[str, list[dict[str, Any]]]) -> Run:
    """Run one system once. first: the lines of ours in this set, by key, which its peers are held to; filled by ours."""
    system = SYSTEMS[key]
    output = folder / "runs" / f"{name}_{key}"
    shutil.rmtree(output, ignore_errors=True)  # a cache of log-probs would be used again
    output.mkdir(parents=True)
    longest = SHAPES[name].longest + 4
    setting = Setting(folder / "rows" / name, folder / "model", folder / "paddlenlp_model", output, trl_python, longest, plan.threads)
    rate = matmul_rate(plan.threads)
    command = system.command(setting)
    found = measure(command.words, {**os.environ, **command.environ}, ROOT, command.log, output / "words.txt", LIMIT_SECONDS)
    work = steps_of(draw_pairs(SHAPES[name], plan.pairs), system.method, system.against == LIVE)
    first.setdefault(system.against, found.lines)
    unequal = differences(found.lines, first[system.against], len(work), system.half)
    return summarize(found, work, plan.warm_up, name, key, number, rate, unequal)


def summarize(
    found: Measured, work: Sequence[Work], warm_up: int, name: str, key: str, number: int, rate: float, unequal: list[str]
) -> Run:
    """The rates of a run's steps behind the warm-up. rate: GFLOP/s of matmuls."""
    seconds, cpu = (times[-1] - times[warm_up - 1] for times in (found.ends, found.cpu))
    steady = work[warm_up:]
    examples = sum(step.examples for step in steady)
    return Run(
        set=name,
        system=key,
        round=number,
        examples_per_second=examples / seconds,
        scored_per_second=sum(step.scored for step in steady) / seconds,
        tokens_per_second=sum(step.tokens for step in steady) / seconds,
        gflops=sum(step.flops for step in steady) / seconds / 1e9,
        peak_gflops=rate,
        cpu_seconds_per_example=cpu / examples,
        peak_bytes=found.peak,
        other_load=found.other_load,
        unequal=unequal,
    )


def matmul_rate(threads: int) -> float:
    """GFLOP/s of fp32 matmuls in Paddle, set up as ours, in a process of its own."""
    environ = {**os.environ, "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmark.peak"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])
