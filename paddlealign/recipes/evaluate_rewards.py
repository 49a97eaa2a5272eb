"""evaluate.py rewards: a reward model's scores of a file's pairs and answers, and how it ranks the pairs."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from paddlealign.arguments.results import EvaluateRewardsArguments
from paddlealign.arguments.show import render
from paddlealign.data.describe import describe
from paddlealign.data.encoding import Limits, encode_all
from paddlealign.data.example import Example, Record
from paddlealign.data.order import evaluation_plan
from paddlealign.data.packing import make_batch
from paddlealign.data.records import read_rows
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.evaluation.rewards import summarise_pairs, summarise_rewards
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import write_bytes
from paddlealign.models.weights import find_weights, load_model
from paddlealign.recipes.device import choose_device, choose_dtype, say
from paddlealign.recipes.heads import need_score_head
from paddlealign.recipes.rows import Rows, check_shared_prompts, check_vocabulary, describe_rows, note_length
from paddlealign.training.precision import Precision
from paddlealign.training.score import score_without_gradient

PAIR_KEYS, ANSWER_KEY = ("chosen_score", "rejected_score"), "score"


def run(arguments: EvaluateRewardsArguments) -> None:
    """Score the rows, write them with their scores, and show the figures. Raises UserError."""
    say(render(arguments))
    for note in arguments.notes:
        say(f"note: {note}")
    scoring, folder = arguments.scoring, arguments.model.model_name_or_path
    device = choose_device(scoring.device)
    config = read_config(folder)
    need_score_head(config, "model_name_or_path")
    find_weights(folder, arguments.model.allow_pickle)  # a missing or damaged file is told before the rows are read
    dtype = choose_dtype(scoring.dtype, config, device)
    tokenizer = Tokenizer.load(arguments.model.tokenizer_name_or_path or folder)
    found, examples = read_answers(arguments, tokenizer)
    rows = Rows(tokenizer, tokenizer.eos_id, [], examples, {})
    check_vocabulary(rows, config.vocab_size, "model_name_or_path")
    check_shared_prompts(rows, config, "model_name_or_path")
    note_length(rows, config)
    model = load_model(folder, dtype, allow_pickle=arguments.model.allow_pickle)
    if scoring.check:
        shown = describe(examples[0], tokenizer, colour=sys.stdout.isatty())
        say(f"one example; a response is scored at its last token:\n{shown}\ncheck: the model is whole and the rows can be scored")
        return
    rewards = score_examples(model, examples, tokenizer.pad_id, scoring.max_length, scoring.batch_size)
    lines = [scored_row(row, record, of_row) for (row, record), of_row in zip(found, rewards, strict=True)]
    output_file = Path(scoring.output_file)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output_file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    show_figures(rewards)
    say(f"done: {len(lines)} rows in {output_file}")


def read_answers(arguments: EvaluateRewardsArguments, tokenizer: Tokenizer) -> tuple[list[tuple[dict[str, Any], Record]], list[Example]]:
    """The pairs and answers of data_file that can be scored, each as its row, its record and its tokens; what is left out is told."""
    scoring = arguments.scoring
    template = load_template(tokenizer, scoring.chat_template)
    found, report = read_rows([Path(scoring.data_file)], "answered")
    for row, record in found:
        taken = [key for key in (PAIR_KEYS if len(record.responses) == 2 else (ANSWER_KEY,)) if key in row]
        if taken:
            raise UserError(f'{record.source}: the row has a key "{taken[0]}" already, which would be overwritten. Rename it.')
    limits = Limits(scoring.max_length, scoring.src_length, scoring.truncation)
    encoded = encode_all([record for _, record in found], tokenizer, template, limits, sys.stderr.isatty())
    for line in describe_rows(scoring.data_file, report, encoded.report):
        say(line)
    return [found[index] for index in encoded.kept], encoded.examples


def score_examples(model: Decoder, examples: Sequence[Example], pad_id: int, max_length: int, batch_size: int) -> list[np.ndarray]:
    """The rewards of each example's responses, float32 [responses]. max_length: of a packed row; batch_size: examples of a batch."""
    dtype = str(model.parameters()[0].dtype).removeprefix("paddle.")
    precision = Precision(dtype, "O2", None)
    rewards: list[np.ndarray] = [np.zeros(0, np.float32)] * len(examples)
    with tqdm(total=len(examples), unit="row", dynamic_ncols=True, disable=None) as bar:
        for rows in evaluation_plan([example.length for example in examples], max_length=max_length, batch_size=batch_size):
            batch = make_batch(examples, rows, pad_id)
            scores = score_without_gradient(model, batch, precision)
            assert scores is not None
            ends = np.cumsum([len(examples[index].responses) for index in batch.example_ids])
            for index, of_example in zip(batch.example_ids, np.split(scores.rewards.numpy(), ends[:-1]), strict=True):
                rewards[index] = of_example
            bar.update(len(batch.example_ids))
    return rewards


def scored_row(row: dict[str, Any], record: Record, rewards: np.ndarray) -> dict[str, Any]:
    """A row with the scores of one pair or answer. Where the row holds a list of texts, that one text stands in the list's place."""
    pair = len(record.responses) == 2
    keys = ("chosen", "rejected") if pair else [key for key in ("response", "output") if key in row]
    texts = {
        key: text
        for key, text in zip(keys, record.responses, strict=False)
        if isinstance(row.get(key), list) and all(isinstance(item, str) for item in row[key])
    }
    scores = [round(float(reward), 6) for reward in rewards]
    return {**row, **texts, **dict(zip(PAIR_KEYS if pair else (ANSWER_KEY,), scores, strict=True))}


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
        say(
            f"{len(pairs):,} pairs: {figures['accuracy']:.1%} ranked right, mean margin {figures['mean_margin']:+.3f}, "
            f"loss {figures['loss']:.4f} (ln 2 is 0.6931)"
        )
