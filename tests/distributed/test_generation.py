"""Several processes write what one process writes, in every way of generating, token by token; and predict.py under the launcher."""

import json
from pathlib import Path

import numpy as np
import pytest

from paddlealign.arguments.fields import ParallelArguments
from paddlealign.models.adapter_files import save_adapter
from paddlealign.models.lora import attach, fill
from paddlealign.models.parameters import LoraSettings, linear_modules
from paddlealign.models.weights import load_model
from paddlealign.recipes.entry import main
from paddlealign.recipes.processes import start_processes
from tests.distributed.launching import ROOT, launch, run_ranks
from tests.distributed.ranks_generation import MODELS, VOCABULARY, predict_all, ways
from tests.small_runs import character_checkpoint, character_rows

SCRIPT = Path(__file__).with_name("ranks_generation.py")
LAYOUTS = {"TP2": (2, 1, 1), "PP2": (1, 2, 1), "DP2": (1, 1, 2), "TP2xPP2": (2, 2, 1)}  # tensor, pipeline, data


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    predict_all(*start_processes(ParallelArguments()), folder)
    return folder


@pytest.fixture(scope="module", params=LAYOUTS)
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    layout = LAYOUTS[request.param]
    run_ranks(SCRIPT, int(np.prod(layout)), *layout, folder)
    return folder


def outputs(file: Path) -> list[str | list[str]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows] == list(range(5))
    return [row["output"] for row in rows]


@pytest.mark.parametrize("name", MODELS)
def test_a_layout_writes_what_one_process_writes(several: Path, single: Path, name: str) -> None:
    for title, _, _ in ways(name):
        file = f"{name}, {title}.jsonl"
        assert outputs(several / file) == outputs(single / file), title


def test_the_texts_can_tell_right_from_wrong(single: Path) -> None:
    for name in MODELS:
        found = {title: outputs(single / f"{name}, {title}.jsonl") for title, _, _ in ways(name)}
        assert len({json.dumps(texts) for texts in found.values()}) == len(found)
        texts = [text for answers in found.values() for it in answers for text in ([it] if isinstance(it, str) else it)]
        assert len({len(text.split()) for text in texts}) > 6
        assert len({token for text in texts for token in text.split()}) > 60


def test_every_process_gets_the_same_bits_and_those_are_the_single_ones_but_for_rounding(several: Path, single: Path) -> None:
    seen, alone = (json.loads((folder / "seen.json").read_text()) for folder in (several, single))
    for name in MODELS:
        assert len(seen[name]["hashes"]) > 1 and len(set(seen[name]["hashes"])) == 1
        assert len(alone[name]["numbers"][3]) == 2 * VOCABULARY
        for numbers, expected in zip(seen[name]["numbers"], alone[name]["numbers"], strict=True):
            np.testing.assert_allclose(numbers, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def random_adapter(checkpoint: Path, folder: Path) -> Path:
    """An adapter beside all of the layers' linear weights."""
    model, rng = load_model(checkpoint, "float32"), np.random.default_rng(2)
    attach(model, LoraSettings(2, 4.0, False, 0.0, linear_modules(model.config)), str(checkpoint))
    assert model.adapter is not None
    fill(model, lambda name: rng.normal(0, 0.2, model.trained_shapes()[name]).astype("float32"))
    save_adapter(dict(model.trained()).__getitem__, model.config, model.adapter, folder, {}, "float32")
    return folder


def test_predict_goes_on_in_four_processes_where_one_was_stopped_with_an_adapter(tmp_path: Path) -> None:
    checkpoint, data = character_checkpoint(tmp_path / "model"), character_rows(tmp_path / "rows.jsonl")
    plain, whole, output = (tmp_path / f"{name}.jsonl" for name in ("plain", "whole", "out"))
    words = ["--model_name_or_path", checkpoint, "--data_file", data, "--max_length", "8", "--num_return_sequences", "2"]
    assert main("predict", [*map(str, words), "--output_file", str(plain), "--batch_size", "8"]) == 0
    words += ["--lora_path", random_adapter(checkpoint, tmp_path / "adapter")]
    for file in (whole, output):
        assert main("predict", [*map(str, words), "--output_file", str(file), "--batch_size", "8"]) == 0
    content = whole.read_bytes()
    assert content != plain.read_bytes()
    rows = content.splitlines(keepends=True)
    output.write_bytes(b"".join(rows[:3]) + rows[3][:10])  # 17 rows are left: a window of 16, and one row for two processes
    command = [str(ROOT / "predict.py"), *map(str, words), "--output_file", str(output), "--tensor_parallel_degree", "2"]
    code, screen = launch(command, 4, tmp_path / "log", 120, ())
    assert code == 0, screen
    assert output.read_bytes() == content
    said = (tmp_path / "log" / "workerlog.0").read_text(encoding="utf-8")
    assert f"{output} holds 3 of 20 rows already; going on from there" in said and said.count("done: 20 rows in") == 1
    assert all((tmp_path / "log" / f"workerlog.{rank}").read_text(encoding="utf-8") == "" for rank in (1, 2, 3))
