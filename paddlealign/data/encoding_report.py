"""What became of the rows on their way to tokens, and the counts that are told to the user."""

from collections import Counter
from dataclasses import dataclass, field, fields
from operator import add

from paddlealign.data.example import Example


@dataclass(frozen=True)
class Encoded:
    """An example and what was done to it. special_text: its text holds special tokens' text, kept as text."""

    example: Example
    prompt_cut: bool = False
    responses_cut: int = 0
    altered_turns: int = 0
    special_text: bool = False


@dataclass(frozen=True)
class Refusal:
    """Why a record gives no example. ``too_long``: by the limits, not by its content.

    prompt, longest: for a row that is too long, tokens of its prompt, and of the prompt with its longest response.
    """

    reason: str
    too_long: bool = False
    prompt: int = field(default=0, compare=False)
    longest: int = field(default=0, compare=False)


@dataclass
class EncodingReport:
    """Counts over a data set: rows = kept + dropped_too_long + all refused.

    refused: reason -> count; refused_at: reason -> the first row it concerns. prompts_truncated counts rows, responses_truncated
    responses. altered_turns: earlier answers that the chat template changes and that are therefore not scored.
    special_text_rows: rows whose own texts hold the text of a special token, kept as text; special_text_at: the first of them.
    longest_prompt, longest_row: tokens of the longest prompt and of the longest prompt and response among the rows dropped as too long.
    too_long_at: the first of these.
    tokens: prompts once, responses each. scored_tokens: those that the loss counts.
    """

    rows: int = 0
    kept: int = 0
    dropped_too_long: int = 0
    longest_prompt: int = 0
    longest_row: int = 0
    prompts_truncated: int = 0
    responses_truncated: int = 0
    altered_turns: int = 0
    special_text_rows: int = 0
    special_text_at: str = ""
    refused: Counter[str] = field(default_factory=Counter)
    refused_at: dict[str, str] = field(default_factory=dict)
    too_long_at: str = ""
    tokens: int = 0
    scored_tokens: int = 0

    def count(self, source: str, outcome: Encoded | Refusal) -> None:
        """Take in what became of one row."""
        self.rows += 1
        if isinstance(outcome, Encoded):
            self.kept += 1
            self.prompts_truncated += outcome.prompt_cut
            self.responses_truncated += outcome.responses_cut
            self.altered_turns += outcome.altered_turns
            self.special_text_rows += outcome.special_text
            self.special_text_at = self.special_text_at or (source if outcome.special_text else "")
            self.tokens += outcome.example.length
            self.scored_tokens += outcome.example.scored_count
        elif outcome.too_long:
            self.dropped_too_long += 1
            self.too_long_at = self.too_long_at or source
            self.longest_prompt = max(self.longest_prompt, outcome.prompt)
            self.longest_row = max(self.longest_row, outcome.longest)
        else:
            self.refused[outcome.reason] += 1
            self.refused_at.setdefault(outcome.reason, source)

    def add(self, other: "EncodingReport", path: str) -> None:
        """Take in the counts of a part of a file, whose ``refused_at`` and ``special_text_at`` are lines of it."""
        for item in fields(self):
            if item.type == "int" or item.type is int:
                join = max if item.name.startswith("longest") else add
                setattr(self, item.name, join(getattr(self, item.name), getattr(other, item.name)))
        if other.special_text_at:
            self.special_text_at = self.special_text_at or f"{path}:{other.special_text_at}"
        if other.too_long_at:
            self.too_long_at = self.too_long_at or f"{path}:{other.too_long_at}"
        self.refused.update(other.refused)
        for reason, line in other.refused_at.items():
            self.refused_at.setdefault(reason, f"{path}:{line}")
