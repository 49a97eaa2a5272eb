"""Reading a tokenizer folder: special tokens, BOS, stop ids, offsets and faults. Ids themselves: tests/parity/test_token_ids.py."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import sentencepiece

from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"


def edit(tmp_path: Path, name: str, file: str = "tokenizer_config.json", **changes: object) -> Path:
    """A copy of a tokenizer folder; keys of a JSON file set, or removed where the value is ``...``."""
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(GOLDEN / name, folder)
    path = folder / file
    value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    value = {key: item for key, item in {**value, **changes}.items() if item is not ...}
    path.write_text(json.dumps(value), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "bos", "eos", "add_bos", "stops"),
    [
        ("llama", "<s>", "</s>", True, ["</s>"]),
        ("llama_v5", "<s>", "</s>", True, ["</s>"]),
        ("qwen2", None, "<|im_end|>", False, ["<|im_end|>", "<|endoftext|>"]),
        ("llama3", "<|begin_of_text|>", "<|eot_id|>", True, ["<|eot_id|>", "<|end_of_text|>"]),
    ],
)
def test_special_ids(name, bos, eos, add_bos, stops):
    tokenizer = Tokenizer.load(GOLDEN / name)
    token = tokenizer.model.id_to_token
    assert (None if tokenizer.bos_id is None else token(tokenizer.bos_id)) == bos
    assert (token(tokenizer.eos_id), tokenizer.eos_token) == (eos, eos)
    # Several name a pad_token; it may lie beyond the model's vocabulary, so that it is never fed to a model.
    assert tokenizer.pad_id == tokenizer.eos_id
    assert tokenizer.add_bos is add_bos
    assert [token(index) for index in tokenizer.stop_ids] == stops
    assert tokenizer.chat_template


def test_add_bos_token_of_the_configuration_wins(tmp_path):
    assert not Tokenizer.load(edit(tmp_path, "llama3", add_bos_token=False)).add_bos
    assert not Tokenizer.load(edit(tmp_path, "llama", add_bos_token=False)).add_bos
    assert Tokenizer.load(edit(tmp_path, "llama", add_bos_token=...)).add_bos  # LLaMA's class adds it by itself


def test_missing_names_are_taken_from_the_models_configuration(tmp_path):
    folder = edit(tmp_path, "llama_v5", eos_token=..., bos_token=...)
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_token) == (1, 2, "</s>")
    edit(tmp_path, "llama_v5", "config.json", eos_token_id=[-1], bos_token_id=-1)
    with pytest.raises(UserError, match="no eos_token in"):
        Tokenizer.load(folder)
    edit(tmp_path, "llama_v5", "special_tokens_map.json", eos_token={"content": "</s>"})
    assert Tokenizer.load(folder).eos_id == 2
    edit(tmp_path, "llama_v5", "config.json", eos_token_id="</s>")
    with pytest.raises(UserError, match=r'config\.json: eos_token_id is "</s>"; a token id'):
        Tokenizer.load(folder)


@pytest.mark.parametrize("blank", ["", " ", {"content": ""}, ...])
def test_blank_names_are_unset_and_sentencepiece_knows_its_own(tmp_path, blank):
    """As in the first LLaMA conversions, whose config.json is wrong about the ids as well."""
    folder = edit(tmp_path, "llama", bos_token=blank, eos_token=blank, unk_token=blank, pad_token=blank, add_bos_token=...)
    edit(tmp_path, "llama", "special_tokens_map.json", bos_token="", eos_token="")
    edit(tmp_path, "llama", "config.json", bos_token_id=0, eos_token_id=1)
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, True)
    assert tokenizer.named_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


def test_a_bos_that_is_null_stays_unset(tmp_path):
    tokenizer = Tokenizer.load(edit(tmp_path, "llama", bos_token=None))
    assert (tokenizer.bos_id, tokenizer.add_bos) == (None, False)


def test_a_pad_token_beyond_the_vocabulary_is_of_no_concern(tmp_path):
    tokenizer = Tokenizer.load(edit(tmp_path, "llama", pad_token="[PAD]"))
    assert tokenizer.pad_id == tokenizer.eos_id == 2


def test_tokens_of_one_character_cover_it_whole():
    for name in ("llama", "qwen2", "llama_v5"):
        tokens = Tokenizer.load(GOLDEN / name).encode("a🎉b")
        party = [(s, e) for s, e in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True) if s == 1]
        assert party == [(1, 2)] * 4, name
        assert tokens.ends[-1] == 3


def test_offsets_of_white_space_are_not_trimmed():
    """A byte-level post-processor may take white space out of the offsets; the boundary needs it in."""
    for name in ("llama", "qwen2", "llama3"):
        text = " Hello \n  there  "
        tokens = Tokenizer.load(GOLDEN / name).encode(text)
        assert "".join(text[s:e] for s, e in zip(tokens.starts, tokens.ends, strict=True)) == text, name


def test_legacy_puts_a_space_before_every_part(tmp_path):
    """As transformers does for LLaMA checkpoints that ask for it; the ids are those of the two parts alone."""
    tokenizer = Tokenizer.load(edit(tmp_path, "llama", legacy=True))
    hello = tokenizer.encode("Hello").ids.tolist()
    assert tokenizer.encode("</s>Hello").ids.tolist() == [2, *hello]
    assert Tokenizer.load(GOLDEN / "llama").encode("</s>Hello").ids.tolist() != [2, *hello]


def test_special_tokens_are_hidden_only_when_asked():
    for name in ("llama", "llama3"):
        tokenizer = Tokenizer.load(GOLDEN / name)
        ids = [*tokenizer.encode("Hello").ids, tokenizer.eos_id]
        assert tokenizer.decode(ids) == "Hello"
        assert tokenizer.decode(ids, skip_special=False) == "Hello" + tokenizer.eos_token


def test_the_fingerprint_follows_what_changes_ids(tmp_path):
    base = Tokenizer.load(GOLDEN / "llama").fingerprint
    assert Tokenizer.load(edit(tmp_path, "llama", model_max_length=9)).fingerprint == base
    assert Tokenizer.load(edit(tmp_path, "llama", legacy=True)).fingerprint != base
    assert Tokenizer.load(edit(tmp_path, "llama", legacy=False, add_bos_token=False)).fingerprint != base


def test_chat_templates_where_transformers_puts_them(tmp_path):
    folder = edit(tmp_path, "llama", chat_template=[{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}])
    assert Tokenizer.load(folder).chat_template == "D"
    (folder / "chat_template.jinja").write_text("J")
    assert Tokenizer.load(folder).chat_template == "J"
    (folder / "chat_template.jinja").unlink()
    assert Tokenizer.load(edit(tmp_path, "llama", chat_template=...)).chat_template is None


POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 499723\n"
)


def test_no_tokenizer_at_all(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no tokenizer\.json and no tokenizer\.model in this folder; one of them is needed\.$"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match=r"vocab\.json and merges\.txt alone are not read; transformers' AutoTokenizer makes"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("qwen2", "tokenizer.json", "", r"the file is empty \(0 bytes\)\. Fetch it anew"),
        ("qwen2", "tokenizer.json", "\n", r"the file is empty \(1 bytes\)"),
        ("qwen2", "tokenizer.json", POINTER, "a Git LFS pointer, not the file itself.*git lfs pull"),
        ("qwen2", "tokenizer.json", "{}", "not a tokenizer.json: it has no model with a vocab"),
        (
            "qwen2",
            "tokenizer.json",
            '{"model": {"type": "BPE", "vocab": {"a": 0}}}',
            "not a tokenizer that the tokenizers library .* reads",
        ),
        ("qwen2", "tokenizer.json", '{"model": {"type": "BPE", "vocab": 3}}', "it has no model with a vocab"),
        ("qwen2", "tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []', r"not valid JSON \("),
        ("qwen2", "tokenizer.json", "[1, 2]", "found a list, a JSON object is needed"),
        ("qwen2", "tokenizer.json", b"\x1f\x8b\x08", "not UTF-8"),
        ("llama", "tokenizer.model", "", r"the file is empty \(0 bytes\)"),
        ("llama", "tokenizer.model", POINTER, "a Git LFS pointer"),
        ("llama", "tokenizer.model", "nothing", "cannot be read as a sentencepiece model: it is no sentencepiece model"),
        ("llama", "tokenizer.model", "<!DOCTYPE html><html></html>", "cannot be read as a sentencepiece model"),
        ("llama", "tokenizer.model", b"\x12\x00", "it holds no pieces"),
        ("llama", "tokenizer.model", "IQ== 0\nIg== 1\n", r"a tiktoken file, as in LLaMA 3's original form\. Put the tokenizer\.json"),
        ("llama", "tokenizer_config.json", "{,}", r"not valid JSON \("),
        ("llama", "tokenizer_config.json", "", "the file is empty"),
        ("llama", "tokenizer_config.json", POINTER, "a Git LFS pointer"),
        ("llama", "tokenizer_config.json", "[" * 100_000, "not valid JSON"),
        ("llama", "special_tokens_map.json", "3", "found a int, a JSON object is needed"),
        ("llama", "added_tokens.json", "x", "not valid JSON"),
        ("llama", "generation_config.json", "", "the file is empty"),
        ("qwen2_v5", "chat_template.jinja", POINTER, "a Git LFS pointer"),
        ("qwen2_v5", "chat_template.jinja", b"\xff", "not UTF-8"),
    ],
)
def test_broken_files_are_named_in_one_line(tmp_path, name, file, content, words):
    folder = edit(tmp_path, name)
    for other in ("added_tokens_decoder",) if file == "added_tokens.json" else ():
        edit(tmp_path, name, **{other: ...})
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=rf"{re.escape(file)}: .*{words}") as raised:
        Tokenizer.load(folder)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_a_tokenizer_model_that_is_cut_off_anywhere_is_refused_or_whole(tmp_path):
    folder = edit(tmp_path, "llama")
    whole = (folder / "tokenizer.model").read_bytes()
    refused = 0
    for length in range(1, len(whole), 101):
        (folder / "tokenizer.model").write_bytes(whole[:length])
        try:
            Tokenizer.load(folder)
        except UserError:
            refused += 1
    # The pieces come first and the kind of model behind them, so that no shorter file is taken for a BPE model.
    assert refused == len(range(1, len(whole), 101))


@pytest.mark.parametrize("kind", ["unigram", "char"])
def test_other_kinds_of_sentencepiece_are_refused(tmp_path, kind):
    folder = edit(tmp_path, "llama")
    folder.joinpath("tokenizer.model").write_bytes(train(model_type=kind, normalization_rule_name="identity"))
    with pytest.raises(UserError, match=rf"it is of the {kind} kind; BPE is read"):
        Tokenizer.load(folder)


def test_rules_of_its_own_are_refused(tmp_path):
    folder = edit(tmp_path, "llama")
    folder.joinpath("tokenizer.model").write_bytes(train(model_type="bpe", normalization_rule_name="nmt_nfkc"))
    with pytest.raises(UserError, match="normalising rules of its own"):
        Tokenizer.load(folder)


def train(**options: object) -> bytes:
    model = io.BytesIO()
    texts = [f"{a} {b} the {b}{a} of {a}{a}" for a in ("cook", "salt", "child", "apple") for b in ("asked", "many", "letter")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 9), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2, **options
    )
    return model.getvalue()


def test_a_tokenizer_model_gives_sentencepieces_own_ids():
    """Where no special token stands in the text: merges and bytes are found as sentencepiece itself finds them."""
    for name in ("llama_legacy", "llama"):
        own = sentencepiece.SentencePieceProcessor(model_file=str(GOLDEN / name / "tokenizer.model"))
        tokenizer = Tokenizer.load(GOLDEN / name)
        for text in (
            "Hello hello",
            "The cook asked for salt, of course!",
            "你好 🙂 a",
            "a  b   c",
            "\t\n\r\n",
            "1234 and 56",
            "naïve café",
        ):
            assert tokenizer.encode(text).ids.tolist() == own.encode(text), text


def test_named_tokens_that_the_vocabulary_does_not_hold(tmp_path):
    with pytest.raises(UserError, match=r"eos_token is '<none>', which the vocabulary does not hold"):
        Tokenizer.load(edit(tmp_path, "llama", eos_token="<none>"))


# What transformers 5 loads, by model_type and tokenizer_class: told by where LLaMA puts a space in front, and by Qwen's single digits.
@pytest.mark.parametrize(
    ("name", "model_type", "wanted", "like"),
    [
        ("llama_json", "llama", "LlamaTokenizerFast", "llama"),
        ("llama_json", "llama", ..., "llama"),
        ("llama_json", "llama", "PreTrainedTokenizerFast", "mistral"),
        ("llama_json", "mistral", "LlamaTokenizer", "mistral"),
        ("llama_json", "phi3", "LlamaTokenizer", "mistral"),
        ("llama_json", "unheard", "LlamaTokenizer", "llama"),
        ("llama3", "llama", "LlamaTokenizerFast", "llama3"),  # LLaMA 2's name on byte-level BPE
        ("llama3", "llama", ..., "llama3"),
        ("llama3", "qwen2", "LlamaTokenizerFast", "digits"),  # Qwen 2 under a wrong name
        ("llama3", "qwen3", "PreTrainedTokenizerFast", "llama3"),
        ("llama3", "qwen3", ..., "digits"),
    ],
)
def test_the_files_are_read_as_transformers_reads_them(tmp_path, name, model_type, wanted, like):
    folder = edit(tmp_path, name, tokenizer_class=wanted)
    edit(tmp_path, name, "config.json", model_type=model_type)
    tokenizer = Tokenizer.load(folder)
    if name == "llama3":
        # Digits in threes are single tokens nowhere in this small vocabulary, but ones of their own only after Qwen's split.
        first = tokenizer.model._model.pre_tokenizer.pre_tokenize_str("1234")
        assert len(first) == (4 if like == "digits" else 2)
    else:
        text = "</s>Hello  <s> Hello"
        assert tokenizer.encode(text).ids.tolist() == Tokenizer.load(GOLDEN / like).encode(text).ids.tolist()
        assert Tokenizer.load(GOLDEN / "llama").encode(text).ids.tolist() != Tokenizer.load(GOLDEN / "mistral").encode(text).ids.tolist()


def test_a_template_for_tools(tmp_path):
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    folder = edit(tmp_path, "llama", chat_template=named)
    assert (Tokenizer.load(folder).chat_template, Tokenizer.load(folder).tool_template) == ("D", "T")
    (folder / "chat_template.jinja").write_text("J")
    assert (Tokenizer.load(folder).chat_template, Tokenizer.load(folder).tool_template) == ("J", None)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("U")
    assert (Tokenizer.load(folder).chat_template, Tokenizer.load(folder).tool_template) == ("J", "U")


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir() and not path.name.endswith("_v5")))
def test_a_special_token_in_a_plain_part_is_text(name):
    """Its ids are those of its characters; outside, and where no part is plain, it is the token; and places stay what they are."""
    tokenizer = Tokenizer.load(GOLDEN / name)
    end, specials = tokenizer.eos_token, set(tokenizer.special_tokens.values())
    for said in ("say {} please", "{}", "\n{}{} 好 {}", "a {}\u2028{} "):
        user = said.replace("{}", end)
        text = f"{end} Hi:\n{user}{end}\nwell {end}"
        start = len(f"{end} Hi:\n")
        [found], [bare] = tokenizer.encode_batch([text], [[(start, start + len(user))]]), tokenizer.encode_batch([text])
        places = [
            (int(first), int(last)) for index, first, last in zip(found.ids, found.starts, found.ends, strict=True) if index in specials
        ]
        behind = start + len(user)
        wanted = [(0, len(end)), (behind, behind + len(end)), (len(text) - len(end), len(text))]
        assert [text[first:last].strip() for first, last in places] == [end] * 3 and [
            abs(a[1] - b[1]) <= 1 for a, b in zip(places, wanted, strict=True)
        ]
        assert sum(index in specials for index in bare.ids) == 3 + said.count("{}")
        assert tokenizer.decode(found.ids, skip_special=False).replace(" ", "") == text.replace(" ", "")
        same, other = tokenizer.encode_batch([text, text], [[(start, start)], [(1, 2)]])
        assert same.ids.tolist() == other.ids.tolist() == bare.ids.tolist()


def test_a_plain_part_cannot_spell_a_special_token_otherwise():
    tokenizer = Tokenizer.load(GOLDEN / "qwen2")
    with pytest.raises(ValueError, match="private use"):
        tokenizer.encode_batch([f"{tokenizer.eos_token} {chr(0xF0000) * 13}"], [[(0, 40)]])
    [found] = tokenizer.encode_batch([chr(0xF0000) * 13], [[(0, 13)]])
    assert not set(found.ids.tolist()) & set(tokenizer.special_tokens.values())
