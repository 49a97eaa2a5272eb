"""The tokenizer of a checkpoint folder in HuggingFace's layout, as transformers 4 or 5 wrote it, without transformers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.data.token_models import AddedToken, JsonModel, SentencePieceModel, Tokens
from paddlealign.errors import UserError

_SPECIAL_KEYS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back, and the few ids and texts that training and generation need.

    bos_id: None where the checkpoint names no BOS. add_bos: whether a text begins with it.
    stop_ids: the ids that end a generated text by the checkpoint's own files (with the chat template's end of turn: ``Template.stop_ids``).
    special_tokens: text -> id. named_tokens: bos_token, eos_token, ... as a chat template reads them.
    fingerprint: hex; changes when ids could change.
    """

    model: JsonModel | SentencePieceModel
    bos_id: int | None
    eos_id: int
    add_bos: bool
    stop_ids: tuple[int, ...]
    special_tokens: dict[str, int]
    named_tokens: dict[str, str]
    chat_template: str | None
    fingerprint: str
    folder: Path

    @staticmethod
    def load(folder: str | Path) -> "Tokenizer":
        """Read the tokenizer of a folder: tokenizer.json where there is one, tokenizer.model otherwise."""
        return _load(Path(folder))

    def encode(self, text: str) -> Tokens:
        """Ids of a text with the characters that each covers. No BOS or EOS is added; those in the text become their ids."""
        return self.model.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """``encode`` for many texts, faster."""
        return self.model.encode_batch(texts)

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special: bool = True) -> str:
        """Text of some ids. Nothing is cleaned up: spaces before punctuation stay as the model wrote them."""
        return self.model.decode([int(index) for index in ids], skip_special)

    @property
    def pad_id(self) -> int:
        """What fills packed rows up: the EOS, since a pad_token may lie beyond the model's vocabulary. No token sees it, none is scored."""
        return self.eos_id

    @property
    def eos_token(self) -> str:
        """The EOS as text."""
        return self.named_tokens["eos_token"]


def _load(folder: Path) -> Tokenizer:
    if not folder.is_dir():
        raise UserError(f"tokenizer: there is no folder {str(folder)!r}.")
    config = _read_json(folder / "tokenizer_config.json")
    named = _named_tokens(folder, config)
    json_file, spm_file = folder / "tokenizer.json", folder / "tokenizer.model"
    model: JsonModel | SentencePieceModel
    if json_file.is_file():
        model, file = JsonModel(json_file, named.values()), json_file
    elif spm_file.is_file():
        prefix_space, legacy = config.get("add_prefix_space"), config.get("legacy")
        model = SentencePieceModel(spm_file, _added_tokens(folder, config), prefix_space is not False, bool(legacy))
        file = spm_file
    else:
        raise UserError(f"{folder}: no tokenizer.json and no tokenizer.model in this folder; one of them is needed.")

    eos_ids = _id_list(folder / "generation_config.json", "eos_token_id") or _id_list(folder / "config.json", "eos_token_id")
    _fill_from_ids(named, "eos_token", [model.last_id, *eos_ids], model)
    if "bos_token" not in config or config["bos_token"] is not None:  # null is an answer: this model has none
        own = model.first_id if isinstance(model, SentencePieceModel) else None
        _fill_from_ids(named, "bos_token", [own, *_id_list(folder / "config.json", "bos_token_id")], model)
    if "eos_token" not in named:
        raise UserError(f"{folder}: no eos_token in tokenizer_config.json and no eos_token_id in generation_config.json or config.json.")
    eos_id = _known_id(model, named["eos_token"], "eos_token", folder)
    bos_id = _known_id(model, named["bos_token"], "bos_token", folder) if "bos_token" in named else None
    says = config.get("add_bos_token")
    add_bos = bos_id is not None and (model.first_id == bos_id if says is None else bool(says))
    template = _chat_template(folder, config)
    resolved = [named, add_bos, config.get("legacy"), config.get("add_prefix_space"), sorted(model.special_tokens().items()), template]
    fingerprint = hashlib.sha256(file.read_bytes() + json.dumps(resolved, sort_keys=True).encode()).hexdigest()
    return Tokenizer(
        model=model,
        bos_id=bos_id,
        eos_id=eos_id,
        add_bos=add_bos,
        stop_ids=tuple(dict.fromkeys([eos_id, *eos_ids])),
        special_tokens=model.special_tokens(),
        named_tokens=named,
        chat_template=template,
        fingerprint=fingerprint,
        folder=folder,
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: found a {type(value).__name__}, a JSON object is needed.")
    return value


def _named_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, pad_token, unk_token as texts; those that are null, blank (old LLaMA) or not named are left out."""
    named: dict[str, str] = {}
    special_map = _read_json(folder / "special_tokens_map.json")
    for key in _SPECIAL_KEYS:
        text = _token_text(config.get(key))
        if key not in config or text == "":
            text = _token_text(special_map.get(key))
        if text:
            named[key] = text
    return named


def _token_text(value: object) -> str | None:
    """A named token as text, "" where it is blank. transformers 4 may write {"content": "</s>", "lstrip": ...}."""
    if isinstance(value, dict):
        value = value.get("content")
    if not isinstance(value, str):
        return None
    return value if value.strip() else ""


def _added_tokens(folder: Path, config: dict[str, Any]) -> list[AddedToken]:
    """The tokens beside a sentencepiece model, from tokenizer_config.json or the older added_tokens.json."""
    added = {text: AddedToken(text, int(index)) for text, index in _read_json(folder / "added_tokens.json").items()}
    for index, value in (config.get("added_tokens_decoder") or {}).items():
        if isinstance(value, dict) and value.get("content"):
            special, lstrip, rstrip = (bool(value.get(key)) for key in ("special", "lstrip", "rstrip"))
            added[value["content"]] = AddedToken(value["content"], int(index), special, lstrip, rstrip)
    return list(added.values())


def _fill_from_ids(named: dict[str, str], key: str, ids: Sequence[int | None], model: JsonModel | SentencePieceModel) -> None:
    """Name a token by the first of these ids that is known, where the tokenizer's JSON files do not name it."""
    known = [token for index in ids if index is not None and (token := model.id_to_token(index)) is not None]
    if key not in named and known:
        named[key] = known[0]


def _known_id(model: JsonModel | SentencePieceModel, token: str, key: str, folder: Path) -> int:
    index = model.token_to_id(token)
    if index is None:
        raise UserError(f"{folder}/tokenizer_config.json: {key} is {token!r}, which the vocabulary does not hold.")
    return index


def _id_list(path: Path, key: str) -> list[int]:
    """The ids that a JSON file gives for a key: one, a list of them, or null. Old LLaMA files say -1 where they mean none."""
    value = _read_json(path).get(key)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, int) for item in ids):
        raise UserError(f"{path}: {key} is {json.dumps(value)}; a token id, a list of them, or null was expected.")
    return [item for item in ids if item >= 0]


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template: chat_template.jinja (transformers 5) before tokenizer_config.json's and the older chat_template.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    value = config.get("chat_template") or _read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(value, list):  # named templates: [{"name": "default", "template": ...}, ...]
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}.get("default")
    return value if isinstance(value, str) and value else None
