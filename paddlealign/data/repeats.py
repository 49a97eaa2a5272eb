"""Records that come more than once, and prompts that stand in the training rows and in the dev rows. Both are told, not mended.

Records are compared by digests of 64 bits, NumPy's uint64: among ten million of them the chance that any two are taken for the same is
3 in a million.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from paddlealign.data.example import Record
from paddlealign.data.shares import prompt_text, turn_text


def record_digests(record: Record) -> tuple[int, int]:
    """By what a record is compared: its prompt, answers and label together, and its prompt alone, 64 bits each."""
    prompt = prompt_text(record)
    whole = f"{prompt} {[turn_text(answer) for answer in record.responses]} {record.desirable}"
    return _digest(whole), _digest(prompt)


def describe_repeats(split: str, records: np.ndarray, source_of: Callable[[int], str]) -> list[str]:
    """A line on records of a split that stand there again: same prompt, same answers, same label.

    records: uint64 [records], their digests, in order. source_of: the "file:line" of a record.
    """
    _, first, inverse = np.unique(records, return_index=True, return_inverse=True)
    earliest = first[inverse]
    again = np.flatnonzero(earliest != np.arange(len(records)))
    if not len(again):
        return []
    one, other = source_of(int(again[0])), source_of(int(earliest[again[0]]))
    return [f"{split}: {len(again):,} records stand there before already, and are kept (first: {one} is {other})"]


def describe_leaks(
    train: np.ndarray, prompted: np.ndarray, dev: np.ndarray, train_source: Callable[[int], str], dev_source: Callable[[int], str]
) -> list[str]:
    """A line on dev records whose prompts are trained on, so that evaluation flatters.

    train, dev: uint64 [records], digests of the prompts. prompted: bool [train records]; those that have a prompt.
    """
    found = np.flatnonzero(np.isin(dev, train[prompted]))
    if not len(found):
        return []
    known = np.flatnonzero((train == dev[found[0]]) & prompted)[-1]
    places = f"{dev_source(int(found[0]))}, as {train_source(int(known))}"
    return [f"note: {len(found):,} of {len(dev):,} dev records have a prompt that is trained on (first: {places})"]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
