"""What each rank runs for test_sharding.py: steps of AdamW whose states are cut over the data axis, results into a file.

Arguments: the number of ranks, the folder that rank<number>.npz is written to.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS, MICRO_BATCHES, ROWS, WIDTH = 6, 3, 4, 5
# The largest first takes one rank, the rest the other; the last gets a gradient from rank 0 only.
SHAPES = {
    "layer.0.weight": [WIDTH, 8],
    "layer.0.bias": [8],
    "norm.weight": [8],
    "layer.1.weight": [8, 3],
    "layer.1.bias": [3],
    "seldom.weight": [3],
}
SETTINGS = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}
RATES = [0.02, 0.03, 0.01, 0.02, 0.005, 0.01]
LARGEST_NORM = 0.5


class Named:
    """Some named parameters, as make_optimizer takes a model."""

    def __init__(self, named: dict[str, Any]):
        self._named = named

    def named_parameters(self) -> list[tuple[str, Any]]:
        return list(self._named.items())

    def parameters(self) -> list[Any]:
        return list(self._named.values())


def drawn() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """First values, and the rows [steps, ranks, micro-batches, rows, width] of all."""
    rng = np.random.default_rng(8)
    first = {name: rng.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}
    return first, rng.standard_normal((STEPS, 2, MICRO_BATCHES, ROWS, WIDTH)).astype("float32")


def made(first: dict[str, np.ndarray]) -> dict[str, Any]:
    """Parameters with these values."""
    import paddle

    parameters = {name: paddle.create_parameter(shape, "float32") for name, shape in SHAPES.items()}
    for name, parameter in parameters.items():
        parameter.set_value(first[name])
    return parameters


def add_gradients(named: dict[str, Any], rows: np.ndarray, rank: int, view: bool = False) -> None:
    """The loss of one micro-batch, backward. view: use a weight so that its gradient does not lie in memory in the order of its axes."""
    import paddle

    hidden = paddle.tanh(paddle.matmul(paddle.to_tensor(rows), named["layer.0.weight"]) + named["layer.0.bias"]) * named["norm.weight"]
    weight = named["layer.1.weight"]
    product = paddle.matmul(weight.transpose([1, 0]), hidden.transpose([1, 0])).transpose([1, 0]) if view else paddle.matmul(hidden, weight)
    output = product + named["layer.1.bias"]
    if rank == 0:
        output = output * named["seldom.weight"]
    (output.square().sum() / (2 * MICRO_BATCHES * ROWS)).backward()


def squares(parameters: list[Any]) -> float:
    """The sum of the squares of all gradients."""
    return sum(float((parameter.grad.astype("float64") ** 2).sum()) for parameter in parameters)


def clip(parameters: list[Any], norm: float) -> None:
    """Scale these gradients as those of the whole model are, whose norm this is."""
    import paddle

    with paddle.no_grad():
        for parameter in parameters:
            parameter.grad.scale_(min(1.0, LARGEST_NORM / norm))


def unsharded() -> dict[str, np.ndarray]:
    """All ranks' rows in one process: the weights and the norm after every step."""
    from paddlealign.training.optimizer import make_optimizer

    first, rows = drawn()
    named = made(first)
    optimizer = make_optimizer(Named(named), **SETTINGS)
    found: dict[str, np.ndarray] = {}
    for step in range(STEPS):
        for rank in range(2):
            for micro in range(MICRO_BATCHES):
                add_gradients(named, rows[step, rank, micro], rank)
        norm = squares(list(named.values())) ** 0.5
        clip(list(named.values()), norm)
        optimizer.set_lr(RATES[step])
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        found |= {f"{step} {name}": parameter.numpy() for name, parameter in named.items()} | {f"{step} norm": np.array(norm)}
    return found


def sharded(axis: Any, stage: int, often: bool) -> dict[str, np.ndarray]:
    """The same over the axis. often: reduce after each micro-batch, not after the last only."""
    import paddle

    from paddlealign.parallel.collect import sum_gradients, sum_over
    from paddlealign.parallel.sharding import owned, owners_of, reduce_to_owners, share_parameters
    from paddlealign.training.optimizer import make_optimizer

    first, rows = drawn()
    named = made(first)
    parameters = list(named.values())
    owners = owners_of([parameter.size for parameter in parameters], axis.size)
    own = owned(axis, parameters, owners)
    names = [name for name, owner in zip(named, owners, strict=True) if owner == axis.rank]
    optimizer = make_optimizer(Named(dict(zip(names, own, strict=True))), **SETTINGS)
    found: dict[str, np.ndarray] = {"owned": np.array(names)}
    for step in range(STEPS):
        for micro in range(MICRO_BATCHES):
            add_gradients(named, rows[step, axis.rank, micro], axis.rank, view=stage == 2)
            assert micro or named["layer.1.weight"].grad.is_contiguous() == (stage == 1)
            if stage == 2 and (often or micro == MICRO_BATCHES - 1):
                reduce_to_owners(axis, parameters, owners)
        if stage == 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = paddle.zeros(parameter.shape, parameter.dtype)
            sum_gradients(axis, parameters)
        found["with gradients"] = np.array([name for name, parameter in named.items() if parameter.grad is not None])
        norm = float(sum_over(axis, np.array(squares(own)))) ** 0.5
        clip(own, norm)
        optimizer.set_lr(RATES[step])
        optimizer.step()
        for parameter in parameters:
            parameter.clear_gradient(False)
        share_parameters(axis, parameters, owners)
        found |= {f"{step} {name}": parameter.numpy() for name, parameter in named.items()} | {f"{step} norm": np.array(norm)}
    moments = [value for kind in ("moment1", "moment2") for value in optimizer._accumulators[kind].values()]
    return found | {"elements of moments": np.array(sum(moment.size for moment in moments))}


def run(ranks: int, folder: Path) -> None:
    from paddlealign.parallel.topology import start

    axis = start(1, 1, ranks).data
    results = {f"unsharded: {key}": value for key, value in unsharded().items()}
    for kind, stage, often in (("stage 1", 1, False), ("stage 2", 2, False), ("stage 2, often", 2, True)):
        results |= {f"{kind}: {key}": value for key, value in sharded(axis, stage, often).items()}
    np.savez(folder / f"rank{axis.rank}.npz", **results)


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
