"""evaluate.py compare: what two models answer to the same prompts, side by side, by several ways of decoding.

Each model answers by each way into a file of its own, as predict.py writes it, so that a stopped run goes on. One model at a time is in
memory. When all are there they become one file.
"""

import gc
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paddlealign.arguments.comparing import Way, split_ways
from paddlealign.arguments.fields import ModelArguments, ParallelArguments
from paddlealign.arguments.generation_fields import GenerationArguments
from paddlealign.arguments.lora_fields import AdapterArguments
from paddlealign.arguments.results import EvaluateCompareArguments, PredictArguments
from paddlealign.arguments.row_fields import PromptRowArguments
from paddlealign.arguments.screen_fields import ScreenArguments
from paddlealign.data.refusals import RefusedRow
from paddlealign.data.template import Template, load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.incremental import forward_whole
from paddlealign.models.tensor_files import write_json_lines
from paddlealign.parallel.topology import SINGLE
from paddlealign.recipes.adapter import load_tokenizer
from paddlealign.recipes.device import choose_device, introduce, say, show
from paddlealign.recipes.heads import need_language_head
from paddlealign.recipes.predict import PromptRow, generation_settings, output_settings, predict_rows, read_prompts
from paddlealign.recipes.prediction_file import OUTPUT_KEY, prepare_output, settings_path
from paddlealign.recipes.reading import keep_refusals, refused_path
from paddlealign.recipes.scoring import Scorer, find_scorer

SIDES = ("baseline", "finetuned")
KEYS = ("way", *SIDES, OUTPUT_KEY)
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True)
class Side:
    """One of the two models, not yet in memory, and the prompts in its tokens.

    model, adapter, asked: as predict.py would be told of it. refused: the rows that were skipped.
    """

    name: str
    model: ModelArguments
    adapter: AdapterArguments
    scorer: Scorer
    tokenizer: Tokenizer
    template: Template
    asked: PromptRowArguments
    rows: list[PromptRow]
    refused: list[RefusedRow]


def run(arguments: EvaluateCompareArguments) -> None:
    """Let both models answer, write the answers side by side, and show the first. Raises UserError."""
    introduce(arguments)
    comparison, ways = arguments.comparison, split_ways(arguments.comparison)
    device = choose_device(comparison.device)
    baseline = ModelArguments(comparison.baseline_model_name_or_path, None, arguments.model.allow_pickle)
    told = (("baseline_model_name_or_path", baseline, AdapterArguments()), ("model_name_or_path", arguments.model, arguments.adapter))
    scorers = [
        find_scorer(key, model.model_name_or_path, need_language_head, model.allow_pickle, comparison.dtype, device, adapter.lora_path)
        for key, model, adapter in told
    ]
    sides = [open_side(name, *it[1:], arguments.rows, scorer, ways) for name, it, scorer in zip(SIDES, told, scorers, strict=True)]
    refused = {row.source: row for side in sides for row in side.refused}  # of either model, so that both answer the same rows
    sides = [replace(side, rows=[row for row in side.rows if row.source not in refused]) for side in sides]
    if not sides[0].rows:
        raise UserError(f"{comparison.data_file}: no row is left that both models can answer.")
    if comparison.check:
        for side in sides:
            side.scorer.load()
            gc.collect()
            show(f"{side.name}: the model is whole. The first prompt:\n{side.tokenizer.decode(side.rows[0].prompt, skip_special=False)}")
        show(f"check: {len(ways)} ways, {len(sides[0].rows)} prompts")
        return
    keep_refusals(refused_path(comparison.output_file), list(refused.values()))
    folder = Path(f"{comparison.output_file}.parts")
    parts = begin_parts(sides, ways, folder)
    for side in sides:
        answer(side, parts)
    lines = join_parts(parts)
    write_json_lines(Path(comparison.output_file), lines)
    remove_parts(folder, parts)
    show_answers(lines, comparison.show_rows * len(ways))
    say(f"done: {len(lines)} rows in {comparison.output_file}, {len(ways)} for each of {len(sides[0].rows)} prompts")


def open_side(
    name: str, model: ModelArguments, adapter: AdapterArguments, asked: PromptRowArguments, scorer: Scorer, ways: Sequence[Way]
) -> Side:
    """A model's tokenizer and template, and the prompts in its tokens. Raises UserError for a prompt that it cannot answer."""
    say(f"{name}: {scorer.folder}")
    tokenizer = load_tokenizer(model, adapter.lora_path)
    template = load_template(tokenizer, ways[0].generation.chat_template)
    longest = max(ways, key=lambda way: way.generation.max_length)
    rows, refused = read_prompts(longest.generation, asked, tokenizer, template, scorer.config, KEYS)
    return Side(name, model, adapter, scorer, tokenizer, template, asked, rows, refused)


@dataclass(frozen=True)
class Part:
    """A model's answers by one way: a file as predict.py writes it. generation: what predict.py would be told; done: rows that it holds."""

    side: Side
    label: str
    generation: GenerationArguments
    done: int

    @property
    def file(self) -> Path:
        """Where the answers are."""
        return Path(self.generation.output_file)


def begin_parts(sides: Sequence[Side], ways: Sequence[Way], folder: Path) -> list[Part]:
    """Find or begin the parts, side by side and way by way. Raises UserError where one was made under other settings."""
    parts = []
    for side in sides:
        for way in ways:
            file = folder / f"{side.name}.{re.sub('[^A-Za-z0-9_.=+-]+', '-', way.label)}.jsonl"
            parts.append(Part(side, way.label, replace(way.generation, output_file=str(file)), 0))
    # Those that are there come first, so that nothing is begun where one of them is refused.
    done = {part.file: begin_part(part) for part in sorted(parts, key=lambda part: not part.file.exists())}
    return [replace(part, done=done[part.file]) for part in parts]


def begin_part(part: Part) -> int:
    """See ``prediction_file.prepare_output``."""
    side = part.side
    told = PredictArguments(side.model, side.adapter, side.asked, part.generation, ParallelArguments(), ScreenArguments(), {}, (), None)
    done = prepare_output(
        part.file, [row.row for row in side.rows], output_settings(told, side.scorer.dtype, side.tokenizer, side.template)
    )
    if done:
        say(f"{part.file} holds {done} of {len(side.rows)} rows already")
    return done


def answer(side: Side, parts: Sequence[Part]) -> None:
    """Let a model answer what is missing in its parts; it is read where there is something, and let go."""
    missing = [part for part in parts if part.side is side and part.done < len(side.rows)]
    if not missing:
        return
    model = side.scorer.load()
    for part in missing:
        say(f"{side.name}: {part.label}")
        settings = generation_settings(part.generation, side.tokenizer, side.template)
        predict_rows(part.generation, model, side.rows, part.done, settings, side.tokenizer, SINGLE, forward_whole)
    del model
    gc.collect()


def join_parts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The rows of all parts side by side: for each prompt a row for each way, with lists of answers."""
    read = {(part.side.name, part.label): part.file.read_text(encoding="utf-8").split("\n") for part in parts}
    lines = []
    for number, prompt in enumerate(parts[0].side.rows):
        for label in dict.fromkeys(part.label for part in parts):
            outputs = {name: json.loads(read[name, label][number])[OUTPUT_KEY] for name in SIDES}
            answers = {name: output if isinstance(output, list) else [output] for name, output in outputs.items()}
            lines.append({**prompt.row, "way": label, **answers})
    return lines


def remove_parts(folder: Path, parts: Sequence[Part]) -> None:
    """Remove the parts; where something else lies beside them, the folder stays."""
    for part in parts:
        part.file.unlink()
        settings_path(part.file).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def show_answers(lines: Sequence[Mapping[str, Any]], count: int) -> None:
    """Print the first rows side by side; a long text is cut."""
    if not count:
        return
    table = Table(title="Answers", box=box.SIMPLE_HEAD, title_justify="left", show_lines=True, expand=True)
    word = max(len(word) for line in lines[:count] for word in line["way"].split())
    table.add_column("prompt", ratio=3, overflow="fold")
    table.add_column("way", width=word)
    for side in SIDES:
        table.add_column(side, ratio=4, overflow="fold")
    before = None
    for line in lines[:count]:
        prompt = prompt_text(line)
        answers = ["\n— — —\n".join(shortened(text) for text in line[side]) for side in SIDES]
        table.add_row(*(Text(text) for text in ("" if prompt == before else shortened(prompt), line["way"], *answers)))
        before = prompt
    Console(highlight=False).print(table)


def prompt_text(line: Mapping[str, Any]) -> str:
    """What the user asked last, of a row in whatever form."""
    value = line.get("messages", line.get("src", line.get("prompt")))
    last = value[-1] if isinstance(value, list) else value
    if isinstance(last, dict) and last["role"] == "assistant" and len(value) > 1:
        last = value[-2]  # the reference answer stands behind it
    return str(last["content"] if isinstance(last, dict) else last)


def shortened(text: str) -> str:
    """A text that fits a cell."""
    text = text.strip() or "(nothing)"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
