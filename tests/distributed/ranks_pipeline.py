"""What each rank runs for test_pipeline.py: a chain of blocks over the stages, results into a file.

Arguments: the number of stages, of pipelines beside each other, and the folder that rank<number>.npz is written to.
"""

import gc
import sys
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HIDDEN, BLOCKS, VOCAB = 6, 4, 11
LENGTHS = [3, 7, 1, 5, 2, 9, 4, 6, 8]
COUNTS = (1, 2, 3, 4, 5, 9)


class Case(NamedTuple):
    """How many micro-batches, and whether blocks hand on hidden states that do not lie in memory in the order of their axes."""

    count: int
    views: bool = False


CASES = {**{f"{count} micro-batches": Case(count) for count in COUNTS}, "views": Case(5, views=True)}


def batches(count: int, pipeline: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(token ids [2, length], upstream [2, length, hidden]) of each micro-batch: other lengths, and other values in each pipeline."""
    rng = np.random.default_rng(10 + pipeline)
    return [(rng.integers(0, VOCAB, (2, n)), rng.standard_normal((2, n, HIDDEN)).astype("float32")) for n in LENGTHS[:count]]


def weights() -> list[np.ndarray]:
    """The embedding and each block's matrix."""
    rng = np.random.default_rng(5)
    shapes = [(VOCAB, HIDDEN), *[(HIDDEN, HIDDEN)] * BLOCKS]
    return [rng.standard_normal(shape).astype("float32") * 0.5 for shape in shapes]


def computed(ids: np.ndarray | None, hidden: Any, parameters: list[Any], views: bool) -> Any:
    """Hidden states after the embedding (where ids are given) and these blocks."""
    import paddle

    if ids is not None:
        hidden = parameters[0][paddle.to_tensor(ids)]
        parameters = parameters[1:]
    for matrix in parameters:
        hidden = hidden + paddle.tanh(paddle.matmul(hidden, matrix))
        if views:
            hidden = (hidden * 1.0).transpose([1, 0, 2]).contiguous().transpose([1, 0, 2])
    return hidden


def in_one_process(case: Case, pipeline: int) -> tuple[list[float], list[np.ndarray]]:
    """Losses of the micro-batches, and the gradient of the embedding and of each block."""
    import paddle

    parameters = [paddle.to_tensor(values, stop_gradient=False) for values in weights()]
    losses = []
    for ids, upstream in batches(case.count, pipeline):
        loss = (computed(ids, None, parameters, False) * paddle.to_tensor(upstream)).sum()
        loss.backward()
        losses.append(float(loss))
    return losses, [parameter.grad.numpy() for parameter in parameters]


def trained(chain: Any, case: Case, pipeline: int) -> dict[str, np.ndarray]:
    """This stage's gradients, the losses (on the last), and the most micro-batches that were alive at a time, by calls and by tensors."""
    import paddle

    from paddlealign.parallel.pipeline import from_last, run_forward_only, run_pipeline

    stages, stage = chain.axis.size, chain.axis.rank
    share = BLOCKS // stages
    mine = weights()[1 + stage * share : 1 + (stage + 1) * share]
    parameters = [paddle.to_tensor(values, stop_gradient=False) for values in ([weights()[0]] if stage == 0 else []) + mine]
    rows = batches(case.count, pipeline)
    shapes = [upstream.shape for _, upstream in rows]
    losses: list[float] = []
    running, most = 0, [0, 0]
    seen: list[Any] = []

    def output_of(index: int, received: Any) -> Any:
        output = computed(rows[index][0] if received is None else None, received, parameters, case.views)
        return (output * paddle.to_tensor(rows[index][1])).sum() if chain.is_last else output

    def forward(index: int, received: Any) -> Any:
        nonlocal running
        running += 1
        output = output_of(index, received)
        if chain.is_last:
            losses.append(float(output))
        gc.collect()
        seen.append(weakref.ref(output))
        alive = sum(reference() is not None for reference in seen)
        most[:] = max(most[0], running), max(most[1], alive)
        return output

    def backward(index: int, output: Any, gradient: Any) -> None:
        nonlocal running
        assert (gradient is None) == chain.is_last
        paddle.autograd.backward([output], [gradient])
        running -= 1

    run_pipeline(chain, shapes, "float32", forward, backward)
    found: list[float] = []

    def look(index: int, received: Any) -> Any:
        output = output_of(index, received)
        assert output.stop_gradient
        found.extend([float(output)] if chain.is_last else [])
        return output

    gradients = {f"gradient {place}": parameter.grad.numpy() for place, parameter in enumerate(parameters)}
    run_forward_only(chain, shapes, "float32", look)
    everywhere = from_last(chain, np.array(found if chain.is_last else [np.nan] * case.count))
    assert all((parameter.grad.numpy() == gradients[f"gradient {place}"]).all() for place, parameter in enumerate(parameters))
    return {**gradients, "losses": np.array(losses), "looked": everywhere, "most": np.array(most), "left": np.array(running)}


def faults(chain: Any) -> dict[str, np.ndarray]:
    """What is said of hidden states of another shape or dtype than told, before anything is sent; only the first stage runs."""
    import paddle

    from paddlealign.parallel.pipeline import run_forward_only

    if not chain.is_first:
        return {}
    said = []
    for output in (paddle.zeros([2, 3]), paddle.zeros([2, 4], "float64")):
        try:
            run_forward_only(chain, [(2, 4)], "float32", lambda index, received, output=output: output)
        except ValueError as error:
            said.append(str(error))
    return {"said": np.array(said)}


def half(chain: Any) -> dict[str, np.ndarray]:
    """bfloat16 and float16 hidden states as they come in at each stage."""
    import paddle

    from paddlealign.parallel.pipeline import run_forward_only

    found = {}
    for dtype in ("bfloat16", "float16"):
        kept = []

        def hand_on(index: int, received: Any, dtype: str = dtype, kept: list[Any] = kept) -> Any:
            hidden = (
                paddle.arange(6, dtype="float32").reshape([2, 3]).divide(paddle.to_tensor(7.0)).astype(dtype)
                if received is None
                else received
            )
            kept.append(hidden.astype("float32").numpy())
            return hidden

        run_forward_only(chain, [(2, 3)], dtype, hand_on)
        found[dtype] = kept[0]
    return found


def run(stages: int, pipelines: int, folder: Path) -> None:
    from paddlealign.parallel.collect import sum_over
    from paddlealign.parallel.pipeline import connect
    from paddlealign.parallel.topology import start

    topology = start(1, stages, pipelines)
    chain = connect(topology.pipeline)
    results = {"stage": np.array(chain.axis.rank), "pipeline": np.array(topology.data.rank)}
    for name, case in CASES.items():
        results |= {f"{name}: {key}": value for key, value in trained(chain, case, topology.data.rank).items()}
        losses, gradients = in_one_process(case, topology.data.rank)
        share = BLOCKS // stages
        own = ([gradients[0]] if chain.is_first else []) + gradients[1 + chain.axis.rank * share : 1 + (chain.axis.rank + 1) * share]
        results |= {f"{name}: wanted gradient {place}": gradient for place, gradient in enumerate(own)}
        results[f"{name}: wanted losses"] = np.array(losses)
    results |= faults(chain) | half(chain)
    # Messages between neighbours must not put the axis's own collectives out of step.
    results["sum"] = sum_over(chain.axis, np.array([chain.axis.rank + 1.0]))
    np.savez(folder / f"rank{topology.rank}.npz", **results)


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
