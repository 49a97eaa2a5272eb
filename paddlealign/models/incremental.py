"""Incremental decoding: a batch of left-padded prompts through the model, then one new token per row and step."""

from collections.abc import Callable, Sequence

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.errors import UserError
from paddlealign.models.attention import Attend
from paddlealign.models.cache import KeyValueCache
from paddlealign.models.decoder import Decoder
from paddlealign.models.token_step import has_token_step, token_step

# (model, input_ids, position_ids, attend) to hidden states after the last norm [rows, length, hidden] and the logits after each row's last
# token [rows, vocab]; input_ids and position_ids: int64 [rows, length]. Of several processes that share a model each gets all of both.
Forward = Callable[[Decoder, Tensor, Tensor, Attend], tuple[Tensor, Tensor]]


def forward_whole(model: Decoder, input_ids: Tensor, position_ids: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
    """``Forward`` where this process holds all layers."""
    hidden = model(input_ids, position_ids, attend)
    return hidden, model.logits(hidden[:, -1])


class RunningBatch:
    """The rows that a model is generating for: their keys and values, and how many tokens each has.

    Between two steps rows may be dropped, repeated and put into another order. A row's numbers do not depend on the others.
    """

    def __init__(self, model: Decoder, prompts: Sequence[Sequence[int]], forward: Forward = forward_whole) -> None:
        """Compute nothing yet. prompts: token ids, one at least in each. forward: how the model is run."""
        self._model, self._forward = model, forward
        self._steps = forward is forward_whole and has_token_step(model)
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
        hidden, logits = self._forward(self._model, input_ids, position_ids, self._cache.attend_prompt)
        if not bool(paddle.isfinite(logits).all()):
            raise UserError("the model's logits are not finite numbers: its weights are damaged, or overflow in this dtype")
        return hidden, logits

    @paddle.no_grad()
    def read_tokens(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Run one more token of each row through the model. Returns hidden states [rows, hidden] and logits [rows, vocab]."""
        self._cache.make_room()
        input_ids, position_ids = paddle.to_tensor(np.array(tokens, dtype=np.int64)[:, None]), paddle.to_tensor(self.lengths[:, None])
        self.lengths = self.lengths + 1
        if self._steps:
            hidden = token_step(self._model, input_ids, position_ids, self._cache)
            return hidden, self._model.logits(hidden)
        hidden, logits = self._forward(self._model, input_ids, position_ids, self._cache.attend_token)
        return hidden[:, 0], logits

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
