"""Sampled answers of a run before and after, side by side. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddlealign.report.run_files import RunFiles

SHOWN = 400  # prompts; a page with more opens slowly


@dataclass(frozen=True)
class Answer:
    """One answer. score: a reward model's; verdict: the judge's, see ``evaluation.samples``; length in tokens; None where unknown."""

    text: str
    score: float | None
    verdict: float | None
    length: int | None


@dataclass(frozen=True)
class Compared:
    """A prompt with its answers. before: at the first step with samples, or the reference's, where there is one; after: at the last."""

    prompt: str
    before: Answer | None
    after: Answer
    change: str

    @property
    def gain(self) -> float | None:
        """By how much the score rose."""
        if self.before is None or self.before.score is None or self.after.score is None:
            return None
        return self.after.score - self.before.score


@dataclass(frozen=True)
class SampleTable:
    """rows: of the first SHOWN prompts. total: prompts. before, after: what the columns are headed."""

    rows: list[Compared]
    total: int
    before: str
    after: str

    @property
    def scored(self) -> bool:
        """Whether any row has a score before and after."""
        return any(row.gain is not None for row in self.rows)

    @property
    def judged(self) -> bool:
        """Whether a judge compared answers."""
        return any(row.after.verdict is not None for row in self.rows)


def sample_table(run: RunFiles) -> SampleTable | None:
    """The answers of a run's first and last samples, matched by place and prompt; None where it sampled none."""
    if not run.samples:
        return None
    first, last = min(run.samples), max(run.samples)
    earlier, later = run.samples[first], run.samples[last]
    compares = first < last
    rows = []
    for place, row in enumerate(later[:SHOWN]):
        prompt = prompt_text(row.get("prompt"))
        same = compares and place < len(earlier) and prompt_text(earlier[place].get("prompt")) == prompt
        before = _answer(earlier[place]) if same else _reference(row)
        after = _answer(row)
        rows.append(Compared(prompt, before, after, _change(before, after)))
    return SampleTable(rows, len(later), f"before: step {first}" if compares else "the reference", f"after: step {last}")


def prompt_text(prompt: Any) -> str:
    """A prompt as text: itself, or its messages with their roles."""
    if isinstance(prompt, list):
        return "\n".join(f"{it.get('role')}: {it.get('content')}" if isinstance(it, Mapping) else str(it) for it in prompt)
    return str(prompt)


def _answer(row: Mapping[str, Any]) -> Answer:
    length = row.get("length")
    return Answer(
        str(row.get("response", "")), _number(row.get("score")), _number(row.get("verdict")), length if isinstance(length, int) else None
    )


def _reference(row: Mapping[str, Any]) -> Answer | None:
    return Answer(str(row["reference_response"]), None, None, None) if "reference_response" in row else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _change(before: Answer | None, after: Answer) -> str:
    """What a filter goes by: "better" or "worse" by score, else "changed" or "same"."""
    if before is None:
        return "changed"
    if before.score is not None and after.score is not None and before.score != after.score:
        return "better" if after.score > before.score else "worse"
    return "same" if before.text == after.text else "changed"


def means(answers: Sequence[Answer | None]) -> dict[str, float]:
    """Mean score and mean length of the answers that have one."""
    scores = [it.score for it in answers if it and it.score is not None]
    lengths = [it.length for it in answers if it and it.length is not None]
    return {name: sum(values) / len(values) for name, values in (("score", scores), ("length", lengths)) if values}
