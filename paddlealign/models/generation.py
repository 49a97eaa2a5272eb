"""Generation: prompts in, new tokens out, a batch of left-padded rows at a time.

Rows that have ended leave the batch at once. The text of a row does not depend on the batch that it stands in, and neither do its draws
(models.sampling).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import paddle

from paddlealign.errors import UserError
from paddlealign.models.beam import beam_search
from paddlealign.models.contrastive import contrastive_search
from paddlealign.models.decoder import Decoder
from paddlealign.models.incremental import Forward, RunningBatch, forward_whole
from paddlealign.models.sampling import GenerationSettings, choose_token, process_scores, row_generator


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    batch_size: int = 8,
    row_ids: Sequence[int] | None = None,
    on_finished: Callable[[int, list[list[int]]], None] | None = None,
    forward: Forward = forward_whole,
) -> list[list[list[int]]]:
    """Generate after each prompt; returns its answers as new tokens, in the prompts' order, each with its stop id where it came to one.

    A prompt has ``num_return_sequences`` answers, under beams the best first. prompts: token ids, one at least in each. row_ids: what
    seeds each row's draws (default: its place in ``prompts``), so that a row draws the same in another run over other rows. on_finished:
    called with (place in ``prompts``, answers) as rows end. forward: how the model is run; processes that share it all call this, with the
    same, and find the same. Raises UserError for a prompt that is empty or fills all positions.
    """
    row_ids = range(len(prompts)) if row_ids is None else row_ids
    answers: list[list[list[int]]] = [[[]] * settings.num_return_sequences for _ in prompts]
    # Rows of like length together: little padding. Longest first, so that want of memory shows at once.
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        for row, found in _batch_answers(model, [prompts[p] for p in places], settings, [row_ids[p] for p in places], forward):
            answers[places[row]] = found
            if on_finished is not None:
                on_finished(places[row], found)
    return answers


def stream(model: Decoder, prompt: Sequence[int], settings: GenerationSettings, row_id: int = 0) -> Iterator[int]:
    """Generate one answer to one prompt, token by token as they come, the stop id included; under beams they come when all are found."""
    settings = replace(settings, num_return_sequences=1)
    limits = _limits(model, [prompt], settings)
    batch = RunningBatch(model, [prompt])
    with _evaluating(model):
        if settings.num_beams > 1 and limits[0]:
            yield from next(beam_search(batch, [prompt], limits, settings))[1][0].tokens
        else:
            for _, token, _ in _tokens(batch, [prompt], limits, settings, [row_id]):
                yield token


def _batch_answers(
    model: Decoder, prompts: Sequence[Sequence[int]], settings: GenerationSettings, row_ids: Sequence[int], forward: Forward
) -> Iterator[tuple[int, list[list[int]]]]:
    """Generate one batch; yields (row, its answers) as the rows end."""
    limits = _limits(model, prompts, settings)
    batch = RunningBatch(model, prompts, forward)
    with _evaluating(model):
        if settings.num_beams > 1 and max(limits):
            for row, found in beam_search(batch, prompts, limits, settings):
                yield row, [list(answer.tokens) for answer in found]
            return
        count = settings.num_return_sequences
        texts: list[list[int]] = [[] for _ in range(count * len(prompts))]
        open_texts = [count] * len(prompts)
        for text, token, ended in _tokens(batch, prompts, limits, settings, row_ids):
            texts[text].append(token)
            row = text // count
            open_texts[row] -= ended
            if ended and not open_texts[row]:
                yield row, texts[row * count : (row + 1) * count]


def _limits(model: Decoder, prompts: Sequence[Sequence[int]], settings: GenerationSettings) -> list[int]:
    """The most new tokens of each row: what is asked for, as far as the model has positions. Raises UserError."""
    room = model.config.max_positions
    for prompt in prompts:
        if not 0 < len(prompt) < room:
            raise UserError(f"a prompt has {len(prompt)} tokens; it must have 1 to {room - 1}, since the model has {room} positions")
    return [min(settings.max_new_tokens, room - len(prompt)) for prompt in prompts]


@contextmanager
def _evaluating(model: Decoder) -> Iterator[None]:
    """Switch the model to evaluation for a while."""
    training, _ = model.training, model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def _tokens(
    batch: RunningBatch, prompts: Sequence[Sequence[int]], limits: Sequence[int], settings: GenerationSettings, row_ids: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """Yield (text, token, whether the text ends with it) as the tokens come; a row's texts follow each other."""
    if not max(limits):
        return
    if settings.penalty_alpha > 0:
        yield from contrastive_search(batch, prompts, limits, settings)
    else:
        yield from _one_by_one(batch, prompts, limits, settings, row_ids)


def _one_by_one(
    batch: RunningBatch, prompts: Sequence[Sequence[int]], limits: Sequence[int], settings: GenerationSettings, row_ids: Sequence[int]
) -> Iterator[tuple[int, int, bool]]:
    """``_tokens`` where each token is taken or drawn from the logits after the one before it."""
    count = settings.num_return_sequences
    rows = [row for row in range(len(prompts)) for _ in range(count)]
    randoms = [row_generator(settings.seed, row_ids[row], text % count) for text, row in enumerate(rows)]
    new: list[list[int]] = [[] for _ in rows]
    _, logits = batch.read_prompts()
    if count > 1:
        batch.keep_rows(rows)
        logits = paddle.index_select(logits, paddle.to_tensor(rows, dtype="int64"))
    texts = list(range(len(rows)))
    # Plain greedy text needs one number per row from the device, everything else the whole table.
    plain = not settings.do_sample and not settings.changes_scores
    while True:
        table = (logits.argmax(-1) if plain else logits.astype("float32")).numpy()
        staying = []
        for column, text in enumerate(texts):
            if plain:
                token = int(table[column])
            else:
                scores = table[column].astype(np.float64) if settings.changes_scores else table[column]
                scores = process_scores(scores, prompts[rows[text]], new[text], settings)
                token = choose_token(scores, settings, randoms[text])
            new[text].append(token)
            ended = len(new[text]) == limits[rows[text]] or settings.ends(new[text])
            if not ended:
                staying.append(column)
            yield text, token, ended
        if not staying:
            return
        batch.keep_rows(staying)
        texts = [texts[column] for column in staying]
        _, logits = batch.read_tokens([new[text][-1] for text in texts])
