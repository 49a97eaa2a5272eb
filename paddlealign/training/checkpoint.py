"""Checkpoints: HuggingFace's layout, the optimizer's state beside the weights under the same names, and nothing half-written.

``output_dir/checkpoint-<step>/`` holds what HuggingFace would write for the model (or peft for its adapter), ``optimizer.safetensors``,
``trainer_state.json``, and where the reference moves, ``reference/``: that model or adapter in the same layout. A folder is written beside
under another name and then renamed, so a checkpoint that exists is whole.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.optimizer import AdamW

from paddlealign.arguments.model_files import read_json_object, shown
from paddlealign.arguments.paths import CURVES_FILE, ERROR_FILE, INCIDENTS_FILE, METRICS_FILE, RUN_FILE
from paddlealign.errors import UserError
from paddlealign.models.adapter_files import read_values, save_adapter
from paddlealign.models.decoder import Decoder
from paddlealign.models.lora import fill
from paddlealign.models.tensor_files import TensorSpec, read_header, write_json, write_streamed
from paddlealign.models.tensor_memory import memory_of
from paddlealign.models.tensor_places import read_all
from paddlealign.models.weights import load_weights, save_model
from paddlealign.parallel.sharding import Sharding, unsharded
from paddlealign.parallel.topology import SINGLE, Topology
from paddlealign.training.moving_reference import MovingReference
from paddlealign.training.optimizer import load_optimizer_state, optimizer_state
from paddlealign.training.precision import Precision
from paddlealign.training.step import Sums
from paddlealign.training.whole import own_share, parameter_of, whole_tensors

STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
REFERENCE_DIR = "reference"
_NAME = re.compile(r"checkpoint-(\d+)")
_KINDS = {
    "step": int, "epoch": int | float, "best_metric": int | float | None, "best_step": int | None, "stale_evaluations": int, "tokens": int,
    "examples": int, "window": dict | None, "scaler": dict | None, "losses": list, "skipped": int, "skipped_in_a_row": int,
}  # fmt: skip


@dataclass
class TrainState:
    """Where a run stands. With the arguments and the data it is all that a resume needs beside the tensors.

    step: optimizer steps done. epoch: passes over the data done. best_metric, best_step: of the evaluations so far. stale_evaluations:
    evaluations since the best one. tokens, examples: seen so far. window: the sums since the last line of the run log, as ``step.Sums``.
    scaler: the float16 loss scaler's own state. losses: of the last steps, by which ``guard`` knows a spike. skipped, skipped_in_a_row:
    steps that were left out for numbers that are not finite.
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


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """All whole checkpoints of a run as (step, folder), oldest first."""
    if not output_dir.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((step, path) for step, path in found if (path / STATE_FILE).exists())


def save_checkpoint(
    output_dir: Path,
    policy: Decoder,
    optimizer: AdamW,
    state: TrainState,
    side_files: Mapping[str, bytes],
    topology: Topology = SINGLE,
    sharding: Sharding | None = None,
    moving: MovingReference | None = None,
) -> Path:
    """Write ``checkpoint-<step>``, with a copy of the run's run.json. side_files: see ``save_policy``. Returns the folder.

    All processes call it; the first one writes, the others of its copy of the model give it their shares. sharding: of the policy. moving:
    the reference, where it follows the policy.
    """
    sharding = sharding or unsharded()
    final = output_dir / f"checkpoint-{state.step}"
    partial = output_dir / f"checkpoint-{state.step}.partial"
    if topology.is_main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    save_policy(partial, policy, side_files, topology, sharding)
    if moving is not None:
        moving.sharding.leave()
        if topology.is_main:
            (partial / REFERENCE_DIR).mkdir()
        with moving.standing():
            save_policy(partial / REFERENCE_DIR, moving.model, {}, topology, moving.sharding)
    if topology.replicas.rank == 0:
        _save_optimizer(partial / OPTIMIZER_FILE, optimizer, policy, topology, sharding)
    if not topology.is_main:
        return final
    if (output_dir / RUN_FILE).exists():
        shutil.copyfile(output_dir / RUN_FILE, partial / RUN_FILE)
    write_json(partial / STATE_FILE, asdict(state))
    # Only where a run went back to an earlier checkpoint and comes by again.
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return final


def save_policy(
    folder: Path, policy: Decoder, side_files: Mapping[str, bytes], topology: Topology = SINGLE, sharding: Sharding | None = None
) -> None:
    """Write the weights in the dtype in which they are held, or the adapter alone, with config and side files: see ``weights.save_model``.

    All processes call it, as ``save_checkpoint``.
    """
    if topology.replicas.rank == 0:
        named = dict(policy.trained())
        dtype = str(next(iter(named.values())).dtype).removeprefix("paddle.")
        whole = whole_tensors(named, (sharding or unsharded()).keepers, dtype, policy, topology)
        target = folder if topology.is_main else None
        if policy.adapter is None:
            save_model(whole, policy.config, target, side_files, dtype)
        else:
            save_adapter(whole, policy.config, policy.adapter, target, side_files, dtype)


def load_trained(policy: Decoder, folder: Path) -> None:
    """Read what ``save_policy`` wrote: all weights, or the adapter beside them."""
    if policy.adapter is None:
        load_weights(policy, folder)
    else:
        fill(policy, read_values(folder, policy.config, policy.adapter.settings))


def _save_optimizer(path: Path, optimizer: AdamW, policy: Decoder, topology: Topology, sharding: Sharding) -> None:
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

    write_streamed(path if topology.is_main else None, specs, stored, {"format": "paddlealign"})


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
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{STATE_FILE}: {name} is {shown(value)}")
    if state.window is not None:
        Sums(**state.window)
    return state


def find_resume(output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """Turn the key ``resume_from_checkpoint`` into a folder: None stays None, "true" is the newest checkpoint of output_dir.

    Nothing is ever resumed unasked. "true" where a run stopped before its first checkpoint starts that run again: None.
    """
    if resume_from_checkpoint is None or resume_from_checkpoint.lower() == "false":
        return None
    if resume_from_checkpoint.lower() == "true":
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints and not (output_dir / RUN_FILE).exists():
            raise UserError(
                f"resume_from_checkpoint: true, but {output_dir} holds no run; take the key away to start one, or mend output_dir"
            )
        return checkpoints[-1][1] if checkpoints else None
    folder = Path(resume_from_checkpoint)
    if not (folder / STATE_FILE).exists():
        known = ", ".join(path.name for _, path in list_checkpoints(output_dir)) or "none"
        raise UserError(f"resume_from_checkpoint: {folder} is not a checkpoint (no {STATE_FILE}); in {output_dir} there are: {known}")
    return folder


def refuse_foreign_run(output_dir: Path, resuming: bool, resume: Path | None, overwrite: bool) -> None:
    """Refuse a folder that holds a run, unless this run goes on with it or may overwrite it.

    resuming: whether a resume was asked for. resume: the checkpoint to go on from; None where there is none yet.
    """
    goes_on = resuming and (resume is None or resume.resolve().parent == output_dir.resolve())
    if goes_on or overwrite or not ((output_dir / RUN_FILE).exists() or list_checkpoints(output_dir)):
        return
    if resume is not None:
        raise UserError(
            f"output_dir: {output_dir} holds another run than {resume}. Name an empty folder, or the one that the checkpoint lies in"
        )
    raise UserError(
        f"output_dir: {output_dir} already holds a run. Go on with it by --resume_from_checkpoint true, name another folder, "
        "or replace it by --overwrite_output_dir true"
    )


def remove_run(output_dir: Path) -> None:
    """Take away what a run wrote, and nothing else. The final model's files stay until they are replaced."""
    for path in output_dir.glob("checkpoint-*"):
        if re.fullmatch(r"checkpoint-\d+(\.partial|\.abandoned)?", path.name):
            shutil.rmtree(path)
    for name in (RUN_FILE, METRICS_FILE, CURVES_FILE, ERROR_FILE, INCIDENTS_FILE):
        (output_dir / name).unlink(missing_ok=True)


def set_aside_later(output_dir: Path, step: int) -> list[str]:
    """Rename the checkpoints after ``step`` to ``checkpoint-N.abandoned``: a run that goes on from ``step`` leaves them behind.

    They would be taken for the newest by a later resume, and for this run's when the oldest are let go. Returns their old names.
    """
    later = [path for number, path in list_checkpoints(output_dir) if number > step]
    for path in later:
        aside = path.with_name(path.name + ".abandoned")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return [path.name for path in later]


def prune_checkpoints(output_dir: Path, limit: int | None, best_step: int | None) -> None:
    """Keep the newest ``limit`` checkpoints, and always the best one. None or 0 keeps all."""
    if not limit:
        return
    checkpoints = list_checkpoints(output_dir)
    kept = {step for step, _ in checkpoints[-limit:]} | {best_step}
    if best_step is not None and limit > 1 and len(kept) > limit:
        kept.discard(checkpoints[-limit][0])
    for step, path in checkpoints:
        if step not in kept:
            shutil.rmtree(path)
