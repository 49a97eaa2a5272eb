"""The files of a tokenizer folder, as one description in tokenizer.json's form: what transformers 5.23 would load.

transformers 5 takes LLaMA's, Qwen's and GPT-NeoX's tokenizers apart: it keeps vocabulary, merges and post-processor, and builds the rest
as the class has it, whatever the file says. Others it uses as they lie. The same is done here, so that the ids are the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddlealign.arguments.model_files import file_bytes, read_json_object
from paddlealign.data.sentencepiece_file import Pieces, read_pieces
from paddlealign.errors import UserError

_LIES = "TokenizersBackend"  # the file as it lies
_CLASS_OF = {
    "llama": "LlamaTokenizer", "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "gpt_neox": "GPTNeoXTokenizer", "mistral": _LIES,
    "phi3": _LIES,
}  # fmt: skip
_QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_FLAGS = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class TokenizerFile:
    """What a folder holds. file: tokenizer.json or tokenizer.model. content: tokenizer.json's object, as transformers 5 would build it.

    bos, eos: what a tokenizer.model says begins and ends a text; None for a tokenizer.json.
    """

    file: Path
    content: dict[str, Any]
    bos: str | None
    eos: str | None


def read_tokenizer_file(folder: Path, config: dict[str, Any], named: Sequence[str]) -> TokenizerFile:
    """Read tokenizer.json where there is one, tokenizer.model otherwise.

    config: tokenizer_config.json. named: the texts of the special tokens that it names. Raises UserError with the file and what is wrong.
    """
    model_type, wanted = read_json(folder / "config.json").get("model_type"), config.get("tokenizer_class")
    file = folder / "tokenizer.json"
    if file.is_file():
        content = read_json(file)
        model = content.get("model")
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
            raise UserError(f"{file}: not a tokenizer.json: it has no model with a vocab. Fetch the file anew from where the model comes.")
        kind = _loading_class(model_type, wanted, '"ByteLevel"' in json.dumps([content.get("pre_tokenizer"), content.get("decoder")]))
        lying = content.get("added_tokens") or []
        if kind == _LIES or not isinstance(model["vocab"], dict) or "merges" not in model:
            added = lying + _added_tokens(folder, config)
        else:
            content = _rebuilt(content, kind, config)
            added = _added_tokens(folder, config) + ([] if "added_tokens_decoder" in config else lying)
        return TokenizerFile(file, {**content, "added_tokens": _numbered(added, config, named, content["model"]["vocab"])}, None, None)
    file = folder / "tokenizer.model"
    if not file.is_file():
        raise UserError(f"{folder}: {_missing(folder)}")
    pieces = _pieces(file)
    content = _around(pieces, _loading_class(model_type or "llama", wanted, False), config)
    added = _added_tokens(folder, config)
    names = [*named, *(text for text in (pieces.bos, pieces.eos, pieces.model["unk_token"]) if text)]
    content["added_tokens"] = _numbered(added + pieces.added, config, names, pieces.model["vocab"])
    return TokenizerFile(file, content, pieces.bos, pieces.eos)


def read_json(path: Path) -> dict[str, Any]:
    """See ``read_json_object``; an empty one where there is no such file."""
    return read_json_object(path) if path.is_file() else {}


def _loading_class(model_type: object, wanted: object, byte_level: bool) -> str:
    """The class that transformers' AutoTokenizer loads, by config.json's model_type and tokenizer_config.json's tokenizer_class."""
    own = _CLASS_OF.get(model_type) if isinstance(model_type, str) else None
    named = wanted.removesuffix("Fast") if isinstance(wanted, str) else own
    if own != named and own is not None:
        # transformers trusts the tokenizer's own file more than the model's, except in Qwen 2, where many name a wrong one.
        named = own if own in (_LIES, "Qwen2Tokenizer") and model_type != "qwen3" else named
    if named == "LlamaTokenizer" and byte_level:
        return _LIES  # LLaMA 3 and its kin under LLaMA 2's name
    return named if named in ("LlamaTokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer") else _LIES


def _rebuilt(content: dict[str, Any], kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Vocabulary, merges and post-processor of a tokenizer.json, with all else as the class has it."""
    model = {**content["model"], "type": "BPE", "dropout": None, "unk_token": None, "ignore_merges": False}
    model |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}
    if kind == "LlamaTokenizer":
        return {**content, "model": {**model, "fuse_unk": True, "byte_fallback": True}, **_llama(config)}
    prefix = bool(config.get("add_prefix_space"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": kind == "GPTNeoXTokenizer"}
    split = {"type": "Split", "pattern": {"Regex": _QWEN_SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        **content,
        "model": {**model, "fuse_unk": False, "byte_fallback": False},
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level if kind == "GPTNeoXTokenizer" else {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }


def _around(pieces: Pieces, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json around the pieces of a tokenizer.model."""
    content = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, "model": pieces.model}
    if kind == "LlamaTokenizer":
        return {**content, "model": {**pieces.model, "unk_token": None, "byte_fallback": True}, **_llama(config)}
    # transformers 5 puts no space before the text here, whatever the file says of a dummy prefix (Mistral's first models say it).
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    return {**content, **_llama({"add_prefix_space": False}), "normalizer": replace, "pre_tokenizer": None}


def _llama(config: dict[str, Any]) -> dict[str, Any]:
    """LLaMA 2's way with spaces: one is put before the text's first part, or before every part when ``legacy``, and taken away again."""
    prefix = config.get("add_prefix_space") in (None, True)
    scheme = "never" if not prefix else "always" if config.get("legacy") else "first"
    back: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}]
    back += [{"type": "ByteFallback"}, {"type": "Fuse"}]
    back += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False},
        "decoder": {"type": "Sequence", "decoders": back},
    }


def _added_tokens(folder: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens beside the vocabulary that tokenizer_config.json lists, or the older added_tokens.json, in the order of their ids."""
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        tokens = [{**value, "id": int(index)} for index, value in listed.items() if index.isdigit() and isinstance(value, dict)]
    else:
        older = read_json(folder / "added_tokens.json")
        tokens = [{"content": text, "id": index} for text, index in older.items() if isinstance(index, int)]
    return sorted(tokens, key=lambda token: token["id"])


def _numbered(tokens: list[dict[str, Any]], config: dict[str, Any], named: Sequence[str], vocab: Any) -> list[dict[str, Any]]:
    """Added tokens for a tokenizer.json: the first of each text, with all flags; and the named ones that the vocabulary holds, as special.

    A named token that is nowhere in the files gets no id: no model could know it.
    """
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    names = [item.get("content") if isinstance(item, dict) else item for item in extra] if isinstance(extra, list) else []
    special = [*named, *(text for text in names if isinstance(text, str))]
    ids = vocab if isinstance(vocab, dict) else {piece[0]: index for index, piece in enumerate(vocab)}
    result: dict[str, dict[str, Any]] = {}
    for token in [*tokens, *({"content": text, "special": True} for text in special)]:
        text = token.get("content")
        if not isinstance(text, str) or not text or text in result:
            continue
        index = ids.get(text, token.get("id"))
        if index is not None:
            is_special = bool(token.get("special", text in special))
            flags = {key: bool(token.get(key)) for key in _FLAGS}
            normalized = bool(token.get("normalized", not is_special))
            result[text] = {"id": index, "content": text, **flags, "normalized": normalized, "special": is_special}
    return list(result.values())


def _pieces(file: Path) -> Pieces:
    """The pieces of a tokenizer.model, or a UserError that says what the file is instead."""
    data = file_bytes(file)
    first = data.split(b"\n", 1)[0].split(b" ")
    if len(first) == 2 and first[1].isdigit() and first[0].isascii():
        raise UserError(
            f"{file}: a tiktoken file, as in LLaMA 3's original form. Put the tokenizer.json of its HuggingFace form beside it."
        )
    try:
        return read_pieces(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as a sentencepiece model: {error}.") from None


def _missing(folder: Path) -> str:
    """What to do about a folder without a tokenizer."""
    text = "no tokenizer.json and no tokenizer.model in this folder; one of them is needed."
    if (folder / "vocab.json").is_file():
        text += (
            " vocab.json and merges.txt alone are not read; transformers' AutoTokenizer makes a tokenizer.json of them (save_pretrained)."
        )
    return text
