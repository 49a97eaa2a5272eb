"""The systems that are measured: what each is called, how it is started, and where it tells of its steps."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlealign.machine import fast_path_is_locked
from scripts.benchmark.workload import PAIRS_PER_STEP, SEED

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).with_name("peers")
LEARNING_RATE, BETA = 1e-5, 0.1


@dataclass(frozen=True)
class Setting:
    """Where a run finds things. rows: the folder of a set's rows. longest: tokens of a pair's row. threads: for every system."""

    rows: Path
    model: Path
    paddlenlp_model: Path
    output: Path
    trl_python: Path
    longest: int
    threads: int


@dataclass(frozen=True)
class Command:
    """words: the command line. environ: variables on top of the environment. log: the file with a line for each step."""

    words: list[str]
    environ: dict[str, str]
    log: Path


@dataclass(frozen=True)
class System:
    """One row of the page. method: "dpo" or "sft". half: whether it computes in bfloat16. quick: whether quick mode has it.

    against: the key of ours that it is held to.
    """

    title: str
    method: str
    command: Callable[[Setting], Command]
    against: str
    half: bool = False
    quick: bool = True


def _ours(method: str, reference_mode: str | None, ranks: int) -> Callable[[Setting], Command]:
    """Ours as its users run it: the command with an argument file."""

    def command(setting: Setting) -> Command:
        values: dict[str, Any] = {
            "model_name_or_path": str(setting.model),
            "train_dataset_path": str(setting.rows / f"{method}.jsonl"),
            "output_dir": str(setting.output / "run"),
            "overwrite_output_dir": True,
            "per_device_train_batch_size": PAIRS_PER_STEP // ranks,
            "num_train_epochs": 1,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "src_length": setting.longest - 4,
            "max_length": setting.longest,
            "disable_tqdm": True,
            "do_train": True,
            "seed": SEED,
        }
        if reference_mode:
            values |= {"reference_mode": reference_mode, "beta": BETA}
        file = _write(setting.output / "arguments.json", values)
        launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(setting.output / "log")]
        words = [sys.executable, *(launch if ranks > 1 else []), str(ROOT / f"{method}_main.py"), str(file)]
        return Command(words, {"MKL_NUM_THREADS": str(max(1, setting.threads // ranks))}, setting.output / "run" / "metrics.jsonl")

    return command


def _trl(
    method: str, bf16: bool = False, checkpointing: bool = True, cached: bool = False, batch: int = PAIRS_PER_STEP
) -> Callable[[Setting], Command]:
    """TRL's trainer. checkpointing: its default, to compute activations again. batch: examples of a micro-batch."""

    def command(setting: Setting) -> Command:
        spec = _spec(setting, f"{method}_ordered.jsonl", setting.model)
        spec |= {"batch": batch, "accumulation": PAIRS_PER_STEP // batch, "bf16": bf16, "checkpointing": checkpointing, "cached": cached}
        file = _write(setting.output / "spec.json", spec)
        environ = {"OMP_NUM_THREADS": str(setting.threads), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(setting.output / "datasets")}
        return Command([str(setting.trl_python), str(PEERS / f"trl_{method}.py"), str(file)], environ, Path(spec["lines"]))

    return command


def _paddlenlp(method: str, tuned: bool) -> Callable[[Setting], Command]:
    """PaddleNLP's trainer, in the environment as it is, or with the variables that Paddle's matmul needs to be fast."""

    def command(setting: Setting) -> Command:
        file = _write(setting.output / "spec.json", _spec(setting, "ids_ordered.jsonl", setting.paddlenlp_model))
        environ = {"OMP_NUM_THREADS": str(setting.threads)} if tuned else {}
        if tuned and fast_path_is_locked(Path("/proc/cpuinfo").read_text()):
            environ["MKL_DEBUG_CPU_TYPE"] = "5"
        return Command([sys.executable, str(PEERS / f"paddlenlp_{method}.py"), str(file)], environ, setting.output / "lines.jsonl")

    return command


def _spec(setting: Setting, rows: str, model: Path) -> dict[str, Any]:
    """What every peer is told."""
    return {
        "rows": str(setting.rows / rows),
        "model": str(model),
        "output_dir": str(setting.output / "run"),
        "lines": str(setting.output / "lines.jsonl"),
        "batch": PAIRS_PER_STEP,
        "learning_rate": LEARNING_RATE,
        "beta": BETA,
        "max_length": setting.longest,
        "row_length": setting.longest,
        "seed": SEED,
    }


def _write(path: Path, values: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
    return path


LIVE, CACHED, TWO, SFT = "ours_dpo", "ours_dpo_cached", "ours_dpo_two_processes", "ours_sft"
SYSTEMS = {
    LIVE: System("**ours**, live reference", "dpo", _ours("dpo", "frozen", 1), LIVE),
    "trl_dpo": System("TRL fp32", "dpo", _trl("dpo"), LIVE, quick=False),
    "trl_dpo_kept": System("TRL fp32, activations kept", "dpo", _trl("dpo", checkpointing=False), LIVE),
    "trl_dpo_singly": System(
        "TRL fp32, activations kept, pair by pair", "dpo", _trl("dpo", checkpointing=False, batch=1), LIVE, quick=False
    ),
    "trl_dpo_bf16": System("TRL bf16, activations kept", "dpo", _trl("dpo", bf16=True, checkpointing=False), LIVE, half=True),
    "paddlenlp_dpo": System("PaddleNLP, tuned environment", "dpo", _paddlenlp("dpo", tuned=True), LIVE),
    "paddlenlp_dpo_installed": System("PaddleNLP, as installed", "dpo", _paddlenlp("dpo", tuned=False), LIVE, quick=False),
    CACHED: System("**ours**, cached log-probs of the reference", "dpo", _ours("dpo", "cached", 1), CACHED),
    "trl_dpo_cached": System("TRL fp32, precomputed log-probs", "dpo", _trl("dpo", checkpointing=False, cached=True), CACHED, quick=False),
    TWO: System("**ours**, live reference, two processes of half the threads", "dpo", _ours("dpo", "frozen", 2), LIVE, quick=False),
    SFT: System("**ours**", "sft", _ours("sft", None, 1), SFT),
    "trl_sft": System("TRL fp32", "sft", _trl("sft"), SFT, quick=False),
    "trl_sft_kept": System("TRL fp32, activations kept", "sft", _trl("sft", checkpointing=False), SFT),
    "trl_sft_singly": System("TRL fp32, activations kept, row by row", "sft", _trl("sft", checkpointing=False, batch=1), SFT, quick=False),
    "trl_sft_bf16": System("TRL bf16, activations kept", "sft", _trl("sft", bf16=True, checkpointing=False), SFT, half=True, quick=False),
    "paddlenlp_sft": System("PaddleNLP, tuned environment", "sft", _paddlenlp("sft", tuned=True), SFT, quick=False),
    "paddlenlp_sft_installed": System("PaddleNLP, as installed", "sft", _paddlenlp("sft", tuned=False), SFT, quick=False),
}
