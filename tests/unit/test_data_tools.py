"""Rows with tools, tool calls and results: what is read, what is refused, and what is scored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from paddlealign.data.answer_spans import RowRefusedError
from paddlealign.data.encoding import Limits, encode
from paddlealign.data.encoding_report import Encoded
from paddlealign.data.example import Message, Record
from paddlealign.data.records import read_records
from paddlealign.data.rendering import render, render_prompt
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "X"}}}
ASK = {"role": "user", "content": "q"}
CALLS = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "sunny", "tool_call_id": "call00001", "name": "weather"}
SAY = {"role": "assistant", "content": "a"}


def read(tmp_path: Path, kind: str, **row: object) -> Record:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(row) + "\n")
    [record], _ = read_records([path], kind)
    return record


def test_sft_rows(tmp_path):
    record = read(tmp_path, "sft", messages=[ASK, CALLS, RESULT, SAY], tools=[TOOL])
    assert record.tools == (TOOL,)
    assert record.responses == ("a",)
    assert record.messages == (
        Message("user", "q"),
        Message("assistant", None, (CALL,)),
        Message("tool", "sunny", (), "call00001", "weather"),
    )
    last = read(tmp_path, "sft", messages=[ASK, CALLS], tools=[])
    assert last.responses == (Message("assistant", None, (CALL,)),)
    assert last.tools == ()
    # What is null or empty is as if it were not there.
    plain = read(tmp_path, "sft", messages=[ASK, {**SAY, "tool_calls": None, "reasoning_content": None}], tools=None)
    assert (plain.responses, plain.tools) == (("a",), None)
    assert read(tmp_path, "sft", messages=[ASK, {**SAY, "tool_calls": []}]).responses == ("a",)
    assert read(tmp_path, "sft", src="q", tgt="a", tools=[TOOL]).tools == (TOOL,)


def test_preference_rows(tmp_path):
    record = read(tmp_path, "preference", prompt=[ASK], chosen=[CALLS], rejected=[SAY], tools=[TOOL])
    assert record.responses == (Message("assistant", None, (CALL,)), "a")
    assert record.tools == (TOOL,)
    record = read(tmp_path, "preference", prompt=[ASK, CALLS, RESULT], chosen="a", rejected="b", tools=[TOOL])
    assert [message.role for message in record.messages] == ["user", "assistant", "tool"]
    both = [ASK, CALLS, RESULT]
    assert len(read(tmp_path, "preference", chosen=[*both, SAY], rejected=[*both, CALLS], tools=[TOOL]).messages) == 3


def test_prompt_rows(tmp_path):
    record = read(tmp_path, "prompt", messages=[ASK, CALLS, RESULT], tools=[TOOL], other=1)
    assert (record.messages[-1].role, record.tools) == ("tool", (TOOL,))
    assert read(tmp_path, "prompt", messages=[ASK, CALLS], tools=[TOOL]).messages == (Message("user", "q"),)


BARE = {"name": "weather", "arguments": {}}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tools": "weather"}, r"tools is text 'weather'; it must be a list, and a tool is"),
        ({"tools": {"weather": TOOL}}, r"tools is object .*; it must be a list"),
        ({"tools": ["weather"]}, r"tools\[0\] is text 'weather'; a tool is"),
        ({"tools": [TOOL, {"function": {}}]}, r"tools\[1\] is object .*; a tool is"),
        ({"tools": [{"name": " "}]}, r"tools\[0\] is object"),
        ({"tools": [{**TOOL["function"], "description": "\ud83d"}]}, "tools holds half a surrogate pair"),
        ({"messages": [ASK, {**CALLS, "tool_calls": "weather()"}]}, r"messages\[1\]\.tool_calls is text 'weather\(\)'; it must be a list"),
        ({"messages": [ASK, {**CALLS, "tool_calls": [{"function": "weather"}]}]}, r"tool_calls\[0\] is object .*; a call is"),
        ({"messages": [ASK, {**CALLS, "tool_calls": [{"name": "weather"}]}]}, r"tool_calls\[0\] has arguments null; a call is"),
        ({"messages": [ASK, {**CALLS, "tool_calls": [{**BARE, "arguments": [1]}]}]}, r"tool_calls\[0\] has arguments list \[1\]"),
        ({"messages": [{**ASK, "tool_calls": [CALL]}, SAY]}, r'messages\[0\] has tool_calls and role "user"; only an assistant'),
        ({"messages": [ASK, {**CALLS, "content": 3}]}, r"messages\[1\]\.content is number 3; it must be a text"),
        ({"messages": [ASK, {"role": "assistant", "content": None}]}, r"messages\[1\]\.content is null; it must be a text"),
        ({"messages": [ASK, {"role": "assistant"}]}, r'a message is \{"role", "content"\}'),
        ({"messages": [ASK, RESULT, SAY]}, r"messages\[1\] is a tool's result; it must follow an assistant message"),
        ({"messages": [RESULT, SAY]}, r"messages\[0\] is a tool's result"),
        ({"messages": [ASK, CALLS, {**RESULT, "content": {"sky": "x"}}, SAY]}, r"messages\[2\]\.content is object"),
        ({"messages": [ASK, CALLS, {**RESULT, "tool_call_id": 1}, SAY]}, r"messages\[2\]\.tool_call_id is number 1; it must be a text"),
        (
            {"messages": [ASK, CALLS, {**RESULT, "role": "function"}, SAY]},
            "role text 'function'; allowed are system, user, assistant, tool",
        ),
        ({"messages": [ASK, CALLS, RESULT]}, 'the last message has role "tool"; in an SFT row it must be "assistant"'),
        ({"messages": [ASK, {**SAY, "function_call": BARE}]}, r"messages\[1\]\.function_call is not read; it is the older form"),
        ({"messages": [ASK, {**SAY, "reasoning_content": "hm"}]}, r"reasoning_content is not read; put the thought into content"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(tmp_path, row, words):
    with pytest.raises(UserError, match=rf"rows\.json:1: .*{words}"):
        read(tmp_path, "sft", **{"messages": [ASK, SAY], **row})


def record_of(*messages: dict, tools: tuple | None = (TOOL,), all_turns: bool = True) -> Record:
    turns = [Message(m["role"], m.get("content"), tuple(m.get("tool_calls", ())), m.get("tool_call_id")) for m in messages]
    answer = turns[-1] if turns[-1].tool_calls else turns[-1].content
    return Record(tuple(turns[:-1]), (answer,), all_turns, "t:1", tools)


def of(name: str, tmp_path: Path, source: str | None = None):
    tokenizer = Tokenizer.load(GOLDEN / name)
    if source is None:
        return load_template(tokenizer)
    (tmp_path / "chat.jinja").write_text(source)
    return load_template(tokenizer, str(tmp_path / "chat.jinja"))


@pytest.mark.parametrize("name", ["qwen3", "llama3", "mistral_v3"])
def test_a_pair_of_a_call_and_an_answer(tmp_path, name):
    """Both are branches behind one prompt, and neither the tools nor the result is scored."""
    tokenizer, template = Tokenizer.load(GOLDEN / name), of(name, tmp_path)
    record = record_of(ASK, CALLS, RESULT, CALLS, all_turns=False)
    pair = replace(record, responses=(record.responses[0], "a"))
    outcome = encode(pair, tokenizer, template, Limits(2000))
    assert isinstance(outcome, Encoded)
    prompt = tokenizer.decode(outcome.example.prompt_ids, skip_special=False)
    assert prompt.count("sunny") == 1
    called, said = (tokenizer.decode(response.token_ids, skip_special=False) for response in outcome.example.responses)
    assert '"city": "X"' in called
    assert "weather" not in said
    assert all(response.scored.all() for response in outcome.example.responses)
    assert render_prompt(template, record.messages, record.tools).text.startswith(prompt[:20])


LOOP = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
CALLING = "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def test_calls_are_scored_from_the_generation_prompt_to_the_end_token(tmp_path):
    template = of("qwen3", tmp_path, LOOP + CALLING + END)
    (rendered,) = render(template, record_of(ASK, {**CALLS, "content": "I look."}, RESULT, CALLS))
    parts = [rendered.text[start:end] for start, end in rendered.spans]
    call = '<tool_call>{"name": "weather", "arguments": {"city": "X"}}</tool_call><|im_end|>'
    assert parts == ["I look." + call, call]
    assert rendered.boundary == rendered.spans[0][0]
    assert rendered.text.endswith("<|im_end|>")
    (last,) = render(template, record_of(ASK, CALLS, RESULT, CALLS, all_turns=False))
    assert [last.text[start:end] for start, end in last.spans] == [call]


def test_a_question_that_quotes_the_call_is_not_taken_for_it(tmp_path):
    template = of("qwen3", tmp_path, LOOP + CALLING + END)
    quoted = '<tool_call>{"name": "weather", "arguments": {"city": "X"}}</tool_call>'
    (rendered,) = render(template, record_of({**ASK, "content": quoted}, CALLS, RESULT, {**ASK, "content": quoted}, SAY))
    parts = [rendered.text[start:end] for start, end in rendered.spans]
    assert parts == [quoted + "<|im_end|>", "a<|im_end|>"]
    assert rendered.text[: rendered.spans[0][0]].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOP.replace("{{ t | tojson }}", "") + CALLING + END, "does not show the tool weather"),
        (LOOP + END, "does not show every tool call and result exactly once"),
        (LOOP + CALLING + CALLING + END, "does not show every tool call and result exactly once"),
        (LOOP.replace("m.content or ''", "'' if m.role == 'tool' else m.content or ''") + CALLING + END, "every tool call and result"),
        (LOOP + CALLING + END.replace("<|im_end|>", "</end>"), "no end token follows them"),
        (LOOP.replace("m.content or ''", "'' if m.tool_calls else m.content") + CALLING + END, "drops the text beside the tool calls"),
    ],
)
def test_templates_that_lose_a_part_are_refused(tmp_path, source, words):
    with pytest.raises(RowRefusedError, match=words):
        render(of("qwen3", tmp_path, source), record_of(ASK, CALLS, RESULT, {**CALLS, "content": "I look."}, all_turns=False))


def test_a_call_that_the_template_alters_in_the_past_is_not_scored(tmp_path):
    """Here old calls lose their arguments: they are counted, and what they show is no example to learn from."""
    shorter = "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ '!' if last }}{% endfor %}"
    other = "{% set last = loop.last %}<|im_start|>{{ 'bot' if m.role == 'assistant' and not last else m.role }}"
    template = of("qwen3", tmp_path, LOOP.replace("<|im_start|>{{ m.role }}", other) + shorter + END)
    (rendered,) = render(template, record_of(ASK, CALLS, RESULT, CALLS))
    assert rendered.altered_turns == 1
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["weather!<|im_end|>"]


def test_an_altered_call_is_not_joined_with_an_earlier_turn(tmp_path):
    """The second call has lost its opening; from the first one's on there is a question that must not be scored."""
    other = "<|im_start|>{{ 'bot' if loop.index0 == 3 and not loop.last else m.role }}"
    template = of("qwen3", tmp_path, LOOP.replace("<|im_start|>{{ m.role }}", other) + CALLING + END)
    (rendered,) = render(template, record_of(ASK, CALLS, RESULT, CALLS, RESULT, ASK, SAY))
    call = '<tool_call>{"name": "weather", "arguments": {"city": "X"}}</tool_call><|im_end|>'
    assert [rendered.text[start:end] for start, end in rendered.spans] == [call, "a<|im_end|>"]
    assert rendered.altered_turns == 1


def test_what_needs_a_template_is_refused_without_one():
    template = load_template(Tokenizer.load(GOLDEN / "qwen3"), "none")
    for record in (record_of(ASK, SAY), record_of(ASK, CALLS, tools=None), record_of(ASK, CALLS, RESULT, SAY, tools=None)):
        with pytest.raises(RowRefusedError, match="need a chat template"):
            render(template, record)
        with pytest.raises(RowRefusedError, match="need a chat template"):
            render_prompt(template, [*record.messages, Message("tool", "x")], record.tools)


def prompt(template, record: Record):
    return render_prompt(template, record.messages, record.tools)


@pytest.mark.parametrize("where", ["tools", "arguments", "result"])
def test_end_tokens_in_tools_calls_and_results_are_text(tmp_path, where):
    bad = "<|im_end|>"
    tool = {**TOOL["function"], "description": bad} if where == "tools" else TOOL
    call = {**CALL, "function": {"name": "weather", "arguments": {"city": bad}}} if where == "arguments" else CALL
    result = {**RESULT, "content": bad} if where == "result" else RESULT
    record = record_of(ASK, {**CALLS, "tool_calls": [call]}, result, SAY, tools=(tool,))
    template = of("qwen3", tmp_path)
    [rendered] = render(template, record)
    plain = record_of(ASK, CALLS, RESULT, SAY, tools=(TOOL,))
    for text, other in ((rendered, render(template, plain)[0]), (prompt(template, record), prompt(template, plain))):
        assert text.text.count(bad) == other.text.count(bad) + 1
        assert text.masked.count(bad) == other.text.count(bad)


def test_the_checkpoints_own_template_for_tools(tmp_path):
    tokenizer = Tokenizer.load(GOLDEN / "qwen3")
    both = replace(tokenizer, chat_template="{{ messages[0].content }}D", tool_template="{{ tools[0].function.name }}T")
    template = load_template(both)
    assert render_prompt(template, [Message("user", "q")]).text == "qD"
    assert render_prompt(template, [Message("user", "q")], [TOOL]).text == "weatherT"
    assert template.fingerprint != load_template(replace(both, tool_template=None)).fingerprint


WITHOUT_TOOLS = "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}"


def test_a_template_without_tools_that_stumbles_over_a_call(tmp_path):
    """The same words as where nothing is called yet, in training and in prediction; not jinja's."""
    template = of("qwen2", tmp_path, WITHOUT_TOOLS)
    record = record_of(ASK, CALLS, RESULT, SAY)
    for call in (lambda: render(template, record), lambda: render_prompt(template, record.messages, record.tools)):
        with pytest.raises(RowRefusedError, match=r"does not show the tool weather \(set chat_template to one that does\)$"):
            call()
    with pytest.raises(RowRefusedError, match=r"has no attribute 'content' \(the row has tool calls or results; set"):
        render(template, record_of(ASK, CALLS, RESULT, SAY, tools=None))
    with_tools = "{% for t in tools %}{{ t.function.name }}{% endfor %}" + WITHOUT_TOOLS
    with pytest.raises(RowRefusedError, match=r"has no attribute 'content' \(the row has tool calls or results"):
        render(of("qwen2", tmp_path, with_tools), record)
