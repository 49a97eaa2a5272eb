"""The two ways in which text becomes pieces: the tokenizers library (tokenizer.json) and sentencepiece (tokenizer.model).

Both classes offer the same few methods, and the ids that the file itself puts first and last (``first_id``, ``last_id``). Special
tokens that stand in the text become their ids; nothing is added to it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import tokenizers

from paddlealign.errors import UserError

# A protobuf field that comes a second time overrides the first: normalizer_spec { add_dummy_prefix: false }.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
_SPACE = "\u2581"


@dataclass(frozen=True)
class Tokens:
    """A tokenised text.

    ids: int32 [n]. starts, ends: int32 [n]; the characters of the text that each token covers. The tokens of one character
    (bytes) all cover it whole; a token that only stands for an added space covers nothing.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class AddedToken:
    """A token beside the model's own vocabulary; ``lstrip`` and ``rstrip`` take the white space around it in."""

    text: str
    id: int
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False


class JsonModel:
    """tokenizer.json, as the file says it."""

    def __init__(self, path: Path, special: Iterable[str]):
        try:
            self._model = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for every fault of the file
            raise UserError(f"{path}: not a tokenizer.json that the tokenizers library {tokenizers.__version__} reads: {error}.") from None
        self._model.no_padding()
        self._model.no_truncation()
        first = self._model.encode("a").ids[:1]
        # What the file's post-processor puts first; the tokenizer looks whether it is the BOS.
        self.first_id: int | None = first[0] if first != self._model.encode("a", add_special_tokens=False).ids[:1] else None
        self.last_id: int | None = None  # the file does not say what ends a text
        # transformers makes the configured specials special even where the file lists them as plain pieces.
        self._model.add_special_tokens([text for text in special if self._model.token_to_id(text) is not None])
        # ByteLevel's own trimming would take white space out of the offsets.
        self._model.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise texts."""
        result = []
        for encoding in self._model.encode_batch(list(texts), add_special_tokens=False):
            offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            result.append(Tokens(np.array(encoding.ids, np.int32), offsets[:, 0], offsets[:, 1]))
        return result

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Ids back to text, as the file's decoder says."""
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


class SentencePieceModel:
    """tokenizer.model, with the rules around it that transformers 5 has for LLaMA.

    The text before and after a special token is tokenised apart. The model's own dummy space is put before the text's first part
    only (or before every part when ``legacy``), and only where there is not a space already.
    """

    def __init__(self, path: Path, added: Iterable[AddedToken], prefix_space: bool, legacy: bool):
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes() + _NO_DUMMY_PREFIX)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path}: not a sentencepiece model: {error}.") from None
        self._prefix_space, self._legacy = prefix_space, legacy
        size = self._model.get_piece_size()
        control = [AddedToken(self._model.id_to_piece(i), i) for i in range(size) if self._model.is_control(i) or self._model.is_unknown(i)]
        tokens = {token.text: token for token in control}
        tokens.update({token.text: token for token in added})
        self._added = {token.id: token for token in tokens.values()}
        longest_first = sorted(tokens.values(), key=lambda token: -len(token.text))
        self._in_pattern = longest_first
        self._pattern = re.compile("|".join(_pattern(token) for token in longest_first))
        self._bytes = {i: bytes([int(self._model.id_to_piece(i)[3:5], 16)]) for i in range(size) if self._model.is_byte(i)}
        self.first_id: int | None = self._model.bos_id() if self._model.bos_id() >= 0 else None
        self.last_id: int | None = self._model.eos_id() if self._model.eos_id() >= 0 else None

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise texts."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Tokens:
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        place = 0
        for match in self._pattern.finditer(text):
            self._encode_part(text[place : match.start()], place, ids, spans)
            assert match.lastindex is not None
            ids.append(self._in_pattern[match.lastindex - 1].id)
            spans.append(match.span())
            place = match.end()
        self._encode_part(text[place:], place, ids, spans)
        offsets = np.array(spans, np.int32).reshape(-1, 2)
        return Tokens(np.array(ids, np.int32), offsets[:, 0], offsets[:, 1])

    def _encode_part(self, part: str, start: int, ids: list[int], spans: list[tuple[int, int]]) -> None:
        """Tokenise a part without special tokens that begins at ``start``; append to ids and spans."""
        if not part:
            return
        prefix = self._prefix_space and (self._legacy or start == 0) and part[0] not in (" ", _SPACE)
        mapping = self._model.encode_as_offset_mapping(" " + part if prefix else part)
        shift = start - prefix
        ids += mapping["ids"]
        ends_at = 0
        found = []
        for index, (begin, end) in zip(reversed(mapping["ids"]), reversed(mapping["offsets"]), strict=True):
            # Of a character's bytes only the last has a width; give it to all of them.
            ends_at = ends_at if begin == end and index in self._bytes else end
            found.append((max(begin + shift, start), max(ends_at + shift, start)))
        spans += reversed(found)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Ids back to text; one leading space goes where the model puts one before the text."""
        parts: list[bytes] = []
        for index in map(int, ids):
            added = self._added.get(index)
            if added is not None:
                if not (skip_special and added.special):
                    parts.append(added.text.encode())
            elif index in self._bytes:
                parts.append(self._bytes[index])
            elif 0 <= index < self._model.get_piece_size():
                parts.append(self._model.id_to_piece(index).replace(_SPACE, " ").encode())
        text = b"".join(parts).decode("utf-8", errors="replace")
        return text[1:] if self._prefix_space and text[:1] == " " else text

    def token_to_id(self, token: str) -> int | None:
        """The id of a piece or an added token."""
        for index, added in self._added.items():
            if added.text == token:
                return index
        index = self._model.piece_to_id(token)
        return index if self._model.id_to_piece(index) == token else None

    def id_to_token(self, index: int) -> str | None:
        """The piece or added token of an id."""
        if index in self._added:
            return self._added[index].text
        return self._model.id_to_piece(index) if 0 <= index < self._model.get_piece_size() else None

    def special_tokens(self) -> dict[str, int]:
        """Text -> id of all special tokens."""
        return {token.text: index for index, token in self._added.items() if token.special}


def _pattern(token: AddedToken) -> str:
    before, after = (r"\s*" if strip else "" for strip in (token.lstrip, token.rstrip))
    return f"({before}{re.escape(token.text)}{after})"
