"""Direct preference optimisation (Rafailov et al. 2023), from the arguments to the aligned model."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from paddlealign.arguments.results import DpoArguments
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.adapter import adapter_hash, start_adapter
from paddlealign.recipes.check import check_run
from paddlealign.recipes.device import say
from paddlealign.recipes.processes import check_cut
from paddlealign.recipes.rows import Rows, check_shared_prompts, check_vocabulary, prepare_rows, vocabulary_size
from paddlealign.recipes.run import Start, adapter_hashes, agree_on_run, begin, check_resume, load_policy, make_task, read_share, train
from paddlealign.training.loop import Task
from paddlealign.training.objective import Reference, dpo_objective
from paddlealign.training.reference import (
    adapter_reference,
    compute_logps,
    fingerprint,
    model_logps,
    model_reference,
    read_cache,
    table_reference,
    weights_hash,
    write_cache,
)

# How far a response's log-prob may be from its reference's before the first step, as a share of its size: rounding only.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}


def run(arguments: DpoArguments, request: StopRequest) -> None:
    """Align the policy with the preference pairs, held to a frozen reference. request, errors: as ``sft.run``."""
    start = begin(arguments, request)
    rows = prepare_rows(arguments, "preference", score_all_turns=False)
    reference_config = read_config(reference_dir(arguments))
    reference_size = vocabulary_size(arguments, rows, reference_config)
    check_vocabulary(rows, reference_size, "ref_model_name_or_path")
    check_cut(reference_config, arguments.parallel, arguments.training.sharding_parallel_degree)
    check_shared_prompts(rows, read_config(arguments.model.model_name_or_path), "model_name_or_path")
    check_shared_prompts(rows, reference_config, "ref_model_name_or_path")
    weights = weights_hash(reference_dir(arguments), arguments.model.allow_pickle)
    if reference_size > reference_config.vocab_size:
        weights += f" grown to {reference_size} tokens"
    if starts_from_adapter(arguments):
        weights += f" with adapter {adapter_hash(str(arguments.adapter.lora_path))}"
    hashes = {**rows.hashes, **adapter_hashes(arguments), "reference weights": weights}
    agree_on_run(arguments, start, hashes)
    frozen = arguments.objective.reference_mode == "frozen"
    in_memory = frozen or arguments.training.check  # a check looks at the first step only, without filling the cache
    apart = start.lora is None or arguments.objective.ref_model_name_or_path is not None
    if not in_memory:
        references = cached_references(arguments, start, rows, weights, reference_size)
    elif apart:
        references = (model_reference(load_reference(arguments, start, reference_size), start.precision, start.chain),) * 2
    policy, sharding = load_policy(arguments, start, rows)
    if in_memory and not apart:
        values = {name: it.clone() for name, it in policy.trained()} if starts_from_adapter(arguments) else None
        references = (adapter_reference(policy, values, start.precision, start.chain),) * 2
    objective, dev_objective = (dpo_objective(it, arguments.objective.beta, arguments.objective.label_smoothing) for it in references)
    task = make_task(arguments, start, rows, policy, sharding, objective, dev_objective)
    if arguments.training.do_train and start.resume is None:
        check_start(arguments, task, references[0])
    if arguments.training.check:
        check_resume(arguments, start, hashes)
        check_run(
            arguments,
            task,
            rows.train or rows.dev,
            rows.tokenizer,
            reference=replace(reference_config, vocab_size=reference_size) if frozen and apart else None,
        )
        return
    train(arguments, start, task, hashes)


def reference_dir(arguments: DpoArguments) -> Path:
    """The folder of the reference's weights: its own, or those that training starts from."""
    return Path(arguments.objective.ref_model_name_or_path or arguments.model.model_name_or_path)


def starts_from_adapter(arguments: DpoArguments) -> bool:
    """Whether the reference is, as the policy at the start, a model with an adapter beside it."""
    return bool(arguments.adapter.lora_path and not arguments.objective.ref_model_name_or_path)


def load_reference(arguments: DpoArguments, start: Start, vocab_size: int) -> Decoder:
    """Read the reference model, frozen, with the vocabulary that ``rows.vocabulary_size`` gives it."""
    lora = start.lora if starts_from_adapter(arguments) else None
    model, _ = read_share(arguments, start, reference_dir(arguments), vocab_size, lora)
    start_adapter(arguments, model)
    for parameter in model.parameters():
        parameter.stop_gradient = True
    return model


def cached_references(arguments: DpoArguments, start: Start, rows: Rows, weights: str, vocab_size: int) -> tuple[Reference, Reference]:
    """The reference's log-probs of train and dev pairs from the cache; what is not there is computed once and kept.

    weights: the hash of the reference's weights. vocab_size: see ``load_reference``. The model is only loaded where something is missing,
    and let go afterwards.
    """
    folder = Path(arguments.objective.reference_cache_dir or Path(arguments.training.output_dir) / "reference")
    dtype = f"{start.precision.dtype} {start.precision.level}"
    show = not arguments.training.disable_tqdm
    model: Decoder | None = None
    tables: list[np.ndarray] = []
    for split, examples in (("train", rows.train), ("dev", rows.dev)):
        name = fingerprint(examples, weights, dtype)
        logps = read_cache(folder, name, len(examples))
        if not everywhere(start.topology, logps is not None):
            logps = None  # all compute together, or none
        if logps is not None and examples:
            say(f"reference: log-probs of {len(examples)} {split} pairs read from {folder}")
        elif examples:
            model = model or load_reference(arguments, start, vocab_size)
            logps = compute_logps(
                model, examples, rows.tokenizer.pad_id, start.precision, f"reference log-probs, {split}", show, start.topology, start.chain
            )
            if start.topology.is_main:
                write_cache(folder, name, logps)
            say(f"reference: log-probs of {len(examples)} {split} pairs computed with {reference_dir(arguments)}, kept in {folder}")
        tables.append(logps if logps is not None else np.zeros((0, 2), "float32"))
    return table_reference(tables[0]), table_reference(tables[1])


def check_start(arguments: DpoArguments, task: Task, reference: Reference) -> None:
    """Before the first step the policy is the reference, so every margin is 0 and the loss ln 2: look whether it is so.

    Nothing is asked of a reference with weights of its own.
    """
    other = reference_dir(arguments).resolve() != Path(arguments.model.model_name_or_path).resolve()
    if other or (arguments.adapter.lora_path and not starts_from_adapter(arguments)):
        return
    batch = next(iter(task.feed.steps(first=0))).batches[0]
    policy, wanted = model_logps(task.policy, batch, task.precision, task.chain), reference(batch).numpy()
    if not len(batch.example_ids):
        return
    worst = float((np.abs(policy - wanted) / (1.0 + np.abs(wanted))).max())
    if not math.isfinite(worst) or worst > TOLERANCE[task.precision.dtype]:
        raise UserError(
            f"before the first step the policy's log-probs differ from the reference's by {worst:.1e} of their size (allowed: "
            f"{TOLERANCE[task.precision.dtype]:.0e}), though both are {arguments.model.model_name_or_path}. Remove the cached log-probs in "
            "reference_cache_dir; if that does not help, this is a fault of PaddleAlign: please report it"
        )
