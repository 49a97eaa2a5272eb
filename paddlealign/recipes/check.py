"""``--check``: everything up to the first step, told instead of done."""

import math
import sys
from collections.abc import Sequence

import paddle

from paddlealign.arguments.parsing import DpoArguments, SftArguments
from paddlealign.data.describe import describe
from paddlealign.data.example import Batch, Example
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.models.config import DecoderConfig
from paddlealign.planning.layout import Job, Layout, Row, hold
from paddlealign.planning.memory import stage_memory
from paddlealign.training.loop import Task
from paddlealign.training.step import evaluate

_GB = 1e9


def check_run(
    arguments: SftArguments | DpoArguments, task: Task, examples: Sequence[Example], tokenizer: Tokenizer, reference: DecoderConfig | None
) -> None:
    """Print what a run would do: an example as the model sees it, steps, tokens a step, memory, and the first micro-batch's loss.

    reference: of the reference model that would stay in memory, or None.
    """
    print("\none example, scored tokens marked:\n" + describe(examples[0], tokenizer, colour=sys.stdout.isatty()) + "\n")
    if not arguments.training.do_train:
        print("check passed; this run would only evaluate")
        return
    step = next(iter(task.feed.steps(first=0)))
    rows = sum(len(batch.example_ids) for batch in step.batches)
    tokens = sum(batch.token_count for batch in step.batches)
    cells = sum(batch.input_ids.size for batch in step.batches)
    print(f"steps: {task.feed.total_steps:,}; the first takes {rows} rows, {tokens:,} tokens, in micro-batches: {len(step.batches)}")
    print(f"padding: {1 - tokens / cells:.1%} of the first step's {cells:,} positions")
    print(memory_line(arguments, task, step.batches, reference))
    sums = evaluate(task.policy, step.batches[:1], task.objective, task.precision)
    means = sums.means()
    if "rewards/margins" in means:
        print(
            f"first micro-batch: loss {means['loss']:.6f} (ln 2 is {math.log(2):.6f}), margin {means['rewards/margins']:+.6f}, "
            f"chosen {means['logps/chosen']:.2f} and rejected {means['logps/rejected']:.2f} nats a response"
        )
    else:
        print(f"first micro-batch: loss {means['loss']:.4f} nats a token, {means['accuracy']:.1%} of the tokens are the first choice")
    print("check passed")


def memory_line(arguments: SftArguments | DpoArguments, task: Task, batches: Sequence[Batch], reference: DecoderConfig | None) -> str:
    """One line with the estimated peak of a step's micro-batches in this one process, and what it is made of. See ``planning.memory``."""
    recompute, precision = arguments.training.recompute, task.precision
    largest = max(batches, key=lambda batch: batch.input_ids.size)
    row = Row(1.0, 1.0, 1)  # rows are counted here by the batch itself
    on_cpu = paddle.get_device() == "cpu"
    job = Job(task.policy.config, reference, precision.dtype, precision.level, row, row, on_cpu)
    layout = Layout(1, 1, 1, 0, 1, False, recompute, len(largest.example_ids), len(batches))
    holding, kept = hold(job.config, layout, 0), hold(reference, layout, 0) if reference else None
    memory = stage_memory(job, layout, 0, holding, kept, largest.input_ids.size, len(largest.target_ids))
    parts = {name: value for name, value in memory.parts().items() if value}
    told = " + ".join(f"{name} {value / _GB:.2f}" for name, value in parts.items())
    beside = "Paddle itself, and on a CPU freed memory that is kept, come on top" if on_cpu else "Paddle itself comes on top"
    return f"memory, estimated: {memory.total / _GB:.2f} GB = {told}, {memory.moment} ({holding.total / 1e6:.1f} M parameters); {beside}"
