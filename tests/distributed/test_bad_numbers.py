"""Where one process alone finds a NaN, all leave the same step out, or stop at it together with one whole checkpoint."""

import json
from pathlib import Path

from tests.distributed.launching import run_ranks

SCRIPT = Path(__file__).with_name("ranks_bad_numbers.py")


def test_all_processes_take_the_same_way(tmp_path: Path) -> None:
    for text in run_ranks(SCRIPT, 2, tmp_path, timeout=240):
        found = json.loads(text.splitlines()[-1])
        assert found["skip"] == [3, 1] and found["stop"] == [1, 0]
        assert found["code"] == 3 and found["checkpoints"] == [1]
        assert found["rows skip"] == found["rows stop"] == [2]  # one of each process
        assert found["finite skip"] and found["finite stop"]
