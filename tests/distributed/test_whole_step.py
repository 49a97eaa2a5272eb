"""Losses that look at all rows of a step give the same under pipeline and data parallel as in one process."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.parallel.pipeline import LONE_CHAIN
from paddlealign.parallel.topology import SINGLE
from tests.distributed.launching import run_ranks
from tests.distributed.ranks_whole_step import train

SCRIPT = Path(__file__).with_name("ranks_whole_step.py")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    run_ranks(SCRIPT, 4, "2", "2", folder, timeout=240)
    return folder


@pytest.mark.parametrize("name", ["mixture", "kto"])
def test_two_stages_and_two_readers_give_what_one_process_gives(name: str, four: Path) -> None:
    found, expected = dict(np.load(four / f"{name}.npz")), train(name, SINGLE, LONE_CHAIN)
    assert len(found["losses"]) == 6
    for kind, theirs in expected.items():
        assert np.abs(found[kind] - theirs).max() <= 3e-5 * np.abs(theirs).max(), kind
    assert np.ptp(expected["losses"][:, 0]) > 1e-2
