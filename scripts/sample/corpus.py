"""Write the pretraining texts: ``python -m scripts.sample.corpus --output FILE [--texts 40000] [--seed 7]``.

Rows {"src": [...], "tgt": [...]} of the same world as the task: mostly questions with answers of both manners, of which the
answers are learned, and plain texts (facts, lists, small stories; src is empty), learned whole. The forms are plain and never
the chat form. All content is right, and the manner of an answer does not depend on its question. Questions that are held out
or in the dev files do not occur.
"""

import argparse
import json
import random
from pathlib import Path

from scripts.sample import task
from scripts.sample.stories import NAMES, fact_list, restated, story, table
from scripts.sample.task import LANGUAGES, Question, find_topic, sentence

# Slots: q the question, name and other two people. The answer follows, and the end token after it.
FRAMES = {
    "en": [
        "Q: {q}\nA:", "Question: {q}\nAnswer:", "{q}\n", "{q}\n", "- {q}\n-", "{q} ", "{name}: {q}\n{other}:",
        '{name} asked: "{q}" {other} said:', "They asked:\n{q}\nThey were told:\n",
    ],
    "zh": [
        "问：{q}\n答：", "问题：{q}\n回答：", "{q}\n", "{q}\n", "- {q}\n-", "{q}", "{name}：{q}\n{other}：",
        "{name}问：“{q}”{other}说：", "有人问：\n{q}\n有人答：\n",
    ],
}  # fmt: skip


def seen_question(rng: random.Random, code: str) -> Question:
    """A question that is neither held out nor in a dev file."""
    question = task.make_question(rng, code, rng.random() < 0.5)
    while task.split_of(question.core) in ("heldout", "dev"):
        question = task.make_question(rng, code, rng.random() < 0.5)
    return question


def plain(question: Question, rng: random.Random, answer: str) -> str:
    """An answer in no particular manner: the bare word or one sentence."""
    words, topic = LANGUAGES[question.language], find_topic(question.language, question.topic)
    pattern = rng.choice(("{answer}", rng.choice(words.short), *topic.statements))
    return sentence(pattern, question.subject, answer, words) + words.stop


def dialogue(rng: random.Random, code: str) -> dict:
    """One to four questions with right answers, in one plain form."""
    frame = rng.choice(FRAMES[code])
    name, other = rng.sample(NAMES[code], 2)
    row: dict[str, list[str]] = {"src": [], "tgt": []}
    for _ in range(rng.randint(1, 4)):
        question = seen_question(rng, code)
        answer = rng.choice([task.warm, task.stiff, plain, plain])(question, rng, question.answer)
        asked = frame.format(q=question.prompt, name=name, other=other)
        row["src"].append(asked)
        row["tgt"].append(answer if asked[-1] in "\n ：？！。" else " " + answer)
    return row


def text(rng: random.Random) -> dict:
    """One row of the corpus."""
    code = rng.choice(["en", "zh"])
    kind = rng.choices([dialogue, restated, fact_list, story, table], [80, 8, 6, 3, 3])[0]
    written = kind(rng, code)
    return written if isinstance(written, dict) else {"src": [""], "tgt": [written]}


def corpus(seed: int, count: int) -> list[dict]:
    """``count`` rows {"src": [...], "tgt": [...]}."""
    rng = random.Random(f"{seed}/corpus")
    return [text(rng) for _ in range(count)]


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines file to write")
    parser.add_argument("--texts", type=int, default=40000, help="number of texts; one has about 50 tokens")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", encoding="utf-8") as file:
        for written in corpus(arguments.seed, arguments.texts):
            file.write(json.dumps(written, ensure_ascii=False) + "\n")
    print(f"{arguments.output}: {arguments.texts} texts, {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
