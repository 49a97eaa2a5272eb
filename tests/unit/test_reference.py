"""The reference's log-probs: kept under a name for all that they depend on, equal to a frozen copy's, and checked before use."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from paddlealign.data.encoding import examples_hash
from paddlealign.data.example import Example, Response
from paddlealign.errors import UserError
from paddlealign.models.tensor_files import read_tensors, write_tensors
from paddlealign.models.weights import load_model
from paddlealign.recipes.entry import main
from paddlealign.training import reference_cache
from paddlealign.training.reference import weights_hash
from paddlealign.training.reference_cache import compute_logps, fingerprint, write_cache
from paddlealign.training.run_log import read_metrics
from tests.small_runs import FLOAT32, MODEL, examples, make_checkpoint, write_rows


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    return folder


def edited(pairs: list[Example], change: Callable[[Response], Response]) -> list[Example]:
    """The pairs with the last one's second response changed."""
    last = pairs[-1]
    return [*pairs[:-1], replace(last, responses=(last.responses[0], change(last.responses[1])))]


def other_token(response: Response) -> Response:
    ids = response.token_ids.copy()
    ids[-1] += 1
    return replace(response, token_ids=ids)


def other_mask(response: Response) -> Response:
    scored = response.scored.copy()
    scored[0] = False
    return replace(response, scored=scored)


def test_the_name_depends_on_every_token_and_mask(model_dir: Path):
    pairs = examples(2)
    last = pairs[-1]
    moved = replace(  # the prompt's last token becomes the first of both responses
        last,
        prompt_ids=last.prompt_ids[:-1],
        responses=tuple(
            Response(np.concatenate([last.prompt_ids[-1:], r.token_ids]), np.concatenate([[False], r.scored])) for r in last.responses
        ),
    )
    variants = {
        "as it is": pairs,
        "a token": edited(pairs, other_token),
        "a mask": edited(pairs, other_mask),
        "a row less": pairs[:-1],
        "another order": [*pairs[1:], pairs[0]],
        "chosen and rejected swapped": [*pairs[:-1], replace(last, responses=last.responses[::-1])],
        "another boundary": [*pairs[:-1], moved],
    }
    names = {what: fingerprint(examples_hash(rows), weights_hash(model_dir), "float32 O1") for what, rows in variants.items()}
    assert len(set(names.values())) == len(variants), names
    assert fingerprint(examples_hash(examples(2)), weights_hash(model_dir), "float32 O1") == names["as it is"]


def test_the_name_depends_on_the_model_and_the_dtype_but_not_on_paths(model_dir: Path, tmp_path: Path):
    pairs = examples_hash(examples(2))
    name = fingerprint(pairs, weights_hash(model_dir), "float32 O1")
    elsewhere = tmp_path / "deep" / "elsewhere"
    shutil.copytree(model_dir, elsewhere)
    assert fingerprint(pairs, weights_hash(elsewhere), "float32 O1") == name
    (elsewhere / "tokenizer_config.json").write_text("{}")  # tokens are what counts of a tokenizer
    assert fingerprint(pairs, weights_hash(elsewhere), "float32 O1") == name
    assert fingerprint(pairs, weights_hash(elsewhere), "bfloat16 O2") != name
    assert fingerprint(pairs, weights_hash(elsewhere), "bfloat16 O1") != fingerprint(pairs, weights_hash(elsewhere), "bfloat16 O2")

    config = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-6}))
    assert fingerprint(pairs, weights_hash(elsewhere), "float32 O1") != name
    (elsewhere / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    weights = bytearray((elsewhere / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (elsewhere / "model.safetensors").write_bytes(weights)
    assert fingerprint(pairs, weights_hash(elsewhere), "float32 O1") != name


def test_logps_do_not_depend_on_how_the_rows_are_packed(monkeypatch: pytest.MonkeyPatch):
    model, pairs = load_model(MODEL, "float32"), examples(2)
    together = compute_logps(model, pairs, 0, FLOAT32, "test", False)
    assert together.shape == (6, 2) and together.dtype == np.float32 and (together < 0).all()
    monkeypatch.setattr("paddlealign.training.reference_cache.ROW_TOKENS", 1)
    assert np.abs(compute_logps(model, pairs, 0, FLOAT32, "test", False) - together).max() <= 1e-4
    one = compute_logps(model, pairs[3:4], 0, FLOAT32, "test", False)
    assert np.abs(one - together[3:4]).max() <= 1e-4


class Setting(NamedTuple):
    """Two models of one tokenizer, and rows for both splits."""

    model: Path
    other: Path
    train: Path
    dev: Path


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    root = tmp_path_factory.mktemp("reference")
    models = [make_checkpoint(root / name, seed) for name, seed in (("model", 0), ("other", 1))]
    return Setting(*models, write_rows(root / "train.jsonl", "dpo", "train", 0, 12), write_rows(root / "dev.jsonl", "dpo", "dev", 0, 5))


def dpo(setting: Setting, output: Path, *extra: str) -> int:
    words = ["--model_name_or_path", str(setting.model), "--output_dir", str(output), "--do_train", "--per_device_train_batch_size", "4"]
    words += ["--train_dataset_path", str(setting.train), "--dev_dataset_path", str(setting.dev), "--evaluation_strategy", "steps"]
    words += ["--logging_steps", "1", "--eval_steps", "2", "--learning_rate", "1e-3", "--save_strategy", "no", "--disable_tqdm"]
    return main("dpo", [*words, "--max_length", "256", "--src_length", "128", *extra])


def losses(output: Path) -> list[float]:
    """Every training and evaluation loss of a run, in order."""
    return [line.get("loss", line.get("eval_loss")) for line in read_metrics(output)]


@pytest.fixture(scope="module")
def plain(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary run with a cached reference, and its output."""
    output = tmp_path_factory.mktemp("plain") / "out"
    assert dpo(setting, output) == 0
    return output


def test_a_frozen_copy_gives_the_losses_of_the_cache(setting: Setting, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert dpo(setting, tmp_path / "frozen", "--reference_mode", "frozen") == 0
    assert losses(tmp_path / "frozen") == pytest.approx(losses(plain), abs=1e-6)
    assert len(losses(plain)) == 4 and losses(plain)[0] == pytest.approx(np.log(2), abs=1e-6)
    assert not (tmp_path / "frozen" / "reference").exists()
    assert "log-probs of" not in capsys.readouterr().out


def test_the_cache_is_used_again_from_another_run(setting: Setting, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    cache = plain / "reference"
    held = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(held) == 2  # train and dev
    assert dpo(setting, tmp_path / "second", "--reference_cache_dir", str(cache)) == 0
    said = capsys.readouterr().out
    assert "12 train rows read from" in said and "5 dev rows read from" in said and "rows computed with" not in said
    assert losses(tmp_path / "second") == losses(plain)
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == held


@pytest.mark.parametrize("harm", [lambda content: content[:-5], lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]])
def test_a_damaged_cache_is_told_and_computed_again(
    setting: Setting, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture, harm: Callable[[bytes], bytes]
):
    cache = tmp_path / "cache"
    shutil.copytree(plain / "reference", cache)
    for path in cache.iterdir():
        path.write_bytes(harm(path.read_bytes()))
    assert dpo(setting, tmp_path / "out", "--reference_cache_dir", str(cache)) == 0
    said = capsys.readouterr().out
    assert "12 train rows computed" in said and said.count("note: reference: ") == 2 and said.count("computed again") == 2
    assert losses(tmp_path / "out") == losses(plain)
    for path in cache.iterdir():
        assert path.read_bytes() == (plain / "reference" / path.name).read_bytes()


def test_a_build_that_was_broken_off_goes_on(
    setting: Setting, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reference_cache, "ROW_TOKENS", 1)
    monkeypatch.setattr(reference_cache, "PART_ROWS", 3)
    real, rows = reference_cache.model_logps, []

    def failing(*arguments: Any) -> np.ndarray:
        rows.append(1)
        if len(rows) == 8:
            raise UserError("the machine went down")
        return real(*arguments)

    monkeypatch.setattr(reference_cache, "model_logps", failing)
    assert dpo(setting, tmp_path / "out") == 1
    assert len(list((tmp_path / "out" / "reference").iterdir())) == 2
    rows.clear()
    rows.extend([1] * 100)
    assert dpo(setting, tmp_path / "out") == 0
    assert "6 of 12 train rows were done before" in capsys.readouterr().out
    assert len(rows) == 100 + 6 + 5
    assert {path.name for path in (tmp_path / "out" / "reference").iterdir()} == {path.name for path in (plain / "reference").iterdir()}
    assert losses(tmp_path / "out") == pytest.approx(losses(plain), abs=1e-6)


def test_a_stale_cache_is_never_used(setting: Setting, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    def said(output: str, changed: Setting, *words: str) -> str:
        capsys.readouterr()
        cache = ["--reference_cache_dir", str(plain / "reference")]
        assert dpo(changed, tmp_path / output, *cache, "--max_steps", "1", "--evaluation_strategy", "no", *words) == 0
        return capsys.readouterr().out

    assert "12 train rows read" in said("same", setting)
    model = tmp_path / "model"
    shutil.copytree(setting.model, model)
    (path,) = model.glob("*.safetensors")
    tensors = read_tensors(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + np.eye(1, 32, dtype="float32")[0] * 1e-3
    write_tensors(path, tensors, {"format": "pt"})
    assert "12 train rows computed" in said("weight", setting._replace(model=model))
    assert "12 train rows computed" in said("ld_alpha", setting, "--ld_alpha", "0.5")
    rows = tmp_path / "train.jsonl"
    text = setting.train.read_text(encoding="utf-8")
    place = text.index('"chosen": "') + len('"chosen": "')
    rows.write_text(text[:place] + "Q" + text[place + 1 :], encoding="utf-8")
    assert "12 train rows computed" in said("token", setting._replace(train=rows))


@pytest.mark.parametrize("mode", ["cached", "frozen"])
def test_another_reference_is_honoured(setting: Setting, plain: Path, tmp_path: Path, mode: str):
    output = tmp_path / "out"
    assert dpo(setting, output, "--ref_model_name_or_path", str(setting.other), "--reference_mode", mode) == 0
    assert abs(losses(output)[0] - np.log(2)) > 1e-4
    margins = [line["rewards/margins"] for line in read_metrics(output) if "loss" in line]
    assert abs(margins[0]) > 1e-4 > abs(read_metrics(plain)[0]["rewards/margins"])
    same = tmp_path / "same"
    assert dpo(setting, same, "--ref_model_name_or_path", str(setting.model), "--reference_mode", mode) == 0
    assert losses(same) == pytest.approx(losses(plain), abs=1e-6)


@pytest.mark.parametrize("key, value", [("beta", "0.5"), ("label_smoothing", "0.2")])
def test_the_objective_s_keys_change_the_loss(setting: Setting, plain: Path, tmp_path: Path, key: str, value: str):
    assert dpo(setting, tmp_path / "out", f"--{key}", value) == 0
    assert losses(tmp_path / "out")[0] == pytest.approx(np.log(2), abs=1e-6)
    assert all(abs(a - b) > 1e-5 for a, b in zip(losses(tmp_path / "out")[1:], losses(plain)[1:], strict=True))


@pytest.mark.parametrize("wrong", [lambda logps: logps + 1, lambda logps: logps[:, ::-1]])
def test_wrong_numbers_under_the_right_name_stop_the_run(
    setting: Setting, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture, wrong: Callable[[np.ndarray], Any]
):
    cache = tmp_path / "cache"
    shutil.copytree(plain / "reference", cache)
    for path in cache.iterdir():
        write_cache(cache, path.stem, np.ascontiguousarray(wrong(read_tensors(path)["logps"])))
    assert dpo(setting, tmp_path / "out", "--reference_cache_dir", str(cache)) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: before the first step the policy's log-probs differ from the reference's")
    assert "reference_cache_dir" in message
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
