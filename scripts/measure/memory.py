"""Hold the planned memory to measured peaks: python -m scripts.measure.memory

Trains small LLaMAs of random weights for two steps on the CPU, each in fresh processes, and prints beside what paddlealign.planning
counts for the step: the most that Paddle's tensors took, and the highest resident memory above what it was before the model was read, when
Paddle was imported and the processes had met. Included are weights, optimizer, gradients, activations, head, a frozen reference, what
collectives copy and what malloc cannot use. Of several processes the one that fits worst is shown. Fails where resident is further than
LIMIT from planned.

malloc is glibc's own here: a run tells it to keep freed memory (paddlealign.machine), which is faster and leaves more of it in pieces.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from scripts.measure.loading import make, reset_peak, resident
from tests.distributed.launching import run_ranks

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.15
STEPS = 2  # the optimizer's moments are there from the first one's end
# A user's own malloc settings stay as they are; this is glibc's default, named.
GLIBC = {"MALLOC_TRIM_THRESHOLD_": "131072"}


class Case(NamedTuple):
    """A model, its rows, how it is trained and by how many processes. responses: 1 is SFT, 2 is DPO. sharding: ZeRO's stage."""

    hidden: int
    layers: int
    vocabulary: int
    tokens: int
    rows: int
    micro_batches: int
    responses: int = 1
    frozen: bool = False
    recompute: bool = False
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sharding: int = 0
    sequence_parallel: bool = False


CASES = (
    Case(256, 12, 8192, 512, 8, 1),
    Case(512, 8, 16384, 512, 4, 2),
    Case(512, 8, 32000, 1024, 2, 1),
    Case(512, 16, 32000, 1024, 2, 2, recompute=True),
    Case(768, 12, 32000, 256, 4, 2),
    Case(768, 8, 16384, 512, 2, 1, responses=2),
    Case(512, 8, 32000, 1024, 1, 2, responses=2, frozen=True),
    Case(768, 8, 16384, 512, 4, 2, responses=2, frozen=True, recompute=True),
    Case(768, 8, 32000, 512, 4, 2, tensor=2),
    Case(768, 8, 32000, 512, 4, 2, tensor=2, sequence_parallel=True),
    Case(768, 8, 32000, 512, 2, 3, pipeline=2),
    Case(512, 8, 16384, 512, 4, 3, responses=2, frozen=True, recompute=True, pipeline=2),
    Case(768, 8, 16384, 512, 2, 2, data=2, sharding=1),
    Case(768, 8, 16384, 512, 2, 2, data=2, sharding=2),
    Case(768, 8, 16384, 512, 2, 2, data=2, sharding=3, recompute=True),
)


def measure(case: Case, checkpoint: Path, folder: Path) -> None:
    """Train in this process and write what was measured and planned into the folder."""
    from paddlealign.machine import prepare

    prepare()
    import numpy as np
    import paddle

    from paddlealign.data.example import Example, Response
    from paddlealign.data.packing import make_batch
    from paddlealign.models.config import read_config
    from paddlealign.objectives.pairs import Coefficients
    from paddlealign.parallel.pipeline import connect
    from paddlealign.parallel.topology import start
    from paddlealign.planning.layout import Job, Layout, Row, hold
    from paddlealign.planning.memory import stage_memory
    from paddlealign.training.objective import preference_objective, sft_objective
    from paddlealign.training.optimizer import make_optimizer
    from paddlealign.training.precision import Precision
    from paddlealign.training.reference import model_reference, table_reference
    from paddlealign.training.share import load_share
    from paddlealign.training.step import accumulate_gradients, apply_gradients

    paddle.set_device("cpu")
    shards = case.data if case.sharding else 1
    topology = start(case.tensor, case.pipeline, case.data, shards)
    chain = connect(topology.pipeline)
    precision = Precision("float32", "O1", None)
    paddle.ones([8, 8]).matmul(paddle.ones([8, 8])).sum().numpy()  # what Paddle makes once, whatever the model
    before = reset_peak()

    rng = np.random.default_rng(0)
    prompt = case.tokens // 4
    response = (case.tokens - prompt) // case.responses

    def example() -> Example:
        ids = [rng.integers(3, case.vocabulary, size).astype("int32") for size in (prompt, *[response] * case.responses)]
        return Example(ids[0], tuple(Response(it, np.ones(len(it), bool)) for it in ids[1:]))

    count = case.rows * case.micro_batches
    examples = [example() for _ in range(count)]
    batches = [make_batch(examples, [[row] for row in range(at, at + case.rows)], 0) for at in range(0, count, case.rows)]
    objective = sft_objective()
    if case.responses == 2:
        logps = table_reference(np.full((count, 2), -3000.0, "float32"))
        if case.frozen:
            reference, _ = load_share(checkpoint, "float32", case.vocabulary, False, topology, 0, case.sequence_parallel)
            logps = model_reference(reference, precision, chain)
        objective = preference_objective(logps, {"sigmoid": 1.0}, Coefficients())
    policy, sharding = load_share(checkpoint, "float32", case.vocabulary, False, topology, case.sharding, case.sequence_parallel)
    optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-8, 0.01)
    for _ in range(STEPS):
        accumulate_gradients(policy, batches, objective, precision, case.recompute, topology, chain, sharding)
        apply_gradients(policy, optimizer, precision, 1e-5, 1.0, topology, sharding)
    measured = resident("VmHWM") - before
    tensors = paddle.base.core.host_memory_stat_peak_value("Allocated", 0)

    config, row = read_config(checkpoint), Row(case.tokens, 1 - prompt / case.tokens, case.responses)
    job = Job(config, config if case.frozen else None, "float32", "O1", row, row, on_cpu=True)
    layout = Layout(
        case.tensor, case.pipeline, case.data, case.sharding, shards, case.sequence_parallel, case.recompute, case.rows, case.micro_batches
    )
    holding = hold(config, layout, topology.pipeline.rank)
    kept = holding if case.frozen else None
    planned = stage_memory(job, layout, topology.pipeline.rank, holding, kept, batches[0].input_ids.size, len(batches[0].target_ids))
    (folder / f"{topology.rank}.json").write_text(json.dumps([measured, tensors, planned.total, planned.moment]))


def run(case: Case) -> tuple[float, float, float, str]:
    """Train in fresh processes; gives bytes resident, of tensors, and planned, and the planned moment, of the process that fits worst."""
    heads, inner = case.hidden // 64, case.hidden * 11 // 32 * 8
    shape = {"hidden_size": case.hidden, "num_attention_heads": heads, "num_key_value_heads": heads, "intermediate_size": inner}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "model", {**shape, "vocab_size": case.vocabulary}, case.layers, "float32", 1 << 40)
        words = [str(folder / "model"), name, *map(str, case)]
        several = case.tensor * case.pipeline * case.data
        if several > 1:
            run_ranks(Path(__file__), several, *words, timeout=600)
        else:
            command = [sys.executable, str(Path(__file__).resolve()), *words]
            subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    measured, tensors, planned, moment = max(found, key=lambda it: abs(it[0] / it[2] - 1))
    return measured, tensors, planned, moment


def describe(case: Case) -> list[str]:
    """The first cells of a case's row in the table."""
    method = ["SFT" if case.responses == 1 else f"DPO, {'frozen' if case.frozen else 'cached'}"]
    method += ["recompute"] if case.recompute else []
    degrees = {"TP": case.tensor, "PP": case.pipeline, "DP": case.data}
    processes = [f"{name}{degree}" for name, degree in degrees.items() if degree > 1] or ["one process"]
    processes += [f"stage{case.sharding}"] if case.sharding else []
    processes += ["sequence_parallel"] if case.sequence_parallel else []
    rows = f"{case.micro_batches} of {case.rows} x {case.tokens}"
    return [f"{case.hidden} x {case.layers}", f"{case.vocabulary:,}", rows, ", ".join(method), ", ".join(processes)]


def main() -> int:
    """Measure every case and print a table; 1 where one is out of bounds."""
    os.environ.update(GLIBC)
    worst = 0.0
    heads = ["hidden x layers", "vocabulary", "micro-batches", "method", "processes", "planned, GB", "tensors, GB", "resident, GB"]
    print("|", " | ".join([*heads, "resident / planned", "planned highest"]), "|")
    print("|---|---|---|---|---|---:|---:|---:|---:|---|")
    for case in CASES:
        measured, tensors, planned, moment = run(case)
        figures = [f"{size / 1e9:.2f}" for size in (planned, tensors, measured)]
        print("|", " | ".join([*describe(case), *figures, f"{measured / planned:.2f}", moment]), "|", flush=True)
        worst = max(worst, abs(measured / planned - 1))
    return 1 if worst > LIMIT else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        words = [{"True": True, "False": False}.get(word, word) for word in sys.argv[3:]]
        measure(Case(*(word if isinstance(word, bool) else int(word) for word in words)), Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        sys.exit(main())
