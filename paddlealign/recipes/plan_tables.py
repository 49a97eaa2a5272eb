"""The tables of a plan as text, as wide as they need to be, with or without a terminal."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from paddlealign.messages.language import translated
from paddlealign.planning.layout import Layout
from paddlealign.planning.step import GIB, Figures, Plan, seconds_of


def plans_table(plans: Sequence[Plan], figures: Figures) -> str:
    """A line for each plan."""
    titles = ["tensor", "pipeline", "data", "sharding", "sequence_parallel", "recompute", "micro-batches", "GiB", "bubble", "s a step"]
    rows = []
    for plan in plans:
        layout = plan.layout
        cells = [str(layout.tensor), str(layout.pipeline), str(layout.data), sharding(layout)]
        cells += [_yes(layout.sequence_parallel), _yes(layout.recompute), f"{layout.micro_batches} of {layout.rows}"]
        cells += [f"{plan.memory.total / GIB:.1f}", f"{layout.bubble:.0%}", f"{plan.seconds:.2f}"]
        rows.append([*cells, f"{plan.utilization(figures):.0%}"])
    return _table([*titles, "useful"], rows)


def simple_table(simple: Sequence[tuple[str, Plan | None]], figures: Figures) -> str:
    """A line for each simple layout: what it takes, and whether that fits."""
    rows = []
    for name, plan in simple:
        if plan is None:
            rows.append([name, "", "", "the model or the rows of a step cannot be cut so"])
            continue
        room, needed = figures.memory_gib - figures.reserve_gib, plan.memory.total / GIB
        verdict = "fits" if plan.fits else f"does not fit: {needed - room:.1f} GiB too much"
        rows.append([name, f"{needed:.1f}", f"{plan.seconds:.2f}", verdict])
    return _table(["layout", "GiB", "s a step", ""], rows)


def memory_table(plan: Plan, figures: Figures) -> str:
    """What the fullest device holds."""
    memory = plan.memory
    parts = ["weights", "optimizer", "gradients", "activations", "head", "reference"]
    cells = [f"{getattr(memory, name) / GIB:.2f}" for name in parts]
    room = f"{memory.total / GIB:.2f} of {figures.memory_gib - figures.reserve_gib:g}"
    return _table([*parts, "total", "stage"], [[*cells, room, str(memory_stage(plan))]])


def memory_stage(plan: Plan) -> str:
    """The stage that holds most, counted from 1."""
    return f"{plan.memory_stage + 1} of {plan.layout.pipeline}"


def traffic_table(plan: Plan, figures: Figures) -> str:
    """What a device sends in a step, by kind."""
    rows = [
        [
            it.kind,
            f"{it.sent / 1e9:.2f}",
            f"{it.links} links to other machines" if it.links else "within a machine",
            f"{seconds_of(it, figures):.2f}",
        ]
        for it in plan.traffic
        if it.sent
    ]
    return _table(["a device sends in a step", "GB", "", "s"], rows) if rows else ""


def time_table(plan: Plan, figures: Figures) -> str:
    """Where a step's time goes."""
    parts = {"arithmetic": plan.compute_seconds, "traffic": plan.traffic_seconds, f"bubble ({plan.layout.bubble:.1%})": plan.bubble_seconds}
    tflop = plan.useful_flops / plan.layout.devices / 1e12
    titles = [*parts, "s a step", "useful TFLOP a device", "useful share of the devices"]
    return _table(
        titles, [[*(f"{it:.2f}" for it in parts.values()), f"{plan.seconds:.2f}", f"{tflop:,.0f}", f"{plan.utilization(figures):.1%}"]]
    )


def sharding(layout: Layout) -> str:
    """ZeRO's stage and over how many."""
    return f"stage{layout.sharding} of {layout.shards}" if layout.sharding else "-"


def _yes(flag: bool) -> str:
    return "yes" if flag else "-"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(titles):
        numeric = all(row[number][:1].isdigit() for row in rows)
        table.add_column(translated(title), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(translated(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=160).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip()) + "\n"
