"""What the commands do alike: read the arguments, run the recipe, and end politely."""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, cast

from paddlealign.arguments.fields import SECTIONS
from paddlealign.arguments.hub import fetch_checkpoints
from paddlealign.arguments.parsing import parse
from paddlealign.arguments.paths import ERROR_FILE, check_model, check_paths
from paddlealign.arguments.plan import Planned, parse_plan
from paddlealign.arguments.results import Arguments, Command, TrainArguments
from paddlealign.arguments.show import arguments_dict
from paddlealign.errors import Stopped, UserError
from paddlealign.machine import prepare
from paddlealign.messages.language import check_language, translated
from paddlealign.parallel.faults import STOPPED, Line, join
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.run_file import argument_values
from paddlealign.recipes.screen import Screen
from paddlealign.saying import is_said, speaking, tells_all
from paddlealign.training.folder_lock import FolderLock
from paddlealign.versions import check_versions


def main_of_task(script: str, tasks: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names, ``evaluate.py TASK ...``; the exit code is ``main``'s. tasks: word -> command."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in tasks:
        return main(tasks[words[0]], words[1:])
    usage = f"{script} {{{','.join(tasks)}}} [ARGS.json] [--key value ...]; {script} TASK --help lists a task's keys"
    if words and words[0] in ("-h", "--help"):
        print(translated(f"usage: {usage}"))
        return 0
    told = f"error: {script} needs a task as its first word{f', not {words[0]}' if words else ''}: {usage}."
    print(translated(told, sys.stderr), file=sys.stderr)
    return 1


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code.

    0, 1 after a user's error, 130 after Ctrl-C, 75 after SIGTERM where save_on_stop heeds it, 141 where nobody reads on (``| head``).
    """
    return while_read(lambda: _run(command, sys.argv[1:] if argv is None else argv))


def while_read(run: Callable[[], int]) -> int:
    """The exit code of ``run``, or 141 where nobody reads its output on."""
    try:
        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(command: Command, argv: Sequence[str]) -> int:
    """Run a command; errors that a user can mend become one message. Of several processes the first that fails ends all, with its error."""
    line: Line | None = None
    try:
        line = join(os.environ)
        with redirect_stdout(_output(line)):
            _work(command, argv, line)
        _finish(line)
        return 0
    except Stopped as stopped:
        if line:
            line.stop(stopped.text, stopped.code)
        print(translated(stopped.text, sys.stderr), file=sys.stderr)
        return stopped.code
    except SystemExit:  # after --help
        _finish(line)
        raise
    except KeyboardInterrupt:
        return _stopped(command, line)
    except UserError as error:
        if line:
            line.fail(str(error))
        print(translated(f"error: {error}", sys.stderr), file=sys.stderr)
        return 1
    except Exception as error:
        # Paddle wraps an interrupt that comes in the middle of its own work.
        wraps = "KeyboardInterrupt" in str(error) or isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
        if isinstance(error, OSError | ImportError | SystemError) and wraps:
            return _stopped(command, line)
        if line:
            line.fail(traceback.format_exc())
        raise


def _work(command: Command, argv: Sequence[str], line: Line | None) -> None:
    """The recipe is imported after the arguments are known to be good, so that ``--help`` and mistakes do not wait for Paddle."""
    check_language(os.environ)
    warning = check_versions()
    arguments = parse_plan(argv) if command == "plan" else parse(command, argv)
    if line and not isinstance(arguments, Planned):
        values = argument_values(arguments_dict(arguments))
        line.tell({"command": arguments.command, **{key: str(value) for key, value in values.items()}})
    with speaking((arguments.training if isinstance(arguments, Planned) else arguments).screen.log_level):
        _start(command, arguments, line, warning)


def _start(command: Command, arguments: Arguments | Planned, line: Line | None, warning: str | None) -> None:
    if isinstance(arguments, TrainArguments):
        settings, request = arguments.training, line.request if line else StopRequest(watched=False)
        trains = settings.do_train and not settings.check and settings.replay_step is None
        with request.armed(settings.save_on_stop and trains, settings.preempt_save_seconds):
            _train(arguments, request, line, warning)
        return
    _recipe(command, line, warning).run(_with_paths(arguments))


def _train(arguments: TrainArguments, request: StopRequest, line: Line | None, warning: str | None) -> None:
    """Train, with the output folder for this run alone."""
    wanted = not arguments.training.check and arguments.training.replay_step is None
    folder = Path(arguments.training.output_dir)
    if line:
        line.folder = folder if wanted else None
    fetched = _with_paths(arguments)
    lock = FolderLock(folder, wanted and (line is None or line.rank == 0))
    try:
        remark = lock.take()
        if remark:
            _say(f"note: {remark}")
        recipe = _recipe(arguments.command, line, warning, request)
        recipe.run(fetched, request, lock)
        if wanted and line is None:
            (folder / ERROR_FILE).unlink(missing_ok=True)  # of an earlier run in several processes, which ``Line.finish`` does for them
    finally:
        lock.release()


def _recipe(command: Command, line: Line | None, warning: str | None, request: StopRequest | None = None) -> Any:
    """The command's module; its import brings Paddle. warning: of the versions. request: of a training run."""
    if warning and is_said(f"warning: {warning}"):
        print(translated(f"warning: {warning}", sys.stderr), file=sys.stderr)
    _say(prepare(quiet=not tells_all()))
    # Paddle puts a handler of its own in the place of ours, so SIGTERM waits until ours is back.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        recipe = importlib.import_module(f"paddlealign.recipes.{command}")
        if line:
            line.heed_signals()
        if request:
            request.arm()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return recipe


def _say(text: str) -> None:
    """``device.say``, which brings Paddle."""
    if is_said(text):
        print(translated(text), flush=True)


def _with_paths(arguments: Arguments | Planned) -> Arguments | Planned:
    """The arguments after what they name was looked at: mistakes here first, since a hub may take minutes to answer."""
    if isinstance(arguments, Planned):
        check_model(arguments.training)
        training = fetch_checkpoints(arguments.training, config_only=True)
        check_model(training)
        return replace(arguments, training=training, notes=(*arguments.notes, *training.notes[len(arguments.training.notes) :]))
    check_paths(arguments)
    fetched = fetch_checkpoints(arguments)
    if fetched is not arguments:
        check_paths(fetched)
    return fetched


def _output(line: Line | None) -> TextIO:
    """Of several processes only the first speaks."""
    return cast(TextIO, Screen(sys.stdout)) if line is None or line.rank == 0 else open(os.devnull, "w", encoding="utf-8")


def _finish(line: Line | None) -> None:
    if line:
        line.finish()


def _stopped(command: Command, line: Line | None) -> int:
    if line:
        line.stop()
    other = (
        "stopped by the keyboard; run the same command to go on"
        if command in ("predict", "evaluate_compare")
        else "stopped by the keyboard"
    )
    print(f"\n{translated(STOPPED if 'training' in SECTIONS[command] else other, sys.stderr)}", file=sys.stderr)
    return 130
