"""Stop strings: found at the very token that completes them, whatever the tokens' borders, and cut off."""

from pathlib import Path

import numpy as np
import pytest

from paddlealign.data.tokenizer import Tokenizer
from paddlealign.recipes.stop_strings import cut_at_stop, special_stop_ids, stop_finder

TOKENIZERS = Path(__file__).parents[1] / "parity" / "golden" / "tokenizers"
TEXT = "The answer is 42.\n\nUser: naïve 漢字 🙂🙂 a  b   c\tEND of it, said the\u00a0old <stop> STOP</stop> man. User:\r\n"


@pytest.mark.parametrize("name", ("llama", "llama3", "mistral", "pythia", "qwen2"))
def test_a_stop_string_is_found_at_the_token_that_completes_it(name: str) -> None:
    tokenizer = Tokenizer.load(TOKENIZERS / name)
    random = np.random.default_rng(4)
    words = [tokenizer.encode(TEXT[start : start + 30]).ids for start in range(0, len(TEXT), 17)]
    for _ in range(60):
        chosen = [words[index] for index in random.integers(0, len(words), 6)]
        ids = [int(index) for word in chosen for index in word]
        if random.random() < 0.3:  # tokens without any text, and stray bytes
            noise = random.integers(0, max(ids), 40).tolist()
            ids[len(ids) // 2 : len(ids) // 2] = [tokenizer.eos_id] * 30 + noise
        whole = tokenizer.decode(ids)
        start = int(random.integers(0, len(whole) - 8))
        stops = [whole[start : start + int(random.integers(1, 8))], "not in any of these texts"]
        if "\ufffd" in stops[0]:
            continue
        finder = stop_finder(stops, tokenizer)
        assert finder is not None
        first = next(count for count in range(1, len(ids) + 1) if finder(ids[:count]))
        text = tokenizer.decode(ids[:first])
        assert stops[0] in text and stops[0] not in tokenizer.decode(ids[: first - 1])
        assert cut_at_stop(text, stops) == whole[: whole.find(stops[0])]


def test_only_the_end_of_a_long_text_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.load(TOKENIZERS / "llama3")
    ids = [int(index) for index in tokenizer.encode(TEXT * 20).ids]
    finder = stop_finder(["\n\nnothing like this"], tokenizer)
    assert finder is not None
    decoded = []
    real = Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, tokens, skip_special=True: decoded.append(len(tokens)) or real(self, tokens))
    assert not finder(ids)
    assert len(ids) > 500 and max(decoded) < 100


def test_cutting_and_special_tokens() -> None:
    assert cut_at_stop("one two three", ["three", "two", "four"]) == "one "
    assert cut_at_stop("one", ["two"]) == cut_at_stop("one", []) == "one"
    tokenizer = Tokenizer.load(TOKENIZERS / "llama3")
    assert special_stop_ids(["\n", tokenizer.eos_token], tokenizer) == (tokenizer.eos_id,)
    assert stop_finder([], tokenizer) is None
