"""What a token costs against the model's size, a pair's length and the batch; and what two processes gain."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from paddlealign.planning.compute import model_flops
from paddlealign.planning.layout import Row
from scripts.benchmark.run import matmul_rate
from scripts.measure.memory import Case, make_model
from scripts.scaling.steps import Timed, time_steps

LAYOUTS = {
    "one process, one core": (1, 1, 1, 1),
    "one process, two threads": (2, 2, 1, 1),
    "DP2, two processes of one thread": (2, 1, 1, 2),
    "TP2, two processes of one thread": (2, 1, 2, 1),
}  # cores, threads of a process, tensor, data


def cost_cases(quick: bool) -> list[Case]:
    """Three sizes, then lengths, then batches."""
    if quick:
        return [Case(128, 2, 1024, 128, 1, 1, responses=2)]
    base = Case(512, 8, 32000, 1024, 4, 1, responses=2)
    sizes = [base._replace(hidden=hidden, layers=layers) for hidden, layers in ((256, 4), (512, 8), (768, 12))]
    lengths = [base._replace(tokens=tokens, rows=4096 // tokens) for tokens in (512, 2048, 4096)]
    return [*sizes, *lengths, *(base._replace(rows=rows) for rows in (1, 2, 8))]


def flops_of(case: Case, folder: Path) -> float:
    """Operations of a step on all processes, by the formula."""
    from paddlealign.models.config import read_config

    model = folder / f"model-{case.hidden}-{case.layers}-{case.vocabulary}"
    if not (model / "config.json").exists():
        make_model(case, model)
    row = Row(case.tokens, 1 - case.prompt / case.tokens, case.responses)
    return model_flops(read_config(model), row) * case.rows * case.micro_batches * case.data


def cost_table(folder: Path, threads: int, quick: bool) -> str:
    """Measure and tell the cost of a token for each case."""
    lines = ["| hidden x layers | tokens of a pair | pairs | us a token | from | to | MFLOP a token | GFLOP/s | of the peak | other load |"]
    lines.append("|---|" + "---:|" * 9)
    for case in cost_cases(quick):
        peak = matmul_rate(threads)
        flops, tokens = flops_of(case, folder), case.tokens * case.rows
        found = time_steps(case, folder, threads, threads, 2 if quick else 5)
        times = [f"{1e6 * it / tokens:,.0f}" for it in (found.seconds, found.least, found.most)]
        rate = flops / found.seconds / 1e9
        told = [f"{flops / tokens / 1e6:,.0f}", f"{rate:,.0f}", f"{rate / peak:.0%}", f"{found.other_load:.0%}"]
        lines.append(f"| {case.hidden} x {case.layers} | {case.tokens:,} | {case.rows} | {' | '.join([*times, *told])} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def layout_case(tensor: int, data: int, quick: bool) -> Case:
    """The same four pairs of a step in every layout."""
    if quick:
        return Case(128, 2, 1024, 128, 2 // data, 1, responses=2, tensor=tensor, data=data)
    return Case(512, 8, 32000, 1024, 4 // data, 1, responses=2, tensor=tensor, data=data)


def layouts_table(folder: Path, rounds: int, quick: bool) -> str:
    """Measure every layout in turn, round after round, and tell each beside one process on one core."""
    found: dict[str, list[Timed]] = {name: [] for name in LAYOUTS}
    for _ in range(rounds):
        for name, (cores, threads, tensor, data) in LAYOUTS.items():
            found[name].append(time_steps(layout_case(tensor, data, quick), folder, threads, cores, 2 if quick else 5))
            print(name, found[name][-1], flush=True)
    lines = ["| layout | s a step | beside one core | from | to | efficiency on two cores | other load |", "|---|" + "---:|" * 6]
    base = [it.seconds for it in found["one process, one core"]]
    for name, runs in found.items():
        lines.append(f"| {name} | {' | '.join(layout_cells(base, runs, LAYOUTS[name][0]))} |")
    return "\n".join(lines)


def layout_cells(base: Sequence[float], runs: Sequence[Timed], cores: int) -> list[str]:
    """Seconds; how many times as fast as the base in the same round; and that for each core. base: seconds of each round."""
    gains = [one / run.seconds for one, run in zip(base, runs, strict=True)]
    cells = [f"{median(run.seconds for run in runs):.2f}", *(f"{it:.2f} x" for it in (median(gains), min(gains), max(gains)))]
    return [*cells, f"{median(gains) / cores:.0%}", f"{max(run.other_load for run in runs):.0%}"]
