"""Any allowed value of any key goes through a JSON file, and through the command line, unchanged; no text makes a traceback."""

import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddlealign.arguments import parse
from paddlealign.arguments.degrees import Degrees
from paddlealign.arguments.fields import SECTIONS
from paddlealign.arguments.parsing import known_fields
from paddlealign.arguments.ranges import RANGES
from paddlealign.arguments.viewer_names import VIEWERS
from paddlealign.errors import UserError

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda text: text.lower() not in ("none", "null", "true", "false") and not text.startswith(("-", "~")) and "," not in text
)

WORDS = ["--seed", "--do_train", "1", "-1", "x", "--", "-", "--=", "--no_", "--dev_dataset_path", "--a=b", ""]


def values(key, item):
    """All values that the key may have, as far as one key alone decides."""
    allowed = RANGES.get(key)
    if item.choices:
        return st.sampled_from(item.choices)
    if item.kind is bool:
        return st.booleans()
    if item.kind is int:
        assert allowed is not None, f"{key} has no range"
        return st.integers(int(allowed.low), int(min(allowed.high, 2**62)))
    if item.kind is float:
        assert allowed is not None, f"{key} has no range"
        top = None if math.isinf(allowed.high) else allowed.high
        # Numbers below the smallest normal one are zero (machine.flush_subnormals), which this range may leave out.
        above_zero = allowed.low == 0 and not allowed.low_included
        return st.floats(
            sys.float_info.min if above_zero else allowed.low, top, exclude_min=not (allowed.low_included or above_zero),
            exclude_max=not allowed.high_included, allow_nan=False, allow_infinity=False, allow_subnormal=False,
        )  # fmt: skip
    if key == "report_to":
        return st.lists(st.sampled_from(VIEWERS), min_size=1, unique=True).map(",".join)
    return st.lists(TEXTS, min_size=1, max_size=3) if item.kind is list else TEXTS


def sections_of(arguments, command):
    return {name: getattr(arguments, name) for name in SECTIONS[command]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arguments")


@pytest.mark.parametrize("command", SECTIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_round_trip_keeps_every_value(command, data, folder):
    fields = known_fields(command)
    chosen = data.draw(st.sets(st.sampled_from(sorted(fields)), max_size=6))
    wanted = {key: data.draw(values(key, fields[key]), label=key) for key in chosen}
    wanted.update({key: data.draw(values(key, item)) for key, item in fields.items() if item.required})
    start = {"do_train": True, "dataset_name_or_path": ["d"], "data_file": "rows"}  # what a run needs in any case
    wanted.update({key: value for key, value in start.items() if key in fields})
    path = Path(folder) / "args.json"
    path.write_text(json.dumps(wanted), encoding="utf-8")
    words = []
    for key, value in wanted.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        words += [f"--{key}", *value] if isinstance(value, list) else [f"--{key}={shown}"]
    results = []
    for argv in ([str(path)], words):
        try:
            results.append(sections_of(parse(command, argv, {}), command))
        except UserError as error:  # keys that do not go together; both ways must then say the same
            results.append(str(error))
    assert results[0] == results[1]
    if isinstance(results[0], dict):
        for key, value in wanted.items():
            found = getattr(results[0][fields[key].section], key)
            derived = key in ("do_eval", "load_best_model_at_end", *Degrees._fields)  # every degree is 1 in one process
            assert found == value or derived or (key == "resume_from_checkpoint") or value in ("", [])
        assert used_again(results[0], fields, path, command) == results[0]


def used_again(sections, fields, path, command):
    """The sections of a run that is given another's effective values as its argument file."""
    path.write_text(json.dumps({key: getattr(sections[item.section], key) for key, item in fields.items()}), encoding="utf-8")
    return sections_of(parse(command, [str(path)], {}), command)


@pytest.mark.parametrize("command", ["sft", "reward", "dpo"])
def test_a_run_that_counts_tokens_can_be_asked_for_again(command, tmp_path):
    words = ["--model_name_or_path", "m", "--output_dir", "o", "--do_train", "--dataset_name_or_path", "d", "--tokens_per_batch", "9"]
    first = sections_of(parse(command, words, {}), command)
    assert first["training"].tokens_per_batch == 9
    assert used_again(first, known_fields(command), tmp_path / "args.json", command) == first


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40) | st.lists(st.sampled_from([*"{}[],:\"'/#* \n0a", '"seed"', "1", "true"]), max_size=12).map("".join))
def test_no_file_makes_a_traceback(text, folder):
    path = Path(folder) / "any.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError):
        parse("sft", [str(path)], {})


@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS)))
def test_no_command_line_makes_a_traceback(words):
    with pytest.raises(UserError):
        parse("sft", words, {})
