"""What the training recipes share: what is settled at the start, and the way from a prepared task to a finished run."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paddlealign.arguments.paths import CURVES_FILE, DATA_FILE, INCIDENTS_FILE, REFUSED_FILE, RUN_FILE
from paddlealign.arguments.results import TrainArguments
from paddlealign.arguments.show import render, render_given
from paddlealign.arguments.viewer_names import viewers_of
from paddlealign.errors import UserError
from paddlealign.evaluation.pair_margins import drop_margins
from paddlealign.evaluation.samples import drop_samples
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.parameters import LoraSettings
from paddlealign.models.score_head import with_score_head
from paddlealign.models.tensor_files import json_bytes, write_bytes, write_json
from paddlealign.models.tricks import chosen_tricks
from paddlealign.models.weights import plan_loading
from paddlealign.parallel.pipeline import Chain
from paddlealign.parallel.sharding import Sharding
from paddlealign.parallel.stopping import StopRequest
from paddlealign.parallel.topology import Topology
from paddlealign.recipes.adapter import adapter_hash, start_adapter, trained_adapter
from paddlealign.recipes.data_file import describe_data
from paddlealign.recipes.device import choose_device, say
from paddlealign.recipes.estimate import HeldAgainst
from paddlealign.recipes.heads import need_language_head
from paddlealign.recipes.output_folder import check_shared, settle_folder
from paddlealign.recipes.processes import agree_on, check_cut, start_processes, stop_code
from paddlealign.recipes.reading import keep_refusals
from paddlealign.recipes.replay import refuse_layout, replay_run, replay_start
from paddlealign.recipes.resuming import is_done, resume_or_start
from paddlealign.recipes.rows import Rows, check_vocabulary, dev_batches, make_feed, note_length, vocabulary_size
from paddlealign.recipes.run_file import argument_values, describe_run
from paddlealign.recipes.run_page import RunPage
from paddlealign.recipes.run_words import EndOfRun, start_log, tell_end, tell_start
from paddlealign.recipes.side_files import side_files
from paddlealign.recipes.splits import forget_others
from paddlealign.recipes.start_block import start_entries
from paddlealign.recipes.told_table import told_table
from paddlealign.report.curves import draw_curves
from paddlealign.report.remedies import Run
from paddlealign.report.watch import Watch
from paddlealign.saying import tells_all
from paddlealign.training.checkpoint import save_policy
from paddlealign.training.folder_lock import FolderLock
from paddlealign.training.loop import fit, run_evaluation, take_samples
from paddlealign.training.objective import Objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.precision import Precision, choose_precision
from paddlealign.training.progress import Progress
from paddlealign.training.reference import weights_hash
from paddlealign.training.run_folder import find_resume, list_checkpoints, refuse_foreign_run
from paddlealign.training.run_log import read_metrics
from paddlealign.training.share import load_share
from paddlealign.training.task import Task
from paddlealign.training.viewers import missing_viewer


@dataclass(frozen=True)
class Start:
    """What is settled before any data is read.

    chain: the stages of the pipeline. resume: the checkpoint to go on from. request: what this process is asked by signals. lock: on
    output_dir. lora: the adapter that is trained; None where all weights are.
    """

    topology: Topology
    chain: Chain
    device: str
    precision: Precision
    resume: Path | None
    request: StopRequest
    lock: FolderLock
    lora: LoraSettings | None


def begin(arguments: TrainArguments, request: StopRequest, lock: FolderLock) -> Start:
    """Print notes (and all arguments, for debugging), settle device, precision and where to go on, and put output_dir in order."""
    settings = arguments.training
    if arguments.told:
        say(told_table(arguments.told))
    if tells_all() or settings.replay_step is not None:
        say(render(arguments) if tells_all() else render_given(arguments))
    missing = missing_viewer(viewers_of(settings.report_to))
    if missing:
        raise UserError(missing)
    output_dir = Path(settings.output_dir)
    replayed = settings.replay_step
    resume = find_resume(output_dir, settings.resume_from_checkpoint) if replayed is None else replay_start(output_dir, replayed)
    resuming = settings.resume_from_checkpoint is not None or replayed is not None
    if settings.check:
        try:
            refuse_foreign_run(output_dir, resuming, resume, settings.overwrite_output_dir)
        except UserError as error:
            say(f"note: a start would be refused. {error}")
    else:
        refuse_foreign_run(output_dir, resuming, resume, settings.overwrite_output_dir)
    stored = config = read_config(arguments.model.model_name_or_path)  # a model that cannot be read is told before the rows are
    if arguments.command == "reward":
        config = with_score_head(config)
    else:
        need_language_head(config, "model_name_or_path")
    lora = trained_adapter(arguments, config)
    check_cut(config, arguments.parallel, settings.sharding_parallel_degree, lora)
    plan_loading(config, arguments.model.model_name_or_path, arguments.model.allow_pickle, stored)
    device = choose_device(settings.device)
    precision, remark = choose_precision(settings.bf16, settings.fp16, settings.fp16_opt_level, device)
    for note in (*arguments.notes, *([remark] if remark else [])):
        say(f"note: {note}")
    topology, chain = start_processes(arguments.parallel, settings.sharding_parallel_degree)
    if replayed is not None:
        refuse_layout(topology, settings.sharding)
    if not settings.check:
        check_shared(topology, output_dir)
    wish = settings.resume_from_checkpoint if replayed is None else str(resume) if resume else None
    resume, remarks = settle_folder(topology, output_dir, wish, clean=not settings.check and replayed is None)
    for remark in remarks:
        say(f"note: {remark}")
    return Start(topology, chain, device, precision, resume, request, lock, lora)


def agree_on_run(arguments: TrainArguments, start: Start, hashes: dict[str, str]) -> None:
    """``agree_on`` for a training run. hashes: see ``describe_run``."""
    agree_on(arguments, start.topology, {**hashes, "checkpoint to go on from": str(start.resume)})


def adapter_hashes(arguments: TrainArguments) -> dict[str, str]:
    """Hashes of what an adapter is put beside, which no checkpoint holds, and of the adapter that it starts from."""
    if not arguments.adapter.lora:
        return {}
    base = weights_hash(Path(arguments.model.model_name_or_path), arguments.model.allow_pickle)
    return {"base weights": base} | ({"start adapter": adapter_hash(arguments.adapter.lora_path)} if arguments.adapter.lora_path else {})


def load_policy(arguments: TrainArguments, start: Start, rows: Rows, config: DecoderConfig | None = None) -> tuple[Decoder, Sharding]:
    """Read the model that training starts from, with a larger vocabulary where resize_vocab asks for one. config: see ``load_model``."""
    folder = arguments.model.model_name_or_path
    stored = read_config(folder)
    size = vocabulary_size(arguments, rows, stored)
    if size > stored.vocab_size:
        say(f"vocabulary: {stored.vocab_size} tokens grow to the tokenizer's {size}; each new row is the mean of the old ones")
    policy, sharding = read_share(arguments, start, folder, size, config, start.lora)
    start_adapter(arguments, policy)
    return policy, sharding


def read_share(
    arguments: TrainArguments,
    start: Start,
    folder: str | Path,
    vocab_size: int,
    config: DecoderConfig | None = None,
    lora: LoraSettings | None = None,
    dtype: str | None = None,
) -> tuple[Decoder, Sharding]:
    """See ``share.load_share``. dtype: of the weights; None: that in which the trained ones are held."""
    settings = arguments.training
    stage = int(settings.sharding.removeprefix("stage") or 0)
    allow_pickle, held = arguments.model.allow_pickle, dtype or start.precision.weights_dtype
    tricks = chosen_tricks(settings.plain_path)
    return load_share(folder, held, vocab_size, allow_pickle, start.topology, stage, settings.sequence_parallel, config, lora, tricks)


def make_task(
    arguments: TrainArguments,
    start: Start,
    rows: Rows,
    policy: Decoder,
    sharding: Sharding,
    objective: Objective,
    dev_objective: Objective,
) -> Task:
    """Put together what the loop needs."""
    check_vocabulary(rows, policy.config.vocab_size, "model_name_or_path")
    note_length(rows, policy.config)
    settings = arguments.training
    return Task(
        policy=policy,
        optimizer=make_optimizer(
            sharding.own(policy),
            settings.adam_beta1,
            settings.adam_beta2,
            settings.adam_epsilon,
            settings.weight_decay,
            arguments.adapter.lora_plus_scale,
        ),
        precision=start.precision,
        objective=objective,
        feed=make_feed(arguments, rows, start.topology.data),
        dev_objective=dev_objective,
        dev_batches=lambda: dev_batches(arguments, rows, start.topology.data),
        side_files=side_files(arguments, rows),
        topology=start.topology,
        chain=start.chain,
        sharding=sharding,
        source_of=rows.train_source,
    )


def run_of(arguments: TrainArguments, start: Start, task: Task, hashes: dict[str, str]) -> dict[str, Any]:
    """What run.json has of a run before its end."""
    return {**describe_run(arguments, hashes, start.device), "total_steps": task.feed.total_steps}


def train(arguments: TrainArguments, start: Start, task: Task, hashes: dict[str, str], rows: Rows, held: HeldAgainst | None = None) -> None:
    """Resume or start, fit, and leave the final model, the run log and the curves in output_dir.

    hashes: see ``describe_run``. rows: those of the run; what was skipped of them is kept there too. held: what the policy is held against.
    """
    settings = arguments.training
    output_dir = Path(settings.output_dir)
    is_main = start.topology.is_main
    run = run_of(arguments, start, task, hashes)
    if settings.replay_step is not None:
        replay_run(arguments, task, start.resume, run)
        return
    if start.resume is None and is_done(arguments, run):
        say(f"{output_dir} holds this run, finished, and its model; there is nothing to do (--overwrite_output_dir true starts it anew)")
        if is_main:
            RunPage(output_dir, run, say).finish()  # a kill may have come between run.json and the page
        return
    state = resume_or_start(arguments, start.resume, task, run)
    task = replace(task, run_file=json_bytes({**run, "finished": False}), lock=start.lock)
    if is_main and task.run_file is not None:
        drop_samples(output_dir, after=state.step)
        drop_margins(output_dir, after=state.step)
        write_bytes(output_dir / RUN_FILE, task.run_file)
        write_json(output_dir / DATA_FILE, describe_data(arguments, rows))
        keep_refusals(output_dir / REFUSED_FILE, rows.refused)
        if settings.do_train:
            forget_others(arguments, rows.folders)
    if settings.evaluation_strategy == "steps" and (settings.eval_steps or settings.logging_steps) > task.feed.total_steps:
        say(f"note: nothing will be evaluated: eval_steps is above the run's {task.feed.total_steps} steps")
    tell_start(arguments, start_entries(arguments, task, rows, start.lora, held, state.step))
    began, tokens_before = time.perf_counter(), state.tokens
    progress = Progress(task.feed.total_steps, state.step, settings.disable_tqdm)
    watch = Watch(Run(arguments.command, task.feed.total_steps, argument_values(run)))
    page = RunPage(output_dir, {**run, "finished": False}, progress.say)
    task = replace(task, keep_margins=page.keep_margins if is_main else None)
    log = start_log(output_dir if is_main else None, state, task.feed.total_steps, arguments, watch, progress, page)
    with start.request.heed(settings.save_on_stop and settings.do_train):  # to the end: the final model is written, too
        try:
            if state.step == 0 or not settings.do_train:
                take_samples(task, state, log, progress)
            if settings.do_train:
                asked = (lambda: stop_code(start.topology, start.request)) if settings.save_on_stop else (lambda: 0)
                state = fit(task, settings, state, log, progress, asked)
            if settings.do_eval and settings.evaluation_strategy == "no":
                run_evaluation(task, state, log, progress)
            seconds = time.perf_counter() - began
            if settings.do_train:
                log.sync()
                save_final(output_dir, task)
        finally:
            progress.close()
            log.close()  # behind the model: a viewer may wait for its service
    if not is_main:
        return
    metrics = read_metrics(output_dir)
    if settings.do_train:
        try:
            draw_curves(metrics, output_dir / CURVES_FILE, f"{arguments.command.upper()}, {output_dir}")
        except OSError as error:
            say(f"note: {output_dir / CURVES_FILE} cannot be written: {error.strerror or error}; the model is saved")
    end = {"finished": True, "steps": state.step, "skipped_steps": state.skipped, "seconds": round(seconds, 1)}
    write_json(output_dir / RUN_FILE, {**run, **end, "findings": [asdict(it) for it in watch.found]})
    page.finish()
    if state.skipped:
        say(f"{state.skipped:,} of {state.step:,} steps were left out: numbers that are not finite (on_bad_numbers skip, {INCIDENTS_FILE})")
    dtypes = (task.policy.config.dtype, start.precision.weights_dtype)
    tell_end(arguments, EndOfRun(state, seconds, state.tokens - tokens_before, metrics, dtypes, rows.told), watch)


def save_final(output_dir: Path, task: Task) -> None:
    """Leave the model that training ends with. Raises UserError with how to get it where it cannot be written."""
    remark = task.lock.take() if task.lock else None
    if remark:
        say(f"note: {remark}")
    try:
        save_policy(output_dir, task.policy, task.side_files, task.topology, task.sharding)
    except UserError as error:
        kept = list_checkpoints(output_dir)
        way = f"go on from {kept[-1][1].name} with --resume_from_checkpoint true" if kept else "start again: there is no checkpoint"
        raise UserError(
            f"all steps are done, but the model was not saved: {error} See to room and rights in output_dir, then {way}"
        ) from error
