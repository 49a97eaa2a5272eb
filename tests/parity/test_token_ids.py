"""Token ids and texts against those that transformers 5 gave (scripts/golden/token_ids.py), one by one, for every kind of folder."""

import gzip
import json
import unicodedata
from functools import cache
from pathlib import Path

import pytest

from paddlealign.data.encoding import Limits, encode, encode_prompt
from paddlealign.data.encoding_report import Encoded
from paddlealign.data.example import Record
from paddlealign.data.message_rows import read_messages, read_tools
from paddlealign.data.rendering import render_prompt
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer

FOLDER = Path(__file__).parent / "golden" / "tokenizers"
GOLDEN = json.loads(gzip.decompress((FOLDER / "token_ids.json.gz").read_bytes()))
TEXTS, FOLDERS = GOLDEN["texts"], GOLDEN["folders"]
WITH_TOOLS = [name for name, golden in FOLDERS.items() if any(case["tools"] for case in golden["conversations"])]
load = cache(Tokenizer.load)


def end_of(name: str) -> str:
    ends = {"qwen": "<|im_end|>", "llama3": "<|eot_id|>", "pythia": "<|endoftext|>"}
    return next((end for kind, end in ends.items() if name.startswith(kind)), "</s>")


def record_of(case: dict, score_all_turns: bool = True) -> Record:
    messages = read_messages(case["messages"], "messages")
    answer = messages[-1] if messages[-1].tool_calls else messages[-1].content
    return Record(messages[:-1], (answer,), score_all_turns, "golden:1", read_tools(case["tools"]))


def test_the_corpus_is_large_and_every_folder_is_tested():
    assert len(set(TEXTS)) == len(TEXTS) >= 500
    assert set(FOLDERS) == {path.name for path in FOLDER.iterdir() if path.is_dir()}
    assert {golden["class"] for golden in FOLDERS.values()} == {"LlamaTokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "TokenizersBackend"}


@pytest.mark.parametrize("name", FOLDERS)
def test_ids(name):
    tokenizer, golden = load(FOLDER / name), FOLDERS[name]
    assert ([tokenizer.bos_id] if tokenizer.add_bos else []) == golden["begin"]
    for text, tokens, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS), golden["ids"], strict=True):
        assert tokens.ids.tolist() == ids, text


@pytest.mark.parametrize("name", FOLDERS)
def test_decoded_texts(name):
    tokenizer, golden = load(FOLDER / name), FOLDERS[name]
    for place, (text, ids) in enumerate(zip(TEXTS, golden["ids"], strict=True)):
        assert tokenizer.decode(ids) == golden["decoded"].get(str(place), text)
        assert tokenizer.decode(ids, skip_special=False) == golden["visible"].get(str(place), text)
    for drawn in golden["drawn"]:
        assert tokenizer.decode(drawn["ids"]) == drawn["decoded"], drawn["ids"]


@pytest.mark.parametrize("name", FOLDERS)
def test_tokens_lie_in_the_text_in_its_order(name):
    """Each token covers a stretch of the text, none begins or ends before the one in front of it, and all is covered."""
    for text, tokens in zip(TEXTS, load(FOLDER / name).encode_batch(TEXTS), strict=True):
        starts, ends = tokens.starts.tolist(), tokens.ends.tolist()
        assert starts == sorted(starts), text
        assert ends == sorted(ends), text
        assert all(0 <= start <= end <= len(text) for start, end in zip(starts, ends, strict=True)), text
        covered = set().union(*(range(start, end) for start, end in zip(starts, ends, strict=True)))
        # Where a normaliser composes "e" and an accent, the token lies on the "e".
        assert covered == set(range(len(text))) or not unicodedata.is_normalized("NFC", text), text


@pytest.mark.parametrize("name", FOLDERS)
def test_generation_prompts(name):
    tokenizer = load(FOLDER / name)
    template = load_template(tokenizer)
    for case in FOLDERS[name]["conversations"]:
        record = record_of(case)
        assert tokenizer.encode(render_prompt(template, record.messages, record.tools).text).ids.tolist() == case["prompt_ids"], case
        assert encode_prompt(record, tokenizer, template).ids.tolist() == case["prompt_ids"], case


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("score_all_turns", [True, False])
def test_conversations(name, score_all_turns):
    """The whole conversation, up to the end token of its last turn: what a template writes behind that is not trained on."""
    tokenizer = load(FOLDER / name)
    template = load_template(tokenizer)
    for case in FOLDERS[name]["conversations"]:
        outcome = encode(record_of(case, score_all_turns), tokenizer, template, Limits(4096))
        assert isinstance(outcome, Encoded), case
        prompt, response = outcome.example.prompt_ids, outcome.example.responses[0]
        ids = prompt.tolist() + response.token_ids.tolist()
        assert ids == case["ids"][: len(ids)], case
        assert tokenizer.decode(case["ids"][len(ids) :], skip_special=False).strip() == ""
        assert tokenizer.decode(ids[-1:], skip_special=False) == end_of(name)
        if not score_all_turns:
            assert response.scored.all()


def scored_parts(name: str, case: dict) -> list[str]:
    """What is scored in a conversation, one text for each end token."""
    tokenizer = load(FOLDER / name)
    outcome = encode(record_of(case), tokenizer, load_template(tokenizer), Limits(4096))
    response = outcome.example.responses[0]
    parts = tokenizer.decode(response.token_ids[response.scored], skip_special=False).split(end_of(name))
    assert parts.pop() == ""
    return parts


@pytest.mark.parametrize("name", FOLDERS)
def test_scored_tokens_are_the_answers(name):
    """Decoded, the scored tokens of all turns are the answers with their end tokens, and nothing else."""
    for case in FOLDERS[name]["conversations"]:
        if case["tools"] is None and not any("<think>" in (message["content"] or "") for message in case["messages"]):
            answers = [message["content"].strip() for message in case["messages"] if message["role"] == "assistant"]
            thought = "<think>\n\n</think>\n\n" if name.startswith("qwen3") else ""
            *earlier, last = scored_parts(name, case)
            assert [*map(str.strip, earlier), last.removeprefix(thought).strip()] == answers


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_scored_tokens_of_conversations_with_tools(name):
    """Every assistant turn is scored, calls included, and nothing else: no tool, no result, no question."""
    form = {
        "qwen3": '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>',
        "llama3": '{"name": "%s", "parameters": %s}',
        "mistral": '{"name": "%s", "arguments": %s, "id": "%s"}',
    }
    form = next(text for kind, text in form.items() if name.startswith(kind))
    for case in FOLDERS[name]["conversations"]:
        if not case["tools"]:
            continue
        turns = [message for message in case["messages"] if message["role"] == "assistant"]
        parts = scored_parts(name, case)
        assert len(parts) == len(turns)
        for part, message in zip(parts, turns, strict=True):
            calls = [call["function"] | {"id": call["id"]} for call in message.get("tool_calls", [])]
            values = [(call["name"], json.dumps(call["arguments"], ensure_ascii=False), call["id"]) for call in calls]
            texts = [form % value[: form.count("%s")] for value in values]
            shown = (
                "\n".join(texts) if "qwen3" in name else "[TOOL_CALLS] [" + ", ".join(texts) + "]" if "mistral" in name else "".join(texts)
            )
            expected = "\n".join(filter(None, [(message["content"] or "").strip(), shown if calls else ""]))
            bare = part.removeprefix("<think>\n\n</think>\n\n") if "<think>" not in expected else part
            assert "".join(bare.split()) == "".join(expected.split()), case
