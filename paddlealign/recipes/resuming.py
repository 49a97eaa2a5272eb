"""Where a training run goes on: from a checkpoint, from the first step, or not at all where it is done."""

from pathlib import Path
from typing import Any

from paddlealign.arguments.model_files import read_json_object
from paddlealign.arguments.paths import RUN_FILE
from paddlealign.arguments.results import TrainArguments
from paddlealign.errors import UserError
from paddlealign.evaluation.pair_margins import drop_margins
from paddlealign.evaluation.samples import drop_samples
from paddlealign.parallel.collect import everywhere
from paddlealign.recipes.device import say
from paddlealign.recipes.run_file import refuse_other_run
from paddlealign.training.checkpoint import TrainState, load_checkpoint
from paddlealign.training.run_folder import remove_run, set_aside_later
from paddlealign.training.task import Task


def is_done(arguments: TrainArguments, run: dict[str, Any]) -> bool:
    """Whether output_dir holds this very run, trained to the end that is asked for, in a start that may go on with it.

    run.json says finished after all else but the page is written, and unfinished from the start of any other run: a run that was killed
    before its end is never taken for done. Raises UserError where the run there was another one.
    """
    settings = arguments.training
    path = Path(settings.output_dir) / RUN_FILE
    if settings.resume_from_checkpoint is None or not settings.do_train or not path.exists():
        return False
    refuse_other_run(path, run)
    old = read_json_object(path)
    trained = old.get("finished") is True and old.get("steps", 0) > 0
    return trained and old.get("total_steps", 0) >= run["total_steps"] and any(path.parent.glob("*.safetensors"))


def check_resume(arguments: TrainArguments, resume: Path | None, run: dict[str, Any]) -> None:
    """Under ``--check``: refuse a resume that a start would refuse, or say from where it would go on. run: with its total_steps."""
    if resume is not None:
        refuse_other_run(resume / RUN_FILE, run)
        say(f"a start would go on from {resume}; what follows is told of the first step")
    elif is_done(arguments, run):
        say(f"a start would do nothing: {arguments.training.output_dir} holds this run, finished, and its model")


def resume_or_start(arguments: TrainArguments, resume: Path | None, task: Task, run: dict[str, Any]) -> TrainState:
    """Load the checkpoint that was asked for, or clear the way for a new run."""
    output_dir = Path(arguments.training.output_dir)
    is_main = task.topology.is_main
    if resume is None:
        if arguments.training.resume_from_checkpoint is not None:
            if (output_dir / RUN_FILE).exists():
                refuse_other_run(output_dir / RUN_FILE, run)
            say(f"note: {output_dir} holds no checkpoint yet; this starts at the first step")
        elif arguments.training.overwrite_output_dir:
            everywhere(task.topology, True)  # by now all have read the model, which may lie in there
            if is_main:
                remove_run(output_dir)
                drop_samples(output_dir, after=-1)
                drop_margins(output_dir, after=-1)
        return TrainState()
    old_steps = refuse_other_run(resume / RUN_FILE, run)
    state = load_checkpoint(resume, task.policy, task.optimizer, task.precision, task.sharding, task.moving)
    if state.step > task.feed.total_steps:
        raise UserError(
            f"max_steps, num_train_epochs: the run would end at step {task.feed.total_steps}, but {resume} is past that. "
            "Raise them, or go on from an earlier checkpoint"
        )
    say(f"resumed from {resume}: {state.step} of {task.feed.total_steps} steps done")
    if old_steps:
        say(f"note: {old_steps}; the learning rate now follows the new length")
    aside = set_aside_later(output_dir, state.step) if is_main else []
    if aside:
        say(f"note: {', '.join(aside)} lie after it and were set aside (.abandoned)")
    return state
