"""Repeated records and dev prompts that are trained on."""

from dataclasses import replace

from paddlealign.data.example import Message, Record
from paddlealign.data.repeats import describe_leaks, describe_repeats


def record(line: int, prompt: str, *answers: str) -> Record:
    return Record((Message("user", prompt),), answers, False, f"d:{line}")


def test_records_that_come_again_are_told_with_both_lines():
    records = [
        record(1, "q", "a", "b"),
        record(2, "q", "b", "a"),
        record(3, "p", "a", "b"),
        record(4, " q", "a ", "b"),
        record(5, "q", "a", "b"),
    ]
    assert describe_repeats("train", records) == ["train: 2 records stand there before already, and are kept (first: d:4 is d:1)"]
    assert describe_repeats("train", records[:3]) == []
    assert describe_repeats("train", [replace(records[0], desirable=True), replace(records[0], desirable=False)]) == []


def test_dev_prompts_that_are_trained_on_are_told():
    train, dev = [record(1, "q", "a"), record(2, "p", "a")], [record(11, "r", "a"), record(12, "p\n", "c")]
    dev[1] = replace(dev[1], messages=(Message("system", "s"), *dev[1].messages))
    assert describe_leaks(train, dev) == ["note: 1 of 2 dev records have a prompt that is trained on (first: d:12, as d:2)"]
    assert describe_leaks(train, dev[:1]) == [] and describe_leaks([], dev) == []
