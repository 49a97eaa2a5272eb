"""Text to ids and back, by the tokenizers library: the description that ``tokenizer_files`` gives, and where each token lies in the text.

Special tokens that stand in the text become their ids, unless they stand in a part that is said to be plain; nothing is added to it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

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


# Where plain text holds a special token, the others are spelled in these characters, which stand for nothing, one for each token.
_PRIVATE = 0xF0000
Spans = Sequence[tuple[int, int]]

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
        first = self._model.encode("a").ids[:1]
        # What the file's post-processor puts first; the tokenizer looks whether it is the BOS.
        self.first_id: int | None = first[0] if first != self._model.encode("a", add_special_tokens=False).ids[:1] else None
        _whole_texts(self._model)
        self._respelled: tokenizers.Tokenizer | None = None

    def encode_batch(self, texts: Sequence[str], plain: Sequence[Spans] | None = None) -> list[Tokens]:
        """Tokenise texts. plain: for each text the parts, (start, end) in characters, in which a special token is text like any other.

        Raises ValueError where a plain part with a special token stands beside characters of private use (U+F0000 on).
        """
        result = [_tokens(encoding) for encoding in self._model.encode_batch(list(texts), add_special_tokens=False)]
        for index, spans in enumerate(plain or ()):
            if any(token in texts[index][start:end] for start, end in spans for token in self.special_tokens()):
                result[index] = self._encode_plain(texts[index], spans)
        return result

    def _encode_plain(self, text: str, spans: Spans) -> Tokens:
        """Ids of a text in whose plain parts a special token stands: a tokenizer that spells special tokens otherwise does not see it."""
        names = {token: chr(_PRIVATE + number) * len(token) for number, token in enumerate(self.special_tokens())}
        if self._respelled is None:
            self._respelled = tokenizers.Tokenizer.from_str(json.dumps(_renamed(self.description(), names)))
            _whole_texts(self._respelled)
        if any(_PRIVATE <= ord(sign) < _PRIVATE + len(names) for sign in text):
            raise ValueError("a special token in plain text beside characters of private use")
        pattern = re.compile("|".join(re.escape(token) for token in sorted(names, key=len, reverse=True)))
        parts, place = [], 0
        for start, end in sorted(spans):
            # As long as the token itself, so that every place in the text stays where it is.
            parts += [pattern.sub(lambda found: names[found[0]], text[place:start]), text[start:end]]
            place = end
        parts.append(pattern.sub(lambda found: names[found[0]], text[place:]))
        return _tokens(self._respelled.encode("".join(parts), add_special_tokens=False))

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


def _whole_texts(model: tokenizers.Tokenizer) -> None:
    """Have a tokenizer give a text's ids and places as they are."""
    model.no_padding()
    model.no_truncation()
    # ByteLevel's own trimming would take white space out of the offsets.
    model.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)


def _tokens(encoding: tokenizers.Encoding) -> Tokens:
    # twice as fast as np.array of pairs, which is a tenth of all that is done to a row
    offsets = np.fromiter(chain.from_iterable(encoding.offsets), np.int32, 2 * len(encoding)).reshape(-1, 2)
    return Tokens(np.array(encoding.ids, np.int32), offsets[:, 0], offsets[:, 1])


def _renamed(content: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """tokenizer.json's object with special tokens under other names, each with its own id. names: token -> its name there."""
    added = [{**token, "content": names.get(token["content"], token["content"])} for token in content["added_tokens"]]
    model, vocabulary = content["model"], content["model"]["vocab"]
    if isinstance(vocabulary, dict):
        # The token's own text stays, since merges may name it; ids are the same where they lie beyond the vocabulary, too.
        vocabulary = {**vocabulary, **{token["content"]: token["id"] for token in added}}
    else:
        vocabulary = [[names.get(token, token), score] for token, score in vocabulary]
    unknown = {"unk_token": names.get(model["unk_token"], model["unk_token"])} if model.get("unk_token") else {}
    return {**content, "added_tokens": added, "model": {**model, "vocab": vocabulary, **unknown}}


def _decoder_kind(decoder: Any) -> str:
    if not isinstance(decoder, dict):
        return "other"
    if decoder.get("type") == "ByteLevel":
        return "bytes"
    steps = decoder.get("decoders")
    return "plain" if steps == _FALLBACK else "spaced" if steps == [*_FALLBACK, _STRIP] else "other"
