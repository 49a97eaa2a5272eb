"""Checkpoints and data sets named by a hub's id (``org/name``): from this machine's cache or the network, by the hub's own libraries.

What exists as a path is never looked up. The libraries take seconds to import, which only those pay who name an id.
"""

import functools
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from paddlealign.arguments.given import list_problems
from paddlealign.arguments.results import Arguments
from paddlealign.errors import UserError

_CHECKPOINTS = (
    "model_name_or_path", "tokenizer_name_or_path", "lora_path", "ref_model_name_or_path", "ref_lora_path", "sample_reward_model",
    "baseline_model_name_or_path", "reward_model_name_or_path", "policy_model_name_or_path",
)  # fmt: skip
_READ = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model")
# Folders hold the same weights in other layouts (LLaMA's original/, onnx/), and so do Mistral's consolidated files.
_NOT_READ = ("*/*", "consolidated*")
_Told = TypeVar("_Told", bound=Arguments)


def is_hub_id(name: str) -> bool:
    """Whether a name can only be a hub's id: two words with a slash between them, and nothing of that name here."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name)) and not Path(name).exists()


def checkpoints_by_id(arguments: Arguments) -> Iterator[tuple[str, str, str]]:
    """(section, key, id) of every checkpoint that the arguments name by a hub's id."""
    for section, values in vars(arguments).items():
        for key in _CHECKPOINTS:
            name = getattr(values, key, None)
            if isinstance(name, str) and is_hub_id(name):
                yield section, key, name


def fetch_checkpoints(arguments: _Told, config_only: bool = False) -> _Told:
    """The arguments with folders in the place of hub ids, and a note for each. Raises UserError with all that cannot be had.

    config_only: without weights and tokenizers, as a plan reads a model.
    """
    changed: dict[str, Any] = {}
    notes: list[str] = []
    problems: list[str] = []
    for section, key, name in checkpoints_by_id(arguments):
        values = changed.get(section, getattr(arguments, section))
        try:
            folder = _snapshot(name, getattr(values, "allow_pickle", False), config_only)
        except (OSError, ValueError) as error:
            problems.append(
                f"{key}: there is no folder {name} here, and as a hub's id it cannot be had ({_reason(error)}). Correct the path, or "
                f"download it (huggingface-cli download {name} --local-dir DIR, or modelscope download --model {name} --local_dir DIR) "
                "and give DIR."
            )
            continue
        changed[section] = replace(values, **{key: folder})
        notes.append(f"{key}: {name} is read from {folder}.")
    if problems:
        raise UserError(list_problems(problems))
    return replace(arguments, **changed, notes=(*arguments.notes, *notes)) if changed else arguments


def say_if_offline() -> None:
    """Tell the hub's libraries where it cannot be reached, by HF_HUB_OFFLINE, which they read when they are imported.

    By themselves they try again and again for half a minute, and also where their cache has all that is asked for.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    try:
        endpoint = urllib.request.Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
        urllib.request.urlopen(endpoint, timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, ValueError, http.client.HTTPException):
        os.environ["HF_HUB_OFFLINE"] = "1"


def _snapshot(name: str, pickles: bool, config_only: bool) -> str:
    say_if_offline()
    import huggingface_hub

    wanted = ["config.json"] if config_only else [*_READ, *(["*.bin"] if pickles else [])]
    return huggingface_hub.snapshot_download(name, allow_patterns=wanted, ignore_patterns=list(_NOT_READ))


def hub_files(name: str, key: str, splits: Sequence[str], subsets: Sequence[str] | None) -> tuple[Path, ...]:
    """The arrow files of the first split that a hub's data set has, as the ``datasets`` library leaves them in its cache.

    key: what chooses the split, for messages. Raises UserError where the data set cannot be had, or has none of the splits.
    """
    found: list[Path] = []
    named: Sequence[str | None] = subsets or [None]
    for subset in _subset_names(name) if named == ["all"] else named:
        files = _load(name, subset)
        split = next((split for split in splits if split in files), None)
        if split is None:
            where = f"{name}, subset {subset}," if subset else name
            raise UserError(f"{key}: the data set {where} has no split {splits[0]}; there are: {', '.join(files)}.")
        found += files[split]
    return tuple(found)


@functools.cache
def _subset_names(name: str) -> tuple[str, ...]:
    say_if_offline()
    import datasets

    try:
        return tuple(datasets.get_dataset_config_names(name))
    except _failures() as error:
        raise _not_had(name, error) from None


@functools.cache
def _load(name: str, subset: str | None) -> Mapping[str, tuple[Path, ...]]:
    """Split -> its files. Asked for several times in a run; what the library answers must be the same each time."""
    say_if_offline()
    import datasets

    try:
        loaded = datasets.load_dataset(name, subset, keep_in_memory=False)
    except _failures() as error:
        raise _not_had(name, error) from None
    return {split: tuple(Path(file["filename"]) for file in rows.cache_files) for split, rows in loaded.items()}


def _failures() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return OSError, ValueError, RuntimeError, DatasetsError


def _not_had(name: str, error: Exception) -> UserError:
    return UserError(
        f"dataset_name_or_path: {name} is neither a folder nor a file here, and as a hub's data set it cannot be had ({_reason(error)}). "
        f"Correct the path, or download it (huggingface-cli download {name} --repo-type dataset --local-dir DIR, or modelscope download "
        f"--dataset {name} --local_dir DIR) and give DIR."
    )


def _reason(error: Exception) -> str:
    """The library's own words, in one short line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.removesuffix(".") if len(words) <= 200 else f"{words[:200]} …"
