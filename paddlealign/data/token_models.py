"""Text to ids and back, by the tokenizers library: the description that ``tokenizer_files`` gives, and where each token lies in the text.

Special tokens that stand in the text become their ids; nothing is added to it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from paddlealign.data.literal_text import FramedText, control_masks, text_masks
from paddlealign.errors import UserError


@dataclass(frozen=True)
class Tokens:
    """A tokenised text.

    ids: int32 [n]. starts, ends: int32 [n]; the characters of the text that each token covers. The tokens of one character
    (bytes) all cover it whole; a token that only stands for an added space covers the character behind it.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


# How the decoders of LLaMA's families are written: byte fallback, and then with the space in front of the text taken away.
_FALLBACK = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


class TokenModel:
    """A tokenizer of the tokenizers library.

    first_id: what its post-processor puts before a text, if anything. decoder: "bytes" (byte-level BPE), "plain" (pieces and byte tokens),
    "spaced" (the same without the space in front of the text) or "other".
    """

    def __init__(self, content: dict[str, Any], path: Path):
        try:
            self._model = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for every fault of the file
            raise UserError(f"{path}: not a tokenizer that the tokenizers library {tokenizers.__version__} reads: {error}.") from None
        self.decoder = _decoder_kind(content.get("decoder"))
        self._model.no_padding()
        self._model.no_truncation()
        first = self._model.encode("a").ids[:1]
        # What the file's post-processor puts first; the tokenizer looks whether it is the BOS.
        self.first_id: int | None = first[0] if first != self._model.encode("a", add_special_tokens=False).ids[:1] else None
        # ByteLevel's own trimming would take white space out of the offsets.
        self._model.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
        self._renamed: tuple[tuple[str, ...], tokenizers.Tokenizer] | None = None

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise texts."""
        return [_as_tokens(encoding) for encoding in self._model.encode_batch(list(texts), add_special_tokens=False)]

    def encode_masked(self, framed: FramedText, control: tuple[str, ...]) -> Tokens | None:
        """Tokenise a text that holds the texts of control tokens as text: they become what any characters become.

        The library is asked with the control tokens under other names, of the same length, so that spaces, merges and offsets are what they
        are everywhere else. None where that cannot be done: the model's own merges spell a control token, or the text holds such a name.
        """
        names, texts = control_masks(control), text_masks(control)
        if framed.masked is None or names.masked_texts(framed.text):
            return None
        if self._renamed is None or self._renamed[0] != control:
            model = _with_names(self.description(), names.mask_of)
            if model is None:
                return None
            self._renamed = (control, model)
        named = names.mask(framed.masked)
        tokens = _as_tokens(self._renamed[1].encode(texts.unmask(named), add_special_tokens=False))
        known = {index for token in control if (index := self.token_to_id(token)) is not None}
        wanted = [self.token_to_id(token) for token in names.masked_texts(named)]
        return tokens if [index for index in tokens.ids.tolist() if index in known] == wanted else None

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Ids back to text, as the description's decoder says."""
        return self._model.decode(list(ids), skip_special_tokens=skip_special)

    def token_to_id(self, token: str) -> int | None:
        """The id of a piece or an added token."""
        return self._model.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        """The piece or added token of an id."""
        return self._model.id_to_token(index)

    def special_tokens(self) -> dict[str, int]:
        """Text -> id of all special tokens."""
        return {token.content: index for index, token in self._model.get_added_tokens_decoder().items() if token.special}

    def description(self) -> dict[str, Any]:
        """tokenizer.json's object for this tokenizer, without a post-processor: it gives the ids that ``encode_batch`` gives."""
        return {**json.loads(self._model.to_str()), "post_processor": None}

    def size(self) -> int:
        """The highest id and one: the rows that an embedding needs."""
        return max(self._model.get_vocab(with_added_tokens=True).values()) + 1


def _as_tokens(encoding: Any) -> Tokens:
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    return Tokens(np.array(encoding.ids, np.int32), offsets[:, 0], offsets[:, 1])


def _with_names(content: dict[str, Any], name_of: dict[str, str]) -> tokenizers.Tokenizer | None:
    """The tokenizer of a description with some of its added tokens under other names and the same ids; None where it cannot have them."""
    model, added = content["model"], content["added_tokens"]
    if not isinstance(model.get("vocab"), dict):
        return None
    vocab = {**model["vocab"], **{name_of.get(token["content"], token["content"]): token["id"] for token in added}}
    renamed = [{**token, "content": name_of.get(token["content"], token["content"])} for token in added]
    result = tokenizers.Tokenizer.from_str(json.dumps({**content, "model": {**model, "vocab": vocab}, "added_tokens": renamed}))
    result.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return result


def _decoder_kind(decoder: Any) -> str:
    if not isinstance(decoder, dict):
        return "other"
    if decoder.get("type") == "ByteLevel":
        return "bytes"
    steps = decoder.get("decoders")
    return "plain" if steps == _FALLBACK else "spaced" if steps == [*_FALLBACK, _STRIP] else "other"
