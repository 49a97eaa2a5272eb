"""A step under a layout: the memory, the traffic and the time of the device that has the most."""

from dataclasses import dataclass

from paddlealign.models.config import DecoderConfig
from paddlealign.models.parameters import cut_layers
from paddlealign.planning.communication import Traffic, step_traffic
from paddlealign.planning.compute import model_flops, stage_flops
from paddlealign.planning.layout import Holding, Job, Layout, head_positions, hold
from paddlealign.planning.memory import Memory, stage_memory

GIB = 1 << 30
Holdings = dict[tuple[int, ...], Holding]


@dataclass(frozen=True)
class Figures:
    """What is assumed of the devices.

    memory_gib: of one; reserve_gib: what is kept free of it. per_node: devices of a machine. tflops: of one, at most, in the training's
    dtype; achieved_share: which share of it is reached. intra_gbs, inter_gbs: what one sends within a machine and to another, 1e9 bytes a
    second.
    """

    memory_gib: float
    reserve_gib: float
    per_node: int
    tflops: float
    achieved_share: float
    intra_gbs: float
    inter_gbs: float

    @property
    def room(self) -> float:
        """Bytes that a run may take on a device."""
        return (self.memory_gib - self.reserve_gib) * GIB


@dataclass(frozen=True)
class Plan:
    """What a layout takes.

    memory: of the stage that holds most, memory_stage. compute_seconds: arithmetic of a step, in the stage that takes longest. traffic: of
    that stage, traffic_seconds. bubble_seconds: what a pipeline waits. useful_flops: of a step, on all devices, nothing computed twice.
    fits: in the devices' memory but for the reserve.
    """

    layout: Layout
    memory: Memory
    memory_stage: int
    compute_seconds: float
    traffic: tuple[Traffic, ...]
    traffic_seconds: float
    bubble_seconds: float
    useful_flops: float
    fits: bool

    @property
    def seconds(self) -> float:
        """Expected time of a step."""
        return self.compute_seconds + self.traffic_seconds + self.bubble_seconds

    def utilization(self, figures: Figures) -> float:
        """Useful arithmetic as a share of what the devices could do."""
        return self.useful_flops / (self.seconds * self.layout.devices * figures.tflops * 1e12)


def plan_step(job: Job, layout: Layout, figures: Figures, known: Holdings) -> Plan:
    """What a layout takes. known: what devices hold, kept from call to call and filled here."""
    stages = range(layout.pipeline)
    holdings = [_hold(job.config, True, layout, stage, known) for stage in stages]
    references = [_hold(job.reference, job.reference == job.config, layout, stage, known) if job.reference else None for stage in stages]
    tokens, targets = layout.rows * job.longest.tokens, layout.rows * head_positions(job.config, job.longest)
    memories = [stage_memory(job, layout, stage, holdings[stage], references[stage], tokens, targets) for stage in stages]
    most = max(stages, key=lambda stage: memories[stage].total)

    layers = job.config.num_layers
    clock: list[tuple[float, float, float, tuple[Traffic, ...]]] = []
    for stage in stages:
        flops = stage_flops(job, layout, *cut_layers(layers, layout.pipeline, stage), has_head=stage == layout.pipeline - 1)
        compute = flops / (figures.tflops * 1e12 * figures.achieved_share)
        traffic = tuple(step_traffic(job, layout, stage, holdings[stage], references[stage], figures.per_node))
        each = sum(seconds_of(it, figures) for it in traffic if it.each_micro_batch) / layout.micro_batches
        after = sum(seconds_of(it, figures) for it in traffic if not it.each_micro_batch)
        clock.append((compute, each, after, traffic))
    compute, each, _, traffic = max(clock, key=lambda it: it[0] + it[1])
    after = max(it[2] for it in clock)
    return Plan(
        layout=layout,
        memory=memories[most],
        memory_stage=most,
        compute_seconds=layout.micro_batches * compute,
        traffic=traffic,
        traffic_seconds=layout.micro_batches * each + after,
        bubble_seconds=(layout.pipeline - 1) * (compute + each),
        useful_flops=model_flops(job.config, job.usual) * layout.rows * layout.micro_batches * layout.data,
        fits=memories[most].total <= figures.room,
    )


def _hold(config: DecoderConfig, is_trained: bool, layout: Layout, stage: int, known: Holdings) -> Holding:
    """What ``hold`` gives; stages between the ends differ in the number of their layers only."""
    first, last = cut_layers(config.num_layers, layout.pipeline, stage)
    key = (is_trained, layout.tensor, layout.pipeline, layout.shards, last - first, stage == 0, stage == layout.pipeline - 1)
    if key not in known:
        known[key] = hold(config, layout, stage)
    return known[key]


def seconds_of(traffic: Traffic, figures: Figures) -> float:
    """How long a device sends."""
    rate = figures.intra_gbs if not traffic.links else min(figures.intra_gbs, traffic.links * figures.inter_gbs)
    return traffic.sent / (1e9 * rate)
