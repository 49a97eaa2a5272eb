"""``--replay_step``: one step of a run that is there, computed again and shown; the run itself is not touched."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paddlealign.arguments.paths import RUN_FILE
from paddlealign.arguments.results import TrainArguments
from paddlealign.errors import UserError
from paddlealign.models.tensor_files import write_json
from paddlealign.parallel.topology import Topology
from paddlealign.recipes.device import say, show
from paddlealign.recipes.run_file import refuse_other_run
from paddlealign.training.checkpoint import TrainState, load_checkpoint
from paddlealign.training.progress import Progress
from paddlealign.training.replay import Replay, replay
from paddlealign.training.run_folder import list_checkpoints
from paddlealign.training.run_log import plain_numbers, read_incidents, read_metrics
from paddlealign.training.task import Task

_SHOWN_ROWS = 20
_COLUMNS = (
    ("weights", "norm"),
    ("weights", "max"),
    ("activations", "rms"),
    ("activations", "max"),
    ("gradients", "norm"),
    ("gradients", "max"),
)


def replay_start(output_dir: Path, step: int) -> Path | None:
    """The newest checkpoint before step number ``step``; None where there is none before it. Raises UserError where there is no run."""
    if not (output_dir / RUN_FILE).exists():
        raise UserError(f"replay_step: {output_dir} holds no run (no {RUN_FILE}); give the output_dir and the arguments of the run")
    before = [path for number, path in list_checkpoints(output_dir) if number < step]
    return before[-1] if before else None


def refuse_layout(topology: Topology, sharding: str) -> None:
    """Raise UserError where no process holds all of the weights and gradients."""
    cut = {"tensor_parallel_degree": topology.tensor.size, "pipeline_parallel_degree": topology.pipeline.size}
    cut["sharding"] = topology.shards.size if sharding in ("stage2", "stage3") else 1
    named = [name for name, size in cut.items() if size > 1]
    if named:
        raise UserError(
            f"replay_step with {', '.join(named)} in several processes: no process holds all weights and gradients. Start it in one "
            "process, or with data parallelism alone (sharding stage1 at most); the step is the same, but for rounding"
        )


def replay_run(arguments: TrainArguments, task: Task, resume: Path | None, run: dict[str, Any]) -> None:
    """Compute the step again, print what is in it, and write ``replay_<step>.json`` into output_dir. Raises UserError."""
    settings = arguments.training
    output_dir, step = Path(settings.output_dir), settings.replay_step
    assert step is not None
    if step > task.feed.total_steps:
        raise UserError(f"replay_step: {step} is beyond the run's last step, {task.feed.total_steps}")
    refuse_other_run((resume or output_dir) / RUN_FILE, run)
    state = TrainState()
    if resume is not None:
        state = load_checkpoint(resume, task.policy, task.optimizer, task.precision, task.sharding, task.moving)
    begun = "the start" if resume is None else resume.name
    say(f"replay of step {step}: from {begun}, {step - 1 - state.step} steps to go before it")
    progress = Progress(step - 1, state.step, settings.disable_tqdm)
    found = replay(task, settings, state, step, progress)
    progress.close()
    if not task.topology.is_main:
        return
    logged = _logged(output_dir, step)
    for line in [*_layer_table(found), "", *_row_table(found), ""]:
        show(line)
    path = output_dir / f"replay_{step}.json"
    first = found.first_broken()
    write_json(path, plain_numbers({"step": step, "from": begun, **asdict(found), "first_not_finite": first, "logged": logged}))
    show(f"step {step}: loss {found.loss:.6f}, gradient's norm {found.norm:.6f}, learning rate {found.rate:.3e}")
    if logged is not None:
        same = all(str(logged[name]) == str(plain_numbers(value)) for name, value in (("loss", found.loss), ("grad_norm", found.norm)))
        show("the run logged the same" if same else f"the run logged loss {logged['loss']} and norm {logged['grad_norm']}")
    show(f"numbers that are not finite begin in the {first.removeprefix('the ')}" if first else "all numbers are finite")
    say(f"written: {path}")


def _logged(output_dir: Path, step: int) -> dict[str, Any] | None:
    """What the run said of exactly this step; None where its lines are of several steps."""
    for line in read_incidents(output_dir):
        if line.get("step") == step:
            return {name: line[name] for name in ("loss", "grad_norm")}
    trained = [line for line in read_metrics(output_dir) if "loss" in line]
    steps = [line["step"] for line in trained]
    if step not in steps or (step > 1 and step - 1 not in steps):
        return None
    return {name: trained[steps.index(step)][name] for name in ("loss", "grad_norm")}


def _layer_table(found: Replay) -> list[str]:
    """A line for each layer."""
    rows = [["layer", *(f"{kind} {name}" for kind, name in _COLUMNS), "not finite"]]
    for layer, kinds in found.layers.items():
        values = [f"{kinds[kind][name]:.4g}" if kind in kinds else "" for kind, name in _COLUMNS]
        broken = [f"{kind} {it['not_finite']:.2%}" for kind, it in kinds.items() if it["not_finite"]]
        rows.append([layer, *values, ", ".join(broken) or "none"])
    return _aligned(rows)


def _row_table(found: Replay) -> list[str]:
    """A line for each row, those that are not finite first, then by their part of the loss."""
    ordered = sorted(found.rows, key=lambda row: (math.isfinite(row["part_of_loss"]), -abs(row["part_of_loss"])))
    rows = [["row", "tokens", "scored", "part of the loss"]]
    rows += [[str(it["row"]), str(it["tokens"]), str(it["scored"]), f"{it['part_of_loss']:.6g}"] for it in ordered[:_SHOWN_ROWS]]
    more = [f"... and {len(ordered) - _SHOWN_ROWS} more rows"] if len(ordered) > _SHOWN_ROWS else []
    return _aligned(rows) + more


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        lines.append("  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]))
    return lines
