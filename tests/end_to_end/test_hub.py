"""A model and rows by their hub's names, from caches as the hub's libraries fill them, on a machine that reaches no hub."""

import json
import os
import shutil
from pathlib import Path

import datasets
import pytest

from paddlealign.recipes.entry import main
from tests.small_runs import character_checkpoint


def test_a_run_starts_from_filled_caches(tmp_path: Path, run_command):
    revision = "0" * 40
    model = tmp_path / "hub/models--org--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text(revision)
    (model / "snapshots").mkdir()
    character_checkpoint(model / "snapshots" / revision)
    (tmp_path / "sums").mkdir()
    for split, count in {"train": 8, "test": 4}.items():
        rows = [{"src": f"{n} + {count} =", "tgt": str(n + count)} for n in range(count)]
        (tmp_path / f"sums/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.load_dataset(str(tmp_path / "sums"), cache_dir=str(tmp_path / "sets"))
    shutil.move(tmp_path / "sets/sums", tmp_path / "sets/org___sums")
    words = ["--model_name_or_path", "org/tiny", "--dataset_name_or_path", "org/sums", "--output_dir", "o", "--do_train", "--do_eval"]
    caches = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_DATASETS_CACHE": str(tmp_path / "sets"),
    }
    done = run_command(["sft_main.py", *words], cwd=tmp_path, environment=caches)
    assert done.code == 0 and "Retrying" not in done.err, done.err
    assert f"note: model_name_or_path: org/tiny is read from {model / 'snapshots' / revision}" in done.out
    assert "  train      8 of 8 rows from 1 file (sums-train.arrow)" in done.out and "  dev        4 of 4 rows from 1 file" in done.out
    assert (tmp_path / "o/model.safetensors").is_file()
    told = json.loads((tmp_path / "o/run.json").read_text())
    assert "org/sums" in json.dumps(told["arguments"])


@pytest.mark.parametrize("command", ["sft", "plan"])
def test_a_mistyped_path_is_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model_name_or_path", "output/sft2", "--dataset_name_or_path", os.curdir, "--output_dir", "o", "--do_train"]
    Path("train.json").write_text("{}")
    assert main(command, [*words, *(["--devices", "8"] if command == "plan" else [])]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: model_name_or_path: there is no folder output/sft2 here, and as a hub's id it cannot be had (")
    assert message.count("\n") == 1 and "modelscope download --model output/sft2" in message
