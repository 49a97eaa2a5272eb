"""evaluate.py rewards: a reward model's scores of a file's pairs and answers, and how it ranks the pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from paddlealign.arguments.results import EvaluateRewardsArguments
from paddlealign.arguments.row_fields import read_columns
from paddlealign.data.describe import describe, legend
from paddlealign.data.encoding import Limits
from paddlealign.data.example import Record
from paddlealign.data.examples import Examples
from paddlealign.data.records import read_rows
from paddlealign.data.refusals import RefusedRow
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.evaluation.rewards import summarise_pairs, summarise_rewards
from paddlealign.models.tensor_files import write_json_lines
from paddlealign.recipes.adapter import load_tokenizer
from paddlealign.recipes.device import choose_device, in_colour, introduce, say, show
from paddlealign.recipes.heads import need_score_head
from paddlealign.recipes.reading import keep_refusals, reading_of, refused_path
from paddlealign.recipes.scoring import Pace, encode_told, find_scorer, hold_to, refuse_taken, reward_scores, with_texts

PAIR_KEYS, ANSWER_KEY = ("chosen_score", "rejected_score"), "score"


def run(arguments: EvaluateRewardsArguments) -> None:
    """Score the rows, write them with their scores, and show the figures. Raises UserError."""
    introduce(arguments)
    scoring, model = arguments.scoring, arguments.model
    device = choose_device(scoring.device)
    lora_path = arguments.adapter.lora_path
    scorer = find_scorer(
        "model_name_or_path", model.model_name_or_path, need_score_head, model.allow_pickle, scoring.dtype, device, lora_path
    )
    tokenizer = load_tokenizer(model, lora_path)
    found, examples, refused = read_answers(arguments, tokenizer)
    hold_to(scorer, examples, tokenizer)
    if scoring.check:
        scorer.load()
        colour = in_colour()
        shown = describe(examples[0], tokenizer, colour)
        heading = f"one example; a response is scored at its last token ({legend(colour, 'of the response')})"
        show(f"{heading}:\n{shown}\ncheck: the model is whole and the rows can be scored")
        return
    rewards = reward_scores(scorer, examples, Pace(tokenizer.pad_id, scoring.batch_size))
    columns = read_columns(arguments.rows)
    lines = [scored_row(*pair, of_row, columns) for pair, of_row in zip(found, rewards, strict=True)]
    write_json_lines(Path(scoring.output_file), lines)
    keep_refusals(refused_path(scoring.output_file), refused)
    show_figures(rewards)
    say(f"done: {len(rewards)} rows in {scoring.output_file}")


def read_answers(
    arguments: EvaluateRewardsArguments, tokenizer: Tokenizer
) -> tuple[list[tuple[dict[str, Any], Record]], Examples, Sequence[RefusedRow]]:
    """The pairs and answers of data_file that can be scored, each as its row, its record and its tokens; and the rows that were skipped.

    What is left out is told.
    """
    scoring, asked = arguments.scoring, arguments.rows
    found, report = read_rows([Path(scoring.data_file)], "answered", reading_of(asked), asked.on_bad_row)
    for row, record in found:
        refuse_taken(row, PAIR_KEYS if len(record.responses) == 2 else (ANSWER_KEY,), record.source)
    limits = Limits(scoring.max_length, scoring.src_length, scoring.truncation)
    encoded = encode_told(scoring.data_file, [record for _, record in found], report, tokenizer, scoring.chat_template, limits)
    return [found[index] for index in encoded.kept], encoded.examples, report.skipped


def scored_row(row: dict[str, Any], record: Record, rewards: np.ndarray, columns: Mapping[str, str]) -> dict[str, Any]:
    """A row with the scores of one pair or answer. Where the row holds a list of texts, that one text stands in the list's place.

    columns: our name of a column -> the row's, where that is another.
    """
    pair = len(record.responses) == 2
    names = [columns.get(key, key) for key in (("chosen", "rejected") if pair else ("response", "output"))]
    keys = [name for name in names if pair or name in row]
    scores = [round(float(reward), 6) for reward in rewards]
    scored = dict(zip(PAIR_KEYS if pair else (ANSWER_KEY,), scores, strict=True))
    return {**with_texts(row, dict(zip(keys, record.responses, strict=False))), **scored}


def show_figures(rewards: Sequence[np.ndarray]) -> None:
    """Print the figures as a table: of the chosen, the rejected and the single answers, and of the pairs."""
    pairs = np.array([it for it in rewards if len(it) == 2], np.float32).reshape(-1, 2)
    alone = np.array([it for it in rewards if len(it) == 1], np.float32).reshape(-1)
    table = Table(title="Rewards", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("", "answers", "mean", "spread", "least", "highest"):
        table.add_column(name, justify="right" if name else "left")
    for name, values in (("chosen", pairs[:, 0]), ("rejected", pairs[:, 1]), ("answers", alone)):
        if len(values):
            table.add_row(name, f"{len(values):,}", *(f"{value:+.3f}" for value in summarise_rewards(values).values()))
    Console(highlight=False).print(table)
    if len(pairs):
        figures = summarise_pairs(pairs)
        show(
            f"{len(pairs):,} pairs: {figures['accuracy']:.1%} ranked right, mean margin {figures['mean_margin']:+.3f}, "
            f"loss {figures['loss']:.4f} (ln 2 is 0.6931)"
        )
