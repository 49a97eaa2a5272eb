"""Groups of real ranks on the CPU, what stands in for Paddle's gaps there, and the helper that starts ranks for the tests."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddlealign.parallel.topology import SINGLE, start
from tests.distributed.launching import launch, run_ranks

SCRIPT = Path(__file__).with_name("ranks_start.py")


WAITING = """
import time

import paddle
from paddle import distributed as dist

from paddlealign.parallel.topology import start

paddle.set_device("cpu")
rank = start(1, 1, 4).rank
pairs = {other: dist.new_group([0, other]) for other in (1, 2, 3)}
value = paddle.to_tensor([1.0 + rank])
if rank == 0:
    time.sleep(40)
began = time.monotonic()
for other, group in pairs.items():
    if rank not in (0, other):
        continue
    if other == 1:
        dist.all_reduce(value, group=group)
    elif other == 2:
        dist.send(value, dst=0, group=group) if rank == 2 else dist.recv(value, src=2, group=group)
    else:
        dist.broadcast(value, src=0, group=group)
print(value.item(), time.monotonic() - began > 30)
"""


@pytest.fixture(scope="module")
def waited() -> Iterator[Future[list[str]]]:
    """What the ranks of WAITING write. Most of that is sleep, so they are started first, and the other tests go on meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run_ranks, WAITING, 4)


@pytest.fixture(scope="module")
def two(waited: Future[list[str]]) -> list[dict[str, Any]]:
    """What two ranks of a tensor axis found. Each wrote one line: Paddle is silent."""
    return [json.loads(text) for text in run_ranks(SCRIPT, 2, 2, 1, 1)]


def test_one_process_needs_no_group():
    assert start(1, 1, 1) is SINGLE
    assert SINGLE.is_main
    assert SINGLE.everyone.group is None


def test_two_ranks_share_each_layer(two):
    for rank, found in enumerate(two):
        assert (found["rank"], found["world"]) == (rank, 2)
        alone = [1, 0, [rank], 10**rank]
        assert found["axes"] == {"tensor": [2, rank, [0, 1], 11], "pipeline": alone, "data": alone, "everyone": [2, rank, [0, 1], 11]}
        assert found["is_main"] == (rank == 0)


def test_collectives_on_the_stream_of_the_computation_are_over_when_they_return(two):
    both = {"all_reduce": [4.0, 6.0], "broadcast": [3.0, 4.0], "all_gather_into_tensor": [1.0, 2.0, 3.0, 4.0], "send, recv": [1.0, 2.0]}
    assert two[0]["collectives"] == {**both, "reduce": [4.0, 6.0]}
    assert two[1]["collectives"] == {**both, "reduce": [0.0]}


def test_an_input_of_several_layers_gets_each_gradient_once_from_every_rank(two):
    for found in two:
        assert found["shared input"] == {"values": [[1.0, 2.0]] * 3, "gradient": [222.0, 222.0]}


def test_four_ranks_hold_two_stages_of_shared_layers():
    found = [json.loads(text) for text in run_ranks(SCRIPT, 4, 2, 2, 1)]
    for rank, it in enumerate(found):
        part, stage = rank % 2, rank // 2
        neighbours, column = [2 * stage, 2 * stage + 1], [part, part + 2]
        assert it["axes"]["tensor"] == [2, part, neighbours, sum(10**other for other in neighbours)]
        assert it["axes"]["pipeline"] == [2, stage, column, sum(10**other for other in column)]
        assert it["axes"]["data"] == [1, 0, [rank], 10**rank]
        assert it["axes"]["everyone"] == [4, rank, [0, 1, 2, 3], 1111]
        assert it["is_main"] == (rank == 0)


def test_without_a_backend_the_newer_launcher_works_too(tmp_path):
    code, screen = launch([str(SCRIPT), "1", "1", "2"], 2, tmp_path, 60, ())
    assert code == 0, screen
    for rank in range(2):
        found = json.loads((tmp_path / f"workerlog.{rank}").read_text(encoding="utf-8"))
        assert found["axes"]["data"] == [2, rank, [0, 1], 11]


def test_a_rank_that_fails_fails_the_test_with_what_every_rank_wrote():
    code = "import os, sys; print('here'); sys.exit('a fault' if os.environ['PADDLE_TRAINER_ID'] == '1' else 0)"
    with pytest.raises(AssertionError, match=r"(?s)on 2 ranks ended with 1\n--- rank 0:\nhere.*--- rank 1:\n.*a fault"):
        run_ranks(code, 2)


def test_ranks_that_take_too_long_are_ended(tmp_path):
    code = "import os, sys, time, pathlib; pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(300)"
    with pytest.raises(AssertionError, match="took longer than 8 s"):
        run_ranks(code, 2, tmp_path, timeout=8)
    time.sleep(0.5)
    started = [int(file.name) for file in tmp_path.iterdir()]
    assert len(started) == 2
    assert not any(_runs(process) for process in started)


def _runs(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


def test_ranks_wait_longer_than_gloo_does_by_itself(waited: Future[list[str]]):
    """Rank 0 is busy for 40 s, while one adds up with it, one sends to it, and one is sent to by it; gloo's own patience is 30 s."""
    assert [text.split() for text in waited.result()] == [["3.0", "False"], ["3.0", "True"], ["3.0", "True"], ["3.0", "True"]]
