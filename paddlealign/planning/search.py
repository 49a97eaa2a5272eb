"""The layouts of so many devices that take the same rows a step, and which of them are best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paddlealign.arguments.degrees import ROW_MULTIPLE
from paddlealign.models.config import DecoderConfig
from paddlealign.models.parameters import cut_problem
from paddlealign.planning.layout import Job, Layout
from paddlealign.planning.step import Figures, Holdings, Plan, plan_step


@dataclass(frozen=True)
class Search:
    """What a search found.

    best: the layouts that fit, the fastest first, one of each kind (tensor, pipeline, data, sharding). tried: how many there were. least:
    the one that holds least, None where there was none at all. simple: each simple kind with the plan that holds least, or None where the
    rows of a step cannot be shared so.
    """

    best: tuple[Plan, ...]
    tried: int
    least: Plan | None
    simple: tuple[tuple[str, Plan | None], ...]


def layouts(configs: Sequence[DecoderConfig], devices: int, per_node: int, rows_per_step: int, most_rows: int) -> Iterator[Layout]:
    """Every layout that takes ``rows_per_step`` rows a step, in micro-batches of ``most_rows`` at most on each data process.

    configs: of the models that are cut. One that a configuration cannot be cut into is left out (``parameters.cut_problem``).

    Tensor parallelism stays within a machine. Sharding is over all data processes, or over those of a machine where there are more.
    """
    for tensor in _divisors(devices):
        if tensor > per_node or any(cut_problem(config, tensor, 1) for config in configs):
            continue
        for pipeline in _divisors(devices // tensor):
            data = devices // tensor // pipeline
            if rows_per_step % data or any(cut_problem(config, tensor, pipeline) for config in configs):
                continue
            rows = rows_per_step // data
            nearby = per_node // (tensor * pipeline)
            for sharding, shards in _shardings(data, nearby):
                if cut_problem(configs[0], tensor, pipeline, shards):
                    continue
                for rows_of_batch in (it for it in _divisors(rows) if it <= most_rows):
                    for sequence_parallel in (False, True) if tensor > 1 and ROW_MULTIPLE % tensor == 0 else (False,):
                        for recompute in (True,) if sharding == 3 else (False, True):
                            yield Layout(
                                tensor, pipeline, data, sharding, shards, sequence_parallel, recompute, rows_of_batch, rows // rows_of_batch
                            )


def search(job: Job, devices: int, figures: Figures, rows_per_step: int, most_rows: int) -> Search:
    """Plan every layout; see ``layouts``. Of two that take as long the one that holds less is better, then the simpler one."""
    known: Holdings = {}
    configs = [job.config] if job.reference is None else [job.config, job.reference]
    tried = layouts(configs, devices, figures.per_node, rows_per_step, most_rows)
    plans = [plan_step(job, layout, figures, known) for layout in tried]
    ranked = sorted((plan for plan in plans if plan.fits), key=_rank)
    best: dict[tuple[int, ...], Plan] = {}
    for plan in ranked:
        layout = plan.layout
        best.setdefault((layout.tensor, layout.pipeline, layout.data, layout.sharding), plan)
    least = min(plans, key=lambda plan: plan.memory.total, default=None)
    return Search(tuple(best.values()), len(plans), least, tuple(_simple(plans, devices)))


def _rank(plan: Plan) -> tuple[float, ...]:
    layout = plan.layout
    return (round(plan.seconds, 6), layout.pipeline * layout.tensor, layout.sharding, layout.shards, layout.recompute, plan.memory.total)


def _simple(plans: list[Plan], devices: int) -> Iterator[tuple[str, Plan | None]]:
    """What one would try first: each key alone."""
    kinds = {
        "data parallel alone": (1, 1, 0),
        "with sharding stage1": (1, 1, 1),
        "with sharding stage2": (1, 1, 2),
        "with sharding stage3": (1, 1, 3),
        f"tensor parallel {devices} alone": (devices, 1, 0),
        f"pipeline parallel {devices} alone": (1, devices, 0),
    }
    for name, kind in kinds.items():
        fitting = [plan for plan in plans if (plan.layout.tensor, plan.layout.pipeline, plan.layout.sharding) == kind]
        yield name, min(fitting, key=lambda plan: plan.memory.total, default=None)


def _shardings(data: int, nearby: int) -> Iterator[tuple[int, int]]:
    """Stage and how many processes share."""
    yield 0, 1
    for stage in (1, 2, 3) if data > 1 else ():
        yield stage, data
        if 1 < nearby < data and data % nearby == 0:
            yield stage, nearby


def _divisors(number: int) -> list[int]:
    return [it for it in range(1, number + 1) if number % it == 0]
