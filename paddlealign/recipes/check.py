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
from paddlealign.training.loop import Task
from paddlealign.training.step import evaluate

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GB = 1e9


def check_run(
    arguments: SftArguments | DpoArguments, task: Task, examples: Sequence[Example], tokenizer: Tokenizer, frozen_copies: int
) -> None:
    """Print what a run would do: an example as the model sees it, steps, tokens a step, memory, and the first micro-batch's loss.

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
    print(f"steps: {task.feed.total_steps:,}; the first takes {rows} rows, {tokens:,} tokens, in micro-batches: {len(step.batches)}")
    print(f"padding: {1 - tokens / cells:.1%} of the first step's {cells:,} positions")
    print(memory_line(arguments, task, step.batches[0], frozen_copies))
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


def memory_line(arguments: SftArguments | DpoArguments, task: Task, batch: Batch, frozen_copies: int) -> str:
    """One line with the estimated peak and what it is made of."""
    config = task.policy.config
    count = sum(parameter.size for parameter in task.policy.parameters())
    held = _BYTES[task.precision.weights_dtype]
    # gradients and two moments in float32, and float32 masters of half-precision weights; the head's gradient once more
    model = count * (held * (1 + frozen_copies) + 12 + (4 if held == 2 else 0)) + 4 * config.vocab_size * config.hidden_size
    logits = 3 * 4 * min(CHUNK_ELEMENTS, len(batch.target_ids) * config.vocab_size)
    activations = activation_elements(config, batch, arguments.training.recompute) * _BYTES[task.precision.dtype] + logits
    return (
        f"memory, estimated: {(model + activations) / _GB:.2f} GB = weights, gradients and optimizer {model / _GB:.2f} "
        f"({count / 1e6:.1f} M parameters) + activations of a micro-batch {activations / _GB:.2f}; Paddle itself comes on top"
    )


def activation_elements(config: DecoderConfig, batch: Batch, recompute: bool) -> int:
    """Elements that a forward pass keeps for backward, counted from what each kernel of the decoder saves."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = 4 * config.hidden_size + 2 * queries + 2 * keys + (queries + keys if config.qk_norm else 0)
    layer += (3 if config.activation == "swiglu" else 2) * config.intermediate_size
    kept = config.num_layers * config.hidden_size + layer if recompute else config.num_layers * layer
    return int(batch.input_ids.size) * (kept + 2 * config.hidden_size) + len(batch.score_at) * config.hidden_size
