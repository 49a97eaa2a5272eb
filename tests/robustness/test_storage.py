"""Storage that fails: full disks, lost permissions, damaged and missing files, two runs in one folder, folders that go away."""

import errno
import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from paddlealign.errors import UserError
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import remove_parts, write_bytes
from paddlealign.models.weights import load_model
from paddlealign.recipes import run
from paddlealign.recipes.entry import main
from paddlealign.recipes.screen import Screen
from paddlealign.training import loop, run_folder
from paddlealign.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from paddlealign.training.folder_lock import LOCK_FILE, FolderLock
from paddlealign.training.manifest import MANIFEST_FILE, find_damage
from paddlealign.training.reference_cache import read_cache, settle_cache, write_cache, write_part
from paddlealign.training.run_folder import choose_resume, list_checkpoints, prune_checkpoints
from paddlealign.training.run_log import RunLog, read_metrics
from paddlealign.training.viewers import About, Viewers, VisualDL
from tests.small_runs import FLOAT32, MODEL, ROOT, character_checkpoint, optimizer_of, train


@pytest.fixture(scope="module")
def policy() -> Decoder:
    return load_model(MODEL, "float32")


@pytest.fixture(scope="module")
def saved(policy: Decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with three checkpoints, for copies."""
    output = tmp_path_factory.mktemp("saved")
    optimizer = optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 1)
    for step in (2, 4, 6):
        save_checkpoint(output, policy, optimizer, TrainState(step=step), {"tokenizer_config.json": b"{}"}, run_file=b"{}")
    return output


@pytest.fixture
def output(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "output"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_is_of_the_bytes_on_the_disk(saved: Path):
    folder = saved / "checkpoint-2"
    told = json.loads((folder / MANIFEST_FILE).read_text())["files"]
    files = contents(folder)
    files.pop(MANIFEST_FILE)
    assert told == {name: {"size": len(it), "sha256": hashlib.sha256(it).hexdigest()} for name, it in files.items()}
    assert {"model.safetensors", "optimizer.safetensors", "trainer_state.json", "run.json", "tokenizer_config.json"} <= told.keys()
    assert find_damage(folder) == []


def test_a_large_block_is_summed_as_it_is_written(tmp_path: Path):
    content = os.urandom(3 << 20)
    assert write_bytes(tmp_path / "large", content) == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / "large").read_bytes() == content


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("model.safetensors", cut, "model.safetensors is cut short: [0-9,]+ bytes are there, [0-9,]+ were written"),
    ("model.safetensors", flip, "model.safetensors was changed since it was written"),
    ("optimizer.safetensors", flip, "optimizer.safetensors was changed since it was written"),
    ("optimizer.safetensors", Path.unlink, "optimizer.safetensors is missing"),
    ("trainer_state.json", flip, "trainer_state.json was changed since it was written"),
    ("trainer_state.json", Path.unlink, "trainer_state.json is missing"),
    ("run.json", Path.unlink, "run.json is missing"),
    (MANIFEST_FILE, cut, "manifest.json is damaged"),
]


@pytest.mark.parametrize(("file", "damage", "words"), DAMAGES)
def test_a_damaged_checkpoint_is_refused_or_passed_over(output: Path, file: str, damage: Callable[[Path], None], words: str):
    if file == MANIFEST_FILE:
        (output / "checkpoint-6" / file).write_text("{")
    else:
        damage(output / "checkpoint-6" / file)
    named = str(output / "checkpoint-6")
    with pytest.raises(UserError, match=rf"checkpoint-6 is damaged: {words}.*newest whole one there is checkpoint-4: .*checkpoint-4$"):
        choose_resume(output, named)
    for wish in ("true", "auto"):
        chosen, remarks = choose_resume(output, wish)
        assert chosen == output / "checkpoint-4"
        assert len(remarks) == 1 and "checkpoint-6 is passed over, it is damaged" in remarks[0]
    assert choose_resume(output, str(output / "checkpoint-2")) == (output / "checkpoint-2", [])


def test_where_no_checkpoint_is_whole_none_is_taken(output: Path):
    for step in (2, 4, 6):
        flip(output / f"checkpoint-{step}" / "model.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole: .*checkpoint-6 is.*checkpoint-4 is.*checkpoint-2 is"):
        choose_resume(output, "true")
    with pytest.raises(UserError, match="There is no whole one beside it"):
        choose_resume(output, str(output / "checkpoint-2"))


def test_a_checkpoint_of_an_earlier_version_is_taken_and_told(output: Path, policy: Decoder):
    (output / "checkpoint-6" / MANIFEST_FILE).unlink()
    chosen, remarks = choose_resume(output, "true")
    assert chosen == output / "checkpoint-6" and "has no manifest" in remarks[0]
    assert load_checkpoint(chosen, policy, optimizer_of(policy), FLOAT32) == TrainState(step=6)


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: what a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 300, 2000, 60_000, 150_000])
def test_a_disk_that_is_full_in_mid_save_leaves_the_last_checkpoint_and_room(output: Path, policy: Decoder, size: int):
    before = contents(output)
    assert size < max(len(it) for it in before.values())
    optimizer = optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 1)
    with files_end_at(size), pytest.raises(UserError) as told:
        save_checkpoint(output, policy, optimizer, TrainState(step=8), {}, run_file=b"{}")
    text = str(told.value)
    assert text.startswith("checkpoint-8 was not written: ") and os.strerror(errno.EFBIG) in text and "\n" not in text
    assert text.endswith("checkpoint-6 is whole: make room (save_total_limit keeps fewer checkpoints), then go on with "
                         "--resume_from_checkpoint true")  # fmt: skip
    assert contents(output) == before
    save_checkpoint(output, policy, optimizer, TrainState(step=8), {})
    assert find_damage(output / "checkpoint-8") == []


def test_a_permission_that_is_lost_leaves_the_last_checkpoint(output: Path, policy: Decoder, monkeypatch: pytest.MonkeyPatch):
    """A stand-in for rights, which the superuser does not lose."""
    before, optimizer = contents(output), optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 1)

    def refuse(path: Path, to: Path | None = None, parents: bool = False) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for owner, name in ((os, "replace"), (Path, "mkdir"), (Path, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            with pytest.raises(UserError, match=r"checkpoint-8 was not written: .*Permission denied.*see to it that output_dir can be"):
                save_checkpoint(output, policy, optimizer, TrainState(step=8), {})
        assert contents(output) == before


def test_a_slow_rename_shows_whole_checkpoints_only(output: Path, policy: Decoder, monkeypatch: pytest.MonkeyPatch):
    """As on a network's file system: another process may look at any time."""
    seen: list[tuple[list[int], list[str]]] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            checkpoints = list_checkpoints(output)
            seen.append(([step for step, _ in checkpoints], [text for _, path in checkpoints[-1:] for text in find_damage(path)]))

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: (time.sleep(0.2), rename(path, to))[1])
    optimizer = optimizer_of(policy)
    train(policy, optimizer, FLOAT32, 1)
    looker = threading.Thread(target=look)
    looker.start()
    try:
        save_checkpoint(output, policy, optimizer, TrainState(step=8), {})
    finally:
        over.set()
        looker.join()
    assert {tuple(steps) for steps, _ in seen} <= {(2, 4, 6), (2, 4, 6, 8)} and (2, 4, 6) in {tuple(steps) for steps, _ in seen}
    assert not any(damage for _, damage in seen)


def test_a_removal_that_is_killed_leaves_no_checkpoint_that_is_half_there(output: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(path: Path, **quietly: bool) -> None:
        if not quietly:
            (path / "model.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_checkpoints(output, 2, None)
    assert [step for step, _ in list_checkpoints(output)] == [4, 6]


def test_a_checkpoint_that_lacks_only_its_name_gets_it(output: Path):
    whole = contents(output / "checkpoint-6")
    (output / "checkpoint-6").rename(output / "checkpoint-6.partial")
    shutil.copytree(output / "checkpoint-4", output / "checkpoint-8.partial")
    flip(output / "checkpoint-8.partial" / "model.safetensors")
    shutil.copytree(output / "checkpoint-4", output / "checkpoint-4.partial")
    assert run_folder.remove_leftovers(output) == ["checkpoint-4.partial", "checkpoint-8.partial"]
    assert [step for step, _ in list_checkpoints(output)] == [2, 4, 6] and contents(output / "checkpoint-6") == whole


def test_a_checkpoint_that_cannot_be_removed_is_told_and_harms_nothing(output: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, **_: bool) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.shutil, "rmtree", lambda path, **keys: None if keys else refuse(path))
        assert "checkpoint-2 cannot be removed: Directory not empty" in str(prune_checkpoints(output, 2, None))
    assert [step for step, _ in list_checkpoints(output)] == [4, 6]
    assert run_folder.remove_leftovers(output) == ["checkpoint-2.removed"]
    assert sorted(path.name for path in output.iterdir()) == ["checkpoint-4", "checkpoint-6"]


def test_what_a_kill_left_is_taken_away_and_what_is_in_use_stays(tmp_path: Path):
    dead, used, other = (tmp_path / name for name in (f".a.{'0' * 16}.part", f".b.{'1' * 16}.part", ".mine.part"))
    for path in (dead, used, other):
        path.write_text("half")
    with used.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_parts(tmp_path) == [dead.name]
    assert sorted(tmp_path.iterdir()) == sorted([used, other])


def test_parts_of_a_table_that_is_whole_are_taken_away(tmp_path: Path):
    logps = np.arange(8, dtype="float32").reshape(4, 2)
    write_cache(tmp_path, "name", logps)
    write_part(tmp_path, "name", np.array([0, 1]), logps[:2])  # as where a kill came between the table and the end of its parts
    write_part(tmp_path, "other", np.array([0, 1]), logps[:2])
    (tmp_path / f".name.safetensors.{'0' * 16}.part").write_text("half")
    settle_cache(tmp_path, "name", np.zeros((4, 2), "float32"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name.safetensors", "other.part-000000000.safetensors"]
    assert (read_cache(tmp_path, "name", 4).logps == logps).all()


# The run log.


def test_a_full_disk_costs_the_run_log_no_line(tmp_path: Path):
    told: list[str] = []
    log = RunLog(tmp_path, 0, None, tell=told.append)
    line = {"step": 1, "loss": 0.123456789}
    log.write(line)
    with files_end_at((tmp_path / "metrics.jsonl").stat().st_size + 10):
        for step in (2, 3):
            log.write({**line, "step": step})
            assert [it["step"] for it in read_metrics(tmp_path)] == [1]
            assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")  # nothing half
    log.write({**line, "step": 4})
    assert [it["step"] for it in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert len(told) == 1 and "metrics.jsonl cannot be written: No space left on device; the run goes on" in told[0]
    with files_end_at((tmp_path / "metrics.jsonl").stat().st_size):
        log.write({**line, "step": 5})
    log.close()
    assert [it["step"] for it in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_kill_while_the_run_log_is_opened_loses_no_line(tmp_path: Path):
    """The lines of an earlier start are written anew beside the file, not over it."""
    log = RunLog(tmp_path, 0)
    for step in range(1, 9):
        log.write({"step": step, "loss": 1.0})
    log.close()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with files_end_at(100), pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written"):
        RunLog(tmp_path, 6)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_what_is_done_again_at_the_checkpoint_stands_once(tmp_path: Path):
    """An evaluation after the last checkpoint, at its very step, is made again by a resume."""
    for _ in range(2):
        log = RunLog(tmp_path, 0 if not (tmp_path / "metrics.jsonl").exists() else 4, repeats=("eval_loss",))
        if not read_metrics(tmp_path):
            log.write({"step": 4, "loss": 1.0})
        log.write({"step": 4, "eval_loss": 2.0})
        log.close()
    assert read_metrics(tmp_path) == [{"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": 2.0}]


def test_a_second_run_log_that_fails_is_told_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(VisualDL, "add", fail)
    log = RunLog(tmp_path, 0, lambda lines: Viewers(["visualdl"], tmp_path, About(), lines, told.append))
    for step in (1, 2):
        log.write({"step": step, "loss": 1.0})
    log.close()
    assert len(read_metrics(tmp_path)) == 2 and len(told) == 1 and "visualdl is written no further" in told[0]


def test_a_full_disk_under_the_screens_log_ends_no_command(capfd: pytest.CaptureFixture):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        screen = Screen(stream)
        for _ in range(3):
            print("a line", file=screen, flush=True)  # type: ignore[call-overload]
    assert capfd.readouterr().err == "note: what is said here cannot be written any more: No space left on device; the run goes on\n"
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, str(ROOT / "sft_main.py"), "--help"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0 and b"Traceback" not in done.stderr


# One run a folder.

HOLDER = """
import sys, time
from pathlib import Path
from paddlealign.training.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The command line of a run of 6 steps that saves every second one."""
    model = character_checkpoint(tmp_path_factory.mktemp("model") / "model")
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_text("".join(json.dumps({"src": f"question {n}", "tgt": f"answer {n}"}) + "\n" for n in range(8)))
    keys = ["--model_name_or_path", str(model), "--train_dataset_path", str(rows), "--do_train", "--max_length", "64", "--max_steps", "6"]
    keys += ["--save_steps", "2", "--logging_steps", "1", "--learning_rate", "1e-3", "--disable_tqdm", "true", "--chat_template", "none"]
    return lambda output, *more: [*keys, "--output_dir", str(output), *more]


def test_a_second_run_on_one_folder_is_refused_by_name(tmp_path: Path, words: Callable[..., list[str]], capsys: pytest.CaptureFixture):
    output = tmp_path / "output"
    with holder(output) as process:
        for more in ([], ["--overwrite_output_dir", "true"], ["--resume_from_checkpoint", "true"]):
            assert main("sft", words(output, *more)) == 1
            err = capsys.readouterr().err
            assert f"output_dir: {output} is in use by process {process.pid} on {os.uname().nodename}, which writes a run there" in err
        assert [path.name for path in output.iterdir()] == [LOCK_FILE]
    assert main("sft", words(output)) == 0  # what a killed process leaves holds nobody up
    assert not (output / LOCK_FILE).exists() and len(list_checkpoints(output)) == 3


def test_the_lock_leaves_nothing_behind(tmp_path: Path):
    lock = FolderLock(tmp_path / "new")
    assert lock.take() is None and lock.take() is None and (tmp_path / "new" / LOCK_FILE).exists()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    lock = FolderLock(tmp_path / "mine")
    lock.take()
    lock.release()
    assert list((tmp_path / "mine").iterdir()) == []
    FolderLock(tmp_path / "unwanted", wanted=False).take()
    assert not (tmp_path / "unwanted").exists()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert "knows no locks (No locks available)" in str(FolderLock(tmp_path).take())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, words: Callable[..., list[str]], capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("")
    assert main("sft", words(tmp_path / "file" / "output")) == 1
    assert f"output_dir: {tmp_path}/file/output cannot be written (Not a directory); name another folder" in capsys.readouterr().err


def test_a_folder_that_is_removed_is_made_again(
    tmp_path: Path, words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """What was trained is not thrown away: the run goes on, and so does a resume of what it saves afterwards."""
    output, save = tmp_path / "output", loop.save_checkpoint

    def save_and_lose(*arguments: object) -> Path:
        path = save(*arguments)  # type: ignore[arg-type]
        if path.name == "checkpoint-2":
            shutil.rmtree(output)
        return path

    monkeypatch.setattr(loop, "save_checkpoint", save_and_lose)
    assert main("sft", words(output)) == 0
    told = capsys.readouterr().out
    assert told.count(f"note: output_dir: {output} was removed while the run went on; it is made again") == 1
    assert told.count("metrics.jsonl cannot be written: No such file or directory; the run goes on") == 1
    assert [step for step, _ in list_checkpoints(output)] == [4, 6]
    assert [line["step"] for line in read_metrics(output)] == [1, 2, 3, 4, 5, 6]
    shutil.rmtree(output / "checkpoint-6")
    assert main("sft", words(output, "--resume_from_checkpoint", "true")) == 0
    assert "checkpoint-4: 4 of 6 steps done" in capsys.readouterr().out


def test_one_command_starts_a_run_and_goes_on_with_it(tmp_path: Path, words: Callable[..., list[str]], capsys: pytest.CaptureFixture):
    output = tmp_path / "output"
    assert main("sft", words(output, "--resume_from_checkpoint", "true")) == 1
    assert "holds no run" in capsys.readouterr().err and not output.exists()
    assert main("sft", words(output, "--resume_from_checkpoint", "auto")) == 0
    assert "resumed" not in capsys.readouterr().out
    model = (output / "model.safetensors").read_bytes()
    flip(output / "checkpoint-6" / "optimizer.safetensors")
    (output / "checkpoint-6.partial").mkdir()
    assert main("sft", words(output, "--resume_from_checkpoint", "auto")) == 0
    told = capsys.readouterr().out
    assert "checkpoint-6 is passed over, it is damaged: optimizer.safetensors was changed" in told
    assert "checkpoint-6.partial, left by a run that was broken off, taken away" in told
    assert f"resumed from {output / 'checkpoint-4'}" in told
    assert (output / "model.safetensors").read_bytes() == model
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [
        "checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-6.abandoned",
    ]  # fmt: skip


def test_a_final_model_that_cannot_be_written_says_how_to_get_it(
    tmp_path: Path, words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    save = run.save_policy

    def full(*arguments: object) -> None:
        with files_end_at(1000):
            save(*arguments)  # type: ignore[arg-type]

    output = tmp_path / "output"
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_policy", full)
        assert main("sft", words(output)) == 1
    err = capsys.readouterr().err
    assert "all steps are done, but the model was not saved:" in err and "go on from checkpoint-6 with --resume_from_checkpoint true" in err
    assert main("sft", words(output, "--resume_from_checkpoint", "true")) == 0
    assert (output / "model.safetensors").read_bytes() == (output / "checkpoint-6" / "model.safetensors").read_bytes()


# Renames that take their time, as on NFS, in a run that is killed meanwhile: the name may be there already, or not.

SLOW_RENAMES = """
import os, sys, time
from pathlib import Path
from paddlealign.recipes.entry import main

end, when, mark, *words = sys.argv[1:]

def slowly(real):
    def rename(source, to, **keys):
        for moment in ("before", "after"):
            if str(to).endswith(end) and when == moment:
                Path(mark).touch()
                time.sleep(600)
            if moment == "before":
                real(source, to, **keys)
                time.sleep(0.01)
    return rename

os.rename, os.replace = slowly(os.rename), slowly(os.replace)
sys.exit(main("sft", words))
"""
SAVES = ("--save_total_limit", "2", "--resume_from_checkpoint", "auto")


@pytest.fixture(scope="module")
def undisturbed(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    assert main("sft", words(output, *SAVES)) == 0
    return output


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "renamed",
    ["checkpoint-4.partial/optimizer.safetensors", "output/checkpoint-4", "output/checkpoint-2.removed", "output/model.safetensors"],
)
def test_a_run_that_is_killed_in_a_slow_rename_ends_as_undisturbed(
    tmp_path: Path, words: Callable[..., list[str]], undisturbed: Path, renamed: str, when: str
):
    output, mark = tmp_path / "output", tmp_path / "mark"
    command = [sys.executable, "-c", SLOW_RENAMES, renamed, when, str(mark), *words(output, *SAVES)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not mark.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert [text for _, path in list_checkpoints(output) for text in find_damage(path)] == []
    assert main("sft", words(output, *SAVES)) == 0
    assert (output / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    assert [line["step"] for line in read_metrics(output)] == [1, 2, 3, 4, 5, 6]
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (output, undisturbed)]
    assert names[0] == names[1]
