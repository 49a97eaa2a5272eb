"""float16's loss scaling on ranks that share a model: its steps are those of float32, and an overflow in one rank stops both."""

import json
from pathlib import Path

import pytest

from tests.distributed.launching import run_ranks

SCRIPT = Path(__file__).with_name("ranks_scaling.py")


LAYOUTS = {"TP2 x PP2": (2, 2, 1, 1, 0), "sharding stages 1 and 2": (1, 1, 2, 2, 1, 2)}  # as ranks_scaling.py takes them


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_overflow_in_one_rank_costs_all_the_step_and_lowers_every_scale(layout: tuple[int, ...]) -> None:
    found = [json.loads(text.splitlines()[-1]) for text in run_ranks(SCRIPT, layout[0] * layout[1] * layout[2], *layout)]
    for it in (it for rank in found for it in rank):
        assert it["scaled"] == it["plain"]  # a power of two costs no bit
        assert it["norm"] in ("inf", "nan")
        assert it["left alone"]
        assert it["scale"] == [2.0**14]
        assert it["went on"]
        assert it["after"]["incr_count"] == 1
    assert all([it["after"] for it in rank] == [it["after"] for it in found[0]] for rank in found)
