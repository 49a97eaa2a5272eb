"""Measured generation as tables of docs/performance.md."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts.marks import fill

TITLES = {"ours": "**ours**", "predict": "**ours**, predict.py with its start", "transformers": "transformers", "paddlenlp": "PaddleNLP"}


@dataclass(frozen=True)
class Case:
    """What all systems are asked for. set: of ``workload.SHAPES``. sampling: drawn with top_k 50 and top_p 0.9, or greedy."""

    set: str
    batch: int
    sampling: bool
    new_tokens: int
    prompts: int


@dataclass(frozen=True)
class Run:
    """One run. tokens: new ones. seconds: for all of them; prompt_seconds: for one token of each prompt, 0 where it is not known.

    cpu: processor seconds of ``seconds``. different: rows whose greedy text is not ours.
    """

    case: Case
    system: str
    round: int
    tokens: int
    seconds: float
    prompt_seconds: float
    cpu: float
    peak_bytes: int
    other_load: float
    different: int


def different_rows(ids: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> int:
    """How many rows have other tokens. Special ones are in neither."""
    return sum(list(a) != list(b) for a, b in zip(ids, expected, strict=True))


def write_part(path: Path, runs: Sequence[Run], command: str, versions: dict[str, str], threads: int) -> None:
    """Put the tables between the page's marks; the rest of the page stays."""
    fill(path, "generation", tables(runs, command, versions, threads))


def tables(runs: Sequence[Run], command: str, versions: dict[str, str], threads: int) -> str:
    """The command, a table for each case, and whether the greedy texts were the same."""
    load = median(run.other_load for run in runs)
    pinned = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [f"    {command}\n\nThreads of each system: {threads}. Others had {load:.0%} of the machine. {pinned}."]
    parts += [_table([run for run in runs if run.case == case]) for case in dict.fromkeys(run.case for run in runs)]
    unequal = {f"{TITLES[run.system]}, {run.case.set}, batch {run.case.batch}": run.different for run in runs if run.different}
    told = "\n".join(f"- {where}: {count} rows" for where, count in unequal.items())
    parts.append(
        f"Greedy texts were NOT the same in:\n\n{told}" if unequal else "Greedy texts were the same, token by token, in every run."
    )
    return "\n\n".join(parts)


def _table(runs: Sequence[Run]) -> str:
    case = runs[0].case
    way = "sampling" if case.sampling else "greedy"
    lines = [
        f"### Generation, {way}, {case.set} prompts, batch {case.batch}, {case.prompts} prompts, up to {case.new_tokens} new tokens",
        "",
        "| system | tokens/s | tokens/s behind the prompts | CPU ms a token | peak RSS, GB | ours is faster | by CPU time |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    ours = [run for run in runs if run.system == "ours"]
    for system in dict.fromkeys(run.system for run in runs):
        mine = [run for run in runs if run.system == system]
        behind = [(run.tokens - run.case.prompts) / (run.seconds - run.prompt_seconds) for run in mine if run.prompt_seconds]
        cells = [
            f"{median(_rate(run) for run in mine):.1f}",
            f"{median(behind):.1f}" if behind else "-",
            f"{median(1e3 * run.cpu / run.tokens for run in mine):.2f}",
            f"{median(run.peak_bytes for run in mine) / 1e9:.2f}",
            _ratio(ours, mine, _rate),
            _ratio(ours, mine, lambda run: run.tokens / run.cpu),
        ]
        lines.append(f"| {TITLES[system]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(run: Run) -> float:
    return run.tokens / run.seconds


def _ratio(ours: Sequence[Run], theirs: Sequence[Run], rate: Callable[[Run], float]) -> str:
    """The ratio of each round: its median and from where to where it went. predict.py's start is no loss of ours."""
    if theirs[0].system in ("ours", "predict"):
        return "-"
    values = [rate(a) / rate(b) for a in ours for b in theirs if a.round == b.round]
    return f"{median(values):.2f} x ({min(values):.2f} to {max(values):.2f})"
