"""The tokenizer of a checkpoint folder in HuggingFace's layout, as transformers 4 or 5 wrote it, without transformers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddlealign.arguments.model_files import file_text, shown
from paddlealign.data.literal_text import FramedText
from paddlealign.data.token_models import Spans, TokenModel, Tokens
from paddlealign.data.tokenizer_files import read_json, read_tokenizer_file
from paddlealign.errors import UserError

_SPECIAL_KEYS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back, and the few ids and texts that training and generation need.

    bos_id: None where the checkpoint names no BOS. add_bos: whether a text begins with it.
    stop_ids: the ids that end a generated text by the checkpoint's own files (with the chat template's end of turn: ``Template.stop_ids``).
    special_tokens: text -> id. named_tokens: bos_token, eos_token, ... as a chat template reads them.
    fingerprint: hex; changes when ids could change. tool_template: the chat template for rows with tools, where there is one of its own.
    """

    model: TokenModel
    bos_id: int | None
    eos_id: int
    add_bos: bool
    stop_ids: tuple[int, ...]
    special_tokens: dict[str, int]
    named_tokens: dict[str, str]
    chat_template: str | None
    tool_template: str | None
    fingerprint: str
    folder: Path

    @staticmethod
    def load(folder: str | Path, model: str | Path | None = None) -> "Tokenizer":
        """Read the tokenizer of a folder: tokenizer.json where there is one, tokenizer.model otherwise.

        model: the folder whose config.json names BOS and EOS where the tokenizer's files do not; None: the same folder.
        """
        return _load(Path(folder), Path(folder if model is None else model) / "config.json")

    def encode(self, text: str) -> Tokens:
        """Ids of a text with the characters that each covers. No BOS or EOS is added; those in the text become their ids."""
        return self.model.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], plain: Sequence[Spans] | None = None) -> list[Tokens]:
        """``encode`` for many texts, faster. plain: see ``TokenModel.encode_batch``."""
        return self.model.encode_batch(texts, plain)

    def encode_framed(self, texts: Sequence[FramedText]) -> list[Tokens | None]:
        """``encode`` for texts in which the data may have written special tokens as text; None where one cannot be kept as text."""
        batch = iter(self.encode_batch([framed.text for framed in texts if framed.masked is None]))
        return [next(batch) if framed.masked is None else self._encode_masked(framed) for framed in texts]

    def _encode_masked(self, framed: FramedText) -> Tokens | None:
        spans = framed.own_spans()
        try:
            [tokens] = self.encode_batch([framed.text], [spans])
        except ValueError:
            return None
        # A vocabulary may have no other piece for it, or its merges may spell the token.
        control = np.isin(tokens.ids, list(self.model.added_tokens().values()))
        for start, end in spans:
            inside = (tokens.starts < end) & (tokens.ends > start)
            covered = set().union(*(range(a, b) for a, b in zip(tokens.starts[inside], tokens.ends[inside], strict=True)))
            if control[inside].any() or not covered >= set(range(start, end)):
                return None
        return tokens

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """The tokens that only a template writes: all special ones, BOS and EOS among them."""
        named = [self.named_tokens[key] for key in ("bos_token", "eos_token") if key in self.named_tokens]
        return tuple(dict.fromkeys([*self.special_tokens, *named]))

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special: bool = True) -> str:
        """Text of some ids. Nothing is cleaned up: spaces before punctuation stay as the model wrote them."""
        return self.model.decode([int(index) for index in ids], skip_special)

    @property
    def pad_id(self) -> int:
        """What fills packed rows up: the EOS, since a pad_token may lie beyond the model's vocabulary. No token sees it, none is scored."""
        return self.eos_id

    @property
    def size(self) -> int:
        """The highest id and one: the rows that an embedding needs."""
        return self.model.size()

    @property
    def eos_token(self) -> str:
        """The EOS as text."""
        return self.named_tokens["eos_token"]


def _load(folder: Path, model_config: Path) -> Tokenizer:
    if not folder.is_dir():
        raise UserError(f"tokenizer: there is no folder {str(folder)!r}.")
    config = read_json(folder / "tokenizer_config.json")
    named = _named_tokens(folder, config)
    read = read_tokenizer_file(folder, config, list(named.values()))
    model = TokenModel(read.content, read.file)
    own_bos, own_eos = (None if text is None else model.token_to_id(text) for text in (read.bos, read.eos))

    eos_ids = _id_list(folder / "generation_config.json", "eos_token_id") or _id_list(model_config, "eos_token_id")
    _fill_from_ids(named, "eos_token", [own_eos, *eos_ids], model)
    if "bos_token" not in config or config["bos_token"] is not None:  # null is an answer: this model has none
        _fill_from_ids(named, "bos_token", [own_bos, *_id_list(model_config, "bos_token_id")], model)
    if "eos_token" not in named:
        raise UserError(f"{folder}: no eos_token in tokenizer_config.json and no eos_token_id in generation_config.json or config.json.")
    eos_id = _known_id(model, named["eos_token"], "eos_token", folder)
    bos_id = _known_id(model, named["bos_token"], "bos_token", folder) if "bos_token" in named else None
    says = config.get("add_bos_token")
    begins = read.bos is not None or model.first_id == bos_id  # LLaMA's tokenizer.model puts its BOS first, a tokenizer.json says so
    add_bos = bos_id is not None and (begins if says is None else bool(says))
    templates = _chat_templates(folder, config)
    resolved = [read.content, named, add_bos, templates]
    fingerprint = hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()
    return Tokenizer(
        model=model,
        bos_id=bos_id,
        eos_id=eos_id,
        add_bos=add_bos,
        stop_ids=tuple(dict.fromkeys([eos_id, *eos_ids])),
        special_tokens=model.special_tokens(),
        named_tokens=named,
        chat_template=templates.get("default"),
        tool_template=templates.get("tool_use"),
        fingerprint=fingerprint,
        folder=folder,
    )


def _named_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, pad_token, unk_token as texts; those that are null, blank (old LLaMA) or not named are left out."""
    named: dict[str, str] = {}
    special_map = read_json(folder / "special_tokens_map.json")
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


def _fill_from_ids(named: dict[str, str], key: str, ids: Sequence[int | None], model: TokenModel) -> None:
    """Name a token by the first of these ids that is known, where the tokenizer's JSON files do not name it."""
    known = [token for index in ids if index is not None and (token := model.id_to_token(index)) is not None]
    if key not in named and known:
        named[key] = known[0]


def _known_id(model: TokenModel, token: str, key: str, folder: Path) -> int:
    index = model.token_to_id(token)
    if index is None:
        raise UserError(f"{folder}/tokenizer_config.json: {key} is {token!r}, which the vocabulary does not hold.")
    return index


def _id_list(path: Path, key: str) -> list[int]:
    """The ids that a JSON file gives for a key: one, a list of them, or null. Old LLaMA files say -1 where they mean none."""
    value = read_json(path).get(key)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, int) for item in ids):
        raise UserError(f"{path}: {key} is {shown(value)}; a token id, a list of them, or null was expected.")
    return [item for item in ids if item >= 0]


def _chat_templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """The chat templates by name: chat_template.jinja (transformers 5) before tokenizer_config.json's and the older chat_template.json."""
    value = config.get("chat_template") or read_json(folder / "chat_template.json").get("chat_template")
    items = value if isinstance(value, list) else [{"name": "default", "template": value}]
    named = {item.get("name"): item.get("template") for item in items if isinstance(item, dict)}
    files = {"default": folder / "chat_template.jinja", "tool_use": folder / "additional_chat_templates" / "tool_use.jinja"}
    if files["default"].is_file():
        named = {name: file_text(file) for name, file in files.items() if file.is_file()}
    return {str(name): text for name, text in named.items() if isinstance(text, str) and text}
