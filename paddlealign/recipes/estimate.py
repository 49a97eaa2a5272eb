"""The memory of a training step, estimated from its first batches before any is computed. See ``planning.memory``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import paddle

from paddlealign.arguments.results import TrainArguments
from paddlealign.data.example import Batch
from paddlealign.models.config import DecoderConfig
from paddlealign.parallel.collect import gather_values
from paddlealign.planning.layout import NUMBER_BYTES, Job, Layout, Row, hold
from paddlealign.planning.memory import Memory, stage_memory
from paddlealign.training.precision import Precision
from paddlealign.training.task import Task

GB = 1e9


@dataclass(frozen=True)
class HeldAgainst:
    """What a policy is held against. told: in words. config, precision: of the model that stays in memory for it; None where none does."""

    told: str
    config: DecoderConfig | None = None
    precision: Precision | None = None


def fullest_memory(arguments: TrainArguments, task: Task, batches: Sequence[Batch], held: HeldAgainst | None) -> tuple[Memory, int] | None:
    """The estimated peak of a step in the process that holds most, and that one's parameters; all processes call it.

    None under plain_path, which keeps every intermediate result of every layer.
    """
    if arguments.training.plain_path:
        return None
    found = gather_values(task.topology.everyone, own_memory(arguments, task, batches, held))
    return max(found, key=lambda it: it[0].total)


def own_memory(arguments: TrainArguments, task: Task, batches: Sequence[Batch], held: HeldAgainst | None) -> tuple[Memory, int]:
    """The estimated peak of a step in this process, and the parameters that it holds."""
    recompute, precision = arguments.training.recompute, task.precision
    largest = max(batches, key=lambda batch: batch.input_ids.size)
    targets = len(largest.last_at if task.policy.config.head == "score" else largest.target_ids)
    row = Row(1.0, 1.0, 1)  # rows are counted here by the batch itself
    on_cpu = paddle.get_device() == "cpu"
    config = held.config if held else None
    of_reference = NUMBER_BYTES[held.precision.weights_dtype] if held and held.precision else None
    job = Job(task.policy.config, config, precision.dtype, precision.level, row, row, on_cpu, of_reference)
    axes, stage, cut = task.topology, task.topology.pipeline.rank, task.policy.make.positions > 1
    degrees = (axes.tensor.size, axes.pipeline.size, axes.data.size, task.sharding.stage, axes.shards.size)
    layout = Layout(*degrees, cut, recompute, len(largest.example_ids), len(batches))
    holding, kept = hold(job.config, layout, stage), hold(config, layout, stage) if config else None
    memory = stage_memory(job, layout, stage, holding, kept, largest.input_ids.size, targets)
    if task.policy.adapter is not None:  # only the adapter has gradients and an optimizer
        count = sum(parameter.size for _, parameter in task.policy.trained())
        half = task.policy.trained()[0][1].dtype != paddle.float32
        weights = memory.weights * (1 + count / holding.total)
        memory = replace(memory, weights=weights, optimizer=(12.0 if half else 8.0) * count, gradients=4.0 * count)
    return memory, holding.total
