"""Checkpoints: HuggingFace's layout, the optimizer's state beside the weights under the same names, and nothing half-written.

``output_dir/checkpoint-<step>/`` holds what HuggingFace would write for the model (or peft for its adapter), ``optimizer.safetensors``,
``trainer_state.json``, where the reference moves ``reference/`` (that model or adapter in the same layout), and ``manifest.json``. A folder
is written beside under another name and then renamed, so a checkpoint that exists was whole; the manifest tells whether it still is.
"""

import errno
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.optimizer import AdamW

from paddlealign.arguments.model_files import read_json_object, shown
from paddlealign.arguments.paths import RUN_FILE
from paddlealign.errors import UserError
from paddlealign.models.adapter_files import read_values, save_adapter
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import fill
from paddlealign.models.tensor_files import TensorSpec, Written, read_header, sync_folder, write_bytes, write_json, write_streamed
from paddlealign.models.tensor_memory import memory_of
from paddlealign.models.tensor_places import read_all
from paddlealign.models.weights import load_weights, save_model
from paddlealign.parallel.sharding import Sharding, unsharded
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.manifest import write_manifest
from paddlealign.training.moving_reference import MovingReference
from paddlealign.training.optimizer import load_optimizer_state, optimizer_state
from paddlealign.training.precision import Precision
from paddlealign.training.run_folder import PARTIAL, STATE_FILE, list_checkpoints, remove_checkpoint
from paddlealign.training.step import Sums
from paddlealign.training.whole import own_share, parameter_of, whole_tensors

OPTIMIZER_FILE = "optimizer.safetensors"
REFERENCE_DIR = "reference"
_KINDS = {
    "step": int, "epoch": int | float, "best_metric": int | float | None, "best_step": int | None, "stale_evaluations": int, "tokens": int,
    "examples": int, "window": dict | None, "scaler": dict | None, "losses": list, "skipped": int, "skipped_in_a_row": int,
    "owes": bool,
}  # fmt: skip


@dataclass
class TrainState:
    """Where a run stands. With the arguments and the data it is all that a resume needs beside the tensors.

    step: optimizer steps done. epoch: passes over the data done. best_metric, best_step: of the evaluations so far. stale_evaluations:
    evaluations since the best one. tokens, examples: seen so far. window: the sums since the last line of the run log, as ``step.Sums``.
    scaler: the float16 loss scaler's own state. losses: of the last steps, by which ``guard`` knows a spike. skipped, skipped_in_a_row:
    steps that were left out for numbers that are not finite. owes: the evaluation and the answers that belong to the step were left for
    the resume.
    """

    step: int = 0
    epoch: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0
    tokens: int = 0
    examples: int = 0
    window: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    losses: list[float] = field(default_factory=list)
    skipped: int = 0
    skipped_in_a_row: int = 0
    owes: bool = False


def save_checkpoint(
    output_dir: Path,
    policy: Decoder,
    optimizer: AdamW,
    state: TrainState,
    side_files: Mapping[str, bytes],
    topology: Topology = SINGLE,
    sharding: Sharding | None = None,
    moving: MovingReference | None = None,
    run_file: bytes | None = None,
) -> Path:
    """Write ``checkpoint-<step>``. side_files: see ``save_policy``. run_file: its run.json. Returns the folder.

    All processes call it; the first one writes, the others of its copy of the model give it their shares. sharding: of the policy. moving:
    the reference, where it follows the policy. Raises UserError where it cannot be written; nothing of it is left then.
    """
    sharding = sharding or unsharded()
    final = output_dir / f"checkpoint-{state.step}"
    partial = final.with_name(final.name + PARTIAL)
    try:
        if topology.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        written = _write_tensors(partial, policy, optimizer, side_files, topology, sharding, moving)
        if topology.is_main:
            if run_file is not None:
                written[RUN_FILE] = write_bytes(partial / RUN_FILE, run_file)
            written[STATE_FILE] = write_json(partial / STATE_FILE, asdict(state))
            write_manifest(partial, written)
            if final.exists():  # a damaged one that a run which went back comes by again
                remove_checkpoint(final)
            partial.rename(final)
            sync_folder(output_dir)
    except (OSError, UserError) as error:
        if topology.is_main:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk it would be in the way of all that follows
        raise UserError(_not_saved(output_dir, state.step, error)) from error
    return final


def _write_tensors(
    partial: Path,
    policy: Decoder,
    optimizer: AdamW,
    side_files: Mapping[str, bytes],
    topology: Topology,
    sharding: Sharding,
    moving: MovingReference | None,
) -> dict[str, Written]:
    """Write what holds tensors, and what belongs to it; all processes call it. Returns what this one wrote, by path."""
    written = save_policy(partial, policy, side_files, topology, sharding)
    if moving is not None:
        moving.sharding.leave()
        if topology.is_main:
            (partial / REFERENCE_DIR).mkdir()
        with moving.standing():
            reference = save_policy(partial / REFERENCE_DIR, moving.model, {}, topology, moving.sharding)
        written |= {f"{REFERENCE_DIR}/{name}": it for name, it in reference.items()}
    if topology.replicas.rank == 0:
        moments = _save_optimizer(partial / OPTIMIZER_FILE, optimizer, policy, topology, sharding)
        written |= {} if moments is None else {OPTIMIZER_FILE: moments}
    return written


def _not_saved(output_dir: Path, step: int, error: OSError | UserError) -> str:
    """What a run says that cannot write a checkpoint: why, what is still whole, and what to do."""
    cause = error.__cause__ if isinstance(error, UserError) else error
    if not isinstance(cause, OSError):
        return str(error)  # not the disk's fault
    kept = [path.name for number, path in list_checkpoints(output_dir) if number != step]
    why = f"{error}" if isinstance(error, UserError) else f"{error.filename or output_dir}: {error.strerror or error}."
    room = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    mend = "make room (save_total_limit keeps fewer checkpoints)" if room else "see to it that output_dir can be written"
    if not kept:
        return f"checkpoint-{step} was not written: {why} There is no earlier one: {mend}, then start again"
    return f"checkpoint-{step} was not written: {why} {kept[-1]} is whole: {mend}, then go on with --resume_from_checkpoint true"


def save_policy(
    folder: Path, policy: Decoder, side_files: Mapping[str, bytes], topology: Topology = SINGLE, sharding: Sharding | None = None
) -> dict[str, Written]:
    """Write the weights in the dtype in which they are held, or the adapter alone, with config and side files: see ``weights.save_model``.

    All processes call it, as ``save_checkpoint``. Returns what this one wrote, by file name.
    """
    written: dict[str, Written] = {}
    if topology.replicas.rank == 0:
        named = dict(policy.trained())
        dtype = str(next(iter(named.values())).dtype).removeprefix("paddle.")
        whole = whole_tensors(named, (sharding or unsharded()).keepers, dtype, policy, topology)
        target = folder if topology.is_main else None
        if policy.adapter is None:
            written = save_model(whole, policy.config, target, side_files, dtype)
        else:
            written = save_adapter(whole, policy.config, policy.adapter, target, side_files, dtype)
    return written


def load_trained(policy: Decoder, folder: Path) -> None:
    """Read what ``save_policy`` wrote: all weights, or the adapter beside them."""
    if policy.adapter is None:
        load_weights(policy, folder)
    else:
        fill(policy, read_values(folder, policy.config, policy.adapter.settings))


def _save_optimizer(path: Path, optimizer: AdamW, policy: Decoder, topology: Topology, sharding: Sharding) -> Written | None:
    """Write the optimizer's tensors, each whole, one at a time."""
    held = optimizer_state(optimizer, sharding.own(policy))
    shapes = policy.trained_shapes()
    whole = whole_tensors(held, sharding.owners, "float32", policy, topology)
    kinds = ("moment1", "moment2") if policy.trained()[0][1].dtype == paddle.float32 else ("moment1", "moment2", "master")
    specs = [TensorSpec(f"{name}.{kind}", "float32", shape) for name, shape in shapes.items() for kind in kinds]
    specs += [TensorSpec(power, "float32", (1,)) for power in ("beta1_pow", "beta2_pow")]

    def stored(name: str) -> Iterator[np.ndarray]:
        tensor = whole(name) if parameter_of(name, shapes) in shapes else held[name]
        if tensor is not None:
            yield memory_of(tensor)

    return write_streamed(path if topology.is_main else None, specs, stored, {"format": "paddlealign"})


def load_checkpoint(
    folder: Path,
    policy: Decoder,
    optimizer: AdamW,
    precision: Precision,
    sharding: Sharding | None = None,
    moving: MovingReference | None = None,
) -> TrainState:
    """Put weights, optimizer, loss scaler and state back as they were saved. sharding, moving: see ``save_checkpoint``."""
    load_trained(policy, folder)
    if moving is not None:
        if not (folder / REFERENCE_DIR).is_dir():
            raise UserError(
                f"{folder}: its folder {REFERENCE_DIR} is missing, without which this run cannot go on; name another checkpoint"
            )
        moving.sharding.leave()
        with moving.standing():
            load_trained(moving.model, folder / REFERENCE_DIR)
    try:
        places = read_header(folder / OPTIMIZER_FILE)
        load_optimizer_state(optimizer, (sharding or unsharded()).own(policy), own_share(lambda name: read_all(places[name]), policy))
        state = read_state(folder)
    except (OSError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{folder}: not a checkpoint that this run can go on from ({error}); name an older checkpoint-<step>") from error
    precision.load_scaler(state.scaler)
    return state


def read_state(folder: Path) -> TrainState:
    """Where a checkpoint's run stood. Raises UserError and TypeError where the file says nothing of the kind."""
    state = TrainState(**read_json_object(folder / STATE_FILE))
    for name, kind in _KINDS.items():
        value = getattr(state, name)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise TypeError(f"{STATE_FILE}: {name} is {shown(value)}")
    if state.window is not None:
        Sums(**state.window)
    return state
