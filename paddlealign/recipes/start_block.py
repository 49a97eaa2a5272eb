"""What a training run says before its first step: at most 25 lines that tell at a glance what is trained on what, how, and where to."""

import math
from pathlib import Path

from paddlealign.arguments.losses import UNPAIRED_LOSSES
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.arguments.paths import PAGE_FILE, RUN_FILE
from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.show import given_arguments
from paddlealign.data.chunk_counts import Told
from paddlealign.models.parameters import LoraSettings, parameter_shapes
from paddlealign.parallel.topology import Topology
from paddlealign.recipes.adapter import describe_adapter
from paddlealign.recipes.estimate import GB, HeldAgainst, fullest_memory
from paddlealign.recipes.rows import Rows, describe_kept
from paddlealign.training.progress import TIMED_STEPS
from paddlealign.training.task import Task

# A label, and what stands behind it.
Entry = tuple[str, str]

_ARGUMENT_CHARACTERS = 500  # of a longer list the rest stands in run.json
_PADDING_STEPS = 64  # of a longer epoch so many are looked at


def start_entries(
    arguments: TrainArguments, task: Task, rows: Rows, lora: LoraSettings | None, held: HeldAgainst | None, done: int
) -> list[Entry]:
    """The block's entries; under ``--check``, which tells more of the steps, without these. All processes call it.

    lora: of the adapter that is trained. held: what the policy is held against. done: steps of an earlier start of this run.
    """
    settings = arguments.training
    entries = [("model", model_text(arguments, task))]
    if lora is not None:
        entries.append(("adapter", adapter_text(task, lora)))
    if held is not None:
        entries.append(("reference", held.told))
    entries += [(name, rows_text(told)) for name, told in rows.told.items()]
    entries.append(("layout", layout_text(task.topology, settings.sharding)))
    if settings.do_train and not settings.check:
        entries += [("a step", step_text(arguments, task)), ("steps", steps_text(task, done)), ("saves", saves_text(arguments))]
    if settings.do_eval:
        entries.append(("evaluates", evaluates_text(arguments)))
    if settings.do_train and not settings.check and done < task.feed.total_steps:
        entries += estimate_entries(arguments, task, held, done)
    if not settings.check:
        entries.append(("output", f"{settings.output_dir}; {PAGE_FILE} in it shows the run while it goes on"))
    entries.append(("arguments", arguments_text(arguments)))
    return entries


def model_text(arguments: TrainArguments, task: Task) -> str:
    """Which model, of which size, and how its numbers are held."""
    policy, precision = task.policy, task.precision
    count = sum(math.prod(shape) for shape in parameter_shapes(policy.config).values())
    held = precision.dtype if precision.dtype == "float32" else f"{precision.dtype} {precision.level}"
    folder, layers = arguments.model.model_name_or_path, policy.config.num_layers
    return f"{folder}: {policy.config.family}, {count:,} parameters in {layers} layers, trained in {held}"


def adapter_text(task: Task, lora: LoraSettings) -> str:
    """How much the adapter is of what this process holds."""
    policy = task.policy
    count, held = (sum(it.size for it in parameters) for parameters in (dict(policy.trained()).values(), policy.parameters()))
    here = " that this process holds" if task.topology.world > 1 else ""
    return f"{count:,} of {held:,} parameters{here} are trained: rank {lora.rank}, {describe_adapter(lora)}"


def rows_text(told: Told) -> str:
    """What became of a split's rows."""
    read, encoded = told.read, told.encoding
    left_out = read.records + sum(read.refused.values()) + len(read.skipped) - encoded.kept  # a row may hold several pairs or answers
    cut = encoded.prompts_truncated + encoded.responses_truncated
    return f"{describe_kept(read, encoded)}; left out {left_out:,}, cut {cut:,}"


def layout_text(topology: Topology, sharding: str) -> str:
    """Which processes share what."""
    if topology.world == 1:
        return "1 process"
    degrees = (topology.tensor.size, topology.pipeline.size, topology.data.size)
    shards = f", {sharding} over {topology.shards.size}" if sharding else ""
    return f"{topology.world} processes = {degrees[0]} tensor x {degrees[1]} pipeline x {degrees[2]} data parallel{shards}"


def step_text(arguments: TrainArguments, task: Task) -> str:
    """What an optimizer step takes."""
    settings, data = arguments.training, arguments.data
    objective = arguments.objective
    unpaired = arguments.command == "sft" or (isinstance(objective, ObjectiveArguments) and objective.loss_type in UNPAIRED_LOSSES)
    batch = f"{settings.per_device_train_batch_size:,} {'rows' if unpaired else 'pairs'}"
    if data.zero_padding:
        batch = f"{settings.per_device_train_batch_size:,} packed rows of {data.max_length:,} tokens"
    if settings.tokens_per_batch is not None:
        batch = f"{settings.tokens_per_batch:,} tokens"
    accumulated, copies = settings.gradient_accumulation_steps, task.topology.data.size
    micro = f"micro-batch of {batch} x {accumulated} accumulated x {copies} {'copy' if copies == 1 else 'copies'} of the model"
    if settings.plain_path:
        return f"{micro}: each response with its prompt in a row of its own"
    tokens, padding = task.feed.tokens_of_a_step(_PADDING_STEPS)
    return f"{micro}: about {tokens:,.0f} tokens, {padding:.1%} padding"


def steps_text(task: Task, done: int) -> str:
    """How many steps, and how often the rows are passed."""
    total, of_epoch = task.feed.total_steps, task.feed.epoch_steps
    begun = f", {done:,} of them done" if done else ""
    return f"{total:,}, {total / of_epoch:.3g} epochs of {of_epoch:,} steps{begun}"


def saves_text(arguments: TrainArguments) -> str:
    """When checkpoints are written."""
    settings = arguments.training
    every = f"a checkpoint every {settings.save_steps:,} steps"
    return {"no": "the final model alone", "epoch": "a checkpoint after each epoch", "steps": every}[settings.save_strategy]


def evaluates_text(arguments: TrainArguments) -> str:
    """When the dev rows are looked at."""
    settings = arguments.training
    every = settings.eval_steps or settings.logging_steps
    return {"no": "once, at the end", "epoch": "after each epoch", "steps": f"every {every:,} steps"}[settings.evaluation_strategy]


def estimate_entries(arguments: TrainArguments, task: Task, held: HeldAgainst | None, done: int) -> list[Entry]:
    """What a step will need. Of its time nothing is known before some steps were taken."""
    first = next(iter(task.feed.steps(first=done)))
    memory = fullest_memory(arguments, task, first.batches, held)
    entries = []
    if memory is not None:
        processes = task.topology.world
        where = f"in the fullest of {processes} processes" if processes > 1 else "in a step like the first"
        entries.append(("memory", f"about {memory[0].total / GB:.2f} GB {where}; what Paddle itself takes comes on top"))
    if task.feed.total_steps - done >= 2 * TIMED_STEPS:
        entries.append(("time", f"unknown before the first steps; estimated after {TIMED_STEPS} of them"))
    return entries


def arguments_text(arguments: TrainArguments) -> str:
    """What the user set, and where the rest can be read."""
    items, shown, room = given_arguments(arguments), [], _ARGUMENT_CHARACTERS
    for item in items:
        if len(item) + 2 <= room:
            shown.append(item)
            room -= len(item) + 2
    rest = len(items) - len(shown)
    some = ", ".join(shown)
    path = Path(arguments.training.output_dir) / RUN_FILE
    written = "" if arguments.training.check else f"{path}, or "
    return f"{some}{f', and {rest} more' if some and rest else ''} (all: {written}--log_level debug)"
