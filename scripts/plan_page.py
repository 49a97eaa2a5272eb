"""Plan LLaMA-2 on 8 and on 64 devices, and write the layouts into docs/parallel.md.

    python -m scripts.plan_page docs/parallel.md            plan, and write the table into the page
    python -m scripts.plan_page docs/parallel.md --check    plan, and fail where the page says something else

Each row is what `python -m paddlealign.plan` puts first for the arguments in ARGUMENTS, with its own figures of the devices.
"""

import json
import sys
import tempfile
from pathlib import Path

from paddlealign.arguments.plan import parse_plan
from paddlealign.planning.step import GIB, Plan
from paddlealign.recipes.plan import find
from paddlealign.recipes.plan_tables import sharding

BEGIN, END = "<!-- layouts: begin -->", "<!-- layouts: end -->"
MODELS = {
    "7B": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008},
    "13B": {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "intermediate_size": 13824},
    "70B": {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
    },
}  # fmt: skip
ARGUMENTS = {
    "output_dir": "output", "dataset_name_or_path": "data", "do_train": True, "bf16": True, "fp16_opt_level": "O2", "max_length": 2048,
    "per_device_train_batch_size": 4,
}  # fmt: skip
RUNS: dict[str, dict[str, object]] = {
    "SFT": {},
    "DPO, cached": {"reference_mode": "cached"},
    "DPO, frozen": {"reference_mode": "frozen"},
}
DEVICES = (8, 64)
OWN = "--device_memory_gib 80 --rows_per_step 128"


def write_config(folder: Path, name: str) -> Path:
    """A LLaMA-2's config.json, which is all that a plan reads of a model."""
    (folder / name).mkdir(exist_ok=True)
    config = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096, "torch_dtype": "bfloat16", **MODELS[name]}
    (folder / name / "config.json").write_text(json.dumps(config))
    return folder / name


def table() -> str:
    """The page's table."""
    lines = ["| model | devices | run | layout | recompute | micro-batches | GiB a device | bubble | s a step | useful |"]
    lines.append("|---|---:|---|---|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        for model in MODELS:
            folder = write_config(Path(name), model)
            for devices in DEVICES:
                for run, keys in RUNS.items():
                    path = Path(name) / "args.json"
                    path.write_text(json.dumps({**ARGUMENTS, **keys, "model_name_or_path": str(folder)}))
                    found, figures = find(parse_plan([str(path), "--devices", str(devices), *OWN.split()]))
                    start = f"| {model} | {devices} | {run} |"
                    if found.best:
                        plan = found.best[0]
                        cells = [
                            layout(plan),
                            "yes" if plan.layout.recompute else "no",
                            f"{plan.layout.micro_batches} of {plan.layout.rows}",
                        ]
                        cells += [f"{plan.memory.total / GIB:.0f}", f"{plan.layout.bubble:.0%}", f"{plan.seconds:.1f}"]
                        lines.append(f"{start} {' | '.join([*cells, f'{plan.utilization(figures):.0%}'])} |")
                    elif found.least:
                        lines.append(f"{start} none fits | | | at least {found.least.memory.total / GIB:.0f} | | | |")
    return "\n".join(lines)


def layout(plan: Plan) -> str:
    """The degrees in short."""
    degrees = {"TP": plan.layout.tensor, "PP": plan.layout.pipeline, "DP": plan.layout.data}
    parts = [" x ".join(f"{name}{degree}" for name, degree in degrees.items() if degree > 1)]
    parts += [sharding(plan.layout)] if plan.layout.sharding else []
    return ", ".join([*parts, *(["sequence_parallel"] if plan.layout.sequence_parallel else [])])


def main(path: Path, check: bool) -> int:
    """Write the page's table, or hold the page to it."""
    page, planned = path.read_text("utf-8"), table()
    before, rest = page.split(BEGIN)
    written = rest.split(END)[0].strip()
    if not check:
        path.write_text(f"{before}{BEGIN}\n{planned}\n{END}{rest.split(END)[1]}", "utf-8")
    print(planned)
    if check and written != planned:
        print("the page says something else; run python -m scripts.plan_page docs/parallel.md")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
