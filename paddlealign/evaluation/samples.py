"""Answers that a policy gave during training: the rows of ``output_dir/samples/step-<N>.jsonl``, and what is told of them.

A row is {prompt, response, reference_response, score, verdict, length}. prompt: the user's text, or a list of messages where there are
more; reference_response: in DPO, what the reference answered before the first step; score: a reward model's; verdict: 1 where a judge
prefers the response to the reference's, 0 where it is the other way round, 0.5 for a tie; length: tokens of the response without its end
token. reference_response, score and verdict stand there where they are known.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.arguments.paths import SAMPLES_FOLDER
from paddlealign.data.example import Record
from paddlealign.evaluation.step_files import drop_later
from paddlealign.messages.language import translated

SHOWN_ROWS, _SHOWN_CHARACTERS = 3, 70


def prompt_columns(record: Record) -> dict[str, Any]:
    """A record's prompt as a row has it: ``prompt``, and ``tools`` where it has some."""
    messages = record.messages
    prompt: str | list[dict[str, Any]] | None = messages[0].content if [it.role for it in messages] == ["user"] else None
    if prompt is None:
        prompt = [{"role": it.role, "content": it.content} for it in messages]
        for message, column in zip(messages, prompt, strict=True):
            more = {"tool_calls": list(message.tool_calls), "tool_call_id": message.tool_call_id, "name": message.name}
            column.update({key: value for key, value in more.items() if value})
    return {"prompt": prompt} | ({"tools": list(record.tools)} if record.tools else {})


def sample_rows(
    prompts: Sequence[dict[str, Any]],
    responses: Sequence[str],
    lengths: Sequence[int],
    references: Sequence[str] | None,
    scores: Sequence[float | None] | None,
    verdicts: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one step. prompts: of ``prompt_columns``.

    references, scores, verdicts: None where there are none; a score of None is left out.
    """
    rows = []
    for place, (prompt, response, length) in enumerate(zip(prompts, responses, lengths, strict=True)):
        row = {**prompt, "response": response}
        if references is not None:
            row["reference_response"] = references[place]
        score = None if scores is None else scores[place]
        if score is not None:
            row["score"] = round(score, 6)
        if verdicts is not None:
            row["verdict"] = verdicts[place]
        rows.append({**row, "length": length})
    return rows


def response_length(answer: Sequence[int], stop_ids: Sequence[int]) -> int:
    """Tokens of an answer without the stop id that may end it."""
    return len(answer) - (bool(answer) and answer[-1] in stop_ids)


def summarise_samples(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """For the run log: the mean length in tokens, the mean score of the rows that have one, and the mean verdict."""
    named = {"samples/length": "length", "samples/score": "score", "samples/judge": "verdict"}
    known = {name: [row[column] for row in rows if column in row] for name, column in named.items()}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def samples_file(output_dir: Path, step: int) -> Path:
    """Where the rows of a step lie."""
    return output_dir / SAMPLES_FOLDER / f"step-{step}.jsonl"


def read_references(output_dir: Path, prompts: Sequence[dict[str, Any]]) -> list[str] | None:
    """What the reference answered before the first step of the run in output_dir; None where it did not answer these prompts."""
    path = samples_file(output_dir, 0)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    same = [row["prompt"] for row in rows] == [row["prompt"] for row in prompts]
    return [row["reference_response"] for row in rows] if same and all("reference_response" in row for row in rows) else None


def drop_samples(output_dir: Path, after: int) -> None:
    """Remove the answers of later steps than ``after``, which a run that goes on from there leaves behind."""
    drop_later(output_dir / SAMPLES_FOLDER, ".jsonl", after)


def show_samples(path: Path, step: int, rows: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """What the screen shows: a line of figures, and the first prompts and answers, in which only our own word is translated."""
    figures = summarise_samples(rows)
    score = f", mean score {figures['samples/score']:+.3f}" if "samples/score" in figures else ""
    judged = f", {figures['samples/judge']:.1%} preferred to the reference's" if "samples/judge" in figures else ""
    told = f"samples at step {step}: {len(rows)} answers of {figures['samples/length']:.1f} tokens{score}{judged}, in {path}"
    lines = []
    for row in rows[:SHOWN_ROWS]:
        last = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
        other = row.get("reference_response", row["response"])
        beside = f" {translated('(reference: ')}{_one_line(other)})" if other != row["response"] else ""
        lines.append(f"  {_one_line(last)} -> {_one_line(row['response'])}{beside}")
    return told, lines


def _one_line(text: str) -> str:
    words = " ".join(text.split()) or "(nothing)"
    return words if len(words) <= _SHOWN_CHARACTERS else words[: _SHOWN_CHARACTERS - 3] + "..."
