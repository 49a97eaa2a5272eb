"""Text that grows with its tokens: joined it is the decoded whole, and no piece holds half a character; for any ids."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddlealign.data.streaming import growing_text
from paddlealign.data.tokenizer import Tokenizer

FOLDER = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
load = cache(Tokenizer.load)


@cache
def golden() -> dict:
    return json.loads(gzip.decompress((FOLDER / "token_ids.json.gz").read_bytes()))


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_in_pieces_is_the_corpus_whole(name):
    tokenizer = load(FOLDER / name)
    assert tokenizer.model.decoder != "other"
    for ids in golden()["folders"][name]["ids"]:
        pieces = list(growing_text(ids, tokenizer, ()))
        assert "".join(pieces) == tokenizer.decode(ids)
        assert all(pieces)


# Byte-level; byte fallback with and without the space in front; added tokens of every sort.
KINDS = ("qwen3", "pythia", "qwen2_flags", "llama_flags", "mistral_v3", "llama_no_prefix")


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_any_ids_in_pieces_are_the_decoded_whole(name, data):
    tokenizer = load(FOLDER / name)
    # Ids of the bytes and of the added tokens, and one that does not exist, are as likely as all others together.
    low, high = st.integers(0, 265), st.integers(455, tokenizer.size)
    ids = data.draw(st.lists(st.one_of(low, high, st.integers(0, tokenizer.size)), max_size=40))
    assert "".join(growing_text(ids, tokenizer, ())) == tokenizer.decode(ids)


def pulled(ids, tokenizer):
    """Every piece with the number of tokens that had come when it did."""
    count = 0

    def tokens():
        nonlocal count
        for index in ids:
            count += 1
            yield index

    for piece in growing_text(tokens(), tokenizer, ()):
        yield piece, count


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_what_is_shown_stays(name, data):
    """After any number of tokens, what has been shown is a beginning of the whole: nothing is taken back, whatever comes."""
    tokenizer = load(FOLDER / name)
    whole = data.draw(st.lists(st.integers(0, tokenizer.size), max_size=12))
    shown = "".join(piece for piece, count in pulled([*whole, *[40] * 3], tokenizer) if count <= len(whole))
    for ending in ([], [200], [40], [200, 150, 60]):
        assert tokenizer.decode([*whole, *ending]).startswith(shown)


@pytest.mark.parametrize("name", NAMES)
def test_half_a_character_waits_and_a_whole_one_does_not(name):
    tokenizer = load(FOLDER / name)
    ids = tokenizer.encode("a🎉b").ids.tolist()
    assert len(ids) >= 6, "the emoji has to be four tokens"
    byte_level = tokenizer.model.decoder == "bytes"
    assert [piece for piece, _ in pulled(ids, tokenizer)] == (["a", "🎉", "b"] if byte_level else ["a", "🎉b"])
    # Byte fallback shows a character with the token behind it: until then a bad byte could still spoil it.
    assert list(growing_text(ids[:-2], tokenizer, ()))[1:] == ["\ufffd" if byte_level else "\ufffd" * 3]


@pytest.mark.parametrize("name", NAMES)
def test_bytes_that_are_no_text_do_not_stop_the_rest(name):
    """A lone continuation byte can be nothing: it is shown at once, as the decoder shows it."""
    tokenizer = load(FOLDER / name)
    bad = tokenizer.encode("🎉").ids.tolist()[-1]
    assert [piece for piece, count in pulled([bad] * 5, tokenizer)] == ["\ufffd"] * 5
    assert [count for piece, count in pulled([bad] * 5, tokenizer)] == [1, 2, 3, 4, 5]


def test_the_text_ends_before_a_stop_id():
    tokenizer = load(FOLDER / "qwen2")
    ids = [*tokenizer.encode("Hello").ids, tokenizer.eos_id, *tokenizer.encode(" there").ids]
    assert "".join(growing_text(ids, tokenizer, (tokenizer.eos_id,))) == "Hello"


def test_an_unknown_decoder_gives_its_text_at_the_end(tmp_path):
    source = FOLDER / "qwen2"
    content = json.loads((source / "tokenizer.json").read_text("utf-8"))
    content["decoder"] = {"type": "BPEDecoder", "suffix": "l"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    tokenizer = Tokenizer.load(tmp_path)
    ids = tokenizer.encode("Hello hello").ids.tolist()
    assert list(growing_text(ids, tokenizer, ())) == [tokenizer.decode(ids)]
