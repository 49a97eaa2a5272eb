"""What each rank runs for test_scaling.py: float16's loss scaling around float32 arithmetic, and an overflow in one rank alone.

Arguments: tensor, pipeline and data degree, shards, and stages of sharding. Prints one line, which is JSON.
"""

import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from paddlealign.machine import prepare

prepare()

import numpy as np
import paddle

from paddlealign.parallel.pipeline import Chain, connect
from paddlealign.parallel.topology import Topology, start
from paddlealign.training.objective import sft_objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.precision import Precision, choose_precision
from paddlealign.training.share import load_share
from paddlealign.training.step import accumulate_gradients, apply_gradients
from tests.small_runs import FLOAT32, MODEL, micro_batches


def believe_in_a_gpu() -> None:
    """As the fixture of tests/unit/test_loss_scaling.py: GradScaler is on, and nothing is cast."""
    paddle.amp.grad_scaler.amp_global_state().amp_dtype = "float32"
    place = SimpleNamespace(is_gpu_place=lambda: True)
    paddle.amp.grad_scaler._dygraph_tracer = lambda: SimpleNamespace(_expected_place=place)
    Precision.autocast = lambda self: nullcontext()


def run(topology: Topology, chain: Chain, stage: int) -> dict[str, Any]:
    """Two steps beside float32's, a step that overflows in one rank, and one after it."""
    scaled = choose_precision(bf16=False, fp16=True, level="O1", device="gpu")[0]
    shares = [load_share(MODEL, "float32", 96, False, topology, stage) for _ in range(2)]
    optimizers = [make_optimizer(sharding.own(model), 0.9, 0.99, 1e-8, 0.01) for model, sharding in shares]
    batches = (micro_batches() * 2)[:4][topology.data.rank :: topology.data.size]

    def step(index: int, precision: Precision, spoil: bool = False) -> list[float]:
        model, sharding = shares[index]
        sums = accumulate_gradients(model, batches, sft_objective(), precision, False, topology, chain, sharding)
        if spoil:
            # The others do not hold it; in stage 1, where both hold every sum, rank 0 does not update it.
            parameter = next(it for name, it in model.named_parameters() if stage == 0 or sharding.owners[name] == 1)
            if topology.rank == 1 or stage == 1:
                parameter.grad.set_value(np.full(parameter.grad.shape, np.inf, "float32"))
        return [sums.means()["loss"], apply_gradients(model, optimizers[index], precision, 1e-2, 1.0, topology, sharding)]

    found: dict[str, Any] = {"scaled": [step(0, scaled) for _ in range(2)], "plain": [step(1, FLOAT32) for _ in range(2)]}
    own = [parameter for _, parameter in shares[0][1].own(shares[0][0])]
    before = [parameter.numpy().copy() for parameter in own]
    found["norm"] = str(step(0, scaled, spoil=True)[1])
    found["left alone"] = all(np.array_equal(old, it.numpy()) for old, it in zip(before, own, strict=True))
    found["scale"] = scaled.scaler_state()["scale"]
    step(0, scaled)
    found["went on"] = not any(np.array_equal(old, it.numpy()) for old, it in zip(before, own, strict=True))
    found["after"] = scaled.scaler_state()
    return found


if __name__ == "__main__":
    tensor, pipeline, data, shards, *stages = map(int, sys.argv[1:])
    paddle.set_device("cpu")
    topology = start(tensor, pipeline, data, shards)
    chain = connect(topology.pipeline)
    believe_in_a_gpu()
    print(json.dumps([run(topology, chain, stage) for stage in stages]))
