"""evaluate.py judge: two files of answers to the same prompts, who won each, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from paddlealign.arguments.judge_fields import JudgeArguments
from paddlealign.arguments.results import EvaluateJudgeArguments
from paddlealign.arguments.row_fields import AnswerRowArguments
from paddlealign.data.describe import describe, legend
from paddlealign.data.encoding import Limits
from paddlealign.data.example import Example, Record
from paddlealign.data.examples import Examples
from paddlealign.data.records import ReadReport, read_rows
from paddlealign.data.refusals import RefusedRow, describe_refusals
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.evaluation.length_control import length_controlled_rate
from paddlealign.evaluation.matching import match_answers
from paddlealign.evaluation.winners import outcomes_of, tally_of, wilson_interval
from paddlealign.models.tensor_files import write_json_lines
from paddlealign.recipes.device import choose_device, in_colour, introduce, say, show
from paddlealign.recipes.heads import need_language_head, need_score_head
from paddlealign.recipes.judge_function import call_judge, load_judge
from paddlealign.recipes.reading import keep_refusals, reading_of, refused_path
from paddlealign.recipes.scoring import (
    Pace,
    Scorer,
    encode_told,
    find_scorer,
    hold_to,
    refuse_taken,
    response_nlls,
    reward_scores,
)
from paddlealign.saying import shows_bars

KEYS = ("answer_a", "answer_b", "score_a", "score_b", "margin", "winner")
ANSWER_KEYS = ("output", "response")


@dataclass(frozen=True)
class Duel:
    """Two answers to a prompt. row: A's, as it stood in the file; first, second: the records of A's and B's."""

    row: dict[str, Any]
    first: Record
    second: Record

    def answers(self) -> tuple[str, str]:
        """The two texts."""
        return _text(self.first), _text(self.second)


@dataclass(frozen=True)
class Judged:
    """What a judge says: A's margin over B, and the two scores where it gives scores."""

    duel: Duel
    margin: float
    scores: tuple[float, float] | None


def run(arguments: EvaluateJudgeArguments) -> None:
    """Judge, write the rows with their winners, and show who won. Raises UserError."""
    introduce(arguments)
    judging = arguments.scoring
    duels, refused = read_duels(judging, arguments.rows)
    judged = judge_by_function(judging, duels) if judging.judge else judge_by_models(judging, duels)
    if judging.check:
        return
    keep_refusals(refused_path(judging.output_file), refused)
    outcomes = outcomes_of(np.array([it.margin for it in judged]), judging.tie_margin)
    write_json_lines(
        Path(judging.output_file),
        [judged_row(it, float(outcome), answer_keys(arguments.rows)) for it, outcome in zip(judged, outcomes, strict=True)],
    )
    show_figures(judging, outcomes, np.array([[len(text) for text in it.duel.answers()] for it in judged], np.float64))
    say(f"done: {len(judged)} rows in {judging.output_file}")


def read_duels(judging: JudgeArguments, asked: AnswerRowArguments) -> tuple[list[Duel], list[RefusedRow]]:
    """The answers of both files that belong to the same prompts, in the order of A's; and the skipped rows. Raises UserError."""
    files = (judging.answers_a, judging.answers_b)
    if Path(files[0]).samefile(files[1]):
        raise UserError(f"answers_a and answers_b are the same file, {files[0]}. Give two.")
    sides = []
    refused: list[RefusedRow] = []
    for file in files:
        found, report = read_rows([Path(file)], "answered", reading_of(asked), asked.on_bad_row)
        refused += report.skipped
        for line in [f"note: {warning}" for warning in report.warnings] + describe_refusals(file, report.skipped):
            say(line)
        pair = next((record for _, record in found if len(record.responses) == 2), None)
        if pair:
            raise UserError(f"{pair.source}: the row is a pair; a file of answers has one answer a row, in output, response or tgt.")
        sides.append(found)
    first, second = sides
    for row, record in first:
        refuse_taken(row, KEYS, record.source)
    places = match_answers([record for _, record in first], [record for _, record in second], files)
    duels = [Duel(row, record, second[place][1]) for (row, record), place in zip(first, places, strict=True)]
    same = sum(_text(duel.first) == _text(duel.second) for duel in duels)
    say(f"{files[0]} (A) and {files[1]} (B): {len(duels):,} prompts, in {same:,} of them the same answer twice")
    return duels, refused


def judge_by_function(judging: JudgeArguments, duels: list[Duel]) -> list[Judged]:
    """Every duel, by the user's function; under check it is found and not called."""
    name = str(judging.judge)
    function = load_judge(name)
    if judging.check:
        a, b = duels[0].answers()
        show(f"the first prompt's answers\nA: {a}\nB: {b}\ncheck: the answers belong together, and the judge is there")
        return []
    bar = tqdm(duels, unit="row", dynamic_ncols=True, disable=not shows_bars())
    return [Judged(duel, *call_judge(function, name, duel.first, *duel.answers())) for duel in bar]


def judge_by_models(judging: JudgeArguments, duels: list[Duel]) -> list[Judged]:
    """The duels whose answers can be scored, by rewards or by log-ratios; under check the models are read and nothing is scored."""
    device, need = choose_device(judging.device), need_score_head if judging.reward_model_name_or_path else need_language_head
    keys = ("reward_model_name_or_path", "policy_model_name_or_path", "ref_model_name_or_path")
    folders = {key: getattr(judging, key) for key in keys if getattr(judging, key)}
    scorers = [find_scorer(key, folder, need, judging.allow_pickle, judging.dtype, device) for key, folder in folders.items()]
    tokenizer = Tokenizer.load(judging.tokenizer_name_or_path or scorers[0].folder)
    duels, examples = encode_duels(judging, duels, tokenizer)
    for scorer in scorers:
        hold_to(scorer, examples, tokenizer)
        if judging.check:
            scorer.load()
    if judging.check:
        colour = in_colour()
        shown = describe(examples[0], tokenizer, colour)
        heading = f"A's first answer ({legend(colour, 'of the answer')})"
        show(f"{heading}:\n{shown}\ncheck: the answers belong together, and the models are whole and can score them")
        return []
    scores = duel_scores(judging, scorers, examples, tokenizer.pad_id).reshape(-1, 2)
    judged = []
    for duel, (a, b), pair in zip(duels, scores.tolist(), zip(examples[0::2], examples[1::2], strict=True), strict=True):
        # The same tokens have the same score, but for rounding where they stand in another batch.
        judged.append(Judged(duel, 0.0 if _alike(*pair) else a - b, (a, b)))
    return judged


def encode_duels(judging: JudgeArguments, duels: list[Duel], tokenizer: Tokenizer) -> tuple[list[Duel], Examples]:
    """The duels of which both answers can be scored, and their examples, A's and B's in turn; what is left out is told."""
    records = [record for duel in duels for record in (duel.first, duel.second)]
    limits = Limits(judging.max_length, judging.src_length, judging.truncation)
    both = ReadReport((Path(judging.answers_a), Path(judging.answers_b)), len(records), len(records), len(records), {}, {}, {}, ())
    encoded = encode_told("answers", records, both, tokenizer, judging.chat_template, limits)
    place = {int(index): example for index, example in zip(encoded.kept, encoded.examples, strict=True)}
    whole = [index for index in range(len(duels)) if 2 * index in place and 2 * index + 1 in place]
    if not whole:
        raise UserError("no prompt is left of which both answers can be scored. Raise max_length or src_length, or set truncation.")
    if len(whole) < len(duels):
        say(f"note: {len(duels) - len(whole):,} of {len(duels):,} prompts are not judged, since an answer was left out")
    return [duels[index] for index in whole], Examples.of([place[index] for pair in whole for index in (2 * pair, 2 * pair + 1)])


def duel_scores(judging: JudgeArguments, scorers: list[Scorer], examples: Examples, pad_id: int) -> np.ndarray:
    """The score of each example, float64 [examples]: the reward, or beta (log pi - log ref). One model at a time is in memory."""
    pace = Pace(pad_id, 2 * judging.batch_size)
    if judging.reward_model_name_or_path:
        return np.concatenate(reward_scores(scorers[0], examples, pace)).astype(np.float64)
    policy, reference = (-response_nlls(scorer, examples, pace)[0] for scorer in scorers)
    return judging.beta * (policy - reference)


def answer_keys(asked: AnswerRowArguments) -> tuple[str, ...]:
    """Under what names a row's answer may stand."""
    return (*ANSWER_KEYS, asked.response_key) if asked.response_key else ANSWER_KEYS


def judged_row(judged: Judged, outcome: float, answers: Sequence[str]) -> dict[str, Any]:
    """A's row with both answers, what the judge said, and the winner: a, b or tie. answers: the names of A's own answer, which goes."""
    answer_a, answer_b = judged.duel.answers()
    scores = dict(zip(("score_a", "score_b"), (round(score, 6) for score in judged.scores), strict=True)) if judged.scores else {}
    return {
        **{key: value for key, value in judged.duel.row.items() if key not in answers},
        "answer_a": answer_a,
        "answer_b": answer_b,
        **scores,
        "margin": round(judged.margin, 6),
        "winner": {1.0: "a", 0.5: "tie", 0.0: "b"}[outcome],
    }


def show_figures(judging: JudgeArguments, outcomes: np.ndarray, lengths: np.ndarray) -> None:
    """Print who won how often. lengths: float64 [rows, 2], characters of A's and B's answers."""
    tally = tally_of(outcomes)
    show(f"A: {judging.answers_a}\nB: {judging.answers_b}")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "rows", "rate"):
        table.add_column(name, justify="right" if name else "left")
    for name, count in (("A wins", tally.wins), ("tie", tally.ties), ("B wins", tally.losses)):
        table.add_row(name, f"{count:,}", f"{count / tally.rows:.1%}")
    Console(highlight=False).print(table)
    low, high = wilson_interval(tally.win_rate, tally.rows)
    show(f"win rate of A, ties as half: {tally.win_rate:.1%} (95 % interval {low:.1%} to {high:.1%}, Wilson)")
    show(f"mean length: A {lengths[:, 0].mean():.1f}, B {lengths[:, 1].mean():.1f} characters")
    rate, why = length_controlled_rate(outcomes, lengths[:, 0] - lengths[:, 1])
    show(f"length-controlled win rate of A: {f'not determined: {why}' if rate is None else f'{rate:.1%}'}")


def _text(record: Record) -> str:
    [response] = record.responses
    return response if isinstance(response, str) else response.content or ""


def _alike(first: Example, second: Example) -> bool:
    return np.array_equal(first.responses[0].token_ids, second.responses[0].token_ids)
