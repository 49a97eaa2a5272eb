"""How generation is timed, alike for all: warm, then for one new token, then for all. Imports no framework."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

FIRST_WORD = 3  # below it stand special tokens, which a text does not show


def write_timed(spec: dict[str, Any], answers: Callable[[int], list[list[int]]]) -> None:
    """Time ``answers``, which is given the most new tokens and gives every prompt's, and write a line with the texts and the seconds."""
    answers(2)
    began = time.perf_counter()
    answers(1)
    prompt_seconds = time.perf_counter() - began
    began, cpu = time.perf_counter(), time.process_time()
    ids = answers(spec["new_tokens"])
    line = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "prompt_seconds": prompt_seconds}
    line["ids"] = [[token for token in text if token >= FIRST_WORD] for text in ids]
    Path(spec["output"]).write_text(json.dumps(line) + "\n")


def padded_batches(prompts: Sequence[Sequence[int]], size: int) -> Iterator[tuple[list[int], list[list[int]], list[list[int]]]]:
    """Batches sorted by length, as ours are: places, ids padded on the left with 0, and where they are no padding."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        longest = len(prompts[places[0]])
        spare = [longest - len(prompts[place]) for place in places]
        ids = [[0] * count + list(prompts[place]) for count, place in zip(spare, places, strict=True)]
        yield places, ids, [[0] * count + [1] * (longest - count) for count in spare]


def until_end(text: Sequence[int], end: int) -> list[int]:
    """The text up to its end token, which is kept."""
    return list(text[: text.index(end) + 1] if end in text else text)
