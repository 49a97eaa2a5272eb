"""The forms of rows that each kind of reading knows, and which of them a row has.

A row that is malformed raises BadRowError. A row that is well formed but cannot teach anything (chosen equals rejected, equal scores) gives
no record and a reason, since such rows are common in collected data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from paddlealign.data import answer_forms as answers
from paddlealign.data import pair_forms as pairs_of
from paddlealign.data import ranked_forms as rankings
from paddlealign.data.message_rows import BadRowError, read_texts
from paddlealign.data.row_parts import Parsed, has, is_messages, need
from paddlealign.data.transcripts import is_transcript, transcript_answer, transcript_pair
from paddlealign.errors import UserError

Row = dict[str, Any]
Parse = Callable[[Row, str], Parsed]
ROW_FORMS = {
    "sft": '{"src", "tgt"} (texts, or lists of turns), {"prompt", "response"} or {"messages": [{"role", "content"}, ...]}; '
    '"tools": [...] beside them; other forms stand in data/README.md',
    "preference": '{"prompt", "chosen", "rejected"} (texts or messages), {"src", "tgt", "response": [a, b], "sort": [1, 0]} or '
    '{"prompt", "completions": [...], "scores": [...]}; other forms stand in data/README.md',
    "labelled": '{"prompt", "completion", "label": true or false}, {"src", "tgt", "response": [a], "sort": [1 or 0]}, or a pair',
    "prompt": '{"src"}, {"prompt"} or {"messages": [{"role", "content"}, ...]}; other forms stand in data/README.md',
    "answered": 'a prompt ({"src"}, {"prompt"} or {"messages"}) with its answer in "response" or "output" (a text or several), in "tgt" '
    'or as the last message; or a pair, {"prompt", "chosen", "rejected"}',
    "held_out": '{"src", "tgt"} (texts, or lists of turns) or {"messages": [{"role", "content"}, ...]}; or a pair, {"prompt", "chosen", '
    '"rejected"}',
}


@dataclass(frozen=True)
class RowForm:
    """A form that rows may have. fits: whether a row has it, by its keys. parse: from a row and its place to records and reasons."""

    name: str
    fits: Callable[[Row], bool]
    parse: Parse


def forms_of(kind: str, pairs: str) -> tuple[RowForm, ...]:
    """The forms of a kind, in the order in which a row is held against them. pairs: see ``ranked_forms.ranked``."""
    if kind == "sft":
        return _ANSWERS
    if kind == "prompt":
        return _PROMPTS
    both = _pair_forms(pairs)
    if kind == "preference":
        return both
    side_by_side = [replace(form, fits=partial(_is_scored_pair, form.fits)) for form in both if form.name in _SIDE_BY_SIDE]
    if kind == "held_out":
        return (*(replace(form, parse=pairs_of.as_answer(form.parse)) for form in side_by_side), *_ANSWERS)
    if kind == "answered":
        whole = [replace(form, parse=_last_turn_only(form.parse)) for form in _ANSWERS]
        return (*side_by_side, RowForm("answered", lambda row: bool(row.keys() & {"response", "output"}), _answered), *whole)
    labelled = RowForm("labelled", lambda row: bool(row.keys() & {"completion", "label"}), answers.labelled_answer)
    single = RowForm("paddlenlp", lambda row: "sort" in row and pairs_of.has_one_answer(row), pairs_of.sorted_label)
    return (labelled, single, *(replace(form, parse=pairs_of.as_labelled(form.parse)) for form in both))


def form_named(name: str, kind: str, pairs: str) -> RowForm:
    """The form that a user asks for; for SFT also one of pairs, of which the chosen answers are taken. Raises UserError."""
    known = list(forms_of(kind, pairs))
    if kind == "sft":
        own = {form.name for form in known} - {"hh"}
        known += [replace(form, parse=pairs_of.as_answer(form.parse)) for form in _pair_forms("best_worst") if form.name not in own]
    fitting = [form for form in known if form.name == name]
    if name == "pairs" and kind != "prompt":
        plain = [form for form in _pair_forms(pairs) if form.name in PLAIN_PAIRS]
        wrap = {"sft": pairs_of.as_answer, "labelled": pairs_of.as_labelled}
        fitting = [replace(form, parse=wrap[kind](form.parse) if kind in wrap else form.parse) for form in plain]
    if not fitting:
        names = dict.fromkeys(["auto", *(form.name for form in known), *(["pairs"] if kind != "prompt" else [])])
        raise UserError(f'row_form: "{name}" is no form of the rows of this run; allowed: {", ".join(names)}.')
    return RowForm(name, lambda row: True, partial(_first_that_fits, fitting))


def detect(forms: Sequence[RowForm], row: Row) -> RowForm | None:
    """The first form that the row has, or None."""
    return next((form for form in forms if form.fits(row)), None)


def usual_form(forms: Sequence[RowForm], kind: str) -> RowForm:
    """The form of a kind that a row is judged by where it has none."""
    return next(form for form in forms if form.name == _USUAL.get(kind, "plaintext"))


def _first_that_fits(forms: Sequence[RowForm], row: Row, where: str) -> Parsed:
    return (detect(forms, row) or forms[-1]).parse(row, where)


PLAIN_PAIRS = ("alpaca", "sharegpt", "messages", "chatpair", "plaintext")
_SIDE_BY_SIDE = ("paddlenlp", "hh", *PLAIN_PAIRS)
_USUAL = {
    "sft": "src_tgt",
    "answered": "src_tgt",
    "held_out": "src_tgt",
}  # the form by whose rules a row is judged that has none; plaintext for the other kinds
_ANSWERS = (
    RowForm("messages", lambda row: has(row, "messages"), answers.messages_answer),
    RowForm("sharegpt", lambda row: has(row, "conversations"), answers.sharegpt_answer),
    RowForm("src_tgt", lambda row: bool(row.keys() & {"src", "tgt"}), answers.source_target),
    RowForm("alpaca", lambda row: has(row, "instruction", "output"), answers.alpaca_answer),
    RowForm("hh", lambda row: _answered_prompt(row) and is_transcript(row["prompt"]), transcript_answer),
    RowForm("chatpair", lambda row: _answered_prompt(row) and is_messages(row[answers.response_key(row)]), answers.plain_answer),
    RowForm("plaintext", lambda row: _answered_prompt(row), answers.plain_answer),
)
_PROMPTS = (
    RowForm("messages", lambda row: has(row, "messages"), answers.messages_prompt),
    RowForm("src_tgt", lambda row: "src" in row, answers.source_prompt),
    RowForm("sharegpt", lambda row: has(row, "conversations"), answers.sharegpt_prompt),
    RowForm("alpaca", lambda row: has(row, "instruction"), answers.alpaca_question),
    RowForm("plaintext", lambda row: "prompt" in row, answers.plain_prompt),
)


def _pair_forms(pairs: str) -> tuple[RowForm, ...]:
    """The forms with a better and a worse answer."""
    forms = (
        RowForm("paddlenlp", lambda row: "sort" in row or ("response" in row and "src" in row), pairs_of.sorted_pair),
        RowForm("hh", _is_hh, transcript_pair),
        RowForm("alpaca", lambda row: _sides(row) and has(row, "instruction") and not has(row, "prompt"), pairs_of.alpaca_pair),
        RowForm("sharegpt", lambda row: _sides(row) and has(row, "conversations"), pairs_of.sharegpt_pair),
        RowForm("messages", lambda row: _sides(row) and has(row, "messages") and not has(row, "prompt"), pairs_of.messages_pair),
        RowForm("chatpair", lambda row: is_messages(row.get("chosen")) or is_messages(row.get("rejected")), pairs_of.chat_pair),
        RowForm("plaintext", lambda row: bool(row.keys() & {"chosen", "rejected"}), pairs_of.plain_pair),
        RowForm("shp", lambda row: has(row, "history") and bool(row.keys() & {"human_ref_A", "human_ref_B"}), rankings.shp),
        RowForm("stack_exchange", _is_stack_exchange, partial(rankings.stack_exchange, pairs=pairs)),
        RowForm("ranked", lambda row: "scores" in row or has(row, "completions"), partial(rankings.ranked, pairs=pairs)),
    )
    return tuple(replace(form, parse=pairs_of.with_margin(form.parse)) for form in forms)


def _sides(row: Row) -> bool:
    return has(row, "chosen", "rejected")


def _is_hh(row: Row) -> bool:
    alone = not row.get("prompt")
    return _sides(row) and (is_transcript(row["chosen"]) if alone else is_transcript(row["prompt"])) and isinstance(row["chosen"], str)


def _is_stack_exchange(row: Row) -> bool:
    answers_given = isinstance(row.get("answers"), list) and all(isinstance(item, dict) for item in row["answers"])
    return has(row, "question") and (answers_given or bool(row.keys() & {"response_j", "response_k"}))


def _answered_prompt(row: Row) -> bool:
    return "prompt" in row and bool(row.keys() & {"response", "completion"}) and not isinstance(row.get("label"), bool)


def _is_scored_pair(fits: Callable[[Row], bool], row: Row) -> bool:
    """In rows with answers to be scored, only a pair's own keys make a pair of it."""
    return bool(row.keys() & {"chosen", "rejected", "sort"}) and fits(row)


def _last_turn_only(parse: Parse) -> Parse:
    """A form of answers, the last one scored alone."""

    def parse_last(row: Row, where: str) -> Parsed:
        records, reasons = parse(row, where)
        return [replace(record, score_all_turns=False) for record in records], reasons

    return parse_last


def _answered(row: Row, where: str) -> Parsed:
    """A prompt with its answers in ``response`` or ``output``: a record for each."""
    given = [key for key in ("response", "output") if key in row]
    if not given:
        need(row, ("response",))
    if len(given) == 2:
        raise BadRowError("both response and output are there; which of them is to be scored? Rename or remove the other.")
    [prompt], reasons = (detect(_PROMPTS, row) or _PROMPTS[-1]).parse(row, where)
    texts = read_texts(row[given[0]], given[0], may_be_empty=True)
    return [replace(prompt, responses=(text,)) for text in texts], reasons
