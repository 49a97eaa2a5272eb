"""A plan: what a training run takes on devices that need not be there, and the layouts that suit it best."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paddlealign.arguments.plan import Planned
from paddlealign.arguments.results import DpoArguments
from paddlealign.errors import UserError
from paddlealign.models.config import read_config
from paddlealign.models.parameters import cut_problem, parameter_shapes
from paddlealign.models.score_head import with_score_head
from paddlealign.planning.layout import NUMBER_BYTES, Job, Layout, Row
from paddlealign.planning.search import Search, search
from paddlealign.planning.step import GIB, Figures, Plan, plan_step
from paddlealign.recipes.device import say, show
from paddlealign.recipes.plan_tables import memory_table, plans_table, simple_table, time_table, traffic_table

SHOWN = 5


def run(arguments: Planned) -> None:
    """Print the plan of the layout that is set, or of the best ones. Raises UserError."""
    job, figures, rows = describe_job(arguments), describe_devices(arguments), rows_of_step(arguments)
    for note in arguments.notes:
        say(f"note: {note}")
    show(told(arguments, job, figures, rows))
    if arguments.searches:
        found, _ = find(arguments)
        show_search(found, figures)
        plans = list(found.best[:SHOWN])
    else:
        plans = [plan_step(job, set_layout(arguments, job, rows), figures, {})]
        show(plans_table(plans, figures))
    if plans:
        show_plan(plans[0], figures)
    if arguments.plan.json:
        path = Path(arguments.plan.json)
        content = {"figures": asdict(figures), "rows_per_step": rows, "plans": [as_json(it, figures) for it in plans]}
        try:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"json: {path} cannot be written ({error.strerror}); name another file") from error
        say(f"written to {path}")


def find(arguments: Planned) -> tuple[Search, Figures]:
    """The best layouts, and what they assume. Raises UserError where no layout takes the rows of a step."""
    job, figures, rows = describe_job(arguments), describe_devices(arguments), rows_of_step(arguments)
    devices = arguments.plan.devices
    found = search(job, devices, figures, rows, arguments.training.training.per_device_train_batch_size)
    if found.least is None:
        raise UserError(
            f"rows_per_step {rows}: no layout of {devices} devices shares so many rows evenly. Set it to a multiple of {devices}, or of a "
            "divisor of it"
        )
    return found, figures


def rows_of_step(arguments: Planned) -> int:
    """Dataset rows that all devices together take in an optimizer step."""
    training = arguments.training.training
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return arguments.plan.rows_per_step or batch * arguments.degrees.data_parallel_degree


def describe_job(arguments: Planned) -> Job:
    """What the arguments train, in the longest and in the usual rows."""
    run = arguments.training
    training = run.training
    if training.tokens_per_batch is not None:
        raise UserError(
            f"tokens_per_batch {training.tokens_per_batch}: plans count rows, each as long as max_length allows. Unset it and set "
            "per_device_train_batch_size to as many rows as these tokens are"
        )
    if training.plain_path:
        raise UserError("plain_path: plans count what training needs without it. Set it to false")
    if training.fp16:
        raise UserError("fp16: plans are made for bf16 and float32. Set bf16 in its place; fp16 takes as much memory and time")
    config, reference, of_reference = read_config(run.model.model_name_or_path), None, None
    responses = 1 if run.command == "sft" else 2
    if isinstance(run, DpoArguments):
        if run.objective.reference_mode == "frozen" and not run.objective.reference_free:
            reference = read_config(run.objective.ref_model_name_or_path or run.model.model_name_or_path)
            of_reference = NUMBER_BYTES.get("float32" if training.device == "cpu" else run.objective.reference_dtype)  # none of "auto"
    elif run.command == "reward":
        config = with_score_head(config, pad_token_id=0)
    on_cpu = training.device == "cpu"
    dtype = "bfloat16" if training.bf16 and not on_cpu else "float32"
    longest = Row(responses * run.data.max_length, 1.0, responses)
    usual = Row(arguments.plan.tokens_per_row or longest.tokens, arguments.plan.scored_share, responses)
    if usual.tokens > longest.tokens:
        raise UserError(
            f"tokens_per_row {usual.tokens}: the longest row has {longest.tokens:,} tokens, {responses} x max_length {run.data.max_length}"
        )
    return Job(config, reference, dtype, training.fp16_opt_level if dtype != "float32" else "O1", longest, usual, on_cpu, of_reference)


def describe_devices(arguments: Planned) -> Figures:
    """What the arguments say of the devices."""
    plan = arguments.plan
    return Figures(
        memory_gib=plan.device_memory_gib,
        reserve_gib=plan.reserve_gib,
        per_node=plan.devices_per_node,
        tflops=plan.device_tflops,
        achieved_share=plan.achieved_share,
        intra_gbs=plan.intra_node_gbs,
        inter_gbs=plan.inter_node_gbs,
    )


def set_layout(arguments: Planned, job: Job, rows: int) -> Layout:
    """The layout that the arguments set, which takes so many rows a step; refused where the model or the rows do not divide."""
    degrees, training = arguments.degrees, arguments.training.training
    for config in (job.config, job.reference) if job.reference else (job.config,):
        problem = cut_problem(config, degrees.tensor_parallel_degree, degrees.pipeline_parallel_degree, degrees.sharding_parallel_degree)
        if problem:
            raise UserError(problem)
    batch, data = training.per_device_train_batch_size, degrees.data_parallel_degree
    if rows % (batch * data):
        raise UserError(
            f"rows_per_step {rows}: per_device_train_batch_size {batch} x data_parallel_degree {data} = {batch * data} does not divide it, "
            f"and gradient_accumulation_steps is what is left. Set rows_per_step to a multiple of {batch * data}"
        )
    stage = int(degrees.sharding.removeprefix("stage") or 0)
    return Layout(
        tensor=degrees.tensor_parallel_degree,
        pipeline=degrees.pipeline_parallel_degree,
        data=data,
        sharding=stage,
        shards=degrees.sharding_parallel_degree,
        sequence_parallel=degrees.sequence_parallel,
        recompute=training.recompute or stage == 3,
        rows=batch,
        micro_batches=rows // (batch * data),
    )


def told(arguments: Planned, job: Job, figures: Figures, rows: int) -> str:
    """What is planned, and what is assumed."""
    run = arguments.training
    count = sum(math.prod(shape) for shape in parameter_shapes(job.config).values())
    reference = ""
    if isinstance(run, DpoArguments):
        reference = ", no reference" if run.objective.reference_free else f", reference {run.objective.reference_mode}"
    longest = f"{job.longest.tokens:,.0f} tokens ({job.longest.responses} x max_length)"
    lines = [
        f"model      {run.model.model_name_or_path}: {count:,} parameters, {job.config.num_layers} layers",
        f"run        {run.command.upper()}{reference}, {job.dtype}{f' {job.level}' if job.dtype != 'float32' else ''}; "
        f"{rows} rows a step; memory for rows of {longest}, time for {job.usual.tokens:,.0f} tokens, {job.usual.scored_share:.0%} scored",
        f"devices    {arguments.plan.devices} of {figures.memory_gib:g} GiB, {figures.reserve_gib:g} left free; "
        f"{figures.per_node} a machine",
        f"assumed    {figures.tflops:g} TFLOP/s, {figures.achieved_share:.0%} reached; a device sends {figures.intra_gbs:g} GB/s within a "
        f"machine, {figures.inter_gbs:g} to others; nothing overlaps",
    ]
    return "\n".join(lines)


def show_search(found: Search, figures: Figures) -> None:
    """The best layouts, and why the simple ones were not taken."""
    show(f"\n{found.tried} layouts take so many rows a step, {len(found.best)} kinds of them fit. The fastest, one of each kind:\n")
    if found.best:
        show(plans_table(found.best[:SHOWN], figures))
    elif found.least:
        show("none fits. Least is held by this one:\n")
        show(plans_table([found.least], figures))
        show("Take more devices, a smaller max_length or per_device_train_batch_size, or bf16 with fp16_opt_level O2.\n")
    show("simple layouts, each as it takes least memory:\n")
    show(simple_table(found.simple, figures))


def show_plan(plan: Plan, figures: Figures) -> None:
    """One plan in full, with the keys to set."""
    show(f"{'the first in full' if plan.fits else 'in full'}: GiB of the device that holds most, {plan.memory.moment}\n")
    show(memory_table(plan, figures))
    show(traffic_table(plan, figures))
    show(time_table(plan, figures))
    show(json.dumps(keys_of(plan.layout), indent=2))
    if not plan.fits:
        room, needed = figures.memory_gib - figures.reserve_gib, plan.memory.total / GIB
        show(f"\nthis layout does not fit: it needs {needed:.1f} GiB of {room:.1f}. --search true looks for one that does")


def keys_of(layout: Layout) -> dict[str, Any]:
    """The argument file's keys for a layout."""
    keys: dict[str, Any] = {
        "tensor_parallel_degree": layout.tensor,
        "pipeline_parallel_degree": layout.pipeline,
        "data_parallel_degree": layout.data,
        "sharding": f"stage{layout.sharding}" if layout.sharding else "",
        "sharding_parallel_degree": layout.shards,
        "sequence_parallel": layout.sequence_parallel,
        "recompute": layout.recompute,
        "per_device_train_batch_size": layout.rows,
        "gradient_accumulation_steps": layout.micro_batches,
    }
    return keys


def as_json(plan: Plan, figures: Figures) -> dict[str, Any]:
    """A plan for programs; bytes and seconds."""
    memory = {**asdict(plan.memory), "total": plan.memory.total, "stage": plan.memory_stage}
    seconds = {"compute": plan.compute_seconds, "traffic": plan.traffic_seconds, "bubble": plan.bubble_seconds, "step": plan.seconds}
    return {
        "keys": keys_of(plan.layout),
        "fits": plan.fits,
        "memory_bytes": memory,
        "bubble": plan.layout.bubble,
        "traffic": [{"kind": it.kind, "sent_bytes": it.sent, "links_to_other_machines": it.links} for it in plan.traffic],
        "seconds": seconds,
        "useful_flops": plan.useful_flops,
        "utilization": plan.utilization(figures),
    }
