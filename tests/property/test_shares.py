"""data_split and dataset_weights for any rows: shares are disjoint, whole and alike everywhere; an epoch's mixture is as weighted."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddlealign.arguments.row_fields import RowArguments, shares
from paddlealign.data.example import Message, Record
from paddlealign.data.order import PACKINGS, Step, epoch_plan, mixed_epoch
from paddlealign.data.records import read_records
from paddlealign.data.shares import in_share, place

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
WEIGHTS = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)
PAIRS = [{"prompt": f"question {number % 150}", "chosen": f"good {number}", "rejected": "bad"} for number in range(400)]


def read(folder: str, rows: list[dict], kind: str) -> list[Record]:
    path = Path(folder) / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_records([path], kind)[0]


@given(st.lists(TEXTS, min_size=1, max_size=30), WEIGHTS)
def test_every_record_is_in_exactly_one_share_with_all_others_of_its_prompt(texts, weights):
    records = [Record((Message("user", text),), (f"answer {n}",), False, f"d:{n}") for n, text in enumerate(texts * 2)]
    keys = RowArguments(data_split=",".join(map(str, weights)))
    parts = [in_share(records, *shares(keys, command)) for command in ("sft", "reward", "dpo")]
    assert sorted(int(record.source[2:]) for part in parts for record in part) == list(range(len(records)))
    prompts = [{record.messages[0].content.strip() for record in part} for part in parts]
    assert not prompts[0] & prompts[1] and not prompts[1] & prompts[2] and not prompts[0] & prompts[2]
    assert all(part == [] for part, weight in zip(parts, weights, strict=True) if weight == 0)


def test_shares_have_the_sizes_that_were_asked_for_and_are_the_same_in_every_form_of_a_row():
    with tempfile.TemporaryDirectory() as folder:
        many = read(folder, [{"src": f"number {n}", "tgt": "a"} for n in range(20_000)], "sft")
        counts = [len(in_share(many, *shares(RowArguments(data_split="5,3,2"), command))) for command in ("sft", "reward", "dpo")]
        assert sum(counts) == 20_000
        assert all(
            abs(count - share) < 4 * (share * (1 - share / 20_000)) ** 0.5
            for count, share in zip(counts, (10_000, 6_000, 4_000), strict=True)
        )
        pairs = read(folder, PAIRS, "preference")
        said = [{"role": "user", "content": "X"}]
        forms = [
            ("sft", {"src": "X", "tgt": "a"}),
            ("preference", {"system": "s", "messages": said, "chosen": "x", "rejected": "y"}),
            ("preference", {"chosen": "\n\nHuman: X\n\nAssistant: x", "rejected": "\n\nHuman: X\n\nAssistant: y"}),
        ]
        for kind, form in forms:
            records = read(folder, [json.loads(json.dumps(form).replace("X", row["prompt"])) for row in PAIRS], kind)
            assert [place(record) for record in records] == [place(record) for record in pairs]
        whole = read(folder, [{"src": "", "tgt": f"text {n}"} for n in range(200)], "sft")
        assert 60 < len(in_share(whole, 0.0, 0.5)) < 140  # without prompts the texts are spread


def test_the_same_rows_on_every_machine():
    """Known places: the first bits of the sha256 of [["user","What is 2 + 2?",[]]], and the same in processes with other hash seeds."""
    record = Record((Message("user", "What is 2 + 2?"),), ("4.",), False, "d:1")
    assert place(record) == (0xC962D2A5BF264411 >> 11) / 2**53
    script = (
        "from paddlealign.data.example import Message, Record\nfrom paddlealign.data.shares import place\n"
        "print(repr(place(Record((Message('user', '两加两是几？'),), ('四。',), False, 'd:1'))))"
    )
    told = {
        subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert told == {f"{(0x0800365121D86845 >> 11) / 2**53!r}\n"}


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5, 3.0])), min_size=1, max_size=4), st.integers(0, 5))
def test_an_epoch_takes_the_next_part_of_every_source(mixture, seed):
    epochs = [mixed_epoch(mixture, seed, epoch) for epoch in range(8)]
    first = 0
    for count, weight in mixture:
        of_source = [epoch[(epoch >= first) & (epoch < first + count)] for epoch in epochs]
        taken = np.concatenate(of_source)
        assert all(abs(len(part) - weight * count) <= 1 for part in of_source) and abs(len(taken) - 8 * weight * count) <= 0.5
        times = np.bincount(taken - first, minlength=count)
        assert times.max() - times.min() <= 1  # nothing a second time before everything came once
        first += count
    assert all((mixed_epoch(mixture, seed, epoch) == epochs[epoch]).all() for epoch in (7, 3))


def test_a_plan_follows_the_mixture_and_is_as_before_without_one():
    lengths = np.arange(1, 31)
    sizes = {"seed": 3, "max_length": 40, "micro_batch_size": 4, "accumulation": 2}

    def steps(**changes) -> list[Step]:
        plan = epoch_plan(lengths, **sizes, **changes)
        return [plan.step(index) for index in range(plan.steps)]

    for packing in PACKINGS:
        plain = steps(epoch=1, packing=packing)
        assert steps(epoch=1, packing=packing, mixture=[(10, 1.0), (20, 1.0)]) == plain
        mixed = steps(epoch=1, packing=packing, mixture=[(10, 2.0), (20, 0.25)])
        flat = sorted(index for step in mixed for rank in step for batch in rank for row in batch for index in row)
        assert flat == sorted(mixed_epoch([(10, 2.0), (20, 0.25)], 3, 1).tolist()) and len(flat) == 25
        assert mixed != steps(epoch=2, packing=packing, mixture=[(10, 2.0), (20, 0.25)])
