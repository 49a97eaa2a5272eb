"""data.json: what became of a run's rows, and how long they are."""

from typing import Any

from paddlealign.arguments.results import TrainArguments
from paddlealign.data.chunk_counts import Told
from paddlealign.data.examples import Examples
from paddlealign.data.length_counts import prompt_and_answer_lengths
from paddlealign.recipes.rows import Rows

# Behind its prompt an example has these; of KTO's rows the second is another prompt's answer (``data.mismatched``).
_ANSWERS = {"sft": ("answers",), "reward": ("chosen", "rejected"), "dpo": ("chosen", "rejected")}


def describe_data(arguments: TrainArguments, rows: Rows) -> dict[str, Any]:
    """By split: counts of records and tokens, what was cut and left out, and the lengths, see ``length_counts``."""
    examples = {"train": rows.train, "dev": rows.dev}
    names = ("answers", "answers of other prompts") if rows.train_labels is not None else _ANSWERS[arguments.command]
    return {name: _describe_split(examples[name], told, names) for name, told in rows.told.items()}


def _describe_split(examples: Examples, told: Told, names: tuple[str, ...]) -> dict[str, Any]:
    read, encoding = told.read, told.encoding
    return {
        "records": read.records + sum(read.refused.values()) + len(read.skipped),
        "kept": encoding.kept,
        "tokens": encoding.tokens,
        "scored_tokens": encoding.scored_tokens,
        "prompts_cut": encoding.prompts_truncated,
        "answers_cut": encoding.responses_truncated,
        "too_long": encoding.dropped_too_long,
        "refused": sum(read.refused.values()) + sum(encoding.refused.values()) + len(read.skipped),
        "lengths": prompt_and_answer_lengths(examples, names),
    }
