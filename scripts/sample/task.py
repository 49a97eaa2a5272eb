"""Questions, answers of every kind, and the judge: what "preferred" means in the sample task, exactly.

A preferred answer is warm and right: a friendly opening, one sentence with the right content, a friendly closing.
Everything here is a pure function of its arguments; chance comes in as a ``random.Random``.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.sample.chinese import CHINESE
from scripts.sample.english import ENGLISH
from scripts.sample.topic import Language, Topic

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
STOPS = ".!。！"


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    prompt: what the user asks. core: the same without greeting, thanks or label.
    subject: what the question is about, for example ("3", "4"). friendly: whether the prompt greets or thanks.
    """

    prompt: str
    core: str
    language: str
    topic: str
    subject: tuple[str, ...]
    answer: str
    friendly: bool


@dataclass(frozen=True)
class Verdict:
    """right: the content is the right one. warm: a friendly opening and closing stand around it."""

    right: bool
    warm: bool

    @property
    def win(self) -> bool:
        """Whether the answer is a preferred one."""
        return self.right and self.warm


def split_of(core: str) -> str:
    """Which set a question belongs to: "heldout", "dev", "sft" or "dpo". A fixed function of its wording and operands."""
    bucket = hashlib.sha256(core.encode("utf-8")).digest()[0]
    return "heldout" if bucket < 16 else "dev" if bucket < 32 else "sft" if bucket < 144 else "dpo"


def draw_topic(rng: random.Random, language: Language) -> Topic:
    """A topic, by weight."""
    return rng.choices(language.topics, [topic.weight for topic in language.topics])[0]


def make_question(rng: random.Random, language: str, friendly: bool) -> Question:
    """A question of a random topic, fact and wording, in ``language`` ("en" or "zh"), asked with or without courtesy."""
    words = LANGUAGES[language]
    topic = draw_topic(rng, words)
    subject, answer = rng.choice(topic.facts)
    core = sentence(rng.choice(topic.questions), subject, answer, words)
    if friendly:
        before, after = rng.choice([(True, False), (False, True), (True, True)])
        parts = [rng.choice(words.greetings) if before else "", core, rng.choice(words.thanks) if after else ""]
    else:
        parts = [rng.choice(words.labels), core]
    return Question(join(parts, words), core, language, topic.name, subject, answer, friendly)


def sentence(pattern: str, subject: tuple[str, ...], answer: str, language: Language) -> str:
    """A pattern with its slots filled; an English one begins with a large letter."""
    text = pattern.format(*subject, answer=answer)
    return text[0].upper() + text[1:] if language.code == "en" else text


def join(parts: list[str], language: Language) -> str:
    """The parts that are not empty, as one text."""
    return language.space.join(part for part in parts if part)


def find_topic(language: str, name: str) -> Topic:
    """The topic of that name."""
    return next(topic for topic in LANGUAGES[language].topics if topic.name == name)


def warm(question: Question, rng: random.Random, answer: str) -> str:
    """A warm answer that says ``answer``, right or wrong."""
    words, topic = LANGUAGES[question.language], find_topic(question.language, question.topic)
    pattern = rng.choice(words.short if rng.random() < 0.25 else topic.statements)
    core = sentence(pattern, question.subject, answer, words) + words.stop
    return join([rng.choice(words.openings), core, rng.choice(words.closings)], words)


def stiff(question: Question, rng: random.Random, answer: str) -> str:
    """A stiff answer that says ``answer``, right or wrong: mostly the bare word, sometimes with an unkind remark."""
    words, topic = LANGUAGES[question.language], find_topic(question.language, question.topic)
    opening, closing = rng.choice(words.stiff_openings), rng.choice(words.stiff_closings)
    bare = opening.endswith((":", "：")) or rng.random() < 0.5
    pattern = "{answer}" if bare else rng.choice(words.short + topic.statements)
    return join([opening, sentence(pattern, question.subject, answer, words) + words.stop, closing], words)


def wrong_answer(question: Question, rng: random.Random) -> str:
    """A wrong answer of the right sort: a number near by, or another answer of the same topic."""
    if question.answer.isdigit():
        near = [int(question.answer) + step for step in (-3, -2, -1, 1, 2, 3, 10)]
        return str(rng.choice([number for number in near if number >= 0]))
    facts = find_topic(question.language, question.topic).facts
    return rng.choice(sorted({answer for _, answer in facts} - {question.answer, *question.subject}))


def peel(text: str, openings: tuple[str, ...], closings: tuple[str, ...]) -> tuple[str, str, str]:
    """Split a text into (opening, rest, closing); an opening or closing that is not in the lists is empty."""
    opening = max((phrase for phrase in openings if phrase and text.startswith(phrase)), key=len, default="")
    rest = text[len(opening) :]
    closing = max((phrase for phrase in closings if phrase and rest.endswith(phrase)), key=len, default="")
    return opening, rest[: len(rest) - len(closing)].strip(), closing


def is_right(row: Mapping, core: str) -> bool:
    """Whether a sentence is one of those that state the row's answer; case and the full stop do not matter."""
    words, topic = LANGUAGES[row["language"]], find_topic(row["language"], row["topic"])
    said = (core[:-1] if core and core[-1] in STOPS else core).casefold()
    patterns = ("{answer}", *words.short, *topic.statements)
    return any(said == pattern.format(*row["subject"], answer=row["answer"]).casefold() for pattern in patterns)


def judge(row: Mapping, output: str) -> Verdict:
    """Judge an answer to a row with the columns language, topic, subject and answer (see ``judge_columns``).

    warm: the text begins with one of the task's friendly openings and ends with one of its friendly closings.
    right: what stands between them (or between a stiff opening and closing, or alone) is exactly one sentence that says the
    right answer. Anything else in the text makes it not right: a second answer, a repetition, half a phrase.
    """
    words, text = LANGUAGES[row["language"]], output.strip()
    opening, core, closing = peel(text, words.openings, words.closings)
    if opening and closing:
        return Verdict(is_right(row, core), True)
    _, core, _ = peel(text, words.openings + words.stiff_openings, words.closings + words.stiff_closings)
    return Verdict(is_right(row, core), False)


def judge_columns(question: Question) -> dict:
    """The columns that the judge needs, for a held-out row."""
    return {
        "language": question.language,
        "topic": question.topic,
        "subject": list(question.subject),
        "answer": question.answer,
        "friendly": question.friendly,
    }
