"""bfloat16 weights shared by two processes, by stand-ins for the kernels: what is summed in float32 is what one process sums."""

from pathlib import Path

import numpy as np
import pytest

from tests.distributed.launching import run_ranks
from tests.distributed.ranks_half import LOOKED_AT

EPS = 2.0**-8  # half of bfloat16's spacing at 1


def results(kind: str, folder: Path) -> list[dict[str, np.ndarray]]:
    run_ranks(Path(__file__).with_name("ranks_half.py"), 2, kind, folder, timeout=180)
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(2)]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    return results("readers", tmp_path_factory.mktemp("readers"))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded_half_precision_is_unsharded_half_precision(readers: list[dict[str, np.ndarray]], stage: int) -> None:
    """Each micro-batch's gradient is rounded to bfloat16 here and there alike, and added up in float32."""
    for rank in readers:
        np.testing.assert_allclose(rank[f"{stage} False losses"], rank["single 0 False losses"], rtol=1e-5)
        for name in LOOKED_AT if rank is readers[0] else ():
            wanted = rank[f"single 0 False {name}"]
            assert np.abs(rank[f"{stage} False {name}"] - wanted).max() <= 1e-5 * np.abs(wanted).max(), name
        assert rank[f"{stage} False dtypes"].tolist() == ["paddle.float32", "weights paddle.bfloat16"]
        assert rank["mixed"].tolist() == []


def test_shared_layers_in_half_precision_round_a_little_otherwise(tmp_path: Path) -> None:
    for rank in results("layers", tmp_path):
        for kind in ("0 False", "0 True"):  # sequence parallel or not
            assert np.abs(rank[f"{kind} losses"] - rank["single 0 False losses"]).max() <= 10 * EPS
            assert rank[f"{kind} dtypes"].tolist() == ["paddle.float32", "weights paddle.bfloat16"]
        assert rank["mixed"].tolist() == []
