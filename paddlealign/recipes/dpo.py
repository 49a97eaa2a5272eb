"""Direct preference optimisation (Rafailov et al. 2023) and its kin, from the arguments to the aligned model."""

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from paddlealign.arguments.objective_checks import loss_mixture
from paddlealign.arguments.objective_fields import ObjectiveArguments
from paddlealign.arguments.results import DpoArguments
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.models.decoder import Decoder
from paddlealign.objectives.pairs import Coefficients
from paddlealign.parallel.collect import everywhere
from paddlealign.parallel.stopping import StopRequest
from paddlealign.recipes.adapter import adapter_hash, start_adapter
from paddlealign.recipes.check import check_run
from paddlealign.recipes.device import say
from paddlealign.recipes.heads import need_language_head
from paddlealign.recipes.processes import check_cut
from paddlealign.recipes.rows import Rows, check_shared_prompts, check_vocabulary, prepare_rows, vocabulary_size
from paddlealign.recipes.run import Start, adapter_hashes, agree_on_run, begin, check_resume, load_policy, make_task, read_share, train
from paddlealign.recipes.sampling import ReferenceModel, Sampler, find_prompts
from paddlealign.training.loop import Task
from paddlealign.training.objective import Objective, Reference, kto_objective, preference_objective
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
    """Align the policy with the preference pairs, held to a frozen reference unless the loss has none. request, errors: as ``sft.run``."""
    start = begin(arguments, request)
    rows = prepare_rows(arguments, "labelled" if arguments.objective.loss_type == "kto" else "preference", score_all_turns=False)
    check_shared_prompts(rows, read_config(arguments.model.model_name_or_path), "model_name_or_path")
    prompts = find_prompts(arguments, rows)
    sampled = prompts.hashes if prompts else {}
    references: tuple[Reference | None, Reference | None] = (None, None)
    answering: ReferenceModel = "policy" if starts_as_reference(arguments) else None
    size = 0
    in_memory = keeps_copy(arguments)
    apart = start.lora is None or arguments.objective.ref_model_name_or_path is not None
    if arguments.objective.reference_free:
        hashes = {**rows.hashes, **adapter_hashes(arguments), **sampled}
        agree_on_run(arguments, start, hashes)
    else:
        size, weights = check_reference(arguments, start, rows)
        hashes = {**rows.hashes, **adapter_hashes(arguments), "reference weights": weights, **sampled}
        agree_on_run(arguments, start, hashes)
        if not in_memory:
            references = cached_references(arguments, start, rows, weights, size)
        elif apart:
            model = load_reference(arguments, start, size)
            references = (model_reference(model, start.precision, start.chain, arguments.objective.ld_alpha),) * 2
            answering = answering or model
    policy, sharding = load_policy(arguments, start, rows)
    if in_memory and not apart and not arguments.objective.reference_free:
        values = {name: it.clone() for name, it in policy.trained()} if starts_from_adapter(arguments) else None
        references = (adapter_reference(policy, values, start.precision, start.chain, arguments.objective.ld_alpha),) * 2
    objective, dev_objective = (
        make_objective(arguments.objective, it, labels) for it, labels in zip(references, (rows.train_labels, rows.dev_labels), strict=True)
    )
    task = make_task(arguments, start, rows, policy, sharding, objective, dev_objective)
    if prompts:
        if answering is None and not arguments.objective.reference_free:
            say("samples: the reference's answers are left out, since only its log-probs are kept (reference_mode frozen keeps the model)")
        task = replace(task, sample=Sampler(arguments, start, rows, policy, prompts, answering))
    if arguments.training.do_train and start.resume is None and references[0] is not None:
        check_start(arguments, task, references[0])
    if arguments.training.check:
        check_resume(arguments, start, hashes)
        frozen = not arguments.objective.reference_free and arguments.objective.reference_mode == "frozen"
        copy = replace(read_config(reference_dir(arguments)), vocab_size=size) if frozen and apart else None
        check_run(arguments, task, rows.train or rows.dev, rows.tokenizer, reference=copy)
        return
    train(arguments, start, task, hashes)


def make_objective(keys: ObjectiveArguments, reference: Reference | None, labels: np.ndarray | None) -> Objective:
    """The losses that the keys ask for, against a reference. labels: of labelled rows."""
    if keys.loss_type == "kto":
        assert reference is not None
        desirable = np.zeros(0, bool) if labels is None else labels
        return kto_objective(reference, desirable, keys.beta, keys.desirable_weight, keys.undesirable_weight)
    numbers = Coefficients(**{field.name: getattr(keys, field.name) for field in fields(Coefficients)})
    return preference_objective(reference, loss_mixture(keys), numbers, keys.ld_alpha, keys.use_weighting)


def check_reference(arguments: DpoArguments, start: Start, rows: Rows) -> tuple[int, str]:
    """Hold the reference's config to the rows and the layout. Returns its vocabulary's size and its weights' hash."""
    config = read_config(reference_dir(arguments))
    need_language_head(config, "ref_model_name_or_path")
    size = vocabulary_size(arguments, rows, config)
    check_vocabulary(rows, size, "ref_model_name_or_path")
    check_cut(config, arguments.parallel, arguments.training.sharding_parallel_degree)
    check_shared_prompts(rows, config, "ref_model_name_or_path")
    weights = weights_hash(reference_dir(arguments), arguments.model.allow_pickle)
    weights += f" grown to {size} tokens" if size > config.vocab_size else ""
    return size, weights + (f" with adapter {adapter_hash(str(arguments.adapter.lora_path))}" if starts_from_adapter(arguments) else "")


def keeps_copy(arguments: DpoArguments) -> bool:
    """Whether the reference is asked anew for each batch; a check looks at the first step only, without filling the cache."""
    return arguments.objective.reference_mode == "frozen" or arguments.training.check


def reference_dir(arguments: DpoArguments) -> Path:
    """The folder of the reference's weights: its own, or those that training starts from."""
    return Path(arguments.objective.ref_model_name_or_path or arguments.model.model_name_or_path)


def starts_from_adapter(arguments: DpoArguments) -> bool:
    """Whether the reference is, as the policy at the start, a model with an adapter beside it."""
    return bool(arguments.adapter.lora_path and not arguments.objective.ref_model_name_or_path)


def load_reference(arguments: DpoArguments, start: Start, vocab_size: int) -> Decoder:
    """Read the reference model, frozen, with the vocabulary that ``rows.vocabulary_size`` gives it."""
    lora = start.lora if starts_from_adapter(arguments) else None
    model, _ = read_share(arguments, start, reference_dir(arguments), vocab_size, lora=lora)
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
    dtype, ld_alpha = f"{start.precision.dtype} {start.precision.level}", arguments.objective.ld_alpha
    show = not arguments.training.disable_tqdm
    model: Decoder | None = None
    tables: list[np.ndarray] = []
    for split, examples in (("train", rows.train), ("dev", rows.dev)):
        name = fingerprint(examples, weights, dtype, ld_alpha)
        logps = read_cache(folder, name, len(examples))
        if not everywhere(start.topology, logps is not None):
            logps = None  # all compute together, or none
        if logps is not None and examples:
            say(f"reference: log-probs of {len(examples)} {split} pairs read from {folder}")
        elif examples:
            model = model or load_reference(arguments, start, vocab_size)
            what, pad_id = f"reference log-probs, {split}", rows.tokenizer.pad_id
            logps = compute_logps(model, examples, pad_id, start.precision, what, show, start.topology, start.chain, ld_alpha)
            if start.topology.is_main:
                write_cache(folder, name, logps)
            say(f"reference: log-probs of {len(examples)} {split} pairs computed with {reference_dir(arguments)}, kept in {folder}")
        tables.append(logps if logps is not None else np.zeros((0, 2), "float32"))
    return table_reference(tables[0]), table_reference(tables[1])


def starts_as_reference(arguments: DpoArguments) -> bool:
    """Whether the policy is its reference before the first step: the same weights, and the same adapter where there is one."""
    other = reference_dir(arguments).resolve() != Path(arguments.model.model_name_or_path).resolve()
    return not (arguments.objective.reference_free or other or (arguments.adapter.lora_path and not starts_from_adapter(arguments)))


def check_start(arguments: DpoArguments, task: Task, reference: Reference) -> None:
    """Before the first step the policy is the reference, so every margin is 0 and DPO's loss ln 2: look whether it is so.

    Nothing is asked of a reference with weights of its own.
    """
    if not starts_as_reference(arguments):
        return
    batch = next(iter(task.feed.steps(first=0))).batches[0]
    policy = model_logps(task.policy, batch, task.precision, task.chain, arguments.objective.ld_alpha)
    wanted = reference(batch).numpy()
    if not len(batch.example_ids):
        return
    worst = float((np.abs(policy - wanted) / (1.0 + np.abs(wanted))).max())
    if not math.isfinite(worst) or worst > TOLERANCE[task.precision.dtype]:
        raise UserError(
            f"before the first step the policy's log-probs differ from the reference's by {worst:.1e} of their size (allowed: "
            f"{TOLERANCE[task.precision.dtype]:.0e}), though both are {arguments.model.model_name_or_path}. Remove the cached log-probs in "
            "reference_cache_dir; if that does not help, this is a fault of PaddleAlign: please report it"
        )
