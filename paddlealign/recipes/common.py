"""What the training recipes share: device, rows, policy, and the way from a prepared task to a finished run."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import paddle

from paddlealign.arguments.parsing import DpoArguments, SftArguments
from paddlealign.arguments.paths import dataset_files
from paddlealign.arguments.show import render
from paddlealign.data.encoding import Limits, encode_all
from paddlealign.data.example import Batch, Example
from paddlealign.data.order import evaluation_plan
from paddlealign.data.packing import make_batch
from paddlealign.data.records import read_records
from paddlealign.data.sources import data_hash
from paddlealign.data.template import load_template
from paddlealign.data.tokenizer import Tokenizer
from paddlealign.errors import UserError
from paddlealign.models.decoder import Decoder
from paddlealign.models.tensor_files import write_json
from paddlealign.recipes.check import describe_rows
from paddlealign.recipes.run_file import describe_run, refuse_other_run
from paddlealign.report.curves import CURVES_FILE, draw_curves
from paddlealign.training.checkpoint import (
    RUN_FILE,
    TrainState,
    find_resume,
    load_checkpoint,
    refuse_foreign_run,
    remove_run,
    save_policy,
)
from paddlealign.training.feed import Feed
from paddlealign.training.loop import Task, fit, run_evaluation
from paddlealign.training.objective import Objective
from paddlealign.training.optimizer import make_optimizer
from paddlealign.training.precision import Precision, choose_precision
from paddlealign.training.progress import Progress
from paddlealign.training.run_log import METRICS_FILE, RunLog, read_metrics

TrainArguments = SftArguments | DpoArguments


@dataclass(frozen=True)
class Rows:
    """The rows of a run in tokens. data_hash: sha256 of all files read."""

    tokenizer: Tokenizer
    train: list[Example]
    dev: list[Example]
    data_hash: str


def choose_device(wanted: str) -> str:
    """Set and return the device: "cpu" or "gpu"; "auto" takes a GPU where Paddle sees one."""
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if wanted == "gpu" and not has_gpu:
        raise UserError("device: gpu, but Paddle sees none (is paddlepaddle-gpu installed?); allowed here: cpu, auto")
    device = "gpu" if has_gpu and wanted != "cpu" else "cpu"
    paddle.set_device(device)
    return device


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


@dataclass(frozen=True)
class Start:
    """What is settled before any data is read. resume: the checkpoint to go on from."""

    device: str
    precision: Precision
    resume: Path | None


def begin(arguments: TrainArguments) -> Start:
    """Print the effective arguments and notes, settle device and precision, and refuse a folder with another run in it."""
    settings = arguments.training
    say(render(arguments))
    output_dir = Path(settings.output_dir)
    resume = find_resume(output_dir, settings.resume_from_checkpoint)
    refuse_foreign_run(output_dir, settings.resume_from_checkpoint is not None, settings.overwrite_output_dir or settings.check)
    device = choose_device(settings.device)
    precision, remark = choose_precision(settings.bf16, settings.fp16, settings.fp16_opt_level, device)
    for note in (*arguments.notes, *([remark] if remark else [])):
        say(f"note: {note}")
    return Start(device, precision, resume)


def prepare_rows(arguments: TrainArguments, kind: str, score_all_turns: bool) -> Rows:
    """Read and encode the train and dev rows. kind: "sft" or "preference"."""
    data = arguments.data
    tokenizer = Tokenizer.load(arguments.model.tokenizer_name_or_path or arguments.model.model_name_or_path)
    template = load_template(tokenizer, data.chat_template)
    limits = Limits(data.max_length, data.src_length, data.truncation)
    sets: dict[str, list[Example]] = {"train": [], "dev": []}
    files = dataset_files(data, arguments.training)
    for split, paths in files._asdict().items():
        if paths:
            records, read = read_records(paths, kind)
            if not score_all_turns:
                records = [replace(record, score_all_turns=False) for record in records]
            encoded = encode_all(records, tokenizer, template, limits, progress=sys.stderr.isatty())
            sets[split] = encoded.examples
            for line in describe_rows(split, read, encoded.report):
                say(line)
    return Rows(tokenizer, sets["train"], sets["dev"], data_hash([*files.train, *files.dev]))


def make_feed(arguments: TrainArguments, rows: Rows) -> Feed:
    """Lay down the order of the training rows."""
    data, training = arguments.data, arguments.training
    packing = "best_fit" if data.greedy_zero_padding else "next_fit" if data.zero_padding else "micro_batch"
    return Feed(
        rows.train,
        pad_id=rows.tokenizer.pad_id,
        seed=training.seed,
        max_length=data.max_length,
        micro_batch_size=training.per_device_train_batch_size,
        accumulation=training.gradient_accumulation_steps,
        packing=packing,
        epochs=training.num_train_epochs,
        max_steps=training.max_steps,
    )


def dev_batches(arguments: TrainArguments, rows: Rows) -> list[Batch]:
    """The dev rows in their order, in batches of per_device_eval_batch_size."""
    lengths = [example.length for example in rows.dev]
    plan = evaluation_plan(lengths, max_length=arguments.data.max_length, batch_size=arguments.training.per_device_eval_batch_size)
    return [make_batch(rows.dev, micro_batch, rows.tokenizer.pad_id) for micro_batch in plan]


def check_fit(rows: Rows, policy: Decoder) -> None:
    """The rows' tokens must be in the model's vocabulary, and should be within its trained length."""
    examples = [*rows.train, *rows.dev]
    arrays = [array for example in examples for array in (example.prompt_ids, *(response.token_ids for response in example.responses))]
    highest = max(int(array.max()) for array in arrays if len(array))
    if highest >= policy.config.vocab_size:
        raise UserError(
            f"tokenizer_name_or_path: {rows.tokenizer.folder} gives token {highest}, but the model has {policy.config.vocab_size} tokens; "
            "use the tokenizer that belongs to the model"
        )
    longest = max(len(example.prompt_ids) + max(len(response.token_ids) for response in example.responses) for example in examples)
    if longest > policy.config.max_positions:
        say(
            f"note: the longest row has {longest} tokens, the model was made for {policy.config.max_positions}; consider a lower max_length"
        )


def make_task(arguments: TrainArguments, start: Start, rows: Rows, policy: Decoder, objective: Objective, dev_objective: Objective) -> Task:
    """Put together what the loop needs."""
    check_fit(rows, policy)
    settings = arguments.training
    optimizer = make_optimizer(policy, settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon, settings.weight_decay)
    return Task(
        policy=policy,
        optimizer=optimizer,
        precision=start.precision,
        objective=objective,
        feed=make_feed(arguments, rows),
        dev_objective=dev_objective,
        dev_batches=dev_batches(arguments, rows),
        source_dir=Path(arguments.model.model_name_or_path),
    )


def train(arguments: TrainArguments, start: Start, task: Task, data_sha256: str) -> None:
    """Resume or start, fit, and leave the final model, the run log and the curves in output_dir."""
    settings = arguments.training
    output_dir = Path(settings.output_dir)
    run = describe_run(arguments, data_sha256, start.device)
    state = TrainState()
    if start.resume:
        refuse_other_run(start.resume, run)
        state = load_checkpoint(start.resume, task.policy, task.optimizer, task.precision)
        say(f"resumed from {start.resume}: {state.step} of {task.feed.total_steps} steps done")
    elif settings.overwrite_output_dir:
        remove_run(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / RUN_FILE, {**run, "finished": False})
    began = time.perf_counter()
    log = RunLog(output_dir, state.step, settings.report_to)
    progress = Progress(task.feed.total_steps, state.step, settings.disable_tqdm)
    try:
        if settings.do_train:
            state = fit(task, settings, state, log, progress)
        if settings.do_eval and settings.evaluation_strategy == "no":
            run_evaluation(task, state, log, progress)
    finally:
        progress.close()
        log.close()
    seconds = time.perf_counter() - began
    if settings.do_train:
        save_policy(output_dir, task.policy, task.source_dir)
        draw_curves(read_metrics(output_dir), output_dir / CURVES_FILE, f"{arguments.command}: {output_dir.name}")
    write_json(output_dir / RUN_FILE, {**run, "finished": True, "steps": state.step, "seconds": round(seconds, 1)})
    left = f"model, {METRICS_FILE} and {CURVES_FILE}" if settings.do_train else METRICS_FILE
    say(f"done in {seconds:.0f} s: {left} are in {output_dir}")
