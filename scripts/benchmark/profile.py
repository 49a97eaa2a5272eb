"""What a DPO step with a live reference spends its time on, for docs/performance.md.

    python -m scripts.benchmark.profile docs/performance.md        # --folder .benchmark: where the benchmark's model is; --rounds 3

Four steps of the common workload, in this process: forward of the reference, forward and backward of the policy, optimizer. On a CPU an
operator ends before it returns, so the clock around a kernel is the kernel's. What no kernel of ours has is linear layers, residuals and
Paddle's own work.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.machine import available_cores, prepare
from scripts.benchmark.run import matmul_rate
from scripts.benchmark.workload import HIDDEN, INNER, PAIRS_PER_STEP, SHAPES, Pair, draw_pairs, forward_flops, in_our_order, write_model
from scripts.marks import fill

STEPS, WARM_UP = 4, 2
REST = "linear layers, residuals, the rest"


def main(argv: list[str]) -> int:
    """Measure, and write the table between the page's marks."""
    parser = argparse.ArgumentParser(
        "python -m scripts.benchmark.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="the page whose table is written")
    parser.add_argument("--folder", type=Path, default=Path(".benchmark"), help="the benchmark's folder, in which its model is made")
    parser.add_argument("--rounds", type=int, default=3, help="how often the steps are run; the median round counts")
    told = parser.parse_args(argv)
    model = told.folder / "model"
    if not (model / "tokenizer_config.json").exists():
        write_model(model)
    peak = matmul_rate(available_cores())
    pairs = in_our_order(draw_pairs(SHAPES["common"], STEPS * PAIRS_PER_STEP))
    prepare()  # before Paddle is imported
    rounds = run_rounds(model, pairs, told.rounds)
    fill(told.page, "profile", table(rounds, len(pairs), products_of(pairs), peak))
    return 0


def products_of(pairs: list[Pair]) -> dict[str, float]:
    """Operations of a round's products of matrices, by what time is spent on; "model" counts the last layer whole, as others' models do.

    Attention's scores are computed again in backward; the head's logits are not, as those of a step's pairs are about one chunk.
    """
    parts = [forward_flops(len(it.prompt), [len(it.chosen), len(it.rejected)]) for it in pairs]
    linear, attention, head = (sum(part) for part in zip(*parts, strict=True))
    unread = 2 * (HIDDEN**2 + 3 * HIDDEN * INNER) * sum(len(it.prompt) for it in pairs)  # by the last layer behind its attention
    return {
        REST: 4 * (linear - unread),
        "attention, forward": 2 * attention,
        "attention, backward": 2.5 * attention,
        "head and log-sum-exp, forward": 2 * head,
        "head and log-sum-exp, backward": 2 * head,
        "model": 4 * (linear + attention + head),
    }


def run_rounds(folder: Path, pairs: list[Pair], count: int) -> list[dict[str, float]]:
    """Seconds of each round by what they were spent on; "all" is the round's."""
    import paddle

    from paddlealign.models import attention, head, kernels
    from paddlealign.models.weights import load_model

    policy, reference = load_model(folder, "float32"), load_model(folder, "float32")
    optimizer = paddle.optimizer.AdamW(1e-5, parameters=policy.parameters(), weight_decay=0.0)
    spent: dict[str, float] = {}
    timed = {
        "attention": attention._CpuAttention,
        "head and log-sum-exp": head._TokenLogps,
        "norm": kernels._RMSNorm,
        "rotary": kernels._Rotary,
        "SwiGLU": kernels._SwiGLU,
    }
    for name, kernel in timed.items():
        for way in ("forward", "backward"):
            setattr(kernel, way, staticmethod(_timed(getattr(kernel, way), spent, f"{name}, {way}")))
    batches = batches_of(pairs)
    for batch in batches[:WARM_UP]:
        step(policy, reference, optimizer, batch, spent)
    rounds = []
    for _ in range(count):
        spent.clear()
        began = time.perf_counter()
        for batch in batches:
            step(policy, reference, optimizer, batch, spent)
        rounds.append({**spent, "all": time.perf_counter() - began})
    return rounds


def batches_of(pairs: list[Pair]) -> list[Any]:
    """A batch for each step, laid as training lays it."""
    from paddlealign.data.example import Example, Response
    from paddlealign.data.packing import lay

    def response(ids: list[int]) -> Response:
        return Response(np.array(ids, np.int32), np.ones(len(ids), bool))

    examples = [Example(np.array(it.prompt, np.int32), (response(it.chosen), response(it.rejected))) for it in pairs]
    return [lay(examples, [range(at, at + PAIRS_PER_STEP)], 0) for at in range(0, len(pairs), PAIRS_PER_STEP)]


def step(policy: Any, reference: Any, optimizer: Any, batch: Any, spent: dict[str, float]) -> float:
    """One optimizer step of the DPO loss. Returns the loss."""
    import paddle

    from paddlealign.training.score import run_head, run_layers

    with paddle.no_grad():
        before = run_head(reference, batch, run_layers(reference, batch)).token_logps
    difference = run_head(policy, batch, run_layers(policy, batch)).token_logps - before
    owner = paddle.nn.functional.one_hot(paddle.to_tensor(batch.target_owner), batch.response_count)
    rewards = 0.1 * paddle.mv(owner.t(), difference)
    loss = -paddle.nn.functional.log_sigmoid(rewards[0::2] - rewards[1::2]).mean()
    loss.backward()
    _timed(optimizer.step, spent, "optimizer")()
    for parameter in policy.parameters():
        parameter.clear_gradient(False)
    return float(loss)


def _timed(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def call(*words: Any) -> Any:
        began = time.perf_counter()
        result = function(*words)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return result

    return call


def table(rounds: list[dict[str, float]], pairs: int, flops: dict[str, float], peak: float) -> str:
    """The median round as a table. flops: see ``products_of``; peak: GFLOP/s of matmuls."""
    middle = sorted(rounds, key=lambda it: it["all"])[len(rounds) // 2]
    whole = middle["all"]
    rest = whole - sum(seconds for name, seconds in middle.items() if name != "all")
    parts = sorted(((seconds, name) for name, seconds in {**middle, REST: rest}.items() if name != "all"), reverse=True)
    rate = flops["model"] / whole / 1e9
    lines = [
        f"    python -m scripts.benchmark.profile docs/performance.md --rounds {len(rounds)}",
        "",
        f"The median round: {pairs / whole:.2f} pairs/s, {rate:.0f} GFLOP/s by model FLOPs, {rate / peak:.0%} of the {peak:.0f} that "
        "products of matrices reached just before.",
        "",
        "| spent on | share | ms a step | GFLOP/s of its products |",
        "|---|---:|---:|---:|",
    ]
    for seconds, name in parts:
        of_products = f"{flops[name] / seconds / 1e9:.0f}" if name in flops else ""
        lines.append(f"| {name} | {seconds / whole:.0%} | {seconds / STEPS * 1e3:,.0f} | {of_products} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
