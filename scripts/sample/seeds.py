"""Run the quickstart's SFT and DPO under several seeds and write docs/results.md: ``python -m scripts.sample.seeds [--seeds 1 2 3 4 5]``.

Each run goes through the real commands with the quickstart's argument files; only the seed and the folders differ. Runs that are
finished are reused from ``--folder``.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from scripts.sample.show import rates, read_rows

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {"win": "win", "warm": "warm", "right": "right", "sums": "sums right"}


def run(command: str, file: str, changes: dict[str, str | int]) -> None:
    """Run one of the commands on one of the quickstart's argument files with some keys changed. A failure ends the script."""
    words = [part for key, value in changes.items() for part in (f"--{key}", str(value))]
    subprocess.run([sys.executable, command, f"scripts/llama/quickstart_{file}.json", *words], cwd=ROOT, check=True)


def train_and_answer(seed: int, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """SFT, answers, DPO, answers under one seed. Returns the judge's rates after SFT and after DPO, in percent."""
    found = []
    start = "data/base_model"
    for stage in ("sft", "dpo"):
        model, answers = folder / f"seed{seed}" / stage, folder / f"seed{seed}" / f"{stage}_heldout.json"
        state = model / "run.json"
        if not (state.exists() and json.loads(state.read_text(encoding="utf-8")).get("finished")):
            run(f"{stage}_main.py", stage, {"model_name_or_path": start, "output_dir": model, "seed": seed, "overwrite_output_dir": "true"})
            for stale in (answers, answers.with_name(answers.name + ".settings.json")):
                stale.unlink(missing_ok=True)
        run("predict.py", f"{stage}_predict", {"model_name_or_path": model, "output_file": answers})
        found.append(rates(read_rows(answers)))
        start = str(model)
    return found[0], found[1]


def table(results: dict[int, tuple[dict[str, float], dict[str, float]]]) -> str:
    """A Markdown table: a row a seed, then the median and the worst (for the win rate after SFT: the farthest from one half)."""
    head = ["seed", *(f"{name}, SFT" for name in COLUMNS.values()), *(f"{name}, DPO" for name in COLUMNS.values())]
    rows = [[str(seed), *(rate[key] for rate in pair for key in COLUMNS)] for seed, pair in results.items()]
    columns = list(zip(*(row[1:] for row in rows), strict=True))
    rows.append(["median", *(statistics.median(column) for column in columns)])
    rows.append(["worst", max(columns[0], key=lambda value: abs(value - 50)), *(min(column) for column in columns[1:])])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.1f}" for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Run all seeds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--folder", type=Path, default=Path("output/seeds"))
    given = parser.parse_args()
    results = {seed: train_and_answer(seed, given.folder) for seed in given.seeds}
    rows = len(read_rows(ROOT / "data" / "heldout.json"))
    page = f"""# Results of the sample task

`python -m scripts.sample.seeds --seeds {" ".join(map(str, given.seeds))}` runs the quickstart's SFT and DPO once a seed
(the seed decides the order of rows) and wrote this page. Percent of {rows} held-out prompts, greedy answers, judged by
`scripts/sample/task.py`: *win* is right and warm, *sums right* is the exact match of sums and differences.

{table(results)}
"""
    (ROOT / "docs" / "results.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
