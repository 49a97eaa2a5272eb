"""What one language's word lists hold: topics with their facts and sentences, and the phrases around an answer."""

import re
from dataclasses import dataclass

GROUP = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True)
class Topic:
    """One kind of question.

    name: the same in both languages where the topic is the same, for example "plus".
    facts: (subject, answer) pairs. The subject fills {0}, {1} of the sentences, the answer fills {answer}.
    questions: the wordings of the question; ``expand`` has been applied.
    statements: the wordings of a whole answer sentence, without its full stop.
    weight: how often the topic is drawn, relative to the others.
    """

    name: str
    facts: tuple[tuple[tuple[str, ...], str], ...]
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    weight: int = 2


@dataclass(frozen=True)
class Language:
    """All that is written in one language.

    greetings, thanks: what makes a prompt friendly. labels: what may stand before a bare prompt.
    openings, closings: the friendly phrases around the answer sentence of a warm answer.
    stiff_openings, stiff_closings: what stands around the answer sentence of a stiff one.
    short: sentences that answer any question. space: what joins two sentences. stop: the full stop.
    """

    code: str
    topics: tuple[Topic, ...]
    greetings: tuple[str, ...]
    thanks: tuple[str, ...]
    labels: tuple[str, ...]
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    stiff_openings: tuple[str, ...]
    stiff_closings: tuple[str, ...]
    short: tuple[str, ...]
    space: str
    stop: str


def expand(pattern: str) -> tuple[str, ...]:
    """All texts that a pattern stands for: "(a|b) c" gives "a c" and "b c". Groups do not nest."""
    group = GROUP.search(pattern)
    if group is None:
        return (pattern,)
    before, after = pattern[: group.start()], pattern[group.end() :]
    return tuple(text for choice in group.group(1).split("|") for text in expand(before + choice + after))


def make_topic(name: str, facts: list[tuple[str, ...]], questions: list[str], statements: list[str], weight: int = 2) -> Topic:
    """A topic from rows of words, the last of which is the answer, and from patterns (see ``expand``)."""
    pairs = tuple((tuple(row[:-1]), row[-1]) for row in facts)
    asked = tuple(text for pattern in questions for text in expand(pattern))
    stated = tuple(text for pattern in statements for text in expand(pattern))
    return Topic(name, pairs, asked, stated, weight)


def plus_facts() -> list[tuple[str, ...]]:
    """Sums a + b with a and b from 2 to 10."""
    return [(str(a), str(b), str(a + b)) for a in range(2, 11) for b in range(2, 11)]


def minus_facts() -> list[tuple[str, ...]]:
    """Differences a - b with a from 4 to 12 and a result of 2 or more."""
    return [(str(a), str(b), str(a - b)) for a in range(4, 13) for b in range(2, a - 1)]


def count_facts(step: int) -> list[tuple[str, ...]]:
    """The number after (step 1) or before (step -1) n, for n from 2 to 20."""
    return [(str(n), str(n + step)) for n in range(2, 21)]


def neighbours(words: list[str], step: int) -> list[tuple[str, ...]]:
    """For a round such as the days of the week: each word and the one ``step`` places on."""
    return [(word, words[(i + step) % len(words)]) for i, word in enumerate(words)]


def pairs(text: str) -> list[tuple[str, ...]]:
    """Facts from "subject=answer; subject=answer; ..."."""
    return [tuple(part.strip() for part in entry.split("=")) for entry in text.split(";")]


def groups(text: str) -> list[tuple[str, ...]]:
    """Facts from "answer: subject, subject; answer: subject": many subjects that share an answer."""
    rows: list[tuple[str, ...]] = []
    for entry in text.split(";"):
        answer, subjects = entry.split(":")
        rows += [(subject.strip(), answer.strip()) for subject in subjects.split(",")]
    return rows


def both_ways(text: str) -> list[tuple[str, ...]]:
    """Facts from "hot=cold; ...", each in both directions."""
    return [row for a, b in pairs(text) for row in ((a, b), (b, a))]
