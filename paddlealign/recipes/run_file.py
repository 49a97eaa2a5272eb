"""run.json: what a run was told and made of; and whether a resume is a resume of that run."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from paddlealign import __version__
from paddlealign.arguments.parsing import DpoArguments, SftArguments
from paddlealign.arguments.show import arguments_dict
from paddlealign.errors import UserError
from paddlealign.training.checkpoint import RUN_FILE

# Keys that a resumed run may change: they decide when something is written or shown, how long the run is, or where it computes.
FREE_KEYS = frozenset({
    "model_name_or_path", "tokenizer_name_or_path", "ref_model_name_or_path", "reference_mode", "reference_cache_dir",
    "dataset_name_or_path", "train_dataset_path", "dev_dataset_path", "output_dir", "overwrite_output_dir", "resume_from_checkpoint",
    "do_train", "do_eval", "check", "num_train_epochs", "max_steps", "per_device_eval_batch_size", "device", "recompute",
    "logging_steps", "report_to", "disable_tqdm", "evaluation_strategy", "eval_steps", "save_strategy", "save_steps",
    "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_patience",
    "early_stopping_threshold",
})  # fmt: skip
# Of these only the product counts: it is the number of rows of a step.
BATCH_KEYS = ("per_device_train_batch_size", "gradient_accumulation_steps")
_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "numpy", "safetensors", "tokenizers", "sentencepiece")


def describe_run(arguments: SftArguments | DpoArguments, data_hash: str, device: str) -> dict[str, Any]:
    """All of run.json but the end: arguments with their sources, versions, device and the hash of the data files."""
    return {
        **arguments_dict(arguments),
        "data_sha256": data_hash,
        "device": device,
        "versions": {"paddlealign": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def refuse_other_run(checkpoint: Path, run: dict[str, Any]) -> None:
    """Refuse to go on from the checkpoint of a run that was told something else, or that read other data."""
    path = checkpoint.parent / RUN_FILE
    if not path.exists():
        return
    old = json.loads(path.read_text(encoding="utf-8"))
    if old.get("command") != run["command"]:
        raise UserError(f"resume_from_checkpoint: {checkpoint} is of a {old.get('command')} run, this is {run['command']}")
    before, now = _numbers_keys(old), _numbers_keys(run)
    changed = [f"{key} was {before.get(key)}, is {value}" for key, value in now.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"resume_from_checkpoint: {checkpoint} was made under other arguments: {'; '.join(changed)}. Set them back, or start a new run "
            "with model_name_or_path set to the checkpoint"
        )


def _numbers_keys(run: dict[str, Any]) -> dict[str, Any]:
    """The arguments that decide a run's numbers."""
    flat = {key: item["value"] for section in run["arguments"].values() for key, item in section.items()}
    kept = {key: value for key, value in flat.items() if key not in FREE_KEYS and key not in BATCH_KEYS}
    kept["rows of a step"] = flat[BATCH_KEYS[0]] * flat[BATCH_KEYS[1]]
    kept["sha256 of the data"] = run["data_sha256"]
    return kept
