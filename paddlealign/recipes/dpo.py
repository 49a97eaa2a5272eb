"""Direct preference optimisation (Rafailov et al. 2023) and its kin, from the arguments to the aligned model."""

import math
from dataclasses import fields, replace

import numpy as np

from paddlealign.arguments.objective_checks import loss_mixture
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.arguments.results import DpoArguments
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.objectives.pairs import Coefficients
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.check import check_run
from paddlealign.recipes.device import say
from paddlealign.recipes.estimate import HeldAgainst
from paddlealign.recipes.references import (
    ReferenceModel,
    cached_references,
    choose_reference,
    frozen_reference,
    held_against,
    load_reference,
)
from paddlealign.recipes.resuming import check_resume
from paddlealign.recipes.rows import Rows, check_shared_prompts, prepare_rows
from paddlealign.recipes.run import adapter_hashes, agree_on_run, begin, load_policy, make_task, run_of, train
from paddlealign.recipes.sampling import Answering, Sampler, find_judges, find_prompts
from paddlealign.training.folder_lock import FolderLock
from paddlealign.training.objective import Objective, Reference, kto_objective, preference_objective
from paddlealign.training.reference import model_logps
from paddlealign.training.task import Task

# How far a response's log-prob may be from its reference's before the first step, as a share of its size: rounding only.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}


def run(arguments: DpoArguments, request: StopRequest, lock: FolderLock) -> None:
    """Align the policy with the preference pairs, held to a reference unless the loss has none. request, lock, errors: as ``sft.run``."""
    start = begin(arguments, request, lock)
    rows = prepare_rows(arguments, "labelled" if arguments.objective.loss_type == "kto" else "preference")
    check_shared_prompts(rows, read_config(arguments.model.model_name_or_path), "model_name_or_path")
    prompts = find_prompts(arguments, rows)
    sampled = prompts.hashes if prompts else {}
    keys = arguments.objective
    chosen = None if keys.reference_free else choose_reference(arguments, start, rows)
    check_labels(arguments, rows)
    weights = {} if chosen is None else {"reference weights": chosen.weights}
    hashes = {**rows.hashes, **adapter_hashes(arguments), **weights, **sampled}
    agree_on_run(arguments, start, hashes)
    references: tuple[Reference | None, Reference | None] = (None, None)
    moving = None
    in_memory = keys.reference_mode == "frozen" or arguments.training.check  # a check looks at one step, without filling the cache
    unanswered = no_answers(arguments, chosen, in_memory)
    judges = find_judges(arguments, start.device, unanswered)
    if chosen is not None and not in_memory:
        references = cached_references(arguments, start, rows, chosen)
    copy = load_reference(arguments, start, chosen) if chosen is not None and in_memory and chosen.apart else None
    policy, sharding = load_policy(arguments, start, rows)
    if chosen is not None and in_memory:
        reference, moving = frozen_reference(arguments, start, chosen, copy, policy, sharding)
        references = (reference, reference)
    objective, dev_objective = (
        make_objective(arguments.objective, it, labels) for it, labels in zip(references, (rows.train_labels, rows.dev_labels), strict=True)
    )
    task = replace(make_task(arguments, start, rows, policy, sharding, objective, dev_objective), moving=moving)
    if prompts and judges:
        answering: Answering = "policy" if chosen is not None and chosen.like_policy else None if copy is None else copy[0]
        if unanswered and chosen is not None:
            say(f"samples: the reference's answers are left out: {unanswered}")
        task = replace(task, sample=Sampler(arguments, start, rows, policy, prompts, judges, answering))
    if arguments.training.do_train and start.resume is None and chosen is not None and references[0] is not None:
        check_start(arguments, task, references[0], chosen)
    held = HeldAgainst("none") if chosen is None else held_against(arguments, chosen)
    if arguments.training.check:
        check_resume(arguments, start.resume, run_of(arguments, start, task, hashes))
        check_run(arguments, start, task, rows, held)
        return
    train(arguments, start, task, hashes, rows, held)


def no_answers(arguments: DpoArguments, chosen: ReferenceModel | None, in_memory: bool) -> str | None:
    """Why the reference cannot answer prompts; None where it can: as the policy before its first step, or with a copy of its own."""
    if chosen is None:
        return f"loss_type {arguments.objective.loss_type} has none"
    if chosen.like_policy or (in_memory and chosen.apart):
        return None
    return "it is the policy with another adapter" if in_memory else "only its log-probs are kept (reference_mode frozen keeps the model)"


def make_objective(keys: ObjectiveArguments, reference: Reference | None, labels: np.ndarray | None) -> Objective:
    """The losses that the keys ask for, against a reference. labels: of labelled rows."""
    if keys.loss_type == "kto":
        assert reference is not None
        desirable = np.zeros(0, bool) if labels is None else labels
        return kto_objective(reference, desirable, keys.beta, keys.desirable_weight, keys.undesirable_weight)
    numbers = Coefficients(**{field.name: getattr(keys, field.name) for field in fields(Coefficients)})
    return preference_objective(reference, loss_mixture(keys), numbers, keys.ld_alpha, keys.use_weighting)


def check_labels(arguments: DpoArguments, rows: Rows) -> None:
    """A margin between desirable and undesirable rows needs both among those that choose the best model. Raises UserError."""
    labels = rows.dev_labels
    if labels is not None and len(set(labels.tolist())) == 1 and arguments.training.metric_for_best_model == "margin":
        raise UserError(
            f"metric_for_best_model: margin is the difference between desirable and undesirable rows, and all {len(labels):,} dev rows are "
            f"labelled {str(bool(labels[0])).lower()}. Take loss or accuracy, or give dev rows of both labels"
        )


def check_start(arguments: DpoArguments, task: Task, reference: Reference, chosen: ReferenceModel) -> None:
    """Before the first step the policy is the reference, so every margin is 0 and DPO's loss ln 2: look whether it is so.

    Asked only where the two are the same model (``like_policy``), whether the reference is cached, a copy, an adapter, or will move.
    """
    if not chosen.like_policy:
        return
    batch = next(iter(task.feed.steps(first=0))).batches[0]
    policy = model_logps(task.policy, batch, task.precision, task.chain, arguments.objective.ld_alpha)
    wanted = reference(batch).numpy()
    if not len(batch.example_ids):
        return
    worst = float((np.abs(policy - wanted) / (1.0 + np.abs(wanted))).max())
    allowed = max(TOLERANCE[task.precision.dtype], TOLERANCE[chosen.precision.dtype])
    beside = f" with the adapter {chosen.lora_path}" if chosen.lora_path else ""
    if not math.isfinite(worst) or worst > allowed:
        raise UserError(
            f"before the first step the policy's log-probs differ from the reference's by {worst:.1e} of their size (allowed: "
            f"{allowed:.0e}), though both are {chosen.folder}{beside}. Remove the cached log-probs in "
            "reference_cache_dir; if that does not help, this is a fault of PaddleAlign: please report it"
        )
