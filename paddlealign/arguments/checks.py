"""What values may be together, and what follows from them. Pure functions of the filled dataclasses."""

from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Any, NamedTuple

from paddlealign.arguments.comparing import comparison_problems, unread_comparison_keys
from paddlealign.arguments.comparison_fields import ComparisonArguments
from paddlealign.arguments.decoding import decoding_problems, unread_decoding_keys
from paddlealign.arguments.export_fields import target_problems
from paddlealign.arguments.fields import DataArguments, GenerationArguments, ParallelArguments, TrainingArguments
from paddlealign.arguments.judge_fields import JudgeArguments, judge_problems, unread_judge_keys
from paddlealign.arguments.lora_fields import LoraArguments, resolve_lora, unread_lora_keys
from paddlealign.arguments.objective_checks import resolve_objective, unread_objective_keys
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.arguments.plan_fields import plan_problems
from paddlealign.arguments.row_fields import (
    ReadRowArguments,
    column_problems,
    row_problems,
    rows_kind,
    unread_row_keys,
)
from paddlealign.arguments.sample_fields import SampleArguments, sample_problems, unread_sample_keys
from paddlealign.arguments.scoring_fields import length_problems


class Resolved(NamedTuple):
    """What a check found: problems stop the run, changes are values that follow from others, notes are told to the user."""

    problems: list[str]
    changes: dict[str, Any]
    notes: list[str]


def resolve_data(data: DataArguments, training: TrainingArguments, sources: Mapping[str, str]) -> Resolved:
    """Lengths, packing, and whether there are rows for what is asked."""
    found = Resolved([], {}, [])
    if data.src_length >= data.max_length:
        if sources["src_length"] == "default" and data.max_length > 1:
            found.changes["src_length"] = data.max_length // 2
            found.notes.append(f"src_length is not set: {data.max_length // 2}, half of max_length {data.max_length}.")
        else:
            found.problems.append(
                f"src_length {data.src_length} (the prompt) must be below max_length {data.max_length} (the prompt and one response)."
            )
    if data.greedy_zero_padding and not data.zero_padding:
        if sources["zero_padding"] != "default":
            found.problems.append("zero_padding false and greedy_zero_padding true contradict each other: both pack rows. Set them alike.")
        found.changes["zero_padding"] = True
    found.problems.extend(_batch_problems(data, training))
    evaluates = training.do_eval or training.evaluation_strategy != "no"
    if training.do_train and not data.train_dataset_path and not data.dataset_name_or_path:
        found.problems.append("do_train needs rows: set dataset_name_or_path (a folder or file) or train_dataset_path (files).")
    if evaluates and not data.dev_dataset_path and not data.dataset_name_or_path:
        key, off = ("do_eval", "false") if training.evaluation_strategy == "no" else ("evaluation_strategy", "no")
        asked = key if key == "do_eval" else f"{key} {training.evaluation_strategy}"
        found.problems.append(
            f"{asked} needs dev rows: set dev_dataset_path (files), or dataset_name_or_path to a folder with dev rows, or set {key} {off}."
        )
    return found


def _batch_problems(data: DataArguments, training: TrainingArguments) -> list[str]:
    """A micro-batch is counted in rows, in packed rows or in tokens; and what is packed is not sorted by length."""
    packs = "greedy_zero_padding" if data.greedy_zero_padding else "zero_padding" if data.zero_padding else ""
    problems = []
    if training.tokens_per_batch is not None:
        # The effective values of a run, used again, name the default.
        rows = training.per_device_train_batch_size != TrainingArguments.per_device_train_batch_size
        others = [key for key, is_set in (("per_device_train_batch_size", rows), (packs, bool(packs))) if is_set]
        problems += [
            f"tokens_per_batch {training.tokens_per_batch} and {key} both say what a micro-batch holds. Keep one: unset the other (null)."
            for key in others
        ]
    if training.group_by_length and (packs or training.tokens_per_batch is not None):
        problems.append(
            f"group_by_length puts rows of like length together, {packs or 'tokens_per_batch'} long ones with short ones. Keep one of them."
        )
    return problems


def resolve_training(command: str, training: TrainingArguments, sources: Mapping[str, str]) -> Resolved:
    """Combinations of training keys, with PaddleNLP's rules for what follows from what."""
    found = Resolved([], {}, [])
    problems, changes, notes = found
    if training.bf16 and training.fp16:
        problems.append("bf16 and fp16 are both true. Keep one of them.")
    if not training.do_train and not training.do_eval and training.evaluation_strategy == "no":
        problems.append("nothing to do: set do_train to true to train, or do_eval to true to evaluate.")
    if training.resume_from_checkpoint and training.overwrite_output_dir:
        problems.append("resume_from_checkpoint goes on from a run that overwrite_output_dir would remove. Keep one of them.")
    if training.replay_step is not None:
        taken = [key for key in ("resume_from_checkpoint", "overwrite_output_dir", "check") if getattr(training, key)]
        problems += [f"replay_step computes one step of a run that is there, and {key} asks for another thing. Keep one." for key in taken]
        if not training.do_train:
            problems.append("replay_step computes a training step again; set do_train to true, as in the run.")
    warms_up = training.warmup_steps > 0 or training.warmup_ratio > 0
    if training.lr_scheduler_type == "constant" and warms_up:
        key = "warmup_steps" if training.warmup_steps > 0 else "warmup_ratio"
        problems.append(f"lr_scheduler_type constant has no warm-up, but {key} asks for one. Set it to constant_with_warmup.")
    if training.min_learning_rate > training.learning_rate:
        problems.append(f"min_learning_rate {training.min_learning_rate:g} is above learning_rate {training.learning_rate:g}, its start.")
    if command == "sft" and training.metric_for_best_model == "margin":
        problems.append("metric_for_best_model margin is DPO's and the reward model's; SFT has loss and accuracy.")
    if training.early_stopping_patience is not None and training.evaluation_strategy == "no":
        problems.append("early_stopping_patience counts evaluations, but evaluation_strategy is no. Set it to steps or epoch.")

    if training.evaluation_strategy != "no" and not training.do_eval:
        changes["do_eval"] = True
        if sources["do_eval"] != "default":
            notes.append(f"do_eval false is overruled by evaluation_strategy {training.evaluation_strategy}, as in PaddleNLP.")
    elif training.do_eval and training.do_train and training.evaluation_strategy == "no":
        notes.append("do_eval with evaluation_strategy no: evaluated once, after training.")
    if training.evaluation_strategy == "steps" and training.eval_steps is None:
        changes["eval_steps"] = training.logging_steps
    if training.preempt_save_seconds is not None and training.do_train and not training.save_on_stop:
        if sources["save_on_stop"] != "default":
            problems.append("preempt_save_seconds asks for a checkpoint at SIGTERM, save_on_stop false for none. Leave one of them out.")
        changes["save_on_stop"] = True
    if training.greater_is_better is None:
        changes["greater_is_better"] = training.metric_for_best_model != "loss"
    if training.load_best_model_at_end:
        _resolve_best(training, changes.get("eval_steps", training.eval_steps), found)
    return found


def _plain_problems(training: TrainingArguments, parallel: ParallelArguments) -> list[str]:
    degree = parallel.tensor_parallel_degree
    if not training.plain_path or degree == 1:
        return []
    return [
        f"plain_path with tensor_parallel_degree {degree} in several processes: each holds a part of the vocabulary, and Paddle has no "
        "operator for log-probabilities over parts. Start it in one process, which computes the same numbers, or set "
        "tensor_parallel_degree to 1 and pipeline_parallel_degree or data_parallel_degree higher."
    ]


def _resolve_live_reference(objective: ObjectiveArguments, found: Resolved) -> None:
    """plain_path keeps no table of the reference's log-probs."""
    if found.problems or found.changes.get("reference_free", objective.reference_free) or objective.reference_mode == "frozen":
        return
    found.changes["reference_mode"] = "frozen"
    found.notes.append("reference_mode is frozen: plain_path asks the reference anew at each step.")


def _resolve_best(training: TrainingArguments, eval_steps: int | None, found: Resolved) -> None:
    """load_best_model_at_end needs a checkpoint at an evaluation to choose from."""
    evaluation, saving = training.evaluation_strategy, training.save_strategy
    if evaluation != saving:
        found.problems.append(
            f"load_best_model_at_end needs evaluation_strategy and save_strategy alike; they are {evaluation} and {saving}."
        )
    elif evaluation == "no":
        found.changes["load_best_model_at_end"] = False
        found.notes.append(
            "load_best_model_at_end is switched off, it has nothing to choose from: evaluation_strategy and save_strategy are no."
        )
    elif evaluation == "steps" and eval_steps and training.save_steps % eval_steps:
        found.problems.append(
            f"load_best_model_at_end needs save_steps to be a multiple of eval_steps; {training.save_steps} is none of {eval_steps}."
        )
    elif evaluation == "steps" and 0 < training.max_steps < training.save_steps:
        found.notes.append(
            f"load_best_model_at_end has only the last weights to take: save_steps {training.save_steps} is more than max_steps "
            f"{training.max_steps}."
        )


def resolve_generation(generation: GenerationArguments, parallel: ParallelArguments) -> Resolved:
    """A prediction needs rows or a person, and one way of generating."""
    found = Resolved(decoding_problems(generation), {}, [])
    if generation.interactive and any(degree > 1 for degree in astuple(parallel)):
        found.problems.append(
            "interactive in several processes: none of them has the terminal. Start it with plain python, without "
            "paddle.distributed.launch."
        )
    if not generation.interactive and not generation.data_file:
        found.problems.append("data_file is not set: give a file of rows, or interactive true to chat.")
    elif not generation.interactive and generation.data_file == generation.output_file:
        found.problems.append(f"data_file and output_file are the same file, {generation.data_file}. Set another output_file.")
    return found


def unread_keys(command: str, sections: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """One note about keys that the user set and that another key makes void; empty where there are none."""
    rules: list[tuple[bool, str, str]] = []
    training, data = sections.get("training"), sections.get("data")
    if isinstance(training, TrainingArguments):
        picks = training.load_best_model_at_end or training.early_stopping_patience is not None
        unpicked = "neither load_best_model_at_end nor early_stopping_patience is on"
        if sources.get("load_best_model_at_end") == "derived":
            unpicked = "load_best_model_at_end is off in this run"
        rules += [
            (training.evaluation_strategy != "steps", "eval_steps", f"evaluation_strategy is {training.evaluation_strategy}"),
            (training.save_strategy != "steps", "save_steps", f"save_strategy is {training.save_strategy}"),
            (training.tokens_per_batch is not None, "per_device_train_batch_size", f"tokens_per_batch is {training.tokens_per_batch}"),
            (training.max_steps > 0, "num_train_epochs", f"max_steps is {training.max_steps}"),
            (training.lr_scheduler_type.startswith("constant"), "min_learning_rate", f"lr_scheduler_type is {training.lr_scheduler_type}"),
            (training.warmup_steps > 0, "warmup_ratio", f"warmup_steps is {training.warmup_steps}"),
            (not training.bf16 and not training.fp16, "fp16_opt_level", "neither bf16 nor fp16 is true"),
            (not picks, "metric_for_best_model", unpicked),
            (not picks, "greater_is_better", unpicked),
            (training.early_stopping_patience is None, "early_stopping_threshold", "early_stopping_patience is unset"),
            (not training.do_train, "save_total_limit", "do_train is false"),
            (not training.do_train, "save_on_stop", "do_train is false"),
            (not training.do_train, "preempt_save_seconds", "do_train is false"),
            ("wandb" not in training.report_to, "run_name", "report_to does not name wandb"),
            (not training.do_eval, "dev_dataset_path", "do_eval is false and evaluation_strategy no"),
            (not training.do_train, "train_dataset_path", "do_train is false"),
        ]
        kind = rows_kind(command, getattr(sections["objective"], "loss_type", ""))
        rules += unread_row_keys(sections["rows"], kind, training.do_train, training.do_eval)
    if isinstance(data, DataArguments):
        both = bool(data.train_dataset_path and data.dev_dataset_path)
        rules.append((both, "dataset_name_or_path", "train_dataset_path and dev_dataset_path are set"))
    objective, generation, lora = sections.get("objective"), sections.get("generation"), sections.get("adapter")
    if isinstance(lora, LoraArguments):
        rules += unread_lora_keys(lora)
    if isinstance(sections.get("samples"), SampleArguments):
        rules += unread_sample_keys(sections["samples"])
    if isinstance(objective, ObjectiveArguments):
        rules += unread_objective_keys(objective)
    if isinstance(generation, GenerationArguments):
        rules += [(True, key, why) for key, why in unread_decoding_keys(generation)]
    scoring, comparison = sections.get("scoring"), sections.get("comparison")
    if isinstance(scoring, JudgeArguments):
        rules += [(True, key, why) for key, why in unread_judge_keys(scoring)]
    if isinstance(comparison, ComparisonArguments):
        rules += [(True, key, why) for key, why in unread_comparison_keys(comparison)]
    void = [f"{key} ({why})" for holds, key, why in rules if holds and sources.get(key, "default") in ("file", "command line")]
    return [f"Not read in this run: {', '.join(void)}."] if void else []


def resolve(command: str, sections: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[dict[str, Any], Resolved]:
    """All cross-checks of a command: the sections with what follows from them, and everything found."""
    parts: dict[str, Resolved] = {}
    if "training" in sections:
        parts["training"] = resolve_training(command, sections["training"], sources)
        parts["training"].problems.extend(_plain_problems(sections["training"], sections["parallel"]))
        parts["data"] = resolve_data(sections["data"], sections["training"], sources)
        paths = sections["data"].train_dataset_path or sections["data"].dataset_name_or_path or []
        parts["rows"] = Resolved(row_problems(sections["rows"], command, len(paths)), {}, [])
    elif isinstance(sections.get("rows"), ReadRowArguments):
        parts["rows"] = Resolved(column_problems(sections["rows"]), {}, [])
    if isinstance(sections.get("objective"), ObjectiveArguments):
        parts["objective"] = Resolved(*resolve_objective(sections["objective"], sources))
        if sections["training"].plain_path:
            _resolve_live_reference(sections["objective"], parts["objective"])
    if isinstance(sections.get("adapter"), LoraArguments):
        parts["adapter"] = Resolved(*resolve_lora(sections["adapter"], sources), [])
    if "samples" in sections:
        training = sections["training"]
        evaluates = training.do_eval or training.evaluation_strategy != "no"
        parts["samples"] = Resolved(sample_problems(sections["samples"], evaluates), {}, [])
    if "generation" in sections:
        parts["generation"] = resolve_generation(sections["generation"], sections["parallel"])
    if "scoring" in sections:
        scoring = sections["scoring"]
        judged = judge_problems(scoring) if isinstance(scoring, JudgeArguments) else []
        parts["scoring"] = Resolved([*length_problems(scoring.src_length, scoring.max_length), *judged], {}, [])
    if "comparison" in sections:
        parts["comparison"] = Resolved(comparison_problems(sections["comparison"]), {}, [])
    if "target" in sections:
        parts["target"] = Resolved(target_problems(sections["target"]), {}, [])
    if "plan" in sections:
        parts["plan"] = Resolved(plan_problems(sections["plan"]), {}, [])
    resolved = {name: replace(section, **parts[name].changes) if name in parts else section for name, section in sections.items()}
    found = Resolved([], {}, [])
    for part in parts.values():
        found.problems.extend(part.problems)
        found.changes.update(part.changes)
        found.notes.extend(part.notes)
    if not found.problems:
        found.notes.extend(unread_keys(command, resolved, {**sources, **dict.fromkeys(found.changes, "derived")}))
    return resolved, found
