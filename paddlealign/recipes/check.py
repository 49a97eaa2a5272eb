"""``--check``: everything up to the first step, told instead of done. Also the lines about rows that every run prints."""

import math
import sys
from collections.abc import Sequence

from paddlealign.arguments.parsing import DpoArguments, SftArguments
from paddlealign.data.describe import describe
from paddlealign.data.encoding_report import EncodingReport
from paddlealign.data.example import Batch, Example
from paddlealign.data.records import ReadReport
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.models.config import DecoderConfig
from paddlealign.models.head import CHUNK_ELEMENTS
from paddlealign.training.loop import Task
from paddlealign.training.step import evaluate

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GB = 1e9


def describe_rows(split: str, read: ReadReport, encoded: EncodingReport) -> list[str]:
    """Lines that say what became of a split's rows: kept, cut, left out and why."""
    files = "1 file" if read.files == 1 else f"{read.files} files"
    lines = [
        f"{split}: {encoded.kept:,} of {read.rows:,} rows from {files}, {encoded.tokens:,} tokens, {encoded.scored_tokens:,} of them scored"
    ]
    left_out = [(encoded.dropped_too_long, "too long (dropped; raise src_length or max_length, or set truncation)")]
    left_out += [(count, reason) for reason, count in read.refused.items()]
    left_out += [(count, f"{reason} (first: {encoded.refused_at[reason]})") for reason, count in encoded.refused.items()]
    lines += [f"{split}: left out {count:,}: {reason}" for count, reason in left_out if count]
    if encoded.prompts_truncated or encoded.responses_truncated:
        lines.append(f"{split}: cut {encoded.prompts_truncated:,} prompts and {encoded.responses_truncated:,} responses")
    if encoded.altered_turns:
        lines.append(f"{split}: {encoded.altered_turns:,} earlier answers are changed by the chat template and not scored")
    lines += [f"note: {warning}" for warning in read.warnings]
    return lines


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
    print(f"steps: {task.feed.total_steps:,}; the first takes {rows} rows in {len(step.batches)} micro-batches, {tokens:,} tokens")
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
    # gradients and two moments in float32, and float32 masters of half-precision weights
    model = count * (held * (1 + frozen_copies) + 12 + (4 if held == 2 else 0))
    activations = activation_elements(config, batch, arguments.training.recompute) * _BYTES[task.precision.dtype] + 3 * 4 * CHUNK_ELEMENTS
    return (
        f"memory, estimated: {(model + activations) / _GB:.2f} GB = weights, gradients and optimizer {model / _GB:.2f} "
        f"({count / 1e6:.1f} M parameters) + activations of a micro-batch {activations / _GB:.2f}; Paddle itself comes on top"
    )


def activation_elements(config: DecoderConfig, batch: Batch, recompute: bool) -> int:
    """Elements that a forward pass keeps for backward, counted from what each kernel of the decoder saves."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = 4 * config.hidden_size + 2 * queries + 2 * keys + 3 * config.intermediate_size
    kept = config.num_layers * config.hidden_size + layer if recompute else config.num_layers * layer
    return int(batch.input_ids.size) * (kept + 2 * config.hidden_size) + len(batch.score_at) * config.hidden_size
