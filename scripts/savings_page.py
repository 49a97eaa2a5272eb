"""Count what each trick saves of a step on a device that need not be there, and write it into docs/performance.md.

    python -m scripts.savings_page docs/performance.md            count, and write the table into the page
    python -m scripts.savings_page docs/performance.md --check    count, and fail where the page says something else

From an argument file (--arguments) and the model's config.json (--model; by default LLaMA-3 8B's, as scripts/recipes_page.py has it) on
--devices. Neither weights nor rows nor a GPU are needed, a second is enough. Lengths are those of the benchmark's sets.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from paddlealign.arguments.plan import parse_plan
from paddlealign.planning.layout import Job, Layout, hold
from paddlealign.planning.step import GIB, plan_step
from paddlealign.recipes.plan import describe_devices, describe_job, rows_of_step, set_layout
from scripts import savings
from scripts.benchmark.workload import SHAPES, draw_pairs
from scripts.marks import fill, split
from scripts.recipes_page import CONFIGS, ROOT
from scripts.savings import Text

MARK = "savings"
ARGUMENTS = Path("scripts/llama/llama3_8b/dpo_argument.json")
STEPS = 8  # that the lengths are drawn for; figures are means of one


class Step(NamedTuple):
    """What a device does in a step: its model, layout, and micro-batches of texts, of several steps."""

    job: Job
    layout: Layout
    batches: list[list[Text]]

    @property
    def passes(self) -> int:
        """See ``savings``."""
        return 4 if self.layout.recompute else 3

    def mean(self, of_batches: Sequence[float]) -> float:
        """The mean of a micro-batch."""
        return sum(of_batches) / len(self.batches)

    def a_step(self, of_batches: Sequence[float]) -> float:
        """The sum over a step."""
        return self.mean(of_batches) * self.layout.micro_batches

    def tokens(self, positions: Sequence[float]) -> float:
        """Bytes that so many positions of each micro-batch take until backward, in the mean."""
        return self.mean(positions) * savings.kept_bytes(self.job.config, self.job, self.layout)


class Saving(NamedTuple):
    """What a trick saves: bytes held while a micro-batch computes, operations of a step, bytes moved in a step's forward passes."""

    trick: str
    held: float
    flops: float
    moved: float = 0.0


def count(step: Step) -> list[Saving]:
    """Every trick, each beside a run that lacks it and has the others."""
    config, job, layout, texts, passes = step.job.config, step.job, step.layout, step.batches, step.passes
    scored = [sum(text.scored for text in batch) for batch in texts]
    tokens = [sum(text.tokens for text in batch) for batch in texts]
    layers = 1 if layout.recompute else config.num_layers

    def of_texts(flops: Sequence[Sequence[float]]) -> float:
        return step.a_step([sum(batch) for batch in flops])

    kept = sum(savings.fused_kept_bytes(config, job.dtype).values())
    moved = sum(savings.fused_moved_bytes(config, job.dtype).values()) * config.num_layers * (passes - 2)
    unscored = [savings.logits_bytes(config, job.dtype, all_ - some) for all_, some in zip(tokens, scored, strict=True)]
    plain = [savings.logits_bytes(config, job.dtype, some) - savings.chunk_bytes(config, some) for some in scored]
    return [
        Saving(
            "prompt once for all its responses",
            step.tokens([sum(map(savings.repeated_prompts, batch)) for batch in texts]),
            of_texts([[savings.prompt_once_flops(config, text, passes) for text in batch] for batch in texts]),
        ),
        Saving(
            "head on scored tokens alone, beside plain cross-entropy on all",
            step.mean(unscored),
            of_texts([[savings.unscored_head_flops(config, text) for text in batch] for batch in texts]),
        ),
        Saving(
            "last layer behind its attention on scored tokens alone",
            0.0,
            of_texts([[savings.unread_flops(config, text, passes) for text in batch] for batch in texts]),
        ),
        Saving(
            "log-sum-exp in chunks, logits but for one chunk computed again in backward",
            step.mean(plain),
            -step.a_step([savings.recomputed_head_flops(config, some) for some in scored]),
        ),
        Saving(
            "reference's log-probs cached, beside a frozen copy",
            float(job.weight_bytes * hold(config, layout, 0).total),
            of_texts([[savings.reference_flops(config, text) for text in batch] for batch in texts]),
        ),
        Saving(
            "packing, beside a row for each pair",
            step.tokens([savings.padding_tokens(batch) for batch in texts]),
            step.a_step([savings.padding_flops(config, batch, passes) for batch in texts]),
        ),
        Saving(
            "attention to visible keys alone, beside all pairs of a packed row",
            0.0,
            step.a_step([savings.attention_flops(config, savings.unseen_pairs(batch), passes) for batch in texts]),
        ),
        Saving(
            "the same, beside a causal kernel that knows no examples",
            0.0,
            step.a_step([savings.attention_flops(config, savings.unseen_pairs(batch, square=False), passes) for batch in texts]),
        ),
        Saving(
            "no [heads, length, length] kept",
            step.mean([savings.score_bytes(config, job.dtype, length, layers) for length in tokens]),
            0.0,
        ),
        Saving(
            "norm, rotary and SwiGLU in one pass each",
            step.mean(tokens) * layers * kept,
            0.0,
            step.a_step(tokens) * moved,
        ),
    ]


def describe(arguments: Path, model: Path, devices: int, shape: str) -> tuple[Step, Step, str]:
    """The step that an argument file asks a device for, one of its longest rows, and what is planned for these, in words."""
    method = arguments.name.split("_")[0]
    asked = parse_plan([str(arguments), "--model_name_or_path", str(model), "--devices", str(devices), "--method", method])
    job = describe_job(asked)
    layout = set_layout(asked, job, rows_of_step(asked))
    pairs = draw_pairs(SHAPES[shape], STEPS * layout.micro_batches * layout.rows)
    texts = [Text(len(pair.prompt), (len(pair.chosen), len(pair.rejected))[: 1 if method == "sft" else 2]) for pair in pairs]
    data, count = asked.training.data, 1 if method == "sft" else 2
    longest = Step(job, layout, [[Text(data.src_length, (data.max_length - data.src_length,) * count)] * layout.rows])
    step = Step(job, layout, [texts[at : at + layout.rows] for at in range(0, len(texts), layout.rows)])
    plan = plan_step(job, layout, describe_devices(asked), {})
    words = f"by its plan a device holds {plan.memory.total / GIB:.0f} GiB where pairs are two whole responses of max_length"
    return step, longest, words


def table(step: Step, without_recompute: Step, longest: Step) -> str:
    """What each trick saves, beside what is left to do. longest: micro-batches of the longest rows, of which the bytes are told, too."""
    config, texts = step.job.config, [text for batch in step.batches for text in batch]
    layers = [step.passes * savings.layers_flops(config, text) for text in texts]
    heads = [3 * savings.head_forward(config, text.row()) for text in texts]
    again = [savings.recomputed_head_flops(config, sum(text.scored for text in batch)) for batch in step.batches]
    useful = step.a_step(layers) + step.a_step(heads) + step.a_step(again)
    lines = ["| trick | GiB held | no recompute | longest rows | TFLOP a step | of what is left | GiB moved a step |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for saving, *others in zip(count(step), count(without_recompute), count(longest), strict=True):
        held = [f"{it.held / GIB:.2f}" if it.held else "-" for it in (saving, *others)]
        done = [f"{saving.flops / 1e12:+,.1f}", f"{saving.flops / useful:+.0%}"] if saving.flops else ["-", "-"]
        lines.append(f"| {' | '.join([saving.trick, *held, *done, f'{saving.moved / GIB:,.0f}' if saving.moved else '-'])} |")
    left = sum(text.tokens for text in texts) / len(step.batches) * step.layout.micro_batches
    lines.append(f"| *left to do: {left:,.0f} tokens* | | | | {useful / 1e12:,.1f} | | |")
    return "\n".join(lines)


def page_text(arguments: Path, model: Path, devices: int) -> str:
    """What stands between the page's marks."""
    parts = []
    for shape in ("common", "long"):
        step, longest, words = describe(arguments, model, devices, shape)
        config, layout, texts = step.job.config, step.layout, [text for batch in step.batches for text in batch]
        other = step._replace(layout=Layout(**{**vars(layout), "recompute": False}))
        parameters = hold(config, Layout(1, 1, 1, 0, 1, False, False, 1, 1), 0).total
        means = [math.fsum(values) / len(texts) for values in ([it.prompt for it in texts], [it.scored for it in texts])]
        told = [
            f"{parameters / 1e9:.2f}e9 parameters, {step.job.dtype} {step.job.level}, on one of {devices} devices; {words}.",
            f"A step of {layout.micro_batches} micro-batches of {layout.rows}, lengths as in the set *{shape}*:",
            f"prompts of {means[0]:.0f} tokens in the mean, {means[1]:.0f} scored; *longest rows* have a prompt of",
            f"{longest.batches[0][0].prompt:,} tokens and responses of {longest.batches[0][0].responses[0]:,}.",
        ]
        parts.append(f"{' '.join(told)}\n\n{table(step, other, longest)}")
    return "**Not yet run on a GPU.** Counted, not measured.\n\n" + "\n\n".join(parts)


def main(argv: Sequence[str]) -> int:
    """Write the page's table, or hold the page to it."""
    parser = argparse.ArgumentParser("python -m scripts.savings_page")
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--arguments", type=Path, default=ROOT / ARGUMENTS)
    parser.add_argument("--model", type=Path, help="a folder with config.json")
    parser.add_argument("--devices", type=int, default=8)
    told = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        model = told.model or Path(name)
        if told.model is None:
            (model / "config.json").write_text(json.dumps(CONFIGS["llama3_8b"]))
        counted = page_text(told.arguments, model, told.devices)
    if not told.check:
        fill(told.page, MARK, counted)
    print(counted)
    if split(told.page, MARK)[1] != counted:
        print("the page says something else; run python -m scripts.savings_page docs/performance.md")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
