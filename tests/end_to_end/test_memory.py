"""Memory of loading and saving: the model once, and little beside it. The figures for 2 GB are scripts/measure/loading.py's."""

import json
from pathlib import Path

import pytest

from scripts.measure.loading import ROOT, make

# 170 MB in bfloat16; embedding and head are 33 MB each, so that a second copy of either would show.
SHAPE = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 1408, "vocab_size": 32000}


@pytest.mark.parametrize("shard_bytes", [1 << 40, 60_000_000])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_is_in_memory_once(run_command, tmp_path: Path, dtype: str, shard_bytes: int) -> None:
    make(tmp_path / "model", SHAPE, 18, "bfloat16", shard_bytes)
    code, out, error = run_command([ROOT / "scripts" / "measure" / "loading.py", tmp_path / "model", dtype, tmp_path / "copy"])
    assert code == 0, error
    _, size, peak, _, saving, _ = json.loads(out.splitlines()[-1])
    assert size > 150e6
    assert peak <= 1.15 * size
    assert saving <= 2 * 32000 * 512 + 10e6  # the largest tensor as it is written
