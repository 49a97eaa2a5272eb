"""What each rank runs for test_tensor_layers.py: a small block of cut layers, forward and backward, results into a file.

Arguments: the number of ranks, the folder that rank<number>.npz is written to.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

VOCAB, HIDDEN, HEADS, HEAD_DIM = 24, 8, 4, 3
WIDE = HEADS * HEAD_DIM
IDS = np.array([[0, 23, 6], [11, 12, 5]])
# Whole parameters: name to shape, and the axis that is cut. ``scale`` is held whole, and used on this rank's heads: a norm of queries.
SHAPES: dict[str, tuple[tuple[int, ...], int | None]] = {
    "embedding.weight": ((VOCAB, HIDDEN), 0),
    "column.weight": ((HIDDEN, WIDE), 1),
    "column.bias": ((WIDE,), 0),
    "scale": ((HEAD_DIM,), None),
    "row.weight": ((WIDE, HIDDEN), 0),
    "row.bias": ((HIDDEN,), None),
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


def run(parts: int, folder: Path) -> None:
    import paddle

    from paddlealign.parallel.collect import sum_gradients
    from paddlealign.parallel.tensor import tensor_makers
    from paddlealign.parallel.topology import start

    axis = start(parts, 1, 1).tensor
    make = tensor_makers(axis)
    assert (make.parts, make.part) == (axis.size, axis.rank)
    layers = {
        "embedding": make.embedding(VOCAB, HIDDEN),
        "column": make.column(HIDDEN, WIDE, True),
        "row": make.row(WIDE, HIDDEN, True),
    }
    scale = paddle.create_parameter([HEAD_DIM], "float32")
    parameters = {f"{name}.{kind}": it for name, layer in layers.items() for kind, it in layer.named_parameters()} | {"scale": scale}
    results = {f"new {name}": parameter.numpy() for name, parameter in parameters.items() if name != "scale"}
    results["biases not asked for"] = np.array([make.column(HIDDEN, WIDE, False).bias, make.row(WIDE, HIDDEN, False).bias]) != None  # noqa: E711 - elementwise
    wholes, upstream = inputs()
    assert set(parameters) == set(wholes)
    for name, parameter in parameters.items():
        parameter.set_value(part_of(wholes[name], SHAPES[name][1], parts, axis.rank).astype("float32"))
    output = block(layers, scale)
    output.backward(paddle.to_tensor(upstream.astype("float32")))
    results["output"] = output.numpy()
    results |= {f"gradient of {name}": parameter.grad.numpy() for name, parameter in parameters.items()}
    sum_gradients(axis, [scale])
    results["summed gradient of scale"] = scale.grad.numpy()
    paddle.set_default_dtype("bfloat16")
    results["dtypes"] = np.array(
        [str(layer.weight.dtype) for layer in (make.embedding(4, 4), make.column(4, 4, True), make.row(4, 4, True))]
    )
    np.savez(folder / f"rank{axis.rank}.npz", **results)


def block(layers: dict[str, Any], scale: Any) -> Any:
    """embedding + row(tanh(column(embedding)) * scale), as attention and MLP stand beside their residual."""
    import paddle

    vectors = layers["embedding"](paddle.to_tensor(IDS))
    heads = layers["column"](vectors).tanh().reshape([*IDS.shape, -1, HEAD_DIM]) * scale
    return vectors + layers["row"](heads.flatten(-2))


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
