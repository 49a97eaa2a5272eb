"""What each trick saves on paper, each count held to one by hand, and the table that is made of them."""

from itertools import product
from pathlib import Path

import pytest

from paddlealign.models.config import DecoderConfig, parse_config
from paddlealign.planning.layout import Job, Layout
from scripts import savings
from scripts.savings import Text
from scripts.savings_page import main

HIDDEN, LAYERS, HEADS, KEYS, WIDTH, INNER, WORDS = 8, 3, 4, 2, 2, 16, 10
PAIR = Text(3, (2, 4))
LAYOUT = Layout(1, 1, 1, 0, 1, False, False, 1, 1)


def config() -> DecoderConfig:
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KEYS}
    return parse_config({"model_type": "llama", **shape, "intermediate_size": INNER, "vocab_size": WORDS}, "small")


def layer_matrices() -> int:
    return 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS * WIDTH + 3 * HIDDEN * INNER


def behind_attention() -> int:
    return HIDDEN * HIDDEN + 3 * HIDDEN * INNER  # of the output projection and the MLP


def seen(text: Text) -> int:
    """Pairs counted one by one: a token sees itself and what lies before it in its own text, the prompt included."""
    owners = [0] * text.prompt + [number for number, size in enumerate(text.responses, 1) for _ in range(size)]
    return sum(key <= query and owners[key] in (0, owners[query]) for query, key in product(range(len(owners)), repeat=2))


def test_the_tokens_of_a_text_and_what_they_see():
    assert (PAIR.tokens, PAIR.scored, savings.repeated_prompts(PAIR)) == (9, 6, 3)
    assert PAIR.seen_pairs == seen(PAIR) == 6 + 3 + 10 + 18
    assert Text(5, (2,)).seen_pairs == 7 * 8 // 2
    assert (Text(0, (1, 1)).seen_pairs, Text(0, (1, 1)).tokens) == (2, 2)
    assert savings.repeated_prompts(Text(3, (1, 1, 1, 1))) == 9


def test_a_prompt_laid_down_once_saves_its_products_and_its_attention():
    # planning counts a causal text of n tokens as n^2 / 2 pairs, responses as equally long ones
    apart = (5**2 + 7**2) / 2
    once = 3**2 / 2 + 2 * ((3 + 3) ** 2 - 3**2) / 2
    a_pass = LAYERS * (2 * layer_matrices() * 3 + 4 * HEADS * WIDTH * (apart - once)) - 2 * behind_attention() * 3
    assert savings.prompt_once_flops(config(), PAIR, 4) == pytest.approx(4 * a_pass)


def test_packing_saves_the_positions_up_to_the_longest():
    texts = [PAIR, Text(2, (1, 1)), Text(1, (1, 2))]
    assert savings.padding_tokens(texts) == 3 * 9 - (9 + 4 + 4)
    assert savings.padding_flops(config(), texts, 3) == 3 * 2 * (layer_matrices() * LAYERS - behind_attention()) * 10
    assert savings.padding_tokens([PAIR]) == 0


def test_the_head_on_scored_tokens():
    assert savings.unscored_head_flops(config(), PAIR) == 3 * 2 * HIDDEN * WORDS * 3
    a_chunk = (1 << 25) // WORDS
    assert savings.recomputed_head_flops(config(), a_chunk) == 0
    assert savings.recomputed_head_flops(config(), a_chunk + 6) == 2 * HIDDEN * WORDS * 6
    assert savings.logits_bytes(config(), "bfloat16", 7) == 7 * WORDS * (2 + 4)
    assert savings.logits_bytes(config(), "float32", 7) == 7 * WORDS * (4 + 4)
    assert savings.chunk_bytes(config(), 7) == 7 * WORDS * 8
    # of more logits than a chunk has, one chunk is held: 2^25 elements, a whole number of positions
    assert savings.chunk_bytes(config(), 10**9) == 8 * ((1 << 25) // WORDS) * WORDS


def test_the_last_layer_on_scored_tokens():
    assert savings.unread_flops(config(), PAIR, 4) == 4 * 2 * behind_attention() * 3
    assert savings.unread_flops(config(), Text(0, (5,)), 4) == 0


def test_the_reference_saves_a_forward():
    pairs = 3**2 / 2 + 2 * ((3 + 3) ** 2 - 3**2) / 2
    layers = LAYERS * (2 * layer_matrices() * 9 + 4 * HEADS * WIDTH * pairs)
    assert savings.reference_flops(config(), PAIR) == pytest.approx(layers - 2 * behind_attention() * 3 + 2 * HIDDEN * WORDS * 6)


def test_pairs_that_nobody_may_see():
    other = Text(2, (1,))
    assert savings.unseen_pairs([PAIR, other]) == 12 * 12 - seen(PAIR) - seen(other)
    assert savings.unseen_pairs([PAIR, other], square=False) == 12 * 13 // 2 - seen(PAIR) - seen(other)
    assert savings.unseen_pairs([other], square=False) == 0
    assert savings.attention_flops(config(), 5, 4) == 4 * LAYERS * 5 * HEADS * (2 * WIDTH + 2 * WIDTH)


def test_scores_and_single_operators_in_bytes():
    assert savings.score_bytes(config(), "bfloat16", 5, 3) == 3 * HEADS * 25 * 2
    rotated = (HEADS + KEYS) * WIDTH
    kept = {"norm": 2 * HIDDEN * (4 + 2), "rotary": 2 * rotated * 2, "swiglu": INNER * 2}
    assert savings.fused_kept_bytes(config(), "bfloat16") == kept
    norm = (2 + 4) + (4 + 4) + 4 + (4 + 4) + (4 + 2) + (2 + 2) - 2 * 2
    rotary = 1 * 2 + 2 * 2 + 2 * (2 * 2) + 3 * 2 - 2 * 2  # negated half, concat, two products, sum; one pass
    assert norm == 7 * 4 + 2 * 2
    assert rotary == 8 * 2
    moved = {"norm": 2 * HIDDEN * norm, "rotary": rotated * rotary, "swiglu": INNER * (5 * 2 - 3 * 2)}
    assert savings.fused_moved_bytes(config(), "bfloat16") == moved


def test_what_a_token_takes_until_backward():
    job = Job(config(), None, "bfloat16", "O2", PAIR.row(), PAIR.row())
    whole = savings.kept_bytes(config(), job, LAYOUT)
    again = savings.kept_bytes(config(), job, Layout(**{**vars(LAYOUT), "recompute": True}))
    one_layer = 4 * 2 * HIDDEN + 2 * (2 * HEADS * WIDTH + 2 * KEYS * WIDTH + 3 * INNER) + 8 + 4 * HEADS
    rest = 2 * 2 * HIDDEN + 8 * WIDTH  # the last norm's input and output, cosines and sines
    assert (whole, again) == (LAYERS * one_layer + rest, LAYERS * 2 * HIDDEN + one_layer + rest)


def test_the_page_has_a_row_for_each_trick(tmp_path: Path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- savings: begin -->\nleft over\n<!-- savings: end -->\nafter\n")
    assert main([str(page), "--check"]) == 1
    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "left over" not in text
    assert "Not yet run on a GPU" in text
    # 8,030,261,248 weights of two bytes
    assert "| reference's log-probs cached, beside a frozen copy | 14.96 | 14.96 | 14.96 |" in text
    assert text.count("| prompt once for all its responses |") == 2
