"""``--check``: everything up to the first step, told instead of done."""

import math
import sys
from collections.abc import Sequence

from paddlealign.arguments.parsing import DpoArguments, SftArguments
from paddlealign.data.describe import describe
from paddlealign.data.example import Batch, Example
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.models.config import DecoderConfig
from paddlealign.models.head import CHUNK_ELEMENTS
from paddlealign.models.makers import TensorLayers
from paddlealign.parallel.collect import gather_values
from paddlealign.training.loop import Task
from paddlealign.training.step import evaluate

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GB = 1e9


def check_run(
    arguments: SftArguments | DpoArguments, task: Task, examples: Sequence[Example], tokenizer: Tokenizer, frozen_copies: int
) -> None:
    """Print what a run would do: an example as the model sees it, steps, tokens a step, memory, and the first micro-batch's loss.

    All processes call it. Rows, tokens and padding are this one's, memory that of the fullest, the loss that of all.
    frozen_copies: reference models that would stay in memory.
    """
    print("\none example, scored tokens marked:\n" + describe(examples[0], tokenizer, colour=sys.stdout.isatty()) + "\n")
    if not arguments.training.do_train:
        print("check passed; this run would only evaluate")
        return
    step = next(iter(task.feed.steps(first=0)))
    rows = sum(len(batch.example_ids) for batch in step.batches)
    tokens = sum(batch.token_count for batch in step.batches)
    cells = sum(batch.input_ids.size for batch in step.batches)
    each = f" in each of {task.topology.data.size} copies of the model" if task.topology.data.size > 1 else ""
    print(f"steps: {task.feed.total_steps:,}; the first takes {rows} rows, {tokens:,} tokens, in micro-batches: {len(step.batches)}{each}")
    print(f"padding: {1 - tokens / max(cells, 1):.1%} of the first step's {cells:,} positions")
    recompute = arguments.training.recompute
    model = model_bytes(task, frozen_copies)
    activations = activation_bytes(task, step.batches[0], len(step.batches), recompute)
    print(memory_line(gather_values(task.topology.everyone, (model, activations, parameter_count(task)))))
    first = [batch for batch in step.batches[:1] if len(batch.example_ids)]
    sums = evaluate(task.policy, first, task.objective, task.precision, task.topology, task.chain)
    means = sums.means()
    if "rewards/margins" in means:
        print(
            f"first micro-batch: loss {means['loss']:.6f} (ln 2 is {math.log(2):.6f}), margin {means['rewards/margins']:+.6f}, "
            f"chosen {means['logps/chosen']:.2f} and rejected {means['logps/rejected']:.2f} nats a response"
        )
    else:
        print(f"first micro-batch: loss {means['loss']:.4f} nats a token, {means['accuracy']:.1%} of the tokens are the first choice")
    print("check passed")


def memory_line(processes: Sequence[tuple[int, int, int]]) -> str:
    """One line with the estimated peak of the fullest process. processes: of each (model's bytes, activations' bytes, parameters)."""
    model, activations, count = max(processes, key=lambda it: it[0] + it[1])
    fullest = f" in the fullest of {len(processes)} processes" if len(processes) > 1 else ""
    return (
        f"memory, estimated: {(model + activations) / _GB:.2f} GB{fullest} = weights, gradients and optimizer {model / _GB:.2f} "
        f"({count / 1e6:.1f} M parameters) + activations of a micro-batch {activations / _GB:.2f}; Paddle itself comes on top"
    )


def parameter_count(task: Task) -> int:
    """The parameters that this process holds."""
    return sum(parameter.size for parameter in task.policy.parameters())


def model_bytes(task: Task, frozen_copies: int) -> int:
    """Bytes of what this process holds for all of its parameters.

    Gradients and two moments in float32, and float32 masters of half-precision weights, each where sharding leaves it here; the head's
    gradient once more.
    """
    held, keepers = _BYTES[task.precision.weights_dtype], task.sharding.keepers
    total = 4 * _head_size(task) if task.chain.is_last else 0
    for name, parameter in task.policy.named_parameters():
        each = held * (1 + frozen_copies) if name not in keepers or task.sharding.owns(name) else 0
        each += 4 if task.sharding.owns_gradient(name) else 0
        each += (8 if held == 4 else 12) if task.sharding.owns(name) else 0
        total += each * parameter.size
    return total


def activation_bytes(task: Task, batch: Batch, batches: int, recompute: bool) -> int:
    """Bytes that this process keeps for backward. batches: micro-batches of a step, of which a pipeline has several under way at once."""
    config, stages = task.policy.config, task.chain.axis.size
    width = _BYTES[task.precision.dtype]
    alive = min(stages - task.chain.axis.rank, batches)
    kept = alive * activation_elements(config, batch, recompute, len(task.policy.model.layers), task.policy.make) * width
    if not task.chain.is_last:
        return kept
    logits = 3 * 4 * min(CHUNK_ELEMENTS, len(batch.target_ids) * _head_size(task) // config.hidden_size)
    return kept + len(batch.score_at) * config.hidden_size * width + logits


def _head_size(task: Task) -> int:
    """Elements of this process's share of the output head."""
    return task.policy.config.vocab_size * task.policy.config.hidden_size // task.topology.tensor.size


def activation_elements(config: DecoderConfig, batch: Batch, recompute: bool, layers: int, make: TensorLayers) -> int:
    """Elements that a forward pass keeps for backward, counted from what each kernel of the decoder saves.

    layers: how many of them the process holds. make: how each is cut; norms and residuals are only where positions are.
    """
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shared = 2 * queries + 2 * keys + (queries + keys if config.qk_norm else 0)
    shared += (3 if config.activation == "swiglu" else 2) * config.intermediate_size
    hidden = config.hidden_size // make.positions
    layer = 4 * hidden + shared // make.parts
    kept = layers * hidden + layer if recompute else layers * layer
    return int(batch.input_ids.size) * (kept + 2 * config.hidden_size)
