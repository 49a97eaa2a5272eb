"""The pipeline's schedule on paper, and on real ranks against the same chain in one process."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.parallel.pipeline import Chain, Step, run_pipeline, schedule
from paddlealign.parallel.topology import SINGLE
from tests.distributed.launching import run_ranks
from tests.distributed.ranks_pipeline import CASES, COUNTS

Results = list[dict[str, np.ndarray]]
SENDS = {"send": (1, "receive"), "send gradient": (-1, "receive gradient")}


@pytest.fixture(scope="module", params=[(2, 1), (4, 1), (2, 2)], ids=["2 stages", "4 stages", "2 stages, 2 pipelines"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each rank found, in their order."""
    folder = tmp_path_factory.mktemp("ranks")
    stages, pipelines = request.param
    run_ranks(Path(__file__).with_name("ranks_pipeline.py"), stages * pipelines, stages, pipelines, folder, timeout=150)
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(stages * pipelines)]


def stuck(plans: list[list[Step]]) -> list[Step]:
    """Run the plans of all stages where a send lasts until its receiver has come to it; the steps at which they stand still, if any."""
    at = [0] * len(plans)
    while True:
        before = list(at)
        for stage, plan in enumerate(plans):
            step = plan[at[stage]] if at[stage] < len(plan) else None
            if step is None or step.deed.startswith("receive"):
                continue
            if step.deed in SENDS:
                side, wanted = SENDS[step.deed]
                other = stage + side
                if at[other] == len(plans[other]) or plans[other][at[other]] != Step(wanted, step.batch):
                    continue
                at[other] += 1
            at[stage] += 1
        if at == before:
            return [plan[place] for plan, place in zip(plans, at, strict=True) if place < len(plan)]


@pytest.mark.parametrize("stages", range(1, 9))
@pytest.mark.parametrize("count", range(1, 20))
def test_no_stage_waits_for_ever(stages: int, count: int):
    assert stuck([schedule(stages, stage, count) for stage in range(stages)]) == []


def test_a_send_before_the_gradient_would_wait_for_ever():
    plans = [schedule(2, stage, 2) for stage in range(2)]
    place = plans[0].index(Step("receive gradient", 0))
    plans[0][place], plans[0][place + 1] = plans[0][place + 1], plans[0][place]
    assert stuck(plans) == [Step("send", 1), Step("send gradient", 0)]


@pytest.mark.parametrize("stages", range(1, 9))
@pytest.mark.parametrize("count", range(20))
def test_every_micro_batch_goes_once_each_way_and_few_are_alive(stages: int, count: int):
    for stage in range(stages):
        plan = schedule(stages, stage, count)
        for deed, wanted in (
            ("forward", True),
            ("backward", True),
            ("receive", stage > 0),
            ("send gradient", stage > 0),
            ("send", stage < stages - 1),
            ("receive gradient", stage < stages - 1),
        ):
            assert [step.batch for step in plan if step.deed == deed] == (list(range(count)) if wanted else [])
        alive = np.cumsum([{"forward": 1, "backward": -1}.get(step.deed, 0) for step in plan] or [0])
        assert alive.min() >= 0
        assert alive.max() == min(stages - stage, count)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_one_process(ranks: Results, name: str):
    for rank in ranks:
        places = [key for key in rank if key.startswith(f"{name}: gradient ")]
        assert len(places) == len([key for key in rank if key.startswith(f"{name}: wanted gradient ")]) > 0
        for key in places:
            wanted = rank[key.replace("gradient", "wanted gradient")]
            assert np.abs(wanted).max() > 0.1
            assert np.abs(rank[key] - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", CASES)
def test_the_last_stage_has_the_losses_and_all_stages_see_them(ranks: Results, name: str):
    last = max(int(rank["stage"]) for rank in ranks)
    for rank in ranks:
        wanted = rank[f"{name}: wanted losses"]
        assert rank[f"{name}: looked"].dtype == np.float64
        np.testing.assert_allclose(rank[f"{name}: looked"], wanted, rtol=1e-6)
        if rank["stage"] == last:
            np.testing.assert_allclose(rank[f"{name}: losses"], wanted, rtol=1e-6)
        else:
            assert len(rank[f"{name}: losses"]) == 0


@pytest.mark.parametrize("count", COUNTS)
def test_a_stage_holds_no_more_micro_batches_than_stages_follow_it(ranks: Results, count: int):
    stages = 1 + max(int(rank["stage"]) for rank in ranks)
    for rank in ranks:
        most = min(stages - int(rank["stage"]), count)
        assert rank[f"{count} micro-batches: most"].tolist() == [most, most]
        assert rank[f"{count} micro-batches: left"] == 0


def test_pipelines_beside_each_other_have_their_own_rows(ranks: Results):
    losses = {int(rank["pipeline"]): rank["views: looked"].tolist() for rank in ranks}
    assert len({str(values) for values in losses.values()}) == len(losses)


def test_hidden_states_that_are_not_as_told_are_not_sent(ranks: Results):
    for rank in ranks:
        if rank["stage"] == 0:
            shape, dtype = rank["said"].tolist()
            assert shape.endswith("micro-batch 0: the hidden states: float32 (2, 3) instead of float32 (2, 4)")
            assert dtype.endswith("micro-batch 0: the hidden states: float64 (2, 4) instead of float32 (2, 4)")


def test_half_precision_goes_through_unchanged(ranks: Results):
    for rank in ranks:
        for dtype in ("bfloat16", "float16"):
            assert rank[dtype].tobytes() == ranks[0][dtype].tobytes()
            assert rank[dtype].max() > 0.7


def test_collectives_of_the_axis_still_work_afterwards(ranks: Results):
    stages = 1 + max(int(rank["stage"]) for rank in ranks)
    for rank in ranks:
        assert rank["sum"] == stages * (stages + 1) / 2


def test_one_stage_is_a_plain_loop():
    import paddle

    done: list[tuple[str, int]] = []

    def forward(index: int, received: paddle.Tensor | None) -> paddle.Tensor:
        assert received is None
        done.append(("forward", index))
        return paddle.zeros([])

    def backward(index: int, output: paddle.Tensor, gradient: paddle.Tensor | None) -> None:
        assert gradient is None
        done.append(("backward", index))

    run_pipeline(Chain(SINGLE.pipeline, None, None), [(1,), (2,)], "float32", forward, backward)
    assert done == [("forward", 0), ("backward", 0), ("forward", 1), ("backward", 1)]
