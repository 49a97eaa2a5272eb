"""``--replay_step``: a step of a run comes again bit for bit, told by layer and by row, and the run is left as it is."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
import pytest

from paddlealign.recipes.entry import main
from paddlealign.training.replay import Numbers, Replay
from paddlealign.training.run_log import read_metrics
from tests.distributed.launching import launch
from tests.small_runs import ROOT, make_checkpoint, write_rows

STEP = 4
KEYS = {
    "max_length": 256, "src_length": 128, "max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "steps",
    "save_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, and eleven rows for each command: steps of 4, 4 and 3 of them."""
    folder = tmp_path_factory.mktemp("replay")
    make_checkpoint(folder / "model")
    for kind in ("sft", "dpo"):
        write_rows(folder / f"{kind}.jsonl", kind, "train", 0, 11)
    return folder


def words(folder: Path, command: str, output: Path, **keys: Any) -> list[str]:
    rows = folder / ("sft.jsonl" if command == "sft" else "dpo.jsonl")
    given = {"model_name_or_path": folder / "model", "train_dataset_path": rows, "output_dir": output, **KEYS, **keys}
    return ["--do_train", *(word for key, value in given.items() for word in (f"--{key}", str(value)))]


def content(output: Path) -> dict[str, str]:
    """Every file of a run but the replays, by hash."""
    files = [path for path in output.rglob("*") if path.is_file() and not path.name.startswith("replay_")]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check(output: Path, found: dict[str, Any], rows: Path, tolerance: float) -> None:
    """The step is the one that the run logged, its rows are those of the file, and their parts make its loss."""
    line = next(line for line in read_metrics(output) if line["step"] == STEP)
    assert found["loss"] == pytest.approx(line["loss"], rel=tolerance) and found["norm"] == pytest.approx(line["grad_norm"], rel=tolerance)
    assert sum(row["part_of_loss"] for row in found["rows"]) == pytest.approx(found["loss"], rel=1e-5)
    assert len({row["row"] for row in found["rows"]}) == 4
    assert {row["row"] for row in found["rows"]} <= {f"{rows}:{number}" for number in range(1, 12)}
    layers = found["layers"]
    assert list(layers)[:4] == ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm"]
    squares = sum(layer["gradients"]["norm"] ** 2 for layer in layers.values() if "gradients" in layer)
    assert math.sqrt(squares) == pytest.approx(found["norm"], rel=1e-5)
    assert all(kind["not_finite"] == 0 for layer in layers.values() for kind in layer.values())


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("sft", {"recompute": "true"}),
        ("sft", {"lora": "true", "lora_dropout": 0.1}),
        ("dpo", {"loss_type": "bco_pair", "sync_ref_model": "true", "ref_model_sync_steps": 3, "reference_mode": "frozen"}),
        ("reward", {}),
    ],
)
def test_a_step_comes_again(command: Any, keys: dict[str, Any], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"
    given = words(folder, command, output, **({} if command == "sft" else {"max_length": 512}), **keys)
    assert main(command, given) == 0
    before = content(output)
    capsys.readouterr()
    assert main(command, [*given, "--replay_step", str(STEP)]) == 0
    said = capsys.readouterr().out
    assert f"replay of step {STEP}: from checkpoint-2, 1 steps to go before it" in said
    assert "\nthe run logged the same\nall numbers are finite\n" in said
    assert content(output) == before
    found = json.loads((output / f"replay_{STEP}.json").read_text())
    rows = folder / ("sft.jsonl" if command == "sft" else "dpo.jsonl")
    dropped = "lora_dropout" in keys  # the rows are told without it
    if not dropped:
        check(output, found, rows, tolerance=0)
    for row in found["rows"]:
        assert row["row"] in said
    trained = {"lora_A", "lora_B"} if keys.get("lora") else {"weight"}
    assert {name.rsplit(".", 1)[-1] for name in found["tensors"]} == trained


def test_the_step_where_a_run_broke_shows_where_and_in_which_rows(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A rate so high that the first update spoils the model: the norms' squares overflow, and the second step's gradient is NaN."""
    output = tmp_path / "out"
    given = words(folder, "sft", output, learning_rate=1e25)
    assert main("sft", given) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: step 2: ") and f"{folder / 'sft.jsonl'}:" in told and told.count("\n") == 1
    assert (output / "checkpoint-1" / "model.safetensors").exists() and not (output / "model.safetensors").exists()
    before = content(output)
    assert main("sft", [*given, "--replay_step", "2"]) == 0
    said = capsys.readouterr().out
    assert "replay of step 2: from checkpoint-1, 0 steps to go" in said and "\nthe run logged the same\n" in said
    assert "\nnumbers that are not finite begin in the gradients of model.norm\n" in said
    found = json.loads((output / "replay_2.json").read_text())
    [incident] = [json.loads(line) for line in (output / "incidents.jsonl").read_text().splitlines()]
    assert [row["row"] for row in found["rows"]] == incident["rows"] and found["norm"] == incident["grad_norm"] == "nan"
    layer = found["layers"]["model.norm"]
    assert (layer["weights"]["not_finite"], layer["activations"]["not_finite"], layer["gradients"]["not_finite"]) == (0, 0, 1)
    assert content(output) == before
    assert main("sft", [*given, "--replay_step", "1"]) == 0  # from the start
    assert "replay of step 1: from the start, 0 steps to go" in capsys.readouterr().out
    assert content(output) == before


def test_broken_numbers_are_followed_to_where_they_begin() -> None:
    """Forward from the first layer to the loss, then backward; a weight comes before all that is computed with it."""

    def first(loss: float, *broken: tuple[str, str]) -> str | None:
        kinds = ("weights", "activations", "gradients")
        layers = {name: {kind: {"not_finite": float((name, kind) in broken)} for kind in kinds} for name in ("a", "b", "c")}
        return Replay(loss, 1.0, 1e-3, layers, {}, []).first_broken()

    assert first(1.0) is None
    assert first(math.nan) == "the loss"
    assert first(math.nan, ("b", "activations"), ("c", "activations"), ("c", "gradients")) == "activations of b"
    assert first(math.nan, ("a", "activations"), ("b", "weights")) == "weights of b"
    assert first(1.0, ("a", "gradients"), ("b", "gradients")) == "gradients of b"


def test_numbers_are_counted_without_those_that_are_not_finite() -> None:
    found = Numbers()
    found.add(paddle.to_tensor([[3.0, -4.0], [math.nan, -math.inf]]))
    found.add(paddle.to_tensor([0.0, 0.0], "bfloat16"))
    assert found.told() == {"norm": 5.0, "rms": 2.5, "max": 4.0, "not_finite": 2 / 6}


def test_what_cannot_be_replayed_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"

    def refusal(*more: str, **keys: Any) -> str:
        assert main("sft", [*words(folder, "sft", output, **keys), *more]) == 1
        return capsys.readouterr().err

    assert f"replay_step: {output} holds no run" in refusal(replay_step=3)
    assert main("sft", words(folder, "sft", output, max_steps=2)) == 0
    assert "replay_step: 3 is beyond the run's last step, 2" in refusal(replay_step=3, max_steps=2)
    assert "made under other arguments: learning_rate was 0.001, is 0.002" in refusal(replay_step=2, max_steps=2, learning_rate=2e-3)
    assert "replay_step" in (told := refusal(replay_step=2, resume_from_checkpoint="true")) and "resume_from_checkpoint" in told
    assert "overwrite_output_dir asks for another thing" in refusal("--overwrite_output_dir", replay_step=2)
    assert "0 is not allowed" in refusal(replay_step=0)


def test_two_processes_replay_what_one_computed(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main("sft", words(folder, "sft", output)) == 0
    before = content(output)
    given = words(folder, "sft", output, gradient_accumulation_steps=1, sharding="stage1", replay_step=STEP)
    code, screen = launch([str(ROOT / "sft_main.py"), *given], 2, tmp_path / "logs", 120)
    assert code == 0, screen
    found = json.loads((output / f"replay_{STEP}.json").read_text())
    check(output, found, folder / "sft.jsonl", tolerance=1e-5)
    assert content(output) == before


def test_layouts_in_which_no_process_has_it_all_are_refused_by_name() -> None:
    from types import SimpleNamespace

    from paddlealign.errors import UserError
    from paddlealign.recipes.replay import refuse_layout

    def topology(tensor: int, pipeline: int, shards: int) -> Any:
        return SimpleNamespace(**{name: SimpleNamespace(size=size) for name, size in locals().items()})

    refuse_layout(topology(1, 1, 2), "stage1")
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: refuse_layout(topology(2, 1, 1), ""), "tensor_parallel_degree"),
        (lambda: refuse_layout(topology(1, 2, 1), ""), "pipeline_parallel_degree"),
        (lambda: refuse_layout(topology(1, 1, 2), "stage2"), "sharding"),
    ]
    for refused, name in cases:
        with pytest.raises(UserError, match=f"replay_step with {name} in several processes"):
            refused()
