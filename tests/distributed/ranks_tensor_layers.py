"""What each rank runs for test_tensor_layers.py: a small block of cut layers, forward and backward, results into a file.

Arguments: the number of ranks, the folder that rank<number>.npz is written to.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

VOCAB, HIDDEN, HEADS, HEAD_DIM = 24, 8, 4, 3
WIDE = HEADS * HEAD_DIM
IDS = np.array([[0, 23, 6, 7], [11, 12, 5, 1]])
# Whole parameters: name to shape, and the axis that is cut. ``scale`` is held whole, and used on this rank's heads: a norm of queries.
# ``norm`` is held whole, and used on this rank's positions where these are cut.
SHAPES: dict[str, tuple[tuple[int, ...], int | None]] = {
    "embedding": ((VOCAB, HIDDEN), 0),
    "norm": ((HIDDEN,), None),
    "column": ((HIDDEN, WIDE), 1),
    "scale": ((HEAD_DIM,), None),
    "row": ((WIDE, HIDDEN), 0),
    "bias": ((HIDDEN,), None),
}


def inputs() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Whole parameters, and the gradient of the block's output; float64 of values that float32 holds."""
    rng = np.random.default_rng(3)
    drawn = [
        rng.standard_normal(shape).astype("float32").astype("float64") for shape, _ in (*SHAPES.values(), ((*IDS.shape, HIDDEN), None))
    ]
    return dict(zip(SHAPES, drawn[:-1], strict=True)), drawn[-1]


def part_of(whole: np.ndarray, axis: int | None, parts: int, part: int) -> np.ndarray:
    """One rank's part of a parameter."""
    return whole if axis is None else np.split(whole, parts, axis)[part]


def block(held: dict[str, Any], make: Any) -> Any:
    """join(x + row(tanh(column(spread(x * norm))) * scale) + bias) of embeddings x, as attention and MLP stand beside their residual."""
    import paddle

    x = make.collect(make.lookup(paddle.to_tensor(IDS), held["embedding"]))
    wide = paddle.matmul(make.spread(x * held["norm"]), held["column"]).tanh()
    heads = wide.reshape([*IDS.shape, -1, HEAD_DIM]) * held["scale"]
    return make.join(x + make.collect(paddle.matmul(heads.flatten(-2), held["row"])) + held["bias"])


def computed(axis: Any, sequence_parallel: bool) -> dict[str, np.ndarray]:
    """The block's output and gradients, first as backward leaves them, then summed where a rank has its share of them only."""
    import paddle

    from paddlealign.parallel.collect import sum_gradients
    from paddlealign.parallel.tensor import tensor_makers

    make = tensor_makers(axis, sequence_parallel)
    assert (make.parts, make.part, make.positions) == (axis.size, axis.rank, axis.size if sequence_parallel else 1)
    wholes, upstream = inputs()
    held = {
        name: paddle.to_tensor(part_of(whole, SHAPES[name][1], axis.size, axis.rank).astype("float32"), stop_gradient=False)
        for name, whole in wholes.items()
    }
    output = block(held, make)
    output.backward(paddle.to_tensor(upstream.astype("float32")))
    results = {"output": output.numpy()} | {f"gradient of {name}": parameter.grad.numpy() for name, parameter in held.items()}
    summed = ["scale", *(["norm", "bias"] if sequence_parallel else [])]
    sum_gradients(axis, [held[name] for name in summed])
    return results | {f"summed gradient of {name}": held[name].grad.numpy() for name in summed}


def run(parts: int, folder: Path) -> None:
    from paddlealign.parallel.topology import start

    axis = start(parts, 1, 1).tensor
    results = {f"{kind} {name}": it for kind in ("plain", "sequence") for name, it in computed(axis, kind == "sequence").items()}
    np.savez(folder / f"rank{axis.rank}.npz", **results)


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
