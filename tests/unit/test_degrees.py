"""Parallel degrees against the processes that were started."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddlealign.arguments.degrees import Degrees, settle_degrees
from paddlealign.arguments.fields import SECTIONS, ParallelArguments
from paddlealign.arguments.parsing import parse
from paddlealign.errors import UserError
from tests.least_arguments import PREDICT, SFT

TENSOR, PIPELINE, DATA, SHARDS = Degrees._fields[:4]


def refused(asked: dict[str, Any], processes: int) -> str:
    with pytest.raises(UserError) as error:
        settle_degrees(asked, processes, SECTIONS["sft"])
    return str(error.value)


@pytest.mark.parametrize(
    ("asked", "processes", "degrees"),
    [
        ({TENSOR: 2}, 2, (2, 1, 1)),
        ({TENSOR: 2}, 8, (2, 1, 4)),
        ({PIPELINE: 2, TENSOR: 2}, 4, (2, 2, 1)),
        ({PIPELINE: 3, TENSOR: -1, DATA: 0}, 6, (1, 3, 2)),
        ({DATA: 2, TENSOR: 2}, 4, (2, 1, 2)),
        ({DATA: 4}, 4, (1, 1, 4)),
        ({TENSOR: 2, "sharding": "", "sequence_parallel": False, "virtual_pp_degree": 1}, 2, (2, 1, 1)),
        ({TENSOR: 4, "sequence_parallel": True}, 8, (4, 1, 2, 1, "", True)),
        ({"sharding": "stage2", TENSOR: 2}, 8, (2, 1, 4, 4, "stage2")),
        ({"sharding": "stage3", SHARDS: 2}, 8, (1, 1, 8, 2, "stage3")),
        ({"sharding": "stage1", SHARDS: -1, DATA: 8}, 8, (1, 1, 8, 8, "stage1")),
        # as PaddleNLP counts: the shards beside data_parallel_degree, not within
        ({"sharding": "stage1", SHARDS: 4, DATA: 2}, 8, (1, 1, 8, 4, "stage1")),
        ({"sharding": "stage2", DATA: 1}, 8, (1, 1, 8, 8, "stage2")),
        ({"sharding": "stage2", DATA: 2}, 8, (1, 1, 8, 4, "stage2")),
    ],
)
def test_data_parallelism_is_what_the_others_leave(asked, processes, degrees):
    assert settle_degrees(asked, processes, SECTIONS["sft"]) == (Degrees(*degrees), [])


@pytest.mark.parametrize(
    ("asked", "processes", "said"),
    [
        ({TENSOR: 2, PIPELINE: 2}, 6, f"{TENSOR} 2 x {PIPELINE} 2 = 4 does not divide the 6 processes started"),
        ({TENSOR: 8}, 4, f"{TENSOR} 8 x {PIPELINE} 1 = 8 does not divide the 4 processes started"),
        ({TENSOR: 2, DATA: 3}, 4, f"{TENSOR} 2 x {PIPELINE} 1 x {DATA} 3 = 6 is not the 4 processes started. Set {DATA} 2,"),
        ({TENSOR: 2, DATA: 1}, 4, f"{DATA} 1 = 2 is not the 4 processes started"),
        ({DATA: 2, "sharding": "stage1", SHARDS: 2}, 8, f"{DATA} 2 = 2 is not the 8 processes started"),
        ({"sharding": "stage1", SHARDS: 3}, 4, f"{SHARDS} 3 does not divide the 4 processes that read different rows"),
        ({SHARDS: 2}, 2, f"{SHARDS} 2 without sharding. Set sharding to stage1, stage2 or stage3"),
        ({"sharding": "stage1 stage2"}, 2, 'sharding: "stage1 stage2" names several stages'),
        ({"sharding": "stage2 offload"}, 2, "offload is not supported"),
        (
            {TENSOR: 3, "sequence_parallel": True},
            3,
            "rows are multiples of 8 tokens, which 3 does not divide. Set tensor_parallel_degree to 2, 4, 8,",
        ),
    ],
)
def test_a_product_that_does_not_fit_is_spelled_out(asked, processes, said):
    assert said in refused(asked, processes)


@pytest.mark.parametrize(
    ("key", "value", "off"),
    [
        ("virtual_pp_degree", 2, "Set virtual_pp_degree 1"),
        ("sep_parallel_degree", 2, "Set sep_parallel_degree 1"),
        ("context_parallel_degree", 2, "Set context_parallel_degree 1"),
        ("expert_parallel_degree", 2, "Set expert_parallel_degree 1"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_by_name(key, value, off):
    message = refused({TENSOR: 2, key: value}, 2)
    assert message.startswith(key) and "not supported with several processes" in message and off in message


def test_without_degrees_all_processes_read_different_rows_and_that_is_told():
    degrees, [note] = settle_degrees({}, 4, SECTIONS["sft"])
    assert degrees == Degrees(1, 1, 4)
    assert note.startswith("4 processes and no parallel degree set: data_parallel_degree 4.")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({TENSOR: 2, "sharding": "stage2"}, "sharding stage2: nothing to do"),
        ({PIPELINE: 2, "sequence_parallel": True}, "sequence_parallel: nothing"),
    ],
)
def test_a_layout_that_leaves_nothing_to_share_is_told(asked, told):
    degrees, [note] = settle_degrees(asked, 2, SECTIONS["sft"])
    assert note.startswith(told)
    assert degrees[3:] == (1, "", False)


def test_prediction_shares_its_rows_and_has_no_steps():
    assert settle_degrees({TENSOR: 2}, 4, SECTIONS["predict"]) == (Degrees(2, 1, 2), [])
    assert settle_degrees({}, 2, SECTIONS["predict"])[1] == [
        "2 processes and no parallel degree set: data_parallel_degree 2. Each process reads its own rows."
    ]
    [note] = settle_degrees({DATA: 2}, 1, SECTIONS["predict"])[1]
    assert "gradient_accumulation_steps" not in note


def test_keys_of_training_are_told_by_prediction():
    asked = {TENSOR: 2, "sharding": "stage3", SHARDS: 2, "sequence_parallel": True}
    told = "sharding stage3, sharding_parallel_degree 2, sequence_parallel: for training; nothing to do here."
    assert settle_degrees(asked, 4, SECTIONS["predict"]) == (Degrees(2, 1, 2), [told])


def test_export_runs_in_one_process():
    with pytest.raises(UserError, match="Started with 2 processes, but this command reads and writes a model once, which one process does"):
        settle_degrees({}, 2, SECTIONS["export"])


def test_a_chat_runs_in_one_process(tmp_path):
    words = written(tmp_path, {"model_name_or_path": "m", "interactive": True})
    assert parse("predict", words, {}).generation.interactive
    with pytest.raises(UserError, match=r"interactive in several processes: none of them has the terminal\. Start it with plain python"):
        parse("predict", words, {"PADDLE_TRAINERS_NUM": "2"})


def written(folder: Path, keys: dict[str, Any]) -> list[str]:
    (folder / "a.json").write_text(json.dumps(keys), encoding="utf-8")
    return [str(folder / "a.json")]


def test_the_fields_hold_the_settled_degrees_and_where_they_come_from(tmp_path):
    arguments = parse("sft", written(tmp_path, {**SFT, TENSOR: 2, PIPELINE: -1}), {"PADDLE_TRAINERS_NUM": "4"})
    parallel = arguments.parallel
    assert (parallel.tensor_parallel_degree, parallel.pipeline_parallel_degree, parallel.data_parallel_degree) == (2, 1, 2)
    assert [arguments.sources[key] for key in (TENSOR, PIPELINE, DATA)] == ["file", "derived", "derived"]
    assert arguments.notes == ()
    assert parse("predict", written(tmp_path, {**PREDICT, PIPELINE: 2}), {"PADDLE_TRAINERS_NUM": "4"}).parallel == ParallelArguments(
        1, 2, 2
    )


def test_in_one_process_every_degree_is_1(tmp_path):
    arguments = parse("sft", written(tmp_path, {**SFT, TENSOR: 8, DATA: 2}), {})
    parallel = arguments.parallel
    assert (parallel.tensor_parallel_degree, parallel.pipeline_parallel_degree, parallel.data_parallel_degree) == (1, 1, 1)
    assert [arguments.sources[key] for key in (TENSOR, PIPELINE, DATA)] == ["derived", "default", "derived"]
    assert arguments.notes[0].startswith("tensor_parallel_degree 8, data_parallel_degree 2: for several processes")


def test_prediction_reads_a_degree_and_goes_on(tmp_path):
    assert parse("predict", written(tmp_path, {**PREDICT, TENSOR: 8}), {}).notes[0].startswith("tensor_parallel_degree 8: ")
