"""The text of special tokens within the data's own texts: kept as text, and never read as control tokens.

While a row is rendered, each such text is masked: a stand-in character as often as the text is long, which a chat template passes through
as it does any other. So whatever control token is found afterwards was written by the template, and no place in the text moves.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_FIRST = 0x100000  # private use: no text of people holds them; one for each special token
_MASKED = re.compile("[\U00100000-\U0010ffff]+")  # far quicker than a look for each


class FramedText(NamedTuple):
    """A text with control tokens. masked: the same with the data's own special-token texts masked; None where it has none."""

    text: str
    masked: str | None = None

    def own_spans(self) -> list[tuple[int, int]]:
        """Where the data's own special-token texts stand."""
        return [match.span() for match in _MASKED.finditer(self.masked or "")]


class Masks:
    """Stand-ins for some texts, each as long as the text that it stands for. texts: a pattern that finds them."""

    def __init__(self, texts: Sequence[str]):
        self.mask_of = {text: chr(_FIRST + number) * len(text) for number, text in enumerate(dict.fromkeys(texts))}
        self._text_of = {mask: text for text, mask in self.mask_of.items()}
        self.texts, self._masks = any_of(list(self.mask_of)), any_of(list(self._text_of))
        self._beginnings = tuple({text[:length] for text in self.mask_of for length in range(1, len(text))})

    def mask(self, value: Any) -> Any:
        """A text, or JSON's value of texts, with all of the texts in it masked."""
        if isinstance(value, str):
            return self.texts.sub(lambda match: self.mask_of[match.group()], value)
        if isinstance(value, Mapping):
            return {self.mask(key): self.mask(item) for key, item in value.items()}
        return [self.mask(item) for item in value] if isinstance(value, list | tuple) else value

    def unmask(self, text: str) -> str:
        """The text as it is meant."""
        if not _MASKED.search(text):
            return text
        return self._masks.sub(lambda match: self._text_of[match.group()], text)

    def begins_one(self, text: str) -> bool:
        """Whether a text, but for white space behind it, ends with the beginning of one of the texts."""
        return text.rstrip().endswith(self._beginnings)

    def framed(self, text: str) -> FramedText:
        """A rendered text, with its masks beside what is meant where it has any."""
        meant = self.unmask(text)
        return FramedText(meant, None if meant == text else text)


def any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """A pattern for any of some texts, longer ones first; it matches nothing where there are none."""
    return re.compile("|".join(re.escape(text) for text in sorted(set(texts), key=len, reverse=True)) or "(?!)")
