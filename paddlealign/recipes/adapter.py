"""LoRA in the recipes: which adapter a run trains or computes with, and the values that it starts from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from paddlealign.arguments.fields import ModelArguments
from paddlealign.arguments.paths import ADAPTER_CONFIG
from paddlealign.arguments.results import TrainArguments
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.adapter_files import base_of, brings_score_head, read_settings, read_values
from paddlealign.models.config import DecoderConfig
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import choose_targets, fill, first_values
from paddlealign.models.parameters import SCORE, LoraSettings
from paddlealign.models.score_head import with_score_head
from paddlealign.models.weight_files import ADAPTER_WEIGHTS, GENERATION_FILE
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.recipes.device import say
from paddlealign.training.reference import files_hash
from paddlealign.training.share import load_share


def trained_adapter(arguments: TrainArguments, config: DecoderConfig) -> LoraSettings | None:
    """The adapter that a run trains: a new one, or that of lora_path with the run's dropout; None where all weights are trained.

    config: of what is trained. A score head is trained with the adapter, whether the model, the adapter or the run brings it.
    """
    keys = arguments.adapter
    if not keys.lora:
        return None
    whole = (SCORE,) if config.head == "score" else ()
    if keys.lora_path is None:
        targets = choose_targets(config, keys.lora_target_modules or [], "lora_target_modules")
        return LoraSettings(keys.lora_rank, keys.lora_alpha, keys.rslora, keys.lora_dropout, targets, whole)
    stored = read_adapter(keys.lora_path, arguments.model.model_name_or_path, config)
    asked: dict[str, tuple[Any, Any]] = {"lora_rank": (keys.lora_rank, stored.rank), "rslora": (keys.rslora, stored.rslora)}
    if keys.lora_alpha != -1:
        asked["lora_alpha"] = (keys.lora_alpha, stored.alpha)
    if keys.lora_target_modules:
        asked["lora_target_modules"] = (choose_targets(config, keys.lora_target_modules, "lora_target_modules"), stored.targets)
    others = [f"{key} {given[0]} ({given[1]} there)" for key, given in asked.items() if given[0] != given[1] and is_given(arguments, key)]
    if others:
        raise UserError(f"{', '.join(others)}: the adapter in lora_path {keys.lora_path} has its own. Leave these keys out.")
    return replace(stored, dropout=keys.lora_dropout, whole=whole)


def is_given(arguments: TrainArguments, key: str) -> bool:
    """Whether the user set a key."""
    return arguments.sources[key] in ("file", "command line")


def with_adapter(config: DecoderConfig, lora_path: str | None) -> DecoderConfig:
    """The config of a base model and the adapter in lora_path together: with a score head where the adapter brings one."""
    return with_score_head(config) if lora_path and brings_score_head(lora_path) else config


def read_adapter(lora_path: str, model: str, config: DecoderConfig) -> LoraSettings:
    """What the adapter in lora_path is; says so, and where it was trained beside another folder than ``model``."""
    settings = read_settings(lora_path, config)
    read_values(lora_path, config, settings)  # names and shapes are told before a model is read
    say(f"adapter: {lora_path}, rank {settings.rank}, scale {settings.scale:g}, {describe_adapter(settings)}")
    base = base_of(lora_path)
    if base is not None and Path(base).resolve() != Path(model).resolve():
        say(f"note: the adapter was trained beside {base}; it is put beside {model}")
    return settings


def load_adapted(
    folder: str, config: DecoderConfig, dtype: str, allow_pickle: bool, lora_path: str | None, topology: Topology = SINGLE
) -> Decoder:
    """This process's share of a model, with the adapter in lora_path beside it if there is one. config: of both. dtype: of the weights."""
    adapter = read_settings(lora_path, config) if lora_path else None
    model, _ = load_share(folder, dtype, config.vocab_size, allow_pickle, topology, config=config, lora=adapter)
    if lora_path and adapter:
        fill(model, read_values(lora_path, config, adapter))
    return model


def describe_adapter(settings: LoraSettings) -> str:
    """What an adapter stands beside, and brings, in words."""
    return f"beside {', '.join(settings.targets)}" + (", with a score head" if settings.whole else "")


def start_adapter(arguments: TrainArguments, model: Decoder) -> None:
    """Give the model's adapter, where it has one, the values that training starts from."""
    lora_path = arguments.adapter.lora_path
    if model.adapter is not None and lora_path is None:
        fill(model, first_values(model, arguments.training.seed))
    elif model.adapter is not None:
        # by what is stored there: a head that the run trains may be another's
        fill(model, read_values(str(lora_path), model.config, read_settings(str(lora_path), model.config)))


def tokenizer_folder(model: ModelArguments, lora_path: str | None) -> Path:
    """Where tokenizer and template are: where the user says, else what was saved beside the adapter, else with the model."""
    beside = lora_path is not None and any((Path(lora_path) / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return Path(model.tokenizer_name_or_path or (lora_path if lora_path and beside else model.model_name_or_path))


def load_tokenizer(model: ModelArguments, lora_path: str | None) -> Tokenizer:
    """The tokenizer of ``tokenizer_folder``. Beside an adapter lies no config.json, so that the model's may have to name BOS and EOS."""
    folder = tokenizer_folder(model, lora_path)
    return Tokenizer.load(folder, model.model_name_or_path if lora_path and folder == Path(lora_path) else None)


def generation_folder(model: ModelArguments, lora_path: str | None) -> Path:
    """Whose generation_config.json holds: the one that was saved beside the adapter, else the model's."""
    return Path(lora_path if lora_path and (Path(lora_path) / GENERATION_FILE).is_file() else model.model_name_or_path)


def adapter_hash(lora_path: str) -> str:
    """A sha256 (hex) of an adapter's files."""
    return files_hash([Path(lora_path) / ADAPTER_CONFIG, Path(lora_path) / ADAPTER_WEIGHTS])
