"""evaluate.py perplexity: how well a language model foresees the answers of rows that were held out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddlealign.arguments.results import EvaluatePerplexityArguments
from paddlealign.data.describe import describe, legend, telling
from paddlealign.data.encoding import Limits
from paddlealign.data.example import Record, scored_as
from paddlealign.data.examples import Examples
from paddlealign.data.records import read_rows
from paddlealign.data.refusals import RefusedRow
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.evaluation.perplexity import summarise_nll
from paddlealign.models.tensor_files import write_json_lines
from paddlealign.recipes.adapter import load_tokenizer
from paddlealign.recipes.device import choose_device, in_colour, introduce, say, show
from paddlealign.recipes.heads import need_language_head
from paddlealign.recipes.reading import keep_refusals, reading_of, refused_path
from paddlealign.recipes.scoring import Pace, encode_told, find_scorer, hold_to, refuse_taken, response_nlls, with_texts

KEYS = ("nll", "tokens")


def run(arguments: EvaluatePerplexityArguments) -> None:
    """Score the rows, write them with ``nll`` (the sum over a row's scored tokens) and ``tokens``, and say the mean. Raises UserError."""
    introduce(arguments)
    scoring, model = arguments.scoring, arguments.model
    device = choose_device(scoring.device)
    scorer = find_scorer(
        "model_name_or_path",
        model.model_name_or_path,
        need_language_head,
        model.allow_pickle,
        scoring.dtype,
        device,
        arguments.adapter.lora_path,
    )
    tokenizer = load_tokenizer(model, arguments.adapter.lora_path)
    found, examples, refused = read_held_out(arguments, tokenizer)
    hold_to(scorer, examples, tokenizer)
    if scoring.check:
        scorer.load()
        colour = in_colour()
        shown = describe(telling(examples), tokenizer, colour)
        show(f"one example ({legend(colour)}):\n{shown}\ncheck: the model is whole and the rows can be scored")
        return
    nlls, tokens, right = response_nlls(scorer, examples, Pace(tokenizer.pad_id, scoring.batch_size))
    lines = []
    chosen = arguments.rows.chosen_key or "chosen"
    for (row, record), nll, count in zip(found, nlls, tokens, strict=True):
        lines.append({**with_texts(row, {chosen: record.responses[0]}), **dict(zip(KEYS, (round(float(nll), 6), int(count)), strict=True))})
    write_json_lines(Path(scoring.output_file), lines)
    keep_refusals(refused_path(scoring.output_file), refused)
    figures, total = summarise_nll(nlls, tokens), int(tokens.sum())
    show(
        f"perplexity {figures['perplexity']:.4f}: {figures['mean']:.6f} nats a token over {total:,} scored tokens of {len(lines):,} rows; "
        f"{right.sum() / total:.1%} of the tokens are the first choice"
    )
    say(f"done: {len(lines)} rows in {scoring.output_file}")


def read_held_out(
    arguments: EvaluatePerplexityArguments, tokenizer: Tokenizer
) -> tuple[list[tuple[dict[str, Any], Record]], Examples, Sequence[RefusedRow]]:
    """The rows of data_file that can be scored, each as its row, its record and its tokens; and the rows that were skipped.

    What is left out is told.
    """
    scoring, asked = arguments.scoring, arguments.rows
    found, report = read_rows([Path(scoring.data_file)], "held_out", reading_of(asked), asked.on_bad_row)
    for row, record in found:
        refuse_taken(row, KEYS, record.source)
    records = [scored_as(record, arguments.objective.score_turns) for _, record in found]
    limits = Limits(scoring.max_length, scoring.src_length, scoring.truncation)
    encoded = encode_told(scoring.data_file, records, report, tokenizer, scoring.chat_template, limits)
    return [found[index] for index in encoded.kept], encoded.examples, report.skipped
