"""Reading a tokenizer folder: special tokens, BOS, stop ids, offsets and faults. Ids themselves: tests/parity/test_token_ids.py."""

import json
import shutil
from pathlib import Path

import pytest

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


def test_faults_are_named(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no tokenizer\.json and no tokenizer\.model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer\.json"):
        Tokenizer.load(tmp_path)
    folder = edit(tmp_path, "llama", eos_token="<none>")
    with pytest.raises(UserError, match=r"eos_token is '<none>', which the vocabulary does not hold"):
        Tokenizer.load(folder)
    (folder / "tokenizer.model").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"tokenizer\.model: not a sentencepiece model"):
        Tokenizer.load(folder)
    (folder / "tokenizer_config.json").write_text("{,}")
    with pytest.raises(UserError, match=r"tokenizer_config\.json: not valid JSON"):
        Tokenizer.load(folder)
