"""What each rank runs for test_vocabulary.py: every case through the vocabulary-parallel functions, results into a file.

Arguments: the number of ranks, the folder that rank<number>.npz is written to.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

TARGETS, HIDDEN = 9, 4
# What the rows that pad the vocabulary are filled with: their logits would be the highest.
PADDING = 40.0


class Case(NamedTuple):
    """vocabulary_first and chunk_elements: see vocabulary.py. mode: "float32", "bfloat16", or "autocast" from float32 to bfloat16."""

    vocab_size: int
    vocabulary_first: bool
    chunk_elements: int = 1 << 25
    mode: str = "float32"


# 21 and 5 are padded on 2 and on 4 ranks; of 5 on 4 ranks the last holds padding only.
CASES = {
    **{f"{size}, {first}, {chunk}": Case(size, first, chunk) for size in (21, 5) for first in (True, False) for chunk in (1, 30, 1 << 25)},
    "nothing padded": Case(24, False),
    "bfloat16": Case(21, True, 30, "bfloat16"),
    "bfloat16, linear": Case(21, False, 30, "bfloat16"),
    "autocast": Case(21, True, 30, "autocast"),
}
HEADS = {
    # Of the logits of row 0 those of the tokens 1, 4 and 5 are the highest, on different ranks; of row 1 that of token 2 is alone.
    "ties": (np.eye(2), np.array([[0, 1], [3, 1], [0, 2], [2, 0], [3, 0], [3, -1]])),
    "unlikely": (np.array([[1, 0]]), np.array([[0, 0], [0, 0], [0, 0], [0, 0], [500, 0], [0, 0]])),
    "large": (np.array([[1, 0]]), np.array([[-3e4, 0], [0, 0], [3e4, 0], [0, 0], [0, 0], [3e4, 0]])),
}


class Inputs(NamedTuple):
    """hidden: [targets, hidden]. head: [vocab, hidden], without padding. targets: int64. upstream: the gradient of the log-probs."""

    hidden: np.ndarray
    head: np.ndarray
    targets: np.ndarray
    upstream: np.ndarray


def inputs_of(case: Case) -> Inputs:
    """Float64 inputs that the case's dtype holds exactly. The targets have the edges of every rank's part among them."""
    rng = np.random.default_rng(case.vocab_size)
    held = ml_dtypes.bfloat16 if case.mode != "float32" else np.float32
    edges = [part * -(-case.vocab_size // parts) + off for parts in (2, 4) for part in range(parts) for off in (0, -1)]
    known = sorted({edge for edge in edges if 0 <= edge < case.vocab_size} | {case.vocab_size - 1})
    targets = np.array((known * TARGETS)[:TARGETS], np.int64)
    arrays = [rng.standard_normal(shape) for shape in ((TARGETS, HIDDEN), (case.vocab_size, HIDDEN), (TARGETS,))]
    hidden, head, upstream = (array.astype(held).astype(np.float64) for array in arrays)
    return Inputs(hidden, head, targets, upstream)


def part_of(head: np.ndarray, parts: int, part: int) -> np.ndarray:
    """One rank's rows of a head, padded at the end."""
    width = -(-len(head) // parts)
    padded = np.concatenate([head, np.full((width * parts - len(head), head.shape[1]), PADDING)])
    return padded[part * width : (part + 1) * width]


def run(parts: int, folder: Path) -> None:
    import paddle

    from paddlealign.parallel import vocabulary
    from paddlealign.parallel.topology import start

    axis = start(parts, 1, 1).tensor
    results: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        vocabulary.CHUNK_ELEMENTS = case.chunk_elements
        results |= {f"{name}: {key}": value for key, value in run_case(axis, case).items()}
    vocabulary.CHUNK_ELEMENTS = 1 << 25
    for name, (hidden, head) in HEADS.items():
        own = paddle.to_tensor(part_of(head, parts, axis.rank).astype("float32"))
        for target in range(len(head)):
            targets = paddle.full([len(hidden)], target, "int64")
            logps, correct = vocabulary.token_logps(axis, paddle.to_tensor(hidden.astype("float32")), own, targets, True, len(head))
            results |= {f"{name}, {target}: logps": logps.numpy(), f"{name}, {target}: correct": correct.numpy()}
    logits = paddle.arange(12, dtype="float32").reshape([2, 2, 3]) + 100 * axis.rank
    results["gathered"] = vocabulary.gather_logits(axis, logits, 3 * parts - 2).numpy()
    np.savez(folder / f"rank{axis.rank}.npz", **results)


def run_case(axis: Any, case: Case) -> dict[str, np.ndarray]:
    """Log-probs, gradients and their dtypes, and the shapes of what was sent and of the logits."""
    import paddle
    import paddle.distributed as dist
    import pytest

    from paddlealign.parallel import vocabulary
    from tests.half_precision import install

    hidden, head, targets, upstream = inputs_of(case)
    own = part_of(head, axis.size, axis.rank)
    dtype = "bfloat16" if case.mode == "bfloat16" else "float32"
    x, weight = (paddle.to_tensor(array.astype("float32")).astype(dtype) for array in (hidden, own if case.vocabulary_first else own.T))
    x.stop_gradient = weight.stop_gradient = False
    with pytest.MonkeyPatch.context() as patch:
        kernels = install(patch)
        sent = watch(patch, dist, "all_reduce", lambda tensor, *_: tensor.shape)
        products = watch(patch, paddle, "matmul", lambda *_: None, lambda product: product.shape)
        kernels.cast_to = paddle.bfloat16 if case.mode == "autocast" else None
        logps, correct = vocabulary.token_logps(axis, x, weight, paddle.to_tensor(targets), case.vocabulary_first, case.vocab_size)
        kernels.cast_to = None  # as in training: autocast is off in backward
        logits = max(shape[0] for shape in products)
        logps.backward(paddle.to_tensor(upstream.astype("float32")))
        multiplied, told = sorted(str(kind) for kind in kernels.outputs), [str(shape) for shape in sent]
        collisions = vocabulary.collision_logps(axis, x, weight, case.vocabulary_first, case.vocab_size).numpy()
    gradient = weight.grad.astype("float32").numpy()
    return {
        "logps": logps.numpy(),
        "correct": correct.numpy(),
        "hidden": x.grad.astype("float32").numpy(),
        "head": gradient if case.vocabulary_first else gradient.T,
        "dtypes": np.array([str(tensor.dtype) for tensor in (logps, correct, x.grad, weight.grad)]),
        "multiplied": np.array(multiplied),
        "mixed": np.array(kernels.mixed, dtype=str),
        "sent": np.array(told),
        "rows of logits": np.array(logits),
        "collisions": collisions,
    }


def watch(patch: Any, owner: Any, name: str, before: Callable[..., Any], after: Callable[..., Any] = lambda _: None) -> list[Any]:
    """Note what ``before`` says of the arguments, or ``after`` of the result, of each call of ``owner.name``."""
    real, seen = getattr(owner, name), []

    def watched(*args: Any, **named: Any) -> Any:
        told = before(*args)
        result = real(*args, **named)
        seen.append(list(after(result) if told is None else told))
        return result

    patch.setattr(owner, name, watched)
    return seen


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
