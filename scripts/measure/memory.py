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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts.measure.loading import make, reset_peak, resident
from tests.distributed.launching import run_ranks

if TYPE_CHECKING:
    from paddlealign.data.example import Batch
    from paddlealign.models.decoder import Decoder
    from paddlealign.parallel.topology import Topology

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

    @property
    def prompt(self) -> int:
        """Tokens of a row's prompt."""
        return self.tokens // 4


class Found(NamedTuple):
    """What was measured and planned of a process, in bytes.

    measured: the highest resident memory above before, which is what was resident ahead of the model. tensors: the most that Paddle's
    tensors took. planned: see ``memory.Memory``, moment: its. held: weights, gradients and the optimizer's moments, in float32.
    """

    measured: int
    tensors: int
    planned: float
    moment: str
    before: int
    held: int


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


class Trainer(NamedTuple):
    """A case made ready. topology: see ``parallel.topology``. batches: of a step, in this process. load: reads the model, and returns what
    takes a step; it returns the policy, too.
    """

    topology: "Topology"
    batches: "list[Batch]"
    load: "Callable[[], tuple[Decoder, Callable[[], object]]]"


def make_trainer(case: Case, checkpoint: Path) -> Trainer:
    """Set this process up for a case, and connect it with the others. It must not have imported Paddle yet."""
    from paddlealign.machine import prepare

    prepare()
    import numpy as np
    import paddle

    from paddlealign.data.example import Example, Response
    from paddlealign.data.packing import make_batch
    from paddlealign.objectives.pairs import Coefficients
    from paddlealign.parallel.pipeline import connect
    from paddlealign.parallel.topology import start
    from paddlealign.training.objective import preference_objective, sft_objective
    from paddlealign.training.optimizer import make_optimizer
    from paddlealign.training.precision import Precision
    from paddlealign.training.reference import model_reference, table_reference
    from paddlealign.training.share import load_share
    from paddlealign.training.step import accumulate_gradients, apply_gradients

    paddle.set_device("cpu")
    topology = start(case.tensor, case.pipeline, case.data, case.data if case.sharding else 1)
    chain = connect(topology.pipeline)
    precision = Precision("float32", "O1", None)
    paddle.ones([8, 8]).matmul(paddle.ones([8, 8])).sum().numpy()  # what Paddle makes once, whatever the model
    rng = np.random.default_rng(0)
    prompt = case.prompt
    response = (case.tokens - prompt) // case.responses

    def example() -> Example:
        ids = [rng.integers(3, case.vocabulary, size).astype("int32") for size in (prompt, *[response] * case.responses)]
        return Example(ids[0], tuple(Response(it, np.ones(len(it), bool)) for it in ids[1:]))

    count = case.rows * case.micro_batches
    examples = [example() for _ in range(count)]
    batches = [make_batch(examples, [[row] for row in range(at, at + case.rows)], 0) for at in range(0, count, case.rows)]

    def load() -> "tuple[Decoder, Callable[[], object]]":
        objective = sft_objective()
        if case.responses == 2:
            logps = table_reference(np.full((count, 2), -3000.0, "float32"))
            if case.frozen:
                reference, _ = load_share(checkpoint, "float32", case.vocabulary, False, topology, 0, case.sequence_parallel)
                logps = model_reference(reference, precision, chain)
            objective = preference_objective(logps, {"sigmoid": 1.0}, Coefficients())
        policy, sharding = load_share(checkpoint, "float32", case.vocabulary, False, topology, case.sharding, case.sequence_parallel)
        optimizer = make_optimizer(sharding.own(policy), 0.9, 0.99, 1e-8, 0.01)

        def step() -> None:
            accumulate_gradients(policy, batches, objective, precision, case.recompute, topology, chain, sharding)
            apply_gradients(policy, optimizer, precision, 1e-5, 1.0, topology, sharding)

        return policy, step

    return Trainer(topology, batches, load)


def measure(case: Case, checkpoint: Path, folder: Path) -> None:
    """Train in this process and write what was measured and planned into the folder."""
    topology, batches, load = make_trainer(case, checkpoint)
    before = reset_peak()
    policy, step = load()
    for _ in range(STEPS):
        step()
    measured = resident("VmHWM") - before

    import paddle

    from paddlealign.models.config import read_config
    from paddlealign.planning.layout import Job, Layout, Row, hold
    from paddlealign.planning.memory import stage_memory

    tensors = paddle.base.core.host_memory_stat_peak_value("Allocated", 0)
    config, row = read_config(checkpoint), Row(case.tokens, 1 - case.prompt / case.tokens, case.responses)
    job = Job(config, config if case.frozen else None, "float32", "O1", row, row, on_cpu=True)
    layout = Layout(
        case.tensor, case.pipeline, case.data, case.sharding, case.data if case.sharding else 1, case.sequence_parallel, case.recompute,
        case.rows, case.micro_batches,
    )  # fmt: skip
    holding = hold(config, layout, topology.pipeline.rank)
    kept = holding if case.frozen else None
    planned = stage_memory(job, layout, topology.pipeline.rank, holding, kept, batches[0].input_ids.size, len(batches[0].target_ids))
    held = 16 * sum(parameter.size for parameter in policy.parameters())
    found = Found(measured, tensors, planned.total, planned.moment, before, held)
    (folder / f"{topology.rank}.json").write_text(json.dumps(found))


def make_model(case: Case, folder: Path) -> None:
    """Write a checkpoint of the case's model."""
    heads, inner = case.hidden // 64, case.hidden * 11 // 32 * 8
    shape = {"hidden_size": case.hidden, "num_attention_heads": heads, "num_key_value_heads": heads, "intermediate_size": inner}
    make(folder, {**shape, "vocab_size": case.vocabulary}, case.layers, "float32", 1 << 40)


def case_of(words: Sequence[str]) -> Case:
    """A case as it was given on a command line, field by field."""
    return Case(*({"True": True, "False": False}[word] if word in ("True", "False") else int(word) for word in words))


def run(case: Case) -> Found:
    """Train in fresh processes; gives what was found in the one that fits the plan worst."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(case, folder / "model")
        words = [str(folder / "model"), name, *map(str, case)]
        several = case.tensor * case.pipeline * case.data
        if several > 1:
            run_ranks(Path(__file__), several, *words, timeout=600)
        else:
            command = [sys.executable, str(Path(__file__).resolve()), *words]
            subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        found = [Found(*json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return max(found, key=lambda it: abs(it.measured / it.planned - 1))


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
        found = run(case)
        figures = [f"{size / 1e9:.2f}" for size in (found.planned, found.tensors, found.measured)]
        ratio = found.measured / found.planned
        print("|", " | ".join([*describe(case), *figures, f"{ratio:.2f}", found.moment]), "|", flush=True)
        worst = max(worst, abs(ratio - 1))
    return 1 if worst > LIMIT else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(case_of(sys.argv[3:]), Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        sys.exit(main())
