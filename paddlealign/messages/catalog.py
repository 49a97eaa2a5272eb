"""A catalog of translated templates, and how a finished English text finds its own in it.

The source builds its messages as f-strings, and nothing there knows of languages. A finished text is compared with the templates, as a
whole and in pieces, and what stands in their places again, since messages are made of messages. Of all ways to read it so, that one is
taken in which most of its letters are the templates' own. A value may be a user's text that happens to say what a message says: it is
translated only where it is a long message as a whole, or stands where the catalog says that a message does (``{name~}``).
"""

import re
from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from gettext import GNUTranslations
from pathlib import Path
from typing import NamedTuple

from paddlealign.messages.template import Place, Variant, fill, marks, match, parse, variants

_LONG = 2000  # characters; in a longer text, which quotes another, no messages are looked for but it itself
_PIECES = 40  # that one message may have of a line
_LEADING = 4  # words of a value, such as a key, that may stand in front of a message
_STRONG = 12  # letters: with so many and two words, a message is trusted wherever it stands
_FAIR = 7  # letters: with so many, one in a line of ours is, beside single words
_WEAK = 3  # letters: one in a line of ours is, beside numbers; with fewer, none is
_SURE = 16  # letters: where the longest template has so many and fits, no other way of reading is tried
_JOINTS = re.compile(r"(; |: |, | \(|\)|\.(?= |$)|(?<=[.?]) )")
_WIDE = {"; ": "；", ": ": "：", ", ": "，", ".": "。", " ": ""}
# Commands and quoted columns, "a, b and c" and "'a' and no 'b'": no other list is taken for ours.
_NAME = r"(?:[a-z]+_main\.py|predict\.py|evaluate\.py [a-z]+|python -m paddlealign\.[a-z_]+|'[a-z_]+')"
_LIST = re.compile(rf"({_NAME}(?:, {_NAME})*),? (and no|and|or) ({_NAME})")
_BETWEEN = {"and": "和", "or": "或", "and no": "和"}
_HEADINGS = ("error: ", "note: ", "warning: ")  # what is behind them begins anew
_WORD = re.compile(r"[A-Za-z_]+")
_NUMBER = re.compile(r"[-+]?\d[\d,.e+-]*%?")


class Trust(IntEnum):
    """What is known of a text: that it stands behind other words, is somebody's value, is said by messages, or is a line of ours."""

    REST = 0
    VALUE = 1
    TOLD = 2
    LINE = 3


class Entry(NamedTuple):
    """A way to say a message, its translation, the words that it always has, its longest text, and the marks of its places.

    letters: how long its texts are together. own: how many letters of words these have. strong: it is trusted anywhere.
    """

    variant: Variant
    translation: str
    words: frozenset[str]
    longest: str
    letters: int
    own: int
    strong: bool
    marks: dict[str, str]


class Reading(NamedTuple):
    """A text as it was read: how many of its letters are the templates' own, and its translation."""

    letters: int
    text: str


class Known(NamedTuple):
    """What was read of a text already: as one message, or None; in whatever way; and which texts can hardly be read in another."""

    wholes: dict[tuple[str, Trust], Reading | None]
    values: dict[str, Reading]
    sure: set[str]


class Catalog:
    """Translations by template."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        """messages: template -> translated template, as ``template.parse`` reads them."""
        entries = [entry_of(variant, translation) for template, translation in messages.items() for variant in variants(parse(template))]
        usual = Counter(word for entry in entries for word in entry.words)
        self._by_word: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.words:
                self._by_word.setdefault(min(entry.words, key=lambda word: (usual[word], word)), []).append(entry)

    def translate(self, text: str) -> str:
        """The text in the catalog's language; what is not known stays as it is."""
        if "Traceback (most recent call last)" in text:
            return text  # lines of code in it would be read as messages
        if "\n" in text:
            whole = self._whole(text, self._near(text), Known({}, {}, set()), Trust.LINE)
            if whole is not None:
                return whole.text
        return "\n".join(self._line(line, self._near(line), Known({}, {}, set())).text for line in text.split("\n"))

    def _near(self, text: str) -> list[Entry]:
        """The entries all of whose words a text has, those with most letters first."""
        words = frozenset(_WORD.findall(text))
        near = [entry for word in words for entry in self._by_word.get(word, ()) if entry.words <= words]
        return sorted(near, key=lambda entry: (-entry.letters, entry.translation))

    def _whole(self, text: str, near: list[Entry], known: Known, trust: Trust) -> Reading | None:
        """The text as one message, or None. near: the entries in question, those with most letters first."""
        if (text, trust) in known.wholes:
            return known.wholes[text, trust]
        best: Reading | None = None
        near = [entry for entry in near if entry.longest in text]
        headed = text.startswith(_HEADINGS)
        for entry in near:
            if headed and isinstance(entry.variant.parts[0], Place):
                continue
            values = match(entry.variant.parts, text)
            if values is None or not _is_likely(entry, values, trust):
                continue
            read = {name: self._at_place(value, entry.marks.get(name, ""), near, known) for name, value in values.items()}
            letters = entry.letters + sum(value.letters for value in read.values())
            if best is None or letters > best.letters:
                changed = {name: value.text for name, value in read.items()}
                best = Reading(letters, fill(parse(entry.translation), changed, entry.variant.chosen))
            # In front of what begins with a value, such as a path, another message may stand.
            first = entry.variant.parts[0]
            if entry is near[0] and entry.letters >= _SURE and not (isinstance(first, Place) and ": " in values[first.name]):
                known.sure.add(text)
                break
        known.wholes[text, trust] = best
        return best

    def _at_place(self, text: str, mark: str, near: list[Entry], known: Known) -> Reading:
        """What stands in a place with that mark."""
        if mark == "~":
            return self._told(text, near, known, Trust.TOLD)
        return (None if mark else self._whole(text, near, known, Trust.VALUE)) or Reading(0, text)

    def _told(self, text: str, near: list[Entry], known: Known, trust: Trust) -> Reading:
        """A message, or several that were joined, or something else."""
        if not near or not _WORD.search(text):
            return Reading(0, text)
        names = _LIST.fullmatch(text)
        if names:
            return Reading(len(names[2]) + 2, f"{names[1]} {_BETWEEN[names[2]]} {names[3]}")
        if text not in known.values:
            best = self._whole(text, near, known, trust)
            if len(text) > _LONG:
                best = best or Reading(0, text)
            elif best is None or not (text in known.sure or text.startswith(_HEADINGS)):
                joined = self._lines(text, near, known) if "\n" in text else self._joined(_JOINTS.split(text), near, known)
                best = joined if best is None or joined.letters > best.letters else best
            known.values[text] = best
        return known.values[text]

    def _lines(self, text: str, near: list[Entry], known: Known) -> Reading:
        """Lines, each for itself."""
        read = [self._line(line, near, known) for line in text.split("\n")]
        return Reading(sum(line.letters for line in read), "\n".join(line.text for line in read))

    def _line(self, text: str, near: list[Entry], known: Known) -> Reading:
        """A line behind its indentation, or with it."""
        whole = self._whole(text, near, known, Trust.LINE)
        inner = text.lstrip()
        read = self._told(inner, near, known, Trust.LINE)
        return whole if whole and whole.letters >= read.letters else Reading(read.letters, text[: len(text) - len(inner)] + read.text)

    def _joined(self, pieces: list[str], near: list[Entry], known: Known) -> Reading:
        """Pieces and the signs between them, of which some together are a message."""
        if len(pieces) == 1:
            return self._behind_words(pieces[0], near, known) or Reading(0, pieces[0])
        # best[at]: the rest from there on, and where its first part ends.
        best: list[tuple[int, Reading | None, int]] = [(0, None, 0)] * (len(pieces) + 1)
        for at in range(len(pieces) - 1, -1, -1):
            best[at] = (best[at + 1][0], None, at + 1)
            for end in range(min(len(pieces), at + _PIECES), at, -1):
                if end - at < len(pieces):
                    part = self._behind_words("".join(pieces[at:end]), near, known)
                    if part is not None and part.letters + best[end][0] > best[at][0]:
                        best[at] = (part.letters + best[end][0], part, end)
        done, at, ours = "", 0, False
        while at < len(pieces):
            _, part, end = best[at]
            plain = _WIDE.get(pieces[at], pieces[at]) if ours and is_chinese(done[-1:]) else pieces[at]
            done, at, ours = done + (plain if part is None else part.text), end, part is not None
        return Reading(best[0][0], done)

    def _behind_words(self, text: str, near: list[Entry], known: Known) -> Reading | None:
        """A message, or a long one that a few other words stand in front of, where a space may belong to it."""
        best = self._whole(text, near, known, Trust.TOLD)
        space = -1
        for _ in range(_LEADING):
            space = text.find(" ", space + 1)
            if space < 0:
                break
            for begin in (space, space + 1):
                rest = self._whole(text[begin:], near, known, Trust.REST) if begin else None
                if rest is not None and (best is None or rest.letters > best.letters):
                    best = Reading(rest.letters, text[:begin] + rest.text)
        return best


def _is_likely(entry: Entry, values: Mapping[str, str], trust: Trust) -> bool:
    """Whether values may be a message's, which is easily found in other text if it is short.

    Of the values of a message of one line, only what ends it may have several.
    """
    if not entry.strong and not _is_trusted(entry, values, trust):
        return False
    if trust == Trust.REST and isinstance(entry.variant.parts[0], Place):
        return False  # nobody could tell where its value begins
    if any(isinstance(part, str) and "\n" in part for part in entry.variant.parts):
        return True
    last = entry.variant.parts[-1]
    return not any("\n" in value for name, value in values.items() if not (isinstance(last, Place) and name == last.name))


def _is_trusted(entry: Entry, values: Mapping[str, str], trust: Trust) -> bool:
    """Whether a short message may be meant."""
    if not values:
        return trust == Trust.LINE or (len(entry.words) > 1 and trust == Trust.TOLD)
    if trust <= Trust.VALUE or entry.own < _WEAK:
        return False
    first, fair = entry.variant.parts[0], entry.own >= _FAIR
    if isinstance(first, str) and entry.own == _WEAK:
        return False  # " and {name}"
    if isinstance(first, str) and trust == Trust.LINE:
        return True
    # A path of several words may stand in front, or in a message of more letters.
    free = {name for name, mark in entry.marks.items() if mark == "~" or (mark == "!" and (fair or first == Place(name)))}
    others = [value for name, value in values.items() if name not in free]
    if isinstance(first, str) or fair:
        return not any(" " in value for value in others)
    return all(_NUMBER.fullmatch(value) for value in others)


def entry_of(variant: Variant, translation: str) -> Entry:
    """A variant with what it is found by."""
    texts = [part for part in variant.parts if isinstance(part, str)]
    words = words_of(variant)
    own = sum(letter.isalpha() for text in texts for letter in text)
    strong = own >= _STRONG and len(words) > 1
    return Entry(variant, translation, words, max(texts, key=len, default=""), sum(map(len, texts)), own, strong, marks(parse(translation)))


def is_chinese(letter: str) -> bool:
    """Whether a letter, or a sign of punctuation, is a Chinese one."""
    return "\u3000" <= letter <= "\u9fff" or "\uff00" <= letter <= "\uffef"


def words_of(variant: Variant) -> frozenset[str]:
    """Words that every text of a variant has, with nothing of a place's value grown onto them."""
    marked = "".join(part if isinstance(part, str) else "\0" for part in variant.parts)
    return frozenset(word.group() for word in _WORD.finditer(marked) if "\0" not in marked[max(0, word.start() - 1) : word.end() + 1])


def load(path: Path) -> Catalog:
    """The catalog of a .mo file. Raises OSError and ValueError."""
    with path.open("rb") as file:
        translations = GNUTranslations(file)
    # gettext has no public way to list what a catalog holds; this name has stood since Python 2.
    held: dict[str, str] = vars(translations)["_catalog"]
    return Catalog({key: value for key, value in held.items() if key and isinstance(key, str)})
