"""Generated text against HuggingFace transformers' generate and logits processors.

The files are made by scripts/golden/generation.py and scripts/golden/logits.py.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from paddlealign.models.beam import beam_search
from paddlealign.models.generation import generate
from paddlealign.models.incremental import RunningBatch
from paddlealign.models.sampling import GenerationSettings, top_k_tokens, top_p_tokens
from paddlealign.models.scores import penalise_repetition
from paddlealign.models.weights import load_model

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json") if list(path.parent.glob("*.safetensors")))
NEW_TOKENS = 12


class Kind(NamedTuple):
    """One way of generating: settings, prompts, and transformers' answers to each."""

    settings: GenerationSettings
    prompts: list[list[int]]
    answers: list[list[list[int]]]
    scores: list[list[float | None]]


def golden(name: str) -> dict[str, Kind]:
    source = json.loads((GOLDEN / "generation" / f"{name}.json").read_text(encoding="utf-8"))
    kinds = {}
    for title, kind in source["kinds"].items():
        settings = GenerationSettings(max_new_tokens=NEW_TOKENS, stop_ids=tuple(source["stop_ids"]), **kind["settings"])
        answers = [[answer["tokens"] for answer in found] for found in kind["answers"]]
        kinds[title] = Kind(settings, kind["prompts"], answers, [[answer.get("score") for answer in found] for found in kind["answers"]])
    return kinds


def as_written(tokens: list[int], settings: GenerationSettings) -> list[int]:
    """transformers writes the first stop id at the end of a text that was found in groups, whichever ended it."""
    return [*tokens[:-1], settings.stop_ids[0]] if settings.num_beam_groups > 1 and tokens[-1] in settings.stop_ids else tokens


@pytest.mark.parametrize("name", NAMES)
def test_text_is_that_of_transformers_in_every_batch(name: str) -> None:
    model = load_model(GOLDEN / name, "float32")
    for title, (settings, prompts, expected, _) in golden(name).items():
        for batch_size in (1, 3, len(prompts)):
            found = generate(model, prompts, settings, batch_size)
            assert [[as_written(tokens, settings) for tokens in answers] for answers in found] == expected, (title, batch_size)


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_beams_are_those_of_transformers(name: str) -> None:
    model = load_model(GOLDEN / name, "float32")
    model.eval()
    beams = {title: kind for title, kind in golden(name).items() if kind.settings.num_beams > 1}
    assert len(beams) == 8
    for title, (settings, prompts, _, scores) in beams.items():
        for row, found in beam_search(RunningBatch(model, prompts), prompts, [NEW_TOKENS] * len(prompts), settings):
            np.testing.assert_allclose([answer.score for answer in found], scores[row], rtol=0, atol=1e-4, err_msg=title)


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_texts_can_tell_right_from_wrong(name: str) -> None:
    """Some end and some do not, at many steps, and every way of generating has prompts that greedy search answers otherwise."""
    kinds = golden(name)
    stop_ids = kinds["greedy"].settings.stop_ids
    texts = [text for kind in kinds.values() for answers in kind.answers for text in answers]
    assert 40 < sum(text[-1] in stop_ids for text in texts) < len(texts) - 40
    assert len({len(text) for text in texts}) > 6
    model = load_model(GOLDEN / name, "float32")
    for title, kind in kinds.items():
        greedy = generate(model, kind.prompts, kinds["greedy"].settings)
        assert (greedy != [answers[:1] for answers in kind.answers]) == (title != "greedy"), title


def test_sampling_filters_are_those_of_transformers() -> None:
    values = np.load(GOLDEN / "sampling.npz")
    for row, (logits, history) in enumerate(zip(values["logits"], values["history"], strict=True)):
        scores, seen = logits.astype(np.float64), history.tolist()
        all_filters = penalise_repetition(scores, seen, 1.2) / 1.5
        of_twelve = top_k_tokens(all_filters, 12)
        ours = {
            "repetition 1.3": (penalise_repetition(scores, seen, 1.3), np.arange(50)),
            "top_k 5": (scores, top_k_tokens(scores, 5)),
            "top_p 0.8": (scores, top_p_tokens(scores, 0.8)),
            "all": (all_filters, of_twelve[top_p_tokens(all_filters[of_twelve], 0.9)]),
        }
        for name, (scored, tokens) in ours.items():
            kept = np.full(50, -np.inf)
            kept[tokens] = scored[tokens]
            np.testing.assert_allclose(kept, values[name][row], rtol=1e-6, err_msg=name)
