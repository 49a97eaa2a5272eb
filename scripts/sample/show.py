"""Show what the quickstart's training changed: ``python -m scripts.sample.show [--folder output/quickstart]``."""

import argparse
import json
from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from scripts.sample.task import judge

SUMS = ("plus", "minus")


def read_rows(path: Path) -> list[dict]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rates(rows: list[dict]) -> dict[str, float]:
    """Shares in percent over predicted rows: win, warm, right, and sums (right among the sums)."""
    verdicts = [(row["topic"] in SUMS, judge(row, row["output"])) for row in rows]

    def percent(flags: list[bool]) -> float:
        return 100.0 * sum(flags) / max(1, len(flags))

    return {
        "win": percent([verdict.win for _, verdict in verdicts]),
        "warm": percent([verdict.warm for _, verdict in verdicts]),
        "right": percent([verdict.right for _, verdict in verdicts]),
        "sums": percent([verdict.right for is_sum, verdict in verdicts if is_sum]),
    }


def first_and_last(metrics: list[dict], key: str) -> tuple[float, float] | None:
    """The first and the last logged value of a metric, or None where it was never logged."""
    values = [line[key] for line in metrics if key in line]
    return (values[0], values[-1]) if values else None


def training_table(folder: Path) -> Table:
    """Losses, margin and accuracies of the three stages: first and last logged value."""
    table = Table(title="Training", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column()
    table.add_column("first", justify="right")
    table.add_column("last", justify="right")
    sft, reward, dpo = (read_rows(folder / stage / "metrics.jsonl") for stage in ("sft", "reward", "dpo"))
    lines = [
        ("SFT loss", sft, "loss"),
        ("reward model's loss", reward, "loss"),
        ("reward model's accuracy", reward, "accuracy"),
        ("reward model's accuracy, dev rows", reward, "eval_accuracy"),
        ("DPO loss", dpo, "loss"),
        ("DPO reward margin", dpo, "rewards/margins"),
        ("DPO reward accuracy", dpo, "rewards/accuracies"),
        ("DPO loss, dev rows", dpo, "eval_loss"),
        ("DPO reward accuracy, dev rows", dpo, "eval_rewards/accuracies"),
    ]
    for label, metrics, key in lines:
        ends = first_and_last(metrics, key)
        if ends:
            table.add_row(label, f"{ends[0]:.3f}", f"{ends[1]:.3f}")
    return table


def judge_table(before: list[dict], after: list[dict]) -> Table:
    """The judge's rates on the held-out prompts after SFT and after DPO."""
    table = Table(title=f"{len(after)} held-out prompts", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column()
    table.add_column("after SFT", justify="right")
    table.add_column("after DPO", justify="right")
    first, last = rates(before), rates(after)
    labels = {"win": "win rate (right and warm)", "warm": "warm", "right": "right content", "sums": "sums right"}
    for key, label in labels.items():
        style = "bold" if key == "win" else ""
        table.add_row(label, f"{first[key]:.1f} %", f"{last[key]:.1f} %", style=style)
    return table


def verdicts(judged: list[dict]) -> list[tuple[str, str]]:
    """Of each row that ``evaluate.py judge`` wrote: whom the reward model and whom the exact judge prefers, "a", "b" or "tie"."""
    found = []
    for row in judged:
        first, second = (judge(row, row[key]).win for key in ("answer_a", "answer_b"))
        found.append((row["winner"], "tie" if first == second else "a" if first else "b"))
    return found


def agreement(judged: list[dict]) -> tuple[int, int]:
    """On how many rows the exact judge prefers one answer, and on how many of these the reward model prefers the same one."""
    decided = [(by_model, exact) for by_model, exact in verdicts(judged) if exact != "tie"]
    return len(decided), sum(by_model == exact for by_model, exact in decided)


def two_judges_table(judged: list[dict]) -> Table:
    """Rows by the winner that each of the two judges names."""
    table = Table(title="Two judges: DPO's answers against SFT's", box=box.SIMPLE_HEAD, title_justify="left")
    names = {"a": "DPO better", "tie": "tie", "b": "SFT better"}
    table.add_column("reward model")
    for name in names.values():
        table.add_column(f"exact judge: {name}", justify="right")
    counts = Counter(verdicts(judged))
    for by_model, name in names.items():
        table.add_row(name, *(str(counts[by_model, exact]) for exact in names))
    return table


def mark(row: dict) -> str:
    """The verdict on a row's output in a few characters."""
    verdict = judge(row, row["output"])
    return f"[dim]{'right' if verdict.right else 'wrong'}, {'warm' if verdict.warm else 'not warm'}[/dim]"


def plain(text: str) -> str:
    """A text that rich shows as it is."""
    return text.strip().replace("[", r"\[") or "(nothing)"


def answers_table(before: list[dict], after: list[dict], count: int) -> Table:
    """Answers side by side, spread evenly over the file; an odd stride, so that both languages and manners come up."""
    table = Table(title="Answers", box=box.SIMPLE_HEAD, title_justify="left", show_lines=True, expand=True)
    for column in ("prompt", "after SFT", "after DPO"):
        table.add_column(column, ratio=1, overflow="fold")
    stride = max(1, len(after) // count - 1) | 1
    for old, new in list(zip(before, after, strict=True))[::stride][:count]:
        table.add_row(plain(new["src"]), f"{plain(old['output'])}\n{mark(old)}", f"{plain(new['output'])}\n{mark(new)}")
    return table


def matched(before: list[dict], after: list[dict]) -> tuple[list[dict], list[dict]]:
    """Both files' rows; they must be answers to the same prompts in the same order."""
    if [row["src"] for row in before] != [row["src"] for row in after]:
        raise SystemExit("The two files of answers hold different prompts. Fix: bash scripts/quickstart.sh --fresh")
    return before, after


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("output/quickstart"), help="what the quickstart wrote")
    parser.add_argument("--seconds", type=int, help="time to tell at the end")
    parser.add_argument("--answers", type=int, default=5, help="answers to show side by side")
    given = parser.parse_args()
    before, after = matched(read_rows(given.folder / "sft_heldout.json"), read_rows(given.folder / "dpo_heldout.json"))
    judged = read_rows(given.folder / "judged.jsonl")
    console = Console()
    console.print()
    for table in (training_table(given.folder), judge_table(before, after), two_judges_table(judged)):
        console.print(table)
    decided, same = agreement(judged)
    console.print(f"Where the exact judge prefers one answer, the reward model prefers the same one in {same} of {decided} rows.\n")
    console.print(answers_table(before, after, given.answers))
    if given.seconds is not None:
        console.print(f"Time after the install: {given.seconds // 60} min {given.seconds % 60} s. Everything lies in {given.folder}/.")


if __name__ == "__main__":
    main()
