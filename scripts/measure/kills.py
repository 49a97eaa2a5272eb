"""Kill runs at random moments, start them again, and hold them to one that nobody disturbed: python -m scripts.measure.kills 100

A run of the smallest model is killed (SIGKILL) while it saves, evaluates, tokenises, fills the reference's cache, or at any moment, up to
KILLS_A_RUN times, and started again each time with the same command. When it is done, weights, optimizer, run log, findings and the names
of all files must be those of the undisturbed run; after each kill, every checkpoint that a resume could find must be as it was written.
Prints a table of what the killed processes were doing, and ends with 1 where anything differs.

Processes are forked from this one, which has imported Paddle and computed nothing, since the import takes longer than the run;
``--real true`` starts the commands themselves, under Paddle's launcher where there are two processes.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.distributed.launching import children, start_launcher
from tests.small_runs import ROOT, make_checkpoint, write_rows

KILLS_A_RUN = 3
STEPS, EVERY = 8, 2
LIMIT_SECONDS = 180.0
LAUNCHER_SECONDS = 30.0  # which it leaves others to end by themselves
LAYOUTS = {"single": (1, []), "dp2": (2, []), "tp2": (2, ["--tensor_parallel_degree", "2"])}
# What to wait for, how often, and within how many seconds from then on to kill.
AIMS = {"saving": (7, 0.06), "evaluating": (3, 0.01), "caching": (3, 0.1), "reading rows": (3, 0.2), "any": (4, 2.5)}
SAME = ("model.safetensors", f"checkpoint-{STEPS}/model.safetensors", f"checkpoint-{STEPS}/optimizer.safetensors")


class Setting(NamedTuple):
    """What is run. real: by commands, not forks."""

    recipe: str
    processes: int
    words: list[str]
    real: bool


class Running:
    """A run under way: its processes form a group of their own, and what they say goes into a file."""

    def __init__(self, setting: Setting, output: Path, log: Path) -> None:
        self.setting, self.output, self.log = setting, output, log
        words = [*setting.words, "--output_dir", str(output)]
        log.write_bytes(b"")
        if setting.real and setting.processes > 1:
            script = str(ROOT / f"{setting.recipe}_main.py")
            launcher = start_launcher([script, *words], setting.processes, log.with_suffix(".ranks"), ())
            self.pid, self.log = launcher.pid, log.with_suffix(".ranks") / "workerlog.0"
        elif setting.real:
            command = [sys.executable, str(ROOT / f"{setting.recipe}_main.py"), *words]
            with log.open("wb") as file:
                self.pid = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True).pid
        else:
            self.pid = fork(lambda: launch(setting, words), log)

    def ended(self) -> int | None:
        """The exit code, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def signal(self, number: int, whom: list[int]) -> None:
        """Send a signal to processes that may have ended."""
        for pid in whom:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def all(self) -> list[int]:
        """All processes of the run that are there."""
        found = [self.pid]
        for pid in found:
            found += children(pid)
        return found

    def kill(self, one: int | None) -> str:
        """Stop one process or, for None, all, see what they were doing, and kill them; wait until all of the run are gone."""
        stopped: list[int] = []
        while new := [pid for pid in ([one] if one else self.all()) if pid not in stopped]:  # a process may start another meanwhile
            self.signal(signal.SIGSTOP, new)
            stopped += new
        doing, everyone = self.doing(), self.all()
        self.signal(signal.SIGKILL, stopped)
        until = time.monotonic() + LIMIT_SECONDS
        while self.ended_quietly() is None or any(alive(pid) for pid in everyone):
            if time.monotonic() > until:
                self.signal(signal.SIGKILL, everyone)
                raise AssertionError(f"processes outlived the kill of {stopped}: {everyone}")
            time.sleep(0.01)
        return doing

    def ended_quietly(self) -> int | None:
        """``ended``, also where that was asked before."""
        try:
            return self.ended()
        except ChildProcessError:
            return 0

    def doing(self) -> str:
        """What the run is doing now, from what it has said and what lies in its folder."""
        if self.output.is_dir() and (list(self.output.glob("checkpoint-*.partial")) or list(self.output.glob("*.removed"))):
            return "saving"
        said = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        steps = [line for line in said if line.startswith(("step ", "eval ", "saved ", "resumed from"))]
        if not any(line.startswith("train: ") for line in said):
            return "reading rows"
        if self.setting.recipe == "dpo" and sum(line.startswith("reference: log-probs") for line in said) < 2:
            return "caching"
        if not steps:
            return "loading"
        last = steps[-1]
        at = int(last.split("/")[0].split()[-1]) if last.startswith("step ") else 0
        if at and at % EVERY == 0:
            return "evaluating"
        return "finishing" if last.startswith("saved ") and last.endswith(f"-{STEPS}") else "training"


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].startswith(" Z")
    except OSError:
        return False


def fork(work: Callable[[], int], log: Path) -> int:
    """Run ``work`` in a process of its own group, whose output goes to a file. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        with log.open("ab", buffering=0) as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        code = work()
    finally:
        os._exit(code)


def launch(setting: Setting, words: list[str]) -> int:
    """What a forked process does: the command, or, as Paddle's launcher, the command in several processes."""
    from paddlealign.recipes.entry import main
    from paddlealign.training import reference_cache

    reference_cache.ROW_TOKENS, reference_cache.PART_ROWS = 256, 1  # a cache of many parts from few rows
    if setting.processes == 1:
        return main(setting.recipe, words)
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(setting.processes)]
    ends = [f"127.0.0.1:{holder.getsockname()[1]}" for holder in holders]
    for holder in holders:
        holder.close()
    ranks = []
    for rank, end in enumerate(ends):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"PADDLE_TRAINERS_NUM": str(len(ends)), "PADDLE_TRAINER_ID": str(rank), "PADDLE_RANK_IN_NODE": str(rank)}
            os.environ |= {"PADDLE_TRAINER_ENDPOINTS": ",".join(ends), "PADDLE_CURRENT_ENDPOINT": end, "PADDLE_MASTER": ends[0]}
            os._exit(main(setting.recipe, words))
        ranks.append(pid)
    failed, until = 0, math.inf
    while ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            ranks.remove(pid)
        # The rest is as Paddle's launcher does it. A process that waits for a killed one inside Paddle, to make its groups, hears nothing.
        if status and not failed:
            failed, until = abs(os.waitstatus_to_exitcode(status)), time.monotonic() + LAUNCHER_SECONDS
            for other in ranks:
                os.kill(other, signal.SIGTERM)
        if time.monotonic() > until:
            for other in ranks:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    return failed


def finish(running: Running) -> int:
    """Wait for the end of a run; its exit code."""
    until = time.monotonic() + LIMIT_SECONDS
    while (code := running.ended()) is None:
        if time.monotonic() > until:
            running.signal(signal.SIGKILL, running.all())
            raise AssertionError(f"no end after {LIMIT_SECONDS} s:\n{running.log.read_text(encoding='utf-8', errors='replace')}")
        time.sleep(0.02)
    return code


def aim_and_kill(running: Running, aim: str, draw: random.Random) -> str | None:
    """Wait until the run does what is aimed at, and a moment longer; kill. Returns what it was doing, None where it ended first."""
    skipped = draw.randrange(STEPS // EVERY) if aim in ("saving", "evaluating") else 0  # so many times it gets by
    before, until = "", time.monotonic() + LIMIT_SECONDS
    while aim != "any":
        if running.ended() is not None or time.monotonic() > until:
            return None
        doing = running.doing()
        if doing == aim and before != aim:
            if not skipped:
                break
            skipped -= 1
        before = doing
        time.sleep(0.0005)
    time.sleep(draw.uniform(0, AIMS[aim][1]))
    if running.ended() is not None:
        return None
    # Of several processes one is killed, and the others must end by themselves; or all, as where a machine goes down.
    workers = [pid for pid in running.all() if pid != running.pid and not children(pid)]
    one = running.setting.processes > 1 and workers and draw.random() < 0.5
    return running.kill(draw.choice(workers) if one else None)


def half_written(output: Path) -> list[str]:
    """What is wrong with the checkpoints that a resume could find."""
    from paddlealign.training.manifest import find_damage, has_manifest
    from paddlealign.training.run_folder import list_checkpoints

    found = [path for _, path in list_checkpoints(output)]
    return [f"{path.name}: {text}" for path in found for text in (find_damage(path) if has_manifest(path) else ["no manifest"])]


def outcome(output: Path) -> dict[str, Any]:
    """What must be equal, by name: lines of the run log, findings, files' names, and the bytes of what was trained."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [{name: value for name, value in line.items() if "per_second" not in name and name != "memory_gib"} for line in lines]
    run = json.loads((output / "run.json").read_text(encoding="utf-8"))
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*"))
    state = (output / f"checkpoint-{STEPS}" / "trainer_state.json").read_bytes()
    weights = {name: (output / name).read_bytes() for name in SAME}
    return {"run log": told, "findings": run["findings"], "finished": run["finished"], "files": files, "state": state, **weights}


def disturbed(setting: Setting, folder: Path, whole: dict[str, Any], kills: int, draw: random.Random) -> tuple[list[str], list[str]]:
    """One run that is killed ``kills`` times and then left alone. Returns what it was doing each time, and what came out wrong."""
    output, doings, wrong = folder / "output", [], []
    shutil.rmtree(output, ignore_errors=True)
    names = [name for name in AIMS if name != "caching" or setting.recipe == "dpo"]
    for _ in range(kills):
        running = Running(setting, output, folder / "log.txt")
        aim = draw.choices(names, [AIMS[name][0] for name in names])[0]
        doing = aim_and_kill(running, aim, draw)
        if doing is None:
            break
        doings.append(doing)
        wrong += half_written(output)
    code = finish(Running(setting, output, folder / "log.txt"))
    if code:
        return doings, [*wrong, f"ended with {code}: {(folder / 'log.txt').read_text(encoding='utf-8', errors='replace')[-2000:]}"]
    found = outcome(output)
    for name, value in whole.items():
        if found[name] != value:
            shown = f": {found[name]} instead of {value}" if name in ("files", "findings", "run log") else ""
            wrong.append(f"another {name} than undisturbed{shown}")
    return doings, wrong


def words_of(recipe: str, processes: int, folder: Path) -> list[str]:
    """The command line of the run, but for its output folder."""
    model = make_checkpoint(folder / "model")
    train, dev = (write_rows(folder / f"{split}.jsonl", recipe, split, 0, count) for split, count in (("train", 24), ("dev", 6)))
    words = [
        "--model_name_or_path",
        str(model),
        "--train_dataset_path",
        str(train),
        "--dev_dataset_path",
        str(dev),
        "--do_train",
        "--do_eval",
    ]
    words += ["--max_length", "256", "--src_length", "128", "--learning_rate", "1e-3", "--max_steps", str(STEPS), "--logging_steps", "1"]
    words += ["--per_device_train_batch_size", str(2 // processes), "--per_device_eval_batch_size", "1", "--weight_decay", "0.1"]
    words += ["--evaluation_strategy", "steps", "--eval_steps", str(EVERY), "--save_strategy", "steps", "--save_steps", str(EVERY)]
    words += ["--save_total_limit", "2", "--load_best_model_at_end", "true", "--resume_from_checkpoint", "auto", "--disable_tqdm", "true"]
    return words


def main() -> int:
    """Count kills until there are as many as asked for; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int)
    parser.add_argument("--recipe", choices=("sft", "dpo"), default="sft")
    parser.add_argument("--layout", choices=tuple(LAYOUTS), default="single")
    parser.add_argument("--real", choices=("true", "false"), default="false")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    processes, layout = LAYOUTS[asked.layout]
    os.environ |= {"PYTHONUNBUFFERED": "1", "PADDLEALIGN_LANG": "en"}  # what is said tells what is done
    if asked.layout == "tp2":
        layout = [*layout, "--per_device_train_batch_size", "2"]
    if asked.real == "false":
        from paddlealign.machine import prepare

        prepare()
        import paddlealign.recipes.dpo  # before the forks
        import paddlealign.recipes.sft  # noqa: F401
    draw, wrong, runs = random.Random(asked.seed), [], 0
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [*words_of(asked.recipe, processes, folder), *layout]
        setting = Setting(asked.recipe, processes, words, asked.real == "true")
        straight = Running(setting, folder / "output", folder / "log.txt")
        assert finish(straight) == 0, straight.log.read_text(encoding="utf-8")
        whole = outcome(folder / "output")
        while sum(counts.values()) < asked.kills:
            left = asked.kills - sum(counts.values())
            doings, found = disturbed(setting, folder, whole, min(left, KILLS_A_RUN), draw)
            runs += 1
            wrong += found
            for doing in doings:
                counts[doing] = counts.get(doing, 0) + 1
            for text in found:
                print(f"WRONG after kills while {', '.join(doings)}: {text}", file=sys.stderr, flush=True)
    shown = ", ".join(f"{count} {doing}" for doing, count in sorted(counts.items(), key=lambda item: -item[1]))
    told = "all as undisturbed" if not wrong else f"{len(wrong)} WRONG"
    print(f"| {asked.recipe} | {asked.layout} | {sum(counts.values())} | {shown} | {runs} | {told} |")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
