"""The generation benchmark's own arithmetic: prompts, batches, what counts as the same text, and its part of the page."""

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.benchmark.generation import LONGEST_PROMPT, answer_ids, draw_prompts
from scripts.benchmark.generation_page import Case, Run, different_rows, write_part
from scripts.benchmark.peers.timing import padded_batches, until_end

RUN = Run(Case("short", 8, False, 96, 8), "ours", 0, 768, 4.0, 0.2, 6.0, 800_000_000, 0.01, 0)


def test_prompts_are_the_same_in_each_process_and_the_first_of_many_are_those_of_few() -> None:
    prompts = draw_prompts(300, 60)
    assert prompts[:8] == draw_prompts(300, 8)
    assert 2 <= min(map(len, prompts)) < max(map(len, prompts)) <= LONGEST_PROMPT


def test_batches_are_sorted_by_length_and_padded_on_the_left() -> None:
    found = list(padded_batches([[7], [4, 5, 6], [8, 9]], 2))
    assert found == [([1, 2], [[4, 5, 6], [0, 8, 9]], [[1, 1, 1], [0, 1, 1]]), ([0], [[7]], [[1]])]


def test_a_text_ends_with_its_first_end() -> None:
    assert until_end([5, 2, 0, 2], 2) == [5, 2]
    assert until_end([5, 6], 2) == [5, 6]
    assert different_rows([[5, 6], [7]], [[5, 6], [8]]) == 1
    assert answer_ids("w5 w31999") == [5, 31999]


def test_the_part_has_rates_and_ratios_and_tells_other_texts(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(RuntimeError, match="generation: begin"):
        write_part(page, [RUN], "command", {}, 2)
    page.write_text("before\n<!-- generation: begin -->\nold\n<!-- generation: end -->\nafter\n")
    theirs = replace(RUN, system="transformers", seconds=8.0, cpu=9.0)
    write_part(page, [RUN, theirs], "command", {"transformers": "5"}, 2)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| **ours** | 192.0 | 200.0 | 7.81 | 0.80 | - | - |" in text
    assert "2.00 x (2.00 to 2.00) | 1.50 x (1.50 to 1.50)" in text
    assert "Greedy texts were the same" in text
    write_part(page, [RUN, replace(theirs, different=3)], "command", {}, 2)
    assert "- transformers, short, batch 8: 3 rows" in page.read_text()
