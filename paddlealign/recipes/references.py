"""What a run is held against: which weights and which adapter the keys name, and the functions that give their log-probs."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import paddle

from paddlealign.arguments.paths import REFERENCE_FOLDER
from paddlealign.arguments.results import DpoArguments
from paddlealign.errors import UserError
from paddlealign.models.adapter_files import read_settings, read_values
from paddlealign.models.config import DecoderConfig, read_config
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import fill, merge
from paddlealign.models.other_adapter import NO_ADAPTER, OtherAdapter, worn, zero_adapter
from paddlealign.models.parameters import LORA_A, LoraSettings, parameter_shapes
from paddlealign.parallel.collect import sum_over
from paddlealign.parallel.sharding import Sharding
from paddlealign.recipes.adapter import adapter_hash
from paddlealign.recipes.device import say
from paddlealign.recipes.estimate import HeldAgainst
from paddlealign.recipes.heads import need_language_head
from paddlealign.recipes.processes import check_cut
from paddlealign.recipes.rows import Rows, check_shared_prompts, check_vocabulary, vocabulary_size
from paddlealign.recipes.run import Start, read_share
from paddlealign.training.moving_reference import MovingReference
from paddlealign.training.objective import Reference
from paddlealign.training.precision import Precision
from paddlealign.training.reference import model_reference, table_reference, weights_hash
from paddlealign.training.reference_cache import (
    Parts,
    compute_logps,
    fingerprint,
    read_cache,
    settle_cache,
    write_cache,
    write_part,
)


@dataclass(frozen=True)
class ReferenceModel:
    """The model that the keys name as the reference.

    folder, config: of its weights, the vocabulary grown as the rows need it. lora_path, lora: of the adapter beside them. precision: in
    which it computes. weights: a hash of all values. apart: whether it takes memory of its own where it is not cached; otherwise it is the
    policy with another adapter. like_policy: whether the policy is this model before the first step.
    """

    folder: Path
    config: DecoderConfig
    lora_path: str | None
    lora: LoraSettings | None
    precision: Precision
    weights: str
    apart: bool
    like_policy: bool


def choose_reference(arguments: DpoArguments, start: Start, rows: Rows) -> ReferenceModel:
    """Look at what the keys name, and hold it to the rows, the layout and the policy. Raises UserError."""
    keys, policy = arguments.objective, arguments.model.model_name_or_path
    folder = Path(keys.ref_model_name_or_path or policy)
    config = read_config(folder)
    need_language_head(config, "ref_model_name_or_path")
    # Where nothing else is named, the reference is what training starts from, with the adapter beside it.
    lora_path = keys.ref_lora_path or (None if keys.ref_model_name_or_path else arguments.adapter.lora_path)
    lora = read_settings(lora_path, config) if lora_path else None
    if lora_path and lora:
        read_values(lora_path, config, lora)  # names and shapes are told before a model is read
    size = vocabulary_size(arguments, rows, config)
    check_vocabulary(rows, size, "ref_model_name_or_path")
    check_cut(config, arguments.parallel, arguments.training.sharding_parallel_degree, lora)
    check_shared_prompts(rows, config, "ref_model_name_or_path")
    weights = weights_hash(folder, arguments.model.allow_pickle)
    weights += f" grown to {size} tokens" if size > config.vocab_size else ""
    weights += f" with adapter {adapter_hash(lora_path)}" if lora_path else ""
    precision = choose_reference_precision(keys.reference_dtype, start)
    same = folder.resolve() == Path(policy).resolve()
    adapters = [None if path is None else Path(path).resolve() for path in (lora_path, arguments.adapter.lora_path)]
    chosen = ReferenceModel(
        folder, replace(config, vocab_size=size), lora_path, lora, precision, weights,
        apart=start.lora is None or not same or precision is not start.precision,
        like_policy=same and adapters[0] == adapters[1],
    )  # fmt: skip
    if keys.sync_ref_model:
        own = read_config(policy)
        _check_moving(arguments, start, chosen, replace(own, vocab_size=vocabulary_size(arguments, rows, own)))
    return chosen


def held_against(arguments: DpoArguments, chosen: ReferenceModel) -> HeldAgainst:
    """The reference in words, and what stays in memory for it."""
    keys, beside = arguments.objective, f" with the adapter {chosen.lora_path}" if chosen.lora_path else ""
    if keys.reference_mode == "cached":
        return HeldAgainst(f"{chosen.folder}{beside}; its log-probs are computed once, and kept on disk")
    follows = f", following the policy every {keys.ref_model_sync_steps:,} steps" if keys.sync_ref_model else ""
    if not chosen.apart:
        return HeldAgainst(f"the policy's own base{beside}, asked at each step{follows}")
    return HeldAgainst(f"{chosen.folder}{beside}, in memory of its own, asked at each step{follows}", chosen.config, chosen.precision)


def choose_reference_precision(wanted: str, start: Start) -> Precision:
    """The reference's precision: the run's for "auto", else weights and numbers in the dtype that is wanted. Raises UserError on a CPU."""
    if wanted not in ("auto", "float32") and start.device == "cpu":
        raise UserError(f"reference_dtype: {wanted}: Paddle has no {wanted} kernels on CPU; allowed here: auto, float32")
    chosen, run = Precision(wanted, "O1" if wanted == "float32" else "O2", None), start.precision
    return run if wanted == "auto" or (chosen.dtype, chosen.level) == (run.dtype, run.level) else chosen


def _check_moving(arguments: DpoArguments, start: Start, chosen: ReferenceModel, policy: DecoderConfig) -> None:
    """A reference that follows the policy must have the parameters that are trained. policy: its config, the vocabulary grown."""
    if start.lora is None and parameter_shapes(policy) != parameter_shapes(chosen.config):
        raise UserError(
            f"sync_ref_model: the reference {chosen.folder} has other parameters than the policy, which it is to follow. Give a model of "
            "the same shape, or set sync_ref_model to false"
        )
    if start.lora is None and chosen.lora is not None and arguments.training.sharding == "stage3":
        raise UserError(
            "sync_ref_model with ref_lora_path under sharding stage3: the adapter cannot be merged into layers that lie with their owners. "
            "Merge it first (python -m paddlealign.export), or take stage1 or stage2"
        )
    if start.lora is not None and chosen.apart:
        raise UserError(
            "sync_ref_model with lora: the reference is the policy's own base with an adapter that follows the trained one, so it has no "
            "weights or dtype of its own. Leave ref_model_name_or_path and reference_dtype out, or set sync_ref_model to false"
        )
    if start.lora is not None and chosen.lora is not None and replace(start.lora, dropout=0.0) != chosen.lora:
        raise UserError(
            f"sync_ref_model: the reference's adapter {chosen.lora_path} has another rank, scale or other modules than the trained one, "
            "which it is to follow. Set lora_rank, lora_alpha, rslora and lora_target_modules to its own, or sync_ref_model to false"
        )


def load_reference(arguments: DpoArguments, start: Start, chosen: ReferenceModel) -> tuple[Decoder, Sharding]:
    """Read the reference into memory of its own. Where it is to move, its adapter is merged, so that its weights have the policy's form."""
    moves = arguments.objective.sync_ref_model
    model, sharding = read_share(
        arguments, start, chosen.folder, chosen.config.vocab_size, lora=chosen.lora, dtype=chosen.precision.weights_dtype
    )
    if chosen.lora is not None:
        fill(model, read_values(str(chosen.lora_path), model.config, chosen.lora))
    if moves:
        merge(model)
    for parameter in model.parameters():
        parameter.stop_gradient = not moves
    return model, sharding


def frozen_reference(
    arguments: DpoArguments,
    start: Start,
    chosen: ReferenceModel,
    copy: tuple[Decoder, Sharding] | None,
    policy: Decoder,
    sharding: Sharding,
) -> tuple[Reference, MovingReference | None]:
    """The reference that is asked anew for each batch, and how it follows the policy where it does.

    copy: of ``load_reference``, where the reference is ``apart``; None: the policy with another adapter. sharding: of the policy.
    """
    keys = arguments.objective
    model, of_model = (policy, sharding) if copy is None else copy
    other = _adapter_beside(policy, chosen, start.lora if keys.sync_ref_model else chosen.lora) if copy is None else None
    reference = model_reference(model, chosen.precision, start.chain, keys.ld_alpha, other)
    if not keys.sync_ref_model:
        return reference, None
    share, every = keys.ref_model_mixup_alpha, keys.ref_model_sync_steps
    say(f"reference: follows the policy, every {every} steps it becomes {share:g} of the policy and {1 - share:g} of itself")
    return reference, MovingReference(every, share, model, of_model, other)


@paddle.no_grad()
def _adapter_beside(policy: Decoder, chosen: ReferenceModel, settings: LoraSettings | None) -> OtherAdapter:
    """The reference's adapter beside the policy's base; with settings but no adapter, one that adds nothing yet.

    That one has the policy's lora_A, so that the means of later steps are of matrices that belong together, and a lora_B of zeros.
    """
    if settings is None:
        return NO_ADAPTER
    other, trained = zero_adapter(policy, settings, str(chosen.folder)), dict(policy.trained())
    with worn(policy, other):
        if chosen.lora_path is not None:
            fill(policy, read_values(chosen.lora_path, policy.config, settings))
        else:
            for name, values in policy.trained():
                if name.endswith(LORA_A):
                    paddle.assign(trained[name], output=values)
    return other


def cached_references(arguments: DpoArguments, start: Start, rows: Rows, chosen: ReferenceModel) -> tuple[Reference, Reference]:
    """The reference's log-probs of train and dev rows from the cache; what is not there is computed once and kept.

    The main process alone reads and writes. The model is only loaded where something is missing, and let go afterwards.
    """
    folder = Path(arguments.objective.reference_cache_dir or Path(arguments.training.output_dir) / REFERENCE_FOLDER)
    dtype, ld_alpha = f"{chosen.precision.dtype} {chosen.precision.level}", arguments.objective.ld_alpha
    show, beside = not arguments.training.disable_tqdm, f" and {chosen.lora_path}" if chosen.lora_path else ""
    model: Decoder | None = None
    tables: list[np.ndarray] = []
    for split, examples in (("train", rows.train), ("dev", rows.dev)):
        name = fingerprint(rows.tokens_hashes[split], chosen.weights, dtype, ld_alpha)
        table = _known(start, folder, name, len(examples))
        done = len(examples) - int(np.isnan(table).any(1).sum())
        if done < len(examples):
            model = model or load_reference(arguments, start, chosen)[0]
            if done:
                say(f"reference: {done:,} of {len(examples):,} {split} rows were done before; the build goes on from there")
            parts = Parts(table, partial(write_part, folder, name))
            what, pad_id = f"reference log-probs, {split}", rows.tokenizer.pad_id
            table = compute_logps(model, examples, pad_id, chosen.precision, what, show, start.topology, start.chain, ld_alpha, parts)
            if start.topology.is_main:
                write_cache(folder, name, table)
            say(f"reference: log-probs of {len(examples)} {split} rows computed with {chosen.folder}{beside}, kept in {folder}")
        elif len(examples):
            if start.topology.is_main:
                settle_cache(folder, name, table)
            say(f"reference: log-probs of {len(examples)} {split} rows read from {folder}")
        tables.append(table)
    return table_reference(tables[0]), table_reference(tables[1])


def _known(start: Start, folder: Path, name: str, examples: int) -> np.ndarray:
    """What the main process finds of a table, in all processes: float32 [examples, 2], NaN where nothing is known."""
    logps = np.zeros((examples, 2), "float32")
    if start.topology.is_main:
        logps, remarks = read_cache(folder, name, examples)
        for remark in remarks:
            say(f"note: reference: {remark}")
    return sum_over(start.topology.everyone, logps).astype("float32")
