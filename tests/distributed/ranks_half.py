"""What each rank runs for test_half.py: bfloat16 weights (O2) by stand-ins for kernels that Paddle's CPU build lacks, results into a file.

Arguments: "readers" (two ranks are shards, in stages 1 to 3) or "layers" (they share each layer), and the folder of rank<number>.npz.
"""

import sys
from pathlib import Path

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle
import pytest

from paddlealign.parallel.topology import SINGLE, Topology, start
from paddlealign.training.optimizer import make_optimizer, optimizer_state
from paddlealign.training.precision import Precision
from paddlealign.training.reference import table_reference
from paddlealign.training.reference_cache import compute_logps
from paddlealign.training.share import load_share
from paddlealign.training.step import accumulate_gradients, apply_gradients
from paddlealign.training.whole import whole_tensors
from tests.half_precision import install
from tests.small_runs import GOLDEN, dpo_objective, examples, micro_batches

O2 = Precision("bfloat16", "O2", None)
STEPS = 3
LOOKED_AT = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.norm.weight",
)


def train(name: str, topology: Topology, stage: int, sequence_parallel: bool) -> dict[str, np.ndarray]:
    """Some steps of DPO, each reader on every other micro-batch: losses, dtypes, and the last master weights of some parameters."""
    policy, sharding = load_share(GOLDEN / name, "bfloat16", 96, False, topology, stage, sequence_parallel)
    table = compute_logps(policy, examples(2), 0, O2, "", False, topology)
    objective = dpo_objective(table_reference(table), 0.5, 0.1)
    optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-5, 0.01)
    batches = (micro_batches(2) * 2)[:4][topology.data.rank :: topology.data.size]
    losses, seen = [], set()
    for _ in range(STEPS):
        losses.append(accumulate_gradients(policy, batches, objective, O2, False, topology, sharding=sharding).means()["loss"])
        seen |= {str(parameter.grad.dtype) for parameter in policy.parameters() if parameter.grad is not None}
        apply_gradients(policy, optimizer, O2, 1e-3, 1.0, topology, sharding)
    seen |= {f"weights {parameter.dtype}" for parameter in policy.parameters()}
    whole = whole_tensors(optimizer_state(optimizer, sharding.own(policy)), sharding.owners, "float32", policy, topology)
    masters = {it: whole(f"{it}.master") for it in LOOKED_AT}
    found = {name: tensor.numpy().copy() for name, tensor in masters.items() if tensor is not None}
    found |= {"losses": np.array(losses), "dtypes": np.array(sorted(seen))}
    return {f"{stage} {sequence_parallel} {it}": values for it, values in found.items()}


def run(kind: str, folder: Path) -> None:
    """All layouts of one kind, with the single process's figures beside them."""
    paddle.set_device("cpu")
    readers = kind == "readers"
    topology = start(1, 1, 2, 2) if readers else start(2, 1, 1)
    with pytest.MonkeyPatch.context() as patch:
        kernels = install(patch)
        found = {f"single {name}": it for name, it in train("llama2_gqa", SINGLE, 0, False).items()}
        for stage, sequence_parallel in ((1, False), (2, False), (3, False)) if readers else ((0, False), (0, True)):
            found |= train("llama2_gqa", topology, stage, sequence_parallel)
        found["mixed"] = np.array(kernels.mixed)
    np.savez(folder / f"rank{topology.rank}.npz", **found)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
