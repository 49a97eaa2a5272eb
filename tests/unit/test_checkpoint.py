"""Checkpoints: whole or not there, the best one kept, resumed only when asked for, and nothing of anybody else's touched."""

import json
from pathlib import Path

import numpy as np
import pytest

import paddlealign.training.checkpoint as module
from paddlealign.errors import UserError
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import write_tensors
from paddlealign.models.weights import load_model
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.run_folder import (
    find_resume,
    list_checkpoints,
    prune_checkpoints,
    refuse_foreign_run,
    remove_run,
    set_aside_later,
)
from tests.small_runs import FLOAT32, MODEL, optimizer_of, train


@pytest.fixture(scope="module")
def policy() -> Decoder:
    return load_model(MODEL, "float32")


def fake(output_dir: Path, *steps: int) -> None:
    for step in steps:
        folder = output_dir / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text("{}")


def steps_in(output_dir: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(output_dir)]


def test_only_whole_checkpoints_are_listed_in_order_of_steps(tmp_path: Path):
    assert list_checkpoints(tmp_path / "nowhere") == []
    fake(tmp_path, 10, 9, 100)
    fake(tmp_path / "deeper", 1)
    for name in ("checkpoint-11.partial", "checkpoint-12", "checkpoint-best", "my-checkpoint-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-11.partial" / "trainer_state.json").write_text("{}")
    assert list_checkpoints(tmp_path) == [(step, tmp_path / f"checkpoint-{step}") for step in (9, 10, 100)]


@pytest.mark.parametrize(
    "limit, best, left",
    [
        (None, None, [2, 4, 6, 8]),
        (None, 2, [2, 4, 6, 8]),
        (1, None, [8]),
        (1, 8, [8]),
        (1, 4, [4, 8]),  # the newest to go on from and the best to end with
        (2, None, [6, 8]),
        (2, 8, [6, 8]),
        (2, 4, [4, 8]),
        (2, 2, [2, 8]),
        (3, 2, [2, 6, 8]),
        (3, 4, [4, 6, 8]),
        (4, 2, [2, 4, 6, 8]),
        (9, 2, [2, 4, 6, 8]),
    ],
)
def test_prune_keeps_the_newest_and_the_best(tmp_path: Path, limit: int | None, best: int | None, left: list[int]):
    fake(tmp_path, 2, 4, 6, 8)
    (tmp_path / "notes").mkdir()
    prune_checkpoints(tmp_path, limit, best)
    assert steps_in(tmp_path) == left
    assert (tmp_path / "notes").is_dir()


def test_nothing_is_resumed_unasked(tmp_path: Path):
    fake(tmp_path, 2, 10)
    assert find_resume(tmp_path, None) is None
    assert find_resume(tmp_path, "false") is None
    assert find_resume(tmp_path, "true") == find_resume(tmp_path, "True") == tmp_path / "checkpoint-10"
    assert find_resume(tmp_path, str(tmp_path / "checkpoint-2")) == tmp_path / "checkpoint-2"


def test_resume_where_there_is_nothing_to_go_on_from(tmp_path: Path):
    with pytest.raises(UserError, match=r"resume_from_checkpoint: true, but .* holds no run"):
        find_resume(tmp_path, "true")
    with pytest.raises(UserError, match="holds no run"):
        find_resume(tmp_path / "nowhere", "true")
    fake(tmp_path, 3)
    with pytest.raises(UserError, match=r"checkpoint-4 is not a checkpoint .*there are: checkpoint-3"):
        find_resume(tmp_path, str(tmp_path / "checkpoint-4"))
    stopped_early = tmp_path / "stopped"
    stopped_early.mkdir()
    (stopped_early / "run.json").write_text("{}")
    assert find_resume(stopped_early, "true") is None


def test_a_foreign_run_is_refused(tmp_path: Path):
    refuse_foreign_run(tmp_path / "nowhere", resuming=False, resume=None, overwrite=False)
    (tmp_path / "notes.txt").write_text("mine")
    refuse_foreign_run(tmp_path, resuming=False, resume=None, overwrite=False)
    with_log, with_checkpoint = tmp_path / "a", tmp_path / "b"
    with_log.mkdir()
    (with_log / "run.json").write_text("{}")
    fake(with_checkpoint, 1)
    for folder in (with_log, with_checkpoint):
        way = "no checkpoint to go on from" if folder == with_log else "resume_from_checkpoint"
        with pytest.raises(UserError, match=rf"already holds a run\..*{way}.*overwrite_output_dir"):
            refuse_foreign_run(folder, resuming=False, resume=None, overwrite=False)
        refuse_foreign_run(folder, resuming=True, resume=None, overwrite=False)
        refuse_foreign_run(folder, resuming=True, resume=folder / "checkpoint-1", overwrite=False)
        refuse_foreign_run(folder, resuming=False, resume=None, overwrite=True)
        with pytest.raises(UserError, match=r"holds another run than .*elsewhere/checkpoint-1"):
            refuse_foreign_run(folder, resuming=True, resume=tmp_path / "elsewhere" / "checkpoint-1", overwrite=False)
    refuse_foreign_run(tmp_path, resuming=True, resume=tmp_path / "elsewhere" / "checkpoint-1", overwrite=False)


def test_later_checkpoints_are_set_aside_and_not_taken_for_the_newest(tmp_path: Path):
    """Going on from step 2 leaves 4 and 6 behind: neither a later resume nor the pruning may meet them."""
    fake(tmp_path, 2, 4, 6)
    assert set_aside_later(tmp_path, 2) == ["checkpoint-4", "checkpoint-6"]
    assert [step for step, _ in list_checkpoints(tmp_path)] == [2]
    assert (tmp_path / "checkpoint-6.abandoned").is_dir()
    fake(tmp_path, 4)
    prune_checkpoints(tmp_path, 1, None)
    assert find_resume(tmp_path, "true") == tmp_path / "checkpoint-4"


def test_a_run_is_removed_and_nothing_else(tmp_path: Path):
    fake(tmp_path, 1, 2)
    ours = ["run.json", "metrics.jsonl", "curves.png"]
    theirs = ["notes.txt", "args.json", "checkpoint-9.tar", "checkpoint-old/weights", "reference/0.safetensors"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    remove_run(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(theirs)
    remove_run(tmp_path)


def test_a_save_that_is_killed_leaves_no_checkpoint(tmp_path: Path, policy: Decoder, monkeypatch: pytest.MonkeyPatch):
    optimizer = optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 1)
    first = save_checkpoint(tmp_path, policy, optimizer, TrainState(step=1), {})
    before = {path.name: path.read_bytes() for path in first.iterdir()}

    def killed(*arguments):
        raise KeyboardInterrupt

    for name in ("write_streamed", "write_json", "save_policy"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            for step in (1, 2):  # again at a step that has one, and at a new one
                with pytest.raises(KeyboardInterrupt):
                    save_checkpoint(tmp_path, policy, optimizer, TrainState(step=step), {})
        assert steps_in(tmp_path) == [1] and find_resume(tmp_path, "true") == first
        assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    save_checkpoint(tmp_path, policy, optimizer, TrainState(step=2), {})
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith("-1.partial")) == ["checkpoint-1", "checkpoint-2"]


def test_state_and_weights_come_back(tmp_path: Path, policy: Decoder):
    optimizer = optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 2)
    window = {"values": {"tokens": {"loss": 0.1 + 0.2}}, "counts": {"tokens": 3}, "tokens": 4, "examples": 1}
    state = TrainState(5, 1.25, 0.7, 4, 2, 100, 12, window, None)
    folder = save_checkpoint(tmp_path, policy, optimizer, state, {"generation_config.json": b"{}"})
    model = load_model(MODEL, "float32")
    assert load_checkpoint(folder, model, optimizer_of(model), FLOAT32) == state
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(policy.parameters(), model.parameters(), strict=True))
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "generation_config.json"}


def test_a_damaged_checkpoint_is_named(tmp_path: Path, policy: Decoder):
    optimizer = optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 1)
    folder = save_checkpoint(tmp_path, policy, optimizer, TrainState(step=1), {})
    state, moments = folder / "trainer_state.json", folder / "optimizer.safetensors"
    good_state, good_moments = state.read_bytes(), moments.read_bytes()

    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words):
            load_checkpoint(folder, policy, optimizer_of(policy), FLOAT32)
        state.write_bytes(good_state)
        moments.write_bytes(good_moments)

    state.write_text("{")
    refused("checkpoint-1: not a checkpoint that this run can go on from.*name an older")
    state.write_text(json.dumps({"step": 1, "wheels": 4}))
    refused("wheels")
    moments.write_bytes(good_moments[: len(good_moments) // 2])
    refused("optimizer.safetensors")
    write_tensors(moments, {"beta1_pow": np.ones(1, "float32")})
    refused("can go on from")
    moments.unlink()
    refused("optimizer.safetensors")
    load_checkpoint(folder, policy, optimizer_of(policy), FLOAT32)
