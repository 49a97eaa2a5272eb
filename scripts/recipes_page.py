"""Plan every shipped training file on its devices, and write what that says into docs/recipes.md.

    python -m scripts.recipes_page docs/recipes.md            plan, and write the table into the page
    python -m scripts.recipes_page docs/recipes.md --check    plan, and fail where the page says something else, or a file does not fit

Each row is `python -m paddlealign.plan FILE --devices N --method METHOD`, with its own figures of the devices and the model's config.json.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from paddlealign.arguments.plan import parse_plan
from paddlealign.planning.step import GIB, plan_step
from paddlealign.recipes.plan import describe_devices, describe_job, rows_of_step, set_layout
from scripts.plan_page import layout

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- files: begin -->", "<!-- files: end -->"
# What config.json of each model says.
_COMMON = {"hidden_act": "silu", "torch_dtype": "bfloat16"}
_LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, **_COMMON,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama2_7b": {
        **_LLAMA, "vocab_size": 32000, "intermediate_size": 11008, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "llama3_8b": {
        **_LLAMA, "vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 8192,
        "rope_theta": 500000.0, "attention_bias": False, "bos_token_id": 128000, "eos_token_id": 128009,
    },
    "qwen2.5_1.5b": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True, "sliding_window": 32768, "max_window_layers": 21,
        "use_sliding_window": False, "bos_token_id": 151643, "eos_token_id": 151645, **_COMMON,
    },
}  # fmt: skip
FILES = tuple(
    sorted(
        path.relative_to(ROOT)
        for family in ("llama", "qwen")
        for path in (ROOT / "scripts" / family).glob("*/*_argument.json")
        if not path.name.startswith("predict")
    )
)


def method_of(file: Path) -> str:
    """sft, reward or dpo."""
    return re.split("[_.]", file.name)[0]


def model_of(file: Path) -> str:
    """The model that a file is made for: a key of CONFIGS."""
    return "qwen2.5_1.5b" if file.parent.name == "trinity" else file.parent.name


def devices_of(file: Path) -> int:
    """The devices that a file is made for: 8, and 2 for the document's SFT."""
    return 2 if file.parent.name == "trinity" and method_of(file) == "sft" else 8


def table() -> str:
    """The page's table. Raises AssertionError where a file does not fit."""
    lines = [
        "| file under `scripts/` | devices | layout | recompute | tokens a row | GiB a device | s a step |",
        "|---|---:|---|---|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for file in FILES:
            model = Path(name) / model_of(file)
            model.mkdir(exist_ok=True)
            (model / "config.json").write_text(json.dumps(CONFIGS[model.name]))
            words = ["--model_name_or_path", model, "--devices", devices_of(file), "--method", method_of(file)]
            asked = parse_plan([str(ROOT / file), *map(str, words)])
            job = describe_job(asked)
            plan = plan_step(job, set_layout(asked, job, rows_of_step(asked)), describe_devices(asked), {})
            assert plan.fits, f"{file} does not fit"
            recompute, longest = "yes" if plan.layout.recompute else "no", asked.training.data.max_length
            cells = [f"`{file.relative_to('scripts')}`", str(devices_of(file)), layout(plan), recompute, f"{longest:,}"]
            lines.append(f"| {' | '.join([*cells, f'{plan.memory.total / GIB:.0f}', f'{plan.seconds:.1f}'])} |")
    return "\n".join(lines)


def main(path: Path, check: bool) -> int:
    """Write the page's table, or hold the page to it."""
    page, planned = path.read_text("utf-8"), table()
    before, rest = page.split(BEGIN)
    if not check:
        path.write_text(f"{before}{BEGIN}\n{planned}\n{END}{rest.split(END)[1]}", "utf-8")
    print(planned)
    if check and rest.split(END)[0].strip() != planned:
        print("the page says something else; run python -m scripts.recipes_page docs/recipes.md")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--check" in sys.argv[2:]))
