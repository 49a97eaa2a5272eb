"""The three forms that a row takes on its way from the file to the loss: record, example, batch. NumPy only.

A record is what the user wrote, an example is the same in tokens, and a batch is many examples laid into packed rows.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Marks:
    """What a row says of scoring an assistant's turn.

    wanted: whether it is scored; None where the row does not say it. parts: (start, end) characters of the turn's text that are scored,
    where the row names them.
    """

    wanted: bool | None = None
    parts: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    role: "system", "user", "assistant" or "tool" (what a tool answered). content: None only where an assistant calls tools without a text.
    tool_calls: an assistant's calls, as JSON objects as the row has them. tool_call_id, name: of the call that a tool answers.
    marks: whether the row wants an assistant's turn to be scored.
    """

    role: str
    content: str | None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    marks: Marks = Marks()


@dataclass(frozen=True)
class Record:
    """One row as the user means it, before any template or token.

    messages: the turns before the response (it may be empty: then the response is the whole text).
    responses: one for SFT; chosen, then rejected, for preference rows; none where only a prompt is given (predict). Each is a text, or an
    assistant's message where it calls tools.
    score_all_turns: score the assistant turns inside ``messages`` too (SFT on a whole conversation).
    score_turns: the run's key of that name ("all", "last" or "marked"), under which marks are heeded; "" where answers are scored whole.
    marks: the response's, where the row has some.
    source: "file:line" for error messages.
    tools: the functions that may be called, as JSON objects as the row has them; None where the row has no such key.
    margin: by how much the chosen answer should score above the rejected one (reward models); 0 where the row does not say it.
    desirable: the label of a labelled row; None for other kinds.
    """

    messages: tuple[Message, ...]
    responses: tuple[str | Message, ...]
    score_all_turns: bool
    source: str
    tools: tuple[dict[str, Any], ...] | None = None
    margin: float = 0.0
    desirable: bool | None = None
    score_turns: str = ""
    marks: Marks = Marks()


def scored_as(record: Record, score_turns: str) -> Record:
    """The record with the assistant's turns scored that a run's ``score_turns`` asks for: "all", "last" or "marked"."""
    return replace(record, score_turns=score_turns, score_all_turns=record.score_all_turns and score_turns != "last")


@dataclass(frozen=True)
class Response:
    """A branch behind the prompt.

    token_ids: int32 [n]. scored: bool [n]; the tokens whose log-prob counts. In a single-turn row that is all of them, the
    end token included; in a multi-turn SFT row the user's turns in between are not scored.
    """

    token_ids: np.ndarray
    scored: np.ndarray


@dataclass(frozen=True)
class Example:
    """A record in tokens: one prompt, then its responses as branches that do not see each other.

    prompt_ids: int32 [p], with the BOS where the tokenizer has one. p may be 0; then the first token of a response has no
    predecessor and is not scored. margin: see ``Record``.
    """

    prompt_ids: np.ndarray
    responses: tuple[Response, ...]
    margin: float = 0.0

    @property
    def length(self) -> int:
        """Tokens that the example takes in a row: the prompt once and every response."""
        return len(self.prompt_ids) + sum(len(response.token_ids) for response in self.responses)

    @property
    def scored_count(self) -> int:
        """Tokens that are scored, over all responses."""
        return sum(int(response.scored.sum()) for response in self.responses)


@dataclass(frozen=True)
class Batch:
    """Packed rows of tokens and a flat list of the tokens that are scored. There is no label matrix and no -100.

    input_ids       int64 [rows, length]
    position_ids    int64 [rows, length]; restart at each example; every response starts where its prompt ends.
    visible_until   int32 [rows, 1, length, 1]; the first later row of the attention matrix that may NOT see this token as
                    a key (the start row of flash-mask's lower triangle): the example's end for a prompt token, the
                    response's own end for a response token, the token's own index + 1 for padding.
    score_at        int64 [targets]; flat index (row * length + column) of the token whose hidden state predicts the target.
    target_ids      int64 [targets]
    target_owner    int64 [targets]; index into the responses of this batch.
    last_at         int64 [responses]; flat index of each response's last token, whose hidden state stands for the whole text.
    example_ids     int64 [examples]; which dataset row each example is. Its responses stand together, in the order of
                    ``example_ids``: for pairs, response 2 i is chosen and 2 i + 1 rejected of example i.
    response_count  number of responses in the batch.
    token_count     number of tokens that are not padding.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    visible_until: np.ndarray
    score_at: np.ndarray
    target_ids: np.ndarray
    target_owner: np.ndarray
    last_at: np.ndarray
    example_ids: np.ndarray
    response_count: int
    token_count: int
