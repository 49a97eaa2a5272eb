"""Rows whose answers have scores: pairs are made of them. From a row to its records."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import combinations, pairwise
from typing import Any

from paddlealign.data.example import Message, Record
from paddlealign.data.message_rows import BadRowError, read_number, read_text, shown
from paddlealign.data.row_parts import Parsed, has, need, prompt_messages, system

PAIRS = ("best_worst", "all", "adjacent")
SHP_RATIO = 2.0  # the pairs that Ethayarajh et al. 2022 advise to keep, and that the code of the DPO paper keeps
_FEW = "fewer than two answers"
_EQUAL_SCORES = "answers of equal score"
_EQUAL_TEXTS = "answers that are the same"
_ANSWER_KEYS = ("completions", "responses", "answers")
_HTML = re.compile(r"<(?:p|pre|ul|ol|blockquote|h[1-6]|div|br|hr)\b[^>]*>", re.IGNORECASE)


def ranked(row: dict[str, Any], where: str, pairs: str) -> Parsed:
    """{prompt, completions or responses or answers, scores}: a higher score is better.

    pairs: "best_worst" makes one pair, "all" one of every two answers, "adjacent" one of every two that follow each other by score. Two
    answers of equal score or text are no pair.
    """
    key = answers_key(row)
    need(row, ("prompt", key, "scores"))
    answers, scores = row[key], row["scores"]
    if not isinstance(answers, list) or not isinstance(scores, list) or len(answers) != len(scores):
        raise BadRowError(f"{key} is {shown(answers)} and scores {shown(scores)}; they must be lists of the same length.")
    texts = [read_text(answer, f"{key}[{index}]") for index, answer in enumerate(answers)]
    numbers = [read_number(score, f"scores[{index}]") for index, score in enumerate(scores)]
    return _pairs(prompt_messages(row, "prompt"), texts, numbers, pairs, where)


def answers_key(row: dict[str, Any]) -> str:
    """Under which key the answers stand."""
    return next((key for key in _ANSWER_KEYS if key in row), _ANSWER_KEYS[0])


def _pairs(prompt: tuple[Message, ...], texts: Sequence[str], scores: Sequence[float], pairs: str, where: str) -> Parsed:
    if len(texts) < 2:
        return [], [_FEW]
    order = sorted(range(len(texts)), key=lambda index: -scores[index])  # stable: of equal scores the first in the row comes first
    chosen_pairs = {"best_worst": [(order[0], order[-1])], "all": list(combinations(order, 2)), "adjacent": list(pairwise(order))}[pairs]
    records, reasons = [], []
    for better, worse in chosen_pairs:
        if scores[better] == scores[worse]:
            reasons.append(_EQUAL_SCORES)
        elif texts[better] == texts[worse]:
            reasons.append(_EQUAL_TEXTS)
        else:
            records.append(Record(prompt, (texts[better], texts[worse]), False, where))
    return records, reasons


def shp(row: dict[str, Any], where: str) -> Parsed:
    """SHP: {history, human_ref_A, human_ref_B, score_A, score_B, labels?}, kept where one score is at least twice the other."""
    need(row, ("history", "human_ref_A", "human_ref_B", "score_A", "score_B"))
    texts = [read_text(row[f"human_ref_{side}"], f"human_ref_{side}") for side in "AB"]
    scores = [read_number(row[f"score_{side}"], f"score_{side}") for side in "AB"]
    prompt = (*system(row), Message("user", read_text(row["history"], "history")))
    low, high = sorted(scores)
    if low == high or (low > 0 and high < SHP_RATIO * low):
        return [], [f"score ratio below {SHP_RATIO:g}"]
    if has(row, "labels") and (row["labels"] == 1) != (scores[0] > scores[1]):
        return [], ["labels and scores contradict each other"]
    return _pairs(prompt, texts, scores, "best_worst", where)


def stack_exchange(row: dict[str, Any], where: str, pairs: str) -> Parsed:
    """{question, answers: [{text, pm_score}, ...]}, or {question, response_j, response_k} of which j is better. HTML becomes text."""
    need(row, ("question",))
    prompt = (*system(row), Message("user", _plain(row["question"], "question")))
    if "response_j" in row or "response_k" in row:
        need(row, ("response_j", "response_k"))
        return _pairs(prompt, [_plain(row[key], key) for key in ("response_j", "response_k")], [1.0, 0.0], pairs, where)
    need(row, ("answers",))
    if not isinstance(row["answers"], list) or not all(isinstance(item, dict) for item in row["answers"]):
        raise BadRowError(f'answers is {shown(row["answers"])}; it must be a list of {{"text", "pm_score"}}.')
    texts, scores = [], []
    for index, item in enumerate(row["answers"]):
        name = f"answers[{index}]"
        if not has(item, "text", "pm_score"):
            raise BadRowError(f'{name} is {shown(item)}; an answer is {{"text", "pm_score"}}.')
        texts.append(_plain(item["text"], f"{name}.text"))
        scores.append(read_number(item["pm_score"], f"{name}.pm_score"))
    return _pairs(prompt, texts, scores, pairs, where)


def _plain(value: object, key: str) -> str:
    """A text; where it is HTML, what a reader sees, with code blocks between <code> and </code>."""
    text = read_text(value, key)
    if not _HTML.search(text):
        return text
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return read_text("".join(reader.parts).strip(), key)


class _Reader(HTMLParser):
    """Collects the text of HTML, a blank line between its blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a block, a line or code."""
        self._preformatted += tag == "pre"
        self._mark(tag, {"br": "\n", "li": "\n- ", "code": "<code>"})

    def handle_endtag(self, tag: str) -> None:
        """Close it."""
        self._preformatted -= tag == "pre"
        self._mark(tag, {"code": "</code>"})

    def handle_data(self, data: str) -> None:
        """Text; outside of code blocks, white space is one space, and none at a block's start."""
        if not self._preformatted:
            data = re.sub(r"\s+", " ", data)
            data = data.lstrip() if not self.parts or self.parts[-1].endswith("\n") else data
        if data:
            self.parts.append(data)

    def _mark(self, tag: str, marks: dict[str, str]) -> None:
        if tag in marks:
            self.parts.append(marks[tag])
        elif _HTML.match(f"<{tag}>") and self.parts and not self.parts[-1].endswith("\n\n"):
            self.parts.append("\n\n")
