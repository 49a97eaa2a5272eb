"""What must not change a run, through the command line: each variant's final weights beside those of the plain run.

Variants that compute the same numbers in the same order are bit-equal; those that add up in another order are equal to rounding. The last
test shows that the comparison sees what does change a run. Several processes against one: tests/distributed/test_equality.py.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from paddlealign.data import build
from paddlealign.data.store import FILES
from paddlealign.recipes.entry import main
from tests.small_runs import make_checkpoint, write_rows

PLAIN = {
    "do_train": True, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_train_epochs": 3, "learning_rate": 1e-3,
    "logging_steps": 1, "save_steps": 100, "max_length": 256, "src_length": 128, "disable_tqdm": True,
}  # fmt: skip
# What bit-equality is asked of, and what only adds up in another order.
SAME_BITS: dict[str, dict[str, object]] = {
    "evaluation": {"do_eval": True, "evaluation_strategy": "steps", "eval_steps": 2},
    "saving": {"save_steps": 2},
    "logging": {"logging_steps": 5},
    "recompute": {"recompute": True},
}
SAME_SUMS: dict[str, dict[str, object]] = {
    "one row a micro-batch": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "two rows a micro-batch": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
}
OF_DPO: dict[str, dict[str, object]] = {"a frozen reference": {"reference_mode": "frozen"}}
ROUNDING, MEAN_ROUNDING = 2e-5, 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, rows of both kinds, and the plain runs that all others are held to."""
    root = tmp_path_factory.mktemp("invariance")
    make_checkpoint(root / "model")
    for command in ("sft", "dpo"):
        write_rows(root / f"{command}_train.jsonl", command, "train", 0, 10)  # the last step of an epoch is a smaller one
        write_rows(root / f"{command}_dev.jsonl", command, "dev", 0, 5)
        run(root, command, "plain", {})
    return root


def run(root: Path, command: str, out: str, keys: dict[str, object], backwards: bool = False) -> Path:
    """Train with PLAIN and these keys from an argument file, whose keys stand in their order or in the other one. Returns output_dir."""
    data = {"train_dataset_path": str(root / f"{command}_train.jsonl"), "dev_dataset_path": str(root / f"{command}_dev.jsonl")}
    folders = {"model_name_or_path": str(root / "model"), "output_dir": str(root / command / out)}
    arguments = {**PLAIN, **folders, **data, **keys}
    (root / "args.json").write_text(json.dumps(dict(reversed(arguments.items())) if backwards else arguments))
    assert main(command, [str(root / "args.json")]) == 0  # type: ignore[arg-type]
    return root / command / out


def weights(output_dir: Path) -> np.ndarray:
    """All final weights, float32, end to end."""
    return np.concatenate([array.astype(np.float32).ravel() for _, array in sorted(load_file(output_dir / "model.safetensors").items())])


def differences(root: Path, command: str, output_dir: Path) -> tuple[float, float]:
    """The largest and the mean difference of a weight from the plain run's."""
    gap = np.abs(weights(output_dir) - weights(root / command / "plain"))
    return float(gap.max()), float(gap.mean())


@pytest.mark.parametrize("name", SAME_BITS)
@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_bits_stay(folder: Path, command: str, name: str):
    assert differences(folder, command, run(folder, command, name, SAME_BITS[name])) == (0.0, 0.0)


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_the_order_of_keys_changes_no_bit(folder: Path, command: str):
    assert differences(folder, command, run(folder, command, "backwards", {}, backwards=True)) == (0.0, 0.0)


def test_a_check_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not run(folder, "sft", "checked", {"check": True}).exists()
    assert list(tmp_path.iterdir()) == []
    run(folder, "sft", "checked", {"check": True, "dataset_cache_dir": str(tmp_path / "kept")})
    assert len(list((tmp_path / "kept").glob("*/store.json"))) == 1


@pytest.mark.parametrize(("command", "workers"), [("sft", 2), ("dpo", 4)])
def test_processes_that_encode_change_no_bit(
    folder: Path, command: str, workers: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(build, "CHUNK_ROWS", 2)  # so that ten rows are more than one process is given
    cache = folder / f"encoded {command} {workers}"
    keys = {"dataset_num_proc": workers, "dataset_cache_dir": str(cache)}
    assert differences(folder, command, run(folder, command, f"workers {workers}", keys)) == (0.0, 0.0)
    assert "encoded rows taken from" not in capsys.readouterr().out
    run(folder, command, f"workers {workers}, again", {**keys, "max_steps": 1})
    assert f"train: encoded rows taken from {cache}" in capsys.readouterr().out
    stores = sorted(path.parent for path in cache.rglob("store.json"))
    assert len(stores) == 1 and len((stores[0] / "journal.jsonl").read_text().splitlines()) == 5
    plain = next(path.parent for path in (folder / command / "plain").rglob("store.json"))
    assert [(stores[0] / name).read_bytes() for name in FILES] == [(plain / name).read_bytes() for name in FILES]


@pytest.mark.parametrize(("command", "name"), [(c, n) for c in ("sft", "dpo") for n in SAME_SUMS] + [("dpo", n) for n in OF_DPO])
def test_sums_stay(folder: Path, command: str, name: str):
    largest, mean = differences(folder, command, run(folder, command, name, {**SAME_SUMS, **OF_DPO}[name]))
    assert largest <= ROUNDING and mean <= MEAN_ROUNDING


@pytest.mark.parametrize("step", [1, 5, 8])  # in the first, second and third epoch of three steps each
@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_resumed_is_uninterrupted_in_every_epoch(folder: Path, command: str, step: int):
    every = {"save_steps": step}
    first = run(folder, command, f"stopped {step}", every)
    resumed = run(folder, command, f"resumed {step}", {**every, "resume_from_checkpoint": str(first / f"checkpoint-{step}")})
    assert differences(folder, command, resumed) == (0.0, 0.0)
    lines = [json.loads(line) for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(step + 1, 10))


@pytest.mark.parametrize("command", ["sft", "dpo"])
@pytest.mark.parametrize("keys", [{"seed": 43}, {"per_device_train_batch_size": 3}, {"learning_rate": 1.01e-3}])
def test_what_does_change_a_run_is_seen(folder: Path, command: str, keys: dict[str, object]):
    largest, mean = differences(folder, command, run(folder, command, f"other {next(iter(keys))}", keys))
    assert largest > 2 * ROUNDING and mean > 2 * MEAN_ROUNDING
