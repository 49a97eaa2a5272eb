"""run.json: what a run was told and made of; and whether a resume is a resume of that run."""

import math
import platform
from pathlib import Path
from typing import Any

from paddlealign import __version__
from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.show import arguments_dict
from paddlealign.errors import UserError
from paddlealign.versions import installed_version

# Keys that a resumed run may change: they decide when something is written or shown, how long the run is, or where it computes.
FREE_KEYS = frozenset({
    "model_name_or_path", "tokenizer_name_or_path", "allow_pickle", "ref_model_name_or_path", "reference_mode", "reference_cache_dir",
    "dataset_name_or_path", "train_dataset_path", "dev_dataset_path", "output_dir", "overwrite_output_dir", "resume_from_checkpoint",
    "do_train", "do_eval", "check", "num_train_epochs", "max_steps", "per_device_eval_batch_size", "device", "recompute",
    "logging_steps", "report_to", "disable_tqdm", "evaluation_strategy", "eval_steps", "save_strategy", "save_steps",
    "save_total_limit", "save_on_stop", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_patience",
    "early_stopping_threshold", "tensor_parallel_degree", "pipeline_parallel_degree", "data_parallel_degree", "sharding",
    "sharding_parallel_degree", "sequence_parallel", "lora_path", "ref_lora_path", "sample_during_eval", "n_eval_model_samples",
    "sample_data_file", "sample_max_length", "sample_temperature", "sample_reward_model", "sample_judge", "dev_split", "dataset_num_proc",
    "dataset_cache_dir", "log_level", "run_name", "on_bad_row", "on_bad_numbers", "replay_step", "preempt_save_seconds", "plain_path",
})  # fmt: skip
# Of these only the product counts: it is the number of rows of a step.
BATCH_KEYS = ("per_device_train_batch_size", "gradient_accumulation_steps", "data_parallel_degree")
_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "numpy", "tokenizers")


def describe_run(arguments: TrainArguments, hashes: dict[str, str], device: str) -> dict[str, Any]:
    """All of run.json but the end: arguments with their sources, versions and device.

    hashes: sha256 by what it is of: the data files, the training examples' tokens, the weights of reference and base, the adapter, the
    pairs' margins.
    """
    return {
        **arguments_dict(arguments),
        "sha256": hashes,
        "device": device,
        "versions": {"paddlealign": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {name: installed_version(name) for name in _PACKAGES}
    return {name: version for name, version in found.items() if version is not None}


def refuse_other_run(path: Path, run: dict[str, Any]) -> str:
    """Refuse to go on with a run that was told something else, or that had other rows or another reference.

    path: the run.json beside the checkpoint. Returns what changed of the run's length, in words; empty where nothing did.
    """
    try:
        old = read_json_object(path)
        before, length_before = _deciding(old), _length(old)
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"resume_from_checkpoint: {path} is missing or damaged, so it cannot be seen whether this is the same run. Put it back, or "
            "start a new run with model_name_or_path set to the checkpoint"
        ) from error
    now, length = _deciding(run), _length(run)
    # A key that is younger than the old run decides nothing as long as it has its default.
    younger = {key for key, item in _items(run).items() if key not in before and item["source"] == "default"}
    changed = [f"{key} was {before.get(key)}, is {value}" for key, value in now.items() if key not in younger and before.get(key) != value]
    if changed:
        raise UserError(
            f"resume_from_checkpoint: {path.parent} was made under other arguments: {'; '.join(changed)}. Set them back, or start a new "
            "run with model_name_or_path set to the checkpoint"
        )
    return "; ".join(f"{key} was {length_before[key]}, is {value}" for key, value in length.items() if length_before[key] != value)


def _items(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {key: item for section in run["arguments"].values() for key, item in section.items()}


def argument_values(run: dict[str, Any]) -> dict[str, Any]:
    """The effective arguments of a run, key to value."""
    return {key: item["value"] for key, item in _items(run).items()}


def _length(run: dict[str, Any]) -> dict[str, Any]:
    """The arguments that say how long a run is; a longer or shorter one may go on."""
    return {key: argument_values(run)[key] for key in ("num_train_epochs", "max_steps")}


def _deciding(run: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers."""
    values = argument_values(run)
    kept = {key: value for key, value in values.items() if key not in FREE_KEYS and key not in BATCH_KEYS}
    kept["command"] = run["command"]
    kept["rows of a step"] = math.prod(values.get(key, 1) for key in BATCH_KEYS)
    names = ("train tokens", "train labels", "reference weights", "base weights", "start adapter", "margins")
    kept |= {f"sha256 of the {name}": run["sha256"].get(name) for name in names}
    return kept
