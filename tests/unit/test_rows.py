"""The rows of a run held against the model, and what is written beside it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from paddlealign.data.example import Example, Response
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.recipes.rows import Rows, check_shared_prompts, longest_text
from paddlealign.recipes.run import side_files
from tests.small_runs import GOLDEN


def rows_of(prompt: int, *responses: int) -> Rows:
    """One training example of those lengths."""
    made = tuple(Response(np.zeros(size, "int32"), np.ones(size, bool)) for size in responses)
    return Rows(SimpleNamespace(folder=Path("x")), 2, [Example(np.zeros(prompt, "int32"), made)], [], {})


def test_dynamic_angles_and_long_pairs_are_refused() -> None:
    config = read_config(GOLDEN / "llama_dynamic")
    assert config.rope.original_positions == 32 and config.max_positions == 64
    check_shared_prompts(rows_of(20, 12, 3), config, "model_name_or_path")
    check_shared_prompts(rows_of(20, 40), config, "model_name_or_path")  # one response: each text has its own prompt
    with pytest.raises(UserError, match=r"^model_name_or_path: .*dynamic.*32 tokens; the longest pair has 33\. Set max_length to 32\.$"):
        check_shared_prompts(rows_of(20, 3, 13), config, "model_name_or_path")
    check_shared_prompts(rows_of(20, 40, 3), replace(config, rope=replace(config.rope, kind="yarn")), "model_name_or_path")
    assert longest_text([]) == 0 and longest_text(rows_of(20, 3, 13).train) == 33


@pytest.mark.parametrize("said_in", ["generation_config.json", "config.json", "nowhere"])
def test_the_saved_model_names_the_end_token_that_it_was_taught(tmp_path: Path, capsys: pytest.CaptureFixture, said_in: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama1", folder)
    (folder / "generation_config.json").unlink()
    source = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**source, "eos_token_id": 2 if said_in == "config.json" else None}))
    if said_in == "generation_config.json":
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 2], "top_p": 0.9}))
    arguments = SimpleNamespace(
        model=SimpleNamespace(model_name_or_path=str(folder)),
        adapter=SimpleNamespace(lora_path=None),
        data=SimpleNamespace(chat_template="auto"),
    )
    rows = replace(rows_of(1, 1), tokenizer=SimpleNamespace(folder=folder))
    known, other = side_files(arguments, rows), side_files(arguments, replace(rows, end_id=7))
    written = json.loads(other["generation_config.json"])
    if said_in == "generation_config.json":
        assert known["generation_config.json"] == (folder / "generation_config.json").read_bytes()
        assert written == {"eos_token_id": [7, 5, 2], "top_p": 0.9}
    elif said_in == "config.json":
        assert "generation_config.json" not in known and written == {"eos_token_id": [7, 2]}
    else:
        assert written == {"eos_token_id": [7]}
    assert "answers end with token 7" in capsys.readouterr().out
