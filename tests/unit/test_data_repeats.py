"""Repeated records and dev prompts that are trained on."""

from dataclasses import replace

import numpy as np

from paddlealign.data.example import Message, Record
from paddlealign.data.repeats import describe_leaks, describe_repeats, record_digests


def record(line: int, prompt: str, *answers: str) -> Record:
    return Record((Message("user", prompt),), answers, False, f"d:{line}")


def repeats(split: str, records: list[Record]) -> list[str]:
    digests = np.array([record_digests(it)[0] for it in records], np.uint64)
    return describe_repeats(split, digests, lambda number: records[number].source)


def leaks(train: list[Record], dev: list[Record]) -> list[str]:
    ours, theirs = (np.array([record_digests(it)[1] for it in records], np.uint64) for records in (train, dev))
    prompted = np.array([bool(it.messages) for it in train], bool)
    return describe_leaks(ours, prompted, theirs, lambda number: train[number].source, lambda number: dev[number].source)


def test_records_that_come_again_are_told_with_both_lines():
    records = [
        record(1, "q", "a", "b"),
        record(2, "q", "b", "a"),
        record(3, "p", "a", "b"),
        record(4, " q", "a ", "b"),
        record(5, "q", "a", "b"),
    ]
    assert repeats("train", records) == ["train: 2 records stand there before already, and are kept (first: d:4 is d:1)"]
    assert repeats("train", records[:3]) == []
    assert repeats("train", [replace(records[0], desirable=True), replace(records[0], desirable=False)]) == []


def test_dev_prompts_that_are_trained_on_are_told():
    train, dev = [record(1, "q", "a"), record(2, "p", "a")], [record(11, "r", "a"), record(12, "p\n", "c")]
    dev[1] = replace(dev[1], messages=(Message("system", "s"), *dev[1].messages))
    assert leaks(train, dev) == ["note: 1 of 2 dev records have a prompt that is trained on (first: d:12, as d:2)"]
    assert leaks(train, dev[:1]) == [] and leaks([], dev) == []
