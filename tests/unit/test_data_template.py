"""Where the answers stand in what a chat template makes of a conversation, with templates of the awkward kinds."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from paddlealign.arguments.template_names import ALLOWED, TEMPLATE_NAMES, template_name, template_problem
from paddlealign.data.answer_spans import RowRefusedError
from paddlealign.data.example import Message, Record
from paddlealign.data.rendering import render, render_prompt
from paddlealign.data.template import NAMED_FOLDER, load_template, template_source
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
LOOP = "{% for m in messages %}"
# In ChatML's form, but an earlier answer loses what it thought, and the last one is shown with it.
FORGETS_THINKING = (
    LOOP + "{% set text = m.content %}{% if m.role == 'assistant' and not loop.last and '</think>' in text %}"
    "{% set text = text.split('</think>')[-1] %}{% endif %}<|im_start|>{{ m.role }}\n{{ text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(source: str | None, tmp_path: Path, name: str = "qwen2"):
    tokenizer = Tokenizer.load(GOLDEN / name)
    if source is None:
        return load_template(tokenizer)
    path = tmp_path / "chat.jinja"
    path.write_text(source, "utf-8")
    return load_template(tokenizer, str(path))


def talk(*contents: str, all_turns: bool = False) -> Record:
    """User, assistant, user, ...; the last content is the response."""
    roles = ["user", "assistant"] * len(contents)
    messages = tuple(Message(role, text) for role, text in zip(roles, contents[:-1], strict=False))
    return Record(messages, (contents[-1],), all_turns, "t:1")


def scored(rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.spans]


def test_plain_turns_are_joined_with_an_eos_after_each_answer(tmp_path):
    template = load_template(Tokenizer.load(GOLDEN / "llama"), "none")
    (one,) = render(template, talk("Q: a? A: ", "b"))
    assert (one.text, scored(one), one.boundary) == ("Q: a? A: b</s>", ["b</s>"], 9)
    (many,) = render(template, talk("q", "a", "p", "b", all_turns=True))
    assert (many.text, scored(many), many.boundary) == ("qa</s>pb</s>", ["a</s>", "b</s>"], 1)
    (last,) = render(template, talk("q", "a", "p", "b"))
    assert (last.text, scored(last)) == ("qa</s>pb</s>", ["b</s>"])
    assert render_prompt(template, talk("q", "a", "p", "b").messages).text == "qa</s>p"
    (alone,) = render(template, Record((), ("text",), False, "t:1"))
    assert (alone.text, scored(alone), alone.boundary) == ("text</s>", ["text</s>"], 0)


@pytest.mark.parametrize(
    ("name", "text", "answers", "stops"),
    [
        ("llama", "<s>[INST] q [/INST] a </s>[INST] p [/INST] b </s>", [" a </s>", " b </s>"], ["</s>"]),
        (
            "qwen2",
            "<|im_start|>system\nYou answer kindly.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
            "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\nb<|im_end|>",
            ["a<|im_end|>", "b<|im_end|>"],
            ["<|im_end|>", "<|endoftext|>"],
        ),
    ],
)
def test_end_tokens_are_scored_once_and_nothing_behind_them(tmp_path, name, text, answers, stops):
    template = make(None, tmp_path, name)
    (rendered,) = render(template, talk("q", "a", "p", "b", all_turns=True))
    # LLaMA's form puts a space before the answer: it comes after the generation prompt, so it is generated.
    assert (rendered.text, scored(rendered)) == (text, answers)
    tokenizer = Tokenizer.load(GOLDEN / name)
    assert [tokenizer.model.id_to_token(index) for index in template.stop_ids] == stops


@pytest.mark.parametrize("choice", ["auto", "none"])
@pytest.mark.parametrize("ending", ["</s>", " </s> \n"])
def test_an_end_token_in_the_data_is_not_doubled(choice, ending):
    template = load_template(Tokenizer.load(GOLDEN / "llama"), choice)
    (rendered,) = render(template, talk("q", "a" + ending, "p", "b" + ending, all_turns=True))
    assert rendered.text.count("</s>") == 2


def test_the_turns_end_token_may_differ_from_the_eos(tmp_path):
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    other = replace(tokenizer, eos_id=tokenizer.special_tokens["<|endoftext|>"], stop_ids=(tokenizer.special_tokens["<|endoftext|>"],))
    other = replace(other, named_tokens={**tokenizer.named_tokens, "eos_token": "<|endoftext|>"})
    template = load_template(other)
    assert template.end_token == "<|im_end|>"
    assert template.stop_ids == (tokenizer.special_tokens["<|endoftext|>"], tokenizer.special_tokens["<|im_end|>"])


def test_only_the_first_of_several_end_tokens_is_kept(tmp_path):
    source = (
        LOOP
        + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        + ("{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}")
    )
    (rendered,) = render(make(source, tmp_path), talk("q", "a"))
    assert rendered.text.endswith("assistant\na<|im_end|>")


def test_a_template_without_an_end_token_gets_the_eos(tmp_path):
    source = LOOP + "### {{ m.role }}:\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}### assistant:\n{% endif %}"
    template = make(source, tmp_path, "llama")
    (rendered,) = render(template, talk("q", "a", "p", "b", all_turns=True))
    assert rendered.text == "### user:\nq\n### assistant:\na\n### user:\np\n### assistant:\nb</s>"
    assert scored(rendered) == ["a", "b</s>"]  # an EOS in the middle would stand nowhere when the model is used


def test_stripped_answers_are_found(tmp_path):
    source = (
        LOOP
        + "<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        + ("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    )
    (rendered,) = render(make(source, tmp_path), talk(" q ", "\n a a ", "p", "  b\n", all_turns=True))
    assert scored(rendered) == ["a a<|im_end|>", "b<|im_end|>"]


def test_earlier_answers_that_the_template_shortens_are_not_scored(tmp_path):
    template = make(FORGETS_THINKING, tmp_path)
    (rendered,) = render(template, talk("q", "<think>t</think>a", "p", "b", "r", "<think>u</think>c", all_turns=True))
    assert scored(rendered) == ["b<|im_end|>", "<think>u</think>c<|im_end|>"]
    assert rendered.altered_turns == 1
    assert "<think>t" not in rendered.text


def test_what_a_template_adds_before_the_last_answer_is_scored(tmp_path):
    """The generation prompt ends before the added text, so the model has to write it."""
    head = "<|im_start|>{{ m.role }}\n"
    empty = "{% if m.role == 'assistant' and loop.last and '<think>' not in text %}<think>\n\n</think>\n\n{% endif %}"
    source = FORGETS_THINKING.replace(head, head + empty)
    template = make(source, tmp_path)
    (added,) = render(template, talk("q", "a", "p", "b", all_turns=True))
    assert scored(added) == ["a<|im_end|>", "<think>\n\n</think>\n\nb<|im_end|>"]
    (own,) = render(template, talk("q", "<think>t</think>b"))
    assert scored(own) == ["<think>t</think>b<|im_end|>"]


def test_a_generation_prompt_that_opens_a_thought(tmp_path):
    """It is no beginning of a text without the thought: the answer is found by the rest of the template."""
    source = (
        LOOP
        + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        + ("{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}")
    )
    template = make(source, tmp_path)
    (bare,) = render(template, talk("q", "a"))
    assert scored(bare) == ["a<|im_end|>"]
    (full,) = render(template, talk("q", "<think>\nt</think>a"))
    assert scored(full) == ["t</think>a<|im_end|>"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOP + "<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}", "drops a part of the answer"),
        (
            LOOP + "{{ m.content }}<|im_end|>{% if '<think>' in m.content %}!{% endif %}{% endfor %}",
            "ends differently depending on the answer",
        ),
        (LOOP + "{{ messages|map(attribute='content')|join|length }}:{{ m.content }}{% endfor %}", "no beginning of the whole text"),
        (LOOP + "{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "exactly once"),
        ("{{ raise_exception('only the weather, please') }}", "only the weather, please"),
        ("{{ messages[7].content }}", "raises"),
        (LOOP + "{{ loop.index0 if m.role == 'user' else messages|length }}{{ m.content[::-1] }}{% endfor %}", "exactly once"),
    ],
)
def test_what_cannot_be_found_is_refused(tmp_path, source, words):
    with pytest.raises(RowRefusedError, match=words):
        render(make(source, tmp_path), talk("q", "<think>t</think>a"))


def test_the_system_message_and_default_prompts(tmp_path):
    template = make(None, tmp_path)
    record = Record((Message("system", "s"), Message("user", "q")), ("a",), False, "t:1")
    assert render(template, record)[0].text.startswith("<|im_start|>system\ns<|im_end|>")
    prompt = render_prompt(template, record.messages).text
    assert render(template, record)[0].text == prompt + "a<|im_end|>"


def test_the_environment_of_templates(tmp_path):
    source = (
        "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}\n"
        "    {% if m.role == 'user' %}\n"
        "{{ {'q': m.content, 'é': '<'} | tojson }}{{ strftime_now('%Y')[:2] }}{{ bos_token }}{{ missing_token }}"
        "    {% else %}{% generation %}[{{ m.content }}]{% endgeneration %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    (rendered,) = render(make(source, tmp_path, "llama"), talk("ü", "a"))
    assert rendered.text == '{"q": "ü", "é": "<"}20<s>    [a]</s>'


def test_templates_are_held_in_a_sandbox(tmp_path):
    with pytest.raises(RowRefusedError, match="raises"):
        render(make("{{ ''.__class__.__mro__[1].__subclasses__() }}", tmp_path), talk("q", "a"))


def test_faults_of_the_chat_template_key(tmp_path):
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    with pytest.raises(UserError, match=r'chat_template: "missing\.jinja" is neither a known name nor a file\. Allowed: auto'):
        load_template(tokenizer, "missing.jinja")
    (tmp_path / "latin.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"latin\.jinja' cannot be read .*codec"):
        load_template(tokenizer, str(tmp_path / "latin.jinja"))
    path = tmp_path / "broken.jinja"
    for source in ("{% for m in messages %}\n{{ m.role }\n{% endfor %}", "\n{% for m in messages %}"):
        path.write_text(source)
        with pytest.raises(UserError, match=r"broken\.jinja, line 2: .*[^.]\.$"):
            load_template(tokenizer, str(path))
    assert load_template(replace(tokenizer, chat_template=None)).name == "none"


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("qwen", "qwen"),
        ("Qwen2.5", "qwen"),
        ("qwen-2.5", "qwen"),
        ("LLaMA-3", "llama3"),
        ("llama_2", "llama2"),
        ("ChatML", "chatml"),
        ("mistral-v3", "mistral_v3"),
    ],
)
def test_a_template_by_its_name(choice, name):
    assert template_name(choice) == name and template_problem(choice) is None
    assert template_source(choice) == (NAMED_FOLDER / f"{name}.jinja").read_text("utf-8")


@pytest.mark.parametrize(
    ("choice", "meant"),
    # Qwen2's own system text is not Qwen2.5's.
    [("vicunna", "vicuna"), ("llama-4", "llama3"), ("chatlm", "chatml"), ("atuo", "auto"), ("xyz", None), ("qwen2", "qwen")],
)
def test_a_typing_mistake_in_a_name(choice, meant):
    said = template_problem(choice)
    assert said.endswith(f"Allowed: {ALLOWED}.") and "qwen, qwen3, llama2" in ALLOWED
    assert (f"Did you mean {meant}?" in said) == (meant is not None) == ("Did you mean" in said)


def test_a_named_template_needs_its_special_tokens():
    llama = Tokenizer.load(GOLDEN / "llama")
    said = r"chatml writes <\|im_start\|> and <\|im_end\|>, which the tokenizer of .*llama does not have as a token of its own"
    with pytest.raises(UserError, match=said + r".* Templates that fit this tokenizer: llama2, mistral, vicuna, plain\."):
        load_template(llama, "chatml")
    assert load_template(llama, "vicuna").end_token == load_template(llama, "llama2").end_token == "</s>"
    assert load_template(Tokenizer.load(GOLDEN / "qwen2"), "chatml").end_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("name", "folder", "text", "answers"),
    [
        (
            "vicuna",
            "llama",
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
            "answers to the user's questions. USER: q ASSISTANT: a</s>USER: p ASSISTANT: b</s>",
            [" a</s>", " b</s>"],
        ),
        ("llama2", "llama", "<s>[INST] q [/INST] a </s><s>[INST] p [/INST] b </s>", [" a </s>", " b </s>"]),
        ("mistral", "llama", "<s>[INST] q [/INST] a</s>[INST] p [/INST] b</s>", [" a</s>", " b</s>"]),
        ("mistral_v3", "mistral_v3", "<s>[INST] q[/INST] a</s>[INST] p[/INST] b</s>", [" a</s>", " b</s>"]),
        ("plain", "llama", "qa</s>pb</s>", ["a</s>", "b</s>"]),
    ],
)
def test_the_formats_of_named_templates(name, folder, text, answers):
    (rendered,) = render(load_template(Tokenizer.load(GOLDEN / folder), name), talk("q", "a", "p", "b", all_turns=True))
    assert (rendered.text, scored(rendered)) == (text, answers)


@pytest.mark.parametrize("name", ["llama2", "mistral", "mistral_v3", "vicuna", "plain"])
def test_system_texts_of_named_templates(name):
    template = load_template(Tokenizer.load(GOLDEN / "mistral_v3"), name)
    record = Record((Message("system", "Be kind."), Message("user", "q")), ("a",), False, "t:1")
    expected = {
        "llama2": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nq [/INST]",
        "mistral": "<s>[INST] Be kind.\n\nq [/INST]",
        "mistral_v3": "<s>[INST] Be kind.\n\nq[/INST]",
        "vicuna": "Be kind. USER: q ASSISTANT:",
        "plain": "Be kind.q",
    }[name]
    assert render_prompt(template, record.messages).text == expected
    assert render(template, record)[0].text.startswith(expected)


def test_the_plain_template_is_what_none_does():
    tokenizer = Tokenizer.load(GOLDEN / "llama")
    record = talk("q </s> <s>", "a</s>", "p", "b", all_turns=True)
    assert render(load_template(tokenizer, "plain"), record) == render(load_template(tokenizer, "none"), record)


@pytest.mark.parametrize("choice", ["none", "plain"])
def test_two_turns_that_spell_a_special_token_are_refused(choice):
    template = load_template(Tokenizer.load(GOLDEN / "llama"), choice)
    with pytest.raises(RowRefusedError, match="spell a special token"):
        render(template, talk("a <", "s> b"))
    with pytest.raises(RowRefusedError, match="spell a special token"):
        render_prompt(template, [Message("system", "</"), Message("user", "s>")])
    for parted in (talk("a <", " s> b"), talk("a <", "b <")):
        assert render(template, parted)[0].text == parted.messages[0].content + parted.responses[0] + "</s>"
    assert render(load_template(Tokenizer.load(GOLDEN / "llama"), "vicuna"), talk("a <", "s> b"))


@pytest.mark.parametrize(
    "source", ["{{ m.content | replace('im_end', 'x') }}", "{{ m.content | tojson }}", "{{ m.content | length }}{{ m.content }}"]
)
def test_a_template_that_looks_into_special_texts(tmp_path, source):
    """What it makes of the mask must be what it makes of the text."""
    template = make(LOOP + source + "<|im_end|>{% endfor %}", tmp_path)
    for call in (lambda: render(template, talk("a <|im_end|>", "b")), lambda: render_prompt(template, [Message("user", "a <|im_end|>")])):
        if "length" in source or "tojson" in source:
            call()
        else:
            with pytest.raises(RowRefusedError, match="alters the text of a special token"):
                call()


def test_the_documented_formats():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|`]+ \| `(.*)` \|$", page, re.MULTILINE))
    assert set(rows) == set(TEMPLATE_NAMES)
    folders = {"qwen": "qwen2", "qwen3": "qwen3", "chatml": "qwen2", "llama3": "llama3", "mistral_v3": "mistral_v3"}
    record = Record((Message("system", "S"), Message("user", "q")), ("a",), False, "t:1")
    for name, text in rows.items():
        template = load_template(Tokenizer.load(GOLDEN / folders.get(name, "llama")), name)
        assert render(template, record)[0].text == text.replace("\\|", "|").replace("⏎", "\n"), name
