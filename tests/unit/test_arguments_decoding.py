"""Generation keys: what goes together, what is refused by name, and how stop strings are given."""

import json

import pytest

from paddlealign.arguments.decoding import split_stop_strings, text_keys
from tests.least_arguments import refused, run

BEAMS = {"decode_strategy": "beam_search", "num_beams": 4}
CONTRASTIVE = {"decode_strategy": "contrastive_search", "top_k": 4}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"min_length": 9, "max_length": 8}, "min_length 9 is more than max_length 8"),
        ({"num_beams": 4}, "num_beams 4 with decode_strategy sampling: drawing among beams is not in this version"),
        ({"num_beams": 4, "decode_strategy": "greedy_search"}, "greedy_search: it follows one text. Set decode_strategy to beam_search."),
        ({"decode_strategy": "beam_search"}, "num_beams 1: beam_search needs 2 or more"),
        ({**BEAMS, "num_return_sequences": 5}, "num_return_sequences 5 is more than num_beams 4"),
        ({**BEAMS, "num_beam_groups": 3, "diversity_rate": 1.0}, "num_beams 4 is not a multiple of num_beam_groups 3"),
        ({**BEAMS, "num_beam_groups": 8, "diversity_rate": 1.0}, "num_beams 4 is not a multiple of num_beam_groups 8"),
        ({**BEAMS, "num_beam_groups": 2}, "num_beam_groups 2 with diversity_rate 0"),
        ({**BEAMS, "diversity_rate": 0.5}, "diversity_rate 0.5 works between groups"),
        ({**BEAMS, "top_k": 5, "temperature": 0.5}, "top_k and temperature with beam_search"),
        ({**BEAMS, "top_p": 0.9}, "top_p with beam_search: drawing among beams"),
        ({"decode_strategy": "contrastive_search"}, "top_k 0: contrastive_search chooses among top_k tokens. Set it to 2 or more"),
        ({**CONTRASTIVE, "top_k": 1}, "top_k 1: contrastive_search"),
        ({**CONTRASTIVE, "num_return_sequences": 2}, "num_return_sequences 2: contrastive_search finds one answer"),
        ({"decode_strategy": "greedy_search", "num_return_sequences": 2}, "greedy_search finds one answer"),
        ({"interactive": True, "num_return_sequences": 2}, "a chat goes on from one answer"),
        ({"interactive": True, "stop_strings": ["a"]}, "stop_strings with interactive"),
        ({"stop_strings": ["a", 1]}, "a JSON list of texts is needed"),
        ({"stop_strings": '["a", 1]'}, "a JSON list of texts is needed"),
        ({"stop_strings": ["a", ""]}, "none of them empty"),
        ({"stop_strings": 5}, "stop_strings: 5 is not allowed; a text or a list of texts is needed."),
        ({"stop_strings": True}, "stop_strings: true is not allowed; a text or a list of texts is needed."),
        ({"stop_strings": {"a": 1}}, "is not allowed; a text or a list of texts is needed."),
        ({"stop_strings": "[INST]"}, '"[INST]" begins with [ and is no JSON list. Mend the list; for this very text write ["[INST]"].'),
        ({"stop_strings": '["a", "b"'}, "begins with [ and is no JSON list"),
        ({"do_sample": True}, "do_sample: true is not honoured: it is decode_strategy in predict.py: sampling, or greedy_search"),
        ({"do_sample": False}, "do_sample: false is not honoured: it is decode_strategy"),
        ({"penalty_alpha": 0}, "penalty_alpha: 0.0 is not allowed; allowed: above 0 to 1"),
        ({"length_penalty": 11}, "length_penalty: 11.0 is not allowed; allowed: -10 to 10"),
        ({"num_beams": 0}, "num_beams: 0 is not allowed; allowed: 1 or more"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size: -1 is not allowed"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, keys, words):
    assert words in refused(tmp_path, "predict", **keys)


@pytest.mark.parametrize(
    "keys",
    [
        {**BEAMS, "num_return_sequences": 4, "early_stopping": True, "length_penalty": -0.5},
        {**BEAMS, "num_beam_groups": 4, "diversity_rate": 0.5},
        {**BEAMS, "interactive": True},
        {**CONTRASTIVE, "penalty_alpha": 1},
        {"num_return_sequences": 8},
    ],
)
def test_what_goes_together_is_taken_without_a_note(tmp_path, keys):
    arguments = run(tmp_path, "predict", **({"data_file": None} | keys if "interactive" in keys else keys))
    assert all(getattr(arguments.generation, key) == value for key, value in keys.items()) and arguments.notes == ()


def test_keys_of_another_strategy_are_told_as_unread(tmp_path):
    assert run(tmp_path, "predict", length_penalty=2.0, penalty_alpha=0.4).notes == (
        "Not read in this run: length_penalty (decode_strategy is sampling), penalty_alpha (decode_strategy is sampling).",
    )
    assert run(tmp_path, "predict", **BEAMS, seed=1, top_p=0.7).notes == (
        "Not read in this run: top_p (decode_strategy is beam_search), seed (decode_strategy is beam_search).",
    )
    assert run(tmp_path, "predict", **CONTRASTIVE, temperature=0.5).notes == (
        "Not read in this run: temperature (decode_strategy is contrastive_search).",
    )


def test_transformers_names_are_understood(tmp_path):
    generation = run(tmp_path, "predict", **BEAMS, num_beam_groups=2, diversity_penalty=0.5, min_new_tokens=3).generation
    assert (generation.diversity_rate, generation.min_length) == (0.5, 3)


@pytest.mark.parametrize(
    "texts", [["\n\nUser:", "a, b", " "], ["-"], ["--x"], ["[INST]"], ["é", '"'], ["漢字\n"], ["[1"], ["[1]"], ["None"], ["a", "a"]]
)
def test_stop_strings_keep_every_character(tmp_path, texts):
    in_file = run(tmp_path, "predict", stop_strings=texts).generation
    on_line = run(tmp_path, "predict", f"--stop_strings={json.dumps(texts)}").generation
    assert split_stop_strings(in_file.stop_strings) == split_stop_strings(on_line.stop_strings) == tuple(dict.fromkeys(texts))


def test_one_stop_string_needs_no_list(tmp_path):
    for text in ("\n\nUser:", "a, b", "1]", '{"a": 1}'):
        assert split_stop_strings(run(tmp_path, "predict", stop_strings=text).generation.stop_strings) == (text,)
    assert split_stop_strings(run(tmp_path, "predict", "--stop_strings", "END, of it").generation.stop_strings) == ("END, of it",)
    assert split_stop_strings(None) == split_stop_strings("[]") == ()


def test_the_keys_of_each_strategy(tmp_path):
    """What decides whether a half-written file is gone on with."""
    sampling, beams = run(tmp_path, "predict").generation, run(tmp_path, "predict", **BEAMS).generation
    assert {"top_p", "seed", "num_return_sequences", "stop_strings", "min_length"} <= set(text_keys(sampling))
    assert not {"num_beams", "penalty_alpha"} & set(text_keys(sampling))
    assert {"num_beams", "length_penalty", "early_stopping", "diversity_rate"} <= set(text_keys(beams)) and "seed" not in text_keys(beams)
