"""Generation: prompts in, new tokens out, a batch of left-padded rows at a time.

Rows that have ended leave the batch at once. The greedy text of a row does not depend on the batch that it stands in, and
neither do its draws (models.sampling).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import paddle
from paddle import Tensor

from paddlealign.errors import UserError
from paddlealign.models.attention import Attend
from paddlealign.models.cache import KeyValueCache
from paddlealign.models.decoder import Decoder
from paddlealign.models.sampling import GenerationSettings, choose_token, row_generator


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    batch_size: int = 8,
    row_ids: Sequence[int] | None = None,
    on_finished: Callable[[int, list[int]], None] | None = None,
) -> list[list[int]]:
    """Generate after each prompt; returns the new tokens in the prompts' order, each with its stop id where it came to one.

    prompts: token ids, one at least in each. row_ids: what seeds each row's draws (default: its place in ``prompts``), so that a row
    draws the same in another run over other rows. on_finished: called with (place in ``prompts``, new tokens) as rows end.
    """
    row_ids = range(len(prompts)) if row_ids is None else row_ids
    outputs: list[list[int]] = [[] for _ in prompts]
    # Rows of like length together: little padding. Longest first, so that want of memory shows at once.
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        for row, token, ended in generate_batch(model, [prompts[p] for p in places], settings, [row_ids[p] for p in places]):
            outputs[places[row]].append(token)
            if ended and on_finished is not None:
                on_finished(places[row], outputs[places[row]])
    return outputs


def stream(model: Decoder, prompt: Sequence[int], settings: GenerationSettings, row_id: int = 0) -> Iterator[int]:
    """Generate after one prompt, token by token as they come, the stop id included."""
    for _, token, _ in generate_batch(model, [prompt], settings, [row_id]):
        yield token


def generate_batch(
    model: Decoder, prompts: Sequence[Sequence[int]], settings: GenerationSettings, row_ids: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """Generate one batch; yields (row, token, whether the row ends with it) as the tokens come.

    A row ends with a stop id, after ``max_new_tokens``, or where the model's positions end. Raises UserError for a prompt that is
    empty or fills all positions.
    """
    room = model.config.max_positions
    for prompt in prompts:
        if not 0 < len(prompt) < room:
            raise UserError(f"a prompt has {len(prompt)} tokens; it must have 1 to {room - 1}, since the model has {room} positions")
    training, _ = model.training, model.eval()
    try:
        yield from _batch_tokens(model, [list(prompt) for prompt in prompts], settings, row_ids)
    finally:
        if training:
            model.train()


def _batch_tokens(
    model: Decoder, seen: list[list[int]], settings: GenerationSettings, row_ids: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """The loop of ``generate_batch``. seen: the prompts, to which the new tokens are appended."""
    lengths = [len(prompt) for prompt in seen]
    limits = [min(length + settings.max_new_tokens, model.config.max_positions) for length in lengths]
    randoms = [row_generator(settings.seed, row) for row in row_ids]
    active = [row for row in range(len(seen)) if limits[row] > lengths[row]]
    if not active:
        return
    rows_of = active
    input_ids, position_ids, visible = pad_left([seen[row] for row in active])
    cache = KeyValueCache(visible)
    logits = _last_logits(model, input_ids, position_ids, cache.attend_prompt)
    if not bool(paddle.isfinite(logits).all()):
        raise UserError("the model's logits are not finite numbers: its weights are damaged, or overflow in this dtype")
    while True:
        # Plain greedy text needs one number per row from the device, everything else the whole table.
        table = (logits.argmax(-1) if settings.is_plain_greedy else logits.astype("float32")).numpy()
        staying = []
        for column, row in enumerate(rows_of):
            if settings.is_plain_greedy:
                token = int(table[column])
            else:
                token = choose_token(table[column], seen[row], settings, randoms[row])
            seen[row].append(token)
            ended = token in settings.stop_ids or len(seen[row]) >= limits[row]
            if not ended:
                staying.append(column)
            yield row, token, ended
        if not staying:
            return
        if len(staying) < len(rows_of):
            cache.keep_rows(staying)
            rows_of = [rows_of[column] for column in staying]
        cache.make_room()
        tokens = np.array([[seen[row][-1]] for row in rows_of], dtype=np.int64)
        positions = np.array([[len(seen[row]) - 1] for row in rows_of], dtype=np.int64)
        logits = _last_logits(model, tokens, positions, cache.attend_token)


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


@paddle.no_grad()
def _last_logits(model: Decoder, input_ids: np.ndarray, position_ids: np.ndarray, attend: Attend) -> Tensor:
    """Logits [rows, vocab] after each row's last token."""
    hidden = model(paddle.to_tensor(input_ids), paddle.to_tensor(position_ids), attend)
    return model.logits(hidden[:, -1])
