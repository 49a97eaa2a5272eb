"""``--check``: everything up to the first step, told instead of done."""

import math

import paddle

from paddlealign.arguments.objective_checks import loss_mixture
from paddlealign.arguments.results import DpoArguments, TrainArguments
from paddlealign.data.describe import describe, legend, telling
from paddlealign.messages.language import translated
from paddlealign.planning.memory import Memory
from paddlealign.recipes.device import in_colour, show
from paddlealign.recipes.estimate import GB, HeldAgainst, fullest_memory
from paddlealign.recipes.rows import Rows
from paddlealign.recipes.run import Start
from paddlealign.recipes.run_words import tell_start
from paddlealign.recipes.start_block import start_entries
from paddlealign.training.step import evaluate
from paddlealign.training.task import Task

CHECKED_STEPS = 10_000  # of a longer epoch so many are looked at


def check_run(arguments: TrainArguments, start: Start, task: Task, rows: Rows, held: HeldAgainst | None = None) -> None:
    """Print what a run would do: an example as the model sees it, steps, tokens a step, memory, and the first micro-batch's loss.

    All processes call it. Rows, tokens and padding are this one's, memory that of the fullest, the loss that of all. held: what
    the policy is held against.
    """
    tell_start(arguments, start_entries(arguments, task, rows, start.lora, held, done=0))
    rewards = task.policy.config.head == "score"
    title = "one example; each response is scored at its last token" if rewards else "one example"
    labelled = isinstance(arguments, DpoArguments) and arguments.objective.loss_type == "kto"
    pair = ("the row's answer", "another prompt's answer") if labelled else ("chosen", "rejected")
    colour = in_colour()
    what = legend(colour, "of the response" if rewards else "scored")
    print(f"\n{translated(f'{title} ({what})')}:\n{describe(telling(rows.train or rows.dev), rows.tokenizer, colour, pair)}\n")
    if not arguments.training.do_train:
        show("check passed; this run would only evaluate")
        return
    step = next(iter(task.feed.steps(first=0)))
    examples = sum(len(batch.example_ids) for batch in step.batches)
    tokens = sum(batch.token_count for batch in step.batches)
    cells = sum(batch.input_ids.size for batch in step.batches)
    each = f" in each of {task.topology.data.size} copies of the model" if task.topology.data.size > 1 else ""
    show(
        f"steps: {task.feed.total_steps:,}; the first takes {examples} rows, {tokens:,} tokens, in micro-batches: {len(step.batches)}{each}"
    )
    show(f"padding: {1 - tokens / cells:.1%} of the first step's {cells:,} positions; {task.feed.describe_epoch(CHECKED_STEPS)}")
    show(describe_memory(fullest_memory(arguments, task, step.batches, held), task.topology.everyone.size))
    sums = evaluate(task.policy, step.batches[:1], task.objective, task.precision, task.topology, task.chain)
    means = sums.means()
    if "kl" not in means and "rewards/margins" in means:
        plain = (
            isinstance(arguments, DpoArguments)
            and not arguments.objective.reference_free
            and loss_mixture(arguments.objective) == {"sigmoid": 1.0}
        )
        known = f" (ln 2 is {math.log(2):.6f})" if plain else ""
        show(
            f"first micro-batch: loss {means['loss']:.6f}{known}, margin {means['rewards/margins']:+.6f}, "
            f"chosen {means['logps/chosen']:.2f} and rejected {means['logps/rejected']:.2f} nats a response"
        )
    elif "margin" in means:
        show(
            f"first micro-batch: loss {means['loss']:.6f} (ln 2 is {math.log(2):.6f}), margin {means['margin']:+.6f}, mean reward "
            f"{means['mean_reward']:+.6f}, {means['accuracy']:.1%} of the pairs ranked right"
        )
    elif "kl" in means:
        show(f"first micro-batch: loss {means['loss']:.6f} a row, KL estimate {means['kl']:.4f} nats")
    else:
        show(f"first micro-batch: loss {means['loss']:.4f} nats a token, {means['accuracy']:.1%} of the tokens are the first choice")
    show("check passed")


def describe_memory(found: tuple[Memory, int] | None, processes: int) -> str:
    """The estimated memory of a step with what it is made of. found: see ``fullest_memory``."""
    if found is None:
        return "memory: not estimated under plain_path, which keeps every intermediate result of every layer"
    memory, parameters = found
    told = " + ".join(f"{name} {value / GB:.2f}" for name, value in memory.parts().items() if value)
    on_cpu = paddle.get_device() == "cpu"
    beside = "Paddle itself, and on a CPU freed memory that is kept, come on top" if on_cpu else "Paddle itself comes on top"
    fullest = f" in the fullest of {processes} processes" if processes > 1 else ""
    made_of = f"{told}, {memory.moment} ({parameters / 1e6:.1f} M parameters)"
    return f"memory, estimated: {memory.total / GB:.2f} GB{fullest} = {made_of}; {beside}"
