"""Adapters in and out, with the file names, keys and layout of HuggingFace's peft.

``adapter_config.json`` says rank, alpha and modules; ``adapter_model.safetensors`` holds the two matrices of each module under
``base_model.model.<the family's name of the module>.lora_A.weight``, as files hold linear weights: [out, in]. Of a reward model (task_type
SEQ_CLS) the score head is there, too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import Tensor

from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.paths import ADAPTER_CONFIG
from paddlealign.errors import UserError
from paddlealign.models.config import DTYPES, DecoderConfig
from paddlealign.models.families import FAMILIES
from paddlealign.models.layout import stored_tensors
from paddlealign.models.linear import Adapter
from paddlealign.models.lora import fused_modules
from paddlealign.models.parameters import LORA_A, SCORE, LoraSettings, adapter_shapes, linear_modules
from paddlealign.models.tensor_files import TensorSpec, Written, read_header, write_bytes, write_json, write_streamed
from paddlealign.models.tensor_memory import count_broken, memory_of
from paddlealign.models.tensor_places import numpy_dtype, read_all
from paddlealign.models.weight_files import ADAPTER_WEIGHTS, OUR_FILES, other_tensors

# Keys of adapter_config.json that must say nothing, or one of these: each asks for something that is not computed here.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "lora_bias": (False,),
    "rank_pattern": (),
    "alpha_pattern": (),
    "layers_to_transform": (),
    "layer_replication": (),
    "target_parameters": (),
    "trainable_token_indices": (),
    "alora_invocation_tokens": (),
    "arrow_config": (),
    "kasa_config": (),
    "monteclora_config": (),
    "use_bdlora": (False,),
    # The other ways (pissa, olora, corda, loftq, lora_ga) change the base's weights too, which are not in the adapter's files.
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
}
# What peft may call the head of a classifier. It names both in every adapter to one, whichever is there.
_HEADS = ["classifier", "score"]


def read_settings(directory: str | Path, config: DecoderConfig) -> LoraSettings:
    """What the adapter in a directory is, for a base model of ``config``. Dropout is training's affair, and 0 here.

    Raises UserError where there is none, for one that has more than lora_A and lora_B beside the linear modules of every layer, all of
    one rank and alpha, and a score head, and for a score head where ``config`` has none.
    """
    path = Path(directory) / ADAPTER_CONFIG
    told = read_json_object(path)
    with_head = brings_score_head(directory)
    if with_head and config.head != "score":
        raise UserError(f"{path}: this adapter is a reward model's. Give it to reward_main.py, evaluate.py rewards or export.")
    if told.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type is {told.get('peft_type')!r}; only LORA is read. Give a LoRA adapter.")
    for key, allowed in _NEUTRAL.items():
        if told.get(key) and told[key] not in allowed:
            raise UserError(f"{path}: {key} is {told[key]!r}, which is not computed here. Give an adapter without it.")
    if not set(told.get("modules_to_save") or ()) <= {*_HEADS}:
        raise UserError(
            f"{path}: modules_to_save is {told['modules_to_save']!r}; beside adapters only a reward model's head is read. Give an adapter "
            "without it."
        )
    rank, alpha = told.get("r"), told.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or alpha <= 0:
        raise UserError(f"{path}: r is {rank!r} and lora_alpha {alpha!r}; a whole number and a number above 0 were expected.")
    free = tuple(name for name in linear_modules(config) if name not in fused_modules(config))
    found = read_header(Path(directory) / ADAPTER_WEIGHTS)
    possible = _names(config, LoraSettings(rank, alpha, False, 0.0, free))
    targets = {ours.split(".")[-2] for theirs, ours in possible.items() if theirs in found}
    whole = (SCORE,) if with_head else ()
    return LoraSettings(rank, alpha, bool(told.get("use_rslora")), 0.0, tuple(name for name in free if name in targets), whole)


def brings_score_head(directory: str | Path) -> bool:
    """Whether the adapter in a directory was trained with a score head, which lies in its file. Raises UserError where there is none."""
    told = read_json_object(Path(directory) / ADAPTER_CONFIG)
    return told.get("task_type") == "SEQ_CLS" or "score" in (told.get("modules_to_save") or ())


def base_of(directory: str | Path) -> str | None:
    """The base model that adapter_config.json names."""
    base = read_json_object(Path(directory) / ADAPTER_CONFIG).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def read_values(directory: str | Path, config: DecoderConfig, settings: LoraSettings) -> Callable[[str], np.ndarray | None]:
    """A function from our name of a parameter to its values, whole and in Paddle's layout; None for one that is not the adapter's.

    Names, shapes and dtypes are looked at first. Raises UserError.
    """
    path = Path(directory) / ADAPTER_WEIGHTS
    places, names = read_header(path), _names(config, settings)
    shapes = adapter_shapes(config, settings)
    wanted = {theirs: shapes[ours][::-1] for theirs, ours in names.items()}
    differing = other_tensors(wanted, places, DTYPES, "the base model with this rank")
    if differing:
        raise UserError(f"{path}: the adapter is not of this base model, or of a kind that is not read here:{differing}")
    held = {ours: places[theirs] for theirs, ours in names.items()}

    def values(name: str) -> np.ndarray | None:
        if name not in held:
            return None
        array = read_all(held[name])
        if count_broken(array):
            raise UserError(f"{path}: {name} holds values that are NaN or infinite. Go back to an earlier checkpoint.")
        return np.ascontiguousarray(array.T)

    return values


def save_adapter(
    state: Callable[[str], Tensor | np.ndarray | None],
    config: DecoderConfig,
    adapter: Adapter,
    directory: str | Path | None,
    side_files: Mapping[str, bytes],
    dtype: str,
) -> dict[str, Written]:
    """Write an adapter that peft loads; arguments and result as in ``weights.save_model``. What a model saved there before is removed."""
    names, shapes = _names(config, adapter.settings), adapter_shapes(config, adapter.settings)
    specs = [TensorSpec(theirs, dtype, shapes[ours][::-1]) for theirs, ours in names.items()]

    def stored(name: str) -> list[np.ndarray]:
        held = state(names[name])
        if directory is None or held is None:
            return []
        array = held if isinstance(held, np.ndarray) else memory_of(held)
        return [np.ascontiguousarray(array.T.astype(numpy_dtype(dtype)))]

    folder = None if directory is None else Path(directory)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    weights = write_streamed(None if folder is None else folder / ADAPTER_WEIGHTS, specs, stored, {"format": "pt"})
    if folder is None or weights is None:
        return {}
    written = {ADAPTER_WEIGHTS: weights, **{name: write_bytes(folder / name, content) for name, content in side_files.items()}}
    written[ADAPTER_CONFIG] = write_json(folder / ADAPTER_CONFIG, _config_to_write(adapter, names))
    for path in folder.iterdir():
        if OUR_FILES.match(path.name) or path.name == "config.json":
            path.unlink()
    return written


def _names(config: DecoderConfig, settings: LoraSettings) -> dict[str, str]:
    """The name in files of each parameter of an adapter, to ours."""
    tensors = stored_tensors(adapter_shapes(config, settings), FAMILIES[config.family].layout, config.num_heads)
    return {f"base_model.model.{tensor.name.removesuffix('.weight')}.weight": tensor.parts[0] for tensor in tensors}


def _config_to_write(adapter: Adapter, names: Mapping[str, str]) -> dict[str, Any]:
    """adapter_config.json; keys that peft has beyond these have its defaults. names: see ``_names``."""
    settings = adapter.settings
    modules = sorted({theirs.split(".")[-3] for theirs, ours in names.items() if ours.endswith(LORA_A)})
    task = {"task_type": "SEQ_CLS", "modules_to_save": _HEADS} if SCORE in settings.whole else {"task_type": "CAUSAL_LM"}
    alpha = int(settings.alpha) if settings.alpha == int(settings.alpha) else settings.alpha
    return {
        "base_model_name_or_path": adapter.base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": alpha,
        "lora_dropout": settings.dropout,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": modules,
        "use_rslora": settings.rslora,
        **task,
    }
