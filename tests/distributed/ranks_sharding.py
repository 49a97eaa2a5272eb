"""What each rank runs for test_sharding.py: steps of AdamW whose states are cut over the shards, results into a file.

Arguments: the number of ranks, of shards, the folder that rank<number>.npz is written to.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS, RANKS, MICRO_BATCHES, ROWS, WIDTH = 6, 4, 3, 4, 5
SHAPES = {
    "layer.0.weight": [WIDTH, 8],
    "layer.0.bias": [8],
    "norm.weight": [8],
    "layer.1.weight": [8, 3],
    "layer.1.bias": [3],
    "scale.weight": [3],
}
SETTINGS = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}
RATES = [0.02, 0.03, 0.01, 0.02, 0.005, 0.01]
LARGEST_NORM = 0.5


def drawn() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """First values, and the rows [steps, ranks, micro-batches, rows, width] of all."""
    rng = np.random.default_rng(8)
    first = {name: rng.standard_normal(shape).astype("float32") for name, shape in SHAPES.items()}
    return first, rng.standard_normal((STEPS, RANKS, MICRO_BATCHES, ROWS, WIDTH)).astype("float32")


def made(first: dict[str, np.ndarray]) -> dict[str, Any]:
    """Parameters with these values."""
    import paddle

    parameters = {name: paddle.create_parameter(shape, "float32") for name, shape in SHAPES.items()}
    for name, parameter in parameters.items():
        parameter.set_value(first[name])
    return parameters


def add_gradients(named: dict[str, Any], rows: np.ndarray, view: bool = False) -> None:
    """The loss of one micro-batch, backward. view: use a weight so that its gradient does not lie in memory in the order of its axes."""
    import paddle

    hidden = paddle.tanh(paddle.matmul(paddle.to_tensor(rows), named["layer.0.weight"]) + named["layer.0.bias"]) * named["norm.weight"]
    weight = named["layer.1.weight"]
    product = paddle.matmul(weight.transpose([1, 0]), hidden.transpose([1, 0])).transpose([1, 0]) if view else paddle.matmul(hidden, weight)
    output = (product + named["layer.1.bias"]) * named["scale.weight"]
    (output.square().sum() / (RANKS * MICRO_BATCHES * ROWS)).backward()


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
    """All rows in one process: the weights and the norm after every step."""
    from paddlealign.training.optimizer import make_optimizer

    first, rows = drawn()
    named = made(first)
    optimizer = make_optimizer(list(named.items()), **SETTINGS)
    found: dict[str, np.ndarray] = {}
    for step in range(STEPS):
        for part in rows[step].reshape([-1, ROWS, WIDTH]):
            add_gradients(named, part)
        norm = squares(list(named.values())) ** 0.5
        clip(list(named.values()), norm)
        optimizer.set_lr(RATES[step])
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        found |= {f"{step} {name}": parameter.numpy() for name, parameter in named.items()} | {f"{step} norm": np.array(norm)}
    return found


def sharded(topology: Any, stage: int) -> dict[str, np.ndarray]:
    """The same over the shards and their replicas."""
    from paddlealign.parallel.collect import sum_over
    from paddlealign.parallel.sharding import Sharding, owners_of
    from paddlealign.training.optimizer import make_optimizer

    first, rows = drawn()
    named = list(made(first).items())
    sharding = Sharding(stage, owners_of({name: parameter.size for name, parameter in named}, topology.shards.size), topology)
    own = [(name, parameter) for name, parameter in named if sharding.owns(name)]
    optimizer = make_optimizer(own, **SETTINGS)
    found: dict[str, np.ndarray] = {"owned": np.array([name for name, _ in own])}
    for step in range(STEPS):
        for micro in range(MICRO_BATCHES):
            add_gradients(dict(named), rows[step, topology.data.rank, micro], view=stage == 2)
            assert micro or dict(named)["layer.1.weight"].grad.is_contiguous() == (stage == 1)
            sharding.take(named)
        sharding.settle(named)
        found["with gradients"] = np.array([name for name, parameter in named if parameter.grad is not None])
        updated = [parameter for _, parameter in own]
        norm = float(sum_over(topology.shards, np.array(squares(updated)))) ** 0.5
        clip(updated, norm)
        optimizer.set_lr(RATES[step])
        optimizer.step()
        for _, parameter in named:
            parameter.clear_gradient(False)
        sharding.share(named)
        found |= {f"{step} {name}": parameter.numpy() for name, parameter in named} | {f"{step} norm": np.array(norm)}
    moments = [value for kind in ("moment1", "moment2") for value in optimizer._accumulators[kind].values()]
    return found | {"elements of moments": np.array(sum(moment.size for moment in moments))}


def run(ranks: int, shards: int, folder: Path) -> None:
    from paddlealign.parallel.topology import start

    topology = start(1, 1, ranks, shards)
    results = {f"unsharded: {key}": value for key, value in unsharded().items()}
    for stage in (1, 2):
        results |= {f"stage {stage}: {key}": value for key, value in sharded(topology, stage).items()}
    np.savez(folder / f"rank{topology.rank}.npz", **results)


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
