"""Incremental decoding: a batch of left-padded prompts through the model, then one new token per row and step."""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.errors import UserError
from paddlealign.models.cache import KeyValueCache
from paddlealign.models.decoder import Decoder


class RunningBatch:
    """The rows that a model is generating for: their keys and values, and how many tokens each has.

    Between two steps rows may be dropped, repeated and put into another order. A row's numbers do not depend on the others.
    """

    def __init__(self, model: Decoder, prompts: Sequence[Sequence[int]]) -> None:
        """Compute nothing yet. prompts: token ids, one at least in each."""
        self.model = model
        self.lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        self._input_ids, self._position_ids, visible = pad_left(prompts)
        self._cache = KeyValueCache(visible)

    @paddle.no_grad()
    def read_prompts(self) -> tuple[Tensor, Tensor]:
        """Run the prompts through the model.

        Returns the hidden states of all their tokens [rows, length, hidden], and the logits after the last ones [rows, vocab]. Raises
        UserError where those are not finite.
        """
        input_ids, position_ids = paddle.to_tensor(self._input_ids), paddle.to_tensor(self._position_ids)
        hidden = self.model(input_ids, position_ids, self._cache.attend_prompt)
        logits = self.model.logits(hidden[:, -1])
        if not bool(paddle.isfinite(logits).all()):
            raise UserError("the model's logits are not finite numbers: its weights are damaged, or overflow in this dtype")
        return hidden, logits

    @paddle.no_grad()
    def read_tokens(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Run one more token of each row through the model. Returns hidden states [rows, hidden] and logits [rows, vocab]."""
        self._cache.make_room()
        input_ids, position_ids = np.array(tokens, dtype=np.int64)[:, None], self.lengths[:, None]
        hidden = self.model(paddle.to_tensor(input_ids), paddle.to_tensor(position_ids), self._cache.attend_token)[:, 0]
        self.lengths = self.lengths + 1
        return hidden, self.model.logits(hidden)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these rows in this order; a row may stand there several times."""
        if list(rows) != list(range(len(self.lengths))):
            self._cache.keep_rows(list(rows))
            self.lengths = self.lengths[list(rows)]


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay prompts into rows that end together.

    Returns input_ids int64, position_ids int64 (0 at each prompt's first token) and visible bool (False at padding), all [rows, length].
    """
    length = max(len(prompt) for prompt in prompts)
    input_ids = np.zeros((len(prompts), length), dtype=np.int64)
    padding = np.array([[length - len(prompt)] for prompt in prompts])
    for row, prompt in enumerate(prompts):
        input_ids[row, length - len(prompt) :] = prompt
    columns = np.arange(length)[None]
    return input_ids, np.maximum(columns - padding, 0), columns >= padding
