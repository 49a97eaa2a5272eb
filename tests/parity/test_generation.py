"""Generated text against HuggingFace transformers' generate and logits processors (scripts/golden/logits.py)."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.models.generation import generate
from paddlealign.models.sampling import GenerationSettings, penalise, top_k_tokens, top_p_tokens
from paddlealign.models.weights import load_model

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("llama1", "llama2_gqa", "llama3", "llama_bias", "qwen2", "qwen2_tied")
STOP_IDS = (2, 11, 30, 50, 77)
KINDS = {"greedy": {}, "penalised": {"repetition_penalty": 1.4}}


@pytest.mark.parametrize("batch_size", (1, 3, 8))
@pytest.mark.parametrize("name", NAMES)
def test_greedy_text_is_that_of_transformers_in_every_batch(name: str, batch_size: int) -> None:
    golden = np.load(GOLDEN / name / "golden.npz")
    model = load_model(GOLDEN / name, "float32")
    prompts = [golden[f"prompt {row}"].tolist() for row in range(8)]
    for kind, extra in KINDS.items():
        settings = GenerationSettings(max_new_tokens=16, stop_ids=STOP_IDS, **extra)
        expected = [golden[f"{kind} {row}"].tolist() for row in range(8)]
        assert generate(model, prompts, settings, batch_size) == expected, kind


def test_golden_rows_end_at_different_steps() -> None:
    lengths = {len(np.load(GOLDEN / name / "golden.npz")[f"greedy {row}"]) for name in NAMES for row in range(8)}
    assert len(lengths) > 3 and max(lengths) == 16


def test_sampling_filters_are_those_of_transformers() -> None:
    golden = np.load(GOLDEN / "sampling.npz")
    for row, (logits, history) in enumerate(zip(golden["logits"], golden["history"], strict=True)):
        scores, seen = logits.astype(np.float64), history.tolist()
        all_filters = penalise(scores, seen, 1.2) / 1.5
        of_twelve = top_k_tokens(all_filters, 12)
        ours = {
            "repetition 1.3": (penalise(scores, seen, 1.3), np.arange(50)),
            "top_k 5": (scores, top_k_tokens(scores, 5)),
            "top_p 0.8": (scores, top_p_tokens(scores, 0.8)),
            "all": (all_filters, of_twelve[top_p_tokens(all_filters[of_twelve], 0.9)]),
        }
        for name, (values, tokens) in ours.items():
            kept = np.full(50, -np.inf)
            kept[tokens] = values[tokens]
            np.testing.assert_allclose(kept, golden[name][row], rtol=1e-6, err_msg=name)
