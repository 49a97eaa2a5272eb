"""The rows of a run held against the model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.recipes.rows import Rows, check_shared_prompts, longest_text
from tests.small_runs import GOLDEN


def rows_of(prompt: int, *responses: int) -> Rows:
    """One training example of those lengths."""
    made = tuple(Response(np.zeros(size, "int32"), np.ones(size, bool)) for size in responses)
    return Rows(SimpleNamespace(folder=Path("x")), [Example(np.zeros(prompt, "int32"), made)], [], {})


def test_dynamic_angles_and_long_pairs_are_refused() -> None:
    config = read_config(GOLDEN / "llama_dynamic")
    assert config.rope.original_positions == 32 and config.max_positions == 64
    check_shared_prompts(rows_of(20, 12, 3), config, "model_name_or_path")
    check_shared_prompts(rows_of(20, 40), config, "model_name_or_path")  # one response: each text has its own prompt
    with pytest.raises(UserError, match=r"^model_name_or_path: .*dynamic.*32 tokens; the longest pair has 33\. Set max_length to 32\.$"):
        check_shared_prompts(rows_of(20, 3, 13), config, "model_name_or_path")
    check_shared_prompts(rows_of(20, 40, 3), replace(config, rope=replace(config.rope, kind="yarn")), "model_name_or_path")
    assert longest_text([]) == 0 and longest_text(rows_of(20, 3, 13).train) == 33
