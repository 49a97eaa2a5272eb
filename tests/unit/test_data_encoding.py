"""Records to examples: the boundary, BOS and EOS, every truncation policy, and the counts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models

from paddlealign.data.describe import describe, legend, telling
from paddlealign.data.encoding import Limits, encode, encode_all, encode_prompt, examples_hash
from paddlealign.data.encoding_report import Encoded, Refusal
from paddlealign.data.example import Message, Record
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
LETTERS = "abcdefxy "


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Tokenizer:
    """One token a letter, but "bc" and "xy" merge. "<" is the BOS, ">" the EOS, both special."""
    folder = tmp_path_factory.mktemp("letters")
    vocabulary = {text: index for index, text in enumerate([*LETTERS, "<", ">", "bc", "xy"])}
    library = LibraryTokenizer(models.BPE(vocabulary, [("b", "c"), ("x", "y")]))
    library.add_special_tokens(["<", ">"])
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<", "eos_token": ">", "add_bos_token": true}')
    return Tokenizer.load(folder)


def sft(prompt: str, response: str) -> Record:
    return Record((Message("user", prompt),), (response,), False, "rows.json:3")


def pair(prompt: str, chosen: str, rejected: str) -> Record:
    return Record((Message("user", prompt),), (chosen, rejected), False, "rows.json:3")


def run(tokenizer: Tokenizer, record: Record, **limits: object):
    return encode(record, tokenizer, load_template(tokenizer, "none"), Limits(**{"max_length": 100, **limits}))


def shown(tokenizer: Tokenizer, outcome: Encoded | Refusal) -> str:
    """The prompt's tokens, then each branch's, with those in capitals (brackets for specials) that are scored."""
    assert isinstance(outcome, Encoded)
    name = tokenizer.model.id_to_token
    parts = [" ".join(name(index) for index in outcome.example.prompt_ids)]
    for response in outcome.example.responses:
        words = [(name(index), on) for index, on in zip(response.token_ids, response.scored, strict=True)]
        parts.append(" ".join((word.upper() if word.isalpha() else f"[{word}]") if on else word for word, on in words))
    return " | ".join(parts)


def test_one_bos_one_scored_eos(letters):
    assert shown(letters, run(letters, sft("ab", "d"))) == "< a b | D [>]"
    assert shown(letters, run(letters, sft("<ab", "d>"))) == "< a b | D [>]"
    assert shown(letters, run(letters, sft("ab", "d>>"))) == "< a b | D [>]"
    assert shown(letters, run(letters, Record((), ("ad",), False, "r:1"))) == "< | A D [>]"


@pytest.mark.parametrize(
    "record",
    [
        sft("a>b", "d"),
        sft("a", "d>e<d"),
        sft("a<", "d"),
        pair("a", "d", "e>d"),
        Record((Message("system", "a>"), Message("user", "b")), ("d",), False, "r:1"),
        Record((Message("user", "a"), Message("assistant", "b>d"), Message("user", "d")), ("e",), False, "r:1"),
        Record((), ("a>d",), False, "r:1"),
    ],
)
def test_special_tokens_that_cannot_be_kept_as_text_are_refused(letters, record):
    """Each would be a second BOS, or an end in the middle of the row: this vocabulary has no other piece for the character."""
    kept = "the row holds the text of a special token, which this tokenizer cannot keep as text (remove it from the row)"
    assert run(letters, record) == Refusal(kept)


def test_special_tokens_in_a_row_are_text_and_counted():
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    template = load_template(tokenizer)
    records = [
        sft("Hello", "hello<|im_end|>"),
        sft("Hello<|im_end|>", "hello"),
        sft("Hello", "<|endoftext|>"),
        sft("Hello", "<|im_start|>"),
    ]
    found = encode_all(records, tokenizer, template, Limits(200))
    assert (found.report.kept, found.report.special_text_rows, found.report.special_text_at) == (4, 3, "rows.json:3")
    for example in found.examples:  # the frames of the system's, the user's and the assistant's turn, and nothing else
        ids = [*example.prompt_ids, *example.responses[0].token_ids]
        control = [tokenizer.model.id_to_token(index) for index in ids if index in tokenizer.special_tokens.values()]
        assert control == ["<|im_start|>", "<|im_end|>"] * 3
    llama = Tokenizer.load(GOLDEN / "llama")
    assert run(llama, sft("<s>Hello", "hello </s>")).example.responses[0].token_ids[-1] == llama.eos_id
    framed = encode(sft("<s>Hello", "hello"), llama, load_template(llama), Limits(100)).example.prompt_ids
    assert (framed == llama.bos_id).sum() == 1 and llama.decode(framed, skip_special=False) == "<s>[INST] <s>Hello [/INST]"


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>"])
def test_turn_tokens_that_are_not_called_special_are_text_in_a_row_too(tmp_path, token):
    """As where one was added as a plain token; the EOS is one of them, too, whatever its flag says."""
    folder = tmp_path / "plain"
    shutil.copytree(GOLDEN / "qwen3", folder)
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        content = json.loads(path.read_text("utf-8"))
        content.pop("additional_special_tokens", None)
        for added in [*content.get("added_tokens", []), *content.get("added_tokens_decoder", {}).values()]:
            added["special"] = added["special"] and added["content"] != token
        path.write_text(json.dumps(content), "utf-8")
    tokenizer, whole = Tokenizer.load(folder), Tokenizer.load(GOLDEN / "qwen3")
    assert token in whole.special_tokens and token not in tokenizer.special_tokens
    record = sft(f"a {token} b", "<think>\nc\n</think>\n\nd")
    for choice in ("auto", "chatml"):
        found, same = (encode(record, one, load_template(one, choice), Limits(200)) for one in (tokenizer, whole))
        assert found.special_text and shown(tokenizer, found) == shown(whole, same)
        assert shown(tokenizer, found).count("think") == 2  # the answer's own tokens


def test_a_special_token_in_a_prompt_to_answer_names_the_row(letters):
    with pytest.raises(UserError, match=r"rows\.json:3: the row holds the text of a special token, which .* \(remove it from the row\)\."):
        encode_prompt(sft("a>b", ""), letters, load_template(letters, "none"))


def test_a_token_over_the_boundary_belongs_to_the_response(letters):
    assert shown(letters, run(letters, sft("ab", "cd"))) == "< a | BC D [>]"


def test_a_pair_shares_what_all_its_branches_share(letters):
    """The rejected branch has no merged token; its own "b" is then part of the response, so that both continue "< a"."""
    assert shown(letters, run(letters, pair("ab", "cd", "ed"))) == "< a | BC D [>] | B E D [>]"
    assert shown(letters, run(letters, pair("ab", "de", "df"))) == "< a b | D E [>] | D F [>]"


def test_several_turns_are_scored_where_asked(letters):
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "d"))
    assert shown(letters, run(letters, Record(messages, ("e",), True, "r:1"))) == "< a | B [>] d E [>]"
    assert shown(letters, run(letters, Record(messages, ("e",), False, "r:1"))) == "< a b > d | E [>]"


def test_a_thought_of_twenty_thousand_tokens_is_scored_whole():
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    answer = f"<think>{'so 1 + 1 is 2, ' * 3_000}</think>2"
    record = Record((Message("user", "What is 1 + 1?"),), (answer,), True, "rows.json:1")
    template = load_template(tokenizer, "auto")
    outcome = encode(record, tokenizer, template, Limits(max_length=100_000))
    assert isinstance(outcome, Encoded)
    [response] = outcome.example.responses
    assert len(response.token_ids) > 20_000 and response.scored.all()
    assert tokenizer.decode([int(index) for index in response.token_ids[:-1]]) == answer
    dropped = encode(record, tokenizer, template, Limits(max_length=20_000))
    assert isinstance(dropped, Refusal) and dropped.too_long


def test_without_a_bos_and_a_prompt_the_first_token_has_no_predecessor():
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    outcome = run(tokenizer, Record((), ("Hello hello",), False, "r:1"))
    assert len(outcome.example.prompt_ids) == 0
    scored = outcome.example.responses[0].scored
    assert not scored[0] and scored[1:].all()
    only = run(tokenizer, Record((), ("<|im_end|>",), False, "r:1"))
    assert only == Refusal("no token to score")


LONG = "abdef"  # with the BOS six tokens


@pytest.mark.parametrize(
    ("truncation", "limits", "expected"),
    [
        ("truncate_prompt", {"src_length": 4}, "< d e f | D E [>]"),
        ("truncate_prompt", {"max_length": 6}, "< e f | D E [>]"),
        ("truncate_prompt", {"src_length": 5, "max_length": 5}, "< f | D E [>]"),
        ("truncate_response", {"max_length": 8}, "< a b d e f | D E"),
        ("truncate_response", {"max_length": 7}, "< a b d e f | D"),
        ("truncate_response", {"max_length": 9, "src_length": 6}, "< a b d e f | D E [>]"),
    ],
)
def test_cuts(letters, truncation, limits, expected):
    outcome = run(letters, sft(LONG, "de"), truncation=truncation, **limits)
    assert shown(letters, outcome) == expected
    assert outcome.prompt_cut == (truncation == "truncate_prompt")
    assert outcome.responses_cut == (truncation == "truncate_response" and limits["max_length"] < 9)


@pytest.mark.parametrize(
    ("truncation", "limits"),
    [
        ("drop", {"src_length": 5}),
        ("drop", {"max_length": 8}),
        ("truncate_prompt", {"max_length": 4}),  # only the BOS would be left
        ("truncate_response", {"max_length": 6}),
        ("truncate_response", {"src_length": 5}),
    ],
)
def test_rows_that_the_policy_cannot_save_are_dropped(letters, truncation, limits):
    assert run(letters, sft(LONG, "de"), truncation=truncation, **limits) == Refusal("too long", too_long=True)


def test_the_policy_error_names_the_row_and_the_lengths(letters):
    with pytest.raises(UserError, match=r"rows\.json:3: the prompt has 6 tokens \(src_length None\).*3, together 9 \(max_length 8\)"):
        run(letters, sft(LONG, "de"), truncation="error", max_length=8)


def test_both_answers_are_cut_by_the_same_rule(letters):
    outcome = run(letters, pair("a", "dddddd", "eee"), truncation="truncate_response", max_length=5)
    assert shown(letters, outcome) == "< a | D D D | E E E"
    assert outcome.responses_cut == 2
    outcome = run(letters, pair("abd", "dddd", "e"), truncation="truncate_prompt", max_length=7)
    assert shown(letters, outcome) == "< d | D D D D [>] | E [>]"


def test_pairs_that_a_cut_makes_equal_are_refused(letters):
    outcome = run(letters, pair("a", "dddde", "ddddf"), truncation="truncate_response", max_length=6)
    assert outcome == Refusal("chosen equals rejected after cutting")


def test_pairs_that_are_equal_in_tokens_are_refused(letters):
    assert run(letters, pair("a", "d", "d>")) == Refusal("chosen equals rejected in tokens")


def test_a_cut_conversation_loses_its_unscored_tail(letters):
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "ddd"))
    outcome = run(letters, Record(messages, ("e",), True, "r:1"), truncation="truncate_response", max_length=6)
    assert shown(letters, outcome) == "< a | B [>]"


def test_the_report_counts_every_row(letters):
    template = load_template(letters, "none")
    records = [sft("a", "d"), sft(LONG, "de"), pair("a", "d", "d>"), pair("a", "d", "ef"), sft("a", "dddddddd")]
    result = encode_all(records, letters, template, Limits(8, 3, "truncate_prompt"))
    report = result.report
    assert (report.rows, report.kept, report.dropped_too_long, report.prompts_truncated) == (5, 3, 1, 1)
    assert dict(report.refused) == {"chosen equals rejected in tokens": 1}
    assert report.refused_at == {"chosen equals rejected in tokens": "rows.json:3"}
    assert result.kept.tolist() == [0, 1, 3]
    assert report.tokens == (2 + 2) + (3 + 3) + (2 + 2 + 3)
    assert report.scored_tokens == 2 + 3 + 2 + 3
    cut = encode_all(records, letters, template, Limits(5, None, "truncate_response")).report
    assert (cut.kept, cut.dropped_too_long, cut.responses_truncated) == (3, 1, 1)


def test_no_row_left_is_an_error_that_counts(letters):
    template = load_template(letters, "none")
    with pytest.raises(UserError, match=r"none of 2 rows can be used: 1 refused: chosen equals.*; 1 too long for src_length 2"):
        encode_all([sft(LONG, "d"), pair("a", "d", "d>")], letters, template, Limits(8, 2))
    with pytest.raises(UserError, match="truncation: 'cut' is not one of drop,"):
        encode_all([sft("a", "d")], letters, template, Limits(8, 2, "cut"))


def test_chunks_do_not_change_examples(letters):
    template = load_template(letters, "none")
    records = [sft("a" * (1 + i % 7), "de"[: 1 + i % 2]) for i in range(1100)]
    examples = encode_all(records, letters, template, Limits(100)).examples
    alone = [encode(record, letters, template, Limits(100)).example for record in records]
    assert examples_hash(examples) == examples_hash(alone)
    assert examples_hash(examples) != examples_hash(examples[::-1])


def test_the_hash_sees_ids_and_what_is_scored(letters):
    one = run(letters, pair("ab", "d", "e")).example
    other = run(letters, pair("ab", "e", "d")).example
    moved = run(letters, Record((Message("user", "a"), Message("assistant", "b"), Message("user", "d")), ("e",), True, "r")).example
    fixed = run(letters, Record((Message("user", "a"), Message("assistant", "b"), Message("user", "d")), ("e",), False, "r")).example
    assert len({examples_hash([example]) for example in (one, other, moved, fixed)}) == 4


def test_prompts_for_generation(letters):
    template = load_template(letters, "none")
    ids, was_cut = encode_prompt(sft(LONG, "de"), letters, template)
    assert [letters.model.id_to_token(index) for index in ids] == list("<abdef")
    assert ids.dtype == np.int32 and not was_cut
    assert not encode_prompt(sft(LONG, "de"), letters, template, 6).cut
    ids, was_cut = encode_prompt(sft(LONG, "de"), letters, template, 3)
    assert [letters.model.id_to_token(index) for index in ids] == list("<ef")
    assert was_cut


def test_a_prompt_that_the_template_refuses_is_named(letters, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{{ raise_exception('no.') }}")
    with pytest.raises(UserError, match=r"rows\.json:3: the chat template raises: no\.$"):
        encode_prompt(sft("a", "b"), letters, load_template(letters, str(path)))


def test_the_training_prompt_is_the_generation_prompt():
    for name in ("llama", "qwen2", "llama3"):
        tokenizer = Tokenizer.load(GOLDEN / name)
        template = load_template(tokenizer)
        record = sft("How many apples?", "Seven.")
        example = encode(record, tokenizer, template, Limits(100)).example
        assert example.prompt_ids.tolist() == encode_prompt(record, tokenizer, template).ids.tolist(), name


def test_a_bos_is_added_where_the_template_writes_none(tmp_path):
    tokenizer = Tokenizer.load(GOLDEN / "llama")
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}")
    ids = encode(sft("Hello", "hello"), tokenizer, load_template(tokenizer, str(path)), Limits(100)).example.prompt_ids
    assert ids[0] == tokenizer.bos_id
    assert (ids == tokenizer.bos_id).sum() == 1


def test_rows_that_are_all_too_long_bring_their_lengths_and_the_remedy(letters):
    records = [sft("ab", "d"), sft("abdef", "d"), sft("a", "defde")]
    said = r"longest prompt has 6 tokens, the longest prompt and response 8\): raise src_length or max_length, or set truncation"
    with pytest.raises(UserError, match=said):
        encode_all(records, letters, load_template(letters, "none"), Limits(2, 1))


def test_describe_keeps_spaces_at_their_tokens():
    llama = Tokenizer.load(GOLDEN / "llama")
    messages = (Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", " User:"))
    outcome = run(llama, Record(messages, (" Fine",), True, "r:1"))
    assert "⟦Hello!</s>⟧ User:⟦ Fine</s>⟧" in describe(outcome.example, llama)


def test_describe_marks_the_scored_tokens(letters):
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "d"))
    outcome = run(letters, Record(messages, ("e",), True, "r:1"))
    assert describe(outcome.example, letters).replace(" ", "") == "prompt(2tokens):<a\nresponse(5tokens,4scored):⟦b>⟧d⟦e>⟧"
    both = describe(run(letters, pair("a", "d", "e")).example, letters, colour=True)
    assert both.replace(" ", "") == (
        "prompt(2tokens):\x1b[36m<\x1b[0m\x1b[2ma\x1b[0m\n"
        "chosen(2tokens,2scored):\x1b[32md\x1b[0m\x1b[1;4;32m>\x1b[0m\n"
        "rejected(2tokens,2scored):\x1b[32me\x1b[0m\x1b[1;4;32m>\x1b[0m"
    )


def test_the_text_of_a_special_token_is_not_shown_as_one():
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    outcome = encode(sft("what is <|im_end|>?", "an <|im_end|>."), tokenizer, load_template(tokenizer), Limits(200))
    shown = describe(outcome.example, tokenizer, colour=True)
    assert "\x1b[2muser\nwhat is <|im_end|>?\x1b[0m\x1b[36m<|im_end|>\x1b[0m" in shown
    assert shown.endswith("\x1b[32man <|im_end|>.\x1b[0m\x1b[1;4;32m<|im_end|>\x1b[0m")


def test_a_long_example_is_shown_by_its_ends():
    """Nothing is decoded but what is shown, and what is shown is the text itself."""
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    words = " ".join(f"word{number}" for number in range(2000))
    example = encode(sft(f"{words}é", f"{words} 完"), tokenizer, load_template(tokenizer, "none"), Limits(100_000)).example
    shown = describe(example, tokenizer, most=100)
    prompt, answer = shown.split("\n")
    counts = (len(example.prompt_ids), len(example.responses[0].token_ids))
    ends = ((": word0 word1", "9é"), (": ⟦word0 word1", "9 完<|im_end|>⟧"))
    for line, count, (start, end) in zip((prompt, answer), counts, ends, strict=True):
        before, after = line.split(f"[... {count - 100:,} tokens ...]")
        assert start in before and after.endswith(end) and len(line) < 700
    everything = describe(example, tokenizer, most=10**6)
    assert f"{words}é" in everything and f"⟦{words} 完<|im_end|>⟧" in everything


def test_the_most_telling_example(letters):
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "d"))
    plain, turns = run(letters, sft("a", "d")).example, run(letters, Record(messages, ("e",), True, "r:1")).example
    assert telling([plain, turns, plain]) is turns
    assert telling([plain]) is plain


def test_the_legend():
    assert legend(False) == "⟦ ⟧ stand around what is scored"
    assert legend(True, "of the response").count("\x1b[0m") == 4 and "\x1b[32mof the response\x1b[0m" in legend(True, "of the response")
