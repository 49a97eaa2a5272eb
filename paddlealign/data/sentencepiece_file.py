"""The pieces of a sentencepiece tokenizer.model, as a description in tokenizer.json's form.

The file is a protobuf message; only the fields that LLaMA's kind of model needs are read:
ModelProto {pieces = 1 {piece = 1, score = 2, type = 3}, trainer_spec = 2 {model_type = 3, byte_fallback = 35, bos_id = 41, eos_id = 42},
normalizer_spec = 3 {precompiled_charsmap = 2}}.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BPE = 2
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_KINDS = {1: "unigram", 3: "word", 4: "char"}


@dataclass(frozen=True)
class Pieces:
    """What a tokenizer.model holds.

    model: tokenizer.json's ``model``: vocabulary and merges. bos, eos: the tokens that begin and end a text, None where the file has none.
    added: control (special) and user-defined pieces, as tokenizer.json's ``added_tokens``.
    """

    model: dict[str, Any]
    bos: str | None
    eos: str | None
    added: list[dict[str, Any]]


def read_pieces(data: bytes) -> Pieces:
    """Read the bytes of a tokenizer.model. Raises ValueError, in plain words, where they are none or of another kind than BPE."""
    texts: list[str] = []
    types: list[int] = []
    trainer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(_message(value)))
            texts.append(_message(piece.get(1, b"")).decode("utf-8"))
            types.append(int(piece.get(3, 1)))
        elif number == 2:
            trainer = dict(_fields(_message(value)))
        elif number == 3 and dict(_fields(_message(value))).get(2):
            raise ValueError("it has normalising rules of its own (precompiled_charsmap), which are not read; use a tokenizer.json")
    if not texts:
        raise ValueError("it holds no pieces")
    if not trainer:
        raise ValueError("it is cut off behind its pieces")
    kind = int(trainer.get(3, 1))
    if kind != _BPE:
        raise ValueError(f"it is of the {_KINDS.get(kind, kind)} kind; BPE is read, for others use a tokenizer.json")
    ids = {text: index for index, text in enumerate(texts)}
    unknown = texts[types.index(_UNKNOWN)] if _UNKNOWN in types else None
    model = {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": True, "byte_fallback": bool(trainer.get(35, 0)), "ignore_merges": False, "vocab": ids, "merges": _merges(ids),
    }  # fmt: skip
    # An id of -1, "none", is a very large number here.
    bos, eos = (texts[index] if index < len(texts) else None for index in (int(trainer.get(41, 1)), int(trainer.get(42, 2))))
    added = [
        {"content": text, "normalized": False, "special": type_ == _CONTROL}
        for text, type_ in zip(texts, types, strict=True)
        if type_ in (_CONTROL, _USER_DEFINED)
    ]
    return Pieces(model, bos, eos, added)


def _merges(ids: dict[str, int]) -> list[list[str]]:
    """Every pair of pieces that makes a piece, in the order of what they make: sentencepiece merges the best piece first."""
    cuts = ((index, cut, text) for text, index in ids.items() for cut in range(1, len(text)))
    pairs = [(index, cut, text) for index, cut, text in cuts if text[:cut] in ids and text[cut:] in ids]
    return [[text[:cut], text[cut:]] for _, cut, text in sorted(pairs)]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message: varints as int, all else as bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == 0:
            value, place = _varint(data, place)
        elif wire in (1, 2, 5):
            size, place = _varint(data, place) if wire == 2 else (8 if wire == 1 else 4, place)
            value, place = data[place : place + size], place + size
        else:
            raise ValueError("it is no sentencepiece model")
        if place > len(data) or number == 0:
            raise ValueError("it is no sentencepiece model, or it is cut off")
        yield number, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """An integer in groups of 7 bits, the lowest first, and the place behind it."""
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
    raise ValueError("it is no sentencepiece model, or it is cut off")


def _message(value: int | bytes) -> bytes:
    """A field that must not be a number."""
    if isinstance(value, int):
        raise ValueError("it is no sentencepiece model")
    return value
