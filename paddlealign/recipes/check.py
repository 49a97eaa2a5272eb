"""``--check``: everything up to the first step, told instead of done."""

import math
from collections.abc import Sequence
from dataclasses import replace

import paddle

from paddlealign.arguments.objective_checks import loss_mixture
from paddlealign.arguments.results import DpoArguments, TrainArguments
from paddlealign.data.describe import describe, legend, telling
from paddlealign.data.example import Batch, Example
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.parallel.collect import gather_values
from paddlealign.planning.layout import NUMBER_BYTES, Job, Layout, Row, hold
from paddlealign.planning.memory import stage_memory
from paddlealign.recipes.device import in_colour
from paddlealign.recipes.references import ReferenceModel
from paddlealign.training.step import evaluate
from paddlealign.training.task import Task

_GB = 1e9
CHECKED_STEPS = 10_000  # of a longer epoch so many are looked at


def check_run(
    arguments: TrainArguments, task: Task, examples: Sequence[Example], tokenizer: Tokenizer, reference: ReferenceModel | None
) -> None:
    """Print what a run would do: an example as the model sees it, steps, tokens a step, memory, and the first micro-batch's loss.

    All processes call it. Rows, tokens and padding are this one's, memory that of the fullest, the loss that of all. reference: the one
    that would stay in memory, or None.
    """
    rewards = task.policy.config.head == "score"
    title = "one example; each response is scored at its last token" if rewards else "one example"
    labelled = isinstance(arguments, DpoArguments) and arguments.objective.loss_type == "kto"
    pair = ("the row's answer", "another prompt's answer") if labelled else ("chosen", "rejected")
    colour = in_colour()
    what = legend(colour, "of the response" if rewards else "scored")
    print(f"\n{title} ({what}):\n{describe(telling(examples), tokenizer, colour, pair)}\n")
    if not arguments.training.do_train:
        print("check passed; this run would only evaluate")
        return
    step = next(iter(task.feed.steps(first=0)))
    rows = sum(len(batch.example_ids) for batch in step.batches)
    tokens = sum(batch.token_count for batch in step.batches)
    cells = sum(batch.input_ids.size for batch in step.batches)
    each = f" in each of {task.topology.data.size} copies of the model" if task.topology.data.size > 1 else ""
    print(f"steps: {task.feed.total_steps:,}; the first takes {rows} rows, {tokens:,} tokens, in micro-batches: {len(step.batches)}{each}")
    print(f"padding: {1 - tokens / cells:.1%} of the first step's {cells:,} positions; {task.feed.describe_epoch(CHECKED_STEPS)}")
    print(max(gather_values(task.topology.everyone, memory_line(arguments, task, step.batches, reference)))[1])
    sums = evaluate(task.policy, step.batches[:1], task.objective, task.precision, task.topology, task.chain)
    means = sums.means()
    if "kl" not in means and "rewards/margins" in means:
        plain = (
            isinstance(arguments, DpoArguments)
            and not arguments.objective.reference_free
            and loss_mixture(arguments.objective) == {"sigmoid": 1.0}
        )
        known = f" (ln 2 is {math.log(2):.6f})" if plain else ""
        print(
            f"first micro-batch: loss {means['loss']:.6f}{known}, margin {means['rewards/margins']:+.6f}, "
            f"chosen {means['logps/chosen']:.2f} and rejected {means['logps/rejected']:.2f} nats a response"
        )
    elif "margin" in means:
        print(
            f"first micro-batch: loss {means['loss']:.6f} (ln 2 is {math.log(2):.6f}), margin {means['margin']:+.6f}, mean reward "
            f"{means['mean_reward']:+.6f}, {means['accuracy']:.1%} of the pairs ranked right"
        )
    elif "kl" in means:
        print(f"first micro-batch: loss {means['loss']:.6f} a row, KL estimate {means['kl']:.4f} nats")
    else:
        print(f"first micro-batch: loss {means['loss']:.4f} nats a token, {means['accuracy']:.1%} of the tokens are the first choice")
    print("check passed")


def memory_line(arguments: TrainArguments, task: Task, batches: Sequence[Batch], reference: ReferenceModel | None) -> tuple[float, str]:
    """The estimated peak of a step in this process, in bytes, and a line with what it is made of. See ``planning.memory``."""
    if arguments.training.plain_path:
        return 0.0, "memory: not estimated under plain_path, which keeps every intermediate result of every layer"
    recompute, precision = arguments.training.recompute, task.precision
    largest = max(batches, key=lambda batch: batch.input_ids.size)
    targets = len(largest.last_at if task.policy.config.head == "score" else largest.target_ids)
    row = Row(1.0, 1.0, 1)  # rows are counted here by the batch itself
    on_cpu = paddle.get_device() == "cpu"
    config, of_reference = (None, None) if reference is None else (reference.config, NUMBER_BYTES[reference.precision.weights_dtype])
    job = Job(task.policy.config, config, precision.dtype, precision.level, row, row, on_cpu, of_reference)
    axes, stage, cut = task.topology, task.topology.pipeline.rank, task.policy.make.positions > 1
    degrees = (axes.tensor.size, axes.pipeline.size, axes.data.size, task.sharding.stage, axes.shards.size)
    layout = Layout(*degrees, cut, recompute, len(largest.example_ids), len(batches))
    holding, kept = hold(job.config, layout, stage), hold(config, layout, stage) if config else None
    memory = stage_memory(job, layout, stage, holding, kept, largest.input_ids.size, targets)
    if task.policy.adapter is not None:  # only the adapter has gradients and an optimizer
        count = sum(parameter.size for _, parameter in task.policy.trained())
        half = task.policy.trained()[0][1].dtype != paddle.float32
        held = memory.weights * (1 + count / holding.total)
        memory = replace(memory, weights=held, optimizer=(12.0 if half else 8.0) * count, gradients=4.0 * count)
    parts = {name: value for name, value in memory.parts().items() if value}
    told = " + ".join(f"{name} {value / _GB:.2f}" for name, value in parts.items())
    beside = "Paddle itself, and on a CPU freed memory that is kept, come on top" if on_cpu else "Paddle itself comes on top"
    fullest = f" in the fullest of {axes.world} processes" if axes.world > 1 else ""
    made_of = f"{told}, {memory.moment} ({holding.total / 1e6:.1f} M parameters)"
    return memory.total, f"memory, estimated: {memory.total / _GB:.2f} GB{fullest} = {made_of}; {beside}"
