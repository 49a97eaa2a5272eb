"""The keys of evaluate.py's tasks: what judges, which ways of decoding are compared, what goes together and what is not read."""

import pytest

from paddlealign.arguments.comparing import split_ways
from tests.least_arguments import refused, run

REWARD = "reward_model_name_or_path"
POLICY, REFERENCE = "policy_model_name_or_path", "ref_model_name_or_path"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {REWARD: None},
            "nothing judges: set reward_model_name_or_path, or policy_model_name_or_path with ref_model_name_or_path, or judge",
        ),
        ({"judge": "a.py:f"}, "reward_model_name_or_path and judge are set; one of them judges. Keep one."),
        ({REWARD: None, POLICY: "p"}, "policy_model_name_or_path without ref_model_name_or_path"),
        ({REWARD: None, REFERENCE: "p"}, "ref_model_name_or_path without policy_model_name_or_path"),
        ({REWARD: None, "judge": "a.py"}, 'judge: "a.py" is not allowed; allowed: FILE.py:FUNCTION'),
        ({REWARD: None, "judge": "a.txt:f"}, "allowed: FILE.py:FUNCTION"),
        ({REWARD: None, "judge": "a.py:f()"}, "allowed: FILE.py:FUNCTION"),
        ({"answers_b": "a.jsonl"}, "answers_a and answers_b are the same file, a.jsonl. Give two."),
        ({"model_name_or_path": "m"}, "model_name_or_path: is a key of "),
    ],
)
def test_one_judge_and_two_files(tmp_path, keys, said):
    assert said in refused(tmp_path, "evaluate_judge", **keys)


def test_keys_that_a_judge_does_not_read_are_told(tmp_path):
    assert run(tmp_path, "evaluate_judge").notes == ()
    assert run(tmp_path, "evaluate_judge", beta=0.2).notes == ("Not read in this run: beta (policy_model_name_or_path is unset).",)
    assert run(tmp_path, "evaluate_judge", **{REWARD: None, POLICY: "p", REFERENCE: "r"}, beta=0.2).notes == ()
    function = {REWARD: None, "judge": "~/j.py:f", "tie_margin": 1}
    assert run(tmp_path, "evaluate_judge", **function).notes == ()
    told = run(tmp_path, "evaluate_judge", **function, batch_size=2, chat_template="none").notes
    assert told == ("Not read in this run: batch_size (judge is a function), chat_template (judge is a function).",)


# ---- ways


def ways_of(tmp_path, *words, **keys):
    return split_ways(run(tmp_path, "evaluate_compare", *words, **keys).comparison)


def test_a_way_is_what_predict_would_be_told(tmp_path):
    keys = {"top_p": 0.5, "num_return_sequences": 3, "num_beams": 4, "num_beam_groups": 2, "diversity_rate": 0.5, "max_length": 9}
    ways = ["greedy_search", "sampling  top_k=50 temperature=0.7", "beam_search", "group_beam num_beams=6", "contrastive_search top_k=4"]
    told = {way.label: way.generation for way in ways_of(tmp_path, ways=ways, **keys)}
    assert [*told] == ["greedy_search", "sampling top_k=50 temperature=0.7", *ways[2:]]
    greedy, sampling, beams, groups, contrastive = told.values()
    assert (greedy.decode_strategy, greedy.num_return_sequences, greedy.top_p, greedy.num_beams) == ("greedy_search", 1, 0.7, 1)
    assert (sampling.top_k, sampling.temperature, sampling.top_p, sampling.num_return_sequences) == (50, 0.7, 0.5, 3)
    assert (beams.num_beams, beams.num_beam_groups, beams.diversity_rate, beams.num_return_sequences) == (4, 1, 0.0, 3)
    assert (groups.decode_strategy, groups.num_beams, groups.num_beam_groups, groups.diversity_rate) == ("beam_search", 6, 2, 0.5)
    assert (contrastive.top_k, contrastive.num_return_sequences, contrastive.penalty_alpha) == (4, 1, 0.6)
    assert {generation.max_length for generation in told.values()} == {9}
    assert ways_of(tmp_path, "--ways", ", ".join(ways), **keys) == ways_of(tmp_path, ways=ways, **keys)
    assert [way.label for way in ways_of(tmp_path)] == ["greedy_search", "sampling"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"ways": "greedy"},
            'ways: "greedy" is not allowed; allowed: greedy_search, sampling, beam_search, group_beam, contrastive_search.',
        ),
        ({"ways": " , "}, "names no way"),
        ({"ways": "sampling, greedy_search, sampling"}, "ways: sampling stands there twice. Keep one, or give one of them other values."),
        (
            {"ways": "greedy_search top_k=4"},
            'ways: greedy_search: "top_k=4" is not allowed; allowed behind it: key=value with max_length, ',
        ),
        ({"ways": "sampling top_k"}, 'ways: sampling: "top_k" is not allowed'),
        ({"ways": "sampling top_k=x"}, 'ways: sampling: top_k: "x" is not allowed; a whole number is needed.'),
        ({"ways": "sampling top_p=2"}, "ways: sampling: top_p: 2.0 is not allowed; allowed: above 0 to 1."),
        ({"ways": "beam_search num_beam_groups=2"}, '"num_beam_groups=2" is not allowed'),
        ({"ways": "sampling stop_strings=a"}, '"stop_strings=a" is not allowed'),
        ({"ways": "beam_search"}, "ways: beam_search: num_beams 1: beam_search needs 2 or more. Raise it, or take greedy_search."),
        ({"ways": "group_beam num_beams=4"}, "num_beam_groups 1: group_beam needs 2 or more. Raise it, or take beam_search."),
        ({"ways": "group_beam num_beams=4 num_beam_groups=2"}, "num_beam_groups 2 with diversity_rate 0"),
        ({"ways": "contrastive_search"}, "ways: contrastive_search: top_k 0: contrastive_search chooses among top_k tokens."),
        ({"ways": "beam_search", "num_beams": 2, "num_return_sequences": 3}, "num_return_sequences 3 is more than num_beams 2"),
        ({"min_length": 9, "max_length": 8}, "ways: greedy_search: min_length 9 is more than max_length 8"),
        ({"decode_strategy": "sampling"}, "decode_strategy: is a key of predict.py, not of evaluate.py compare."),
        ({"baseline_model_name_or_path": None}, "baseline_model_name_or_path must be set"),
    ],
)
def test_ways_that_cannot_be_are_refused_by_name(tmp_path, keys, said):
    assert said in refused(tmp_path, "evaluate_compare", **keys)


def test_keys_that_no_way_reads_are_told(tmp_path):
    assert run(tmp_path, "evaluate_compare", top_p=0.5, seed=1, num_return_sequences=2).notes == ()
    told = run(tmp_path, "evaluate_compare", ways="greedy_search", top_p=0.5, num_beams=4).notes
    assert told == ("Not read in this run: top_p (ways are greedy_search), num_beams (ways are greedy_search).",)


def test_the_keys_that_tasks_share_are_the_same(tmp_path):
    """Meaning, default and choices of a key do not differ from predict.py's or from rewards', but where it says so."""
    from paddlealign.arguments.parsing import known_fields

    predict, compare = known_fields("predict"), known_fields("evaluate_compare")
    own = {"data_file", "output_file", "check", "stop_strings", "num_return_sequences", "num_beams", "num_beam_groups", "diversity_rate"}
    for key in (predict.keys() & compare.keys()) - own:
        assert predict[key]._replace(section="") == compare[key]._replace(section=""), key
    for key in predict.keys() & compare.keys():
        assert (predict[key].kind, predict[key].choices) == (compare[key].kind, compare[key].choices)
        assert key == "output_file" or predict[key].default in (compare[key].default, None), key
