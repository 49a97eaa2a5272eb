"""Templates by name, generation blocks, and special tokens within texts, held to transformers (scripts/golden/named_templates.py)."""

import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from paddlealign.arguments.template_names import TEMPLATE_NAMES
from paddlealign.data.encoding import Limits, encode, encode_prompt
from paddlealign.data.encoding_report import Encoded
from paddlealign.data.example import Record, scored_as
from paddlealign.data.message_rows import read_messages, read_tools
from paddlealign.data.template import NAMED_FOLDER, load_template
from paddlealign.data.tokenizer import Tokenizer

FOLDER = Path(__file__).parent / "golden" / "tokenizers"
GOLDEN = json.loads(gzip.decompress((FOLDER.parent / "named_templates.json.gz").read_bytes()))
NAMED = [(item["template"], item["folder"], item["cases"]) for item in GOLDEN["named"]]
load = cache(Tokenizer.load)


def record_of(messages: list[dict], tools: list[dict] | None = None) -> Record:
    turns = read_messages(messages, "messages")
    answer = turns[-1] if turns[-1].tool_calls else turns[-1].content
    return scored_as(Record(turns[:-1], (answer,), True, "golden:1", read_tools(tools), marks=turns[-1].marks), "all")


def ids_of(outcome: Encoded) -> tuple[list[int], list[bool]]:
    """The ids of prompt and response, and which of them are scored."""
    [response], prompt = outcome.example.responses, outcome.example.prompt_ids.tolist()
    return prompt + response.token_ids.tolist(), [False] * len(prompt) + response.scored.tolist()


def begin(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """A BOS where the tokenizer adds one and the template writes none: transformers' apply_chat_template leaves it out."""
    return ids if not tokenizer.add_bos or ids[:1] == [tokenizer.bos_id] else [tokenizer.bos_id, *ids]


def test_every_name_has_its_file_and_its_golden_ids():
    assert {path.stem for path in NAMED_FOLDER.glob("*.jinja")} == set(TEMPLATE_NAMES) == {name for name, _, _ in NAMED}
    assert all((NAMED_FOLDER / f"{name}.jinja").read_text("utf-8").startswith("{#-") for name in TEMPLATE_NAMES)


@pytest.mark.parametrize(("name", "folder", "cases"), NAMED, ids=lambda value: value if isinstance(value, str) else "")
def test_named_templates(name, folder, cases):
    tokenizer = load(FOLDER / folder)
    template = load_template(tokenizer, name)
    for case, golden in zip(GOLDEN["conversations"][name], cases, strict=True):
        record = record_of(case["messages"], case["tools"])
        assert encode_prompt(record, tokenizer, template).ids.tolist() == begin(tokenizer, golden["prompt_ids"]), case
        outcome = encode(record, tokenizer, template, Limits(8192))
        assert isinstance(outcome, Encoded), (case, outcome)
        ids, whole = ids_of(outcome)[0], begin(tokenizer, golden["ids"])
        assert ids == whole[: len(ids)], case
        assert tokenizer.decode(whole[len(ids) :], skip_special=False).strip() == ""
        assert ids[-1] in template.stop_ids


@pytest.mark.parametrize("golden", GOLDEN["blocks"], ids=lambda golden: f"{golden['template']}-{golden['folder']}")
def test_generation_blocks_are_what_is_scored(golden, tmp_path):
    """And where they hold whole answers, marks instead of the answers find the same tokens."""
    tokenizer, path = load(FOLDER / golden["folder"]), tmp_path / "chat.jinja"
    path.write_text(golden["source"], "utf-8")
    template = load_template(tokenizer, str(path))
    assert template.marks_answers and len(golden["cases"]) >= 4
    for case in golden["cases"]:
        outcome = encode(record_of(case["messages"]), tokenizer, template, Limits(8192))
        assert isinstance(outcome, Encoded), (case, outcome)
        ids, scored = ids_of(outcome)
        whole, mask = begin(tokenizer, case["ids"]), case["mask"]
        mask = [0] * (len(whole) - len(mask)) + mask
        assert (ids, [*map(int, scored)]) == (whole[: len(ids)], mask[: len(ids)]), case
        assert not any(mask[len(ids) :])
        if golden["template"] != "blocks_answer_only":
            by_marks = encode(record_of(case["messages"]), tokenizer, replace(template, marks_answers=False), Limits(8192))
            assert isinstance(by_marks, Encoded) and ids_of(by_marks) == (ids, scored)


@pytest.mark.parametrize("folder", GOLDEN["texts"])
def test_special_tokens_in_texts_are_text(folder):
    """As transformers reads them with split_special_tokens."""
    tokenizer, golden = load(FOLDER / folder), GOLDEN["texts"][folder]
    masks = load_template(tokenizer, "none").masks
    found = tokenizer.encode_framed([masks.framed(masks.mask(text)) for text in golden["texts"]])
    for text, tokens, ids in zip(golden["texts"], found, golden["ids"], strict=True):
        assert tokens is not None and tokens.ids.tolist() == ids, text
        assert tokens.ends.tolist() == sorted(tokens.ends.tolist()) and tokens.ends[-1] == len(text)


@pytest.mark.parametrize("golden", GOLDEN["framed"], ids=lambda golden: golden["folder"])
def test_special_tokens_in_framed_texts_are_text(golden):
    """The ids that transformers gives where it does not know the token; all else is control, spaces and merges as ever."""
    tokenizer = load(FOLDER / golden["folder"])
    template, record = load_template(tokenizer), record_of(golden["messages"])
    known = tokenizer.special_tokens[golden["token"]]
    assert encode_prompt(record, tokenizer, template).ids.tolist() == golden["prompt_ids"]
    outcome = encode(record, tokenizer, template, Limits(8192))
    assert isinstance(outcome, Encoded), outcome
    ids, _ = ids_of(outcome)
    assert ids == golden["ids"][: len(ids)] and known not in ids
    assert outcome.special_text
