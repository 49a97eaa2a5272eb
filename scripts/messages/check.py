"""What is wrong with a translation, as far as a program can see it."""

import re
from collections.abc import Iterator

from paddlealign.messages.template import Choice, Template, names, parse, write
from scripts.messages.same import SAME

_FORMS = {"", "s", "es", "is", "are", "it", "them", "row is", "rows are"}  # of words, which Chinese has one of
_HALF_WIDTH = re.compile(r"[\u4e00-\u9fff][,;:!?]")


def faults(text: str, translation: str) -> Iterator[str]:
    """One text for each thing that is wrong. text: the template in English."""
    if not translation:
        yield "has no translation"
        return
    try:
        wanted, found = parse(text), parse(translation)
    except ValueError as error:
        yield str(error)
        return
    lost = set(names(wanted)) - set(names(found)) - set(grammar(wanted))
    invented = set(names(found)) - set(names(wanted))
    if lost:
        yield f"its translation lacks {', '.join(sorted(lost))}"
    if invented:
        yield f"its translation invents {', '.join(sorted(invented))}"
    if (translation == text) != (text in SAME):
        yield "is the same in Chinese: translate it, or add it to scripts/messages/same.py" if translation == text else "is in same.py"
    if _HALF_WIDTH.search(translation):
        yield "its translation has a half-width sign of punctuation behind a Chinese letter"
    if text.count("\n") != translation.count("\n"):
        yield "its translation has another number of lines"


def grammar(template: Template) -> Iterator[str]:
    """The choices, as ``names`` writes them, that are endings or forms of a word (process{es|}, {is|are}): Chinese has none."""
    for part in template:
        if isinstance(part, Choice):
            if all(write(text) in _FORMS for text in part.texts):
                yield f"{part.name}?{len(part.texts)}"
            for text in part.texts:
                yield from grammar(text)
