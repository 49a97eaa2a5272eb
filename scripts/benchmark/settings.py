"""DPO steps as the commands start beside settings of threads and memory made by hand, for docs/performance.md.

    python -m scripts.benchmark.settings docs/performance.md        # --folder .benchmark: where the benchmark's model is; --rounds 3

Four steps of the common workload with a live reference, in a fresh process for each setting, all settings in turn, round after round. What
a setting names is in the environment before the process starts, and so is left as it is by ``paddlealign.machine``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddlealign.machine import available_cores, prepare
from scripts.benchmark.profile import STEPS, WARM_UP, batches_of, step
from scripts.benchmark.systems import ROOT
from scripts.benchmark.workload import PAIRS_PER_STEP, SHAPES, draw_pairs, in_our_order, write_model
from scripts.marks import fill

AS_STARTED = "as the commands start"
_KEPT = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=2147483647:glibc.malloc.arena_max=1"


def settings(cores: int) -> dict[str, dict[str, str]]:
    """The environment of each setting, by the words that the table has for it."""
    return {
        AS_STARTED: {},
        "one thread": {"MKL_NUM_THREADS": "1"},
        "as many threads by OMP_NUM_THREADS": {"OMP_NUM_THREADS": str(cores)},
        "twice as many threads": {"MKL_NUM_THREADS": str(2 * cores)},
        "threads bound to cores": {"KMP_AFFINITY": "granularity=fine,compact,1,0"},
        "threads that spin for 0.2 s, as installed": {"KMP_BLOCKTIME": "200"},
        "threads that spin for 1 ms": {"KMP_BLOCKTIME": "1"},
        "memory given back, as installed": {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
        "memory kept, in huge pages": {"GLIBC_TUNABLES": f"{_KEPT}:glibc.malloc.hugetlb=1"},
    }


def main(argv: list[str]) -> int:
    """Measure, and write the table between the page's marks."""
    parser = argparse.ArgumentParser(
        "python -m scripts.benchmark.settings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="the page whose table is written")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"), help="the benchmark's folder, in which its model is made")
    parser.add_argument("--rounds", type=int, default=3, help="how often each setting is run")
    told = parser.parse_args(argv)
    model = told.folder / "model"
    if not (model / "tokenizer_config.json").exists():
        write_model(model)
    seconds: dict[str, list[float]] = {name: [] for name in settings(available_cores())}
    for round_ in range(told.rounds):
        for name, environment in settings(available_cores()).items():
            seconds[name].append(in_fresh_process(model, environment))
            print(f"round {round_ + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    fill(told.page, "settings", table(seconds, settings(available_cores())))
    return 0


def in_fresh_process(model: Path, environment: Mapping[str, str]) -> float:
    """Seconds of the measured steps under this environment and nothing else that has to do with threads and memory."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "KMP_", "MALLOC_", "GLIBC_"))}
    script = f"from pathlib import Path; from scripts.benchmark.settings import measure; print(measure(Path({str(model)!r})))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env={**ours, **environment}, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def measure(model: Path) -> float:
    """Seconds of ``STEPS`` steps in this process, set up as the commands are."""
    prepare()  # before Paddle is imported
    import paddle

    from paddlealign.models.weights import load_model

    policy, reference = load_model(model, "float32"), load_model(model, "float32")
    optimizer = paddle.optimizer.AdamW(1e-5, parameters=policy.parameters(), weight_decay=0.0)
    batches = batches_of(in_our_order(draw_pairs(SHAPES["common"], (STEPS + WARM_UP) * PAIRS_PER_STEP)))
    for batch in batches[:WARM_UP]:
        step(policy, reference, optimizer, batch, {})
    began = time.perf_counter()
    for batch in batches[WARM_UP:]:
        step(policy, reference, optimizer, batch, {})
    return time.perf_counter() - began


def table(seconds: Mapping[str, Sequence[float]], environments: Mapping[str, Mapping[str, str]]) -> str:
    """The settings, the fastest first, each beside ours in the same round. seconds: of each setting's rounds."""
    ours = seconds[AS_STARTED]
    ratios = {name: [mine / other for mine, other in zip(ours, of_it, strict=True)] for name, of_it in seconds.items()}
    lines = [
        f"    python -m scripts.benchmark.settings docs/performance.md --rounds {len(ours)}",
        "",
        "| setting | variables | seconds of 4 steps | as fast as ours |",
        "|---|---|---:|---:|",
    ]
    for name in sorted(ratios, key=lambda it: -statistics.median(ratios[it])):
        variables = " ".join(f"`{key}={value}`" for key, value in environments[name].items())
        least, middle, most = min(ratios[name]), statistics.median(ratios[name]), max(ratios[name])
        lines.append(f"| {name} | {variables} | {statistics.median(seconds[name]):.2f} | {middle:.2f} x ({least:.2f} to {most:.2f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
