"""Beam search, plain and diverse: the likeliest texts instead of the likeliest token, all beams of all rows in one model call per step.

Plain search follows HuggingFace transformers 5, search in groups (Vijayakumar et al. 2016) transformers 4, the last whose core holds it;
the two differ in when a row is done. A group whose answers are found chooses nothing and so lowers nothing in the groups after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from paddlealign.models.incremental import RunningBatch
from paddlealign.models.sampling import GenerationSettings, process_scores
from paddlealign.models.scores import log_probs, penalise_chosen


class Hypothesis(NamedTuple):
    """An answer that was found. score: the sum of its log-probs divided by length^length_penalty, the stop id counted."""

    tokens: tuple[int, ...]
    score: float


class Candidate(NamedTuple):
    """A beam and a token that may follow it. score: the sum of log-probs with that token."""

    score: float
    beam: int
    token: int


@dataclass(frozen=True)
class Beam:
    """A text that is being made. tokens: the new ones. score: the sum of their log-probs. place: its row in the running batch."""

    tokens: tuple[int, ...]
    score: float
    place: int


@dataclass(frozen=True)
class Group:
    """The beams of one group of a row and the answers that it found, both best first. open: whether it goes on."""

    beams: tuple[Beam, ...]
    finished: tuple[Hypothesis, ...] = ()
    open: bool = True


def beam_search(
    batch: RunningBatch, prompts: Sequence[Sequence[int]], limits: Sequence[int], settings: GenerationSettings
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Search one batch; yields (row, its best ``num_return_sequences`` answers, best first) as the rows end.

    batch: of the prompts, not yet read. limits: the most new tokens of each row, one at least. Fewer answers come only where fewer texts
    are possible at all.
    """
    _, logits = batch.read_prompts()
    rows = {row: [Group((Beam((), 0.0, row),))] * settings.num_beam_groups for row in range(len(prompts))}
    step = 0
    while True:
        step += 1
        table = log_probs(logits.astype("float32").numpy())
        for row in list(rows):
            rows[row] = advance_row(rows[row], table, prompts[row], settings, step == limits[row])
            if not any(group.open for group in rows[row]):
                found = sorted((answer for group in rows.pop(row) for answer in group.finished), key=lambda answer: -answer.score)
                yield row, found[: settings.num_return_sequences]
        if not rows:
            return
        beams = [beam for groups in rows.values() for group in groups if group.open for beam in group.beams]
        batch.keep_rows([beam.place for beam in beams])
        places = iter(range(len(beams)))
        rows = {row: [_placed(group, places) for group in groups] for row, groups in rows.items()}
        _, logits = batch.read_tokens([beam.tokens[-1] for beam in beams])


def _placed(group: Group, places: Iterator[int]) -> Group:
    """The group with its beams at the next places of the batch."""
    return replace(group, beams=tuple(replace(beam, place=next(places)) for beam in group.beams)) if group.open else group


def advance_row(groups: Sequence[Group], table: np.ndarray, prompt: Sequence[int], settings: GenerationSettings, last: bool) -> list[Group]:
    """One step of a row: its groups one after the other, each away from what those before it chose.

    table: log-probs after each place of the batch, float32 [places, vocab]. last: whether the row has no room for a token after this one.
    """
    width = settings.num_beams // settings.num_beam_groups
    advanced: list[Group] = []
    chosen: list[int] = []
    for group in groups:
        if group.open:
            scores = table[[beam.place for beam in group.beams]]
            for index, beam in enumerate(group.beams):
                row_scores = penalise_chosen(scores[index], chosen, settings.diversity_rate) if chosen else scores[index]
                scores[index] = process_scores(row_scores, prompt, beam.tokens, settings) + np.float32(beam.score)
            group = advance(group, best_candidates(scores, max(2, 1 + len(settings.stop_ids)) * width), width, settings, last)
            chosen += [beam.tokens[-1] for beam in group.beams]
        advanced.append(group)
    return advanced


def best_candidates(scores: np.ndarray, count: int) -> list[Candidate]:
    """The ``count`` best of all beams and tokens, best first; fewer where fewer are possible. scores: float32 [beams, vocab]."""
    flat = scores.ravel()
    best = np.argpartition(-flat, count)[:count] if count < len(flat) else np.arange(len(flat))
    best = best[np.argsort(-flat[best], kind="stable")]
    return [Candidate(float(flat[at]), *divmod(int(at), scores.shape[1])) for at in best if flat[at] > -np.inf]


def advance(group: Group, candidates: Sequence[Candidate], width: int, settings: GenerationSettings, last: bool) -> Group:
    """A group's next beams and answers, from its candidates, best first.

    Of the best ``width`` candidates those that end become answers, of which the best ``width`` are kept; the best ``width`` of those that
    do not end become the beams.
    """
    diverse = settings.num_beam_groups > 1
    length = len(group.beams[0].tokens) + 1
    running: list[Beam] = []
    ended: list[Hypothesis] = []
    for rank, candidate in enumerate(candidates):
        beam = group.beams[candidate.beam]
        tokens = (*beam.tokens, candidate.token)
        if (last and not diverse) or settings.ends(tokens):
            if rank < width:
                ended.append(Hypothesis(tokens, _normalised(candidate.score, length, settings)))
        else:
            running.append(Beam(tokens, candidate.score, beam.place))
        if len(running) == width:
            break
    finished = _best([*group.finished, *ended], width)
    if not candidates:  # every token is banned
        return Group(group.beams, _best([*finished, *_as_they_are(group.beams, settings)], width), open=False)
    attainable = candidates[0].score if diverse or not running else running[0].score
    done = len(finished) == width and (settings.early_stopping or finished[-1].score >= _normalised(attainable, length, settings))
    if diverse and last and not done:
        finished = _best([*finished, *_as_they_are(running, settings)], width)
    return Group(tuple(running), finished, open=bool(running) and not done and not last)


def _normalised(score: float, length: int, settings: GenerationSettings) -> float:
    return score / max(length, 1) ** settings.length_penalty


def _best(answers: Sequence[Hypothesis], count: int) -> tuple[Hypothesis, ...]:
    return tuple(sorted(answers, key=lambda answer: -answer.score)[:count])


def _as_they_are(beams: Sequence[Beam], settings: GenerationSettings) -> list[Hypothesis]:
    """Beams as answers without an end."""
    return [Hypothesis(beam.tokens, _normalised(beam.score, len(beam.tokens), settings)) for beam in beams]
