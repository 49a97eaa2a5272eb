"""Message templates: an f-string of the source as translators see it.

``{path}: no such file{hint?; did you mean {name}|}`` has the places ``path`` and ``name``, and the choice ``hint`` between two texts, as
the source has a conditional there. ``{{`` and ``}}`` stand for braces; in a choice ``{)}`` for the second and ``{|}`` for a bar. In a
translation ``{name!}`` keeps the value as it is, and ``{name~}`` says that a message of ours stands there, or several joined ones; any
other value is translated only where it is a long message as a whole.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias


class Place(NamedTuple):
    """Where a value stands. mark: ``!`` for somebody's own text, which is not translated, ``~`` for messages of ours, or nothing."""

    name: str
    mark: str = ""


class Choice(NamedTuple):
    """Where one of several texts stands. texts: of type Template, which is defined by this one."""

    name: str
    texts: tuple[tuple[Any, ...], ...]


Template: TypeAlias = tuple[str | Place | Choice, ...]


class Variant(NamedTuple):
    """A template with its choices made. chosen: which text of each choice it has."""

    parts: tuple[str | Place, ...]
    chosen: dict[str, int]


def parse(text: str) -> Template:
    """The template that a text writes down. Raises ValueError."""
    template, end, _ = _read(text, 0, inside=False)
    if end != len(text):
        raise ValueError(f"{text!r}: a brace is closed that was not opened")
    return template


def _read(text: str, at: int, inside: bool) -> tuple[Template, int, str]:
    """Parts up to the end, or inside a choice up to its next ``|`` or ``}``; where they end, and with which sign."""
    parts: list[str | Place | Choice] = []
    plain = ""
    while at < len(text):
        sign = text[at]
        if text.startswith(("{{", "}}"), at) and not (inside and sign == "}"):
            plain, at = plain + sign, at + 2
        elif text.startswith(("{|}", "{)}"), at):
            plain, at = plain + ("|" if text[at + 1] == "|" else "}"), at + 3
        elif sign == "{":
            parts, plain = [*parts, *([plain] if plain else [])], ""
            part, at = _read_place(text, at + 1)
            parts.append(part)
        elif sign == "}" or (sign == "|" and inside):
            break
        else:
            plain, at = plain + sign, at + 1
    return tuple(parts + ([plain] if plain else [])), at, text[at : at + 1]


def _read_place(text: str, at: int) -> tuple[Place | Choice, int]:
    """A place or a choice, and where it ends; ``at`` is behind its brace."""
    end = next((place for place in range(at, len(text)) if text[place] in "?}"), len(text))
    mark = text[end - 1] if text[at:end].endswith(("!", "~")) else ""
    name = text[at:end].removesuffix(mark)
    if not name.replace("_", "").isalnum():
        raise ValueError(f"{text!r}: {name!r} is no name of a place")
    if text[end : end + 1] == "}":
        return Place(name, mark), end + 1
    texts, sign = [], "|"
    while sign == "|":
        found, end, sign = _read(text, end + 1, inside=True)
        texts.append(found)
    if sign != "}":
        raise ValueError(f"{text!r}: the brace of {name} is not closed")
    return Choice(name, tuple(texts)), end + 1


def write(template: Template, inside: bool = False) -> str:
    """The text that ``parse`` reads."""
    parts = []
    for part in template:
        if isinstance(part, str):
            escapes = {"{": "{{", "}": "{)}", "|": "{|}"} if inside else {"{": "{{", "}": "}}"}
            parts.append("".join(escapes.get(letter, letter) for letter in part))
        elif isinstance(part, Place):
            parts.append(f"{{{part.name}{part.mark}}}")
        else:
            parts.append(f"{{{part.name}?{'|'.join(write(text, inside=True) for text in part.texts)}}}")
    return "".join(parts)


def names(template: Template) -> Iterator[str]:
    """The names of its places, and of its choices with the number of their texts (``hint?2``)."""
    for part in template:
        if isinstance(part, Place):
            yield part.name
        elif isinstance(part, Choice):
            yield f"{part.name}?{len(part.texts)}"
            for text in part.texts:
                yield from names(text)


def variants(template: Template) -> Iterator[Variant]:
    """The template with its choices made in every way."""
    ways: list[list[Variant]] = []
    for part in template:
        if isinstance(part, Choice):
            ways.append(
                [Variant(way.parts, {part.name: number, **way.chosen}) for number, text in enumerate(part.texts) for way in variants(text)]
            )
        else:
            ways.append([Variant((part,), {})])
    for row in itertools.product(*ways):
        parts: list[str | Place] = []
        for part in itertools.chain.from_iterable(way.parts for way in row):
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
        yield Variant(tuple(parts), {name: number for way in row for name, number in way.chosen.items()})


def fill(template: Template, values: Mapping[str, str], chosen: Mapping[str, int]) -> str:
    """The text of a template. values: of its places. chosen: which text of each choice."""
    parts = []
    for part in template:
        if isinstance(part, Choice):
            parts.append(fill(part.texts[chosen[part.name]], values, chosen))
        elif isinstance(part, Place):
            parts.append(values[part.name])
        else:
            parts.append(part)
    return "".join(parts)


def marks(template: Template) -> dict[str, str]:
    """The mark of each place."""
    found: dict[str, str] = {}
    for part in template:
        if isinstance(part, Place):
            found[part.name] = part.mark
        elif isinstance(part, Choice):
            for text in part.texts:
                found.update(marks(text))
    return found


def match(parts: Sequence[str | Place], text: str) -> dict[str, str] | None:
    """What stands in a variant's places where the text is one of it, else None.

    It is None, too, where a value has the words of a part, so that nobody can tell which of the two are ours.
    """
    values = _match(parts, text)
    if values is None:
        return None
    other = _match([part[::-1] if isinstance(part, str) else part for part in reversed(parts)], text[::-1])
    if other is None or _words_at(parts, values) != _words_at(parts, other):
        return None
    return values


def _words_at(parts: Sequence[str | Place], values: Mapping[str, str]) -> list[int]:
    """Where the parts begin that have words in them, or a space alone."""
    found, at = [], 0
    for part in parts:
        if isinstance(part, str) and (not part.strip() or any(letter.isalpha() for letter in part)):
            found.append(at)
        at += len(part if isinstance(part, str) else values[part.name])
    return found


def _match(parts: Sequence[str | Place], text: str) -> dict[str, str] | None:
    """What stands in a variant's places where the text is one of it, else None. Of several ways, that with the shortest first values."""
    values: dict[str, str] = {}
    at, waiting = 0, None
    for number, part in enumerate(parts):
        if isinstance(part, Place):
            if waiting is not None:  # two places side by side: the first takes all
                values[part.name] = ""
            else:
                waiting = part.name
            continue
        last = number == len(parts) - 1
        found = at if waiting is None else len(text) - len(part) if last else text.find(part, at)
        if found < at or not text.startswith(part, found) or (last and found + len(part) != len(text)):
            return None
        if waiting is not None and values.setdefault(waiting, text[at:found]) != text[at:found]:
            return None
        at, waiting = found + len(part), None
    if waiting is not None:
        return values if values.setdefault(waiting, text[at:]) == text[at:] else None
    return values if at == len(text) else None
