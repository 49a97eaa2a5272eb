"""Token ids against those that transformers gave (scripts/golden/token_ids.py), one by one."""

import json
from pathlib import Path

import pytest

from paddlealign.data.encoding import Limits, encode, encode_prompt
from paddlealign.data.encoding_report import Encoded
from paddlealign.data.example import Message, Record
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer

FOLDER = Path(__file__).parent / "golden" / "tokenizers"
GOLDEN = json.loads((FOLDER / "token_ids.json").read_text("utf-8"))["tokenizers"]
END = {"llama": "</s>", "qwen2": "<|im_end|>", "llama3": "<|eot_id|>"}


def record_of(conversation: dict, score_all_turns: bool = True) -> Record:
    messages = tuple(Message(**message) for message in conversation["messages"])
    return Record(messages[:-1], (messages[-1].content,), score_all_turns, "golden:1")


@pytest.mark.parametrize("name", GOLDEN)
def test_texts(name):
    tokenizer = Tokenizer.load(FOLDER / name)
    for case in GOLDEN[name]["texts"]:
        ids = tokenizer.encode(case["text"]).ids.tolist()
        assert ids == case["ids"], case["text"]
        assert ([tokenizer.bos_id] if tokenizer.add_bos else []) + ids == case["ids_with_bos"], case["text"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]


@pytest.mark.parametrize("name", GOLDEN)
def test_generation_prompts(name):
    tokenizer = Tokenizer.load(FOLDER / name)
    template = load_template(tokenizer)
    for case in GOLDEN[name]["conversations"]:
        assert encode_prompt(record_of(case), tokenizer, template).ids.tolist() == case["prompt_ids"], case["messages"]


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("score_all_turns", [True, False])
def test_conversations(name, score_all_turns):
    """The whole conversation, up to the end token of its last turn: what a template writes behind that is not trained on."""
    tokenizer = Tokenizer.load(FOLDER / name)
    template = load_template(tokenizer)
    for case in GOLDEN[name]["conversations"]:
        outcome = encode(record_of(case, score_all_turns), tokenizer, template, Limits(4096))
        assert isinstance(outcome, Encoded)
        prompt, response = outcome.example.prompt_ids, outcome.example.responses[0]
        ids = prompt.tolist() + response.token_ids.tolist()
        assert ids == case["ids"][: len(ids)], case["messages"]
        assert tokenizer.decode(case["ids"][len(ids) :], skip_special=False).strip() == ""
        assert tokenizer.decode(ids[-1:], skip_special=False) == END[name.removesuffix("_v5")]
        if not score_all_turns:
            assert response.scored.all()


@pytest.mark.parametrize("name", GOLDEN)
def test_scored_tokens_are_the_answers(name):
    """Decoded, the scored tokens of all turns are the answers with their end tokens, and nothing else."""
    tokenizer = Tokenizer.load(FOLDER / name)
    template = load_template(tokenizer)
    for case in GOLDEN[name]["conversations"]:
        outcome = encode(record_of(case), tokenizer, template, Limits(4096))
        response = outcome.example.responses[0]
        text = tokenizer.decode(response.token_ids[response.scored], skip_special=False)
        end = END[name.removesuffix("_v5")]
        answers = [message["content"] for message in case["messages"] if message["role"] == "assistant"]
        assert text.count(end) == len(answers)
        assert [part.strip() for part in text.split(end)] == [answer.strip() for answer in [*answers, ""]]
