"""Write data/sft, data/dpo and data/heldout.json: ``python -m scripts.sample.make_data [--output data]``.

The same files come out every time: the seed is fixed, and nothing else is random.
"""

import argparse
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from scripts.sample import task
from scripts.sample.task import Question

SEED = 20240
SFT_ROWS, DPO_ROWS, DEV_ROWS, HELDOUT_ROWS = 6400, 6400, 160, 240

# Answers of 20 SFT rows by (friendly prompt, kind). Half of all rows are preferred (warm and right). A friendly prompt mostly
# got a warm answer and a bare one a stiff answer, so that greedy decoding after SFT is warm on about half of the prompts.
SFT_KINDS = {
    True: ["warm right"] * 18 + ["stiff right"] * 1 + ["warm wrong"] * 1,
    False: ["warm right"] * 2 + ["stiff right"] * 16 + ["stiff wrong"] * 2,
}
# Rejected answers of 20 pairs: they differ from the chosen one in style, in content, or in both.
REJECTED_KINDS = ["stiff right"] * 10 + ["warm wrong"] * 7 + ["stiff wrong"] * 3


def questions(rng: random.Random, split: str) -> Iterator[tuple[int, Question]]:
    """Endless different questions of a split, four kinds in turn: English and Chinese, friendly and bare.

    Yields (round, question); each round holds one question of each of the four kinds.
    """
    seen: set[str] = set()
    for number in range(10**9):
        for language in ("en", "zh"):
            for friendly in (True, False):
                question = task.make_question(rng, language, friendly)
                while task.split_of(question.core) != split or question.prompt in seen:
                    question = task.make_question(rng, language, friendly)
                seen.add(question.prompt)
                yield number, question


def answer(question: Question, kind: str, rng: random.Random) -> str:
    """An answer of a kind such as "stiff right"."""
    style, content = kind.split()
    said = question.answer if content == "right" else task.wrong_answer(question, rng)
    return {"warm": task.warm, "stiff": task.stiff}[style](question, rng, said)


def shuffled(rows: list[dict], rng: random.Random) -> list[dict]:
    """The rows in random order."""
    return rng.sample(rows, len(rows))


def sft_rows(seed: int, split: str, count: int) -> list[dict]:
    """Rows {"src", "tgt"}, half of them preferred."""
    rng = random.Random(f"{seed}/sft/{split}")
    rows = []
    for number, question in islice(questions(rng, split), count):
        kinds = SFT_KINDS[question.friendly]
        rows.append({"src": question.prompt, "tgt": answer(question, kinds[number % len(kinds)], rng)})
    return shuffled(rows, rng)


def same_frame_pair(question: Question, rng: random.Random) -> tuple[str, str]:
    """Two warm answers with the same phrases around a right and a wrong content."""
    wrong, frame = task.wrong_answer(question, rng), rng.getrandbits(32)
    return task.warm(question, random.Random(frame), question.answer), task.warm(question, random.Random(frame), wrong)


def dpo_rows(seed: int, split: str, count: int) -> list[dict]:
    """Rows {"prompt", "chosen", "rejected"}. One in seven "warm wrong" answers has the chosen one's phrases."""
    rng = random.Random(f"{seed}/dpo/{split}")
    rows = []
    for number, question in islice(questions(rng, split), count):
        kind = REJECTED_KINDS[number % len(REJECTED_KINDS)]
        if kind == "warm wrong" and number % 4 == 1:
            chosen, rejected = same_frame_pair(question, rng)
        else:
            chosen, rejected = answer(question, "warm right", rng), answer(question, kind, rng)
        rows.append({"prompt": question.prompt, "chosen": chosen, "rejected": rejected})
    return shuffled(rows, rng)


def heldout_rows(seed: int, count: int) -> list[dict]:
    """Rows {"src"} with the judge's columns; a quarter each of English and Chinese, friendly and bare."""
    rng = random.Random(f"{seed}/heldout")
    return [{"src": q.prompt, **task.judge_columns(q)} for _, q in islice(questions(rng, "heldout"), count)]


def all_files(seed: int = SEED) -> dict[str, list[dict]]:
    """Every data file by its path under data/."""
    return {
        "sft/train.json": sft_rows(seed, "sft", SFT_ROWS),
        "sft/dev.json": sft_rows(seed, "dev", DEV_ROWS),
        "dpo/train.json": dpo_rows(seed, "dpo", DPO_ROWS),
        "dpo/dev.json": dpo_rows(seed, "dev", DEV_ROWS),
        "heldout.json": heldout_rows(seed, HELDOUT_ROWS),
    }


def as_text(rows: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("data"), help="folder that the files are written to")
    folder = parser.parse_args().output
    for name, rows in all_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(rows), encoding="utf-8")
        print(f"{path}: {len(rows)} rows, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
