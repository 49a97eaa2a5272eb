"""The tour: a newcomer's way through check, SFT, DPO, the pages and a chat. It starts the commands that a user would type."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from paddlealign.arguments.paths import METRICS_FILE
from paddlealign.errors import UserError
from paddlealign.messages.language import check_language, translated
from paddlealign.models.tensor_files import write_bytes
from paddlealign.parallel.stopping import end_with_parent
from paddlealign.recipes.entry import while_read
from paddlealign.recipes.tour_steps import DPO_STEPS, QUESTIONS, SFT_STEPS, Step, after, steps_of
from paddlealign.report.run_files import read_lines

STATE = "tour.json"
SHOWN = 3  # answers side by side
STOPPED = (130, -signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Take the tour. The exit code: 0, 1 after a step that failed or a user's error, 130 after Ctrl-C or SIGTERM, 141 without a reader."""
    words = _parser().parse_args(argv)
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not words.yes
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    return while_read(lambda: _run(words.output_dir, words.steps, asks))


def _run(folder: Path, steps: int | None, asks: bool) -> int:
    try:
        check_language(os.environ)
        return _walk(folder, steps_of(folder.as_posix(), steps), asks)
    except UserError as error:
        print(translated(f"error: {error}", sys.stderr), file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(translated(f"error: {error.filename}: {error.strerror}.", sys.stderr), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped()


def _walk(folder: Path, steps: list[Step], asks: bool) -> int:
    """Take each step that is not done, in order; the exit code. asks: whether somebody is asked before each step, and chats."""
    done = _read_state(folder)
    began = time.monotonic()
    _say(f"A tour of PaddleAlign in {len(steps)} steps: about {_minutes(sum(step.seconds for step in steps))} on two cores that are free.")
    _say(f"Everything that it makes lies in {folder}; nothing else is changed. Ctrl-C ends it, and the same command goes on.")
    for number, step in enumerate(steps, 1):
        _say("")
        _say(f"== Step {number} of {len(steps)}: {step.title} (about {_minutes(step.seconds)})")
        for line in step.about:
            _say(line)
        _say("")
        print(f"    {step.line}", flush=True)
        _say("")
        if done.get(step.name) == step.line and all(Path(path).exists() for path in step.makes):
            _say(f"Done before, reused: {', '.join(step.makes) or 'it leaves no file'}.")
        else:
            if asks:
                _wait("Enter runs it, Ctrl-C ends the tour: ")
            for name in after(steps, step.name):
                done.pop(name, None)
            _write_state(folder, done)
            started = time.monotonic()
            code = _start(step, asks)
            if code in STOPPED:
                return _stopped()
            if code:
                _say(f"The tour ends here: step {number} ended with exit code {code}, and its own message stands above.")
                _say("Once that is mended, the same command goes on with this step; the steps before it are kept.")
                return 1
            _say(f"(that took {_minutes(time.monotonic() - started)})")
            if not step.talks:
                done[step.name] = step.line
            _write_state(folder, done)
        _show(step)
    _tell_end(folder, time.monotonic() - began)
    return 0


def _start(step: Step, asks: bool) -> int:
    """Run a step's command to its end; its exit code. asks: a chat is left to the user; else some questions are asked."""
    for path in map(Path, step.makes):  # of a start that was broken off, or of other arguments
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    by_itself = step.talks and not asks
    # Where nobody is asked, the command has a session of its own, so that a SIGTERM to all, as of ``timeout``, does not make Paddle print
    # where it was. It ends with the tour, however that ends.
    process = subprocess.Popen(
        [sys.executable, *step.command],
        stdin=subprocess.PIPE if by_itself else None,
        start_new_session=not asks,
        preexec_fn=partial(end_with_parent, os.getpid()),
    )
    # Ctrl-C is the command's own, and reaches one in the tour's session by itself: training ends politely, and a chat stops an answer.
    before = signal.signal(signal.SIGINT, lambda *_: None if asks else process.send_signal(signal.SIGINT))
    try:
        process.communicate("".join(f"{line}\n" for line in (*QUESTIONS, "/exit")).encode() if by_itself else None)
        return process.returncode
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        signal.signal(signal.SIGINT, before)


def _show(step: Step) -> None:
    """The figures and the answers to look at, each with what it means."""
    if step.figures:
        rows = list(read_lines(Path(step.run) / METRICS_FILE))
        _say(f"To look at, from {step.run}/{METRICS_FILE}:")
        for figure in step.figures:
            values = [row[figure.metric] for row in rows if row.get(figure.metric) is not None]
            if len(values) > 1:
                _say(f"    {figure.metric}: {values[0]:.3f} at first, {values[-1]:.3f} at the end")
            elif values:
                _say(f"    {figure.metric}: {values[0]:.3f}")
            else:
                continue
            _say(f"        {figure.meaning}")
    answers = [(name, list(islice(read_lines(Path(path)), SHOWN))) for name, path in step.answers]
    if not answers:
        return
    _say(f"Some of the answers ({step.answers[-1][1]} has all):")
    for number, row in enumerate(answers[-1][1]):
        print(f"    {row['src']}", flush=True)
        for name, of_model in answers:
            print(f"        {translated(name)}: {of_model[number]['output'].strip()}", flush=True)


def _tell_end(folder: Path, seconds: float) -> None:
    files = (
        (f"{folder}/dpo/report.html", "the page of a run: curves, margins, samples before and after; open it in a browser"),
        (f"{folder}/both.html", "the two DPO runs laid over each other"),
        (f"{folder}/judged.jsonl", "who won on each prompt"),
        (f"{folder}/dpo/run.json", "every argument with its source, and hashes of all that went in"),
        (f"{folder}/dpo/{METRICS_FILE}", "the figures behind the curves"),
        (f"{folder}/dpo", "the model itself, in HuggingFace's layout"),
    )
    pages = (
        ("docs/read_the_curves.md", "what the curves tell"),
        ("docs/own_data.md", "your own rows"),
        ("docs/own_model.md", "your own model"),
        ("docs/choose_objective.md", "other losses than DPO's"),
        ("docs/troubleshooting.md", "a message that you do not understand"),
    )
    _say("")
    _say(f"That was the tour, {_minutes(seconds)}. Files to look at:")
    for path, meaning in files:
        _say(f"    {path}: {meaning}")
    _say("To read next:")
    for path, meaning in pages:
        _say(f"    {path}: {meaning}")


def _read_state(folder: Path) -> dict[str, str]:
    """Which steps are done, and by which command. Raises UserError where this is no place for a tour."""
    for needed in ("sft_main.py", "data/base_model", "scripts/llama/quickstart_sft.json"):
        if not Path(needed).exists():
            raise UserError(f"{needed} is not in {Path.cwd()}. The tour runs in PaddleAlign's own folder: cd there first.")
    path = folder / STATE
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--output_dir: {folder} exists already and holds no tour. Name another folder.")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError("no object")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Remove {folder} to take the tour anew, or name another --output_dir.") from error
    return found


def _write_state(folder: Path, done: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / STATE, (json.dumps(done, indent=2) + "\n").encode())


def _as_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def _stopped() -> int:
    print(translated("\nThe tour was stopped; the same command goes on with this step.", sys.stderr), file=sys.stderr)
    return 130


def _wait(prompt: str) -> None:
    try:
        input(translated(prompt))
    except EOFError:
        _say("")


def _minutes(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def _say(text: str) -> None:
    print(translated(text), flush=True)


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word}: a whole number from 1 is needed")
    return int(word)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m paddlealign.tour", description="A tour in ten minutes, on the bundled model.")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("output/tour"), help="where everything that it makes lies (default %(default)s)"
    )
    parser.add_argument(
        "--steps", type=_count, help=f"training steps of each run (default {SFT_STEPS} of SFT, {DPO_STEPS} of each DPO run)"
    )
    parser.add_argument("--yes", action="store_true", help="go on by itself, and ask the questions of the chat by itself")
    return parser
