"""Every kind of reference through dpo_main.py: adapters beside any base, dtypes of their own, and references that follow the policy."""

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from paddlealign.models.adapter_files import read_values
from paddlealign.models.lora import attach, fill, merge
from paddlealign.models.parameters import LoraSettings
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes import dpo, references
from paddlealign.recipes.entry import main
from paddlealign.recipes.references import choose_reference_precision as precision
from paddlealign.training.checkpoint import save_policy
from paddlealign.training.run_log import read_metrics
from tests import half_precision
from tests.small_runs import CHARACTERS, character_checkpoint

SETTINGS = {  # of the adapters that are there; the first is that which lora_rank 4 and all modules make
    "adapter": LoraSettings(4, 8.0, False, 0.0, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
    "other": LoraSettings(2, 6.0, True, 0.0, ("q_proj", "down_proj")),
}
LN2 = pytest.approx(np.log(2), abs=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA, another one, adapters, models with the adapters merged in, and rows."""
    root = tmp_path_factory.mktemp("references")
    rng = np.random.default_rng(5)

    def text() -> str:
        return "".join(rng.choice(list(CHARACTERS[1:80]), rng.integers(3, 12)))

    pairs = [{"prompt": text(), "chosen": text(), "rejected": text()} for _ in range(8)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    labelled = [{"prompt": text(), "completion": text(), "label": number % 2 == 0} for number in range(8)]
    (root / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (root / "desirable.jsonl").write_text("".join(json.dumps({**row, "label": True}) + "\n" for row in labelled))
    base, second = character_checkpoint(root / "base"), character_checkpoint(root / "second")
    tensors = read_tensors(second / "model.safetensors")
    write_tensors(second / "model.safetensors", {name: array * 1.1 for name, array in tensors.items()}, {"format": "pt"})
    for name, settings in SETTINGS.items():
        model = load_model(base, "float32")
        attach(model, settings, str(base))
        fill(model, lambda it: rng.normal(0, 0.1, model.trained_shapes()[it]).astype("float32"))  # noqa: B023 - called at once
        save_policy(root / name, model, {})
        for below in (base, second):
            merged = load_model(below, "float32")
            attach(merged, settings, str(below))
            fill(merged, read_values(root / name, merged.config, settings))
            merge(merged)
            for parameter in merged.parameters():
                parameter.stop_gradient = False  # a merged model is saved as one that was trained
            save_policy(shutil.copytree(below, root / f"{below.name} and {name}"), merged, {})
    return root


def train(folder: Path, output: Path, *extra: object) -> int:
    words = {
        "model_name_or_path": folder / "base", "train_dataset_path": folder / "pairs.jsonl", "dev_dataset_path": folder / "pairs.jsonl",
        "output_dir": output, "do_train": True, "max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no",
        "disable_tqdm": True, "device": "cpu", "learning_rate": 1e-2, "src_length": 32, "max_length": 64, "lora_rank": 4,
        "evaluation_strategy": "no", "beta": 0.5,
    }  # fmt: skip
    return main("dpo", [*(f"--{key}={value}" for key, value in words.items()), *map(str, extra)])


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(output) if "loss" in line]


def never(*_: Any) -> None:
    raise AssertionError("a second model was asked for")


@pytest.mark.parametrize(
    ("mode", "lora", "below"),
    [
        ("cached", False, "base"), ("frozen", False, "second"), ("cached", True, "second"), ("frozen", True, "base"),
        ("frozen", True, "second"),
    ],
)  # fmt: skip
def test_an_adapter_as_reference_is_the_model_with_it_merged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, lora: bool, below: str
):
    words = ["--reference_mode", mode, "--lora", lora]
    assert train(folder, tmp_path / "merged", *words, "--ref_model_name_or_path", folder / f"{below} and other") == 0
    if below == "base" and lora and mode == "frozen":  # the policy has the base already
        monkeypatch.setattr(dpo, "load_reference", never)
    beside = [] if below == "base" else ["--ref_model_name_or_path", folder / below]
    assert train(folder, tmp_path / "apart", *words, *beside, "--ref_lora_path", folder / "other") == 0
    found, wanted = losses(tmp_path / "apart"), losses(tmp_path / "merged")
    assert found == pytest.approx(wanted, rel=1e-5) and abs(found[0] - np.log(2)) > 1e-2


def test_from_one_adapter_against_another_and_against_itself(folder: Path, tmp_path: Path):
    start = ["--lora", "true", "--lora_path", folder / "adapter"]
    runs = {
        "itself": [*start, "--reference_mode", "frozen"],
        "named": [*start, "--reference_mode", "frozen", "--ref_lora_path", folder / "adapter"],
        "other": [*start, "--reference_mode", "frozen", "--ref_lora_path", folder / "other"],
        "other, cached": [*start, "--ref_lora_path", folder / "other"],
    }
    for name, words in runs.items():
        assert train(folder, tmp_path / name, *words) == 0
    assert losses(tmp_path / "itself") == losses(tmp_path / "named") and losses(tmp_path / "named")[0] == LN2
    assert abs(losses(tmp_path / "other")[0] - np.log(2)) > 1e-2
    assert losses(tmp_path / "other, cached") == pytest.approx(losses(tmp_path / "other"), rel=1e-5)


def test_a_cached_reference_is_gone_before_the_policy_is_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not a tensor of it is left: what its log-probs took is there for the policy."""
    read, load_reference, load_policy = [], references.load_reference, dpo.load_policy
    left: list[int] = []

    def noted(*told: Any) -> Any:
        model, sharding = load_reference(*told)
        read.extend(map(weakref.ref, (model, *model.parameters())))
        return model, sharding

    def counted(*told: Any) -> Any:
        left.append(sum(it() is not None for it in read))  # without a collection: nothing waits for one
        return load_policy(*told)

    for module in (references, dpo):
        monkeypatch.setattr(module, "load_reference", noted)
    monkeypatch.setattr(dpo, "load_policy", counted)
    assert train(folder, tmp_path / "cached", "--ref_model_name_or_path", folder / "second") == 0
    assert read and left == [0]
    assert train(folder, tmp_path / "frozen", "--ref_model_name_or_path", folder / "second", "--reference_mode", "frozen") == 0
    assert left[1] == len(read) // 2


def test_an_adapter_that_should_equal_the_policy_and_does_not_stops_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    words = ["--lora", "true", "--lora_path", folder / "adapter", "--reference_mode", "frozen"]
    monkeypatch.setattr(references, "fill", lambda *_: None)
    for extra in ([], ["--sync_ref_model", "true"]):
        assert train(folder, tmp_path / "out", *words, *extra) == 1
        assert "before the first step the policy's log-probs differ" in capsys.readouterr().err


def test_a_dtype_that_a_cpu_lacks_is_refused_and_float32_is_a_copy(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for dtype in ("bfloat16", "float16"):
        assert train(folder, tmp_path / "out", "--reference_dtype", dtype) == 1
        message = f"error: reference_dtype: {dtype}: Paddle has no {dtype} kernels on CPU; allowed here: auto, float32"
        assert message in capsys.readouterr().err
    assert train(folder, tmp_path / "auto") == train(folder, tmp_path / "float32", "--reference_dtype", "float32") == 0
    assert losses(tmp_path / "auto") == losses(tmp_path / "float32")


@pytest.mark.parametrize("mode", ["cached", "frozen"])
def test_a_reference_of_another_dtype_computes_in_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
    kernels = half_precision.install(monkeypatch)  # as on a GPU
    monkeypatch.setattr(references, "choose_reference_precision", lambda wanted, start: precision(wanted, replace(start, device="gpu")))
    words = ["--reference_mode", mode, "--lora", "true"]
    assert train(folder, tmp_path / "auto", *words) == 0
    assert kernels.outputs == {paddle.float32}
    assert train(folder, tmp_path / "half", *words, "--reference_dtype", "bfloat16") == 0
    assert kernels.outputs == {paddle.float32, paddle.bfloat16} and not kernels.mixed
    found, wanted = (np.array(losses(tmp_path / name)) for name in ("half", "auto"))
    assert 1e-6 < np.abs(found - wanted).max() < 3e-2


SYNC = ["--reference_mode", "frozen", "--sync_ref_model", "true", "--ref_model_sync_steps", 2]
KINDS = {
    "copy": [],
    "copy from an adapter": ["--ref_lora_path", "other"],
    "new adapter": ["--lora", "true"],
    "from an adapter": ["--lora", "true", "--lora_path", "adapter"],
}


def words_of(folder: Path, kind: str) -> list[object]:
    return [folder / word if word in SETTINGS else word for word in KINDS[kind]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_reference_is_the_policy_at_the_sync(folder: Path, tmp_path: Path, kind: str):
    words = [*words_of(folder, kind), *SYNC, "--ref_model_mixup_alpha", 1, "--max_steps", 6, "--evaluation_strategy", "steps"]
    assert train(folder, tmp_path / "out", *words, "--eval_steps", 1) == 0
    found = losses(tmp_path / "out")
    assert found[2] == LN2 and found[4] == LN2 and all(abs(found[step] - np.log(2)) > 1e-3 for step in (1, 3, 5))
    assert bool(found[0] == LN2) is (kind != "copy from an adapter")
    margins = [line["eval_rewards/margins"] for line in read_metrics(tmp_path / "out") if "eval_loss" in line]
    assert [abs(margin) < 1e-5 for margin in margins] == [False, True] * 3  # the sync comes before the evaluation


def test_ktos_reference_moves_too(folder: Path, tmp_path: Path):
    words = [*SYNC, "--ref_model_mixup_alpha", 1, "--loss_type", "kto", "--train_dataset_path", folder / "labelled.jsonl"]
    assert train(folder, tmp_path / "out", *words, "--dev_dataset_path", folder / "labelled.jsonl", "--max_steps", 4) == 0
    found = losses(tmp_path / "out")  # sigmoid(0) where the policy is the reference
    assert found[0] == found[2] == pytest.approx(0.5, abs=1e-6) and all(abs(found[step] - 0.5) > 1e-3 for step in (1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_with_a_moving_reference_is_the_uninterrupted_one(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
):
    words = [*words_of(folder, kind), *SYNC, "--max_steps", 5, "--save_strategy", "steps", "--save_steps", 3, "--lora_dropout", 0.1]
    assert train(folder, tmp_path / "whole", *words) == 0
    again = shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(again / "checkpoint-3.partial", ignore_errors=True)
    assert train(folder, again, *words, "--resume_from_checkpoint", again / "checkpoint-3") == 0
    name = "adapter_model.safetensors" if "--lora" in words else "model.safetensors"
    assert (again / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert losses(again) == losses(tmp_path / "whole")
    moved = read_tensors(again / "checkpoint-3" / "reference" / name)
    trained = read_tensors(again / "checkpoint-3" / name)
    assert moved.keys() == trained.keys() and any(not np.array_equal(moved[it], trained[it]) for it in moved)
    shutil.rmtree(again / "checkpoint-3" / "reference")
    assert train(folder, again, *words, "--resume_from_checkpoint", again / "checkpoint-3") == 1
    err = capsys.readouterr().err
    assert "checkpoint-3 is damaged: " in err and f"reference/{name} is missing" in err
    (again / "checkpoint-3" / "manifest.json").unlink()  # as an earlier version left it
    assert train(folder, again, *words, "--resume_from_checkpoint", again / "checkpoint-3") == 1
    assert "checkpoint-3: its folder reference is missing" in capsys.readouterr().err


def test_each_key_of_a_moving_reference_changes_the_run(folder: Path, tmp_path: Path):
    runs = {
        "still": ["--reference_mode", "frozen"],
        "0.6": SYNC,
        "0.2": [*SYNC, "--ref_model_mixup_alpha", 0.2],
        "every step": [*SYNC[:-1], 1],
    }
    for name, words in runs.items():
        assert train(folder, tmp_path / name, *words, "--max_steps", 3) == 0
    third = [losses(tmp_path / name)[2] for name in runs]
    assert len({round(loss, 5) for loss in third}) == len(runs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sync_ref_model", "true"], "Set reference_mode to frozen"),
        (["--sync_ref_model", "true", "--loss_type", "kto"], "Set reference_mode to frozen"),
        ([*SYNC, "--lora", "true", "--ref_model_name_or_path", "second"], "Leave ref_model_name_or_path and reference_dtype out"),
        ([*SYNC, "--lora", "true", "--ref_lora_path", "other"], "has another rank, scale or other modules"),
        ([*SYNC, "--ref_model_name_or_path", "narrow"], "has other parameters than the policy"),
        (["--ref_model_update_steps", "2"], "set sync_ref_model, ref_model_mixup_alpha 1"),
        (["--ref_lora_path", "base"], "ref_lora_path: "),
        (["--ref_lora_path", "nowhere"], "ref_lora_path: there is no folder"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: list, said: str):
    if "narrow" in words:
        narrow = shutil.copytree(folder / "base", folder / "narrow")
        tensors = read_tensors(narrow / "model.safetensors")
        config = json.loads((narrow / "config.json").read_text())
        (narrow / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
        kept = {name: array for name, array in tensors.items() if "layers.1." not in name}
        write_tensors(narrow / "model.safetensors", kept, {"format": "pt"})
    names = ("base", "second", "adapter", "other", "narrow", "nowhere")
    assert train(folder, tmp_path / "out", *(folder / word if word in names else word for word in words)) in (1, 2)
    assert said in capsys.readouterr().err


def test_margins_between_labels_need_both_labels(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["--loss_type", "kto", "--train_dataset_path", folder / "labelled.jsonl", "--metric_for_best_model", "margin"]
    words += ["--evaluation_strategy", "steps", "--eval_steps", 1, "--max_steps", 2]
    assert train(folder, tmp_path / "one", *words, "--dev_dataset_path", folder / "desirable.jsonl") == 1
    said = capsys.readouterr().err
    assert "metric_for_best_model: margin" in said and "all 8 dev rows are labelled true" in said
    assert train(folder, tmp_path / "both", *words, "--dev_dataset_path", folder / "labelled.jsonl") == 0
